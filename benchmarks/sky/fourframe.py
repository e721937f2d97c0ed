"""The peer: the four-frame recipe of meteor and satellite cameras, written from its description.

Of each block of frames only four pictures are kept: per pixel the maximum, the number of the
frame in which it occurred, and mean and standard deviation without that maximum (Jenniskens et
al. 2011, Icarus 216, 40, section 2; P. Gural's compression for CAMS, used in RMS as FFP files;
C. Bassa's `stvid` keeps the same four). Pixels whose maximum stands more than 5 standard
deviations above the mean, with their frame numbers, are points in x, y and t; a mover is a
straight line through many of them. The lines are searched by drawing pairs of points and counting
those near the line through a pair (Fischler & Bolles 1981, Comm. ACM 24, 381).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

from warte.sky.read import Frame, Recording
from warte.sky.tables import OBSERVATION_COLUMNS, Tracks, empty_tracks, format_utc, summarise

ROUNDING_STEPS = 0.29  # standard deviation of rounding, in grey levels: 1 / sqrt 12


@dataclass(frozen=True)
class FourFrameSettings:
    """The recipe's numbers."""

    block: int = 100  # frames that become four pictures
    sigma: float = 5.0  # a point is a maximum so far above the mean (standard deviations)
    radius_px: float = 2.0  # points so close to a line belong to it (pixels)
    min_points: int = 10  # a line has at least so many points
    min_frames: int = 4  # ... in at least so many different frames
    speed_max_px: float = 15.0  # fastest line (pixels per frame)
    pairs: int = 3000  # pairs of points drawn for each line
    max_points: int = 20_000  # the most significant points that are kept
    max_lines: int = 20  # lines at most in a block


@dataclass(frozen=True)
class FourFrame:
    """Four pictures of a block, each (H, W): `best`, `when` (frame in the block), `mean`, `std`."""

    first: int  # number of the block's first frame
    count: int  # frames in the block
    best: np.ndarray
    when: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def fourframe(
    recording: Recording, rng: np.random.Generator, settings: FourFrameSettings | None = None
) -> Tracks:
    """Search a recording by the recipe. Lines of different blocks are tracks of their own; the
    recipe knows no kinds, so all are 'unknown'."""
    settings = settings or FourFrameSettings()
    observations: list[pd.DataFrame] = []
    times: dict[int, str] = {}
    for frames in _blocks(recording.frames(), settings.block):
        block = compress(_noted(frames, times))
        if block.count < settings.min_frames:
            continue
        points = significant(block, settings)
        for line in search_lines(points, rng, settings):
            observations.append(_observations(line, block, times, len(observations) + 1))
    if not observations:
        return empty_tracks()
    table = pd.concat(observations, ignore_index=True)
    numbers = range(1, len(observations) + 1)
    return summarise(
        table, dict.fromkeys(numbers, "unknown"), dict.fromkeys(numbers, 1.0), recording.fps
    )


def _blocks(frames: Iterator[Frame], size: int) -> Iterator[Iterable[Frame]]:
    for first in frames:
        rest = islice(frames, size - 1)
        yield _chain(first, rest)
        for _ in rest:  # whatever was not taken
            pass


