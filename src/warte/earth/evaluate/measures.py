"""Scores from counts, ranks and polygons; no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from warte.core.match import match_one_to_one
from warte.core.score import f1_scores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Names = tuple[tuple[str, ...], tuple[str, ...]]  # of the truth, of what was found
What = Literal["classes", "clusters", "anomalies", "change"]

BINS = 15  # of confidence, for the calibration error
# What the changes of simulated scenes may be called where they are found: bare ground after
# felling and new roofs may both lose plants and be brighter.
FOUND_AS = {
    "deforestation": ("vegetation loss", "brightening"),
    "flood": ("water gained", "flood"),
    "burn": ("burn",),
    "building": ("brightening", "vegetation loss"),
}


@dataclass(frozen=True)
class Scores:
    """What was compared, and how well it fits.

    what: which kind of result. numbers: scores by name, NaN where one has no meaning. table: one
    row for each class, cluster, or kind of change. names: of rows and columns of `confusion`.
    confusion: counts of pixels, row the truth, column what was found. groups: of classes against
    labelled polygons: (polygons, C, C) counts, row what was found, column the truth, both in the
    order of `table`: what `warte.earth.areas.areas` takes.
    """

    what: What
    numbers: Mapping[str, float]
    table: pd.DataFrame
    names: Names = ((), ())
    confusion: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    groups: IntArray | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON; None for what is NaN."""
        return {
            "what": self.what,
            "scores": {name: _plain(value) for name, value in self.numbers.items()},
            "table": [
                {str(name): _plain(value) for name, value in row.items()}
                for row in self.table.to_dict("records")
            ],
            "truth": list(self.names[0]),
            "found": list(self.names[1]),
            "confusion": self.confusion.tolist(),
        }


def class_scores(confusion: npt.ArrayLike, names: Names, unclassified: int = 0) -> Scores:
    """Scores of classes from counts of pixels, row the truth, column what was found.

    Args:
        names: of the rows and of the columns; equal names are one class.
        unclassified: labelled pixels that got no class.

    Returns:
        numbers: overall_accuracy, mean_iou, macro_f1 (both over the classes that are in the
        truth), labelled (pixels compared), unclassified (share of the labelled pixels).
        table: class, pixels (of the truth), producers_accuracy (recall), users_accuracy
        (precision), f1, iou.
    """
    counts = np.asarray(confusion, np.int64)
    every = tuple(dict.fromkeys((*names[0], *names[1])))
    square = squared(counts, names, every)
    right, present, said = np.diag(square), square.sum(axis=1), square.sum(axis=0)
    table = pd.DataFrame(
        {
            "class": every,
            "pixels": present,
            "producers_accuracy": _ratio(right, present),
            "users_accuracy": _ratio(right, said),
            "f1": f1_scores(square),
            "iou": np.where(present > 0, _ratio(right, present + said - right), np.nan),
        }
    )
    total = int(square.sum())
    numbers = {
        "overall_accuracy": share(int(right.sum()), total),
        "mean_iou": _mean(table["iou"].to_numpy()),
        "macro_f1": _mean(table["f1"].to_numpy()),
        "labelled": float(total),
        "unclassified": share(unclassified, total + unclassified),
    }
    return Scores("classes", numbers, table, names, counts)


def cluster_scores(confusion: npt.ArrayLike, names: Names, unclassified: int = 0) -> Scores:
    """Scores of clusters against classes from counts, row the class, column the cluster.

    Returns:
        numbers: accuracy (of the best one-to-one assignment of clusters to classes; Kuhn 1955),
        adjusted_rand (Hubert and Arabie 1985, Journal of Classification 2, 193),
        mutual_information (over the mean of both entropies), labelled, unclassified.
        table: cluster, pixels, class (its own in the assignment, "" for none), share (of its
        pixels that are of this class), largest_class, purity (share of that one).
    """
    counts = np.asarray(confusion, np.int64)
    total, said = int(counts.sum()), counts.sum(axis=0)
    pairs = match_one_to_one(-counts.astype(np.float64))
    of_cluster = {int(column): int(row) for row, column in pairs}
    rows = []
    for column, cluster in enumerate(names[1]):
        row, largest = of_cluster.get(column), int(counts[:, column].argmax())
        pixels = int(said[column])
        rows.append(
            {
                "cluster": cluster,
                "pixels": pixels,
                "class": "" if row is None else names[0][row],
                "share": np.nan if row is None else share(int(counts[row, column]), pixels),
                "largest_class": names[0][largest],
                "purity": share(int(counts[largest, column]), pixels),
            }
        )
    right = sum(int(counts[row, column]) for column, row in of_cluster.items())
    numbers = {
        "accuracy": share(right, total),
        "adjusted_rand": adjusted_rand(counts),
        "mutual_information": mutual_information(counts),
        "labelled": float(total),
        "unclassified": share(unclassified, total + unclassified),
    }
    return Scores("clusters", numbers, pd.DataFrame(rows), names, counts)


