"""The parts of `change`, against closed forms and brute force."""

import datetime
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage
from scipy.stats import gamma

from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError
from warte.earth.change import season
from warte.earth.change.align import Moved, on_one_grid, shift_between
from warte.earth.change.calibrate import unchanged_law
from warte.earth.change.dates import date_in
from warte.earth.change.kinds import guessed_bands, water_level
from warte.earth.change.radar import minimum_error
from warte.earth.change.radiometry import ir_mad, radiometry
from warte.earth.change.results import without_specks
from warte.earth.change.steps import find_steps
from warte.earth.scene import Grid, scene_of_array


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("1985", "1985-07-01"),
        ("m_4709963_se_14_1_20140720", "2014-07-20"),
        ("LE70220491999322EDC01_stack", "1999-11-18"),
        ("S2B_L1C_20181013_B01", "2018-10-13"),
        ("scene-2020-02-29", "2020-02-29"),
        ("image_2020060", "2020-02-29"),
        ("path_022049", None),
        ("scene_20209999", None),
    ],
)
def test_dates_in_names(name, day):
    found = date_in(name)
    assert (found and found.date().isoformat()) == day
    assert found is None or found.tzinfo is datetime.UTC


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 3))
def test_steps_are_those_of_all_that_are_possible(seed, dates, most):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (dates, 2))
    seen = rng.random(dates) < 0.8
    seen[0] = True
    values[~seen] = 0
    penalty = 3.0

    def explained(borders):
        total = 0.0
        for start, end in pairwise(borders):
            part = values[start:end][seen[start:end]]
            total += len(part) * float((part.mean(0) ** 2).sum()) if len(part) else 0.0
        return total

    best = max(
        explained((0, *inner, dates)) - penalty * len(inner)
        for count in range(min(most, dates - 1) + 1)
        for inner in combinations(range(1, dates), count)
    )
    found = find_steps(
        torch.from_numpy(values)[..., None], torch.from_numpy(seen)[:, None], penalty, most
    )
    single = max(explained((0, at, dates)) for at in range(1, dates)) - explained((0, dates))
    assert float(found.gain[0]) == pytest.approx(single, abs=1e-9)
    changed = best > explained((0, dates)) + 1e-9
    assert (float(found.strongest[0]) > 0) == changed


def test_radiometry_finds_gain_and_offset_of_the_unchanged_ground():
    rng = np.random.default_rng(2)
    one = rng.gamma(3, 0.05, (40_000, 3))
    two = one + rng.normal(0, 0.004, one.shape)
    two[:8000] = rng.gamma(3, 0.05, (8000, 3))  # a fifth changed
    gain, offset = np.array([1.2, 0.8, 1.5]), np.array([0.01, 0.02, -0.01])
    stored = (two - offset) / gain
    values = np.stack([one.T, stored.T]).astype(np.float32)
    found = radiometry(values, np.ones((2, 40_000), bool), ("a", "b"), True)
    np.testing.assert_allclose(found.gains[1], gain, rtol=0.03)
    np.testing.assert_allclose(found.offsets[1], offset, atol=0.005)


def test_ir_mad_does_not_see_a_linear_mix_of_the_bands():
    rng = np.random.default_rng(3)
    one = rng.gamma(3, 0.05, (5000, 3))
    two = one + rng.normal(0, 0.01, one.shape)
    two[:500] += 0.2
    mixed = two @ np.array([[1, 0.3, 0], [0.1, 2, 0.2], [0, -0.4, 0.7]]) + 5
    plain, other = ir_mad(one, two), ir_mad(one, mixed)
    np.testing.assert_allclose(plain.chi_square, other.chi_square, rtol=1e-3, atol=1e-3)
    assert plain.weights[:500].max() < 1e-3


@pytest.mark.parametrize("changed", [0.0, 0.2, 0.4])
def test_the_law_of_the_unchanged_hardly_heeds_the_changes(changed):
    rng = np.random.default_rng(4)
    values = 3 * rng.chisquare(4, 50_000)
    values[: int(changed * len(values))] += 500
    law = unchanged_law(values, 4)
    share = float(gamma.sf(law.threshold(0.001) / 3, 2, scale=2))
    assert share <= 0.0013
    if changed == 0:
        assert share >= 0.0007


