"""Folders of PNG, TIFF or JPEG pictures, through OpenCV."""

import re
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from warte.core.errors import InputError
from warte.sky.read.recording import BreakOffError, Pixels, Recording, luminance, needs_fps

# Each file must hold this; without it a decoder would print to the terminal or make up the rest.
_END_MARKS = {b"\x89PNG": b"IEND\xaeB\x60\x82", b"\xff\xd8\xff": b"\xff\xd9"}
_TAIL = 4096  # bytes; some cameras pad their files after the end mark


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), part) if part.isdigit() else (-1, part) for part in parts]


def open_image_folder(
    path: Path, files: list[Path], fps: float | None, start: np.datetime64 | None
) -> Recording:
    """Open a folder of pictures of one kind, in natural order of their names.

    8 and 16 bit integers and floating point, grey and colour. Pictures carry no times that can
    be trusted, so `fps` is needed.
    """
    files = sorted(files, key=natural_order)
    if fps is None:
        raise needs_fps(path, f"a folder of {len(files)} pictures")
    rate = fps
    try:
        first = _decode(files[0])
    except BreakOffError as reason:
        raise InputError(f"{path}: not one frame can be read: {reason}; check it") from reason
    whole = np.issubdtype(first.dtype, np.integer)

    def source(begin: int) -> Generator[tuple[Pixels, float], None, None]:
        for index, file in enumerate(files[begin:], start=begin):
            yield _grey(_decode(file)), index / rate

    return Recording(
        path=path,
        width=first.shape[1],
        height=first.shape[0],
        frame_count=len(files),
        fps=rate,
        start_utc=start,
        levels=1.0 if whole else None,
        saturation=float(np.iinfo(first.dtype).max) if whole else None,
        source=source,
    )


def _decode(file: Path) -> NDArray:
    """The picture as stored, (H, W) or (H, W, channels) with blue first."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BreakOffError(f"{file.name} cannot be read ({error.strerror})") from error
    for magic, end in _END_MARKS.items():
        if data.startswith(magic) and end not in data[-_TAIL:]:
            raise BreakOffError(f"{file.name} is truncated")
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # damage is told in our own words
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # an empty file
        picture = None
    finally:
        logging.setLogLevel(level)
    if picture is None:
        raise BreakOffError(f"{file.name} is not a readable picture")
    return picture


def _grey(picture: NDArray) -> Pixels:
    if picture.ndim == 2:
        return picture.astype(np.float32)
    if picture.shape[2] < 3:  # grey with transparency
        return picture[..., 0].astype(np.float32)
    return luminance(*(picture[..., channel].astype(np.float32) for channel in (2, 1, 0)))
