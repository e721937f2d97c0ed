"""Found tracks against true ones: one to one, with intervals on every rate.

What counts as found. Both tracks are interpolated linearly over the frames from their first to
their last observation. In a frame they agree when the found position lies within the tolerance
of the true one: an ellipse of `radius_px` across the true path and of `radius_px` plus half the
motion in that frame along it, because a fast object is a streak whose middle is not sharp.
A found track may claim a true one when they agree in at least half of the found track's own
frames (so that it is not a coincidence) and in at least `min_cover` of the true track's frames.
Claims are settled one to one; a found track that claims nothing but agrees with true tracks in
half of its frames is a fragment; one that lies in regions to ignore is ignored; all others are
false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import SettingsError
from warte.core.match import match_one_to_one
from warte.core.score import (
    ONE_SIGMA,
    confusion_matrix,
    f1_scores,
    inside_interval,
    macro_f1,
    poisson_interval,
    rate_by_bin,
    reliability,
    wilson_interval,
)
from warte.sky.tables import KINDS, Tracks, Truth

# Bins of the per-frame SNR; the wanted values 1, 2, 3, 5 lie inside bins, not on their edges.
SNR_EDGES = (0.0, 0.5, 0.75, 1.25, 1.75, 2.5, 4.0, 7.0, 12.0, 20.0, np.inf)
# Share of its own frames in which a found track must agree with the truth.
MIN_AGREEMENT = 0.5

FloatArray = npt.NDArray[np.float64]

_TRUTH_COLUMNS = [
    "clip", "truth_id", "kind", "confidence", "snr_frame", "found_id", "kind_found",
    "probability", "cover", "median_px", "flux_ratio", "fragments",
]  # fmt: skip
_FOUND_COLUMNS = ["clip", "found_id", "verdict", "truth_id", "kind", "probability", "snr_track"]
_RESIDUAL_COLUMNS = [
    "clip", "truth_id", "found_id", "frame", "snr_frame", "dx_px", "dy_px", "x_err_px",
    "y_err_px", "flux_true", "dflux", "flux_err",
]  # fmt: skip


@dataclass(frozen=True)
class TrackPath:
    """One track, interpolated over every frame from its first to its last observation."""

    track_id: int
    first: int  # first frame
    x: FloatArray  # (F,) px
    y: FloatArray  # (F,) px
    vx: FloatArray  # (F,) px per frame
    vy: FloatArray  # (F,) px per frame

    @property
    def last(self) -> int:
        """The last frame, included."""
        return self.first + len(self.x) - 1


@dataclass(frozen=True)
class Scores:
    """What was found, missed and invented; the rates follow from these three tables.

    truths: one row per true track: clip, truth_id, kind, confidence ('' where the truth does
        not say), snr_frame, found_id (0 when missed), kind_found, probability (of kind_found),
        cover (share of its frames in which the claimed track agrees), median_px (median
        distance), flux_ratio (median found / true), fragments (further found tracks on it).
    found: one row per found track: clip, found_id, verdict (match, fragment, ignored, false),
        truth_id (0 without one), kind, probability, snr_track.
    residuals: one row per observation of a matched track in a frame of the true one: found minus
        true position and flux with the stated errors; snr_frame is that of the true track.
    frames: frames searched, all clips together; None when unknown.
    edges: edges of the bins of per-frame SNR.
    """

    truths: pd.DataFrame
    found: pd.DataFrame
    residuals: pd.DataFrame
    frames: int | None
    edges: tuple[float, ...] = SNR_EDGES

    def count(self, verdict: str) -> int:
        """Number of found tracks with this verdict."""
        return int((self.found["verdict"] == verdict).sum())

    def recall_by_snr(self) -> pd.DataFrame:
        """Recall in bins of per-frame SNR, with 95 % Wilson intervals (see `rate_by_bin`)."""
        snr = self.truths["snr_frame"].clip(lower=0.0)
        return rate_by_bin(snr, self.truths["found_id"] > 0, self.edges)

    def coverage(self) -> pd.DataFrame:
        """Share of the truth that the stated 68 % intervals hold: x, y, and flux.

        Columns: axis, trials, hits, rate, rate_low, rate_high.
        """
        return _coverage(self.residuals)

    def coverage_by_snr(self) -> pd.DataFrame:
        """The same for x and y together, in bins of per-frame SNR (see `rate_by_bin`)."""
        table = self.residuals
        inside = [
            inside_interval(table[f"d{axis}_px"], table[f"{axis}_err_px"]) for axis in ("x", "y")
        ]
        snr = np.tile(table["snr_frame"].to_numpy(dtype=np.float64), 2).clip(min=0.0)
        return rate_by_bin(snr, np.concatenate(inside), self.edges)

    def calibration(self) -> pd.DataFrame:
        """Claimed against seen share of position intervals of several widths."""
        table = self.residuals
        return reliability(
            np.concatenate([table["dx_px"], table["dy_px"]]),
            np.concatenate([table["x_err_px"], table["y_err_px"]]),
        )

    def confusion(self) -> pd.DataFrame:
        """Counts of matched tracks: row the true kind, column the kind found."""
        matched = self.truths[self.truths["found_id"] > 0]
        counts = confusion_matrix(list(matched["kind"]), list(matched["kind_found"]), KINDS)
        return pd.DataFrame(counts, index=pd.Index(KINDS, name="kind"), columns=list(KINDS))

    def position_error(self) -> dict[str, float]:
        """Median and rms distance (px) and mean offsets of the matched observations."""
        dx, dy = self.residuals["dx_px"].to_numpy(), self.residuals["dy_px"].to_numpy()
        if not len(dx):
            return dict.fromkeys(("median_px", "rms_px", "mean_x_px", "mean_y_px"), np.nan)
        away = np.hypot(dx, dy)
        return {
            "median_px": float(np.median(away)),
            "rms_px": float(np.sqrt(np.mean(away**2))),
            "mean_x_px": float(dx.mean()),
            "mean_y_px": float(dy.mean()),
        }

    def false_per_1000_frames(self) -> tuple[float, float, float]:
        """False tracks per 1000 frames with its 95 % interval; NaN when frames are unknown."""
        if not self.frames:
            return np.nan, np.nan, np.nan
        number = self.count("false")
        low, high = poisson_interval(number)
        scale = 1000.0 / self.frames
        return number * scale, low * scale, high * scale

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table to print, by title."""
        named = {
            "Summary": pd.DataFrame(list(self._summary().items()), columns=["figure", "value"]),
            "Recall by per-frame SNR": self.recall_by_snr(),
            "Recall by kind": self._recall_by("kind"),
            "68 % intervals": self.coverage(),
            "68 % intervals of position by per-frame SNR": self.coverage_by_snr(),
            "Kinds (row: true, column: found)": self.confusion().reset_index(),
            "Missed": self.truths[self.truths["found_id"] == 0][
                ["clip", "truth_id", "kind", "confidence", "snr_frame"]
            ],
            "False": self.found[self.found["verdict"] == "false"][
                ["clip", "found_id", "kind", "probability", "snr_track"]
            ],
        }
        if (self.truths["confidence"] != "").any():
            named["Recall by confidence of the truth"] = self._recall_by("confidence")
        return named

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tables of single observations, ready for JSON (NaN becomes None)."""
        content = {
            "summary": self._summary(),
            "recall_by_snr": self.recall_by_snr().to_dict("records"),
            "recall_by_kind": self._recall_by("kind").to_dict("records"),
            "recall_by_confidence": self._recall_by("confidence").to_dict("records"),
            "coverage": self.coverage().to_dict("records"),
            "coverage_by_snr": self.coverage_by_snr().to_dict("records"),
            "calibration": self.calibration().to_dict("records"),
            "confusion": self.confusion().to_dict("index"),
            "truths": self.truths.to_dict("records"),
            "found": self.found.to_dict("records"),
        }
        return {key: _jsonable(value) for key, value in content.items()}

    def _summary(self) -> dict[str, float | int | None]:
        hits, trials = int((self.truths["found_id"] > 0).sum()), len(self.truths)
        low, high = wilson_interval(hits, trials)
        false, false_low, false_high = self.false_per_1000_frames()
        counts = self.confusion().to_numpy()
        flux = self.truths["flux_ratio"].dropna()
        figures: dict[str, float | int | None] = {
            "true tracks": trials,
            "found tracks": len(self.found),
            "matched": hits,
            "missed": trials - hits,
            "fragments": self.count("fragment"),
            "ignored": self.count("ignored"),
            "false": self.count("false"),
            "frames": self.frames,
            "recall": hits / trials if trials else np.nan,
            "recall_low": low,
            "recall_high": high,
            "false_per_1000_frames": false,
            "false_per_1000_frames_low": false_low,
            "false_per_1000_frames_high": false_high,
        }
        figures |= {f"position_{name}": value for name, value in self.position_error().items()}
        covered = self.coverage()
        rates = zip(covered["axis"], covered["rate"], strict=True)
        figures |= {f"coverage_68_{axis}": float(rate) for axis, rate in rates}
        scores = f1_scores(counts)
        figures |= {f"f1_{kind}": float(f1) for kind, f1 in zip(KINDS, scores, strict=True)}
        figures["macro_f1"] = macro_f1(counts)
        figures["flux_ratio_median"] = float(flux.median()) if len(flux) else np.nan
        return figures

    def _recall_by(self, column: str) -> pd.DataFrame:
        rows = []
        for value, part in self.truths.groupby(column, sort=True):
            hits, trials = int((part["found_id"] > 0).sum()), len(part)
            rows.append((value, trials, hits, hits / trials, *wilson_interval(hits, trials)))
        columns = [column, "trials", "hits", "rate", "rate_low", "rate_high"]
        return pd.DataFrame(rows, columns=columns)


def evaluate(
    found: Tracks,
    truth: Tracks,
    *,
    radius_px: float = 3.0,
    min_cover: float = 0.3,
    frames: int | None = None,
    ignore: pd.DataFrame | None = None,
    edges: Sequence[float] = SNR_EDGES,
    clip: str = "",
) -> Scores:
    """Score found tracks against true ones (the rules stand at the top of this file).

    Parameters
    ----------
    found, truth : the tables of both; frames count from 0 in both.
    radius_px : largest distance across the path in px, > 0.
    min_cover : share of a true track's frames in which a found one must agree, 0 < .. <= 1.
    frames : number of frames searched, for the rate of false tracks; None leaves it unknown.
    ignore : regions in which found tracks count for nothing (columns start_frame, end_frame,
        x, y, radius in px); None takes those of `truth` where it has some.
    edges : rising edges of the bins of per-frame SNR.
    clip : name of the recording, kept in the tables, for `pool`.

    Raises
    ------
    SettingsError for a setting out of its range.
    """
    _check_settings(radius_px, min_cover, frames)
    if ignore is None and isinstance(truth, Truth):
        ignore = truth.ignore
    found_paths, true_paths = paths(found), paths(truth)
    agree = [[agreement(f, t, radius_px) for t in true_paths] for f in found_paths]
    pairs = _claims(found_paths, true_paths, agree, min_cover)
    on_truth = _on_any_truth(found_paths, agree)
    ignored = [ignore is not None and _is_ignored(path, ignore) for path in found_paths]
    found_rows = _found_rows(found, found_paths, true_paths, agree, pairs, on_truth, ignored)
    residuals = _residuals(found, truth, found_paths, true_paths, pairs)
    truth_rows = _truth_rows(found, truth, found_paths, true_paths, agree, pairs)
    truth_rows = _with_details(truth_rows, residuals, found_rows)
    return Scores(
        truth_rows.assign(clip=clip)[_TRUTH_COLUMNS],
        found_rows.assign(clip=clip)[_FOUND_COLUMNS],
        residuals.assign(clip=clip)[_RESIDUAL_COLUMNS],
        frames,
        tuple(edges),
    )


def pool(scores: Sequence[Scores]) -> Scores:
    """Scores of several recordings as one; frames are added, or None when any is unknown.

    Raises ValueError for an empty sequence and for different bins.
    """
    if not scores:
        raise ValueError("no scores to pool, at least one is needed")
    if len({one.edges for one in scores}) > 1:
        raise ValueError("scores with different bins of SNR cannot be pooled")
    known = [one.frames for one in scores if one.frames is not None]
    return Scores(
        _stack([one.truths for one in scores]),
        _stack([one.found for one in scores]),
        _stack([one.residuals for one in scores]),
        sum(known) if len(known) == len(scores) else None,
        scores[0].edges,
    )


def paths(tracks: Tracks) -> list[TrackPath]:
    """Each track of the table, interpolated linearly over every frame it spans."""
    groups = dict(iter(tracks.observations.sort_values("frame").groupby("track_id")))
    ends = tracks.tracks[["track_id", "x0_px", "y0_px", "x1_px", "y1_px"]].to_numpy(
        dtype=np.float64
    )
    result = []
    for number, x0, y0, x1, y1 in ends:
        seen = groups[int(number)]
        at = seen["frame"].to_numpy(dtype=np.int64)
        frame = np.arange(at[0], at[-1] + 1)
        x = np.interp(frame, at, seen["x"].to_numpy(dtype=np.float64))
        y = np.interp(frame, at, seen["y"].to_numpy(dtype=np.float64))
        if len(frame) > 1:
            vx, vy = np.gradient(x), np.gradient(y)
        else:
            # Seen in one frame only: the ends of the streak, where the table has them.
            vx, vy = np.array([x1 - x0]), np.array([y1 - y0])
        result.append(TrackPath(int(number), int(at[0]), x, y, vx, vy))
    return result


def agreement(found: TrackPath, true: TrackPath, radius_px: float) -> FloatArray:
    """Distance in units of the tolerance in each common frame; <= 1 means that they agree.

    The tolerance is an ellipse round the true position: `radius_px` across the true path,
    `radius_px` plus half the motion per frame along it. Empty without common frames.
    """
    first, last = max(found.first, true.first), min(found.last, true.last)
    if last < first:
        return np.zeros(0)
    mine = slice(first - found.first, last - found.first + 1)
    other = slice(first - true.first, last - true.first + 1)
    dx, dy = found.x[mine] - true.x[other], found.y[mine] - true.y[other]
    speed = np.hypot(true.vx[other], true.vy[other])
    safe = np.where(speed > 0, speed, 1.0)
    along = (dx * true.vx[other] + dy * true.vy[other]) / safe
    across = (dy * true.vx[other] - dx * true.vy[other]) / safe
    # Without motion there is no direction: all of the distance counts as across.
    across = np.where(speed > 0, across, np.hypot(dx, dy))
    return np.hypot(across / radius_px, along / (radius_px + speed / 2))


def _check_settings(radius_px: float, min_cover: float, frames: int | None) -> None:
    if not (np.isfinite(radius_px) and radius_px > 0):
        raise SettingsError(f"radius is {radius_px} px, it must be above 0; 3 is usual")
    if not 0 < min_cover <= 1:
        raise SettingsError(f"cover is {min_cover}, it must be above 0 and at most 1")
    if frames is not None and frames < 1:
        raise SettingsError(f"frames is {frames}, it must be 1 or more")


def _claims(
    found: list[TrackPath], true: list[TrackPath], agree: list[list[FloatArray]], min_cover: float
) -> npt.NDArray[np.int64]:
    """(K, 2) matched pairs of indices. The cost falls with the number of frames that agree as a
    share of all frames of both, and rises with the median distance."""
    cost = np.full((len(found), len(true)), np.inf)
    for i, one in enumerate(found):
        for j, other in enumerate(true):
            good = int((agree[i][j] <= 1).sum())
            if good < MIN_AGREEMENT * len(one.x) or good < min_cover * len(other.x):
                continue
            both = len(one.x) + len(other.x) - len(agree[i][j])
            cost[i, j] = (1 - good / both) + min(1.0, float(np.median(agree[i][j])))
    return match_one_to_one(cost)


def _on_any_truth(found: list[TrackPath], agree: list[list[FloatArray]]) -> list[int]:
    """For each found track the index of the truth it lies on most, -1 when it lies on none.

    A track that swaps between two true ones lies on a truth, so frames are joined over truths.
    """
    result = []
    for path, row in zip(found, agree, strict=True):
        good = [int((distance <= 1).sum()) for distance in row]
        on_some = sum(good) >= MIN_AGREEMENT * len(path.x) and bool(good)
        result.append(int(np.argmax(good)) if on_some else -1)
    return result


def _is_ignored(path: TrackPath, regions: pd.DataFrame) -> bool:
    """Whether at least half of a track's frames lie in a region while that is to be ignored."""
    frame = np.arange(path.first, path.last + 1)
    inside = np.zeros(len(frame), dtype=bool)
    for row in regions[["start_frame", "end_frame", "x", "y", "radius"]].to_numpy(dtype=np.float64):
        start, end, x, y, radius = row
        near = np.hypot(path.x - x, path.y - y) <= radius
        inside |= near & (frame >= start) & (frame <= end)
    return bool(inside.mean() >= MIN_AGREEMENT)


