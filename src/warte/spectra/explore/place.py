"""Where spectra lie on the map, and how far they are from the usual."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from warte.core.errors import MissingExtraError
from warte.spectra.explore.principal import Principal
from warte.spectra.spectrum import FloatArray

LEAST_TSNE = 5  # spectra; fewer are laid out by their main directions
MAD_TO_SIGMA = 1.4826  # of a normal distribution


def _coordinates(drawn: Principal) -> FloatArray:
    """Coefficients (n, k) on orthonormal axes, so that distances are those of reconstructions."""
    _, triangle = np.linalg.qr(drawn.components.T)
    places = drawn.coefficients @ triangle.T
    centred = places - places.mean(axis=0)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2].T)


def laid_out(
    drawn: Principal, embed: Literal["tsne", "pca"], seed: int
) -> tuple[FloatArray, tuple[str, ...]]:
    """Places (n, 2) on the map, n from 2; and what was done in place of what was asked.

    t-SNE: van der Maaten & Hinton 2008, JMLR 9, 2579. Its perplexity is 30, less for few spectra.

    Raises:
        MissingExtraError: scikit-learn is needed and not installed.
    """
    coordinates = _coordinates(drawn)
    n, k = coordinates.shape
    if embed == "pca" or n < LEAST_TSNE:
        flat = np.zeros((n, 2))
        flat[:, : min(k, 2)] = coordinates[:, :2]
        few = f"fewer than {LEAST_TSNE} spectra: main directions instead of t-SNE"
        return flat, (few,) if embed == "tsne" else ()
    try:
        from sklearn.manifold import TSNE
    except ImportError as problem:
        raise MissingExtraError("sklearn", "spectra") from problem
    perplexity = min(30.0, (n - 1) / 3)
    start = "pca" if k > 1 else "random"
    tsne = TSNE(2, perplexity=perplexity, init=start, random_state=seed)
    return np.asarray(tsne.fit_transform(coordinates), dtype=np.float64), ()


def scores(
    flux: FloatArray, weights: FloatArray, drawn: Principal, neighbours: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Oddness, reconstruction chi-square and distance of neighbours, each (n,); see `explore`."""
    left = flux - drawn.mean - drawn.coefficients @ drawn.components
    chi2 = (weights * left**2).sum(axis=1) / (weights > 0).sum(axis=1)
    coordinates = _coordinates(drawn) / np.sqrt(flux.shape[1])
    k = min(neighbours, len(flux) - 1)
    away, near = cKDTree(coordinates).query(coordinates, k=k + 1)
    distance = away[:, 1:].mean(axis=1)
    excess = chi2 / np.maximum(np.median(chi2[near[:, 1:]], axis=1), 1e-12)
    return np.maximum(_robust(excess), _robust(distance)), chi2, distance


def _robust(values: FloatArray) -> FloatArray:
    """Logarithms less their median, in robust standard deviations."""
    logs = np.log(np.maximum(values, 1e-12))
    away = logs - np.median(logs)
    return away / max(MAD_TO_SIGMA * float(np.median(np.abs(away))), 1e-6)
