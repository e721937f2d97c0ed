"""Checkpoints that are saved in any layout and loaded in any other.

Tensors are stored by the names of the single-device model, whole or in the parts that the
processes hold (torch.distributed.checkpoint puts them together), beside a small JSON of facts. A
checkpoint is a folder that gets its name when it is complete; a process that dies while saving
leaves the one before.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from warte.core.data.disk import is_disk_full
from warte.core.errors import InputError, OutputError, StoppedError
from warte.core.train.launch import together

NAME = re.compile(r"step-(\d{8})")
FACTS = "facts.json"
UNFINISHED = ".saving"
KEPT = 2  # the newest, and the one before


class NotSavedError(StoppedError, OutputError):
    """A checkpoint cannot be written; the one before is good."""


class DamagedError(StoppedError, InputError):
    """A checkpoint cannot be read; the one before may be good."""


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Save the tensors of all processes as `folder`/step-00000012, and forget older ones.

    Args:
        folder: on a disk that all processes see.
        step: of the name.
        tensors: what this process holds; names that several processes hold are the same tensor,
            or parts of one DTensor.
        facts: what JSON knows, the same in all processes.

    Raises:
        NotSavedError: it cannot be written, in all processes.
        LostError: another process has ended.
    """
    from torch.distributed import checkpoint as dcp

    place, unfinished = folder / f"step-{step:08d}", folder / UNFINISHED
    first = not dist.is_initialized() or dist.get_rank() == 0
    with together(), writing(folder):
        if first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
    with together(), writing(folder):
        dcp.save(dict(tensors), checkpoint_id=unfinished, no_dist=not dist.is_initialized())
    with together(), writing(folder):
        if first:
            (unfinished / FACTS).write_text(json.dumps(dict(facts)), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            os.rename(unfinished, place)
            for old in _complete(folder)[:-KEPT]:
                shutil.rmtree(old)
    return place


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder, or None."""
    return next(reversed(_complete(folder)), None)


def steps(folder: Path) -> list[int]:
    """Of the complete checkpoints in a folder, from the oldest."""
    return [int(path.name.removeprefix("step-")) for path in _complete(folder)]


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def load(place: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fill the tensors of this process, in any layout, from a checkpoint; its facts.

    Load only checkpoints that you trust: their table of contents is a pickle.

    Raises:
        InputError: it is of another model.
        DamagedError: it cannot be read.
        LostError: another process has ended.
    """
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    with together(), _reading(place):
        reader = dcp.FileSystemReader(place)
        stored = reader.read_metadata().state_dict_metadata
        for name, value in tensors.items():
            found = stored.get(name)
            size = tuple(found.size) if isinstance(found, TensorStorageMetadata) else None
            if size != tuple(value.shape):
                raise InputError(
                    f"{place}: {name} is {_words(size)} there and {_words(tuple(value.shape))} "
                    "here; it was saved from another model: give the same settings, or another "
                    "--out"
                )
        facts: dict[str, Any] = json.loads((place / FACTS).read_text(encoding="utf-8"))
    with together(), _reading(place):
        dcp.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())
    return facts


def _words(size: tuple[int, ...] | None) -> str:
    return "missing" if size is None else " x ".join(map(str, size)) or "one number"


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """The library warns of a single process, even if it is told that there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failure to write into one line.

    Raises:
        NotSavedError: the disk is full, or the folder cannot be written.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with _alone_is_fine():
            yield
    except (OSError, CheckpointException) as problem:
        if _any_disk_full(problem):
            raise NotSavedError(
                f"the disk of {folder} is full; the checkpoint before is kept; make room and start "
                "again"
            ) from problem
        raise NotSavedError(
            f"cannot write a checkpoint into {folder}: {_reason(problem)}; the one before is kept"
        ) from problem


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with _alone_is_fine():
            yield
    except (OSError, EOFError, ValueError, pickle.UnpicklingError, CheckpointException) as problem:
        raise DamagedError(
            f"{place}: the checkpoint is damaged ({_reason(problem)}); remove it, and the one "
            "before will be used"
        ) from problem


def _any_disk_full(problem: BaseException) -> bool:
    return any(is_disk_full(cause) for cause in _causes(problem))


def _causes(problem: BaseException) -> list[BaseException]:
    """What went wrong in the processes, or the problem itself."""
    from torch.distributed.checkpoint.api import CheckpointException

    if isinstance(problem, CheckpointException):
        return [cause for cause, _ in problem.failures.values()]
    return [problem]


def _reason(problem: BaseException) -> str:
    cause = _causes(problem)[0]
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return text.strip().splitlines()[0].lower()
