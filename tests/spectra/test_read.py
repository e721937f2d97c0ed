"""Spectra from files: what each format holds, and one line for whatever is wrong with one."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from warte.core.errors import InputError, SettingsError
from warte.spectra.read import (
    Failure,
    read,
    read_all,
    read_folder,
    same_objects,
    spectrum_files,
)
from warte.spectra.read.desi import second_moment
from warte.spectra.read.sdss import MISSING_BITS
from warte.spectra.read.text import noise_of, read_text
from warte.spectra.spectrum import C_KM_S, SDSS_UNIT, Spectrum, make_spectrum
from warte.spectra.write import write_sdss

RealFile = Callable[[str], Path]


def _says(words: str, call: Callable[[], object]) -> None:
    """The call ends with an InputError of one line that says this."""
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def _small(name: str = "a.fits", **facts: object) -> Spectrum:
    lam = 10 ** (3.6 + 1e-4 * np.arange(60))
    given = {"z": 0.1, "ra_deg": 10.0, "dec_deg": 1.0, **facts}
    return make_spectrum(name, lam, np.arange(60.0) + 1, np.ones(60), **given)  # type: ignore[arg-type]


# SDSS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "z", "pixels", "missing"),
    [
        ("spec-0295-51585-0596.fits", 0.137877, 3844, 0),
        ("spec-0266-51602-0001.fits", 0.021275, 3835, 1),  # BADSKYCHI at the sky's 5577
        ("spec-0266-51602-0526.fits", 0.02676, 3841, 61),
        ("spec-1163-52669-0292.fits", 0.036889, 3812, 0),
        ("spec-10000-57346-0021.fits", -3.1e-05, 4606, 15),
    ],
)
def test_real_sdss(real_file: RealFile, name: str, z: float, pixels: int, missing: int) -> None:
    path = real_file(name)
    (spectrum,) = read(path)
    assert spectrum.z == pytest.approx(z, abs=1e-6)
    assert spectrum.wavelength.size == pixels
    assert (~spectrum.good).sum() == missing
    assert (spectrum.name, spectrum.object_id, spectrum.unit) == (name, name, SDSS_UNIT)
    # astropy's own way of reading the same columns
    table = fits.getdata(path, 1)
    good = spectrum.good
    assert np.array_equal(spectrum.flux[good], table["flux"][good])
    assert np.array_equal(spectrum.ivar[good], table["ivar"][good])
    # The grid of SDSS, which float32 blurs.
    place = np.log10(spectrum.wavelength)
    assert np.allclose(place, table["loglam"], rtol=0, atol=3e-7)
    assert np.allclose(np.diff(place), 1e-4, rtol=0, atol=1e-12)
    header = fits.getheader(path)
    steps = (place[0] - header["COEFF0"]) / header["COEFF1"]
    assert steps == pytest.approx(round(steps), abs=1e-6)
    assert np.allclose(spectrum.resolution_km_s[good], 69.0298 * table["wdisp"][good], rtol=1e-5)
    # R = 1500 to 2500 (York et al. 2000, AJ 120, 1579)
    power = C_KM_S / (2.3548 * np.nanmedian(spectrum.resolution_km_s))
    assert 1500 < power < 2500
    row = fits.getdata(path, 2)[0]
    assert (spectrum.ra_deg, spectrum.dec_deg) == (row["PLUG_RA"], row["PLUG_DEC"])
    warned = tuple(flag for flag in spectrum.flags if flag.startswith("redshift warning"))
    assert warned == ((f"redshift warning {row['ZWARNING']}",) if row["ZWARNING"] else ())


@pytest.mark.parametrize("name", ["spec-0295-51585-0596.fits", "spec-1045-52725-0628.fits"])
def test_lines_stand_where_they_must(real_file: RealFile, name: str) -> None:
    (spectrum,) = read(real_file(name))
    rest = spectrum.rest_wavelength
    for line, span in ((5008.240, 20.0), (6564.61, 15.0)):
        near = np.flatnonzero(np.abs(rest - line) < span)
        peak = rest[near[np.nanargmax(spectrum.flux[near])]]
        assert abs(peak - line) / line * C_KM_S < 100


def test_pixels_that_masks_only_suspect_are_kept(real_file: RealFile) -> None:
    """MANYBADCOLUMNS covers the blue half of this good spectrum."""
    path = real_file("spec-0266-51602-0013.fits")
    (spectrum,) = read(path)
    bits = fits.getdata(path, 1)["and_mask"]
    assert ((bits >> 4) & 1).sum() == 1755
    assert np.array_equal(spectrum.good, (bits >> 27) & 1 == 0)


def test_bits_of_the_mask(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_sdss(path, _small())
    with fits.open(path) as hdus:
        for bit in range(31):
            hdus[1].data["and_mask"][bit] = 1 << bit
        hdus[1].data["or_mask"][31:] = (1 << 31) - 1
        hdus.writeto(path, overwrite=True)
    (spectrum,) = read(path)
    assert sorted(np.flatnonzero(~spectrum.good)) == sorted(MISSING_BITS.values())
    assert not {4, 16, 23, 24, 25} & set(MISSING_BITS.values())


def test_columns_in_capitals_without_masks_or_summary(tmp_path: Path) -> None:
    spectrum = _small()
    columns = [
        fits.Column("FLUX", "D", array=spectrum.flux),
        fits.Column("NOTE", "3A", array=["abc"] * 60),
        fits.Column("BITS", "11X", array=np.ones((60, 11), bool)),
        fits.Column("IVAR", "J", bzero=2**31, array=np.full(60, 3, np.uint32)),
        fits.Column("PAIR", "2I", array=np.ones((60, 2), np.int16)),
        fits.Column("LOGLAM", "E", array=np.log10(spectrum.wavelength)),
    ]
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    (back,) = read(path)
    assert np.array_equal(back.flux, spectrum.flux)
    assert np.array_equal(back.ivar, np.full(60, 3.0))
    assert np.allclose(back.wavelength, spectrum.wavelength, rtol=1e-13, atol=0)
    assert math.isnan(back.z) and back.flags == ("no redshift",)
    assert np.isnan(back.resolution_km_s).all()


def test_a_given_redshift_replaces_that_of_the_file(real_file: RealFile) -> None:
    path = real_file("spec-1163-52669-0292.fits")
    assert read(path)[0].flags == ("redshift warning 16",)
    (spectrum,) = read(path, z=0.5)
    assert (spectrum.z, spectrum.flags) == (0.5, ())
    for z in (-1.0, math.nan, math.inf):
        with pytest.raises(SettingsError, match="--z"):
            read(path, z=z)


# spSpec -----------------------------------------------------------------------------------------


def _sp_spec(path: Path, rows: int = 5) -> Path:
    """A file after http://classic.sdss.org/dr7/dm/flatFiles/spSpec.html."""
    noise = np.full(100, 0.5)
    noise[3] = 0
    mask = np.zeros(100)
    mask[5], mask[6] = 1 << 18, 1 << 23  # FULLREJECT and BRIGHTSKY
    picture = np.stack([np.arange(100.0), np.arange(100.0) - 50, noise, mask, np.zeros(100)])
    hdu = fits.PrimaryHDU(picture[:rows].astype(np.float32))
    hdu.header.update(
        {"COEFF0": 3.58, "COEFF1": 1e-4, "Z": 0.08, "RAOBJ": 200.1, "DECOBJ": -1.2, "RA": 199.0}
    )
    hdu.writeto(path, overwrite=True)
    return path


