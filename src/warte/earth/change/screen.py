"""Clouds, cirrus and shadows of a series that no mask marks, told by what comes before and after.

After Tmask (Zhu & Woodcock 2014, RSE 152, 217): clouds are brighter in visible light than the same
pixel at other times, shadows darker in all. Here a date is compared with the dates just before and
just after, each side for itself: clouds come and go, so both sides hold clear dates, while a change
of the ground agrees with those after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from warte.core.data.tiles import Window
from warte.earth.change.season import noise_of
from warte.earth.change.stack import MISSING, Sample, Stack
from warte.earth.scene import BoolArray, Float32Array, Scene

VISIBLE = ("blue", "green", "red")  # the first that is there tells clouds
DARKENED = ("green", "nir", "swir16")  # shadows darken all of these
LOOKED = 6  # dates on each side that are compared
ENOUGH = 3  # of them that a side must have
SHINE = 0.08  # share of the way from ground to cloud at which a date stands out
SURE = 0.25  # the same of what is surely cloud
CLOUD = 0.99  # quantile of the brightness that is cloud, in a series with clouds
DIM = 0.8  # share of the usual light that a shadow lets through, at most
DEEP = 0.5  # the same of what is surely shadow
SIGMAS = 4.0  # standard deviations from which a date stands out
WATER = 0.35  # mean of NDWI and MNDWI of water; that of ground in shadow is less
MOST = 5  # pixels of nine that stand out where it is no speck
GROWN = 2  # pixels around what stands out that are left out, too
ROUNDS = 3
COVERED = 0.9  # share of a date without clear pixels at which the user is told


@dataclass(frozen=True)
class Screen:
    """What tells the clouds of one series.

    names: of the bands that are looked at, the one that tells clouds first. sure, bright: by how
    much a date exceeds clear ones that is cloud, surely or probably. noise: standard deviation of
    the others, which shadows darken.
    """

    names: tuple[str, ...]
    sure: float
    bright: float
    noise: tuple[float, ...]

    def clear(self, values: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """(dates, rows, columns) what is seen and is the ground in full light.

        values: (dates, bands, rows, columns), the bands of `names`. Exact but for MARGIN pixels at
        the edge.
        """
        wet, rest = self._wet(values), seen
        # What is surely cloud goes first, as often as it hides other clouds.
        for least, rank in ((self.sure, 2), (self.sure, 2), (self.bright, 3)):
            rest = rest & ~(brighter(values[:, 0], rest, rank) > least)
        for dim in (DEEP, DEEP, DIM):
            rest = rest & ~(darker(values[:, 1:], rest, self.noise, dim) & ~wet)
        return rest & ~grown(seen & ~rest)

    def _wet(self, values: torch.Tensor) -> torch.Tensor:
        """(dates, rows, columns) what is open water: darker than land, but of another colour."""
        names = self.names[1:]
        if not set(DARKENED) <= set(names):
            return torch.zeros_like(values[:, 0], dtype=torch.bool)
        green, nir, swir = (values[:, 1 + names.index(band)].clamp(min=0) for band in DARKENED)
        ndwi = (green - nir) / (green + nir).clamp(min=1e-30)
        mndwi = (green - swir) / (green + swir).clamp(min=1e-30)
        return (ndwi + mndwi) / 2 > WATER


MARGIN = GROWN + 1


def brighter(values: torch.Tensor, seen: torch.Tensor, rank: int) -> torch.Tensor:
    """(dates, rows, columns) by how much a date exceeds the clear dates before and those after.

    rank: 2 takes the second lowest of them for clear.
    """
    return values - torch.maximum(*beside(values, seen, rank))


def darker(
    values: torch.Tensor, seen: torch.Tensor, noise: Sequence[float], dim: float
) -> torch.Tensor:
    """(dates, rows, columns) True where all bands lie below the dates before and those after.

    values: (dates, bands, rows, columns). dim: share of the usual light from which they do.
    """
    total, usual = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    all_below = seen.clone()
    for band, spread in enumerate(noise):
        at = values[:, band]
        reference = -torch.maximum(*beside(-at, seen, 2))
        all_below &= at < reference + spread
        total, usual = total + at, usual + reference
    return all_below & (total < dim * usual) & (usual - total > SIGMAS * sum(noise))


def beside(
    values: torch.Tensor, seen: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest but `rank` - 1 of the LOOKED dates seen before each, and of those seen after it.

    -inf where there are fewer than ENOUGH, as at the beginning and the end of a series: the other
    side tells alone.
    """
    order = torch.argsort((~seen).to(torch.uint8), dim=0, stable=True)  # what is seen, first
    packed = torch.where(seen, values, torch.inf).gather(0, order)
    edge = torch.full_like(packed[:LOOKED], torch.inf)
    if len(edge) < LOOKED:
        edge = edge[:1].expand(LOOKED, -1, -1)
    padded = torch.cat([edge, packed, edge])
    sides = []
    for first in (0, LOOKED + 1):
        lowest = [torch.full_like(packed, torch.inf) for _ in range(rank)]
        for step in range(LOOKED):
            rising = padded[first + step : first + step + len(packed)]
            for place, low in enumerate(lowest):
                lowest[place], rising = torch.minimum(low, rising), torch.maximum(low, rising)
        count = torch.cumsum(torch.cat([edge[:1].isinf() & False, padded.isfinite()]), 0)
        there = count[first + LOOKED :][: len(packed)] - count[first:][: len(packed)]
        found = torch.where(there >= ENOUGH, lowest[-1], -torch.inf)
        sides.append(torch.zeros_like(found).scatter(0, order, found))
    return sides[0], sides[1]


