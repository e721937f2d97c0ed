"""SER files, version 3: the format and its reader.

Layout after H. Wilkens, "SER format description version 3" (2014): a header of 178 bytes, the
frames one after the other, then one time stamp per frame if the camera program wrote them.
"""

import struct
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from warte.core.errors import InputError
from warte.sky.read.recording import (
    BreakOffError,
    Pixels,
    Recording,
    clock,
    luminance,
    needs_fps,
)

# FileID, LuID, ColorID, LittleEndian, width, height, bits per plane, frames, observer,
# instrument, telescope, local start, UTC start
HEADER = struct.Struct("<14s7i40s40s40s2q")
MAGIC = b"LUCAM-RECORDER"
EPOCH = np.datetime64("0001-01-01T00:00:00", "us")  # ticks of 100 ns count from here

_MONO, _RGB, _BGR = 0, 100, 101
_COLOUR_MOSAICS = {
    8: "RGGB",
    9: "GRBG",
    10: "GBRG",
    11: "BGGR",
    16: "CYYM",
    17: "YCMY",
    18: "YMCY",
    19: "MYYC",
}


@dataclass(frozen=True)
class Header:
    """The fields of a SER header that matter here.

    colour: ColorID; bits: per plane, 1..16; frames: as the header says, 0 if the program that
    wrote it was stopped; start_ticks: 100 ns since the year 1, UTC, 0 when not known.
    """

    colour: int
    big_flag: int
    width: int
    height: int
    bits: int
    frames: int
    start_ticks: int

    @property
    def planes(self) -> int:
        return 3 if self.colour in (_RGB, _BGR) else 1

    @property
    def frame_bytes(self) -> int:
        return self.width * self.height * self.planes * (1 if self.bits <= 8 else 2)


def utc_from_ticks(ticks: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """UTC to the microsecond from ticks of 100 ns."""
    return EPOCH + (np.asarray(ticks) // 10).astype("timedelta64[us]")


def open_ser(path: Path, fps: float | None, start: np.datetime64 | None) -> Recording:
    """Open a SER file: mono, mosaic (kept as it is, with a warning), RGB or BGR, 1..16 bit.

    The rate comes from the time stamps; without them `fps` is needed. A file cut short is used
    as far as it goes. A header with 0 frames (the camera program was stopped) is mended from the
    size of the file.
    """
    with path.open("rb") as file:
        header = _read_header(path, file.read(HEADER.size))
        size = path.stat().st_size
        held = (size - HEADER.size) // header.frame_bytes
        count = min(header.frames, held) if header.frames > 0 else held
        stamps = _read_stamps(file, header, size)
        order = _byte_order(file, header) if count else "<"
    warnings = []
    if count == 0:
        raise InputError(f"{path}: no frame in it; the SER file was cut short, copy it again")
    if header.frames <= 0:
        warnings.append(f"the header names no number of frames; the file has room for {count}")
    if header.colour in _COLOUR_MOSAICS:
        name = _COLOUR_MOSAICS[header.colour]
        warnings.append(f"colour mosaic {name} is used as it is, without making colours")
    times, rate, start, told = _times(path, stamps, header, count, fps, start)
    dtype = np.dtype(np.uint8 if header.bits <= 8 else f"{order}u2")

    def source(begin: int) -> Generator[tuple[Pixels, float], None, None]:
        with path.open("rb") as file:
            for index in range(begin, count):
                file.seek(HEADER.size + index * header.frame_bytes)
                data = file.read(header.frame_bytes)
                if len(data) < header.frame_bytes:
                    raise BreakOffError(f"frame {index} is cut short")
                yield _pixels(data, dtype, header), float(times[index])
        if header.frames > count:
            raise BreakOffError(f"the header promises {header.frames} frames")

    return Recording(
        path=path,
        width=header.width,
        height=header.height,
        frame_count=count,
        fps=rate,
        start_utc=start,
        levels=1.0,
        saturation=float(2**header.bits - 1),
        source=source,
        warnings=warnings + told,
    )


def _read_header(path: Path, data: bytes) -> Header:
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        found = "cut short in its header" if data.startswith(MAGIC) else "no SER header"
        raise InputError(f"{path}: {found}; give a whole SER file")
    _, _, colour, big, width, height, bits, frames, _, _, _, _, utc = HEADER.unpack(data)
    if width < 1 or height < 1 or not 1 <= bits <= 16:
        raise InputError(
            f"{path}: a SER header with {width}x{height} pixels of {bits} bits; "
            "it must have 1 or more pixels of 1 to 16 bits, write the file again"
        )
    if colour not in (_MONO, _RGB, _BGR, *_COLOUR_MOSAICS):
        raise InputError(f"{path}: SER colour {colour} is not known; write it as mono or RGB")
    return Header(colour, big, width, height, bits, frames, utc)


def _read_stamps(file: BinaryIO, header: Header, size: int) -> NDArray[np.int64] | None:
    """Time stamps of all frames, None where the file has none or was cut in them."""
    begin = HEADER.size + header.frames * header.frame_bytes
    if header.frames <= 0 or size < begin + 8 * header.frames:
        return None
    file.seek(begin)
    stamps = np.frombuffer(file.read(8 * header.frames), "<i8").astype(np.int64)
    return stamps if stamps.all() else None


def _byte_order(file: BinaryIO, header: Header) -> str:
    """'<' or '>' for 16-bit data.

    Many programs use the flag the wrong way round and write little-endian data with flag 0,
    so 0 is read as little-endian. With flag 1 either may be meant: neighbouring pixels of a
    picture are alike only when their bytes are in the right order.
    """
    if header.big_flag == 0 or header.bits <= 8:
        return "<"
    file.seek(HEADER.size)
    data = file.read(header.frame_bytes)
    row = header.width * header.planes

    def roughness(order: str) -> float:
        values = np.frombuffer(data, f"{order}u2").astype(np.float64).reshape(-1, row)
        return float(np.abs(np.diff(values, axis=1)).sum())

    return "<" if roughness("<") < roughness(">") else ">"


def _times(
    path: Path,
    stamps: NDArray[np.int64] | None,
    header: Header,
    count: int,
    fps: float | None,
    start: np.datetime64 | None,
) -> tuple[NDArray[np.float64], float, np.datetime64 | None, list[str]]:
    """Seconds since frame 0 of each frame, rate, start and warnings."""
    rate, seconds = None, np.empty(0)
    told: list[str] = []
    if stamps is not None:
        utc = utc_from_ticks(stamps[:count])
        start = utc[0] if start is None else start
        seconds, rate, told = clock(utc)
    elif start is None and header.start_ticks > 0:
        start = utc_from_ticks(np.array([header.start_ticks]))[0]
    if fps is not None:
        return np.arange(count) / fps, fps, start, []
    if rate is None:
        raise needs_fps(path, "a SER file without usable time stamps")
    return seconds, rate, start, told


def _pixels(data: bytes, dtype: np.dtype, header: Header) -> Pixels:
    values = np.frombuffer(data, dtype).astype(np.float32)
    if header.planes == 1:
        return values.reshape(header.height, header.width)
    values = values.reshape(header.height, header.width, 3)
    first, green, last = (values[..., plane] for plane in range(3))
    return luminance(first, green, last) if header.colour == _RGB else luminance(last, green, first)
