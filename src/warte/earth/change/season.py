"""Changes of a dense series: a season and a trend that repeat, and steps that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from warte.earth.change.kinds import EBB, FLOOD, ByBands, Kinds
from warte.earth.change.results import finish
from warte.earth.change.smooth import smoothed
from warte.earth.change.stack import Sample, by_date
from warte.earth.scene import Pixels

FloatArray = npt.NDArray[np.float64]
YEAR = 365.25  # days
CHUNK = 1024  # pixels fitted at once: what fits into the cache
STRIP = 2_000_000  # numbers smoothed at once; greater pieces of memory cost time to get
SPIKE = 3.5  # standard deviations from the neighbours in time at which one date is left out
PLAUSIBLE = 3.84  # fall of twice the log-likelihood at the ends of a 95 % interval
ALIKE = 20.0  # days of the year between dates of one season
FLOODED = 3  # dry dates for each wet one where a flood is none of the seasons
RIDGE = 1e-9


@dataclass(frozen=True)
class Model:
    """What is fitted to each pixel. days: of the dates. noise: (bands,) of one observation."""

    days: tuple[float, ...]
    harmonics: int
    breaks: int
    confirm: int
    noise: tuple[float, ...]

    @property
    def design(self) -> torch.Tensor:
        """(dates, 2 + 2 harmonics): 1, years from the middle, cosines and sines of the year."""
        days = torch.tensor(self.days, dtype=torch.float64)
        years = (days - (days[0] + days[-1]) / 2) / YEAR
        columns = [torch.ones_like(years), years]
        for wave in range(1, self.harmonics + 1):
            columns += [
                torch.cos(2 * math.pi * wave * years),
                torch.sin(2 * math.pi * wave * years),
            ]
        return torch.stack(columns, 1)

    @property
    def needed(self) -> int:
        """Observations that a pixel must have."""
        return 2 + 2 * self.harmonics + 2 * self.confirm


@dataclass(frozen=True)
class Season:
    """The greatest step of each pixel.

    gain: (P,) twice the log-likelihood that the best first step adds, infinite noise scale aside.
    date: (P,) index of the first date after the step, 0 where there is none. first, last: (P,)
    index of the last date before its earliest and of the first after its latest plausible place.
    before, after: (bands, P) yearly level on its two sides.
    """

    gain: torch.Tensor
    date: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


def fit(
    values: torch.Tensor, seen: torch.Tensor, doubt: torch.Tensor, model: Model,
    threshold: float, inflation: float = 1.0,
) -> Season:  # fmt: skip
    """Season, trend and steps of many pixels.

    values: (dates, bands, P). seen: (dates, P). doubt: (P,) factor on the noise. threshold: gain
    from which a step is one. inflation: of the noise, for the interval of the date. A harmonic
    season with a trend (Zhu & Woodcock 2014, RSE 144, 152; Verbesselt et al. 2010, RSE 114, 106);
    steps of the level are added one by one, each where it explains most, all the rest fitted anew.
    """
    keep = seen & ~spikes(values, seen, model)
    weight = keep.to(values.dtype).T[..., None]  # (P, dates, 1)
    y = values.permute(2, 0, 1) * weight  # (P, dates, bands)
    scale = torch.tensor(model.noise, dtype=y.dtype) * doubt[:, None]  # (P, bands)
    pixels, dates, _ = y.shape
    x = model.design[None].expand(pixels, -1, -1) * weight
    scale = torch.maximum(scale, _scatter(x, y, weight, scale, model.confirm))
    chosen = torch.zeros(pixels, model.breaks, dtype=torch.long)
    intervals = torch.zeros(2, pixels, model.breaks, dtype=torch.long)
    first_gain = torch.zeros(pixels, dtype=y.dtype)
    active = torch.ones(pixels, dtype=torch.bool)
    for number in range(model.breaks):
        gain = step_gains(x, y, weight, scale)
        gain = gain.masked_fill(~_allowed(weight[..., 0], chosen, model.confirm), 0)
        best, at = gain.max(1)
        if number == 0:
            first_gain = best
        active = active & (best > threshold)
        if not active.any():
            break
        early, late = _plausible(gain, best - PLAUSIBLE * inflation, at)
        chosen[:, number] = torch.where(active, at, 0)
        intervals[0, :, number], intervals[1, :, number] = early, late
        column = (torch.arange(dates)[None] >= at[:, None]) & active[:, None]
        x = torch.cat([x, column[..., None] * weight], 2)
    beta = _solve(x, y)
    lasting = _lasting(y, weight[..., 0], beta, chosen, scale, model)
    seen = weight[..., 0] > 0
    return _greatest(x, beta, chosen, lasting, intervals, first_gain, scale, seen, model)


def _scatter(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, confirm: int
) -> torch.Tensor:
    """(P, bands) standard deviation about the season with its best step.

    A harvest comes on another day each year, so a field is less regular than a wood. Neighbours in
    time go astray together: with a correlation r of the next one, the deviation of a mean is that
    of free noise times sqrt((1 + r) / (1 - r)).
    """
    none = torch.zeros(len(x), 0, dtype=torch.long)
    allowed = _allowed(weight[..., 0], none, confirm)
    at = step_gains(x, y, weight, scale).masked_fill(~allowed, 0).argmax(1)
    step = (torch.arange(x.shape[1])[None] >= at[:, None])[..., None] * weight
    whole = torch.cat([x, step], 2)
    rest = y - whole @ _solve(whole, y)
    free = (weight.sum((1, 2)) - whole.shape[2]).clamp(min=1)[:, None]
    square = (rest**2).sum(1)
    pairs = (weight[:, 1:] * weight[:, :-1]).sum((1, 2)).clamp(min=1)[:, None]
    together = (rest[:, 1:] * rest[:, :-1]).sum(1) / pairs
    mean_square = square / weight.sum((1, 2)).clamp(min=1)[:, None]
    r = (together / mean_square.clamp(min=1e-30)).clamp(0, 0.8)
    return torch.sqrt(square / free * (1 + r) / (1 - r))


def _solve(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(P, columns, bands) least squares; columns of zeros get 0."""
    normal = x.mT @ x
    normal += (
        RIDGE
        * torch.eye(x.shape[2], dtype=x.dtype)
        * (1 + normal.diagonal(0, 1, 2).sum(1))[:, None, None]
    )
    return torch.linalg.solve(normal, x.mT @ y)