def grown(marked: torch.Tensor) -> torch.Tensor:
    """What is marked without specks, and GROWN pixels around it. marked: (dates, rows, columns)."""
    count = avg_pool2d(marked[:, None].float(), 3, 1, 1, divisor_override=1)
    solid = (count >= MOST) & marked[:, None]
    return max_pool2d(solid.float(), 2 * GROWN + 1, 1, GROWN)[:, 0] > 0


def screen_of(sample: Sample, bands: Sequence[str]) -> Screen | None:
    """What tells the clouds of a series, from a sample of it; None where no band can.

    Clouds are bright, so the first round leaves out what is much brighter than what comes before
    and after, and each round tells the noise of what it keeps.
    """
    visible = next((band for band in VISIBLE if band in bands), None)
    if visible is None:
        return None
    names = (visible, *(band for band in DARKENED if band in bands))
    part = Sample(sample.values[:, :, [bands.index(name) for name in names]], sample.seen)
    cloud = float(np.quantile(part.values[:, :, 0][part.seen], CLOUD))
    found, kept = Screen(names, 0.0, 0.0, (0.0,) * (len(names) - 1)), part
    for number in range(ROUNDS):
        if number:
            kept = _kept(part, names, found)
            if not kept.seen.any():
                break
        noise = noise_of(kept)
        contrast = cloud - float(np.median(kept.values[:, :, 0][kept.seen]))
        # The noise of the first round is that of clouds.
        least = SIGMAS * noise[0] if number else 0.0
        found = Screen(
            names,
            max(SURE * contrast, least),
            max(SHINE * contrast, least),
            noise[1:] if number else found.noise,
        )
    return found


def without_clouds(sample: Sample, bands: Sequence[str]) -> Sample:
    """The sample without what a screen made from it leaves out; the same where none can be made."""
    screen = screen_of(sample, bands)
    return sample if screen is None else _kept(sample, bands, screen)


def _kept(sample: Sample, bands: Sequence[str], screen: Screen) -> Sample:
    values = torch.from_numpy(sample.values[:, :, [bands.index(name) for name in screen.names]])
    seen = torch.from_numpy(sample.seen)
    clear = [screen.clear(*block).numpy() for block in zip(values, seen, strict=True)]
    return Sample(sample.values, np.stack(clear))


@dataclass(frozen=True)
class Screened:
    """Reads a stack without what a screen tells to be cloud or shadow.

    rows, columns: of the stack. keep: the stack's names that are handed on.
    """

    stack: Stack
    screen: Screen
    rows: int
    columns: int
    keep: tuple[str, ...]

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`; band t * len(keep) + b is band b of date t."""
        top, left = max(0, window.row - MARGIN), max(0, window.column - MARGIN)
        wide = Window(
            top, left, min(self.rows, window.row + window.rows + MARGIN) - top,
            min(self.columns, window.column + window.columns + MARGIN) - left,
        )  # fmt: skip
        names, dates = self.stack.names, len(self.stack.scenes)
        values = self.stack.read(wide, range(dates * len(names)))[0]
        values = values.reshape(dates, len(names), wide.rows, wide.columns)
        seen = torch.from_numpy(values[:, 0] > MISSING)
        looked = torch.from_numpy(values[:, [names.index(name) for name in self.screen.names]])
        inner = (slice(None), *window.within(wide))
        clear = self.screen.clear(looked, seen).numpy()[inner]
        kept = values[:, [names.index(name) for name in self.keep]]
        kept = np.where(clear[:, None], kept[(slice(None), *inner)], MISSING)
        kept = kept.reshape(-1, window.rows, window.columns)
        return kept[list(bands)], clear.sum(axis=0) >= self.stack.needed


def screened(scene: Scene, screen: Screen, keep: Sequence[str]) -> Scene:
    """A stack (see `warte.earth.change.stack.stack`) without clouds and shadows."""
    reader = scene.reader
    assert isinstance(reader, Stack)
    bands = tuple(f"{number} {name}" for number in range(len(reader.scenes)) for name in keep)
    grid = scene.grid
    return replace(
        scene, bands=bands, reader=Screened(reader, screen, grid.rows, grid.columns, tuple(keep))
    )


def covered(dates: Sequence[str], before: Sample, after: Sample) -> tuple[str, ...]:
    """A note on the dates that are mostly cloud. before, after: samples of raw and screened."""
    seen = before.seen.sum(axis=(0, 2, 3))
    left = after.seen.sum(axis=(0, 2, 3)) / np.maximum(seen, 1)
    most = [day for day, share in zip(dates, left, strict=True) if share < 1 - COVERED]
    if not most:
        return ()
    return (
        f"{len(most)} of {len(dates)} dates are mostly cloud, haze or shadow and say little: "
        + ", ".join(most),
    )
