"""The tables of tracks: files, rules and the truth made by eye."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warte.core.errors import InputError
from warte.sky.tables import (
    KINDS,
    OBSERVATION_COLUMNS,
    TRACK_COLUMNS,
    Tracks,
    Truth,
    angle_deg,
    empty_tracks,
    format_utc,
    parse_utc,
    read_tracks,
    summarise,
    write_tracks,
)


def observe(frames: list[int], x: list[float], y: list[float], track_id: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "track_id": track_id,
            "frame": frames,
            "utc": "",
            "x": x,
            "y": y,
            "x_err": 0.1,
            "y_err": 0.2,
            "flux": 6.0,
            "flux_err": 2.0,
        }
    )


def example() -> Tracks:
    seen = pd.concat(
        [observe([3, 1, 2], [7.0, 1.0, 4.0], [1.0, 9.0, 5.0]), observe([4], [2.5], [3.5], 2)]
    )
    return summarise(seen, {1: "satellite", 2: "meteor"}, {1: 0.9, 2: 0.5}, 10.0)


def assert_same(first: Tracks, second: Tracks) -> None:
    pd.testing.assert_frame_equal(first.tracks, second.tracks)
    pd.testing.assert_frame_equal(first.observations, second.observations)


def test_summary_follows_from_the_observations() -> None:
    tracks = example()
    assert list(tracks.tracks.columns) == TRACK_COLUMNS
    assert list(tracks.observations.columns) == OBSERVATION_COLUMNS
    assert tracks.observations["frame"].tolist() == [1, 2, 3, 4]
    first = tracks.tracks.iloc[0]
    assert (first.start_frame, first.end_frame) == (1, 3)
    assert (first.x0_px, first.y0_px, first.x1_px, first.y1_px) == (1, 9, 7, 1)
    assert first.speed_px_s == pytest.approx(50)  # 10 px in 2 frames at 10 frames/s
    assert first.angle_deg == pytest.approx(np.degrees(np.arctan2(-8, 6)) + 360)
    assert first.snr_frame == pytest.approx(3)
    assert first.snr_track == pytest.approx(3 * np.sqrt(3))
    second = tracks.tracks.iloc[1]
    assert (second.speed_px_s, second.angle_deg, second.snr_track) == (0, 0, 3)


def test_snr_of_a_track_weighs_frames_and_keeps_signs() -> None:
    seen = observe([0, 1], [0.0, 1.0], [0.0, 0.0]).assign(flux=[4.0, -2.0], flux_err=[1.0, 2.0])
    row = summarise(seen, {1: "unknown"}, {1: 1.0}, None).tracks.iloc[0]
    assert row.snr_track == pytest.approx((4 - 0.5) / np.sqrt(1.25))
    assert np.isnan(row.speed_px_s)


@pytest.mark.parametrize(
    ("dx", "dy", "angle"), [(1, 0, 0), (0, 1, 90), (-1, 0, 180), (0, -1, 270), (1, -1e-20, 0)]
)
def test_angles_lie_in_one_turn(dx: float, dy: float, angle: float) -> None:
    assert angle_deg(dx, dy) == pytest.approx(angle)
    assert 0 <= angle_deg(dx, dy) < 360


def test_round_trip_with_extra_columns(tmp_path: Path) -> None:
    tracks = example()
    more = Tracks(tracks.tracks.assign(colour=["red", "blue"]), tracks.observations)
    write_tracks(more, tmp_path / "new")
    assert_same(read_tracks(tmp_path / "new"), more)
    assert_same(read_tracks(tmp_path / "new" / "tracks.csv"), more)


def test_round_trip_of_nothing(tmp_path: Path) -> None:
    write_tracks(empty_tracks(), tmp_path)
    assert_same(read_tracks(tmp_path), empty_tracks())
    assert_same(summarise(empty_tracks().observations, {}, {}, 25.0), empty_tracks())


finite = st.floats(-1e9, 1e9)
moments = st.one_of(st.none(), st.integers(0, 10**16).map(lambda us: np.datetime64(us, "us")))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), fps=st.one_of(st.none(), st.floats(0.01, 1000)))
def test_round_trip_of_anything(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, fps: float | None
) -> None:
    ids = data.draw(st.lists(st.integers(1, 10**6), unique=True, max_size=3))
    rows = [
        {
            "track_id": track_id,
            "frame": frame,
            "utc": format_utc(data.draw(moments)),
            "x": data.draw(finite),
            "y": data.draw(finite),
            "x_err": data.draw(st.floats(0, 1e6)),
            "y_err": data.draw(st.floats(0, 1e6)),
            "flux": data.draw(finite),
            "flux_err": data.draw(st.floats(1e-6, 1e6)),
        }
        for track_id in ids
        for frame in data.draw(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=3))
    ]
    kinds = {track_id: data.draw(st.sampled_from(KINDS)) for track_id in ids}
    probabilities = {track_id: data.draw(st.floats(0, 1)) for track_id in ids}
    tracks = summarise(pd.DataFrame(rows, columns=OBSERVATION_COLUMNS), kinds, probabilities, fps)
    folder = tmp_path_factory.mktemp("tracks")
    write_tracks(tracks, folder)
    assert_same(read_tracks(folder), tracks)


def test_utc_text() -> None:
    moment = np.datetime64("2024-05-01T20:15:00", "s")
    assert format_utc(moment) == "2024-05-01T20:15:00.000000Z"
    assert parse_utc(format_utc(moment)) == moment
    assert format_utc(None) == format_utc(np.datetime64("NaT")) == ""
    assert parse_utc("") is None


@pytest.mark.parametrize(
    ("table", "column", "value", "words"),
    [
        ("tracks", "kind", "balloon", "satellite, aircraft"),
        ("tracks", "probability", 1.5, "between 0 and 1"),
        ("tracks", "probability", np.nan, "probability"),
        ("tracks", "track_id", 0, "1 or more"),
        ("tracks", "track_id", 1, "once"),
        ("tracks", "end_frame", 0, "start_frame or later"),
        ("tracks", "start_frame", -1, "0 or more"),
        ("tracks", "start_frame", 2.5, "whole number"),
        ("tracks", "angle_deg", 360.0, "360"),
        ("tracks", "speed_px_s", -1.0, "0 or more"),
        ("tracks", "start_utc", "yesterday", "ISO 8601"),
        ("tracks", "x0_px", "left", "left"),
        ("observations", "track_id", 9, "in the table of tracks"),
        ("observations", "frame", 99, "start_frame..end_frame"),
        ("observations", "x", np.inf, "inf"),
        ("observations", "x_err", -0.1, "0 or more"),
        ("observations", "flux_err", 0.0, "above 0"),
        ("observations", "utc", "2024-05-01", "ISO 8601"),
    ],
)
def test_broken_rules_are_named(
    tmp_path: Path, table: str, column: str, value: object, words: str
) -> None:
    write_tracks(example(), tmp_path)
    file = tmp_path / f"{table}.csv"
    content = pd.read_csv(file, dtype="str", keep_default_na=False)
    content.loc[1, column] = str(value)
    content.to_csv(file, index=False)
    with pytest.raises(InputError, match=words) as caught:
        read_tracks(tmp_path)
    assert column in str(caught.value) or words == "left"
    assert "\n" not in str(caught.value)


def test_broken_tables_are_not_written(tmp_path: Path) -> None:
    tracks = example()
    wrong = Tracks(tracks.tracks.assign(kind="balloon"), tracks.observations)
    with pytest.raises(ValueError, match="balloon"):
        write_tracks(wrong, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    twice = pd.concat([tracks.observations] * 2)
    with pytest.raises(ValueError, match="once per track"):
        write_tracks(Tracks(tracks.tracks, twice), tmp_path)
    with pytest.raises(ValueError, match="has none"):
        write_tracks(Tracks(tracks.tracks, tracks.observations[:3]), tmp_path)
    with pytest.raises(ValueError, match="'flux' is missing"):
        write_tracks(Tracks(tracks.tracks, tracks.observations.drop(columns="flux")), tmp_path)


def test_unreadable_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_tracks(tmp_path / "none")
    with pytest.raises(InputError, match=r"tracks\.csv: no such file"):
        read_tracks(tmp_path)
    write_tracks(example(), tmp_path)
    (tmp_path / "tracks.csv").write_text("track_id,kind\n1,satellite\n")
    with pytest.raises(InputError, match="'probability' is missing"):
        read_tracks(tmp_path)
    (tmp_path / "tracks.csv").write_text("")
    with pytest.raises(InputError, match="not a readable table"):
        read_tracks(tmp_path)


def truth_entry(**changes: object) -> dict[str, object]:
    entry = {
        "id": "S1",
        "kind": "satellite",
        "confidence": "faint",
        "snr_per_frame": 4,
        "start_frame": 10,
        "end_frame": 20,
        "frames": [10, 20],
        "x": [0.0, 5.0],
        "y": [30.0, 10.0],
        "gaps_not_visible": [[13, 15]],
    }
    return entry | changes


def test_truth_made_by_eye_is_interpolated(tmp_path: Path) -> None:
    ignore = {"frames": [1, 5], "x": 3, "y": 4, "radius": 2.5}
    content = {"tracks": [truth_entry()], "ignore": [ignore]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = read_tracks(tmp_path / "truth.json", fps=2.0)
    assert isinstance(truth, Truth)
    assert truth.observations["frame"].tolist() == [10, 11, 12, 16, 17, 18, 19, 20]
    np.testing.assert_allclose(truth.observations["x"][:3], [0, 0.5, 1])
    np.testing.assert_allclose(truth.observations["y"][3:5], [18, 16])
    row = truth.tracks.iloc[0]
    assert (row["name"], row.confidence, row.probability) == ("S1", "faint", 1)
    assert row.snr_frame == 4
    assert row.snr_track == pytest.approx(4 * np.sqrt(8))
    assert row.speed_px_s == pytest.approx(2 * np.hypot(0.5, 2))
    assert truth.ignore.iloc[0].tolist() == [1, 5, 3, 4, 2.5]
    write_tracks(truth, tmp_path / "copy")
    copy = read_tracks(tmp_path / "copy")
    assert isinstance(copy, Truth)
    assert_same(copy, truth)
    pd.testing.assert_frame_equal(copy.ignore, truth.ignore)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("[1, 2]", "no list 'tracks'"),
        ({"tracks": [{}]}, "track number 1"),
        ({"tracks": [truth_entry(x=[1.0])]}, "equally long"),
        ({"tracks": [truth_entry(frames=[20, 10])]}, "must increase"),
        ({"tracks": [truth_entry(gaps_not_visible=[[0, 99]])]}, "visible in no frame"),
        ({"tracks": [truth_entry(kind="balloon")]}, "balloon"),
        ({"tracks": [truth_entry()], "ignore": [{"x": 1}]}, "'ignore' region"),
    ],
)
def test_unusable_truth(tmp_path: Path, content: object, words: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_tracks(tmp_path / "truth.json")


def test_real_truth() -> None:
    folder = os.environ.get("WARTE_DATA")
    if folder is None:
        pytest.skip("WARTE_DATA is not set: the real files are not here")
    truth = read_tracks(Path(folder) / "sky" / "real_video_a_truth.json", fps=30000 / 1001)
    assert isinstance(truth, Truth)
    assert len(truth.tracks) == 11
    assert truth.tracks["kind"].value_counts().to_dict() == {"satellite": 7, "meteor": 4}
    assert len(truth.ignore) == 8
    slow = truth.observations[truth.observations["track_id"] == 1]
    assert len(slow) == 449
    assert slow.loc[slow["frame"] == 448, "y"].item() == 0.6
