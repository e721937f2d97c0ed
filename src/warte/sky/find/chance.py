"""What chance makes of a path: the same path laid elsewhere in the same frames.

White noise would give every path a score of one sigma. A codec does not leave white noise: it keeps
blocks for many frames and rewrites others, so that the sums along slow paths scatter several times
as much as those along fast ones, and more in some parts of the picture than in others. No formula
tells by how much, but the recording does. Copies of a path, shifted and mirrored, see the same
noise at the same speed and no mover; its own places, at other times, tell whether light is often
there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warte.sky.find.fit import Fit, MatchedFrames, motion_per_frame, trail_noise
from warte.sky.find.half import single

COPIES = 240
TRAIL_STEP_PX = 2.0  # a copy's trail is sampled so often
OWN_PX = 12.0  # copies nearer to the path than this see the mover itself
FEWEST = 16  # copies, below which nothing is told
# Steps of the two-dimensional low-discrepancy sequence of M. Roberts (2018): powers of 1 / 1.32472,
# the plastic number.
STEP = np.array([0.7548776662466927, 0.5698402909980532])
MIRRORS = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])


@dataclass(frozen=True)
class Chance:
    """Scores that chance makes: their middle, their scatter (sigma), and how far their ends reach
    beyond a Gaussian's, 1 or more."""

    middle: float
    scatter: float
    tail: float

    def sigmas(self, score: float) -> float:
        """``score`` in units of what chance makes, as if chance were Gaussian."""
        return (score - self.middle) / (self.scatter * self.tail)


WHITE_NOISE = Chance(0.0, 1.0, 1.0)


def chances_of(matched: MatchedFrames, fit: Fit) -> tuple[Chance, ...]:
    """What chance makes of a path like ``fit``: elsewhere, and at its own places at other times."""
    if len(fit.frame) < 2:
        return (WHITE_NOISE,)
    if not matched.is_white:
        return (chance(elsewhere(matched, fit)), chance(at_other_times(matched, fit)))
    # a slow path's places see nearly the same light one frame later
    way = np.hypot(fit.x[-1] - fit.x[0], fit.y[-1] - fit.y[0])
    speed = float(way / (fit.frame[-1] - fit.frame[0]))
    same = max(1.0, 2 * np.sqrt(2) * matched.sigma / max(speed, 1e-3))
    return (chance(elsewhere(matched, fit), 1.0), chance(at_other_times(matched, fit), same))


def stand_out(chances: tuple[Chance, ...], score: float) -> float:
    """Sigmas by which a path's score stands out from all that chance makes."""
    return min(one.sigmas(score) for one in chances)


def standing(matched: MatchedFrames, fit: Fit) -> np.ndarray:
    """SNR of a fit's frames, as the sigmas that are as rare in Gaussian noise, (n,)."""
    column, row = np.round([fit.x, fit.y]).astype(int)
    column, row = (
        np.clip(at, 0, size - 1) for at, size in ((column, matched.width), (row, matched.height))
    )
    return matched.rarity(fit.snr, row, column)


def elsewhere(matched: MatchedFrames, fit: Fit, count: int = COPIES) -> np.ndarray:
    """Scores of the path moved about the picture, in its own frames; at most ``count``."""
    xy = np.stack([fit.x, fit.y], 1)
    middle = xy.mean(0)
    trails = fit.trail * motion_per_frame(xy, fit.frame)
    at = ((np.arange(1, count + 1)[:, None] * STEP) % 1.0) * [matched.width, matched.height]
    out = []
    for number, mirror in enumerate(MIRRORS):
        centre = at[number :: len(MIRRORS)]  # (m, 2)
        if (mirror == 1).all():
            centre = centre[_apart(centre - middle, xy[-1] - xy[0]) > OWN_PX]
        place = centre[:, None] + (xy - middle) * mirror
        t = np.broadcast_to(fit.frame - matched.window.first, place.shape[:2])
        out.append(_scores(matched, t, place, trails * mirror))
    return np.concatenate(out)