def _chain(first: Frame, rest: Iterable[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest


def _noted(frames: Iterable[Frame], times: dict[int, str]) -> Iterator[Frame]:
    for frame in frames:
        times[frame.index] = format_utc(frame.utc)
        yield frame


def compress(frames: Iterable[Frame]) -> FourFrame:
    """The four pictures of a block; mean and std leave the maximum out, in one pass."""
    stream = iter(frames)
    frame = next(stream)
    first, count = frame.index, 1
    best = frame.pixels.copy()
    when = np.zeros(best.shape, np.int32)
    zero = best.copy()  # sums are of differences to frame 0, so that squares stay small
    total, squares = np.zeros_like(best), np.zeros_like(best)
    for frame in stream:
        away = frame.pixels - zero
        total += away
        away *= away
        squares += away
        higher = frame.pixels > best
        np.copyto(best, frame.pixels, where=higher)
        when[higher] = count
        count += 1
    most = best - zero
    rest = max(count - 1, 1)
    total -= most
    squares -= most * most
    mean = total / rest
    variance = np.maximum(squares / rest - mean * mean, 0.0)
    return FourFrame(first, count, best, when, zero + mean, np.sqrt(variance))


def significant(block: FourFrame, settings: FourFrameSettings) -> np.ndarray:
    """Points (N, 5): x, y, frame in the block, height above the mean, standard deviation."""
    height = block.best - block.mean
    std = np.maximum(block.std, ROUNDING_STEPS)
    ratio = height / std
    y, x = np.nonzero(ratio > settings.sigma)
    if len(x) > settings.max_points:
        strongest = np.argpartition(-ratio[y, x], settings.max_points)[: settings.max_points]
        y, x = y[strongest], x[strongest]
    columns = (x, y, block.when[y, x], height[y, x], std[y, x])
    return np.stack(columns, axis=1).astype(np.float64)


def search_lines(
    points: np.ndarray, rng: np.random.Generator, settings: FourFrameSettings
) -> list[np.ndarray]:
    """Groups of points (n, 5), each near one straight line in x, y and t, the largest first."""
    lines: list[np.ndarray] = []
    left = points
    while len(left) >= settings.min_points and len(lines) < settings.max_lines:
        inside = _best_line(left, rng, settings)
        for _ in range(3):  # the line through all of its points holds more of them
            if inside.sum() < 2:
                break
            inside = _near(left, *_fit(left[inside]), settings.radius_px)
        group = left[inside]
        if len(group) < settings.min_points or len(np.unique(group[:, 2])) < settings.min_frames:
            break
        lines.append(group)
        left = left[~inside]
    return lines


def _best_line(
    points: np.ndarray, rng: np.random.Generator, settings: FourFrameSettings
) -> np.ndarray:
    """Mask (N,) of the points near the best of the lines through pairs drawn at random."""
    best = np.zeros(len(points), bool)
    one, two = rng.integers(0, len(points), (2, settings.pairs))
    apart = points[two, 2] - points[one, 2]
    usable = apart != 0
    one, two, apart = one[usable], two[usable], apart[usable]
    velocity = (points[two, :2] - points[one, :2]) / apart[:, None]
    slow = np.hypot(velocity[:, 0], velocity[:, 1]) <= settings.speed_max_px
    most = 0
    # A sample of the points is enough to tell good lines from bad ones.
    sample = points[rng.permutation(len(points))[:2000]]
    for start, speed in zip(points[one[slow]], velocity[slow], strict=True):
        near = _near(sample, start[:2] - speed * start[2], speed, settings.radius_px)
        count = int(near.sum())
        if count > most:
            most = count
            best = _near(points, start[:2] - speed * start[2], speed, settings.radius_px)
    return best


def _near(points: np.ndarray, origin: np.ndarray, speed: np.ndarray, radius: float) -> np.ndarray:
    """Mask of the points within `radius` of the line, and half a frame's motion along it."""
    dx = points[:, 0] - origin[0] - speed[0] * points[:, 2]
    dy = points[:, 1] - origin[1] - speed[1] * points[:, 2]
    size = float(np.hypot(*speed))
    if size < 1e-9:
        return dx * dx + dy * dy <= radius * radius
    along = (dx * speed[0] + dy * speed[1]) / size
    across = (dx * speed[1] - dy * speed[0]) / size
    return (np.abs(across) <= radius) & (np.abs(along) <= radius + 0.5 * size)


def _fit(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origin (2,) and velocity (2,) of the least-squares line through points, by their heights."""
    weight = np.sqrt(points[:, 3])
    design = np.stack([np.ones(len(points)), points[:, 2]], axis=1) * weight[:, None]
    solution = np.linalg.lstsq(design, points[:, :2] * weight[:, None], rcond=None)[0]
    return solution[0], solution[1]


def _observations(
    line: np.ndarray, block: FourFrame, times: dict[int, str], track_id: int
) -> pd.DataFrame:
    """One row per frame with points of the line: the place on the fitted line, with the scatter
    of single points as its error; flux is the sum of their heights."""
    origin, speed = _fit(line)
    spread = line[:, :2] - origin - line[:, 2:3] * speed
    x_err, y_err = (max(float(one), 1e-3) for one in spread.std(axis=0))
    rows = []
    for when in np.unique(line[:, 2]):
        here = line[line[:, 2] == when]
        x, y = origin + speed * when
        frame = block.first + int(when)
        flux, err = float(here[:, 3].sum()), float(np.sqrt((here[:, 4] ** 2).sum()))
        rows.append((track_id, frame, times[frame], x, y, x_err, y_err, flux, err))
    return pd.DataFrame(rows, columns=OBSERVATION_COLUMNS)
