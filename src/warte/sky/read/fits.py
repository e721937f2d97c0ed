"""FITS: cubes in one file and folders of single frames, through astropy."""

import re
import tempfile
import warnings as python_warnings
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray

from warte.core.errors import InputError
from warte.sky.read.images import natural_order
from warte.sky.read.recording import (
    BreakOffError,
    Pixels,
    Recording,
    clock,
    luminance,
    needs_fps,
    parse_time,
)

# What astropy raises for files that are cut short or damaged.
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(RuntimeError, zlib.error, fits.VerifyError),
)
_UNREADABLE: tuple[type[Exception], ...] = (InputError, *_DAMAGE)

_RATE_KEYS = ("FRAMERATE", "FPS", "FRATE")  # frames/s
_CYCLE_KEYS = ("CADENCE", "KCT")  # seconds from frame to frame; KCT is written by Andor cameras
_EXPOSURE_KEYS = ("EXPTIME", "EXPOSURE", "EXP_TIME")  # seconds
_BLOCK = 2**16  # bytes that are unpacked at once
_GZIP = 31  # zlib: the largest window, with the header of gzip
_TIME_OF_DAY_KEYS = ("TIME-OBS", "UTC-OBS", "UT", "UTC", "UTSTART", "TIME-BEG")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep astropy's remarks on odd headers to itself; damage is told in our own words."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class _Layout:
    """Where the frames of a file are: HDU number and the shape of its array, last axis x."""

    hdu: int
    shape: tuple[int, ...]
    header: fits.Header

    @property
    def colour(self) -> bool:
        """Three planes per frame, red first."""
        return len(self.shape) >= 3 and self.shape[-3] == 3 and not self._three_frames

    @property
    def _three_frames(self) -> bool:
        axis = str(self.header.get("CTYPE3", "")).upper()
        return len(self.shape) == 3 and "RGB" not in axis and "COLOR" not in axis


def open_fits_cube(path: Path, fps: float | None, start: np.datetime64 | None) -> Recording:
    """Open a cube, (frames, y, x) or (frames, 3, y, x), in the first HDU that holds a picture.

    Compressed HDUs and gzipped files too. The rate comes from FRAMERATE, FPS or FRATE
    (frames/s), else CADENCE or KCT (seconds per frame), else from EXPTIME, EXPOSURE or EXP_TIME
    (seconds; told in a warning, for it leaves out dead time); else `fps` is needed. The start
    comes from the keywords given at `header_utc`.
    """
    layout = _layout(path)
    if len(layout.shape) == 2 or (len(layout.shape) == 3 and layout.colour):
        raise InputError(
            f"{path}: a FITS file with one frame; a recording has at least two, "
            "give a cube or a folder of such files"
        )
    if (len(layout.shape) == 4 and not layout.colour) or len(layout.shape) > 4:
        raise InputError(f"{path}: a FITS array of {layout.shape}; give (frames, y, x)")
    rate, told = _rate(layout.header, fps)
    if rate is None:
        raise needs_fps(path, "a FITS cube without FRAMERATE, CADENCE or EXPTIME")
    count = layout.shape[0]

    def source(begin: int) -> Generator[tuple[Pixels, float], None, None]:
        with _open(path) as hdus:
            with _quiet():
                section = hdus[layout.hdu].section
            for index in range(begin, count):
                try:
                    with _quiet():
                        plane = np.asarray(section[index])
                except _DAMAGE as error:
                    raise BreakOffError(f"the header promises {count} frames") from error
                yield _grey(plane, layout.colour), index / rate

    return Recording(
        path=path,
        width=layout.shape[-1],
        height=layout.shape[-2],
        frame_count=count,
        fps=rate,
        start_utc=header_utc(layout.header) if start is None else start,
        levels=_levels(layout.header),
        saturation=_saturation(layout.header),
        source=source,
        warnings=_mosaic(layout.header) + told,
    )