def at_other_times(matched: MatchedFrames, fit: Fit) -> np.ndarray:
    """Scores of the path's own places, visited earlier or later; frames go round in a ring.

    Edges between two grey levels, twinkling stars and frozen blocks stay where they are.
    """
    xy = np.stack([fit.x, fit.y], 1)
    count = len(matched.images)
    speed = np.hypot(*(xy[-1] - xy[0])) / max(1, fit.frame[-1] - fit.frame[0])
    least = int(np.ceil(OWN_PX / max(float(speed), 1e-3)))  # frames until the mover has gone
    shift = np.arange(least, count - least + 1)
    t = (fit.frame - matched.window.first + shift[:, None]) % count
    place = np.broadcast_to(xy, (len(shift), *xy.shape))
    return _scores(matched, t, place, fit.trail * motion_per_frame(xy, fit.frame))


def _scores(
    matched: MatchedFrames, t: np.ndarray, place: np.ndarray, trails: np.ndarray
) -> np.ndarray:
    """Scores of paths at ``place`` (m, n, 2) in the window's frames ``t`` (m, n), as the sum of
    `standing` would be; those that are half outside are left out. ``trails``: (n, 2)."""
    if not len(t):
        return np.zeros(0)
    matched.prepare(np.unique(t))
    length = np.hypot(*trails.T)
    steps = max(1, int(np.ceil(length.max() / TRAIL_STEP_PX)))
    part = (np.arange(steps) + 0.5) / steps - 0.5
    spots = place[:, :, None] + part[:, None] * trails[:, None]
    column, row = np.moveaxis(np.round(spots), -1, 0).astype(int)  # (m, n, steps)
    seen = (column >= 0) & (column < matched.width) & (row >= 0) & (row < matched.height)
    column, row = np.clip(column, 0, matched.width - 1), np.clip(row, 0, matched.height - 1)
    light = single(matched.images[t[..., None], row, column]).mean(-1)
    light /= trail_noise(length, matched.sigma)
    value = matched.rarity(light, row[..., steps // 2], column[..., steps // 2])
    whole = seen.all(-1)
    number = whole.sum(1)
    score = (value * whole).sum(1) / np.sqrt(np.maximum(number, 1))
    return np.asarray(score[number >= max(2, t.shape[1] // 2)])


def _apart(shift: np.ndarray, way: np.ndarray) -> np.ndarray:
    """How far a copy shifted by ``shift`` (m, 2) lies beside a path that goes ``way`` (2,)."""
    length = float(np.hypot(*way))
    if length < 1e-6:
        return np.asarray(np.hypot(*shift.T))
    along = shift @ way / length
    across = shift @ np.array([-way[1], way[0]]) / length
    return np.asarray(np.hypot(across, np.maximum(np.abs(along) - length, 0.0)))


def chance(scores: np.ndarray, same: float | None = None) -> Chance:
    """What ``scores`` say of chance; never that it makes less than white noise would.

    ``same``: in white noise, how many of them tell the same. What lies within two standard errors
    then counts as white noise: half the spread between two quantiles of n Gaussian values is known
    to 1 / sqrt(n), their median to 1.25 / sqrt(n), and an accident of the copies must not hide a
    mover. A codec leaves more than copies show, and there they count as they were seen.
    """
    if len(scores) < FEWEST:
        return WHITE_NOISE
    low, dark, mid, bright, high = np.quantile(scores, [0.02, 0.1587, 0.5, 0.8413, 0.98])
    error = 0.0 if same is None else 1 / np.sqrt(max(len(scores) / same, 4.0))
    spread = float(bright - dark) / 2
    reach = float(high - low) / (2 * 2.054 * max(spread, 1.0))
    middle = beyond(float(mid), 0.0, 1.25 * error * spread)
    return Chance(middle, beyond(spread, 1.0, error), beyond(reach, 1.0, error))


def beyond(seen: float, white: float, error: float) -> float:
    """``seen`` where it surely exceeds what white noise makes, by two of its errors; else that."""
    return seen if seen > white + 2 * error else white