def step_gains(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """(P, dates) by how much a step before each date lowers the sum of squares over the noise.

    The step's column is freed of what the other columns explain (Frisch & Waugh 1933), so one
    solution of the normal equations serves all dates.
    """
    rest = y - x @ _solve(x, y)
    tail = (weight * rest).flip(1).cumsum(1).flip(1)  # (P, dates, bands)
    along = x.flip(1).cumsum(1).flip(1)  # (P, dates, columns)
    count = weight.flip(1).cumsum(1).flip(1)[..., 0]
    length = count - (along * _solve_for(x, along)).sum(2)
    gain = ((tail / scale[:, None]) ** 2).sum(2) / length.clamp(min=1e-12)
    return torch.where(length > 0.05, gain, 0)


def _solve_for(x: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    normal = x.mT @ x
    normal += (
        RIDGE
        * torch.eye(x.shape[2], dtype=x.dtype)
        * (1 + normal.diagonal(0, 1, 2).sum(1))[:, None, None]
    )
    return torch.linalg.solve(normal, along.mT).mT


def _allowed(weight: torch.Tensor, chosen: torch.Tensor, confirm: int) -> torch.Tensor:
    """(P, dates) dates that were seen and `confirm` seen ones on both sides, up to a step."""
    count = torch.cat([torch.zeros_like(weight[:, :1]), weight.cumsum(1)], 1)  # before each date
    total = count[:, -1:]
    before, after = count[:, :-1], total - count[:, :-1]
    allowed = (weight > 0) & (before >= confirm) & (after >= confirm)
    for at in chosen.T:
        apart = (count[:, :-1] - count.gather(1, at[:, None])).abs()
        allowed &= (apart >= confirm) | (at == 0)[:, None]
    return allowed


def _plausible(
    gain: torch.Tensor, least: torch.Tensor, at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last date around the best one up to which the gain stays as great as `least`.

    Dates at which no step may stand, such as those not seen, are passed over.
    """
    index = torch.arange(gain.shape[1])[None]
    worse = (gain > 0) & (gain < least[:, None])
    early = torch.where(worse & (index < at[:, None]), index, -1).amax(1)
    late = torch.where(worse & (index > at[:, None]), index, gain.shape[1]).amin(1)
    fine = (gain >= least[:, None]) & (gain > 0)
    inside = fine & (index > early[:, None]) & (index < late[:, None])
    first = torch.where(inside, index, gain.shape[1] - 1).amin(1)
    return torch.minimum(first, at), torch.maximum(torch.where(inside, index, 0).amax(1), at)


def _lasting(
    y: torch.Tensor, weight: torch.Tensor, beta: torch.Tensor, chosen: torch.Tensor,
    scale: torch.Tensor, model: Model,
) -> torch.Tensor:  # fmt: skip
    """(P, steps) which steps are seen between dates of one season, too.

    A harvest is too sudden for some waves, and what the waves leave looks like a step at the
    beginning or the end of a series. So what follows a step within some more than a year is
    compared with what was seen in the years before it within ALIKE days of the same day of the
    year: half of the dates must show half of the step, and there must be one.
    """
    days = torch.tensor(model.days, dtype=y.dtype)
    apart = (days[:, None] - days[None]).remainder(YEAR)
    other = (days[:, None] - days[None]).abs() > YEAR / 2
    same = ((torch.minimum(apart, YEAR - apart) <= ALIKE) & other).to(y.dtype)
    index = torch.arange(len(days))[None]
    heights = beta[:, 2 + 2 * model.harmonics :] / scale[:, None]
    result = torch.ones_like(chosen, dtype=torch.bool)
    for number in range(heights.shape[1]):
        at, height = chosen[:, number, None], heights[:, number]
        earliest = torch.where(chosen < at, chosen, 0).amax(1)[:, None]
        latest = torch.where(chosen > at, chosen, len(days)).amin(1)[:, None]
        before = weight * (index >= earliest) * (index < at)
        count = before @ same
        usual = torch.einsum("pt,ptb,ts->psb", before, y, same) / count.clamp(min=1)[..., None]
        share = ((y - usual) / scale[:, None] * height[:, None]).sum(2)
        share /= (height**2).sum(1).clamp(min=1e-30)[:, None]
        soon = days[None] <= days[at] + 1.25 * YEAR
        known = (weight > 0) & (count > 0) & soon & (index >= at) & (index < latest)
        middle = share.masked_fill(~known, torch.nan).nanmedian(1).values
        result[:, number] = middle >= 0.5
    return result


def _greatest(
    x: torch.Tensor, beta: torch.Tensor, chosen: torch.Tensor, lasting: torch.Tensor,
    intervals: torch.Tensor, gain: torch.Tensor, scale: torch.Tensor, seen: torch.Tensor,
    model: Model,
) -> Season:  # fmt: skip
    """The step of the greatest height over the noise, and the yearly levels beside it."""
    base = 2 + 2 * model.harmonics
    steps = beta[:, base:]  # (P, steps, bands)
    found = chosen[:, : steps.shape[1]]
    pixels, dates = seen.shape
    if not steps.shape[1]:
        none = torch.zeros(pixels, dtype=torch.long)
        level = beta[:, 0].T
        return Season(gain, none, none, none, level, level)
    shown = (found > 0) & lasting[:, : steps.shape[1]]
    height = ((steps / scale[:, None]) ** 2).sum(2).masked_fill(~shown, -1)
    which = height.argmax(1)
    at = found.gather(1, which[:, None])[:, 0] * shown.any(1)
    years = model.design[:, 1][at]
    earlier = (found > 0) & (found < at[:, None])
    before = beta[:, 0] + beta[:, 1] * years[:, None] + (steps * earlier[..., None]).sum(1)
    after = before + steps[torch.arange(pixels), which]
    index = torch.arange(dates)[None]
    early, late = (part.gather(1, which[:, None]) for part in intervals)
    first = torch.where(seen & (index < early), index, -1).amax(1).clamp(min=0)
    return Season(gain, at, first, torch.where(at > 0, late[:, 0], 0), before.T, after.T)


def spikes(values: torch.Tensor, seen: torch.Tensor, model: Model) -> torch.Tensor:
    """(dates, P) single observations far from those before and after: clouds that no mask marked.

    What is left of the values by a season without steps is compared with the two observations
    before and the two after, in units of the usual difference (after Hampel 1974). It is a spike
    outside the middle two of these four, so one beside a step is none.
    """
    mask = seen.T.to(values.dtype)[..., None]
    y = values.permute(2, 0, 1) * mask
    x = model.design[None] * mask
    rest = y - x @ _solve(x, y)
    order = torch.argsort((~seen).T.to(torch.uint8), dim=1, stable=True)  # what is seen, first
    packed = rest.gather(1, order[..., None].expand_as(rest))
    there = mask.gather(1, order[..., None]) > 0
    packed = torch.where(there, packed, torch.nan)
    edge = torch.full_like(packed[:, :2], torch.nan)
    padded = torch.cat([edge, packed, edge], 1)
    dates = packed.shape[1]
    beside = torch.stack([padded[:, at : at + dates] for at in (0, 1, 3, 4)])
    count = beside.isfinite().sum(0, keepdim=True)
    beside = beside.nan_to_num(math.inf).sort(0).values
    low = beside.gather(0, ((count - 1) // 2).clamp(min=0))[0]
    high = beside.gather(0, (count // 2).clamp(max=3))[0]
    apart = torch.maximum(low - packed, packed - high)
    usual = (packed - (low + high) / 2).abs().nanmedian(1, keepdim=True).values * 1.4826
    floor = torch.tensor(model.noise, dtype=rest.dtype)
    odd = ((apart > SPIKE * torch.maximum(usual, floor)) & (count[0] > 0)).any(2)
    result = torch.zeros_like(odd).scatter(1, order, odd)
    return result.T


def noise_of(sample: Sample) -> tuple[float, ...]:
    """(bands,) noise of one observation, from each pixel's differences to the next one in time.

    The median over pixels and dates of |second difference| / sqrt(6), as for normal noise: a season
    bends little between three observations.
    """
    found = []
    for band in range(sample.values.shape[2]):
        parts = []
        for values, seen in zip(sample.values[:, :, band], sample.seen, strict=True):
            flat, there = (
                values.reshape(len(values), -1).astype(np.float64),
                seen.reshape(len(seen), -1),
            )
            order = np.argsort(~there, axis=0, kind="stable")
            packed = np.where(
                np.take_along_axis(there, order, 0), np.take_along_axis(flat, order, 0), np.nan
            )
            second = np.abs(packed[2:] - 2 * packed[1:-1] + packed[:-2])
            parts.append(second[np.isfinite(second)])
        joined = np.concatenate(parts)
        noise = 1.4826 * float(np.median(joined)) / math.sqrt(6) if len(joined) else 0.0
        found.append(max(noise, 1e-6 * float(np.abs(sample.values[:, :, band]).max()), 1e-12))
    return tuple(found)


def sample_gains(sample: Sample, model: Model, most: int = 20_000) -> FloatArray:
    """(N,) gain of the best step of pixels of a sample."""
    stride = max(1, int(np.ceil(np.sqrt(sample.seen[:, 0].size / most))))
    gains = []
    for values, seen in zip(sample.values, sample.seen, strict=True):
        raw, there = torch.from_numpy(values), torch.from_numpy(seen)
        found = smooth_series(raw, there, model)
        thin = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        y, was, doubt = found[0][thin].flatten(2), there[thin].flatten(1), found[1][thin].flatten()
        enough = was.sum(0) >= model.needed
        if enough.any():
            part = fit(y[..., enough], was[:, enough], doubt[enough], model, math.inf)
            gains.append(part.gain.numpy())
    return np.concatenate(gains) if gains else np.empty(0)


def smooth_series(
    raw: torch.Tensor, seen: torch.Tensor, model: Model
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values averaged with the neighbours that go the same way, and the doubt."""
    scale = torch.tensor(model.noise, dtype=torch.float64)[:, None, None]
    rows = raw.shape[-2]
    high = max(1, STRIP // max(1, raw[..., 0, :].numel()))
    means, doubts = [], []
    for start in range(0, rows, high):
        top, bottom = max(0, start - 1), min(rows, start + high + 1)
        there = seen[:, top:bottom]
        white = raw[..., top:bottom, :].double() / scale * there[:, None]
        found = smoothed(white, white[:, :0], there)
        inner = slice(start - top, min(rows, start + high) - top)
        means.append(found.white[..., inner, :] * scale)
        doubts.append(found.doubt[inner])
    return torch.cat(means, -2), torch.cat(doubts)


@dataclass(frozen=True)
class SeasonWork:
    """Finds the steps of one window; see `fit` and `warte.earth.whole.map_scenes`.

    threshold: gain from which a step is marked. usual: its median where nothing changed. wet: index
    of water from which a pixel is one. smallest: pixels of a patch.
    """

    model: Model
    threshold: float
    usual: float
    inflation: float
    kinds: Kinds
    wet: float
    smallest: int

    def __call__(self, pixels: Sequence[Pixels]) -> Mapping[str, npt.NDArray[Any]]:
        """The pictures of a window."""
        values, seen = by_date(pixels[0], len(self.model.days))
        shape = seen.shape[1:]
        there = torch.from_numpy(seen)
        y, doubt = smooth_series(torch.from_numpy(values), there, self.model)
        y, was, doubt = y.flatten(2), there.flatten(1), doubt.flatten()
        valid = np.flatnonzero(pixels[0].valid.ravel())
        kind = np.zeros(seen[0].size, np.uint8)
        score = np.zeros(seen[0].size, np.float32)
        dates = np.zeros((2, seen[0].size), np.int64)
        for start in range(0, len(valid), CHUNK):
            part = valid[start : start + CHUNK]
            found = fit(
                y[..., part], was[:, part], doubt[part], self.model, self.threshold, self.inflation
            )
            score[part] = np.sqrt(found.gain.clamp(min=0).numpy() / self.usual)
            marked = (found.date > 0).numpy()
            before, after = found.before.numpy()[:, marked], found.after.numpy()[:, marked]
            kind[part[marked]] = self.kinds.kinds(
                before, after, self.kinds.wetness(before) >= self.wet,
                self.kinds.wetness(after) >= self.wet,
            )  # fmt: skip
            dates[0, part], dates[1, part] = found.first.numpy(), found.last.numpy()
            if not isinstance(self.kinds, ByBands):
                continue
            first, last = self._floods(y[..., part].numpy(), was[:, part].numpy())
            flooded = (last > 0) & np.isin(kind[part], (0, FLOOD, EBB))
            kind[part[flooded]] = FLOOD
            dates[:, part[flooded]] = first[flooded], last[flooded]
        days = np.floor(self.model.days).astype(np.int64)
        years = np.floor(1970 + days / YEAR).astype(np.int64) - 1900
        return finish(
            kind.reshape(shape), score.reshape(shape), dates.reshape(2, *shape), days,
            pixels[0].valid, self.smallest, years,
        )  # fmt: skip

    def _floods(
        self, y: FloatArray, seen: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(P,) index of the last dry date before a flood and of its first wet one, 0 without one.

        y: (dates, bands, P). seen: (dates, P). A flood that goes again is no step: it is land that
        is wet at `confirm` dates or more in turn, after as many dry ones, and dry at most dates.
        """
        wet = seen & (np.stack([self.kinds.wetness(date) for date in y]) > max(self.wet, 0.0))
        land = (seen & ~wet).sum(axis=0) > FLOODED * wet.sum(axis=0)
        pixels = seen.shape[1]
        dry, run, since, before = (np.zeros(pixels, np.int64) for _ in range(4))
        first, last = np.zeros(pixels, np.int64), np.zeros(pixels, np.int64)
        for date in range(len(seen)):
            begins = wet[date] & (run == 0)
            since[begins] = date
            run[wet[date]] += 1
            run[seen[date] & ~wet[date]] = 0
            found = (run >= self.model.confirm) & (dry >= self.model.confirm) & land & (last == 0)
            first[found], last[found] = before[found], since[found]
            dries = seen[date] & ~wet[date]
            dry[dries] += 1
            before[dries] = date
        return first, last
