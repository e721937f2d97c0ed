"""The pages of a trained model and of a search for its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.curve import Frame, labelled, ticks
from warte.core.report import Cell, Drawing, Notes, Page, Section, Table, Text, write_page
from warte.earth.classify.card import CARD
from warte.earth.report.content import run_section, table_of
from warte.earth.report.layers import shown
from warte.earth.report.words import FOOTER

if TYPE_CHECKING:
    from warte.core.search import Searched

LINE = "var(--plot)"  # the page's colour of curves
SMOOTHED = 60  # points of a curve of losses


def write_model_report(
    folder: Path,
    *,
    losses: Sequence[float] = (),
    notes: Sequence[str] = (),
    settings: object = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write report.html into the folder of a model, from its model.json.

    losses: of each step of a network. notes: what the user should know, one line each.
    """
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    held = card["held_out"]
    sections = [Section("Notes", "notes", [Notes(list(notes))])] if notes else []
    if held.get("pixels"):
        sections += [_scores_section(card), _confusion_section(card)]
    if losses:
        drawn = _curve([float(loss) for loss in losses], "step", "loss")
        sections.append(Section("Training", "training", [Drawing(drawn, "Loss of each step.")]))
    sections.append(run_section(folder, None, settings, seconds or {}))
    finding = f"A model of {len(card['classes'])} classes: {', '.join(card['classes'])}"
    write_page(folder / "report.html", Page(finding, finding, _lead(held), sections, FOOTER))


def _lead(held: Mapping[str, Any]) -> str:
    if not held.get("pixels"):
        return "No group of labels could be held out, so nothing is known of its errors."
    return (
        f"Judged on {held['groups']:,} groups of labels ({held['pixels']:,} pixels) that it did "
        f"not learn from: {100 * held['accuracy']:.1f} % of the pixels right, mean IoU "
        f"{held['mean_iou']:.3f}; on average its probabilities are off by "
        f"{100 * held['calibration_error']:.1f} %."
    )


def _scores_section(card: Mapping[str, Any]) -> Section:
    rows = [{"class": name, **scores} for name, scores in card["held_out"]["classes"].items()]
    colours = {
        name: f"rgb({r} {g} {b})"
        for name, (r, g, b) in zip(card["classes"], card["colours"], strict=True)
    }
    return Section("Each class", "classes", [table_of(pd.DataFrame(rows), colour=colours)])


def _confusion_section(card: Mapping[str, Any]) -> Section:
    classes = card["classes"]
    rows = [
        [Cell(name), *[Cell(shown(round(count))) for count in counts]]
        for name, counts in zip(classes, card["held_out"]["confusion"], strict=True)
    ]
    table = Table(["true \\ found", *classes], rows, frozenset(classes))
    return Section("What is taken for what", "confusion", [table, Text("Held-out pixels.", True)])


def write_search_report(
    folder: Path, found: Searched, *, seconds: Mapping[str, float] | None = None
) -> None:
    """Write report.html into the folder of a search."""
    complete = found.trials[found.trials["state"] == "complete"]
    best = [(name, shown(value)) for name, value in found.parameters.items()]
    values = found.trials["value"].to_numpy(dtype=np.float64)
    history = _history(values, (found.trials["state"] == "complete").to_numpy())
    sections = [
        Section("Best settings", "best", [Table(
            ["setting", "value"], [[Cell(name), Cell(value)] for name, value in best]
        )]),
        Section("History", "history", [
            Drawing(history, "Each trial; pale ones were given up early. The line is the best."),
        ]),
        Section("What matters", "importances", [
            *([Notes([found.note])] if found.note else []),
            table_of(found.importances),
        ]),
        Section("Trials", "trials", [table_of(found.trials)]),
        run_section(folder, None, None, seconds or {}),
    ]  # fmt: skip
    finding = f"Best of {len(found.trials)} trials: {found.value:.4g} (trial {found.number})"
    lead = f"{len(complete)} trials ran to the end, the others were given up early."
    write_page(folder / "report.html", Page(finding, finding, lead, sections, FOOTER))


def _curve(values: Sequence[float], x_name: str, y_name: str) -> str:
    """SVG of a curve, averaged down to some sixty points."""
    size = max(1, len(values) // SMOOTHED)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    means = np.array([np.mean(part) for part in parts])
    steps = np.array([size * at + len(part) / 2 for at, part in enumerate(parts)])
    frame = _frame(len(values), means, x_name, y_name)
    points = zip(frame.across(steps), frame.up(means), strict=True)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    inside = f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="2"/>'
    return frame.draw(f"{y_name} by {x_name}", inside)


def _history(values: npt.NDArray[np.float64], complete: npt.NDArray[np.bool_]) -> str:
    """SVG of the value of each trial, and of the best so far."""
    at = np.arange(1.0, len(values) + 1)
    known = np.isfinite(values)
    frame = _frame(len(values) + 1, values[known], "trial", "value")
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{LINE}" '
        f'fill-opacity="{"1" if done else ".3"}"/>'
        for x, y, done in zip(
            frame.across(at[known]), frame.up(values[known]), complete[known], strict=True
        )
    )
    whole = known & complete
    if not whole.any():
        return frame.draw("value of each trial", dots)
    best = np.maximum.accumulate(values[whole])
    points = zip(frame.across(at[whole]), frame.up(best), strict=True)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    line = f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    return frame.draw("value of each trial", dots + line)


def _frame(most: int, values: npt.NDArray[np.float64], x_name: str, y_name: str) -> Frame:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    pad = 0.05 * (high - low) or 0.5
    return Frame(
        (0, max(most, 1)), (low - pad, high + pad), labelled(ticks(0, most, 6)),
        labelled(ticks(low, high, 4)), x_name, y_name,
    )  # fmt: skip
