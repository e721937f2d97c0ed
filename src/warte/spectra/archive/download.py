"""Downloading a list of spectra: paced, resumed, checked, and shared between runs by a cache.

A download writes straight into its folder, because it is meant to be continued: a file has its
final name only when it is whole, and the table `download.csv` says what became of each.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pandas as pd

from warte.core.data.checksum import sha256_of_file
from warte.core.data.disk import is_disk_full
from warte.core.data.registry import cache_folder
from warte.core.errors import InputError, OutputError
from warte.spectra.archive.address import (
    DownloadSettings,
    address,
    file_name,
    import_astroquery,
    reductions,
)
from warte.spectra.archive.fetch import (
    STOPPED,
    FetchError,
    Line,
    NotThereError,
    StoppedError,
    fault_of,
    fetch,
    open_line,
)
from warte.spectra.archive.listing import check_rows

Report = Callable[[str, int, int | None], None]  # (step, done, total), called as files are done
Status = Literal["fetched", "here already", "failed"]

DOWNLOAD_FILE = "download.csv"
DOWNLOAD_COLUMNS = ("file", "status", "bytes", "sha256", "reason")
GIVE_UP_AFTER = 10  # files in a row for which the server was out of reach


@dataclass(frozen=True)
class Wanted:
    """A file to fetch, and the addresses at which it may lie, the likeliest first."""

    file: str
    urls: tuple[str, ...]
    fault: str = ""  # why it has no address


@dataclass(frozen=True)
class Outcome:
    """What became of a file: one row of download.csv."""

    file: str
    status: Status
    bytes: int = 0
    sha256: str = ""
    reason: str = ""  # why it failed, or that it came from the cache
    reached: bool | None = None  # whether the server gave an answer; None: not asked; not in table


def default_cache() -> Path:
    """The folder in which fetched spectra are kept for later runs: the user's cache folder."""
    return cache_folder() / "spectra"


def download(
    rows: pd.DataFrame,
    out: str | os.PathLike[str],
    settings: DownloadSettings | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    no_cache: bool = False,
    report: Report | None = None,
) -> pd.DataFrame:
    """Fetch the spectra of a list into a folder.

    Files that are there already and whole are not asked for again, so that the same call
    continues a download that was broken off. Files of other names in the folder stay as they
    are. A file that fails is tried again with growing pauses, then reported, and the others go
    on; when the server is out of reach for ten files in a row, the rest is not tried. Ctrl-C
    leaves what is complete, and the table.

    Args:
        rows: a table with plate, mjd and fiberid, as `read_list` and `list_spectra` give it;
            run2d, where it has that column, says in which reduction a spectrum lies.
        out: the folder; it is made where it does not exist.
        settings: what is fetched from where, and how hard the archive is asked.
        cache: folder of files fetched earlier; None: `default_cache()`. The files in `out` are
            hard links to those in the cache where the system allows it, else copies.
        no_cache: neither look into a cache nor fill one.
        report: called with ("downloading", done, total) after each file.

    Returns:
        one row per file, in the order of the list: file, status ("fetched", "here already" or
        "failed"), bytes, sha256, reason. The same table is written to `out`/download.csv.

    Raises:
        InputError: the list is empty or lacks a column, or all files failed.
        OutputError: the folder cannot be written, or the disk is full.
        MissingExtraError: astroquery is not installed.
    """
    settings = settings or DownloadSettings()
    wanted = _plan(check_rows(rows), settings)
    store = None if no_cache else Path(cache) if cache is not None else default_cache()
    folder = _prepare(Path(out))
    outcomes: dict[str, Outcome] = {}
    try:
        _fetch_all(wanted, folder, store, settings, outcomes, report)
    except BaseException as problem:
        with suppress(OSError):
            _write_table(wanted, outcomes, folder)
        if isinstance(problem, OSError):
            raise _cannot_write(folder, problem) from problem
        raise
    try:
        table = _write_table(wanted, outcomes, folder)
    except OSError as problem:
        raise _cannot_write(folder, problem) from problem
    if (table["status"] == "failed").all():
        untried = table["reason"].str.startswith("not tried")
        first = table[~untried].iloc[0] if not untried.all() else table.iloc[0]
        more = f"; the reasons of all {len(table)} stand in {folder / DOWNLOAD_FILE}"
        raise InputError(f"no file was fetched: {first['file']}: {first['reason']}{more}")
    return table


def _plan(rows: pd.DataFrame, settings: DownloadSettings) -> list[Wanted]:
    base = (settings.base_url or str(import_astroquery().conf.sas_baseurl)).rstrip("/")
    run2ds = rows["run2d"] if "run2d" in rows else [""] * len(rows)
    wanted = []
    for plate, mjd, fiberid, run2d in zip(
        rows["plate"], rows["mjd"], rows["fiberid"], run2ds, strict=True
    ):
        name = file_name(plate, mjd, fiberid)
        try:
            urls = tuple(
                address(plate, mjd, fiberid, each, base, settings)
                for each in reductions(plate, run2d, settings)
            )
            fault = "" if urls else f"data release {settings.release} has no plate {plate}"
            wanted.append(Wanted(name, urls, fault))
        except ValueError as problem:
            wanted.append(Wanted(name, (), str(problem)))
    return wanted


