"""Training the kind classifier: tracks with the right label, a fit that learns, honest odds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from warte.core.errors import SettingsError
from warte.sky.find import detect
from warte.sky.find.fit import MatchedFrames
from warte.sky.find.join import Track
from warte.sky.find.kind import FEATURES, NAMES, features, load_kinds
from warte.sky.find.prepare import prepare
from warte.sky.model import UNetSettings, build
from warte.sky.simulate import Aircraft, Light, Satellite, SimulateSettings, SkySettings, simulate
from warte.sky.train import kind as training
from warte.sky.train.kind import (
    HELD_OUT,
    SPURIOUS,
    Example,
    KindSettings,
    calibrated,
    cut,
    faint_track,
    figures_of,
    fit_kinds,
    light_track,
    make_examples,
    no_kinds,
    on_stars,
    seen_part,
    targets_of,
    train_kinds,
)

TINY = KindSettings(
    clips=4, validation=1, width=96, height=80, frames_low=30, frames_high=40, movers=6,
    snr_low=8, codec_chance=0.3, scenes=1, epochs=60, cuts=1, learning_rate=0.02,
    patience=20, hidden=6,
)  # fmt: skip


def made_up(kind: int, seed: int, clip: int = 0) -> Example:
    """A track as clear as they come: steady, flashing, or short with one peak."""
    rng = np.random.default_rng(seed)
    n = 12 if kind == 2 else 100
    snr = rng.uniform(6, 12) + rng.standard_normal(n)
    if kind == 1:
        snr[5::25] += 40
    if kind == 2:
        snr *= np.sin(np.linspace(0.2, 3, n)) * 3
    speed = rng.uniform(1, 4) * (8 if kind == 2 else 1)
    zero = np.zeros(n)
    places = (np.arange(n), speed * np.arange(n), zero)
    track = Track(*places, zero + 0.1, zero + 0.1, snr, snr, zero + 1, trail=0.0)
    return Example(track, 25.0, kind, "match", clip)


def made_up_table(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    some = [made_up(n % 3, seed + n) for n in range(count)]
    return np.array([features(e.track, e.fps) for e in some]), np.arange(count) % 3


@pytest.fixture(scope="module")
def blind() -> torch.nn.Module:
    """A U-Net that finds nothing, so that all movers are fitted along their true paths."""
    network = build(UNetSettings(base=4)).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("bias"):
                value.fill_(-9.0)
            else:
                value.zero_()
    return network


def test_clear_tracks_are_learnt() -> None:
    kinds = fit_kinds(made_up_table(60, 0), made_up_table(30, 500), TINY)
    values, truth = made_up_table(45, 900)
    chance = kinds.probabilities(values)
    assert (chance.argmax(axis=1) == truth).mean() > 0.95
    assert np.log(chance[np.arange(45), truth]).mean() > -0.2


def test_same_seed_same_classifier() -> None:
    a, b = (fit_kinds(made_up_table(30, 0), made_up_table(12, 500), TINY) for _ in range(2))
    np.testing.assert_array_equal(a.out, b.out)


def test_calibration_finds_how_sure_to_be() -> None:
    rng = np.random.default_rng(0)
    plain = replace(no_kinds(), hidden=np.zeros((len(FEATURES), 3)), hidden_bias=np.zeros(3),
                    out=3 * np.eye(3))  # fmt: skip
    plain.hidden[:3] = 1.5 * np.eye(3)
    values = np.zeros((3000, len(FEATURES)))
    values[:, :3] = rng.standard_normal((3000, 3))
    truth = (plain.probabilities(values).cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1)
    too_sure = replace(plain, out=3 * plain.out)
    back = calibrated(too_sure, values, truth)
    np.testing.assert_allclose(back.out, plain.out, rtol=0.1)


def test_kinds_weigh_the_same_and_nothing_wants_nothing() -> None:
    kinds = np.array([0, 0, 0, 0, 1, 2, 2, SPURIOUS, SPURIOUS])
    target, weight = targets_of(kinds, 0.2)
    np.testing.assert_allclose(target.sum(axis=1), 1.0)
    np.testing.assert_allclose(target[-1], 1 / 3)
    assert target[4, 1] == 1.0
    sums = [weight[kinds == kind].sum() / weight.sum() for kind in (0, 1, 2, SPURIOUS)]
    np.testing.assert_allclose(sums, [0.8 / 3, 0.8 / 3, 0.8 / 3, 0.2])


def test_pieces_are_pieces() -> None:
    whole = made_up(0, 3).track
    rng = np.random.default_rng(1)
    for _ in range(20):
        part = cut(whole, rng, 0.3)
        assert 30 <= len(part.frame) <= 100
        assert (np.diff(part.frame) == 1).all()
        np.testing.assert_array_equal(part.snr, whole.snr[part.frame])


def test_faint_track_lies_on_the_mover() -> None:
    scene = SimulateSettings(
        frames=40, width=160, height=120, sky=SkySettings(drift_x=0.2, rotation_deg=0.02),
        movers=(Satellite(frame=20, x=80, y=60, vx=2, vy=0.7, snr=3),),
    )  # fmt: skip
    pixels, truth = simulate(scene, np.random.default_rng(2))
    matched = MatchedFrames(prepare(pixels.astype(np.float32), 0, 1.0))
    rows = truth.observations
    xy = rows[["x", "y"]].to_numpy()
    t = rows["frame"].to_numpy()
    np.testing.assert_allclose(matched.sensor(t, on_stars(matched, t, xy)), xy, atol=1e-6)
    track = faint_track([matched], t, xy)
    assert track is not None
    assert np.hypot(track.x - rows["x"], track.y - rows["y"]).max() < 1.0
    assert np.median(track.snr) == pytest.approx(3.0, abs=0.8)
    assert faint_track([matched], t, xy + 25) is None


def test_examples_of_a_clip(blind: detect.UNet) -> None:
    clips = [make_examples(n, TINY, blind) for n in range(3)]
    some = [one for clip in clips for one in clip]
    assert len({one.kind for one in some}) >= 2
    assert {one.how for one in some} == {"faint"}
    again = make_examples(0, TINY, blind)
    assert len(again) == len(clips[0])
    for one, other in zip(again, clips[0], strict=True):
        np.testing.assert_array_equal(one.track.snr, other.track.snr)


def test_lamps_of_an_aircraft_flash_and_are_one_track() -> None:
    lamps = (Light(-8, 0), Light(8, 0), Light(0, 3, brightness=6, period=25))
    plane = Aircraft(frame=50, x=150, y=100, vx=2, vy=0.3, snr=12, lights=lamps)
    scene = SimulateSettings(frames=100, width=320, height=240, movers=(plane,))
    tracks = [light_track(plane, scene, np.random.default_rng(n)) for n in range(12)]
    made = [track for track in tracks if track is not None]
    assert {track.lamps for track in made} >= {1, 3}
    for track in made:
        assert track.lamps in (1, 2, 3)
        assert (np.diff(track.frame) == 1).all()
        if track.lamps > 1:
            assert track.snr.max() > 3 * np.median(track.snr)


def test_light_of_a_satellite_is_the_truth() -> None:
    satellite = Satellite(frame=30, x=80, y=60, vx=2, vy=0.7, snr=9)
    scene = SimulateSettings(frames=60, width=160, height=120, movers=(satellite,))
    track = light_track(satellite, scene, np.random.default_rng(0))
    assert track is not None
    assert len(track.frame) > 50
    assert track.snr.mean() == pytest.approx(9.0, abs=0.5)
    assert np.abs(track.x - (80 + 2 * (track.frame - 30))).max() < 1
    assert light_track(replace(satellite, snr=0.2), scene, np.random.default_rng(0)) is None


def test_only_what_is_seen_is_kept() -> None:
    dim = np.random.default_rng(1).standard_normal(100)
    assert seen_part(dim, 0, 99) == slice(0, 0)
    bright = dim + 10 * ((np.arange(100) > 20) & (np.arange(100) < 60))
    assert seen_part(bright, 0, 99) == slice(21, 60)
    assert seen_part(dim + 2, 10, 90) == slice(10, 91)


def test_figures_count_what_is_right() -> None:
    kinds = fit_kinds(made_up_table(60, 0), made_up_table(30, 500), TINY)
    some = [made_up(n % 3, n) for n in range(30)]
    some += [replace(made_up(0, 77), kind=SPURIOUS, how="false")]
    figures = figures_of(kinds, some)
    assert figures["macro_f1"] > 0.9
    assert figures["tracks"] == {"match": 30, "false": 1}
    assert sum(row["tracks"] for row in figures["reliability"]) == 30
    wrong = [replace(one, kind=(one.kind + 1) % 3) for one in some[:30]]
    assert figures_of(kinds, wrong)["macro_f1"] < 0.1


def test_train_writes_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: detect.UNet
) -> None:
    monkeypatch.setattr(training.detect, "load", lambda path: blind)
    seen: list[tuple[int, int]] = []
    card = train_kinds(TINY, out=tmp_path, report=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
    text = (tmp_path / "kind.json").read_text()
    assert json.loads(text)["features"] == list(FEATURES)
    assert "NaN" not in text
    assert card["tracks"] >= 4
    chance = load_kinds(tmp_path).probabilities(np.zeros(len(FEATURES)))
    assert chance.shape == (len(NAMES),)


def test_too_little_to_learn_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: detect.UNet
) -> None:
    monkeypatch.setattr(training.detect, "load", lambda path: blind)
    with pytest.raises(SettingsError, match="give more clips"):
        train_kinds(
            replace(TINY, clips=1, movers=1, scenes=0, snr_low=0.1, snr_high=0.1), out=tmp_path
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [{"clips": 0}, {"frames_low": 4}, {"codec_chance": 1.5}, {"seed": -1}, {"seed": HELD_OUT}],
)
def test_settings_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(bad))):
        KindSettings(**bad)
