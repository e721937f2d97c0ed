"""A mixture of Gaussians with full covariances, fitted to all pixels pass by pass.

Expectation and maximisation: Dempster, Laird & Rubin, J. R. Stat. Soc. B 39 (1977). Sums are in
float64 and not of whole numbers: other windows or processes change them by rounding (1e-9).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from warte.earth.cluster.kmeans import Passes
from warte.earth.cluster.ranks import Ranks
from warte.earth.cluster.store import Float32Array, Float64Array, Frame, Vectors

FLOOR = 1e-4  # least variance along any axis, as a share of the bands' variances


@dataclass(frozen=True)
class Mixture:
    """Gaussians of the first columns of centred vectors, and how to tell them apart.

    means: (k, d). roots: (k, d, d) lower triangles; root @ (x - mean) has unit covariance.
    constants: (k,) logarithm of share and normalisation.
    """

    means: Float64Array
    roots: Float64Array
    constants: Float64Array

    def __call__(self, x: Float32Array) -> npt.NDArray[np.intp]:
        """The most likely Gaussian (n,) of each vector (columns, n)."""
        return self.log_likelihoods(x).argmax(axis=0)

    def log_likelihoods(self, x: Float32Array) -> Float64Array:
        """Logarithm of share times density, (k, n); added up in fixed order, in any window."""
        depth = self.means.shape[1]
        off = [x[band].astype(np.float64) - self.means[:, band, None] for band in range(depth)]
        total = np.repeat(self.constants[:, None], x.shape[1], axis=1)
        for row in range(depth):
            part = self.roots[:, row, 0, None] * off[0]
            for band in range(1, row + 1):
                part += self.roots[:, row, band, None] * off[band]
            total -= part * part / 2
        return total


@dataclass(frozen=True)
class Fit:
    """A fitted mixture. log_likelihood: of all pixels, natural logarithm. bic: lower is better."""

    mixture: Mixture
    log_likelihood: float
    bic: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class _Sums:
    """likelihood: sum. number: (k,), first: (k, d), second: (k, d, d), weighted by shares."""

    likelihood: float
    number: Float64Array
    first: Float64Array
    second: Float64Array


def fit_mixture(
    frame: Frame,
    passes: Passes,
    assign: Callable[[Float32Array], npt.NDArray[np.intp]],
    k: int,
    depth: int,
    *,
    iterations: int,
    tolerance: float,
    ranks: Ranks,
    report: Callable[[int], None] | None = None,
) -> Fit:
    """Fit a mixture, from groups that are known.

    Args:
        passes: the vectors of this process; the first `depth` columns are used.
        assign: groups to start from, such as those of k-means.
        iterations: at most.
        tolerance: stop when the mean log-likelihood of a pixel rises by less.
        ranks, report: as for `warte.earth.cluster.kmeans.lloyd`.
    """

    def hard(x: Float32Array) -> _Shares:
        return (assign(x) == np.arange(k)[:, None]).astype(np.float64), np.zeros(x.shape[1])

    sums = _total(_expect(frame, passes(), hard, k, depth), ranks)
    mean = sums.first.sum(axis=0) / frame.pixels
    spread = np.diagonal(sums.second.sum(axis=0)) / frame.pixels - mean**2
    floor = FLOOR * np.maximum(spread, 2.0**-100)
    mixture, last, done, converged = _maximise(sums, floor), -math.inf, 0, False
    while not converged and done <= iterations:
        if done:
            mixture = _maximise(sums, floor)
        shares = partial(_soft, mixture)
        sums = _total(_expect(frame, passes(), shares, k, depth), ranks)
        likelihood = sums.likelihood / frame.pixels
        converged, last, done = likelihood - last < tolerance, likelihood, done + 1
        if report is not None:
            report(done)
    free = k * depth + k * depth * (depth + 1) // 2 + k - 1
    bic = free * math.log(frame.pixels) - 2 * sums.likelihood
    return Fit(mixture, sums.likelihood, bic, done - 1, converged)


_Shares = tuple[Float64Array, Float64Array]


def _soft(mixture: Mixture, x: Float32Array) -> _Shares:
    """Shares (k, n) of each Gaussian in each vector, and log-likelihoods (n,)."""
    logs = mixture.log_likelihoods(x)
    whole = logsumexp(logs, axis=0)
    return np.exp(logs - whole), whole


def _expect(
    frame: Frame,
    vectors: Iterable[Vectors],
    shares: Callable[[Float32Array], _Shares],
    k: int,
    depth: int,
) -> _Sums:
    likelihood = 0.0
    number, first = np.zeros(k), np.zeros((k, depth))
    second = np.zeros((k, depth, depth))
    for some in vectors:
        centred = frame.centred(some.values)
        share, log = shares(centred)
        x = centred[:depth].astype(np.float64)
        if some.counts is not None:
            share = share * some.counts
            log = log * some.counts
        likelihood += float(log.sum())
        number += share.sum(axis=1)
        first += share @ x.T
        for one in range(k):
            second[one] += (share[one] * x) @ x.T
    return _Sums(likelihood, number, first, second)


def _total(sums: _Sums, ranks: Ranks) -> _Sums:
    flat = np.concatenate([[sums.likelihood], sums.number, sums.first.ravel(), sums.second.ravel()])
    flat = ranks.sum(flat)
    k, depth = sums.first.shape
    number, first, second = np.split(flat[1:], [k, k + k * depth])
    return _Sums(float(flat[0]), number, first.reshape(k, depth), second.reshape(k, depth, depth))


def _maximise(sums: _Sums, floor: Float64Array) -> Mixture:
    k, depth = sums.first.shape
    number = np.maximum(sums.number, 1e-9)
    means = sums.first / number[:, None]
    roots, constants = np.empty((k, depth, depth)), np.empty(k)
    for one in range(k):
        covariance = sums.second[one] / number[one] - np.outer(means[one], means[one])
        lower = np.linalg.cholesky(_at_least(covariance, floor))
        roots[one] = solve_triangular(lower, np.eye(depth), lower=True)
        constants[one] = (
            math.log(number[one] / number.sum())
            + float(np.log(np.diagonal(roots[one])).sum())
            - depth / 2 * math.log(2 * math.pi)
        )
    return Mixture(means, roots, constants)


def _at_least(covariance: Float64Array, floor: Float64Array) -> Float64Array:
    """The covariance with at least the floor's variance along every axis."""
    scale = np.sqrt(floor)
    values, axes = np.linalg.eigh(covariance / np.outer(scale, scale))
    mended = (axes * np.maximum(values, 1)) @ axes.T
    return mended * np.outer(scale, scale)
