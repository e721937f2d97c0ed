"""Part speed: the whole search against the peer on the same clips, and its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.clock import Times, median_times
from benchmarks.page import Table, cores
from benchmarks.sky.clips import memory_recording
from benchmarks.sky.fourframe import fourframe
from benchmarks.sky.jobs import Progress
from warte.sky import presets
from warte.sky.find import find
from warte.sky.read import Recording
from warte.sky.simulate import simulate

SIZES = ((640, 480, 100), (640, 480, 300), (1920, 1080, 100))  # width, height, frames
QUICK_SIZES = ((640, 480, 100),)
MEMORY_FRAMES = (200, 1000)
QUICK_MEMORY_FRAMES = (100, 200)


def speed_table(seed0: int, repeats: int, quick: bool, device: str, progress: Progress) -> Table:
    """Wall and core seconds of both, and the time per pixel and frame."""
    rows = []
    sizes = QUICK_SIZES if quick else SIZES
    for number, (width, height, frames) in enumerate(sizes):
        progress("speed", number, len(sizes))
        recording = _clip(seed0 + 800_000 + number, width, height, frames)
        own = _warm_times(lambda clip=recording: find(clip, device=device), repeats)
        peer = _warm_times(lambda clip=recording: _peer(clip, seed0), repeats)
        rows.append(
            {
                "size": f"{width}x{height}",
                "frames": frames,
                "Warte frames/s": frames / own.wall,
                "Warte core-s": own.core,
                "four-frame frames/s": frames / peer.wall,
                "four-frame core-s": peer.core,
                "time, Warte / four-frame": own.wall / peer.wall,
                "Warte ns per pixel and frame": 1e9 * own.wall / (frames * width * height),
            }
        )
    progress("speed", len(sizes), len(sizes))
    return Table(
        "Speed: the whole search, faint search included",
        pd.DataFrame(rows),
        f"Median of {repeats} runs on {cores()} cores, frames in memory as 8 bit, after one run to "
        "warm up; clips with one satellite of SNR 2.",
    )


def _peer(recording: Recording, seed: int) -> None:
    fourframe(recording, np.random.default_rng(seed))


def _clip(seed: int, width: int, height: int, frames: int) -> Recording:
    rng = np.random.default_rng(seed)
    scene = presets.faint(2.0, 1.0, rng=rng)
    mover = replace(scene.movers[0], frame=frames / 2, x=width / 2, y=height / 2)
    scene = replace(scene, width=width, height=height, frames=frames, movers=(mover,))
    return memory_recording(simulate(scene, rng)[0])


def _warm_times(work: Callable[[], object], repeats: int) -> Times:
    work()
    return median_times(work, repeats)


def memory_table(quick: bool, progress: Progress) -> Table:
    """Peak memory of the search in a process of its own, for two lengths."""
    rows = []
    lengths = QUICK_MEMORY_FRAMES if quick else MEMORY_FRAMES
    for number, frames in enumerate(lengths):
        progress("memory", number, len(lengths))
        command = [sys.executable, "-m", "benchmarks.sky.memory", str(frames)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(("640x480", frames, float(done.stdout) / 1024))
    progress("memory", len(lengths), len(lengths))
    columns = ["size", "frames", "peak GiB"]
    return Table(
        "Memory: peak resident memory of a process that searches a stream",
        pd.DataFrame(rows, columns=columns),
        "Frames are made one at a time, so that the recording itself takes no memory; wanted: "
        "below 2 GiB for any length. On the CPU, Python and its libraries included.",
    )
