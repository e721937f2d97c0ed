"""Spectra from files: SDSS, BOSS and eBOSS, older spSpec, DESI coadds, and text.

What a file is, its contents say, not its name. Missing pixels stay missing: NaN flux with inverse
variance 0.
"""

from __future__ import annotations

import gzip
import io
import math
import multiprocessing
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from astropy.io import fits

from warte.core.errors import InputError, SettingsError
from warte.spectra.read import desi, sdss
from warte.spectra.read.failure import DAMAGE, Failure, failure
from warte.spectra.read.objects import same_objects
from warte.spectra.read.text import read_text
from warte.spectra.spectrum import Spectrum

__all__ = ["Failure", "read", "read_all", "read_folder", "same_objects", "spectrum_files"]

FITS_KINDS = (".fits", ".fits.gz", ".fit", ".fit.gz")
TEXT_KINDS = (".txt", ".dat", ".csv")
_FITS_START, _GZIP_START = b"SIMPLE", b"\x1f\x8b"
_BLOCK = 2880  # bytes, FITS standard 4.0 section 3.1
_ALLOWED = "give an SDSS spec or spSpec file, a DESI coadd, or text of wavelength, flux and error"


def read(
    path: str | os.PathLike[str], *, z: float | None = None, air: bool = False
) -> list[Spectrum]:
    """Read the spectrum of a file, or the spectra of a DESI coadd.

    Rows of a coadd without a measured pixel are left out (`read_all` names them).

    Args:
        path: the file.
        z: redshift, in place of the file's own.
        air: wavelengths of a text are in air, whatever its heading says.

    Raises:
        InputError: the file is missing, damaged, or holds no spectrum with a measured pixel.
        SettingsError: the redshift is not a number above -1.
    """
    place = Path(path)
    spectra, failures = _read_named((place, place.name), z=z, air=air)
    if not spectra:
        raise InputError(f"{place}: {failures[0].reason}")
    return spectra


