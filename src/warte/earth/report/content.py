"""The sections of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from warte.core.curve import Frame, labelled, ticks
from warte.core.report import Cell, Drawing, Facts, Notes, Section, Table, Text
from warte.earth.report.layers import Classes, shown

if TYPE_CHECKING:
    import geopandas

MOST_ROWS = 200  # of a table in the page
FILES = {
    "clusters.tif": "number of the cluster of each pixel",
    "centres.csv": "centre, pixels and area of each cluster",
    "classes.tif": "class of each pixel",
    "probabilities.tif": "probability of each class",
    "areas.csv": "pixels and area of each class",
    "anomaly.tif": "score of each pixel",
    "change.tif": "what kind of change, if any",
    "change_score.tif": "how sure the change is",
    "change_date.tif": "when it changed",
    "change.csv": "area of each kind of change",
    "regions.gpkg": "regions with their scores, for a GIS",
    "regions.parquet": "the same as GeoParquet",
    "model.json": "what the model is and how good it is",
    "model.safetensors": "its weights",
    "trials.csv": "each trial of the search",
    "preview.png": "a small picture",
    "run.json": "how the run was made",
}


def warnings_section(warnings: Sequence[str]) -> list[Section]:
    """What a reader must not miss; none where there is nothing."""
    return [Section("Notes", "notes", [Notes(list(warnings))])] if warnings else []


def table_of(
    frame: pd.DataFrame,
    *,
    colour: Mapping[Any, str] | None = None,
    link: bool = False,
) -> Table:
    """A table of the page from the first rows of a frame.

    colour: CSS colour of the first column's values, drawn as dots. link: the first column holds
    numbers of regions and leads to them in the map.
    """
    rows = []
    for values in frame.head(MOST_ROWS).itertuples(index=False):
        cells = [Cell(shown(value)) for value in values]
        first = values[0]
        if colour is not None:
            cells[0] = Cell(shown(first), colour=colour.get(first, ""))
        elif link:
            cells[0] = Cell(shown(first), href=f"#region-{first}")
        rows.append(cells)
    numeric = frozenset(
        str(name) for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])
    )
    return Table([str(name) for name in frame.columns], rows, numeric)


def classes_section(frame: pd.DataFrame, known: Classes, title: str, interval: str = "") -> Section:
    """Pixels and areas of classes; interval: what the areas' is, or why they have none."""
    by_name = {name: known.css(value) for value, name in known.names.items()}
    table = table_of(frame.dropna(axis=1, how="all"), colour=by_name)
    words = [Text(f"Areas: {interval}.")] if interval else []
    return Section(title, "classes", [table, *words])


def centres_section(frame: pd.DataFrame, known: Classes, bands: Sequence[str]) -> Section:
    """The clusters: a table and a plot of their centres."""
    colours = {value: known.css(value) for value in known.colours}
    blocks: list[Table | Drawing | Text] = [table_of(frame, colour=colours)]
    named = [band for band in bands if band in frame]
    if len(named) > 1:
        curves = [
            (str(row[frame.columns[0]]), colours.get(row[frame.columns[0]], "currentColor"),
             [float(row[band]) for band in named])
            for row in frame.to_dict("records")
        ]  # fmt: skip
        blocks.append(Drawing(spectra(named, curves), "Centres of the clusters by band."))
    return Section("Clusters", "clusters", blocks)


def spectra(bands: Sequence[str], curves: Iterable[tuple[str, str, Sequence[float]]]) -> str:
    """SVG of curves (name, CSS colour, a number for each band)."""
    drawn = list(curves)
    values = np.array([numbers for _, _, numbers in drawn], dtype=np.float64)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    pad = 0.05 * (high - low) or 1.0
    every = max(1, len(bands) // 12)
    frame = Frame(
        (0, len(bands) - 1),
        (low - pad, high + pad),
        [(at, band) for at, band in enumerate(bands) if at % every == 0],
        labelled(ticks(low, high, 5)),
        "band",
        "value",
        width=760,
        height=280,
    )
    lines = []
    for name, colour, numbers in drawn:
        x, y = frame.across(np.arange(float(len(bands)))), frame.up(np.asarray(numbers))
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2">'
            f"<title>{escape(name)}</title></path>"
        )
    return frame.draw("curves by band", "".join(lines))


def regions_section(frame: geopandas.GeoDataFrame, *, link: bool) -> Section:
    """A table of regions; their numbers lead to them in the map if they have outlines there."""
    table = pd.DataFrame(frame.drop(columns="geometry"))
    if table.empty:
        return Section("Regions", "regions", [Text("No region stands out.")])
    blocks: list[Text | Table] = []
    if len(table) > MOST_ROWS:
        blocks.append(
            Text(f"The first {MOST_ROWS} of {len(table):,}; regions.gpkg has all of them.", True)
        )
    return Section("Regions", "regions", [*blocks, table_of(table, link=link)])


def run_section(
    folder: Path, found: object, settings: object, seconds: Mapping[str, float]
) -> Section:
    """What was asked for, what came out, and the files."""
    items = [*_plain(found), *_plain(settings)]
    items += [(f"{name}, seconds", f"{taken:.1f}") for name, taken in seconds.items()]
    here = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    files = [[Cell(name, href=name), Cell(FILES[name])] for name in here if name in FILES]
    return Section("This run", "run", [Facts(items), Table(["file", ""], files)])


def _plain(thing: object) -> list[tuple[str, str]]:
    """Names and values of the fields of a dataclass that are numbers, words, or few of them."""
    if not is_dataclass(thing):
        return []
    items = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        if isinstance(value, tuple) and len(value) <= 12:
            value = ", ".join(shown(one) for one in value if not isinstance(one, tuple))
        if isinstance(value, bool | int | float | str) and shown(value):
            items.append((field.name.replace("_", " "), shown(value)))
    return items
