"""The peer of the sky benchmark: it must be a fair one, so it has to find what it can find."""

import numpy as np
import pytest

from benchmarks.sky.clips import memory_recording
from benchmarks.sky.fourframe import FourFrameSettings, compress, fourframe, significant
from warte.sky.evaluate import Scores, evaluate
from warte.sky.simulate import Satellite, SimulateSettings, simulate
from warte.sky.tables import find_fault


def _scene(*movers: Satellite, frames: int = 60) -> SimulateSettings:
    return SimulateSettings(frames=frames, width=160, height=120, movers=movers)


def _search(scene: SimulateSettings, seed: int, block: int = 60) -> Scores:
    frames, truth = simulate(scene, np.random.default_rng(seed))
    found = fourframe(
        memory_recording(frames), np.random.default_rng(1), FourFrameSettings(block=block)
    )
    assert find_fault(found) is None
    return evaluate(found, truth, frames=len(frames))


def test_it_finds_a_bright_satellite() -> None:
    scores = _search(_scene(Satellite(frame=30, x=80, y=60, vx=2.0, vy=0.7, snr=20)), 2)
    assert list(scores.truths["found_id"] > 0) == [True]
    assert scores.count("false") == 0
    assert scores.truths["cover"].iloc[0] > 0.9
    assert scores.position_error()["median_px"] < 1.0


def test_it_finds_two_at_once() -> None:
    movers = (
        Satellite(frame=30, x=80, y=40, vx=2.0, vy=0.7, snr=20),
        Satellite(frame=30, x=80, y=80, vx=-1.5, vy=0.5, snr=25),
    )
    scores = _search(_scene(*movers), 3)
    assert list(scores.truths["found_id"] > 0) == [True, True]
    assert scores.count("false") == 0


def test_faint_ones_and_noise_give_nothing() -> None:
    """Under SNR 4 in a frame no pixel stands out by 5 sigma often enough."""
    scores = _search(_scene(Satellite(frame=30, x=80, y=60, vx=2.0, vy=0.7, snr=1.5)), 4)
    assert list(scores.found["verdict"]) == []


def test_blocks_are_searched_one_by_one() -> None:
    mover = Satellite(frame=30, x=80, y=60, vx=2.0, vy=0.7, snr=20)
    frames, _ = simulate(_scene(mover), np.random.default_rng(2))
    settings = FourFrameSettings(block=30)
    found = fourframe(memory_recording(frames), np.random.default_rng(1), settings)
    assert sorted(found.tracks["start_frame"] // 30) == [0, 1]
    assert sorted(found.tracks["end_frame"] // 30) == [0, 1]


def test_four_pictures_are_what_their_names_say() -> None:
    rng = np.random.default_rng(5)
    frames = rng.normal(50.0, 2.0, (20, 6, 8)).round()
    frames[7, 2, 3] = 90.0
    block = compress(memory_recording(frames, bits=0).frames())
    assert (block.first, block.count) == (0, 20)
    assert block.best == pytest.approx(frames.max(axis=0))
    assert (block.when == frames.argmax(axis=0)).all()
    rest = np.sort(frames, axis=0)[:-1]  # the maximum is left out
    assert block.mean == pytest.approx(rest.mean(axis=0), abs=1e-3)
    assert block.std == pytest.approx(rest.std(axis=0), abs=1e-3)
    points = significant(block, FourFrameSettings(sigma=10.0))
    assert points[:, :3].tolist() == [[3.0, 2.0, 7.0]]
