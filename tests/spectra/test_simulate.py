"""Simulated spectra: fluxes, labels, noise, gaps, and starlight as real galaxies have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binomtest, kstest

from warte.core.errors import SettingsError
from warte.spectra import presets
from warte.spectra.bpt import bpt_class
from warte.spectra.lines import CLASSES, WAVELENGTH
from warte.spectra.simulate import (
    CHUNK,
    SimulateSettings,
    instrument,
    joined,
    simulate,
    simulate_batch,
    simulate_pairs,
    stars,
)
from warte.spectra.simulate.paint import paint_lines
from warte.spectra.spectrum import C_KM_S, FloatArray, vacuum_from_air

CLEAN = SimulateSettings(
    noise=0.0, missing=(0.0, 0.0), bad_pixels=0.0, ragged_ends=0, cosmics=0.0, ivar_error=0.0
)
PIXEL_WIDTH = np.diff(instrument.EDGES)


def only(name: str, **changes: object) -> SimulateSettings:
    """Clean spectra of one class."""
    weights = tuple(float(entry == name) for entry in CLASSES)
    return replace(CLEAN, class_weights=weights, **changes)  # type: ignore[arg-type]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- whole batches ------------------------------------------------------------------------------


def test_same_seed_same_data() -> None:
    settings = SimulateSettings()
    first, truth = simulate_batch(settings, 140, rng(5))  # more than one chunk
    again, same = simulate_batch(settings, 140, rng(5))
    np.testing.assert_array_equal(first.flux, again.flux)
    np.testing.assert_array_equal(first.ivar, again.ivar)
    pd.testing.assert_frame_equal(truth.spectra, same.spectra)
    pd.testing.assert_frame_equal(truth.lines, same.lines)
    other, _ = simulate_batch(settings, 140, rng(6))
    assert not np.array_equal(first.flux, other.flux, equal_nan=True)
    assert truth.spectra["file"].is_unique


def test_shapes_and_missing_pixels() -> None:
    batch, truth = simulate_batch(SimulateSettings(missing=(0.3, 0.3)), 20, rng())
    assert batch.flux.shape == batch.ivar.shape == (20, len(batch.loglam))
    assert batch.flux.dtype == batch.ivar.dtype == np.float32
    assert batch.loglam[0] == pytest.approx(3.5791)
    assert batch.loglam[-1] == pytest.approx(3.9645)
    np.testing.assert_array_equal(np.isnan(batch.flux), batch.ivar == 0)
    assert (batch.ivar >= 0).all()
    lost = np.isnan(batch.flux).mean(axis=1)
    assert (lost >= 0.2999).all()
    assert (lost < 0.33).all()
    np.testing.assert_array_equal(truth.spectra["z"], batch.z)


def test_no_spectra_still_have_tables() -> None:
    batch, truth = simulate_batch(SimulateSettings(), 0, rng())
    assert batch.flux.shape[0] == 0
    assert len(truth.spectra) == len(truth.lines) == 0
    assert {"file", "class", "components"} <= set(truth.spectra.columns)


def test_spectra_as_objects() -> None:
    spectra, truth = simulate(SimulateSettings(count=3), rng())
    batch, _ = simulate_batch(SimulateSettings(), 3, rng())
    assert [spectrum.name for spectrum in spectra] == list(truth.spectra["file"])
    np.testing.assert_allclose(spectra[1].flux, batch.flux[1])
    assert spectra[1].z == batch.z[1]
    assert spectra[1].object_id == truth.spectra["object_id"][1]


def test_signal_to_noise_is_as_asked() -> None:
    for wanted in (3.0, 20.0, 60.0):
        batch, _ = simulate_batch(SimulateSettings(snr=(wanted, wanted)), 30, rng())
        found = np.nanmedian(batch.flux * np.sqrt(batch.ivar), axis=1)
        assert np.median(found) == pytest.approx(wanted, rel=0.05)


# -- emission lines -----------------------------------------------------------------------------


def test_painted_lines_hold_their_flux_place_and_width() -> None:
    flux, velocity = np.array([7.0, 3.0, 5.0]), np.array([120.0, -250.0, 0.0])
    sigma, z = np.array([20.0, 300.0, 2500.0]), np.array([0.1, 0.1, 0.05])
    rest, row = np.array([5008.24, 5008.24, 6564.61]), np.array([0, 1, 2])
    image = paint_lines(3, row, rest, flux, velocity, sigma, z).astype(np.float64)
    light = image * PIXEL_WIDTH
    np.testing.assert_allclose(light.sum(axis=1), flux, rtol=3e-6)
    mean = (light * instrument.WAVELENGTH).sum(axis=1) / flux
    u = C_KM_S * (instrument.WAVELENGTH / (rest * (1 + z))[:, None] - 1)
    np.testing.assert_allclose(C_KM_S * (mean / (rest * (1 + z)) - 1), velocity, atol=1.5)
    second = (light * (u - velocity[:, None]) ** 2).sum(axis=1) / flux
    own = np.interp(rest * (1 + z), instrument.WAVELENGTH, instrument.RESOLUTION_KM_S)
    # A pixel adds the variance of a box, 69 km/s wide.
    expected = sigma**2 + own**2 + (C_KM_S * np.log(10) * 1e-4) ** 2 / 12
    np.testing.assert_allclose(np.sqrt(second), np.sqrt(expected), rtol=2e-3)


def test_lines_off_the_grid_leave_nothing() -> None:
    rest = np.array([1000.0, 20000.0])
    image = paint_lines(1, np.zeros(2, int), rest, np.ones(2), *np.full((3, 2), 0.0))
    assert (image == 0).all()


def test_fluxes_are_recovered_from_whole_spectra() -> None:
    """[O III] 5007 above a straight continuum is the flux of both components together."""
    settings = only("Seyfert", snr=(60.0, 60.0), two_fraction=0.5, sigma_km_s=(60.0, 150.0))
    batch, truth = simulate_batch(replace(settings, separation_km_s=(50.0, 300.0)), 60, rng(2))
    lines = truth.lines[truth.lines["line"] == "[O III] 5007"]
    total = lines.groupby("file", sort=False)[["flux", "ew_angstrom"]].sum()
    rest = 10**batch.loglam / (1 + batch.z[:, None])
    u = C_KM_S * (rest / WAVELENGTH["[O III] 5007"] - 1)
    ratios, widths = [], []
    for row, flux in enumerate(total["flux"]):
        line, side = np.abs(u[row]) < 1100, (np.abs(u[row]) > 1100) & (np.abs(u[row]) < 1700)
        fit = np.polynomial.Polynomial.fit(u[row, side], batch.flux[row, side].astype(float), 1)
        above = batch.flux[row, line] - fit(u[row, line])
        ratios.append((above * PIXEL_WIDTH[line]).sum() / flux)
        widths.append(flux / fit(0.0) / (1 + batch.z[row]))
    assert np.median(widths / total["ew_angstrom"]) == pytest.approx(1.0, abs=0.02)
    # Iron of the stars takes some 0.5 Angstrom from every line, strong or weak.
    slope, exact = np.polyfit(1 / total["ew_angstrom"], ratios, 1)
    assert exact == pytest.approx(1.0, abs=0.01)
    assert -1.0 < slope < 0.1
    assert np.std(ratios - slope / total["ew_angstrom"]) < 0.04


def test_peak_signal_to_noise_is_that_of_the_spectrum() -> None:
    """Strong lines stand alone: their highest pixel over its noise is the stated peak."""
    settings = only("Seyfert", snr=(30.0, 30.0), two_fraction=0.0, sigma_km_s=(150.0, 300.0))
    batch, truth = simulate_batch(settings, 40, rng(1))
    place = (1 + batch.z) * WAVELENGTH["[O III] 5007"]
    pixel = np.rint((np.log10(place) - instrument.FIRST) / instrument.STEP).astype(int)
    rows = np.arange(40)
    window = pixel[:, None] + np.arange(-4, 5)
    sides = batch.flux[rows[:, None], pixel[:, None] + np.array([-28, -26, -24, 24, 26, 28])]
    height = batch.flux[rows[:, None], window].max(axis=1) - np.median(sides, axis=1)
    found = height * np.sqrt(batch.ivar[rows, pixel])
    strong = (truth.spectra["peak_snr_oiii"] > 40).to_numpy()
    assert strong.sum() > 10
    ratio = found[strong] / truth.spectra["peak_snr_oiii"][strong]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.03)


def test_fixed_ratios_of_doublets() -> None:
    _, truth = simulate_batch(CLEAN, 200, rng(3))
    table = truth.lines[truth.lines["component"] != "broad"]
    flux = table.pivot(index=["file", "component"], columns="line", values="flux")
    # Storey & Zeippen 2000, MNRAS 312, 813.
    np.testing.assert_allclose(flux["[O III] 5007"] / flux["[O III] 4959"], 2.98, rtol=1e-9)
    np.testing.assert_allclose(flux["[N II] 6583"] / flux["[N II] 6548"], 3.05, rtol=1e-9)
    # Limits of low and high density: Osterbrock & Ferland 2006, figure 5.8.
    assert (flux["[S II] 6716"] / flux["[S II] 6731"]).between(0.44, 1.45).all()
    assert (flux["[O II] 3729"] / flux["[O II] 3727"]).between(0.35, 1.5).all()
    # Dust can only steepen case B.
    assert (flux["H-alpha"] / flux["H-beta"]).min() >= 2.86 * (1 - 1e-12)
    assert (flux["H-gamma"] / flux["H-beta"]).max() <= 0.468 * (1 + 1e-12)


def test_kinematics_are_shared_by_the_lines_of_a_component() -> None:
    _, truth = simulate_batch(CLEAN, 100, rng(4))
    groups = truth.lines.groupby(["file", "component"])
    assert (groups[["velocity_km_s", "sigma_km_s"]].nunique() == 1).all(axis=None)
    first = truth.lines.drop_duplicates(["file", "component"]).set_index(["component", "file"])
    for number in ("1", "2"):
        found = first.loc[number]["velocity_km_s"]
        stated = truth.spectra.set_index("file")[f"velocity_{number}_km_s"]
        np.testing.assert_array_equal(found, stated[found.index])


# -- labels -------------------------------------------------------------------------------------


def test_labels_agree_with_the_curves() -> None:
    _, truth = simulate_batch(SimulateSettings(), 600, rng(1))
    narrow = truth.lines[truth.lines["component"] != "broad"]
    total = narrow.groupby(["file", "line"])["flux"].sum().unstack()
    place = bpt_class(
        np.log10(total["[N II] 6583"] / total["H-alpha"]),
        np.log10(total["[O III] 5007"] / total["H-beta"]),
    )
    kind = truth.spectra.set_index("file")["class"][total.index]
    for name in ("star-forming", "composite", "Seyfert", "LINER"):
        assert (kind == name).sum() > 50
        assert (place[kind == name] == name).all()
    broad = truth.lines[truth.lines["component"] == "broad"]
    files = truth.spectra.loc[truth.spectra["class"] == "broad-line", "file"]
    assert set(broad["file"]) == set(files)
    assert broad["sigma_km_s"].between(600, 5000).all()
    ew = narrow[narrow["line"] == "H-alpha"].groupby("file")["ew_angstrom"].sum()
    assert (ew[kind[kind == "passive"].index] < 0.6).all()
    assert (ew[kind[kind == "star-forming"].index] > 1).all()


def test_settings_of_classes_and_components_are_kept() -> None:
    settings = replace(
        CLEAN, class_weights=(3.0, 0.0, 1.0, 0.0, 0.0, 0.0), two_fraction=0.3,
        separation_km_s=(250.0, 300.0), flux_ratio=(0.4, 0.6), z=(0.1, 0.12),
        sigma_km_s=(80.0, 100.0),
    )  # fmt: skip
    _, truth = simulate_batch(settings, 800, rng())
    table = truth.spectra
    assert set(table["class"]) == {"star-forming", "Seyfert"}
    assert binomtest(int((table["class"] == "Seyfert").sum()), 800, 0.25).pvalue > 1e-3
    assert binomtest(int((table["components"] == 2).sum()), 800, 0.3).pvalue > 1e-3
    two = table[table["components"] == 2]
    assert two["separation_km_s"].between(250, 300).all()
    apart = (two["velocity_2_km_s"] - two["velocity_1_km_s"]).abs()
    np.testing.assert_allclose(apart, two["separation_km_s"])
    assert two["flux_ratio"].between(0.4, 0.6).all()
    assert table["z"].between(0.1, 0.12).all()
    assert table["sigma_1_km_s"].between(80, 100).all()
    oiii = truth.lines[truth.lines["line"] == "[O III] 5007"]
    flux = oiii.pivot(index="file", columns="component", values="flux").loc[two["file"]]
    np.testing.assert_allclose(flux["2"] / flux["1"], two["flux_ratio"])
    one = table[table["components"] == 1]
    assert one["velocity_2_km_s"].isna().all()
    assert (one["flux_ratio"] == 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"z": (0.0, 0.7)},
        {"snr": (20.0, 10.0)},
        {"snr": (10.0, 100.0)},
        {"snr": (float("nan"), 10.0)},
        {"class_weights": (1.0, 1.0)},
        {"class_weights": (0.0,) * 6},
        {"two_fraction": 1.5},
        {"missing": (0.0, 1.0)},
        {"count": -1},
        {"correlation": 0.6},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object]) -> None:
    name = next(iter(changes))
    with pytest.raises(SettingsError, match=f"{name} is .*; allowed"):
        SimulateSettings(**changes)  # type: ignore[arg-type]


# -- noise --------------------------------------------------------------------------------------


def noise_in_sigma(settings: SimulateSettings, count: int = 30) -> FloatArray:
    """(N, P) added noise over the stated one."""
    clean, _ = simulate_batch(replace(settings, noise=0.0), count, rng(7))
    noisy, _ = simulate_batch(replace(settings, noise=1.0), count, rng(7))
    np.testing.assert_array_equal(clean.ivar, noisy.ivar)
    return np.asarray((noisy.flux - clean.flux) * np.sqrt(noisy.ivar), dtype=np.float64)


def test_noise_is_as_the_inverse_variance_says() -> None:
    pull = noise_in_sigma(CLEAN)
    strong = instrument.sky_noise()[2]
    calm = pull[:, ~strong]
    assert np.mean(calm**2) == pytest.approx(1.0, abs=5 * np.sqrt(2 / calm.size))
    assert kstest(calm.ravel()[::7], "norm").pvalue > 1e-3
    share = np.mean(calm[:, 1:] * calm[:, :-1])
    assert share == pytest.approx(0.0, abs=5 / np.sqrt(calm.size))
    # Residuals of 1 to 5 times the noise come on top of it at strong sky lines only.
    spread = np.sqrt(np.mean(pull[:, strong] ** 2, axis=1))
    assert spread.min() > 1.2
    assert 1.5 < np.median(spread) < 3.5


def test_noise_may_be_shared_by_neighbours() -> None:
    pull = noise_in_sigma(replace(CLEAN, correlation=0.3, sky_residual=(0.0, 0.0)))
    assert np.mean(pull**2) == pytest.approx(1.0, abs=0.02)
    assert np.mean(pull[:, 1:] * pull[:, :-1]) == pytest.approx(0.3, abs=0.015)
    assert np.mean(pull[:, 2:] * pull[:, :-2]) == pytest.approx(0.0, abs=0.015)


def test_stated_noise_is_wrong_by_the_stated_part() -> None:
    exact, _ = simulate_batch(CLEAN, 60, rng(1))
    stated, _ = simulate_batch(replace(CLEAN, ivar_error=0.1), 60, rng(1))
    factor = np.median(stated.ivar[:60] / exact.ivar[:60], axis=1)
    assert factor.min() >= 0.9 - 1e-5
    assert factor.max() <= 1.1 + 1e-5
    assert np.ptp(factor) > 0.1


def test_cosmics_are_rare_and_high() -> None:
    settings = replace(CLEAN, cosmics=2.0, sky_residual=(0.0, 0.0))
    high = np.abs(noise_in_sigma(settings, 50)) > 6
    assert 20 < high.sum() < 200


def test_noise_resembles_that_of_real_spectra(real_file: Callable[[str], Path]) -> None:
    """A Seyfert galaxy and a faint one: the stated noise of a spectrum of the same brightness."""
    from astropy.io import fits

    for name, top in (("spec-0295-51585-0596.fits", 1.6), ("spec-0266-51602-0573.fits", 1.6)):
        with fits.open(real_file(name)) as file:
            data = file[1].data
            loglam = data["loglam"].astype(np.float64)
            flux, ivar = data["flux"].astype(np.float64), data["ivar"].astype(np.float64)
        smooth = gaussian_filter1d(np.where(ivar > 0, flux, np.median(flux)), 20)
        light = np.interp(instrument.LOGLAM, loglam, smooth)[None].astype(np.float32)
        model = np.interp(loglam, instrument.LOGLAM, instrument.noise_sigma(light)[0])
        good = (ivar > 0) & (loglam > 3.585) & (loglam < 3.96)
        ratio = model[good] * np.sqrt(ivar[good])
        parts = np.array([np.median(part) for part in np.array_split(ratio, 12)])
        assert (parts < top).all()
        assert (parts > 1 / top).all()


# -- starlight ----------------------------------------------------------------------------------


def test_calzetti_curve_has_its_published_values() -> None:
    # Calzetti et al. 2000, ApJ 533, 682, equation 4 at H-alpha, 0.55 micron and H-beta; the curve
    # is defined to be R_V = 4.05 at V.
    np.testing.assert_allclose(
        stars.calzetti([6563.0, 5500.0, 4861.0]), [3.33, 4.05, 4.60], atol=0.02
    )
    assert stars.calzetti(6299.9) == pytest.approx(float(stars.calzetti(6300.1)), abs=0.05)


# Bands of the Lick indices, air Angstrom: middle, blue side, red side. Worthey et al. 1994, ApJS
# 94, 687, table 1; H-delta A from Worthey & Ottaviani 1997.
LICK = {
    "H-beta": ((4847.875, 4876.625), (4827.875, 4847.875), (4876.625, 4891.625)),
    "Mg b": ((5160.125, 5192.625), (5117.7, 5142.7), (5191.375, 5206.375)),
    "Fe5270": ((5245.65, 5285.65), (5233.15, 5248.15), (5285.65, 5318.15)),
    "Na D": ((5876.875, 5909.375), (5860.625, 5875.675), (5922.125, 5948.125)),
    "H-delta A": ((4083.5, 4122.25), (4041.6, 4081.5), (4128.5, 4161.0)),
}


def lick(wavelength: FloatArray, flux: FloatArray, name: str) -> float:
    """Equivalent width of an index, Angstrom."""
    middle, blue, red = (vacuum_from_air(band) for band in LICK[name])

    def level(band: FloatArray) -> float:
        return float(np.nanmean(flux[(wavelength > band[0]) & (wavelength < band[1])]))

    inside = (wavelength > middle[0]) & (wavelength < middle[1])
    line = np.interp(wavelength[inside], [blue.mean(), red.mean()], [level(blue), level(red)])
    return float(np.nansum((1 - flux[inside] / line) * np.gradient(wavelength)[inside]))


def break_4000(wavelength: FloatArray, flux: FloatArray) -> float:
    """Narrow 4000 Angstrom break, Balogh et al. 1999, ApJ 527, 54."""
    power = flux * wavelength**2
    red = power[(wavelength > 4000) & (wavelength < 4100)]
    return float(np.nanmean(red) / np.nanmean(power[(wavelength > 3850) & (wavelength < 3950)]))


def test_old_stars_look_like_a_real_passive_galaxy(real_file: Callable[[str], Path]) -> None:
    from astropy.io import fits

    with fits.open(real_file("spec-0266-51630-0525.fits")) as file:
        data, z = file[1].data, float(file[2].data["Z"][0])
    real = 10 ** data["loglam"].astype(np.float64) / (1 + z)
    light = np.where(data["ivar"] > 0, data["flux"], np.nan).astype(np.float64)
    # The galaxy is massive and rich in metals; stars move with 200 km/s or so.
    own = gaussian_filter1d(stars.population(8.0, 0.3), 3.4)
    for name in LICK:
        assert lick(stars.REST, own, name) == pytest.approx(lick(real, light, name), abs=1.2)
    assert break_4000(stars.REST, own) == pytest.approx(break_4000(real, light), abs=0.2)
    # The same colours within a third: 3800 to 8500 Angstrom over 5500.
    for place in (3800.0, 4500.0, 6500.0, 7500.0, 8500.0):
        level = [
            np.nanmedian(flux[np.abs(grid - place) < 40])
            / np.nanmedian(flux[np.abs(grid - 5500) < 40])
            for grid, flux in ((stars.REST, own), (real, light))
        ]
        assert level[0] / level[1] == pytest.approx(1.0, abs=0.33)


def test_populations_age_as_stars_do() -> None:
    ages = (0.01, 0.3, 2.0, 10.0)
    light = [gaussian_filter1d(stars.population(age, 0.0), 3.4) for age in ages]
    breaks = [break_4000(stars.REST, flux) for flux in light]
    assert breaks == sorted(breaks)
    # Kauffmann et al. 2003, MNRAS 341, 33, figure 2: 1 to 1.1 when young, 1.7 to 2.1 when old.
    assert breaks[0] < 1.1
    assert 1.6 < breaks[-1] < 2.2
    delta = [lick(stars.REST, flux, "H-delta A") for flux in light]
    assert delta[1] == max(delta)  # the A stars
    assert 6 < delta[1] < 10
    assert -3 < delta[-1] < 0
    magnesium = [lick(stars.REST, flux, "Mg b") for flux in light]
    assert magnesium == sorted(magnesium)


def test_starlight_is_shifted_and_broadened_as_asked() -> None:
    """A single line in the rest frame: its mean and width on the observed grid."""
    centre, z, dispersion = 5000.0, np.array([0.0, 0.123456, 0.349]), 200.0
    light = np.exp(-0.5 * ((np.log10(stars.REST / centre)) / 2e-4) ** 2)
    light = np.tile(light.astype(np.float32), (3, 1))
    out = stars.observe_starlight(light, np.full(3, dispersion), z, np.zeros(3), rng())
    out[np.abs(instrument.LOGLAM - np.log10(centre * (1 + z))[:, None]) > 3e-3] = 0  # rounding
    weight = out.astype(np.float64) / out.sum(axis=1, keepdims=True)
    mean = (weight * instrument.LOGLAM).sum(axis=1)
    np.testing.assert_allclose(mean, np.log10(centre * (1 + z)), atol=2e-7)
    spread = np.sqrt((weight * (instrument.LOGLAM - mean[:, None]) ** 2).sum(axis=1))
    total = np.hypot(2e-4, np.hypot(dispersion, stars.INSTRUMENT_KM_S) / C_KM_S / np.log(10))
    np.testing.assert_allclose(spread, total, rtol=2e-3)


# -- presets and plain pairs --------------------------------------------------------------------


def test_presets_hold_what_they_say() -> None:
    _, truth = simulate_batch(presets.survey(), 2000, rng())
    assert binomtest(int((truth.spectra["components"] == 2).sum()), 2000, 0.02).pvalue > 1e-3
    _, truth = simulate_batch(presets.passive(), 50, rng())
    assert set(truth.spectra["class"]) == {"passive"}
    assert set(truth.spectra["components"]) == {0, 1}
    assert (truth.lines["ew_angstrom"].fillna(0) < 10).all()
    _, truth = simulate_batch(presets.doubles(), 200, rng())
    assert set(truth.spectra["class"]) == {"Seyfert"}
    assert truth.spectra["separation_km_s"].min() >= 200
    _, truth = simulate_batch(presets.training(), 600, rng())
    assert set(truth.spectra["class"]) == set(CLASSES)
    spectra, _ = simulate(presets.demo(), rng())
    assert len(spectra) == presets.demo().count < 50


@pytest.mark.parametrize("components", [1, 2])
def test_pairs_are_their_model_and_white_noise(components: int) -> None:
    pairs = simulate_pairs(200, rng(1), components=components, missing=(0.0, 0.3))
    table, good = pairs.truth.spectra, pairs.ivar > 0
    np.testing.assert_array_equal(np.isnan(pairs.flux), ~good)
    model = np.zeros_like(pairs.flux)
    for _, line in pairs.truth.lines.iterrows():
        row = table.index[table["file"] == line["file"]][0]
        centre = WAVELENGTH[line["line"]]
        total = np.hypot(line["sigma_km_s"], 65.0)
        u = C_KM_S * (pairs.wavelength[row] / centre - 1)
        gauss = np.exp(-0.5 * ((u - line["velocity_km_s"]) / total) ** 2)
        model[row] += line["flux"] * gauss / (np.sqrt(2 * np.pi) * total * centre / C_KM_S)
    chi2 = 0.0
    for row in range(200):  # a straight line is all that is left
        x, y = pairs.wavelength[row, good[row]], (pairs.flux - model)[row, good[row]]
        fit = np.polynomial.Polynomial.fit(x, y, 1)
        chi2 += float(((y - fit(x)) ** 2).sum())
    freedom = good.sum() - 2 * 200
    assert chi2 / freedom == pytest.approx(1.0, abs=5 * np.sqrt(2 / freedom))
    assert (table["components"] == components).all()


def test_pairs_hold_what_was_asked_for() -> None:
    pairs = simulate_pairs(
        300, rng(), separation_km_s=200.0, sigma_km_s=90.0, flux_ratio=0.3, peak_snr=10.0,
        missing=0.3,
    )  # fmt: skip
    table = pairs.truth.spectra
    assert pairs.flux.shape == (300, 281)
    np.testing.assert_allclose(table["separation_km_s"], 200.0)
    np.testing.assert_allclose(table["flux_ratio"], 0.3)
    np.testing.assert_allclose(np.isnan(pairs.flux).mean(axis=1), 84 / 281)
    lines = pairs.truth.lines
    bright = lines[(lines["line"] == "[O III] 5007") & (lines["component"] == "1")]
    width = np.hypot(90.0, 65.0) * 5008.24 / C_KM_S  # Angstrom
    np.testing.assert_allclose(bright["flux"] / (np.sqrt(2 * np.pi) * width), 10.0)
    weak = lines[(lines["line"] == "[O III] 4959") & (lines["component"] == "1")]
    np.testing.assert_allclose(bright["flux"].to_numpy() / weak["flux"].to_numpy(), 2.98)
    spectrum = pairs.spectra()[4]
    np.testing.assert_array_equal(spectrum.flux, pairs.flux[4])
    assert spectrum.z == 0


def test_pairs_refuse_what_they_cannot_make() -> None:
    with pytest.raises(SettingsError, match="components is 3; allowed is 1 or 2"):
        simulate_pairs(1, rng(), components=3)
    with pytest.raises(SettingsError, match="peak_snr"):
        simulate_pairs(1, rng(), peak_snr=(20.0, 10.0))


def test_calls_of_whole_chunks_draw_what_one_call_draws() -> None:
    settings = replace(presets.survey(), count=CHUNK + 3)
    whole, truth = simulate(settings, np.random.default_rng(6))
    rng = np.random.default_rng(6)
    first, a = simulate(replace(settings, count=CHUNK), rng)
    second, b = simulate(replace(settings, count=3), rng, first=CHUNK)
    assert [one.name for one in [*first, *second]] == [one.name for one in whole]
    np.testing.assert_array_equal(second[-1].flux, whole[-1].flux)
    pd.testing.assert_frame_equal(joined([a, b]).lines, truth.lines)
