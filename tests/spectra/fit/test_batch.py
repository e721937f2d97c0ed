"""Batches: windows, units of the flux, coverage, and spectra that cannot be fitted."""

import dataclasses

import numpy as np
import pytest

from warte.spectra.fit.batch import ASSUMED_RESOLUTION, batches
from warte.spectra.fit.layout import layout_for
from warte.spectra.spectrum import C_KM_S, Spectrum, make_spectrum


def spectrum(
    *, z: float = 0.1, low: float = 3800.0, high: float = 9200.0, name: str = "a", **changes: object
) -> Spectrum:
    """A flat spectrum of flux 2 and error 0.5 with an SDSS grid."""
    wavelength = 10 ** np.arange(np.log10(low), np.log10(high), 1e-4)
    values = dict(
        flux=np.full(wavelength.size, 2.0),
        ivar=np.full(wavelength.size, 4.0),
        resolution_km_s=70.0,
    )
    values.update(changes)  # type: ignore[arg-type]
    return make_spectrum(
        name,
        wavelength,
        values["flux"],
        values["ivar"],
        z=z,
        resolution_km_s=values["resolution_km_s"],
    )


def hidden(whole: Spectrum, low: float, high: float) -> Spectrum:
    """The spectrum without the pixels between two rest wavelengths."""
    out = (whole.rest_wavelength > low) & (whole.rest_wavelength < high)
    return dataclasses.replace(
        whole, flux=np.where(out, np.nan, whole.flux), ivar=np.where(out, 0.0, whole.ivar)
    )


def test_area_over_rest_wavelength_is_the_observed_flux() -> None:
    z, area = 0.25, 37.0
    wavelength = 10 ** np.arange(3.58, 3.96, 1e-4)
    centre = 5008.24 * (1 + z)
    width = centre * 100 / C_KM_S
    flux = area * np.exp(-0.5 * ((wavelength - centre) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    one = make_spectrum("a", wavelength, flux, np.full(flux.size, 9.0), z=z)
    lines = batches([one])[0][0].lines
    inside = (lines.wavelength[0] > 4990) & (lines.wavelength[0] < 5030)
    found = np.trapezoid(lines.flux[0][inside], lines.wavelength[0][inside])
    assert found == pytest.approx(area, rel=1e-6)
    # Signal to noise does not change.
    assert lines.weight[0].max().item() == pytest.approx(9.0 / (1 + z) ** 2)


@pytest.mark.parametrize(
    ("low", "high", "windows"),
    [
        (3800.0, 9200.0, (True, True)),
        (3800.0, 6500.0, (True, False)),
        (6000.0, 9200.0, (False, True)),
        # Half of the pixels of H-beta, [O III] 4959 and 5007 are needed: not one line of three.
        (3800.0, 4900.0 * 1.1, (False, False)),
        (3800.0, 4985.0 * 1.1, (True, False)),
    ],
)
def test_windows_follow_the_pixels(low: float, high: float, windows: tuple[bool, bool]) -> None:
    groups, failed = batches([spectrum(low=low, high=high)])
    if not any(windows):
        assert not groups
        assert "no window is covered" in failed[0]
        return
    assert not failed
    assert groups[0].windows == windows
    assert groups[0].covered.shape == (1, len(layout_for(windows).lines))
    rest = groups[0].lines.wavelength[0].numpy()
    assert np.all(np.diff(rest) > 0)
    assert ((rest < 5101) == (rest < 6400)).all()
    assert (rest.min() < 4790) == windows[0]


def test_coverage_counts_missing_pixels_and_holes_in_the_grid() -> None:
    whole = spectrum()
    blind = hidden(whole, 4850.0, 4875.0)  # H-beta and its 400 km/s
    kept = (whole.rest_wavelength < 4850.0) | (whole.rest_wavelength > 4875.0)
    hole = make_spectrum("b", whole.wavelength[kept], whole.flux[kept], whole.ivar[kept], z=whole.z)
    # The last pixel before a hole lies within reach of H-beta and stands for itself alone.
    kept = (whole.rest_wavelength < 4858.0) | (whole.rest_wavelength > 4875.0)
    near = make_spectrum("c", whole.wavelength[kept], whole.flux[kept], whole.ivar[kept], z=whole.z)
    half = hidden(whole, 5008.24, 5030.0)
    covered = batches([whole, blind, hole, half, near])[0][0].covered
    names = layout_for((True, True)).lines
    beta, oiii = names.index("H-beta"), names.index("[O III] 5007")
    assert covered[0] == pytest.approx(1.0, abs=0.06)
    assert covered[1, beta] == 0.0
    assert covered[2, beta] == 0.0
    assert covered[1, oiii] == pytest.approx(1.0, abs=0.06)
    assert covered[4, beta] < 0.3
    assert covered[3, oiii] == pytest.approx(0.5, abs=0.09)


def test_missing_pixels_have_no_weight_and_no_number_that_could_spread() -> None:
    lines = batches([hidden(spectrum(), 4990.0, 5020.0)])[0][0].lines
    missing = lines.weight[0] == 0
    assert missing.sum() > 20
    assert (lines.flux[0][missing] == 0).all()
    assert lines.flux.isfinite().all()


def test_the_instrument_is_taken_at_each_line_or_assumed() -> None:
    grid = spectrum().wavelength
    varying = spectrum(resolution_km_s=50 + grid / 200)
    unknown = spectrum(resolution_km_s=np.nan)
    batch = batches([varying, unknown])[0][0]
    at = layout_for((True, True)).lines.index("H-alpha")
    expected = 50 + 6564.61 * 1.1 / 200
    assert batch.lines.instrument[0, at].item() == pytest.approx(expected, abs=0.06)
    assert (batch.lines.instrument[1] == ASSUMED_RESOLUTION).all()
    assert batch.assumed.tolist() == [False, True]


def test_bad_spectra_are_named_and_leave_the_others_alone() -> None:
    good = spectrum()
    few = spectrum(low=5000.0, high=7600.0)
    keep = np.zeros(few.wavelength.size, dtype=bool)
    keep[::15] = True
    few = make_spectrum("few", few.wavelength[keep], few.flux[keep], few.ivar[keep], z=0.1)
    bad = [
        dataclasses.replace(good, z=float("nan")),
        dataclasses.replace(good, z=-1.0),
        dataclasses.replace(good, z=1.8),
        few,
    ]
    groups, failed = batches([bad[0], good, *bad[1:], spectrum(z=0.12)])
    assert sorted(failed) == [0, 2, 3, 4]
    assert failed[0] == "no redshift; give one"
    assert "z = 1.8" in failed[3]
    assert "good pixels" in failed[4]
    assert all("\n" not in reason for reason in failed.values())
    (batch,) = groups
    assert batch.rows.tolist() == [1, 5]
    alone = batches([good])[0][0]
    size = alone.lines.flux.shape[1]
    np.testing.assert_array_equal(batch.lines.flux[0, :size], alone.lines.flux[0])
    assert (batch.lines.weight[0, size:] == 0).all()
