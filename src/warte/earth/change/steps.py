"""Changes between some dates: the ground keeps its look, and steps to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from warte.earth.change.kinds import Kinds
from warte.earth.change.radiometry import Radiometry
from warte.earth.change.results import finish
from warte.earth.change.smooth import smoothed
from warte.earth.change.stack import by_date
from warte.earth.scene import Pixels

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
CHUNK = 4_000_000  # numbers of the table of costs that are held at once


@dataclass(frozen=True)
class Steps:
    """The greatest step of each pixel.

    gain: (P,) sum of squares that one step explains, the best alone. strongest: (P,) sum of squares
    that the greatest step of the chosen steps explains, 0 where none is chosen. before, after:
    (P,) index of the last date seen before it and the first seen after it. first, last: (P, 2)
    index of the first and the last date (excluded) of the parts before and after it.
    """

    gain: torch.Tensor
    strongest: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    parts: torch.Tensor


def find_steps(values: torch.Tensor, seen: torch.Tensor, penalty: float, most: int) -> Steps:
    """The piecewise constant courses that explain the values best (dynamic programming).

    values: (dates, bands, P) float64, noise of unit variance, 0 where not seen. seen: (dates, P).
    penalty: what each step must explain. most: steps at most. Jackson et al. 2005, IEEE SPL 12,
    105, for many pixels at once; every part of a course holds an observation.
    """
    dates, _, pixels = values.shape
    mask = seen.to(values.dtype)
    zero = values.new_zeros(1, *values.shape[1:])
    sums = torch.cat([zero, (values * mask[:, None]).cumsum(0)])
    counts = torch.cat([zero[:, 0], mask.cumsum(0)])

    def explained(start: int, end: int) -> torch.Tensor:
        """Sum of squares that the mean of the dates start..end-1 explains."""
        total, count = sums[end] - sums[start], counts[end] - counts[start]
        return (total**2).sum(0) / count.clamp(min=1)

    table = {(a, b): explained(a, b) for a in range(dates) for b in range(a + 1, dates + 1)}
    whole = table[0, dates]
    best = {end: table[0, end] for end in range(1, dates + 1)}
    value, chosen = whole, torch.zeros(pixels, dtype=torch.long)
    back: list[dict[int, torch.Tensor]] = []
    gain = torch.zeros(pixels, dtype=values.dtype)
    for number in range(1, min(most, dates - 1) + 1):
        new, origin = {}, {}
        for end in range(number + 1, dates + 1):
            options = torch.stack([best[a] + table[a, end] for a in range(number, end)])
            new[end], at = options.max(0)
            origin[end] = at + number
        back.append(origin)
        best = new
        if number == 1:
            gain = best[dates] - whole
        better = best[dates] - number * penalty > value
        value = torch.where(better, best[dates] - number * penalty, value)
        chosen = torch.where(better, number, chosen)
    return _greatest(sums, counts, _borders(back, chosen, dates), gain)


def _borders(
    back: Sequence[Mapping[int, torch.Tensor]], chosen: torch.Tensor, dates: int
) -> torch.Tensor:
    """(most + 2, P) first dates of the parts, from 0, and `dates` after the last."""
    most = len(back)
    borders = torch.full((most + 2, len(chosen)), dates)
    borders[0] = 0
    for count in range(1, most + 1):
        end = torch.full_like(chosen, dates)
        for number in range(count, 0, -1):
            origins = back[number - 1]
            start = torch.zeros_like(end)
            for key, origin in origins.items():
                start = torch.where(end == key, origin, start)
            borders[number] = torch.where(chosen == count, start, borders[number])
            end = start
    return borders


def _greatest(
    sums: torch.Tensor, counts: torch.Tensor, borders: torch.Tensor, gain: torch.Tensor
) -> Steps:
    dates = len(counts) - 1
    strongest = torch.zeros_like(gain)
    parts = torch.zeros(3, len(gain), dtype=torch.long)
    for number in range(len(borders) - 2):
        ends = borders[number : number + 3]
        total = [_at(sums, end) for end in ends]
        count = [counts.gather(0, end[None])[0] for end in ends]
        one, two = (count[1] - count[0]).clamp(min=0), (count[2] - count[1]).clamp(min=0)
        step = (total[2] - total[1]) / two.clamp(min=1) - (total[1] - total[0]) / one.clamp(min=1)
        size = (step**2).sum(0) * one * two / (one + two).clamp(min=1)
        size = torch.where(ends[1] < dates, size, 0)
        greater = size > strongest
        strongest = torch.where(greater, size, strongest)
        parts = torch.where(greater, ends, parts)
    index = torch.arange(dates)[:, None]
    seen = counts[1:] > counts[:-1]
    early, late = seen & (index < parts[1]), seen & (index >= parts[1])
    before = torch.where(early, index, -1).amax(0).clamp(min=0)
    after = torch.where(late, index, dates - 1).amin(0)
    return Steps(gain, strongest, before, after, parts)


def _at(sums: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """(bands, P) the sums up to a date of each pixel's own. sums: (dates + 1, bands, P)."""
    return sums.gather(0, end[None, None].expand(1, *sums.shape[1:]))[0]


