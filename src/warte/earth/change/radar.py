"""Where water ends in a radar picture: thresholds of blocks that hold both water and land."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BINS = 128
SHARE = 0.1  # of a block's pixels that the smaller class must have
APART = 2.5  # distance of the two means in their mean standard deviations (Ashman et al. 1994)
DROP_DB = 3.0  # dB by which water is darker than the land beside it, at least,
DARKER_DB = 6.0  # and than the level that a quarter of the picture exceeds
FEWEST = 500  # pixels of a block


def minimum_error(values: FloatArray) -> tuple[float, float, float, float] | None:
    """Threshold between two normal classes by minimum error (Kittler & Illingworth 1986).

    values: (N,). Returns the threshold, the share below it, the distance of the means, and that in
    mean standard deviations; None where no threshold splits the histogram into two classes.
    """
    low, high = np.quantile(values, (0.001, 0.999))
    if high <= low:
        return None
    counts, bins = np.histogram(values, BINS, (low, high))
    middle = (bins[:-1] + bins[1:]) / 2
    share = counts / counts.sum()
    below = np.cumsum(share)[:-1]
    first, second = np.cumsum(share * middle)[:-1], np.cumsum(share * middle**2)[:-1]
    above = 1 - below
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_low = first / below
        mean_high = ((share * middle).sum() - first) / above
        var_low = second / below - mean_low**2
        var_high = ((share * middle**2).sum() - second) / above - mean_high**2
        cost = (
            below * np.log(var_low) + above * np.log(var_high)
            - 2 * (below * np.log(below) + above * np.log(above))
        )  # fmt: skip
    step = (middle[1] - middle[0]) ** 2
    good = np.isfinite(cost) & (var_low > step) & (var_high > step)
    if not good.any():
        return None
    at = int(np.where(good, cost, np.inf).argmin())
    apart = float(mean_high[at] - mean_low[at])
    spread = np.sqrt((var_low[at] + var_high[at]) / 2)
    return float(bins[at + 1]), float(below[at]), apart, float(apart / spread)


def water_borders(
    blocks: npt.NDArray[np.floating[Any]], seen: npt.NDArray[np.bool_], first: int
) -> tuple[float, ...] | None:
    """dB of each band below which a pixel is water; None where no block shows a shore.

    blocks: (blocks, bands, rows, columns) dB, speckle smoothed. seen: (blocks, rows, columns).
    first: the band that tells water best, of equal polarisation. Split tiles after Martinis et al.
    2009 (NHESS 9, 303): a block counts where this band has two classes that are clearly apart, and
    the darker one is much darker than most of the picture. Its border is the median of their
    thresholds; that of another band lies half-way between the medians of water and land.
    """
    land_level = np.quantile(blocks[:, first][seen], 0.75)
    borders, water, land = [], [], []
    for block, there in zip(blocks, seen, strict=True):
        pixels = block[:, there].astype(np.float64)
        found = minimum_error(pixels[first]) if pixels.shape[1] >= FEWEST else None
        if found is None:
            continue
        border, below, apart, distance = found
        dark = pixels[first] < border
        bimodal = SHARE <= below <= 1 - SHARE and apart >= DROP_DB and distance >= APART
        if bimodal and pixels[first][dark].mean() < land_level - DARKER_DB:
            borders.append(border)
            water.append(pixels[:, dark])
            land.append(pixels[:, ~dark])
    if not borders:
        return None
    wet, dry = (np.median(np.concatenate(part, axis=1), axis=1) for part in (water, land))
    between = (wet + dry) / 2
    between[first] = np.median(borders)
    return tuple(float(border) for border in between)
