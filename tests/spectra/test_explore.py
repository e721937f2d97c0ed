"""The map of spectra: weighted components against exact ones, planted groups and oddities."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from warte.core.errors import InputError, SettingsError
from warte.spectra.explore import ExploreSettings, explore
from warte.spectra.explore.prepare import normalised, on_one_grid, softened
from warte.spectra.explore.principal import weighted_pca
from warte.spectra.read import Failure, read
from warte.spectra.report.explore import map_picture, spectrum_picture, write_explore_report
from warte.spectra.spectrum import Spectrum, make_spectrum

GRID = 10 ** np.arange(3.58, 3.96, 4e-4)  # observed Angstrom, coarse for speed
SETTINGS = ExploreSettings(components=4, join=4, neighbours=6)


def bump(rest: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.exp(-(((rest - at) / width) ** 2) / 2)


def galaxy(name: str, kind: str, rng: np.random.Generator, *, snr: float = 20.0) -> Spectrum:
    """A toy spectrum: red with absorption, or blue with lines, or one of three oddities."""
    z = rng.uniform(0.03, 0.1)
    rest = GRID / (1 + z)
    red = 1 + 0.4 * np.tanh((rest - 4000) / 300) - 0.3 * bump(rest, 5176, 30)
    blue = (rest / 5000) ** -1.2 + rng.uniform(2, 4) * bump(rest, 6565, 12)
    blue += rng.uniform(1, 2) * bump(rest, 4863, 10)
    flux = {
        "red": red * (rest / 5000) ** rng.normal(0, 0.1),
        "blue": blue * (rest / 5000) ** rng.normal(0, 0.1),
        "reversed": red[::-1],
        "star": bump(rest, 4500, 900) - 0.3 * bump(rest, 6200, 150) + 0.2,
        "lines": red + 60 * bump(rest, 5008, 10) + 20 * bump(rest, 6565, 10),
    }[kind] * rng.uniform(0.5, 50)
    err = np.full(GRID.shape, np.median(flux) / snr)
    lost = rng.random(GRID.shape) < 0.1
    return make_spectrum(
        name, GRID, flux + err * rng.standard_normal(GRID.shape), err**-2.0, z=z, missing=lost,
        object_id=name,
    )  # fmt: skip


def sample(counts: dict[str, int], seed: int = 0) -> list[Spectrum]:
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [galaxy(f"{kind}-{at}", kind, rng) for at, kind in enumerate(kinds)]


@pytest.fixture(scope="module")
def mixed() -> list[Spectrum]:
    return sample({"red": 50, "blue": 30, "reversed": 1, "star": 1, "lines": 1})


def low_rank(rng: np.random.Generator, n: int, m: int, noise: float) -> tuple[np.ndarray, ...]:
    strengths = np.array([3.0, 2.0, 1.0])
    basis = np.linalg.qr(rng.standard_normal((m, 3)))[0].T * np.sqrt(m)
    truth = rng.standard_normal(m) + (rng.standard_normal((n, 3)) * strengths) @ basis
    return truth, truth + noise * rng.standard_normal((n, m))


def test_equal_weights_give_the_usual_components() -> None:
    rng = np.random.default_rng(1)
    _, x = low_rank(rng, 80, 60, 0.3)
    found = weighted_pca(x, np.full(x.shape, 2.5), 3, rng, tolerance=1e-12)
    mean = x.mean(axis=0)
    left, size, right = np.linalg.svd(x - mean, full_matrices=False)
    assert found.mean == pytest.approx(mean, abs=1e-6)
    signs = np.sign((found.components * right[:3]).sum(axis=1))
    assert signs[:, None] * found.components == pytest.approx(right[:3], abs=1e-5)
    assert signs * found.coefficients == pytest.approx(left[:, :3] * size[:3], abs=1e-3)


def test_missing_entries_do_no_harm() -> None:
    """A third missing: close to the truth, where zeros in their place are far off."""
    rng = np.random.default_rng(2)
    truth, x = low_rank(rng, 120, 80, 0.3)
    seen = rng.random(x.shape) > 0.3
    seen[:40, :30] = False  # whole stretches too
    weights = seen / 0.3**2
    found = weighted_pca(np.where(seen, x, 1e6), weights, 3, rng)
    model = found.mean + found.coefficients @ found.components
    zeros = np.where(seen, x, 0.0)
    filled = weighted_pca(zeros, np.ones(x.shape), 3, rng)
    worse = filled.mean + filled.coefficients @ filled.components
    error, error_zeros = (np.sqrt(np.mean((one - truth) ** 2)) for one in (model, worse))
    assert error < 0.15 and error_zeros > 5 * error
    assert found.components @ found.components.T == pytest.approx(np.eye(3), abs=1e-9)


def test_noisy_entries_count_less() -> None:
    rng = np.random.default_rng(3)
    truth, _ = low_rank(rng, 100, 60, 0.0)
    err = np.where(rng.random(truth.shape) < 0.3, 5.0, 0.1)
    x = truth + err * rng.standard_normal(truth.shape)
    found = weighted_pca(x, err**-2.0, 3, rng)
    plain = weighted_pca(x, np.ones(x.shape), 3, rng)
    errors = [np.sqrt(np.mean((one.mean + one.coefficients @ one.components - truth) ** 2))
              for one in (found, plain)]  # fmt: skip
    assert errors[0] < 0.1 < 3 * errors[0] < errors[1]


def test_softened_weights() -> None:
    ivar = np.array([0.0, 100.0, 1e8])
    assert softened(ivar, 0.1) == pytest.approx([0.0, 1 / (0.01 + 0.01), 100.0], rel=1e-3)


def test_every_spectrum_is_brought_to_one_level() -> None:
    flux = np.array([[2.0, 4.0, 8.0, 99.0], [1.0, -1.0, 0.5, 0.4], [3.0, 0.0, 0.0, 0.0]])
    ivar = np.array([[1.0, 4.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    level, weight, reasons = normalised(flux, ivar, 0.5, 2.0)
    assert level[0] == pytest.approx([0.5, 1.0, 2.0, 0.0])
    assert weight[0] == pytest.approx([16.0, 64.0, 16.0, 0.0])
    assert reasons == [
        "",
        "the continuum is only 0.5 times its noise",
        "only 25% of the common wavelengths were measured",
    ]


def test_the_grid_is_in_the_rest_frame_and_invents_nothing() -> None:
    rng = np.random.default_rng(4)
    spectra = []
    for at, z in enumerate((0.02, 0.2)):
        lam = 10 ** np.arange(3.58, 3.96, 1e-4)
        flux = 1 + 50 * bump(lam / (1 + z), 5008.24, 4)
        gap = (lam / (1 + z) > 5400) & (lam / (1 + z) < 5500)
        noise = rng.uniform(0.1, 0.3, lam.shape)
        spectra.append(make_spectrum(str(at), lam, flux, noise**-2, z=z, missing=gap))
    wavelength, flux, ivar = on_one_grid(spectra, 2, 1.0)
    assert wavelength[np.argmax(flux, axis=1)] == pytest.approx([5008.24] * 2, rel=1.5e-4)
    inside = (wavelength > 5402) & (wavelength < 5498)
    assert (ivar[:, inside] == 0).all() and (ivar[:, ~inside] > 0).mean() > 0.98
    assert wavelength[0] == pytest.approx(10**3.58 / 1.02, rel=3e-4)  # the nearer one starts later
    # The whole weight of every pixel is kept: chi-square of ones is that of the data.
    unit = [np.median(np.abs(one.flux[one.good])) for one in spectra]
    for row, one in enumerate(spectra):
        rest = one.rest_wavelength
        ours = (rest > wavelength[5]) & (rest < wavelength[-5])
        total = one.ivar[ours].sum() * unit[row] ** 2
        assert ivar[row, 5:-5].sum() == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("method", ["pca", "nmf"])
def test_groups_part_and_oddities_are_found(mixed: list[Spectrum], method: str) -> None:
    found = explore(mixed, replace(SETTINGS, method=method))
    table = found.table
    assert list(table["file"]) == [one.name for one in mixed]
    assert (
        np.isfinite(table[["x", "y", "oddness"]].to_numpy()).all() and (table["reason"] == "").all()
    )
    kind = table["file"].str.split("-").str[0].to_numpy()
    away = cdist(table[["x", "y"]], table[["x", "y"]])
    np.fill_diagonal(away, np.inf)
    usual = np.isin(kind, ["red", "blue"])
    assert (kind[away.argmin(axis=1)] == kind)[usual].mean() > 0.95
    top = table.sort_values("oddness", ascending=False).head(5)["file"].str.split("-").str[0]
    assert {"reversed", "star", "lines"} <= set(top)
    assert table.loc[usual, "oddness"].median() < 1.5
    assert (
        table["file"].iloc[found.oddest]
        == table.sort_values("oddness", ascending=False)["file"].head(20)
    ).all()
    good = np.isfinite(found.flux)
    assert found.flux.shape == found.model.shape == (20, len(found.wavelength))
    assert 0.85 < good.mean() <= 1


def test_same_seed_same_map(mixed: list[Spectrum]) -> None:
    some = mixed[:30]
    first, second = explore(some, SETTINGS), explore(some, SETTINGS)
    pd.testing.assert_frame_equal(first.table, second.table)


def test_what_lies_under_missing_pixels_and_the_unit_change_nothing(mixed: list[Spectrum]) -> None:
    settings = replace(SETTINGS, embed="pca")
    scaled = [replace(one, flux=one.flux * 1e-17, ivar=one.ivar * 1e34) for one in mixed[:40]]
    first, second = explore(mixed[:40], settings).table, explore(scaled, settings).table
    columns = ["x", "y", "oddness", "reconstruction_chi2", "neighbour_distance"]
    assert first[columns].to_numpy() == pytest.approx(
        second[columns].to_numpy(), rel=1e-3, abs=1e-3
    )


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7])
def test_few_spectra(count: int) -> None:
    found = explore(sample({"red": count}), ExploreSettings(join=4))
    assert np.isfinite(found.table[["x", "y", "oddness"]].to_numpy()).all()
    assert len(found.components) == count - 1 and len(found.oddest) == count
    assert found.flags[0] == f"{count - 1} components instead of 10"
    assert any("instead of t-SNE" in flag for flag in found.flags) == (count < 5)


def test_spectra_that_cannot_be_placed_have_a_reason() -> None:
    spectra = sample({"red": 8})
    rng = np.random.default_rng(5)
    lost = replace(spectra[0], name="lost", z=float("nan"))
    far = replace(spectra[0], name="far", z=2.9)
    noisy = galaxy("noisy", "red", rng, snr=0.2)
    empty = replace(spectra[0], name="sky", flux=-np.abs(spectra[0].flux))
    found = explore([lost, far, noisy, empty, *spectra], SETTINGS)
    table = found.table.set_index("file")
    by_oddness = table["oddness"].dropna().sort_values(ascending=False)
    assert list(found.table["file"].iloc[found.oddest]) == list(by_oddness.index)
    assert table.loc["lost", "reason"] == "no redshift"
    assert table.loc["far", "reason"].startswith("only 0% of the common wavelengths")
    for name in ("noisy", "sky"):
        assert "times its noise" in table.loc[name, "reason"], name
    assert table.loc[["lost", "far", "noisy", "sky"], "oddness"].isna().all()
    assert (table["reason"] == "").sum() == 8


def test_what_cannot_be_mapped_is_one_line() -> None:
    one, two = sample({"red": 2})
    lost = replace(one, z=float("nan"))
    for spectra, words in (
        ([], "none of 0 spectra has a redshift"),
        ([lost], "none of 1 spectra has a redshift"),
        ([one], "1 of 1 spectra can be placed"),
        ([one, lost], "no redshift"),
        ([one, replace(two, z=2.9)], "more alike redshifts"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            explore(spectra, SETTINGS)
        assert "\n" not in str(caught.value)
    for change, words in (
        ({"method": "ica"}, "method is 'ica'; allowed are pca and nmf"),
        ({"embed": "umap"}, "allowed are tsne and pca"),
        ({"components": 0}, "components is 0; give 1 or more"),
        ({"coverage": 1.5}, "coverage is 1.5"),
    ):
        with pytest.raises(SettingsError, match=words):
            explore([one, two], replace(SETTINGS, **change))


def test_repeats_of_a_real_galaxy_lie_close(real_file: Callable[[str], Path]) -> None:
    names = [
        "spec-0266-51602-0526.fits", "spec-0266-51630-0525.fits", "spec-0266-51602-0001.fits",
        "spec-0266-51602-0013.fits", "spec-0266-51602-0162.fits", "spec-0266-51602-0614.fits",
        "spec-0295-51585-0596.fits", "spec-1045-52725-0628.fits", "spec-1163-52669-0292.fits",
        "spec-4055-55359-0006.fits",
    ]  # fmt: skip
    spectra = [one for name in names for one in read(real_file(name))]
    found = explore(spectra, ExploreSettings(components=4, neighbours=3, embed="pca"))
    places = found.table[["x", "y"]].to_numpy()
    away = cdist(places, places)
    np.fill_diagonal(away, np.inf)
    assert away[0].argmin() == 1 or away[1].argmin() == 0
    assert away[0, 1] < 0.3 * np.median(away[np.isfinite(away)])
    assert names[found.oddest[0]] in ("spec-1163-52669-0292.fits", "spec-1045-52725-0628.fits")


def test_page_of_a_map(tmp_path: Path, mixed: list[Spectrum]) -> None:
    lost = replace(mixed[0], name="lost<&>", z=float("nan"))
    found = explore([*mixed, lost], replace(SETTINGS, oddest=7))
    classes = pd.DataFrame({"file": [one.name for one in mixed[:60]], "class": "passive"})
    write_explore_report(
        tmp_path,
        found,
        classes=classes,
        settings={"method": "pca"},
        warnings=["oh"],
        failures=[Failure("cut.fits", "breaks off")],
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    many = int((found.table["oddness"] > 5).sum())
    assert many >= 1 and f"<h1>{many} of 83 spectra are odd</h1>" in html
    assert html.count('class="card"') == 7 and html.count("<circle") == 83
    links, ids = set(re.findall(r'href="#([^"]+)"', html)), set(re.findall(r' id="([^"]+)"', html))
    assert {f"odd-{number}" for number in range(1, 8)} <= links <= ids
    assert "lost&lt;&amp;&gt;" in html and "lost<&>" not in html and "nan" not in html
    assert "no redshift" in html and "breaks off" in html and "2 could not be placed" in html
    assert "oh" in html
    write_explore_report(tmp_path, found, settings={})
    assert "no class" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_show_gaps_and_stay_small() -> None:
    wavelength = np.linspace(4000, 7000, 5000)
    flux = np.sin(wavelength / 100)
    flux[2000:2500] = np.nan
    svg = spectrum_picture(wavelength, flux, np.sin(wavelength / 100), "a <b>")
    assert "nan" not in svg and "<b>" not in svg
    data = svg.split("<path")[-1]
    assert data.count("M") == 2  # two stretches
    assert len(svg) < 30_000
    table = pd.DataFrame({"file": ["a", "b"], "x": [0.0, 0.0], "y": 1.0, "oddness": [1.0, 2.0],
                          "class": "", "colour": "red", "reason": ""})  # fmt: skip
    assert "nan" not in map_picture(table, {1: "odd-1"})