def test_sp_spec(tmp_path: Path) -> None:
    (spectrum,) = read(_sp_spec(tmp_path / "spSpec-51602-0266-001.fit"))
    assert np.flatnonzero(~spectrum.good).tolist() == [3, 5]
    assert np.allclose(spectrum.wavelength, 10 ** (3.58 + 1e-4 * np.arange(100)))
    assert np.nanmax(spectrum.flux) == 99 and set(spectrum.ivar[spectrum.good]) == {4.0}
    assert (spectrum.z, spectrum.ra_deg, spectrum.dec_deg) == (0.08, 200.1, -1.2)
    three = read(_sp_spec(tmp_path / "three.fit", rows=3))[0]
    assert np.flatnonzero(~three.good).tolist() == [3]
    _says("has 2 rows", lambda: read(_sp_spec(tmp_path / "two.fit", rows=2)))


# DESI -------------------------------------------------------------------------------------------


def test_real_desi(real_file: RealFile) -> None:
    path = real_file("coadd-4-80613.fits")
    real_file("redrock-4-80613.fits")
    (spectrum,) = read(path)
    assert spectrum.name == "coadd-4-80613.fits:39633345008634465"
    assert spectrum.z == pytest.approx(0.368744, abs=1e-6)
    assert (spectrum.flags, spectrum.unit) == ((), SDSS_UNIT)
    assert (spectrum.ra_deg, spectrum.dec_deg) == pytest.approx((105.48977452, 56.66930006))
    # Arms on one grid of 0.8 Angstrom, from the bluest pixel to the reddest.
    assert spectrum.wavelength.size == (9824 - 3600) / 0.8 + 1
    assert np.allclose(np.diff(spectrum.wavelength), 0.8)
    # R rises from 2000 at 3600 to above 5000 at 9800 (DESI collaboration 2022, AJ 164, 207).
    power = spectrum.wavelength / (spectrum.wavelength * spectrum.resolution_km_s / C_KM_S * 2.3548)
    for place, low, high in ((3800, 1700, 3000), (5500, 2800, 4500), (9500, 4000, 6000)):
        here = np.abs(spectrum.wavelength - place) < 100
        assert low < np.nanmedian(power[here]) < high
    with fits.open(path) as hdus:
        blue, red = 2750 - 10, 2750 - 10 - 2700
        flux = [float(hdus[f"{arm}_FLUX"].data[0, at]) for arm, at in (("B", blue), ("R", red))]
        ivar = [float(hdus[f"{arm}_IVAR"].data[0, at]) for arm, at in (("B", blue), ("R", red))]
    assert spectrum.ivar[blue] == pytest.approx(sum(ivar))
    assert spectrum.flux[blue] == pytest.approx(np.average(flux, weights=ivar))


