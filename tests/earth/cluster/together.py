"""One of several processes that cluster a small scene: `together.py KIND CASE FOLDER`.

KIND: mpi or torch. CASE: well (after a scene that one process cannot read), dies (one is killed),
fails (one has a bug).
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from warte.core.data.tiles import Window
from warte.core.errors import InputError, WarteError
from warte.earth.cluster import ClusterSettings, cluster
from warte.earth.cluster.ranks import mpi_ranks, torch_ranks
from warte.earth.scene import BoolArray, Float32Array, Grid, Scene, scene_of_array

SETTINGS = ClusterSettings(k=4, chunk=600, sample=500)


@dataclass(frozen=True)
class Bad:
    """A reader that fails in the last rows."""

    case: str
    values: Float32Array

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        if window.row + window.rows > 100 and self.case == "damaged":
            raise InputError("scene.tif is cut off in row 100; get it again")
        if window.row + window.rows > 100 and self.case == "fails":
            raise ZeroDivisionError("a bug")
        if window.row + window.rows > 100 and self.case == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        rows, columns = window.slices
        values = self.values[list(bands), rows, columns]
        return values.copy(), np.ones(values.shape[1:], bool)


def scene(case: str = "well") -> Scene:
    """A picture of 105 x 60 pixels whose values are not whole numbers."""
    rng = np.random.default_rng(0)
    truth = rng.integers(6, size=(15, 6)).repeat(7, axis=0).repeat(10, axis=1)
    values = rng.uniform(0, 1, (6, 3))[truth] + rng.normal(0, 0.1, (105, 60, 3))
    grid = Grid(105, 60, Affine(20, 0, 5e5, 0, -20, 5e6), CRS.from_epsg(32633))
    made = scene_of_array(values.transpose(2, 0, 1), ["a", "b", "c"], grid)
    if case == "well":
        return made
    return dataclasses.replace(made, reader=Bad(case, made.read().values))


def main(kind: str, case: str, folder: str) -> int:
    """Cluster and write what is known of it; 2 for an error that a user can mend."""
    out = Path(folder)
    try:
        with mpi_ranks() if kind == "mpi" else torch_ranks(timeout_s=20) as ranks:
            if case == "well":
                try:
                    cluster([scene("damaged")], SETTINGS, out=out, group=ranks)
                except InputError as problem:
                    sys.stderr.write(f"error: {problem}\n")
            ranks.gather(None)
            assert not list(out.iterdir())
            ranks.gather(None)
            found = cluster([scene(case)], SETTINGS, out=out, group=ranks)
            if ranks.rank == 0:
                facts = json.dumps(dataclasses.asdict(found))
                (out / "facts.json").write_text(facts, encoding="utf-8")
    except WarteError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
