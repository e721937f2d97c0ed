"""Vectors of bytes against NumPy."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from warte.sky.find.vector import LANES, add, fill, larger, load, smaller, store


@numba.njit
def _added(a, b, out, start):
    for k in range(0, out.size, LANES):
        store(out, k, add(load(a, start + k), load(b, k)))


@numba.njit
def _within(a, low, high, out):
    for k in range(0, out.size, LANES):
        store(out, k, larger(smaller(load(a, k), fill(high)), fill(low)))


@pytest.fixture
def bytes_() -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (2, 5 * LANES)).astype(np.int8)


@pytest.mark.parametrize("start", [0, 1, 17, LANES])
def test_sums_wrap_around_and_begin_anywhere(bytes_: np.ndarray, start: int) -> None:
    a, b = bytes_
    out = np.zeros(3 * LANES, np.int8)
    _added(a, b, out, start)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, a[start:][: out.size] + b[: out.size])


@pytest.mark.parametrize(("low", "high"), [(-31, 31), (-128, 127), (0, 1), (-100, -99)])
def test_larger_and_smaller_know_signs(bytes_: np.ndarray, low: int, high: int) -> None:
    out = np.zeros(4 * LANES, np.int8)
    _within(bytes_[0], low, high, out)
    np.testing.assert_array_equal(out, np.clip(bytes_[0, : out.size], low, high))


def test_only_whole_vectors_are_written(bytes_: np.ndarray) -> None:
    """The last one reaches beyond what is wanted, as far as its end and no farther."""
    out = np.full(3 * LANES, 99, np.int8)
    _within(bytes_[0], -128, 127, out[: LANES + 1])
    np.testing.assert_array_equal(out[: 2 * LANES], bytes_[0, : 2 * LANES])
    assert (out[2 * LANES :] == 99).all()
