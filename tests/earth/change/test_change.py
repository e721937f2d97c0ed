"""The whole of `change`, on simulated scenes with planted truth and on real ones."""

import datetime
import json
from dataclasses import dataclass, replace

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from warte.core.errors import InputError, SettingsError
from warte.earth.change import ChangeSettings, change
from warte.earth.change.kinds import EBB, FLOOD, LOSS
from warte.earth.read import read
from warte.earth.scene import Grid, Scene
from warte.earth.simulate import (
    Event,
    GroundSettings,
    SimulateSettings,
    SkySettings,
    landsat_8,
    sentinel_1,
    simulate,
)

FLAT = Grid(96, 96, Affine(10, 0, 500_000, 0, -10, 5_000_000), CRS.from_epsg(32633))


@dataclass(frozen=True)
class Held:
    """A reader of arrays in memory."""

    values: np.ndarray
    seen: np.ndarray

    def read(self, window, bands):
        values = self.values[(list(bands), *window.slices)]
        return values.astype(np.float32), self.seen[window.slices].copy()


def held(name, values, seen=None, bands=("green", "red", "nir"), grid=FLAT, day=None):
    """A scene of an array (bands, rows, columns)."""
    seen = np.ones(values.shape[1:], bool) if seen is None else seen
    return Scene(name, grid, bands, Held(values, seen), "reflectance", day)


def ground(rng, clearing=None):
    """A wood beside a meadow with noise; a clearing where it is True."""
    wood = np.arange(96)[None, :] < 64
    plants = np.where(wood, 0.3, 0.4) * np.ones((96, 96))
    red = np.where(wood, 0.03, 0.05) * np.ones((96, 96))
    if clearing is not None:
        plants, red = np.where(clearing, 0.25, plants), np.where(clearing, 0.2, red)
    picture = np.stack([red + 0.02, red, plants])
    return (picture + rng.normal(0, 0.004, picture.shape)).astype(np.float32)


def clearing():
    where = np.zeros((96, 96), bool)
    where[20:40, 10:35] = True
    return where


def two_dates(rng=None):
    rng = rng or np.random.default_rng(1)
    return [
        held("a_20200701", ground(rng)),
        held("b_20210703", 1.3 * ground(rng, clearing()) + 0.01),
    ]


def kinds_in(folder):
    with rasterio.open(folder / "change.tif") as data:
        return data.read(1)


def test_a_clearing_is_found_named_dated_and_measured(tmp_path):
    found = change(two_dates(), out=tmp_path)
    kinds = kinds_in(tmp_path)
    assert found.method == "steps"
    assert (kinds[clearing()] == LOSS).mean() > 0.98
    assert (kinds[~clearing()] > 0).mean() < 0.002
    table = pd.read_csv(tmp_path / "change.csv")
    row = table[table["kind"] == "vegetation loss"].iloc[0]
    assert (row["date_from"], row["date_to"]) == ("2020-07-01", "2021-07-03")
    assert row["area_ha"] == pytest.approx(row["pixels"] * 0.01)
    regions = geopandas.read_parquet(tmp_path / "regions.parquet")
    assert regions.crs == FLAT.crs
    assert regions["pixels"].sum() == table["pixels"].sum()
    assert regions.geometry.area.sum() / 1e4 == pytest.approx(table["area_ha"].sum())
    centre = regions.iloc[0].geometry.centroid
    assert (centre.x, centre.y) == pytest.approx((500_225, 4_999_700), abs=15)
    with rasterio.open(tmp_path / "change.tif") as data:
        assert data.transform == FLAT.transform
        assert data.nodata == 255
    assert not (tmp_path / "period.tif").exists()


def test_results_do_not_depend_on_the_windows(tmp_path):
    pictures = []
    for tile in (33, 512):
        out = tmp_path / str(tile)
        out.mkdir()
        change(two_dates(), out=out, tile=tile)
        pictures.append(
            [rasterio.open(out / name).read() for name in ("change.tif", "change_score.tif")]
        )
    for one, two in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, two)


