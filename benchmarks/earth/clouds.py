"""Part clouds: cloud masks that were learned from one sensor, in the picture of another."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from benchmarks.clock import measure
from benchmarks.page import Table
from warte.core.data import registry
from warte.earth.classify import classify
from warte.earth.scene import Scene, scene_of_array
from warte.earth.train import Marks, clouds, train

FOLDER = "earth/csmask"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
CLASSES = ("cloud", "shadow", "clear")
CLOUD, SHADOW = 4, 0  # in the reference; all else is clear
SEEDS, QUICK_SEEDS = 3, 1
WANTED = 0.65  # mean IoU

IntArray = npt.NDArray[np.int32]
Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Picture:
    """A scene, and the class of each pixel as an index into CLASSES."""

    scene: Scene
    truth: IntArray


def pictures(folder: Path) -> dict[str, Picture]:
    """All scenes of the folder that are here, by the names of their sensors."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            image, mask = arrays["img"], arrays["msk"].squeeze()
        truth = np.full(mask.shape, CLASSES.index("clear"), np.int32)
        truth[mask == CLOUD] = CLASSES.index("cloud")
        truth[mask == SHADOW] = CLASSES.index("shadow")
        values = np.moveaxis(image, -1, 0)
        scene = scene_of_array(values, BANDS, name=path.stem, quantity="reflectance")
        found[path.stem] = Picture(scene, truth)
    return found


def cloud_tables(seed: int, quick: bool, report: Report) -> list[Table]:
    """Each sensor's model on each other sensor; the baseline beside it."""
    folder = Path(os.environ.get(registry.DATA_VARIABLE, "")) / FOLDER
    known = pictures(folder) if os.environ.get(registry.DATA_VARIABLE) else {}
    if len(known) < 2:
        told = f"{FOLDER} is not on this machine: set {registry.DATA_VARIABLE}"
        return [Table("Clouds: skipped", pd.DataFrame({"part": ["clouds"], "why": [told]}))]
    seeds = range(seed, seed + (QUICK_SEEDS if quick else SEEDS))
    pairs = [(one, two) for one in known for two in known if one != two]
    rows = []
    for done, (one, two) in enumerate(pairs):
        report("clouds", done, len(pairs))
        for name, find in (("warte, clouds()", _found), ("boosting, pixels alone", _baseline)):
            with threadpool_limits(1):
                rows.append(_row(name, find, known[one], known[two], seeds))
    report("clouds", len(pairs), len(pairs))
    return [
        Table(
            "Clouds: learned from one sensor, found in another",
            pd.DataFrame(rows),
            f"IoU over all pixels of the other sensor's picture (512 x 512), mean and spread of "
            f"{len(seeds)} seeds from {seed}. The model is that of `train.clouds` as it stands; no "
            "label of the tested picture is used. The baseline is scikit-learn's histogram "
            "boosting on the six bands of each pixel, classes weighed alike. One picture of each "
            "sensor is a small test, and the reference is that of its authors.",
        )
    ]


Find = Callable[[Picture, Picture, int], IntArray]


def _row(
    name: str, find: Find, learned: Picture, tested: Picture, seeds: range
) -> dict[str, object]:
    scores, cores = [], []
    for seed in seeds:
        kept: list[IntArray] = []
        took = measure(lambda seed=seed, kept=kept: kept.append(find(learned, tested, seed)))
        scores.append(iou(tested.truth, kept[0]))
        cores.append(took.core)
    means = np.mean(scores, axis=1)
    return {
        "method": name,
        "learned from": learned.scene.name,
        "found in": tested.scene.name,
        **{word: f"{value:.3f}" for word, value in zip(CLASSES, np.mean(scores, 0), strict=True)},
        "mean IoU": f"{means.mean():.3f} ± {means.std():.3f}",
        "wanted": f"{WANTED:g} or more" if find is _found else "-",
        "core s": f"{np.median(cores):.0f}",
    }


def iou(truth: IntArray, found: IntArray) -> list[float]:
    """Intersection over union of each class."""
    return [
        float(((truth == kind) & (found == kind)).sum() / ((truth == kind) | (found == kind)).sum())
        for kind in range(len(CLASSES))
    ]


def _found(learned: Picture, tested: Picture, seed: int) -> IntArray:
    with tempfile.TemporaryDirectory() as folder:
        model, run = Path(folder) / "model", Path(folder) / "run"
        model.mkdir()
        run.mkdir()
        trained = train([learned.scene], [Marks(CLASSES, learned.truth)], clouds(seed), out=model)
        assert trained is not None  # this is no process of a launcher
        with warnings.catch_warnings():
            # The pictures have no place on Earth, and that is no news.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            classify(tested.scene, model, out=run)
        with rasterio.open(run / "classes.tif") as file:
            classes = file.read(1)
    order = np.array([CLASSES.index(name) for name in trained.classes], np.int32)
    return order[classes]


def _baseline(learned: Picture, tested: Picture, seed: int) -> IntArray:
    model = HistGradientBoostingClassifier(class_weight="balanced", random_state=seed)
    model.fit(_pixels(learned), learned.truth.ravel())
    return model.predict(_pixels(tested)).reshape(tested.truth.shape)


def _pixels(picture: Picture) -> npt.NDArray[np.float32]:
    values = picture.scene.read().values
    return values.reshape(len(values), -1).T
