"""How far regions of a background of correlated pixels stand above the threshold by chance.

Pixels next to each other are alike in every real picture: optics, resampling, the ground itself.
So the scores of a region are not independent, and they are higher together than those of
independent pixels. How much is seen in pictures that have the means, the power spectra and the
cross spectra of this one, and no objects: its Fourier transform with random phases, the same in all
bands (Prichard and Theiler, Physical Review Letters 73 (1994) 951), scored as it is. What is
measured of a region is its mass, the sum of what its scores have above the threshold (Bullmore et
al., IEEE Transactions on Medical Imaging 18 (1999) 32): it asks for height and for size.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from warte.core.data.tiles import Window
from warte.core.execute import ordered
from warte.earth.anomalies.background import FloatArray, Report
from warte.earth.anomalies.score import Scorer
from warte.earth.scene import Pixels, Scene

PIECES = 12  # that are drawn with random phases; pieces of a small scene several times
AROUND = 64  # pixels around a piece of the sample that are drawn with it
FEWEST = 20  # regions whose masses have a shape that can be fitted
HEAVIEST = 0.2  # shape of the tail at most
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

    def least(self, pixels: int, false_regions: float) -> float:
        """The mass that so few regions of a picture of so many valid pixels reach by chance."""
        thinned = np.log(max(self.rate * pixels / false_regions, 1.0))
        if self.shape < 1e-6:
            return float(self.start + self.scale * thinned)
        return float(self.start + self.scale * np.expm1(self.shape * thinned) / self.shape)


def texture_law(
    scene: Scene,
    scorer: Scorer,
    threshold: float,
    seed: int,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Law:
    """Masses of regions in pieces of the scorer's sample that were drawn with random phases."""
    shape = scene.grid.shape
    places = [place.grown(AROUND, *shape) for place in scorer.sample]
    # Of many places as many as there are pieces, spread evenly; a few give several pieces each.
    count = len(places)
    chosen = [n * count // PIECES if count > PIECES else n % count for n in range(PIECES)]
    pieces = [(places[index], number) for number, index in enumerate(chosen)]
    work = partial(_masses, scene, scorer, threshold, seed)
    masses, pixels = [], 0
    for done, (found, valid) in enumerate(ordered(pool, work, pieces), 1):
        masses.append(found)
        pixels += valid
        if report is not None:
            report("texture", done, PIECES)
    return fit_law(np.concatenate(masses), pixels)


def fit_law(masses: FloatArray, pixels: int) -> Law:
    """The law of the larger half of masses, by their moments; pixels: in which they were found."""
    start = float(np.median(masses)) if len(masses) else 0.0
    beyond = masses[masses > start] - start
    rate = (len(beyond) + 1) / pixels
    if len(beyond) == 0:
        return Law(start, rate, start, 0.0)
    mean, shape = float(beyond.mean()), 0.0
    if len(beyond) >= FEWEST:
        shape = min(max((1 - mean**2 / float(beyond.var(ddof=1))) / 2, 0.0), HEAVIEST)
    return Law(start, rate, mean * (1 - shape), shape)


def _masses(
    scene: Scene, scorer: Scorer, threshold: float, seed: int, piece: tuple[Window, int]
) -> tuple[FloatArray, int]:
    """Masses of the regions of one piece, and its valid pixels."""
    place, number = piece
    pixels = scene.read(place)
    drawn = random_phases(pixels, np.random.default_rng([seed, number]))
    (score,) = scorer([drawn])["anomaly.tif"].astype(np.float64)
    above = (score > threshold) & pixels.valid
    labels, count = ndimage.label(above, TOUCHING)
    masses = np.bincount(labels[above], score[above] - threshold, count + 1)[1:]
    return masses.astype(np.float64), int(pixels.valid.sum())


def random_phases(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """A window of the same means and power spectra in which nothing stands out but by chance.

    Pixels that are not valid count as the mean, and what they lack in power is made up for.
    """
    known = pixels.valid
    noise = np.fft.rfft2(generator.normal(size=known.shape))
    phases = noise / np.maximum(np.abs(noise), np.finfo(np.float64).tiny)
    drawn = np.full(pixels.values.shape, np.nan, np.float32)
    for band, values in zip(drawn, pixels.values, strict=True):
        mean = float(values[known].mean(dtype=np.float64))
        away = np.where(known, values - mean, 0.0) / np.sqrt(known.mean())
        turned = np.fft.irfft2(np.fft.rfft2(away) * phases, s=known.shape) + mean
        band[known] = turned[known]
    return Pixels(drawn, known, pixels.window)
