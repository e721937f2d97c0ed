"""The search for the settings of a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import rasterio

from tests.earth.train.scenes import CLASSES, scene
from warte.core.errors import InputError
from warte.core.search import SearchSettings
from warte.earth.classify import classify
from warte.earth.search import chosen, mean_iou, objective_of, search_model
from warte.earth.train import Marks, NetworkSettings, TrainSettings, TreeSettings
from warte.earth.train.judge import HeldOut

TREES = TrainSettings(
    method="boosting", block=24, folds=2, trees=TreeSettings(pixels=300, rounds=10)
)
NETWORK = TrainSettings(
    method="unet", block=24, network=NetworkSettings(steps=6, batch=2, crop=16, looks=2)
)


@pytest.mark.parametrize("settings", [TREES, NETWORK], ids=["boosting", "unet"])
def test_the_best_model_is_in_the_folder(settings: TrainSettings, tmp_path: Path) -> None:
    picture, marks = scene(48, 64)
    options = SearchSettings(trials=3, seed=4, pruner="none", random=2)
    told: list[str] = []

    def search_into(name: str) -> pd.DataFrame:
        (tmp_path / name).mkdir()
        found = search_model(
            [picture], [marks], settings, options, out=tmp_path / name,
            report=lambda step, done, total: told.append(step),
        )  # fmt: skip
        assert found.value == found.trials["value"].max() and 0 < found.value <= 1
        assert found.trials["state"].tolist() == ["complete"] * 3
        return found.trials

    first = search_into("study")
    best = json.loads((tmp_path / "study" / "best.json").read_text())
    card = json.loads((tmp_path / "study" / "model.json").read_text())
    assert "trials" in told and card["classes"] == list(CLASSES)
    used = chosen(settings, best["parameters"])
    assert used.trees != settings.trees or used.network != settings.network
    # The same seed searches in the same way, and ends with the same model.
    again = search_into("again")
    same = [name for name in first if name != "seconds"]
    pd.testing.assert_frame_equal(first[same], again[same])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("study", "again")]
    assert weights[0] == weights[1]
    (tmp_path / "run").mkdir()
    classify(picture, tmp_path / "study", out=tmp_path / "run")
    with rasterio.open(tmp_path / "run" / "classes.tif") as file:
        found = file.read(1)
    assert (found != 255).sum() == picture.read().valid.sum()


class Trial:
    """A trial that suggests the lowest value, and is given up from a step on."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.told: list[tuple[int, float]] = []

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return low

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        return choices[0]

    def report(self, value: float, step: int) -> None:
        self.told.append((step, value))

    def should_prune(self) -> bool:
        return len(self.told) >= self.last


@pytest.mark.parametrize(("settings", "steps"), [(TREES, 2), (NETWORK, 2)])
def test_a_bad_trial_is_given_up(settings: TrainSettings, steps: int) -> None:
    picture, marks = scene(48, 64)
    objective = objective_of([picture], [marks], settings)
    pruned = Trial(1)
    with pytest.raises(optuna.TrialPruned):
        objective(pruned)
    assert [step for step, _ in pruned.told] == [1]
    whole = Trial(steps)  # after the last step there is nothing to save
    value = objective(whole)
    assert [step for step, _ in whole.told] == list(range(1, steps + 1))
    assert value == whole.told[-1][1] and whole.told[0] == pruned.told[0]


@pytest.mark.parametrize("method", ["boosting", "unet"])
def test_nothing_to_judge_by(method: str, tmp_path: Path) -> None:
    picture, marks = scene(48, 64)
    classes = np.full(marks.index.shape, -1, np.int32)
    classes[10:20, 30:40], classes[30:40, 30:40] = 0, 1
    few = Marks(("a", "b"), classes, classes)  # a group for each class
    settings = replace(TREES, method=method)
    with pytest.raises(InputError, match="one group of labels only") as caught:
        search_model([picture], [few], settings, SearchSettings(trials=1), out=tmp_path)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_mean_iou() -> None:
    truth, found = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 2, 3])
    # 0: 2 of 3; 1: 1 of 3; 3: 1 of 1; nobody has 2, so it does not count.
    held = HeldOut(np.eye(4)[found], truth, np.arange(6), np.ones(6))
    assert mean_iou(held, 4) == pytest.approx((2 / 3 + 1 / 3 + 1) / 3)
