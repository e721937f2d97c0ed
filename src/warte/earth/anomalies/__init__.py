"""What does not belong in a picture: a score for each pixel, and regions with scores.

scene = read("scene.tif")
found = anomalies(scene, AnomalySettings(), out=folder)   # anomaly.tif, regions.gpkg, .parquet

The score is -log10 of the share of background pixels that score as high: 4 is one in ten thousand,
whatever the method and the scene.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from warte.earth.anomalies.background import FloatArray, Report
from warte.earth.anomalies.regions import regions_of
from warte.earth.anomalies.score import Scorer, fit, margin
from warte.earth.anomalies.settings import AnomalySettings, Member, Method
from warte.earth.anomalies.texture import Law, texture_law
from warte.earth.scene import Scene
from warte.earth.whole import Output, map_scenes
from warte.earth.write import write_regions

__all__ = [
    "PICTURE",
    "AnomalySettings",
    "Found",
    "Member",
    "Method",
    "Scorer",
    "anomalies",
    "fit",
    "regions_of",
]

PICTURE = Output("anomaly.tif", "float32", float("nan"), ("anomaly",))
# Windows of a picture with many bands are smaller, so that the memory stays the same.
TILE, TILE_OF_MANY, MANY = 512, 256, 12
SHAPES = 100  # of four pixels that touch by an edge or a corner there are 110


@dataclass(frozen=True)
class Found:
    """Facts of a run.

    methods: their names, and how much each counts. threshold: score above which a pixel belongs to
    a region. chance: regions that chance makes that are as odd as the least odd one of those
    reported, 0 without any. regions: how many. region_px, valid_px: pixels in regions, and pixels
    with a score. components: principal components that were used. variance: share of the variance
    in them.
    """

    methods: dict[str, float]
    threshold: float
    chance: float
    regions: int
    region_px: int
    valid_px: int
    components: int
    variance: float


def by_chance(law: Law, pixels: int, evidence: FloatArray, mass: FloatArray) -> FloatArray:
    """How many regions as odd chance makes in a picture of so many valid pixels.

    In one of independent pixels, where a region can begin at any pixel and have some hundred shapes
    of a few pixels, or in one of the same texture: whatever is more.
    """
    return np.maximum(pixels * SHAPES * 10**-evidence, law.chance(mass, pixels))


def anomalies(
    scene: Scene,
    settings: AnomalySettings = AnomalySettings(),  # noqa: B008 - frozen
    *,
    out: Path,
    pool: Executor | None = None,
    tile: int | None = None,
    report: Report | None = None,
) -> Found:
    """Score every valid pixel and write `anomaly.tif`, `regions.gpkg` and `regions.parquet`.

    Args:
        scene: optical, hyperspectral or radar, one band or more; each band counts by its variance.
        out: an empty folder.
        pool: from `warte.core.execute.executor`; None works here. It changes no result.
        tile: side of a window (pixels); it changes no result, only memory and time.
        report: called with a step, how much of it is done, and of how much.

    Raises:
        InputError: no pixel is valid, all are the same, or the method needs more bands.
    """
    scorer = fit(scene, settings, pool, report)
    side = tile or (TILE if len(scene.bands) <= MANY else TILE_OF_MANY)
    map_scenes(
        [scene], scorer, [PICTURE], out, margin=margin(settings), tile=side, pool=pool,
        report=report,
    )  # fmt: skip
    threshold = float(-np.log10(settings.false_alarms))
    law = texture_law(scene, scorer, threshold, settings.seed, pool, report)
    pixels = scorer.background.pixels
    frame = regions_of(
        out / PICTURE.name, scene.grid, threshold, settings.smallest_px,
        partial(by_chance, law, pixels), settings.false_regions,
    )  # fmt: skip
    write_regions(out, frame)
    used, variances = scorer.methods.variances, scorer.background.variances
    return Found(
        methods={name: weight for name, weight in scorer.weights.items()},
        threshold=threshold,
        chance=float(frame["chance"].max()) if len(frame) else 0.0,
        regions=len(frame),
        region_px=int(frame["pixels"].sum()),
        valid_px=pixels,
        components=len(used),
        variance=float(used.sum() / variances.sum()),
    )
