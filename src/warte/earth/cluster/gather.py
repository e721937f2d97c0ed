"""From scenes to vectors: reading, features, the sample, and what is known of all pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError
from warte.earth.cluster.ranks import Ranks, together
from warte.earth.cluster.sample import Sampler, place_numbers
from warte.earth.cluster.settings import ClusterSettings
from warte.earth.cluster.store import (
    Float32Array,
    Float64Array,
    Frame,
    Store,
    frame_of,
)
from warte.earth.features import Bands, Features, Textures, learn_patches
from warte.earth.scene import Pixels, Scene
from warte.earth.whole import Report

PATCHES = 8192  # of which features are learned
FEWEST_ROWS = 64  # of a window as wide as the picture; narrower ones are square


@dataclass(frozen=True)
class Columns:
    """What the vectors of pixels hold: features, then bands where those are something else.

    bands: names. names: of the features.
    """

    features: Features
    bands: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self.features.names(self.bands)

    @property
    def first_band(self) -> int:
        """The column where the bands begin."""
        return 0 if isinstance(self.features, Bands) else len(self.names)

    @property
    def number(self) -> int:
        """How many columns a vector has."""
        return self.first_band + len(self.bands)

    def of(self, pixels: Pixels, core: Window) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
        """Vectors (columns, n) of the valid pixels of a window inside `pixels`, and which those
        are (rows, columns).
        """
        inside = core.within(pixels.window)
        valid = pixels.valid[inside]
        values = pixels.values[(slice(None), *inside)][:, valid]
        if self.first_band:
            features = self.features.of(pixels)[(slice(None), *inside)][:, valid]
            values = np.concatenate([features, values])
        return values, valid


@dataclass(frozen=True)
class Place:
    """One window of one of the scenes, by its number."""

    scene: int
    window: Window


@dataclass(frozen=True)
class Gathered:
    """What all processes know after reading: the frame, and a sample (columns, n) of vectors."""

    frame: Frame
    sample: Float32Array


def places(scenes: Sequence[Scene], chunk: int, ranks: Ranks) -> Iterator[Place]:
    """The windows that this process reads, of about `chunk` pixels each.

    As wide as the picture where that leaves them FEWEST_ROWS high: many files hold whole rows.
    """
    every = (
        Place(number, window)
        for number, scene in enumerate(scenes)
        for window in _windows(scene.grid.rows, scene.grid.columns, chunk)
    )
    for index, place in enumerate(every):
        if index % ranks.size == ranks.rank:
            yield place


def _windows(rows: int, columns: int, chunk: int) -> Iterator[Window]:
    high = chunk // columns
    if high < min(FEWEST_ROWS, rows):
        yield from windows(rows, columns, math.isqrt(chunk))
        return
    for row in range(0, rows, high):
        yield Window(row, 0, min(high, rows - row), columns)


def common_bands(scenes: Sequence[Scene], wanted: Sequence[str]) -> tuple[str, ...]:
    """The bands to use, which all scenes have.

    Raises:
        InputError: there is no scene, or one lacks a band.
    """
    if not scenes:
        raise InputError("no scene was given; name at least one picture")
    bands = tuple(wanted) or scenes[0].bands
    for scene in scenes:
        scene.indices(bands)
    return bands


def columns_of(
    scenes: Sequence[Scene],
    bands: tuple[str, ...],
    settings: ClusterSettings,
    ranks: Ranks,
    report: Report | None,
) -> Columns:
    """The columns that the settings ask for; learned ones are learned here, by all processes."""
    if settings.features == "pixels":
        return Columns(Bands(), bands)
    if settings.features == "texture":
        return Columns(Textures(settings.radius), bands)
    sampler = Sampler(PATCHES)
    together(ranks, lambda: _sample_patches(scenes, bands, settings, ranks, sampler, report))
    patches = sampler.finish(ranks)
    if patches is None:
        raise _nothing(scenes)
    learned = learn_patches(patches, settings.radius, settings.components)
    # Another number of threads could round otherwise: that of the first process holds.
    return Columns(ranks.gather(learned)[0], bands)


def _sample_patches(
    scenes: Sequence[Scene],
    bands: tuple[str, ...],
    settings: ClusterSettings,
    ranks: Ranks,
    sampler: Sampler,
    report: Report | None,
) -> None:
    radius = settings.radius
    own = list(places(scenes, settings.chunk, ranks))
    for done, place in enumerate(own, 1):
        scene = scenes[place.scene]
        pixels = _read(scene, place.window, bands, radius)
        inside = place.window.within(pixels.window)
        rows, columns = np.nonzero(pixels.valid[inside])
        numbers = place_numbers(place.window, scene.grid.columns, place.scene, settings.seed)
        some = sampler.wanted(numbers[rows, columns])
        rows, columns = rows[some], columns[some]
        top, left = inside[0].start, inside[1].start
        padded = np.pad(
            pixels.values, ((0, 0), (radius, radius), (radius, radius)), constant_values=np.nan
        )
        # Patch by patch: rows and columns of `padded` begin `radius` earlier.
        down, right = (steps.ravel() for steps in np.mgrid[: 2 * radius + 1, : 2 * radius + 1])
        found = padded[:, (rows + top)[:, None] + down, (columns + left)[:, None] + right]
        side = 2 * radius + 1
        sampler.add(
            numbers[rows, columns],
            found.transpose(1, 0, 2).reshape(len(rows), len(bands), side, side),
        )
        if report is not None:
            report("learn", done, len(own))


def _read(scene: Scene, window: Window, bands: tuple[str, ...], margin: int) -> Pixels:
    return scene.read(window.grown(margin, *scene.grid.shape), bands)


def gather(
    scenes: Sequence[Scene],
    columns: Columns,
    settings: ClusterSettings,
    store: Store,
    ranks: Ranks,
    report: Report | None,
) -> Gathered:
    """Read this process's part of the scenes into its store.

    Raises:
        InputError: no pixel is valid, or there are fewer distinct ones than clusters.
    """
    sampler = Sampler(settings.sample)
    low, high = np.full(columns.number, np.inf), np.full(columns.number, -np.inf)
    pixels = 0

    def read() -> None:
        nonlocal pixels
        own = list(places(scenes, settings.chunk, ranks))
        for done, place in enumerate(own, 1):
            scene = scenes[place.scene]
            seen = _read(scene, place.window, columns.bands, columns.features.margin)
            values, valid = columns.of(seen, place.window)
            if values.shape[1]:
                pixels += values.shape[1]
                np.minimum(low, values.min(axis=1), out=low)
                np.maximum(high, values.max(axis=1), out=high)
                numbers = place_numbers(
                    place.window, scene.grid.columns, place.scene, settings.seed
                )[valid]
                some = sampler.wanted(numbers)
                sampler.add(numbers[some], values[:, some].T)
                store.add(values)
            if report is not None:
                report("read", done, len(own))

    together(ranks, read)
    sample = sampler.finish(ranks)
    if sample is None:
        raise _nothing(scenes)
    facts = ranks.gather((pixels, low, high, store.whole))
    total = sum(one[0] for one in facts)
    frame = frame_of(
        total,
        sample.T,
        np.min([one[1] for one in facts], axis=0),
        np.max([one[2] for one in facts], axis=0),
        all(one[3] for one in facts),
    )
    frame = replace(frame, weights=_weights(sample, columns, settings))
    used = columns.first_band or columns.number
    if settings.method != "hdbscan":
        sample = _with_distinct(sample, used, settings.k, store, frame, ranks)
    return Gathered(frame, np.ascontiguousarray(sample.T))


def _weights(sample: Float32Array, columns: Columns, settings: ClusterSettings) -> Float64Array:
    weights = np.ones(columns.number)
    if settings.standardise or settings.features == "texture":
        variance = sample.var(axis=0, dtype=np.float64)
        weights = np.where(variance > 0, 1 / np.where(variance > 0, variance, 1), 1.0)
    if columns.first_band:
        weights[columns.first_band :] = 0
    return weights


def _with_distinct(
    sample: Float32Array, used: int, k: int, store: Store, frame: Frame, ranks: Ranks
) -> Float32Array:
    """The sample, with some vectors more where it has fewer distinct ones than clusters.

    Raises:
        InputError: there are not so many.
    """
    if len(np.unique(sample[:, :used], axis=0)) >= k:
        return sample
    found = np.empty((0, sample.shape[1]), np.float32)
    for some in store.read(frame.whole):
        found = _first_distinct(np.concatenate([found, some.values.T.astype(np.float32)]), used, k)
    found = _first_distinct(np.concatenate(ranks.gather(found)), used, k)
    if len(found) < k:
        raise InputError(
            f"the valid pixels have {len(found)} distinct values, fewer than --k {k}; "
            f"take --k {max(2, len(found))} or less"
            if len(found) >= 2
            else "all valid pixels have the same values: there is nothing to cluster"
        )
    return np.concatenate([sample, found])


def _first_distinct(vectors: Float32Array, used: int, k: int) -> Float32Array:
    """The k distinct vectors (n, columns) that come first when sorted, by the columns in use."""
    _, first = np.unique(vectors[:, :used], axis=0, return_index=True)
    return vectors[first[:k]]


def _nothing(scenes: Sequence[Scene]) -> InputError:
    names = ", ".join(scene.name for scene in scenes)
    return InputError(f"{names}: no pixel is valid; look at the no-data value and the masks")
