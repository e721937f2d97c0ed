"""Run folders: results appear whole or not at all, with a run.json that says how they were made."""

import datetime
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from warte.core.data.checksum import sha256_of_file, sha256_of_folder
from warte.core.data.disk import is_disk_full
from warte.core.errors import InputError, OutputError, StoppedError

RUN_FILE = "run.json"
PARTIAL = re.compile(r"\.(.+)\.partial-[0-9a-f]{8}")  # temporary folder of results of some name
STALE_S = 5.0  # younger temporary folders without a lock may belong to a run that just begins


def kept_beside(out: Path) -> Path:
    """Where a run keeps finished pieces, so that the same command goes on after it was stopped.

    It is `.NAME.work` beside the results NAME; `out` is their folder, or the temporary one of
    their `RunFolder`.
    """
    temporary = PARTIAL.fullmatch(out.name)
    return out.with_name(f".{temporary[1] if temporary else out.name}.work")


def is_temporary(out: Path) -> bool:
    """Whether a folder is the temporary one of a `RunFolder`."""
    return PARTIAL.fullmatch(out.name) is not None


def remove_kept(out: Path) -> None:
    """Remove the finished pieces of a run."""
    shutil.rmtree(kept_beside(out), ignore_errors=True)


def stopped(problem: BaseException) -> bool:
    """Whether a run that ended so can go on later: Ctrl-C, SIGTERM, processes that died."""
    return not isinstance(problem, Exception) or isinstance(problem, StoppedError)