def test_desi_without_redshifts_or_with_broken_ones(real_file: RealFile, tmp_path: Path) -> None:
    path = tmp_path / "coadd-4-80613.fits"
    shutil.copyfile(real_file("coadd-4-80613.fits"), path)
    (spectrum,) = read(path)
    assert math.isnan(spectrum.z) and spectrum.flags == ("no redshift",)
    (tmp_path / "redrock-4-80613.fits").write_bytes(b"SIMPLE")
    _says("redrock-4-80613.fits cannot be read", lambda: read(path))


def _coadd(path: Path) -> Path:
    """Five fibres: two good, one of sky, one without data, one of the first target again."""
    rng = np.random.default_rng(3)
    targets = np.array([11, 12, 13, 14, 11])
    fibres = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=targets),
            fits.Column("OBJTYPE", "3A", array=["TGT", "TGT", "SKY", "TGT", "TGT"]),
            fits.Column("TARGET_RA", "D", array=[10, 20, 30, 40, 10]),
            fits.Column("TARGET_DEC", "D", array=np.zeros(5)),
        ],
        name="FIBERMAP",
    )
    hdus = [fits.PrimaryHDU(), fibres]
    for arm, start in (("B", 4000.0), ("R", 4032.0)):
        ivar = np.full((5, 50), 4.0 if arm == "B" else 1.0)
        ivar[3] = 0
        mask = np.zeros((5, 50), np.int32)
        mask[1, :45] = 2
        offset = np.arange(5, -6, -1)
        sigma = 1.1 if arm == "B" else 0.9
        profile = np.exp(-0.5 * (offset / sigma) ** 2)
        parts = {
            "WAVELENGTH": start + 0.8 * np.arange(50),
            "FLUX": rng.normal(5, 1, (5, 50)),
            "IVAR": ivar,
            "MASK": mask,
            "RESOLUTION": np.tile(profile[:, None] * 0.98, (5, 1, 50)),
        }
        hdus += [fits.ImageHDU(array, name=f"{arm}_{part}") for part, array in parts.items()]
    fits.HDUList(hdus).writeto(path)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=[12, 11]),
            fits.Column("Z", "D", array=[0.2, 0.1]),
            fits.Column("ZWARN", "K", array=[4, 0]),
        ],
        name="REDSHIFTS",
    )
    other = path.with_name(path.name.replace("coadd", "redrock"))
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(other)
    return path


