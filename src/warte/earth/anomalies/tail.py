"""From a score of any unit to how rare it is in the background.

The score of most pixels is counted. Beyond, where a sample holds few pixels and some of them may be
anomalies, the background is continued with a generalised Pareto distribution (Pickands, Annals of
Statistics 3 (1975) 119), fitted to the scores between two shares; those above are known to be
above, no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from warte.earth.anomalies.background import FloatArray

BODY = 0.10  # share of pixels above which the tail begins
HIDDEN = 0.02  # share of pixels that may be anomalies: their scores are not fitted
KNOTS = 257  # counted quantiles below the tail
FEWEST = 20  # pixels in a tail that can be fitted


@dataclass(frozen=True)
class Tail:
    """Scores of the background: quantiles below `start`, a generalised Pareto tail above.

    shares: of pixels above each of the quantiles. share: of pixels in the tail. scale, shape: of
    the tail, shape between 0 and 1.
    """

    quantiles: FloatArray
    shares: FloatArray
    start: float
    share: float
    scale: float
    shape: float

    def rarity(self, scores: FloatArray) -> FloatArray:
        """-log10 of the share of background pixels that score as high, from 0."""
        body = -np.log10(np.interp(scores, self.quantiles, self.shares))
        above = np.maximum(scores - self.start, 0) / self.scale
        if self.shape < 1e-6:
            thinned = above / np.log(10)
        else:
            thinned = np.log1p(self.shape * above) / (self.shape * np.log(10))
        return np.where(scores > self.start, thinned - np.log10(self.share), body)


def fit_tail(scores: FloatArray) -> Tail:
    """The background's distribution of a sample of scores (any number, one or more)."""
    scores = np.sort(scores.astype(np.float64).ravel())
    count = len(scores)
    start = float(np.quantile(scores, 1 - BODY))
    beyond = scores[scores > start] - start
    share = (len(beyond) + 0.5) / (count + 1)
    quantiles = np.unique(np.quantile(scores[scores <= start], np.linspace(0, 1, KNOTS)))
    shares = 1 - (np.searchsorted(scores, quantiles, side="left") + 0.5) / (count + 1)
    # The two pieces meet: nothing below the tail is rarer than its first pixel.
    shares = np.maximum(shares, share)
    scale, shape = _pareto(beyond, count)
    return Tail(quantiles, shares, start, share, scale, shape)


def _pareto(beyond: FloatArray, count: int) -> tuple[float, float]:
    """Scale and shape from sorted scores beyond the start; the highest are censored."""
    typical = float(beyond.mean()) if len(beyond) else 1.0
    if len(beyond) < FEWEST:
        return typical, 0.0
    censored = min(round(HIDDEN * count), len(beyond) - FEWEST // 2)
    seen, limit = beyond[: len(beyond) - censored], beyond[len(beyond) - censored - 1]

    def loss(parameters: FloatArray) -> float:
        scale, shape = np.exp(parameters[0]), parameters[1]
        inside = np.log1p(shape * seen / scale).sum() * (1 + 1 / shape) + len(seen) * parameters[0]
        return float(inside + censored * np.log1p(shape * limit / scale) / shape) / len(beyond)

    first = [np.log(max(float(np.median(seen)), 1e-300)), 0.1]
    found = minimize(loss, first, method="L-BFGS-B", bounds=[(None, None), (1e-4, 1.0)])
    return float(np.exp(found.x[0])), float(found.x[1])
