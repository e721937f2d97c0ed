"""Parts speed: time of the two-component fit, and how good the minima are that it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.clock import Times, measure, median_times, on_threads
from benchmarks.page import Table
from benchmarks.spectra import peers
from benchmarks.spectra.data import SPEED, THREADS, generator, percent_of, solver_lines
from benchmarks.spectra.peers import PeerFit, Pixels
from warte.cli.common import Report
from warte.spectra.fit import fit
from warte.spectra.fit.fitted import Fitted, fitted, fluxes
from warte.spectra.fit.layout import blue_layout
from warte.spectra.fit.solve import Lines, solve
from warte.spectra.fit.start import starts
from warte.spectra.simulate import simulate_pairs

SPECTRA, QUICK_SPECTRA = 10_000, 200
PEER_SPECTRA, QUICK_PEER_SPECTRA = 50, 4
JUDGED, QUICK_JUDGED = 200, 6
STARTS, QUICK_STARTS = 20, 4
WITHIN = 0.05  # of chi-square
WANTED_US = 400.0  # core time of one fit
PAIRS = (
    "two components: separation 200-600 km/s, widths 60-200 km/s, flux ratio 0.3-1, peak S/N 10-50"
)
WARTE = "Warte, two components"
USUAL, RESIDUAL, MINPACK = (
    "lmfit, composite model",
    "lmfit, residual by hand",
    "scipy LM, analytic Jacobian",
)
TWO = peers.Shape(2)
PROGRAMS: dict[str, Callable[[Pixels], PeerFit]] = {
    USUAL: lambda one: peers.lmfit_composite(one, peers.usual_start(one, TWO)),
    RESIDUAL: lambda one: peers.lmfit_residual(one, TWO, peers.usual_start(one, TWO)),
    MINPACK: lambda one: peers.scipy_jacobian(one, peers.usual_start(one, TWO)),
}


def two_components(lines: Lines) -> Fitted:
    """Warte's fit with two components, from the data alone."""
    layout = blue_layout(2)
    return fitted(layout, solve(layout, lines, starts(layout, lines)))


def speed_tables(seed: int, quick: bool, count: int | None, progress: Report) -> list[Table]:
    """Times, then the minima."""
    return [_times(seed, quick, progress), _minima(seed, quick, count, progress)]


def _times(seed: int, quick: bool, progress: Report) -> Table:
    number = QUICK_SPECTRA if quick else SPECTRA
    repeats = 1 if quick else 3
    pairs = simulate_pairs(number, generator(seed, SPEED, 0))
    spectra = pairs.spectra()
    lines, _ = solver_lines(pairs)
    some = slice(0, QUICK_PEER_SPECTRA if quick else PEER_SPECTRA)
    two_components(lines.take(slice(0, 256)))  # warm
    rows: list[dict[str, object]] = []
    steps = 3 + len(PROGRAMS)
    for step, threads in enumerate((THREADS, 1)):
        progress("speed", step, steps)
        with on_threads(threads):
            took = median_times(lambda: two_components(lines), repeats)
        rows.append(_row(WARTE, threads, [took], number))
    own = 1e6 * took.core / number  # on one thread
    for step, (name, program) in enumerate(PROGRAMS.items(), 2):
        progress("speed", step, steps)
        with on_threads(1):
            each = [measure(partial(program, one)) for one in peers.pixels_of(lines.take(some))]
        rows.append(_row(name, 1, each, 1))
    progress("speed", steps - 1, steps)
    with on_threads(THREADS):
        took = median_times(lambda: fit(spectra), 1)
    rows.append(_row("Warte, the whole of `fit`", THREADS, [took], number))
    progress("speed", steps, steps)
    for row in rows:
        row["times Warte"] = f"{float(str(row['core us per fit'])) / own:.1f}"
        row["wanted"] = f"{WANTED_US:.0f} us or less" if row["program"] == WARTE else "-"
    return Table(
        "Speed: H-beta and [O III] with two components, 10 parameters",
        pd.DataFrame(rows),
        f"{number} simulated spectra of {lines.flux.shape[1]} pixels, {PAIRS}; seed {seed}. Warte: "
        f"from pixels in memory, its own starts included, median of {repeats} runs; wanted: 10,000 "
        "in 2 s on two threads. The peers: one usual start each, median and mean over the spectra, "
        "the ratio by the median. `fit` makes spectra into tables with up to four models each: one "
        "and two components, with a broad H-beta and without.",
    )


