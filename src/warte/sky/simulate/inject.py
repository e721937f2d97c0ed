"""Simulated movers in a real recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from warte.sky.simulate.movers import Ground, Row, View, add_mover, truth_tracks
from warte.sky.simulate.settings import Mover
from warte.sky.tables import Tracks

BLOCK = 16  # side of the blocks in which noise is measured (pixels)


def estimate_noise(frames: np.ndarray, levels: float | None = 1.0) -> np.ndarray:
    """Noise per pixel, (H, W) float32 grey levels, from a few consecutive frames (T >= 2, H, W).

    The standard deviation of frame differences over sqrt 2, without outliers beyond 4 sigma (of
    the median absolute deviation), in blocks of BLOCK pixels. levels: the step between grey
    levels, None for continuous data; noise is at least that of rounding, levels / sqrt 12, since
    frozen blocks of a codec have no differences at all.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frame; noise needs at least 2")
    step = 0.0 if levels is None else levels
    differences = np.diff(frames.astype(np.float32), axis=0)
    height, width = frames.shape[1:]
    noise = np.empty((height, width), np.float32)
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            part = differences[:, top : top + BLOCK, left : left + BLOCK]
            size = np.abs(part)
            limit = 4.0 * max(1.4826 * float(np.median(size)), step)
            kept = part[size <= limit]
            spread = float(kept.std(mean=0.0)) / np.sqrt(2.0)
            noise[top : top + BLOCK, left : left + BLOCK] = max(spread, step / np.sqrt(12.0))
    return noise


def inject(
    frames: np.ndarray,
    movers: tuple[Mover, ...],
    rng: np.random.Generator,
    *,
    psf_sigma_px: float = 1.2,
    exposure: float = 1.0,
    fps: float = 25.0,
    start_utc: np.datetime64 | None = None,
    noise: np.ndarray | None = None,
    levels: float | None = 1.0,
    saturation: float | None = None,
) -> tuple[np.ndarray, Tracks]:
    """Add movers to the frames (T, H, W) of a real recording.

    Returns frames of the same type, and the truth in the columns of simulate(). A mover's snr is in
    multiples of `noise` (H, W; grey levels; None: estimate_noise of up to 16 frames around the
    middle) matched-filtered over its trail. psf_sigma_px and exposure should be those of the
    recording. levels: the step to which values are rounded (None: not rounded); saturation: the
    value at which they clip (None: the largest of an integer type). Rounding is at random, up or
    down in proportion, so that light fainter than one level is kept on average.
    """
    if noise is None:
        first = max(0, len(frames) // 2 - 8)
        noise = estimate_noise(frames[first : first + 16], levels)
    out = np.empty_like(frames)
    rows: list[Row] = []
    stream = inject_stream(
        frames,
        movers,
        rng,
        noise=noise,
        psf_sigma_px=psf_sigma_px,
        exposure=exposure,
        levels=levels,
        saturation=saturation,
    )
    for i, (frame, seen) in enumerate(stream):
        out[i] = frame
        rows.extend(seen)
    return out, truth_tracks(rows, movers, fps, start_utc)


def inject_stream(
    frames: Iterable[np.ndarray],
    movers: tuple[Mover, ...],
    rng: np.random.Generator,
    *,
    noise: np.ndarray,
    psf_sigma_px: float = 1.2,
    exposure: float = 1.0,
    levels: float | None = 1.0,
    saturation: float | None = None,
) -> Iterator[tuple[np.ndarray, list[Row]]]:
    """As inject(), one frame (H, W) at a time.

    Yields each frame with its rows of truth; truth_tracks() turns all rows into tables.
    """
    view = View((noise.shape[1], noise.shape[0]), exposure, psf_sigma_px)
    units: dict[int, float] = {}

    def ground(row: int, column: int) -> Ground:
        return Ground(noise=float(noise[row, column]))

    for index, frame in enumerate(frames):
        light = np.zeros(noise.shape, np.float32)
        rows: list[Row] = []
        for number in range(len(movers)):
            rows += add_mover(light, movers, number, index, view, ground, units)
        yield _add_light(frame, light, levels, saturation, rng), rows


def _add_light(
    frame: np.ndarray,
    light: np.ndarray,
    levels: float | None,
    saturation: float | None,
    rng: np.random.Generator,
) -> np.ndarray:
    lit = light > 0
    values = frame[lit].astype(np.float64) + light[lit]
    if np.issubdtype(frame.dtype, np.integer):
        top = float(np.iinfo(frame.dtype).max)
        saturation = top if saturation is None else min(saturation, top)
        levels = 1.0 if levels is None else levels
    if levels is not None:
        values = np.floor(values / levels + rng.random(len(values))) * levels
    if saturation is not None:
        # pixels that were beyond it before stay as they were
        values = np.minimum(values, np.maximum(saturation, frame[lit]))
    out = frame.copy()
    out[lit] = values.astype(frame.dtype)
    return out
