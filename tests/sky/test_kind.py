"""Kinds of tracks: features with known values, probabilities, and weights that do not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from warte.core.errors import InputError
from warte.sky.find.join import Track
from warte.sky.find.kind import (
    FEATURES,
    NAMES,
    WEIGHTS,
    Kinds,
    features,
    load_kinds,
    periodicity,
    rough,
    save_kinds,
    single_peak,
    spikes,
)

FPS = 25.0


def track_of(
    snr: np.ndarray, speed: float = 2.0, *, lamps: int = 1, trail: float = 0.0, first: int = 10
) -> Track:
    """A straight track to the right with this light curve (SNR per frame)."""
    n = len(snr)
    zero = np.zeros(n)
    places = (first + np.arange(n), 50 + speed * np.arange(n), zero + 80)
    errors = (zero + 0.1, zero + 0.1)
    return Track(*places, *errors, snr, 3 * snr, zero + 3, trail=trail, lamps=lamps)


def steady(n: int, snr: float, seed: int = 0) -> np.ndarray:
    return snr + np.random.default_rng(seed).standard_normal(n)


def strobe(n: int, low: float, high: float, period: int) -> np.ndarray:
    curve = steady(n, low)
    curve[3::period] += high
    return curve


def named(track: Track, fps: float = FPS) -> dict[str, float]:
    return dict(zip(FEATURES, features(track, fps), strict=True))


def test_features_of_a_steady_track() -> None:
    values = named(track_of(np.full(100, 10.0)))
    assert values["log_duration_s"] == pytest.approx(np.log10(4.0))
    assert values["log_speed_px_frame"] == pytest.approx(np.log10(2.01))
    assert values["log_snr"] == pytest.approx(1.0)
    for name in ("unsteady", "dark_fraction", "peak_to_median", "spike", "spike_rate", "slowing"):
        assert values[name] == pytest.approx(0.0, abs=1e-9)
    assert values["start_level"] == values["end_level"] == pytest.approx(1.0)


def test_features_tell_a_strobe() -> None:
    values = named(track_of(strobe(150, 8, 40, 25)))
    assert values["spike_rate"] == pytest.approx(6 / 6.5)
    assert values["spike"] == pytest.approx(5.0, abs=0.5)
    for name in ("spikes_periodic", "periodic"):
        assert values[name] > 0.7
    for name in ("log_spike_period_s", "log_period_s"):
        assert 10 ** values[name] == pytest.approx(1.0)
    assert values["rough"] > 0.8


def test_features_tell_a_meteor() -> None:
    u = np.linspace(0.05, 0.95, 12)
    values = named(track_of(50 * u**2 * (1 - u) * 27 / 4, 20.0, trail=1.0))
    assert values["single_peak"] > 0.99
    assert values["start_level"] < 0.1
    assert values["log_duration_s"] == pytest.approx(np.log10(12 / FPS))
    assert values["trailed"] == 1.0


def test_slowing_and_curve() -> None:
    t = np.arange(30.0)
    slow = track_of(np.full(30, 9.0))
    slow.x[:] = 40 * t - 0.5 * t**2
    assert named(slow)["slowing"] == pytest.approx((40 - 24) / (40 - 5) - 1, abs=0.03)
    slow.x[:], slow.y[:] = 2 * t, 80 + 0.01 * (t - 14.5) ** 2
    assert named(slow)["curved"] == pytest.approx((0.01 * 14.5**2 - 1) / 58, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 400])
def test_features_are_finite(n: int) -> None:
    for snr in (np.zeros(n), np.full(n, -3.0), np.full(n, 1e4)):
        for fps in (1e-9, 25.0, 1e5):
            assert np.isfinite(features(track_of(snr), fps)).all()


def test_rough_is_one_for_spikes_and_none_for_slow_change() -> None:
    rng = np.random.default_rng(1)
    assert rough(20 * rng.random(2000)) == pytest.approx(1.0, abs=0.1)
    slow = 10 + 8 * np.sin(np.arange(2000) / 50) + rng.standard_normal(2000)
    assert rough(slow) == pytest.approx(0.0, abs=0.02)
    assert rough(steady(2000, 5)) == 0.0


def test_periodicity_finds_the_period_across_gaps() -> None:
    n = np.arange(250)
    snr = 10 + 8 * np.cos(2 * np.pi * n / 30) + np.random.default_rng(2).standard_normal(250)
    kept = np.delete(n, slice(100, 110))
    periodic, period = periodicity(kept, snr[kept], FPS)
    assert period == pytest.approx(1.2, abs=0.05)
    assert periodic > 0.75
    assert periodicity(n, steady(250, 10), FPS)[0] < 0.3
    assert periodicity(n, 10 + 0.1 * n, FPS)[0] < 0.1  # a slow change is no period
    assert periodicity(n[:5], snr[:5], FPS) == (0.0, 1.0)


def test_spikes_keep_flashes_and_lose_slow_change() -> None:
    n = np.arange(100)
    slow = 20 + 10 * np.sin(n / 30)
    assert np.abs(spikes(slow, FPS)).max() < 1
    flashed = slow + 30 * (n % 25 == 7)
    np.testing.assert_allclose(spikes(flashed, FPS)[n % 25 == 7], 30, atol=1)
    assert len(spikes(slow[:2], FPS)) == 2


def test_single_peak() -> None:
    u = np.linspace(0, 1, 20)
    assert single_peak(u * (1 - u)) == pytest.approx(1.0)
    assert single_peak(np.cos(40 * u)) < 0.5


def test_probabilities_are_the_softmax() -> None:
    rng = np.random.default_rng(3)
    shapes = [(len(FEATURES),), None, (len(FEATURES), 5), (5,), (5, 3), (3,)]
    arrays = [np.ones(len(FEATURES)) if s is None else rng.uniform(-1, 1, s) for s in shapes]
    kinds = Kinds(*arrays)
    values = rng.uniform(-0.9, 0.9, (7, len(FEATURES)))
    chance = kinds.probabilities(values)
    np.testing.assert_allclose(chance.sum(axis=1), 1.0)
    inner = np.tanh((values[4] - arrays[0]) @ arrays[2] + arrays[3])
    raw = np.exp(inner @ arrays[4] + arrays[5])
    np.testing.assert_allclose(chance[4], raw / raw.sum())


def test_unknown_where_nothing_is_likely() -> None:
    n = len(FEATURES)
    flat = Kinds(*(np.zeros(n), np.ones(n), np.zeros((n, 2)), np.zeros(2)),
                 *(np.zeros((2, 3)), np.array([0.1, 0.0, 0.0])))  # fmt: skip
    name, chance = flat.decide(track_of(steady(50, 9)), FPS)
    assert name == "unknown"
    assert 1 / 3 < chance < 0.5


def test_the_package_knows_clear_cases() -> None:
    kinds = load_kinds()
    u = np.linspace(0.05, 0.95, 10)
    meteor = track_of(60 * u**2 * (1 - u) * 27 / 4, 22.0, trail=1.0)
    plane = track_of(strobe(150, 10, 60, 27), 3.0, lamps=3)
    cases = (
        (track_of(steady(150, 12)), "satellite"),
        (track_of(steady(100, 2)), "satellite"),
        (track_of(12 + 9 * np.cos(np.arange(150) / 9)), "satellite"),
        (plane, "aircraft"),
        (meteor, "meteor"),
    )
    for track, name in cases:
        told, chance = kinds.decide(track, FPS)
        assert (told, chance > 0.6) == (name, True), (name, told, chance)


def test_weights_come_back(tmp_path: Path) -> None:
    kinds = load_kinds()
    save_kinds(replace(kinds, hidden=np.asfortranarray(kinds.hidden)), tmp_path)
    again = load_kinds(tmp_path)
    values = np.random.default_rng(4).standard_normal((9, len(FEATURES)))
    np.testing.assert_allclose(again.probabilities(values), kinds.probabilities(values), atol=1e-6)
    assert (kinds.out.shape[1], kinds.hidden.shape[0]) == (len(NAMES), len(FEATURES))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold weights of the kind classifier"):
        load_kinds(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="does not hold weights"):
        load_kinds(tmp_path)
    save_file({"mean": np.zeros(3, np.float32)}, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match="does not hold weights"):
        load_kinds(tmp_path)
    kinds = load_kinds()
    arrays = {n: getattr(kinds, n).astype(np.float32) for n in Kinds.__dataclass_fields__}
    save_file(arrays, tmp_path / WEIGHTS, metadata={"features": "brightness colour"})
    with pytest.raises(InputError, match="other features"):
        load_kinds(tmp_path)
