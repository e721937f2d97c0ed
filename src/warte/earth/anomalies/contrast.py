"""Small things that are brighter or darker than all that surrounds them.

An area opening of a picture removes every bright structure of fewer pixels than a limit, whatever
its shape; the picture minus its opening is what was removed. The same on the negative gives the
dark ones. Attribute filters: Breen and Jones, CVIU 64 (1996) 377. For hyperspectral anomalies:
Kang et al., IEEE TGRS 55 (2017) 5600 (first component, one area); here on several components and
areas, and without binary maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from warte.earth.anomalies.background import FloatArray, Patch, View
from warte.earth.scene import BoolArray, Float32Array

LEVELS = 64  # at which a component is cut; they are counted in 8 bits
TRIMMED = 1e-3  # share of pixels beyond the first and the last level
# Objects a half and a quarter as large as the largest are looked for, too: a small limit sees
# small objects that stand near each other, a large one whole objects.
SHARES = (0.25, 0.5, 1.0)
# A pixel between an object and its surroundings holds some of both: neighbours count a little.
KERNEL = np.array([0.1065, 0.7870, 0.1065])  # a Gaussian of 0.5 pixels
REACH = 1  # pixels of the kernel on each side


@dataclass(frozen=True)
class Structures:
    """Small structures of a window.

    strength: (rows, columns), of all components together, 0 where not valid. heights:
    (components, rows, columns), how far a pixel stands above or, negative, below its surroundings.
    """

    strength: Float32Array
    heights: Float32Array


@dataclass(frozen=True)
class Contrast:
    """How small structures are looked for.

    levels: (components, LEVELS), rising. areas: limits (pixels). deviations: (components,),
    standard deviations of the components.
    """

    levels: FloatArray
    areas: tuple[int, ...]
    deviations: FloatArray

    def structures(self, view: View) -> Structures:
        """The small structures of a window.

        Each component counts by the square root of its deviation: between what is strong in the
        picture (no weight) and what is rare in it (its inverse deviation, as RX does).
        """
        squares = np.zeros((len(self.areas), *view.valid.shape))
        heights = np.zeros(view.components.shape, np.float32)
        for number, (plane, levels) in enumerate(zip(view.components, self.levels, strict=True)):
            bright = removed(plane, view.valid, levels, self.areas)
            dark = removed(-plane, view.valid, -levels[::-1], self.areas)
            weight = self.deviations[0] / self.deviations[number]
            squares += weight * (bright.astype(np.float64) + dark) ** 2
            heights[number] = (bright - dark).mean(axis=0)
        strength = _smoothed(np.sqrt(squares).mean(axis=0), view.valid)
        return Structures(strength.astype(np.float32), heights)


def fit_contrast(patches: list[Patch], largest: int, deviations: FloatArray) -> Contrast:
    """Levels that span the components of a sample; largest: pixels of the largest object."""
    sample = np.concatenate([patch.of(patch.view.components) for patch in patches], axis=1)
    low, high = np.quantile(sample.astype(np.float64), [TRIMMED, 1 - TRIMMED], axis=1)
    levels = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, LEVELS)
    areas = tuple(sorted({max(2, round(largest * share)) for share in SHARES}))
    return Contrast(levels, areas, deviations[: len(levels)])


def removed(
    plane: npt.NDArray[np.floating], valid: BoolArray, levels: FloatArray, areas: tuple[int, ...]
) -> Float32Array:
    """What area openings of these limits remove from a picture, (areas, rows, columns), from 0.

    plane: (rows, columns). levels: (L,), rising; the opening takes one of them, and one step is
    taken off, so that no value between two levels counts as a structure. Pixels that are not valid
    belong to no structure and are 0.
    """
    highest = np.zeros((len(areas), *plane.shape), np.uint8)
    for number, level in enumerate(levels):
        above = (plane >= level) & valid
        if not above.any():
            break
        _, labels = cv2.connectedComponents(above.view(np.uint8), connectivity=8)
        pixels = np.bincount(labels.ravel())
        pixels[0] = 0  # what lies below the level
        reached = np.searchsorted(areas, pixels, side="right").astype(np.uint8)[labels]
        for area in range(len(areas)):
            np.putmask(highest[area], reached > area, number)
    step = levels[1] - levels[0]
    return np.where(valid, np.maximum(plane - levels[highest] - step, 0), 0).astype(np.float32)


def _smoothed(image: FloatArray, valid: BoolArray) -> FloatArray:
    """Weighted mean of the valid pixels among a pixel and its neighbours."""

    def spread(values: FloatArray) -> FloatArray:
        for axis in (0, 1):
            values = ndimage.correlate1d(values, KERNEL, axis=axis, mode="constant")
        return values

    weights = np.maximum(spread(valid.astype(np.float64)), KERNEL[0] ** 2)
    return np.where(valid, spread(np.where(valid, image, 0.0)) / weights, 0.0)
