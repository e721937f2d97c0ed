"""One radiometry for all dates, from the ground that did not change (IR-MAD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.stats import chi2

from warte.core.errors import InputError

FloatArray = npt.NDArray[np.float64]
PIXELS = 200_000  # pixels of the sample that the statistics take
LEVELS = 32  # steps of brightness that have the same say,
RAREST = 2e-3  # if so great a share of the unchanged pixels is in them
ROUNDS = 60
STILL = 1e-5  # change of the canonical correlations at which the rounds end
KEPT = 0.05  # mean weight of the pixels below which the rounds end
UNCHANGED = 0.05  # chance of no change from which a pixel may tell the radiometry
FEWEST = 50  # unchanged pixels that are needed for it


@dataclass(frozen=True)
class IrMad:
    """What iteratively re-weighted multivariate alteration detection found.

    weights: (N,) chance that a pixel did not change. correlations: (bands,) canonical, smallest
    first. chi_square: (N,) sum of the squared variates, in units of their unchanged variance.
    """

    weights: FloatArray
    correlations: FloatArray
    chi_square: FloatArray


def ir_mad(one: FloatArray, two: FloatArray) -> IrMad:
    """IR-MAD of two dates of the same pixels (Nielsen 2007, IEEE TIP 16, 463).

    one, two: (N, bands). The variates are differences of canonical variates; each round weighs the
    pixels with their chance of no change, by the chi-square law, and starts over. It ends early
    where the weights run off to a small group of pixels, such as one lake, that fits ever better.
    """
    bands = one.shape[1]
    weights = np.ones(len(one))
    before = np.zeros(bands)
    found = None
    for _ in range(ROUNDS):
        mean_one = weights @ one / weights.sum()
        mean_two = weights @ two / weights.sum()
        x, y = one - mean_one, two - mean_two
        scaled = weights[:, None] / weights.sum()
        xx, yy, xy = x.T @ (scaled * x), y.T @ (scaled * y), x.T @ (scaled * y)
        xx += np.eye(bands) * (1e-9 * np.trace(xx) / bands + 1e-30)
        yy += np.eye(bands) * (1e-9 * np.trace(yy) / bands + 1e-30)
        squared, left = eigh(xy @ np.linalg.solve(yy, xy.T), xx)
        correlations = np.sqrt(np.clip(squared, 0, 1 - 1e-9))
        # The other side follows from the first, signs included, with unit variance.
        right = np.linalg.solve(yy, xy.T @ left)
        right /= np.sqrt(np.einsum("ij,ik,kj->j", right, yy, right) + 1e-30)
        chi_square = ((x @ left - y @ right) ** 2 / (2 * (1 - correlations))).sum(axis=1)
        weights = np.maximum(chi2.sf(chi_square, bands), 1e-9)
        if found is not None and weights.mean() < KEPT:
            return found
        found = IrMad(weights, correlations, chi_square)
        if np.abs(correlations - before).max() < STILL:
            break
        before = correlations
    assert found is not None  # there is a first round
    return found


@dataclass(frozen=True)
class Radiometry:
    """How each date is brought to the reference, and how noisy the result is.

    gains, offsets: (dates, bands); value * gain + offset is in units of the reference. whiten:
    (bands, bands) lower triangle; it gives the noise of one date unit variance in all bands.
    correlations: of each date with the reference; of the reference with itself 1.
    """

    gains: FloatArray
    offsets: FloatArray
    whiten: FloatArray
    correlations: tuple[tuple[float, ...], ...]


def radiometry(
    values: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_], names: Sequence[str],
    normalise: bool,
) -> Radiometry:  # fmt: skip
    """The radiometry of a sample, with the date that most pixels saw as the reference.

    values: (dates, bands, N). seen: (dates, N). names: of the dates, for messages.

    Raises:
        InputError: two dates have too few pixels in common, or a band that is the same everywhere.
    """
    dates, bands = values.shape[:2]
    reference = int(seen.sum(axis=1).argmax())
    gains, offsets = np.ones((dates, bands)), np.zeros((dates, bands))
    correlations = [(1.0,) * bands] * dates
    noise = []
    for date in range(dates):
        if date == reference:
            continue
        both = np.flatnonzero(seen[reference] & seen[date])
        both = both[:: max(1, len(both) // PIXELS)]
        if len(both) < max(FEWEST, 5 * bands):
            raise InputError(
                f"{names[reference]} and {names[date]} have only {len(both)} clear pixels of the "
                f"sample in common; at least {max(FEWEST, 5 * bands)} are needed: leave one out"
            )
        one = values[reference][:, both].T.astype(np.float64)
        two = values[date][:, both].T.astype(np.float64)
        for name, part in ((names[reference], one), (names[date], two)):
            if (np.ptp(part, axis=0) == 0).any():
                raise InputError(f"{name} has a band with one value everywhere; leave it out")
        found = ir_mad(one, two)
        correlations[date] = tuple(float(value) for value in found.correlations)
        if normalise:
            gains[date], offsets[date] = _lines(one, two, found)
        rest = two * gains[date] + offsets[date] - one
        rest -= found.weights @ rest / found.weights.sum()
        scaled = found.weights[:, None] / found.weights.sum()
        noise.append(rest.T @ (scaled * rest) / 2)
    covariance = np.median(noise, axis=0) if len(noise) > 2 else np.mean(noise, axis=0)
    covariance += np.eye(bands) * (1e-6 * np.trace(covariance) / bands + 1e-30)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    return Radiometry(gains, offsets, whiten, tuple(correlations))


def _lines(one: FloatArray, two: FloatArray, found: IrMad) -> tuple[FloatArray, FloatArray]:
    """Gain and offset of each band by orthogonal regression of the unchanged pixels.

    Canty & Nielsen 2008, RSE 112, 1025.
    """
    weights = np.where(found.weights >= UNCHANGED, found.weights, 0)
    if (weights > 0).sum() < FEWEST:
        weights = found.weights
    weights = np.stack(
        [weights * _rareness(one[:, b], two[:, b], weights) for b in range(one.shape[1])], 1
    )
    weights = weights / weights.sum(axis=0)
    mean_one, mean_two = (weights * one).sum(axis=0), (weights * two).sum(axis=0)
    x, y = two - mean_two, one - mean_one
    sxx, syy, sxy = ((weights * a * b).sum(axis=0) for a, b in ((x, x), (y, y), (x, y)))
    # With no slope to be told, the spreads are compared and nothing is turned round.
    slope = np.where(
        sxy > 1e-6 * np.sqrt(sxx * syy),
        (syy - sxx + np.sqrt((syy - sxx) ** 2 + 4 * sxy**2)) / (2 * np.maximum(sxy, 1e-300)),
        np.sqrt(syy / np.maximum(sxx, 1e-300)),
    )
    return slope, mean_one - slope * mean_two


def _rareness(one: FloatArray, two: FloatArray, weights: FloatArray) -> FloatArray:
    """(N,) weights that give dark, middle and bright pixels the same say.

    Otherwise a scene of forest alone tells the slope, and what is bright in it is extrapolated.
    """
    level = one / max(one.std(), 1e-30) + two / max(two.std(), 1e-30)
    low, high = np.quantile(level, (0.001, 0.999))
    place = np.clip((level - low) / max(high - low, 1e-30) * LEVELS, 0, LEVELS - 1).astype(np.int64)
    share = np.bincount(place, weights, LEVELS) / weights.sum()
    return 1 / np.maximum(share, RAREST)[place]


def untouched(values: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_]) -> Radiometry:
    """The dates as they are, with the usual difference of each band as the noise.

    For radar, which is calibrated, and whose speckle looks like change to every pixel. values:
    (dates, bands, N). seen: (dates, N).
    """
    dates, bands = values.shape[:2]
    apart = [
        np.abs(values[date][:, both] - values[date - 1][:, both])
        for date in range(1, dates)
        if (both := seen[date] & seen[date - 1]).any()
    ]
    usual = np.median(np.concatenate(apart, axis=1), axis=1).astype(np.float64)
    noise = np.maximum(1.4826 * usual / np.sqrt(2), 1e-6)
    return Radiometry(np.ones((dates, bands)), np.zeros((dates, bands)), np.diag(1 / noise), ())
