"""Pictures, regions and labels: what is written is what is read, and areas are exact."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage

from tests.earth.products import CORNER, UTM, write_picture
from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError, OutputError
from warte.earth import write
from warte.earth.labels import check_classes, placed, rasterise, read_labels
from warte.earth.read import read
from warte.earth.scene import Grid, pixel_area_ha, same_grid, scene_of_array
from warte.earth.write import polygons_of, write_cog, write_regions

RealFile = Callable[[str], Path]
LONLAT = CRS.from_epsg(4326)
DEGREES = Grid(600, 700, Affine(0.001, 0, 10.0, 0, -0.001, 50.0), LONLAT)
METRES = Grid(600, 700, Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), UTM)


def _says(words: str, call: Callable[[], object]) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


# Areas ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [80.0, 50.0, 0.3, -33.0])
def test_area_of_a_pixel_on_the_ellipsoid(top: float) -> None:
    grid = Grid(3, 4, Affine(0.01, 0, 7, 0, -0.01, top), LONLAT)
    areas = pixel_area_ha(grid)
    geod = pyproj.Geod(ellps="WGS84")
    for row in range(3):
        # Parallels as chains of 100 short geodesics, whose bend is then below 1e-8.
        along = np.linspace(7, 7.01, 101)
        lon = np.concatenate([along, along[::-1]])
        lat = np.repeat([top - 0.01 * row, top - 0.01 * (row + 1)], 101)
        expected = abs(geod.polygon_area_perimeter(lon, lat)[0]) / 1e4
        assert areas[row] == pytest.approx(expected, rel=1e-6)


def test_the_whole_ellipsoid() -> None:
    grid = Grid(180, 360, Affine(1, 0, -180, 0, -1, 90), LONLAT)
    # Area of WGS 84, NIMA TR8350.2: 510 065 621.724 square kilometres.
    assert pixel_area_ha(grid).sum() * 360 / 100 == pytest.approx(510_065_621.724, rel=1e-10)


def test_area_of_a_projected_pixel() -> None:
    assert np.allclose(pixel_area_ha(METRES), 0.01)
    feet = Grid(2, 2, Affine(1000, 0, 0, 0, -1000, 0), CRS.from_epsg(2263))  # US survey feet
    assert np.allclose(pixel_area_ha(feet), (1000 * 1200 / 3937) ** 2 / 1e4)
    _says("no CRS", lambda: pixel_area_ha(Grid(2, 2, Affine.identity(), None)))


# Pictures ---------------------------------------------------------------------------------------


def test_a_class_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3, (1, 600, 700)).astype(np.uint8)
    path = tmp_path / "classes.tif"
    write_cog(
        path, METRES, ((w, values[(slice(None), *w.slices)]) for w in windows(600, 700, 250)),
        dtype="uint8", nodata=0, bands=["class"], colours={1: (0, 0, 255), 2: (0, 128, 0)},
        labels={1: "water", 2: "Wald, groß"}, tags={"MADE": "here"},
    )  # fmt: skip
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.nodata, file.crs, file.transform) == (0, UTM, METRES.transform)
        assert file.overviews(1) and np.array_equal(file.read(), values)
        assert set(np.unique(file.read(1, out_shape=(300, 350)))) <= {0, 1, 2}
        assert file.colormap(1)[2] == (0, 128, 0, 255) and file.tags()["MADE"] == "here"
    assert os.listdir(tmp_path) == ["classes.tif"]
    assert read(path).grid == METRES
    labels = read_labels(path)
    assert labels.classes == ("water", "Wald, groß")
    first = path.read_bytes()
    write_cog(
        path, METRES, ((w, values[(slice(None), *w.slices)]) for w in windows(600, 700, 600)),
        dtype="uint8", nodata=0, bands=["class"], colours={1: (0, 0, 255), 2: (0, 128, 0)},
        labels={1: "water", 2: "Wald, groß"}, tags={"MADE": "here"},
    )  # fmt: skip
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), values)
    assert path.read_bytes() == first


def test_a_float_picture_keeps_its_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 600, 700)).astype(np.float32)
    values[:, :50] = np.nan
    write_cog(tmp_path / "a.tif", METRES, [(METRES.whole, values)], dtype="float32",
              nodata=math.nan, bands=["one", "two"])  # fmt: skip
    scene = read(tmp_path / "a.tif")
    assert scene.bands == ("one", "two")
    assert np.array_equal(scene.read().values, values, equal_nan=True)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """With a limit on the size of files, as a full disk would do."""
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from affine import Affine
from warte.core.errors import OutputError
from warte.earth.scene import Grid
from warte.earth.write import write_cog
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
grid = Grid(800, 800, Affine(1, 0, 0, 0, -1, 0), None)
values = np.random.default_rng(0).integers(0, 255, (1, 800, 800)).astype(np.uint8)
try:
    write_cog(Path(sys.argv[1]) / "a.tif", grid, [(grid.whole, values)], dtype="uint8", nodata=0,
              bands=["a"])
except OutputError as problem:
    print(problem)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert "cannot write" in done.stdout and done.stdout.count("\n") == 1, done
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_cog(tmp_path / "no/a.tif", METRES, [], dtype="uint8", nodata=0, bands=["a"])


# Regions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [METRES, DEGREES])
def test_regions_of_classes(tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    values = ndimage.zoom(rng.integers(0, 4, (60, 70)), 10, order=0).astype(np.uint8)
    values[rng.random(values.shape) < 0.02] = 3
    write_cog(tmp_path / "a.tif", grid, [(grid.whole, values[None])], dtype="uint8", nodata=0,
              bands=["a"])  # fmt: skip
    whole = polygons_of(tmp_path / "a.tif")
    count = sum(ndimage.label(values == value)[1] for value in (1, 2, 3))
    assert len(whole) == count and set(whole.value) == {1, 2, 3}
    area = np.broadcast_to(pixel_area_ha(grid)[:, None], values.shape)
    for value in (1, 2, 3):
        mine = whole[whole.value == value]
        assert mine.area_ha.sum() == pytest.approx(area[values == value].sum(), rel=1e-12)
        assert mine.pixels.sum() == (values == value).sum()
    shapes = [(shape, value) for shape, value in zip(whole.geometry, whole.value, strict=True)]
    again = rasterio.features.rasterize(shapes, values.shape, transform=grid.transform)
    assert np.array_equal(again, values)
    monkeypatch.setattr(write, "STRIP_PX", 37 * 700)
    strips = polygons_of(tmp_path / "a.tif")
    assert np.array_equal(strips.pixels, whole.pixels)
    assert np.array_equal(strips.value, whole.value)
    assert shapely.equals(strips.geometry.to_numpy(), whole.geometry.to_numpy()).all()
    assert len(shapely.get_coordinates(strips.geometry.to_numpy())) <= 1.001 * len(
        shapely.get_coordinates(whole.geometry.to_numpy())
    )
    large = polygons_of(tmp_path / "a.tif", skip=(3,), smallest=90)
    expected = whole[(whole.value != 3) & (whole.pixels >= 90)]
    assert large.pixels.tolist() == expected.pixels.tolist()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 12), strip=st.integers(1, 5))
def test_regions_do_not_depend_on_strips(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, strip: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (rows, 9)).astype(np.uint8)
    path = tmp_path_factory.mktemp("strips") / "a.tif"
    write_picture(path, values, nodata=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "STRIP_PX", 9 * strip)
        found = polygons_of(path)
    assert len(found) == sum(ndimage.label(values == value)[1] for value in (1, 2))
    assert shapely.is_valid(found.geometry.to_numpy()).all()
    shapes = [(shape, value) for shape, value in zip(found.geometry, found.value, strict=True)]
    transform = Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
    if shapes:
        again = rasterio.features.rasterize(shapes, values.shape, transform=transform)
        assert np.array_equal(again, values)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("crs", [UTM, None])
def test_files_of_regions(tmp_path: Path, rows: int, crs: CRS | None) -> None:
    frame = geopandas.GeoDataFrame(
        {"id": np.arange(rows), "score": np.linspace(0, 1, rows)},
        geometry=[shapely.box(i, 0, i + 1, 1) for i in range(rows)], crs=crs,
    )  # fmt: skip
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_regions(tmp_path / name, frame)
        files.append((tmp_path / name / "regions.gpkg").read_bytes())
    assert files[0] == files[1]
    back = geopandas.read_parquet(tmp_path / "one/regions.parquet")
    assert back.geometry.geom_equals(frame.geometry).all() and back.crs == frame.crs
    other = geopandas.read_file(tmp_path / "one/regions.gpkg")
    assert len(other) == rows and list(other.columns) == ["id", "score", "geometry"]


# Labels -----------------------------------------------------------------------------------------


def test_real_polygons(real_file: RealFile) -> None:
    path = real_file("earth/s2_outerbanks/rcr_landcover.shp")
    for kind in ("shx", "dbf", "prj", "cpg"):
        real_file(f"earth/s2_outerbanks/rcr_landcover.{kind}")
    grid = read(real_file("earth/s2_outerbanks/S2B_L1C_20181013_B01.tiff"), fill="none").grid
    labels = pickle.loads(pickle.dumps(read_labels(path)))
    assert labels.classes == (
        "Emergent Wetland", "Forested Wetland", "Herbaceous", "Sand", "Subtidal Haline", "WetSand",
    )  # fmt: skip
    classes, groups = rasterise(labels, grid, grid.whole)
    # Another way: centres of pixels in the CRS of the polygons, one by one.
    frame = geopandas.read_file(path)
    rows, columns = (part.ravel() for part in np.mgrid[0:2201, 0:2629])
    near = (groups.ravel() >= 0) | ndimage.binary_dilation(groups >= 0, iterations=3).ravel()
    rows, columns = rows[near], columns[near]
    t = grid.transform
    over = pyproj.Transformer.from_crs(4326, 32618, always_xy=True)
    x, y = over.transform(t.c + t.a * (columns + 0.5), t.f + t.e * (rows + 0.5))
    expected = np.full(rows.size, -1)
    for number, shape in enumerate(frame.geometry):
        expected[shapely.contains_xy(shape, x, y)] = number
    assert np.array_equal(groups[rows, columns], expected)
    assert (groups >= 0).sum() == 598 and set(np.unique(groups)) == set(range(-1, 23))
    names = np.append(frame.Classname.to_numpy(), "")
    found = np.append(np.array(labels.classes), "")
    assert np.array_equal(found[classes[groups >= 0]], names[groups[groups >= 0]])
    ready = placed(labels, grid)
    for window in windows(*grid.shape, 700):
        part = rasterise(ready, grid, window)
        assert np.array_equal(part[0], classes[window.slices])
        assert np.array_equal(part[1], groups[window.slices])


def test_long_edges_bend(tmp_path: Path) -> None:
    """A box of 5 degrees along a parallel: in UTM its upper edge bulges by more than a pixel."""
    box = shapely.box(12.0, 49.0, 17.0, 50.0)
    geopandas.GeoDataFrame({"c": ["a"]}, geometry=[box], crs=4326).to_file(tmp_path / "a.gpkg")
    grid = Grid(800, 4000, Affine(100, 0, 280_000, 0, -100, 5_580_000), UTM)
    classes, _ = rasterise(read_labels(tmp_path / "a.gpkg"), grid, grid.whole)
    over = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    x, y = grid.places(*np.meshgrid(np.arange(4000) + 0.5, np.arange(800) + 0.5))
    lon, lat = over.transform(x, y)
    inside = (lon > 12) & (lon < 17) & (lat > 49) & (lat < 50)
    wrong = inside != (classes == 0)
    assert wrong.sum() <= 5 and inside.sum() > 100_000


def _save(path: Path, **columns: object) -> Path:
    shapes = columns.pop("shapes", None) or [shapely.box(CORNER[0] + 100 * i, CORNER[1] - 90,
                                             CORNER[0] + 100 * i + 50, CORNER[1]) for i in range(3)]  # fmt: skip # noqa: E501
    crs = columns.pop("crs", 32633)
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_file(path)
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.parquet"])
def test_formats_of_labels(tmp_path: Path, name: str) -> None:
    crs = 32633 if name != "a.geojson" else 4326
    shapes = geopandas.GeoSeries(
        [shapely.box(CORNER[0] + 100 * i, CORNER[1] - 90, CORNER[0] + 100 * i + 50, CORNER[1])
         for i in range(3)], crs=32633,
    ).to_crs(crs)  # fmt: skip
    path = _save(tmp_path / name, shapes=list(shapes), crs=crs, kind=["b", "a", "b"], n=[1, 2, 3])
    labels = read_labels(path)
    assert labels.classes == ("a", "b") and labels.of_shape == (1, 0, 1)
    classes, groups = rasterise(labels, METRES, Window(0, 0, 9, 30))
    assert (groups[:, 10:15] == 1).all() and (classes[:, 10:15] == 0).all()
    assert (groups >= 0).sum() == 3 * 5 * 9
    assert read_labels(path, field="n").classes == ("1", "2", "3")


def test_bad_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _says("does not exist", lambda: read_labels(tmp_path / "x.shp"))
    two = _save(tmp_path / "two.gpkg", one=["a"] * 3, two=["b"] * 3)
    _says("give --field, one of one, two", lambda: read_labels(two))
    _says("no field three; it has one, two", lambda: read_labels(two, field="three"))
    _says("no CRS", lambda: read_labels(_save(tmp_path / "no.parquet", c=["a"] * 3, crs=None)))
    _says(
        "no labelled", lambda: read_labels(_save(tmp_path / "n.parquet", c=[None] * 3), field="c")
    )
    (tmp_path / "b.gpkg").write_bytes(b"SQLite format 3")
    _says("cannot read labels", lambda: read_labels(tmp_path / "b.gpkg"))
    good = read_labels(two, field="one")
    far = Grid(100, 100, Affine(10, 0, 700_000, 0, -10, 5_300_000), UTM)
    _says("199.8 km apart", lambda: placed(good, far))
    degrees = Grid(100, 100, Affine(0.001, 0, -76, 0, -0.001, 35), LONLAT)
    _says("labels reach over (15.00000", lambda: placed(good, degrees))
    _says("the scene has no CRS", lambda: placed(good, Grid(9, 9, Affine.identity(), None)))
    _says("has not: a; it knows b, c", lambda: check_classes(good, ("b", "c")))
    check_classes(good, ("a", "b"))


def test_mended_labels(tmp_path: Path) -> None:
    x, y = CORNER
    bow = shapely.Polygon([(x, y), (x + 100, y - 100), (x + 100, y), (x, y - 100)])
    shapes = [
        bow,
        shapely.LineString([(x, y), (x + 9, y)]),
        shapely.box(x + 200, y - 90, x + 250, y),
    ]
    path = _save(tmp_path / "a.parquet", shapes=shapes, c=["a", "b", "c"])
    labels = read_labels(path)
    assert labels.notes == (
        "1 invalid polygons were repaired", "1 rows without polygon or class are left out",
    )  # fmt: skip
    classes, _ = rasterise(labels, METRES, Window(0, 0, 10, 30))
    assert labels.classes == ("a", "c")
    assert (classes == 0).sum() == pytest.approx(50, abs=10) and (classes == 1).sum() == 45


def test_labels_of_a_raster(tmp_path: Path) -> None:
    values = np.zeros((60, 70), np.int16)
    values[:30, :30], values[40:, 40:] = -1, 5
    labels = read_labels(write_picture(tmp_path / "a.tif", values))
    assert (labels.classes, labels.values) == (("0", "5"), (0, 5))
    grid = Grid(60, 70, Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), UTM)
    classes, groups = rasterise(labels, grid, grid.whole)
    assert np.array_equal(classes, np.select([values < 0, values == 5], [-1, 1], 0))
    assert len(np.unique(groups)) == 3  # none, and two squares of 64 pixels
    # Onto a finer grid that reaches further: outside there is no class, also not 0.
    fine = Grid(200, 200, Affine(5, 0, CORNER[0], 0, -5, CORNER[1]), UTM)
    classes, _ = rasterise(labels, fine, fine.whole)
    assert (classes[120:] == -1).all() and (classes[:, 140:] == -1).all()
    assert (classes[80:120, 80:140] == 1).all() and (classes[:60, 70:140] == 0).all()
    part, _ = rasterise(labels, fine, Window(70, 70, 30, 40))
    assert np.array_equal(part, classes[70:100, 70:110])


def test_bad_rasters_of_labels(tmp_path: Path) -> None:
    empty = write_picture(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), nodata=0)
    _says("all of it is no-data", lambda: read_labels(empty))
    other = write_picture(tmp_path / "b.tif", np.full((9, 9), 0.5, np.float32))
    _says("no raster of classes", lambda: read_labels(other))
    plain = read_labels(write_picture(tmp_path / "c.tif", np.ones((9, 9), np.uint8), crs=None))
    _says("no CRS", lambda: rasterise(plain, METRES, METRES.whole))
    here = Grid(9, 9, Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), None)
    assert (rasterise(plain, here, here.whole)[0] == 0).all()
    good = read_labels(write_picture(tmp_path / "d.tif", np.ones((9, 9), np.uint8)))
    far = Grid(9, 9, Affine(10, 0, 0, 0, -10, 0), UTM)
    _says("does not lie on the scene", lambda: rasterise(good, far, far.whole))


# Scenes -----------------------------------------------------------------------------------------


def test_scenes_of_arrays() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    values[0, 1, 1] = np.nan
    scene = pickle.loads(pickle.dumps(scene_of_array(values, ["red", "nir"])))
    pixels = scene.read(Window(1, 1, 2, 2), ["nir"])
    assert pixels.values.tolist() == [[[17, 18], [21, 22]]]
    assert scene.read().valid.sum() == 11
    pixels.values[:] = 0  # does not change the scene
    assert scene.read(bands=["nir"]).values.max() == 23
    _says("has no band blue", lambda: scene.read(bands=["blue"]))
    _says("a name of its own", lambda: scene_of_array(values, ["a", "a"]))
    _says("give (bands, rows, columns)", lambda: scene_of_array(np.zeros(3)))


def test_grids_that_differ() -> None:
    one = scene_of_array(np.zeros((1, 600, 700)), grid=METRES, name="one")
    two = scene_of_array(np.zeros((1, 600, 700)), grid=DEGREES, name="two")
    assert same_grid([one, one]) == METRES
    _says("one and two do not lie on one grid: CRS", lambda: same_grid([one, two]))


MEMORY = """
import pathlib, resource, sys, tempfile
import numpy as np
from affine import Affine
from warte.core.data.tiles import windows
from warte.earth.scene import Grid
from warte.earth.write import write_cog

part = np.zeros((3, 256, 256), np.float32)
for columns in (1024, 12_288):
    grid = Grid(1024, columns, Affine(10, 0, 0, 0, -10, 0), None)
    blocks = ((window, part[:, :, : window.columns]) for window in windows(1024, columns, 256))
    with tempfile.TemporaryDirectory() as folder:
        write_cog(pathlib.Path(folder) / "a.tif", grid, blocks, dtype="float32", nodata=-1.0,
                  bands=("a", "b", "c"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_a_wide_picture_needs_little_more_memory_than_a_narrow_one() -> None:
    """In a process of its own; blocks of 512 pixels took 99 MiB more here."""
    said = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    narrow, wide = map(float, said.stdout.split())
    assert wide - narrow < 50  # MiB
