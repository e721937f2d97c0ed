"""The page of a result: report.html."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from warte.core.report import Page, write_page
from warte.spectra.fit.curves import Curve
from warte.spectra.report import content, words
from warte.spectra.report.explore import write_explore_report
from warte.spectra.report.overview import Failed, double, failed, overview

__all__ = ["MOST_CARDS", "candidates", "write_explore_report", "write_report"]

MOST_CARDS = 60  # files with pictures of their fit: doubles first, then Seyferts


def candidates(
    fits: pd.DataFrame, lines: pd.DataFrame, classes: pd.DataFrame | None = None
) -> list[str]:
    """Names of the files that get a card, the strongest doubles first, then Seyferts.

    They are the ones whose curves `write_report` wants.
    """
    return _candidates(overview(fits, lines, classes))


def write_report(
    folder: Path,
    *,
    fits: pd.DataFrame,
    lines: pd.DataFrame,
    classes: pd.DataFrame | None = None,
    curves: Iterable[Curve] = (),
    settings: Mapping[str, object],
    failures: Iterable[Failed] = (),
    warnings: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write report.html into a folder that holds the other files already.

    The page has at most 60 cards and 500 rows in a table, whatever the number of files.

    Args:
        folder: an existing folder.
        fits, lines: the tables of fits.csv and lines.csv; both may be empty.
        classes: the table of classes.csv, where the network was asked.
        curves: data and model of the files that `candidates` names; without one, a card has no
            picture.
        settings: what was asked for, by name.
        failures: files that could not be read.
        warnings: one line each.
        seconds: wall time of each step so far, s.
    """
    table = overview(fits, lines, classes, list(failures))
    cards = {file: f"candidate-{n}" for n, file in enumerate(_candidates(table), start=1)}
    drawn = {curve.file: curve for curve in curves}
    usable = table[~failed(table)]
    sections = [
        *content.warnings_section(warnings),
        content.diagram_section(usable, cards),
        content.counts_section(table),
        content.files_section(table, cards),
        *content.failures_section(table),
        *content.cards_section(table, lines, drawn, cards),
        content.reading_section(),
        content.run_section(folder, settings, seconds or {}, len(table)),
    ]
    seyferts = int((usable["class"] == "Seyfert").sum())
    finding = words.headline(len(usable), seyferts, int(double(usable).sum()))
    page = Page("Spectra: " + finding, finding, _lead(table), sections, words.FOOTER)
    write_page(folder / "report.html", page)


def _candidates(table: pd.DataFrame) -> list[str]:
    return list(table.loc[_wanted(table), "file"].head(MOST_CARDS))


def _wanted(table: pd.DataFrame) -> pd.Series:
    """Which rows deserve a card: fitted Seyferts and doubles."""
    return double(table) | ((table["class"] == "Seyfert") & (table["components"] > 0))


def _lead(table: pd.DataFrame) -> str:
    usable = table[~failed(table)]
    by_ratios = int((usable["bpt_class"] != "").sum())
    by_network = int(((usable["bpt_class"] == "") & (usable["network_class"] != "")).sum())
    lost = int(failed(table).sum())
    text = f"{by_ratios:,} classified by their line ratios"
    text += f", {by_network:,} by the network alone" if by_network else ""
    chosen = int(_wanted(usable).sum())
    text += f"; {lost:,} without a result, with the reason below" if lost else ""
    if chosen > MOST_CARDS:
        text += f"; pictures of the first {MOST_CARDS} of {chosen:,} candidates"
    return text + "."