def leveled(values: torch.Tensor, found: Radiometry) -> torch.Tensor:
    """(..., dates, bands, rows, columns) in the radiometry of the reference, float64."""
    gains = torch.from_numpy(found.gains)[..., None, None]
    return values.double() * gains + torch.from_numpy(found.offsets)[..., None, None]


def whitened(values: torch.Tensor, seen: torch.Tensor, found: Radiometry) -> torch.Tensor:
    """The same with unit noise, 0 where not seen.

    Sums over the bands are written out, so that a pixel's result does not depend on how many
    others are computed with it.
    """
    level = leveled(values, found)
    white = torch.zeros_like(level)
    for row in range(len(found.whiten)):
        for column in range(row + 1):
            white[..., row, :, :] += float(found.whiten[row, column]) * level[..., column, :, :]
    return white * seen[..., None, :, :]


def without_haze(
    white: torch.Tensor, level: torch.Tensor, seen: torch.Tensor, threshold: float
) -> torch.Tensor:
    """(dates, P) what is seen, less single dates that stand out as haze, cloud or shadow do.

    white: (dates, bands, P) with unit noise; level: the same in units of the reference. At such a
    date all bands are brighter, or all darker, than at the dates before and after, which agree.
    """
    kept = seen.clone()
    for date in range(1, len(seen) - 1):
        rest = (white[date + 1] - white[date - 1]).square().sum(0) / 2
        out = (white[date] - (white[date - 1] + white[date + 1]) / 2).square().sum(0) * 2 / 3
        apart = level[date] - (level[date - 1] + level[date + 1]) / 2
        one_way = (apart > 0).all(0) | (apart < 0).all(0)
        known = seen[date - 1] & seen[date] & seen[date + 1]
        kept[date] &= ~(known & one_way & (out > threshold) & (rest <= threshold))
    return kept


@dataclass(frozen=True)
class StepWork:
    """Finds the steps of one window; see `find_steps` and `warte.earth.whole.map_scenes`.

    days: since 1970 of each date. threshold: sum of squares from which a step is marked. usual:
    the median of the unchanged. kinds: names for what changed. wet: of each date, the index of
    water from which a pixel is one. smallest: pixels of a patch. radius: of the smoothing.
    """

    radiometry: Radiometry
    days: tuple[float, ...]
    threshold: float
    usual: float
    kinds: Kinds
    wet: tuple[float, ...]
    smallest: int
    breaks: int
    radius: int

    def __call__(self, pixels: Sequence[Pixels]) -> Mapping[str, npt.NDArray[Any]]:
        """The pictures of a window; score in units of the usual difference of unchanged ground."""
        values, seen = by_date(pixels[0], len(self.days))
        rows, columns = seen.shape[1:]
        raw, there = torch.from_numpy(values), torch.from_numpy(seen)
        found = smoothed(whitened(raw, there, self.radiometry), raw, there, self.radius)
        white = (found.white / found.doubt).flatten(2)
        level = leveled(found.raw, self.radiometry).flatten(2)
        clear = without_haze(white, level, there.flatten(1), self.threshold)
        white = white * clear[:, None]
        wet = np.stack([
            self.kinds.wetness(date) >= border
            for date, border in zip(found.raw.flatten(2).numpy(), self.wet, strict=True)
        ])  # fmt: skip
        kind = np.zeros(rows * columns, np.uint8)
        score = np.zeros(rows * columns, np.float32)
        dates = np.zeros((2, rows * columns), np.int64)
        size = max(1, CHUNK // (len(self.days) ** 2))
        for start in range(0, rows * columns, size):
            part = slice(start, start + size)
            steps = find_steps(white[..., part], clear[:, part], self.threshold, self.breaks)
            score[part] = np.sqrt(
                torch.maximum(steps.gain, steps.strongest).clamp(min=0).numpy() / self.usual
            )
            marked = (steps.strongest > 0).numpy()
            kind[part][marked] = self._kinds(
                level[..., part].numpy()[..., marked], clear[:, part].numpy()[:, marked],
                wet[:, part][:, marked], steps.parts.numpy()[:, marked],
            )  # fmt: skip
            dates[0, part], dates[1, part] = steps.before.numpy(), steps.after.numpy()
        shape = (rows, columns)
        return finish(
            kind.reshape(shape), score.reshape(shape), dates.reshape(2, *shape),
            np.floor(self.days).astype(np.int64), pixels[0].valid, self.smallest,
        )  # fmt: skip

    def _kinds(
        self, level: FloatArray, seen: BoolArray, wet: BoolArray, parts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint8]:
        """What changed from the mean of the part before to the mean of the part after."""
        index = np.arange(len(level))[:, None]
        means, waters = [], []
        for begin, end in ((parts[0], parts[1]), (parts[1], parts[2])):
            inside = (index >= begin) & (index < end) & seen
            count = np.maximum(inside.sum(axis=0), 1)
            total = np.zeros(level.shape[1:])
            for date in range(len(level)):
                total += np.where(inside[date], level[date], 0)
            means.append(total / count)
            waters.append((inside & wet).sum(axis=0) * 2 >= count)
        return self.kinds.kinds(means[0], means[1], waters[0], waters[1])
