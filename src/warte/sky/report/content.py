"""The sections of the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warte.core.report import Block, Cell, Drawing, Facts, Gallery, Picture, Section, Table, Text
from warte.sky.read import Recording
from warte.sky.report import words
from warte.sky.report.curve import light_curve
from warte.sky.report.gather import Gatherer, stack_picture, strip_pictures
from warte.sky.report.look import (
    KIND_COLOURS,
    Bytes,
    FloatArray,
    Pixels,
    View,
    encode_jpeg,
    encode_png,
)
from warte.sky.report.picture import svg_overlay

Row = Mapping[Any, Any]  # one row of the tracks table by column name


def sky_section(sky: Bytes, lines: list[FloatArray], tracks: pd.DataFrame, view: View) -> Section:
    picture = Picture(
        encode_jpeg(sky),
        alt="The sky of the whole recording; stars and the trails of what moved",
        caption=(
            "All frames joined. Rings mark where tracks start, arrows where they end; "
            "a click on a track leads to its details."
            if lines
            else "All frames joined."
        ),
        overlay=svg_overlay(lines, tracks, view) if lines else "",
        overlay_name="Show tracks" if lines else "",
    )
    return Section("The sky", "sky", [picture])


def lead(recording: Recording, gathered: Gatherer) -> str:
    length = f"{words.number(gathered.last_time_s)} s"
    size = f"{recording.width} × {recording.height} pixels, {words.number(recording.fps)} frames/s"
    start = "the file does not say when it was made"
    if recording.start_utc is not None:
        start = f"{np.datetime_as_string(recording.start_utc, unit='s').replace('T', ' ')} UTC"
        start = f"it starts at {start}"
    return f"{recording.path.name}: {size}, {length} long; {start}."


def tracks_section(
    tracks: pd.DataFrame, times: dict[int, float], fps: float, with_card: set[int]
) -> Section:
    if not len(tracks):
        text = (
            "No track passed the search. A recording with stars but nothing moving looks like "
            "this; so does one that is too short, or whose camera was moved by hand."
        )
        return Section("Tracks", "tracks", [Text(text)])
    head = [
        "track", "kind", "sure of kind", "first seen", "frames", "lasts (s)", "speed (px/s)",
        "signal, one frame", "signal, all",
    ]  # fmt: skip
    rows = []
    for row in tracks.to_dict("records"):
        first, last = int(row["start_frame"]), int(row["end_frame"])
        begin = words.clock(row["start_utc"]) or f"{_seconds(first, times, fps):.2f} s"
        link = f"#track-{row['track_id']}" if row["track_id"] in with_card else ""
        cells = [
            Cell(str(row["track_id"]), link),
            Cell(words.kind_name(row["kind"]), colour=KIND_COLOURS[row["kind"]]),
            Cell(words.sureness(row["probability"])),
            Cell(begin),
            Cell(f"{first} to {last}" if last > first else str(first)),
            Cell(f"{_lasts(row, times, fps):.2f}"),
            Cell(words.number(row["speed_px_s"])),
            Cell(f"{row['snr_frame']:.1f}"),
            Cell(f"{row['snr_track']:.1f}"),
        ]
        rows.append(cells)
    flush_right = frozenset(head) - {"track", "kind"}
    blocks: list[Block] = [Table(head, rows, flush_right)]
    if len(tracks) > len(with_card):
        text = f"Only the {len(with_card)} strongest tracks have pictures below; the table has all."
        blocks.append(Text(text, muted=True))
    return Section("Tracks", "tracks", blocks)


def _seconds(frame: int, times: dict[int, float], fps: float) -> float:
    """Seconds since frame 0; by the rate where the frame was not looked at."""
    return times.get(frame, frame / fps)


def _lasts(row: Row, times: dict[int, float], fps: float) -> float:
    """Seconds from the start of the first frame to the end of the last one."""
    first, last = int(row["start_frame"]), int(row["end_frame"])
    return _seconds(last, times, fps) - _seconds(first, times, fps) + 1 / fps


def cards_section(
    tracks: pd.DataFrame, observations: pd.DataFrame, gathered: Gatherer, fps: float
) -> Section:
    cards = []
    groups = dict(iter(observations.groupby("track_id")))
    mean = gathered.mean
    for row in tracks.to_dict("records"):
        number = int(row["track_id"])
        if number not in groups:
            continue
        seen = groups[number].sort_values("frame")
        blocks: list[Block] = [Facts(_facts(row, seen, gathered.times, fps))]
        if len(seen) > 1:
            blocks.append(_curve(number, seen, gathered.times, fps))
        pictures = _strip(row, gathered, mean, fps)
        if pictures:
            blocks.append(Gallery(pictures))
        title = f"Track {number}: {words.kind_name(row['kind'])}"
        colour = KIND_COLOURS[row["kind"]]
        cards.append(Section(title, f"track-{number}", blocks, colour))
    return Section("Track by track", "details", [], cards=cards)


def _facts(
    row: Row, seen: pd.DataFrame, times: dict[int, float], fps: float
) -> list[tuple[str, str]]:
    first, last = int(row["start_frame"]), int(row["end_frame"])
    span = f"frames {first} to {last}" if last > first else f"frame {first} only"
    when = f"{span}, {_lasts(row, times, fps):.2f} s"
    if row["start_utc"]:
        begin, end = words.clock(row["start_utc"]), words.clock(row["end_utc"])
        when += f"; {begin} to {end} UTC" if last > first else f"; {begin} UTC"
    gone = np.hypot(row["x1_px"] - row["x0_px"], row["y1_px"] - row["y0_px"])
    path = (
        f"from ({row['x0_px']:.1f}, {row['y0_px']:.1f}) "
        f"to ({row['x1_px']:.1f}, {row['y1_px']:.1f}): {words.number(float(gone))} px "
        f"{words.direction(row['angle_deg'])}, {words.number(row['speed_px_s'])} px/s"
    )
    if last == first:
        path = f"at ({row['x0_px']:.1f}, {row['y0_px']:.1f})"
    flux, error = seen["flux"].to_numpy(), seen["flux_err"].to_numpy()
    return [
        ("Kind", f"{row['kind']}, {words.sureness(float(str(row['probability'])))} sure"),
        ("Seen", when),
        ("Path", path),
        (
            "Position",
            f"known to ±{words.number(float(np.median(seen['x_err'])), 2)} px in x and "
            f"±{words.number(float(np.median(seen['y_err'])), 2)} px in y in a typical frame",
        ),
        (
            "Brightness",
            f"{words.number(float(np.median(flux)))} ± {words.number(float(np.median(error)), 2)} "
            "grey levels in a typical frame",
        ),
        ("Signal", words.signal(row["snr_frame"], row["snr_track"])),
    ]


def _strip(row: Row, gathered: Gatherer, mean: Pixels, fps: float) -> list[Picture]:
    """The cut-outs of a track; for a faint one also its stack along the motion."""
    number, colour = int(row["track_id"]), KIND_COLOURS[row["kind"]]
    # A recording that breaks off may end before a track does.
    crops = gathered.strips.get(number, [])
    if not crops:
        return []
    pictures = []
    for crop, drawn in zip(crops, strip_pictures(crops, colour), strict=True):
        when = f"frame\u00a0{crop.frame} {_seconds(crop.frame, gathered.times, fps):.2f}\u00a0s"
        alt = f"48 × 48 pixels round track {number} in frame {crop.frame}"
        pictures.append(Picture(encode_png(drawn), alt, when, pixelated=True))
    if row["snr_frame"] < words.FAINT_SNR and len(crops) > 1:
        stack, count = gathered.stack(number, mean)
        alt = f"{count} frames added along the motion of track {number}"
        caption = f"all {count} frames added along the motion"
        drawn = stack_picture(stack, colour)
        pictures.append(Picture(encode_png(drawn), alt, caption, pixelated=True, large=True))
    return pictures


def _curve(number: int, seen: pd.DataFrame, times: dict[int, float], fps: float) -> Drawing:
    time = np.array([_seconds(frame, times, fps) for frame in seen["frame"].tolist()])
    flux, error = (seen[name].to_numpy(dtype=np.float64) for name in ("flux", "flux_err"))
    svg, group = light_curve(time, flux, error, f"Light curve of track {number}")
    caption = "Brightness in grey levels against time, with 1-sigma errors"
    caption += f"; each point is the mean of {group} frames." if group > 1 else "."
    return Drawing(svg, caption)


def run_section(
    out: Path, settings: dict[str, object], seconds: dict[str, float], frames: int, speed_up: float
) -> Section:
    names = words.files_in(out, ["preview.png"])
    rows = [[Cell(name, name), Cell(words.FILES[name])] for name in names]
    blocks: list[Block] = [Table(["file", "what it holds"], rows)]
    if abs(speed_up - 1) > 1e-3:
        text = f"annotated.mp4 plays at {words.number(speed_up)} times the recording's speed."
        blocks.append(Text(text, muted=True))
    if settings:
        blocks.append(Text("Settings of the search:"))
        blocks.append(Facts([(name, str(value)) for name, value in settings.items()]))
    if seconds:
        steps = [
            [Cell(name), Cell(f"{taken:.2f}"), Cell(words.number(frames / max(taken, 1e-9)))]
            for name, taken in seconds.items()
        ]
        head = ["step", "seconds", "frames/s"]
        blocks.append(Table(head, steps, frozenset(head[1:])))
    return Section("Files and settings", "run", blocks)
