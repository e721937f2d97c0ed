"""Part whole: memory, throughput, seams and resumption of `map_scenes`.

The tables start this module again (see `main`), so that each size has a process of its own.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from benchmarks.page import Table, cores
from benchmarks.sky.memory import peak_mib
from warte.cli.common import Report
from warte.core.data.tiles import Window
from warte.core.execute import Workers, executor, ordered
from warte.earth.model import ModelSettings, UNet, alignment, receptive_field
from warte.earth.scene import Grid, Pixels, Scene
from warte.earth.whole import Output, map_scenes

BANDS = ("red", "green", "nir")
SIDE, QUICK_SIDE = 2048, 1536  # pixels of the smaller scene of the memory table
PACE_SIDE, QUICK_PACE_SIDE = 1536, 512  # of the throughput table
SEAM_SIDE, QUICK_SEAM_SIDE = 1000, 600  # of the seam and the resumption tables
TILE, BLEND = 256, 32
BLOCK = 128  # side of the squares that the simulated scene is drawn in
WANTED_MORE = 10.0  # per cent of memory for ten times the pixels
WANTED_SEAM = 1e-5
KILLED_AFTER = 4  # windows


@dataclass(frozen=True)
class Noise:
    """Reads a scene of noise that is drawn when it is asked for; 2 % of its pixels are fill."""

    seed: int

    def read(
        self, window: Window, bands: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Values and valid pixels of a window, the same whatever the window."""
        values = np.empty((len(bands), window.rows, window.columns), np.float32)
        valid = np.empty((window.rows, window.columns), bool)
        ends = window.row + window.rows, window.column + window.columns
        for row in range(window.row // BLOCK * BLOCK, ends[0], BLOCK):
            for column in range(window.column // BLOCK * BLOCK, ends[1], BLOCK):
                rng = np.random.default_rng([self.seed, row, column])
                drawn = rng.random((len(BANDS), BLOCK, BLOCK), np.float32)
                fill = rng.random((BLOCK, BLOCK), np.float32) < 0.02
                block = Window(row, column, BLOCK, BLOCK)
                shared = block.shared(window)
                if shared is None:
                    continue
                part, place = shared.within(block), shared.within(window)
                values[(slice(None), *place)] = drawn[(list(bands), *part)]
                valid[place] = ~fill[part]
        return values, valid


def noise(side: int, seed: int) -> Scene:
    """A square scene of 10 m pixels."""
    grid = Grid(side, side, Affine(10, 0, 500_000, 0, -10, 4_000_000), CRS.from_epsg(32631))
    return Scene(f"noise {side}", grid, BANDS, Noise(seed))


@dataclass(frozen=True)
class Network:
    """Probabilities from a U-Net with random weights: what it costs and where it looks matter."""

    settings: ModelSettings
    seed: int

    def __call__(self, pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        """Probabilities of each class: (classes, rows, columns)."""
        torch.manual_seed(self.seed)
        network = UNet(self.settings).eval()
        values = torch.from_numpy(np.nan_to_num(pixels[0].values))
        with torch.inference_mode():
            logits = network(values[None])[0]
        return {PICTURE.name: logits.softmax(0).numpy()}


def smooth(pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
    """Means of 5 x 5 pixels: hardly any work, so that what is measured is how it is handed out."""
    values = np.nan_to_num(pixels[0].values)
    return {PICTURE.name: ndimage.uniform_filter(values, (0, 5, 5))}


PICTURE = Output("probabilities.tif", "float32", -1.0, ("one", "two", "three"))
SHAPE = ModelSettings(bands=len(BANDS), classes=len(PICTURE.bands), width=8, depth=2, kernel=3)


def mapped(
    scene: Scene,
    out: Path,
    seed: int,
    *,
    margin: int | None = None,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Path:
    """Map a scene with the network into a folder, which is made; returns the picture."""
    out.mkdir(parents=True, exist_ok=True)
    map_scenes(
        [scene], Network(SHAPE, seed), [PICTURE], out,
        margin=receptive_field(SHAPE) if margin is None else margin, tile=TILE, blend=BLEND,
        align=alignment(SHAPE), pool=pool, report=report,
    )  # fmt: skip
    return out / PICTURE.name


def whole_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """Memory, throughput, seams, resumption."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        progress("whole", 0, 4)
        tables = [_memory(place, seed, QUICK_SIDE if quick else SIDE)]
        progress("whole", 1, 4)
        tables.append(_throughput(place, seed, QUICK_PACE_SIDE if quick else PACE_SIDE))
        progress("whole", 2, 4)
        tables.append(_seams(place, seed, QUICK_SEAM_SIDE if quick else SEAM_SIDE))
        progress("whole", 3, 4)
        tables.append(_resumed(place, seed, QUICK_SEAM_SIDE if quick else SEAM_SIDE))
        progress("whole", 4, 4)
    return tables


def _child(*words: object) -> subprocess.CompletedProcess[str]:
    """This module in a process of its own, on one thread."""
    command = [sys.executable, "-m", "benchmarks.earth.whole", *map(str, words)]
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **one})


def _memory(place: Path, seed: int, side: int) -> Table:
    rows: list[dict[str, object]] = []
    first: list[float] = []
    for times in (1, 10):
        length = round(side * times**0.5)
        child = _child("memory", length, seed, place / f"memory-{times}")
        child.check_returncode()
        parent, worker = (float(word) for word in child.stdout.split())
        first = first or [parent, worker]
        more = 100 * max(parent / first[0], worker / first[1]) - 100
        rows.append(
            {
                "pixels (million)": round(length**2 / 1e6, 1),
                "parent (MiB)": round(parent),
                "one worker (MiB)": round(worker),
                "more (%)": round(more, 1),
                "wanted (%)": f"<= {WANTED_MORE:g}" if times > 1 else "-",
            }
        )
    note = f"Peak resident memory; two workers, windows of {TILE} pixels, blended over {BLEND}."
    return Table("Whole scenes: memory against size", pd.DataFrame(rows), note)


def _throughput(place: Path, seed: int, side: int) -> Table:
    scene, alone = noise(side, seed), 0.0
    rows: list[dict[str, object]] = []
    for workers in (1, 2):
        # A pool of one process too, so that both pay for sending pixels between processes.
        pool = Workers(workers)
        list(ordered(pool, _warm, range(4 * workers)))
        started, used = time.perf_counter(), _core_s()
        mapped(scene, place / f"pace-{workers}", seed, pool=pool)
        wall = time.perf_counter() - started
        pool.shutdown()
        core = _core_s() - used  # of workers too, now that they have ended
        alone = alone or wall
        rows.append(
            {
                "workers": workers,
                "wall (s)": round(wall, 2),
                "core (s, with start)": round(core, 2),
                "million pixels per s": round(side**2 / wall / 1e6, 3),
                "efficiency": round(alone / wall / workers, 2),
            }
        )
    note = (
        f"{side} x {side} pixels, U-Net of width {SHAPE.width} and depth {SHAPE.depth}, "
        f"{cores()} cores; the COG that the parent writes is included."
    )
    return Table("Whole scenes: throughput", pd.DataFrame(rows), note)


def _warm(index: int) -> int:
    """Have a worker import what the work needs."""
    time.sleep(0.2)
    Network(SHAPE, 0)([noise(64, 0).read()])
    return index


def _core_s() -> float:
    """Core time of this process and of children that have ended."""
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, parts))


def _seams(place: Path, seed: int, side: int) -> Table:
    scene = noise(side, seed)
    pixels = scene.read()
    whole = Network(SHAPE, seed)([pixels])[PICTURE.name]
    rows = []
    for what, margin in (("receptive field", receptive_field(SHAPE)), ("none", 0)):
        path = mapped(scene, place / f"seam-{margin}", seed, margin=margin)
        with rasterio.open(path) as file:
            tiled = file.read()
            same = file.transform == scene.grid.transform and file.crs == scene.grid.crs
        inside = np.abs(tiled - whole)[:, pixels.valid].max()
        rows.append(
            {
                "margin": f"{what} ({margin} pixels)",
                "largest difference from untiled": float(inside),
                "wanted": f"<= {WANTED_SEAM:g}" if margin else "-",
                "fill predicted (pixels)": int((tiled[:, ~pixels.valid] != PICTURE.nodata).sum()),
                "transform and CRS": "exact" if same else "differ",
            }
        )
    note = f"Probabilities of a U-Net, {side} x {side} pixels, windows of {TILE}, blend {BLEND}."
    return Table("Whole scenes: seams", pd.DataFrame(rows), note)


def _resumed(place: Path, seed: int, side: int) -> Table:
    scene = noise(side, seed)
    unbroken = mapped(scene, place / "unbroken", seed).read_bytes()
    child = _child("kill", side, seed, place / "killed")
    left = len(list((place / ".killed.work").glob("*/*-0.npy")))
    calls: list[int] = []
    before = (place / "killed" / PICTURE.name).exists()
    again = mapped(scene, place / "killed", seed, report=lambda _, done, total: calls.append(done))
    row = {
        "ended by": f"signal {-child.returncode}",
        "picture after the kill": "half-written" if before else "none",
        "windows kept": f"{left} of {len(calls)}",
        "after resumption": "identical" if again.read_bytes() == unbroken else "differs",
        "sha256": hashlib.sha256(unbroken).hexdigest()[:12],
        "left behind": sum(1 for _ in place.glob(".killed*")),
    }
    note = f"SIGKILL after {KILLED_AFTER} windows of {TILE} pixels, then the same call again."
    return Table("Whole scenes: killed and resumed", pd.DataFrame([row]), note)


def main() -> None:
    """`memory SIDE SEED OUT` or `kill SIDE SEED OUT`: see the tables."""
    what, side, seed, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    if what == "kill":

        def kill(step: str, done: int, total: int | None) -> None:
            if done == KILLED_AFTER:
                os.kill(os.getpid(), signal.SIGKILL)

        mapped(noise(side, seed), out, seed, report=kill)
    out.mkdir()
    with executor("processes", 2) as pool:
        map_scenes(
            [noise(side, seed)], smooth, [PICTURE], out, margin=2, tile=TILE, blend=BLEND, pool=pool
        )
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(peak_mib(), worker)
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