def _found_rows(
    found: Tracks,
    found_paths: list[TrackPath],
    true_paths: list[TrackPath],
    agree: list[list[FloatArray]],
    pairs: npt.NDArray[np.int64],
    on_truth: list[int],
    ignored: list[bool],
) -> pd.DataFrame:
    claimed = dict(pairs.tolist())
    rows = []
    for index, path in enumerate(found_paths):
        if index in claimed:
            verdict, truth = "match", claimed[index]
        elif on_truth[index] >= 0:
            verdict, truth = "fragment", on_truth[index]
        else:
            verdict, truth = ("ignored" if ignored[index] else "false"), -1
        truth_id = true_paths[truth].track_id if truth >= 0 else 0
        rows.append((path.track_id, verdict, truth_id))
    table = pd.DataFrame(rows, columns=["found_id", "verdict", "truth_id"])
    table = table.astype({"found_id": "int64", "verdict": "str", "truth_id": "int64"})
    facts = found.tracks[["kind", "probability", "snr_track"]].reset_index(drop=True)
    return pd.concat([table, facts], axis=1)


def _truth_rows(
    found: Tracks,
    truth: Tracks,
    found_paths: list[TrackPath],
    true_paths: list[TrackPath],
    agree: list[list[FloatArray]],
    pairs: npt.NDArray[np.int64],
) -> pd.DataFrame:
    claimed = {int(true): int(mine) for mine, true in pairs}
    facts = found.tracks.set_index("track_id")
    rows: list[dict[str, Any]] = []
    for index, path in enumerate(true_paths):
        row: dict[str, Any] = {"truth_id": path.track_id, "found_id": 0, "kind_found": ""}
        row |= {"probability": np.nan, "cover": 0.0}
        if index in claimed:
            mine = claimed[index]
            found_id = found_paths[mine].track_id
            row |= {
                "found_id": found_id,
                "kind_found": str(facts.at[found_id, "kind"]),
                "probability": facts.at[found_id, "probability"],
                "cover": float((agree[mine][index] <= 1).sum() / len(path.x)),
            }
        rows.append(row)
    types = {
        "truth_id": "int64",
        "found_id": "int64",
        "kind_found": "str",
        "probability": "float64",
        "cover": "float64",
    }
    table = pd.DataFrame(rows, columns=list(types)).astype(types)
    known = truth.tracks[["kind", "snr_frame"]].reset_index(drop=True)
    confidence = truth.tracks.get("confidence", pd.Series([""] * len(table), dtype="str"))
    return pd.concat([table, known, confidence.reset_index(drop=True).rename("confidence")], axis=1)


