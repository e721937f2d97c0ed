"""What a scene's background is like: mean and covariance of all valid pixels, and a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError
from warte.earth.scene import BoolArray, Float32Array, Scene

FloatArray = npt.NDArray[np.float64]
Report = Callable[[str, int, int | None], None]

# Sums are taken over blocks of one size and added in one order, so that nothing depends on the
# windows of the later steps or on the workers.
BLOCK = 512  # pixels of a side
PATCH = 128  # pixels of a side of one piece of the sample; divides BLOCK
PATCHES = 24  # pieces of the sample at most: about 400,000 pixels
SHRINK = 1e-3  # share of the mean variance that each principal component is given more
NOTHING = 1e-12  # of the largest variance: below it a direction holds rounding errors only


@dataclass(frozen=True)
class Background:
    """Mean and covariance of a scene, and its principal components.

    mean: (bands,). axes: (bands, kept), the eigenvectors of the covariance, largest first, of those
    directions in which the scene varies at all. variances: (kept,). pixels: how many were valid.
    """

    mean: FloatArray
    axes: FloatArray
    variances: FloatArray
    pixels: int

    def project(self, values: Float32Array, valid: BoolArray, count: int) -> View:
        """Components of the pixels of a window; values: (bands, rows, columns)."""
        flat = values[:, valid].astype(np.float64) - self.mean[:, None]
        turned = self.axes.T @ flat
        shrunk = self.variances + SHRINK * self.variances.mean()
        kept = min(count, len(self.variances))
        components = np.zeros((kept, *valid.shape), np.float32)
        components[:, valid] = turned[:kept]
        distance = np.zeros(valid.shape)
        distance[valid] = (turned**2 / shrunk[:, None]).sum(axis=0)
        return View(components, distance, valid)


@dataclass(frozen=True)
class View:
    """What the methods look at, in one window.

    components: (kept, rows, columns) principal components in the scene's units, 0 where not valid.
    distance: (rows, columns), squared Mahalanobis distance from the mean in all bands (RX).
    valid: (rows, columns).
    """

    components: Float32Array
    distance: FloatArray
    valid: BoolArray


@dataclass(frozen=True)
class Patch:
    """A piece of the sample: where it is, what is seen around it, and which part of that it is."""

    place: Window
    view: View
    core: tuple[slice, slice]

    def of(self, image: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The valid pixels of the piece in an image (..., rows, columns) of its view."""
        return image[(..., *self.core)][..., self.view.valid[self.core]]


@dataclass(frozen=True)
class _Sums:
    """Of one block: valid pixels in each patch of it, sum and outer sum around a pivot."""

    counts: npt.NDArray[np.int64]
    first: FloatArray
    second: FloatArray


def measure(
    scene: Scene, pool: Executor | None = None, report: Report | None = None
) -> tuple[Background, list[Window]]:
    """Mean and covariance of all valid pixels, and the patches that hold any of them.

    Raises:
        InputError: no pixel is valid, or all are the same.
    """
    blocks = list(windows(scene.grid.rows, scene.grid.columns, BLOCK))
    pivot = _pivot(scene, blocks)
    mapped = (map if pool is None else pool.map)(partial(_sums, scene, pivot), blocks)
    count, first, second, patches = 0, np.zeros(len(pivot)), np.zeros((len(pivot),) * 2), []
    for done, (block, sums) in enumerate(zip(blocks, mapped, strict=True), 1):
        patches += [patch for patch, n in zip(_patches(block), sums.counts, strict=True) if n]
        count += int(sums.counts.sum())
        first += sums.first
        second += sums.second
        if report is not None:
            report("background", done, len(blocks))
    mean = first / count
    variances, axes = np.linalg.eigh(second / count - np.outer(mean, mean))
    order = np.argsort(-variances)
    kept = order[variances[order] > NOTHING * max(variances[order[0]], 0)]
    # One pixel cannot vary in more directions than there are others.
    kept = kept[: max(count - 1, 0)]
    if len(kept) == 0:
        raise InputError(f"all {count} valid pixels of {scene.name} are the same: no anomalies")
    return Background(pivot + mean, _signed(axes[:, kept]), variances[kept], count), patches


def _signed(axes: FloatArray) -> FloatArray:
    """Eigenvectors have no sign of their own: the largest entry is made positive."""
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return axes * np.where(largest < 0, -1.0, 1.0)


def _pivot(scene: Scene, blocks: list[Window]) -> FloatArray:
    """The mean of the first block with valid pixels: sums around it lose no digits."""
    for block in blocks:
        pixels = scene.read(block)
        if pixels.valid.any():
            return pixels.values[:, pixels.valid].mean(axis=1, dtype=np.float64)
    raise InputError(f"{scene.name} has no valid pixel: all is no-data or fill")


def _patches(block: Window) -> Iterator[Window]:
    for part in windows(block.rows, block.columns, PATCH):
        yield Window(block.row + part.row, block.column + part.column, part.rows, part.columns)


def _sums(scene: Scene, pivot: FloatArray, block: Window) -> _Sums:
    pixels = scene.read(block)
    flat = pixels.values[:, pixels.valid].astype(np.float64) - pivot[:, None]
    counts = [int(pixels.valid[patch.within(block)].sum()) for patch in _patches(block)]
    return _Sums(np.array(counts), flat.sum(axis=1), flat @ flat.T)


def sample(
    scene: Scene,
    background: Background,
    places: list[Window],
    components: int,
    margin: int,
    generator: np.random.Generator,
) -> list[Patch]:
    """Pieces of the scene, drawn without bias from those with valid pixels; all of a small one."""
    chosen = generator.choice(len(places), min(PATCHES, len(places)), replace=False)
    pieces = []
    for index in sorted(chosen):
        place = places[index]
        seen = place.grown(margin, scene.grid.rows, scene.grid.columns)
        pixels = scene.read(seen)
        view = background.project(pixels.values, pixels.valid, components)
        pieces.append(Patch(place, view, place.within(seen)))
    return pieces
