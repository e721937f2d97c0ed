"""What a model learns from: labelled parts of scenes, and which of them are held out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window, windows
from warte.core.errors import InputError
from warte.earth.labels import Labels, placed, rasterise
from warte.earth.scene import Float32Array, Grid, Scene, check_crs

IntArray = npt.NDArray[np.int32]
MOST_CLASSES = 254  # that fit into a picture of 8 bits beside no-data
NONE = -1  # class and group of a pixel without label


@dataclass(frozen=True)
class Marks:
    """Labels as arrays on the grid of one scene.

    classes: names. index: (rows, columns) class of each pixel, -1 for none. groups: (rows,
    columns) number of what belongs together, -1 for none; None for squares of `block` pixels.
    """

    classes: tuple[str, ...]
    index: IntArray
    groups: IntArray | None = None


@dataclass(frozen=True)
class Chip:
    """A labelled part of a scene with what lies around it.

    scene: number of the scene. values: (bands, rows, columns) float32, NaN where not valid.
    labels, groups: (rows, columns), -1 where there is none, also all around the part.
    window: where it lies in the scene, surroundings included.
    """

    scene: int
    values: Float32Array
    labels: IntArray
    groups: IntArray
    window: Window


@dataclass(frozen=True)
class Place:
    """A part of a scene that holds labels: window without surroundings, labels of each class."""

    scene: int
    window: Window
    counts: npt.NDArray[np.int64]


class LabelsOf:
    """The labels of each scene, on its grid.

    Raises:
        InputError: fewer than two classes or too many, labels do not fit the scene, or some scenes
            have a CRS and others none.
    """

    def __init__(
        self, scenes: Sequence[Scene], labels: Labels | Sequence[Labels | Marks], block: int
    ) -> None:
        check_crs(scenes)
        each = [labels] * len(scenes) if isinstance(labels, Labels) else list(labels)
        if len(each) != len(scenes):
            raise InputError(
                f"{len(scenes)} scenes and {len(each)} labels; give one for all or one for each"
            )
        self.block = block
        self.classes = tuple(sorted({name for one in each for name in one.classes}))
        if len(self.classes) < 2:
            raise InputError(
                f"the labels hold one class only ({', '.join(self.classes)}); give two or more"
            )
        if len(self.classes) > MOST_CLASSES:
            raise InputError(
                f"the labels hold {len(self.classes)} classes; allowed are {MOST_CLASSES}; "
                "is the field the class, or a number of the polygon?"
            )
        self.grids = [scene.grid for scene in scenes]
        self._each = [
            placed(one, scene.grid) if isinstance(one, Labels) else one
            for one, scene in zip(each, scenes, strict=True)
        ]
        for one, scene in zip(self._each, scenes, strict=True):
            if isinstance(one, Marks) and one.index.shape != scene.grid.shape:
                raise InputError(
                    f"labels of {one.index.shape} pixels do not fit {scene.name} of "
                    f"{scene.grid.shape}; give labels on the grid of the scene"
                )
        self._kinds = [
            _kind(number, one, grid)
            for number, (one, grid) in enumerate(zip(each, self.grids, strict=True))
        ]

    def read(self, scene: int, window: Window) -> tuple[IntArray, IntArray]:
        """Class and group of the pixels of a window; the same group never has two numbers."""
        one = self._each[scene]
        grid = self.grids[scene]
        if isinstance(one, Labels):
            index, found = rasterise(one, grid, window)
            groups = found if one.shapes else None
        else:
            index = one.index[window.slices]
            groups = None if one.groups is None else one.groups[window.slices]
        if groups is None:
            groups = np.where(index == NONE, NONE, self._squares(grid, window))
        order = np.array([*(self.classes.index(name) for name in one.classes), NONE], np.int32)
        return order[index], np.where(groups == NONE, NONE, groups + self._first(scene))

    def _squares(self, grid: Grid, window: Window) -> IntArray:
        rows = (window.row + np.arange(window.rows)) // self.block
        columns = (window.column + np.arange(window.columns)) // self.block
        across = -(-grid.columns // self.block)
        return (rows[:, None] * across + columns).astype(np.int32)

    def _first(self, scene: int) -> int:
        """Added to group numbers, so that different places differ.

        Polygons of one file are the same in all scenes, and so are squares of scenes on one grid.
        """
        seen = self._kinds[: scene + 1]
        return list(dict.fromkeys(seen)).index(seen[scene]) * 10_000_000


def _kind(number: int, labels: Labels | Marks, grid: Grid) -> Hashable:
    """What two scenes must share for the groups of one to be those of the other."""
    if isinstance(labels, Labels) and labels.shapes:
        return labels.path
    if grid.crs is None:
        return number
    return (grid.shape, tuple(grid.transform), grid.crs.to_wkt())


def places(
    scenes: Sequence[Scene], labels: LabelsOf, chip: int, most: int, rng: np.random.Generator
) -> list[Place]:
    """Parts of scenes that hold labels, at most so many; rare classes are drawn first.

    Raises:
        InputError: no label lies on a scene.
    """
    found = []
    for number, scene in enumerate(scenes):
        for window in windows(scene.grid.rows, scene.grid.columns, chip):
            index, _ = labels.read(number, window)
            if (index != NONE).any():
                counts = np.bincount(index[index != NONE], minlength=len(labels.classes))
                found.append(Place(number, window, counts))
    if not found:
        names = ", ".join(scene.name for scene in scenes[:3])
        raise InputError(f"no label lies on a pixel of {names}; the labels may be of another place")
    if len(found) <= most:
        return found
    shares = np.stack([place.counts for place in found]).astype(np.float64)
    shares /= np.maximum(shares.sum(axis=0), 1)
    chance = shares.sum(axis=1) / shares.sum()
    chosen = rng.choice(len(found), most, replace=False, p=chance)
    return [found[index] for index in sorted(chosen)]


def read_chip(
    scene: Scene, number: int, place: Place, labels: LabelsOf, bands: Sequence[str], margin: int
) -> Chip:
    """Read a part of a scene with its surroundings; only valid pixels keep their labels."""
    grid = scene.grid
    seen = place.window.grown(margin, grid.rows, grid.columns)
    pixels = scene.read(seen, bands)
    index = np.full((seen.rows, seen.columns), NONE, np.int32)
    groups = index.copy()
    core = place.window.within(seen)
    index[core], groups[core] = labels.read(number, place.window)
    index[~pixels.valid], groups[~pixels.valid] = NONE, NONE
    return Chip(number, pixels.values, index, groups, seen)


def deal(
    groups: IntArray, labels: IntArray, folds: int, rng: np.random.Generator
) -> dict[int, int]:
    """Deal groups into parts (0 .. folds - 1) so that each class is spread over them.

    groups, labels: (N,) of labelled pixels. A group counts for its most frequent class. Groups of
    a class that has only one are in no part (-1): they are always learned from.
    """
    names, of_pixel = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (of_pixel, labels), 1)
    kind = counts.argmax(axis=1)
    part: dict[int, int] = {}
    turn = 0
    for label in np.unique(kind):
        mine = rng.permutation(np.flatnonzero(kind == label))
        if len(mine) == 1:
            part[int(names[mine[0]])] = -1
            continue
        for group in mine:
            part[int(names[group])] = turn % folds
            turn += 1
    return part
