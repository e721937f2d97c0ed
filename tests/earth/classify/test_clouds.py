"""What tells clouds from ground: the same in tiles, and shadows where they were put."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from warte.core.data.tiles import Window
from warte.earth.classify import clouds
from warte.earth.classify.around import box_mean, box_spread

GROUND = np.array([0.09, 0.1, 0.1, 0.3, 0.22, 0.12])
CLOUD = np.array([0.55, 0.54, 0.55, 0.6, 0.45, 0.35])


def sky(
    offset: tuple[int, int], seed: int = 0, rows: int = 240, columns: int = 256
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reflectance (6, rows, columns), and where clouds and shadows lie."""
    rng = np.random.default_rng(seed)
    heights = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 7)
    cloud = heights > np.quantile(heights, 0.88)
    shadow = np.zeros_like(cloud)
    for row, column in np.argwhere(cloud) + np.array(offset):
        if 0 <= row < rows and 0 <= column < columns:
            shadow[row, column] = True
    shadow &= ~cloud
    field = np.exp(0.15 * ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 3) * 8)
    values = GROUND[:, None, None] * field
    values[:, shadow] *= 0.35
    values[:, cloud] = CLOUD[:, None]
    values += rng.normal(0, 0.004, values.shape)
    return values.astype(np.float32), cloud, shadow


@pytest.mark.parametrize("offset", [(-20, -9), (14, 30), (0, -25)])
def test_the_direction_of_shadows_is_found(offset: tuple[int, int]) -> None:
    values, _, _ = sky(offset)
    found = clouds.shadow_direction([(values, Window(0, 0, *values.shape[1:]))])
    assert found is not None
    assert np.hypot(found[0] - offset[0], found[1] - offset[1]) <= 3


def test_no_direction_where_there_is_no_cloud() -> None:
    rng = np.random.default_rng(1)
    field = np.exp(0.2 * ndimage.gaussian_filter(rng.normal(size=(240, 240)), 3) * 8)
    values = (GROUND[:, None, None] * field).astype(np.float32)
    assert clouds.shadow_direction([(values, Window(0, 0, 240, 240))]) is None
    nothing = np.full_like(values, np.nan)
    assert clouds.shadow_direction([(nothing, Window(0, 0, 240, 240))]) is None


@settings(max_examples=6)
@given(
    row=st.integers(0, 500), column=st.integers(0, 500), rows=st.integers(1, 40),
    columns=st.integers(1, 40),
)  # fmt: skip
def test_channels_of_a_tile_are_those_of_the_whole(
    row: int, column: int, rows: int, columns: int
) -> None:
    values, whole = _whole()
    core = Window(row, column, rows, columns)
    reach = clouds.reach((-20, -9))
    seen = core.grown(reach, 560, 560)
    part = clouds.channels(values[:, seen.slices[0], seen.slices[1]], seen, (-20, -9))
    for name, channel in part.items():
        np.testing.assert_array_equal(
            channel[core.within(seen)], whole[name][core.slices], err_msg=name
        )


_KEPT: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []


def _whole() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if not _KEPT:
        values, _, _ = sky((-20, -9), rows=560, columns=560)
        values[:, 100:170, 300:333] = np.nan
        values[:, :30, :] = np.nan
        _KEPT.append((values, clouds.channels(values, Window(0, 0, 560, 560), (-20, -9))))
    return _KEPT[0]


def test_channels_say_what_they_are_named_for() -> None:
    values, cloud, shadow = sky((-20, -9))
    seen = clouds.channels(values, Window(0, 0, *cloud.shape), (-20, -9))
    clear = ~cloud & ~shadow
    assert np.median(seen["cloud"][cloud]) > 0.9 > 0.1 > np.median(seen["cloud"][clear])
    # A factor of 0.35 is a drop of 1.05 in the logarithm.
    assert abs(np.median(seen["dark"][shadow]) - 1.05) < 0.2
    assert (
        np.nanmedian(seen["sunward there"][shadow])
        > 0.8
        > np.nanmedian(seen["sunward there"][clear])
    )
    unknown = clouds.channels(values, Window(0, 0, *cloud.shape), None)
    assert np.isnan(unknown["sunward there"]).all()


def test_background_passes_over_clouds_and_no_data() -> None:
    values = np.full((128, 136), 0.2)
    values[40:70, 40:70] = 0.9
    values[:, 100:] = np.nan
    found = clouds.background(values, Window(3, 5, 128, 136))
    np.testing.assert_allclose(found, 0.2, atol=1e-12)


def test_box_means_and_spreads_leave_out_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 11))
    values[rng.random(values.shape) < 0.4] = np.nan
    mean, spread = box_mean(values, 2), box_spread(values, 2)
    for row in range(9):
        for column in range(11):
            box = values[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            assert mean[row, column] == pytest.approx(np.nanmean(box), abs=1e-12)
            assert spread[row, column] == pytest.approx(np.nanstd(box), abs=1e-7)
