"""What kind of change a pixel shows, from its bands before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LOSS, GAIN, FLOOD, EBB, BURN, BRIGHT, DARK = range(1, 8)
NAMES = {
    LOSS: "vegetation loss",
    GAIN: "vegetation gain",
    FLOOD: "water gained",
    EBB: "water lost",
    BURN: "burn",
    BRIGHT: "brightening",  # built, or laid bare
    DARK: "darkening",
}
COLOURS = {
    0: (235, 235, 235),
    LOSS: (214, 39, 40),
    GAIN: (44, 160, 44),
    FLOOD: (31, 119, 180),
    EBB: (188, 132, 60),
    BURN: (80, 20, 60),
    BRIGHT: (255, 187, 40),
    DARK: (110, 110, 110),
}
KNOWN = ("blue", "green", "red", "nir", "swir16", "swir22")
NODATA = 255
VEGETATION = 0.1  # difference of NDVI that is one of the plant cover
BURNT = 0.27  # fall of NBR: moderate severity and more (Key & Benson 2006)
VALLEY = 0.7  # a valley of the histogram is one if it is lower than this share of its summits
BRIGHTER = 0.15  # difference of mean brightness, as a share of the greater one
CLUSTERS = 4  # kinds of change where the bands have no names


def normalised(one: FloatArray, two: FloatArray) -> FloatArray:
    """(one - two) / (one + two), 0 where both are 0; negative values count as 0."""
    one, two = np.maximum(one, 0), np.maximum(two, 0)
    total = one + two
    return (one - two) / np.where(total > 0, total, 1)


@dataclass(frozen=True)
class ByBands:
    """Kinds by the physics of named bands."""

    bands: tuple[str, ...]

    @property
    def names(self) -> Mapping[int, str]:
        """From code to name."""
        known = [BRIGHT, DARK]
        if has_plants(self.bands):
            known += [LOSS, GAIN]
        if _has_water(self.bands):
            known += [FLOOD, EBB]
        if _has_burn(self.bands):
            known.append(BURN)
        return {code: NAMES[code] for code in sorted(known)}

    def kinds(
        self, before: FloatArray, after: FloatArray, was_wet: BoolArray, is_wet: BoolArray
    ) -> npt.NDArray[np.uint8]:
        """(N,) codes, 0 for a difference that is none of the ground.

        before, after: (bands, N), in units of one radiometry. was_wet, is_wet: (N,) open water
        before and after. Water that stays water is no change, whatever its colour: that turns with
        sun, wind and mud.
        """
        first, second = self._named(before), self._named(after)
        old, new = before.mean(axis=0), after.mean(axis=0)
        step = (new - old) / np.maximum(np.maximum(np.abs(old), np.abs(new)), 1e-30)
        kinds = np.where(step >= BRIGHTER, BRIGHT, np.where(step <= -BRIGHTER, DARK, 0))
        if has_plants(self.bands):
            greener = _ndvi(second) - _ndvi(first)
            kinds[greener <= -VEGETATION] = LOSS
            kinds[greener >= VEGETATION] = GAIN
            if _has_burn(self.bands):
                short = "swir22" if "swir22" in first else "swir16"
                fall = normalised(first["nir"], first[short]) - normalised(
                    second["nir"], second[short]
                )
                # Char is dark in red; a clearing shows bright soil.
                charred = second["red"] <= 1.5 * np.maximum(first["red"], 0)
                kinds[(fall >= BURNT) & (greener <= -VEGETATION) & charred] = BURN
        kinds[was_wet & is_wet] = 0
        kinds[~was_wet & is_wet] = FLOOD
        kinds[was_wet & ~is_wet] = EBB
        return kinds.astype(np.uint8)

    def wetness(self, values: FloatArray) -> FloatArray:
        """(N,) index of open water: the mean of NDWI (McFeeters 1996) and MNDWI (Xu 2006).

        values: (bands, N) of one date, as the file has them. -1 where the bands cannot tell.
        """
        named = self._named(values)
        if "green" not in named:
            return np.full(values.shape[1:], -1.0)
        tests = [normalised(named["green"], named[b]) for b in ("nir", "swir16") if b in named]
        return np.mean(tests, axis=0) if tests else np.full(values.shape[1:], -1.0)

    def _named(self, values: FloatArray) -> dict[str, FloatArray]:
        return dict(zip(self.bands, values, strict=True))


def has_plants(bands: Sequence[str]) -> bool:
    """Whether bands of these names tell plants."""
    return {"nir", "red"} <= set(bands) or "ndvi" in bands


def _ndvi(bands: Mapping[str, FloatArray]) -> FloatArray:
    return bands["ndvi"] if "ndvi" in bands else normalised(bands["nir"], bands["red"])


def _has_water(bands: Sequence[str]) -> bool:
    return "green" in bands and ("nir" in bands or "swir16" in bands)


def _has_burn(bands: Sequence[str]) -> bool:
    return {"nir", "red"} <= set(bands) and ("swir22" in bands or "swir16" in bands)


def water_level(wetness: FloatArray) -> float:
    """The index of water from which a pixel is open water, in a picture that is not calibrated.

    0 for reflectance; with other numbers the border lies elsewhere. It is taken where the histogram
    has its deepest valley, between -0.4 and 0.6, as a share of the lower of the summits on its two
    sides; 0 where there is none.
    """
    counts, bins = np.histogram(wetness, 80, (-1, 1))
    heights = gaussian_filter1d(counts.astype(np.float64), 1.5)
    left = np.maximum.accumulate(heights)
    right = np.maximum.accumulate(heights[::-1])[::-1]
    middle = (bins[:-1] + bins[1:]) / 2
    depth = heights / np.maximum(np.minimum(left, right), 1e-30)
    # A summit is worth the name from a thousandth of the picture.
    known = (np.minimum(left, right) >= 1e-3 * counts.sum()) & (middle >= -0.4) & (middle <= 0.6)
    if not known.any():
        return 0.0
    at = int(np.where(known, depth, np.inf).argmin())
    return float(middle[at]) if depth[at] < VALLEY else 0.0


@dataclass(frozen=True)
class ByClusters:
    """Kinds by the direction of change, where nobody knows what the bands are.

    whiten: (bands, bands). centres: (kinds, bands) unit vectors of whitened change.
    """

    whiten: FloatArray
    centres: FloatArray

    @property
    def names(self) -> Mapping[int, str]:
        """From code to name."""
        return {number: f"kind {number}" for number in range(1, len(self.centres) + 1)}

    def kinds(
        self, before: FloatArray, after: FloatArray, was_wet: BoolArray, is_wet: BoolArray
    ) -> npt.NDArray[np.uint8]:
        """(N,) codes 1 and up; before, after: (bands, N). Whether it is wet cannot be known."""
        likeness = self.centres @ (self.whiten @ (after - before))
        return (likeness.argmax(axis=0) + 1).astype(np.uint8)

    def wetness(self, values: FloatArray) -> FloatArray:
        """(N,) -1: nobody knows."""
        return np.full(values.shape[1:], -1.0)


@dataclass(frozen=True)
class ByRadar:
    """Open water from radar: smooth water sends the pulse away.

    bands: such as vv, vh. borders: dB of each band below which it is water.
    """

    bands: tuple[str, ...]
    borders: tuple[float, ...]

    @property
    def names(self) -> Mapping[int, str]:
        """From code to name."""
        return {FLOOD: NAMES[FLOOD], EBB: NAMES[EBB]}

    def kinds(
        self, before: FloatArray, after: FloatArray, was_wet: BoolArray, is_wet: BoolArray
    ) -> npt.NDArray[np.uint8]:
        """(N,) codes; a change of the backscatter that is none of water is 0."""
        kinds = np.zeros(len(was_wet), np.uint8)
        kinds[~was_wet & is_wet] = FLOOD
        kinds[was_wet & ~is_wet] = EBB
        return kinds

    def wetness(self, values: FloatArray) -> FloatArray:
        """(N,) dB by which the bands lie below their borders, on the mean."""
        return np.asarray(np.mean(np.array(self.borders)[:, None] - values, axis=0))


Kinds = ByBands | ByClusters | ByRadar


def directions(steps: FloatArray) -> FloatArray:
    """(kinds, bands) unit vectors: the usual directions of change, the most frequent first.

    steps: (N, bands) whitened changes. Spherical k-means from the farthest-first start, so that it
    needs no random numbers; a direction with less than 2 % of the changes is none.
    """
    if not len(steps):
        return np.eye(1, steps.shape[1])
    units = steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-30)
    mean = units.mean(axis=0)
    centres = (mean / max(float(np.linalg.norm(mean)), 1e-30))[None]
    while len(centres) < CLUSTERS:
        farthest = units[(units @ centres.T).max(axis=1).argmin()]
        centres = np.vstack([centres, farthest])
    for _ in range(50):
        nearest = (units @ centres.T).argmax(axis=1)
        sums = np.stack([units[nearest == number].sum(axis=0) for number in range(len(centres))])
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        new = np.where(length > 0, sums / np.maximum(length, 1e-30), centres)
        if np.allclose(new, centres, atol=1e-9):
            break
        centres = new
    counts = np.bincount((units @ centres.T).argmax(axis=1), minlength=len(centres))
    order = np.argsort(-counts, kind="stable")
    return centres[[n for n in order if counts[n] >= 0.02 * len(units)]]


def guessed_bands(values: FloatArray) -> tuple[str, ...] | None:
    """What four unnamed bands probably are, by how they go together; None if that is not clear.

    values: (4, N). Visible bands resemble each other, and near infrared resembles none of them
    over plants. Three alike and one apart: red, green, blue, nir (or the other way round). The
    last two alike: the composite of short-wave infrared, nir, red and green.
    """
    if len(values) != 4 or values.shape[1] < 100:
        return None
    alike = np.asarray(np.corrcoef(values))
    if not np.isfinite(alike).all():
        return None
    visible = float(alike[np.ix_([0, 1, 2], [0, 1, 2])].min())
    if visible > 0.8 and alike[3, :3].max() < visible - 0.1:
        # Soil is redder than plants and water: red spreads more than blue.
        spread = [np.subtract(*np.quantile(values[band], (0.9, 0.1))) for band in (0, 2)]
        return (
            ("red", "green", "blue", "nir")
            if spread[0] >= spread[1]
            else ("blue", "green", "red", "nir")
        )
    if alike[2, 3] > 0.9 and np.abs(alike[1, 2:]).max() < 0.7 and alike[0, 1] > alike[1, 2:].max():
        # Plants are greener than red: the darker band over them is red.
        plants = normalised(values[1], values[2:].mean(axis=0))
        green = values[:, plants >= np.quantile(plants, 0.5)]
        names = ("red", "green") if green[2].mean() <= green[3].mean() else ("green", "red")
        return ("swir16", "nir", *names)
    return None
