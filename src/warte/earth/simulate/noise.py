"""Random fields that are the same whichever window of them is drawn.

Everything comes from a seed and from places: hashes of lattice points for smooth fields, generators
seeded by fixed tiles for the noise of single pixels. So a picture can be drawn window by window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window

FloatArray = npt.NDArray[np.float64]
HashArray = npt.NDArray[np.uint64]

NOISE_TILE = 256  # pixels of a side of the tiles that have a generator of their own
TAPS = np.arange(4)  # lattice points that a cubic B-spline joins
# Mean over all places of the sum of squared weights of a cubic B-spline, in one dimension.
SPLINE_POWER = 151.0 / 315.0


def hashed(seed: int, *keys: npt.ArrayLike) -> HashArray:
    """64 mixed bits for each combination of integers; arrays broadcast.

    The mixing is the output function of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA, 453).
    """
    state = np.asarray(seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in (0, *keys):
            state = state ^ np.asarray(key).astype(np.int64, copy=False).view(np.uint64)
            state = state + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(seed: int, *keys: npt.ArrayLike) -> FloatArray:
    """Numbers of 0 to 1 (without 1), one for each combination of integers; arrays broadcast."""
    return (hashed(seed, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smooth(
    seed: int, x: FloatArray, y: FloatArray, size: float, octaves: int = 1, gain: float = 0.5
) -> FloatArray:
    """A smooth random field of mean 0 and variance 1 on the grid of two axes: (len(y), len(x)).

    x, y: places along the axes (m). size: distance of the lattice points of the coarsest octave
    (m); each further octave is twice as fine and `gain` times as strong.
    """
    total = np.zeros((len(y), len(x)))
    strength, power = 1.0, 0.0
    for octave in range(octaves):
        step = size / 2**octave
        # Lattices of several octaves must not share their points.
        across, first_x = _knots(x / step + 0.37 * octave)
        down, first_y = _knots(y / step + 0.61 * octave)
        # Only the points that are used: the places may lie far from each other.
        columns, at_column = np.unique(first_x[:, None] + TAPS, return_inverse=True)
        rows, at_row = np.unique(first_y[:, None] + TAPS, return_inverse=True)
        at_column, at_row = at_column.reshape(-1, 4), at_row.reshape(-1, 4)
        lattice = uniform(seed, octave, rows[:, None], columns[None, :]) - 0.5
        lines = sum(down[:, tap, None] * lattice[at_row[:, tap]] for tap in TAPS)
        total += strength * sum(across[:, tap] * lines[:, at_column[:, tap]] for tap in TAPS)
        power += strength**2 * SPLINE_POWER**2 / 12.0
        strength *= gain
    return total / np.sqrt(power)


def smooth_line(seed: int, u: FloatArray, size: float, octaves: int = 1) -> FloatArray:
    """A smooth random function of mean 0 and variance 1 at places of any shape (m)."""
    total, strength, power = np.zeros(u.shape), 1.0, 0.0
    for octave in range(octaves):
        weights, first = _knots(u * (2**octave / size) + 0.37 * octave)
        points = np.arange(first.min(), first.max() + 4)
        lattice = uniform(seed, octave, points) - 0.5
        total += strength * sum(
            weights[..., tap] * lattice[first - points[0] + tap] for tap in range(4)
        )
        power += strength**2 * SPLINE_POWER / 12.0
        strength *= 0.5
    return total / np.sqrt(power)


def by_pixel(
    seed: int, window: Window, draw: Callable[[np.random.Generator, tuple[int, int]], FloatArray]
) -> FloatArray:
    """Noise of single pixels of a window: (..., rows, columns).

    draw: gives an array (..., rows, columns) from a generator and (rows, columns); it is called
    for each fixed tile that the window touches.
    """
    lines = []
    first_row, first_column = window.row // NOISE_TILE, window.column // NOISE_TILE
    last_row = (window.row + window.rows - 1) // NOISE_TILE
    last_column = (window.column + window.columns - 1) // NOISE_TILE
    for row in range(first_row, last_row + 1):
        tiles = [
            draw(_generator(seed, row, column), (NOISE_TILE, NOISE_TILE))
            for column in range(first_column, last_column + 1)
        ]
        lines.append(np.concatenate(tiles, axis=-1))
    block = np.concatenate(lines, axis=-2)
    top, left = window.row - first_row * NOISE_TILE, window.column - first_column * NOISE_TILE
    return block[..., top : top + window.rows, left : left + window.columns]


def _generator(seed: int, row: int, column: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(hashed(seed, row, column))))


def _knots(t: FloatArray) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Weights (..., 4) of a cubic B-spline, and the first of its four lattice points."""
    whole = np.floor(t)
    f = t - whole
    weights = np.stack(
        [
            (1 - f) ** 3 / 6,
            (3 * f**3 - 6 * f**2 + 4) / 6,
            (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6,
            f**3 / 6,
        ],
        axis=-1,
    )
    return weights, whole.astype(np.int64) - 1