def _prepare(folder: Path) -> Path:
    """Make the folder, and see that its download.csv is none of somebody else's files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / DOWNLOAD_FILE
        if table.exists():
            with open(table, "rb") as file:
                header = file.readline(200).strip()
            if header != ",".join(DOWNLOAD_COLUMNS).encode():
                raise OutputError(
                    f"{table} is not the table of an earlier download and would be lost; "
                    "move it away or name another folder"
                )
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as problem:
        raise _cannot_write(folder, problem) from problem
    return folder


def _cannot_write(folder: Path, problem: OSError) -> OutputError:
    if is_disk_full(problem):
        return OutputError(
            f"the disk of {folder} is full; what is complete was kept; make room, try again"
        )
    why = (problem.strerror or str(problem)).lower()
    return OutputError(f"cannot write {folder}: {why}; name a folder you may write to")


def _fetch_all(
    wanted: Sequence[Wanted],
    folder: Path,
    store: Path | None,
    settings: DownloadSettings,
    outcomes: dict[str, Outcome],
    report: Report | None,
) -> None:
    """Fill `outcomes`, by file; it holds what is done when an exception leaves this function."""
    out_of_reach = 0  # files in a row
    with open_line(settings) as line, ThreadPoolExecutor(settings.workers) as pool:
        futures = [pool.submit(_get, each, folder, store, line) for each in wanted]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes[outcome.file] = outcome
                if outcome.reached is not None:
                    out_of_reach = 0 if outcome.reached else out_of_reach + 1
                if out_of_reach == GIVE_UP_AFTER:
                    line.why_stopped = f"not tried: {out_of_reach} files before it got no answer"
                    line.stop.set()
                if report is not None:
                    report("downloading", len(outcomes), len(wanted))
        except BaseException:
            _stop(futures, line, outcomes)
            raise


def _stop(futures: Sequence[Future[Outcome]], line: Line, outcomes: dict[str, Outcome]) -> None:
    """End all work soon, and note what was done meanwhile."""
    line.stop.set()
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled() and future.exception() is None:
            outcomes[future.result().file] = future.result()


def _get(wanted: Wanted, folder: Path, store: Path | None, line: Line) -> Outcome:
    """Bring one file into the folder: it may be there, or in the cache, or in the archive."""
    target = folder / wanted.file
    try:
        if line.stop.is_set():
            raise StoppedError
        if _whole(target):
            return _done(target, "here already")
        for kept in [_place_in(store, url) for url in wanted.urls] if store else []:
            if _whole(kept):
                _link(kept, target)
                return _done(target, "fetched", "from the cache")
        return _get_from_archive(wanted, target, store, line)
    except StoppedError:
        return Outcome(wanted.file, "failed", reason=line.why_stopped)
    except OSError as problem:
        if is_disk_full(problem):
            raise
        why = (problem.strerror or str(problem)).lower()
        return Outcome(wanted.file, "failed", reason=f"cannot write: {why}")


def _get_from_archive(wanted: Wanted, target: Path, store: Path | None, line: Line) -> Outcome:
    fault = wanted.fault
    for url in wanted.urls:
        parts = urlsplit(url)
        try:
            fetch(url, target, line)
        except NotThereError:
            fault = fault or f"{parts.netloc} has no {parts.path}"
            continue
        except FetchError as problem:
            why = f"{parts.netloc}: {problem}"
            return Outcome(wanted.file, "failed", reason=why, reached=not problem.out_of_reach)
        if store:
            # A cache that cannot be filled is no reason to lose the file.
            with suppress(OSError):
                kept = _place_in(store, url)
                kept.parent.mkdir(parents=True, exist_ok=True)
                _link(target, kept)
        return _done(target, "fetched", reached=True)
    if len(wanted.urls) > 1:
        fault += f", nor has any of {len(wanted.urls) - 1} other reductions it"
    return Outcome(wanted.file, "failed", reason=fault, reached=True if wanted.urls else None)


def _place_in(store: Path, url: str) -> Path:
    """Where the cache keeps a file: below the server's name, as the server does."""
    parts = urlsplit(url)
    return store / parts.netloc.replace(":", "_") / parts.path.lstrip("/")


def _whole(path: Path) -> bool:
    return path.is_file() and not fault_of(path)


def _link(source: Path, target: Path) -> None:
    """Put the file under another name as well; `target` appears whole, or stays as it was."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            os.link(source, beside)
        except OSError:  # another disk, or a system without links
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _done(path: Path, status: Status, reason: str = "", *, reached: bool | None = None) -> Outcome:
    digest = sha256_of_file(path)
    return Outcome(path.name, status, path.stat().st_size, digest, reason, reached)


def _write_table(
    wanted: Sequence[Wanted], outcomes: dict[str, Outcome], folder: Path
) -> pd.DataFrame:
    """The table of all files, written to download.csv in one step."""
    rows = [
        outcomes.get(each.file, Outcome(each.file, "failed", reason=STOPPED)) for each in wanted
    ]
    table = pd.DataFrame([astuple(row)[:-1] for row in rows], columns=list(DOWNLOAD_COLUMNS))
    path = folder / DOWNLOAD_FILE
    beside = path.with_name(f".{DOWNLOAD_FILE}.{secrets.token_hex(4)}")
    try:
        table.to_csv(beside, index=False, lineterminator="\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return table
