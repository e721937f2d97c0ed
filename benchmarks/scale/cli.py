"""One model over processes: losses, step times, traffic and checkpoints of every layout."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import page
from benchmarks.options import parts_of
from benchmarks.page import Table
from benchmarks.scale.work import layouts
from warte.cli.common import Report
from warte.cli.common import progress as bars

PARTS = ("losses", "steps", "network", "checkpoints")
LAUNCHERS = ("local", "torchrun", "mpiexec")
LIMIT_S = 1800  # for one start of processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m benchmarks scale`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="two processes, not four")
    add(
        "--only",
        type=parts_of(PARTS),
        default=PARTS,
        metavar="A,B",
        help=f"parts of {','.join(PARTS)}",
    )
    add("--markdown", type=Path, metavar="FILE", help="put the tables between markers in FILE")
    add("--quiet", action="store_true", help="no progress on stderr")


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen parts, print their tables, write what was asked for; 0."""
    sizes = (2,) if chosen.quick else (2, 4)
    tables = []
    with bars(chosen.quiet) as report:
        if "losses" in chosen.only:
            tables.append(_losses(sizes, report))
        if "steps" in chosen.only:
            tables.append(_steps(sizes, report))
        if "network" in chosen.only:
            tables.append(_network(sizes, report))
        if "checkpoints" in chosen.only:
            tables.append(_checkpoints(sizes, report))
    print(page.machine())
    page.print_tables(tables)
    if chosen.markdown:
        command = "python -m benchmarks scale" + (" --quick" if chosen.quick else "")
        heading = f"## Measured\n\n`{command}`.\nMeasured on: {page.machine()}."
        page.write_markdown(chosen.markdown, page.markdown(tables, heading), "scale")
        print(f"written: {chosen.markdown}")
    return 0


def _start(task: str, processes: int, launcher: str, folder: Path) -> dict[str, Any]:
    """Do a task of `benchmarks.scale.work` in processes that a launcher starts."""
    words = ["-m", "benchmarks.scale.work", task, str(processes), str(folder)]
    start = {
        "local": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone",
                     "--nproc-per-node", str(processes)],
        "mpiexec": [str(Path(sys.executable).with_name("mpiexec")), "-n", str(processes),
                    sys.executable],
    }[launcher]  # fmt: skip
    done = subprocess.run(
        [*start, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{task} on {processes} processes by {launcher}:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


def _losses(sizes: Sequence[int], report: Report) -> Table:
    """The largest difference from the losses of one process."""
    rows = []
    starts = [(size, launcher) for size in sizes for launcher in LAUNCHERS]
    with tempfile.TemporaryDirectory() as folder:
        alone = _start("losses", 1, "local", Path(folder))["single"]
        for done, (size, launcher) in enumerate(starts):
            report("losses", done, len(starts))
            for name, found in _start("losses", size, launcher, Path(folder)).items():
                away = {kind: _away(values, alone[kind]) for kind, values in found.items()}
                rows.append({"processes": size, "layout": name, "started by": launcher, **away})
        report("losses", len(starts), len(starts))
    table = pd.DataFrame(rows).pivot(
        index=["processes", "layout"], columns="started by", values=["float64", "float32"]
    )
    table.columns = [f"{kind}, {launcher}" for kind, launcher in table.columns]
    order = [(size, name) for size in sizes for name in layouts(size)]
    return Table(
        "Losses: largest difference from one process in 20 steps",
        table.loc[order].reset_index(),
        "A U-Net of four levels, 16 pictures in a batch, AdamW, clipped gradients; most pixels of "
        "some pictures have no label. Asked for are 1e-6.",
    )


def _away(values: Sequence[float], truth: Sequence[float]) -> float:
    assert len(values) == len(truth)
    return float(np.abs(np.array(values) - np.array(truth)).max())


def _steps(sizes: Sequence[int], report: Report) -> Table:
    """Time and traffic of a step."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for done, size in enumerate((1, *sizes)):
            report("steps", done, len(sizes) + 1)
            for name, found in _start("steps", size, "torchrun", Path(folder)).items():
                first = rows[0] if rows else None
                core, wall = found["core"] * 1e3, found["wall"] * 1e3
                rows.append(
                    {
                        "processes": size,
                        "layout": name,
                        "step (ms)": round(wall),
                        "core time of all (ms)": round(core),
                        "efficiency, clock": _ratio(first, "step (ms)", wall * size),
                        "efficiency, core time": _ratio(first, "core time of all (ms)", core),
                        "sent (kB)": found["sent"] / 1e3,
                        "sent, formula (kB)": found["expected"] / 1e3,
                    }
                )
        report("steps", len(sizes) + 1, len(sizes) + 1)
    return Table(
        "A step: time, efficiency and bytes sent by each process",
        pd.DataFrame(rows),
        "The network for a laptop (0.75 million weights), a global batch of 16 pictures of 64 x "
        "64 pixels, float32, one thread in each process, by torchrun. The clock counts cores that "
        "are shared, and the waiting of a pipeline; core time counts work alone, so its "
        "efficiency is what the additional work of a layout leaves. Bytes are counted from the "
        "operations of torch.distributed, as if collectives went round a ring, on average of "
        "the processes.",
    )


def _ratio(first: dict[str, Any] | None, name: str, value: float) -> float:
    return 1.0 if first is None else round(first[name] / value, 2)


def _network(sizes: Sequence[int], report: Report) -> Table:
    """How long an all-reduce takes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for done, size in enumerate(sizes):
            report("network", done, len(sizes))
            for count, seconds in _start("network", size, "torchrun", Path(folder)).items():
                sent = 2 * (size - 1) / size * int(count)
                rows.append(
                    {
                        "processes": size,
                        "all-reduce of (kB)": int(count) / 1e3,
                        "time (ms)": seconds * 1e3,
                        "sent by each (MB/s)": round(sent / seconds / 1e6, 1),
                    }
                )
        report("network", len(sizes), len(sizes))
    return Table(
        "An all-reduce between processes of one machine",
        pd.DataFrame(rows),
        "Gloo on the CPU, through the network of the machine itself; copies included.",
    )


def _checkpoints(sizes: Sequence[int], report: Report) -> Table:
    """Each layout's checkpoint gone on from in each layout."""
    everything: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        saved = Path(name)
        total = 2 * (len(sizes) + 1)
        for done, (task, size) in enumerate(
            (task, size) for task in ("save", "load") for size in (1, *sizes)
        ):
            report("checkpoints", done, total)
            everything |= _start(task, size, "local", saved)
        report("checkpoints", total, total)
    truth = everything["1 single > 1 single"]
    rows: dict[str, dict[str, float]] = {}
    for pair, values in everything.items():
        origin, target = pair.split(" > ")
        rows.setdefault(origin, {})[target] = _away(values, truth)
    order = [f"{size} {name}" for size in (1, *sizes) for name in layouts(size)]
    table = pd.DataFrame(
        [
            {
                "saved in": origin,
                "layouts it was loaded in": len(rows[origin]),
                "largest difference of a loss": max(rows[origin].values()),
            }
            for origin in order
        ]
    )
    return Table(
        "Checkpoints: saved in each layout, loaded in every one",
        table,
        f"{len(order)} layouts on {', '.join(map(str, (1, *sizes)))} processes, each checkpoint "
        "taken after 4 steps and gone on from for 4 more, float64; differences from one process.",
    )
