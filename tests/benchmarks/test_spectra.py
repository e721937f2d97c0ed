"""The benchmark of the spectra: fair peers, right statistics, reasons that hold, flags, tables."""

from pathlib import Path

import lmfit
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2 as chi2_law
from scipy.stats import ncx2

from benchmarks.__main__ import main
from benchmarks.spectra import epochs, errors, network, peers, real, speed, survey, two, why
from benchmarks.spectra.data import generator, percent, solver_lines
from benchmarks.spectra.peers import Pixels, Shape
from warte.core.data import registry
from warte.spectra.fit import profile
from warte.spectra.fit.layout import Layout, blue_layout
from warte.spectra.lines import BLUE_GROUPS, BLUE_WINDOW, H_BETA
from warte.spectra.simulate import simulate_pairs
from warte.spectra.spectrum import make_spectrum

EASY = {"separation_km_s": 500.0, "sigma_km_s": 100.0, "flux_ratio": 0.6, "peak_snr": 40.0}


def _pixels(count: int, seed: int, **settings: float) -> list[Pixels]:
    lines, _ = solver_lines(simulate_pairs(count, np.random.default_rng(seed), **settings))
    return list(peers.pixels_of(lines))


@pytest.mark.parametrize("shape", [Shape(1), Shape(2), Shape(2, broad=True)])
def test_the_peers_model_is_that_of_the_package(shape: Shape) -> None:
    layout = Layout(
        (BLUE_WINDOW,), BLUE_GROUPS, shape.components, (H_BETA,) if shape.broad else (), order=1
    )
    one = _pixels(1, 1)[0]
    values = peers.random_start(one, shape, np.random.default_rng(2))
    values[-1] = 3.0
    assert values.shape == (layout.parameters,) == (len(shape.names),)
    nonlinear, linear = (torch.tensor(part)[None] for part in np.split(values, [layout.nonlinear]))
    instrument = torch.full((1, 3), one.resolution_km_s, dtype=torch.float64)
    wavelength = torch.tensor(one.wavelength)[None]
    expected = profile.model(layout, nonlinear, linear, wavelength, instrument)[0]
    assert peers.model(one, shape, values) == pytest.approx(expected.numpy(), rel=1e-12)


def test_the_jacobian_is_that_of_the_model() -> None:
    one, shape = _pixels(1, 1)[0], Shape(2)
    values = peers.random_start(one, shape, np.random.default_rng(3))
    slopes = peers.slopes(one, shape, values)
    for at, value in enumerate(values):
        step = np.zeros(values.size)
        step[at] = 1e-4 * max(abs(value), 1.0)
        ends = [peers.model(one, shape, values + sign * step) for sign in (1, -1)]
        rise = (ends[0] - ends[1]) / (2 * step[at])
        assert slopes[:, at] == pytest.approx(rise, abs=1e-5 * np.abs(rise).max())


def test_all_programs_find_the_same_minimum_of_an_easy_pair() -> None:
    for one in _pixels(2, 4, **EASY):
        found = [program(one) for program in speed.PROGRAMS.values()]
        for other in found[1:]:
            assert other.chi2 == pytest.approx(found[0].chi2, abs=1e-3)
            assert np.abs(other.values - found[0].values).max() < 0.1
        assert found[0].chi2 < chi2_law.isf(1e-4, one.flux.size - 10)
        # lmfit scales its errors by the reduced chi-square, scipy's are plain.
        scale = np.sqrt(found[0].chi2 / (one.flux.size - 10))
        assert found[0].errors == pytest.approx(found[1].errors, rel=0.02)
        assert found[1].errors == pytest.approx(found[2].errors * scale, rel=0.02)


def test_bounds_hold_and_are_off_where_they_should_be() -> None:
    """A line with a hole in it is two amplitudes of opposite sign, where these are allowed."""
    one = _pixels(1, 5, components=1)[0]
    true = np.array([0.0, 150.0, 250.0, 80.0, 30.0, 200.0, 0.0, -60.0, 10.0, 0.0])
    noise = np.random.default_rng(5).standard_normal(one.flux.size)
    dented = Pixels(one.wavelength, peers.model(one, Shape(2), true) + noise, one.root, 65.0)
    free = peers.lmfit_residual(dented, Shape(2), true, bounded=False)
    bound = peers.lmfit_residual(dented, Shape(2), true)
    assert free.values[7] == pytest.approx(-60.0, abs=4 * free.errors[7])
    assert bound.values[4:8].min() >= 0
    assert free.chi2 < bound.chi2


def test_bic_and_f_test_are_those_of_the_textbook() -> None:
    pairs = simulate_pairs(3, np.random.default_rng(6), **EASY)
    lines, _ = solver_lines(pairs)
    usual = two.usual(lines)
    for row, one in enumerate(peers.pixels_of(lines)):
        results = [_by_lmfit(one, Shape(count)) for count in (1, 2)]
        assert usual.bic[row] == pytest.approx(results[0].bic - results[1].bic, abs=0.1)
    assert usual.f_test.max() < 1e-10
    single = two.usual(solver_lines(simulate_pairs(5, generator(1, 0), components=1))[0])
    assert single.bic.max() < two.STRONG_BIC and single.f_test.min() > 1e-4


