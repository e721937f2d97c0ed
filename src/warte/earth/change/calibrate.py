"""The threshold of a change score, from the part of the picture that did not change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import gamma

FloatArray = npt.NDArray[np.float64]
LOWER = 0.6  # share of the sample, from below, that is taken as unchanged ground
FEWEST = 200


@dataclass(frozen=True)
class Null:
    """The law of a statistic where nothing changed: a gamma law."""

    shape: float
    scale: float

    def threshold(self, false_alarm: float) -> float:
        """The value that a share `false_alarm` of the unchanged pixels exceeds."""
        return float(gamma.isf(false_alarm, self.shape, scale=self.scale))

    @property
    def median(self) -> float:
        """The middle value."""
        return float(gamma.median(self.shape, scale=self.scale))


def unchanged_law(statistic: FloatArray, freedom: float) -> Null:
    """The gamma law that fits the lower part of a statistic.

    The upper part holds the changes, and how many there are does not matter: the likelihood is
    that of the values below a cut, given that they lie there (zero assumption, Efron 2004, JASA 99,
    96). freedom: degrees of freedom of the chi-square law that it would be with ideal noise, which
    is also taken where there are fewer than FEWEST values.
    """
    positive = np.sort(statistic[statistic > 0])
    if len(positive) < FEWEST:
        return Null(freedom / 2, 2.0)
    cut = positive[int(LOWER * (len(positive) - 1))]
    lower = positive[positive <= cut] / cut
    mean, mean_log = lower.mean(), np.log(lower).mean()

    def cost(at: FloatArray) -> float:
        shape, rate = np.exp(at)
        inside = gamma.logcdf(1.0, shape, scale=1 / rate)
        density = shape * np.log(rate) - math.lgamma(shape) + (shape - 1) * mean_log - rate * mean
        return float(inside - density)

    start = np.log([freedom / 2, max(freedom / 2, 0.5)])
    found = minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    shape, rate = np.exp(found.x)
    # A lower part that is no gamma law could give a wild tail.
    shape = float(np.clip(shape, freedom / 10, freedom * 5))
    middle = gamma.ppf(0.5, shape, scale=1 / rate)
    if not np.isfinite(middle) or middle <= 0:
        return Null(freedom / 2, 2.0)
    return Null(shape, float(cut / rate))
