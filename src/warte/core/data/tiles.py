"""Windows of a large picture: where they lie, how they overlap, how results are joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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
