"""Satellites in night-sky video: Warte and the four-frame recipe on the same clips."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks import page
from benchmarks.options import parts_of, positive
from benchmarks.page import Table
from benchmarks.sky import picture, real, recall, speed
from benchmarks.sky.clips import SEED0
from benchmarks.sky.jobs import PEER, WARTE, WARTE_H264, Outcome, Progress, run_jobs
from warte.cli.common import progress as bars

PARTS = ("faint", "codec", "speed", "errors", "kind", "real")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `python -m benchmarks sky`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="few clips: a look, not a measurement")
    add(
        "--only",
        type=parts_of(PARTS),
        default=PARTS,
        metavar="A,B",
        help=f"parts of {','.join(PARTS)}",
    )
    add(
        "--clips",
        type=positive,
        help="clips for each SNR and series (20; quick: 1), "
        f"{recall.MORE} times as many at SNR {recall.FAINTEST:g}",
    )
    add("--snrs", type=_snrs, metavar="A,B", help="of the parts faint and codec (0.5 to 8)")
    add("--repeats", type=positive, help="timed runs of each speed row (5; quick: 1)")
    add("--seed0", type=_fresh, default=SEED0, help=f"first seed, {SEED0} or more")
    add("--workers", type=positive, default=page.cores(), help="processes (one for each core)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where Warte computes")
    add("--markdown", type=Path, metavar="FILE", help="put the tables between markers in FILE")
    add("--picture", type=Path, metavar="FILE", help="draw recall against SNR; needs part faint")
    add("--quiet", action="store_true", help="no progress on stderr")


def _fresh(text: str) -> int:
    number = int(text)
    if number < SEED0:
        raise argparse.ArgumentTypeError(
            f"{number} may be a seed of training; give {SEED0} or more"
        )
    return number


def _snrs(text: str) -> tuple[float, ...]:
    try:
        snrs = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} are not numbers with commas between") from None
    if not 0.1 <= snrs[0] <= snrs[-1] <= 100:
        raise argparse.ArgumentTypeError(f"{text} holds an SNR that is not 0.1 to 100")
    return snrs


def run(chosen: argparse.Namespace) -> int:
    """Run the chosen parts, print their tables, write what was asked for; 0."""
    if chosen.picture and not {"faint", "codec"} & set(chosen.only):
        raise SystemExit("--picture needs the part faint or codec; add one to --only")
    clips = chosen.clips or (1 if chosen.quick else 20)
    with bars(chosen.quiet) as progress:
        tables, outcomes = _measure(chosen, clips, progress)
    print(page.machine())
    page.print_tables(tables)
    if chosen.markdown:
        page.write_markdown(chosen.markdown, page.markdown(tables, _heading(chosen, clips)), "sky")
        print(f"written: {chosen.markdown}")
    if chosen.picture:
        picture.draw_recall(chosen.picture, _curves(outcomes))
        print(f"written: {chosen.picture}")
    return 0


def _measure(
    chosen: argparse.Namespace, clips: int, progress: Progress
) -> tuple[list[Table], list[Outcome]]:
    seed0, device, only = chosen.seed0, chosen.device, chosen.only
    # On a GPU one process is enough, and two would fight for its memory.
    workers = 1 if device == "cuda" else chosen.workers
    tables: list[Table] = []
    outcomes: list[Outcome] = []
    if "faint" in only or "codec" in only:
        snrs = chosen.snrs or (recall.QUICK_SNRS if chosen.quick else recall.SNRS)
        jobs = recall.faint_jobs(seed0, clips, snrs, "codec" in only, device)
        outcomes = run_jobs(jobs, workers, progress, "faint")
        tables += recall.faint_tables(outcomes) if "faint" in only else []
        tables += recall.codec_tables(outcomes) if "codec" in only else []
    if "errors" in only:
        jobs = recall.error_jobs(seed0, clips, device)
        tables.append(recall.error_table(run_jobs(jobs, workers, progress, "errors")))
    if "kind" in only:
        jobs = recall.kind_jobs(seed0, 2 * clips, device)
        tables += recall.kind_tables(run_jobs(jobs, workers, progress, "kind"))
    if "speed" in only:
        repeats = chosen.repeats or (1 if chosen.quick else 5)
        tables.append(speed.speed_table(seed0, repeats, chosen.quick, device, progress))
        tables.append(speed.memory_table(chosen.quick, progress))
    if "real" in only:
        tables += real.real_tables(seed0, device, progress)
    return tables, outcomes


def _curves(outcomes: Sequence[Outcome]) -> dict[str, pd.DataFrame]:
    """Curves of the recall picture, without those that were not measured."""
    wanted = {
        "Warte, lossless": recall.curve(outcomes, WARTE, 1.0),
        "Warte, after 8-bit H.264": recall.curve(outcomes, WARTE_H264, 1.0),
        "four-frame recipe, lossless": recall.curve(outcomes, PEER, 1.0),
    }
    return {name: table for name, table in wanted.items() if len(table)}


def _heading(chosen: argparse.Namespace, clips: int) -> str:
    command = "python -m benchmarks sky" + (" --quick" if chosen.quick else "")
    if chosen.only != PARTS:
        command += f" --only {','.join(chosen.only)}"
    if chosen.snrs:
        command += f" --snrs {','.join(f'{snr:g}' for snr in chosen.snrs)}"
    if chosen.clips:
        command += f" --clips {chosen.clips}"
    return (
        f"## Sky\n\n`{command}`, {clips} clips for each SNR and series, {recall.MORE} times "
        f"as many at SNR {recall.FAINTEST:g}, seeds from {chosen.seed0} up.\n"
        f"Measured on: {page.machine()}."
    )
