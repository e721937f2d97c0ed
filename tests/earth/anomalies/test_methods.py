"""Each method against a closed form, a plain rewriting or another implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.covariance import EmpiricalCovariance

from warte.core.errors import InputError
from warte.earth.anomalies.background import SHRINK, View, measure
from warte.earth.anomalies.contrast import removed
from warte.earth.anomalies.local import PRIOR, box_sum, local_rx
from warte.earth.anomalies.tail import fit_tail
from warte.earth.scene import Scene, scene_of_array


def gaussian(rng: np.random.Generator, bands: int, rows: int, columns: int) -> Scene:
    mixed = np.einsum(
        "ij,jrc->irc", rng.normal(size=(bands, bands)), rng.normal(size=(bands, rows, columns))
    )
    return scene_of_array(mixed + 1000)


def test_mean_and_covariance_are_those_of_scikit_learn_and_no_data_is_left_out() -> None:
    scene = gaussian(np.random.default_rng(0), 5, 700, 530)  # four blocks
    values = scene.read().values.copy()
    values[:, 100:300, 200:] = np.nan
    background, places = measure(scene_of_array(values))
    flat = values[:, np.isfinite(values[0])].T.astype(float)
    known = EmpiricalCovariance().fit(flat)
    assert background.pixels == len(flat)
    np.testing.assert_allclose(background.mean, known.location_, rtol=1e-12)
    rebuilt = (background.axes * background.variances) @ background.axes.T
    np.testing.assert_allclose(rebuilt, known.covariance_, atol=1e-9)
    # Patches without a valid pixel are not drawn from.
    assert all(np.isfinite(values[(0, *place.slices)]).any() for place in places)


def test_rx_distances_of_gaussian_pixels_are_chi_square() -> None:
    scene = gaussian(np.random.default_rng(1), 8, 200, 200)
    background, _ = measure(scene)
    pixels = scene.read()
    view = background.project(pixels.values, pixels.valid, 3)
    flat = pixels.values.reshape(8, -1).T.astype(float)
    known = EmpiricalCovariance().fit(flat).mahalanobis(flat).reshape(200, 200)
    # The shrinkage makes distances a little less, never more.
    assert (view.distance <= known * (1 + 1e-6)).all()
    np.testing.assert_allclose(view.distance.mean(), 8, rtol=0.05)
    plain = background.variances / (background.variances + SHRINK * background.variances.mean())
    np.testing.assert_allclose(view.distance.mean(), plain.sum(), rtol=1e-4)
    assert stats.kstest(known.ravel(), stats.chi2(8).cdf).statistic < 0.01
    # Components are uncorrelated, with the variances that are claimed.
    found = np.cov(view.components.reshape(3, -1))
    np.testing.assert_allclose(found, np.diag(background.variances[:3]), atol=1e-3)


def test_fewer_pixels_than_bands_and_constant_bands_are_no_matter() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50, 5, 6))
    values[7] = 3.0
    background, _ = measure(scene_of_array(values))
    assert len(background.variances) == 29
    with pytest.raises(InputError, match="all 30 valid pixels of flat are the same"):
        measure(scene_of_array(np.ones((3, 5, 6)), name="flat"))
    with pytest.raises(InputError, match="no valid pixel"):
        measure(scene_of_array(np.full((3, 5, 6), np.nan)))


@given(st.integers(0, 4), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_window_sums_are_sums_over_windows(half: int, rows: int, columns: int, seed: int) -> None:
    plane = np.random.default_rng(seed).normal(size=(rows, columns))
    known = ndimage.correlate(plane, np.ones((2 * half + 1,) * 2), mode="constant")
    np.testing.assert_allclose(box_sum(plane, 2 * half + 1), known, atol=1e-12)


def test_local_rx_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(3)
    valid = rng.random((20, 22)) > 0.2
    components = np.where(valid, rng.normal(size=(3, 20, 22)), 0).astype(np.float32)
    variances = np.array([2.0, 1.0, 0.5])
    found = local_rx(View(components, np.zeros((20, 22)), valid), variances, 3, 9)
    white = components.astype(float) / np.sqrt(variances)[:, None, None]
    for row, column in [(0, 0), (10, 11), (19, 5), (7, 21)]:
        ring = valid.copy()
        rows, columns = np.indices(valid.shape)
        away = np.maximum(abs(rows - row), abs(columns - column))
        ring &= (away <= 4) & (away > 1)
        pixels = white[:, ring]
        mean = pixels.sum(axis=1) / (ring.sum() + 1)
        scatter = pixels @ pixels.T - ring.sum() * np.outer(mean, mean)
        covariance = (scatter + PRIOR * np.eye(3)) / (ring.sum() + PRIOR)
        z = white[:, row, column] - mean
        known = z @ np.linalg.inv(covariance) @ z if valid[row, column] else 0
        assert found[row, column] == pytest.approx(known, abs=1e-9)


def opening_by_components(plane: np.ndarray, area: int) -> np.ndarray:
    """Area opening of whole numbers from its definition: each level, each component."""
    opened = np.full(plane.shape, plane.min())
    for level in np.unique(plane):
        labels, count = ndimage.label(plane >= level, np.ones((3, 3)))
        for label in range(1, count + 1):
            if (labels == label).sum() >= area:
                opened[labels == label] = level
    return opened


@given(st.integers(0, 999), st.integers(2, 30))
def test_structures_are_what_an_area_opening_removes(seed: int, area: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 10, (14, 17)).astype(float)
    (found,) = removed(plane, np.ones(plane.shape, bool), np.arange(10.0), (area,))
    known = np.maximum(plane - opening_by_components(plane, area) - 1, 0)
    np.testing.assert_array_equal(found, known)


def test_structures_have_the_size_asked_for_and_touch_no_no_data() -> None:
    plane = np.zeros((40, 40))
    plane[5:8, 5:8] = 10  # 9 pixels
    plane[20:26, 20:26] = 10  # 36 pixels
    valid = np.ones(plane.shape, bool)
    valid[30:, :] = False
    plane[~valid] = 99
    small, large = removed(plane, valid, np.linspace(0, 10, 11), (10, 40))
    assert small[6, 6] == large[6, 6] == 9  # a step of the levels is taken off
    assert small[22, 22] == 0 and large[22, 22] == 9
    assert not small[30:].any() and not large[30:].any() and not large[:20, 20:].any()


@pytest.mark.parametrize("shape", [0.0, 0.3])
def test_rarity_is_the_share_above_even_where_some_pixels_are_anomalies(shape: float) -> None:
    rng = np.random.default_rng(4)
    law = stats.genpareto(shape)
    scores = law.rvs(100_000, random_state=rng)
    tail = fit_tail(scores)
    assert tail.shape == pytest.approx(shape, abs=0.08)
    for share in (0.5, 0.1, 1e-2, 1e-3):
        found = 10 ** -tail.rarity(np.array(law.isf(share)))
        assert found == pytest.approx(share, rel=0.25)
    # One pixel in a hundred is an anomaly: more seem to be above, but fewer than there are, and
    # the anomalies themselves stay rare.
    mixed = fit_tail(np.concatenate([scores, np.full(1000, law.isf(1e-7))]))
    assert 1e-3 < 10 ** -mixed.rarity(np.array(law.isf(1e-3))) < 0.7 * 0.011
    assert 10 ** -mixed.rarity(np.array(law.isf(1e-7))) < 1e-3


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5]) | st.floats(0, 1e6), min_size=1, max_size=60))
def test_rarity_rises_with_the_score_whatever_the_sample(scores: list[float]) -> None:
    tail = fit_tail(np.array(scores))
    ladder = np.sort(np.concatenate([scores, np.linspace(0, 2e6, 50)]))
    found = tail.rarity(ladder)
    assert np.isfinite(found).all() and (found >= 0).all()
    assert (np.diff(found) >= -1e-9).all()
