"""Gradient boosting on each pixel and what surrounds it: the honest baseline of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window
from warte.earth.classify.inputs import Facts, Inputs, channels
from warte.earth.classify.trees import Trees, export
from warte.earth.scene import Float32Array
from warte.earth.train.augment import sensor, zoomed
from warte.earth.train.judge import HeldOut
from warte.earth.train.samples import Chip, Place
from warte.earth.train.settings import TrainSettings

IntArray = npt.NDArray[np.int32]
UNKNOWN = 0.1  # of the augmented pictures are seen without the direction of shadows


@dataclass(frozen=True)
class Rows:
    """Pixels to learn from.

    features: (N, F) float32, NaN where not known. labels, groups: (N,). copy: (N,) 0 for the
    picture itself. weights: (N,) how many pixels of the scenes each stands for.
    """

    features: Float32Array
    labels: IntArray
    groups: IntArray
    copy: IntArray
    weights: npt.NDArray[np.float64]

    def part(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """Some of them."""
        return Rows(
            self.features[rows], self.labels[rows], self.groups[rows], self.copy[rows],
            self.weights[rows],
        )  # fmt: skip


def gather(
    places: list[Place],
    read: Callable[[Place], Chip],
    inputs: Inputs,
    facts: list[Facts],
    limits: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    settings: TrainSettings,
    report: Callable[[str, int, int | None], None] | None = None,
) -> Rows:
    """Draw pixels from parts of scenes, one part in memory at a time, alike for all classes."""
    trees = settings.trees
    totals = np.sum([place.counts for place in places], axis=0)
    quota = trees.pixels / trees.copies / max(1, (totals > 0).sum())
    share = np.minimum(1.0, quota / np.maximum(totals, 1))
    found = []
    for number, place in enumerate(places):
        chip = read(place)
        for copy in range(trees.copies):
            rng = np.random.default_rng([settings.seed, number, copy])
            changed, seen = (chip, facts[chip.scene]) if copy == 0 else _changed(
                chip, facts[chip.scene], limits, settings, rng
            )  # fmt: skip
            found.append(_drawn(changed, inputs, seen, share, copy, rng))
        if report is not None:
            report("features", number + 1, len(places))
    return Rows(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _drawn(
    chip: Chip,
    inputs: Inputs,
    facts: Facts,
    share: npt.NDArray[np.float64],
    copy: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.generic], ...]:
    """Features, labels, groups, copy and weights of some labelled pixels of a picture."""
    label = chip.labels.ravel()
    chance = np.append(share, 0.0)[label]  # the last is for pixels without label
    chosen = np.flatnonzero(rng.random(label.size) < chance)
    seen = channels(chip.values, chip.window, inputs, facts)
    return (
        seen.reshape(len(seen), -1)[:, chosen].T,
        label[chosen],
        chip.groups.ravel()[chosen],
        np.full(len(chosen), copy, np.int32),
        1.0 / chance[chosen],
    )


def _changed(
    chip: Chip,
    facts: Facts,
    limits: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    settings: TrainSettings,
    rng: np.random.Generator,
) -> tuple[Chip, Facts]:
    """The part as another sensor would show it."""
    augment = settings.augment
    factor = float(augment.zoom ** rng.uniform(-1, 1))
    values, labels, groups, window = chip.values, chip.labels, chip.groups, chip.window
    if augment.zoom > 1:
        if factor > 1:  # a middle part, so that the picture does not grow
            rows, columns = (round(length / factor) for length in labels.shape)
            top, left = (labels.shape[0] - rows) // 2, (labels.shape[1] - columns) // 2
            cut = (slice(top, top + rows), slice(left, left + columns))
            values, labels, groups = values[:, *cut], labels[cut], groups[cut]
        values, labels, groups = zoomed(values, labels, groups, factor)
        window = Window(0, 0, *labels.shape)
        if facts.shadow is not None:
            row, column = (round(step * factor) for step in facts.shadow)
            facts = replace(facts, shadow=(row, column))
    if rng.random() < UNKNOWN:
        facts = replace(facts, shadow=None)
    values = sensor(values, *limits, augment, rng)
    return Chip(chip.scene, values, labels, groups, window), facts


def fitted(rows: Rows, settings: TrainSettings) -> Trees:
    """Trees that have learned from some pixels."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = settings.trees
    total = np.bincount(rows.labels, rows.weights)
    of_class = np.where(total > 0, total / total.sum(), 1.0) ** -settings.balance
    weights = rows.weights * of_class[rows.labels]
    model = HistGradientBoostingClassifier(
        max_iter=trees.rounds,
        learning_rate=trees.learning_rate,
        max_leaf_nodes=trees.leaves,
        min_samples_leaf=trees.smallest,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=settings.seed,
    )
    model.fit(rows.features, rows.labels, sample_weight=weights / weights.mean())
    return export(model)


def folds(
    rows: Rows, part: dict[int, int], classes: int, settings: TrainSettings, number: int
) -> Iterator[HeldOut]:
    """For some of the parts: what trees say that learned from all others.

    A class that the others lack gets the lowest score, so that it counts as not found.
    """
    of_row = np.array([part[int(group)] for group in rows.groups])
    for fold in range(number):
        held = rows.part((of_row == fold) & (rows.copy == 0))
        others = rows.part(of_row != fold)
        if not len(held.labels) or len(np.unique(others.labels)) < 2:
            continue
        present = np.unique(others.labels)
        compact = replace(others, labels=np.searchsorted(present, others.labels).astype(np.int32))
        scores = fitted(compact, settings).scores(held.features)
        logits = np.full((len(held.labels), classes), scores.min() - 10.0)
        logits[:, present] = scores
        yield HeldOut(logits, held.labels, held.groups, held.weights)
