"""Write recordings in the formats that `read` reads."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from warte.core.errors import OutputError, SettingsError
from warte.sky.read.ser import EPOCH, HEADER, MAGIC

# Suffix -> codec unless another one is asked for.
VIDEO_CODECS = {".mkv": "ffv1", ".avi": "ffv1", ".mp4": "h264", ".mov": "h264"}
FOLDER_KINDS = {"png": ".png", "tiff": ".tiff", "jpeg": ".jpg", "fits": ".fits"}
KEY_FRAME_EVERY = 12  # frames; common for cameras that write H.264
_FITS_BLOCK = 2880  # bytes, FITS standard 4.0 section 3.1


def write_recording(
    path: str | Path,
    frames: Iterable[NDArray],
    *,
    fps: float,
    start_utc: np.datetime64 | None = None,
    bits: int = 8,
    codec: str | None = None,
    crf: int = 18,
) -> None:
    """Write frames into one file, whose format follows from its suffix.

    .mkv, .avi: FFV1, lossless, 8 or 16 bit grey. .mp4, .mov: H.264 4:2:0, 8 bit, full range.
    .fits: a cube with DATE-OBS, EXPTIME and FPS. .fits.fz: the same compressed (held in
    memory while it is written). .ser: SER version 3 with time stamps where start_utc is given.

    path: the file; its folder is made. An existing file is replaced.
    frames: (T, H, W) or any iterable of (H, W), taken one at a time; (H, W, 3) red, green, blue
        too, for 8-bit video. Values are rounded and clipped to the range of `bits`.
    fps: frames per second, > 0. start_utc: start of frame 0, written where it is given (MP4 and
        AVI keep it as a text tag).
    bits: 8 or 16; 0 means 32-bit floating point (FITS only).
    codec: 'ffv1' or 'h264', to choose another one than the suffix does. crf: quality of H.264,
        0 (best) to 51.
    Raises SettingsError for what cannot go together, ValueError for no frames or frames of
    different sizes, OutputError where the file cannot be made.
    """
    path = Path(path)
    name = path.name.lower()
    _check(fps, bits, crf)
    _make_folder(path.parent)
    if name.endswith((".fits.fz", ".fits")):
        write = _write_fits_compressed if name.endswith(".fz") else _write_fits
        _need(codec is None, f"codec {codec!r} for {path.name}; leave it out for FITS")
        write(path, _prepared(frames, bits), fps, start_utc)
    elif name.endswith(".ser"):
        _need(codec is None, f"codec {codec!r} for {path.name}; leave it out for SER")
        _need(bits > 0, "floating point in SER; give 8 or 16 bits, or write .fits")
        _write_ser(path, _prepared(frames, bits), fps, start_utc, bits)
    elif path.suffix.lower() in VIDEO_CODECS:
        chosen = codec or VIDEO_CODECS[path.suffix.lower()]
        _need(chosen in ("ffv1", "h264"), f"codec {chosen!r}; give 'ffv1' or 'h264'")
        _need(bits > 0, "floating point in a video; give 8 or 16 bits, or write .fits")
        allowed = bits == 8 or chosen == "ffv1"
        _need(allowed, f"{bits} bits in H.264; give 8, or write .mkv, .fits or .ser")
        _write_video(path, _prepared(frames, bits), fps, start_utc, chosen, crf)
    else:
        raise SettingsError(
            f"--out {path.name}: suffix {path.suffix!r} is not known; "
            "give .mkv, .mp4, .mov, .avi, .fits, .fits.fz or .ser"
        )


def write_frames_folder(
    folder: str | Path,
    frames: Iterable[NDArray],
    *,
    kind: str,
    fps: float,
    start_utc: np.datetime64 | None = None,
    bits: int = 8,
) -> None:
    """Write one picture file per frame, frame_000000.png and so on.

    kind: 'png', 'tiff', 'jpeg' (8 bit, lossy) or 'fits' (with DATE-OBS where start_utc is given,
        EXPTIME and FPS). bits: 8 or 16; 0 means 32-bit floating point (TIFF, FITS).
    fps, start_utc, frames: as for `write_recording`; only FITS keeps the times.
    """
    folder = Path(folder)
    _check(fps, bits, 18)
    if kind not in FOLDER_KINDS:
        raise SettingsError(f"picture kind {kind!r} is not known; give {', '.join(FOLDER_KINDS)}")
    allowed = {"png": (8, 16), "tiff": (0, 8, 16), "jpeg": (8,), "fits": (0, 8, 16)}[kind]
    _need(bits in allowed, f"{bits} bits in {kind}; give one of {allowed}")
    _make_folder(folder)
    for index, frame in enumerate(_prepared(frames, bits)):
        file = folder / f"frame_{index:06d}{FOLDER_KINDS[kind]}"
        if kind == "fits":
            header = _fits_header(frame, None, fps, _moment(start_utc, index, fps))
            file.write_bytes(header.tostring().encode() + _padded(_fits_bytes(frame)))
        else:
            _write_picture(file, frame)


def _check(fps: float, bits: int, crf: int) -> None:
    if not (np.isfinite(fps) and fps > 0):
        raise SettingsError(f"--fps {fps} is not a rate; give frames per second above 0")
    if bits not in (0, 8, 16):
        raise SettingsError(f"--bits {bits} is not possible; give 8, 16, or 0 for floating point")
    if not 0 <= crf <= 51:
        raise SettingsError(f"--crf {crf} is out of range; give 0 (best) to 51")


def _need(fits_together: bool, message: str) -> None:
    if not fits_together:
        raise SettingsError(f"cannot write {message}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot make this folder ({error.strerror}); choose another one"
        ) from error


def _prepared(frames: Iterable[NDArray], bits: int) -> Iterator[NDArray]:
    """Frames in the type of the file, checked to be of one size."""
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        shape = frame.shape if shape is None else shape
        if frame.shape != shape or frame.ndim not in (2, 3):
            raise ValueError(f"frame {index} has shape {frame.shape}, frame 0 has {shape}")
        yield _quantised(frame, bits)
    if shape is None:
        raise ValueError("no frames to write")


def _quantised(frame: NDArray, bits: int) -> NDArray:
    if bits == 0:
        return frame.astype(np.float32, copy=False)
    dtype = np.dtype(np.uint8 if bits == 8 else np.uint16)
    if frame.dtype == dtype:
        return frame
    top = 2**bits - 1
    if np.issubdtype(frame.dtype, np.integer):
        return np.clip(frame, 0, top).astype(dtype)
    return np.clip(np.rint(frame), 0, top).astype(dtype)


def _moment(start_utc: np.datetime64 | None, index: int, fps: float) -> np.datetime64 | None:
    if start_utc is None:
        return None
    offset = np.timedelta64(round(index / fps * 1e6), "us")
    return np.datetime64(start_utc.astype("datetime64[us]") + offset)


def _write_video(
    path: Path,
    frames: Iterator[NDArray],
    fps: float,
    start_utc: np.datetime64 | None,
    codec: str,
    crf: int,
) -> None:
    frame = next(frames)
    rate = Fraction(fps).limit_denominator(100_000)
    av.logging.set_level(None)
    _create(path).close()
    # Without the flag Matroska gets a random identifier: the same frames make the same file.
    with av.open(f"file:{path}", "w", options={"fflags": "+bitexact"}) as container:
        if start_utc is not None:
            text = f"{np.datetime_as_string(start_utc.astype('datetime64[us]'))}Z"
            # MP4 rounds creation_time to the second, and AVI drops it.
            container.metadata.update({"creation_time": text, "date": text})
        stream: Any = container.add_stream("libx264" if codec == "h264" else codec, rate=rate)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = _pixel_format(frame, codec)
        stream.codec_context.color_range = 2  # full: grey levels are stored as they are
        if codec == "h264":
            # x264's macroblock tree reads memory that nobody has written (seen in core 165): with
            # it the same frames make another file whenever something ran before in the process.
            stream.options = {"crf": str(crf), "sc_threshold": "0", "mbtree": "0"}
            stream.codec_context.gop_size = KEY_FRAME_EVERY
        index = 0
        while True:
            picture = _video_frame(frame, stream.pix_fmt)
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
            index += 1
            following = next(frames, None)
            if following is None:
                break
            frame = following
        container.mux(stream.encode())


def _pixel_format(frame: NDArray, codec: str) -> str:
    if codec == "ffv1":
        if frame.ndim == 3:
            return "bgr0" if frame.dtype == np.uint8 else "gbrp16le"
        return "gray" if frame.dtype == np.uint8 else "gray16le"
    # 4:2:0 halves the colour planes, which needs even sizes; few players know 4:4:4.
    even = frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0
    return "yuv420p" if even else "yuv444p"


def _video_frame(frame: NDArray, pixel_format: str) -> av.VideoFrame:
    if frame.ndim == 3:
        source = "rgb24" if frame.dtype == np.uint8 else "rgb48le"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=source)
        return picture.reformat(format=pixel_format, dst_color_range=2)
    if pixel_format.startswith("gray"):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=pixel_format)
    else:
        # Grey goes straight into the luminance plane, past any conversion of range.
        picture = av.VideoFrame(frame.shape[1], frame.shape[0], pixel_format)
        for number, plane in enumerate(picture.planes):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            if number == 0:
                rows[: frame.shape[0], : frame.shape[1]] = frame
            else:
                rows[:] = 128
    picture.color_range = 2
    return picture


def _write_ser(
    path: Path,
    frames: Iterator[NDArray],
    fps: float,
    start_utc: np.datetime64 | None,
    bits: int,
) -> None:
    """One pass: the number of frames is put into the header at the end."""
    count = 0
    first: NDArray | None = None
    start = 0
    if start_utc is not None:
        start = int((start_utc.astype("datetime64[us]") - EPOCH).astype(np.int64)) * 10
    with _create(path) as file:
        file.write(bytes(HEADER.size))
        for frame in frames:
            first = frame if first is None else first
            file.write(np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).tobytes())
            count += 1
        if first is None:
            raise ValueError("no frames to write")
        if start_utc is not None:
            ticks = start + np.rint(np.arange(count) / fps * 1e6).astype(np.int64) * 10
            file.write(ticks.astype("<i8").tobytes())
        file.seek(0)
        colour = 100 if first.ndim == 3 else 0
        height, width = first.shape[:2]
        numbers = (0, colour, 0, width, height, bits, count)
        file.write(HEADER.pack(MAGIC, *numbers, b"", b"Warte", b"", start, start))


def _create(path: Path) -> Any:
    try:
        return path.open("wb")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); choose another file"
        ) from error


def _write_fits(
    path: Path, frames: Iterator[NDArray], fps: float, start_utc: np.datetime64 | None
) -> None:
    """One pass: the header is written again, of the same length, once the count is known."""
    first: NDArray | None = None
    count = 0
    with _create(path) as file:
        for frame in frames:
            if first is None:
                first = frame
                file.write(_fits_header(first, 1, fps, start_utc).tostring().encode())
            file.write(_fits_bytes(frame))
            count += 1
        if first is None:
            raise ValueError("no frames to write")
        file.write(bytes(-file.tell() % _FITS_BLOCK))
        file.seek(0)
        file.write(_fits_header(first, count, fps, start_utc).tostring().encode())


def _write_fits_compressed(
    path: Path, frames: Iterator[NDArray], fps: float, start_utc: np.datetime64 | None
) -> None:
    pictures = list(frames)
    header = _fits_header(pictures[0], len(pictures), fps, start_utc)
    cube = np.stack(pictures)
    cube = np.moveaxis(cube, 3, 1) if cube.ndim == 4 else cube
    for key in ("SIMPLE", "BZERO", "BSCALE", "EXTEND"):
        header.remove(key, ignore_missing=True)
    kind = "RICE_1" if cube.dtype != np.float32 else "GZIP_2"
    # Without quantisation, floating point is kept exactly.
    # One tile per frame reads ten times as fast as the usual one per row.
    tile = (1,) * (cube.ndim - 2) + cube.shape[-2:]
    hdu = fits.CompImageHDU(
        cube, header, compression_type=kind, quantize_level=0.0, tile_shape=tile
    )
    try:
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); choose another file") from error


def _fits_header(
    frame: NDArray, count: int | None, fps: float, start_utc: np.datetime64 | None
) -> fits.Header:
    """Header of a cube of `count` frames, or of a single frame for None."""
    shape = frame.shape if frame.ndim == 2 else (3, *frame.shape[:2])
    sizes = [*shape[::-1]] + ([] if count is None else [count])
    bitpix = {"uint8": 8, "uint16": 16, "float32": -32}[frame.dtype.name]
    cards: list[tuple[Any, ...]] = [("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", len(sizes))]
    cards += [(f"NAXIS{axis}", size) for axis, size in enumerate(sizes, start=1)]
    cards += [("BSCALE", 1.0), ("BZERO", 32768.0)] if bitpix == 16 else []
    if start_utc is not None:
        text = str(np.datetime_as_string(start_utc.astype("datetime64[us]")))
        cards += [("TIMESYS", "UTC"), ("DATE-OBS", text, "start of the first exposure")]
    cards += [("EXPTIME", 1.0 / fps, "[s] exposure of a frame")]
    cards += [("FPS", fps, "[1/s] frames per second")]
    return fits.Header(cards)


def _fits_bytes(frame: NDArray) -> bytes:
    planes = frame if frame.ndim == 2 else np.moveaxis(frame, 2, 0)
    if frame.dtype == np.uint16:
        # FITS knows signed 16-bit numbers only: 32768 is taken off here and added by BZERO.
        return (planes ^ np.uint16(0x8000)).astype(">u2").tobytes()
    return planes.astype(frame.dtype.newbyteorder(">")).tobytes()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _FITS_BLOCK)


def _write_picture(file: Path, frame: NDArray) -> None:
    picture = frame if frame.ndim == 2 else frame[..., ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if file.suffix == ".jpg" else []
    done, data = cv2.imencode(file.suffix, np.ascontiguousarray(picture), options)
    if not done:
        raise ValueError(f"a frame of shape {frame.shape} cannot be written as {file.suffix}")
    file.write_bytes(data.tobytes())
