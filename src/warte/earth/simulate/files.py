"""Simulated scenes and their truth as files, window by window."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import rasterio.features
import shapely
from affine import Affine
from rasterio import windows as rasterio_windows

from warte.core.data.tiles import Window, windows
from warte.core.errors import OutputError
from warte.earth.scene import Scene
from warte.earth.simulate.ground import CLASSES, COLOURS, CROPS, MEADOW, ROAD, Thing
from warte.earth.simulate.noise import hashed, uniform
from warte.earth.simulate.scene import Simulated, Truth, fill_of, simulate
from warte.earth.simulate.sensors import Radar
from warte.earth.simulate.settings import KINDS, SimulateSettings
from warte.earth.write import write_cog

Report = Callable[[str, int, int | None], None]

TILE = 512  # pixels
PATCH_M = 200.0  # side of the pieces into which woods, towns, waters are cut for labels
BLOCK_M = 400.0  # side of the squares that go to train or to test as a whole
LABEL_WINDOWS = 16  # of a large scene, labels are drawn in so many windows only
CLOUD_NAMES = {1: "clear", 2: "shadow", 3: "cloud"}
CLOUD_COLOURS = {1: (120, 160, 110), 2: (60, 60, 90), 3: (255, 255, 255)}


@dataclass(frozen=True)
class Written:
    """What was written: names of scenes, numbers of labelled polygons and of anomalies, pixels."""

    scenes: tuple[str, ...]
    polygons: int
    anomalies: int
    pixels: int


def simulate_to(
    folder: Path, settings: SimulateSettings, seed: int, *, report: Report | None = None
) -> Written:
    """Draw scenes and write them with their truth; memory does not grow with the size.

    Writes into `folder`:
        scenes/<name>.tif: one per sensor and date, with band names, scale and offset.
        truth/<name>/classes.tif (uint8, names and colours, 0 no data), clouds.tif (1 clear,
            2 shadow, 3 cloud, 0 no data; optical only), anomalies.tif (1 where there is one, 255
            no data; only if some are planted).
        truth/fields.gpkg: labelled polygons: class (name), value (number in classes.tif), group
            (number of the polygon), block (number of its square of 400 m), test (1 in the squares
            that are for judging, 0 else), area_ha. fields_train.gpkg, fields_test.gpkg: each part.
        truth/anomalies.gpkg: material, length_m, width_m.
        truth/changes.tif (1 deforestation, 2 flood, 3 burn, 4 building, 0 none, 255 no data) and
            truth/change_date.tif (int32 days since 1970-01-01, -1 none); only if there are events.
        truth/truth.json: settings, seed, events with their places, and the scenes with their times,
            suns and clouds.

    Args:
        folder: exists.
        seed: same seed, same files.
        report: called with ("<name>", done, total) for the windows of each scene.

    Raises:
        SettingsError: an optical picture is to be taken at night.
        OutputError: a file cannot be written.
    """
    scenes, truth = simulate(settings, np.random.default_rng(seed))
    (folder / "scenes").mkdir()
    (folder / "truth").mkdir()
    facts = []
    for index, scene in enumerate(scenes):
        _write_scene(folder / "scenes" / f"{scene.name}.tif", scene, report)
        _write_truth(folder / "truth" / scene.name, truth, index)
        facts.append(_facts(scene))
    fields = label_polygons(truth)
    for name, part in (
        ("fields", fields), ("fields_train", fields[fields.test == 0]),
        ("fields_test", fields[fields.test == 1]),
    ):  # fmt: skip
        place = folder / "truth" / f"{name}.gpkg"
        pyogrio.write_dataframe(part, place, layer="fields", driver="GPKG")
    if settings.anomalies.count:
        things = anomaly_polygons(truth)
        place = folder / "truth" / "anomalies.gpkg"
        pyogrio.write_dataframe(things, place, layer="anomalies", driver="GPKG")
    if settings.events:
        _write_changes(folder / "truth", truth)
    events = [asdict(event) for event in truth.ground.events]
    content = {"seed": seed, "scenes": facts, "events": events, "settings": asdict(settings)}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (folder / "truth" / "truth.json").write_text(text, encoding="utf-8")
    pixels = sum(scene.grid.rows * scene.grid.columns for scene in scenes)
    names = tuple(scene.name for scene in scenes)
    return Written(names, len(fields), settings.anomalies.count, pixels)


def label_polygons(truth: Truth, index: int = 0) -> geopandas.GeoDataFrame:
    """Polygons as a person would draw them: inside of fields and pieces of woods, towns, waters.

    Of the ground on a scene's day; of a large scene in some windows only. Columns as in
    `simulate_to`.
    """
    scene = truth.scenes[index]
    frames = [_polygons(truth, index, window) for window in _label_windows(scene)]
    rows = [row for frame in frames for row in frame]
    geometry = [row.pop("geometry") for row in rows]
    columns = ("class", "value", "block", "test", "area_ha")
    table = {name: [row[name] for row in rows] for name in columns}
    frame = geopandas.GeoDataFrame(table, geometry=geometry, crs=scene.grid.crs)
    frame.insert(2, "group", np.arange(len(frame)))
    return frame


def anomaly_polygons(truth: Truth) -> geopandas.GeoDataFrame:
    """The planted things as rectangles: material, length_m, width_m."""
    things = truth.ground.things
    left, top = truth.settings.origin_m
    return geopandas.GeoDataFrame(
        {
            "material": [thing.material for thing in things],
            "length_m": [thing.length_m for thing in things],
            "width_m": [thing.width_m for thing in things],
        },
        geometry=[_rectangle(thing, left, top) for thing in things],
        crs=truth.scenes[0].grid.crs,
    )


def _write_scene(path: Path, scene: Scene, report: Report | None) -> None:
    reader = scene.reader
    assert isinstance(reader, Simulated)
    settings, sensor = reader.settings, reader.settings.sensors[reader.sensor]
    grid, places = scene.grid, list(windows(*scene.grid.shape, TILE))
    nodata = sensor.nodata
    if settings.border.angle_deg != 0:
        nodata = fill_of(settings, sensor) if settings.border.tagged else None
    try:
        with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(
            path, "w", driver="GTiff", height=grid.rows, width=grid.columns,
            count=len(scene.bands), dtype=sensor.dtype, crs=grid.crs, transform=grid.transform,
            nodata=nodata, tiled=True, blockxsize=256, blockysize=256, compress="deflate",
            zlevel=1, interleave="pixel", bigtiff="if_safer", photometric="minisblack",
        ) as file:  # fmt: skip
            for number, name in enumerate(scene.bands, 1):
                file.set_band_description(number, name)
            if isinstance(sensor, Radar):
                file.update_tags(SENSOR=sensor.name, CALIBRATION_FACTOR=repr(sensor.factor))
            elif sensor.dtype != "float32":
                file.scales = (sensor.scale,) * file.count
                file.offsets = (sensor.offset,) * file.count
            for done, window in enumerate(places, 1):
                numbers, _ = reader.numbers(window)
                file.write(numbers, window=_place(window))
                if report is not None:
                    report(scene.name, done, len(places))
    except (OSError, rasterio.errors.RasterioError) as problem:
        raise OutputError(f"cannot write {path}: {problem}; free space, then again") from problem


def _write_truth(folder: Path, truth: Truth, index: int) -> None:
    folder.mkdir()
    grid = truth.scenes[index].grid

    def blocks(
        draw: Callable[[Window, int], npt.NDArray[Any]],
    ) -> Iterator[tuple[Window, npt.NDArray[Any]]]:
        for window in windows(*grid.shape, TILE):
            yield window, draw(window, index)[None]

    write_cog(
        folder / "classes.tif", grid, blocks(truth.classes), dtype="uint8", nodata=0,
        bands=("class",), colours=COLOURS, labels=CLASSES,
    )  # fmt: skip
    reader = truth.scenes[index].reader
    assert isinstance(reader, Simulated)
    if not isinstance(truth.settings.sensors[reader.sensor], Radar):
        write_cog(
            folder / "clouds.tif", grid, blocks(truth.clouds), dtype="uint8", nodata=0,
            bands=("cloud",), colours=CLOUD_COLOURS, labels=CLOUD_NAMES,
        )  # fmt: skip
    if truth.settings.anomalies.count:
        write_cog(
            folder / "anomalies.tif", grid, blocks(truth.anomalies), dtype="uint8", nodata=255,
            bands=("anomaly",),
        )  # fmt: skip


def _write_changes(folder: Path, truth: Truth) -> None:
    grid = truth.scenes[0].grid
    named = {0: "no change"} | {number: kind for number, kind in enumerate(KINDS, 1)}
    for name, part, dtype, nodata in (
        ("changes.tif", 0, "uint8", 255), ("change_date.tif", 1, "int32", None),
    ):  # fmt: skip
        blocks = (
            (window, truth.changes(window)[part][None]) for window in windows(*grid.shape, TILE)
        )
        write_cog(
            folder / name, grid, blocks, dtype=dtype, nodata=nodata, bands=(name[:-4],),
            labels=named if part == 0 else None,
        )  # fmt: skip


def _facts(scene: Scene) -> dict[str, object]:
    reader = scene.reader
    assert isinstance(reader, Simulated)
    facts: dict[str, object] = {
        "name": scene.name,
        "sensor": scene.sensor,
        "time": scene.time.isoformat() if scene.time else None,
        "bands": list(scene.bands),
        "quantity": scene.quantity,
    }
    sky = reader.sky()
    if sky is not None:
        facts["sun_azimuth_deg"] = sky.sun.azimuth_deg
        facts["sun_elevation_deg"] = sky.sun.elevation_deg
        facts["cloud_cover"] = sky.cover
        facts["cloud_height_m"] = sky.height_m
    return facts


def _label_windows(scene: Scene) -> list[Window]:
    """The whole scene, or windows spread evenly over a large one."""
    rows, columns = scene.grid.shape
    side = int(np.sqrt(LABEL_WINDOWS))
    if rows * columns <= 4 * TILE**2:
        return [scene.grid.whole]
    return [
        Window(
            (2 * row + 1) * rows // (2 * side) - TILE // 2,
            (2 * column + 1) * columns // (2 * side) - TILE // 2,
            TILE,
            TILE,
        )
        for row in range(side)
        for column in range(side)
    ]


def _polygons(truth: Truth, index: int, window: Window) -> list[dict[str, Any]]:
    scene = truth.scenes[index]
    pixel, seed = scene.grid.transform.a, truth.seed
    kind, parcel = truth.classes(window, index), truth.parcels(window, index)
    rows = (np.arange(window.rows) + window.row) * pixel
    columns = (np.arange(window.columns) + window.column) * pixel
    patch = hashed(seed + 91, np.floor(rows / PATCH_M)[:, None], np.floor(columns / PATCH_M)).view(
        np.int64
    )
    own = np.isin(kind, (*CROPS, MEADOW))
    piece = hashed(seed + 92, kind, np.where(own, parcel, patch)).view(np.int64)
    number = np.unique(piece, return_inverse=True)[1].reshape(kind.shape).astype(np.int32)
    left, top = truth.settings.origin_m
    towards = Affine(pixel, 0, left + window.column * pixel, 0, -pixel, top - window.row * pixel)
    found = []
    for shape, value in rasterio.features.shapes(number, mask=kind > 0, transform=towards):
        whole = shapely.geometry.shape(shape)
        point = whole.representative_point()
        row, column = int((towards.f - point.y) / pixel), int((point.x - towards.c) / pixel)
        value = int(kind[row, column])
        # Nobody draws along the very border; roads would vanish.
        inner = whole if value == ROAD else whole.buffer(-0.75 * pixel, join_style="mitre")
        if inner.geom_type != "Polygon" or inner.area < 4 * pixel**2:
            continue
        across, down = int((point.x - left) // BLOCK_M), int((top - point.y) // BLOCK_M)
        test = float(uniform(seed + 93, down, across)) < 0.3
        found.append(
            {
                "class": CLASSES[value],
                "value": value,
                "block": down * 100_000 + across,
                "test": int(test),
                "area_ha": inner.area / 1e4,
                "geometry": inner,
            }
        )
    return found


def _rectangle(thing: Thing, left: float, top: float) -> shapely.Polygon:
    u = np.array([-0.5, 0.5, 0.5, -0.5]) * thing.length_m
    v = np.array([-0.5, -0.5, 0.5, 0.5]) * thing.width_m
    cosine, sine = np.cos(thing.angle_rad), np.sin(thing.angle_rad)
    x = left + thing.x_m + cosine * u - sine * v
    y = top - thing.y_m - sine * u - cosine * v
    return shapely.Polygon(np.stack([x, y], axis=1))


def _place(window: Window) -> rasterio_windows.Window:
    return rasterio_windows.Window(window.column, window.row, window.columns, window.rows)
