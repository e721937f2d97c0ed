"""From candidates of the stack search to paths: sharpen, lengthen, decide, one path per mover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from warte.sky.find import compiled
from warte.sky.find.compiled import TRAIL_SAMPLES
from warte.sky.find.stack import Candidates
from warte.sky.find.threads import on_threads

MOST = 160  # distinct paths that a window may have: each is looked at at full resolution
STEPS = (1.0, 0.5)  # by which the ends of a path are moved (cells)
SHARPENED = 4000  # paths that are followed beyond the frames in which they were found
HALFWAY = 60  # frames over which these are followed
FOLLOWED = 1500  # paths that are then followed over the whole window
CHUNK = 256  # paths that are moved at once: their samples stay in the cache
FEWEST_FRAMES = 8  # a path is at least so long


@dataclass(frozen=True)
class Paths:
    """Straight paths in cells on the stars' grid. Arrays of length n.

    ``x``, ``y`` at frame 0 of the window, ``vx``, ``vy`` cells per frame, ``start``, ``end``
    first and last frame (both seen), ``score`` sigma of the whole path, ``trail`` 0 or 1.
    """

    x: np.ndarray
    y: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray
    trail: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def thin(candidates: Candidates, limit: int) -> Candidates:
    """The best candidate of each neighbourhood in place, time and velocity, at most ``limit``."""
    if not len(candidates):
        return candidates
    c = candidates
    span = c.frames / 2
    key = np.stack(
        [c.t // 8, c.x // 3, c.y // 3, (c.vx * span) // 3, (c.vy * span) // 3, c.frames, c.trail]
    )
    order = np.argsort(-c.score, kind="stable")
    key = key[:, order].astype(np.int64)
    key -= key.min(axis=1, keepdims=True)
    number = np.ravel_multi_index(tuple(key), tuple(key.max(axis=1) + 1))
    _, first = np.unique(number, return_index=True)
    best = order[np.sort(first)][:limit]
    return c.take(best)


def sample_paths(
    cells: Tensor, ends: Tensor, t0: Tensor, t1: Tensor, frames: Tensor, trail: Tensor
) -> tuple[Tensor, Tensor]:
    """Values along straight paths and where they lie inside, both (n, S).

    ``cells`` (T, h, w); ``ends`` (n, 4: x, y at t0, x, y at t1); ``frames`` (n, S) int64.
    Trailed paths are the mean of TRAIL_SAMPLES points along the frame's motion.
    """
    count, height, width = cells.shape
    part = (frames - t0[:, None]) / (t1 - t0).clamp_min(1)[:, None]
    span = ends[:, 2:] - ends[:, :2]
    velocity = span / (t1 - t0).clamp_min(1)[:, None]
    x = ends[:, 0, None] + part * span[:, 0, None]
    y = ends[:, 1, None] + part * span[:, 1, None]
    offsets = [0.0]
    if bool(trail.any()):
        offsets = [(k + 0.5) / TRAIL_SAMPLES - 0.5 for k in range(TRAIL_SAMPLES)]
    total = torch.zeros_like(x)
    inside = (frames >= 0) & (frames < count)
    base = frames.clamp(0, count - 1) * (height * width)
    for f in offsets:
        ix = (x + f * (trail * velocity[:, 0])[:, None]).round().long()
        iy = (y + f * (trail * velocity[:, 1])[:, None]).round().long()
        ok = (ix >= 0) & (ix < width) & (iy >= 0) & (iy < height)
        inside = inside & ok
        at = base + iy.clamp(0, height - 1) * width + ix.clamp(0, width - 1)
        total += cells.view(-1).index_select(0, at.view(-1)).view(at.shape)
    return torch.where(inside, total / len(offsets), 0.0), inside


def sample_noise(velocity: Tensor, trail: Tensor, blur: float) -> Tensor:
    """Sigma of one sampled value, (n,): 1 for a point, less for the mean along a trail.

    Neighbouring cells share noise: their correlation is exp(-d^2 / 4 blur^2).
    """
    if not bool(trail.any()):
        return torch.ones(len(velocity), device=velocity.device)
    offset = (torch.arange(TRAIL_SAMPLES, device=velocity.device) + 0.5) / TRAIL_SAMPLES
    apart = (offset[:, None] - offset).abs()
    squared = velocity.square().sum(1)[:, None, None] * apart.square()
    mean = torch.exp(-squared / (4 * blur**2)).mean(dim=(1, 2)).sqrt()
    return torch.where(trail > 0, mean, torch.ones_like(mean))


def framed(cells: Tensor) -> Tensor:
    """``cells`` (T, h, w) with a rim of zeros, and a dark frame at the end, (T + 1, h + 2, w + 2).

    Whatever lies outside is found there, and no path needs to be looked at for its ends.
    """
    return torch.nn.functional.pad(cells, (1, 1, 1, 1, 0, 1))


def sums_around(
    padded: Tensor, ends: Tensor, t0: Tensor, t1: Tensor, long: float, end: int, step: float
) -> Tensor:
    """Sums of paths (n, 4) with one end moved by -step, 0, step in y and x, (n, 9).

    ``padded`` as from ``framed``; ``end`` 0 or 1; ``long``: trails of so many frames' motion.
    """
    count, height, width = padded.shape
    frames = t0.long()[:, None] + torch.arange(int((t1 - t0).max()) + 1, device=ends.device)
    seen = (frames >= 0) & (frames < count - 1) & (frames <= t1[:, None])
    base = (torch.where(seen, frames, count - 1) * (height * width)).int()
    part = (frames - t0[:, None]) / (t1 - t0).clamp_min(1)[:, None]
    shifts = torch.tensor([-step, 0.0, step], device=ends.device)
    lever = (part if end else 1 - part)[:, None] * shifts[:, None]
    velocity = (ends[:, 2:] - ends[:, :2]) / (t1 - t0).clamp_min(1)[:, None]
    offsets = [((k + 0.5) / TRAIL_SAMPLES - 0.5) * long for k in range(TRAIL_SAMPLES)]
    total = torch.zeros(len(ends), 3, 3, device=ends.device)
    for f in offsets if long else [0.0]:
        rows, columns = (
            torch.lerp(ends[:, k, None], ends[:, k + 2, None], part).add_(f * velocity[:, k, None])
            for k in (1, 0)
        )
        x = (columns[:, None] + lever).round_().clamp_(-1, width - 2).int() + 1
        y = ((rows[:, None] + lever).round_().clamp_(-1, height - 2).int() + 1).mul_(width)
        at = (y + base[:, None])[:, :, None] + x[:, None]
        total += padded.view(-1).index_select(0, at.view(-1)).view(at.shape).sum(-1)
    return total.view(-1, 9) / (TRAIL_SAMPLES if long else 1)


def path_noise(
    cells: Tensor, ends: Tensor, t0: Tensor, t1: Tensor, trail: Tensor, blur: float
) -> Tensor:
    """Sigma of the sum along each path, (n,), from the frames in which it is in the picture."""
    count, height, width = cells.shape
    frames = t0.long()[:, None] + torch.arange(int((t1 - t0).max()) + 1, device=cells.device)
    part = (frames - t0[:, None]) / (t1 - t0).clamp_min(1)[:, None]
    x = torch.lerp(ends[:, 0, None], ends[:, 2, None], part)
    y = torch.lerp(ends[:, 1, None], ends[:, 3, None], part)
    seen = (frames >= 0) & (frames < count) & (frames <= t1[:, None])
    seen &= (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    noise = sample_noise((ends[:, 2:] - ends[:, :2]) / (t1 - t0)[:, None], trail, blur)
    return seen.sum(1).clamp_min(FEWEST_FRAMES).sqrt() * noise


def climb_by_tensors(
    padded: Tensor, ends: Tensor, t0: Tensor, t1: Tensor, long: float, steps: tuple[float, ...]
) -> Tensor:
    """`compiled.climb` by PyTorch: moves ``ends`` (n, 4) in place, returns the sums (n,)."""
    grid = torch.tensor([-1.0, 0.0, 1.0], device=padded.device)
    nine = torch.stack([grid.repeat(3), grid.repeat_interleave(3)], 1)  # x, y
    sums = torch.zeros(len(ends), device=padded.device)
    for step in steps:
        for end in (0, 1):
            sums, which = sums_around(padded, ends, t0, t1, long, end, step).max(dim=1)
            ends[:, 2 * end : 2 * end + 2] += step * nine[which]
    return sums


def climb(
    cells: Tensor,
    ends: Tensor,
    t0: Tensor,
    t1: Tensor,
    trail: Tensor,
    blur: float,
    steps: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Move both ends of each path to where its score is highest; returns ends and scores."""
    padded, ends = framed(cells), ends.clone()
    best = torch.zeros(len(ends), device=cells.device)

    def work(some: Tensor) -> None:
        e, a, b, long = ends[some], t0[some], t1[some], float(trail[some[0]])
        if cells.device.type == "cpu":
            score = torch.zeros(len(some))
            frames = (a.long().numpy(), b.long().numpy())
            moves = np.array(steps, np.float32)
            compiled.climb(padded.numpy(), e.numpy(), *frames, long, moves, score.numpy())
        else:
            score = climb_by_tensors(padded, e, a, b, long, steps)
        ends[some] = e
        best[some] = score / path_noise(cells, e, a, b, trail[some], blur)

    for some in (trail == 0, trail == 1):  # points and trails apart
        if some.any():
            on_threads(work, torch.nonzero(some)[:, 0].split(CHUNK))
    return ends, best


