"""What H.264 does to a recording, in memory."""

from __future__ import annotations

import io

import av
import numpy as np

from warte.core.errors import SettingsError


def compress_h264(
    frames: np.ndarray, fps: float = 25.0, crf: float = 23.0, gop: int = 12
) -> np.ndarray:
    """Compress frames (T, H, W) uint8 with x264 and decode them again.

    crf: x264's constant rate factor, 0 (no loss) to 51; cameras and web sites use about 18 to 30.
    gop: frames from one key frame to the next. No B frames, as in the streams of cameras. Grey
    levels go to the luma plane as they are (full range), so the loss is the codec's alone.
    Raises SettingsError for other types of frames or a crf or gop out of range.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or len(frames) == 0:
        raise SettingsError(
            f"frames are {frames.dtype} of shape {frames.shape}; H.264 takes uint8 (T, H, W): "
            "simulate with camera.bits 8"
        )
    if not 0 <= crf <= 51 or gop < 1:
        raise SettingsError(f"crf {crf}, gop {gop}; allowed are crf 0 to 51 and gop 1 or more")
    height, width = frames.shape[1:]
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=max(1, round(fps)))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "g": str(gop), "bf": "0", "preset": "veryfast"}
        stream.codec_context.color_range = 2  # full range
        for frame in frames:
            container.mux(stream.encode(_luma_frame(frame)))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        out = [frame.to_ndarray()[:height, :width] for frame in source.decode(video=0)]
    return np.stack(out)


def _luma_frame(grey: np.ndarray) -> av.VideoFrame:
    """A yuv420p frame without colour; odd sizes grow by one repeated row or column."""
    grey = np.pad(grey, [(0, n % 2) for n in grey.shape], mode="edge")
    rows, columns = grey.shape
    planes = np.full((rows * 3 // 2, columns), 128, np.uint8)
    planes[:rows] = grey
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.color_range = 2
    return frame
