"""Simulated scenes: windows, formats, physics against outside truth, and the truth itself."""

import datetime
import json
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import astropy.units as u
import geopandas
import numpy as np
import pytest
import rasterio
from astropy.coordinates import AltAz, EarthLocation, get_sun
from astropy.time import Time
from astropy.utils import iers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from warte.core.data.tiles import Window, windows
from warte.core.errors import SettingsError, WarteError
from warte.earth import presets
from warte.earth.labels import rasterise, read_labels
from warte.earth.read import read
from warte.earth.scene import BANDS, Scene
from warte.earth.simulate import (
    CLASSES,
    CLOUD,
    SHADOW,
    AnomalySettings,
    BorderSettings,
    Event,
    GroundSettings,
    Radar,
    SimulateSettings,
    SkySettings,
    Truth,
    display,
    landsat_7,
    landsat_8,
    sentinel_1,
    sentinel_2,
    simulate,
    simulate_to,
    spectrometer,
    sun_at,
    terrasar_x,
)
from warte.earth.simulate.ground import BROADLEAF, BURNT, MAIZE, RAPESEED, WATER, WHEAT
from warte.earth.simulate.noise import by_pixel, smooth
from warte.earth.simulate.optical import axes, clouds
from warte.earth.simulate.scene import sky_of
from warte.earth.simulate.spectra import MATERIALS, band_table, reflectance

SMALL = GroundSettings(width_m=1600.0, height_m=1200.0, towns=1.0)
CLEAR = presets.CLEAR_SKY


def made(choice: SimulateSettings, seed: int = 1) -> tuple[tuple[Scene, ...], Truth]:
    return simulate(choice, np.random.default_rng(seed))


def many() -> SimulateSettings:
    """Every kind of sensor and everything that can happen, small."""
    return SimulateSettings(
        ground=replace(SMALL, width_m=900.0, height_m=800.0, relief_m=40.0),
        sensors=(sentinel_2(), landsat_7(), sentinel_1(), display()),
        dates=("2024-05-01", "2024-08-01"),
        sky=SkySettings(cover=(0.3, 0.4), cirrus=1.0),
        events=(Event("burn", "2024-06-01", 0.3, 0.3, 200.0),),
        anomalies=AnomalySettings(5),
        border=BorderSettings(10.0),
        detail=2,
    )


def test_same_seed_same_picture_and_another_seed_another_one() -> None:
    one, two, other = (made(many(), seed)[0][0].read().values for seed in (1, 1, 2))
    assert np.array_equal(one, two, equal_nan=True)
    assert not np.array_equal(one, other, equal_nan=True)


@cache
def whole(index: int) -> tuple[np.ndarray, ...]:
    scenes, truth = made(many())
    parts = (truth.classes, truth.clouds, truth.anomalies, truth.parcels)
    return scenes[index].read().values, *(part(None, index) for part in parts)


