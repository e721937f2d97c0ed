"""Pictures and outlines of the map from the files of a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely

from warte.earth.report.map import Colour, Layer, Region
from warte.earth.report.quicklook import (
    class_picture,
    jpeg,
    png,
    quicklook,
    score_picture,
)
from warte.earth.scene import Grid, Scene
from warte.earth.write import LABELS_TAG, open_picture

if TYPE_CHECKING:
    import geopandas

MOST_REGIONS = 400  # outlines in the map; more would only hide each other
LINE = "#ffd23f"  # of outlines without a colour of their own
SKIPPED = ("geometry", "value")  # columns of regions that say nothing to a reader


@dataclass(frozen=True)
class Classes:
    """What the values of a class picture mean: their names and colours."""

    names: dict[int, str]
    colours: dict[int, Colour]

    def css(self, value: int) -> str:
        """The colour of a value for the page."""
        red, green, blue = self.colours.get(value, (128, 128, 128))
        return f"#{red:02x}{green:02x}{blue:02x}"


def classes_of(path: Path) -> Classes:
    """Names and colours that a class picture carries; a value without a name is its number."""
    with open_picture(path) as data:
        named = json.loads(data.tags().get(LABELS_TAG, "{}"))
        table = data.colormap(1) if data.colorinterp[0].name == "palette" else {}
        nodata = data.nodata
    names = {int(value): str(name) for value, name in named.items()}
    # A palette has 256 entries, most of them never set: those with a name count.
    colours = {
        value: (int(r), int(g), int(b))
        for value, (r, g, b, _) in table.items()
        if value != nodata and (value in names or not names)
    }
    return Classes(names or {value: str(value) for value in colours}, colours)


def scene_layer(scene: Scene, *, visible: bool = True) -> Layer:
    """The picture of the scene itself."""
    picture, step = quicklook(scene)
    return Layer(scene.name, jpeg(picture), step, visible=visible)


def class_layer(path: Path, name: str, *, hidden: Sequence[int] = (), opacity: float) -> Layer:
    """A class picture with its legend; the values in `hidden` are not drawn."""
    known = classes_of(path)
    picture, step = class_picture(path, known.colours, hidden=hidden)
    # Four bytes are one number here: rows of colours would take long, and much memory, to sort.
    drawn = np.unique(picture.view(np.uint32)).view(np.uint8).reshape(-1, 4)
    seen = {tuple(colour[:3].tolist()) for colour in drawn if colour[3] > 0}
    legend = [
        (known.names[value], colour)
        for value, colour in known.colours.items()
        if value not in hidden and colour in seen and value in known.names
    ]
    return Layer(name, png(picture), step, legend, opacity=opacity)


def score_layer(
    path: Path, name: str, *, visible: bool = False, said: Callable[[float], str] | None = None
) -> Layer:
    """A picture of numbers; its name says between which it is drawn (`said` in words)."""
    picture, step, ends = score_picture(path)
    low, high = (said(end) if said else f"{end:.3g}" for end in ends)
    return Layer(
        f"{name} ({low} dark to {high} bright)", png(picture), step, visible=visible,
        opacity=0.8,
    )  # fmt: skip


def read_regions(folder: Path) -> geopandas.GeoDataFrame | None:
    """The regions of a run, the strongest first; None where it has no regions.gpkg."""
    path = folder / "regions.gpkg"
    if not path.is_file():
        return None
    # Here, because it takes much memory, and most runs have no regions.
    import geopandas

    frame = geopandas.read_file(path)
    for column in ("score", "area_ha", "pixels"):
        if column in frame:
            frame = frame.sort_values(column, ascending=False, kind="stable")
            break
    frame = frame.reset_index(drop=True)
    if "region" not in frame:
        frame.insert(0, "region", np.arange(1, len(frame) + 1))
    return frame


def outlines(frame: geopandas.GeoDataFrame, grid: Grid) -> list[Region]:
    """Outlines of the first regions in pixels of the scene, numbered from 1."""
    shapes = frame.geometry
    if grid.crs is not None and frame.crs is not None and frame.crs != grid.crs:
        shapes = shapes.to_crs(grid.crs)
    back = ~grid.transform
    found = []
    for at, shape in enumerate(list(shapes)[:MOST_REGIONS]):
        rings = [
            np.column_stack([
                back.a * ring[:, 0] + back.b * ring[:, 1] + back.c,
                back.d * ring[:, 0] + back.e * ring[:, 1] + back.f,
            ])
            for ring in _rings(shape)
        ]  # fmt: skip
        if rings:
            found.append(Region(int(frame["region"].iloc[at]), rings, _said(frame, at), LINE))
    return found


def _rings(shape: shapely.Geometry) -> list[npt.NDArray[np.float64]]:
    parts = shapely.get_parts(shape)
    return [
        shapely.get_coordinates(ring)
        for part in parts
        if isinstance(part, shapely.Polygon)
        for ring in (part.exterior, *part.interiors)
    ]


def _said(frame: geopandas.GeoDataFrame, at: int) -> str:
    row = frame.iloc[at]
    names = [name for name in frame.columns if name not in SKIPPED]
    return ", ".join(f"{name} {shown(row[name])}" for name in names if shown(row[name]))


def shown(value: Any) -> str:
    """A cell of a table as text; "" for what is missing."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.4g}" if abs(number) < 1e5 else f"{number:,.0f}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}" if abs(int(value)) > 9999 else str(value)
    return str(value)