def _by_lmfit(one: Pixels, shape: Shape) -> lmfit.minimizer.MinimizerResult:
    parameters = lmfit.Parameters()
    for name, value in zip(shape.names, peers.usual_start(one, shape), strict=True):
        parameters.add(name, value=value)

    def residual(trial: lmfit.Parameters) -> np.ndarray:
        values = np.array([trial[name].value for name in shape.names])
        return (one.flux - peers.model(one, shape, values)) * one.root

    return lmfit.minimize(residual, parameters)


def test_the_power_is_that_of_what_one_component_leaves() -> None:
    """Without noise a far and bright second line leaves its own sum of squares."""
    far = simulate_pairs(
        4, np.random.default_rng(7), separation_km_s=900.0, sigma_km_s=60.0, flux_ratio=0.2,
        peak_snr=12.0, velocity_km_s=0.0, oiii_hb=10.0,
    )  # fmt: skip
    lines, _ = solver_lines(far)
    true = two.true_parameters(far)
    second = true[1].copy()
    second[:, :2] = 0.0
    curve = profile.model(
        blue_layout(2), torch.tensor(true[0]), torch.tensor(second), lines.wavelength,
        lines.instrument,
    )  # fmt: skip
    left = curve.square().sum(1).numpy()
    expected = ncx2.sf(chi2_law.isf(0.01, 4), 4, left).mean()
    assert two.power(far, lines) == pytest.approx(expected, abs=0.05)
    near = simulate_pairs(4, np.random.default_rng(8), separation_km_s=1.0, sigma_km_s=80.0)
    assert two.power(near, solver_lines(near)[0]) == pytest.approx(0.01, abs=0.002)


def test_rates_in_per_cent() -> None:
    # Wilson's interval of 9 in 10 is 0.596 to 0.982 (Wilson 1927).
    assert percent(9, 10) == "90.0 (59.6-98.2)"
    assert percent(0, 0) == "-"


def test_coverage_takes_lmfit_as_it_takes_warte() -> None:
    """The same rows and columns, and the same answer for the same fits."""
    pairs = simulate_pairs(6, np.random.default_rng(9), **EASY)
    ours, theirs = (
        table[table["line"].isin(errors.MEASURED)].sort_values(["file", "line", "component"])
        for table in (errors.of_solver(pairs), errors.of_lmfit(pairs, 6))
    )
    assert list(ours["file"]) == list(theirs["file"])
    for name in ("flux", "velocity_km_s", "sigma_km_s"):
        apart = np.abs(np.sort(ours[name]) - np.sort(theirs[name]))
        assert (apart < 0.2 * ours[errors.error_name(name)].max()).all()


def test_widths_of_sums_are_their_second_moments() -> None:
    flux, velocity, sigma = (
        np.array([[2.0], [1.0]]),
        np.array([[0.0], [300.0]]),
        np.array([[90.0], [150.0]]),
    )
    u = np.arange(-3000.0, 3000.0)
    curve = sum(
        f[0] / s[0] * np.exp(-0.5 * ((u - v[0]) / s[0]) ** 2)
        for f, v, s in zip(flux, velocity, sigma, strict=True)
    )
    mean = (u * curve).sum() / curve.sum()
    expected = np.sqrt(((u - mean) ** 2 * curve).sum() / curve.sum())
    assert why.second_moment(flux, velocity, sigma)[0] == pytest.approx(expected, rel=1e-6)
    assert np.isnan(why.second_moment(-flux, velocity, sigma)[0])


def test_lines_of_a_table_are_put_together() -> None:
    wavelength = 10 ** np.arange(3.6, 3.9, 1e-4)
    ones = np.ones_like(wavelength)
    spectrum = make_spectrum("a", wavelength, ones, ones, z=0.1, resolution_km_s=60.0)
    lines = pd.DataFrame(
        [("a", "H-alpha", part, flux, 3.0, 0.0, 80.0) for part, flux in (("1", 10.0), ("2", 5.0))]
        + [("a", "H-alpha", "broad", 200.0, 30.0, 0.0, 800.0)],
        columns=["file", "line", "component", "flux", "flux_err", "velocity_km_s", "sigma_km_s"],
    )  # fmt: skip
    narrow, broad = (why.measured(lines, spectrum, line) for line in ("H-alpha", why.BROAD_ALPHA))
    assert narrow is not None and broad is not None
    assert (narrow.flux, narrow.broad) == (15.0, 200.0)
    assert narrow.error == pytest.approx(np.hypot(3.0, 3.0))
    assert narrow.sigma == pytest.approx(100.0)  # 80 and 60 in quadrature
    assert (broad.flux, broad.error) == (200.0, 30.0)
    assert why.measured(lines, spectrum, "H-beta") is None
    assert why.differs(narrow, 50.0, 1.0) and not why.differs(narrow, 50.0, 20.0)
    sharp = why.Measured(11.0, 0.01, 100.0, 0.0)
    assert why.differs(sharp, 9.0, 0.01) and not why.differs(sharp, 10.0, 0.01)


