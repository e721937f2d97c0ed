"""Training: labels that fit the light, a loss that falls, and the same seed, the same weights."""

import json
from dataclasses import asdict, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from warte.core.errors import SettingsError
from warte.sky.find.detect import detections, load
from warte.sky.find.settle import as_followed
from warte.sky.model import UNetSettings
from warte.sky.simulate import SceneSettings, SimulateSettings, SkySettings
from warte.sky.train import Clip, ClipSettings, TrainSettings, make_clip, train
from warte.sky.train.clips import DARK, LIGHT, UNSURE, lost_frames
from warte.sky.train.unet import count_blobs, draw_batch, examples, loss_of, make_example

SMALL = ClipSettings(
    sizes=((12, 64),),
    scene=SceneSettings(snr_low=20, snr_high=60, drift_chance=0, shake_chance=0, cloud_chance=0),
    codec_chance=0.3,
)
TINY = TrainSettings(
    steps=80,
    batch=4,
    crop=32,
    clips=6,
    first_clips=6,
    validation=0,
    learning_rate=2e-2,
    model=UNetSettings(base=4),
    data=SMALL,
)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [make_clip(0, n, replace(SMALL, codec_chance=0.0)) for n in range(8)]


def test_same_number_same_clip() -> None:
    a, b, c = (make_clip(3, n, SMALL) for n in (5, 5, 6))
    np.testing.assert_array_equal(a.window.cells, b.window.cells)
    np.testing.assert_array_equal(a.label, b.label)
    assert a.window.cells.shape != c.window.cells.shape or (a.window.cells != c.window.cells).any()


def test_labels_lie_on_the_light(clips: list[Clip]) -> None:
    lit = np.concatenate([clip.window.cells[clip.label == LIGHT] for clip in clips])
    dark = np.concatenate([clip.window.cells[clip.label == DARK] for clip in clips])
    assert len(lit) > 200
    assert np.median(lit) > 3.5
    assert np.mean(lit > 1) > 0.85
    assert np.mean(dark > 6) < 1e-3
    for clip in clips:
        assert set(np.unique(clip.label)) <= {DARK, LIGHT, UNSURE}
        assert clip.label.shape == clip.window.cells.shape


def test_frames_whose_stars_were_lost_teach_nothing(clips: list[Clip]) -> None:
    scene = SimulateSettings(frames=12, width=64, height=64, sky=SkySettings(drift_x=0.5))
    window = clips[0].window
    good = np.tile([1.0, 0.0, 0.0, 0.0], (12, 1))
    good[:, 2] = 0.5 * (np.arange(12) - 6)
    assert not lost_frames(replace(window, settled=as_followed(good, (64, 64))), scene).any()
    still = replace(window, settled=as_followed(np.tile([1.0, 0.0, 0.0, 0.0], (12, 1)), (64, 64)))
    np.testing.assert_array_equal(lost_frames(still, scene), np.abs(good[:, 2]) > 1)


def test_light_moves(clips: list[Clip]) -> None:
    moved = 0.0
    for clip in clips:
        places = [np.argwhere(frame == LIGHT).mean(0) for frame in clip.label if LIGHT in frame]
        if len(places) > 1:
            moved = max(moved, float(np.hypot(*(places[-1] - places[0]))))
    assert moved > 3


def test_perfect_detections_score_perfectly(clips: list[Clip]) -> None:
    clip = max(clips, key=lambda c: int((c.label == LIGHT).sum()))
    score = count_blobs(clip, detections(clip.window, (clip.label == LIGHT).astype(np.float16)))
    assert score["lit"] > 5
    assert score["hit"] >= 0.95 * score["lit"]
    assert score["wrong"] == 0
    nothing = count_blobs(clip, detections(clip.window, np.zeros(clip.label.shape, np.float16)))
    assert nothing["hit"] == nothing["made"] == 0


def test_loss_ignores_unsure_cells_and_rewards_the_truth() -> None:
    label = torch.full((1, 2, 4, 4), DARK)
    label[0, 0, 1, 1], label[0, 0, 2, 2] = LIGHT, UNSURE
    right = torch.where(label == LIGHT, 8.0, -8.0)
    other = right.clone()
    other[0, 0, 2, 2] = 8.0
    assert loss_of(other, label, 2.0) == loss_of(right, label, 2.0)
    assert loss_of(right, label, 2.0) < 0.1 < loss_of(-right, label, 2.0)


def test_crops_hold_light_where_asked() -> None:
    pool = [make_example(0, SMALL, n) for n in range(8)]
    settings = replace(TINY, lit_share=1.0, batch=16)
    light, label = draw_batch([e for e in pool if len(e.lit)], settings, np.random.default_rng(0))
    assert light.shape == (16, 9, 32, 32)
    assert label.shape == (16, 8, 32, 32)
    assert all((crop == LIGHT).any() for crop in label)
    assert light[:, :8][label == LIGHT].median() > light[:, :8][label == DARK].median() + 1


def test_workers_make_the_same_clips() -> None:
    settings = replace(TINY, clips=2)
    here, there = (list(islice(examples(settings, workers), 2)) for workers in (0, 1))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a.light, b.light)
        np.testing.assert_array_equal(a.label, b.label)


def test_training_lowers_the_loss_and_repeats(tmp_path: Path) -> None:
    losses: list[float] = []
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    card = train(
        replace(TINY, validation=1), out=first, workers=0, report=lambda *s: losses.append(s[2])
    )
    train(TINY, out=second, workers=0)
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])
    assert (first / "unet.safetensors").read_bytes() == (second / "unet.safetensors").read_bytes()
    assert json.loads((first / "unet.json").read_text())["settings"]["steps"] == 80
    assert 0 <= card["figures"]["recall"] <= 1  # type: ignore[index]
    model = load(first / "unet.safetensors")
    assert model.settings == TINY.model


def test_the_card_of_the_package_names_the_settings_of_today() -> None:
    card = json.loads((files("warte.sky") / "weights" / "unet.json").read_text())
    assert card["settings"] == json.loads(json.dumps(asdict(TrainSettings())))
    assert card["figures"]["recall_bright"] > 0.8


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingsError, match="steps is 0"):
        TrainSettings(steps=0)
    with pytest.raises(SettingsError, match="codec_chance"):
        ClipSettings(codec_chance=2)
