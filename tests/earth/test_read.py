"""Scenes from files: what each product's numbers mean, and one line for whatever is wrong."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import scipy.io
import xarray
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage

from tests.earth import products
from tests.earth.products import CORNER, UTM, write_picture
from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError, SettingsError, WarteError
from warte.earth.read import read, read_many
from warte.earth.read.fill import find_fill
from warte.earth.read.names import band_name, sensor_of, time_of
from warte.earth.scene import Grid, Scene

RealFile = Callable[[str], Path]
RNG = np.random.default_rng(3)


def _says(words: str, call: Callable[[], object]) -> None:
    """The call ends with an InputError of one line that says this."""
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def _numbers(*shape: int) -> np.ndarray:
    return RNG.integers(1000, 9000, shape).astype(np.uint16)


# Pictures ---------------------------------------------------------------------------------------


def test_a_folder_of_one_scene_has_one_name(tmp_path: Path) -> None:
    for band in ("B02", "B03"):
        write_picture(tmp_path / f"coast/S2B_20181013_{band}.tif", _numbers(9, 9))
    (scene,) = read_many(tmp_path / "coast")
    assert scene.name == read(tmp_path / "coast").name == "coast"
    assert scene.bands == ("blue", "green")


def test_a_picture_as_another_program_reads_it(tmp_path: Path) -> None:
    numbers = _numbers(3, 70, 90)
    numbers[1, 5, 6] = 7
    path = write_picture(
        tmp_path / "S2A_20240607.tif", numbers, nodata=7, tiled=True, blockxsize=32, blockysize=32,
        descriptions=("B2", "B8A", "odd"),
    )  # fmt: skip
    scene = read(path)
    assert scene.bands == ("blue", "nir08", "odd")
    assert scene.grid == Grid(70, 90, Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), UTM)
    assert scene.sensor == "sentinel-2" and scene.time is not None and scene.time.day == 7
    again = pickle.loads(pickle.dumps(scene))
    for window in windows(70, 90, 40):
        pixels = again.read(window, ["odd", "blue", "nir08"])
        expected = numbers[[2, 0, 1]][(slice(None), *window.slices)].astype(float)
        valid = expected[2] != 7
        assert np.array_equal(pixels.valid, valid)
        assert np.array_equal(pixels.values[:, valid], expected[:, valid])
        assert np.isnan(pixels.values[:, ~valid]).all()


def test_scale_offset_masks_and_transparency(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.tif", _numbers(2, 20, 20))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5, 1.0), (-3.0, 0.0)
        mask = np.full((20, 20), 255, np.uint8)
        mask[4:6] = 0
        file.write_mask(mask)
        numbers = file.read()
    pixels = read(path).read()
    assert np.array_equal(pixels.valid, mask > 0)
    assert np.array_equal(pixels.values[0, 6:], numbers[0, 6:] * 0.5 - 3)
    assert np.array_equal(pixels.values[1, 6:], numbers[1, 6:])
    colours = np.full((4, 20, 20), 9, np.uint8)
    colours[3, :, :10] = 0
    path = write_picture(tmp_path / "b.tif", colours, photometric="RGB", alpha="YES")
    scene = read(path)
    assert scene.bands == ("red", "green", "blue")
    assert np.array_equal(scene.read().valid, colours[3] > 0)


def test_files_of_bands_and_resolutions(tmp_path: Path) -> None:
    fine, coarse = _numbers(40, 40), np.full((20, 20), 500, np.uint16)
    write_picture(tmp_path / "s/S2A_B02.tif", fine)
    write_picture(tmp_path / "s/S2A_B11.tif", coarse, 20.0)
    scene = read(tmp_path / "s")
    assert scene.bands == ("blue", "swir16") and scene.grid.shape == (40, 40)
    assert scene.notes == ("swir16 is resampled from 20 m to 10 m (bilinear)",)
    values = scene.read().values
    assert np.array_equal(values[0], fine) and np.all(values[1] == 500)
    alone = read(tmp_path / "s", bands=["swir16"])
    assert alone.grid.shape == (20, 20) and alone.notes == ()
    listed = read([tmp_path / "s/S2A_B11.tif", tmp_path / "s/S2A_B02.tif"], grid=alone.grid)
    assert listed.bands == ("swir16", "blue") and listed.grid == alone.grid
    mean = listed.read(bands=["blue"]).values[0]
    assert abs(mean.mean() - fine.mean()) < 100
    # windows of a resampled band fit together
    parts = np.zeros((40, 40), np.float32)
    for window in windows(40, 40, 13):
        parts[window.slices] = scene.read(window, ["swir16"]).values[0]
    assert np.array_equal(parts, values[1])


@pytest.mark.parametrize("prefix", ["", "S2A_"])
@pytest.mark.parametrize(
    ("rows", "step", "words"),
    [
        (38, 10.0, "40 x 40 and 38 x 40 pixels"),
        (40, 11.0, "different places or pixel sizes"),
        (20, 20.0, "40 x 40 and 20 x 40 pixels"),  # other ground, too
    ],
)
@pytest.mark.parametrize("band", ["B03", "B11"])
def test_bands_of_another_size_are_no_scene(
    tmp_path: Path, prefix: str, band: str, rows: int, step: float, words: str
) -> None:
    write_picture(tmp_path / f"s/{prefix}B02.tif", _numbers(40, 40))
    write_picture(tmp_path / f"s/{prefix}{band}.tif", _numbers(rows, 40), step)
    _says(f"do not lie on one grid: {words}", lambda: read(tmp_path / "s"))
    assert read(tmp_path / "s", bands=[read(tmp_path / "s" / f"{prefix}B02.tif").bands[0]]).read()
    (tmp_path / f"s/{prefix}{band}.tif").unlink()
    assert read(tmp_path / "s").grid.shape == (40, 40)


def test_bands_of_other_resolutions_by_name(tmp_path: Path) -> None:
    """Those of the same resolution have to agree, unless their names say otherwise."""
    write_picture(tmp_path / "a/S2A_B02.tif", _numbers(40, 40))
    write_picture(tmp_path / "a/S2A_B03.tif", _numbers(20, 20), 20.0)
    _says("bands blue and green do not lie on one grid", lambda: read(tmp_path / "a"))
    write_picture(tmp_path / "b/S2A_B02_10m.tif", _numbers(40, 40))
    write_picture(tmp_path / "b/S2A_B03_20m.tif", _numbers(20, 20), 20.0)
    assert read(tmp_path / "b").notes == ("green is resampled from 20 m to 10 m (bilinear)",)
    write_picture(tmp_path / "c/my_B02.tif", _numbers(40, 40))
    write_picture(tmp_path / "c/my_B11.tif", _numbers(20, 20), 20.0)
    _says("bands B02 and B11 do not lie on one grid", lambda: read(tmp_path / "c"))


def test_a_quality_band_beside_bands(tmp_path: Path) -> None:
    classes = np.full((9, 9), 4, np.uint8)
    classes[2, 3] = 9
    write_picture(tmp_path / "s/S2A_B04.tif", _numbers(9, 9))
    write_picture(tmp_path / "s/S2A_SCL.tif", classes)
    scene = read(tmp_path / "s")
    assert scene.bands == ("red",) and "S2A_SCL.tif" in scene.notes[0]
    assert np.argwhere(~scene.read().valid).tolist() == [[2, 3]]
    assert read(tmp_path / "s", quality=False).read().valid.all()
    flags = np.where(classes == 9, 22280, 21824).astype(np.uint16)
    write_picture(tmp_path / "l/LC08_X_SR_B4.TIF", _numbers(9, 9))
    write_picture(tmp_path / "l/LC08_X_QA_PIXEL.TIF", flags)
    assert np.argwhere(~read(tmp_path / "l").read().valid).tolist() == [[2, 3]]


def test_threads_read_what_one_reads(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.tif", _numbers(3, 200, 210), compress="deflate", tiled=True,
                         blockxsize=64, blockysize=64)  # fmt: skip
    scene = read(path)
    places = list(windows(200, 210, 32)) * 3
    whole = scene.read().values
    with ThreadPoolExecutor(4) as pool:
        for window, pixels in zip(places, pool.map(scene.read, places), strict=True):
            assert np.array_equal(pixels.values, whole[(slice(None), *window.slices)])


def test_many_scenes(tmp_path: Path) -> None:
    for year in (1985, 1995):
        write_picture(tmp_path / f"all/{year}.tif", _numbers(2, 9, 9))
    for band in ("B02", "B03"):
        write_picture(tmp_path / f"all/S2A_20200101_{band}.tif", _numbers(9, 9))
    products.sentinel2(tmp_path / "all", {"04": (10, _numbers(9, 9))})
    (tmp_path / "all/notes.txt").write_text("nothing")
    scenes = read_many(tmp_path / "all")
    assert [scene.bands for scene in scenes] == [
        ("blue", "green"), ("band_1", "band_2"), ("band_1", "band_2"), ("red",)
    ]  # fmt: skip
    years = [scene.time.year for scene in scenes[1:3] if scene.time]
    assert years == [1985, 1995]
    assert len(read_many(f"{tmp_path}/all/19*.tif")) == 2
    _says("no file is named", lambda: read_many(f"{tmp_path}/all/18*.tif"))
    _says("1985.tif is not named by a band", lambda: read(tmp_path / "all"))


@pytest.mark.parametrize(
    ("text", "sensor", "name"),
    [
        ("S2B_L1C_20181013_B01", "sentinel-2", "coastal"),
        ("B8A", "sentinel-2", "nir08"),
        ("band 7 reflectance", "landsat-7", "swir22"),
        ("LC08_L2SP_190027_20240607_02_T1_SR_B5", "landsat-8", "nir"),
        ("scene_B4", "", "B04"),
        ("VV", "", "vv"),
        ("my_red_edge", "", "red"),
        ("borders", "sentinel-2", None),
    ],
)
def test_names_of_bands(text: str, sensor: str, name: str | None) -> None:
    assert band_name(text, sensor) == name


def test_sensors_and_times() -> None:
    names = {
        "S2B_MSIL1C_x": "sentinel-2", "LE70220491999322EDC01": "landsat-7", "US2_map": "",
        "LC08_L1TP": "landsat-8", "S1A_IW": "sentinel-1", "TDX1_SAR__MGD": "tandem-x",
    }  # fmt: skip
    assert {name: sensor_of(name) for name in names} == names
    times = [
        time_of(text) for text in ("a_20200518T101112_b", "LE70220491999322EDC01", "1985", "7")
    ]
    assert [time and time.strftime("%Y%m%dT%H%M%S") for time in times] == [
        "20200518T101112", "19991118T000000", "19850702T000000", None
    ]  # fmt: skip


# Fill -------------------------------------------------------------------------------------------


def test_fill_of_the_real_scene(real_file: RealFile) -> None:
    paths = [real_file(f"earth/s2_outerbanks/S2B_L1C_20181013_B{n:02}.tiff") for n in range(1, 9)]
    scene = read(paths[0].parent)
    valid = scene.read(bands=["blue"]).valid
    assert (~valid).sum() == 1_821_490  # as counted in SOURCES.md
    assert "1,821,490 pixels (31.5%) hold 255" in scene.notes[0]
    with rasterio.open(paths[0]) as first:
        assert np.array_equal(valid, first.read(1) != 255)
    assert read(paths[0].parent, fill="none").read(Window(0, 0, 9, 9)).valid.all()
    assert not read(paths[0].parent, fill=255).read(Window(0, 0, 9, 9)).valid.any()
    with pytest.raises(SettingsError, match="--fill"):
        read(paths[0].parent, fill="zero")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "fill"),
    [
        ("landsat8/LC08_L1TP_224077_20200518_B2_60m.tif", 18_366),  # zeros, all at the border
        ("landsat7/LE70220491999322EDC01_stack.tif", 0),
        ("naip/m_4709963_se_14_1_20170827.tif", 0),
        ("sen1floods11/Spain_7370579_S2Hand.tif", 0),
    ],
)
def test_fill_of_real_pictures(real_file: RealFile, name: str, fill: int) -> None:
    scene = read(real_file(f"earth/{name}"))
    assert (~scene.read().valid).sum() == fill


def _fill_of(values: np.ndarray, strip_px: int = 1000, block_rows: int = 1) -> np.ndarray:
    bands, rows, columns = values.shape
    grid = Grid(rows, columns, Affine.identity(), None)
    found = find_fill(
        lambda w, b: values[(b, *w.slices)], grid, bands, block_rows=block_rows, strip_px=strip_px
    )
    if found is None:
        return np.zeros((rows, columns), bool)
    mask = found.runs.mask(grid.whole)
    assert found.pixels == mask.sum()
    for window in windows(rows, columns, 17):
        assert np.array_equal(found.runs.mask(window), mask[window.slices])
    return mask


def _land(bands: int = 3, top: int = 240) -> np.ndarray:
    smooth = np.add.outer(np.sin(np.arange(80) / 9), np.cos(np.arange(100) / 7))
    noise = RNG.normal(0, 0.1, (bands, 80, 100))
    return np.clip((smooth + noise + 2) / 4 * top, 1, 254).astype(np.uint8)


def test_fill_is_what_reaches_the_border() -> None:
    values = _land()
    fill = np.add.outer(np.arange(80), -np.arange(100)) > 20
    fill[70, 5] = False
    values[:, fill] = 255
    values[:, 10:20, 60:75] = 255  # saturated inside, far from the fill
    expected = fill.copy()
    assert np.array_equal(_fill_of(values), expected)


def test_saturation_at_the_border_is_no_fill() -> None:
    """Bands saturate one after the other towards the middle of a bright cloud."""
    values = _land().astype(float)
    far = np.hypot(*np.meshgrid(np.arange(100) - 50, np.arange(80)))
    for band, width in enumerate((30, 26, 22)):
        values[band] += 300 * np.exp(-((far / width) ** 2))
    values = np.clip(values, 0, 255).astype(np.uint8)
    assert (values == 255).all(axis=0).sum() > 300
    assert not _fill_of(values).any()


def test_dark_water_of_one_band_is_no_fill() -> None:
    values = np.clip(np.arange(80)[:, None] - 30 + RNG.normal(0, 2, (80, 100)), 0, 255)
    assert (values < 1).mean() > 0.3
    assert not _fill_of(values.astype(np.uint8)[None]).any()


def test_a_picture_that_is_all_fill() -> None:
    assert _fill_of(np.zeros((2, 30, 40), np.uint16)).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), strip=st.integers(1, 9000), block=st.integers(1, 70),
       bands=st.integers(1, 3))  # fmt: skip
def test_fill_does_not_depend_on_strips(seed: int, strip: int, block: int, bands: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 255, (bands, 60, 70)).astype(np.uint8)
    blob = rng.random((60, 70)) < np.linspace(1.3, 0, 70)
    values[:, blob] = 0
    assert np.array_equal(_fill_of(values, strip, block), _fill_of(values, 10**6))
    held = (values == 0).all(axis=0)
    groups = ndimage.label(held, np.ones((3, 3)))[0]
    rim = np.concatenate([groups[0], groups[-1], groups[:, 0], groups[:, -1]])
    # Where one band would do for all, fill is what scipy finds joined to the border.
    if bands == 1:
        rim_fill = np.isin(groups, rim[rim > 0])
        assert np.array_equal(_fill_of(values, strip, block), rim_fill)


# Products ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "offset"), [("1C", -1000), ("1C", None), ("2A", -1000)])
def test_sentinel2(tmp_path: Path, level: str, offset: int | None) -> None:
    red, swir, scl = _numbers(60, 60), np.full((30, 30), 3000), np.full((30, 30), 4)
    red[0, 0], scl[10, 10], scl[20, 20] = 0, 9, 3
    bands = {"04": (10, red), "11": (20, swir)}
    root = products.sentinel2(tmp_path, bands, level=level, offset=offset,
                              scl=scl if level == "2A" else None)  # fmt: skip
    scene = read(root)
    assert (scene.bands, scene.quantity, scene.sensor) == (
        ("red", "swir16"), "reflectance", "sentinel-2",
    )  # fmt: skip
    assert scene.time is not None and scene.time.isoformat() == "2024-06-07T10:05:59.024000+00:00"
    pixels = scene.read()
    bad = np.repeat(np.repeat(np.isin(scl, (3, 9)), 2, axis=0), 2, axis=1) & (level == "2A")
    bad[0, 0] = True
    assert np.array_equal(pixels.valid, ~bad)
    expected = (red.astype(float) + (offset or 0)) / 10000
    assert np.allclose(pixels.values[0][~bad], expected[~bad], rtol=0, atol=1e-7)
    assert np.allclose(pixels.values[1][~bad], (3000 + (offset or 0)) / 10000, rtol=0, atol=1e-7)
    assert (~read(root, quality=False).read().valid).sum() == 1
    assert read(next(root.glob("MTD*.xml"))).bands == scene.bands


@pytest.mark.parametrize("text", [False, True])
def test_landsat(tmp_path: Path, text: bool) -> None:
    red, heat, qa = _numbers(30, 30), np.full((30, 30), 44000), np.full((30, 30), 21824)  # clear
    qa[1, 1], qa[2, 2], qa[3, 3] = 1, 22280, 23888  # fill, cloud, shadow
    root = products.landsat(tmp_path, {"4": red, "10": heat}, qa, text=text)
    scene = read(root)
    assert scene.bands == ("red", "lwir11") and scene.sensor == "landsat-8"
    pixels = scene.read()
    assert np.argwhere(~pixels.valid).tolist() == [[1, 1], [2, 2], [3, 3]]
    # the guide's example: 2.75e-05 * number - 0.2, and 0.00341802 * number + 149
    good = pixels.valid
    assert np.allclose(pixels.values[0][good], red[good] * 2.75e-5 - 0.2, rtol=0, atol=1e-7)
    assert np.allclose(pixels.values[1][good], 299.39288, rtol=0, atol=1e-4)
    assert read(root, quality=False).read().valid.all()


def test_landsat_level_1(tmp_path: Path) -> None:
    red, heat = _numbers(30, 30), np.full((30, 30), 26000)
    bands = {"4": red, "10": heat, "8": red}
    root = products.landsat(tmp_path, bands, np.full((30, 30), 64), level="L1TP")
    assert read(root).bands == ("red", "lwir11")
    assert read(root, bands=["pan"]).bands == ("pan",)
    values = read(root).read().values
    # the sun stands 30 degrees high: half of the light
    assert np.allclose(values[0], (red * 2e-5 - 0.1) / 0.5, rtol=0, atol=1e-6)
    assert np.allclose(values[1], 1329.2405 / math.log(799.0284 / (26000 * 3.8e-4 + 0.1) + 1))
    next(root.glob("*_B4.TIF")).unlink()
    assert read(root).bands == ("lwir11",)
    next(root.glob("*QA_PIXEL*")).unlink()
    _says("lacks", lambda: read(root))


@pytest.mark.parametrize("denoise", [False, True])
def test_sentinel1(tmp_path: Path, denoise: bool) -> None:
    numbers = RNG.integers(100, 400, (120, 150))
    numbers[:, 140:] = 0
    amplitude, noise = (
        np.array([[400.0, 500.0], [600.0, 700.0]]),
        np.array([[900, 700], [800, 600]]),
    )
    root = products.sentinel1(tmp_path, numbers, amplitude, noise)
    scene = read(root, denoise=denoise)
    assert (scene.bands, scene.quantity, scene.sensor) == (("vv",), "sigma0_db", "sentinel-1")
    assert scene.grid.crs == UTM and scene.grid.transform.a == 10
    pixels = scene.read()
    line, sample = np.meshgrid(np.arange(120) / 119, np.arange(150) / 149, indexing="ij")

    def between(corners: np.ndarray) -> np.ndarray:
        top = corners[0, 0] * (1 - sample) + corners[0, 1] * sample
        bottom = corners[1, 0] * (1 - sample) + corners[1, 1] * sample
        return np.asarray(top * (1 - line) + bottom * line)

    power = numbers.astype(float) ** 2 - (between(noise) * (1 + line) if denoise else 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = 10 * np.log10(power / between(amplitude) ** 2)
    # the grid of the product is that of the scene, within the rounding of its corner
    row = round((scene.grid.transform.f - CORNER[1]) / 10)
    column = round((CORNER[0] - scene.grid.transform.c) / 10)
    seen = pixels.values[0, row + 2 : row + 118, column + 2 : column + 138]
    assert np.allclose(seen, expected[2:118, 2:138], rtol=0, atol=2e-3)
    assert not pixels.valid[:, column + 142 :].any()
    parts = np.full(scene.grid.shape, np.nan, np.float32)
    for window in windows(*scene.grid.shape, 50):
        parts[window.slices] = scene.read(window).values[0]
    assert np.array_equal(parts, pixels.values[0], equal_nan=True)


@pytest.mark.parametrize("denoise", [False, True])
def test_terrasar(tmp_path: Path, denoise: bool) -> None:
    numbers = RNG.integers(100, 400, (40, 50))
    numbers[3, 4] = 0
    root = products.terrasar(tmp_path, numbers, factor=1e-5, angles=[[30, 32], [30.4, 32.4]],
                             noise=(500.0, 2e5))  # fmt: skip
    scene = read(root, denoise=denoise)
    assert (scene.bands, scene.quantity, scene.sensor) == (("hh",), "sigma0_db", "tandem-x")
    row, column = np.meshgrid(np.arange(40) / 39, np.arange(50) / 49, indexing="ij")
    power = numbers.astype(float) ** 2 - (500 + 2e5 * column * 0.001 if denoise else 0)
    angle = np.radians(30 + 0.4 * row + 2 * column)
    pixels = scene.read()
    assert np.argwhere(~pixels.valid).tolist() == [[3, 4]]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = 10 * np.log10(1e-5 * power * np.sin(angle))
    assert np.allclose(pixels.values[0][pixels.valid], expected[pixels.valid], rtol=0, atol=1e-4)
    window = Window(7, 9, 20, 30)
    assert np.array_equal(scene.read(window).values, pixels.values[(slice(None), *window.slices)])
    _says("has no band vv", lambda: read(root, bands=["vv"]))
    _says("on its own grid only", lambda: read(root, grid=scene.grid))


def _item(folder: Path, **assets: dict[str, object]) -> Path:
    path = folder / "item.json"
    path.write_text(json.dumps({
        "type": "Feature", "stac_version": "1.0.0", "id": "S2B_33UUP", "geometry": None,
        "properties": {"datetime": "2024-06-07T10:05:59Z", "platform": "sentinel-2b"},
        "links": [], "assets": assets, "stac_extensions": [],
    }))  # fmt: skip
    return path


def test_stac(tmp_path: Path) -> None:
    red, nir, scl = _numbers(40, 40), _numbers(40, 40), np.full((20, 20), 4, np.uint8)
    scl[3, 3] = 8
    for name, numbers, step in (("r", red, 10.0), ("n", nir, 10.0), ("c", scl, 20.0)):
        write_picture(tmp_path / f"data/{name}.tif", numbers, step)
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    near = {"eo:common_name": "nir", "raster:scale": 0.0001, "nodata": int(nir[0, 0])}
    path = _item(
        tmp_path,
        red={"href": "./data/r.tif", "type": kind, "eo:bands": [{"name": "B04"}],
             "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]},
        nir={"href": str(tmp_path / "data/n.tif"), "type": kind,
             "bands": [near]},
        scl={"href": "./data/c.tif", "type": kind},
        visual={"href": "./data/r.tif", "type": kind, "roles": ["visual"]},
        meta={"href": "./MTD.xml", "type": "application/xml"},
    )  # fmt: skip
    scene = read(path)
    assert (scene.bands, scene.quantity, scene.sensor) == (
        ("red", "nir"),
        "reflectance",
        "sentinel-2",
    )
    pixels = scene.read()
    bad = nir == nir[0, 0]
    bad[6:8, 6:8] = True
    assert np.array_equal(pixels.valid, ~bad)
    assert np.allclose(pixels.values[0][~bad], red[~bad] * 1e-4 - 0.1, rtol=0, atol=1e-7)
    assert np.allclose(pixels.values[1][~bad], nir[~bad] * 1e-4, rtol=0, atol=1e-7)
    assert [scene.name for scene in read_many(tmp_path)] == ["S2B_33UUP"]


@pytest.mark.parametrize(
    ("said", "other"),
    [({"gsd": 10}, {"gsd": 20}), ({"proj:shape": [40, 40]}, {"proj:shape": [20, 20]}), ({}, {})],
)
def test_resolutions_of_stac(
    tmp_path: Path, said: dict[str, object], other: dict[str, object]
) -> None:
    write_picture(tmp_path / "r.tif", _numbers(40, 40))
    write_picture(tmp_path / "n.tif", _numbers(20, 20), 20.0)
    path = _item(
        tmp_path,
        red={"href": "./r.tif", "type": "image/tiff", **said},
        nir={"href": "./n.tif", "type": "image/tiff", **other},
    )
    if not said:  # red and nir of Sentinel-2 have 10 m
        _says("bands red and nir do not lie on one grid", lambda: read(path))
        return
    assert read(path).notes == ("nir is resampled from 20 m to 10 m (bilinear)",)


def test_addresses_that_do_not_answer(tmp_path: Path) -> None:
    _says("cannot read http://127.0.0.1:9/item", lambda: read("http://127.0.0.1:9/item"))
    _says("cannot read", lambda: read("http://127.0.0.1:9/a.tif"))
    path = _item(tmp_path, red={"href": "http://127.0.0.1:9/r.tif", "type": "image/tiff"})
    _says("cannot read r.tif", lambda: read(path))
    empty = _item(tmp_path)
    _says("no asset that names a band", lambda: read(empty))


@pytest.mark.parametrize("stacked", [False, True])
def test_zarr(tmp_path: Path, stacked: bool) -> None:
    values = RNG.normal(size=(2, 30, 40)).astype(np.float32)
    values[0, 3, 4] = np.nan
    coordinates = {"y": CORNER[1] - 5 - 10 * np.arange(30), "x": CORNER[0] + 5 + 10 * np.arange(40)}
    if stacked:
        data = xarray.Dataset({"all": (("band", "y", "x"), values)},
                              {**coordinates, "band": ["red", "nir"]})  # fmt: skip
    else:
        layers = {
            name: (("y", "x"), part)
            for name, part in zip(("nir", "red"), values[::-1], strict=True)
        }
        data = xarray.Dataset(layers, coordinates)
    data.rio.write_crs(UTM).to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    scene = read(tmp_path / "a.zarr")
    assert scene.bands == ("red", "nir") and scene.grid.crs == UTM
    assert scene.grid.transform.almost_equals(Affine(10, 0, CORNER[0], 0, -10, CORNER[1]))
    window = Window(2, 3, 20, 30)
    pixels = pickle.loads(pickle.dumps(scene)).read(window, ["nir", "red"])
    assert np.argwhere(~pixels.valid).tolist() == [[1, 1]]
    cut = values[::-1][(slice(None), *window.slices)]
    assert np.array_equal(pixels.values[:, pixels.valid], cut[:, pixels.valid])


def test_cubes(tmp_path: Path) -> None:
    cube = RNG.integers(0, 5000, (8, 9, 12)).astype(np.uint16)
    scipy.io.savemat(tmp_path / "a.mat", {"data": cube, "map": cube[..., 0], "x": cube[..., :3]})
    scene = read(tmp_path / "a.mat")
    assert scene.grid == Grid(8, 9, Affine.identity(), None) and len(scene.bands) == 12
    pixels = scene.read(Window(1, 2, 5, 6), ["band_12", "band_1"])
    assert np.array_equal(pixels.values, cube[1:6, 2:8, [11, 0]].transpose(2, 0, 1))
    chosen = read(tmp_path / "a.mat", bands=["band_3"])
    assert np.array_equal(chosen.read().values[0], cube[..., 2])
    scipy.io.savemat(tmp_path / "b.mat", {"map": cube[..., 0]})
    _says("holds 0 variables", lambda: read(tmp_path / "b.mat"))
    (tmp_path / "c.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform" + b" " * 500)
    _says("c.mat", lambda: read(tmp_path / "c.mat"))


def test_a_real_cube(real_file: RealFile) -> None:
    path = real_file("earth/hyperspectral_anomaly/hydice.mat")
    scene = read(path)
    assert (scene.grid.shape, len(scene.bands)) == ((80, 100), 162)
    assert np.array_equal(scene.read().values[7], scipy.io.loadmat(path)["data"][..., 7])


def test_real_radar_is_in_decibels(real_file: RealFile) -> None:
    scene = read(real_file("earth/sen1floods11/Spain_7370579_S1Hand.tif"))
    assert (scene.bands, scene.quantity) == (("vv", "vh"), "sigma0_db")


# Bad input --------------------------------------------------------------------------------------


def test_bad_places(tmp_path: Path) -> None:
    _says("does not exist", lambda: read(tmp_path / "none.tif"))
    (tmp_path / "empty").mkdir()
    _says("no picture", lambda: read(tmp_path / "empty"))
    _says("holds no scene", lambda: read_many(tmp_path / "empty"))
    (tmp_path / "a.tif").write_text("not a picture")
    _says("cannot read a.tif", lambda: read(tmp_path / "a.tif"))
    (tmp_path / "a.xyz").write_text("0 0 1\n1 0 1\n0 1 1\n1 1 1\n")
    _says("cannot read a.xyz", lambda: read(tmp_path / "a.xyz"))


def test_bad_bands(tmp_path: Path) -> None:
    write_picture(tmp_path / "a/B02.tif", _numbers(9, 9))
    write_picture(tmp_path / "a/x_B2.tif", _numbers(9, 9))
    _says("more than once", lambda: read(tmp_path / "a"))
    write_picture(tmp_path / "b/B02.tif", _numbers(9, 9), crs=None)
    write_picture(tmp_path / "b/B03.tif", _numbers(8, 9), crs=None)
    _says("8 x 9 pixels, others 9 x 9", lambda: read(tmp_path / "b"))
    write_picture(tmp_path / "c/B02.tif", _numbers(9, 9))
    write_picture(tmp_path / "c/B03.tif", _numbers(9, 9), crs=CRS.from_epsg(32601))
    _says("another place", lambda: read(tmp_path / "c"))
    write_picture(tmp_path / "d.tif", np.ones((9, 9), np.complex64))
    _says("complex", lambda: read(tmp_path / "d.tif"))
    write_picture(tmp_path / "e.tif", _numbers(9, 9), crs=None)
    assert read(tmp_path / "e.tif").grid.crs is None


def test_a_picture_cut_short_is_told_when_it_shows(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.tif", _numbers(500, 400))
    path.write_bytes(path.read_bytes()[:300_000])
    scene = read(path, fill="none")
    scene.read(Window(0, 0, 10, 10))
    _says("cannot read a.tif", lambda: scene.read(Window(490, 0, 10, 10)))


def test_a_damaged_picture_leaves_others_alone(tmp_path: Path) -> None:
    good = write_picture(tmp_path / "good.tif", _numbers(2, 50, 50))
    bad = write_picture(tmp_path / "bad.tif", _numbers(2, 300, 200))
    bad.write_bytes(bad.read_bytes()[:90_000])
    before = read(good).read().values  # it stays open, so opening it again forgets no error
    for _ in range(2):
        _says("cannot read bad.tif: TIFF", lambda: read(bad, fill="none").read())
        assert np.array_equal(read(good).read().values, before)


def test_huge_claims_are_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), tiled=True, blockxsize=16,
                  blockysize=16, sparse_ok=True)  # fmt: skip
    content = bytearray((tmp_path / "a.tif").read_bytes())
    start = int.from_bytes(content[4:8], "little")
    for place in range(
        start + 2, start + 2 + 12 * int.from_bytes(content[start : start + 2], "little"), 12
    ):
        tag = int.from_bytes(content[place : place + 2], "little")
        if tag in (256, 257, 322, 323):  # width, length, and those of a tile
            content[place + 2 : place + 12] = (
                (4).to_bytes(2, "little")
                + (1).to_bytes(4, "little")
                + (60_000).to_bytes(4, "little")
            )
    (tmp_path / "b.tif").write_bytes(content)
    _says("b.tif", lambda: read(tmp_path / "b.tif"))


def _any_of(path: Path) -> None:
    """Read all there is; only the errors of the house may come."""
    try:
        scene: Scene = read(path)
        if math.prod(scene.grid.shape) < 10**6:
            scene.read()
    except WarteError as problem:
        assert "\n" not in str(problem)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    cube = RNG.integers(0, 50, (5, 6, 7)).astype(np.int16)
    scipy.io.savemat(folder / "c.mat", {"data": cube}, do_compression=True)
    return [
        write_picture(folder / "a.tif", _numbers(2, 40, 40), compress="deflate", tiled=True,
                      blockxsize=16, blockysize=16, descriptions=("red", "nir")),
        write_picture(folder / "b.jp2", _numbers(40, 40), driver="JP2OpenJPEG"),
        folder / "c.mat",
        write_picture(folder / "d.tif", _numbers(40, 40), compress="lzw"),
    ]  # fmt: skip


# rasterio's own log stumbles over damaged text, and goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=120)
@given(data=st.data())
def test_damage_is_told_in_one_line(
    whole_files: list[Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(whole_files))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 300))
        content[min(place, len(content) - 1)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    copy = tmp_path_factory.getbasetemp() / f"damaged{path.suffix}"
    copy.write_bytes(content[:cut])
    _any_of(copy)


def test_nothing_is_written_beside_a_file(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.tif", _numbers(2, 50, 50))
    products.sentinel2(tmp_path, {"04": (10, _numbers(20, 20))})
    before = sorted(tmp_path.rglob("*"))
    for scene in read_many(tmp_path):
        scene.read()
    assert sorted(tmp_path.rglob("*")) == before and path.exists()