class Walk(NamedTuple):
    """Paths on their way: ends (n, 4: x, y at t0, x, y at t1), t0, t1, trail, score (n,)."""

    ends: Tensor
    t0: Tensor
    t1: Tensor
    trail: Tensor
    score: Tensor

    def take(self, index: Tensor) -> Walk:
        """The paths at ``index``."""
        return Walk(*(part[index] for part in self))


def sharpen(cells: Tensor, c: Candidates, blur: float) -> Walk:
    """Candidates' paths after a climb over their own frames."""
    dev = cells.device
    t, x, y, vx, vy, n, trail = (
        torch.from_numpy(np.ascontiguousarray(v)).float().to(dev)
        for v in (c.t, c.x, c.y, c.vx, c.vy, c.frames, c.trail)
    )
    half = (n - 1) / 2
    t0, t1 = t - half, t + half
    ends = torch.stack([x - vx * half, y - vy * half, x + vx * half, y + vy * half], 1)
    ends, score = climb(cells, ends, t0, t1, trail, blur, STEPS)
    return Walk(ends, t0, t1, trail, score)


def lengthen(cells: Tensor, walk: Walk, blur: float, frames: int) -> Walk:
    """Double the span of each path until it has ``frames`` or fills the window.

    The best span of each is kept.
    """
    count = cells.shape[0]
    frames = min(frames, count)
    kept = list(walk)
    ends, t0, t1, trail, score = walk
    while True:
        short = torch.nonzero(t1 - t0 < frames - 1)[:, 0]
        if not len(short):
            return Walk(*kept)
        e, a, b = ends[short], t0[short], t1[short]
        span = (b - a).clamp_min(8)
        first, last = (
            (a - span / 2).clamp_min(0).floor(),
            (b + span / 2).clamp_max(count - 1).ceil(),
        )
        velocity = (e[:, 2:] - e[:, :2]) / (b - a)[:, None]
        start = e[:, :2] + velocity * (first - a)[:, None]
        end = e[:, :2] + velocity * (last - a)[:, None]
        e, s = climb(cells, torch.cat([start, end], 1), first, last, trail[short], blur, STEPS)
        ends, t0, t1 = (
            old.index_copy(0, short, new) for old, new in ((ends, e), (t0, first), (t1, last))
        )
        better = short[s > kept[4][short]]
        score = score.index_copy(0, short, s)
        for n, new in ((0, ends), (1, t0), (2, t1), (4, score)):
            kept[n] = kept[n].index_copy(0, better, new[better])


