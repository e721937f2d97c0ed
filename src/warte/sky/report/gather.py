"""What the report needs from the frames, taken in one pass: sums, cut-outs, stacks, times."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from warte.sky.read import Frame
from warte.sky.report.look import Bytes, FloatArray, Pixels, bgr, level_and_noise

CROP_PX = 48
STRIP_FRAMES = 8


@dataclass(frozen=True)
class Crop:
    """A cut-out round a track's position in one frame."""

    frame: int
    pixels: Pixels  # (CROP_PX, CROP_PX) grey levels; NaN outside the recording


class Gatherer:
    """Takes frames in their order; its memory depends on the tracks, not on the frames.

    observations: of the tracks to be shown (columns track_id, frame, x, y).
    stacked: track_ids of which a stack along the motion is wanted too.
    """

    def __init__(self, width: int, height: int, observations: pd.DataFrame, stacked: set[int]):
        self.frames = 0
        self.last_time_s = 0.0
        self.times: dict[int, float] = {}  # seconds since frame 0 of the observed frames
        self.strips: dict[int, list[Crop]] = {}
        self._total = np.zeros((height, width), dtype=np.float64)
        self._brightest = np.full((height, width), -np.inf, dtype=np.float32)
        self._sums: dict[int, FloatArray] = {}
        self._counts: dict[int, int] = {}
        self._stacked = stacked
        self._work = _with_strips(observations).sort_values("frame", kind="stable")
        self._at = self._work["frame"].to_numpy()

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        cv2.accumulate(frame.pixels, self._total)
        cv2.max(self._brightest, frame.pixels, self._brightest)
        self.frames += 1
        self.last_time_s = frame.time_s
        first, after = np.searchsorted(self._at, [frame.index, frame.index + 1])
        if after > first:
            self.times[frame.index] = frame.time_s
            self._cut(frame, self._work.iloc[first:after])

    def _cut(self, frame: Frame, work: pd.DataFrame) -> None:
        columns = (work[name].tolist() for name in ("track_id", "x", "y", "in_strip"))
        for track_id, x, y, in_strip in zip(*columns, strict=True):
            if in_strip:
                crop = cut_inside(frame.pixels, round(x), round(y))
                if np.isfinite(crop).any():
                    self.strips.setdefault(track_id, []).append(Crop(frame.index, crop))
            if track_id in self._stacked:
                total = self._sums.setdefault(track_id, np.zeros((CROP_PX, CROP_PX)))
                total += cut(frame.pixels, x, y)
                self._counts[track_id] = self._counts.get(track_id, 0) + 1

    @property
    def mean(self) -> Pixels:
        """(H, W) mean of all frames."""
        return (self._total / max(1, self.frames)).astype(np.float32)

    @property
    def brightest(self) -> Pixels:
        """(H, W) maximum of all frames."""
        return self._brightest

    def stack(self, track_id: int, mean: Pixels) -> tuple[Pixels, int]:
        """Mean of the cut-outs along a track less what stands still, and their number.

        What stands still is the mean of the same cut-outs from the mean frame: stars that the
        track passes are gone without a second look at the recording.
        """
        count = self._counts[track_id]
        mine = self._work[
            (self._work["track_id"] == track_id) & self._work["frame"].isin(self.times)
        ]
        still = np.zeros((CROP_PX, CROP_PX))
        for x, y in zip(mine["x"].tolist(), mine["y"].tolist(), strict=True):
            still += cut(mean, x, y)
        moving = (self._sums[track_id] - still) / count
        return (moving - np.median(moving)).astype(np.float32), count


def cut(pixels: Pixels, x: float, y: float) -> Pixels:
    """(CROP_PX, CROP_PX) round a position, interpolated linearly; edges are carried on.

    The position comes to lie on the centre of pixel (CROP_PX / 2, CROP_PX / 2).
    """
    # OpenCV centres an even patch between two pixels.
    return cv2.getRectSubPix(pixels, (CROP_PX, CROP_PX), (x - 0.5, y - 0.5))  # type: ignore[return-value]


def cut_inside(pixels: Pixels, x: int, y: int) -> Pixels:
    """The same round the centre of a pixel, NaN where the recording has none."""
    crop = cut(pixels, x, y)
    for axis, at in enumerate((y, x)):
        place = np.arange(CROP_PX) + at - CROP_PX // 2
        outside = (place < 0) | (place >= pixels.shape[axis])
        crop[(slice(None),) * axis + (outside,)] = np.nan
    return crop


