"""How far regions of a background of correlated pixels stand above the threshold by chance.

Pixels next to each other are alike in every real picture: optics, resampling, the ground itself.
So the scores of a region are not independent, and they are higher together than those of
independent pixels. How much is seen in pictures that have the means, the power spectra and the
cross spectra of this one, and no objects: its Fourier transform with random phases, the same in all
bands (Prichard and Theiler, Physical Review Letters 73 (1994) 951), scored as it is. Where the
scene is rough and where it is smooth stays. What is measured of a region is its mass, the sum of
what its scores have above the threshold (Bullmore et al., IEEE Transactions on Medical Imaging 18
(1999) 32): it asks for height and for size.

"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from scipy import ndimage

from warte.core.data.tiles import Window
from warte.core.execute import ordered
from warte.earth.anomalies.background import Background, FloatArray, Report
from warte.earth.anomalies.contrast import TRIMMED
from warte.earth.anomalies.score import Scorer
from warte.earth.anomalies.tail import fit_tail
from warte.earth.scene import BoolArray, Pixels, Scene

PIECES = 12  # that are drawn with random phases; pieces of a small scene several times
AROUND = 64  # pixels around a piece of the sample that are drawn with it
FEWEST = 20  # regions whose masses have a shape that can be fitted
HEAVIEST = 0.9  # shape of the tail at most; at 1 it has no mean
ROUGH_SIDE = 31  # side of the squares in which roughness is measured (pixels)
SMOOTHEST = 0.1  # of the mean roughness: what is smoother counts as this
TOUCHING = np.ones((3, 3))  # by an edge or a corner


@dataclass(frozen=True)
class Law:
    """Masses of the regions of a background: a generalised Pareto law above `start`.

    rate: regions per pixel whose mass is more than `start`. scale, shape: of what is beyond.
    """

    start: float
    rate: float
    scale: float
    shape: float

    def chance(self, masses: FloatArray, pixels: int) -> FloatArray:
        """How many regions of such a mass or more chance makes in a picture of so many pixels.

        Infinite where the mass is not above the start of the law.
        """
        scale = max(self.scale, np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            above = np.maximum(masses - self.start, 0) / scale
            thinned = np.log1p(self.shape * above) / self.shape if self.shape > 1e-6 else above
        return np.where(masses > self.start, self.rate * pixels * np.exp(-thinned), np.inf)


def texture_law(
    scene: Scene,
    scorer: Scorer,
    threshold: float,
    seed: int,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Law:
    """Masses of regions in pieces of the scorer's sample that were drawn with random phases.

    No more pixels of a background score high than are meant to. Where random phases make colours
    that the scene has not, as between fields of a few materials, more do: then a score counts as
    much as is rare among them.
    """
    shape = scene.grid.shape
    places = [place.grown(AROUND, *shape) for place in scorer.sample]
    # Of many places as many as there are pieces, spread evenly; a few give several pieces each.
    count = len(places)
    chosen = [n * count // PIECES if count > PIECES else n % count for n in range(PIECES)]
    pieces = [(places[index], number) for number, index in enumerate(chosen)]
    work = partial(_drawn, scene, scorer, seed)
    drawn = []
    for done, score in enumerate(ordered(pool, work, pieces), 1):
        drawn.append(score)
        if report is not None:
            report("texture", done, PIECES)
    scores = [score[np.isfinite(score)] for score in drawn]
    tail = fit_tail(np.concatenate(scores))
    found = [_masses(np.minimum(score, tail.rarity(score)), threshold) for score in drawn]
    return fit_law(np.concatenate(found), sum(len(score) for score in scores))


def fit_law(masses: FloatArray, pixels: int) -> Law:
    """The law of the larger half of masses; pixels: in which they were found.

    By probability-weighted moments (Hosking and Wallis, Technometrics 29 (1987) 339): the variance
    of what is rough in some places and smooth in others says too little about its tail.
    """
    start = float(np.median(masses)) if len(masses) else 0.0
    beyond = np.sort(masses[masses > start]) - start
    count = len(beyond)
    rate = (count + 1) / pixels
    if count == 0:
        return Law(start, rate, start, 0.0)
    mean, shape = float(beyond.mean()), 0.0
    if count >= FEWEST:
        share_above = np.arange(count - 1, -1, -1) / (count - 1)
        spacing = mean - 2 * float((beyond * share_above).mean())
        shape = min(max(2 - mean / spacing, 0.0), HEAVIEST) if spacing > 0 else 0.0
    # Few masses say little about the scale: it may be one standard error larger.
    scale = mean * (1 - shape) * (1 + 1 / math.sqrt(count))
    return Law(start, rate, scale, shape)


def _drawn(scene: Scene, scorer: Scorer, seed: int, piece: tuple[Window, int]) -> FloatArray:
    """Scores of one piece with random phases, NaN where not valid."""
    place, number = piece
    pixels = scene.read(place)
    drawn = random_phases(pixels, scorer.background, np.random.default_rng([seed, number]))
    (score,) = scorer([drawn])["anomaly.tif"].astype(np.float64)
    return np.where(pixels.valid, score, np.nan)


def _masses(score: FloatArray, threshold: float) -> FloatArray:
    """What the scores of each region have above the threshold; NaN belongs to none."""
    above = score > threshold
    labels, count = ndimage.label(above, TOUCHING)
    masses = np.bincount(labels[above], score[above] - threshold, count + 1)[1:]
    return masses.astype(np.float64)


def random_phases(pixels: Pixels, background: Background, generator: np.random.Generator) -> Pixels:
    """A window of the same means, spectra and ranges in which nothing stands out but by chance.

    It is as rough around each pixel as the scene is. Principal components are drawn; none goes
    beyond what it reaches in the window: fields of a few materials have no such tails as a sum of
    waves. Pixels that are not valid count as the mean, and what they lack in power is made up for.
    """
    known = pixels.valid
    noise = np.fft.rfft2(generator.normal(size=known.shape))
    phases = noise / np.maximum(np.abs(noise), np.finfo(np.float64).tiny)
    flat = pixels.values[:, known].astype(np.float64) - background.mean[:, None]
    turned = background.axes.T @ flat
    rough = _roughness(turned, known)
    for component in turned:
        mean = component.mean()
        away = np.zeros(known.shape)
        away[known] = (component - mean) / rough
        waves = rough * np.fft.irfft2(np.fft.rfft2(away) * phases, s=known.shape)[known]
        waves -= waves.mean()
        waves *= component.std() / max(float(waves.std()), np.finfo(np.float64).tiny)
        np.clip(waves + mean, component.min(), component.max(), out=component)
    drawn = np.full(pixels.values.shape, np.nan, np.float32)
    drawn[:, known] = background.axes @ turned + background.mean[:, None]
    return Pixels(drawn, known, pixels.window)


def _roughness(components: FloatArray, known: BoolArray) -> FloatArray:
    """How much the scene varies around each valid pixel, on average 1; all components count alike.

    Medians of distances from medians, so that small objects do not count. Pixels that are not valid
    are filled with the nearest that is.
    """
    numbers = np.zeros(known.shape, np.int64)
    numbers[known] = np.arange(components.shape[1])
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = numbers[tuple(nearest)]
    total = np.zeros(known.shape)
    for component in components:
        plane = component[filled]
        spread = _medians(np.abs(plane - _medians(plane)))
        typical = float(spread[known].mean())
        total += spread / typical if typical > 0 else 1.0
    return np.maximum(total[known] / len(components), SMOOTHEST)


def _medians(plane: FloatArray) -> FloatArray:
    """Medians of the squares around each pixel, to a part in 255 of the range without outliers."""
    low, high = np.quantile(plane, [TRIMMED, 1 - TRIMMED])
    if high == low:
        return np.full(plane.shape, low)
    levels = np.clip(np.rint((plane - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    return low + cv2.medianBlur(levels, ROUGH_SIDE).astype(np.float64) * ((high - low) / 255)