def test_targets_of_a_coadd(tmp_path: Path) -> None:
    path = _coadd(tmp_path / "coadd-main-1.fits")
    spectra, failures = read_all([path])
    assert [s.name.split(":")[1] for s in spectra] == ["11.1", "12", "11.2"]
    assert [s.z for s in spectra] == [0.1, 0.2, 0.1]
    assert [s.flags for s in spectra] == [(), ("redshift warning 4",), ()]
    assert spectra[0].object_id == spectra[2].object_id != spectra[1].object_id
    assert [f.name for f in failures] == ["coadd-main-1.fits:14"]
    assert failures[0].reason.startswith("no pixel has")
    assert len(read(path)) == 3
    with fits.open(path) as hdus:
        assert np.array_equal(spectra[2].flux[:40], hdus["B_FLUX"].data[4, :40])
    # 50 pixels an arm, 10 in both; of the second target the last 5 of each are unmasked.
    assert spectra[0].wavelength.size == 90
    assert np.flatnonzero(spectra[1].good).tolist() == [*range(45, 50), *range(85, 90)]
    assert spectra[0].ivar[39:51].tolist() == [4.0] + [5.0] * 10 + [1.0]
    # Second moment of the mixture in the overlap, in km/s: step 0.8 Angstrom.
    for pixel, variance in ((10, 1.21), (45, 0.8 * 1.21 + 0.2 * 0.81), (80, 0.81)):
        sigma = 0.8 * math.sqrt(variance) / spectra[0].wavelength[pixel] * C_KM_S
        assert spectra[0].resolution_km_s[pixel] == pytest.approx(sigma, rel=2e-3)


def test_second_moment_is_that_of_the_columns_of_the_matrix() -> None:
    rng = np.random.default_rng(8)
    diagonals = rng.uniform(0, 1, (2, 5, 30))
    found = second_moment(diagonals)
    place = np.arange(30.0)
    for row in range(2):
        matrix = scipy.sparse.dia_matrix((diagonals[row], [2, 1, 0, -1, -2]), (30, 30)).toarray()
        for column in range(2, 28):
            mean, square = (np.average(place**power, weights=matrix[:, column]) for power in (1, 2))
            assert found[row, column] == pytest.approx(square - mean**2)


def test_a_coadd_of_sky_alone(tmp_path: Path) -> None:
    path = _coadd(tmp_path / "coadd.fits")
    with fits.open(path) as hdus:
        hdus["FIBERMAP"].data["OBJTYPE"][:] = "SKY"
        hdus.writeto(path, overwrite=True)
    _says("none on a target", lambda: read(path))


# text -------------------------------------------------------------------------------------------


def test_real_text(real_file: RealFile) -> None:
    path = real_file("pyspeckit_sample_sdss.txt")
    (spectrum,) = read(path, z=0.0)
    table = np.loadtxt(path)
    assert np.array_equal(spectrum.wavelength, table[:, 0])
    # The three pixels with an error of 0.000 are the first, where the detector begins.
    assert np.flatnonzero(~spectrum.good).tolist() == [0, 1, 2]
    assert np.array_equal(spectrum.flux[3:], table[3:, 1])
    assert np.allclose(spectrum.ivar[3:], table[3:, 2] ** -2)
    peak = spectrum.wavelength[np.nanargmax(spectrum.flux)]
    assert peak == pytest.approx(5008.24, abs=2)  # in vacuum, at rest


ROWS = [(4000.0, 1.0, 0.5), (4001.0, 2.0, 0.5), (4002.0, -3.0, 0.25)]


