"""Write spectra as SDSS does, so that `read` and other people's programs read them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from warte.core.data.disk import is_disk_full
from warte.core.errors import OutputError
from warte.spectra.read.sdss import NODATA_BIT, WDISP_KM_S
from warte.spectra.spectrum import Spectrum


def write_sdss(
    path: str | os.PathLike[str],
    spectrum: Spectrum,
    *,
    object_class: str = "GALAXY",
    model: npt.ArrayLike | None = None,
    plate: int = 0,
    mjd: int = 0,
    fiberid: int = 0,
) -> None:
    """Write a spectrum as a spec-PLATE-MJD-FIBER.fits file of two tables, COADD and SPECOBJ.

    A missing pixel has flux 0, inverse variance 0 and NODATA in its masks. Numbers are float32
    where that holds them to 1e-6 of their size, else float64; loglam is float64, so that any
    rising wavelengths come back. The file appears whole or not at all, and an existing one is
    replaced.

    Args:
        path: the file; .gz at its end compresses it.
        spectrum: what is written; an unknown resolution becomes wdisp 0.
        object_class: CLASS in SPECOBJ: GALAXY, QSO or STAR.
        model: (n,) best model of the flux, for the column of that name; zeros where there is none.
        plate, mjd, fiberid: which observation it is.

    Raises:
        OutputError: the file cannot be written.
    """
    header = fits.Header()
    header["TELESCOP"] = "SDSS 2.5-M"
    header["PLATEID"], header["MJD"], header["FIBERID"] = plate, mjd, fiberid
    header["VACUUM"] = (True, "wavelengths are in vacuum")
    header["BUNIT"] = spectrum.unit
    tables = [
        fits.PrimaryHDU(header=header),
        _coadd(spectrum, model),
        _summary(spectrum, object_class, plate, mjd, fiberid),
    ]
    _write(Path(path), fits.HDUList(tables))


def _coadd(spectrum: Spectrum, model: npt.ArrayLike | None) -> fits.BinTableHDU:
    good = spectrum.good
    masks = np.where(good, 0, 1 << NODATA_BIT).astype(np.int32)
    zeros = np.zeros(good.shape)
    columns = [
        _column("flux", np.where(good, spectrum.flux, 0.0)),
        fits.Column("loglam", "D", array=np.log10(spectrum.wavelength)),
        _column("ivar", spectrum.ivar),
        fits.Column("and_mask", "J", array=masks),
        fits.Column("or_mask", "J", array=masks),
        _column("wdisp", np.nan_to_num(spectrum.resolution_km_s / WDISP_KM_S)),
        _column("sky", zeros),
        _column("model", zeros if model is None else np.asarray(model, dtype=np.float64)),
    ]
    return fits.BinTableHDU.from_columns(columns, name="COADD")


def _summary(
    spectrum: Spectrum, object_class: str, plate: int, mjd: int, fiberid: int
) -> fits.BinTableHDU:
    numbers = [("PLATE", plate), ("MJD", mjd), ("FIBERID", fiberid), ("ZWARNING", 0)]
    places = [("PLUG_RA", spectrum.ra_deg), ("PLUG_DEC", spectrum.dec_deg), ("Z", spectrum.z)]
    columns = [fits.Column(name, "J", array=[value]) for name, value in numbers]
    columns += [fits.Column(name, "D", array=[value]) for name, value in places]
    columns.append(fits.Column("CLASS", f"{max(len(object_class), 6)}A", array=[object_class]))
    return fits.BinTableHDU.from_columns(columns, name="SPECOBJ")


def _column(name: str, values: npt.NDArray[np.float64]) -> fits.Column:
    """A column of float32, or of float64 where numbers are too large or too small for that."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
        held = np.allclose(narrow, values, rtol=1e-6, atol=0.0)
    return fits.Column(name, "E" if held else "D", array=narrow if held else values)


def _write(path: Path, hdus: fits.HDUList) -> None:
    partial = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hdus.writeto(partial)
        os.replace(partial, path)
    except OSError as problem:
        said = "the disk is full" if is_disk_full(problem) else (problem.strerror or str(problem))
        raise OutputError(
            f"cannot write {path}: {said.lower()}; name a file in a folder you may write to"
        ) from problem
    finally:
        with suppress(OSError):
            partial.unlink()
