"""The whole fit: known truth, real spectra, bad input, and independence of the company."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warte.spectra import fit as module
from warte.spectra.fit import FIT_COLUMNS, LINE_COLUMNS, FitSettings, curves, fit
from warte.spectra.read import read
from warte.spectra.simulate.blue import Pairs, simulate_pairs
from warte.spectra.spectrum import Spectrum, make_spectrum

RealFile = Callable[[str], Path]
NARROW = FitSettings(broad=False)


def pairs(count: int, components: int, seed: int = 5, **changes: object) -> Pairs:
    values = dict(
        components=components, peak_snr=(15.0, 30.0), separation_km_s=(350.0, 600.0),
        sigma_km_s=(60.0, 110.0), flux_ratio=(0.5, 0.9),
    )  # fmt: skip
    values.update(changes)  # type: ignore[arg-type]
    return simulate_pairs(count, np.random.default_rng(seed), **values)  # type: ignore[arg-type]


def test_pairs_are_found_and_their_intervals_hold_the_truth() -> None:
    made = pairs(250, 2, missing=0.1)
    result = fit(made.spectra(), NARROW)
    assert tuple(result.fits.columns) == FIT_COLUMNS
    assert tuple(result.lines.columns) == LINE_COLUMNS
    assert result.fits["file"].tolist() == made.truth.spectra["file"].tolist()
    two = result.fits[result.fits["components"] == 2]["file"]
    assert len(two) > 0.95 * 250
    assert (result.fits["p_two"] > 0.5).mean() > 0.95
    assert (result.fits["reason"] == "").all()
    order = ["file", "line", "velocity_km_s"]
    found = result.lines[result.lines["file"].isin(two)].sort_values(order)
    truth = made.truth.lines[made.truth.lines["file"].isin(two)].sort_values(order)
    for value, error in (
        ("velocity_km_s", "velocity_err_km_s"),
        ("sigma_km_s", "sigma_err_km_s"),
        ("flux", "flux_err"),
    ):
        main = (found["line"] == "[O III] 5007").to_numpy()
        away = (found[value].to_numpy() - truth[value].to_numpy())[main]
        inside = np.abs(away) < found[error].to_numpy()[main]
        # 68.3 % of about 490: three binomial standard deviations are 6.3 %.
        assert inside.mean() == pytest.approx(0.683, abs=0.063), value


def test_component_one_is_the_brighter_and_doublets_have_their_rows() -> None:
    made = pairs(60, 2)
    lines = fit(made.spectra(), NARROW).lines
    oiii = lines[lines["line"] == "[O III] 5007"].pivot(
        index="file", columns="component", values="flux"
    )
    assert (oiii["1"] >= oiii["2"]).mean() == 1.0
    assert lines.groupby("file").size().isin([3, 6]).all()


def test_single_lines_stay_single() -> None:
    made = pairs(300, 1, peak_snr=(5.0, 50.0))
    result = fit(made.spectra(), NARROW)
    assert (result.fits["components"] == 2).sum() <= 10  # 3 expected; 10 in one of 1000 runs
    flux = result.lines[(result.lines["line"] == "[O III] 5007")]
    truth = made.truth.lines[made.truth.lines["line"] == "[O III] 5007"]
    single = result.fits["components"].to_numpy() == 1
    flux = flux[flux["component"] == "1"]
    pull = (flux["flux"].to_numpy() - truth["flux"].to_numpy()) / flux["flux_err"].to_numpy()
    assert np.std(pull[single]) == pytest.approx(1.0, abs=0.13)


def test_a_spectrum_does_not_depend_on_its_company(monkeypatch: pytest.MonkeyPatch) -> None:
    spectra = pairs(6, 2).spectra()
    lost = dataclasses.replace(spectra[0], z=float("nan"), name="lost")
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "BLOCK", 3)
    together = fit(
        [spectra[3], lost, *spectra[:3]], report=lambda done, all_: calls.append((done, all_))
    )
    assert calls == [(3, 5), (5, 5)]
    alone = fit([spectra[3]])
    assert together.fits["file"].tolist() == [
        spectra[3].name,
        "lost",
        *(s.name for s in spectra[:3]),
    ]
    pd.testing.assert_frame_equal(together.fits.iloc[:1], alone.fits, rtol=1e-6)
    assert [model is not None for model in together.models] == [True, False, True, True, True]
    mine = together.lines[together.lines["file"] == spectra[3].name]
    pd.testing.assert_frame_equal(mine.reset_index(drop=True), alone.lines, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_fitted_is_named_and_the_rest_goes_on() -> None:
    (good,) = pairs(1, 2).spectra()
    far = dataclasses.replace(good, z=2.0, name="far")
    result = fit([far, good])
    first = result.fits.iloc[0]
    assert first["components"] == 0
    assert "no window is covered" in first["reason"]
    assert np.isnan(first["chi2_reduced"])
    assert np.isnan(first["p_two"])
    assert result.fits.iloc[1]["components"] == 2
    assert set(result.lines["file"]) == {good.name}
    assert [model is None for model in result.models] == [True, False]
    only = fit([far])
    assert tuple(only.lines.columns) == LINE_COLUMNS
    assert len(only.lines) == 0
    nothing = fit([])
    assert tuple(nothing.fits.columns) == FIT_COLUMNS
    assert len(nothing.fits) == len(nothing.lines) == 0


def test_flux_goes_with_the_unit_of_the_file_and_velocity_with_its_redshift() -> None:
    (one,) = pairs(1, 2).spectra()
    z = 0.2
    moved = make_spectrum(
        "moved", one.wavelength * (1 + z), 7 * one.flux / (1 + z), one.ivar * ((1 + z) / 7) ** 2,
        z=z, resolution_km_s=65.0,
    )  # fmt: skip
    first, second = fit([one]).lines, fit([moved]).lines
    for name, factor in (("flux", 7.0), ("flux_err", 7.0), ("ew_angstrom", 1.0),
                         ("velocity_km_s", 1.0), ("sigma_err_km_s", 1.0)):  # fmt: skip
        np.testing.assert_allclose(second[name], factor * first[name], rtol=1e-3, atol=1e-3)


def test_settings_reach_the_fit() -> None:
    spectra = pairs(3, 2).spectra()
    single = fit(spectra, FitSettings(components=1))
    assert (single.fits["components"] == 1).all()
    assert single.fits["log_evidence_ratio"].isna().all()
    plain = fit(spectra, FitSettings(absorption=False, order=1, errors="stated", broad=False))
    assert all(model is not None and not model.layout.absorption for model in plain.models)
    forced = fit(spectra, FitSettings(broad=True))
    assert (forced.lines["component"] == "broad").any()
    assert forced.fits["flags"].str.contains("broad component").all()
    stated = fit(spectra, FitSettings(absorption=False, order=1, broad=False))
    np.testing.assert_allclose(stated.lines["flux_err"], plain.lines["flux_err"], rtol=1e-3)


def test_errors_grow_with_scatter_that_chance_does_not_explain() -> None:
    settings = FitSettings(components=1, absorption=False, order=1, broad=False)
    spectra = pairs(40, 1, peak_snr=30.0).spectra()
    for factor in (1.0, 2.0):  # of the variances, beyond those stated
        some = [dataclasses.replace(one, ivar=one.ivar * factor) for one in spectra]
        full = fit(some, settings)
        plain = fit(some, dataclasses.replace(settings, errors="stated"))
        chi2 = plain.fits["chi2_reduced"].to_numpy()
        ratio = (full.lines["flux_err"] / plain.lines["flux_err"]).to_numpy()[::3]
        grown = np.where(chi2 > 1 + 2 * np.sqrt(2 / 280), np.sqrt(chi2), 1.0)
        assert np.median(ratio / grown) == pytest.approx(1.0, abs=1e-6)
        assert np.median(ratio) == pytest.approx(np.sqrt(factor), abs=0.06)


def test_the_lmfit_engine_gives_the_same_tables() -> None:
    spectra = pairs(2, 2).spectra()
    settings = FitSettings(broad=False, absorption=False, order=1)
    one = fit(spectra, dataclasses.replace(settings, engine="lmfit"))
    other = fit(spectra, settings)
    assert one.fits["components"].tolist() == other.fits["components"].tolist() == [2, 2]
    np.testing.assert_allclose(one.lines["flux"], other.lines["flux"], rtol=1e-2)
    np.testing.assert_allclose(one.lines["flux_err"], other.lines["flux_err"], rtol=2e-2)


def test_flags_say_what_to_know() -> None:
    (one,) = pairs(1, 1, peak_snr=30.0).spectra()
    unknown = dataclasses.replace(one, resolution_km_s=np.full(one.flux.size, np.nan))
    beta = (one.wavelength > 4850) & (one.wavelength < 4875)
    blind = dataclasses.replace(
        one, flux=np.where(beta, np.nan, one.flux), ivar=np.where(beta, 0.0, one.ivar),
        flags=("wavelengths sorted",),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    empty = dataclasses.replace(one, flux=10 + rng.standard_normal(one.flux.size))
    noisy = dataclasses.replace(one, ivar=one.ivar * 9)
    result = fit([unknown, blind, empty, noisy])
    words = [set(text.split(";")) for text in result.fits["flags"]]
    assert {"resolution assumed", "blue window only"} <= words[0]
    assert {"wavelengths sorted", "H-beta missing"} <= words[1]
    assert "no line above 3 sigma" in words[2]
    assert np.isnan(result.fits["p_two"][2])
    assert "poor fit" in words[3]
    hidden = result.lines[(result.lines["line"] == "H-beta") & (result.lines["flux"].isna())]
    assert len(hidden) >= 1


def test_absorption_at_its_limit_is_not_believed() -> None:
    # A trough deeper than any star's, filled again in the middle: emission would mend it.
    rng = np.random.default_rng(2)
    wavelength = 10 ** np.arange(np.log10(4700.0), np.log10(6900.0), 1e-4)
    flux = np.full(wavelength.size, 20.0)
    for centre in (4862.68, 6564.61):
        u = (wavelength / centre - 1) * 299792.458
        flux -= 4.0 * np.exp(-0.5 * (u / 900) ** 2) - 1.0 * np.exp(-0.5 * (u / 300) ** 2)
    flux += 0.3 * rng.standard_normal(flux.size)
    one = make_spectrum("a", wavelength, flux, np.full(flux.size, 1 / 0.09), z=0.0,
                        resolution_km_s=65.0)  # fmt: skip
    result = fit([one, *pairs(1, 1).spectra()], NARROW)
    assert result.models[0] is not None
    assert result.models[1] is not None
    assert not result.models[0].layout.absorption
    assert result.models[1].layout.absorption


def test_curves_are_data_model_and_parts() -> None:
    made = pairs(4, 2, missing=0.1)
    spectra = made.spectra()
    result = fit(spectra, NARROW)
    names = [spectra[2].name, spectra[1].name]
    drawn = curves(spectra, result, names)
    assert [curve.file for curve in drawn] == names[::-1]
    assert len(curves(spectra, result)) == 4
    curve = drawn[0]
    good = np.isfinite(curve.flux)
    assert (np.isnan(curve.err) == ~good).all()
    assert 0 < (~good).sum() < 0.3 * good.size
    chi2 = np.sum(((curve.flux - curve.model) / curve.err)[good] ** 2)
    # 4 velocities and widths, 4 fluxes, the absorption (which may lie on 0) and 3 of the continuum.
    assert chi2 / (good.sum() - 12) == pytest.approx(result.fits["chi2_reduced"][1], rel=0.01)
    assert [name for name, _ in curve.components] == ["1", "2"]
    total = curve.continuum + sum(part for _, part in curve.components)
    np.testing.assert_allclose(curve.model, total)
    assert np.all(np.diff(curve.wavelength) > 0)
    area = np.trapezoid(curve.components[0][1], curve.wavelength)
    mine = result.lines[(result.lines["file"] == names[1]) & (result.lines["component"] == "1")]
    assert area == pytest.approx(mine["flux"].sum(), rel=1e-3)


def sdss(real_file: RealFile, *names: str) -> list[Spectrum]:
    return [spectrum for name in names for spectrum in read(real_file(name))]


def test_the_known_double_and_the_known_singles(real_file: RealFile) -> None:
    spectra = sdss(
        real_file,
        "spec-0295-51585-0596.fits",
        "spec-1045-52725-0628.fits",
        "spec-1176-52791-0591.fits",
    )
    result = fit(spectra)
    assert result.fits["components"].tolist() == [2, 1, 1]
    assert result.fits["log_evidence_ratio"][0] > 100
    # SDSS pipeline (SPZLINE): one Gaussian each, so sums are close where lines are simple.
    lines = result.lines[result.lines["component"] != "broad"]
    total = lines.groupby(["file", "line"])["flux"].sum()
    published = {
        ("spec-0295-51585-0596.fits", "[O III] 5007"): 677.38,
        ("spec-1045-52725-0628.fits", "[O III] 5007"): 66.55,
        ("spec-1176-52791-0591.fits", "[O III] 5007"): 4346.4,
        ("spec-1176-52791-0591.fits", "H-beta"): 983.8,
    }
    for key, flux in published.items():
        assert total[key] == pytest.approx(flux, rel=0.12), key
    double = lines[(lines["file"] == spectra[0].name) & (lines["line"] == "[O III] 5007")]
    apart = np.ptp(double["velocity_km_s"].to_numpy())
    assert 100 < apart < 300  # 161 km/s by a plain fit of the blue window
    assert (double["flux"] > 5 * double["flux_err"]).all()


def test_a_passive_galaxy_has_no_emission(real_file: RealFile) -> None:
    spectra = sdss(real_file, "spec-0266-51602-0614.fits")
    result = fit(spectra)
    assert result.fits["components"].tolist() == [1]
    assert (result.lines["flux"] < 4 * result.lines["flux_err"]).all()


def test_one_quasar_has_one_velocity(real_file: RealFile) -> None:
    # 78 epochs of RM017: the narrow lines do not move. One narrow component and a broad one; a
    # redshift for all. What the model lacks is the same in all epochs, so "scatter" are the errors.
    with np.load(real_file("rm017_epochs.npz")) as data:
        grid = 10 ** data["loglam"]
        spectra = [
            make_spectrum(str(row), grid, flux, ivar, z=0.4561)
            for row, (flux, ivar) in enumerate(zip(data["flux"], data["ivar"], strict=True))
        ]
    lines = fit(spectra, FitSettings(components=1, broad=True, errors="scatter")).lines
    lines = lines[(lines["line"] == "[O III] 5007") & (lines["component"] == "1")]
    velocity, error = lines["velocity_km_s"].to_numpy(), lines["velocity_err_km_s"].to_numpy()
    assert len(lines) == 78
    mean = np.average(velocity, weights=1 / error**2)
    assert np.std((velocity - mean) / error, ddof=1) == pytest.approx(1.0, abs=0.1)
