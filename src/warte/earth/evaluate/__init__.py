"""What was found against what is true: classes, clusters, anomalies, changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warte.core.data.runs import RUN_FILE
from warte.core.errors import InputError
from warte.earth.evaluate import pictures
from warte.earth.evaluate.measures import (
    Calibration,
    Ranks,
    Scores,
    What,
    adjusted_rand,
    anomaly_scores,
    change_scores,
    class_scores,
    cluster_scores,
    match_regions,
    mutual_information,
)

__all__ = [
    "Calibration", "Ranks", "Scores", "adjusted_rand", "anomaly_scores", "change_scores",
    "class_scores", "cluster_scores", "evaluate", "match_regions", "mutual_information",
]  # fmt: skip

# The picture by which the folder of a run says what it holds, and the truth of simulated scenes.
RUNS: dict[What, tuple[str, str]] = {
    "change": ("change.tif", "changes.tif"),
    "anomalies": ("anomaly.tif", "anomalies.tif"),
    "clusters": ("clusters.tif", "classes.tif"),
    "classes": ("classes.tif", "classes.tif"),
}


def evaluate(
    found: Path | npt.NDArray[Any],
    truth: Path | npt.NDArray[Any],
    *,
    what: What | None = None,
    field: str | None = None,
    tolerance: int = 0,
) -> Scores:
    """Compare what was found with the truth, window by window.

    Args:
        found: the folder of a run; what it holds, its files say. Or an array (rows, columns):
            classes, clusters or kinds of change (below 0: nothing), or scores (NaN: nothing).
        truth: a raster of the same grid; for classes and clusters also labelled polygons or a
            raster in another CRS; or a folder with classes.tif, anomalies.tif or changes.tif, or
            the whole folder that `simulate_to` wrote. For an array an array: classes or kinds of
            change (below 0: no label), or 1 and 0.
        what: the kind of arrays, "classes" by default; of a folder, which of its results.
        field: the column of polygons that names the class.
        tolerance: of classes and clusters, labels that are at most so many pixels from another
            class are left out.

    Returns:
        Scores; see `class_scores` (with calibration_error and brier where there is a
        probabilities.tif), `cluster_scores`, `change_scores`; of anomalies auc, average_precision,
        share, and with regions.gpkg those of `match_regions`.

    Raises:
        InputError: there is nothing to compare, or it does not lie at one place.
    """
    if isinstance(found, np.ndarray) or isinstance(truth, np.ndarray):
        if not (isinstance(found, np.ndarray) and isinstance(truth, np.ndarray)):
            raise InputError("an array can only be compared with an array; give two")
        return pictures.arrays(found, truth, what or "classes", tolerance)
    what = what or _what(found)
    name, true_name = RUNS[what]
    place = _truth_file(truth, true_name, found)
    if what == "anomalies":
        return pictures.anomalies(found, name, place)
    if what == "change":
        return pictures.change(found, name, place)
    judge = pictures.clusters if what == "clusters" else pictures.classes
    return judge(found, name, place, field, tolerance)


def _what(folder: Path) -> What:
    for what, (name, _) in RUNS.items():
        if (folder / name).exists():
            return what
    names = ", ".join(name for name, _ in RUNS.values())
    raise InputError(f"{folder} holds no result; give the folder of a run, with one of {names}")


def _truth_file(truth: Path, name: str, found: Path) -> Path:
    """The file itself, the one in its folder, or that of the run's scene in a simulated folder."""
    if not truth.exists():
        raise InputError(f"{truth} does not exist; give a raster, polygons, or a folder of truth")
    if truth.is_file():
        return truth
    if (truth / name).is_file():
        return truth / name
    places = sorted(truth.glob(f"truth/**/{name}"))
    if len(places) > 1:
        inputs = _inputs_of(found)
        places = [place for place in places if place.parent.name in inputs]
    if len(places) != 1:
        what = "no" if not places else "more than one"
        raise InputError(f"{truth} holds {what} {name}; give the file of the truth itself")
    return places[0]


def _inputs_of(found: Path) -> set[str]:
    """Names of the scenes that a run looked at, without their suffix."""
    record = found / RUN_FILE
    if not record.is_file():
        return set()
    facts = json.loads(record.read_text(encoding="utf-8"))
    return {Path(str(one["name"])).stem for one in facts.get("inputs", [])}
