"""Small scenes with known classes, for the tests of training and classifying."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from warte.earth.scene import Grid, Scene, scene_of_array
from warte.earth.train import Marks

CLASSES = ("field", "water", "wood")
# Reflectance in blue, green, red, nir of each class.
MEANS = np.array([[0.08, 0.1, 0.12, 0.3], [0.06, 0.05, 0.03, 0.02], [0.03, 0.05, 0.03, 0.35]])
BANDS = ("blue", "green", "red", "nir")


def ground(rows: int, columns: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Classes of patches with smooth edges."""
    heights = rng.normal(size=(len(CLASSES), rows, columns))
    smooth = [ndimage.gaussian_filter(one, 6.0) for one in heights]
    return np.argmax(smooth, axis=0).astype(np.int32)


def scene(
    rows: int = 128, columns: int = 160, seed: int = 3, *, noise: float = 0.015, hole: bool = True
) -> tuple[Scene, Marks]:
    """A scene on a UTM grid and the class of each of its pixels; a corner of it is no-data."""
    rng = np.random.default_rng(seed)
    classes = ground(rows, columns, rng)
    values = MEANS[classes].transpose(2, 0, 1) + rng.normal(0, noise, (len(BANDS), rows, columns))
    values = values.astype(np.float32)
    if hole:
        values[:, : rows // 8, : columns // 4] = np.nan
    grid = Grid(rows, columns, Affine(10, 0, 500_000, 0, -10, 4_000_000), CRS.from_epsg(32618))
    made = scene_of_array(values, BANDS, grid, name="made", quantity="reflectance")
    return made, Marks(CLASSES, classes)
