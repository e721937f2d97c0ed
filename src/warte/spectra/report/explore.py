"""The page of a map: where the spectra lie, and the oddest of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warte.core.curve import Frame, labelled, ticks
from warte.core.report import (
    Block,
    Cell,
    Drawing,
    Facts,
    Page,
    Section,
    Table,
    Text,
    write_page,
)
from warte.spectra.explore import Map
from warte.spectra.report import words
from warte.spectra.report.content import failures_section, warnings_section
from warte.spectra.report.overview import Failed
from warte.spectra.report.path import curve_path, edges_of, step_path
from warte.spectra.report.scatter import scatter
from warte.spectra.report.window import MODEL_COLOUR
from warte.spectra.spectrum import FloatArray

MOST_ODD = 60  # spectra with a picture
MOST_PIXELS = 700  # of a picture; more are joined in groups
ODD = 5.0  # oddness above which a spectrum is called odd
HOW_TO_READ = (
    "Every spectrum was brought to the rest frame and divided by its median. A few components, "
    "learned from all spectra with their errors as weights, draw each of them; spectra with alike "
    "shares of the components lie close on the map. Missing pixels counted nowhere.",
    "On a t-SNE map only nearness means something: the axes have no unit, gaps between groups are "
    "not to scale, and another seed turns and bends the map.",
    "Oddness is the larger of two: how badly the components draw a spectrum compared with its "
    "neighbours, and how far away its neighbours are; both as logarithms in robust standard "
    f"deviations above the median. 0 is usual; above about {ODD:.0f} look for yourself. An odd "
    "spectrum may be a rare object, a wrong redshift or a fault of the data.",
    "In the pictures the thin line is the data, and the orange one what the components make of it.",
)


def write_explore_report(
    folder: Path,
    result: Map,
    *,
    classes: pd.DataFrame | None = None,
    settings: Mapping[str, object],
    failures: Iterable[Failed] = (),
    warnings: Sequence[str] = (),
) -> None:
    """Write report.html into a folder that holds map.csv already.

    Args:
        folder: an existing folder.
        result: what `warte.spectra.explore.explore` made.
        classes: the table of classes.csv, for the colours of the points.
        settings: what was asked for, by name.
        failures: files that could not be read.
        warnings: one line each; the flags of the map are added.
    """
    unread = pd.DataFrame([{"file": one.name, "reason": one.reason} for one in failures])
    table = pd.concat([result.table, unread], ignore_index=True)
    known = {} if classes is None else dict(zip(classes["file"], classes["class"], strict=True))
    table["class"] = [str(known.get(file) or "") for file in table["file"]]
    table["colour"] = table["class"].map(words.CLASS_COLOURS) if known else "var(--plot)"
    odd = result.oddest[:MOST_ODD]
    anchors = {int(row): f"odd-{number}" for number, row in enumerate(odd, start=1)}
    sections = [
        *warnings_section([*warnings, *result.flags]),
        _map_section(table, anchors, bool(known)),
        _odd_section(result, table, anchors),
        *failures_section(table, "Not on the map"),
        Section("How to read this", "reading", [Text(text) for text in HOW_TO_READ]),
        _run_section(settings),
    ]
    placed = int((table["reason"] == "").sum())
    many = int((table["oddness"] > ODD).sum())
    finding = f"{many:,} of {placed:,} spectra {'is' if many == 1 else 'are'} odd"
    low, high = result.wavelength[0], result.wavelength[-1]
    lead = (
        f"{placed:,} spectra on a map, by {len(result.components)} components between {low:.0f} "
        f"and {high:.0f} Angstrom in the rest frame; {len(table) - placed:,} could not be placed. "
        f"Odd are those with an oddness above {ODD:.0f}."
    )
    page = Page("Spectra: " + finding, finding, lead, sections, words.FOOTER)
    write_page(folder / "report.html", page)


def map_picture(table: pd.DataFrame, anchors: Mapping[int, str]) -> str:
    """SVG of the map; rows with an anchor are large, ringed and lead to it.

    Args:
        table: as in `Map`, with columns class and colour; rows without a place are left out.
        anchors: by row number.
    """
    points = table[table["reason"] == ""]
    # The oddest first, so that they have names where not all can.
    points = points.iloc[np.argsort(-points["oddness"].to_numpy(), kind="stable")]
    x, y = _ends(points["x"]), _ends(points["y"])
    frame = Frame(x, y, [], [], "first axis of the map", "second axis of the map", 640, 480)
    rows = zip(points["file"], points["oddness"], points["class"], strict=True)
    anchor = [anchors.get(row, "") for row in points.index]
    dots = pd.DataFrame(
        {
            "at_x": frame.across(points["x"].to_numpy()),
            "at_y": frame.up(points["y"].to_numpy()),
            "colour": points["colour"],
            "title": [
                f"{file}: oddness {number:.1f}{f', {name}' if name else ''}"
                for file, number, name in rows
            ],
            "anchor": anchor,
            "ring": [bool(text) for text in anchor],
        }
    )
    return frame.draw("Map of the spectra; alike ones lie close", scatter(dots))


def spectrum_picture(
    wavelength: FloatArray, flux: FloatArray, model: FloatArray, title: str
) -> str:
    """SVG of a spectrum (m,) as steps, NaN as gaps, over its reconstruction (m,)."""
    group = -(-len(wavelength) // MOST_PIXELS)
    place, data, drawn = (_means(values, group) for values in (wavelength, flux, model))
    seen = data[np.isfinite(data)]
    low, high = np.percentile(seen, [0.5, 99.5]) if len(seen) else (0.0, 1.0)
    low, high = min(float(low), float(drawn.min())), max(float(high), float(drawn.max()))
    pad = 0.05 * (high - low) or 0.5
    edges = edges_of(place)
    x = (float(edges[0]), float(edges[-1]))
    frame = Frame(
        x, (low - pad, high + pad), labelled(ticks(*x, 8)), labelled(ticks(low, high, 3)),
        "rest wavelength in vacuum (Å)", "flux / median", 800, 200,
    )  # fmt: skip
    steps = step_path(frame.across(edges), frame.up(np.clip(data, *frame.y)))
    line = f'<path d="{steps}" fill="none" stroke="currentColor" stroke-width=".8"/>'
    style = ' stroke-width="2" stroke-opacity=".8"'
    under = curve_path(frame.across(place), frame.up(drawn), MODEL_COLOUR, style)
    return frame.draw(title, under + line)


def _means(values: FloatArray, group: int) -> FloatArray:
    """Means of groups of pixels, of those that are not NaN."""
    starts = np.arange(0, len(values), group)
    good = np.isfinite(values)
    count = np.add.reduceat(good.astype(np.float64), starts)
    total = np.add.reduceat(np.where(good, values, 0.0), starts)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _ends(values: pd.Series) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def _map_section(table: pd.DataFrame, anchors: Mapping[int, str], coloured: bool) -> Section:
    caption = "Each point is a spectrum. Large points are the oddest and lead to their pictures."
    blocks: list[Block] = [Drawing(map_picture(table, anchors), caption)]
    if coloured:
        counts = table.loc[table["reason"] == "", "class"].value_counts()
        rows = [
            [
                Cell(words.class_name(str(name)), "", words.CLASS_COLOURS[str(name)]),
                Cell(f"{count:,}"),
            ]
            for name, count in counts.items()
        ]
        blocks.append(Table(["class", "spectra"], rows, frozenset(["spectra"])))
    return Section("Map", "map", blocks)


def _odd_section(result: Map, table: pd.DataFrame, anchors: Mapping[int, str]) -> Section:
    cards = []
    for place, (row, anchor) in enumerate(anchors.items()):
        facts: dict[Any, Any] = table.loc[row].to_dict()
        name, file = str(facts["class"]), str(facts["file"])
        text = (
            f"Oddness {facts['oddness']:.1f}: reconstruction chi² "
            f"{facts['reconstruction_chi2']:.3g} per pixel, mean distance of its neighbours "
            f"{facts['neighbour_distance']:.3g} of its level."
        )
        picture = spectrum_picture(
            result.wavelength, result.flux[place], result.model[place], f"Spectrum of {file}"
        )
        title = f"{place + 1}. {file}" + (f": {name}" if name else "")
        colour = words.CLASS_COLOURS[name] if name else ""
        cards.append(Section(title, anchor, [Drawing(picture, text)], colour))
    return Section("The oddest", "oddest", [], cards=cards)


def _run_section(settings: Mapping[str, object]) -> Section:
    rows = [
        [
            Cell("map.csv", "map.csv"),
            Cell("one row per file: place, oddness and what it is made of"),
        ],
        [Cell("run.json", "run.json"), Cell(words.FILES["run.json"])],
    ]
    blocks: list[Block] = [Table(["file", "what it holds"], rows)]
    if settings:
        blocks.append(Facts([(name, str(value)) for name, value in settings.items()]))
    return Section("Files and settings", "run", blocks)
