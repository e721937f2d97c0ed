"""Whole searches of small recordings in memory, with the package's weights."""

from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warte.core.errors import InputError, SettingsError
from warte.sky import find as finding
from warte.sky.evaluate import evaluate
from warte.sky.find import FindSettings, check_pictures, find, window_length, windows
from warte.sky.read import Recording
from warte.sky.simulate import Satellite, SimulateSettings, SkySettings, simulate
from warte.sky.tables import OBSERVATION_COLUMNS, TRACK_COLUMNS, Tracks

START = np.datetime64("2024-08-12T22:00:00.000000")
SKY = SkySettings(stars_per_mpx=4000, drift_x=0.03)
SLOW = FindSettings(speed_max_px=3.0)  # the faint search takes as long as it has speeds to try


def film(frames: np.ndarray, *, saturation: float | None = 255.0) -> Recording:
    """A recording of 25 frames/s that is in memory."""

    def source(start: int) -> Generator[tuple[np.ndarray, float], None, None]:
        for t in range(start, len(frames)):
            yield frames[t].astype(np.float32), t / 25.0

    height, width = frames.shape[1:]
    return Recording(
        Path("night.mkv"), width, height, len(frames), 25.0, START, 1.0, saturation, source
    )


def scene(count: int, *movers: Satellite) -> tuple[Recording, Tracks]:
    settings = SimulateSettings(frames=count, width=160, height=120, sky=SKY, movers=movers)
    frames, truth = simulate(settings, np.random.default_rng(1))
    return film(frames), truth


def bright(count: int, **other: float) -> Satellite:
    given = {"frame": count / 2, "x": 80.0, "y": 60.0, "vx": 1.2, "vy": 0.5, "snr": 15.0}
    return Satellite(**(given | other))  # type: ignore[arg-type]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Windows of so many frames, with so many in common."""

    def make(frames: int, overlap: int) -> None:
        monkeypatch.setattr(finding, "window_length", lambda pixels: frames)
        monkeypatch.setattr(finding, "OVERLAP_FRAMES", overlap)

    return make


def test_a_bright_satellite() -> None:
    recording, truth = scene(60, bright(60))
    seen: list[tuple[str, int, int | None]] = []
    result = find(recording, SLOW, report=lambda *step: seen.append(step))
    assert list(result.found.tracks.columns) == TRACK_COLUMNS
    assert list(result.found.observations.columns) == OBSERVATION_COLUMNS
    scores = evaluate(result.found, truth, frames=60).to_dict()["summary"]
    assert (scores["matched"], scores["false"], scores["fragments"]) == (1, 0, 0)
    assert scores["position_median_px"] < 0.2
    assert result.frames == 60 and seen[-1] == ("finding", 60, 60)
    assert result.warnings == []
    assert {"read", "prepare", "bright", "faint", "join"} <= set(result.seconds)
    row = result.found.observations.iloc[0]
    assert row.utc == f"{START + np.timedelta64(int(row.frame) * 40_000, 'us')}Z"
    assert result.found.tracks.speed_px_s[0] == pytest.approx(25 * np.hypot(1.2, 0.5), rel=0.03)


def test_a_satellite_that_no_frame_shows() -> None:
    recording, truth = scene(96, bright(96, snr=1.5))
    faint = find(recording, SLOW).found
    scores = evaluate(faint, truth, frames=96).to_dict()["summary"]
    assert (scores["matched"], scores["false"]) == (1, 0)
    assert faint.tracks.snr_frame[0] < 2.5
    assert len(find(recording, FindSettings(faint=False)).found.tracks) == 0


def test_noise_yields_nothing() -> None:
    rng = np.random.default_rng(3)
    frames = np.rint(rng.normal(40, 3, (64, 120, 160))).clip(0, 255)
    result = find(film(frames), SLOW)
    assert len(result.found.tracks) == len(result.found.observations) == 0
    assert list(result.found.tracks.columns) == TRACK_COLUMNS
    (warning,) = result.warnings
    assert warning.startswith("few stars to register on")