def test_classes_that_agree() -> None:
    def row(cls: str, subclass: str, bpt: str) -> pd.Series:
        return pd.Series({"cls": cls, "subclass": subclass, "bpt": bpt})

    assert why.expected_classes(row("GALAXY", "", "")) == ()
    assert why.expected_classes(row("GALAXY", "STARBURST", "SF")) == ("star-forming",)
    assert why.expected_classes(row("QSO", "AGN BROADLINE", "AGN")) == (
        "broad-line", "Seyfert", "LINER",
    )  # fmt: skip


def test_real_files_are_compared_and_every_disagreement_has_a_reason(
    real_file, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = real_file("spec-0295-51585-0596.fits").parent
    (tmp_path / real.FOLDER).mkdir()
    reference = pd.read_csv(source / real.REFERENCE)
    kept = ["spec-0295-51585-0596.fits", "spec-1045-52725-0628.fits", "spec-10000-57346-0004.fits"]
    reference[reference["file"].isin(kept)].to_csv(
        tmp_path / real.FOLDER / real.REFERENCE, index=False
    )
    for name in (*kept, "spec-0295-51585-0596-gelato-results.fits"):
        (tmp_path / real.FOLDER / name).symlink_to(source / name)
    monkeypatch.setenv(registry.DATA_VARIABLE, str(tmp_path))
    classes, fluxes, reasons = real.real_tables(lambda *_: None)
    rows = classes.rows.set_index("file")
    assert rows.loc[kept[0], "components"] == 2 and rows.loc[kept[1], "components"] == 1
    assert "no window is covered" in rows.loc[kept[2], "flags"]
    table = fluxes.rows.set_index(["file", "beside", "line"])
    # The sum of GELATO's two [O III] components, and the pipeline's area in reference.csv.
    assert table.loc[(kept[0], "GELATO", "[O III] 5007"), "other"].startswith("716.7")
    assert table.loc[(kept[0], "pipeline", "[O III] 5007"), "other"] == "677.4 +- 7.4"
    differ = fluxes.rows[fluxes.rows["differs"] == "yes"]
    told = reasons.rows[~reasons.rows["what"].str.contains("class|components")]
    assert sorted(differ["line"]) == sorted(told["what"])
    assert (reasons.rows["why"].str.len() > 10).all()


def test_epochs_scatter_as_their_errors_say(real_file) -> None:
    real_file(epochs.FILE)
    (table,) = epochs.epoch_tables(True, lambda *_: None)
    pulls = [float(text.split()[0]) for text in table.rows["pull, standard deviation"]]
    assert len(pulls) == 5 and all(0.3 < pull < 2.0 for pull in pulls)


def test_without_data_the_parts_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(registry.DATA_VARIABLE, raising=False)
    assert main(["spectra", "--quick", "--quiet", "--only", "epochs,real"]) == 0
    told = capsys.readouterr().out
    assert told.count(f"set {registry.DATA_VARIABLE}") == 2


def test_every_simulated_part_makes_its_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module, sizes in (
        (
            speed,
            {
                "QUICK_SPECTRA": 16,
                "QUICK_PEER_SPECTRA": 1,
                "QUICK_JUDGED": 1,
                "QUICK_STARTS": 1,
                "THREADS": 1,
            },
        ),
        (
            two,
            {
                "QUICK": two.Sizes(12, 6, 2, 1),
                "WIDTHS": ((60.0, 100.0),),
                "QUICK_SEPARATIONS": (500.0,),
            },
        ),
        (errors, {"QUICK_SPECTRA": 8, "QUICK_PEER_SPECTRA": 2, "SHARES": (0.1,)}),
        (network, {"QUICK_TIMED": 64, "QUICK_JUDGED": 60, "THREADS": 1}),
        (survey, {"QUICK_MIX": 12, "QUICK_DRAWN": 30, "THREADS": 1}),
    ):
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)
    path = tmp_path / "benchmarks.md"
    only = "speed,two,errors,network,survey"
    flags = ["--quick", "--quiet", "--only", only, "--markdown", str(path)]
    assert main(["spectra", *flags]) == 0
    text = path.read_text()
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert [title.split(":")[0] for title in titles] == [
        "### Speed", "### Minima", "### Two or one", "### Two or one", "### Errors",
        "### Network", "### Network", "### Survey", "### Survey",
    ]  # fmt: skip
    assert f"`python -m benchmarks spectra --quick --only {only} --seed 7`" in text


@pytest.mark.parametrize(
    "flags", [["--only", "speed,nonsense"], ["--count", "0"], ["--seed", "-1"]]
)
def test_flags_out_of_range(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["spectra", *flags])
    assert left.value.code == 2
    assert f"argument {flags[0]}" in capsys.readouterr().err