def test_no_data_is_never_a_change_and_changes_nothing_else(tmp_path):
    first, second = two_dates()
    seen = np.ones((96, 96), bool)
    seen[50:70] = False
    values = second.reader.values.copy()
    values[:, ~seen] = 55.0
    second = replace(second, reader=Held(values, seen))
    change([first, second], out=tmp_path)
    kinds = kinds_in(tmp_path)
    assert (kinds[~seen] == 255).all()
    assert (kinds[seen] != 255).all()
    assert (kinds[clearing()] == LOSS).mean() > 0.98


def test_dates_that_lie_beside_each_other_are_mended_or_refused(tmp_path):
    rng = np.random.default_rng(3)
    wide = rng.gamma(2, 0.05, (3, 110, 110)).astype(np.float32)
    grid = replace(FLAT, rows=96, columns=96)
    one = held("a_2001", wide[:, 7:103, 7:103], grid=grid)
    two = held("b_2002", wide[:, 5:101, 8:104], grid=grid)
    found = change([one, two], out=tmp_path)
    assert found.shifts[1] == pytest.approx((2, -1), abs=0.02)
    assert found.share < 0.01
    far = held("c_2002", wide[:, 2:98, 8:104], grid=grid)
    with pytest.raises(InputError, match=r"5\.\d pixels beside a_2001.*at most 3"):
        change([one, far], out=tmp_path)


def test_haze_of_one_date_is_no_change_and_a_clearing_between_four_has_its_interval(tmp_path):
    rng = np.random.default_rng(4)
    series = [ground(rng), ground(rng), ground(rng, clearing()), ground(rng, clearing())]
    series[1][:, 60:80, 60:80] += 0.08
    found = change([held(f"s_{1990 + 5 * n}", part) for n, part in enumerate(series)], out=tmp_path)
    kinds = kinds_in(tmp_path)
    assert (kinds[clearing()] == LOSS).mean() > 0.98
    assert (kinds[62:78, 62:78] > 0).mean() < 0.02
    table = pd.read_csv(tmp_path / "change.csv").query("kind == 'vegetation loss'")
    assert table["pixels"].idxmax() == table.query("date_from == '1995-07-01'").index[0]
    assert table["date_to"].loc[table["pixels"].idxmax()] == "2000-07-01"
    assert found.dates[0] == "1990-07-01"


def test_simulated_changes_of_the_ground_are_found(tmp_path):
    settings = SimulateSettings(
        ground=GroundSettings(width_m=2880, height_m=2880, forest=0.5),
        sensors=(landsat_8(),),
        dates=("2020-07-05", "2022-07-06"),
        sky=SkySettings(cover=(0.0, 0.0), cirrus=0.0),
        events=(Event("deforestation", "2021-05-01", 0.4, 0.4, 500),),
    )
    scenes, truth = simulate(settings, np.random.default_rng(5))
    change(scenes, out=tmp_path)
    kinds, real = kinds_in(tmp_path), truth.changes()[0] == 1
    assert (kinds[real] == LOSS).mean() > 0.9
    assert (kinds[~real] > 0).mean() < 0.02


def test_a_flood_is_found_by_radar_and_calm_water_is_none(tmp_path):
    settings = SimulateSettings(
        ground=GroundSettings(width_m=1920, height_m=1920),
        sensors=(sentinel_1(),),
        dates=("2024-05-03", "2024-05-15"),
        events=(Event("flood", "2024-05-12", radius_m=250.0),),
    )
    scenes, truth = simulate(settings, np.random.default_rng(6))
    assert change(scenes, out=tmp_path).method == "radar"
    kinds, real = kinds_in(tmp_path), truth.changes()[0] == 2
    assert (kinds[real] == FLOOD).mean() > 0.9
    assert np.isin(kinds[~real], (FLOOD, EBB)).mean() < 0.01