def _with_details(
    truths: pd.DataFrame, residuals: pd.DataFrame, found: pd.DataFrame
) -> pd.DataFrame:
    """Add median distance and brightness of the matched track, and the number of fragments."""
    away = np.hypot(residuals["dx_px"], residuals["dy_px"])
    ratio = (residuals["flux_true"] + residuals["dflux"]) / residuals["flux_true"]
    per_track = residuals.assign(median_px=away, flux_ratio=ratio).groupby("truth_id")
    medians = per_track[["median_px", "flux_ratio"]].median()
    pieces = found[found["verdict"] == "fragment"].groupby("truth_id").size()
    result = truths.copy()
    for name in medians.columns:
        result[name] = result["truth_id"].map(medians[name]).astype("float64")
    result["fragments"] = result["truth_id"].map(pieces).fillna(0).astype("int64")
    return result


def _residuals(
    found: Tracks,
    truth: Tracks,
    found_paths: list[TrackPath],
    true_paths: list[TrackPath],
    pairs: npt.NDArray[np.int64],
) -> pd.DataFrame:
    """Found minus true in each frame that a matched found track was really observed in."""
    parts = []
    snr = truth.tracks.set_index("track_id")["snr_frame"]
    mine = dict(iter(found.observations.groupby("track_id")))
    theirs = dict(iter(truth.observations.sort_values("frame").groupby("track_id")))
    for i, j in pairs:
        true = true_paths[j]
        seen, known = mine[found_paths[i].track_id], theirs[true.track_id]
        seen = seen[seen["frame"].between(true.first, true.last)]
        at = seen["frame"].to_numpy() - true.first
        flux = np.interp(seen["frame"], known["frame"], known["flux"])
        parts.append(
            pd.DataFrame(
                {
                    "truth_id": true.track_id,
                    "found_id": found_paths[i].track_id,
                    "frame": seen["frame"].to_numpy(),
                    "snr_frame": float(snr[true.track_id]),
                    "dx_px": seen["x"].to_numpy() - true.x[at],
                    "dy_px": seen["y"].to_numpy() - true.y[at],
                    "x_err_px": seen["x_err"].to_numpy(),
                    "y_err_px": seen["y_err"].to_numpy(),
                    "flux_true": flux,
                    "dflux": seen["flux"].to_numpy() - flux,
                    "flux_err": seen["flux_err"].to_numpy(),
                }
            )
        )
    columns = [name for name in _RESIDUAL_COLUMNS if name != "clip"]
    empty = pd.DataFrame({name: pd.Series([], dtype="float64") for name in columns})
    return _stack(parts) if parts else empty


def _coverage(residuals: pd.DataFrame) -> pd.DataFrame:
    names = {"x": ("dx_px", "x_err_px"), "y": ("dy_px", "y_err_px"), "flux": ("dflux", "flux_err")}
    rows = []
    for axis, (away, error) in names.items():
        table = reliability(residuals[away], residuals[error], levels=(ONE_SIGMA,))
        rows.append(table.drop(columns="level").assign(axis=axis))
    return pd.concat(rows, ignore_index=True)[
        ["axis", "trials", "hits", "rate", "rate_low", "rate_high"]
    ]


def _stack(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables below each other; empty ones add nothing, not even their types."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _jsonable(value: Any) -> Any:
    """NumPy numbers as Python's, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
