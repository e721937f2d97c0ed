"""Clouds and shadows that no mask marks, and floods that go again, in series with known truth."""

import datetime
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.earth.change import change
from warte.earth.change.kinds import FLOOD, LOSS, NODATA
from warte.earth.change.screen import beside, screen_of, screened
from warte.earth.change.stack import Sample, by_date, stack, take_sample
from warte.earth.scene import Grid, scene_of_array

BANDS = ("blue", "green", "red", "nir", "swir16")
WOOD, SOIL, WATER = (
    np.array(values)
    for values in (
        (0.03, 0.05, 0.03, 0.30, 0.12), (0.10, 0.13, 0.18, 0.24, 0.34),
        (0.06, 0.06, 0.04, 0.015, 0.005),
    )
)  # fmt: skip
SIDE, DATES = 64, 60
GRID = Grid(SIDE, SIDE, Affine(10, 0, 500_000, 0, -10, 5_000_000), CRS.from_epsg(32633))
START = datetime.datetime(2020, 1, 8, tzinfo=datetime.UTC)
CUT = np.s_[8:28, 8:28]
FLOODED = np.s_[40:56, 36:60]


@dataclass(frozen=True)
class Sky:
    """Clouds and shadows of each date: (dates, rows, columns)."""

    cloud: np.ndarray
    shadow: np.ndarray


def sky(rng, share):
    """Squares of cloud, with their shadows beside them; about `share` of the dates of a pixel."""
    cloud = np.zeros((DATES, SIDE + 8, SIDE + 8), bool)
    for date in range(DATES):
        while cloud[date].mean() < share[date]:
            row, column = rng.integers(0, SIDE + 8, 2)
            cloud[date, row : row + 12, column : column + 12] = True
    shadow = cloud[:, 8:, 8:] & ~cloud[:, :SIDE, :SIDE]
    return Sky(cloud[:, :SIDE, :SIDE], shadow)


def series(rng, above=None, cut=None, flood=()):
    """A wood beside soil, 16 days apart, with noise; clouds, shadows, a clearing and a flood."""
    scenes = []
    wood = (np.arange(SIDE) < 36)[None] * np.ones((SIDE, 1), bool)
    for date in range(DATES):
        turn = 1 + 0.15 * np.cos(2 * np.pi * 16 * date / 365.25)
        picture = np.where(wood, WOOD[:, None, None], SOIL[:, None, None])
        picture[3, wood] *= turn
        if cut is not None and date >= cut:
            picture[(slice(None), *CUT)] = SOIL[:, None, None]
        if date in flood:
            picture[(slice(None), *FLOODED)] = WATER[:, None, None]
        if above is not None:
            picture[:, above.shadow[date]] *= 0.2
            picture[:, above.cloud[date]] = 0.6
        picture = picture + rng.normal(0, 0.004, picture.shape)
        day = START + datetime.timedelta(days=16 * date)
        scenes.append(
            scene_of_array(picture, BANDS, GRID, name=f"d{date}", quantity="reflectance", time=day)
        )
    return scenes


def found_in(folder):
    with rasterio.open(folder / "change.tif") as data:
        kinds = data.read(1)
    with rasterio.open(folder / "change_date.tif") as data:
        return kinds, data.read()


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_clearing_is_found_below_clouds_that_no_mask_marks(tmp_path, share):
    rng = np.random.default_rng(11)
    above = sky(rng, rng.uniform(0, 2 * share, DATES))
    found = change(series(rng, above, cut=31), out=tmp_path)
    kinds, dates = found_in(tmp_path)
    assert found.method == "season"
    assert (kinds[CUT] == LOSS).mean() > 0.9
    outside = np.ones(kinds.shape, bool)
    outside[6:30, 6:30] = False
    assert ((kinds > 0) & (kinds != NODATA))[outside].mean() < 0.01
    true = (START - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).days + 16 * 31
    first, last = dates[:, kinds == LOSS]
    assert ((first <= true) & (true <= last)).mean() > 0.9


