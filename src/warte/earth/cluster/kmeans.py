"""k-means: Lloyd's passes over all pixels, from starts on a sample.

The nearest centre is found in float32 and, wherever rounding could change the answer, again in
float64 in a fixed order. Sums are exact (see `store`). So the centres are the same bit by bit
whatever the windows and the number of processes.

Starts: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007, each
centre the best of several candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from warte.earth.cluster.ranks import Alone, Ranks
from warte.earth.cluster.store import (
    ROWS,
    Float32Array,
    Float64Array,
    Frame,
    Int64Array,
    Vectors,
    group_sums,
    means_of,
    square_sums,
)

Assign = Callable[[Float32Array], npt.NDArray[np.intp]]  # centred vectors to groups from 0
Passes = Callable[[], Iterable[Vectors]]  # all vectors of this process, anew at each call

SAMPLE_ITERATIONS = 100  # of a start on the sample
FINALISTS = 3  # starts that are tried with all pixels
SAME = 1e-3  # starts whose objectives on the sample are nearer (relative) count as one
TRIAL_PASSES = 5  # with all pixels, before the best goes on
ROUNDING = 2.0**-24  # of float32, relative


@dataclass(frozen=True)
class Nearest:
    """The nearest centre of each vector; of centres equally near, the first.

    centres: (k, columns) float64, less the frame's middle. weights: (columns,) of squared
    differences.
    """

    centres: Float64Array
    weights: Float64Array

    def __call__(self, x: Float32Array) -> npt.NDArray[np.intp]:
        """Groups (n,) of vectors (columns, n) that are centred already."""
        k = len(self.centres)
        slopes = (-2 * self.weights * self.centres).astype(np.float32)
        constants = (self.weights * self.centres**2).sum(axis=1)
        # Squared distances less what is the same for all centres.
        far = slopes @ x
        far += constants.astype(np.float32)[:, None]
        reach = np.maximum(x.max(axis=1, initial=0), -x.min(axis=1, initial=0))
        largest = float((np.abs(slopes) @ reach).max() + constants.max())
        doubt = np.float32(2 * ROUNDING * (len(x) + 6) * largest)
        # Which centres could be the nearest; mostly one.
        close = (far <= far.min(axis=0) + doubt).view(np.uint8)
        groups = np.add.reduce(close * np.arange(k, dtype=np.uint8)[:, None], axis=0, dtype="u1")
        several = np.flatnonzero(np.add.reduce(close[:-1], axis=0, dtype="u1") + close[-1] != 1)
        found = groups.astype(np.intp)
        if len(several):
            found[several] = self.distances(x[:, several]).argmin(axis=0)
        return found

    def distances(self, x: Float32Array) -> Float64Array:
        """Squared distances (k, n), added up band by band, always in the same order."""
        exact = x.astype(np.float64)
        total = np.zeros((len(self.centres), x.shape[1]))
        for band, weight in enumerate(self.weights):
            if weight:
                total += weight * np.square(exact[band] - self.centres[:, band, None])
        return total


@dataclass(frozen=True)
class Found:
    """Centres (k, columns) less the middle, of k-means; sums as `group_sums` gives them.

    The sums are of the vectors nearest to these centres; the centres were their means, but for
    the last, small step. objective: sum of squared distances to the centres.
    """

    centres: Float64Array
    sums: Int64Array
    objective: float
    iterations: int
    converged: bool


def tally(frame: Frame, vectors: Iterable[Vectors], assign: Assign, k: int) -> Int64Array:
    """`group_sums` of all vectors, each in the group that `assign` gives it."""
    total = np.zeros((k, 1 + len(frame.middle)), np.int64)
    for some in vectors:
        centred = frame.centred(some.values)
        total += group_sums(frame, centred, some.counts, assign(centred), k)
    return total


@dataclass
class Tally:
    """`tally` of pass after pass, in which only what changes its group is added up again.

    That is exact, as sums are of whole numbers. vectors come in the same order in each pass.
    groups: a file for the group of each vector, a byte for each.
    """

    frame: Frame
    passes: Passes
    groups: BinaryIO
    sums: Int64Array  # (k, 1 + columns), of the last pass

    def again(self, assign: Assign) -> Int64Array:
        """The sums for these groups."""
        self.groups.seek(0)
        for some in self.passes():
            centred = self.frame.centred(some.values)
            self._move(centred, some.counts, assign(centred))
        return self.sums

    def _move(
        self,
        centred: Float32Array,
        counts: npt.NDArray[np.uint32] | None,
        now: npt.NDArray[np.intp],
    ) -> None:
        k, place = len(self.sums), self.groups.tell()
        before = np.frombuffer(self.groups.read(len(now)), np.uint8)
        self.groups.seek(place)
        self.groups.write(now.astype(np.uint8).tobytes())
        if not len(before):  # the first pass
            self.sums = self.sums + group_sums(self.frame, centred, counts, now, k)
            return
        moved = np.flatnonzero(before != now)
        if len(moved):
            some, part = centred[:, moved], None if counts is None else counts[moved]
            self.sums = (
                self.sums
                + group_sums(self.frame, some, part, now[moved], k)
                - group_sums(self.frame, some, part, before[moved].astype(np.intp), k)
            )


def objective_of(
    frame: Frame, centres: Float64Array, sums: Int64Array, squares: Int64Array
) -> float:
    """The sum of squared distances of all vectors to the centres of their groups.

    squares: of all vectors, from `square_sums`. sum (x - c)^2 = sum x^2 - 2 c sum x + n c^2.
    """
    total = np.ldexp(squares.astype(np.float64), -frame.squares.astype(np.int32))
    parts = np.ldexp(sums[:, 1:].astype(np.float64), -frame.bits.astype(np.int32))
    crossed = (sums[:, :1] * centres**2 - 2 * centres * parts).sum(axis=0)
    return max(0.0, math.fsum(frame.weights * (total + crossed)))


def lloyd(
    frame: Frame,
    passes: Passes,
    centres: Float64Array,
    *,
    iterations: int,
    tolerance: float,
    spare: Float32Array,
    groups: BinaryIO,
    ranks: Ranks | None = None,
    report: Callable[[int], None] | None = None,
) -> Found:
    """Lloyd's algorithm from given centres (k, columns) less the middle.

    Args:
        passes: the vectors of this process.
        iterations: at most; a last pass finds the groups of the last centres.
        tolerance: stop when the sum of squared steps of the centres is below this share of the
            mean variance of the bands.
        spare: (columns, n) centred vectors, of which the farthest replace centres without pixels.
        groups: an empty file, for the group of each vector of this process.
        report: called with the iterations done.
    """
    ranks = ranks or Alone()
    k = len(centres)
    squares = ranks.sum(square_sums(frame, iter(passes())))
    nearest = Nearest(centres, frame.weights)
    own = Tally(frame, passes, groups, np.zeros((k, 1 + len(frame.middle)), np.int64))
    sums = ranks.sum(own.again(nearest))
    allowed = tolerance * _mean_variance(frame, sums, squares)
    done, converged = 0, False
    while done < iterations and not converged:
        fresh = _filled(means_of(frame, sums), nearest, spare)
        step = float((frame.weights * (fresh - nearest.centres) ** 2).sum())
        nearest = replace(nearest, centres=fresh)
        sums = ranks.sum(own.again(nearest))
        done, converged = done + 1, step <= allowed
        if report is not None:
            report(done)
    objective = objective_of(frame, nearest.centres, sums, squares)
    return Found(nearest.centres, sums, objective, done, converged)


def _mean_variance(frame: Frame, sums: Int64Array, squares: Int64Array) -> float:
    count = int(sums[:, 0].sum())
    mean = np.ldexp(sums[:, 1:].sum(axis=0).astype(np.float64), -frame.bits.astype("i4")) / count
    square = np.ldexp(squares.astype(np.float64), -frame.squares.astype("i4")) / count
    used = frame.weights > 0
    return float((frame.weights * (square - mean**2))[used].mean())


def _filled(means: Float64Array, nearest: Nearest, spare: Float32Array) -> Float64Array:
    """The means, with the vectors farthest from their centres in place of missing ones."""
    empty = np.flatnonzero(np.isnan(means[:, 0]))
    if not len(empty):
        return means
    # The centres themselves need a value for the columns that do not count.
    distances = nearest.distances(spare).min(axis=0)
    farthest = np.argsort(-distances, kind="stable")[: len(empty)]
    means[empty[: len(farthest)]] = spare[:, farthest].T
    return means


def start(frame: Frame, sample: Float32Array, k: int, rng: np.random.Generator) -> Float64Array:
    """k-means++ centres (k, columns) among centred vectors (columns, n).

    Raises ValueError where there are fewer than k distinct vectors.
    """
    candidates = 2 + int(math.log(k))
    chosen = [int(rng.integers(sample.shape[1]))]
    nearest = _distances_to(frame, sample, chosen)[0]
    while len(chosen) < k:
        summed = np.cumsum(nearest)
        if summed[-1] <= 0:
            raise ValueError(f"only {len(chosen)} distinct vectors for {k} centres")
        # A draw of exactly 0 must not meet a vector that is a centre already.
        drawn = summed[-1] * (1 - rng.random(candidates))
        places = np.minimum(np.searchsorted(summed, drawn), np.flatnonzero(nearest)[-1])
        closer = np.minimum(nearest, _distances_to(frame, sample, places.tolist()))
        best = int(closer.sum(axis=1).argmin())
        chosen.append(int(places[best]))
        nearest = closer[best]
    return sample[:, chosen].T.astype(np.float64)


def _distances_to(frame: Frame, sample: Float32Array, places: list[int]) -> Float64Array:
    return Nearest(sample[:, places].T.astype(np.float64), frame.weights).distances(sample)


def best_starts(
    frame: Frame,
    sample: Float32Array,
    k: int,
    *,
    seed: int,
    starts: int,
    tolerance: float,
    report: Callable[[str, int, int | None], None] | None = None,
) -> list[Float64Array]:
    """Of several k-means++ starts, the centres that fit a sample (columns, n) best.

    FINALISTS at most, which differ; the best first.

    Raises ValueError where there are fewer than k distinct vectors.
    """
    blocks = [
        Vectors(sample[:, first : first + ROWS], None) for first in range(0, sample.shape[1], ROWS)
    ]
    centred = frame.centred(sample)
    found: list[Found] = []
    for number in range(starts):
        rng = np.random.default_rng([seed, number])
        centres = start(frame, centred, k, rng)
        found.append(
            lloyd(
                frame, lambda: blocks, centres, iterations=SAMPLE_ITERATIONS,
                tolerance=tolerance, spare=centred, groups=BytesIO(),
            )
        )  # fmt: skip
        if report is not None:
            report("starts", number + 1, starts)
    chosen: list[Found] = []
    for one in sorted(found, key=lambda one: one.objective):
        if not chosen or one.objective > (1 + SAME) * chosen[-1].objective:
            chosen.append(one)
    return [one.centres for one in chosen[:FINALISTS]]


def kmeans(
    frame: Frame,
    passes: Passes,
    starts: Sequence[Float64Array],
    *,
    iterations: int,
    tolerance: float,
    spare: Float32Array,
    groups: BinaryIO,
    ranks: Ranks | None = None,
    report: Callable[[int], None] | None = None,
) -> Found:
    """Lloyd's algorithm from the best of several starts, which all get a few passes first.

    The arguments are those of `lloyd`. What fits a sample best need not fit all pixels best.
    """

    def run(centres: Float64Array, most: int, before: int) -> Found:
        groups.truncate(0)
        found = lloyd(
            frame, passes, centres, iterations=most, tolerance=tolerance, spare=spare,
            groups=groups, ranks=ranks,
            report=None if report is None else lambda done: report(before + done),
        )  # fmt: skip
        return replace(found, iterations=before + found.iterations)

    if len(starts) == 1:
        return run(starts[0], iterations, 0)
    trials = [run(centres, min(TRIAL_PASSES, iterations), 0) for centres in starts]
    best = min(trials, key=lambda one: one.objective)
    if best.converged or best.iterations == iterations:
        return best
    return run(best.centres, iterations - best.iterations, best.iterations)
