"""What the training of a network keeps beside its results, so that it goes on after it was stopped.

For each held-out part there is a folder with the checkpoints of the loop
(`warte.core.train.checkpoint`) and the weights that were best at looks so far; when the part is
done, with what was learned alone. They are found again by the same labels, scenes and settings,
whatever the layout over processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from warte.core.data.resume import KEY_LENGTH, fingerprint
from warte.core.data.runs import is_temporary, kept_beside, stopped
from warte.core.train import checkpoint
from warte.core.train.launch import launched

if TYPE_CHECKING:
    from warte.earth.train.network import Learned, Lesson

FOLDER = "training"
DONE = "learned.safetensors"
BEST = re.compile(r"best-(\d{8})\.safetensors")
PARTS = 10  # of a training, with a checkpoint after each

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Keeping:
    """Where one training keeps what, and how often.

    folder: of its own; all processes see it. every: steps between checkpoints. tell: gets a line
    for the user where the training goes on.
    """

    folder: Path
    every: int
    tell: Tell | None = None


@dataclass(frozen=True)
class Found:
    """The best weights at some look: after so many steps, and their loss."""

    weights: dict[str, Tensor]
    done: int
    loss: float


def is_first() -> bool:
    """Whether this is process 0 of a launcher, or one that no launcher started."""
    found = launched()
    return found is None or found[0] == 0


@contextmanager
def going_on(out: Path, lesson: Lesson) -> Iterator[Path]:
    """The folder beside the results in `out` for this lesson, whatever part of it is held out.

    After the block it is removed, unless the run was stopped (`warte.core.data.runs.stopped`), or
    `out` is the folder of a `RunFolder`, which removes it when all of it is complete.
    """
    beside = kept_beside(out)
    try:
        yield beside / FOLDER / key_of(lesson)
    except BaseException as problem:
        if not stopped(problem):
            _remove(beside)
        raise
    if not is_temporary(out):
        _remove(beside)


def _remove(beside: Path) -> None:
    if is_first():
        shutil.rmtree(beside / FOLDER, ignore_errors=True)
        with suppress(OSError):  # there is something else in it
            beside.rmdir()


def key_of(lesson: Lesson) -> str:
    """The same for the same labels, pixels and settings."""
    plain = [
        asdict(lesson.settings), asdict(lesson.shape), asdict(lesson.inputs),
        [asdict(facts) for facts in lesson.facts],
        sorted(lesson.part.items()),
        [[chip.scene, chip.window.row, chip.window.column] for chip in lesson.chips],
    ]  # fmt: skip
    arrays = [(chip.values, chip.labels, chip.groups) for chip in lesson.chips]
    # Equal words can be one object or two, which a fingerprint would tell apart: they enter as one.
    text = json.dumps(plain, sort_keys=True)
    return fingerprint(text, arrays, lesson.low, lesson.high)[:KEY_LENGTH]


# the best weights so far ------------------------------------------------------------------------


def save_best(folder: Path, found: Found) -> None:
    """Keep the best weights at a look, and those of earlier looks that may be gone back to.

    Raises:
        NotSavedError: the disk is full, or the folder cannot be written.
    """
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"best-{found.done:08d}.safetensors"
        _save(place, found.weights, {"loss": repr(found.loss)})
        looks = _looks(folder)
        # Of the looks that every checkpoint knows of only the last one counts.
        oldest = min(checkpoint.steps(folder), default=0)
        known = [done for done in sorted(looks) if done <= oldest]
        for done in known[:-1]:
            looks[done].unlink()


def load_best(folder: Path, done: int) -> Found | None:
    """The best weights at looks until a checkpoint after so many steps.

    Raises:
        DamagedError: they cannot be read.
    """
    looks = _looks(folder)
    last = max((step for step in looks if step <= done), default=None)
    if last is None:
        return None
    weights, facts = _load(looks[last])
    return Found(weights, last, float(facts["loss"]))


def _looks(folder: Path) -> dict[int, Path]:
    """The weights of looks, by the steps until then."""
    if not folder.is_dir():
        return {}
    found = ((BEST.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(name[1]): path for name, path in found if name}


# what was learned -------------------------------------------------------------------------------


def save_learned(folder: Path, learned: Learned) -> None:
    """Keep what was learned in place of what was needed to go on.

    Raises:
        NotSavedError: the disk is full, or the folder cannot be written.
    """
    with checkpoint.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder / DONE, learned.weights, {"losses": json.dumps(learned.losses)})
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != DONE:
                path.unlink()


def load_learned(folder: Path) -> tuple[dict[str, Tensor], list[float]] | None:
    """Weights and losses, if this training is done.

    Raises:
        DamagedError: they cannot be read.
    """
    if not (folder / DONE).exists():
        return None
    weights, facts = _load(folder / DONE)
    return weights, json.loads(facts["losses"])


def _save(place: Path, weights: Mapping[str, Tensor], facts: dict[str, str]) -> None:
    """A file that appears whole or not at all."""
    part = place.with_suffix(".part")
    save_file({name: value.contiguous() for name, value in weights.items()}, part, facts)
    os.replace(part, place)


def _load(place: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(place, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError) as problem:
        raise checkpoint.DamagedError(
            f"{place} is damaged; remove the folder {place.parent}, and start again"
        ) from problem