def adjusted_rand(counts: IntArray) -> float:
    """Agreement of two partitions, 1 for the same and 0 for what chance gives, from counts."""
    table = counts.astype(np.float64)
    together = _pairs(table).sum()
    rows, columns = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    every = float(_pairs(table.sum()))
    expected = rows * columns / every if every else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def mutual_information(counts: IntArray) -> float:
    """Mutual information of two partitions over the mean of their entropies, from counts."""
    chance = counts / max(counts.sum(), 1)
    rows, columns = chance.sum(axis=1), chance.sum(axis=0)
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    if entropy == 0:
        return 1.0
    return max(0.0, (2 * entropy - _entropy(chance.ravel())) / entropy)


@dataclass
class Calibration:
    """How far stated probabilities hold: sums over a stream of pixels.

    right, stated, number: by bin of the highest probability. squares: sum of Brier scores.
    """

    right: FloatArray = field(default_factory=lambda: np.zeros(BINS))
    stated: FloatArray = field(default_factory=lambda: np.zeros(BINS))
    number: FloatArray = field(default_factory=lambda: np.zeros(BINS))
    squares: float = 0.0

    def add(self, probabilities: FloatArray, true: IntArray) -> None:
        """Count pixels: probabilities (N, C), true class (N,) of 0 to C - 1."""
        top, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
        place = np.clip((sure * BINS).astype(np.int64), 0, BINS - 1)
        self.right += np.bincount(place, top == true, BINS)
        self.stated += np.bincount(place, sure, BINS)
        self.number += np.bincount(place, minlength=BINS)
        of_true = probabilities[np.arange(len(true)), true]
        self.squares += float(np.sum((probabilities**2).sum(axis=1) - 2 * of_true + 1))

    def numbers(self) -> dict[str, float]:
        """calibration_error and brier; nothing where no pixel was counted.

        calibration_error: mean distance between confidence and accuracy over 15 equal bins of
        confidence, weighted by pixels (Guo et al. 2017, ICML, 1321). brier: mean sum of squared
        differences over the classes, 0 to 2 (Brier 1950, Monthly Weather Review 78, 1).
        """
        total = self.number.sum()
        if total == 0:
            return {}
        error = float(np.abs(self.right - self.stated).sum() / total)
        return {"calibration_error": error, "brier": float(self.squares / total)}


@dataclass
class Ranks:
    """Exact area under the curve and average precision from a stream of scores.

    Scores of the true pixels are kept, since they are few. Of all others only their number is kept:
    equal, on each of the distinct rising `levels` of the true ones; between, below each level and
    above the one before it, and at the end above all.
    """

    levels: FloatArray
    at_level: IntArray
    equal: IntArray
    between: IntArray

    @classmethod
    def of(cls, true_scores: FloatArray) -> Ranks:
        """Ready for the scores of the others."""
        levels, counts = np.unique(true_scores, return_counts=True)
        size = len(levels)
        return cls(levels, counts, np.zeros(size, np.int64), np.zeros(size + 1, np.int64))

    def add(self, others: FloatArray) -> None:
        """Count scores of pixels that are not true."""
        left = np.searchsorted(self.levels, others, side="left")
        same = np.searchsorted(self.levels, others, side="right") > left
        self.equal += np.bincount(left[same], minlength=len(self.equal))
        self.between += np.bincount(left[~same], minlength=len(self.between))

    def numbers(self) -> dict[str, float]:
        """auc, average_precision, and share: of the pixels that are true.

        auc: chance that a true pixel scores higher than another, equal ones count half.
        average_precision: mean of the precision at each true score, without interpolation.
        """
        true, others = int(self.at_level.sum()), int(self.equal.sum() + self.between.sum())
        found = {"auc": np.nan, "average_precision": np.nan, "share": share(true, true + others)}
        if true and others:
            under = np.cumsum(self.between[:-1]) + np.cumsum(self.equal) - self.equal
            wins = float(np.sum(self.at_level * (under + 0.5 * self.equal)))
            found["auc"] = wins / (true * others)
        if true:
            hits = np.cumsum(self.at_level[::-1])[::-1]
            false = np.cumsum((self.equal + self.between[1:])[::-1])[::-1]
            found["average_precision"] = float(np.sum(self.at_level * hits / (hits + false)) / true)
        return found


def anomaly_scores(score: npt.ArrayLike, truth: npt.ArrayLike) -> dict[str, float]:
    """auc, average_precision and share of arrays of one shape, see `Ranks.numbers`.

    score: any real numbers, higher is odder; NaN is left out. truth: 1 where there is an anomaly,
    0 where not; others are left out.
    """
    values, true = np.asarray(score, np.float64), np.asarray(truth)
    known = ~np.isnan(values)
    ranks = Ranks.of(values[known & (true == 1)])
    ranks.add(values[known & (true == 0)])
    return ranks.numbers()


