"""A sample of pixels that depends on the seed alone, not on windows or processes.

Each pixel has a number made from its place and the seed; the pixels with the smallest numbers are
the sample. The numbers: Steele, Lea & Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014 (splitmix64).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window
from warte.earth.cluster.ranks import Ranks
from warte.earth.cluster.store import Float32Array

UInt64Array = npt.NDArray[np.uint64]


def place_numbers(window: Window, columns: int, scene: int, seed: int) -> UInt64Array:
    """Random numbers (rows, columns) of the pixels of a window, the same in any window.

    columns: of the whole picture. scene: which of several, from 0.
    """
    stream = _mixed(np.array([seed], np.uint64) + np.uint64(scene))
    row = np.arange(window.row, window.row + window.rows, dtype=np.uint64)
    column = np.arange(window.column, window.column + window.columns, dtype=np.uint64)
    return _mixed((row[:, None] * np.uint64(columns) + column) ^ stream)


def _mixed(x: UInt64Array) -> UInt64Array:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64Array = x ^ (x >> np.uint64(31))
    return mixed


class Sampler:
    """Keeps the vectors with the smallest numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._limit = np.uint64(2**64 - 1)
        self._numbers: list[UInt64Array] = []
        self._vectors: list[Float32Array] = []

    def wanted(self, numbers: UInt64Array) -> npt.NDArray[np.intp]:
        """Which of these numbers (n,) may belong to the sample."""
        return np.flatnonzero(numbers <= self._limit)

    def add(self, numbers: UInt64Array, vectors: Float32Array) -> None:
        """Add vectors (n, ...) with their numbers (n,)."""
        if not len(numbers):
            return
        self._numbers.append(numbers)
        self._vectors.append(vectors)
        if sum(map(len, self._numbers)) > 2 * self._size:
            self._keep(*self._all())

    def _all(self) -> tuple[UInt64Array, Float32Array]:
        return np.concatenate(self._numbers), np.concatenate(self._vectors)

    def _keep(self, numbers: UInt64Array, vectors: Float32Array) -> None:
        first = np.argsort(numbers, kind="stable")[: self._size]
        self._numbers, self._vectors = [numbers[first]], [vectors[first]]
        if len(first) == self._size:
            self._limit = self._numbers[0][-1]

    def finish(self, ranks: Ranks) -> Float32Array | None:
        """The sample (n, ...) of all processes, in the order of the numbers; None without pixels.

        The same on all of them.
        """
        if self._numbers:
            self._keep(*self._all())
        own = (self._numbers[0], self._vectors[0]) if self._numbers else None
        parts = [part for part in ranks.gather(own) if part is not None]
        if not parts:
            return None
        self._keep(
            np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        )
        return self._vectors[0]
