"""Matrix factorisation: Warte, scikit-learn, torchnmf and NonnegMFPy from the same start."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import page
from benchmarks.nmf import holes, picture, spread
from benchmarks.nmf.cases import RACES, Progress, run_race
from benchmarks.nmf.race import Curve
from benchmarks.options import parts_of, positive
from benchmarks.page import Table
from warte.cli.common import progress as bars

PARTS = ("frobenius", "kl", "weighted", "hidden", "nearly", "distributed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m benchmarks nmf`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="small and short: a look, not a measurement")
    add(
        "--only",
        type=parts_of(PARTS),
        default=PARTS,
        metavar="A,B",
        help=f"parts of {','.join(PARTS)}",
    )
    add("--threads", type=_numbers, default=(1, 2), metavar="N,N", help="threads to race on (1,2)")
    add("--repeats", type=positive, help="seeds of each part (3; quick: 1)")
    add("--limit", type=_seconds, metavar="S", help="seconds to watch each program in a race")
    add("--markdown", type=Path, metavar="FILE", help="put the tables between markers in FILE")
    add("--picture", type=Path, metavar="FILE", help="draw the races: loss against time")
    add("--json", type=Path, metavar="FILE", help="write the laps of the races")
    add("--quiet", action="store_true", help="no progress on stderr")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return number


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen parts, print their tables, write what was asked for; 0."""
    races = {race.name for race in RACES}
    if (chosen.picture or chosen.json) and not races & set(chosen.only):
        raise SystemExit(f"--picture and --json need a race; add one of {', '.join(sorted(races))}")
    repeats = chosen.repeats or (1 if chosen.quick else 3)
    with bars(chosen.quiet) as progress:
        tables, curves = _measure(chosen, repeats, progress)
    print(page.machine())
    page.print_tables(tables)
    if chosen.markdown:
        section = page.markdown(tables, _heading(chosen, repeats))
        page.write_markdown(chosen.markdown, section, "nmf")
        print(f"written: {chosen.markdown}")
    if chosen.picture:
        picture.draw(chosen.picture, curves, {race.name: race.target for race in RACES})
        print(f"written: {chosen.picture}")
    if chosen.json:
        picture.write_json(chosen.json, curves)
        print(f"written: {chosen.json}")
    return 0


def _measure(
    chosen: argparse.Namespace, repeats: int, progress: Progress
) -> tuple[list[Table], list[Curve]]:
    tables: list[Table] = []
    curves: list[Curve] = []
    seeds = list(range(repeats))
    for race in RACES:
        if race.name not in chosen.only:
            continue
        table, found = run_race(
            race,
            quick=chosen.quick,
            threads=chosen.threads,
            seeds=seeds,
            limit_s=chosen.limit,
            progress=progress,
        )
        tables.append(table)
        curves += found
    if "hidden" in chosen.only:
        tables.append(holes.hidden_table(chosen.quick, seeds))
    if "nearly" in chosen.only:
        tables.append(holes.doublet_table())
    if "distributed" in chosen.only:
        tables.append(spread.distributed_table(chosen.quick, repeats))
    return tables, curves


def _heading(chosen: argparse.Namespace, repeats: int) -> str:
    command = "python -m benchmarks nmf" + (" --quick" if chosen.quick else "")
    if chosen.only != PARTS:
        command += f" --only {','.join(chosen.only)}"
    return (
        f"## Matrix factorisation\n\n`{command}`, {repeats} seeds, threads: "
        f"{', '.join(map(str, chosen.threads))}.\nMeasured on: {page.machine()}."
    )
