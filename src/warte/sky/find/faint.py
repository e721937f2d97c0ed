"""The faint search of one window: stack, sharpen, decide at full resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from warte.sky.find.accept import (
    INTERVALS,
    WHOLE,
    is_faint_mover,
    moved,
    needed_score,
    robust_score,
)
from warte.sky.find.chance import chances_of, stand_out, standing
from warte.sky.find.fit import Fit, MatchedFrames, fit_path, fit_trail, motion_per_frame
from warte.sky.find.prepare import Window
from warte.sky.find.refine import FEWEST_FRAMES, Paths, refine, thin
from warte.sky.find.stack import join, search
from warte.sky.find.tier import Tier

# A fit at full resolution finds so much more than the sum of cells did (sigma); rarely more.
FIT_GAINS = 1.0


@dataclass(frozen=True)
class FaintSettings:
    """What the faint search tries and what it asks of a finding."""

    speed_min_px: float = 0.15  # slower than this against the stars is a star (pixels per frame)
    speed_max_px: float = 15.0  # fastest motion tried (pixels per frame)
    trail_from_px: float = 5.0  # from this speed on trails are tried too (pixels per frame)
    long_from_px: float = 8.0  # trails so long are looked for at every second place along them
    hit: float = 3.7  # sigma at which a block of 32 frames is looked at
    pair: float = 4.7  # sigma it must reach with its neighbour in time
    alone: float = 4.5  # or alone
    slow_px: float = 6.0  # up to this speed blocks of 64 frames are tried, too (pixels per frame)
    slow: float = 4.5  # sigma that one of these must reach
    creep_px: float = 1.2  # up to this speed there are so few paths that less is asked for
    creep_hit: float = 3.3  # as ``hit``
    creep_pair: float = 4.2  # as ``pair`` and ``alone``
    creep_slow: float = 4.0  # as ``slow``
    keep: int = 20000  # of the paths of points, so many are looked at more closely
    keep_few: int = 4000  # of the slowest, and of the trailed ones: short, long in x, long in y
    path: float = 5.3  # sigma a lengthened path must reach, in cells
    false_tracks: float = 0.05  # expected number of false tracks in a window


def tiers(settings: FaintSettings, cell: int, count: int) -> list[Tier]:
    """The speeds and lengths to search in a window of ``count`` frames."""
    s = settings
    low, high, trail, long = (
        v / cell for v in (s.speed_min_px, s.speed_max_px, s.trail_from_px, s.long_from_px)
    )
    creep, slow = min(s.creep_px / cell, high), min(s.slow_px / cell, high)
    level = 5 if count >= 32 else 4
    limits, creep_limits = (s.hit, s.pair, s.alone), (s.creep_hit, s.creep_pair, s.creep_pair)
    out = [Tier(level, low, creep, *creep_limits, trail=False, keep=s.keep_few)]
    if high > creep:
        out.append(Tier(level, creep, high, *limits, trail=False, keep=s.keep))
    if count >= 64:
        longer, creep_longer = (s.slow, s.slow, s.slow), (s.creep_slow, s.creep_slow, s.creep_slow)
        out.append(Tier(6, low, creep, *creep_longer, trail=False, keep=s.keep_few))
        if slow > creep:
            out.append(Tier(6, creep, slow, *longer, trail=False, keep=s.keep))
    if high > trail:
        out.append(Tier(level, trail, high, *limits, trail=True, keep=s.keep_few, long=long))
        if high > long:
            wide = replace(out[-1], wide=True)
            out += [wide, replace(wide, across=True)]
    return out


def search_window(
    window: Window, matched: MatchedFrames, settings: FaintSettings, device: str, known: int = 0
) -> list[Fit]:
    """Faint movers of a window, best first. Bright ones should be masked in its cells before.

    The first ``known`` frames were searched before: movers are not looked for in them alone. The
    cells are changed: divided by ``window.red`` and clipped.
    """
    count = len(window.cells) // 16 * 16
    if count < 16:
        return []
    first = (len(window.cells) - count) // 2
    np.divide(window.cells, window.red, out=window.cells)  # nobody needs them after this
    cells = torch.from_numpy(window.cells).to(device)
    blur = window.blur
    wanted = tiers(settings, window.cell, count)
    found = search(cells[first : first + count], wanted, blur=blur, known=max(0, known - first))
    # each by its own: sums of more frames at more speeds reach other heights in noise
    candidates = join([thin(c, tier.keep) for c, tier in zip(found, wanted, strict=True)])
    candidates.t[:] += first
    paths = refine(cells.clamp_(-4, 4), candidates, threshold=settings.path, blur=blur)
    return decide(matched, paths, settings)


def decide(matched: MatchedFrames, paths: Paths, settings: FaintSettings) -> list[Fit]:
    """Fit the best paths at full resolution; keep those that stand, each mover once."""
    fits: list[Fit] = []
    window, rate = matched.window, settings.false_tracks
    for n in np.argsort(-paths.score):
        # no choice of frames asks for less
        least = needed_score(length_px(paths, int(n), window.cell), window, rate, WHOLE)
        if paths.score[n] < least - FIT_GAINS:
            continue
        frame, star, choices = span(matched, paths, int(n))
        if len(frame) < FEWEST_FRAMES or _seen(fits, frame, star):
            continue
        way = float(np.hypot(*(star[-1] - star[0])))
        if paths.score[n] < needed_score(way, window, rate, choices) - FIT_GAINS:
            continue
        trail = float(paths.trail[n])
        quick = fit_path(matched, frame, star, trail, (1,), rounds=3)
        least = needed_score(moved(quick), window, rate, choices) - 0.7
        if quick.score < least:
            continue
        chances = chances_of(matched, quick)
        if stand_out(chances, robust_score(standing(matched, quick))) < least:
            continue
        # a straight path decides: a curve finds more in noise than the trials allow for
        fit = fit_path(matched, frame, star, trail, (1,))
        score = stand_out(chances, robust_score(standing(matched, fit)))
        if is_faint_mover(fit, window, score, rate, choices):
            fits.append(fit_trail(matched, frame, star, trail, (1, 2)))
    return fits


def span(matched: MatchedFrames, paths: Paths, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames of a path, its places there (stars' grid, pixels), and the choices that gave them.

    All frames of the window in which it is in the picture, unless the best part of them stands out
    by more than the freedom to choose it explains.
    """
    window = matched.window
    t = np.arange(len(window.residual))
    star = _star_pixels(paths, n, t, window.cell)
    seen = matched.inside(matched.sensor(t, star))
    part = seen & (t >= paths.start[n]) & (t <= paths.end[n])
    if not seen.any():
        return t[:0], star[:0], WHOLE
    trail = float(paths.trail[n])
    scores = []
    for choice in (seen, part):
        xy = matched.sensor(t[choice], star[choice])
        trails = trail * motion_per_frame(xy, t[choice])
        snr = matched.sample(t[choice], xy, trails) if choice.any() else np.zeros(1)
        scores.append(float(snr.sum()) / np.sqrt(len(snr)))
    whole = scores[1] ** 2 - max(scores[0], 0.0) ** 2 < 2 * np.log(INTERVALS / WHOLE)
    choice = seen if whole else part
    return t[choice] + window.first, star[choice], WHOLE if whole else INTERVALS


def length_px(paths: Paths, n: int, cell: int) -> float:
    """Pixels between the ends of a path."""
    lasted = paths.end[n] - paths.start[n]
    return float(np.hypot(paths.vx[n], paths.vy[n]) * lasted * cell)


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
