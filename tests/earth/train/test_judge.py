"""Calibration against truths that are known."""

import numpy as np
from scipy.special import log_softmax, softmax

from warte.earth.train.judge import HeldOut, calibrate, figures


def drawn(rng: np.random.Generator, number: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the true probability of the labels drawn from it."""
    logits = rng.normal(0, 2, (number, 3))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    labels = (rng.random(number)[:, None] > chances).sum(axis=1).clip(0, 2)
    return logits, labels.astype(np.int32)


def held(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> HeldOut:
    groups = np.arange(len(labels), dtype=np.int32) % 50
    return HeldOut(logits, labels, groups, np.ones(len(labels)) if weights is None else weights)


def test_a_known_temperature_and_known_offsets_are_found() -> None:
    logits, labels = drawn(np.random.default_rng(0))
    shift = np.array([0.5, -0.2, -0.3])
    temperature, offsets = calibrate(held(3.0 * (logits - shift), labels))
    assert abs(temperature - 3.0) < 0.1
    np.testing.assert_allclose(offsets, shift, atol=0.06)


def test_weights_count_as_so_many_pixels() -> None:
    rng = np.random.default_rng(1)
    logits, labels = drawn(rng)
    kept = rng.random(len(labels)) < np.where(labels == 0, 0.2, 1.0)  # class 0 was drawn less
    weights = np.where(labels == 0, 5.0, 1.0)[kept]
    temperature, offsets = calibrate(held(logits[kept], labels[kept], weights))
    assert abs(temperature - 1.0) < 0.06
    np.testing.assert_allclose(offsets, 0, atol=0.06)


def test_calibration_lowers_the_error_and_the_figures_say_so() -> None:
    logits, labels = drawn(np.random.default_rng(2))
    sharp = held(4.0 * logits, labels)
    before = figures(sharp, 1.0, (0.0, 0.0, 0.0), ("a", "b", "c"))
    after = figures(sharp, *calibrate(sharp), ("a", "b", "c"))
    assert before["calibration_error"] > 0.1
    assert after["calibration_error"] < 0.01
    truth = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    assert abs(after["log_loss"] - truth) < 1e-3


def test_figures_of_a_confusion_counted_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1], np.int32)
    found = np.array([0, 0, 1, 1, 0])
    logits = np.eye(3)[found] * 9.0
    said = figures(
        HeldOut(logits, labels, np.array([7, 7, 8, 8, 8], np.int32), np.ones(5)),
        1.0,
        (0.0, 0.0, 0.0),
        ("a", "b", "c"),
    )
    assert said["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert said["classes"]["a"]["iou"] == 2 / 4
    assert said["classes"]["b"]["users_accuracy"] == 1 / 2
    assert said["classes"]["c"]["iou"] is None
    assert said["accuracy"] == 3 / 5
    assert said["confusion_by_group"][0] == {"group": 7, "true": 0, "found": [2, 0, 0]}


def test_nothing_held_out_leaves_probabilities_alone() -> None:
    nothing = HeldOut(np.empty((0, 2)), *(np.empty(0, np.int32),) * 2, np.empty(0))
    assert calibrate(nothing) == (1.0, (0.0, 0.0))
    assert figures(nothing, 1.0, (0.0, 0.0), ("a", "b")) == {"groups": 0, "pixels": 0}


def test_a_class_without_held_out_groups_is_not_calibrated_away() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 2000)
    logits = rng.normal(size=(2000, 3)) + 2 * np.eye(3)[labels]
    temperature, offsets = calibrate(held(logits, labels))
    assert offsets[2] == 0.0
    np.testing.assert_allclose(offsets[:2], 0.0, atol=0.2)
    # what it takes of the others counts: without a look at it, all would be said to be surer
    logits[:, 2] += 2.0
    doubtful = held(logits, labels)
    temperature = calibrate(doubtful)[0]
    assert temperature > 2 * calibrate(held(logits[:, :2], labels))[0]
    names = ("a", "b", "c")
    after = figures(doubtful, *calibrate(doubtful), names)
    blind = figures(doubtful, *calibrate(held(logits[:, :2], labels))[:1], (0.0,) * 3, names)
    assert after["log_loss"] < blind["log_loss"]
