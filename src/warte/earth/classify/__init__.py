"""Classify a scene with a trained model: classes, probabilities, areas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import InputError, SettingsError
from warte.earth.areas import areas
from warte.earth.classify.card import Card
from warte.earth.classify.inputs import Facts, survey
from warte.earth.classify.predict import digest, load
from warte.earth.scene import Float32Array, Pixels, Scene, pixel_area_ha
from warte.earth.whole import Output, map_scenes
from warte.earth.write import open_picture

__all__ = ["Classified", "ClassifySettings", "classify"]

CLASSES = "classes.tif"
PROBABILITIES = "probabilities.tif"
AREAS = "areas.csv"
NOTHING = 255  # value of pixels that are not classified
SHOWN = 3  # names of scenes in a sentence

Float64Array = npt.NDArray[np.float64]
Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ClassifySettings:
    """How a scene is classified."""

    tile: int = 512  # side of the windows that the scene is cut into (pixels)
    blend: int = 16  # over which the probabilities of neighbouring windows are blended (pixels)
    margin: int = -1  # seen around each window; -1: as far as the model looks (pixels)

    def __post_init__(self) -> None:
        for flag, value, low in (
            ("--tile", self.tile, 32),
            ("--blend", self.blend, 0),
            ("--margin", self.margin, -1),
        ):
            if value < low:
                raise SettingsError(f"{flag} is {value}; allowed is {low} or more")


@dataclass(frozen=True)
class Classified:
    """What was found.

    classes: names. pixels, mapped_ha: of each class; area None where the grid has no CRS.
    interval: what the intervals of the areas are, or why there are none. valid: pixels that were
    classified. margin: pixels seen around each window. shadow: where the shadows of clouds lie
    (rows, columns), for models of clouds. notes: what the user should know.
    """

    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    mapped_ha: tuple[float, ...] | None
    interval: str
    valid: int
    margin: int
    shadow: tuple[int, int] | None
    notes: tuple[str, ...]


def classify(
    scene: Scene,
    model: Path,
    settings: ClassifySettings | None = None,
    *,
    out: Path,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Classified:
    """Classify every valid pixel of a scene; writes classes.tif, probabilities.tif, areas.csv.

    The areas have an interval where the model held out labels of this very scene.

    Args:
        scene: has the bands of the model, and numbers of the same meaning.
        model: the folder that `train` wrote.
        out: an empty folder.

    Raises:
        InputError: no model there, or it is for other scenes; nothing in the scene is valid.
    """
    settings = settings or ClassifySettings()
    predictor = load(model)
    card = predictor.card
    card.check(scene)
    facts = survey(scene, card.inputs)
    notes = _scale_notes(scene, card, facts)
    margin = settings.margin if settings.margin >= 0 else predictor.reach(facts)
    map_scenes(
        [scene],
        Probabilities(str(model), digest(model), facts),
        [Output(PROBABILITIES, "float32", float("nan"), card.classes), _classes_output(card)],
        out,
        bands=card.bands,
        margin=margin,
        tile=settings.tile,
        blend=min(settings.blend, settings.tile // 2),
        after=most_likely,  # from the blended probabilities: classes cannot be blended
        pool=pool,
        report=report,
    )
    return _areas(scene, card, out, margin, facts, notes)


@dataclass(frozen=True)
class Probabilities:
    """The work on one window; it can be sent to another process.

    model: folder. digest: of its files, so that a run that goes on does not mix two models.
    """

    model: str
    digest: str
    facts: Facts

    def __call__(self, pixels: Sequence[Pixels]) -> Mapping[str, Float32Array]:
        """Probabilities of the classes (classes, rows, columns)."""
        predictor = load(Path(self.model))
        return {PROBABILITIES: predictor.probabilities(pixels[0], self.facts)}


def most_likely(found: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
    """Adds the class of the highest probability; of equal ones, the first."""
    classes = np.nan_to_num(found[PROBABILITIES]).argmax(axis=0)[None].astype(np.uint8)
    return {**found, CLASSES: classes}


def _classes_output(card: Card) -> Output:
    return Output(
        CLASSES,
        "uint8",
        NOTHING,
        ("class",),
        colours=dict(enumerate(card.colours)),
        labels=dict(enumerate(card.classes)),
    )


def _scale_notes(scene: Scene, card: Card, facts: Facts) -> tuple[str, ...]:
    """Refuse numbers of another scale; say so where a band merely lies outside.

    Raises:
        InputError: all bands lie far from what the model learned from.
    """
    outside, far = [], []
    for band, median in zip(card.bands, facts.medians, strict=True):
        low, high = card.limits[band]
        if not low <= median <= high:
            outside.append(band)
        if not low - 5 * (high - low) <= median <= high + 5 * (high - low):
            far.append(band)
    if len(far) == len(card.bands):
        low, high = card.limits[card.bands[0]]
        raise InputError(
            f"{scene.name} has numbers of another scale: the median of {card.bands[0]} is "
            f"{facts.medians[0]:g}, the model learned from {low:g} to {high:g}; "
            "bring it to the same quantity first"
        )
    if outside:
        return (f"medians lie outside of what the model learned from: {', '.join(outside)}",)
    return ()


def _areas(
    scene: Scene, card: Card, out: Path, margin: int, facts: Facts, notes: tuple[str, ...]
) -> Classified:
    """Count the classes row by row and write the table."""
    count = len(card.classes)
    pixels = np.zeros(count, np.int64)
    hectares = np.zeros(count)
    per_row = None if scene.grid.crs is None else pixel_area_ha(scene.grid)
    with open_picture(out / CLASSES) as file:
        for _, place in file.block_windows(1):
            found = file.read(1, window=place)
            for index in range(count):
                rows = (found == index).sum(axis=1)
                pixels[index] += rows.sum()
                if per_row is not None:
                    hectares[index] += rows @ per_row[place.row_off : place.row_off + len(rows)]
    interval = "no interval: the scene has no CRS, so there are no areas"
    if per_row is None:
        table = pd.DataFrame({"class": card.classes, "pixels": pixels})
    else:
        confusion = _confusion(scene, card)
        table = areas(card.classes, pixels, hectares, confusion)
        interval = table.attrs["interval"] if confusion is not None else _unjudged(scene, card)
    table.to_csv(out / AREAS, index=False)
    return Classified(
        classes=card.classes,
        pixels=tuple(map(int, pixels)),
        mapped_ha=None if per_row is None else tuple(map(float, hectares)),
        interval=interval,
        valid=int(pixels.sum()),
        margin=margin,
        shadow=facts.shadow,
        notes=notes,
    )


def _unjudged(scene: Scene, card: Card) -> str:
    """Why the errors of this map are not known."""
    names = [str(name) for name in card.data.get("scenes", ())]
    if scene.name in names:
        why = f"no labels of {scene.name} could be held out"
    else:
        more = ", ..." if len(names) > SHOWN else ""
        why = f"the model held out labels of {', '.join(names[:SHOWN])}{more}, not of {scene.name}"
    return f"no interval: mapped_ha is counted from the map alone, because {why}"


def _confusion(scene: Scene, card: Card) -> Float64Array | None:
    """(groups, found, true) pixels of held-out groups, if they lie in this very scene."""
    rows = card.held_out.get("confusion_by_group", [])
    if not rows or scene.name not in card.data.get("scenes", ()):
        return None
    groups = {name: place for place, name in enumerate(sorted({row["group"] for row in rows}))}
    out = np.zeros((len(groups), len(card.classes), len(card.classes)))
    for row in rows:
        out[groups[row["group"]], :, row["true"]] = row["found"]
    return out
