"""Finished pieces of a run, kept beside its results so that a run that was stopped goes on.

    with pieces(out, fingerprint(inputs, settings)) as kept:
        for index in range(count):
            if index not in kept:
                kept.put(index, {"classes": ...})

The pieces lie in the folder `.NAME.work` beside the results NAME. They are found again only by a
run with the same fingerprint, checked by their checksums, and removed when the run is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from warte import __version__
from warte.core.data.runs import is_temporary, kept_beside, remove_kept, stopped

JOURNAL = "done.jsonl"
KEY_LENGTH = 16  # hexadecimal digits of a fingerprint in the name of a folder


class Pieces:
    """Arrays by piece and name, in a folder: one file for each, and a journal with checksums.

    A piece counts when its line stands in the journal, which is written after its files. Lines
    and files that a crash has torn are found by their checksums, and the piece is made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sums: dict[int, dict[str, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / JOURNAL
        if journal.exists():
            self._sums = dict(_sound(folder, journal.read_text("utf-8", errors="replace")))
        # Only what is sound is taken over, so that a torn last line does not spoil the next.
        part = journal.with_suffix(".part")
        part.write_text("".join(_line(*entry) for entry in self._sums.items()), encoding="utf-8")
        os.replace(part, journal)

    def __contains__(self, index: int) -> bool:
        return index in self._sums

    def __len__(self) -> int:
        return len(self._sums)

    def put(self, index: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep the arrays of a piece.

        Raises:
            OSError: the folder cannot be written, or its disk is full.
        """
        sums = {}
        for number, (name, array) in enumerate(arrays.items()):
            data = _npy(array)
            _place(self.folder, index, number).write_bytes(data)
            sums[name] = zlib.crc32(data)
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as file:
            file.write(_line(index, sums))
        self._sums[index] = sums

    def get(self, index: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a piece, mapped from their files: only what is used is read."""
        return {
            name: np.load(_place(self.folder, index, number), mmap_mode="r")
            for number, name in enumerate(self._sums[index])
        }


@contextmanager
def pieces(out: Path, key: str) -> Iterator[Pieces]:
    """The pieces of the run with this fingerprint that writes into `out`.

    After the block they are removed, unless the run was stopped (Ctrl-C, SIGTERM, workers that
    died), or `out` is the folder of a `RunFolder`, which removes them when all of it is complete.

    Args:
        out: the folder of the results, or the temporary one of its `RunFolder`.
        key: from `fingerprint`.

    Raises:
        OSError: the folder beside `out` cannot be written.
    """
    beside = kept_beside(out)
    folder = beside / key[:KEY_LENGTH]
    try:
        yield Pieces(folder)
    except BaseException as problem:
        if not stopped(problem):
            remove_kept(out)
        raise
    if not is_temporary(out):
        remove_kept(out)


def fingerprint(*things: object) -> str:
    """sha256 of anything that can be pickled, and of Warte's version.

    Arrays and tensors enter by type, shape and contents, so that two programs that build the same
    model get the same answer.
    """
    text = BytesIO()
    digest = _Digest(text, protocol=5)
    digest.dump((__version__, things))
    return hashlib.sha256(text.getvalue()).hexdigest()


def file_facts(paths: Iterable[str | os.PathLike[str]]) -> list[tuple[str, int, int]]:
    """Path, size and time of last change of files, for a fingerprint; what is no file has zeros."""
    facts = []
    for path in paths:
        size = changed = 0
        with suppress(OSError):
            status = os.stat(path)
            size, changed = status.st_size, status.st_mtime_ns
        facts.append((os.fspath(path), size, changed))
    return facts


class _Digest(pickle.Pickler):
    """A pickler that writes checksums in place of numbers.

    PyTorch pickles the addresses of tensors too, which differ from run to run.
    """

    def persistent_id(self, thing: object) -> tuple[str, ...] | None:
        """What stands for an array or a tensor; None for all else."""
        # Where nobody has imported PyTorch there are no tensors, and no need for its 200 MB.
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(thing, torch.Tensor):
            # As bytes, because NumPy does not know all of PyTorch's types.
            plain = thing.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            kind, shape = str(thing.dtype), tuple(thing.shape)
        elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            plain = np.ascontiguousarray(thing)
            kind, shape = str(thing.dtype), thing.shape
        else:
            return None
        return kind, str(shape), hashlib.sha256(plain.tobytes()).hexdigest()


def _place(folder: Path, index: int, number: int) -> Path:
    return folder / f"{index:08d}-{number}.npy"


def _npy(array: npt.NDArray[Any]) -> memoryview:
    whole = BytesIO()
    np.save(whole, array, allow_pickle=False)
    return whole.getbuffer()


def _line(index: int, sums: Mapping[str, int]) -> str:
    """One line of the journal: the piece, and the checksum of each array by its name."""
    return json.dumps([index, sums]) + "\n"


def _sound(folder: Path, journal: str) -> Iterator[tuple[int, dict[str, int]]]:
    """The pieces whose line is whole and whose files have the checksums that it says."""
    for line in journal.splitlines():
        try:
            index, sums = json.loads(line)
            files = [_place(folder, index, number).read_bytes() for number in range(len(sums))]
        except (ValueError, OSError):  # torn, or never written
            continue
        if [zlib.crc32(data) for data in files] == list(sums.values()):
            yield index, sums
