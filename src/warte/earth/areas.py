"""Area of each class, with confidence where independent labels judge the map.

Counting the pixels of a map is biased by its errors. The stratified estimator of Olofsson et al.
2014 (Remote Sensing of Environment 148, 42; equations 9 to 11) takes the map's classes as strata
and corrects each by what the labels say. Pixels of one labelled polygon are not independent, so
with polygons the interval comes from drawing polygons again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import InputError

FloatArray = npt.NDArray[np.float64]

COLUMNS = ["class", "pixels", "mapped_ha", "area_ha", "low_ha", "high_ha"]
FEWEST_GROUPS = 2  # polygons in a class of the map, for an interval of it


@dataclass(frozen=True)
class Stratified:
    """Shares of the area by class, each (classes,): the estimate and its standard error."""

    share: FloatArray
    error: FloatArray


def areas(
    classes: Sequence[str],
    pixels: npt.ArrayLike,
    mapped_ha: npt.ArrayLike,
    confusion: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Area of each class in hectares, and an interval where labels allow one.

    Args:
        classes: names, C of them.
        pixels: (C,) pixels of the map in each class.
        mapped_ha: (C,) their area (ha).
        confusion: counts of labelled pixels that the map was not learned from, row the class in
            the map, column the true class: (C, C) where they are independent of each other (a
            random sample), or (groups, C, C) with one table for each labelled polygon or block.
        confidence: share of intervals that hold the true area, 0 to 1.
        draws: how often the groups are drawn again.
        rng: for drawing them; without one they are drawn from the seed 0.

    Returns:
        Table of C rows: class, pixels (int64), mapped_ha, area_ha (the estimate), low_ha, high_ha.
        The last three are NaN where there are no labels; where a class of the map has pixels but
        no label lies on it, or in fewer than two groups, nothing is known of its errors and the
        three are NaN for all classes. `attrs["interval"]` says in words what the interval is, or
        why there is none.

    Raises:
        InputError: shapes do not fit, a count is negative, or the map is empty.
        ValueError: confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, it must lie between 0 and 1")
    counted, mapped = np.asarray(pixels, np.int64), np.asarray(mapped_ha, np.float64)
    _check_map(classes, counted, mapped)
    table = pd.DataFrame({"class": list(classes), "pixels": counted, "mapped_ha": mapped})
    found, words = _estimate(mapped, confusion, confidence, draws, rng)
    table["area_ha"], table["low_ha"], table["high_ha"] = found * mapped.sum()
    table.attrs["interval"] = words
    return table


def stratified(weights: npt.ArrayLike, confusion: npt.ArrayLike) -> Stratified:
    """Share of the area of each true class, with its standard error.

    Olofsson et al. 2014, equations 9 (share) and 10 (error), for a random sample of independent
    labels in each class of the map.

    Args:
        weights: (C,) share of the map in each class; they are scaled to add up to 1.
        confusion: (C, C) counts, row the class in the map, column the true one.

    Classes of the map with weight 0 are left out. Both are NaN where a class with weight has
    fewer than two labels.
    """
    counts = np.asarray(confusion, np.float64)
    weight = np.asarray(weights, np.float64)
    weight = weight / weight.sum()
    labels = counts.sum(axis=1)
    use = weight > 0
    if (labels[use] < 2).any():
        nothing = np.full(len(weight), np.nan)
        return Stratified(nothing, nothing.copy())
    parts = counts[use] / labels[use, None]
    share = weight[use] @ parts
    spread = weight[use, None] ** 2 * parts * (1 - parts) / (labels[use, None] - 1)
    return Stratified(share, np.sqrt(spread.sum(axis=0)))


def mapped_areas(
    counts: Mapping[int, int], names: Mapping[int, str], pixel_ha: float
) -> pd.DataFrame:
    """The table of `areas` of a map alone, from its counts by value; it has no interval."""
    values = sorted(names)
    pixels = np.array([counts.get(value, 0) for value in values], np.int64)
    return areas([names[value] for value in values], pixels, pixels * pixel_ha)


def _estimate(
    mapped: FloatArray,
    confusion: npt.ArrayLike | None,
    confidence: float,
    draws: int,
    rng: np.random.Generator | None,
) -> tuple[FloatArray, str]:
    """Estimate, low and high as shares (3, C), and words about them."""
    nothing = np.full((3, len(mapped)), np.nan)
    if confusion is None:
        return nothing, "no interval: mapped area only, no test labels"
    counts = np.asarray(confusion, np.float64)
    _check_confusion(counts, len(mapped))
    if counts.ndim == 3:
        return _by_group(mapped, counts, confidence, draws, rng or np.random.default_rng(0))
    found = stratified(mapped, counts)
    if np.isnan(found.share).any():
        return nothing, "no interval: a class of the map has fewer than two test labels"
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * found.error
    ends = np.clip(np.stack([found.share - half, found.share + half]), 0.0, 1.0)
    words = f"{confidence:.0%}, stratified estimate (Olofsson et al. 2014), independent labels"
    return np.concatenate([found.share[None], ends]), words


def _by_group(
    mapped: FloatArray,
    counts: FloatArray,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, str]:
    """Ratio estimate and percentiles of it over groups drawn again, class by class of the map.

    A group is drawn with all its pixels. Within a class of the map the errors are a ratio of sums
    over groups, of which the groups that hold none of that class say nothing. Efron and
    Tibshirani 1993, "An Introduction to the Bootstrap", chapter 8.
    """
    weight = mapped / mapped.sum()
    use = weight > 0
    holds = (counts.sum(axis=2) > 0).sum(axis=0)
    if (holds[use] < FEWEST_GROUPS).any():
        return np.full((3, len(mapped)), np.nan), (
            "no interval: a class of the map has test labels in fewer than two polygons"
        )
    groups = len(counts)
    found = _ratio(weight, counts.sum(axis=0))
    # Where a draw leaves a class of the map without labels, that draw says nothing.
    times = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws)
    tables = (times @ counts.reshape(groups, -1)).reshape(draws, *counts.shape[1:])
    drawn = _ratio(weight, tables)
    good = np.isfinite(drawn).all(axis=1)
    if not good.any():
        return np.full((3, len(mapped)), np.nan), "no interval: too few polygons with test labels"
    # Drawing G groups from G shrinks the spread by sqrt((G - 1) / G): widened again.
    centre = drawn[good].mean(axis=0)
    wider = centre + (drawn[good] - centre) * np.sqrt(groups / max(groups - 1, 1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(wider, [tail, 1 - tail], axis=0)
    words = f"{confidence:.0%}, stratified estimate, {groups} labelled polygons drawn again"
    return np.stack([found, np.clip(low, 0, 1), np.clip(high, 0, 1)]), words


def _ratio(weight: FloatArray, counts: FloatArray) -> FloatArray:
    """Shares (..., C) of the true classes from counts (..., C, C).

    NaN where a class of the map has weight but no labels.
    """
    use = weight > 0
    labels = counts[..., use, :].sum(axis=-1, keepdims=True)
    parts = np.full(counts[..., use, :].shape, np.nan)
    np.divide(counts[..., use, :], labels, out=parts, where=labels > 0)
    shares: FloatArray = (weight[use, None] * parts).sum(axis=-2)
    return shares


def _check_map(classes: Sequence[str], pixels: npt.NDArray[np.int64], mapped: FloatArray) -> None:
    if pixels.shape != (len(classes),) or mapped.shape != (len(classes),):
        raise InputError(
            f"areas of {len(classes)} classes need as many counts; "
            f"got {pixels.size} counts of pixels and {mapped.size} areas"
        )
    if (pixels < 0).any() or (mapped < 0).any():
        raise InputError("a class has a negative count of pixels or area; give counts of a map")
    if not np.nansum(mapped) > 0:
        raise InputError("the map has no area: no pixel has a class, or the grid has no CRS")


def _check_confusion(counts: FloatArray, classes: int) -> None:
    if counts.ndim not in (2, 3) or counts.shape[-2:] != (classes, classes):
        raise InputError(
            f"counts of test labels have the shape {counts.shape}; allowed is ({classes}, "
            f"{classes}) or (polygons, {classes}, {classes}), row the map, column the truth"
        )
    if (counts < 0).any() or not np.isfinite(counts).all():
        raise InputError("counts of test labels are negative or not finite; give whole counts")
