"""What the races are run on: matrices of a known rank with noise, and random starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warte.core.data import registry
from warte.core.errors import DataError

RANK = 20
SHAPE, QUICK_SHAPE = (4000, 2000), (800, 400)
HIDDEN = 0.2  # share of entries of weight zero in the weighted race


@dataclass(frozen=True)
class Problem:
    """Data x (n, m), weights (n, m) or none, and the start w (n, k), h (k, m); float32."""

    name: str
    x: Tensor
    w: Tensor
    h: Tensor
    weights: Tensor | None = None


def _model(rng: np.random.Generator, shape: tuple[int, int], dense: bool) -> np.ndarray:
    """A product of rank RANK with mean 1; factors are uniform (dense) or mostly small (gamma)."""
    n, m = shape

    def factor(size: tuple[int, int]) -> np.ndarray:
        return rng.random(size) if dense else rng.gamma(0.5, size=size)

    model = factor((n, RANK)) @ factor((RANK, m))
    return model / model.mean()


def _started(name: str, x: np.ndarray, rng: np.random.Generator, **more: Tensor) -> Problem:
    """Add scikit-learn's random start, of size sqrt(mean / k)."""
    level = np.sqrt(x.mean() / RANK)
    w = level * np.abs(rng.standard_normal((x.shape[0], RANK)))
    h = level * np.abs(rng.standard_normal((RANK, x.shape[1])))
    x, w, h = (torch.tensor(part, dtype=torch.float32) for part in (x, w, h))
    return Problem(name, x, w, h, **more)


def gaussian(shape: tuple[int, int], noise: float, seed: int) -> Problem:
    """A product of rank RANK and mean 1 with normal noise, cut at zero."""
    rng = np.random.default_rng(seed)
    x = np.maximum(_model(rng, shape, False) + noise * rng.standard_normal(shape), 0.0)
    return _started(f"noise {noise:g}", x, rng)


def counts(shape: tuple[int, int], mean: float, dense: bool, seed: int) -> Problem:
    """Poisson counts of a product of rank RANK."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(mean * _model(rng, shape, dense)).astype(np.float64)
    kind = "dense factors" if dense else "sparse factors"
    return _started(f"counts, mean {mean:g}, {kind}", x, rng)


def spectrogram(file: str, seed: int) -> Problem | None:
    """Magnitudes of a registered spectrogram; None where the file is not here."""
    if registry.locate(file) is None:
        return None
    with np.load(registry.get(file)) as arrays:
        x = next(arrays[key] for key in arrays if arrays[key].ndim == 2).astype(np.float64)
    return _started(file.removesuffix("_stft.npz"), x, np.random.default_rng(seed))


def weighted(shape: tuple[int, int], seed: int) -> Problem:
    """Noise of different size in every entry, inverse variances, and hidden entries."""
    rng = np.random.default_rng(seed)
    sigma = 0.1 * rng.lognormal(0.0, 0.5, shape)
    x = np.maximum(_model(rng, shape, False) + sigma * rng.standard_normal(shape), 0.0)
    weights = np.where(rng.random(shape) < HIDDEN, 0.0, sigma**-2)
    given = torch.tensor(weights, dtype=torch.float32)
    return _started(f"{HIDDEN:.0%} hidden", np.where(weights > 0, x, 0.0), rng, weights=given)


def arrays_of(name: str) -> dict[str, np.ndarray] | str:
    """The arrays of a registered file, or why there are none."""
    try:
        with np.load(registry.get(name)) as arrays:
            return {key: arrays[key] for key in arrays}
    except DataError as problem:
        return str(problem)
