"""The clips of the benchmark: seeds that training never saw, and recordings held in memory."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np

from warte.sky import presets
from warte.sky.read import Recording
from warte.sky.simulate import compress_h264, simulate
from warte.sky.tables import Tracks, parse_utc

SEED0 = 9_000_000  # training draws its seeds below 1 000 000
FPS = 25.0  # frames per second of every simulated clip
CRF = 23  # x264's own default
START = "2024-08-12T22:00:00.000000Z"


def memory_recording(
    frames: np.ndarray, fps: float = FPS, bits: int = 8, name: str = "memory"
) -> Recording:
    """A recording whose frames (T, H, W) lie in memory, so that no file format is measured."""

    def source(start: int) -> Generator[tuple[np.ndarray, float], None, None]:
        for index in range(start, len(frames)):
            yield frames[index].astype(np.float32), index / fps

    return Recording(
        path=Path(name),
        width=frames.shape[2],
        height=frames.shape[1],
        frame_count=len(frames),
        fps=fps,
        start_utc=parse_utc(START),
        levels=1.0 if bits else None,
        saturation=float(2**bits - 1) if bits else None,
        source=source,
    )


def faint_clip(snr: float, exposure: float, seed: int) -> tuple[np.ndarray, Tracks]:
    """100 frames of 640x480 with one satellite of this per-frame SNR, speed 0.3 to 15 px/frame."""
    rng = np.random.default_rng(seed)
    return simulate(presets.faint(snr, rng=rng, exposure=exposure), rng)


def crowd_clip(snr: float, seed: int, movers: int = 8) -> tuple[np.ndarray, Tracks]:
    """100 frames of 640x480 with so many satellites of this per-frame SNR anywhere in the picture,
    as fast as those of `faint_clip`: the errors within one track go together, those of several do
    not."""
    rng = np.random.default_rng(seed)
    scene = presets.faint(snr, rng=rng)
    satellites = []
    for _ in range(movers):
        (one,) = presets.faint(snr, rng=rng).movers
        x, y = rng.uniform(0.1, 0.9, 2) * [scene.width, scene.height]
        satellites.append(replace(one, x=float(x), y=float(y)))
    return simulate(replace(scene, movers=tuple(satellites)), rng)


def empty_clip(seed: int) -> tuple[np.ndarray, Tracks]:
    """100 frames of 640x480 with drifting stars and nothing else."""
    return simulate(presets.empty(), np.random.default_rng(seed))


def kinds_clip(seed: int) -> tuple[np.ndarray, Tracks]:
    """150 frames of 640x480 with two satellites, an aircraft and two meteors."""
    rng = np.random.default_rng(seed)
    return simulate(presets.kinds(rng), rng)


def compressed(frames: np.ndarray) -> np.ndarray:
    """The frames after 8-bit H.264."""
    return compress_h264(frames, fps=FPS, crf=CRF)
