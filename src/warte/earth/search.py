"""Search for the settings of a model of classes that do best on held-out groups of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from warte.core.errors import InputError
from warte.core.search import Objective, Searched, SearchSettings, search
from warte.core.train.layout import Layout
from warte.earth.labels import Labels
from warte.earth.scene import Scene
from warte.earth.train import Marks, TrainSettings, network, prepare, scaled, shape_of, train
from warte.earth.train.boosting import Rows, folds, gather
from warte.earth.train.judge import HeldOut, joined

Report = Callable[[str, int, int | None], None]


def search_model(
    scenes: Sequence[Scene],
    labels: Labels | Sequence[Labels | Marks],
    settings: TrainSettings,
    options: SearchSettings,
    *,
    out: Path,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Searched:
    """Search for the settings with the highest mean IoU on held-out groups; train with the best.

    The scenes are read once. A trial of boosting tells how it does after each held-out part, one
    of a network each time that it looks at the held-out groups; bad ones are given up early.

    Writes into `out` what `warte.core.search.search` and `warte.earth.train.train` write.

    Args:
        scenes, labels: as for `train`.
        settings: which model, and all settings that are not searched.
        options: of the search; its direction is "maximize".
        out: an empty folder.
        pool: from `warte.core.execute.executor`: one trial for each worker at a time.

    Raises:
        InputError: as `train` does, or no group of labels can be held out.
    """
    objective = objective_of(scenes, labels, settings, report)
    found = search(objective, replace(options, direction="maximize"), out, pool=pool, report=report)
    best = chosen(settings, found.parameters)
    train(scenes, labels, best, out=out, report=report)
    return found


def objective_of(
    scenes: Sequence[Scene],
    labels: Labels | Sequence[Labels | Marks],
    settings: TrainSettings,
    report: Report | None = None,
) -> Objective:
    """What a trial does, with all that it learns from; it can be sent to another process.

    Raises:
        InputError: as `train` does, or no group of labels can be held out.
    """
    material, _ = prepare(scenes, labels, settings, report)
    if all(part < 0 for part in material.part.values()):
        raise InputError(
            "each class has one group of labels only, so none can be held out to judge a trial; "
            "give more polygons, or a raster of labels with a smaller --block"
        )
    count = len(material.classes)
    if settings.method == "boosting":
        limits = (material.low, material.high)
        rows = gather(
            material.places, material.read, material.inputs, material.facts, limits, settings,
            report,
        )  # fmt: skip
        return Trees(rows, material.part, count, material.folds, settings)
    chips = [material.read(place) for place in material.places]
    inputs = scaled(material, chips)
    shape = shape_of(settings, len(inputs.centre), count)
    return Network(
        network.Lesson(
            chips, material.facts, inputs, material.low, material.high, material.part, 0, shape,
            settings,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Trees:
    """A trial of boosting.

    rows: pixels to learn from. part: from group to the part it was dealt into. classes: how many.
    folds: parts that are held out one after the other.
    """

    rows: Rows
    part: dict[int, int]
    classes: int
    folds: int
    settings: TrainSettings

    def __call__(self, trial: Any) -> float:
        """Mean IoU on the held-out parts."""
        suggested = {
            "rounds": trial.suggest_int("rounds", 20, 400, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.5, log=True),
            "leaves": trial.suggest_int("leaves", 3, 16),
            "smallest": trial.suggest_int("smallest", 5, 200, log=True),
        }
        settings = chosen(self.settings, suggested)
        parts: list[HeldOut] = []
        value = 0.0
        for held in folds(self.rows, self.part, self.classes, settings, self.folds):
            parts.append(held)
            value = mean_iou(joined(parts), self.classes)
            _tell(trial, value, len(parts), last=len(parts) == self.folds)
        return value


@dataclass(frozen=True)
class Network:
    """A trial of a network, which looks at one held-out part while it learns."""

    lesson: network.Lesson

    def __call__(self, trial: Any) -> float:
        """Mean IoU on the held-out part at the best look."""
        suggested = {
            "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.1, log=True),
            "width": trial.suggest_categorical("width", [8, 16, 24, 32]),
            "depth": trial.suggest_int("depth", 1, 3),
            "blocks": trial.suggest_int("blocks", 1, 2),
        }
        settings = chosen(self.lesson.settings, suggested)
        shape = shape_of(settings, self.lesson.shape.bands - 1, self.lesson.shape.classes)
        lesson = replace(self.lesson, settings=settings, shape=shape)
        values: list[float] = []

        def look(number: int, held: HeldOut) -> bool:
            values.append(mean_iou(held, shape.classes))
            trial.report(max(values), number)
            return number < settings.network.looks and bool(trial.should_prune())

        network.learn(lesson, Layout(), told=look)
        if len(values) < settings.network.looks:
            raise _pruned()
        return max(values)


def chosen(settings: TrainSettings, parameters: dict[str, Any]) -> TrainSettings:
    """The settings with those of a trial."""
    if settings.method == "boosting":
        return replace(settings, trees=replace(settings.trees, **parameters))
    return replace(settings, network=replace(settings.network, **parameters))


def mean_iou(held: HeldOut, classes: int) -> float:
    """Mean intersection over union of the classes that the held-out groups have, 0..1."""
    found = held.logits.argmax(axis=1)
    table = np.bincount(
        held.labels * classes + found, weights=held.weights, minlength=classes**2
    ).reshape(classes, classes)
    right, true, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    here = true > 0
    return float((right[here] / (true + said - right)[here]).mean())


def _tell(trial: Any, value: float, step: int, *, last: bool) -> None:
    """Tell the study how a trial does, and give it up if the others did better."""
    trial.report(value, step)
    if not last and trial.should_prune():
        raise _pruned()


def _pruned() -> Exception:
    import optuna

    return optuna.TrialPruned()
