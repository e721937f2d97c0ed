"""Points and trails of light on pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import erf

REACH = 5.0  # a Gaussian is drawn out to this many sigma: 6e-7 of its light is beyond
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


class Patch(NamedTuple):
    """A rectangle of light. pixels[0, 0] lies at column `left`, row `top` of the picture."""

    left: int
    top: int
    pixels: np.ndarray


def pixel_profile(centre: np.ndarray, first: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Light of unit Gaussians in one axis, integrated over pixels.

    centre (N,): centres, in pixels. first (N,) or one: first pixel of each profile, size: pixels
    in each. Returns (N, size): the integral of the Gaussian over each pixel, an exact difference of
    error functions. A circular Gaussian on pixels is the product of its two profiles.
    """
    edges = np.arange(size + 1) - 0.5 + np.asarray(first - centre)[:, None]
    return 0.5 * np.diff(erf(edges / (sigma * np.sqrt(2.0))), axis=1)


def path_nodes(start: float, end: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (sum 1) that average over start..end: 4-point Gauss-Legendre per step."""
    if end <= start:
        return np.array([start]), np.ones(1)
    width = (end - start) / steps
    middles = start + width * (np.arange(steps) + 0.5)
    nodes = (middles[:, None] + 0.5 * width * _NODES).ravel()
    return nodes, np.tile(_WEIGHTS / (2 * steps), steps)


def path_patch(x: np.ndarray, y: np.ndarray, weights: np.ndarray, sigma: float) -> Patch:
    """Light of a point that moved: the weighted sum of pixel-integrated Gaussians at x, y.

    x, y, weights: (K,), pixels, in the order of the path. The total is sum(weights). Summing exact
    pixel integrals over path_nodes equals the closed form of a Gaussian swept along a segment
    (Gaussian across, difference of error functions along), and also holds on curved paths.
    """
    whole = _blank(x, y, sigma)
    for start in range(0, len(x), 48):  # a long path touches few pixels at a time
        part = slice(start, start + 48)
        piece = _blank(x[part], y[part], sigma)
        rows, columns = piece.pixels.shape
        across = pixel_profile(x[part], np.array(piece.left), columns, sigma)
        down = pixel_profile(y[part], np.array(piece.top), rows, sigma)
        light = (down * weights[part, None]).T @ across
        add_patch(whole.pixels, Patch(piece.left - whole.left, piece.top - whole.top, light))
    return whole


def _blank(x: np.ndarray, y: np.ndarray, sigma: float) -> Patch:
    reach = REACH * sigma + 0.5
    left, right = int(np.floor(x.min() - reach)), int(np.ceil(x.max() + reach))
    top, bottom = int(np.floor(y.min() - reach)), int(np.ceil(y.max() + reach))
    return Patch(left, top, np.zeros((bottom - top + 1, right - left + 1)))


def join_patches(patches: list[Patch]) -> Patch:
    """One patch that holds the sum of several."""
    left, top = min(p.left for p in patches), min(p.top for p in patches)
    right = max(p.left + p.pixels.shape[1] for p in patches)
    bottom = max(p.top + p.pixels.shape[0] for p in patches)
    whole = np.zeros((bottom - top, right - left))
    for patch in patches:
        add_patch(whole, Patch(patch.left - left, patch.top - top, patch.pixels))
    return Patch(left, top, whole)


def add_patch(picture: np.ndarray, patch: Patch, factor: float = 1.0) -> None:
    """Add factor * patch to picture (H, W) in place; what lies outside is lost."""
    height, width = picture.shape
    rows, columns = patch.pixels.shape
    left, right = max(patch.left, 0), min(patch.left + columns, width)
    top, bottom = max(patch.top, 0), min(patch.top + rows, height)
    if left < right and top < bottom:
        part = patch.pixels[
            top - patch.top : bottom - patch.top, left - patch.left : right - patch.left
        ]
        picture[top:bottom, left:right] += (factor * part).astype(picture.dtype)


def filter_loss(pixels: np.ndarray) -> float:
    """sqrt(sum P^2) of a patch scaled to total 1: flux error of its matched filter is noise / this.

    For white noise of standard deviation s per pixel the best linear estimate of the flux is
    sum(P D) / sum(P^2) with error s / sqrt(sum P^2) (Turin 1960, IRE Trans. Inf. Theory 6, 311;
    Zackay & Ofek 2017, ApJ 836, 187).
    """
    total = float(pixels.sum())
    return float(np.sqrt(np.sum(np.square(pixels, dtype=np.float64)))) / total
