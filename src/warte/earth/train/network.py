"""A network that answers for each pixel or for each patch, trained from labelled parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from warte.core.data.tiles import Window
from warte.core.train import checkpoint
from warte.core.train.launch import PATIENCE_S, Place, launched, run
from warte.core.train.layout import Layout
from warte.core.train.loop import LoopSettings, fit
from warte.earth.classify.inputs import Facts, Inputs, channels, normalised
from warte.earth.classify.networks import Patches, UNet
from warte.earth.classify.predict import Model
from warte.earth.model import ModelSettings, build, build_patch
from warte.earth.parallel import PLAN
from warte.earth.scene import Float32Array, Pixels
from warte.earth.train.augment import sensor, turned
from warte.earth.train.judge import HeldOut, joined, loss_of
from warte.earth.train.kept import (
    Found,
    Keeping,
    load_best,
    load_learned,
    save_best,
    save_learned,
)
from warte.earth.train.samples import NONE, Chip
from warte.earth.train.settings import TrainSettings

IntArray = npt.NDArray[np.int32]
T = TypeVar("T", bound=np.generic)
# Called with the number of a look (from 1) and what the network says then; True ends the training.
Told = Callable[[int, HeldOut], bool]
Report = Callable[[str, int, int | None], None]
MOST_HELD = 200_000  # pixels on which the weights are compared


@dataclass(frozen=True)
class Lesson:
    """What a network learns from; it can be sent to another process.

    chips: parts of scenes. facts: of each scene. inputs: what the network sees. low, high: the 1 %
    and 99 % quantiles of each band. part: from group to the part it was dealt into. held: the part
    that is held out, None for none. shape: of the network.
    """

    chips: list[Chip]
    facts: list[Facts]
    inputs: Inputs
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    part: dict[int, int]
    held: int | None
    shape: ModelSettings
    settings: TrainSettings

    @property
    def side(self) -> int:
        """Side of the pictures of a batch (pixels)."""
        network = self.settings.network
        return network.crop if self.settings.method == "unet" else network.patch

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        return build(self.shape) if self.settings.method == "unet" else build_patch(self.shape)

    def model(self, weights: dict[str, Tensor]) -> Model:
        """The network with some weights."""
        network = self.build()
        network.load_state_dict(weights)
        network.eval()
        if self.settings.method == "unet":
            return UNet(self.shape, network)
        return Patches(self.shape, network, self.side)

    def is_held(self, groups: IntArray) -> npt.NDArray[np.bool_]:
        """Which pixels belong to groups that are held out; the number of a group, -1 for none."""
        held = [name for name, part in self.part.items() if part == self.held]
        return np.isin(groups, held)


class Batches:
    """From the number of a step to a batch, the same in every process."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.labels = [
            np.where(lesson.is_held(chip.groups), NONE, chip.labels) for chip in lesson.chips
        ]
        # Where a crop may be put around: for each class, chip and pixel.
        where = [np.flatnonzero(labels != NONE) for labels in self.labels]
        self.chip_of = np.repeat(np.arange(len(where)), [len(one) for one in where])
        self.pixel_of = np.concatenate(where)
        kinds = np.concatenate(
            [labels.ravel()[one] for labels, one in zip(self.labels, where, strict=True)]
        )
        counts = np.bincount(kinds, minlength=lesson.shape.classes)
        self.order = np.argsort(kinds, kind="stable")
        self.ends = np.cumsum(counts)
        share = np.where(counts > 0, counts / counts.sum(), 0.0)
        drawn = np.where(counts > 0, np.maximum(share, 1e-12) ** (1 - lesson.settings.balance), 0)
        self.chance = drawn / drawn.sum()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures (N, channels + 1, side, side) and labels: of each pixel, or one of each."""
        lesson = self.lesson
        rng = np.random.default_rng([lesson.settings.seed, step])
        seen, told = [], []
        for kind in rng.choice(len(self.chance), lesson.settings.network.batch, p=self.chance):
            first = self.ends[kind - 1] if kind else 0
            row = self.order[rng.integers(first, self.ends[kind])]
            picture, labels = self._crop(int(self.chip_of[row]), int(self.pixel_of[row]), rng)
            seen.append(torch.from_numpy(picture))
            told.append(labels if lesson.settings.method == "unet" else _most(labels))
        return torch.stack(seen), torch.from_numpy(np.stack(told).astype(np.int64))

    def _crop(
        self, number: int, pixel: int, rng: np.random.Generator
    ) -> tuple[Float32Array, IntArray]:
        """A crop that holds a pixel somewhere, turned, seen by another sensor."""
        lesson, side = self.lesson, self.lesson.side
        chip, labels = lesson.chips[number], self.labels[number]
        row, column = divmod(pixel, labels.shape[1])
        top, left = row - int(rng.integers(side)), column - int(rng.integers(side))
        values = _cut(chip.values, top, left, side, np.nan)
        told = _cut(labels, top, left, side, NONE)
        turn = int(rng.integers(8))
        values, told = turned(values, turn), turned(told, turn)
        values = sensor(values, lesson.low, lesson.high, lesson.settings.augment, rng)
        facts = lesson.facts[chip.scene]
        window = Window(0, 0, side, side)
        picture = normalised(channels(values, window, lesson.inputs, facts), lesson.inputs)
        return picture, np.ascontiguousarray(told)


def _cut(picture: npt.NDArray[T], top: int, left: int, side: int, nothing: float) -> npt.NDArray[T]:
    """A square of (..., rows, columns), filled up where it leaves the picture."""
    rows, columns = picture.shape[-2:]
    out = np.full((*picture.shape[:-2], side, side), nothing, picture.dtype)
    low, high = max(top, 0), min(top + side, rows)
    west, east = max(left, 0), min(left + side, columns)
    out[..., low - top : high - top, west - left : east - left] = picture[..., low:high, west:east]
    return out


def _most(labels: IntArray) -> npt.NDArray[np.int64]:
    """The most frequent class among the labelled pixels."""
    return np.asarray(np.bincount(labels[labels != NONE]).argmax(), np.int64)


def entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies of labelled pixels (or patches), and how many there are."""
    total = nn.functional.cross_entropy(logits, labels, ignore_index=NONE, reduction="sum")
    return total, (labels != NONE).sum()


