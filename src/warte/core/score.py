"""Scores of findings against truth: rates with intervals, calibration, confusion of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import gammaincinv

# The share of a normal distribution within one standard deviation.
ONE_SIGMA = 0.6826894921370859


def wilson_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate of which `hits` of `trials` were seen, as fractions 0..1.

    Wilson 1927, JASA 22, 209: it stays within 0..1 and is sound for few trials. No trials
    say nothing, so the interval is then (0, 1).
    Raises ValueError unless 0 <= hits <= trials and 0 < confidence < 1.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials: hits must lie between 0 and trials")
    _check_level(confidence)
    if trials == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    rate = hits / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = np.sqrt(z2 * rate * (1 - rate) / trials + (z2 / (2 * trials)) ** 2)
    half = float(spread) / (1 + z2 / trials)
    # Exact at the ends, where rounding would leave a tiny remainder.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == trials else min(1.0, centre + half)
    return low, high


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the expected number of events when `count` were seen.

    Garwood 1936, Biometrika 28, 437 (exact, from quantiles of the gamma distribution).
    Raises ValueError when count < 0 or unless 0 < confidence < 1.
    """
    if count < 0:
        raise ValueError(f"count is {count}, it must be 0 or more")
    _check_level(confidence)
    tail = (1 - confidence) / 2
    low = float(gammaincinv(count, tail)) if count > 0 else 0.0
    return low, float(gammaincinv(count + 1, 1 - tail))


def rate_by_bin(
    values: npt.ArrayLike, hits: npt.ArrayLike, edges: Sequence[float], confidence: float = 0.95
) -> pd.DataFrame:
    """Rate of hits in bins of a value, with Wilson intervals.

    Parameters
    ----------
    values : (N,) the quantity to bin by; NaN belongs to no bin.
    hits : (N,) bool, whether each was a hit.
    edges : B + 1 rising edges; bin i holds edges[i] <= value < edges[i + 1].

    Returns
    -------
    Table of B rows: low, high (the bin), trials, hits, rate (0..1, NaN when there are no
    trials), rate_low, rate_high.
    """
    value = np.asarray(values, dtype=np.float64)
    hit = np.asarray(hits, dtype=bool)
    bounds = np.asarray(edges, dtype=np.float64)
    if value.shape != hit.shape or value.ndim != 1:
        raise ValueError(f"values {value.shape} and hits {hit.shape} must have one length")
    if bounds.size < 2 or not np.all(np.diff(bounds) > 0):
        raise ValueError("edges must be at least two rising numbers")
    rows = []
    for low, high in pairwise(bounds):
        inside = (value >= low) & (value < high)
        trials, count = int(inside.sum()), int(hit[inside].sum())
        rate = count / trials if trials else np.nan
        rows.append((low, high, trials, count, rate, *wilson_interval(count, trials, confidence)))
    columns = ["low", "high", "trials", "hits", "rate", "rate_low", "rate_high"]
    return pd.DataFrame(rows, columns=columns)


def inside_interval(
    residual: npt.ArrayLike, error: npt.ArrayLike, level: float = ONE_SIGMA
) -> npt.NDArray[np.bool_]:
    """Whether each residual lies in the central interval of its stated normal error.

    Parameters
    ----------
    residual : found minus true, any shape and unit.
    error : stated 1-sigma error in the same unit, >= 0.
    level : share of truths that the interval claims to hold, 0..1; 0.683 is +-1 sigma.
    """
    _check_level(level)
    width = NormalDist().inv_cdf(0.5 + level / 2)
    return np.abs(np.asarray(residual, dtype=np.float64)) <= width * np.asarray(error)


def reliability(
    residual: npt.ArrayLike,
    error: npt.ArrayLike,
    levels: Sequence[float] = (0.1, 0.25, 0.5, ONE_SIGMA, 0.8, 0.9, 0.95, 0.99),
) -> pd.DataFrame:
    """How often stated intervals hold the truth, for several widths of interval.

    Returns a table: level (claimed share), trials, hits, rate (share seen), rate_low,
    rate_high (95 % Wilson). Entries whose residual or error is not finite are left out.
    The interval takes entries as independent; those of one fitted track are not quite.
    """
    away = np.asarray(residual, dtype=np.float64)
    sigma = np.asarray(error, dtype=np.float64)
    good = np.isfinite(away) & np.isfinite(sigma)
    rows = []
    for level in levels:
        inside = inside_interval(away[good], sigma[good], level)
        hits, trials = int(inside.sum()), int(inside.size)
        rate = hits / trials if trials else np.nan
        rows.append((level, trials, hits, rate, *wilson_interval(hits, trials)))
    return pd.DataFrame(rows, columns=["level", "trials", "hits", "rate", "rate_low", "rate_high"])


def confusion_matrix(
    true: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> npt.NDArray[np.int64]:
    """(L, L) counts: row the true label, column the one found, in the order of `labels`.

    Raises ValueError for lists of unequal length and for a label that is not in `labels`.
    """
    if len(true) != len(found):
        raise ValueError(f"{len(true)} true labels and {len(found)} found ones")
    place = {label: index for index, label in enumerate(labels)}
    strange = sorted((set(true) | set(found)) - set(place))
    if strange:
        raise ValueError(f"label {strange[0]!r} is not one of {', '.join(labels)}")
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for row, column in zip(true, found, strict=True):
        counts[place[row], place[column]] += 1
    return counts


def f1_scores(confusion: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """F1 per label, 2 TP / (2 TP + FP + FN), from a square matrix of counts (row = truth).

    NaN for a label that has no true entry: there is nothing to find.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    right = np.diag(counts)
    present = counts.sum(axis=1)
    total = present + counts.sum(axis=0)
    scores = np.full(right.shape, np.nan)
    np.divide(2 * right, total, out=scores, where=present > 0)
    return scores


def macro_f1(confusion: npt.NDArray[np.integer]) -> float:
    """Mean F1 over the labels that occur in the truth; NaN when none does."""
    scores = f1_scores(confusion)
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if known.size else float("nan")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, it must lie between 0 and 1")
