"""The page of a result: report.html with a map to zoom, and preview.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.report import Page, Section, Text, write_page
from warte.earth.report import content, words
from warte.earth.report.layers import (
    class_layer,
    classes_of,
    outlines,
    read_regions,
    scene_layer,
    score_layer,
)
from warte.earth.report.map import Layer, Region, map_widget
from warte.earth.scene import Scene

if TYPE_CHECKING:
    import geopandas

MOST_MAPS = 6  # scenes with a map of their own in one page
PREVIEW_SIDE = 1024  # pixels of the longer side of preview.png
NO_CHANGE = 0  # in change.tif


def write_report(
    folder: Path,
    scenes: Sequence[Scene],
    *,
    found: object,
    settings: object = None,
    warnings: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write report.html and preview.png from the files that a verb has written into a folder.

    Args:
        folder: holds clusters.tif, classes.tif, anomaly.tif or change.tif and their tables.
        scenes: what was looked at, in time order for change.
        found: the dataclass that the verb returned; its plain numbers and words are shown.
        settings: a dataclass of what was asked for.
        warnings: one line each.
        seconds: wall time of each step so far, s.
    """
    regions = read_regions(folder)
    maps = _maps(folder, scenes, regions)
    sections = [
        *content.warnings_section(warnings),
        *[_map_section(at, scene, layers, lines) for at, (scene, layers, lines) in enumerate(maps)],
        *_tables(folder, scenes, regions, str(getattr(found, "interval", ""))),
        content.run_section(folder, found, settings, seconds or {}),
    ]
    finding = _finding(folder, scenes, regions)
    page = Page(finding, finding, words.grid_of(scenes[0]), sections, words.FOOTER)
    write_page(folder / "report.html", page)
    if maps:
        write_preview(folder / "preview.png", maps[0][1], maps[0][2])


def _maps(
    folder: Path, scenes: Sequence[Scene], regions: geopandas.GeoDataFrame | None
) -> list[tuple[Scene, list[Layer], list[Region]]]:
    """For each map its scene, layers and outlines."""
    if (folder / "change.tif").is_file():
        layers = [scene_layer(scenes[0], visible=False), scene_layer(scenes[-1])]
        layers += _found(folder, "")
        # Thousands of outlines would hide the kinds of change, which show the same.
        return [(scenes[0], layers, [])]
    found = []
    for scene in scenes[:MOST_MAPS]:
        before = f"{scene.name}_" if len(scenes) > 1 else ""
        layers = [scene_layer(scene), *_found(folder, before)]
        lines = outlines(regions, scene.grid) if regions is not None and len(scenes) == 1 else []
        found.append((scene, layers, lines))
    return found


def _found(folder: Path, before: str) -> list[Layer]:
    """Layers of what was found, scores first, so that classes lie above them."""
    layers = []
    for name, title, said in (
        ("anomaly", "score", None), ("change_score", "score", None), ("change_date", "date", _day),
    ):  # fmt: skip
        path = folder / f"{before}{name}.tif"
        if path.is_file():
            layers.append(score_layer(path, title, visible=name == "anomaly", said=said))
    for name, hidden, opacity in (
        ("clusters", (), 0.75), ("classes", (), 0.65), ("change", (NO_CHANGE,), 0.85),
    ):  # fmt: skip
        path = folder / f"{before}{name}.tif"
        if path.is_file():
            layers.append(class_layer(path, name, hidden=hidden, opacity=opacity))
    return layers


def _day(days: float) -> str:
    """Days since 1970-01-01 as a date."""
    return str(np.datetime64(int(days), "D"))


def _map_section(
    at: int, scene: Scene, layers: Sequence[Layer], lines: Sequence[Region]
) -> Section:
    title = "Map" if at == 0 else f"Map of {scene.name}"
    name = "map" if at == 0 else f"map-{at + 1}"
    return Section(title, name, [map_widget(f"{name}-canvas", scene.grid, layers, lines)])


def _tables(
    folder: Path,
    scenes: Sequence[Scene],
    regions: geopandas.GeoDataFrame | None,
    interval: str,
) -> list[Section]:
    """The tables of a folder; interval: what those of areas are, or why there are none."""
    sections = []
    pictures = sorted(folder.glob("*clusters.tif"))
    if (folder / "centres.csv").is_file() and pictures:
        centres = pd.read_csv(folder / "centres.csv")
        known = classes_of(pictures[0])
        sections.append(content.centres_section(centres, known, scenes[0].bands))
    if (folder / "areas.csv").is_file():
        areas = pd.read_csv(folder / "areas.csv")
        known = classes_of(folder / "classes.tif")
        sections.append(content.classes_section(areas, known, "Area of each class", interval))
    if (folder / "change.csv").is_file():
        table = content.table_of(pd.read_csv(folder / "change.csv"))
        sections.append(Section("What changed", "changes", [table]))
    if regions is not None:
        sections.append(
            content.regions_section(regions, link=not (folder / "change.tif").is_file())
        )
    return sections or [Section("Results", "results", [Text("This run has no tables.")])]


def _finding(folder: Path, scenes: Sequence[Scene], regions: geopandas.GeoDataFrame | None) -> str:
    if (folder / "centres.csv").is_file():
        return words.clusters(pd.read_csv(folder / "centres.csv"), scenes)
    if (folder / "areas.csv").is_file():
        return words.classes(pd.read_csv(folder / "areas.csv"), scenes)
    count = 0 if regions is None else len(regions)
    if (folder / "change.tif").is_file():
        area = 0.0 if regions is None or "area_ha" not in regions else regions["area_ha"].sum()
        return words.changes(count, float(area), scenes)
    return words.anomalies(count, scenes)


def write_preview(path: Path, layers: Sequence[Layer], lines: Sequence[Region]) -> None:
    """The visible layers above each other with the outlines, as a small PNG."""
    base, *above = [layer for layer in layers if layer.visible]
    picture = _decoded(base)[..., :3]
    shrunk = min(1.0, PREVIEW_SIDE / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * shrunk)), max(1, round(picture.shape[0] * shrunk)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for layer in above:
        data = cv2.resize(_decoded(layer), size, interpolation=cv2.INTER_NEAREST)
        share = np.float32(layer.opacity / 255) * (data[..., 3] if data.shape[2] == 4 else 255)
        for channel in range(3):  # one at a time, which takes less memory
            below, colour = picture[..., channel], data[..., channel]
            picture[..., channel] = np.rint(below + share * (colour.astype(np.float32) - below))
    scale = shrunk / base.step
    for line in lines:
        rings = [np.rint(ring * scale).astype(np.int32) for ring in line.rings]
        cv2.polylines(picture, rings, True, (63, 210, 255), 1, cv2.LINE_AA)
    done, encoded = cv2.imencode(".png", picture)
    if not done:
        raise ValueError(f"OpenCV could not write a picture of {picture.shape}")
    path.write_bytes(encoded.tobytes())


def _decoded(layer: Layer) -> npt.NDArray[Any]:
    """The picture of a layer: blue, green, red, and how opaque it is if it is a PNG."""
    picture = cv2.imdecode(np.frombuffer(layer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError(f"the layer {layer.name} is no picture")
    return picture
