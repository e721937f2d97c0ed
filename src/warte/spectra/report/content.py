"""The sections of the page of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warte.core.report import Block, Cell, Drawing, Facts, Notes, Section, Table, Text
from warte.spectra.fit.curves import Curve
from warte.spectra.lines import CLASSES
from warte.spectra.report import words
from warte.spectra.report.diagram import bpt_diagram
from warte.spectra.report.overview import double, failed
from warte.spectra.report.window import window_pictures

Row = Mapping[Any, Any]  # one row of a table by column name

MOST_ROWS = 500  # of a table in the page; the CSV has all


def diagram_section(table: pd.DataFrame, cards: Mapping[str, str]) -> Section:
    shown = int((table["bpt_class"] != "").sum())
    if not shown:
        text = (
            "No file has all four lines (H-beta, [O III] 5007, H-alpha, [N II] 6583) above three "
            "times their errors, so there is nothing to draw."
        )
        return Section("Line ratios", "ratios", [Text(text)])
    caption = (
        f"Points ({shown:,}): files whose four lines all exceed three times their errors. Full "
        "curve: Kewley 2001, dashed: Kauffmann 2003, dotted: Schawinski 2007. Points with a ring "
        "have two components; large points lead to their cards."
    )
    return Section("Line ratios", "ratios", [Drawing(bpt_diagram(table, cards), caption)])


def counts_section(table: pd.DataFrame) -> Section:
    """How many files each class has, by the class that is shown, and how many are double."""
    usable = table[~failed(table)]
    rows = []
    for name in (*CLASSES, ""):
        ours = usable[usable["class"] == name]
        if len(ours):
            pairs = int(double(ours).sum())
            name_cell = Cell(words.class_name(name), colour=words.CLASS_COLOURS[name])
            measured = int((ours["bpt_class"] != "").sum())
            rows.append([name_cell, *(Cell(f"{n:,}") for n in (len(ours), measured, pairs))])
    head = ["class", "files", "of these by their line ratios", "with two components"]
    remark = "The other files of a class have it from the network, where its table was given."
    blocks: list[Block] = [Table(head, rows, frozenset(head[1:])), Text(remark, muted=True)]
    return Section("Classes", "classes", blocks)


def files_section(table: pd.DataFrame, cards: Mapping[str, str]) -> Section:
    usable = table[~failed(table)]
    with_network = bool((table["network_class"] != "").any())
    head = [
        "file", "class", *(["network"] if with_network else []), "z", "components",
        "log evidence", "p two", "chi²/dof", "log [N II]/Hα", "log [O III]/Hβ", "flags",
    ]  # fmt: skip
    rows = []
    for row in usable.head(MOST_ROWS).to_dict("records"):
        name = str(row["class"])
        network = f"{row['network_class']}, {words.chance(float(row['p_network']))}"
        cells = [
            Cell(str(row["file"]), f"#{cards[row['file']]}" if row["file"] in cards else ""),
            Cell(words.class_name(name), colour=words.CLASS_COLOURS[name]),
            *([Cell(network.strip(", "))] if with_network else []),
            Cell(words.plain(row["redshift"], 5)),
            Cell(str(row["components"]) if row["components"] else ""),
            Cell(words.plain(row["log_evidence_ratio"], 1)),
            Cell(words.chance(row["p_two"])),
            Cell(words.plain(row["chi2_reduced"])),
            Cell(_limit(row, "nii_ha") + words.plain(row["log_nii_ha"])),
            Cell(_limit(row, "oiii_hb") + words.plain(row["log_oiii_hb"])),
            Cell(str(row["flags"]).replace(";", "; ")),
        ]
        rows.append(cells)
    blocks: list[Block] = [
        Table(head, rows, frozenset(head) - {"file", "class", "network", "flags"})
    ]
    if len(usable) > MOST_ROWS:
        text = f"The first {MOST_ROWS} of {len(usable):,} files; fits.csv and classes.csv have all."
        blocks.append(Text(text, muted=True))
    return Section("Files", "files", blocks)


def failures_section(table: pd.DataFrame, title: str = "Files without a result") -> list[Section]:
    """The rows with a reason why something is missing; nothing where there is none."""
    lost = table[table["reason"] != ""]
    if not len(lost):
        return []
    pairs = zip(lost["file"].head(MOST_ROWS), lost["reason"].head(MOST_ROWS), strict=True)
    rows = [[Cell(str(file)), Cell(str(reason))] for file, reason in pairs]
    blocks: list[Block] = [Table(["file", "reason"], rows)]
    if len(lost) > MOST_ROWS:
        blocks.append(Text(f"The first {MOST_ROWS} of {len(lost):,} files.", muted=True))
    return [Section(title, "failures", blocks)]


def cards_section(
    table: pd.DataFrame, lines: pd.DataFrame, curves: Mapping[str, Curve], cards: Mapping[str, str]
) -> list[Section]:
    """A card for each file that has an anchor; nothing where there is none."""
    if not cards:
        return []
    ours = table[table["file"].isin(list(cards))]
    groups = dict(iter(lines[lines["file"].isin(list(cards))].groupby("file")))
    shown = []
    for row in ours.to_dict("records"):
        file, name = str(row["file"]), str(row["class"])
        svg = window_pictures(curves[file]) if file in curves else ""
        blocks: list[Block] = [Drawing(svg, _key(curves[file]))] if svg else []
        if file in groups:
            blocks.append(_components(groups[file]))
        blocks.append(Facts(_facts(row, groups.get(file))))
        title = f"{file}: {words.class_name(name)}"
        title += ", two components" if row["components"] == 2 else ""
        shown.append(Section(title, cards[file], blocks, words.CLASS_COLOURS[name]))
    return [Section("Candidates", "candidates", [], cards=shown)]


def reading_section() -> Section:
    return Section("How to read this", "reading", [Text(text) for text in words.HOW_TO_READ])


def warnings_section(warnings: Sequence[str]) -> list[Section]:
    unique = list(dict.fromkeys(warnings))
    return [Section("Warnings", "warnings", [Notes(unique)])] if unique else []


def run_section(
    folder: Path, settings: Mapping[str, object], seconds: Mapping[str, float], spectra: int
) -> Section:
    rows = [[Cell(name, name), Cell(words.FILES[name])] for name in words.files_in(folder)]
    blocks: list[Block] = [Table(["file", "what it holds"], rows)]
    if settings:
        blocks.append(Facts([(name, str(value)) for name, value in settings.items()]))
    if seconds:
        steps = [
            [Cell(name), Cell(f"{taken:.2f}"), Cell(f"{spectra / max(taken, 1e-9):,.0f}")]
            for name, taken in seconds.items()
        ]
        head = ["step", "seconds", "spectra/s"]
        blocks.append(Table(head, steps, frozenset(head[1:])))
    return Section("Files and settings", "run", blocks)


def _limit(row: Row, short: str) -> str:
    return {"upper": "< ", "lower": "> "}.get(str(row[f"{short}_limit"]), "")


def _ratio(row: Row, short: str) -> str:
    """'-0.22 ± 0.01', or a limit."""
    value = float(row[f"log_{short}"])
    if _limit(row, short):
        return f"{_limit(row, short)}{value:.2f}"
    return words.measured(value, float(row[f"log_{short}_err"]))


def _facts(row: Row, lines: pd.DataFrame | None) -> list[tuple[str, str]]:
    network = ""
    if row["network_class"]:
        network = f"{row['network_class']}, {words.chance(float(row['p_network']))} sure"
        network += f"; two components {words.chance(float(row['p_network_two']))}"
    facts = [
        ("Class by line ratios", row["bpt_class"] or "not known: a line is too weak or missing"),
        ("Class by the network", network),
        ("Redshift", words.plain(row["redshift"], 6)),
        ("Components", str(row["components"])),
        ("Log evidence ratio", words.plain(row["log_evidence_ratio"], 1)),
        ("p two", words.chance(row["p_two"])),
        ("Reduced chi²", words.plain(row["chi2_reduced"])),
        ("log [N II] 6583 / Hα", _ratio(row, "nii_ha")),
        ("log [O III] 5007 / Hβ", _ratio(row, "oiii_hb")),
        ("Apart in velocity", _apart(lines)),
        ("Flags", str(row["flags"]).replace(";", "; ")),
    ]
    return [(name, text) for name, text in facts if text]


def _apart(lines: pd.DataFrame | None) -> str:
    """Velocity of component 2 less that of component 1, with its error; "" without a pair."""
    if lines is None:
        return ""
    rows = {str(row["component"]): row for row in lines.to_dict("records")}
    if not {"1", "2"} <= set(rows):
        return ""
    first, second = rows["1"], rows["2"]
    error = np.hypot(first["velocity_err_km_s"], second["velocity_err_km_s"])
    apart = float(second["velocity_km_s"] - first["velocity_km_s"])
    return f"{words.measured(apart, float(error))} km/s"


def _components(lines: pd.DataFrame) -> Table:
    """A column for each component of one file; rows of velocity, width and the lines' fluxes."""
    cells = {(str(row["component"]), row["line"]): row for row in lines.to_dict("records")}
    components = sorted({component for component, _ in cells})
    first = {component: row for (component, _), row in reversed(list(cells.items()))}
    rows = [
        [Cell(title), *(Cell(_with_error(first[one], name, "_km_s")) for one in components)]
        for title, name in (("velocity (km/s)", "velocity"), ("sigma (km/s)", "sigma"))
    ]
    for line in dict.fromkeys(lines["line"]):
        texts = [_with_error(cells[one, line], "flux") if (one, line) in cells else ""
                 for one in components]  # fmt: skip
        rows.append([Cell(f"flux {line}"), *map(Cell, texts)])
    head = ["", *(f"component {one}" if one != "broad" else one for one in components)]
    return Table(head, rows, frozenset(head[1:]))


def _with_error(row: Row, name: str, unit: str = "") -> str:
    return words.measured(float(row[f"{name}{unit}"]), float(row[f"{name}_err{unit}"]))


def _key(curve: Curve) -> str:
    """What the colours of a card's picture stand for."""
    words = {"1": "component 1 blue", "2": "component 2 yellow", "broad": "the broad one pink"}
    parts = [words.get(name, f"component {name} plain") for name, _ in curve.components]
    return f"Data as steps, model orange, {', '.join(parts)}, continuum dashed."
