"""The faint search of one window: stack, sharpen, decide at full resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from warte.sky.find.accept import is_faint_mover, needed_score
from warte.sky.find.fit import Fit, MatchedFrames, fit_path, fit_trail
from warte.sky.find.prepare import Window
from warte.sky.find.refine import Paths, refine
from warte.sky.find.stack import Tier, search


@dataclass(frozen=True)
class FaintSettings:
    """What the faint search tries and what it asks of a finding."""

    speed_min_px: float = 0.15  # slower than this against the stars is a star (pixels per frame)
    speed_max_px: float = 15.0  # fastest motion tried (pixels per frame)
    speed_long_px: float = 4.5  # up to this speed blocks of 32 frames, beyond of 16 (px/frame)
    trail_from_px: float = 5.0  # from this speed on trails are tried too (pixels per frame)
    hit_32: float = 3.5  # sigma at which a block of 32 frames is looked at
    pair_32: float = 4.4  # sigma it must reach with its neighbour in time
    alone_32: float = 4.9  # or alone
    hit_16: float = 3.8  # the same for 16 frames
    pair_16: float = 4.4
    alone_16: float = 4.7
    path: float = 5.3  # sigma a lengthened path must reach, in cells
    false_tracks: float = 0.02  # expected number of false tracks in a window
    fits_max: int = 80  # at most so many paths are fitted in a window


def tiers(settings: FaintSettings, cell: int, count: int) -> list[Tier]:
    """The speeds and lengths to search in a window of ``count`` frames."""
    s = settings
    low, slow, high, trail = (
        v / cell for v in (s.speed_min_px, s.speed_long_px, s.speed_max_px, s.trail_from_px)
    )
    if count < 32:  # too short for the long blocks
        slow = low
    out = []
    if slow > low:
        limits = (s.hit_32, s.pair_32, s.alone_32)
        out.append(Tier(5, low, min(slow, high), *limits, trail=False))
    if high > slow:
        limits = (s.hit_16, s.pair_16, s.alone_16)
        out.append(Tier(4, slow, high, *limits, trail=False))
        if high > trail:
            out.append(Tier(4, max(slow, trail), high, *limits, trail=True))
    return out


def search_window(
    window: Window, matched: MatchedFrames, settings: FaintSettings, device: str
) -> list[Fit]:
    """Faint movers of a window, best first. Bright ones should be masked in its cells before.

    The cells are changed: divided by ``window.red`` and clipped.
    """
    count = len(window.cells) // 16 * 16
    if count < 16:
        return []
    first = (len(window.cells) - count) // 2
    np.divide(window.cells, window.red, out=window.cells)  # nobody needs them after this
    cells = torch.from_numpy(window.cells).to(device)
    blur = window.blur
    candidates = search(
        cells[first : first + count], tiers(settings, window.cell, count), blur=blur
    )
    candidates.t[:] += first
    paths = refine(cells.clamp_(-4, 4), candidates, threshold=settings.path, blur=blur)
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
        trail = float(paths.trail[n])
        frame = t[ok] + window.first
        quick = fit_path(matched, frame, star[ok], trail, (1,), rounds=3)
        if quick.score < needed_score(quick, window, settings.false_tracks) - 0.7:
            continue
        # a straight path decides: a curve finds more in noise than the trials allow for
        if is_faint_mover(
            fit_path(matched, frame, star[ok], trail, (1,)), window, settings.false_tracks
        ):
            fits.append(fit_trail(matched, frame, star[ok], trail, (1, 2)))
    return fits


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
