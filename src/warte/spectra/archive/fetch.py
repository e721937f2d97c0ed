"""Fetching one file: resumed where it broke off, repeated where that may help, checked as FITS."""

from __future__ import annotations

import email.utils
import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astropy.io import fits

from warte import __version__
from warte.spectra.archive.address import DownloadSettings

BLOCK = 2880  # bytes; every part of a FITS file is a multiple of it
PARTS = 4  # at least, of a spec file: an image without pixels, the spectrum, two tables of results
COLUMNS = {"flux", "loglam", "ivar"}  # of the first table of a spec file
CHUNK = 1 << 12  # bytes written at a time; at most these are lost where a connection breaks
LONGEST_PAUSE_S = 60.0  # of the growing pauses
LONGEST_WAIT_S = 300.0  # that a server may ask for; a file it puts off for longer has failed

STOPPED = "not tried: the download was stopped"


class NotThereError(Exception):
    """The archive has no such file."""


class StoppedError(Exception):
    """The download was told to stop."""


class FetchError(Exception):
    """A file could not be fetched.

    out_of_reach: the server was not reached, or was too busy; other files will fare no better.
    """

    def __init__(self, reason: str, *, out_of_reach: bool = False) -> None:
        super().__init__(reason)
        self.out_of_reach = out_of_reach


class _TryAgainError(FetchError):
    """An attempt failed in a way that another one may mend.

    wait_s: the wait that the server asks for; None where it asks for none.
    everyone: the wait is meant for all requests, not for this file alone.
    """

    def __init__(
        self,
        reason: str,
        *,
        out_of_reach: bool = False,
        wait_s: float | None = None,
        everyone: bool = False,
    ) -> None:
        super().__init__(reason, out_of_reach=out_of_reach)
        self.wait_s = wait_s
        self.everyone = everyone


@dataclass
class Pace:
    """Turns for requests, `rate_per_s` of them per second over all threads."""

    rate_per_s: float
    stop: threading.Event
    _next: float = 0.0  # time.monotonic() of the next free turn
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Wait for a turn; raises StoppedError when the download is stopped meanwhile."""
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + 1 / self.rate_per_s
                    return
                left = self._next - now
            self.sleep(left)

    def hold(self, seconds: float) -> None:
        """Give no turn for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the download is stopped."""
        if self.stop.wait(seconds):
            raise StoppedError


@dataclass
class Line:
    """What all threads of one download share."""

    settings: DownloadSettings
    stop: threading.Event
    pace: Pace
    _sessions: queue.SimpleQueue[Any]  # a session of requests is for one thread at a time
    why_stopped: str = STOPPED

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A session nobody else uses meanwhile; its connection stays open for the next file."""
        session = self._sessions.get()
        try:
            yield session
        finally:
            self._sessions.put(session)


@contextmanager
def open_line(settings: DownloadSettings) -> Iterator[Line]:
    """Open the connections of a download, and close them at the end."""
    import requests

    sessions = [requests.Session() for _ in range(settings.workers)]
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for session in sessions:
        session.headers["User-Agent"] = f"warte/{__version__}"
        session.headers["Accept-Encoding"] = "identity"  # lengths and ranges count the file's bytes
        free.put(session)
    stop = threading.Event()
    try:
        yield Line(settings, stop, Pace(settings.rate_per_s, stop), free)
    finally:
        for session in sessions:
            session.close()


def fetch(url: str, target: Path, line: Line) -> None:
    """Fetch a file; `target` appears when it is whole, and stays as it was otherwise.

    What an interrupted attempt has received stays beside it, and is continued by the next call.

    Raises:
        NotThereError: the archive has no such file.
        FetchError: all attempts failed, or another one would be useless.
        StoppedError: the download was told to stop.
        OSError: the file cannot be written.
    """
    part = part_of(target, url)
    attempts = line.settings.retries + 1
    for attempt in range(attempts):
        line.pace.wait()
        try:
            _receive(url, part, line)
            break
        except _TryAgainError as problem:
            if attempt == attempts - 1:
                raise FetchError(str(problem), out_of_reach=problem.out_of_reach) from problem
            _pause(problem, attempt, line)
    os.replace(part, target)
    for other in target.parent.glob(f".{target.name}.*.part"):  # of other addresses
        other.unlink(missing_ok=True)


def part_of(target: Path, url: str) -> Path:
    """Where the beginning of a file is kept: never that of another address."""
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return target.with_name(f".{target.name}.{digest}.part")


def _pause(problem: _TryAgainError, attempt: int, line: Line) -> None:
    wait_s = problem.wait_s
    if wait_s is None:
        wait_s = min(line.settings.pause_s * 2**attempt, LONGEST_PAUSE_S)
    if wait_s > LONGEST_WAIT_S:
        raise FetchError(f"{problem}; asked to wait {wait_s:.0f} s", out_of_reach=True)
    if problem.everyone:
        line.pace.hold(wait_s)
    else:
        line.pace.sleep(wait_s)


