"""The page of a factorisation: how the loss fell, and the components as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warte.core.curve import Frame, labelled, ticks
from warte.core.report import (
    Block,
    Cell,
    Drawing,
    Facts,
    Gallery,
    Notes,
    Page,
    Picture,
    Section,
    Table,
    Text,
    write_page,
)
from warte.nmf.read import Grid
from warte.nmf.write import column_names, component_names, maps

Array = npt.NDArray[Any]

MOST_COMPONENTS = 40  # with a picture; the table and the files have all
MOST_POINTS = 600  # of a line picture; longer ones show the mean of groups of columns
TOP_COLUMNS = 5
LINE_WIDTH, LINE_HEIGHT = 600, 70
FILES = {
    "h.npy": "the components: a row for each, a column for each column of the matrix",
    "components.csv": "the same with the names of the columns",
    "w.npy": "the activations: a row for each row of the matrix, a column for each component",
    "activations.csv": "the same with the names of the rows",
    "activations.parquet": "the same with the names of the rows",
    "abundances.tif": "the activations as maps, a band for each component",
    "run.json": "how all this was made",
}
HOW_TO_READ = (
    "The matrix is written as a sum of components. Each component is a pattern over the columns, "
    "drawn above; its activations say how much of it is in each row. Nothing is negative, so "
    "components add up and never cancel: what one shows is there.",
    "The share is how much of the sum of all reconstructed entries a component carries. The order "
    "of the components has no meaning, and neither has their scale: a component may be doubled "
    "if its activations are halved.",
    "The explained share compares the loss with that of the plainest model, one mean value for "
    "every visible entry: 0 % is no better than the mean, 100 % is exact. It grows with the rank; "
    "a component that only draws noise is a sign that the rank is too high.",
    "Another seed may end in another answer that is as good. Components that come back with every "
    "seed can be trusted most; --restarts keeps the best of several starts.",
)


@dataclass(frozen=True)
class Outcome:
    """A factorisation in figures.

    loss: the divergence from the data at the end, without penalties. losses: with penalties, at
    each look, first at the start. explained: as `warte.nmf.evaluate.explained_share` says.
    """

    loss_name: str
    solver: str
    loss: float
    losses: Sequence[float]
    n_iter: int
    converged: bool
    explained: float | None


def write_report(
    folder: Path,
    name: str,
    w: Array,
    h: Array,
    outcome: Outcome,
    *,
    columns: Sequence[str] | None = None,
    grid: Grid | None = None,
    hidden: float = 0.0,
    settings: Mapping[str, object] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Write report.html into a folder that holds the other files already.

    Args:
        folder: an existing folder.
        name: what was factorised, for the headline.
        w, h: the factors, (n, k) and (k, m).
        outcome: its figures.
        columns: names of the columns.
        grid: the picture whose pixels are the rows; then the activations are drawn as maps.
        hidden: share of hidden entries, 0 to 1.
        settings: what was asked for, by name.
        warnings: one line each.
    """
    shares = component_shares(w, h)
    sections = [
        *([Section("Warnings", "warnings", [Notes(list(warnings))])] if warnings else []),
        _components(w, h, shares, column_names(columns, h.shape[1]), grid),
        _loss(outcome),
        Section("How to read this", "reading", [Text(text) for text in HOW_TO_READ]),
        _run(folder, settings or {}),
    ]
    size = f"{len(w)} rows × {h.shape[1]} columns"
    lead = f"{name}: {size}, " + ("no entry hidden" if not hidden else f"{hidden:.1%} hidden")
    page = Page(
        title=f"{name}: {len(h)} components",
        headline=_headline(len(h), outcome),
        lead=f"{lead}; loss {outcome.loss_name}, solver {outcome.solver}.",
        sections=sections,
        footer="Made by Warte. This page is one file and fetches nothing.",
    )
    write_page(folder / "report.html", page)


def component_shares(w: Array, h: Array) -> npt.NDArray[np.float64]:
    """Share of the sum of w h that each component carries, (k,); zeros where that sum is zero."""
    parts = w.sum(axis=0, dtype=np.float64) * h.sum(axis=1, dtype=np.float64)
    return parts / max(float(parts.sum()), np.finfo(np.float64).tiny)


def loss_curve(losses: Sequence[float]) -> str:
    """SVG of the loss at each look, on a logarithmic scale where it spans more than tenfold."""
    values = np.asarray(losses, dtype=np.float64)
    looks = np.arange(len(values), dtype=np.float64)
    log = bool(values.min() > 0 and values.max() > 10 * values.min())
    heights = np.log10(values) if log else values
    low, high = float(heights.min()), float(heights.max())
    pad = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    marks = ticks(low, high, 4)
    y_ticks = [(at, f"{10**at:.3g}") for at in marks] if log else labelled(marks)
    frame = Frame(
        x=(0.0, max(1.0, float(looks[-1]))),
        y=(low - pad, high + pad),
        x_ticks=labelled([at for at in ticks(0.0, max(1.0, float(looks[-1])), 6) if at % 1 == 0]),
        y_ticks=y_ticks,
        x_name="looks at the loss",
        y_name="loss",
    )
    line = _path(frame.across(looks), frame.up(heights))
    points = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="var(--plot)">'
        f"<title>{value:.6g}</title></circle>"
        for x, y, value in zip(frame.across(looks), frame.up(heights), values, strict=True)
    )
    return frame.draw("The loss at each look", line + points)


