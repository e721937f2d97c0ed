"""Small pictures of large scenes."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine

from warte.core.data.tiles import Window
from warte.earth.report import quicklook as look
from warte.earth.scene import Grid, Scene


class _Held:
    """A reader of an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def read(self, window: Window, bands: list[int]) -> tuple[np.ndarray, np.ndarray]:
        part = self.values[(list(bands), *window.slices)].astype(np.float32)
        return part, np.isfinite(part).all(axis=0)


def _scene(values: np.ndarray, bands: tuple[str, ...]) -> Scene:
    grid = Grid(*values.shape[1:], Affine(10, 0, 5e5, 0, -10, 5e6), None)
    return Scene("scene", grid, bands, _Held(values))


def test_means_of_squares_leave_out_what_is_missing() -> None:
    values = np.arange(24, dtype=float).reshape(1, 4, 6)
    values[0, 0, :2] = np.nan
    values[0, 2:, 4:] = np.nan
    means = look.block_mean(values, 2)
    expected = [[6.5, (2 + 3 + 8 + 9) / 4, (4 + 5 + 10 + 11) / 4], [15.5, 17.5, np.nan]]
    np.testing.assert_allclose(means[0], expected)


def test_cut_squares_at_the_edge() -> None:
    means = look.block_mean(np.ones((2, 5, 7)) * [[[1.0]], [[3.0]]], 3)
    np.testing.assert_array_equal(means, np.broadcast_to([[[1.0]], [[3.0]]], (2, 2, 3)))


@pytest.mark.parametrize(
    ("bands", "chosen"),
    [
        (("blue", "green", "red", "nir"), ("red", "green", "blue")),
        (("green", "red", "nir"), ("nir", "red", "green")),
        (("vh", "vv"), ("vv", "vh", "vv")),
        (("band_1",), ("band_1",)),
        (("band_1", "band_2", "band_3"), ("band_1", "band_2", "band_3")),
        (tuple(f"band_{n}" for n in range(8)), ("band_2", "band_1", "band_0")),
        (tuple(f"band_{n}" for n in range(200)), ("band_120", "band_70", "band_20")),
    ],
)
def test_bands_of_the_picture(bands: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    assert look.chosen_bands(bands) == chosen


@pytest.mark.parametrize("side", [40, 100, 1000])
def test_a_large_scene_becomes_small(side: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((3, 1100, 70)) + np.linspace(0, 9, 1100)[:, None]
    values[:, 600:700] = np.nan
    picture, step = look.quicklook(_scene(values, ("red", "green", "blue")), side=side)
    assert step == -(-1100 // side)
    assert picture.shape == (-(-1100 // step), -(-70 // step), 4)
    assert max(picture.shape) <= side
    middle = round(650 / step)
    assert (picture[middle, :, 3] == 0).all() and (picture[0, :, 3] == 255).all()
    # The rise from top to bottom is kept.
    assert picture[-1, :, 0].mean() > 200 > 60 > picture[0, :, 0].mean()


def test_nothing_valid() -> None:
    picture, _ = look.quicklook(_scene(np.full((1, 20, 20), np.nan), ("band_1",)))
    assert not picture.any()


def _write(path: Path, values: np.ndarray, nodata: float) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
        dtype=values.dtype, nodata=nodata, transform=Affine(10, 0, 0, 0, -10, 0),
    ) as data:  # fmt: skip
        data.write(values, 1)
    return path


def test_classes_keep_their_colours(tmp_path: Path) -> None:
    values = np.full((50, 60), 255, np.uint8)
    values[:25] = 1
    values[25:, :30] = 2
    path = _write(tmp_path / "classes.tif", values, 255)
    picture, step = look.class_picture(path, {1: (10, 20, 30), 2: (200, 0, 0)}, hidden=(2,))
    assert step == 1
    np.testing.assert_array_equal(picture[0, 0], [10, 20, 30, 255])
    assert picture[30, 5, 3] == 0 and picture[40, 50, 3] == 0


def test_scores_run_from_dark_to_bright(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 3000, dtype=np.float32).reshape(50, 60)
    values[0, :7] = np.nan
    path = _write(tmp_path / "score.tif", values, float("nan"))
    picture, _, (low, high) = look.score_picture(path)
    assert (picture[0, :7, 3] == 0).all()
    assert tuple(picture[-1, -1, :3]) == look.HEAT[-1]
    assert low == pytest.approx(0.022, abs=2e-3) and high == pytest.approx(0.998, abs=1e-3)


def test_encoded_pictures_open() -> None:
    picture = np.zeros((30, 40, 4), np.uint8)
    picture[..., 0], picture[:10, :, 3] = 250, 255
    back = cv2.imdecode(np.frombuffer(look.png(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back[0, 0], [0, 0, 250, 255])
    assert back[20, 0, 3] == 0
    flat = cv2.imdecode(np.frombuffer(look.jpeg(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    assert flat.shape == (30, 40, 3) and flat[5, 5, 2] > 200 and flat[25, 5].max() < 40
