"""The two tables that found tracks and true tracks share, and their files.

`tracks` has one row per track, `observations` one row per track and frame. Their column names
are an interface promised to users; units stand in the names. Pixel centres are counted from 0
at the first pixel's centre, x is the column, y the row, y points down.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warte.core.errors import InputError

KINDS = ("satellite", "aircraft", "meteor", "unknown")

# Column name -> the type it has in memory.
_TRACK_TYPES = {
    "track_id": "int64",
    "kind": "str",
    "probability": "float64",
    "start_frame": "int64",
    "end_frame": "int64",
    "start_utc": "str",
    "end_utc": "str",
    "x0_px": "float64",
    "y0_px": "float64",
    "x1_px": "float64",
    "y1_px": "float64",
    "speed_px_s": "float64",
    "angle_deg": "float64",
    "snr_frame": "float64",
    "snr_track": "float64",
}
_OBSERVATION_TYPES = {
    "track_id": "int64",
    "frame": "int64",
    "utc": "str",
    "x": "float64",
    "y": "float64",
    "x_err": "float64",
    "y_err": "float64",
    "flux": "float64",
    "flux_err": "float64",
}
_IGNORE_TYPES = {
    "start_frame": "int64",
    "end_frame": "int64",
    "x": "float64",
    "y": "float64",
    "radius": "float64",
}
TRACK_COLUMNS = list(_TRACK_TYPES)
OBSERVATION_COLUMNS = list(_OBSERVATION_TYPES)
IGNORE_COLUMNS = list(_IGNORE_TYPES)

_MAY_BE_UNKNOWN = {"speed_px_s"}  # NaN where the frame rate is not known
_UTC_PATTERN = r"|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z"


@dataclass(frozen=True)
class Tracks:
    """Tracks and their observations.

    tracks: columns TRACK_COLUMNS. `track_id` is an integer from 1, `kind` one of KINDS,
        `probability` that of the kind (0..1), frames count from 0, utc is ISO 8601 with
        microseconds and Z ('' when unknown), (x0_px, y0_px) and (x1_px, y1_px) are the positions
        in the first and the last frame, `angle_deg` is atan2(dy, dx) with y down in [0, 360),
        `snr_frame` the median over frames of flux / flux_err, `snr_track` the matched filter
        over all frames, sum(f / e^2) / sqrt(sum(1 / e^2)).
    observations: columns OBSERVATION_COLUMNS, sorted by track_id and frame. x, y and their
        errors are in px; flux is in grey levels. In truth x_err = y_err = 0, and flux_err is the
        true 1-sigma noise of a matched filter in that frame.

    More columns may follow the named ones; they are kept.
    """

    tracks: pd.DataFrame
    observations: pd.DataFrame


@dataclass(frozen=True)
class Truth(Tracks):
    """Tracks judged by eye, with regions in which nothing counts for or against a finder.

    `tracks` also has the columns `name` and `confidence` (sure, likely or faint).
    ignore: columns IGNORE_COLUMNS; both frames are included; x, y, radius in px.
    """

    ignore: pd.DataFrame


def empty_tracks() -> Tracks:
    """Tracks with all columns, right types and no rows."""
    return Tracks(_typed({}, _TRACK_TYPES), _typed({}, _OBSERVATION_TYPES))


def format_utc(utc: np.datetime64 | None) -> str:
    """A time as in the tables: '2024-05-01T20:00:00.000000Z', or '' for None and NaT."""
    if utc is None or np.isnat(utc):
        return ""
    return f"{np.datetime_as_string(utc.astype('datetime64[us]'))}Z"


def parse_utc(text: str) -> np.datetime64 | None:
    """The inverse of `format_utc`."""
    return np.datetime64(text.removesuffix("Z"), "us") if text else None


def summarise(
    observations: pd.DataFrame,
    kinds: Mapping[int, str],
    probabilities: Mapping[int, float],
    fps: float | None,
) -> Tracks:
    """Build the tracks table from observations.

    observations: columns OBSERVATION_COLUMNS, in any order of rows.
    kinds, probabilities: of each track_id.
    fps: frames per second; None leaves speed_px_s unknown (NaN).
    Speed and angle are those of the straight line from the first to the last position; both
    are 0 for a track seen in one frame.
    """
    observations = _typed(observations, _OBSERVATION_TYPES)
    observations = observations.sort_values(["track_id", "frame"], ignore_index=True)
    rows = []
    for track_id, seen in observations.groupby("track_id"):
        number = int(str(track_id))
        rows.append(
            {"track_id": number, "kind": kinds[number], "probability": probabilities[number]}
            | _summary(seen, fps)
        )
    columns = {name: [row[name] for row in rows] for name in TRACK_COLUMNS}
    return Tracks(_typed(columns, _TRACK_TYPES), observations)


def _summary(seen: pd.DataFrame, fps: float | None) -> dict[str, Any]:
    """The columns of one track that follow from its observations (sorted by frame)."""
    frame, x, y = (seen[name].to_numpy() for name in ("frame", "x", "y"))
    flux, err = seen["flux"].to_numpy(), seen["flux_err"].to_numpy()
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    lasted = frame[-1] - frame[0]
    speed = 0.0 if lasted == 0 else float(np.hypot(dx, dy) / lasted)
    return {
        "start_frame": frame[0],
        "end_frame": frame[-1],
        "start_utc": seen["utc"].iloc[0],
        "end_utc": seen["utc"].iloc[-1],
        "x0_px": x[0],
        "y0_px": y[0],
        "x1_px": x[-1],
        "y1_px": y[-1],
        "speed_px_s": np.nan if fps is None else speed * fps,
        "angle_deg": angle_deg(dx, dy),
        "snr_frame": np.median(flux / err),
        "snr_track": np.sum(flux / err**2) / np.sqrt(np.sum(err**-2.0)),
    }


def angle_deg(dx: float, dy: float) -> float:
    """Direction of a motion in [0, 360) degrees: 0 to the right, 90 down the picture."""
    angle = float(np.degrees(np.arctan2(dy, dx))) % 360.0
    # The remainder of a tiny negative angle rounds to 360 itself.
    return 0.0 if angle >= 360.0 else angle


def write_tracks(tracks: Tracks, folder: str | Path) -> None:
    """Write tracks.csv and observations.csv (and ignore.csv for a `Truth`) into a folder.

    Numbers are written so that `read_tracks` gives back the same ones. Raises ValueError when
    the tables break the rules given at `Tracks`.
    """
    fault = find_fault(tracks)
    if fault:
        raise ValueError(fault)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tracks.tracks.to_csv(folder / "tracks.csv", index=False)
    tracks.observations.to_csv(folder / "observations.csv", index=False)
    if isinstance(tracks, Truth):
        tracks.ignore.to_csv(folder / "ignore.csv", index=False)


def read_tracks(path: str | Path, *, fps: float | None = None) -> Tracks:
    """Read tracks from a folder that `write_tracks` filled, or from a truth file in JSON.

    path: the folder, its tracks.csv, or a .json file with `tracks` (start_frame, end_frame and
        the lists frames, x, y, between which positions are interpolated, gaps_not_visible,
        kind, confidence, snr_per_frame) and `ignore` regions.
    fps: frames per second, for the speeds of a JSON truth that does not say it.
    Returns a `Truth` where the source has ignore regions.
    Raises InputError for what is missing, unreadable or against the rules of `Tracks`.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a folder with tracks.csv")
    tracks: Tracks
    if path.suffix.lower() == ".json":
        tracks = _read_json(path, fps)
    else:
        tracks = _read_folder(path if path.is_dir() else path.parent)
    fault = find_fault(tracks)
    if fault:
        raise InputError(f"{path}: {fault}")
    return tracks