def line_picture(values: Array, title: str) -> str:
    """SVG of a component (m,) as a line over its columns, from zero to its largest value."""
    means = _grouped(np.asarray(values, dtype=np.float64))
    top = float(means.max()) or 1.0
    across = np.linspace(2, LINE_WIDTH - 2, len(means)) if len(means) > 1 else np.array([2.0])
    up = LINE_HEIGHT - 3 - means / top * (LINE_HEIGHT - 6)
    floor = LINE_HEIGHT - 3
    if len(means) <= 40:  # few columns are bars, so that a single one is seen
        bars = "".join(f"M{x:.1f} {floor}V{y:.1f}" for x, y in zip(across, up, strict=True))
        shape = f'<path d="{bars}" stroke="var(--plot)" stroke-width="4" fill="none"/>'
    else:
        shape = _path(across, up)
    return (
        f'<svg viewBox="0 0 {LINE_WIDTH} {LINE_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<path d="M0 {floor}H{LINE_WIDTH}" stroke="currentColor" stroke-opacity=".3"/>'
        f"{shape}</svg>"
    )


def map_picture(values: npt.NDArray[np.float32]) -> bytes:
    """PNG of a map (height, width): black at zero, white at its 99th percentile; NaN is grey."""
    import cv2

    seen = np.isfinite(values)
    top = float(np.percentile(values[seen], 99)) or float(values[seen].max()) or 1.0
    grey = np.full((*values.shape, 3), (110, 90, 70), dtype=np.uint8)
    grey[seen] = np.clip(values[seen] / top * 255, 0, 255).astype(np.uint8)[:, None]
    step = -(-max(values.shape) // 400)
    return bytes(cv2.imencode(".png", grey[::step, ::step])[1].tobytes())


def _path(across: Array, up: Array) -> str:
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, up, strict=True))
    return f'<path d="M{places}" stroke="var(--plot)" stroke-width="1.5" fill="none"/>'


def _grouped(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if len(values) <= MOST_POINTS:
        return values
    starts = np.linspace(0, len(values), MOST_POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(values)))
    return np.asarray(np.add.reduceat(values, starts) / sizes)


def _headline(k: int, outcome: Outcome) -> str:
    parts = f"{k} components" if k != 1 else "One component"
    if outcome.explained is None:
        return f"{parts} of a matrix with a single value"
    return f"{parts} explain {outcome.explained:.1%} of what differs from the mean"


def _components(
    w: Array, h: Array, shares: Array, columns: Sequence[str], grid: Grid | None
) -> Section:
    names = component_names(len(h))
    rows = []
    for name, share, pattern in zip(names, shares, h, strict=True):
        order = np.argsort(-pattern, kind="stable")[:TOP_COLUMNS]
        top = ", ".join(columns[at] for at in order if pattern[at] > 0)
        rows.append([Cell(name), Cell(f"{share:.1%}"), Cell(top or "none: it is zero")])
    head = ["component", "share", "largest columns"]
    blocks: list[Block] = [Table(head, rows, frozenset(["share"]))]
    if grid is not None:
        pictures = [
            Picture(map_picture(one), f"Map of {name}", name, pixelated=True, large=True)
            for name, one in zip(names, maps(w[:, :MOST_COMPONENTS], grid), strict=False)
        ]
        caption = "Where each component is: black for none of it, white for much."
        blocks.append(Gallery(pictures, caption))
    for name, share, pattern in list(zip(names, shares, h, strict=True))[:MOST_COMPONENTS]:
        svg = line_picture(pattern, f"{name} over the columns")
        blocks.append(Drawing(svg, f"{name}: {share:.1%} of the sum, peak {pattern.max():.4g}"))
    if len(h) > MOST_COMPONENTS:
        text = f"Only the first {MOST_COMPONENTS} components are drawn; the files have all."
        blocks.append(Text(text, muted=True))
    return Section("Components", "components", blocks)


def _loss(outcome: Outcome) -> Section:
    settled = "settled" if outcome.converged else "still fell when the iterations ran out"
    explained = "" if outcome.explained is None else f"{outcome.explained:.4%}"
    facts = [
        ("Loss at the end", f"{outcome.loss:.6g}"),
        ("Explained share", explained or "the matrix has a single value"),
        ("Iterations", f"{outcome.n_iter}; the loss {settled}"),
    ]
    blocks: list[Block] = [Facts(facts)]
    if len(outcome.losses) > 1:
        text = "The loss each time it was looked at, first at the start."
        blocks.append(Drawing(loss_curve(outcome.losses), text))
    return Section("Loss", "loss", blocks)


def _run(folder: Path, settings: Mapping[str, object]) -> Section:
    present = [name for name in FILES if (folder / name).is_file() or name == "run.json"]
    rows = [[Cell(name, name), Cell(FILES[name])] for name in present]
    blocks: list[Block] = [Table(["file", "what it holds"], rows)]
    if settings:
        blocks.append(Facts([(name, str(value)) for name, value in settings.items()]))
    return Section("Files and settings", "run", blocks)