def open_fits_folder(
    path: Path, files: list[Path], fps: float | None, start: np.datetime64 | None
) -> Recording:
    """Open a folder of single-frame FITS files.

    In order of their start times when all files have one (see `header_utc`), else in natural
    order of their names. Times come from those starts; without them the rate comes from the
    keywords given at `open_fits_cube`, or `fps` is needed. Three planes are red, green, blue.
    """
    files = sorted(files, key=natural_order)
    first = _layout(files[0])
    files, starts = _sort_by_start(files)
    times, rate = np.empty(0), None
    told: list[str] = []
    if starts is not None:
        start = starts[0] if start is None else start
        times, rate, told = clock(starts)
    if fps is not None or rate is None:
        rate, told = _rate(first.header, fps)
        if rate is None:
            raise needs_fps(path, "FITS files without start or exposure times")
        times = np.arange(len(files)) / rate

    def source(begin: int) -> Generator[tuple[Pixels, float], None, None]:
        for index, file in enumerate(files[begin:], start=begin):
            yield _read_single(file), float(times[index])

    return Recording(
        path=path,
        width=first.shape[-1],
        height=first.shape[-2],
        frame_count=len(files),
        fps=rate,
        start_utc=start,
        levels=_levels(first.header),
        saturation=_saturation(first.header),
        source=source,
        warnings=_mosaic(first.header) + told,
    )


def header_utc(header: fits.Header) -> np.datetime64 | None:
    """The start of the exposure in UTC, or None.

    The first that is there of: DATE-OBS with a time; DATE-OBS with its time in TIME-OBS, UTC-OBS,
    UT, UTC, UTSTART or TIME-BEG; DATE-BEG; MJD-OBS; MJD-BEG; JD. TIMESYS other than UTC is
    converted. (FITS standard 4.0, section 9; DATE-OBS as dd/mm/yy from before 1999 is read too.)
    """
    date = _iso_date(str(header.get("DATE-OBS", "")))
    texts = [date]
    texts += [f"{date}T{str(header[key]).strip()}" for key in _TIME_OF_DAY_KEYS if key in header]
    texts.append(str(header.get("DATE-BEG", "")))
    for text in texts:
        moment = parse_time(text)
        if moment is not None:
            return _to_utc(moment, header)
    for key, offset in (("MJD-OBS", 2400000.5), ("MJD-BEG", 2400000.5), ("JD", 0.0)):
        days = _number(header, (key,))
        if days is not None:
            moment = np.datetime64(Time(days, offset, format="jd").isot, "us")
            return _to_utc(moment, header)
    return None


def _iso_date(text: str) -> str:
    """DATE-OBS as ISO 8601. The old form has two digits of the year, or counts from 1900."""
    old = re.fullmatch(r"\s*(\d{1,2})/(\d{1,2})/(\d{2,3})\s*", text)
    if old is None:
        return text.strip()
    day, month, year = (int(part) for part in old.groups())
    return f"{1900 + year:04d}-{month:02d}-{day:02d}"


def _to_utc(moment: np.datetime64, header: fits.Header) -> np.datetime64:
    scale = str(header.get("TIMESYS", "UTC")).strip().lower()
    if scale not in ("tai", "tt", "tdb", "tcg", "tcb"):
        return moment
    return np.datetime64(Time(str(moment), scale=scale).utc.isot, "us")


def _number(header: fits.Header, keys: tuple[str, ...]) -> float | None:
    """The first of the keywords that holds a number above 0; some programs write '2,0000'."""
    for key in keys:
        try:
            value = float(str(header.get(key, "")).replace(",", "."))
        except ValueError:
            continue
        if np.isfinite(value) and value > 0:
            return value
    return None


