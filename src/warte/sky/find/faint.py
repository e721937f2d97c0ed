"""The faint search of one window: stack, sharpen, decide at full resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from warte.sky.find.fit import Fit, MatchedFrames, fit_path
from warte.sky.find.prepare import Window
from warte.sky.find.refine import Paths, refine
from warte.sky.find.stack import Tier, search


@dataclass(frozen=True)
class FaintSettings:
    """What the faint search tries and what it asks of a finding."""

    speed_min_px: float = 0.15  # slower than this against the stars is a star (pixels per frame)
    speed_max_px: float = 15.0  # fastest motion tried (pixels per frame)
    speed_long_px: float = 4.0  # up to this speed sums run over 64 frames (pixels per frame)
    speed_middle_px: float = 9.0  # up to this over 32 frames, beyond over 16 (pixels per frame)
    trail_from_px: float = 5.0  # from this speed on trails are tried too (pixels per frame)
    hit_64: float = 4.4  # sigma at which a sum becomes a candidate
    hit_32: float = 4.2  # the same over 32 frames
    hit_16: float = 4.2  # the same over 16 frames
    path: float = 5.0  # sigma a lengthened path must reach, in cells
    score: float = 7.0  # sigma the fitted path must reach at full resolution
    moved_px: float = 6.0  # a mover travels at least so far against the stars (pixels)
    fits_max: int = 60  # at most so many paths are fitted in a window


def tiers(settings: FaintSettings, cell: int, count: int) -> list[Tier]:
    """The speeds and lengths to search in a window of ``count`` frames."""
    low, slow, middle, high, trail = (
        v / cell
        for v in (
            settings.speed_min_px,
            settings.speed_long_px,
            settings.speed_middle_px,
            settings.speed_max_px,
            settings.trail_from_px,
        )
    )
    out = []
    levels = [(6, low, slow, settings.hit_64), (5, slow, middle, settings.hit_32)]
    levels.append((4, middle, high, settings.hit_16))
    longest = int(np.log2(max(1, count)))
    for level, start, stop, hit in levels:
        level = min(level, longest)
        stop = min(stop, high)
        if level < 4 or start >= stop:
            continue
        out.append(Tier(level, start, stop, hit, False))
        if stop > trail:
            out.append(Tier(level, max(start, trail), stop, hit, True))
    return out


def search_window(
    window: Window, matched: MatchedFrames, settings: FaintSettings, device: str
) -> list[Fit]:
    """Faint movers of a window, best first. Bright ones should be masked in its cells before."""
    count = len(window.cells) // 16 * 16
    if count < 16:
        return []
    first = (len(window.cells) - count) // 2
    cells = torch.from_numpy(window.cells / window.red).to(device)
    candidates = search(cells[first : first + count], tiers(settings, window.cell, count))
    candidates.t[:] += first
    blur = max(0.5, 1.05 * window.psf_sigma_px / window.cell)
    paths = refine(cells.clamp(-4, 4), candidates, threshold=settings.path, blur=blur)
    return decide(matched, paths, settings)


def decide(matched: MatchedFrames, paths: Paths, settings: FaintSettings) -> list[Fit]:
    """Fit the best paths at full resolution; keep those that stand, each mover once."""
    fits: list[Fit] = []
    window = matched.window
    for n in np.argsort(-paths.score)[: settings.fits_max]:
        t = np.arange(int(paths.start[n]), int(paths.end[n]) + 1)
        star = _star_pixels(paths, int(n), t, window.cell)
        ok = matched.inside(matched.sensor(t, star))
        if ok.sum() < 8 or _seen(fits, t[ok] + window.first, star[ok]):
            continue
        fit = fit_path(matched, t[ok] + window.first, star[ok], float(paths.trail[n]), (1, 2))
        if stands(fit, window, settings):
            fits.append(fit)
    return fits


def stands(fit: Fit, window: Window, settings: FaintSettings) -> bool:
    """Whether a fitted path is a mover: bright enough in all, moving, and not one glint alone."""
    if len(fit.frame) < 8:
        return False
    red = float(np.median(window.red))
    score = robust_score(fit.snr) / red
    moved = float(np.hypot(fit.star_x[-1] - fit.star_x[0], fit.star_y[-1] - fit.star_y[0]))
    speed = moved / max(1, fit.frame[-1] - fit.frame[0])
    short = max(0.0, 0.6 * np.log2(40 / len(fit.frame)))  # short paths are many more
    return bool(
        score > settings.score + short
        and moved > settings.moved_px
        and speed > settings.speed_min_px
    )


def robust_score(snr: np.ndarray) -> float:
    """Sigma of a path without its few best frames' surplus: values count at most 4 sigma more
    than their median."""
    limit = max(4.0, float(np.median(snr)) + 4.0)
    return float(np.minimum(snr, limit).sum() / np.sqrt(len(snr)))


def _star_pixels(paths: Paths, n: int, t: np.ndarray, cell: int) -> np.ndarray:
    """Positions of a path in pixels of the stars' grid, (len(t), 2)."""
    place = np.stack([paths.x[n] + paths.vx[n] * t, paths.y[n] + paths.vy[n] * t], 1)
    return place * cell + (cell - 1) / 2


def _seen(fits: list[Fit], frame: np.ndarray, star: np.ndarray) -> bool:
    """Whether most of a path lies on a fit that was kept already."""
    for fit in fits:
        both, i, j = np.intersect1d(frame, fit.frame, return_indices=True)
        if len(both):
            apart = np.hypot(star[i, 0] - fit.star_x[j], star[i, 1] - fit.star_y[j])
            speed = np.hypot(*(star[-1] - star[0])) / max(1, len(star) - 1)
            if (apart < 5.0 + 0.6 * speed).sum() > 0.3 * len(frame):
                return True
    return False