def test_stars_yield_nothing() -> None:
    assert len(find(scene(64)[0], SLOW).found.tracks) == 0


def test_the_same_input_gives_the_same_tables() -> None:
    recording, _ = scene(48, bright(48), bright(48, y=90.0, vx=-0.8, snr=3.0))
    one, two = find(recording, SLOW).found, find(recording, SLOW).found
    pd.testing.assert_frame_equal(one.tracks, two.tracks)
    pd.testing.assert_frame_equal(one.observations, two.observations)


@pytest.mark.parametrize("snr", [15.0, 3.0])
def test_windows_do_not_cut_tracks(small_windows: Callable[[int, int], None], snr: float) -> None:
    small_windows(48, 16)
    recording, truth = scene(112, bright(112, vx=0.9, vy=0.2, snr=snr))
    result = find(recording, SLOW)
    scores = evaluate(result.found, truth, frames=112).to_dict()["summary"]
    assert (scores["matched"], scores["false"], scores["fragments"]) == (1, 0, 0)
    assert result.found.tracks.start_frame[0] < 12 and result.found.tracks.end_frame[0] > 99
    assert not result.found.observations.duplicated(["track_id", "frame"]).any()


@pytest.mark.parametrize("count", [1, 2, 5, 16, 31])
def test_short_recordings(count: int) -> None:
    recording, _ = scene(count, bright(count, snr=30.0))
    result = find(recording, SLOW)
    assert result.frames == count
    if count >= 16:
        assert len(result.found.tracks) == 1


@pytest.mark.parametrize("count", [1, 20, 48, 49, 63, 64, 65, 112, 113, 150])
def test_windows_hold_every_frame(small_windows: Callable[[int, int], None], count: int) -> None:
    small_windows(48, 16)
    frames = np.arange(count)[:, None, None] * np.ones((1, 4, 6))
    times: list[tuple[float, np.datetime64 | None]] = []
    seen: set[int] = set()
    ends = 0
    for first, part in windows(film(frames), times):
        assert part.dtype == np.float32 and min(33, count) <= len(part) <= 48
        assert part[:, 0, 0].tolist() == list(range(first, first + len(part)))
        assert first == 0 or ends - first >= 16
        ends = first + len(part)
        seen |= set(range(first, ends))
    assert seen == set(range(count)) and len(times) == count


def test_large_pictures_have_short_windows() -> None:
    assert window_length(640 * 480) == 128
    assert window_length(1920 * 1080) == 64
    assert all(window_length(n) % 32 == 0 for n in range(1, 3_000_000, 77_777))


def test_constant_and_saturated_pictures() -> None:
    with pytest.raises(InputError, match="all pixels are 30"):
        find(film(np.full((20, 48, 64), 30.0)))
    full = np.full((20, 48, 64), 255.0)
    full[:, :10] = np.random.default_rng(0).normal(40, 3, (20, 10, 64))
    with pytest.raises(InputError, match=r"saturated \(255\)"):
        find(film(full))
    check_pictures(full.astype(np.float32), film(full, saturation=None))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (300, 20), (20, 300), (8, 8)])
def test_low_and_narrow_pictures(width: int, height: int) -> None:
    """At the fastest speeds no path of 32 frames lies in them."""
    rng = np.random.default_rng(5)
    frames = np.rint(rng.normal(40, 3, (40, height, width)))
    assert len(find(film(frames)).found.tracks) == 0


def test_pictures_too_small_to_move_in() -> None:
    frames = np.random.default_rng(5).normal(40, 3, (20, 7, 640))
    with pytest.raises(InputError, match="640x7 pixels; movers are looked for in 8x8 or more"):
        find(film(frames))


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingsError, match="--speed-max is 100"):
        FindSettings(speed_max_px=100)
    with pytest.raises(SettingsError, match="false-tracks is 0"):
        FindSettings(false_tracks=0)


def test_weights_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold weights"):
        find(scene(2)[0], weights=tmp_path)
