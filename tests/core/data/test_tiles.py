"""Tiles cover a picture, their weights add up to one, and a filter sees no seams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from warte.core.data.tiles import Tiling, Window, windows
from warte.core.errors import SettingsError


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    size = draw(st.integers(7, 40))
    return Tiling(
        draw(st.integers(1, 70)),
        draw(st.integers(1, 70)),
        size,
        margin=draw(st.integers(0, 12)),
        blend=2 * draw(st.integers(0, size // 2)),
        align=draw(st.sampled_from([1, 2, 4, 8])),
    )


@given(tilings())
def test_cores_cover_the_picture_once_and_weights_add_up_to_one(tiling: Tiling) -> None:
    covered = np.zeros((tiling.rows, tiling.columns), int)
    weight = np.zeros((tiling.rows, tiling.columns))
    for tile in tiling:
        covered[tile.core.slices] += 1
        weight[tile.kept.slices] += tiling.weights(tile)
    assert (covered == 1).all()
    np.testing.assert_allclose(weight, 1, atol=1e-15)
    assert [tile.core for tile in tiling] == list(windows(tiling.rows, tiling.columns, tiling.size))


@given(tilings())
def test_what_is_seen_reaches_far_enough_and_is_aligned(tiling: Tiling) -> None:
    for tile in tiling:
        wanted = tile.kept.grown(tiling.margin, tiling.rows, tiling.columns)
        assert tile.seen.shared(wanted) == wanted
        for start, length, whole in (
            (tile.seen.row, tile.seen.rows, tiling.rows),
            (tile.seen.column, tile.seen.columns, tiling.columns),
        ):
            assert start % tiling.align == 0
            assert (start + length) % tiling.align == 0 or start + length == whole


@given(tilings())
def test_neighbours_are_all_tiles_whose_results_count(tiling: Tiling) -> None:
    for index, tile in enumerate(tiling):
        reach = [n for n, other in enumerate(tiling) if other.kept.shared(tile.core)]
        assert set(reach) <= set(tiling.neighbours(index))


def test_a_filter_by_tiles_is_the_filter_of_the_whole() -> None:
    picture = np.random.default_rng(0).random((70, 95))
    tiling = Tiling(70, 95, 32, margin=3, blend=10)
    joined = np.zeros_like(picture)
    for tile in tiling:
        found = ndimage.uniform_filter(picture[tile.seen.slices], 7, mode="reflect")
        joined[tile.kept.slices] += tiling.weights(tile) * found[tile.kept.within(tile.seen)]
    whole = ndimage.uniform_filter(picture, 7, mode="reflect")
    np.testing.assert_allclose(joined, whole, atol=1e-14)


def test_the_weight_falls_in_a_straight_line_across_a_cut() -> None:
    tiling = Tiling(8, 40, 20, blend=4)
    left = tiling.weights(tiling[0])[0]
    np.testing.assert_allclose(left[:18], 1)
    np.testing.assert_allclose(left[18:], [0.875, 0.625, 0.375, 0.125])


def test_windows_that_do_not_meet_share_nothing() -> None:
    assert Window(0, 0, 4, 4).shared(Window(4, 0, 4, 4)) is None


@pytest.mark.parametrize(
    ("size", "blend", "flag"), [(0, 0, "--tile 0"), (16, 32, "--tile 16"), (16, 3, "--blend 3")]
)
def test_sizes_that_cannot_be(size: int, blend: int, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        Tiling(10, 10, size, blend=blend)
