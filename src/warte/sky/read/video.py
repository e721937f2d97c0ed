"""Video files, through PyAV (FFmpeg)."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from warte.core.errors import InputError
from warte.sky.read.recording import (
    BreakOffError,
    Pixels,
    Recording,
    luminance,
    needs_fps,
    parse_time,
)

_START_TAGS = ("com.apple.quicktime.creationdate", "date", "creation_time")
_LOST_FRAMES = 2  # editing programs cut this many frames without the file being damaged
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG

# Luminance is packed together with colour, or shifted up in its 16 bits: unpacked by FFmpeg.
_UNPACKED = {
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "uyyvyy411": "yuv411p",
    "ya8": "gray",
    "ya16le": "gray16le",
    "ya16be": "gray16le",
    "monob": "gray",
    "monow": "gray",
    "p010le": "yuv420p10le",
    "p010be": "yuv420p10le",
    "p012le": "yuv420p12le",
    "p016le": "yuv420p16le",
    "p210le": "yuv422p10le",
    "p216le": "yuv422p16le",
    "p410le": "yuv444p10le",
    "y210le": "yuv422p10le",
}


def open_video(path: Path, fps: float | None, start: np.datetime64 | None) -> Recording:
    """Open the first video stream of a file.

    Grey levels are the luminance plane in the file's own depth (0..255, 0..1023 for 10 bit...).
    Studio range (16..235) is stretched to that full range as a player does, but neither rounded
    nor clipped; `levels` is then 255/219. Frames are given as stored, without the rotation that
    telephones note beside them. Times come from the frames' time stamps, the start from the
    creation time where the file has one.
    """
    with _container(path) as container:
        stream = _video_stream(path, container)
        rate = fps or float(stream.average_rate or stream.guessed_rate or 0)
        count, lasts_s = _promised(container, stream)
        if start is None:
            start = _start_tag({**container.metadata, **stream.metadata})
        first = _first_frame(path, container, stream)
    if rate <= 0:
        raise needs_fps(path, "a video without a frame rate")
    levels, saturation = _scale(first)

    def source(begin: int) -> Generator[tuple[Pixels, float], None, None]:
        end_s, index = 0.0, -1
        for index, (frame, time_s) in enumerate(_decode(path, rate, fps is not None)):
            end_s = time_s + 1.0 / rate
            if index >= begin:
                yield grey(frame), time_s
        lost = 0
        if count:
            lost = count - index - 1
        elif fps is None:
            lost = round((lasts_s - end_s) * rate)
        if lost > _LOST_FRAMES:
            raise BreakOffError(f"the file promises {lost} frames more")

    return Recording(
        path=path,
        width=first.width,
        height=first.height,
        frame_count=count or None,
        fps=rate,
        start_utc=start,
        levels=levels,
        saturation=saturation,
        source=source,
    )


@contextmanager
def _container(path: Path) -> Iterator[InputContainer]:
    av.logging.set_level(None)  # FFmpeg would write to the terminal
    try:
        # Only files: a playlist must not fetch anything.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, UnicodeError) as error:
        raise InputError(
            f"{path}: not a video, or one cut short before its index; "
            "give MP4, MOV, MKV, AVI, FITS, SER or a folder of pictures"
        ) from error
    with container:
        yield container


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    name = container.format.name
    if name == "tty" or name == "image2" or name.endswith("_pipe"):
        raise InputError(f"{path}: not a video; give MP4, MOV, MKV, AVI, FITS, SER or a folder")
    if not container.streams.video:
        raise InputError(f"{path}: a file without a video stream (such as sound); give a video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _promised(container: InputContainer, stream: VideoStream) -> tuple[int, float]:
    """Number of frames (0 where the file does not say) and duration in seconds (0 likewise)."""
    if stream.duration and stream.time_base:
        return stream.frames, float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration:
        return stream.frames, container.duration / 1e6
    return stream.frames, 0.0


def _start_tag(tags: dict[str, str]) -> np.datetime64 | None:
    for name in _START_TAGS:
        start = parse_time(tags.get(name, ""))
        # Cameras without a clock write the zero of their calendar, 1904 or 1970.
        if start is not None and start > np.datetime64("1990-01-01"):
            return start
    return None


def _first_frame(path: Path, container: InputContainer, stream: VideoStream) -> VideoFrame:
    """The first frame: colour range and size are certain only once it is decoded."""
    try:
        frame = next(container.decode(stream), None)
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: not one frame can be read: {_reason(error)}; check or copy it again"
        ) from error
    if frame is None:
        raise InputError(f"{path}: holds no frame; a recording has at least two, copy it again")
    return frame


def _decode(path: Path, rate: float, equal: bool) -> Iterator[tuple[VideoFrame, float]]:
    """Frames with their times in seconds since frame 0.

    equal: space them by `rate`, whatever their time stamps.
    """
    with _container(path) as container:
        stream = _video_stream(path, container)
        zero, time_s, index = None, 0.0, -1
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                return
            except av.FFmpegError as error:
                raise BreakOffError(_reason(error)) from error
            index += 1
            if frame.is_corrupt and index > 0:
                raise BreakOffError("the next frame is damaged")
            if equal or frame.time is None or frame.time_base is None:
                time_s = index / rate
            else:
                zero = frame.time if zero is None else zero
                tick = float(frame.time_base)
                stamp = _settle(frame.time - zero, index / rate, tick)
                time_s = stamp if stamp > time_s or index == 0 else time_s + 1.0 / rate
            yield frame, time_s


def _settle(stamp: float, even: float, tick: float) -> float:
    """Containers round time stamps to their own tick; only a larger step off is a real one."""
    return even if abs(stamp - even) <= tick else stamp


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"FFmpeg says {text!r}"


def _scale(frame: VideoFrame) -> tuple[float | None, float | None]:
    """The step between grey levels, and the highest level."""
    frame = _unpack(frame)
    if "f32" in frame.format.name or "f16" in frame.format.name:
        return None, None
    top = float(2 ** _depth(frame) - 1)
    return (_studio_gain(frame) if _is_studio(frame) else 1.0), top


def _unpack(frame: VideoFrame) -> VideoFrame:
    name = frame.format.name
    return frame.reformat(format=_UNPACKED[name]) if name in _UNPACKED else frame


def _depth(frame: VideoFrame) -> int:
    """Bits per plane of the grey levels that `grey` gives."""
    name = frame.format.name
    if _has_luma(name) or name.startswith("gbr"):
        return frame.format.components[0].bits
    return 8 if _is_eight_bit(frame) else 16


def _is_eight_bit(frame: VideoFrame) -> bool:
    return not frame.format.name.endswith(("16le", "16be", "48le", "48be", "64le", "64be"))


def _has_luma(name: str) -> bool:
    """Whether the first plane is luminance."""
    return name.startswith(("gray", "yuv", "nv"))


def _is_studio(frame: VideoFrame) -> bool:
    name = frame.format.name
    if not _has_luma(name) or name.startswith("yuvj"):
        return False
    if name.startswith("gray"):
        return frame.color_range == _LIMITED_RANGE
    return frame.color_range != _FULL_RANGE


def _studio_gain(frame: VideoFrame) -> float:
    """Full over studio range, (2^n - 1) / (219 * 2^(n - 8)) (ITU-R BT.601, section 2.5.3)."""
    depth = _depth(frame)
    return (2**depth - 1) / (219.0 * 2.0 ** (depth - 8))


def grey(frame: VideoFrame) -> Pixels:
    """Luminance of a decoded frame, (H, W), in units of its own depth; see `open_video`."""
    frame = _unpack(frame)
    name = frame.format.name
    if _has_luma(name):
        pixels = _plane(frame, 0).astype(np.float32)
        if _is_studio(frame):
            pixels -= np.float32(2.0 ** (_depth(frame) - 4))
            pixels *= np.float32(_studio_gain(frame))
        return pixels
    if name.startswith("gbr"):  # planes are green, blue, red
        return luminance(*(_plane(frame, plane).astype(np.float32) for plane in (2, 0, 1)))
    colours = frame.to_ndarray(format="rgb24" if _is_eight_bit(frame) else "rgb48le")
    return luminance(*(colours[..., channel].astype(np.float32) for channel in range(3)))


def _plane(frame: VideoFrame, number: int) -> NDArray:
    """One plane without the padding of its rows."""
    plane, bits = frame.planes[number], frame.format.components[0].bits
    kind = f"{'>' if frame.format.is_big_endian else '<'}{'f4' if bits == 32 else 'u2'}"
    dtype = np.dtype(np.uint8 if bits <= 8 else kind)
    rows = np.frombuffer(memoryview(plane), dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: frame.height, : frame.width]
