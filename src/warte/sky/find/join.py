"""One track per mover: pieces from both detectors and from neighbouring windows are joined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warte.sky.find.fit import Fit

SAME_PX = 3.0  # two tracks of one mover lie so near in the frames they share
GLOW_PX = 8.0  # a meteor's train stays so near its path
GLOW_FRAMES = 40  # it is seen at most so long after the meteor
GLOW_LASTS = 60  # and for at most so many frames
LAMPS_PX = 45.0  # lamps of one aircraft are at most so far apart
MIDDLE = 0.15  # error of the lamps' middle, as some are not seen, over their distance
GAP_FRAMES = 100  # a mover may be lost for so long between two pieces


@dataclass(frozen=True)
class Track:
    """A mover through the whole recording. Arrays of length n, sorted by ``frame``.

    As in ``fit.Fit``: ``x``, ``y``, ``x_err``, ``y_err`` pixels on the sensor, ``snr`` per frame,
    ``flux``, ``flux_err`` grey levels. ``trail``: 1 if its light is trailed in each frame.
    ``lamps``: lights that move together, as those of an aircraft do.
    """

    frame: np.ndarray
    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    trail: float
    lamps: int = 1


def track_of(fit: Fit) -> Track:
    """A fit as a track."""
    positions = (fit.frame, fit.x, fit.y, fit.x_err, fit.y_err)
    return Track(*positions, fit.snr, fit.flux, fit.flux_err, fit.trail)


def merge(a: Track, b: Track) -> Track:
    """Both together; where both have a frame, the entry with the smaller error is kept."""
    frame = np.concatenate([a.frame, b.frame])
    error = np.hypot(np.concatenate([a.x_err, b.x_err]), np.concatenate([a.y_err, b.y_err]))
    order = np.lexsort((error, frame))
    keep = order[np.unique(frame[order], return_index=True)[1]]

    def both(name: str) -> np.ndarray:
        return np.concatenate([getattr(a, name), getattr(b, name)])[keep]

    return Track(
        *(both("frame"), both("x"), both("y"), both("x_err"), both("y_err")),
        *(both("snr"), both("flux"), both("flux_err")),
        trail=a.trail if len(a.frame) >= len(b.frame) else b.trail,
        lamps=max(a.lamps, b.lamps),
    )


def velocity(track: Track, end: int) -> np.ndarray:
    """Velocity (2,) pixels per frame over the last (``end`` -1) or first (0) frames."""
    part = slice(-12, None) if end else slice(0, 12)
    t = track.frame[part].astype(float)
    if len(t) < 2:
        return np.zeros(2)
    return np.array([np.polyfit(t, getattr(track, c)[part], 1)[0] for c in ("x", "y")])


def same_mover(a: Track, b: Track) -> bool:
    """Whether two tracks are one mover: they run at one place, or one leads to the other."""
    if len(b.frame) > len(a.frame):
        a, b = b, a
    within = (b.frame >= a.frame[0]) & (b.frame <= a.frame[-1])
    if not within.any():
        return leads_to(a, b) if a.frame[0] < b.frame[0] else leads_to(b, a)
    t = b.frame[within]
    apart = np.hypot(
        np.interp(t, a.frame, a.x) - b.x[within], np.interp(t, a.frame, a.y) - b.y[within]
    )
    # the place along a long trail is known less well
    near = SAME_PX + 0.3 * float(np.hypot(*velocity(a, -1)))
    return bool(np.median(apart) < near) and len(t) >= min(4, len(b.frame))


def leads_to(a: Track, b: Track) -> bool:
    """Whether ``b`` goes on where ``a`` ended, allowing for a change of playback speed.

    Straight on in direction; along the path anything from a halt to half as fast again.
    """
    gap = int(b.frame[0] - a.frame[-1])
    if not 0 < gap <= GAP_FRAMES or min(len(a.frame), len(b.frame)) < 5:
        return False
    leave, arrive = velocity(a, -1), velocity(b, 0)
    fast, slow = max(np.hypot(*leave), np.hypot(*arrive)), min(np.hypot(*leave), np.hypot(*arrive))
    if slow < 1e-3:
        return False
    turn = float(leave @ arrive) / (np.hypot(*leave) * np.hypot(*arrive))
    step = np.array([b.x[0] - a.x[-1], b.y[0] - a.y[-1]])
    heading = leave / np.hypot(*leave) + arrive / np.hypot(*arrive)
    heading = heading / max(float(np.hypot(*heading)), 1e-9)
    along = float(step @ heading)
    across = float(abs(step @ np.array([-heading[1], heading[0]])))
    sideways = 2.0 + 0.08 * gap + 0.08 * abs(along)
    ahead = 0.2 * slow * gap - 2 < along < 1.5 * fast * gap + 4
    return turn > 0.9 and across < sideways and ahead


def join(tracks: list[Track]) -> list[Track]:
    """Merge tracks until no two are one mover, the longest first."""
    out: list[Track] = []
    for track in sorted(tracks, key=lambda t: -len(t.frame)):
        current = track
        merged = True
        while merged:
            merged = False
            for n, other in enumerate(out):
                if same_mover(other, current):
                    current = merge(out.pop(n), current)
                    merged = True
                    break
        out.append(current)
    out = [t for t in out if not any(is_afterglow(t, other) for other in out)]
    return sorted(group_lamps(out), key=lambda t: (int(t.frame[0]), float(t.x[0])))


def is_afterglow(track: Track, other: Track) -> bool:
    """Whether ``track`` is the glowing train that a brighter, faster ``other`` left behind."""
    if track is other or not other.frame[0] < track.frame[0] <= other.frame[-1] + GLOW_FRAMES:
        return False
    apart = np.hypot(track.x[:, None] - other.x, track.y[:, None] - other.y).min(axis=1)
    slower = np.hypot(*velocity(track, 0)) < 0.5 * np.hypot(*velocity(other, 0))
    fainter = track.flux.max() < other.flux.max()
    return bool(apart.max() < GLOW_PX and slower and fainter and len(track.frame) < GLOW_LASTS)


def blinks(track: Track) -> bool:
    """Whether the brightness jumps from frame to frame far more than noise and slow tumbling do."""
    if len(track.snr) < 6:
        return False
    jumps = np.abs(np.diff(track.snr)) / np.sqrt(2.0)
    return bool(np.quantile(jumps, 0.9) > max(4.0, 0.6 * float(np.abs(track.snr).mean())))


def fly_together(a: Track, b: Track) -> bool:
    """Whether two tracks keep the same distance, as the lamps of one aircraft do."""
    both, i, j = np.intersect1d(a.frame, b.frame, return_indices=True)
    if len(both) < max(3, 0.4 * min(len(a.frame), len(b.frame))):
        return False
    dx, dy = a.x[i] - b.x[j], a.y[i] - b.y[j]
    apart = float(np.hypot(np.median(dx), np.median(dy)))
    # a path may go astray at its ends
    loose = float(np.quantile(np.hypot(dx - np.median(dx), dy - np.median(dy)), 0.9))
    moved = float(np.hypot(np.ptp(a.x[i]), np.ptp(a.y[i])))
    return apart < LAMPS_PX and loose < max(1.5, 0.15 * apart) and moved > 2 * loose


def group_lamps(tracks: list[Track]) -> list[Track]:
    """Make one track of lights that keep together where one of them blinks: an aircraft.

    So too of lights side by side. Steady lights in a row stay apart: satellites fly in trains.
    """
    rest = sorted(tracks, key=lambda t: -len(t.frame))
    out = []
    while rest:
        lead, rest = rest[0], rest[1:]
        team = [t for t in rest if fly_together(lead, t)]
        if team and (any(blinks(t) for t in (lead, *team)) or abreast(lead, team)):
            lamps = [lead, *team]
            rest = [t for t in rest if not (any(t is mate for mate in team) or strays(t, lamps))]
            lead = one_aircraft(lamps)
        out.append(lead)
    return out


def strays(track: Track, lamps: list[Track]) -> bool:
    """Whether a track goes from one lamp to another: most of it lies on one or the other."""
    apart = np.full(len(track.frame), np.inf)
    for lamp in lamps:
        both, i, j = np.intersect1d(track.frame, lamp.frame, return_indices=True)
        if len(both):
            here = np.hypot(track.x[i] - lamp.x[j], track.y[i] - lamp.y[j])
            apart[i] = np.minimum(apart[i], here)
    return bool((apart < SAME_PX).mean() > 0.8)


def abreast(lead: Track, team: list[Track]) -> bool:
    """Whether lights fly side by side, as wing lights do, not one behind the other."""
    heading = np.array([lead.x[-1] - lead.x[0], lead.y[-1] - lead.y[0]])
    heading = heading / max(float(np.hypot(*heading)), 1e-9)
    sideways = []
    for mate in team:
        _, i, j = np.intersect1d(lead.frame, mate.frame, return_indices=True)
        dx, dy = np.median(mate.x[j] - lead.x[i]), np.median(mate.y[j] - lead.y[i])
        sideways.append(abs(float(dx * heading[1] - dy * heading[0])))
    return max(sideways) > SAME_PX


def one_aircraft(team: list[Track]) -> Track:
    """The middle of the lamps, weighted by their mean light, along the longest one's path."""
    lead = team[0]
    weight = np.array([max(float(t.flux.mean()), 1e-6) for t in team])
    shift, spread = np.zeros(2), np.zeros(2)
    flux, error = lead.flux.copy(), lead.flux_err.copy()
    for mate, w in zip(team[1:], weight[1:], strict=True):
        _, i, j = np.intersect1d(lead.frame, mate.frame, return_indices=True)
        offset = np.array([np.median(mate.x[j] - lead.x[i]), np.median(mate.y[j] - lead.y[i])])
        shift += offset * w / weight.sum()
        spread = np.maximum(spread, np.abs(offset))
        flux[i] += mate.flux[j]
        error[i] = np.hypot(error[i], mate.flux_err[j])
    return Track(
        *(lead.frame, lead.x + shift[0], lead.y + shift[1]),
        *(np.hypot(lead.x_err, MIDDLE * spread[0]), np.hypot(lead.y_err, MIDDLE * spread[1])),
        *(flux / error, flux, error),
        trail=lead.trail,
        lamps=len(team),
    )
