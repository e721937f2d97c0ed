"""Galaxy spectra: Warte's fits and network beside lmfit and scipy, and real spectra."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from benchmarks import page
from benchmarks.options import parts_of, positive
from benchmarks.page import Table
from benchmarks.spectra import epochs, errors, network, real, speed, survey, two
from warte.cli.common import Report
from warte.cli.common import progress as bars

PARTS = ("speed", "two", "errors", "epochs", "network", "survey", "real")
SEED = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m benchmarks spectra`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="few spectra: a look, not a measurement")
    add(
        "--only",
        type=parts_of(PARTS),
        default=PARTS,
        metavar="A,B",
        help=f"parts of {','.join(PARTS)}",
    )
    add("--seed", type=_seed, default=SEED, help=f"of all simulated spectra ({SEED})")
    add(
        "--count",
        type=positive,
        metavar="N",
        help=f"spectra whose minima are judged by lmfit ({speed.JUDGED}; quick: "
        f"{speed.QUICK_JUDGED})",
    )
    add("--markdown", type=Path, metavar="FILE", help="put the tables between markers in FILE")
    add("--quiet", action="store_true", help="no progress on stderr")


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is not 0 or more")
    return number


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen parts, print their tables, write what was asked for; 0."""
    with bars(chosen.quiet) as progress:
        tables = _measure(chosen, progress)
    print(page.machine())
    page.print_tables(tables)
    if chosen.markdown:
        page.write_markdown(chosen.markdown, page.markdown(tables, _heading(chosen)), "spectra")
        print(f"written: {chosen.markdown}")
    return 0


def _measure(chosen: argparse.Namespace, progress: Report) -> list[Table]:
    seed, quick = chosen.seed, chosen.quick
    parts: dict[str, Callable[[], list[Table]]] = {
        "speed": lambda: speed.speed_tables(seed, quick, chosen.count, progress),
        "two": lambda: two.two_tables(seed, quick, progress),
        "errors": lambda: errors.error_tables(seed, quick, progress),
        "epochs": lambda: epochs.epoch_tables(quick, progress),
        "network": lambda: network.network_tables(seed, quick, progress),
        "survey": lambda: survey.survey_tables(seed, quick, progress),
        "real": lambda: real.real_tables(progress),
    }
    return [table for name in PARTS if name in chosen.only for table in parts[name]()]


def _heading(chosen: argparse.Namespace) -> str:
    command = "python -m benchmarks spectra" + (" --quick" if chosen.quick else "")
    if chosen.only != PARTS:
        command += f" --only {','.join(chosen.only)}"
    if chosen.count:
        command += f" --count {chosen.count}"
    return (
        f"## Spectra\n\n`{command} --seed {chosen.seed}`, lmfit {version('lmfit')}, SciPy "
        f"{version('scipy')}.\nMeasured on: {page.machine()}."
    )
