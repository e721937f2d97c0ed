"""Train a model of classes from scenes and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from warte import __version__
from warte.core.errors import InputError, SettingsError
from warte.core.train.layout import Layout
from warte.earth.classify.card import Card, colours_of
from warte.earth.classify.inputs import (
    Facts,
    Inputs,
    channels,
    direction,
    looks,
    reach,
)
from warte.earth.classify.predict import save
from warte.earth.labels import Labels
from warte.earth.scene import Float32Array, Scene
from warte.earth.train import boosting
from warte.earth.train.judge import HeldOut, calibrate, figures, joined
from warte.earth.train.samples import NONE, Chip, LabelsOf, Marks, Place, deal, places, read_chip
from warte.earth.train.settings import (
    AugmentSettings,
    NetworkSettings,
    TrainSettings,
    TreeSettings,
    clouds,
)

if TYPE_CHECKING:  # PyTorch is imported where a network is trained
    from warte.earth.model import ModelSettings

__all__ = [
    "AugmentSettings",
    "Marks",
    "NetworkSettings",
    "TrainSettings",
    "Trained",
    "TreeSettings",
    "clouds",
    "train",
]

Report = Callable[[str, int, int | None], None]
FloatArray = npt.NDArray[np.float64]
SAMPLE = 20_000  # pixels of each chip at most, for quantiles and normalisation (pixels)


@dataclass(frozen=True)
class Trained:
    """What came out.

    classes: names. pixels: labelled pixels of each class in the parts that were read. held_out:
    figures on groups that the model did not learn from. losses: of each step, empty for boosting.
    notes: what the user should know.
    """

    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    held_out: dict[str, Any]
    losses: tuple[float, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Material:
    """What all methods learn from: where labels lie, how to read there, and what scenes are like.

    part: from group to the part it was dealt into, -1 where it is always learned from. folds:
    the parts that are held out one after the other.
    """

    places: list[Place]
    read: Callable[[Place], Chip]
    classes: tuple[str, ...]
    inputs: Inputs
    facts: list[Facts]
    low: FloatArray
    high: FloatArray
    limits: dict[str, tuple[float, float]]
    part: dict[int, int]
    folds: int


@dataclass(frozen=True)
class Way:
    """How a network is trained, which makes no difference to what comes out.

    layout, device: where. out: of the results; what is kept lies beside it. every: steps between
    checkpoints, 0 for a tenth of them all. report, tell: see `train`.
    """

    layout: Layout
    device: str
    out: Path
    every: int
    report: Report | None
    tell: Callable[[str], None] | None


def train(
    scenes: Sequence[Scene],
    labels: Labels | Sequence[Labels | Marks],
    settings: TrainSettings | None = None,
    *,
    out: Path,
    layout: Layout | None = None,
    device: str = "cpu",
    checkpoint_every: int = 0,
    report: Report | None = None,
    tell: Callable[[str], None] | None = None,
) -> Trained | None:
    """Learn classes from labelled scenes; writes model.safetensors and model.json into `out`.

    The training of a network that was stopped goes on from its last checkpoint, in any layout, and
    gives the same: what it needs for that is kept beside `out` (`warte.earth.train.kept`).

    Groups of labels (polygons, squares of a raster) are held out, never single pixels; the
    probabilities are calibrated on them, and the card holds the figures and their confusion.

    Args:
        scenes: with the same bands and quantity.
        labels: one for all scenes, or one for each.
        out: an empty folder; the same in all processes of a launcher, of which 0 writes into it.
        layout: how a network is trained over processes; boosting takes one.
        device: "cpu" or "cuda", where a network is trained.
        checkpoint_every: steps of a network between checkpoints; 0 for a tenth of them all.
        tell: gets a line where the training goes on after it was stopped.

    Returns:
        What came out; None in the processes of a launcher other than 0.

    Raises:
        InputError: the scenes do not go together, or no labels lie on them.
        SettingsError: boosting cannot be spread over processes.
        NotSavedError, DamagedError: a checkpoint cannot be written or read.
        LostError: another process has ended.
    """
    settings = settings or TrainSettings()
    layout = layout or Layout()
    if settings.method == "boosting" and layout.devices != 1:
        raise SettingsError(
            f"--devices is {layout.devices}, and --method boosting runs in one process; "
            "give --devices 1 or another method"
        )
    material, notes = prepare(scenes, labels, settings, report)
    way = Way(layout, device, out, checkpoint_every, report, tell)
    with ExitStack() as kept:
        found: Found | None
        if settings.method == "boosting":
            found = _learn_trees(material, settings, report)
        else:
            found = _learn_network(material, settings, way, kept)
        return None if found is None else _written(scenes, material, settings, found, notes, out)


def _written(
    scenes: Sequence[Scene],
    material: Material,
    settings: TrainSettings,
    found: Found,
    notes: tuple[str, ...],
    out: Path,
) -> Trained:
    """Calibrate, judge and write the model."""
    arrays, inputs, shape, held, losses = found
    temperature, offsets = calibrate(held)
    judged = figures(held, temperature, offsets, material.classes)
    counts = np.sum([place.counts for place in material.places], axis=0)
    groups = len(material.part)
    card = Card(
        method=settings.method,
        classes=material.classes,
        colours=colours_of(len(material.classes)),
        quantity=scenes[0].quantity,
        inputs=inputs,
        network=shape,
        temperature=temperature,
        offsets=offsets,
        limits=material.limits,
        held_out={"held_out_once": material.folds == settings.folds, **judged},
        data={
            "scenes": [scene.name for scene in scenes],
            "sensors": sorted({scene.sensor for scene in scenes}),
            "parts": len(material.places),
            "groups": groups,
            "pixels": {
                name: int(count) for name, count in zip(material.classes, counts, strict=True)
            },
            "warte": __version__,
        },
        settings=asdict(settings),
    )
    save(out, card, arrays)
    return Trained(
        material.classes,
        tuple(map(int, counts)),
        judged,
        tuple(losses),
        (*notes, *_alone(material)),
    )


def prepare(
    scenes: Sequence[Scene],
    labels: Labels | Sequence[Labels | Marks],
    settings: TrainSettings,
    report: Report | None,
) -> tuple[Material, tuple[str, ...]]:
    """Find the labels, look at the scenes, deal the groups."""
    bands = _bands(scenes, settings)
    rng = np.random.default_rng([settings.seed, 1])
    marks = LabelsOf(scenes, labels, settings.block)
    found = places(scenes, marks, settings.chip, settings.chips, rng)
    kind = settings.inputs
    if kind == "auto":
        kind = "surroundings" if settings.method == "boosting" else "bands"
    inputs = Inputs(kind, bands, settings.radii if kind == "surroundings" else ())
    facts = [_facts(scene, inputs) for scene in scenes]
    margin = max(reach(inputs, one) for one in facts) + _reach_of_network(settings, len(bands))

    def read(place: Place) -> Chip:
        return read_chip(scenes[place.scene], place.scene, place, marks, bands, margin)

    groups, kinds, values = [], [], []
    for number, place in enumerate(found):
        chip = read(place)
        labelled = chip.labels != NONE
        groups.append(chip.groups[labelled])
        kinds.append(chip.labels[labelled])
        known = np.isfinite(chip.values).all(axis=0)
        inside = chip.values[:, known]
        values.append(inside[:, :: max(1, inside.shape[1] // SAMPLE)])
        if report is not None:
            report("labels", number + 1, len(found))
    kind_of, group_of = np.concatenate(kinds), np.concatenate(groups)
    missing = [name for index, name in enumerate(marks.classes) if not (kind_of == index).any()]
    if missing:
        raise InputError(
            f"no valid pixel of the scenes has the label {', '.join(missing)}; give scenes that "
            "show it, more --chips, or labels without it"
        )
    sample = np.concatenate(values, axis=1)
    low, high = np.quantile(sample.astype(np.float64), (0.01, 0.99), axis=1)
    ends = np.quantile(sample, (0.001, 0.999), axis=1).T
    limits = {band: (float(a), float(b)) for band, (a, b) in zip(bands, ends, strict=True)}
    part = deal(group_of, kind_of, settings.folds, rng)
    folds = settings.folds if len(part) <= settings.cross else 1
    material = Material(
        found, read, marks.classes, inputs, facts, low, np.maximum(high, low + 1e-6), limits, part,
        folds,
    )  # fmt: skip
    notes = tuple(labels.notes) if isinstance(labels, Labels) else ()
    return material, notes


def _bands(scenes: Sequence[Scene], settings: TrainSettings) -> tuple[str, ...]:
    """The bands to learn from.

    Raises:
        InputError: the scenes lack some, share none, or hold different quantities.
    """
    if not scenes:
        raise InputError("no scene was given; give at least one")
    first = scenes[0]
    for scene in scenes[1:]:
        if scene.quantity != first.quantity:
            raise InputError(
                f"{first.name} holds {first.quantity} and {scene.name} {scene.quantity}; "
                "bring them to the same quantity first"
            )
    if settings.bands:
        for scene in scenes:
            scene.indices(settings.bands)
        return settings.bands
    shared = tuple(band for band in first.bands if all(band in one.bands for one in scenes))
    if not shared:
        raise InputError("the scenes share no band; name them the same, or train on fewer scenes")
    return shared


def _facts(scene: Scene, inputs: Inputs) -> Facts:
    """What is known about a scene as a whole; its medians are not needed to learn."""
    if inputs.kind != "clouds":
        return Facts(None, ())
    parts = [
        scene.read(window, inputs.bands) for window in looks(scene.grid.rows, scene.grid.columns)
    ]
    return Facts(direction([part for part in parts if part.valid.any()]), ())


def shape_of(settings: TrainSettings, channels_: int, classes: int) -> ModelSettings:
    """The shape of the network for so many channels of the input and classes."""
    from warte.earth.model import ModelSettings

    of = settings.network
    return ModelSettings(
        bands=channels_ + 1, classes=classes, width=of.width, depth=of.depth, blocks=of.blocks,
        kernel=of.kernel,
    )  # fmt: skip


def _reach_of_network(settings: TrainSettings, bands: int) -> int:
    if settings.method == "boosting":
        return 0
    if settings.method == "patch":
        return settings.network.patch
    from warte.earth.model import alignment, receptive_field

    shape = shape_of(settings, bands, 2)
    return receptive_field(shape) + alignment(shape)


Found = tuple[dict[str, npt.NDArray[Any]], Inputs, dict[str, int], HeldOut, Sequence[float]]


def _learn_trees(material: Material, settings: TrainSettings, report: Report | None) -> Found:
    """Boosting: held-out parts first, then trees from all pixels."""
    rows = boosting.gather(
        material.places, material.read, material.inputs, material.facts,
        (material.low, material.high), settings, report,
    )  # fmt: skip
    parts = []
    count = len(material.classes)
    for held in boosting.folds(rows, material.part, count, settings, material.folds):
        parts.append(held)
        if report is not None:
            report("held out", len(parts), material.folds)
    trees = boosting.fitted(rows, settings)
    return trees.arrays(), material.inputs, {}, _all(parts, count), ()


def _learn_network(
    material: Material, settings: TrainSettings, way: Way, kept: ExitStack
) -> Found | None:
    """A network: held-out parts first; the model is that of the first, or one from all groups.

    What it keeps is not needed any more when the block of `kept` ends well.
    """
    from warte.earth.train import network
    from warte.earth.train.kept import PARTS, Keeping, going_on

    chips = [material.read(place) for place in material.places]
    inputs = scaled(material, chips)
    count = len(material.classes)
    shape = shape_of(settings, len(inputs.centre), count)
    lesson = network.Lesson(
        chips, material.facts, inputs, material.low, material.high, material.part, 0, shape,
        settings,
    )  # fmt: skip
    folder = kept.enter_context(going_on(way.out, lesson))
    every = way.every or max(1, settings.network.steps // PARTS)
    lessons = [replace(lesson, held=fold) for fold in range(material.folds)]
    if material.folds > 1:
        lessons.append(replace(lesson, held=None))
    names = ["whole" if one.held is None else f"without-{one.held}" for one in lessons]
    learned = network.learn_all(
        lessons, way.layout, way.report, cuda=way.device == "cuda",
        keeping=[Keeping(folder / name, every, way.tell) for name in names],
    )  # fmt: skip
    if learned is None:
        return None
    parts = [
        network.held_out(one.model(found.weights), one)
        for one, found in zip(lessons, learned, strict=True) if one.held is not None
    ]  # fmt: skip
    last = learned[-1]
    arrays = {name: value.numpy() for name, value in last.weights.items()}
    facts = {**asdict(shape), **({"side": lesson.side} if settings.method == "patch" else {})}
    return arrays, inputs, facts, _all(parts, count), last.losses


def scaled(material: Material, chips: Sequence[Chip]) -> Inputs:
    """The inputs with centre and scale of each channel."""
    seen = [
        channels(chip.values, chip.window, material.inputs, material.facts[chip.scene])
        for chip in chips
    ]
    sample: Float32Array = np.concatenate(
        [one.reshape(len(one), -1)[:, :: max(1, one[0].size // SAMPLE)] for one in seen], axis=1
    )
    centre = np.nan_to_num(np.nanmean(sample.astype(np.float64), axis=1))
    scale = np.maximum(np.nan_to_num(np.nanstd(sample.astype(np.float64), axis=1)), 1e-6)
    return replace(
        material.inputs, centre=tuple(map(float, centre)), scale=tuple(map(float, scale))
    )


def _all(parts: Sequence[HeldOut], classes: int) -> HeldOut:
    """All held-out pixels; none where no part could be held out."""
    if parts:
        return joined(parts)
    nothing = np.empty(0, np.int32)
    return HeldOut(np.empty((0, classes)), nothing, nothing, np.empty(0))


def _alone(material: Material) -> tuple[str, ...]:
    """Says that some groups could not be held out."""
    alone = sum(1 for part in material.part.values() if part < 0)
    if not alone:
        return ()
    return (
        f"{alone} of {len(material.part)} groups are the only ones of their class: they cannot "
        "be held out, so there are no figures for them",
    )
