"""Whether a fitted path is a mover: enough light, in enough frames, on a plausible path."""

from __future__ import annotations

import numpy as np

from warte.sky.find.fit import Fit
from warte.sky.find.prepare import STAR_SIGMA, Window

INTERVALS = 400  # twice the independent choices of a path's first and last frame
WHOLE = 2  # for paths that are there from end to end: the other half of the false tracks
MOVED_PX = 6.0  # a mover travels at least so far against the stars
SLOWEST_PX = 0.15  # slower than this a faint light is a star (pixels per frame)
LIT_SNR = 3.0  # a bright mover shines so in a frame
LIT_FRACTION = 0.25  # and in so many of its frames: it may blink
BRIGHT_SCORE = 8.0  # sigma of a bright mover's path in all
STAR_SHARE = 0.3  # a faint path lies at most so much on stars
EDGE_PX = 4.0  # a path that never leaves so narrow a rim is an effect of the edge
BEND = 0.08  # a path leaves its chord by at most so much of its length


def robust_score(snr: np.ndarray) -> float:
    """Sigma of a path whose best frames count at most 4 sigma more than their median: one glint
    is not a track."""
    limit = max(4.0, float(np.median(snr)) + 4.0)
    return float(np.minimum(snr, limit).sum() / np.sqrt(len(snr)))


def moved(fit: Fit) -> float:
    """Distance between the ends, pixels: against the stars or on the sensor, the smaller.

    What stands on the sensor is a hot pixel, or a satellite that nothing tells from one.
    """
    stars = np.hypot(fit.star_x[-1] - fit.star_x[0], fit.star_y[-1] - fit.star_y[0])
    return float(min(stars, np.hypot(fit.x[-1] - fit.x[0], fit.y[-1] - fit.y[0])))


def needed_score(way: float, window: Window, false_tracks: float, choices: int) -> float:
    """Sigma that a path whose ends are ``way`` pixels apart must have, so that noise alone makes
    ``false_tracks`` a window out of paths of all lengths up to the picture's diagonal.

    Each pixel of length gets the same share of these. The long paths are those of fast movers,
    which cross the picture in part of the window and have the least light, so that a lower
    threshold finds more of them than it would of slow ones.

    The look-elsewhere effect: the expected number of peaks of a Gaussian field over all paths, its
    four coordinates the two ends of a path (Adler and Taylor 2007, Random Fields and Geometry,
    12.4.2), times ``choices`` of the first and last frame (INTERVALS; WHOLE where the path is there
    as long as window and picture let it, so that there is nothing to choose).
    """
    diagonal = float(np.hypot(*window.noise.shape))
    way = float(np.clip(way, 4 * window.psf_sigma_px, diagonal))
    ends = 2 * np.pi * way * diagonal  # the places at each length, over the share that it gets
    # a matched image curves by 1 / (2 sigma^2); of the mean along a path, both ends have a share
    curvature = 1 / (2 * window.psf_sigma_px**2)
    volume = window.noise.size * ends * curvature**2 / 12 / (2 * np.pi) ** 2.5
    peaks = max(volume * choices / false_tracks, 1e3)
    score = 6.0
    for _ in range(20):
        score = float(np.sqrt(2 * np.log(peaks * score**3)))
    return score


def is_faint_mover(
    fit: Fit, window: Window, score: float, false_tracks: float, choices: int
) -> bool:
    """Whether a path of the stack search is more than noise would make, and moves.

    ``score``: sigma of the path, of what chance makes there (see `chance`).
    """
    if len(fit.frame) < 8:
        return False
    lasted = fit.frame[-1] - fit.frame[0]
    return bool(
        score > needed_score(moved(fit), window, false_tracks, choices)
        and not on_edge(fit, window)
        and not on_stars(fit, window)
        and moved(fit) > max(MOVED_PX, SLOWEST_PX * lasted)
    )


def is_bright_mover(fit: Fit, window: Window, score: float) -> bool:
    """Whether a path of linked blobs is lit, moves, and runs as bodies in the sky do.

    ``score`` as in `is_faint_mover`.
    """
    if len(fit.frame) < 2:
        return False
    lit = float((fit.snr > LIT_SNR).mean())
    return bool(
        score > BRIGHT_SCORE
        and lit >= LIT_FRACTION
        and moved(fit) > MOVED_PX
        and is_straight(fit)
        and not on_edge(fit, window)
    )


def on_stars(fit: Fit, window: Window) -> bool:
    """Whether much of the path lies in the light of stars, whose rims flicker and shift."""
    height, width = window.stars.shape
    x = np.clip((fit.star_x / window.cell).astype(int), 0, width - 1)
    y = np.clip((fit.star_y / window.cell).astype(int), 0, height - 1)
    return bool((window.stars[y, x] > STAR_SIGMA).mean() > STAR_SHARE)


def on_edge(fit: Fit, window: Window) -> bool:
    """Whether the whole path runs along the rim of the picture."""
    height, width = window.noise.shape
    rims = (fit.x, fit.y, width - 1 - fit.x, height - 1 - fit.y)
    return bool(min(float(rim.max()) for rim in rims) < EDGE_PX)


def is_straight(fit: Fit) -> bool:
    """Whether the path keeps near its chord and never turns back far."""
    chord = np.array([fit.star_x[-1] - fit.star_x[0], fit.star_y[-1] - fit.star_y[0]])
    length = float(np.hypot(*chord))
    if length < 1e-6:
        return False
    off = np.stack([fit.star_x - fit.star_x[0], fit.star_y - fit.star_y[0]], 1)
    along, across = off @ chord / length, off @ np.array([-chord[1], chord[0]]) / length
    retreat = float((np.maximum.accumulate(along) - along).max())
    allowed = 2.0 + BEND * length
    return bool(np.abs(across).max() < allowed and retreat < allowed)