def _row(name: str, threads: int, runs: Sequence[Times], number: int) -> dict[str, object]:
    """One program; runs of `number` fits each."""
    core = [1e6 * run.core / number for run in runs]
    wall = float(np.median([run.wall for run in runs])) / number
    return {
        "program": name,
        "threads": threads,
        "fits": number * len(runs),
        "s per 10,000": f"{1e4 * wall:.2f}",
        "core us per fit": f"{np.median(core):.0f}",
        "mean": f"{np.mean(core):.0f}",
    }


def _minima(seed: int, quick: bool, count: int | None, progress: Report) -> Table:
    """How often each program finds the best chi-square, and pairs with a negative amplitude."""
    number = count or (QUICK_JUDGED if quick else JUDGED)
    tries = QUICK_STARTS if quick else STARTS
    doubles, _ = solver_lines(simulate_pairs(number, generator(seed, SPEED, 1)))
    singles, _ = solver_lines(simulate_pairs(number, generator(seed, SPEED, 2), components=1))
    best = _best(doubles, tries, generator(seed, SPEED, 3), progress)
    rows = []
    for name, chi2, ours, theirs in _found(doubles, singles, progress):
        rows.append(
            {
                "program": name,
                "starts": "its own" if name == WARTE else "1, usual",
                f"within {WITHIN} of the best, %": percent_of(chi2 <= best + WITHIN),
                f"better by {WITHIN}, %": percent_of(chi2 < best - WITHIN),
                "negative amplitude: doubles, %": percent_of(ours),
                "negative amplitude: singles, %": percent_of(theirs),
                "wanted": "99.5, 0, 0" if name == WARTE else "-",
            }
        )
    return Table(
        f"Minima: chi-square beside the best of {tries} lmfit starts",
        pd.DataFrame(rows),
        f"{number} spectra of {PAIRS}, and {number} of one component; seed {seed}; 95 % Wilson "
        f"intervals. The best of {tries} fits by lmfit (residual by hand) from random starts, "
        "amplitudes not below 0, velocities and widths within Warte's bounds. Negative amplitude: "
        "of either component in [O III]; lmfit's usual fit does not forbid it, and may find a "
        "lower chi-square by it.",
    )


def _best(
    lines: Lines, tries: int, rng: np.random.Generator, progress: Report
) -> npt.NDArray[np.float64]:
    """(N,) least chi-square of so many random starts."""
    found = []
    for done, one in enumerate(peers.pixels_of(lines)):
        progress("minima", done, len(lines))
        starts_of_one = [peers.random_start(one, TWO, rng) for _ in range(tries)]
        found.append(min(peers.lmfit_residual(one, TWO, start).chi2 for start in starts_of_one))
    progress("minima", len(lines), len(lines))
    return np.array(found)


def _found(
    doubles: Lines, singles: Lines, progress: Report
) -> list[tuple[str, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Of each program: chi-square of doubles, and negative amplitudes of doubles and singles."""
    own = [two_components(lines) for lines in (doubles, singles)]
    negative = [np.min([fluxes(one, part)[:, 1] for part in (0, 1)], axis=0) < 0 for one in own]
    rows = [(WARTE, own[0].chi2, *negative)]
    programs = {
        "lmfit, residual by hand, amplitudes >= 0": PROGRAMS[RESIDUAL],
        "lmfit, residual by hand, any amplitude": lambda one: peers.lmfit_residual(
            one, TWO, peers.usual_start(one, TWO), bounded=False
        ),
        MINPACK: PROGRAMS[MINPACK],
    }
    for step, (name, program) in enumerate(programs.items()):
        progress("programs", step, len(programs))
        pair, single = (
            [program(one) for one in peers.pixels_of(lines)] for lines in (doubles, singles)
        )
        signs = [
            np.array([one.values[[5, 7]].min() < 0 for one in some]) for some in (pair, single)
        ]
        rows.append((name, np.array([one.chi2 for one in pair]), *signs))
    progress("programs", len(programs), len(programs))
    return rows
