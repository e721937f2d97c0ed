"""Calibration and figures on groups that a model did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from warte.core.score import f1_scores
from warte.earth.classify.predict import calibrated

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
BINS = 15  # of a probability, for the calibration error
HOLD = 1e-3  # how much the offsets are held at 0, for classes with few pixels


@dataclass(frozen=True)
class HeldOut:
    """What a model says about pixels that it did not learn from.

    logits: (N, classes). labels, groups: (N,). weights: (N,) how many pixels of the scene each
    stands for.
    """

    logits: Float64Array
    labels: IntArray
    groups: IntArray
    weights: Float64Array

    def __len__(self) -> int:
        return len(self.labels)


def joined(parts: Sequence[HeldOut]) -> HeldOut:
    """All of them together."""
    return HeldOut(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def loss_of(held: HeldOut) -> float:
    """Mean negative logarithm of the probability of the true class, before calibration."""
    logs = log_softmax(held.logits, axis=1)[np.arange(len(held)), held.labels]
    return float(-(held.weights @ logs) / held.weights.sum())


def calibrate(held: HeldOut) -> tuple[float, tuple[float, ...]]:
    """Temperature and an offset per class that make probabilities right on held-out groups.

    Alexandari et al. 2020, ICML ("bias-corrected temperature scaling"): the offsets also mend
    what class weights did to the probabilities. Of a class that no held-out group has nothing is
    known: it keeps the mean offset, 0, though other classes may be taken for it.
    """
    offsets = np.zeros(held.logits.shape[1])
    if not len(held):
        return 1.0, tuple(offsets.tolist())
    share = held.weights / held.weights.sum()
    truth = np.eye(len(offsets))[held.labels]
    there = np.unique(held.labels)

    def loss(x: Float64Array) -> tuple[float, Float64Array]:
        sharp, moved = np.exp(x[0]), x[1:] - x[1:].mean()
        added = np.zeros(len(offsets))
        added[there] = moved
        logs = log_softmax(held.logits * sharp + added, axis=1)
        away = (np.exp(logs) - truth) * share[:, None]
        each = away.sum(axis=0)[there]
        slope = np.append((away * held.logits).sum() * sharp, each - each.mean() + HOLD * moved)
        value = -(share @ logs[np.arange(len(held)), held.labels]) + HOLD / 2 * moved @ moved
        return float(value), slope

    bounds = [(np.log(0.05), np.log(20.0)), *[(-10.0, 10.0)] * len(there)]
    found = minimize(loss, np.zeros(len(there) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    offsets[there] = found[1:] - found[1:].mean()
    return float(np.exp(-found[0])), tuple(offsets.tolist())


def figures(
    held: HeldOut, temperature: float, offsets: tuple[float, ...], classes: Sequence[str]
) -> dict[str, Any]:
    """Scores on held-out groups, and the confusion of each group, for a card.

    Pixels count for as many as they stand for. A class without any has None: that others are
    taken for it says nothing of how often it is right.
    """
    if not len(held):
        return {"groups": 0, "pixels": 0}
    chances = calibrated(held.logits.T, temperature, offsets).T.astype(np.float64)
    found = chances.argmax(axis=1)
    names, of_pixel = np.unique(held.groups, return_inverse=True)
    count = len(classes)
    each = np.zeros((len(names), count, count))
    np.add.at(each, (of_pixel, held.labels, found), held.weights)
    whole = each.sum(axis=0)
    right, true, said = np.diag(whole), whole.sum(axis=1), whole.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_class = {
            "iou": right / (true + said - right),
            "f1": f1_scores(whole),
            "users_accuracy": right / said,
            "producers_accuracy": right / true,
        }
    present = true > 0
    return {
        "groups": len(names),
        "pixels": len(held),
        "accuracy": float(right.sum() / whole.sum()),
        "mean_iou": float(per_class["iou"][present].mean()),
        "log_loss": _log_loss(chances, held),
        "calibration_error": _calibration_error(chances, found == held.labels, held.weights),
        "classes": {
            name: {
                "groups": int((each[:, index].sum(axis=1) > 0).sum()),
                **{
                    what: _number(values[index]) if present[index] else None
                    for what, values in per_class.items()
                },
            }
            for index, name in enumerate(classes)
        },
        # Rows: truth; columns: found; in the order of the classes; pixels of the scenes.
        "confusion": np.round(whole, 3).tolist(),
        "confusion_by_group": [
            {"group": int(name), "true": int(label), "found": np.round(row, 3).tolist()}
            for name, table in zip(names, each, strict=True)
            for label, row in enumerate(table)
            if row.any()
        ],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _log_loss(chances: Float64Array, held: HeldOut) -> float:
    of_truth = np.maximum(chances[np.arange(len(held)), held.labels], 1e-12)
    return float(-(held.weights @ np.log(of_truth)) / held.weights.sum())


def _calibration_error(
    chances: Float64Array, right: npt.NDArray[np.bool_], weights: Float64Array
) -> float:
    """Mean distance of confidence and accuracy over bins of confidence (Guo et al. 2017)."""
    confidence = chances.max(axis=1)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    away = np.bincount(place, weights * (right - confidence), BINS)
    return float(np.abs(away).sum() / weights.sum())
