"""Satellite pictures: Warte's clusters, anomalies, classes and changes beside peers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks import page
from benchmarks.earth import anomalies, change, clouds, cluster, statlog, whole
from benchmarks.options import parts_of
from benchmarks.page import Table
from warte.cli.common import Report
from warte.cli.common import progress as bars

SEED = 1
# Each makes its tables from the seed, whether it is to be quick, and a function for progress.
PARTS: dict[str, Callable[[int, bool, Report], list[Table]]] = {
    "cluster": cluster.cluster_tables,
    "anomalies": anomalies.anomaly_tables,
    "clouds": clouds.cloud_tables,
    "statlog": statlog.statlog_tables,
    "change": change.change_tables,
    "whole": whole.whole_tables,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m benchmarks earth`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="few seeds: a look, not a measurement")
    add(
        "--only",
        type=parts_of(tuple(PARTS)),
        default=tuple(PARTS),
        metavar="A,B",
        help=f"parts of {','.join(PARTS)}",
    )
    add("--seed", type=int, default=SEED, help=f"of all that is drawn ({SEED})")
    add("--markdown", type=Path, metavar="FILE", help="put each part between its markers in FILE")
    add("--quiet", action="store_true", help="no progress on stderr")


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen parts, print their tables, write what was asked for; 0."""
    print(page.machine())
    for name in chosen.only:
        with bars(chosen.quiet) as progress:
            tables = PARTS[name](chosen.seed, chosen.quick, progress)
        if not tables:
            print(f"\n{name}: its data are not here")
            continue
        page.print_tables(tables)
        if chosen.markdown:
            section = page.markdown(tables, _heading(name, chosen))
            page.write_markdown(chosen.markdown, section, f"earth --only {name}")
            print(f"written: {chosen.markdown}")
    return 0


def _heading(name: str, chosen: argparse.Namespace) -> str:
    command = f"python -m benchmarks earth --only {name} --seed {chosen.seed}"
    command += " --quick" if chosen.quick else ""
    return (
        f"## Earth: {name}\n\n`{command}`, scikit-learn {version('scikit-learn')}, PyTorch "
        f"{version('torch')}.\nMeasured on: {page.machine()}."
    )
