"""Whole scenes: any number of workers and windows, killed or not, the same file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from warte.core.data.resume import Pieces
from warte.core.data.tiles import Window
from warte.core.errors import InputError, OutputError, SettingsError
from warte.core.execute import executor
from warte.earth.read import read
from warte.earth.scene import Grid, Pixels, Scene
from warte.earth.whole import Output, map_scenes

GRID = Grid(150, 217, Affine(10, 0, 5e5, 0, -10, 4e6), CRS.from_epsg(32631))
MEANS = Output("means.tif", "float32", -9.0, ("one", "two"))
CLASSES = Output(
    "classes.tif", "uint8", 0, ("class",), {1: (0, 0, 255), 2: (0, 128, 0)}, {1: "low", 2: "high"}
)


@dataclass(frozen=True)
class Memory:
    """Reads from arrays."""

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]

    def read(
        self, window: Window, bands: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        return self.values[(list(bands), *window.slices)].copy(), self.valid[window.slices].copy()


def scene(seed: int = 0, grid: Grid = GRID, valid: float = 0.7) -> Scene:
    rng = np.random.default_rng(seed)
    values = rng.random((2, *grid.shape), np.float32)
    good = ndimage.gaussian_filter(rng.standard_normal(grid.shape), 9)
    good = good < np.quantile(good, valid) if valid else np.zeros(grid.shape, bool)
    return Scene("noise", grid, ("red", "nir"), Memory(values, good))


def means(pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
    """A filter that reaches 3 pixels far; fill counts as 0."""
    return {MEANS.name: ndimage.uniform_filter(np.nan_to_num(pixels[0].values), (0, 7, 7))}


def classes(joined: dict[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.uint8]]:
    return {CLASSES.name: (1 + joined[MEANS.name].argmax(0, keepdims=True)).astype(np.uint8)}


def mapped(out: Path, **options: object) -> dict[str, bytes]:
    out.mkdir(exist_ok=True)
    given = {"margin": 3, "tile": 64, "blend": 16, "after": classes, **options}
    map_scenes([scene()], means, [MEANS, CLASSES], out, **given)  # type: ignore[arg-type]
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize(
    ("tile", "blend", "align"), [(64, 16, 1), (64, 0, 8), (50, 50, 4), (500, 0, 1)]
)
def test_a_filter_by_windows_is_the_filter_of_the_whole(
    tmp_path: Path, tile: int, blend: int, align: int
) -> None:
    mapped(tmp_path, tile=tile, blend=blend, align=align)
    pixels = scene().read()
    whole = means([pixels])[MEANS.name]
    with rasterio.open(tmp_path / MEANS.name) as file:
        found = file.read()
        assert (file.transform, file.crs) == (GRID.transform, GRID.crs)
        assert (file.nodata, file.descriptions) == (-9.0, MEANS.bands)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    np.testing.assert_allclose(found[:, pixels.valid], whole[:, pixels.valid], atol=1e-6)
    assert (found[:, ~pixels.valid] == -9).all()
    with rasterio.open(tmp_path / CLASSES.name) as file:
        wanted = np.where(pixels.valid, 1 + found.argmax(0), 0)
        np.testing.assert_array_equal(file.read(1), wanted)
        assert file.colormap(1)[2] == (0, 128, 0, 255)
    assert {path.name for path in tmp_path.iterdir()} == {MEANS.name, CLASSES.name}


def test_without_margin_there_are_seams_that_blending_makes_smaller(tmp_path: Path) -> None:
    """The test of the filter would see it if margins were ignored."""
    pixels = scene().read()
    whole = means([pixels])[MEANS.name]
    worst = []
    for blend in (0, 16):
        mapped(tmp_path / str(blend), margin=0, blend=blend)
        with rasterio.open(tmp_path / str(blend) / MEANS.name) as file:
            worst.append(np.abs(file.read() - whole)[:, pixels.valid].max())
    assert worst[0] > 0.05
    assert worst[1] < worst[0]


def test_two_workers_write_the_same_bytes(tmp_path: Path) -> None:
    with executor("processes", 2) as pool:
        assert mapped(tmp_path / "two", pool=pool) == mapped(tmp_path / "one")


def test_work_is_never_asked_about_fill_alone(tmp_path: Path) -> None:
    seen = []

    def note(pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        seen.append(pixels[0].valid.any())
        assert np.isnan(pixels[0].values[:, ~pixels[0].valid]).all()
        return means(pixels)

    map_scenes([scene(valid=0.05)], note, [MEANS], tmp_path, tile=16)
    assert all(seen)
    assert 0 < len(seen) < 100


PROGRAM = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import test_whole as t

    def report(step, done, total):
        if done == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    t.mapped(Path(sys.argv[2]), report=report)
    """


@pytest.mark.parametrize("after", [5, 12])
def test_killed_and_run_again_the_bytes_are_those_of_an_unbroken_run(
    tmp_path: Path, after: int
) -> None:
    unbroken = mapped(tmp_path / "unbroken")
    out = tmp_path / "out"
    code = "\n".join(line.strip(" ") if not line.startswith("        ") else line[4:]
                     for line in PROGRAM.splitlines())  # fmt: skip
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(out), str(after)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert list(out.iterdir()) == []
    (work,) = (tmp_path / ".out.work").iterdir()
    assert len(Pieces(work)) == after

    computed = []

    def note(pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        computed.append(1)
        return means(pixels)

    assert mapped(out) == unbroken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "unbroken"]


def test_another_command_does_not_use_what_was_kept(tmp_path: Path) -> None:
    def stop(step: str, done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        mapped(out, report=stop)
    assert (tmp_path / ".out.work").exists()
    assert mapped(out, margin=2) == mapped(tmp_path / "other", margin=2)
    assert not (tmp_path / ".out.work").exists()


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warte.core.data.resume.Pieces.put", full)
    with pytest.raises(OutputError, match=r"disk of .* is full") as caught:
        mapped(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / ".out.work").exists()


def test_a_scene_of_fill_and_a_tile_below_the_blend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pixel that is valid"):
        map_scenes([scene(valid=0.0)], means, [MEANS], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsError, match="--tile 8"):
        mapped(tmp_path, tile=8)


def test_a_real_scene_with_fill(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    picture = read(real_file("earth/landsat7/RGB.byte.tif"))

    def first(pixels: Sequence[Pixels]) -> dict[str, npt.NDArray[np.float32]]:
        return {"first.tif": pixels[0].values[:1]}

    map_scenes([picture], first, [Output("first.tif", "float32", -1, ("red",))], tmp_path, tile=200)
    pixels = picture.read()
    with rasterio.open(tmp_path / "first.tif") as file:
        assert file.transform == picture.grid.transform
        assert file.crs == picture.grid.crs
        wanted = np.where(pixels.valid, np.nan_to_num(pixels.values[0]), -1)
        np.testing.assert_array_equal(file.read(1), wanted)
    assert 0.3 < (~pixels.valid).mean() < 0.4