def match_regions(found: geopandas.GeoDataFrame, truth: geopandas.GeoDataFrame) -> dict[str, float]:
    """How many true polygons a found polygon overlaps, one to one, the best overlaps together.

    Returns regions_true, regions_found, regions_matched, region_recall, region_precision.
    """
    if found.crs is not None and truth.crs is not None and found.crs != truth.crs:
        found = found.to_crs(truth.crs)
    one, two = found.geometry.to_numpy(), truth.geometry.to_numpy()
    cost = np.full((len(one), len(two)), np.inf)
    for row, column in shapely.STRtree(two).query(one, predicate="intersects").T:
        common = float(shapely.intersection(one[row], two[column]).area)
        if common > 0:
            cost[row, column] = 1 - common / float(shapely.union(one[row], two[column]).area)
    matched = len(match_one_to_one(cost))
    return {
        "regions_true": float(len(two)),
        "regions_found": float(len(one)),
        "regions_matched": float(matched),
        "region_recall": share(matched, len(two)),
        "region_precision": share(matched, len(one)),
    }


def change_scores(
    confusion: npt.ArrayLike,
    names: Names,
    day_errors: Mapping[str, Mapping[int, int]] | None = None,
) -> Scores:
    """Scores of changes from counts of pixels, row the truth, column what was found.

    Args:
        names: of the kinds of both; the first of each is no change.
        day_errors: for true kinds, how many found pixels are so many days off (0: the day lies
            in the interval that was found).

    Returns:
        numbers: precision, recall, f1, iou (change of any kind against none), kind_accuracy (share
        of the pixels found to have changed whose kind is named rightly, see FOUND_AS; NaN where
        kinds have no such names), day_error (median over the pixels), labelled.
        table: kind, pixels, recall, most_often (what it is found as), day_error (median),
        day_inside (share of the pixels with the day in the interval).
    """
    counts = np.asarray(confusion, np.int64)
    both = int(counts[1:, 1:].sum())
    true, said = int(counts[1:].sum()), int(counts[:, 1:].sum())
    errors = day_errors or {}
    rows = []
    for row, kind in enumerate(names[0][1:], 1):
        hits = counts[row, 1:]
        of_kind = errors.get(kind, {})
        rows.append(
            {
                "kind": kind,
                "pixels": int(counts[row].sum()),
                "recall": share(int(hits.sum()), int(counts[row].sum())),
                "most_often": names[1][1 + int(hits.argmax())] if hits.sum() else "",
                "day_error": _median(of_kind),
                "day_inside": share(of_kind.get(0, 0), sum(of_kind.values())),
            }
        )
    every: dict[int, int] = {}
    for of_kind in errors.values():
        for days, number in of_kind.items():
            every[days] = every.get(days, 0) + number
    numbers = {
        "precision": share(both, said),
        "recall": share(both, true),
        "f1": share(2 * both, true + said),
        "iou": share(both, true + said - both),
        "kind_accuracy": _kind_accuracy(counts, names),
        "day_error": _median(every),
        "labelled": float(counts.sum()),
    }
    columns = ["kind", "pixels", "recall", "most_often", "day_error", "day_inside"]
    return Scores("change", numbers, pd.DataFrame(rows, columns=columns), names, counts)


def squared(counts: IntArray, names: Names, every: tuple[str, ...]) -> IntArray:
    """Counts (..., truth, found) over one list of names for both."""
    square = np.zeros((*counts.shape[:-2], len(every), len(every)), np.int64)
    for row, true in enumerate(names[0]):
        for column, said in enumerate(names[1]):
            square[..., every.index(true), every.index(said)] += counts[..., row, column]
    return square


def share(part: int, whole: int) -> float:
    """part / whole, NaN where there is nothing."""
    return part / whole if whole else float("nan")


def _kind_accuracy(counts: IntArray, names: Names) -> float:
    known = [name for name in names[0][1:] if name in FOUND_AS]
    words = {word for name in known for word in FOUND_AS[name]}
    if not known or not words & set(names[1]):
        return float("nan")
    right = both = 0
    for row, name in enumerate(names[0]):
        if name in known:
            both += int(counts[row, 1:].sum())
            good = [column for column, one in enumerate(names[1]) if one in FOUND_AS[name]]
            right += int(counts[row, good].sum())
    return share(right, both)


def _median(counts: Mapping[int, int]) -> float:
    """The (lower) median of values that occur so many times."""
    if not counts:
        return float("nan")
    values = np.array(sorted(counts), np.float64)
    upto = np.cumsum([counts[int(value)] for value in values])
    return float(values[np.searchsorted(upto, upto[-1] / 2)])


def _pairs(number: npt.ArrayLike) -> FloatArray:
    count = np.asarray(number, np.float64)
    return np.asarray(count * (count - 1) / 2)


def _entropy(chance: FloatArray) -> float:
    some = chance[chance > 0]
    return float(-np.sum(some * np.log(some)))


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    found = np.full(part.shape, np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _plain(value: object) -> object:
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
