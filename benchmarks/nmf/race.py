"""Races: time until the loss lies within a target of the best that any program found."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from benchmarks.clock import on_threads
from benchmarks.nmf.data import Problem
from benchmarks.nmf.programs import Finished, MissingPeer, Program

# Rows of the model that are built at a time for a loss.
BLOCK = 512
# A run has settled when its last third gained less than this share of the target.
SETTLED = 0.1
MIN_LAPS = 30


@dataclass(frozen=True)
class Entrant:
    """One program in a race, and how many times later than Warte it is wanted to be."""

    name: str
    program: Program
    wanted: float | None = None


@dataclass
class Curve:
    """One run: laps (seconds, iterations, loss), and what each iteration took (milliseconds)."""

    race: str
    problem: str
    program: str
    threads: int
    seed: int
    laps: list[tuple[float, int, float]] = field(default_factory=list)
    iteration_ms: float = float("nan")
    missing: str = ""

    def best(self) -> float:
        """The least loss of the run; infinite where it has none."""
        return min((loss for _, _, loss in self.laps), default=float("inf"))

    def reached(self, level: float) -> tuple[float, int] | None:
        """Seconds and iterations until the loss is at most this level, or None."""
        found = ((lap[0], lap[1]) for lap in self.laps if lap[2] <= level)
        return next(found, None)


def divergence(problem: Problem, beta: int, w: Tensor, h: Tensor) -> float:
    """The loss in double precision: half the (weighted) squared distance, or Kullback-Leibler."""
    w, h, loss = w.double(), h.double(), 0.0
    for first in range(0, len(w), BLOCK):
        x, y = problem.x[first : first + BLOCK].double(), w[first : first + BLOCK] @ h
        if beta == 1:
            y.clamp_(min=1e-300)
            loss += float((torch.xlogy(x, x / y) - x + y).sum())
        elif problem.weights is None:
            loss += float((x - y).square_().sum()) / 2
        else:
            weights = problem.weights[first : first + BLOCK].double()
            loss += float((x - y).square_().mul_(weights).sum()) / 2
    return loss


class Clock:
    """Times a run; what the loss takes is left out."""

    def __init__(self, problem: Problem, beta: int, target: float, limit_s: float) -> None:
        self.problem, self.beta, self.target, self.limit_s = problem, beta, target, limit_s
        self.laps = [(0.0, 0, divergence(problem, beta, problem.w, problem.h))]
        self.seconds, self.next = 0.0, 1
        self.each: list[float] = []
        self.last = 0
        self.started = time.perf_counter()

    def lap(self, done: int, w: Tensor, h: Tensor) -> None:
        """Stop the clock, note the loss now and then, and go on or raise Finished."""
        passed = time.perf_counter() - self.started
        self.seconds += passed
        self.each.append(1e3 * passed / (done - self.last))
        self.last = done
        over = self.seconds > self.limit_s
        if done >= self.next or over:
            self.laps.append((self.seconds, done, divergence(self.problem, self.beta, w, h)))
            # Every iteration at first, then every twentieth part more.
            self.next = done + max(1, done // 20)
            if over or self._settled():
                raise Finished
        self.started = time.perf_counter()

    def _settled(self) -> bool:
        if len(self.laps) < MIN_LAPS:
            return False
        now = self.laps[-1]
        before = next(loss for seconds, _, loss in self.laps if seconds >= 2 / 3 * now[0])
        return before - now[2] < SETTLED * self.target * now[2]


def run_one(
    race: str,
    entrant: Entrant,
    problem: Problem,
    *,
    beta: int,
    target: float,
    limit_s: float,
    threads: int,
    seed: int,
) -> Curve:
    """One program on one problem."""
    curve = Curve(race, problem.name, entrant.name, threads, seed)
    with on_threads(threads), torch.no_grad():
        clock = Clock(problem, beta, target, limit_s)
        clock.started = time.perf_counter()
        try:
            entrant.program(problem, clock.lap)
        except Finished:
            curve.laps, curve.iteration_ms = clock.laps, statistics.median(clock.each)
        except MissingPeer as reason:
            curve.missing = str(reason)
    return curve


def summary(curves: Sequence[Curve], entrants: Sequence[Entrant], target: float) -> pd.DataFrame:
    """One row for each problem, number of threads and program: medians over the seeds.

    The first entrant is Warte's; `times Warte` is the median of the ratios of each seed.
    """
    best: dict[tuple[str, int], float] = {}
    for curve in curves:
        key = (curve.problem, curve.seed)
        best[key] = min(best.get(key, float("inf")), curve.best())
    rows = []
    for problem in dict.fromkeys(curve.problem for curve in curves):
        for threads in dict.fromkeys(curve.threads for curve in curves):
            here = [c for c in curves if (c.problem, c.threads) == (problem, threads)]
            own = {c.seed: c for c in here if c.program == entrants[0].name}
            for entrant in entrants:
                runs = [c for c in here if c.program == entrant.name]
                rows.append(_row(entrant, runs, own, best, target))
    return pd.DataFrame(rows)


def _row(
    entrant: Entrant,
    runs: Sequence[Curve],
    own: dict[int, Curve],
    best: dict[tuple[str, int], float],
    target: float,
) -> dict[str, object]:
    times, laps, ratios, reached = [], [], [], 0
    for curve in runs:
        if curve.missing:
            continue
        level = best[curve.problem, curve.seed] * (1.0 + target)
        found, ours = curve.reached(level), own[curve.seed].reached(level)
        reached += found is not None
        # A run that did not get there took at least as long as it was watched.
        seconds, iterations = found or (curve.laps[-1][0], curve.laps[-1][1])
        times.append(seconds)
        laps.append(iterations)
        if ours is not None:
            ratios.append(seconds / ours[0])
    more = "" if reached == len(runs) else "> "
    row: dict[str, object] = {
        "problem": runs[0].problem,
        "threads": runs[0].threads,
        "program": entrant.name,
    }
    if not times:
        return row | {"seconds to target": f"not measured: {runs[0].missing}"}
    return row | {
        "ms per iteration": f"{statistics.median(c.iteration_ms for c in runs if c.laps):.1f}",
        "iterations": f"{more}{statistics.median(laps):.0f}",
        "seconds to target": f"{more}{statistics.median(times):.2f}",
        "reached": f"{reached} of {len(runs)}",
        "times Warte": f"{more}{statistics.median(ratios):.1f}" if ratios else "-",
        "wanted": "-" if entrant.wanted is None else f"{entrant.wanted:g}",
    }
