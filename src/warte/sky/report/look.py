"""How a sky is shown: size, stretch of grey levels, colours of kinds, places of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1

# Told apart by the colour-blind too (after Okabe and Ito 2008), bright enough for a dark sky.
KIND_COLOURS = {
    "satellite": "#4cc3ff",
    "aircraft": "#ffb52e",
    "meteor": "#ff6fae",
    "unknown": "#c3ccd6",
}
# Pictures wider than this are shown smaller, those narrower than the other one larger.
WIDEST_PX = 1920
NARROWEST_PX = 480


@dataclass(frozen=True)
class View:
    """The size at which a recording is shown; `width` and `height` (px) are even for H.264."""

    width: int
    height: int
    scale: float  # shown px per px of the recording

    @classmethod
    def of(cls, width: int, height: int) -> View:
        """The view of a recording of this size in px."""
        longest = max(width, height)
        scale = 1.0
        if longest > WIDEST_PX:
            scale = WIDEST_PX / longest
        elif longest < NARROWEST_PX:
            scale = float(min(8, -(-NARROWEST_PX // longest)))
        shown = [max(2, round(scale * side)) for side in (width, height)]
        return cls(shown[0] + shown[0] % 2, shown[1] + shown[1] % 2, scale)

    @property
    def unit(self) -> float:
        """Size of drawn things: 1 where the longer side has 800 px."""
        return float(np.clip(max(self.width, self.height) / 800, 0.8, 2.5))

    def place(self, x: npt.ArrayLike) -> FloatArray:
        """Coordinates of pixel centres of the recording as those of the view."""
        return (np.asarray(x, dtype=np.float64) + 0.5) * self.scale - 0.5

    def show(self, picture: Bytes) -> Bytes:
        """A picture of the recording's size, (H, W) or (H, W, 3), at the size of the view."""
        if self.scale != 1.0:
            way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_NEAREST
            height, width = (max(1, round(side * self.scale)) for side in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=way)  # type: ignore[assignment]
        picture = picture[: self.height, : self.width]
        below, right = self.height - picture.shape[0], self.width - picture.shape[1]
        if below or right:
            picture = cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        return picture


@dataclass(frozen=True)
class Stretch:
    """Grey levels as bytes: asinh between black and white, so that faint and bright both show."""

    black: float  # grey level shown as 0
    white: float  # grey level shown as 255

    @classmethod
    def of(cls, pixels: Pixels, step: float | None) -> Stretch:
        """From the sky's level and noise in one frame; `step` is the step of grey levels."""
        sample = pixels[:: max(1, pixels.shape[0] // 160), :: max(1, pixels.shape[1] // 160)]
        sky, noise = level_and_noise(sample)
        # Compressed video has next to no noise left: its blocks must not fill the scale.
        bright = float(np.percentile(sample, 99.9)) - sky
        noise = max(noise, step or 0.0, bright / 60, 1e-6 * abs(sky), 1e-12)
        return cls(sky - 3 * noise, sky + 60 * noise)

    def blend(self, other: Stretch, share: float) -> Stretch:
        """This stretch moved towards another one by a share (0..1), so that nothing flickers."""
        black = self.black + share * (other.black - self.black)
        return Stretch(black, self.white + share * (other.white - self.white))

    def apply(self, pixels: Pixels) -> Bytes:
        """(H, W) grey levels as bytes."""
        gain = 255.0 / (self.white - self.black)
        # addWeighted scales, rounds and clips in one pass.
        linear = cv2.addWeighted(pixels, gain, pixels, 0.0, -gain * self.black, dtype=cv2.CV_8U)
        return cv2.LUT(linear, _ASINH)  # type: ignore[return-value]


def _asinh_table(bend: float = 5.0) -> Bytes:
    rising = np.linspace(0, 1, 256)
    return np.rint(255 * np.arcsinh(bend * rising) / np.arcsinh(bend)).astype(np.uint8)


_ASINH = _asinh_table()


def level_and_noise(pixels: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Median, and the standard deviation by the median absolute deviation (x 1.4826)."""
    level = float(np.median(pixels))
    return level, 1.4826 * float(np.median(np.abs(pixels - level)))


def bgr(colour: str) -> tuple[int, int, int]:
    """'#rrggbb' as OpenCV orders it."""
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)


def encode_png(picture: Bytes) -> bytes:
    """(H, W) or (H, W, 3) BGR bytes as a PNG file."""
    return bytes(cv2.imencode(".png", picture)[1])


def encode_jpeg(picture: Bytes, quality: int = 88) -> bytes:
    """The same as a JPEG file."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def put_text(
    picture: Bytes, text: str, at: tuple[float, float], colour: tuple[int, int, int], unit: float
) -> None:
    """Write text with a dark rim into a BGR picture; `at` is its lower left corner."""
    x, y = round(at[0]), round(at[1])
    # The rim is the text itself, shifted: thicker text is also wider in newer OpenCV.
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)):
        ink = colour if dx == dy == 0 else (0, 0, 0)
        where = (x + dx, y + dy)
        cv2.putText(
            picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42 * unit, ink, 1, cv2.LINE_AA
        )


def place_labels(
    paths: Sequence[FloatArray], sizes: Sequence[tuple[float, float]], width: int, height: int
) -> list[tuple[float, float]]:
    """Lower left corners of labels beside their paths, that overlap as little as may be.

    They keep off each other and off all paths.

    paths: for each label the (N, 2) points of the path it belongs to, in px of the view.
    sizes: width and height of each label in px.
    """
    taken: list[Box] = []
    corners = []
    inked = np.concatenate([_dense(points) for points in paths]) if paths else np.zeros((0, 2))
    for points, (wide, high) in zip(paths, sizes, strict=True):
        best, least = (0.0, 0.0), np.inf
        for x, y in _spots(points, wide, high):
            # Kept within the picture.
            x = float(np.clip(x, 2, max(2, width - wide - 2)))
            y = float(np.clip(y, high + 2, max(high + 2, height - 3)))
            spot = (x, y - high, x + wide, y)
            clash = sum(_overlap(spot, box) for box in taken) + 4.0 * _hits(spot, inked)
            if clash < least - 1e-9:
                best, least = (x, y), clash
            if clash == 0:
                break
        taken.append((best[0], best[1] - high, best[0] + wide, best[1]))
        corners.append(best)
    return corners


def _spots(points: FloatArray, wide: float, high: float) -> list[tuple[float, float]]:
    """Places round the end, the start and the middle of a path, the best first."""
    gap = 0.7 * high
    around = [(gap, -gap), (gap, high + gap), (-wide - gap, -gap), (-wide - gap, high + gap)]
    anchors = [points[-1], points[0], points[len(points) // 2], points[len(points) // 4]]
    return [(float(x) + dx, float(y) + dy) for x, y in anchors for dx, dy in around]


def _dense(points: FloatArray, spacing: float = 4.0) -> FloatArray:
    """Points along a path at a spacing in px, at most 500 of them."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, length[-1], int(np.clip(length[-1] / spacing, 1, 499)) + 1)
    return np.stack([np.interp(at, length, points[:, axis]) for axis in (0, 1)], axis=1)


def _hits(box: Box, points: FloatArray) -> int:
    """How many points lie in a box."""
    inside = (points >= (box[0], box[1])) & (points <= (box[2], box[3]))
    return int(np.count_nonzero(inside.all(axis=1)))


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