def held_out(model: Model, lesson: Lesson) -> HeldOut:
    """What a network says about the pixels of the groups that are held out."""
    wanted = [lesson.is_held(chip.groups) & (chip.labels != NONE) for chip in lesson.chips]
    step = max(1, -(-sum(int(one.sum()) for one in wanted) // MOST_HELD))
    parts = []
    for chip, one in zip(lesson.chips, wanted, strict=True):
        chosen = np.flatnonzero(one)[::step]
        if not len(chosen):
            continue
        pixels = Pixels(chip.values, np.asarray(np.isfinite(chip.values).all(axis=0)), chip.window)
        logits = model.logits(pixels, lesson.inputs, lesson.facts[chip.scene])
        parts.append(
            HeldOut(
                logits.reshape(len(logits), -1)[:, chosen].T.astype(np.float64),
                chip.labels.ravel()[chosen],
                chip.groups.ravel()[chosen],
                np.full(len(chosen), float(step)),
            )
        )
    if parts:
        return joined(parts)
    nothing = np.empty(0, np.int32)
    return HeldOut(np.empty((0, lesson.shape.classes)), nothing, nothing, np.empty(0))


@dataclass
class Best:
    """Looks at the held-out groups now and then, and keeps the weights that were best."""

    lesson: Lesson
    first: bool  # whether this is process 0, which alone looks
    told: Told | None = None  # what else wants to know of each look; may end the training
    folder: Path | None = None  # where the weights are kept for a run that goes on
    weights: dict[str, Tensor] | None = None
    loss: float = float("inf")
    taken: int = 0  # looks

    def go_on(self, done: int) -> None:
        """Take up the weights that were best when a checkpoint was saved after so many steps."""
        found = load_best(self.folder, done) if self.folder is not None and self.first else None
        if found is not None:
            self.weights, self.loss = found.weights, found.loss

    def __call__(self, done: int, loss: float, weights: Callable[[], dict[str, Tensor]]) -> bool:
        """See `warte.core.train.loop.Watch`."""
        network = self.lesson.settings.network
        every = max(1, network.steps // network.looks)
        if done % every and done != network.steps:
            return False
        now = weights()  # in all processes
        if not self.first:
            return False
        held = held_out(self.lesson.model(now), self.lesson)
        found = loss_of(held) if len(held) else float("-inf")  # without any, the last is the best
        if found <= self.loss or not len(held):
            self.weights, self.loss = now, found
            if self.folder is not None:
                save_best(self.folder, Found(now, done, found))
        self.taken += 1
        return self.told is not None and self.told(self.taken, held)


@dataclass(frozen=True)
class Learned:
    """The weights that were best on held-out groups, and the loss of each step."""

    weights: dict[str, Tensor]
    losses: list[float]


def learn(lesson: Lesson, layout: Layout, *, told: Told | None = None) -> Learned | None:
    """Train the network of one lesson, and keep nothing; see `learn_all`."""
    found = learn_all([lesson], layout, told=told)
    return None if found is None else found[0]


def learn_all(
    lessons: Sequence[Lesson],
    layout: Layout,
    report: Report | None = None,
    *,
    cuda: bool = False,
    told: Told | None = None,
    keeping: Sequence[Keeping] | None = None,
) -> list[Learned] | None:
    """Train a network for each lesson in one process or in several, however this one was started.

    Processes that are started here are started once for all lessons.

    Args:
        told: asked at each look, where there is one process only.
        keeping: for each lesson where it goes on from, if it was stopped earlier, and what it
            keeps for that.

    Returns:
        What was learned; None in the processes of a launcher other than 0.
    """
    for lesson, one in zip(lessons, keeping or (), strict=keeping is not None):
        _tell(one, lesson.settings.network.steps)
    kept: list[Keeping | None] = [None] * len(lessons)
    if keeping is not None:  # what tells the user cannot be sent to other processes
        kept = [replace(one, tell=None) for one in keeping]
    work = list(zip(lessons, kept, strict=True))
    if layout.devices == 1:
        place = Place(0, 1, torch.device("cuda" if cuda else "cpu"))
        return _learned(place, work, layout, report, told)
    # A function that shows progress cannot be sent to the processes that are started here.
    shown = report if launched() is not None else None
    # Process 0 looks at the held-out groups alone while the others wait for it.
    return run(
        layout.devices, _learned, work, layout, shown, cuda=cuda, patience_s=PATIENCE_S
    )  # fmt: skip


def _tell(keeping: Keeping, steps: int) -> None:
    done = checkpoint.steps(keeping.folder)
    if done and keeping.tell is not None:
        keeping.tell(f"goes on at step {done[-1]} of {steps}")


def _learned(
    place: Place,
    work: list[tuple[Lesson, Keeping | None]],
    layout: Layout,
    report: Report | None,
    told: Told | None = None,
) -> list[Learned]:
    """What each process of a run does: one lesson after the other."""
    found = []
    for lesson, keeping in work:
        before = None if keeping is None else load_learned(keeping.folder)
        if before is not None:
            found.append(Learned(*before))
            continue
        found.append(_fit(place, lesson, layout, keeping, report, told))
        if keeping is not None and place.rank == 0:
            save_learned(keeping.folder, found[-1])
    return found


def _fit(
    place: Place,
    lesson: Lesson,
    layout: Layout,
    keeping: Keeping | None,
    report: Report | None,
    told: Told | None,
) -> Learned:
    network = lesson.settings.network
    folder = None if keeping is None else keeping.folder
    loop = LoopSettings(
        steps=network.steps,
        learning_rate=network.learning_rate,
        weight_decay=network.weight_decay,
        warmup=max(1, network.steps // 20),
        checkpoint_every=0 if keeping is None else keeping.every,
        seed=lesson.settings.seed,
    )
    best = Best(lesson, place.rank == 0, told, folder)
    if folder is not None:
        best.go_on(max(checkpoint.steps(folder), default=0))
    found = fit(
        lesson.build,
        Batches(lesson),
        entropy,
        loop,
        layout,
        PLAN,
        out=folder,
        device=place.device,
        report=report,
        watch=best,
    )
    return Learned(best.weights or found.state, found.losses)
