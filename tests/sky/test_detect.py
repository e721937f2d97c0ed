"""Blobs from maps of moving light, and the packaged weights on easy cases."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from warte.core.errors import InputError
from warte.sky.find.detect import DETECTION_COLUMNS, detections, load, motion_map, spans
from warte.sky.find.link import blobs_of, link
from warte.sky.find.prepare import Window, prepare
from warte.sky.find.settle import as_followed
from warte.sky.model import UNet, UNetSettings, build
from warte.sky.simulate import SimulateSettings, SkySettings, simulate


def window(cells: np.ndarray, cell: int = 2, motions: np.ndarray | None = None) -> Window:
    """A window that holds these cells (T, h, w), its first frame number 10."""
    count, height, width = cells.shape
    still = np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
    return Window(
        first=10,
        cells=cells.astype(np.float32),
        residual=np.zeros((count, height * cell, width * cell), np.float16),
        noise=np.ones((height * cell, width * cell), np.float32),
        stars=np.zeros((height, width), np.float32),
        red=np.ones((height, width), np.float32),
        tail=1.0,
        settled=as_followed(still if motions is None else motions, (height, width)),
        agreed=np.full(count, 20),
        cell=cell,
        psf_sigma_px=1.2,
    )


def noisy(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise of one sigma, smoothed about as ``prepare`` does it."""
    rng = np.random.default_rng(seed)
    cells = np.stack(
        [cv2.GaussianBlur(rng.standard_normal(size), (0, 0), 0.65) for _ in range(count)]
    )
    return np.asarray(cells / cells.std())


def add_point(cells: np.ndarray, t: int, x: float, y: float, snr: float) -> None:
    """A point's light after the filter, in cells."""
    yy, xx = np.mgrid[: cells.shape[1], : cells.shape[2]]
    cells[t] += snr * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 0.95**2))


@pytest.mark.parametrize("stride", [1, 4, 6, 8])
@pytest.mark.parametrize("count", [1, 5, 8, 9, 23, 96])
def test_spans_answer_every_frame_once(count: int, stride: int) -> None:
    looks = spans(count, 8, stride)
    answered = [t for _, first, stop in looks for t in range(first, stop)]
    assert answered == list(range(count))
    for start, first, stop in looks:
        assert 0 <= start <= first < stop <= start + 8


def test_point_has_its_place_and_no_length() -> None:
    cells = np.zeros((3, 30, 40))
    add_point(cells, 1, 20.3, 11.6, 20)
    found = detections(window(cells, cell=3), (cells > 2).astype(np.float16), 0.5)
    assert list(found.columns) == DETECTION_COLUMNS
    assert len(found) == 1
    row = found.iloc[0]
    assert row.frame == 11
    assert row.x == pytest.approx(3 * 20.3 + 1, abs=0.3)
    assert row.y == pytest.approx(3 * 11.6 + 1, abs=0.3)
    assert row.snr == pytest.approx(cells.max())
    assert row.length_px < 4


def test_trail_has_its_ends() -> None:
    cells = np.zeros((1, 60, 80))
    for s in np.linspace(0, 1, 60):
        add_point(cells, 0, 20 + 30 * s, 40 - 15 * s, 1.0)
    row = detections(window(cells), (cells > 1).astype(np.float16)).iloc[0]
    assert row.length_px == pytest.approx(2 * np.hypot(30, 15), rel=0.1)
    assert row.angle_deg == pytest.approx(180 - np.rad2deg(np.arctan2(15, 30)), abs=2)
    ends = np.array([[row.x0, row.y0], [row.x1, row.y1]])
    truth = 2 * np.array([[20, 40], [50, 25]]) + 0.5
    nearest = min(np.abs(ends - truth).max(), np.abs(ends[::-1] - truth).max())
    assert nearest < 4


def test_sensor_places_follow_the_motion_of_the_stars() -> None:
    cells = np.zeros((2, 20, 20))
    add_point(cells, 0, 5, 6, 20)
    add_point(cells, 1, 5, 6, 20)
    motions = np.array([[1.0, 0, 0, 0], [1.0, 0, 3.5, -2]])
    found = detections(window(cells, motions=motions), (cells > 2).astype(np.float16))
    np.testing.assert_allclose(found.x_sensor - found.x, [0, 3.5])
    np.testing.assert_allclose(found.y_sensor - found.y, [0, -2])


def test_nothing_found_is_an_empty_table() -> None:
    found = detections(window(np.zeros((4, 8, 8))), np.zeros((4, 8, 8), np.float16))
    assert len(found) == 0
    assert list(found.columns) == DETECTION_COLUMNS


def test_map_of_a_recording_shorter_than_the_network() -> None:
    chance = motion_map(window(noisy(3, (17, 30))), build(UNetSettings(base=2)).eval())
    assert chance.shape == (3, 17, 30)
    assert ((chance >= 0) & (chance <= 1)).all()


@pytest.fixture(scope="module")
def trained() -> UNet:
    return load()


def test_packaged_weights_find_a_bright_mover(trained: UNet) -> None:
    cells = noisy(24, (60, 80))
    for t in range(24):
        add_point(cells, t, 10 + 2.5 * t, 15 + t, 12)
    found = detections(view := window(cells), motion_map(view, trained))
    near = np.hypot(
        found.x - (2 * (10 + 2.5 * (found.frame - 10)) + 0.5),
        found.y - (2 * (15 + (found.frame - 10)) + 0.5),
    )
    assert (near < 2).sum() >= 22
    # a blob of noise now and then, which leads to nothing
    assert (near >= 6).sum() <= 1
    (chain,) = link(blobs_of(found), 15.0)
    assert len(chain) >= 22


def test_packaged_weights_find_a_meteor_of_two_frames(trained: UNet) -> None:
    cells = noisy(24, (60, 80), seed=3)
    for t in (11, 12):
        for s in np.linspace(0, 1, 12):
            add_point(cells, t, 20 + 8 * (t - 11 + s), 30, 6)
    found = detections(view := window(cells), motion_map(view, trained))
    assert {21, 22} <= set(found.frame) <= {20, 21, 22, 23}
    assert (found.groupby("frame").length_px.max()[[21, 22]] > 8).all()


def test_packaged_weights_leave_noise_alone(trained: UNet) -> None:
    view = window(noisy(48, (120, 160), seed=1))
    assert len(detections(view, motion_map(view, trained))) <= 1


def test_packaged_weights_leave_drifting_twinkling_stars_alone(trained: UNet) -> None:
    sky = SkySettings(
        stars_per_mpx=2000, drift_x=0.05, drift_y=0.02, scintillation=0.3, scintillation_frames=2
    )
    settings = SimulateSettings(frames=48, width=240, height=200, sky=sky)
    frames, _ = simulate(settings, np.random.default_rng(5))
    view = prepare(frames.astype(np.float32), 0, 1.0)
    assert len(detections(view, motion_map(view, trained))) <= 3


def test_weights_that_are_none(tmp_path: Path) -> None:
    bad = tmp_path / "unet.safetensors"
    bad.write_bytes(b"not weights at all")
    with pytest.raises(InputError, match="warte sky train"):
        load(bad)
    with pytest.raises(InputError, match="missing"):
        load(tmp_path / "missing.safetensors")


def test_load_is_ready_to_use(trained: UNet) -> None:
    assert not trained.training
    assert all(p.dtype == torch.float32 for p in trained.parameters())