@given(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5))
def test_a_shift_by_parts_of_a_pixel_is_measured_and_mended(down, right):
    rng = np.random.default_rng(5)
    wide = ndimage.gaussian_filter(rng.normal(0, 1, (1, 80, 80)), (0, 1.5, 1.5))
    other = ndimage.shift(wide, (0, down, right), order=5, mode="nearest")
    cut = (slice(None), slice(8, 72), slice(8, 72))
    found = shift_between(wide[cut], other[cut])
    assert found == pytest.approx((down, right), abs=0.12)

    class Held:
        def read(self, window, bands):
            return other[(list(bands), *window.slices)].astype(np.float32), np.ones(
                (window.rows, window.columns), bool
            )

    back, valid = Moved(Held(), 80, 80, down, right).read(Window(10, 10, 60, 60), [0])
    assert valid.all()
    assert np.abs(back - wide[:, 10:70, 10:70]).std() < 0.03 * wide.std()


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_small_patches_go_the_same_way_in_windows_as_in_the_whole(seed, smallest):
    rng = np.random.default_rng(seed)
    kind = (rng.random((50, 60)) < 0.4).astype(np.uint8)
    whole = without_specks(kind, smallest)
    for core in windows(50, 60, 17):
        seen = core.grown(smallest, 50, 60)
        part = without_specks(kind[seen.slices], smallest)[core.within(seen)]
        np.testing.assert_array_equal(part, whole[core.slices])


def test_minimum_error_lies_where_two_normal_classes_cross():
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.normal(-20, 1, 40_000), rng.normal(-10, 1, 40_000)])
    border, below, apart, distance = minimum_error(values)
    assert -17 < border < -13
    assert (below, apart, distance) == pytest.approx((0.5, 10, 10), rel=0.02)


def test_the_border_of_water_is_the_valley():
    rng = np.random.default_rng(7)
    index = np.concatenate([rng.normal(-0.5, 0.1, 9000), rng.normal(0.6, 0.1, 1000)])
    assert -0.2 < water_level(index) < 0.35
    assert water_level(rng.normal(-0.5, 0.1, 9000)) == 0


def test_a_step_of_a_series_has_the_gain_of_least_squares():
    rng = np.random.default_rng(8)
    days = tuple(np.arange(0, 1000, 20.0))
    model = season.Model(days, 1, 1, 3, (0.5,))
    seen = rng.random(len(days)) < 0.8
    y = np.where(seen, rng.normal(0, 1, len(days)), 0)
    x = torch.from_numpy(seen.astype(float))[:, None] * model.design
    gains = season.step_gains(
        x[None], torch.from_numpy(y)[None, :, None],
        torch.from_numpy(seen.astype(float))[None, :, None], torch.full((1, 1), 0.5),
    )[0]  # fmt: skip

    def rest(columns):
        return y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]

    plain = x.numpy()
    for at in (10, 25, 33):
        step = np.column_stack([plain, (np.arange(len(days)) >= at) * seen])
        better = ((rest(plain) ** 2).sum() - (rest(step) ** 2).sum()) / 0.25
        assert float(gains[at]) == pytest.approx(better, rel=1e-6)


def test_unnamed_bands_are_guessed_only_where_they_are_clear():
    rng = np.random.default_rng(9)
    soil, plants = rng.random(5000), rng.random(5000)
    visible = [60 + 90 * soil, 70 + 60 * soil, 60 + 50 * soil]
    noisy = [band + rng.normal(0, 3, 5000) for band in (*visible, 50 + 150 * plants)]
    assert guessed_bands(np.array(noisy)) == ("red", "green", "blue", "nir")
    assert guessed_bands(np.array(noisy)[::-1][[1, 2, 3, 0]]) == ("blue", "green", "red", "nir")
    assert guessed_bands(rng.random((4, 5000))) is None
    assert guessed_bands(rng.random((3, 5000))) is None


def _plain(name, rows, crs=None, transform=None):
    grid = Grid(rows, 12, transform or Affine.identity(), crs)
    return scene_of_array(np.ones((1, rows, 12), np.float32), grid=grid, name=name)


def test_pictures_that_lie_nowhere_are_compared_only_where_their_sizes_agree():
    assert len(on_one_grid([_plain("one", 12), _plain("two", 12)])) == 2
    with pytest.raises(InputError, match=r"one and two do not lie on one grid: 12 x 12 and 10 x"):
        on_one_grid([_plain("one", 12), _plain("two", 10)])


def test_a_picture_with_a_crs_and_one_without_are_not_compared():
    with pytest.raises(InputError, match=r"two has no CRS and one has EPSG:32633; allowed are"):
        on_one_grid([_plain("one", 12, CRS.from_epsg(32633)), _plain("two", 12)])