def _rate(header: fits.Header, fps: float | None) -> tuple[float | None, list[str]]:
    """Frames per second and, where it is only a guess, a warning."""
    rate = fps or _number(header, _RATE_KEYS)
    if rate is not None:
        return rate, []
    cycle = _number(header, _CYCLE_KEYS)
    if cycle is not None:
        return 1.0 / cycle, []
    exposure = _number(header, _EXPOSURE_KEYS)
    if exposure is None:
        return None, []
    rate = 1.0 / exposure
    return rate, [f"the rate, {rate:.6g} frames/s, is a guess from the exposure; --fps sets it"]


def _levels(header: fits.Header) -> float | None:
    if header["BITPIX"] < 0:
        return None
    return abs(float(header.get("BSCALE", 1.0))) or 1.0


def _saturation(header: fits.Header) -> float | None:
    known = _number(header, ("SATURATE",))
    if known is not None or header["BITPIX"] not in (8, 16):
        return known
    top = 255 if header["BITPIX"] == 8 else 32767
    return top * float(header.get("BSCALE", 1.0)) + float(header.get("BZERO", 0.0))


def _mosaic(header: fits.Header) -> list[str]:
    name = str(header.get("BAYERPAT", "")).strip()
    if not name:
        return []
    return [f"colour mosaic {name} is used as it is, without making colours"]


@contextmanager
def _open(path: Path) -> Iterator[fits.HDUList]:
    """Open without memory mapping, so that sections are read from the file one by one."""
    plain = path
    with ExitStack() as stack:
        if _is_zipped(path):
            unpacked = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".fits"))
            _unzip(path, unpacked)
            plain = Path(unpacked.name)
        try:
            with _quiet():
                hdus = stack.enter_context(fits.open(plain, memmap=False))
        except _DAMAGE as error:
            raise InputError(f"{path}: not a readable FITS file; check or copy it again") from error
        yield hdus


def _is_zipped(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its rights") from error


def _unzip(path: Path, target: Any) -> None:
    """Unpack as much as there is; astropy itself would refuse a file that breaks off."""
    unzip = zlib.decompressobj(wbits=_GZIP)
    with path.open("rb") as packed:
        while block := packed.read(_BLOCK):
            while block:
                try:
                    data = unzip.decompress(block)
                except zlib.error:
                    target.flush()
                    return
                target.write(data)
                block = unzip.unused_data
                if unzip.eof:  # several packed parts may follow each other
                    unzip = zlib.decompressobj(wbits=_GZIP)
    target.flush()


def _layout(path: Path) -> _Layout:
    with _open(path) as hdus, _quiet():
        number = 0
        while True:
            try:
                hdu = hdus[number]  # HDUs are looked for as they are asked for
            except _DAMAGE:
                break
            shape = getattr(hdu, "shape", ())
            is_picture = isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
            if is_picture and len(shape) >= 2 and all(shape):
                return _Layout(number, tuple(shape), hdu.header.copy())
            number += 1
    raise InputError(f"{path}: a FITS file without a picture; give one with an image HDU")


def _sort_by_start(files: list[Path]) -> tuple[list[Path], NDArray[np.datetime64] | None]:
    starts: list[np.datetime64] = []
    for file in files:
        try:
            start = header_utc(_layout(file).header)
        except InputError:
            # A damaged file ends the recording where its name puts it.
            return files, None
        if start is None:
            return files, None
        starts.append(start)
    order = np.argsort(np.array(starts), kind="stable")
    return [files[place] for place in order], np.array(starts)[order]


def _read_single(file: Path) -> Pixels:
    try:
        layout = _layout(file)
        with _open(file) as hdus, _quiet():
            array = np.asarray(hdus[layout.hdu].data)
    except _UNREADABLE as error:
        raise BreakOffError(f"{file.name} is not readable") from error
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    colour = array.ndim == 3 and len(array) == 3
    if array.ndim != 2 and not colour:
        raise InputError(f"{file}: holds {array.shape}, not one frame; give a cube by its own name")
    return _grey(array, colour)


def _grey(plane: NDArray, colour: bool) -> Pixels:
    if colour:
        return luminance(*(part.astype(np.float32) for part in plane))
    return plane.astype(np.float32)
