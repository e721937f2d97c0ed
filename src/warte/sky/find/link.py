"""From blobs to tracklets: which blobs of which frames are one mover."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

PAIR_FRAMES = 6  # a tracklet starts from two blobs at most so many frames apart
FEWEST_BLOBS = 4  # of a tracklet of points; fewer are enough for long streaks and short meteors
MISSING_FRAMES = 14  # a mover may vanish for so long (blinking, frozen by a codec)
GATE_PX = 2.0  # a blob lies so near the path
STREAK_PX = 8.0  # a blob at least so long tells its motion by itself
STREAK_SNR = 12.0
FLIGHT_SNR = 5.0  # each blob of a short meteor, and twice as much together
FLIGHT_PX = 4.0  # its steps, pixels per frame
TWINKLE_PX = 3.0  # blobs so near each other
TWINKLE_FRAMES = 60  # and so many frames apart are one star


@dataclass(frozen=True)
class Blobs:
    """Blobs sorted by frame: ``frame`` (n,), ``xy`` (n, 2) pixels on the stars' grid, ``snr`` (n,),
    ``streak`` (n, 2) from end to end in pixels, 0 for points."""

    frame: np.ndarray
    xy: np.ndarray
    snr: np.ndarray
    streak: np.ndarray


def blobs_of(table: pd.DataFrame) -> Blobs:
    """``detect.detections`` as arrays."""
    table = table.sort_values("frame", kind="stable")
    streak = table[["x1", "y1"]].to_numpy(float) - table[["x0", "y0"]].to_numpy(float)
    streak[table["length_px"].to_numpy() < STREAK_PX] = 0
    return Blobs(
        table["frame"].to_numpy(int),
        table[["x", "y"]].to_numpy(float),
        table["snr"].to_numpy(float),
        streak,
    )


def link(blobs: Blobs, speed_max_px: float) -> list[np.ndarray]:
    """Tracklets, each the indices of its blobs, longest first. A blob belongs to one at most.

    Every pair of blobs a few frames apart proposes a straight path; the one with most blobs near
    it wins, is followed both ways as far as it goes, and its blobs are taken out.
    """
    free = ~twinkling(blobs)
    out: list[np.ndarray] = []
    pairs = _pairs(blobs, free, speed_max_px)
    votes = np.array([_vote(blobs, free, i, j) for i, j in pairs])
    streaked = np.hypot(*blobs.streak.T) > 0
    needed = np.where(streaked[pairs].all(1), 2, 3) if len(pairs) else np.zeros(0, int)
    votes = np.where(votes >= needed, votes, 0)
    while len(pairs) and votes.max() > 0:
        n = int(votes.argmax())
        i, j = pairs[n]
        now = _vote(blobs, free, i, j)
        if now < votes[n]:  # some of its blobs were taken since
            votes[n] = now if now >= needed[n] else 0
            continue
        chain = follow(blobs, free, i, j)
        member = np.zeros(len(free), bool)
        member[chain] = True
        votes[member[pairs].all(1)] = 0  # these would lead to the same chain
        votes[n] = 0
        if is_mover(blobs, chain):
            out.append(chain)
            free[chain] = False
    return out


def twinkling(blobs: Blobs) -> np.ndarray:
    """Blobs (n,) bool that come back at one place over many frames: a star, not a mover."""
    count = len(blobs.frame)
    out = np.zeros(count, bool)
    for shift in (0, 1):  # two grids, so that no place lies on the border of both
        _, group = np.unique(
            np.floor(blobs.xy / TWINKLE_PX + 0.5 * shift).astype(int), axis=0, return_inverse=True
        )
        group = group.reshape(-1)
        first = np.full(count, np.iinfo(int).max)
        last = np.full(count, -1)
        np.minimum.at(first, group, blobs.frame)
        np.maximum.at(last, group, blobs.frame)
        out |= (last - first)[group] > TWINKLE_FRAMES
    return out


def _pairs(blobs: Blobs, free: np.ndarray, speed_max_px: float) -> np.ndarray:
    """Pairs (n, 2) of blobs that one mover could have made."""
    rows = []
    for i in np.flatnonzero(free):
        stop = np.searchsorted(blobs.frame, blobs.frame[i] + PAIR_FRAMES, side="right")
        j = i + 1 + np.flatnonzero(free[i + 1 : stop])
        gap = blobs.frame[j] - blobs.frame[i]
        step = blobs.xy[j] - blobs.xy[i]
        distance = np.hypot(*step.T)
        # a streak says how fast its mover is; a point is not faster than is searched for
        length = float(np.hypot(*blobs.streak[i]))
        reach = np.maximum(speed_max_px, 2.0 * length) * gap + GATE_PX
        ok = (gap > 0) & (distance < reach)
        if length > 0:
            cross = np.abs(step @ np.array([-blobs.streak[i, 1], blobs.streak[i, 0]])) / length
            ok &= cross < GATE_PX + 0.25 * distance
        near = j[ok]
        if len(near) > 12:  # in a crowd the nearest in time and place
            near = near[np.argsort(distance[ok] / gap[ok] + gap[ok])[:12]]
        rows += [(i, k) for k in near]
    return np.array(rows, int).reshape(-1, 2)


def _vote(blobs: Blobs, free: np.ndarray, i: int, j: int) -> int:
    """Frames around the pair with a free blob near the straight path through both."""
    if not (free[i] and free[j]):
        return 0
    gap = blobs.frame[j] - blobs.frame[i]
    velocity = (blobs.xy[j] - blobs.xy[i]) / gap
    a = np.searchsorted(blobs.frame, blobs.frame[i] - 2 * PAIR_FRAMES)
    b = np.searchsorted(blobs.frame, blobs.frame[j] + 2 * PAIR_FRAMES, side="right")
    part = np.arange(a, b)[free[a:b]]
    off = blobs.xy[part] - (blobs.xy[i] + velocity * (blobs.frame[part] - blobs.frame[i])[:, None])
    near = np.hypot(*off.T) < GATE_PX + 0.05 * np.hypot(*velocity) * gap
    return len(np.unique(blobs.frame[part[near]]))


def follow(blobs: Blobs, free: np.ndarray, i: int, j: int) -> np.ndarray:
    """Indices of the blobs on the path that starts with the pair, followed both ways in time."""
    chain = [i, j]
    for step in (1, -1):
        missing = 0
        frame = blobs.frame[chain[-1] if step > 0 else chain[0]]
        last, first = blobs.frame[-1], blobs.frame[0]
        while missing <= MISSING_FRAMES and first <= frame + step <= last:
            frame += step
            n = _next(blobs, free, chain, int(frame), step)
            if n is None:
                missing += 1
                continue
            missing = 0
            chain = [*chain, n] if step > 0 else [n, *chain]
    between = _fill(blobs, free, chain)
    return np.array(sorted({*chain, *between}, key=lambda k: blobs.frame[k]))


def _predict(blobs: Blobs, chain: list[int], frame: int, step: int) -> tuple[np.ndarray, float]:
    """Where the path is in ``frame``, and how far off that may be."""
    near = np.array(chain[-8:] if step > 0 else chain[:8])
    t = blobs.frame[near] - frame
    degree = 1 if len(near) < 6 else 2 if np.ptp(t) > 12 and abs(t).min() < 4 else 1
    power = np.vander(t, degree + 1)
    coef, *_ = np.linalg.lstsq(power, blobs.xy[near], rcond=None)
    speed = float(np.hypot(*(blobs.xy[near[-1]] - blobs.xy[near[0]]))) / max(1, np.ptp(t))
    ahead = int(np.abs(t).min())
    return coef[-1], GATE_PX + 0.3 * speed + 0.15 * speed * (ahead - 1) + 0.1 * (ahead - 1)


def _next(blobs: Blobs, free: np.ndarray, chain: list[int], frame: int, step: int) -> int | None:
    a, b = np.searchsorted(blobs.frame, [frame, frame + 1])
    part = np.arange(a, b)[free[a:b]]
    if not len(part):
        return None
    place, reach = _predict(blobs, chain, frame, step)
    distance = np.hypot(*(blobs.xy[part] - place).T)
    n = int(distance.argmin())
    return int(part[n]) if distance[n] < reach else None


def _fill(blobs: Blobs, free: np.ndarray, chain: list[int]) -> list[int]:
    """Blobs in frames that the chain steps over."""
    frames = blobs.frame[chain]
    out = []
    for frame in np.setdiff1d(np.arange(frames[0], frames[-1] + 1), frames):
        a, b = np.searchsorted(blobs.frame, [frame, frame + 1])
        part = np.arange(a, b)[free[a:b]]
        if len(part):
            place = np.array([np.interp(frame, frames, blobs.xy[chain, k]) for k in (0, 1)])
            distance = np.hypot(*(blobs.xy[part] - place).T)
            if distance.min() < GATE_PX:
                out.append(int(part[distance.argmin()]))
    return out


def is_mover(blobs: Blobs, chain: np.ndarray) -> bool:
    """Whether the blobs tell of motion: enough of them, and farther apart than they are wide."""
    moved = float(np.hypot(*(blobs.xy[chain[-1]] - blobs.xy[chain[0]])))
    lasted = int(blobs.frame[chain[-1]] - blobs.frame[chain[0]]) + 1
    streaks = (np.hypot(*blobs.streak[chain].T) > 0) & (blobs.snr[chain] > STREAK_SNR)
    if len(chain) >= 2 and streaks.sum() >= 2:
        return moved > STREAK_PX / 2
    if lasted == len(chain) < FEWEST_BLOBS:
        return is_flight(blobs, chain)
    dense = len(chain) >= max(FEWEST_BLOBS, 0.2 * lasted)
    return dense and moved > 4.0 and moved > 2.5 * _jitter(blobs, chain)


def is_flight(blobs: Blobs, chain: np.ndarray) -> bool:
    """Whether two or three blobs in frames that follow each other are a short meteor: bright, in
    even steps; two must be streaks that lie along their way and are about as long."""
    snr, xy, streak = blobs.snr[chain], blobs.xy[chain], blobs.streak[chain]
    if len(chain) < 2 or snr.min() < FLIGHT_SNR or np.hypot.reduce(snr) < 2 * FLIGHT_SNR:
        return False
    steps = np.diff(xy, axis=0)
    speed = float(np.hypot(*steps.mean(0)))
    if speed < FLIGHT_PX:
        return False
    if len(chain) > 2:
        return float(np.hypot(*(steps[1] - steps[0]))) < GATE_PX + 0.4 * speed
    length = np.hypot(*streak.T)
    along = np.abs(streak @ steps[0]) / np.maximum(length * speed, 1e-9)
    return bool(along.min() > np.cos(np.deg2rad(25)) and (length > 0.4 * speed).all())


def _jitter(blobs: Blobs, chain: np.ndarray) -> float:
    """Scatter of the blobs about a smooth path, pixels."""
    if len(chain) < 4:
        return 0.0
    t = blobs.frame[chain] - blobs.frame[chain].mean()
    power = np.vander(t / max(1.0, float(np.abs(t).max())), min(4, len(chain) - 1))
    rest = blobs.xy[chain] - power @ np.linalg.lstsq(power, blobs.xy[chain], rcond=None)[0]
    return float(np.sqrt((rest**2).sum(1).mean()))