def test_a_series_with_a_season_shows_when_the_wood_was_cut(tmp_path):
    rng = np.random.default_rng(7)
    start = datetime.datetime(2019, 1, 5, tzinfo=datetime.UTC)
    days = [start + datetime.timedelta(days=16 * n) for n in range(60)]
    cut = datetime.datetime(2020, 9, 10, tzinfo=datetime.UTC)
    scenes = []
    for number, day in enumerate(days):
        season = 0.15 * np.cos(2 * np.pi * (day - start).days / 365.25)
        ndvi = 0.6 - season + rng.normal(0, 0.03, (1, 96, 96))
        if day >= cut:
            ndvi[0, clearing()] -= 0.3
        seen = rng.random((96, 96)) > 0.3
        if number % 9 == 4:
            ndvi[0, 60:80] -= 0.5  # a cloud that no mask marks
        scenes.append(held(f"d{number}", ndvi, seen, ("ndvi",), day=day))
    found = change(scenes, out=tmp_path)
    assert found.method == "season"
    kinds = kinds_in(tmp_path)
    assert (kinds[clearing()] == LOSS).mean() > 0.98
    assert (kinds[~clearing()] > 0).mean() < 0.01
    with rasterio.open(tmp_path / "change_date.tif") as data:
        first, last = data.read()[:, kinds == LOSS]
    true = (cut - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).days
    assert ((first <= true) & (true <= last)).mean() > 0.93
    assert np.median(last - first) < 60


@pytest.mark.parametrize(
    ("scenes", "words"),
    [
        (lambda: two_dates()[:1], "1 scene given"),
        (lambda: [two_dates()[0], called("b_20200701")], "both of 2020-07-01"),
        (lambda: [two_dates()[0], called("b")], "b has no date"),
        (lambda: [two_dates()[0], called("b_2021", ("x", "y", "z"))], "no band in common"),
        (lambda: [two_dates()[0], elsewhere()], "no ground in common"),
        (lambda: [two_dates()[0], coarse()], "do not lie on one grid"),
        (lambda: [two_dates()[0], blind()], "no pixel is seen"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, scenes, words):
    with pytest.raises(InputError, match=words) as caught:
        change(scenes(), out=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def called(name, bands=("green", "red", "nir")):
    return replace(two_dates()[1], name=name, bands=bands)


def elsewhere():
    scene = two_dates()[1]
    return replace(scene, grid=replace(FLAT, transform=Affine(10, 0, 505_000, 0, -10, 5_000_000)))


def coarse():
    scene = two_dates()[1]
    return replace(scene, grid=replace(FLAT, transform=Affine(20, 0, 500_000, 0, -20, 5_000_000)))


def blind():
    scene = two_dates()[1]
    return replace(scene, reader=Held(scene.reader.values, np.zeros((96, 96), bool)))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"false_alarm": 0.0}, "--false-alarm"),
        ({"min_pixels": 0}, "--min-pixels"),
        ({"max_shift": 99.0}, "--max-shift"),
        ({"bands": ("red", "red")}, "--bands"),
        ({"method": "magic"}, "--method"),
        ({"confirm": 0}, "--confirm"),
    ],
)
def test_settings_out_of_range_name_their_flag(settings, flag):
    with pytest.raises(SettingsError, match=flag):
        ChangeSettings(**settings)


def test_bands_that_do_not_fit_and_a_season_of_two_dates_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="names 1 bands, a_20200701 has 3"):
        change(two_dates(), ChangeSettings(bands=("red",)), out=tmp_path)
    with pytest.raises(SettingsError, match="--method season needs 12 dates"):
        change(two_dates(), ChangeSettings(method="season"), out=tmp_path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_ucayali_moved_and_its_lakes_did_not(tmp_path, real_file):
    years = [real_file(f"earth/landsat_series/{year}.tif") for year in (1985, 2015)]
    found = change([read(path) for path in years], out=tmp_path)
    assert found.hectares["water gained"] > 3000
    assert found.hectares["water lost"] > 3000
    kinds = kinds_in(tmp_path)
    assert (kinds[260:370, 0:250] > 0).mean() < 0.05  # closed forest in the south-west
    assert "swir16, nir, red, green" in json.dumps(found.notes)


def test_photographs_whose_grids_lie_apart_by_parts_of_a_pixel(tmp_path, real_file):
    files = [
        real_file(f"earth/naip/m_4709963_se_14_1_{day}.tif") for day in ("20140720", "20170827")
    ]
    found = change([read(path) for path in files], ChangeSettings(breaks=1), out=tmp_path)
    assert np.abs(found.shifts[1]).max() < 0.5
    assert kinds_in(tmp_path).shape == (723, 933)
    assert found.hectares["vegetation loss"] > 20
