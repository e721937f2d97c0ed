"""Spectra written as SDSS files: what comes back, and what other programs find in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from warte.core.errors import OutputError
from warte.spectra.read import read
from warte.spectra.spectrum import SDSS_UNIT, Spectrum, make_spectrum
from warte.spectra.write import write_sdss


def _spectrum(**changes: object) -> Spectrum:
    lam = 10 ** (3.6 + 1e-4 * np.arange(300))
    flux = np.sin(np.arange(300.0)) + 2
    ivar = np.full(300, 4.0)
    ivar[[0, 7, 299]] = 0
    facts = {"z": 0.1, "ra_deg": 10.5, "dec_deg": -0.5, "resolution_km_s": 60.0, **changes}
    return make_spectrum("a.fits", lam, flux, ivar, **facts)  # type: ignore[arg-type]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    spectrum = _spectrum()
    path = tmp_path / "new" / "a.fits"
    write_sdss(path, spectrum)
    (back,) = read(path)
    assert np.allclose(back.wavelength, spectrum.wavelength, rtol=1e-14, atol=0)
    assert np.allclose(back.flux, spectrum.flux, rtol=1e-6, equal_nan=True)
    assert np.array_equal(back.ivar, spectrum.ivar)
    assert np.allclose(back.resolution_km_s, 60, rtol=1e-6)
    assert (back.z, back.ra_deg, back.dec_deg, back.unit) == (0.1, 10.5, -0.5, SDSS_UNIT)
    assert back.flags == ()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.fits"]


def test_what_is_unknown_comes_back_unknown(tmp_path: Path) -> None:
    nan = float("nan")
    spectrum = _spectrum(z=nan, ra_deg=nan, dec_deg=nan, resolution_km_s=nan, unit="Jy")
    write_sdss(tmp_path / "a.fits.gz", spectrum)
    (back,) = read(tmp_path / "a.fits.gz")
    assert np.isnan([back.z, back.ra_deg, back.dec_deg, *back.resolution_km_s]).all()
    assert (back.unit, back.flags) == ("Jy", ("no redshift",))


def test_other_programs_find_an_sdss_file(tmp_path: Path) -> None:
    spectrum = _spectrum()
    model = np.arange(300.0)
    path = tmp_path / "a.fits"
    write_sdss(path, spectrum, object_class="QSO", model=model, plate=266, mjd=51602, fiberid=9)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        pixels, facts = hdus["COADD"].data, hdus["SPECOBJ"].data
        header = hdus[0].header
        assert (header["PLATEID"], header["MJD"], header["FIBERID"]) == (266, 51602, 9)
        assert (facts["CLASS"][0], facts["Z"][0], facts["PLATE"][0]) == ("QSO", 0.1, 266)
        assert pixels["flux"].dtype == ">f4"
        assert np.array_equal(pixels["model"], model)
        missing = np.flatnonzero(pixels["ivar"] == 0)
        assert missing.tolist() == [0, 7, 299]
        # Neither a number that could be taken for data, nor NaN that spoils other people's sums.
        assert (pixels["flux"][missing] == 0).all()
        assert (pixels["and_mask"][missing] == 1 << 24).all()
        assert (np.delete(pixels["and_mask"], missing) == 0).all()
        assert np.allclose(10 ** pixels["loglam"], spectrum.wavelength)
        assert np.allclose(pixels["wdisp"] * 1e-4 * np.log(10) * 299792.458, 60)


def test_numbers_too_small_for_float32_are_kept(tmp_path: Path) -> None:
    lam = np.linspace(4000, 5000, 20)
    spectrum = make_spectrum("a", lam, np.full(20, 3e-50), np.full(20, 1e90), z=0.0, unit="W")
    write_sdss(tmp_path / "a.fits", spectrum)
    (back,) = read(tmp_path / "a.fits")
    assert np.array_equal(back.flux, spectrum.flux) and np.array_equal(back.ivar, spectrum.ivar)


def test_an_earlier_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.fits"
    path.write_text("earlier")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OutputError, match="disk is full"):
            write_sdss(path, _spectrum())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.fits"]
    assert path.read_text() == "earlier"
    write_sdss(path, _spectrum())
    assert read(path)[0].z == 0.1


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_sdss(tmp_path / "file" / "a.fits", _spectrum())


@given(
    flux=arrays(np.float64, 30, elements=st.floats(allow_nan=True, allow_infinity=True)),
    ivar=arrays(np.float64, 30, elements=st.floats(0, 1e30)),
    steps=arrays(np.float64, 30, elements=st.floats(1e-3, 100)),
    z=st.floats(-0.01, 7),
)
@settings(max_examples=40)
def test_any_spectrum_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    flux: np.ndarray,
    ivar: np.ndarray,
    steps: np.ndarray,
    z: float,
) -> None:
    flux[0], ivar[0] = 1.0, 1.0  # one pixel is measured
    spectrum = make_spectrum("a", 3000 + np.cumsum(steps), flux, ivar, z=z)
    path = tmp_path_factory.mktemp("any") / "a.fits"
    write_sdss(path, spectrum)
    (back,) = read(path)
    assert back.z == z
    assert np.array_equal(back.good, spectrum.good)
    assert np.allclose(back.wavelength, spectrum.wavelength, rtol=1e-14, atol=0)
    assert np.allclose(back.flux, spectrum.flux, rtol=2e-6, atol=0, equal_nan=True)
    assert np.allclose(back.ivar, spectrum.ivar, rtol=2e-6, atol=0)
