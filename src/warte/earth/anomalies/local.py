"""Local RX: each pixel against the pixels around it, without those next to it.

Reed and Yu, IEEE TASSP 38 (1990) 1760; with two windows: Kwon and Nasrabadi, IEEE TGRS 43 (2005)
388. The covariance of a window is shrunk towards that of the scene.
"""

from __future__ import annotations

import numpy as np

from warte.earth.anomalies.background import FloatArray, View

# The scene's covariance counts as much as that of so many pixels: a ring of few valid pixels, or
# of pixels that are all alike, would make everything next to it an anomaly.
PRIOR = 180
STRIP = 32  # rows whose covariances are in memory at once


def local_rx(view: View, variances: FloatArray, inner: int, outer: int) -> FloatArray:
    """Squared Mahalanobis distance from the pixels of the ring around each, (rows, columns).

    variances: (components,) of the scene. inner, outer: sides of the two windows (pixels, odd).
    Only valid pixels within the picture make the ring; where there are none, the distance is that
    from the whole scene.
    """
    white = view.components.astype(np.float64) / np.sqrt(variances)[:, None, None]
    kept = len(white)
    count = _ring(view.valid.astype(np.float64), inner, outer)
    mean = np.stack([_ring(plane, inner, outer) for plane in white]) / (count + 1)
    pairs = [(one, two) for one in range(kept) for two in range(one + 1)]
    products = np.stack([_ring(white[one] * white[two], inner, outer) for one, two in pairs])
    away = white - mean
    distance = np.zeros(view.valid.shape)
    for start in range(0, len(distance), STRIP):
        rows = slice(start, start + STRIP)
        covariance = _covariance(products[:, rows], mean[:, rows], count[rows], pairs)
        turned = np.moveaxis(away[:, rows], 0, -1)[..., None]
        solved = np.linalg.solve(covariance, turned)
        distance[rows] = (turned * solved).sum(axis=(-2, -1))
    return np.where(view.valid, distance, 0.0)


def _covariance(
    products: FloatArray, mean: FloatArray, count: FloatArray, pairs: list[tuple[int, int]]
) -> FloatArray:
    """Shrunk covariances (rows, columns, components, components) of whitened components."""
    kept = len(mean)
    covariance = np.empty((*count.shape, kept, kept))
    for product, (one, two) in zip(products, pairs, strict=True):
        # Where the ring is empty this is 0, and the scene's covariance is all there is.
        scatter = product - count * mean[one] * mean[two]
        covariance[..., one, two] = covariance[..., two, one] = scatter / (count + PRIOR)
    covariance += (PRIOR / (count + PRIOR))[..., None, None] * np.eye(kept)
    return covariance


def _ring(plane: FloatArray, inner: int, outer: int) -> FloatArray:
    """Sums over the outer window without the inner one; outside of the picture is 0."""
    return box_sum(plane, outer) - box_sum(plane, inner)


def box_sum(plane: FloatArray, side: int) -> FloatArray:
    """Sums over windows of an odd side (pixels) around each pixel of (rows, columns).

    Running sums would carry rounding errors from one end of a window to the other, and the result
    would depend on where the window begins. Here sums of 1, 2, 4... pixels are put together.
    """
    padded = np.pad(plane, side // 2)
    return _run(_run(padded, side).T, side).T


def _run(plane: FloatArray, length: int) -> FloatArray:
    """Sums of so many consecutive rows: (rows - length + 1, columns)."""
    rows = len(plane) - length + 1
    total = np.zeros((rows, plane.shape[1]))
    power, size, start = plane, 1, 0
    while length:
        if length & 1:
            total += power[start : start + rows]
            start += size
        length >>= 1
        if length:
            power = power[:-size] + power[size:]
            size *= 2
    return total