def _read_folder(folder: Path) -> Tracks:
    tracks = _read_csv(folder / "tracks.csv", _TRACK_TYPES)
    observations = _read_csv(folder / "observations.csv", _OBSERVATION_TYPES)
    if (folder / "ignore.csv").exists():
        return Truth(tracks, observations, _read_csv(folder / "ignore.csv", _IGNORE_TYPES))
    return Tracks(tracks, observations)


def _read_csv(path: Path, types: dict[str, str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; it stands beside the other tables of a result")
    try:
        # Empty text stays '' and is not taken for a missing number.
        table = pd.read_csv(
            path,
            keep_default_na=False,
            na_values={name: [""] for name in _MAY_BE_UNKNOWN},
        )
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path}: not a readable table: {_one_line(error)}") from error
    missing = [name for name in types if name not in table.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; needed are {', '.join(types)}")
    try:
        return _typed(table, types)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {_one_line(error)}; see the columns' types") from error


def _typed(table: pd.DataFrame | Mapping[str, Any], types: dict[str, str]) -> pd.DataFrame:
    """The named columns first and with their types, then the others."""
    if not isinstance(table, pd.DataFrame):
        return pd.DataFrame({n: pd.Series(table.get(n, []), dtype=t) for n, t in types.items()})
    others = [name for name in table.columns if name not in types]
    ordered = table[[*types, *others]].reset_index(drop=True)
    for name, wanted in types.items():
        if wanted == "int64" and (values := ordered[name]).dtype.kind == "f":
            fraction = values[values % 1 != 0]  # NaN and infinity are caught here too
            if len(fraction):
                raise ValueError(f"column {name} holds {fraction.iloc[0]}, not a whole number")
        if wanted == "str" and ordered[name].dtype.kind == "f":
            # A text column without any text is read as numbers that are all missing.
            ordered[name] = ordered[name].map(lambda value: "" if np.isnan(value) else str(value))
    return ordered.astype(types)


def find_fault(tracks: Tracks) -> str | None:
    """What breaks the rules given at `Tracks`, as one line, or None."""
    named = [
        ("tracks", tracks.tracks, _TRACK_TYPES),
        ("observations", tracks.observations, _OBSERVATION_TYPES),
    ]
    if isinstance(tracks, Truth):
        named.append(("ignore", tracks.ignore, _IGNORE_TYPES))
    for name, table, types in named:
        fault = _column_fault(table, types)
        if fault:
            return f"{name}: {fault}"
    return _track_fault(tracks.tracks) or _observation_fault(tracks)


def _column_fault(table: pd.DataFrame, types: dict[str, str]) -> str | None:
    for name, wanted in types.items():
        if name not in table.columns:
            return f"column {name!r} is missing"
        values = table[name]
        if wanted == "float64" and name not in _MAY_BE_UNKNOWN and len(values):
            bad = ~np.isfinite(values.to_numpy(dtype=float))
            if bad.any():
                return f"column {name} holds {values[bad].iloc[0]} in row {int(np.argmax(bad)) + 1}"
        if name.endswith("utc"):
            fit = values.astype("str").str.fullmatch(_UTC_PATTERN).to_numpy(dtype=bool)
            if not fit.all():
                return f"column {name} holds {values[~fit].iloc[0]!r}, not ISO 8601 with .ffffffZ"
    return None


def _track_fault(table: pd.DataFrame) -> str | None:
    speed = table["speed_px_s"]
    rules = [
        ("track_id", table["track_id"] >= 1, "1 or more"),
        ("track_id", ~table["track_id"].duplicated(), "there once only"),
        ("kind", table["kind"].isin(KINDS), f"one of {', '.join(KINDS)}"),
        ("probability", table["probability"].between(0, 1), "between 0 and 1"),
        ("start_frame", table["start_frame"] >= 0, "0 or more"),
        ("end_frame", table["end_frame"] >= table["start_frame"], "start_frame or later"),
        ("speed_px_s", speed.isna() | ((speed >= 0) & np.isfinite(speed)), "0 or more"),
        ("angle_deg", table["angle_deg"].between(0, 360, inclusive="left"), "in [0, 360)"),
    ]
    return _first_broken("tracks", table, rules)


def _observation_fault(tracks: Tracks) -> str | None:
    table = tracks.observations
    known = tracks.tracks.set_index("track_id")[["start_frame", "end_frame"]]
    span = known.reindex(table["track_id"]).reset_index(drop=True)
    frame = table["frame"].reset_index(drop=True)
    inside = (frame >= span["start_frame"]) & (frame <= span["end_frame"])
    seen_ids = pd.Index(table["track_id"].unique())
    unseen = known.index.difference(seen_ids)
    rules = [
        ("track_id", table["track_id"].isin(known.index), "in the table of tracks"),
        ("frame", inside.set_axis(table.index), "within its track's start_frame..end_frame"),
        ("frame", ~table.duplicated(["track_id", "frame"]), "there once per track"),
        ("x_err", table["x_err"] >= 0, "0 or more"),
        ("y_err", table["y_err"] >= 0, "0 or more"),
        ("flux_err", table["flux_err"] > 0, "above 0"),
    ]
    fault = _first_broken("observations", table, rules)
    if fault is None and len(unseen):
        return f"observations: track {unseen[0]} has none; each track needs at least one"
    return fault


def _first_broken(
    name: str, table: pd.DataFrame, rules: list[tuple[str, pd.Series, str]]
) -> str | None:
    for column, holds, allowed in rules:
        broken = ~holds.to_numpy(dtype=bool)
        if broken.any():
            row = int(np.argmax(broken))
            value = table[column].iloc[row]
            return f"{name}: {column} {value} in row {row + 1} is not {allowed}"
    return None


def _read_json(path: Path, fps: float | None) -> Truth:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON: {_one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("tracks"), list):
        raise InputError(f"{path}: no list 'tracks' in it; a truth file has one")
    kinds, seen, extra = {}, [], []
    for track_id, entry in enumerate(content["tracks"], start=1):
        try:
            seen.append(_visible(entry, track_id))
            kinds[track_id] = str(entry["kind"])
            extra.append((str(entry.get("id", track_id)), str(entry.get("confidence", "sure"))))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__}: {_one_line(error)}"
            raise InputError(f"{path}: track number {track_id} is unusable: {reason}") from error
    observations = pd.concat(seen) if seen else empty_tracks().observations
    base = summarise(observations, kinds, dict.fromkeys(kinds, 1.0), content.get("fps", fps))
    names = pd.DataFrame(extra, columns=["name", "confidence"], dtype="str")
    tracks = pd.concat([base.tracks, names], axis=1)
    return Truth(tracks, base.observations, _ignore_regions(path, content.get("ignore", [])))


def _visible(entry: dict[str, Any], track_id: int) -> pd.DataFrame:
    """Observations of one track in every frame in which it is visible.

    Only the signal-to-noise ratio is known, so flux is in units of its own error.
    """
    listed = np.asarray(entry["frames"], dtype=float)
    if len(listed) == 0 or len(listed) != len(entry["x"]) or len(listed) != len(entry["y"]):
        raise ValueError("frames, x and y must be equally long and not empty")
    if (np.diff(listed) <= 0).any():
        raise ValueError("frames must increase")
    frame = np.arange(int(entry["start_frame"]), int(entry["end_frame"]) + 1)
    for first, last in entry.get("gaps_not_visible", []):
        frame = frame[(frame < first) | (frame > last)]
    if len(frame) == 0:
        raise ValueError("visible in no frame")
    return pd.DataFrame(
        {
            "track_id": track_id,
            "frame": frame,
            "utc": "",
            "x": np.interp(frame, listed, entry["x"]),
            "y": np.interp(frame, listed, entry["y"]),
            "x_err": 0.0,
            "y_err": 0.0,
            "flux": float(entry["snr_per_frame"]),
            "flux_err": 1.0,
        }
    )


def _ignore_regions(path: Path, regions: list[dict[str, Any]]) -> pd.DataFrame:
    try:
        columns = {
            "start_frame": [int(region["frames"][0]) for region in regions],
            "end_frame": [int(region["frames"][1]) for region in regions],
        } | {name: [float(region[name]) for region in regions] for name in ("x", "y", "radius")}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: an 'ignore' region is unusable: {_one_line(error)}") from error
    return _typed(columns, _IGNORE_TYPES)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
