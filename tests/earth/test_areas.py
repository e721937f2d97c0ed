"""Areas with confidence: a published example, how often intervals hold, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from warte.core.errors import InputError
from warte.earth.areas import areas, mapped_areas, stratified

# Olofsson et al. 2014, Remote Sensing of Environment 148, 42: table 8 and section 5: pixels of
# 30 m in the map, and counts of labels, rows the map, columns the truth.
CLASSES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])


def test_the_published_example() -> None:
    table = areas(CLASSES, PIXELS, PIXELS * 0.09, COUNTS)
    half = (table["high_ha"] - table["low_ha"]) / 2
    assert np.allclose(table["area_ha"], [21_158, 11_686, 285_770, 581_386], atol=1)
    assert np.allclose(half, [6_158, 3_756, 15_510, 16_282], rtol=2e-3)
    share = stratified(PIXELS, COUNTS)
    assert np.allclose(share.error, [0.0035, 0.0021, 0.0088, 0.0092], atol=5e-5)
    assert table["area_ha"].sum() == pytest.approx(table["mapped_ha"].sum())


def test_intervals_hold_the_true_area_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(3)
    weights = np.array([0.1, 0.3, 0.6])
    errors = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.03, 0.07, 0.9]])
    held = []
    for _ in range(2000):
        counts = np.array([rng.multinomial(400, row) for row in errors])
        found = stratified(weights, counts)
        held.append(np.abs(found.share - weights @ errors) <= 1.96 * found.error)
    assert np.all(np.abs(np.mean(held, axis=0) - 0.95) < 0.02)


def polygons(rng: np.random.Generator, groups: int, errors: np.ndarray) -> np.ndarray:
    """Counts by polygon: 40 pixels of one class of the map, all of one true class."""
    counts = np.zeros((groups, 3, 3), int)
    for group in range(groups):
        row = group % 3
        counts[group, row, rng.choice(3, p=errors[row])] = 40
    return counts


def test_pixels_of_one_polygon_are_not_taken_for_independent() -> None:
    rng = np.random.default_rng(4)
    weights = np.array([0.1, 0.3, 0.6])
    errors = np.array([[0.7, 0.2, 0.1], [0.15, 0.75, 0.1], [0.05, 0.15, 0.8]])
    truth = weights @ errors * 100
    by_group, by_pixel = [], []
    for _ in range(120):
        counts = polygons(rng, 90, errors)
        table = areas("abc", weights * 1e6, weights * 100, counts, draws=300, rng=rng)
        by_group.append((table["low_ha"] <= truth) & (truth <= table["high_ha"]))
        table = areas("abc", weights * 1e6, weights * 100, counts.sum(axis=0))
        by_pixel.append((table["low_ha"] <= truth) & (truth <= table["high_ha"]))
    assert np.all(np.mean(by_group, axis=0) > 0.88)
    assert np.all(np.mean(by_pixel, axis=0) < 0.5)


def test_without_labels_there_is_no_interval() -> None:
    table = mapped_areas({0: 10, 2: 30}, {0: "a", 1: "b", 2: "c"}, 0.01)
    assert list(table["pixels"]) == [10, 0, 30]
    assert table["mapped_ha"].sum() == pytest.approx(0.4)
    assert table[["area_ha", "low_ha", "high_ha"]].isna().all(axis=None)
    assert "no test labels" in table.attrs["interval"]


def test_a_class_of_the_map_without_labels_leaves_no_interval() -> None:
    counts = COUNTS.copy()
    counts[1] = 0
    table = areas(CLASSES, PIXELS, PIXELS * 0.09, counts)
    assert table["area_ha"].isna().all()
    assert "fewer than two" in table.attrs["interval"]
    by_group = areas(CLASSES, PIXELS, PIXELS * 0.09, np.stack([counts, counts]))
    assert by_group["area_ha"].isna().all()
    # A class that the map does not hold needs none.
    empty = PIXELS.copy()
    empty[1] = 0
    assert areas(CLASSES, empty, empty * 0.09, counts)["area_ha"].notna().all()


def test_same_seed_same_interval() -> None:
    counts = polygons(np.random.default_rng(1), 30, np.full((3, 3), 1 / 3))
    one, two = (areas("abc", [1, 2, 3], [1.0, 2.0, 3.0], counts) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    ("pixels", "hectares", "counts", "words"),
    [
        ([1, 2], [1.0, 2.0, 3.0], None, "3 classes"),
        ([1, 2, -3], [1.0, 2.0, 3.0], None, "negative"),
        ([0, 0, 0], [0.0, 0.0, 0.0], None, "no area"),
        ([1, 2, 3], [np.nan, np.nan, np.nan], None, "no CRS"),
        ([1, 2, 3], [1.0, 2.0, 3.0], np.ones((2, 2)), "shape"),
        ([1, 2, 3], [1.0, 2.0, 3.0], -np.ones((3, 3)), "negative"),
    ],
)
def test_bad_counts_are_one_line(
    pixels: list[int], hectares: list[float], counts: np.ndarray | None, words: str
) -> None:
    with pytest.raises(InputError, match=words) as problem:
        areas("abc", pixels, hectares, counts)
    assert "\n" not in str(problem.value)
