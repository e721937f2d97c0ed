"""The threshold of a change score, from the part of the picture that did not change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import gamma

FloatArray = npt.NDArray[np.float64]
QUARTER, HALF = 0.25, 0.5
WIDEST, NARROWEST = 1 / 2, 4.0  # shapes that a law may have, in those of ideal noise
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
    """The gamma law that has the lower quarter and the median of a statistic.

    The upper half holds the changes, so how great they are does not matter, and a picture of which
    less than half changed has a threshold that is somewhat high at worst (zero assumption, Efron
    2004, JASA 99, 96). freedom: degrees of freedom of the chi-square law that it would be with
    ideal noise; noise that differs from place to place widens the law. Where there are fewer than
    FEWEST values the chi-square law is taken.
    """
    positive = statistic[statistic > 0]
    if len(positive) < FEWEST:
        return Null(freedom / 2, 2.0)
    quarter, half = np.quantile(positive, (QUARTER, HALF))
    low, high = WIDEST * freedom / 2, NARROWEST * freedom / 2

    def apart(shape: float) -> float:
        return float(gamma.ppf(HALF, shape) / gamma.ppf(QUARTER, shape) - half / quarter)

    if apart(low) <= 0:
        shape = low
    elif apart(high) >= 0:
        shape = high
    else:
        shape = float(brentq(apart, low, high))
    return Null(shape, float(half / gamma.ppf(HALF, shape)))
