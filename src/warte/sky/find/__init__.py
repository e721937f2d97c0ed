"""Find everything that moves against the stars in a recording.

The steps, each a module with functions of arrays: ``register`` (the stars' motion), ``prepare``
(sky and stars removed, noise measured), ``detect`` (bright movers, U-Net), ``link`` (blobs to
tracklets), ``stack`` and ``refine`` (faint movers, shift and stack), ``faint`` (the decision),
``fit`` (maximum likelihood), ``join`` (one track per mover), ``kind`` (what it is).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from warte.core.errors import InputError, SettingsError
from warte.sky.find import chance, detect, faint, link
from warte.sky.find.accept import is_bright_mover
from warte.sky.find.fit import Fit, MatchedFrames, fit_trail
from warte.sky.find.half import half, single
from warte.sky.find.join import Track, track_of
from warte.sky.find.join import join as join_tracks
from warte.sky.find.kind import Kinds, load_kinds
from warte.sky.find.prepare import Window
from warte.sky.find.prepare import prepare as prepare_window
from warte.sky.read import Recording
from warte.sky.tables import Tracks, empty_tracks, format_utc, summarise

WINDOW_FRAMES = 128  # of a picture of up to WINDOW_PIXELS
WINDOW_PIXELS = 420_000
SMALLEST_WINDOW = 64
OVERLAP_FRAMES = 24
SMALLEST_SIDE = 8  # pixels

Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class FindSettings:
    """How to look."""

    speed_max_px: float = 15.0  # fastest motion of the faint search (pixels per frame)
    faint: bool = True  # search for movers too faint for any single frame
    false_tracks: float = 0.05  # faint tracks that noise alone may make (per window of 100 frames)

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed_max_px <= 60:
            raise SettingsError(
                f"--speed-max is {self.speed_max_px:g}; allowed is 0.5 to 60 pixels per frame"
            )
        if not 1e-9 <= self.false_tracks <= 10:
            raise SettingsError(
                f"--false-tracks is {self.false_tracks:g}; allowed is 1e-9 to 10 per 100 frames"
            )


@dataclass(frozen=True)
class Finding:
    """What ``find`` returns. ``seconds``: wall time of each step. ``frames``: read in all."""

    found: Tracks
    seconds: dict[str, float]
    warnings: list[str]
    frames: int


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def find(
    recording: Recording,
    settings: FindSettings | None = None,
    *,
    device: str = "cpu",
    weights: Path | None = None,
    report: Report | None = None,
) -> Finding:
    """Find satellites, aircraft and meteors in ``recording``.

    ``device``: of the U-Net and the stack search (cpu or cuda). ``weights``: a folder that
    ``warte sky train`` made; None takes those of the package. ``report`` is called with a step's
    name, the frames done and their number. Memory does not grow with the recording's length.
    Raises InputError where the pictures hold nothing to work on (tiny, constant or saturated).
    """
    settings = settings or FindSettings()
    network = detect.load(None if weights is None else weights / detect.WEIGHTS, device)
    kinds = load_kinds(weights)
    clock = _Clock()
    warnings: list[str] = []
    tracks: list[Fit] = []
    times: list[tuple[float, np.datetime64 | None]] = []
    source = windows(recording, times)
    done = 0
    while True:
        with clock.step("read"):
            item = next(source, None)
        if item is None:
            break
        first, frames = item
        del item
        if first == 0:
            check_pictures(frames, recording)
        known, done = max(0, done - first), first + len(frames)
        with clock.step("prepare"):
            window = prepare_window(frames, first, recording.levels)
        del frames  # its memory is needed
        matched = MatchedFrames(window)
        with clock.step("bright"):
            bright = find_bright(window, matched, network, device, settings.speed_max_px)
        tracks += bright
        if settings.faint:
            with clock.step("faint"):
                mask(window, matched, bright)
                limits = faint.FaintSettings(
                    speed_max_px=settings.speed_max_px, false_tracks=settings.false_tracks
                )
                tracks += faint.search_window(window, matched, limits, device, known)
        warnings += _star_warnings(window, warnings)
        if report is not None:
            report("finding", done, recording.frame_count)
        del window, matched
    with clock.step("join"):
        joined = join_tracks([track_of(fit) for fit in tracks])
        found = tabulate(joined, kinds, recording.fps, times)
    return Finding(found, clock.seconds, [*recording.warnings, *warnings], len(times))


def window_length(pixels: int) -> int:
    """Frames of a window: fewer for large pictures, so that memory stays bounded."""
    fit = round(WINDOW_FRAMES * WINDOW_PIXELS / max(1, pixels))
    return int(np.clip(fit // 32 * 32, SMALLEST_WINDOW, WINDOW_FRAMES))


def window_starts(count: int, length: int) -> list[int]:
    """First frames of windows of ``length`` that cover ``count`` frames evenly.

    Neighbours share OVERLAP_FRAMES or more.
    """
    number = max(1, -(-(count - OVERLAP_FRAMES) // (length - OVERLAP_FRAMES)))
    return [round(k) for k in np.linspace(0, max(0, count - length), number)]


def windows(
    recording: Recording, times: list[tuple[float, np.datetime64 | None]]
) -> Iterator[tuple[int, np.ndarray]]:
    """(first frame, frames (T, H, W) float32) of overlapping stretches; fills ``times``.

    Where the number of frames is not known, or the file breaks off, the last one is shorter.
    """
    length = window_length(recording.width * recording.height)
    step = length - OVERLAP_FRAMES
    starts = iter(window_starts(recording.frame_count or 0, length)[1:])
    small = recording.saturation is not None and recording.saturation <= 255
    kept: list[np.ndarray] = []
    first, new = 0, 0
    for frame in recording.frames():
        times.append((frame.time_s, frame.utc))
        # eight bits fit into half floats, stretched ones to a tenth of a level
        kept.append(half(frame.pixels) if small else frame.pixels)
        new += 1
        if len(kept) == length:
            yield first, _stack(kept)
            following = next(starts, first + step)
            kept, first, new = kept[following - first :], following, 0
    if new:
        yield first, _stack(kept)


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    """One float32 array (T, H, W), without a second copy."""
    out = np.empty((len(frames), *frames[0].shape), np.float32)
    for k, frame in enumerate(frames):
        out[k] = single(frame)
    return out


def check_pictures(frames: np.ndarray, recording: Recording) -> None:
    """Raise InputError where the first window is tiny, constant or full throughout."""
    height, width = frames.shape[1:]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{recording.path}: the pictures are {width}x{height} pixels; movers are looked for in "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE} or more"
        )
    low, high = float(frames.min()), float(frames.max())
    if low == high:
        raise InputError(
            f"{recording.path}: all pixels are {low:g}; nothing can be found in a constant "
            "picture, check the camera and the export"
        )
    limit = recording.saturation
    if limit is not None and float(np.median(frames[:: max(1, len(frames) // 8)])) >= limit:
        raise InputError(
            f"{recording.path}: more than half of the pixels are saturated ({limit:g}); "
            "film with less gain or a shorter exposure"
        )


def find_bright(
    window: Window, matched: MatchedFrames, network: detect.UNet, device: str, speed_max: float
) -> list[Fit]:
    """Movers that the U-Net sees, linked and fitted."""
    probability = detect.motion_map(window, network, device)
    blobs = link.blobs_of(detect.detections(window, probability))
    fits = []
    for chain in link.link(blobs, max(speed_max, 30.0)):
        frames = np.arange(blobs.frame[chain[0]], blobs.frame[chain[-1]] + 1)
        star = np.stack([np.interp(frames, blobs.frame[chain], blobs.xy[chain, k]) for k in (0, 1)])
        streaked = float(np.median(np.hypot(*blobs.streak[chain].T)) > 0)
        fit = fit_trail(matched, frames, star.T, streaked, (1, 2, 3, 5, 8, 12))
        standing = chance.standing(matched, fit)
        score = float(standing.sum() / np.sqrt(max(1, len(standing))))
        if is_bright_mover(fit, window, chance.stand_out(chance.chances_of(matched, fit), score)):
            fits.append(fit)
    return fits


def mask(window: Window, matched: MatchedFrames, fits: list[Fit]) -> None:
    """Blank bright movers in the window's cells, so that the faint search does not see them."""
    height, width = window.cells.shape[1:]
    for fit in fits:
        t = fit.frame - window.first
        x = (fit.star_x - (window.cell - 1) / 2) / window.cell
        y = (fit.star_y - (window.cell - 1) / 2) / window.cell
        speed = np.hypot(np.gradient(x), np.gradient(y)) if len(t) > 1 else np.zeros(1)
        for k in range(len(t)):
            r = 3 + int(np.ceil(speed[k] / 2)) + int(fit.snr[k] > 50) * 2
            ix, iy = round(float(x[k])), round(float(y[k]))
            rows = slice(max(0, iy - r), max(0, min(height, iy + r + 1)))
            columns = slice(max(0, ix - r), max(0, min(width, ix + r + 1)))
            window.cells[t[k], rows, columns] = 0


def _star_warnings(window: Window, known: list[str]) -> list[str]:
    if np.median(window.agreed) >= 3 or any("few stars" in text for text in known):
        return []
    number = int(np.median(window.agreed))
    return [
        f"few stars to register on ({number} from frame {window.first} on): "
        "the camera is taken to stand still where they do not tell"
    ]


def tabulate(
    tracks: list[Track],
    kinds: Kinds,
    fps: float,
    times: list[tuple[float, np.datetime64 | None]],
) -> Tracks:
    """Tracks as tables, with kinds and times."""
    if not tracks:
        return empty_tracks()
    parts, names, chances = [], {}, {}
    for number, track in enumerate(tracks, start=1):
        names[number], chances[number] = kinds.decide(track, fps)
        parts.append(
            pd.DataFrame(
                {
                    "track_id": number,
                    "frame": track.frame,
                    "utc": [format_utc(times[f][1]) for f in track.frame],
                    **{n: getattr(track, n) for n in ("x", "y", "x_err", "y_err")},
                    "flux": track.flux,
                    "flux_err": track.flux_err,
                }
            )
        )
    return summarise(pd.concat(parts, ignore_index=True), names, chances, fps)
