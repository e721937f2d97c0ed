"""Findings in words, for a person with a camera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from warte.sky.tables import KINDS

# A per-frame SNR below this is not seen by eye in a single frame.
FAINT_SNR = 4.0

_ONE_AND_MANY = {
    "satellite": ("satellite", "satellites"),
    "aircraft": ("aircraft", "aircraft"),
    "meteor": ("meteor", "meteors"),
    "unknown": ("unidentified mover", "unidentified movers"),
}
_WAYS = (
    "to the right", "to the lower right", "downwards", "to the lower left",
    "to the left", "to the upper left", "upwards", "to the upper right",
)  # fmt: skip
# What the files of a result hold.
FILES = {
    "tracks.csv": "one row per track",
    "observations.csv": "one row per track and frame: position, brightness, errors",
    "annotated.mp4": "the recording with the tracks drawn",
    "preview.png": "the sky with all tracks",
    "run.json": "how this result was made: command, versions, inputs, times",
}
HOW_TO_READ = (
    "The picture of the sky joins all frames. Stars are points (or short arcs, where the sky "
    "drifts); everything that moved against them has left a trail. A ring marks where a track "
    "starts, an arrow where it ends and which way it went.",
    "The strips show the sky round an object in single frames; the marks point at where the "
    "program holds it to be. An object whose signal is below about 4 times the noise cannot be "
    "seen there. For these, a last picture adds up all frames along the motion: the object becomes "
    "a point, and stars smear out. If you see no point in it, doubt the track.",
    "'Signal' is brightness over noise (SNR) after the best filter for a point of light: in a "
    "typical single frame, and in all frames of the track together. The second is what decides "
    "whether a track is real.",
    "The kind is a judgement from speed, length, shape and brightness, with its probability. It "
    "is about the kind alone and does not say that something is there; the signal does. Below "
    "about 80 % look for yourself. An aircraft often blinks, a meteor lasts a fraction of a "
    "second, a satellite moves evenly and may fade as it enters the Earth's shadow.",
    "Positions are in pixels: x to the right, y down, counted from 0 at the middle of the upper "
    "left pixel. Errors are 1 sigma: about two thirds of the true values lie within them. "
    "Brightness is in the recording's own grey levels, not in magnitudes.",
)


def headline(kinds: Sequence[str], frames: int) -> str:
    """'3 satellites, 1 aircraft and 1 meteor in 200 frames'."""
    frames_text = f"{frames} frame" if frames == 1 else f"{frames:,} frames"
    counted = Counter(kinds)
    parts = [count_of(kind, counted[kind]) for kind in KINDS if counted[kind]]
    if not parts:
        return f"Nothing that moves was found in {frames_text}"
    first = ", ".join(parts[:-1])
    return f"{first} and {parts[-1]} in {frames_text}" if first else f"{parts[0]} in {frames_text}"


def count_of(kind: str, number: int) -> str:
    """'1 satellite', '2 satellites', '2 aircraft'."""
    return f"{number:,} {_ONE_AND_MANY[kind][number != 1]}"


def kind_name(kind: str) -> str:
    """The kind as it stands in a title."""
    return _ONE_AND_MANY[kind][0]


def direction(angle_deg: float) -> str:
    """Way of a motion: 0 degrees is to the right, 90 down the picture."""
    return _WAYS[round(angle_deg / 45.0) % 8]


def sureness(probability: float) -> str:
    """A probability of 0..1 as percent; never 'all' or 'none' of it."""
    percent = 100 * probability
    if percent > 99.5:
        return "over 99 %"
    if percent < 0.5:
        return "under 1 %"
    return f"{percent:.0f} %"


def clock(utc: str, digits: int = 2) -> str:
    """'2024-05-01T20:15:03.480000Z' as '20:15:03.48'; '' for ''."""
    if not utc:
        return ""
    time = utc.split("T")[1].removesuffix("Z")
    return time[: len("20:15:03.") + digits]


def signal(snr_frame: float, snr_track: float) -> str:
    """The SNR of a track in words."""
    if snr_frame < 2:
        seen = "far too faint to see there"
    elif snr_frame < FAINT_SNR:
        seen = "hard or impossible to see there"
    elif snr_frame < 8:
        seen = "just visible there"
    else:
        seen = "plain to see"
    return (
        f"{snr_frame:.1f} times the noise in a typical frame ({seen}), "
        f"{snr_track:.1f} in all its frames together"
    )


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent where that is readable."""
    if not np.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
        return f"{value:,.{places}f}"
    return f"{value:.{digits - 1}e}"


def files_in(folder: Path, coming: Sequence[str]) -> list[str]:
    """Names of the result files that are in the folder or still to come, in the usual order."""
    return [name for name in FILES if name in coming or (folder / name).exists()]