class RunFolder:
    """A folder of results that is written beside its place and moved there when it is complete.

        with RunFolder("night", command=["warte", "sky", "find", "night.mp4"]) as run:
            run.add_input("night.mp4")
            with run.step("detect"):
                (run.path / "tracks.csv").write_text(...)

    On a clean exit run.json is written and the folder is renamed to `out`. On any exception,
    Ctrl-C included, the temporary folder is removed and `out` stays as it was. Temporary folders
    of runs that were killed go when the next run with the same `out` begins. Pieces that a run
    kept beside it (`warte.core.data.resume`) stay after Ctrl-C, a kill, or a `StoppedError`.

    Args:
        out: the folder to make; missing parents are made too.
        force: replace `out` if it holds the results of an earlier run. A folder that is not empty
            and has no run.json is never replaced.
        adds: names of the files that this run makes beside those of an earlier one. If given, the
            files of an earlier run in `out` are kept, and what its run.json says moves into the
            list `earlier` of the new one; `force` is needed only where one of the names is taken.
        command: the command line, for run.json.
        seed: seed of the random numbers, for run.json; None where none are drawn.

    Attributes:
        path: the temporary folder, beside `out`; everything is written here.
        seconds: wall time in seconds of each step that has ended.

    Raises:
        OutputError: `out` exists, cannot be written, or the disk is full.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        force: bool = False,
        adds: Sequence[str] = (),
        command: Sequence[str] = (),
        seed: int | None = None,
    ) -> None:
        self.out = Path(out).expanduser().resolve()
        self.force = force
        self.adds = tuple(adds)
        self.command = list(command)
        self.seed = seed
        self.seconds: dict[str, float] = {}
        self.inputs: list[dict[str, str]] = []
        self.notes: dict[str, object] = {}
        self._shown = str(out)
        self._path: Path | None = None
        self._lock: int | None = None
        self._made_parents: list[Path] = []
        self._started = time.perf_counter()
        self._started_utc = _now_utc()

    @property
    def path(self) -> Path:
        """The folder to write into; it exists inside the `with` block only."""
        if self._path is None:
            raise RuntimeError("RunFolder.path exists only inside its with block")
        return self._path

    def __enter__(self) -> "RunFolder":
        self._check_out()
        path = self.out.parent / f".{self.out.name}.partial-{secrets.token_hex(4)}"
        try:
            self._make_parents()
            self._remove_stale()
            path.mkdir()
            self._lock = _locked(path)
            self._keep_earlier(path)
        except OSError as problem:
            self._unlock()
            shutil.rmtree(path, ignore_errors=True)
            self._remove_made_parents()
            raise self._cannot_write(problem) from problem
        self._path = path
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        path = self.path
        try:
            if problem is None:
                self._write_run_file()
                self._move_into_place()
                remove_kept(path)
            elif is_disk_full(problem):
                raise self._cannot_write(problem) from problem
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        finally:
            self._path = None
            self._unlock()
            if problem is not None and not stopped(problem):
                remove_kept(path)
            if path.exists():
                shutil.rmtree(path, ignore_errors=True)
                self._remove_made_parents()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record the wall time of the block under `name`; blocks of one name are added up."""
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + taken

    def add_input(self, path: str | os.PathLike[str]) -> None:
        """Record the name and the sha256 of an input file, or of all files in an input folder.

        Raises:
            InputError: the input is missing or cannot be read.
            OutputError: the input lies in the folder that this run would replace.
        """
        place = Path(path).expanduser().resolve()
        kept = self.adds and place.parent == self.out and place.name not in self.adds
        if place.is_relative_to(self.out) and not kept:
            raise OutputError(
                f"--out {self._shown} would replace the input {path}; choose another folder"
            )
        try:
            digest = sha256_of_folder(place) if place.is_dir() else sha256_of_file(place)
        except OSError as problem:
            raise InputError(f"cannot read {path}: {_reason(problem)}") from problem
        self.inputs.append({"name": place.name, "sha256": digest})

    def note(self, **facts: object) -> None:
        """Record further facts in run.json: settings, warnings, counts.

        Numbers, text, lists, dicts, dataclasses, paths, NumPy scalars and arrays are accepted;
        NaN and infinity become null, because JSON has no such numbers.

        Raises:
            TypeError: a fact cannot be written as JSON.
        """
        for key, value in facts.items():
            self.notes[key] = _plain(value)

    def _check_out(self) -> None:
        """Refuse an `out` that must not be replaced, before any work is done."""
        out, shown = self.out, self._shown
        if not out.name or Path.cwd().is_relative_to(out):
            raise OutputError(f"--out {shown} is the folder you are in or above it; name another")
        try:
            if not out.exists():
                return
            if not out.is_dir():
                raise OutputError(f"--out {shown} is a file; name a folder that does not exist yet")
            if not any(out.iterdir()):
                return
        except OSError as problem:
            raise self._cannot_write(problem) from problem
        taken = [name for name in self.adds if (out / name).exists()]
        added_to = self.adds and not taken and (out / RUN_FILE).is_file()
        if not self.force and not added_to:
            what = f"holds {taken[0]} already" if taken else "exists and is not empty"
            raise OutputError(f"--out {shown} {what}; name another folder or give --force")
        if not (out / RUN_FILE).is_file():
            raise OutputError(
                f"--out {shown} holds no {RUN_FILE}, so it is not a result of warte and --force "
                "does not replace it; name another folder"
            )

    def _keep_earlier(self, path: Path) -> None:
        """Carry the files of an earlier run over, if this one adds to them."""
        record = self.out / RUN_FILE
        if not self.adds or not record.is_file():
            return
        for place in self.out.iterdir():
            if place.name == RUN_FILE or place.name in self.adds:
                continue
            if place.is_dir():
                shutil.copytree(place, path / place.name)
            else:
                shutil.copy2(place, path / place.name)
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))
        except ValueError:
            earlier = {"unreadable": RUN_FILE}
        before = earlier.pop("earlier", []) if isinstance(earlier, dict) else []
        self.notes["earlier"] = [*before, earlier]

    def _remove_stale(self) -> None:
        """Remove what killed runs left here: temporary folders that no process holds a lock on."""
        for folder in self.out.parent.iterdir():
            found = PARTIAL.fullmatch(folder.name)
            if not found or found[1] != self.out.name:
                continue
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime < STALE_S:
                    continue
                lock = _locked(folder)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_parents(self) -> None:
        missing = [folder for folder in self.out.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made_parents.append(folder)

    def _remove_made_parents(self) -> None:
        # A parent that somebody else has put a file into meanwhile stays.
        with suppress(OSError):
            for folder in reversed(self._made_parents):
                folder.rmdir()

    def _write_run_file(self) -> None:
        facts = {
            "command": self.command,
            "versions": _versions(),
            "seed": self.seed,
            "inputs": self.inputs,
            "started_utc": self._started_utc,
            "ended_utc": _now_utc(),
            "seconds": {name: round(taken, 6) for name, taken in self.seconds.items()},
            "seconds_total": round(time.perf_counter() - self._started, 6),
            **self.notes,
        }
        text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
        (self.path / RUN_FILE).write_text(text + "\n", encoding="utf-8")

    def _move_into_place(self) -> None:
        # `out` is looked at again: it may have appeared or changed while the run was going on.
        self._check_out()
        if not self.out.exists():
            os.rename(self.path, self.out)
            return
        old = self.out.with_name(f".{self.out.name}.old-{secrets.token_hex(4)}")
        try:
            os.rename(self.out, old)
            os.rename(self.path, self.out)
        except BaseException:
            # Ctrl-C can arrive between the two: then the earlier results go back.
            if old.exists() and not self.out.exists():
                os.rename(old, self.out)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _cannot_write(self, problem: BaseException) -> OutputError:
        if is_disk_full(problem):
            return OutputError(
                f"the disk of --out {self._shown} is full; nothing was kept; make room, try again"
            )
        return OutputError(
            f"cannot write --out {self._shown}: {_reason(problem)}; name a folder you may write to"
        )


def _locked(folder: Path) -> int | None:
    """Lock a folder until what is returned is closed; None where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system that knows no locks
        os.close(descriptor)
        return None
    return descriptor


def _reason(problem: BaseException) -> str:
    """What went wrong in the system's words, without the path that the message names already."""
    return (getattr(problem, "strerror", None) or str(problem)).lower()


def _now_utc() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _versions() -> dict[str, str]:
    """Versions of Python, of the system, of Warte and of what it depends on, extras left out."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ["warte", *_requirements("warte")]:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _requirements(package: str) -> list[str]:
    """Names of what a package always needs, from its own metadata."""
    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    always = [line for line in lines if "extra ==" not in line]
    return sorted(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in always)


def _plain(value: Any) -> Any:
    """The value in types that JSON knows."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy here
        return _plain(value.tolist())
    raise TypeError(f"a {type(value).__name__} cannot be written to {RUN_FILE}")
