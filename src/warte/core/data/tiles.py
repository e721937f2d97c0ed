"""Windows of a large picture: where they lie, how they overlap, how results are joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from warte.core.errors import SettingsError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of pixels: first row and column (from 0, at the upper left), and its size."""

    row: int
    column: int
    rows: int
    columns: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns as slices of an array (..., rows, columns)."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.column, self.column + self.columns),
        )

    def grown(self, margin: int, rows: int, columns: int) -> Window:
        """The window with `margin` pixels more on each side, as far as the picture reaches."""
        top, left = max(0, self.row - margin), max(0, self.column - margin)
        bottom = min(rows, self.row + self.rows + margin)
        right = min(columns, self.column + self.columns + margin)
        return Window(top, left, bottom - top, right - left)

    def aligned(self, multiple: int, rows: int, columns: int) -> Window:
        """The window grown until its edges are multiples, or edges of the picture."""
        top, left = self.row - self.row % multiple, self.column - self.column % multiple
        bottom = min(rows, -(-(self.row + self.rows) // multiple) * multiple)
        right = min(columns, -(-(self.column + self.columns) // multiple) * multiple)
        return Window(top, left, bottom - top, right - left)

    def shared(self, other: Window) -> Window | None:
        """The pixels that lie in both; None where there are none."""
        top, left = max(self.row, other.row), max(self.column, other.column)
        bottom = min(self.row + self.rows, other.row + other.rows)
        right = min(self.column + self.columns, other.column + other.columns)
        if top >= bottom or left >= right:
            return None
        return Window(top, left, bottom - top, right - left)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Slices that cut this window out of an array that covers `outer`."""
        return (
            slice(self.row - outer.row, self.row - outer.row + self.rows),
            slice(self.column - outer.column, self.column - outer.column + self.columns),
        )


def windows(rows: int, columns: int, size: int) -> Iterator[Window]:
    """Square windows of `size` pixels that cover a picture, row by row; the last ones are smaller.

    Raises ValueError unless size is 1 or more.
    """
    if size < 1:
        raise ValueError(f"size is {size}, it must be 1 or more")
    for row in range(0, rows, size):
        for column in range(0, columns, size):
            yield Window(row, column, min(size, rows - row), min(size, columns - column))


@dataclass(frozen=True)
class Tile:
    """A piece of a picture that is worked on alone and blended into its neighbours.

    core: its own pixels; the cores cover the picture once. kept: the core and half of the blend
    on each side; here its results count. seen: what is read to compute them.
    """

    core: Window
    kept: Window
    seen: Window


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    rows, columns: of the picture (pixels). size: side of a core. margin: pixels around what is
    kept that are seen and thrown away; with the radius of a network's receptive field nothing that
    is kept depends on where the cuts are. blend: width of the band, centred on each cut, over
    which one tile's results pass into the next one's. align: the edges of what is seen are
    multiples of it, except at the edges of the picture; a network that halves its picture d times
    needs 2**d to meet the same pixels as in the whole.

    Raises:
        SettingsError: a size below 1, a blend that is odd or wider than a core.
    """

    rows: int
    columns: int
    size: int
    margin: int = 0
    blend: int = 0
    align: int = 1

    def __post_init__(self) -> None:
        if self.align < 1 or self.margin < 0:
            raise ValueError(f"align is {self.align}, margin {self.margin}")
        if self.size < max(1, self.blend):
            raise SettingsError(
                f"--tile {self.size}: it must be {max(1, self.blend)} or more (pixels)"
            )
        if self.blend < 0 or self.blend % 2:
            raise SettingsError(f"--blend {self.blend}: it must be 0, 2, 4 ... pixels")

    @property
    def down(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.rows // self.size)

    @property
    def across(self) -> int:
        """Tiles from left to right."""
        return -(-self.columns // self.size)

    def __len__(self) -> int:
        return self.down * self.across

    def __getitem__(self, index: int) -> Tile:
        """The tile of this number, from 0, row by row."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, column = (self.size * step for step in divmod(index, self.across))
        core = Window(
            row, column, min(self.size, self.rows - row), min(self.size, self.columns - column)
        )
        kept = core.grown(self.blend // 2, self.rows, self.columns)
        seen = kept.grown(self.margin, self.rows, self.columns)
        return Tile(core, kept, seen.aligned(self.align, self.rows, self.columns))

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    def neighbours(self, index: int) -> list[int]:
        """Numbers of the tiles whose results count in this core, itself among them, ascending."""
        if not self.blend:
            return [index]
        row, column = divmod(index, self.across)
        return [
            y * self.across + x
            for y in range(max(0, row - 1), min(self.down, row + 2))
            for x in range(max(0, column - 1), min(self.across, column + 2))
        ]

    def weights(self, tile: Tile) -> FloatArray:
        """How much the results of a tile count: (kept.rows, kept.columns), 0..1.

        Along a cut the weight falls in a straight line from 1 to 0 over the blend; at the edges
        of the picture it stays 1. The weights of all tiles add up to 1 at each pixel.
        """
        core, kept = tile.core, tile.kept
        down = self._ramp(core.row, core.rows, kept.row, kept.rows, self.rows)
        across = self._ramp(core.column, core.columns, kept.column, kept.columns, self.columns)
        return down[:, None] * across[None, :]

    def _ramp(self, start: int, length: int, first: int, count: int, whole: int) -> FloatArray:
        """Weights along one axis for the pixels first...first + count."""
        weight = np.ones(count)
        if not self.blend:
            return weight
        centres = first + np.arange(count) + 0.5
        if start > 0:
            weight *= np.clip((centres - start) / self.blend + 0.5, 0, 1)
        if start + length < whole:
            # One minus the ramp of the next tile, so that the two add up to 1 exactly.
            weight *= 1 - np.clip((centres - (start + length)) / self.blend + 0.5, 0, 1)
        return weight