def read_all(
    paths: Iterable[str | os.PathLike[str]],
    *,
    z: float | None = None,
    air: bool = False,
    workers: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> tuple[list[Spectrum], list[Failure]]:
    """Read many files; those that cannot be read are named, the others go on.

    Spectra come in the order of the paths, each with a name of its own (files of one name get so
    many of their folders before it that they differ) and, by `same_objects`, with an object_id.

    Args:
        paths: files; one given twice is read once.
        z, air: as for `read`, for all files.
        workers: processes that read.
        report: called after each file with the files done and all files.

    Raises:
        SettingsError: as for `read`, or there are no workers.
    """
    if workers < 1:
        raise SettingsError(f"--workers {workers}; give 1 or more")
    places = list(dict.fromkeys(Path(path) for path in paths))
    jobs = list(zip(places, _names(places), strict=True))
    spectra: list[Spectrum] = []
    failures: list[Failure] = []
    for done, (found, failed) in enumerate(_each(jobs, z, air, workers), start=1):
        spectra += found
        failures += failed
        if report is not None:
            report(done, len(jobs))
    objects = same_objects(spectra)
    named = zip(spectra, objects, strict=True)
    return [replace(spectrum, object_id=object_id) for spectrum, object_id in named], failures


def read_folder(path: str | os.PathLike[str]) -> tuple[list[Spectrum], list[Failure]]:
    """Read all spectra of a folder, or of one file, as `read_all` does.

    Raises:
        InputError: as for `spectrum_files`.
    """
    return read_all(spectrum_files(path))


def spectrum_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder that may be spectra, sorted by name; or the file itself.

    Left out are hidden files, redrock files, and lists and results (a .csv whose heading has
    plate, mjd and fiberid, or begins with file). Folders within are not entered.

    Raises:
        InputError: there is no such file or folder, or no spectrum in it.
    """
    place = Path(path)
    if not place.is_dir():
        if not place.exists():
            raise InputError(f"{place} does not exist; give a folder of spectra or a spectrum")
        return [place]
    try:
        inside = sorted(entry for entry in place.iterdir() if not entry.name.startswith("."))
    except OSError as problem:
        raise InputError(f"{place} cannot be read ({problem.strerror}); make it readable") from None
    files = [entry for entry in inside if entry.is_file() and _may_be_spectrum(entry)]
    if not files:
        folders = sum(entry.is_dir() for entry in inside)
        hint = f" but {folders} folders, which are not entered" if folders else ""
        raise InputError(
            f"{place} has no file that ends in {', '.join((*FITS_KINDS, *TEXT_KINDS))}{hint}; "
            "give a folder of spectra"
        )
    return files


def _may_be_spectrum(path: Path) -> bool:
    name = path.name.lower()
    if not name.endswith((*FITS_KINDS, *TEXT_KINDS)) or name.startswith("redrock-"):
        return False
    if not name.endswith(".csv"):
        return True
    try:
        with path.open(encoding="latin-1") as file:
            heading = file.readline(10_000)
    except OSError:
        return True  # reading it will say what is wrong
    names = [cell.strip(' "\ufeff').lower() for cell in heading.strip().split(",")]
    return not ({"plate", "mjd", "fiberid"} <= set(names) or names[0] in ("file", "ï»¿file"))


def _names(paths: Sequence[Path]) -> list[str]:
    """The name of each file, after as many of its folders as tell it from the others."""
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        count = Counter(names)
        if len(count) == len(names):
            break
        names = [
            name if count[name] == 1 else "/".join(path.parts[-depth:])
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def _each(
    jobs: Sequence[tuple[Path, str]], z: float | None, air: bool, workers: int
) -> Iterator[tuple[list[Spectrum], list[Failure]]]:
    """What each file holds, in order."""
    one = partial(_read_named, z=z, air=air)
    if min(workers, len(jobs)) < 2:
        yield from map(one, jobs)
        return
    # Not forked: torch may have threads, and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(one, jobs, chunksize=16)


def _read_named(
    job: tuple[Path, str], *, z: float | None, air: bool
) -> tuple[list[Spectrum], list[Failure]]:
    """Spectra and failures of a file (its path and the name it goes by)."""
    if z is not None and not (math.isfinite(z) and z > -1):
        raise SettingsError(f"--z {z}; give a redshift above -1")
    path, name = job
    try:
        with warnings.catch_warnings():
            # Remarks on odd headers and numbers; what is amiss is found where it is wanted.
            warnings.simplefilter("ignore")
            spectra, failures = _read_file(path, name, air)
    except InputError as problem:
        return [], [failure(name, problem)]
    except DAMAGE as problem:
        said = " ".join(str(problem).split())[:100] or type(problem).__name__
        return [], [Failure(name, f"cannot be read ({said}); it may be damaged: fetch it again")]
    if z is not None:
        spectra = [_moved(spectrum, z) for spectrum in spectra]
    return [replace(s, object_id=s.name) for s in spectra], failures


def _moved(spectrum: Spectrum, z: float) -> Spectrum:
    flags = tuple(flag for flag in spectrum.flags if "redshift" not in flag)
    return replace(spectrum, z=z, flags=flags)


def _read_file(path: Path, name: str, air: bool) -> tuple[list[Spectrum], list[Failure]]:
    content = _content(path, name)
    if content is not None and not content.startswith(_FITS_START):
        _check_text(path, name, content)
        return [read_text(content, name, air=air)], []
    size = path.stat().st_size if content is None else len(content)
    source = path if content is None else io.BytesIO(content)
    with fits.open(source, memmap=False, lazy_load_hdus=True) as hdus:
        return _read_fits(hdus, path, name, cut=size % _BLOCK != 0)


def _content(path: Path, name: str) -> bytes | None:
    """All of a text or of what is compressed; None for plain FITS, which is read in parts."""
    if path.is_dir():
        raise InputError(f"{name}: is a folder; give a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(_FITS_START))
            content = None if start == _FITS_START else start + file.read()
    except OSError as problem:
        raise InputError(
            f"{name}: cannot be opened ({(problem.strerror or str(problem)).lower()}); {_ALLOWED}"
        ) from problem
    if content is not None and content.startswith(_GZIP_START):
        # Here and not by astropy, which takes a file that is cut short for a shorter one.
        return gzip.decompress(content)
    return content


def _check_text(path: Path, name: str, content: bytes) -> None:
    if not content:
        raise InputError(f"{name}: the file is empty; {_ALLOWED}")
    if path.name.lower().endswith(FITS_KINDS):
        raise InputError(f"{name}: named as FITS, but it is none: it begins with "
                         f"{content[:8]!r}; fetch it again")  # fmt: skip


def _read_fits(
    hdus: fits.HDUList, path: Path, name: str, *, cut: bool
) -> tuple[list[Spectrum], list[Failure]]:
    """What an open file holds. `cut`: it does not end with a whole block, as it should."""
    if sdss.is_sp_spec(hdus):
        return [sdss.read_sp_spec(hdus, name)], []
    if sdss.is_spec(hdus):
        spectrum = sdss.read_spec(hdus, name)
        if not cut:
            return [spectrum], []
        if not math.isnan(spectrum.z):  # what is lost is not needed
            told = "file cut short after the spectrum"
            return [replace(spectrum, flags=(*spectrum.flags, told))], []
    if cut:
        raise InputError(f"{name}: the file is cut short; fetch it again")
    if desi.is_coadd(hdus):
        return desi.read_coadd(hdus, _redshifts(path), name)
    found = ", ".join(hdu.name or "(no name)" for hdu in hdus[:8])
    raise InputError(
        f"{name}: FITS without a spectrum that is known here (it holds {found}); {_ALLOWED}"
    )


def _redshifts(coadd: Path) -> desi.Redshifts:
    """Redshifts of the redrock file beside a coadd; none where there is no such file."""
    other = coadd.with_name(coadd.name.replace("coadd", "redrock", 1))
    if other == coadd or not other.is_file():
        return {}
    try:
        with fits.open(other, memmap=False) as hdus:
            return desi.read_redshifts(hdus, other.name)
    except DAMAGE as problem:
        raise InputError(
            f"{coadd.name}: the redshifts in {other.name} cannot be read; fetch it again, or "
            "remove it to go on without redshifts"
        ) from problem