@pytest.mark.parametrize("mark", [" ", ",", ", ", "\t", ";", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_columns_parted_in_any_way(mark: str, end: str) -> None:
    lines = ["# a heading", *(mark.join(str(cell) for cell in (*row, 7)) for row in ROWS)]
    spectrum = read_text(end.join(lines).encode(), "a.txt")
    assert np.array_equal(spectrum.wavelength, [4000, 4001, 4002])
    assert np.array_equal(spectrum.flux, [1, 2, -3])
    assert np.array_equal(spectrum.ivar, [4, 4, 16])
    assert spectrum.flags == ("no redshift",)


def _text(*lines: str) -> Spectrum:
    return read_text("\n".join(lines).encode(), "a.txt")


def test_missing_cells_are_missing_pixels() -> None:
    spectrum = _text("4000,,1", "4001,nan,1", "4002,5,0", "4003,5,-1", "4004,5,", "4005,5,1")
    assert np.flatnonzero(spectrum.good).tolist() == [5]


@pytest.mark.parametrize(
    ("heading", "ivar"),
    [
        ("wavelength,flux,error,other", [4, 4, 4]),
        ("# lambda, flux, sky, sigma", [1, 1, 1]),
        ("Wavelength,Flux,IVAR,sky", [0.5, 0.5, 0.5]),
        ("no names here", [4, 4, 4]),
    ],
)
def test_names_place_the_error(heading: str, ivar: list[float]) -> None:
    spectrum = _text(heading, "4000,1,0.5,1", "4001,2,0.5,1", "4002,3,0.5,1")
    assert spectrum.ivar.tolist() == ivar


def test_columns_known_not_to_be_errors() -> None:
    """The table that SkyServer gives for a spectrum has a model where others have errors."""
    rng = np.random.default_rng(5)
    rows = [f"{4000 + i},{v:.4f},1.0,2.0" for i, v in enumerate(rng.normal(3, 0.2, 500))]
    spectrum = _text("Wavelength,Flux,BestFit,SkyFlux", *rows)
    assert spectrum.flags == ("errors estimated from the scatter (DER_SNR)", "no redshift")
    assert np.allclose(spectrum.ivar**-0.5, 0.2, rtol=0.1)


def test_noise_of_a_slope_with_noise_of_known_size() -> None:
    rng = np.random.default_rng(6)
    flux = np.linspace(0, 50, 20_000) + rng.normal(0, 0.3, 20_000)
    flux[::50] = np.nan
    assert noise_of(flux, "a") == pytest.approx(0.3, rel=0.03)
    _says("add the errors", lambda: noise_of(np.full(100, 2.0), "a"))
    _says("from 4 pixels", lambda: noise_of([1, 2, 4, 9], "a"))


@pytest.mark.parametrize(
    ("heading", "given", "expected", "told"),
    [
        ("# plain", 5008.240, 5008.240, ()),
        ("# air", 5006.843, 5008.240, ("wavelengths from air",)),  # NIST, both
        ("# wavelength in AIR [nm]", 656.279, 6564.61, None),
        ("# from air to vacuum", 5006.843, 5006.843, ()),
        ("# air mass 1.2, fair seeing", 5006.843, 5006.843, ()),
        ("# lambda(nm) flux(erg/s/nm)", 500.0, 5000.0, ("wavelengths from nm",)),
        ("# flux in W/m2/nm", 5000.0, 5000.0, ()),
        ("# flux in W m-2 nm^-1, nm -1", 5000.0, 5000.0, ()),
        ("# lambda [um]", 0.5, 5000.0, ("wavelengths from micron",)),
        ("wave_micron flux err", 0.5, 0.5, ()),  # no word of its own
    ],
)
def test_what_wavelengths_are(
    heading: str, given: float, expected: float, told: tuple[str, ...] | None
) -> None:
    spectrum = _text(heading, f"{given} 1 1")
    assert spectrum.wavelength[0] == pytest.approx(expected, abs=0.02)
    if told is not None:
        assert spectrum.flags == (*told, "no redshift")


def test_air_by_keyword(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("5006.843 1 1\n")
    assert read(tmp_path / "a.txt", air=True)[0].wavelength[0] == pytest.approx(5008.24, abs=2e-3)


@pytest.mark.parametrize("line", ["# z = 0.1", "#z=1e-1", "# Redshift: 0.1", "% z : +0.1"])
def test_redshift_of_a_text(line: str) -> None:
    spectrum = _text("# z-band seeing", line, "4000 1 1")
    assert (spectrum.z, spectrum.flags) == (0.1, ())


def test_descending_and_doubled_wavelengths() -> None:
    spectrum = _text("4002 1 1", "4001 2 1", "4001 4 1", "4000 3 1")
    assert spectrum.wavelength.tolist() == [4000, 4001, 4002]
    assert spectrum.flux.tolist() == [3, 3, 1]
    assert spectrum.flags == ("wavelengths sorted", "doubled pixels joined", "no redshift")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n2\n3\n", "one column"),
        ("# only a comment\n", "no line with numbers"),
        ("wave flux\n", "no line with numbers"),
        ("4000 1 1\n4001 x 1\n", "line 2 is '4001 x 1'"),
        ("4000 1 1\n4001 1\n", "line 2 has 2 columns and the first line 3"),
        ("4000 1 1\n4001\n", "line 2 has 1 columns"),
        ("4000 1 0\n4001 1 0\n", "no pixel has"),
        ("4000 nan 1\n4001 nan 1\n", "no pixel has"),
        ("-4000 1 1\n0 1 1\n", "no pixel has"),
        ("4000 1\n4001 1\n", "none can be estimated from 2 pixels"),
        ("<html><body>404</body></html>\n", "no line with numbers"),
        ("a\x00b", "neither FITS nor text"),
    ],
)
def test_texts_that_are_no_spectrum(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    _says(words, lambda: read(path))
    _says(str(path), lambda: read(path))


def test_numbers_beyond_all_measure(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("# air\n1e-300 1 1\n4000 1e308 1e-300\n4001 1e308 1e300\n1e999 1 1\n")
    assert read(path)[0].good.sum() == 1
    path.write_text("\n".join(f"{4000 + i} {(-1) ** i}e308" for i in range(9)))
    _says("none can be estimated", lambda: read(path))


_numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    rows=st.lists(st.tuples(st.floats(1, 1e5), _numbers, st.floats(1e-3, 1e3)), min_size=1),
    mark=st.sampled_from([" ", ",", "\t", " , "]),
    extra=st.integers(0, 3),
)
def test_any_table_comes_back(
    rows: list[tuple[float, float, float]], mark: str, extra: int
) -> None:
    lines = [mark.join(repr(cell) for cell in (*row, *[0.0] * extra)) for row in rows]
    spectrum = _text(*lines)
    places = sorted({row[0] for row in rows})
    assert spectrum.wavelength.tolist() == places
    for place, flux, ivar in zip(places, spectrum.flux, spectrum.ivar, strict=True):
        same = [row for row in rows if row[0] == place]
        weights = [row[2] ** -2 for row in same]
        mean = np.average([row[1] for row in same], weights=weights)
        assert ivar == pytest.approx(sum(weights))
        assert flux == pytest.approx(mean, abs=1e-6, rel=1e-9)


# bad files --------------------------------------------------------------------------------------


def test_files_cut_short(real_file: RealFile, tmp_path: Path) -> None:
    whole = real_file("spec-0266-51602-0001.fits").read_bytes()
    path = tmp_path / "cut.fits"
    with fits.open(real_file("spec-0266-51602-0001.fits")) as hdus:
        table, summary, lines = (hdus[n].fileinfo() for n in (1, 2, 3))
    # Within the first head, that of the pixels, the pixels, the summary's head and the summary.
    for size in (
        100,
        table["hdrLoc"] + 500,
        table["datLoc"] + 1000,
        summary["hdrLoc"] + 3000,
        summary["datLoc"] + 40,
    ):
        path.write_bytes(whole[:size])
        _says("fetch it again", lambda: read(path))
    path.write_bytes(whole[: table["datLoc"] + 10 * 32])  # between two rows
    _says("the file ends after 320 of the 122720 bytes of COADD", lambda: read(path))
    # Further on nothing is lost.
    path.write_bytes(whole[: lines["datLoc"] + 17])
    (spectrum,) = read(path)
    assert spectrum.flags == ("file cut short after the spectrum",)
    assert np.array_equal(spectrum.ivar, read(real_file("spec-0266-51602-0001.fits"))[0].ivar)
    path.write_bytes(gzip.compress(whole)[:30_000])
    _says("fetch it again", lambda: read(path))
    path.write_bytes(gzip.compress(whole))
    assert read(path)[0].flags == ()


def test_cut_sp_spec_and_coadd(real_file: RealFile, tmp_path: Path) -> None:
    path = _sp_spec(tmp_path / "a.fit")
    path.write_bytes(path.read_bytes()[:3600])
    _says("fetch it again", lambda: read(path))
    path = tmp_path / "coadd-1.fits"
    path.write_bytes(real_file("coadd-4-80613.fits").read_bytes()[:200_000])
    _says("fetch it again", lambda: read(path))


@pytest.mark.parametrize("column", ["flux", "ivar", "loglam"])
def test_nothing_measured(column: str, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    write_sdss(path, _small())
    with fits.open(path) as hdus:
        hdus[1].data[column][:] = 0 if column == "ivar" else np.nan
        hdus.writeto(path, overwrite=True)
    _says("no pixel has a wavelength, a flux and a positive inverse variance", lambda: read(path))


def test_files_that_are_no_spectra(tmp_path: Path) -> None:
    def file(name: str, content: bytes = b"") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    _says("is empty", lambda: read(file("a.fits")))
    _says("is empty", lambda: read(file("a.txt")))
    _says("named as FITS, but it is none", lambda: read(file("b.fits", b"<html>gone</html>")))
    _says("neither FITS nor text", lambda: read(file("b.png", b"\x89PNG\r\n\x1a\n\x00\x00")))
    _says("but it is none", lambda: read(file("b.fits.gz", gzip.compress(b"no fits at all"))))
    assert read(file("b.txt.gz", gzip.compress(b"4000 1 1\n")))[0].good.all()
    _says("is a folder", lambda: read(tmp_path))
    _says("no such file", lambda: read(tmp_path / "none.fits"))
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "picture.fits")
    _says("it holds PRIMARY", lambda: read(tmp_path / "picture.fits"))
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=[1.0])], name="ONE")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    _says("it holds PRIMARY, ONE", lambda: read(tmp_path / "table.fits"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small sound files of the three kinds of FITS."""
    folder = tmp_path_factory.mktemp("whole")
    write_sdss(folder / "a.fits", _small())
    return [
        path.read_bytes()
        for path in (folder / "a.fits", _sp_spec(folder / "b.fit"), _coadd(folder / "coadd.fits"))
    ]


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"SIMPLE  =", b"\x1f\x8b\x08"]))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    path = tmp_path_factory.mktemp("random") / "a.fits"
    path.write_bytes(start + data)
    _says(str(path), lambda: read(path))
    path = path.with_suffix(".txt")
    path.write_bytes(start + data)
    spectra, failures = read_all([path])
    assert len(spectra) + len(failures) == 1


@given(
    kind=st.integers(0, 2),
    places=st.lists(st.integers(0, 2880 * 8), min_size=1, max_size=20),
    noise=st.binary(min_size=20, max_size=20),
)
@settings(max_examples=150)
def test_damaged_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    whole: list[bytes],
    kind: int,
    places: list[int],
    noise: bytes,
) -> None:
    """A file is read, or named with a reason, whatever its bytes are."""
    content = bytearray(whole[kind])
    for place, byte in zip(places, noise, strict=False):
        content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("damaged") / "a.fits"
    path.write_bytes(content)
    spectra, failures = read_all([path])
    assert len(spectra) + len(failures) >= 1
    assert all("\n" not in failure.reason for failure in failures)


# many files -------------------------------------------------------------------------------------


def test_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "within").mkdir()
    _says("1 folders, which are not entered", lambda: spectrum_files(tmp_path))
    for name in ("b.fits", "a.TXT", "c.fits.gz", "d.fit", "e.dat", "redrock-1.fits", ".x.fits",
                 "run.json", "within/f.fits"):  # fmt: skip
        (tmp_path / name).write_text("")
    (tmp_path / "g.csv").write_text("wavelength,flux\n")
    (tmp_path / "galaxies.csv").write_text("plate,mjd,fiberid,z\n")
    (tmp_path / "sky.csv").write_text('"ra","PLATE","MJD","FIBERID"\n')
    (tmp_path / "classes.csv").write_text("file,class\n")
    found = [path.name for path in spectrum_files(tmp_path)]
    assert found == ["a.TXT", "b.fits", "c.fits.gz", "d.fit", "e.dat", "g.csv"]
    assert spectrum_files(tmp_path / "b.fits") == [tmp_path / "b.fits"]
    _says("does not exist", lambda: spectrum_files(tmp_path / "none"))


def test_the_good_are_read_and_the_bad_are_named(tmp_path: Path) -> None:
    write_sdss(tmp_path / "a.fits", _small())
    write_sdss(tmp_path / "c.fits", _small(ra_deg=50.0))
    (tmp_path / "b.fits").write_bytes((tmp_path / "a.fits").read_bytes()[:3000])
    seen: list[tuple[int, int]] = []
    spectra, failures = read_all(
        spectrum_files(tmp_path), report=lambda done, count: seen.append((done, count))
    )
    assert [spectrum.name for spectrum in spectra] == ["a.fits", "c.fits"]
    assert [spectrum.object_id for spectrum in spectra] == [
        "10.00000,+1.00000",
        "50.00000,+1.00000",
    ]
    assert failures == [Failure("b.fits", failures[0].reason)]
    assert str(tmp_path) not in failures[0].reason and "b.fits" not in failures[0].reason
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [s.name for s in read_folder(tmp_path)[0]] == ["a.fits", "c.fits"]


def test_names_stay_apart(tmp_path: Path) -> None:
    paths = [tmp_path / part / "a.fits" for part in ("x/1", "x/2", "y/2")]
    paths.append(tmp_path / "b.fits")
    for path in paths:
        write_sdss(path, _small())
    spectra, _ = read_all([*paths, str(paths[0])])
    assert [s.name for s in spectra] == ["1/a.fits", "x/2/a.fits", "y/2/a.fits", "b.fits"]


def test_processes_read_the_same(tmp_path: Path) -> None:
    for number in range(3):
        write_sdss(tmp_path / f"{number}.fits", _small(z=number / 10))
    (tmp_path / "9.fits").write_text("x")
    alone, together = (read_all(spectrum_files(tmp_path), workers=n) for n in (1, 2))
    assert [s.z for s in together[0]] == [s.z for s in alone[0]] == [0.0, 0.1, 0.2]
    assert together[1] == alone[1] and len(alone[1]) == 1
    with pytest.raises(SettingsError, match="--workers 0"):
        read_all([], workers=0)
    assert read_all([]) == ([], [])


def _at(name: str, ra: float, dec: float) -> Spectrum:
    return _small(name, ra_deg=ra, dec_deg=dec)


def test_repeats_are_one_object(real_file: RealFile) -> None:
    names = ["spec-0266-51602-0001", "spec-0266-51602-0526", "spec-0266-51630-0525"]
    spectra, _ = read_all([real_file(f"{name}.fits") for name in names])
    assert spectra[1].object_id == spectra[2].object_id != spectra[0].object_id


def test_objects_by_position() -> None:
    arcsec = 1 / 3600
    nan = math.nan
    spectra = [
        _at("b", 0.3 * arcsec, 0.0),
        _at("a", 360 - 0.3 * arcsec, 0.0),  # the same place, across 0 h
        _at("c", 10.0, 89.9999),
        _at("d", 190.0, 89.9999),  # 0.72 arcsec away, over the pole
        _at("e", 30.0, 0.0),
        _at("f", 30.0 + 1.9 * arcsec, 0.0),
        _at("g", 30.0 + 3.8 * arcsec, 0.0),  # linked by the one between
        _at("h", 30.0, 60.0),
        _at("i", 30.0 + 3.9 * arcsec, 60.0),  # 1.95 arcsec at this declination
        _at("j", 30.0, -60.0),
        _at("k", 30.0 + 4.1 * arcsec, -60.0),
        _at("l", nan, nan),
        _at("m", nan, nan),
    ]
    found = dict(zip([s.name for s in spectra], same_objects(spectra), strict=True))
    for pair in ("ab", "cd", "ef", "eg", "hi"):
        assert found[pair[0]] == found[pair[1]], pair
    assert len(set(found.values())) == 8
    assert found["a"] == "359.99992,+0.00000" and (found["l"], found["m"]) == ("l", "m")
    assert same_objects(spectra[::-1]) == same_objects(spectra)[::-1]
    assert found["j"] == same_objects(spectra, radius_arcsec=3.0)[10]
    assert same_objects([]) == []
