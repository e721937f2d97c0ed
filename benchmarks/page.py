"""What a benchmark prints: tables on the screen and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from warte.core.score import wilson_interval


def markers(name: str) -> tuple[str, str]:
    """The comments between which the section of a benchmark stands."""
    return (
        f"<!-- python -m benchmarks {name}: begin -->",
        f"<!-- python -m benchmarks {name}: end -->",
    )


@dataclass(frozen=True)
class Table:
    """One table with its title and what has to be known to read it."""

    title: str
    rows: pd.DataFrame
    note: str = ""


def rate(hits: int, trials: int) -> str:
    """A rate with its 95 % Wilson interval, as '0.95 (0.83-0.99)'; '-' without trials."""
    if trials == 0:
        return "-"
    low, high = wilson_interval(hits, trials)
    return f"{hits / trials:.2f} ({low:.2f}-{high:.2f})"


def machine() -> str:
    """One line: processor, cores, system, and the versions that decide the speed."""
    import torch

    return (
        f"{_processor()}, {cores()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__} "
        f"on {torch.get_num_threads()} threads"
    )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def print_tables(tables: Sequence[Table]) -> None:
    """Print the tables for people."""
    from warte.cli.common import print_result

    for table in tables:
        print(f"\n{table.title}")
        print_result(table.rows, False)
        if table.note:
            print(table.note)


def markdown(tables: Sequence[Table], heading: str) -> str:
    """The tables as one Markdown section."""
    parts = [heading]
    for table in tables:
        head = [str(name) for name in table.rows.columns]
        lines = [_line(head), _line(["---"] * len(head))]
        lines += [_line([_cell(value) for value in row]) for row in table.rows.to_numpy()]
        parts += [f"### {table.title}", "\n".join(lines)]
        parts += [table.note] if table.note else []
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def write_markdown(path: Path, section: str, name: str) -> None:
    """Put the section between its markers in a file; the file is made where there is none.

    Raises ValueError for a file with only one of the markers.
    """
    begin, end = markers(name)
    old = path.read_text(encoding="utf-8") if path.exists() else f"# Benchmarks\n\n{begin}\n{end}\n"
    if (begin in old) != (end in old):
        raise ValueError(f"{path} has one of the two markers only: {begin}, {end}")
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = old.split(begin, 1)
    after = rest.split(end, 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n\n{section}\n{end}{after}", encoding="utf-8")
