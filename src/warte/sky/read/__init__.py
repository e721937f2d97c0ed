"""Read recordings of the night sky: video, FITS, SER and folders of pictures.

`read` looks at what a file or folder holds and hands it to the module of that format. Frames
are streamed: memory does not grow with the length of a recording.
"""

import math
import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from warte.core.errors import InputError, SettingsError
from warte.sky.read.fits import open_fits_cube, open_fits_folder
from warte.sky.read.images import open_image_folder
from warte.sky.read.recording import Frame, Recording, parse_time
from warte.sky.read.ser import open_ser
from warte.sky.read.video import open_video

__all__ = ["Frame", "Recording", "read"]

_KINDS = {
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "JPEG": (".jpg", ".jpeg"),
    "FITS": (
        *(".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz"),
        *(".fits.fz", ".fit.fz", ".fz"),
    ),
}
_FORMATS = "MP4, MOV, MKV, AVI, FITS, SER, or a folder of PNG, TIFF, JPEG or FITS"


def read(path: str | Path, *, fps: float | None = None, start: str | None = None) -> Recording:
    """Open a recording.

    path: a video that FFmpeg can decode (MP4, MOV, MKV, AVI...), a FITS cube (plain, .gz or with
        compressed HDU), a SER file, or a folder of PNG, TIFF, JPEG or single-frame FITS.
    fps: frames per second, > 0. Needed where the file does not tell the times of its frames;
        given where it does, it replaces them by equally spaced ones.
    start: UTC of the start of frame 0, ISO 8601; replaces what the file says. Without an offset
        it is UTC.
    Raises SettingsError for a bad `fps` or `start`, and InputError, with one line that says what
    was found and what to do, for what cannot be used: no such file, no right to read it, empty,
    truncated before its second frame, not a recording, fewer than two frames.
    """
    path = Path(path)
    start_utc = _check_start(start)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise SettingsError(f"--fps {fps} is not a rate; give frames per second above 0")
    recording = _open(path, fps, start_utc)
    frames = list(islice(recording.frames(), 2))
    if len(frames) < 2:
        found = "holds one frame" if frames else "holds no frame"
        why = "".join(f" ({warning})" for warning in recording.warnings)
        raise InputError(f"{path}: {found}{why}; a recording has at least two")
    return recording


def _check_start(start: str | None) -> np.datetime64 | None:
    if start is None:
        return None
    start_utc = parse_time(start)
    if start_utc is None:
        raise SettingsError(
            f"--start {start!r} is not a time; give date and time like 2024-05-01T20:15:00Z"
        )
    return start_utc


def _open(path: Path, fps: float | None, start: np.datetime64 | None) -> Recording:
    if path.is_dir():
        return _open_folder(path, fps, start)
    head = _head(path)
    kind = _kind(path.name)
    if head[:6] == b"SIMPLE" or kind == "FITS":
        return open_fits_cube(path, fps, start)
    if head[:14] == b"LUCAM-RECORDER" or path.suffix.lower() == ".ser":
        return open_ser(path, fps, start)
    if kind is not None:
        raise InputError(
            f"{path}: a single {kind} picture; a recording has at least two frames, "
            "give the folder that holds them"
        )
    return open_video(path, fps, start)


def _head(path: Path) -> bytes:
    """The first bytes of a file that exists, can be read and is not empty."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder; check the name") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change its rights") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the disk") from error
    if not head:
        raise InputError(f"{path}: the file is empty; a recording is one of {_FORMATS}")
    return head


def _kind(name: str) -> str | None:
    name = name.lower()
    for kind, suffixes in _KINDS.items():
        if name.endswith(suffixes):
            return kind
    return None


def _open_folder(path: Path, fps: float | None, start: np.datetime64 | None) -> Recording:
    files = _list(path)
    if not files:
        raise InputError(f"{path}: the folder is empty; give a folder of pictures")
    pictures = {file: kind for file in files if (kind := _kind(file.name)) is not None}
    kinds = Counter(pictures.values())
    if not kinds:
        raise InputError(
            f"{path}: no pictures among its {len(files)} entries (such as {files[0].name}); "
            "give a folder of PNG, TIFF, JPEG or FITS, or a video file"
        )
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise InputError(f"{path}: pictures of several kinds ({found}); keep one kind in a folder")
    if len(pictures) == 1:
        # A lone cube in a folder is what some capture programs leave behind.
        raise InputError(
            f"{path}: holds one picture ({next(iter(pictures)).name}); a recording has at least "
            "two, or give a FITS cube by its own name"
        )
    if "FITS" in kinds:
        return open_fits_folder(path, list(pictures), fps, start)
    return open_image_folder(path, list(pictures), fps, start)


def _list(path: Path) -> list[Path]:
    try:
        names = os.listdir(path)
    except PermissionError:
        raise InputError(f"{path}: no permission to read it; change its rights") from None
    return sorted(path / name for name in names if not name.startswith("."))
