"""Evaluation on tracks whose score is known by construction."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from warte.core.errors import SettingsError
from warte.sky.evaluate import Scores, evaluate, pool
from warte.sky.tables import IGNORE_COLUMNS, OBSERVATION_COLUMNS, Tracks, Truth, summarise


def line(
    track_id: int,
    frames: range | list[int],
    start: tuple[float, float] = (10.0, 20.0),
    velocity: tuple[float, float] = (2.0, 1.0),
    *,
    shift: tuple[float, float] = (0.0, 0.0),
    err: float = 0.5,
    snr: float = 5.0,
) -> pd.DataFrame:
    """Observations on a straight line: `start` is the position in frame 0."""
    at = np.asarray(list(frames))
    columns = {
        "track_id": track_id,
        "frame": at,
        "utc": "",
        "x": start[0] + velocity[0] * at + shift[0],
        "y": start[1] + velocity[1] * at + shift[1],
        "x_err": err,
        "y_err": err,
        "flux": snr * 3.0,
        "flux_err": 3.0,
    }
    return pd.DataFrame(columns)[OBSERVATION_COLUMNS]


def tracks(*parts: pd.DataFrame, kinds: dict[int, str] | None = None) -> Tracks:
    table = pd.concat(parts) if parts else pd.DataFrame(columns=OBSERVATION_COLUMNS)
    ids = [int(number) for number in table["track_id"].unique()]
    named = dict.fromkeys(ids, "satellite") | (kinds or {})
    return summarise(table, named, dict.fromkeys(ids, 1.0), fps=25.0)


def verdicts(scores: Scores) -> list[str]:
    return scores.found["verdict"].tolist()


def test_truth_against_itself_is_perfect() -> None:
    truth = tracks(line(1, range(30)), line(2, range(5, 25), (90.0, 9.0), (-1.0, 3.0), snr=1.0))
    scores = evaluate(truth, truth, frames=30)
    assert verdicts(scores) == ["match", "match"]
    assert scores.truths["cover"].tolist() == [1.0, 1.0]
    summary = scores.to_dict()["summary"]
    assert summary["recall"] == 1.0
    assert summary["position_rms_px"] == 0.0
    assert summary["macro_f1"] == 1.0
    assert summary["flux_ratio_median"] == 1.0
    assert summary["false_per_1000_frames"] == 0.0
    table = scores.recall_by_snr()
    assert table.loc[table["trials"] > 0, ["low", "high"]].to_numpy().tolist() == [
        [0.75, 1.25],
        [4.0, 7.0],
    ]


def test_one_found_track_claims_one_truth_only() -> None:
    # Two satellites side by side, 1 px apart, and one track between them.
    truth = tracks(line(1, range(30)), line(2, range(30), shift=(0.0, 1.0)))
    scores = evaluate(tracks(line(7, range(30), shift=(0.0, 0.8))), truth)
    assert scores.truths["found_id"].tolist() == [0, 7]


def test_crossing_paths_are_not_matches() -> None:
    truth = tracks(line(1, range(40), (0.0, 20.0), (2.0, 0.0)))
    crossing = tracks(line(1, range(40), (40.0, -20.0), (0.0, 2.0)))
    scores = evaluate(crossing, truth, frames=500)
    assert verdicts(scores) == ["false"]
    assert scores.truths["found_id"].tolist() == [0]
    assert scores.false_per_1000_frames()[0] == 2.0
    assert scores.false_per_1000_frames()[1:] == pytest.approx((0.0506, 11.143), abs=1e-3)


def test_same_path_at_another_time_is_false() -> None:
    truth = tracks(line(1, range(20), (0.0, 20.0), (4.0, 0.0)))
    late = tracks(line(1, range(10, 30), (-40.0, 20.0), (4.0, 0.0)))
    assert verdicts(evaluate(late, truth)) == ["false"]


def test_pieces_are_one_match_and_fragments() -> None:
    truth = tracks(line(1, range(100)))
    found = tracks(line(1, range(20)), line(2, range(22, 80)), line(3, range(85, 100)))
    scores = evaluate(found, truth)
    assert verdicts(scores) == ["fragment", "match", "fragment"]
    assert scores.truths["fragments"].tolist() == [2]
    assert scores.found["truth_id"].tolist() == [1, 1, 1]


def test_a_short_piece_is_neither_a_match_nor_false() -> None:
    scores = evaluate(tracks(line(1, range(10))), tracks(line(1, range(100))), frames=100)
    assert verdicts(scores) == ["fragment"]
    assert scores.truths["found_id"].tolist() == [0]
    generous = evaluate(tracks(line(1, range(10))), tracks(line(1, range(100))), min_cover=0.05)
    assert verdicts(generous) == ["match"]


def test_a_track_mostly_off_the_truth_is_false() -> None:
    truth = tracks(line(1, range(10)))
    assert verdicts(evaluate(tracks(line(1, range(25))), truth)) == ["false"]
    assert verdicts(evaluate(tracks(line(1, range(19))), truth)) == ["match"]


def test_gaps_are_bridged() -> None:
    truth = tracks(line(1, [0, 4, 8, 12, 16]))
    assert verdicts(evaluate(tracks(line(1, [1, 6, 11, 15])), truth)) == ["match"]


@pytest.mark.parametrize(
    ("speed", "along", "across", "verdict"),
    [
        (0.0, 2.9, 0.0, "match"),
        (0.0, 3.1, 0.0, "false"),
        (10.0, 7.9, 0.0, "match"),  # 3 + 10 / 2
        (10.0, 8.1, 0.0, "false"),
        (10.0, 0.0, 3.1, "false"),
    ],
)
def test_tolerance_is_longer_along_a_fast_path(
    speed: float, along: float, across: float, verdict: str
) -> None:
    truth = tracks(line(1, range(9), velocity=(speed, 0.0)))
    found = tracks(line(1, range(9), velocity=(speed, 0.0), shift=(along, across)))
    assert verdicts(evaluate(found, truth)) == [verdict]


def test_a_meteor_of_one_frame_uses_its_ends() -> None:
    truth = tracks(line(1, [5]), kinds={1: "meteor"})
    streak = truth.tracks.assign(x0_px=10.0, x1_px=30.0, y0_px=25.0, y1_px=25.0)
    found = tracks(line(1, [5], shift=(12.0, 0.0)))
    assert verdicts(evaluate(found, truth)) == ["false"]
    assert verdicts(evaluate(found, Tracks(streak, truth.observations))) == ["match"]


def test_ignored_regions_excuse_but_do_not_find() -> None:
    region = pd.DataFrame([[0, 50, 100.0, 100.0, 5.0]], columns=IGNORE_COLUMNS)
    bare = tracks(line(1, range(10)))
    truth = Truth(bare.tracks, bare.observations, region)
    flasher = line(1, range(10, 20), (101.0, 99.0), (0.0, 0.0))
    assert verdicts(evaluate(tracks(flasher), truth)) == ["ignored"]
    late = line(1, range(48, 70), (101.0, 99.0), (0.0, 0.0))
    assert verdicts(evaluate(tracks(late), truth)) == ["false"]
    assert verdicts(evaluate(tracks(flasher), bare)) == ["false"]
    assert verdicts(evaluate(tracks(flasher), bare, ignore=region)) == ["ignored"]


def test_coverage_sees_honest_and_boastful_errors() -> None:
    rng = np.random.default_rng(3)
    parts = [line(number, range(60), (0.0, 30.0 * number)) for number in range(1, 21)]
    truth = tracks(*parts)
    noisy = [part.assign(x=part["x"] + rng.normal(0, 0.5, 60)) for part in parts]
    scores = evaluate(tracks(*noisy), truth)
    coverage = scores.coverage().set_index("axis")
    assert coverage.at["x", "trials"] == 1200
    assert 0.64 < coverage.at["x", "rate"] < 0.72
    assert coverage.at["y", "rate"] == 1.0
    assert scores.position_error()["rms_px"] == pytest.approx(0.5, rel=0.1)
    boastful = evaluate(tracks(*[part.assign(x_err=0.1) for part in noisy]), truth)
    assert boastful.coverage().set_index("axis").at["x", "rate"] < 0.25
    bins = scores.coverage_by_snr()
    assert bins["trials"].sum() == 2400
    assert len(scores.calibration()) == 8


def test_kinds_and_brightness() -> None:
    truth = tracks(line(1, range(20)), line(2, range(20), (200.0, 0.0)), kinds={2: "aircraft"})
    both = tracks(line(5, range(20), snr=10.0), line(6, range(20), (200.0, 0.0), snr=10.0))
    scores = evaluate(both, truth)
    assert scores.confusion().loc["aircraft", "satellite"] == 1
    assert scores.to_dict()["summary"]["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores.truths["flux_ratio"].tolist() == [2.0, 2.0]


def test_nothing_found_nothing_there() -> None:
    nothing, one = tracks(), tracks(line(1, range(9)))
    empty = evaluate(nothing, nothing, frames=100)
    assert empty.to_dict()["summary"]["recall"] is None
    assert empty.false_per_1000_frames()[0] == 0.0
    assert evaluate(nothing, one).to_dict()["summary"]["recall"] == 0.0
    assert verdicts(evaluate(one, nothing)) == ["false"]
    assert np.isnan(evaluate(one, nothing).false_per_1000_frames()[0])
    for scores in (empty, evaluate(nothing, one), evaluate(one, nothing)):
        json.dumps(scores.to_dict(), allow_nan=False)
        assert all(len(table.columns) for table in scores.tables().values())


def test_pooling_adds_clips() -> None:
    truth = tracks(line(1, range(20)))
    hit = evaluate(truth, truth, frames=100, clip="a")
    miss = evaluate(tracks(), truth, frames=50, clip="b")
    false = evaluate(truth, tracks(), frames=50, clip="c")
    all_three = pool([hit, miss, false])
    assert all_three.frames == 200
    assert all_three.to_dict()["summary"]["recall"] == 0.5
    assert all_three.false_per_1000_frames()[0] == 5.0
    assert all_three.tables()["Missed"]["clip"].tolist() == ["b"]
    assert pool([hit, evaluate(truth, truth)]).frames is None
    with pytest.raises(ValueError, match="at least one"):
        pool([])
    with pytest.raises(ValueError, match="bins"):
        pool([hit, evaluate(truth, truth, edges=(0.0, 1.0))])


def test_confidence_of_the_truth_is_shown() -> None:
    truth = tracks(line(1, range(20)), line(2, range(20), (300.0, 0.0)))
    judged = Tracks(truth.tracks.assign(confidence=["sure", "faint"]), truth.observations)
    table = evaluate(tracks(line(1, range(20))), judged).tables()[
        "Recall by confidence of the truth"
    ]
    assert dict(zip(table["confidence"], table["rate"], strict=True)) == {"sure": 1.0, "faint": 0.0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"radius_px": 0.0}, "radius"),
        ({"radius_px": float("nan")}, "radius"),
        ({"min_cover": 1.5}, "cover"),
        ({"frames": 0}, "frames"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        evaluate(tracks(), tracks(), **settings)
