"""Part distributed: the same fit with its rows in one process and in two."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.nmf.data import QUICK_SHAPE, SHAPE
from benchmarks.page import Table

PROCESSES = (1, 2)
ITERATIONS = 30
ROOT = Path(__file__).parents[2]


def launch(processes: int, shape: tuple[int, int], beta: int) -> dict[str, Any]:
    """Seconds, loss and solver of one run by torchrun; processes of one thread each.

    Raises subprocess.CalledProcessError where the run fails.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={processes}", "-m", "benchmarks.nmf.rows"),
        *(str(number) for number in (*shape, beta, ITERATIONS)),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


def distributed_table(quick: bool, repeats: int) -> Table:
    """Seconds in one process and in two, and how far the losses are apart."""
    shape = QUICK_SHAPE if quick else SHAPE
    rows = []
    for beta in (2, 1):
        runs = {count: [launch(count, shape, beta) for _ in range(repeats)] for count in PROCESSES}
        one, two = (statistics.median(run["seconds"] for run in runs[c]) for c in PROCESSES)
        losses = [runs[count][0]["loss"] for count in PROCESSES]
        rows.append(
            {
                "solver": runs[1][0]["solver"],
                "one process, s": one,
                "two processes, s": two,
                "gain": one / two,
                "difference of the losses": abs(losses[1] / losses[0] - 1),
                "wanted below": 1e-5,
            }
        )
    note = (
        f"{shape[0]}x{shape[1]}, rank 20, {ITERATIONS} iterations, processes of one thread on one "
        f"machine, started by torchrun; medians of {repeats} runs."
    )
    return Table("Distributed: rows in one process and in two", pd.DataFrame(rows), note)
