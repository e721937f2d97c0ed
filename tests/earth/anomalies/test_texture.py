"""What chance makes in pictures whose pixels are alike: spectra, laws, and no false regions."""

from pathlib import Path

import geopandas
import numpy as np
import pytest
from scipy import ndimage, stats

from warte.earth.anomalies import AnomalySettings, anomalies
from warte.earth.anomalies.background import measure
from warte.earth.anomalies.texture import HEAVIEST, fit_law, random_phases
from warte.earth.scene import scene_of_array

pytestmark = pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
FAST = AnomalySettings(trees=10)


def texture(seed: int, sigma: float, bands: int = 4, side: int = 150) -> np.ndarray:
    rng = np.random.default_rng([seed, bands])
    drawn = ndimage.gaussian_filter(
        rng.normal(size=(bands, side, side)), (0, sigma, sigma), mode="wrap"
    )
    return np.einsum("ij,jrc->irc", rng.normal(size=(bands, bands)), drawn / drawn.std())


def drawn_of(values: np.ndarray, seed: int) -> np.ndarray:
    scene = scene_of_array(values)
    background, _ = measure(scene)
    drawn = random_phases(scene.read(), background, np.random.default_rng(seed))
    assert (drawn.valid == scene.read().valid).all()
    return drawn.values.astype(float)


@pytest.mark.parametrize("shape", [(40, 51), (41, 50)])
def test_random_phases_keep_means_and_spectra_and_nothing_else(shape: tuple[int, int]) -> None:
    values = texture(0, 2.0, 3, 60)[:, : shape[0], : shape[1]]
    # A few pixels far out, so that no wave is cut at the range.
    values[:, 5, 5], values[:, 20, 30] = 12 * np.eye(3)[0], -12 * np.eye(3)[0]
    values[1:, 9, 9], values[1:, 30, 9] = 12, -12
    values += np.array([5, -7, 100])[:, None, None]
    drawn = drawn_of(values, 1)
    np.testing.assert_allclose(drawn.mean(axis=(1, 2)), values.mean(axis=(1, 2)), atol=0.05)
    one, two = (np.abs(np.fft.fft2(part)) for part in (values, drawn))
    assert np.median(np.abs(two / one - 1)) < 0.25
    # Cross spectra, and with them the covariance between bands.
    known, found = (np.cov(part.reshape(3, -1)) for part in (values, drawn))
    np.testing.assert_allclose(found, known, atol=0.05 * known.max())
    assert abs(np.corrcoef(drawn[0].ravel(), values[0].ravel())[0, 1]) < 0.5


def test_random_phases_fill_no_gaps_and_keep_power_and_range() -> None:
    values = texture(2, 1.0, 2, 120)
    values[:, :, 70:] = np.nan
    drawn = drawn_of(values, 3)
    assert np.isnan(drawn[:, :, 70:]).all()
    ratio = drawn[:, :, :70].std(axis=(1, 2)) / values[:, :, :70].std(axis=(1, 2))
    np.testing.assert_allclose(ratio, 1, atol=0.1)
    two_fields = np.where(np.arange(80) < 20, 1.0, 0.0) * np.ones((1, 60, 1))
    drawn = drawn_of(two_fields, 4)
    assert drawn.min() >= -1e-6 and drawn.max() <= 1 + 1e-6


@pytest.mark.parametrize("shape", [0.0, 0.15, 0.5])
def test_law_is_the_one_that_masses_were_drawn_from(shape: float) -> None:
    law = stats.genpareto(shape, scale=2.0)
    found = fit_law(law.rvs(20_000, random_state=4), 1_000_000)
    # A hundredth of a region where there are 200: one in 20,000.
    assert found.chance(law.isf(0.01 / 200), 10_000) == pytest.approx(0.01, rel=0.4)
    assert found.chance(law.isf(1 / 200), 10_000) == pytest.approx(1, rel=0.15)
    assert found.chance(np.array(found.start), 10_000) == np.inf


def test_law_of_few_masses_or_none() -> None:
    assert fit_law(np.zeros(0), 1000).chance(np.array(0.1), 10_000) == 0.0
    few = fit_law(np.array([1.0, 2.0, 4.0]), 1000)
    # One mass: its scale may be twice as much.
    assert few.chance(np.array(2.0 + 4.0), 1000) == pytest.approx(2 / np.e)
    heavy = fit_law(stats.pareto(0.5).rvs(500, random_state=5), 1000)
    assert heavy.shape == HEAVIEST


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_smooth_noise_yields_nothing(tmp_path: Path, sigma: float) -> None:
    assert anomalies(scene_of_array(texture(6, sigma)), FAST, out=tmp_path).regions == 0


def test_objects_are_found_in_smooth_noise(tmp_path: Path) -> None:
    values = texture(7, 1.5)
    places = [(30, 40), (75, 100), (120, 20), (110, 115)]
    for row, column in places:
        values[:, row - 2 : row + 3, column - 2 : column + 3] += (
            6 * values.std(axis=(1, 2))[:, None, None] * np.array([1, -1, 1, 1])[:, None, None]
        )
    anomalies(scene_of_array(values), FAST, out=tmp_path)
    frame = geopandas.read_parquet(tmp_path / "regions.parquet")
    for row, column in places:
        assert (np.hypot(frame["row"] - row, frame["column"] - column) < 5).sum() == 1
    assert len(frame) == len(places)


def test_rough_and_smooth_places_stay(tmp_path: Path) -> None:
    values = texture(8, 1.0)
    values[:, :, 75:] *= 4
    drawn = drawn_of(values, 9)
    ratio = drawn[:, :, 90:].std(axis=(1, 2)) / drawn[:, :, :60].std(axis=(1, 2))
    assert (ratio > 3).all()
    assert anomalies(scene_of_array(values), FAST, out=tmp_path).regions == 0