@settings(max_examples=15)
@given(
    row=st.integers(0, 60), column=st.integers(0, 70), rows=st.integers(1, 20),
    columns=st.integers(1, 20), index=st.integers(0, 7),
)  # fmt: skip
def test_a_window_is_the_same_alone_as_in_the_whole(
    row: int, column: int, rows: int, columns: int, index: int
) -> None:
    scenes, truth = made(many())
    shrink = 3 if index in (2, 3) else 1  # pixels of Landsat are larger
    window = Window(row // shrink, column // shrink, rows // shrink + 1, columns // shrink + 1)
    inside = (..., *window.slices)
    values, *truths = whole(index)
    assert np.array_equal(scenes[index].read(window).values, values[inside], equal_nan=True)
    parts = (truth.classes, truth.clouds, truth.anomalies, truth.parcels)
    for part, expected in zip(parts, truths, strict=True):
        assert np.array_equal(part(window, index), expected[inside])


def test_a_scene_can_be_sent_to_another_process() -> None:
    scene = made(many())[0][0]
    again = pickle.loads(pickle.dumps(scene))
    window = Window(5, 5, 9, 9)
    assert np.array_equal(again.read(window).values, scene.read(window).values, equal_nan=True)


def test_the_sensors_use_the_names_of_bands_that_all_know() -> None:
    for sensor in (sentinel_2(), landsat_7(), landsat_8(), display()):
        assert {band.name for band in sensor.bands} <= set(BANDS)
    assert set(sentinel_1().bands) | set(terrasar_x().bands) <= set(BANDS)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    choice = replace(many(), sensors=(sentinel_2(), sentinel_1(), display()))
    written = simulate_to(tmp_path, choice, 5)
    scenes, truth = made(choice, 5)
    assert written.scenes == tuple(scene.name for scene in scenes)
    for index, scene in enumerate(scenes):
        found, drawn = read(tmp_path / "scenes" / f"{scene.name}.tif"), scene.read()
        assert found.bands == scene.bands
        assert found.time == scene.time
        assert (found.sensor, found.grid) == (scene.sensor, scene.grid)
        pixels = found.read()
        assert np.array_equal(pixels.valid, drawn.valid)
        assert np.allclose(pixels.values, drawn.values, atol=1e-6, equal_nan=True)
        place = tmp_path / "truth" / scene.name
        with rasterio.open(place / "classes.tif") as file:
            assert np.array_equal(file.read(1), truth.classes(index=index))
        with rasterio.open(place / "anomalies.tif") as file:
            assert np.array_equal(file.read(1), truth.anomalies(index=index))
        assert (place / "clouds.tif").exists() == (scene.sensor != "sentinel-1")
    with rasterio.open(tmp_path / "truth" / "changes.tif") as file:
        assert np.array_equal(file.read(1), truth.changes()[0])
    with rasterio.open(tmp_path / "truth" / "change_date.tif") as file:
        assert np.array_equal(file.read(1), truth.changes()[1])
    facts = json.loads((tmp_path / "truth" / "truth.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in facts["scenes"]] == list(written.scenes)


def test_fill_that_no_tag_names_is_found_when_read(tmp_path: Path) -> None:
    choice = replace(presets.coast(), ground=replace(SMALL, sea=0.3))
    simulate_to(tmp_path, choice, 2)
    scene = made(choice, 2)[0][0]
    path = tmp_path / "scenes" / f"{scene.name}.tif"
    with rasterio.open(path) as file:
        assert file.nodata is None
        assert (file.read()[:, ~scene.read().valid] == 255).all()
    assert np.array_equal(read(path).read().valid, scene.read().valid)


def test_labelled_polygons_hold_one_class_each(tmp_path: Path) -> None:
    choice = SimulateSettings(ground=SMALL, sky=CLEAR)
    simulate_to(tmp_path, choice, 4)
    scenes, truth = made(choice, 4)
    labels = read_labels(tmp_path / "truth" / "fields.gpkg")
    index, _ = rasterise(labels, scenes[0].grid, scenes[0].grid.whole)
    true = np.vectorize(CLASSES.get)(truth.classes())
    known = index >= 0
    assert known.mean() > 0.3
    assert np.array_equal(np.array(labels.classes)[index[known]], true[known])
    parts = [
        geopandas.read_file(tmp_path / "truth" / f"fields_{name}.gpkg")
        for name in ("train", "test")
    ]
    assert not set(parts[0]["block"]) & set(parts[1]["block"])
    assert sum(map(len, parts)) == len(labels.shapes)


# Spectra


def test_reflectances_lie_between_0_and_1_and_leaves_have_a_red_edge() -> None:
    place = np.arange(400.0, 2501.0)
    for material in MATERIALS:
        values = reflectance(material, place)
        assert np.isfinite(values).all()
        assert 0 <= values.min() <= values.max() <= 1
    for leaf in ("leaf", "broadleaf", "needle", "grass"):
        assert reflectance(leaf, 800.0) > 5 * reflectance(leaf, 670.0)
        assert reflectance(leaf, 550.0) > reflectance(leaf, 670.0)
    assert reflectance("snow", 1600.0) < 0.2 < 0.8 < reflectance("snow", 600.0)
    assert reflectance("cloud", 1600.0) > 0.5


def test_a_narrow_band_sees_the_reflectance_there() -> None:
    place = np.linspace(420.0, 2400.0, 60)
    table = band_table(tuple((float(centre), 2.0) for centre in place))
    for row, material in enumerate(MATERIALS):
        assert np.allclose(table[row], reflectance(material, place), atol=2e-3)


def test_clear_pictures_hold_plausible_reflectances() -> None:
    scenes, truth = made(replace(presets.fields(), ground=SMALL, sky=CLEAR))
    values, kind = scenes[0].read().values, truth.classes()
    assert values.min() > -0.02
    assert values.max() < 0.8
    nir, red = (values[scenes[0].bands.index(name)] for name in ("nir", "red"))
    index = (nir - red) / (nir + red)
    assert np.median(index[kind == BROADLEAF]) > 0.7
    assert np.median(index[kind == WATER]) < 0.2


def test_one_ground_looks_alike_to_two_sensors() -> None:
    choice = SimulateSettings(
        ground=SMALL, sensors=(sentinel_2(), landsat_7()), sky=CLEAR, detail=2
    )
    (fine, coarse), _ = made(choice)
    nir = fine.read(bands=("nir",)).values[0]
    rows, columns = coarse.grid.shape
    mean = nir[: rows * 3, : columns * 3].reshape(rows, 3, columns, 3).mean(axis=(1, 3))
    other = coarse.read(bands=("nir",)).values[0]
    assert np.corrcoef(mean.ravel(), other.ravel())[0, 1] > 0.95
    assert abs(np.median(mean - other)) < 0.02


def test_the_noise_is_that_of_the_sensor() -> None:
    still = replace(SMALL, spread=0.0, lakes=1.0, river_m=0.0, wetland=0.0, towns=0.0)
    noisy = replace(display(), dtype="float32", scale=1.0, pixel_m=10.0, nodata=None)
    values = made(SimulateSettings(ground=still, sensors=(noisy,), sky=CLEAR))[0][0].read().values
    for band, about in zip(values, noisy.bands, strict=True):
        expected = np.sqrt(about.noise**2 + noisy.shot**2 * band.mean())
        # Differences of neighbours leave out what changes slowly.
        seen = np.diff(band, axis=1).std() / np.sqrt(2)
        assert seen == pytest.approx(expected, rel=0.05)


# Radar


def test_speckle_follows_the_gamma_law() -> None:
    still = replace(SMALL, spread=0.0, lakes=1.0, river_m=0.0, wetland=0.0, towns=0.0)
    for looks in (1.0, 4.4):
        radar = Radar("test", ("vv",), looks=looks, floor_db=-90.0, incidence_deg=(38.0, 38.0))
        scene = made(SimulateSettings(ground=still, sensors=(radar,)))[0][0]
        power = 10 ** (scene.read().values[0].astype(np.float64) / 10)
        assert power.mean() == pytest.approx(10 ** (-19.5 / 10), rel=0.02)
        assert power.mean() ** 2 / power.var() == pytest.approx(looks, rel=0.05)
        shape = stats.kstest(power.ravel() / 10**-1.95, stats.gamma(looks, scale=1 / looks).cdf)
        assert shape.pvalue > 0.01
        turned = power - power.mean()
        assert abs((turned[:, 1:] * turned[:, :-1]).mean() / power.var()) < 0.02


def test_a_flood_is_dark_to_a_radar_and_goes_again() -> None:
    choice = replace(
        presets.flood(), dates=("2024-05-03", "2024-05-15", "2024-07-01"),
        ground=replace(SMALL, river_m=120.0),
    )  # fmt: skip
    scenes, truth = made(choice)
    kind, _ = truth.changes()
    drowned = kind == 2
    before, during, after = (scene.read(bands=("vv",)).values[0] for scene in scenes)
    assert drowned.mean() > 0.02
    assert np.median((during - before)[drowned]) < -4
    assert abs(np.median((after - before)[drowned])) < 1
    assert abs(np.median((during - before)[kind == 0])) < 0.5


# Sky


def test_the_sun_stands_where_astropy_says() -> None:
    iers.conf.auto_download = False
    for month, hour, longitude, latitude in ((1, 9, 15, 50), (6, 11, -60, -20), (10, 15, 0, 65)):
        time = datetime.datetime(2024, month, 12, hour, 20, tzinfo=datetime.UTC)
        place = EarthLocation(lon=longitude * u.deg, lat=latitude * u.deg)
        when = Time(time.replace(tzinfo=None))
        expected = get_sun(when).transform_to(AltAz(obstime=when, location=place))
        sun = sun_at(time, longitude, latitude)
        assert sun.elevation_deg == pytest.approx(expected.alt.deg, abs=0.03)
        assert (sun.azimuth_deg - expected.az.deg + 180) % 360 - 180 == pytest.approx(0, abs=0.05)


def test_shadows_lie_away_from_the_sun_as_far_as_the_height_says() -> None:
    choice = SimulateSettings(
        ground=replace(SMALL, width_m=5000.0, height_m=5000.0),
        sky=SkySettings(cover=(0.2, 0.2), cirrus=0.0, height_m=(1500.0, 1500.0)),
    )
    _, truth = made(choice)
    sky = sky_of(choice, truth.seed, 0)
    x, y = axes(Window(0, 0, 500, 500), 10.0)
    found = clouds(sky, x, y)
    reach = 1500.0 / np.tan(np.radians(sky.sun.elevation_deg))
    # A shadow lies opposite to the sun: rows grow to the south, columns to the east.
    right = -reach * np.sin(np.radians(sky.sun.azimuth_deg)) / 10
    down = reach * np.cos(np.radians(sky.sun.azimuth_deg)) / 10
    cloud, dark = found == CLOUD, found != 1
    moved = np.roll(cloud, (round(down), round(right)), (0, 1))[150:350, 150:350]
    assert moved.sum() > 500
    assert dark[150:350, 150:350][moved].mean() > 0.97
    assert (found == SHADOW).sum() > 500


def test_clouds_cover_as_much_as_asked_and_are_bright() -> None:
    choice = SimulateSettings(sky=SkySettings(cover=(0.4, 0.4), cirrus=0.0))
    scenes, truth = made(choice)
    sky = truth.clouds()
    assert (sky == CLOUD).mean() == pytest.approx(0.4, abs=0.06)
    blue = scenes[0].read(bands=("blue",)).values[0]
    assert np.median(blue[sky == CLOUD]) > 0.4
    assert np.median(blue[sky == SHADOW]) < np.median(blue[sky == 1])


# Seasons, changes, anomalies


def test_crops_are_green_when_they_are_in_the_field() -> None:
    choice = SimulateSettings(
        ground=replace(SMALL, forest=0.0),
        dates=("2024-04-20", "2024-06-05", "2024-08-15"),
        sky=CLEAR,
    )
    scenes, truth = made(choice)
    kind, index = truth.classes(), {}
    for month, scene in zip((4, 6, 8), scenes, strict=True):
        nir, red = scene.read(bands=("nir", "red")).values
        for crop in (WHEAT, MAIZE):
            index[crop, month] = np.median(((nir - red) / (nir + red))[kind == crop])
    assert index[WHEAT, 6] > index[WHEAT, 8] + 0.4
    assert index[MAIZE, 8] > index[MAIZE, 4] + 0.4


def test_rapeseed_is_yellow_in_may_only() -> None:
    choice = SimulateSettings(ground=SMALL, dates=("2024-05-03", "2024-06-15"), sky=CLEAR)
    scenes, truth = made(choice)
    yellow = []
    for scene in scenes:
        blue, green, red = scene.read(bands=("blue", "green", "red")).values
        yellow.append(np.median(((green + red) / blue)[truth.classes() == RAPESEED]))
    assert yellow[0] > 1.25 * yellow[1]


def test_what_changes_is_what_the_truth_says() -> None:
    events = (
        Event("deforestation", "2024-05-10", 0.3, 0.3, 300.0),
        Event("burn", "2024-06-10", 0.7, 0.6, 250.0),
        Event("building", "2024-07-10", 0.5, 0.8, 120.0),
    )
    choice = SimulateSettings(
        ground=replace(SMALL, forest=0.6), events=events, sky=CLEAR,
        dates=("2024-05-01", "2024-06-20", "2024-09-01"),
    )  # fmt: skip
    _, truth = made(choice)
    kind, day = truth.changes()
    before, middle, after = (truth.classes(index=index) for index in range(3))
    assert np.array_equal((before != after) & (kind == 0), np.zeros(kind.shape, bool))
    for number, event in enumerate(events):
        code = {"deforestation": 1, "burn": 3, "building": 4}[event.kind]
        where = kind == code
        assert where.sum() > 50
        when = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day[where][0]))
        assert when.isoformat() == event.date
        assert (day[where] == day[where][0]).all(), number
    assert (middle[kind == 3] == BURNT).all()
    assert (middle[kind == 4] == before[kind == 4]).mean() > 0.9
    assert (day[kind == 0] == -1).all()


def test_events_without_a_place_find_one() -> None:
    for seed in range(4):
        kind, _ = made(presets.series(), seed)[1].changes()
        assert np.bincount(kind.ravel(), minlength=5).min() > 100


def test_anomalies_are_where_the_truth_says_and_look_odd() -> None:
    choice = replace(
        presets.hyperspectral(), sensors=(spectrometer(30),),
        anomalies=AnomalySettings(15, (8.0, 14.0)),
    )  # fmt: skip
    scenes, truth = made(choice)
    found = truth.anomalies() == 1
    area = sum(thing.length_m * thing.width_m for thing in truth.ground.things) / 4.0**2
    assert 0.8 * area < found.sum() < 2.2 * area
    values = scenes[0].read().values.astype(np.float64)
    without = made(replace(choice, anomalies=AnomalySettings()))[0][0].read().values
    away = np.abs(values - without).max(axis=0)
    assert np.median(away[found]) > 0.05
    # Sharpness spreads a thing over its neighbours, no further.
    far = ~found
    for axis in (0, 1):
        far &= ~(np.roll(found, 2, axis) | np.roll(found, -2, axis) | np.roll(found, 1, axis))
    assert np.median(away[far]) < 1e-3


# The ground under it all


def test_smooth_fields_have_mean_0_and_variance_1() -> None:
    x = np.arange(0.0, 40_000.0, 100.0)
    values = np.stack([smooth(seed, x, x, 800.0, 3) for seed in range(4)])
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1.0, abs=0.05)