def _with_strips(observations: pd.DataFrame) -> pd.DataFrame:
    """The observations with `in_strip`: whether the frame is one of those shown of its track."""
    table = observations[["track_id", "frame", "x", "y"]].sort_values(["track_id", "frame"])
    chosen = np.zeros(len(table), dtype=bool)
    for rows in table.reset_index(drop=True).groupby("track_id").indices.values():
        spread = np.linspace(0, len(rows) - 1, min(STRIP_FRAMES, len(rows)))
        chosen[rows[np.rint(spread).astype(int)]] = True
    return table.assign(in_strip=chosen)


def strip_pictures(crops: list[Crop], colour: str) -> list[Bytes]:
    """BGR pictures of the cut-outs of one track on one common scale, the position marked."""
    # Each on its own sky, which is not equally bright everywhere.
    every = np.stack([crop.pixels - np.nanmedian(crop.pixels) for crop in crops])
    noise = level_and_noise(every[np.isfinite(every)])[1]
    middle = slice(CROP_PX // 2 - 3, CROP_PX // 2 + 4)
    peak = float(np.nanmax(every[:, middle, middle], initial=0.0))
    return [_as_picture(pixels, noise, peak, colour) for pixels in every]


def stack_picture(stack: Pixels, colour: str) -> Bytes:
    """BGR picture of a stack along the motion."""
    middle = slice(CROP_PX // 2 - 3, CROP_PX // 2 + 4)
    return _as_picture(stack, level_and_noise(stack)[1], float(stack[middle, middle].max()), colour)


def _as_picture(pixels: Pixels, noise: float, peak: float, colour: str) -> Bytes:
    """Pixels less their sky, from black at -2 times the noise to white at the peak; NaN black."""
    # Noise stays dark grey, and the object is white unless it drowns in the noise.
    white = max(peak, 6 * noise, 1e-12)
    shown = np.clip((pixels + 2 * noise) / (white + 2 * noise), 0, 1) ** 0.8
    picture = cv2.cvtColor(np.rint(255 * np.nan_to_num(shown)).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    centre, inner, outer = CROP_PX // 2, 7, 12
    for sign in (-1, 1):
        near, far = centre + sign * inner, centre + sign * outer
        cv2.line(picture, (near, centre), (far, centre), bgr(colour))
        cv2.line(picture, (centre, near), (centre, far), bgr(colour))
    return picture


def sky_picture(mean: Pixels, brightest: Pixels) -> Bytes:
    """(H, W) bytes: stars from the mean frame, trails from what was once brighter than it."""
    stars = _in_noise(mean)
    trails = _in_noise(brightest - mean)
    # The mean of many frames has little noise; its scale follows its stars, or all were white.
    white = float(np.clip(3 * np.percentile(stars[::2, ::2], 99.5), 60, 5000))
    dark = (1 - _bend(stars, white)) * (1 - 0.9 * _bend(trails, 25.0))
    shown = 255 * (1 - dark)
    # Stars that drift far fill the picture with trails; darker, they leave the tracks to be seen.
    shown *= np.clip(10.0 / max(float(shown.mean()), 1e-6), 0.45, 1.0)
    return np.rint(shown).astype(np.uint8)


def _in_noise(pixels: Pixels) -> Pixels:
    """Less the smooth background, in units of the remaining noise."""
    height, width = pixels.shape
    # Medians of about 32 px wide cells follow sky glow and vignetting but not the trails.
    size = (max(2, width // 32), max(2, height // 32))
    # OpenCV takes medians of floats over at most 5 x 5, so cells are averaged first.
    cells = cv2.medianBlur(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), 5)
    flat = pixels - cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
    sample = flat[:: max(1, height // 400), :: max(1, width // 400)]
    level, noise = level_and_noise(sample)
    bright = float(np.percentile(sample, 99.9)) - level
    return (flat - level) / max(noise, bright / 200, 1e-6 * float(np.abs(pixels).max()), 1e-12)


def _bend(value: Pixels, white: float) -> Pixels:
    """asinh from 1 (black) to `white`, as 0..1."""
    soft = white / 12
    return np.clip(np.arcsinh((value - 1) / soft) / np.arcsinh(white / soft), 0, 1)