def test_clouds_alone_are_no_change(tmp_path):
    rng = np.random.default_rng(12)
    above = sky(rng, rng.uniform(0, 0.5, DATES))
    found = change(series(rng, above), out=tmp_path)
    assert found.share <= 0.01


def test_a_flood_that_goes_again_is_water_gained_on_its_day(tmp_path):
    rng = np.random.default_rng(13)
    above = sky(rng, np.full(DATES, 0.05))
    change(series(rng, above, flood=range(30, 37)), out=tmp_path)
    kinds, dates = found_in(tmp_path)
    assert (kinds[FLOODED] == FLOOD).mean() > 0.9
    true = (START - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).days + 16 * 30
    first, last = dates[(slice(None), *FLOODED)][:, kinds[FLOODED] == FLOOD]
    assert ((first < true) & (true <= last)).mean() > 0.9


def test_one_wet_date_is_no_flood(tmp_path):
    change(series(np.random.default_rng(14), flood=[30]), out=tmp_path)
    assert (found_in(tmp_path)[0][FLOODED] == FLOOD).mean() == 0


def sample_of(scenes):
    return take_sample(stack(scenes, BANDS, GRID, 12), len(scenes))


def test_the_screen_leaves_out_clouds_and_shadows_and_little_else():
    rng = np.random.default_rng(15)
    above = sky(rng, rng.uniform(0, 0.6, DATES))
    scenes = series(rng, above, cut=31)
    sample = sample_of(scenes)
    screen = screen_of(sample, BANDS)
    whole = screened(stack(scenes, BANDS, GRID, 12), screen, BANDS)
    clear = by_date(whole.read(), DATES)[1]
    assert clear[above.cloud].mean() < 0.02
    assert clear[above.shadow].mean() < 0.05
    good = ~above.cloud & ~above.shadow
    assert clear[good].mean() > 0.6  # less what lies beside them
    calm = series(rng, None, cut=31)
    screen = screen_of(sample_of(calm), BANDS)
    whole = screened(stack(calm, BANDS, GRID, 12), screen, BANDS)
    assert by_date(whole.read(), DATES)[1].mean() > 0.995
    assert by_date(whole.read(), DATES)[1][31:, 8:28, 8:28].mean() > 0.98


def test_windows_of_a_screened_stack_are_parts_of_the_whole():
    rng = np.random.default_rng(16)
    scenes = series(rng, sky(rng, np.full(DATES, 0.3)))
    screen = screen_of(sample_of(scenes), BANDS)
    whole = screened(stack(scenes, BANDS, GRID, 12), screen, BANDS[1:])
    all_values, all_clear = by_date(whole.read(), DATES)
    for window in (Window(0, 0, 9, 64), Window(17, 30, 20, 11), Window(60, 60, 4, 4)):
        values, clear = by_date(whole.read(window), DATES)
        place = (slice(None), *window.slices)
        assert np.array_equal(clear, all_clear[place])
        assert np.array_equal(values, all_values[(slice(None), slice(None), *window.slices)])


def test_no_screen_without_visible_bands():
    values = np.zeros((1, 20, 1, 8, 8), np.float32)
    assert screen_of(Sample(values, np.ones((1, 20, 8, 8), bool)), ("ndvi",)) is None


@pytest.mark.parametrize(("seed", "rank"), [(0, 1), (1, 2), (2, 3)])
def test_the_ranks_of_the_dates_beside(seed, rank):
    rng = np.random.default_rng(seed)
    values, seen = rng.normal(size=(20, 3, 3)), rng.random((20, 3, 3)) < 0.7
    sides = beside(torch.from_numpy(values), torch.from_numpy(seen), rank)
    for date, row, column in np.ndindex(values.shape):
        if not seen[date, row, column]:
            continue
        index = np.flatnonzero(seen[:, row, column])
        before, after = index[index < date][-6:], index[index > date][:6]
        for side, dates in zip(sides, (before, after), strict=True):
            wanted = np.sort(values[dates, row, column])[rank - 1] if len(dates) >= 3 else -np.inf
            assert side[date, row, column] == wanted