def test_noise_of_pixels_does_not_depend_on_the_window() -> None:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return rng.standard_normal(shape)

    whole = by_pixel(3, Window(-40, -30, 700, 600), draw)
    for window in windows(660, 570, 131):
        part = whole[40:, 30:][window.slices]
        assert np.array_equal(by_pixel(3, window, draw), part)
    assert stats.kstest(whole.ravel(), stats.norm.cdf).pvalue > 0.01


def test_a_window_of_a_vast_scene_takes_no_longer_than_one_of_a_small() -> None:
    scene = made(presets.large(100_000))[0][0]
    pixels = scene.read(Window(54_321, 45_678, 16, 16))
    assert pixels.valid.all()


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: GroundSettings(forest=1.5), "--forest"),
        (lambda: GroundSettings(meadow=0.7, bare=0.5), "--meadow"),
        (lambda: GroundSettings(field_m=(300.0, 100.0)), "--field-m"),
        (lambda: SkySettings(cover=(0.5, 0.2)), "--cover"),
        (lambda: SkySettings(height_m=(0.0, 100.0)), "--height-m"),
        (lambda: Event("quake", "2024-01-01"), "--event"),  # type: ignore[arg-type]
        (lambda: Event("burn", "last May"), "--dates"),
        (lambda: AnomalySettings(-1), "--anomalies"),
        (lambda: BorderSettings(80.0), "--angle-deg"),
        (lambda: SimulateSettings(dates=()), "--dates"),
        (lambda: SimulateSettings(detail=0), "--detail"),
        (lambda: Radar("x", looks=0.5), "--looks"),
        (lambda: replace(sentinel_2(), pixel_m=0.0), "--pixel-m"),
    ],
)
def test_settings_out_of_range_name_the_flag(make: object, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag) as problem:
        make()  # type: ignore[operator]
    assert "\n" not in str(problem.value)


def test_an_optical_picture_at_night_is_refused() -> None:
    scenes, _ = made(SimulateSettings(ground=SMALL, dates=("2024-06-15T23:00",)))
    with pytest.raises(WarteError, match="sun stands") as problem:
        scenes[0].read()
    assert "\n" not in str(problem.value)


def test_a_spectrometer_leaves_out_water_vapour() -> None:
    centres = np.array([band.centre_nm for band in spectrometer().bands])
    assert len(centres) == 150
    assert np.all(np.diff(centres) > 0)
    assert not ((centres > 1345) & (centres < 1455)).any()


def test_every_preset_draws() -> None:
    for name in ("fields", "coast", "city", "clouds", "radar", "series", "flood", "hyperspectral"):
        scenes, _ = made(getattr(presets, name)())
        middle = Window(scenes[-1].grid.rows // 2, scenes[-1].grid.columns // 2, 8, 8)
        assert scenes[-1].read(middle).valid.all(), name
