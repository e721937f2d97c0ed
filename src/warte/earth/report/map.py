"""A map to drag and zoom inside the page: pictures above each other, with outlines of regions."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import Geod, Transformer

from warte.core.report import Widget
from warte.earth.scene import Grid

Colour = tuple[int, int, int]
HINT = "Drag to move, turn the wheel to zoom; keys: arrows, +, -, 0."
LONLAT_STEPS = 9  # of the net on which longitude and latitude are given; between, it is bent little


@dataclass(frozen=True)
class Layer:
    """One picture of the map.

    data: PNG or JPEG of the whole scene. step: pixels of the scene to one of the picture. legend:
    names of the colours of a class picture. visible, opacity (0..1): at the start.
    """

    name: str
    data: bytes
    step: float
    legend: Sequence[tuple[str, Colour]] = ()
    visible: bool = True
    opacity: float = 1.0


@dataclass(frozen=True)
class Region:
    """An outline: rings of (N, 2) columns and rows of the scene, holes among them.

    number: to which `#region-NUMBER` leads. label: said where it is pointed at. colour: CSS.
    """

    number: int
    rings: Sequence[npt.NDArray[np.float64]]
    label: str
    colour: str


def map_widget(
    name: str, grid: Grid, layers: Sequence[Layer], regions: Sequence[Region] = ()
) -> Widget:
    """The map of a scene as a block of the page.

    Args:
        name: letters, digits and dashes; unique in the page.
        grid: where the scene lies.
        layers: from the lowest to the uppermost.
        regions: outlines on top of them.
    """
    facts = {
        "rows": grid.rows,
        "columns": grid.columns,
        "metres": metres_per_pixel(grid),
        "lonlat": lonlat_net(grid),
        "layers": [_layer(layer) for layer in layers],
        "regions": [_region(region) for region in regions],
        "hint": HINT,
    }
    # "</" would end the script element early, whatever the quotes around it.
    data = json.dumps(facts, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    call = f'warteMap(document.getElementById("{name}"), {data});'
    return Widget(_markup(name, grid, layers, bool(regions)), f"(() => {{{_script()}\n{call}}})();")


def metres_per_pixel(grid: Grid) -> float:
    """Mean side of a pixel at the middle of the scene, m; 0 where there is no CRS."""
    if grid.crs is None:
        return 0.0
    middle = (grid.columns / 2, grid.rows / 2)
    corners = [middle, (middle[0] + 1, middle[1]), (middle[0], middle[1] + 1)]
    lon, lat = _to_lonlat(grid, np.array(corners))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return 0.0
    geod = Geod(ellps="WGS84")
    sides = [geod.inv(lon[0], lat[0], lon[at], lat[at])[2] for at in (1, 2)]
    return round(float(np.sqrt(sides[0] * sides[1])), 6)


def lonlat_net(grid: Grid) -> list[list[list[float]]] | None:
    """Longitude and latitude (degrees) of a net of places over the scene; None without a CRS."""
    if grid.crs is None:
        return None
    columns, rows = np.meshgrid(
        np.linspace(0, grid.columns, LONLAT_STEPS), np.linspace(0, grid.rows, LONLAT_STEPS)
    )
    lon, lat = _to_lonlat(grid, np.column_stack([columns.ravel(), rows.ravel()]))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    net = np.stack([lon, lat], axis=-1).reshape(LONLAT_STEPS, LONLAT_STEPS, 2)
    return [[[round(float(value), 7) for value in at] for at in row] for row in net]


def _to_lonlat(grid: Grid, places: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    """Longitude and latitude of (N, 2) columns and rows."""
    to = grid.transform
    x = to.a * places[:, 0] + to.b * places[:, 1] + to.c
    y = to.d * places[:, 0] + to.e * places[:, 1] + to.f
    way = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    return way.transform(x, y)


def _layer(layer: Layer) -> dict[str, object]:
    kind = "png" if layer.data.startswith(b"\x89PNG") else "jpeg"
    return {
        "source": f"data:image/{kind};base64,{b64encode(layer.data).decode()}",
        "step": layer.step,
        "legend": [[name, list(colour)] for name, colour in layer.legend],
        "visible": layer.visible,
        "opacity": layer.opacity,
    }


def _region(region: Region) -> dict[str, object]:
    points = np.concatenate(region.rings)
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "number": region.number,
        "path": "".join(_ring(ring) for ring in region.rings),
        "box": [round(float(value), 1) for value in (*low, *high)],
        "label": region.label,
        "colour": region.colour,
    }


def _ring(ring: npt.NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{column:.1f} {row:.1f}" for column, row in ring) + "Z"


def _markup(name: str, grid: Grid, layers: Sequence[Layer], outlined: bool) -> str:
    return (
        f'<div class="map" id="{escape(name)}">'
        '<canvas tabindex="0" role="application" aria-label="map of the scene" '
        f'style="aspect-ratio: {grid.columns} / {grid.rows}"></canvas>'
        '<div class="buttons"><button class="in" aria-label="zoom in">+</button>'
        '<button class="out" aria-label="zoom out">−</button>'
        '<button class="all" aria-label="whole scene">⤢</button></div>'
        '<p class="readout muted" aria-live="polite"></p><div class="legend"></div>'
        f'<div class="layers">{"".join(_switches(layers, outlined))}</div></div>'
    )


def _switches(layers: Sequence[Layer], outlined: bool) -> Iterator[str]:
    for at, layer in enumerate(layers):
        checked = " checked" if layer.visible else ""
        title = escape(layer.name)
        yield (
            f'<span data-layer="{at}"><label><input type="checkbox" autocomplete="off"{checked}>'
            f'{title}</label><input type="range" min="0" max="1" step="0.05" autocomplete="off" '
            f'value="{layer.opacity:g}" aria-label="opacity of {title}"></span>'
        )
    if outlined:
        yield (
            '<span><label><input type="checkbox" data-outlines autocomplete="off" checked>'
            "outlines</label></span>"
        )


@cache
def _script() -> str:
    return files(__package__ or "").joinpath("map.js").read_text(encoding="utf-8")