def best_of(walk: Walk, limit: int) -> Walk:
    """The ``limit`` best paths."""
    return walk.take(torch.argsort(-walk.score)[:limit])


def distinct(paths: Paths, radius: float, most: int = MOST) -> np.ndarray:
    """Indices of the paths that are best among those that share most of their way, best first.

    At most ``most`` of them.

    Two paths share a frame where they come within ``radius`` cells, or half a frame's motion.
    """
    t = np.arange(0, int(paths.end.max()) + 1 if len(paths) else 0, 3)
    x = paths.x[:, None] + paths.vx[:, None] * t
    y = paths.y[:, None] + paths.vy[:, None] * t
    seen = (t >= paths.start[:, None]) & (t <= paths.end[:, None])
    near = (t >= paths.start[:, None] - 4) & (t <= paths.end[:, None] + 4)
    reach = radius + 0.5 * np.hypot(paths.vx, paths.vy)
    kept: list[int] = []
    for n in np.argsort(-paths.score):
        if len(kept) == most:
            break
        apart = np.hypot(x[kept] - x[n], y[kept] - y[n])
        shared = (near[kept] & seen[n] & (apart < reach[kept][:, None])).sum(axis=1)
        if not (shared >= 0.3 * max(1, seen[n].sum())).any():
            kept.append(int(n))
    return np.array(kept, int)


def refine(cells: Tensor, candidates: Candidates, *, threshold: float, blur: float) -> Paths:
    """Distinct paths over ``threshold`` sigma, best first.

    ``cells`` (T, h, w) float32 in sigma; ``blur``: correlation length of its noise in cells.
    """
    if not len(candidates):
        return Paths(*(np.zeros(0) for _ in Paths.__dataclass_fields__))
    walk = best_of(sharpen(cells, candidates, blur), SHARPENED)
    walk = best_of(lengthen(cells, walk, blur, HALFWAY), FOLLOWED)
    ends, t0, t1, trail, _ = lengthen(cells, walk, blur, len(cells))
    every = torch.arange(cells.shape[0], device=cells.device).expand(len(ends), -1)
    values, inside = sample_paths(cells, ends, t0, t1, every, trail)
    velocity = (ends[:, 2:] - ends[:, :2]) / (t1 - t0)[:, None]
    values = values / sample_noise(velocity, trail, blur)[:, None]
    origin = (ends[:, :2] - velocity * t0[:, None]).cpu().numpy()
    first, last, sigma = compiled.best_intervals(
        values.cpu().numpy(), inside.cpu().numpy(), FEWEST_FRAMES
    )
    columns = (*origin.T, *velocity.T.cpu().numpy(), first, last, sigma, trail.cpu().numpy())
    paths = take(
        Paths(*(np.asarray(c, float) for c in columns)), np.flatnonzero(sigma >= threshold)
    )
    return take(paths, distinct(paths, radius=1.5))


def take(paths: Paths, index: np.ndarray) -> Paths:
    """The paths at ``index``."""
    return Paths(*(getattr(paths, name)[index] for name in Paths.__dataclass_fields__))