def _receive(url: str, part: Path, line: Line) -> None:
    """One attempt: ask for what is lacking, write it, check the whole."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        # What was changed in the archive since must not be joined to its old beginning.
        headers["If-Unmodified-Since"] = email.utils.formatdate(part.stat().st_mtime, usegmt=True)
    timeout_s = line.settings.timeout_s
    try:
        with (
            line.session() as session,
            session.get(url, headers=headers, stream=True, timeout=timeout_s) as answer,
        ):
            _check_status(answer, part)
            length = _write(answer, part, have, line)
    except requests.RequestException as problem:
        raise _TryAgainError(reason_of(problem, timeout_s), out_of_reach=True) from problem
    size = part.stat().st_size
    if length is not None and size < length:
        raise _TryAgainError(f"broke off after {size} of {length} bytes")
    fault = fault_of(part)
    if fault:
        part.unlink()
        raise _TryAgainError(fault)


def _check_status(answer: Any, part: Path) -> None:
    """Raise for everything but a file or a piece of it."""
    code = answer.status_code
    if code in (200, 206):
        return
    reason = f"HTTP {code} {answer.reason or ''}".rstrip()
    if code in (404, 410):
        raise NotThereError(reason)
    if code in (412, 416):  # the beginning that is here does not fit what is there
        part.unlink(missing_ok=True)
        raise _TryAgainError(reason, wait_s=0.0)
    if code in (408, 429) or code >= 500:
        wait_s = _retry_after(answer.headers.get("Retry-After", ""))
        raise _TryAgainError(reason, out_of_reach=True, wait_s=wait_s, everyone=code in (429, 503))
    raise FetchError(reason)


def _write(answer: Any, part: Path, have: int, line: Line) -> int | None:
    """Write what comes; returns the length of the whole file where the server tells it."""
    start, length = 0, _whole_number(answer.headers.get("Content-Length", ""))
    if answer.headers.get("Content-Encoding"):
        length = None  # it counts the encoded bytes
    if answer.status_code == 206:
        span = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip()
        )
        if span is None or int(span[1]) != have:
            part.unlink(missing_ok=True)
            raise _TryAgainError("another piece of the file came than was asked for", wait_s=0.0)
        start, length = have, _whole_number(span[2])
    with open(part, "ab" if start else "wb") as file:
        for chunk in answer.iter_content(CHUNK):
            file.write(chunk)
            if line.stop.is_set():
                raise StoppedError
    return length


def _whole_number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _retry_after(text: str) -> float | None:
    """Seconds of a Retry-After header, which has a number or a date; None where it has neither."""
    if text.strip().isdecimal():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def reason_of(problem: BaseException, timeout_s: float) -> str:
    """Why a server was not reached, in a few words out of the many that requests has."""
    import requests

    if isinstance(problem, TimeoutError | requests.Timeout) or "timed out" in str(problem):
        return f"no answer within {timeout_s:g} s"
    system = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", str(problem))
    if system:
        return system[1].strip().lower()
    if isinstance(problem, requests.exceptions.ProxyError):
        return "the proxy refuses"
    if isinstance(problem, requests.exceptions.SSLError):
        return "no secure connection"
    return "the connection broke off"


def fault_of(path: Path) -> str:
    """Why a file is no whole spectrum of SDSS, in a few words; "" where it is one.

    The sizes in the headers must add up to the file's, the parts that all spec files have must be
    there, and the first table must have flux, loglam and ivar. (Opening it with astropy would only
    warn of a missing end. A file that ends with one of the single exposures passes.)

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        begin = file.read(30)
        if not begin.startswith(b"SIMPLE  ="):
            shown = "".join(c for c in begin.decode("ascii", "replace") if c.isprintable())
            return f"no FITS file: it begins with {shown!r}" if begin else "an empty file"
        file.seek(0)
        names: list[set[str]] = []
        while file.tell() < size:
            try:
                start = file.tell()
                if names and file.read(9) != b"XTENSION=":
                    return f"damaged after {len(names)} parts"
                file.seek(start)
                header = fits.Header.fromfile(file)
                columns, data_size = _columns(header), _data_size(header)
            except (OSError, KeyError, TypeError, ValueError, fits.VerifyError):
                return f"damaged after {len(names)} parts"
            names.append(columns)
            file.seek(data_size, os.SEEK_CUR)
        if file.tell() > size:
            return f"cut short: {size} of {file.tell()} bytes"
    if len(names) < PARTS:
        return f"cut short: {len(names)} of at least {PARTS} parts"
    if not names[1] >= COLUMNS:
        return "no spectrum: the first table has no flux, loglam and ivar"
    return ""


def _columns(header: fits.Header) -> set[str]:
    return {
        str(header.get(f"TTYPE{number}", "")).strip().lower()
        for number in range(1, int(header.get("TFIELDS", 0)) + 1)
    }


def _data_size(header: fits.Header) -> int:
    """Bytes of the data after a header, with what fills the last block (FITS standard 4.0, 7.1)."""
    axes = [int(header[f"NAXIS{number}"]) for number in range(1, int(header["NAXIS"]) + 1)]
    values = 1 if axes else 0
    for length in axes:
        values *= length
    groups, extra = int(header.get("GCOUNT", 1)), int(header.get("PCOUNT", 0))
    bits = abs(int(header["BITPIX"])) * groups * (extra + values)
    return -(-bits // (8 * BLOCK)) * BLOCK
