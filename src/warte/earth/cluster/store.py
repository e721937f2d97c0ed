"""The pixels of a clustering on disk, and sums of them that are the same in any order.

Pixels are read once from their files; the passes of the methods then go over a scratch file.
Where they are whole numbers of 8 or 16 bits, each distinct vector of a window is kept once, with
its count. Everything that is added up is a whole number (of steps of 2**-n where the pixels are
not), small enough for float64 and int64 to hold it exactly. So sums do not depend on the order of
the pixels, on windows, or on processes.

This is NumPy and not torch: importing torch alone takes most of the memory that a run may use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
Kind = Literal["u1", "u2", "f4"]

ROWS = 2**14  # vectors of one block: what the passes work on stays in the cache of the processor


@dataclass(frozen=True)
class Block:
    """Vectors in the scratch file, band by band; counts (uint32) follow those of whole numbers."""

    kind: Kind
    offset: int  # bytes
    rows: int


@dataclass(frozen=True)
class Vectors:
    """Some pixels. values: (columns, n). counts: (n,) how often each occurs, None for once."""

    values: npt.NDArray[np.generic]
    counts: npt.NDArray[np.uint32] | None


class Store:
    """A scratch file of vectors, written once and read many times; removed by its folder."""

    def __init__(self, path: Path, columns: int) -> None:
        self.columns = columns
        self.blocks: list[Block] = []
        self._file: BinaryIO = path.open("w+b")
        self._end = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def whole(self) -> bool:
        """Whether all vectors are whole numbers."""
        return all(block.kind != "f4" for block in self.blocks)

    def add(self, values: Float32Array) -> None:
        """Append pixels (columns, n); the order of vectors is not kept."""
        packed = _packed(values)
        if packed is None:
            for first in range(0, values.shape[1], ROWS):
                self._write("f4", values[:, first : first + ROWS], None)
            return
        kind, distinct, counts = packed
        for first in range(0, len(counts), ROWS):
            some = slice(first, first + ROWS)
            self._write(kind, distinct[some].T, counts[some].astype(np.uint32))

    def _write(
        self,
        kind: Kind,
        values: npt.NDArray[np.generic],
        counts: npt.NDArray[np.uint32] | None,
    ) -> None:
        data = np.ascontiguousarray(values).tobytes()
        data += b"" if counts is None else counts.tobytes()
        self._file.write(data)
        self.blocks.append(Block(kind, self._end, values.shape[1]))
        self._end += len(data)

    def read(self, whole: bool) -> Iterator[Vectors]:
        """All vectors, block by block.

        whole: False where other processes have pixels that are not whole: then each vector comes
        once for each pixel, which keeps the sums within what float64 holds.
        """
        for block in self.blocks:
            self._file.seek(block.offset)
            shape = (self.columns, block.rows)
            values = np.fromfile(self._file, f"<{block.kind}", math.prod(shape)).reshape(shape)
            if block.kind == "f4":
                yield Vectors(values, None)
                continue
            counts = np.fromfile(self._file, "<u4", block.rows)
            if whole:
                yield Vectors(values, counts)
            else:
                yield from _one_by_one(values, counts)


def _packed(values: Float32Array) -> tuple[Kind, npt.NDArray[np.generic], Int64Array] | None:
    """Distinct vectors (n, columns) of whole numbers and their counts; None for others.

    A vector must fit into 64 bits: then sorting is fast.
    """
    columns = len(values)
    kinds: tuple[tuple[Kind, int], ...] = (("u1", 8), ("u2", 4))
    for kind, most in kinds:
        if columns > most or values.min() < 0 or values.max() > np.iinfo(kind).max:
            continue
        small = values.astype(f"<{kind}")
        if not np.array_equal(small, values):
            return None
        vectors = np.zeros((values.shape[1], most), f"<{kind}")
        vectors[:, :columns] = small.T
        keys, counts = np.unique(vectors.view("<u8")[:, 0], return_counts=True)
        distinct = keys.view(f"<{kind}").reshape(len(keys), most)[:, :columns]
        return kind, distinct, counts
    return None


def _one_by_one(
    values: npt.NDArray[np.generic], counts: npt.NDArray[np.uint32]
) -> Iterator[Vectors]:
    every = np.repeat(np.arange(len(counts)), counts)
    for first in range(0, len(every), ROWS):
        yield Vectors(values[:, every[first : first + ROWS]], None)


@dataclass(frozen=True)
class Frame:
    """What all processes know of the pixels, and how they are turned into whole numbers.

    pixels: valid ones, of all processes. middle: (columns,) float32, taken off all values, so that
    little is lost to rounding. weights: (columns,) of squared differences; 0 for columns that are
    only averaged. bits, squares: (columns,) a sum is of multiples of 2**-bits, that of squares of
    multiples of 2**-squares. whole: whether all values are whole numbers.
    """

    pixels: int
    middle: Float32Array
    weights: Float64Array
    bits: Int64Array
    squares: Int64Array
    whole: bool

    def centred(self, values: npt.NDArray[np.generic]) -> Float32Array:
        """Values (columns, n) less the middle, rounded to float32 once."""
        return np.subtract(values, self.middle[:, None], dtype=np.float32)


def frame_of(
    pixels: int, sample: Float32Array, low: Float64Array, high: Float64Array, whole: bool
) -> Frame:
    """The frame of pixels of which a sample (columns, n) and the lowest and highest are known.

    Weights are 1.
    """
    mean = sample.mean(axis=1, dtype=np.float64)
    middle = (np.rint(mean) if whole else mean).astype(np.float32)
    reach = np.maximum(np.maximum(high - middle, middle - low), 2.0**-100)
    if whole:
        bits = squares = np.zeros(len(reach), np.int64)
    else:
        # Sums over a block are exact in float64 (53 bits), those over all pixels in int64.
        room = min(52 - ROWS.bit_length(), 61 - pixels.bit_length())
        bits = room - np.ceil(np.log2(reach)).astype(np.int64)
        squares = room - np.ceil(2 * np.log2(reach)).astype(np.int64)
    return Frame(pixels, middle, np.ones(len(reach)), bits, squares, whole)


def group_sums(
    frame: Frame,
    centred: Float32Array,
    counts: npt.NDArray[np.uint32] | None,
    labels: npt.NDArray[np.intp],
    k: int,
) -> Int64Array:
    """Pixels and sums of each group, (k, 1 + columns), exact: sums in steps of 2**-bits.

    labels: (n,) the group of each vector, from 0.
    """
    found = np.empty((k, 1 + len(centred)), np.int64)
    found[:, 0] = np.bincount(labels, counts, k)
    for column, values in enumerate(centred):
        if counts is not None:
            parts = np.multiply(values, counts, dtype=np.float64)
        elif frame.whole:
            parts = values.astype(np.float64)
        else:
            parts = np.rint(np.ldexp(values.astype(np.float64), int(frame.bits[column])))
        found[:, 1 + column] = np.bincount(labels, parts, k)
    return found


def square_sums(frame: Frame, vectors: Sequence[Vectors] | Iterator[Vectors]) -> Int64Array:
    """(columns,) sums of squared values less the middle, exact in steps of 2**-squares."""
    total = np.zeros(len(frame.middle), np.int64)
    for some in vectors:
        values = frame.centred(some.values)
        if frame.whole:
            exact = values.astype(np.int64)
            exact *= exact
            total += exact.sum(axis=1) if some.counts is None else exact @ some.counts.astype("i8")
        else:
            exact = np.square(values.astype(np.float64))
            steps = np.rint(np.ldexp(exact, frame.squares[:, None].astype(np.int32)))
            total += steps.astype(np.int64).sum(axis=1)
    return total


def means_of(frame: Frame, sums: Int64Array) -> Float64Array:
    """(k, columns) means less the middle from `group_sums`; NaN for groups without pixels."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, 1:].astype(np.float64) / sums[:, :1]
    return np.ldexp(means, -frame.bits.astype(np.int32))
