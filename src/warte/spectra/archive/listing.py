"""Lists of spectra: the answer of SkyServer to an SQL query, or a CSV file.

Both become a table with the integer columns plate, mjd and fiberid, each spectrum once. What had
to be mended is said in the table's `attrs["notes"]`, a list of short sentences.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from warte.core.errors import InputError, SettingsError
from warte.spectra.archive.address import (
    SAFE_RUN2D,
    check_address,
    check_release,
    import_astroquery,
)
from warte.spectra.archive.fetch import reason_of

# What a cell may hold, from and to; SDSS gives 640, BOSS 1000 fibres to a plate.
RANGES = {"plate": (1, 99_999), "mjd": (40_000, 99_999), "fiberid": (1, 1000)}
KNOWN = (*RANGES, "z", "ra", "dec", "run2d", "class")  # columns whose names become lower case
OTHER_NAMES = {"fiber": "fiberid", "fiber_id": "fiberid"}
ANSWER = "SkyServer's answer"
NOTHING_FOUND = "No objects have been found"  # its whole answer, in some releases
MESSAGE_LENGTH = 200  # characters of a server's message that are shown
_LONG_NUMBER = re.compile(r"[+-]?\d{16,}")  # more digits than a float64 keeps
_FAULT = re.compile(r"error_?message|error|exception|invalid|incorrect", re.IGNORECASE)


def list_spectra(
    sql: str, *, release: int = 17, base_url: str = "", timeout_s: float = 120.0
) -> pd.DataFrame:
    """The spectra that an SQL query selects, asked of SkyServer by astroquery.

    Args:
        sql: a SELECT whose columns include plate, mjd and fiberid.
        release: data release of SDSS.
        base_url: address of SkyServer; empty: SDSS's own.
        timeout_s: seconds without an answer after which it counts as down.

    Returns:
        one row per spectrum; plate, mjd, fiberid (int64), and the query's other columns. Integers
        of any length are exact.

    Raises:
        SettingsError: the query, the release or the address cannot be used.
        InputError: SkyServer cannot be reached, refuses the query, answers with something that
            is no table, or finds nothing.
        MissingExtraError: astroquery is not installed.
    """
    check_release(release)
    check_address(base_url, "--skyserver")
    if not sql.strip():
        raise SettingsError("the SQL query is empty; select plate, mjd, fiberid from SpecObj")
    text = _ask(sql, release, base_url.rstrip("/"), timeout_s)
    table, places = _parse(text, ANSWER)
    if NOTHING_FOUND in table.columns or not len(table):
        raise InputError("SkyServer found no spectrum for this query; widen its conditions")
    return _clean(table, places, ANSWER)


def _ask(sql: str, release: int, base_url: str, timeout_s: float) -> str:
    """The text of SkyServer's answer, when it may be a table."""
    sdss = import_astroquery()
    import requests

    base = base_url or sdss.conf.skyserver_baseurl
    host = urlsplit(base).netloc
    service = sdss.SDSSClass()
    try:
        with sdss.conf.set_temp("skyserver_baseurl", base):
            # Parsed here: astroquery takes an error page for a table, and rounds some integers.
            answer = service.query_sql_async(
                sql, data_release=release, timeout=timeout_s, cache=False
            )
            text = str(answer.text)
    except (requests.RequestException, TimeoutError) as problem:
        raise InputError(
            f"cannot reach {host}: {reason_of(problem, timeout_s)}; check the connection, "
            "or list the spectra in a CSV file of plate, mjd, fiberid"
        ) from problem
    start = text[:1000].lstrip().casefold()
    if answer.status_code >= 400 or start.startswith(("<", "{")) or "error_message" in start:
        message = server_message(text) or f"HTTP {answer.status_code} and an empty page"
        raise InputError(f"{host} gave no table: {message}; mend the query or try again later")
    return text


def server_message(text: str) -> str:
    """What an error page of a server says, on one line, shortened."""
    if text.lstrip().startswith("{"):
        try:
            facts = json.loads(text)
        except ValueError:
            facts = {}
        found = [str(value) for name, value in facts.items() if "message" in name.casefold()]
        text = " ".join(found) or text
    hidden = r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>"
    plain = html.unescape(re.sub(hidden, " ", text, flags=re.DOTALL | re.IGNORECASE))
    words = " ".join(word for word in plain.split() if word.isprintable())
    fault = _FAULT.search(words)
    if len(words) > MESSAGE_LENGTH and fault:
        words = words[fault.start() :]
    return words if len(words) <= MESSAGE_LENGTH else words[: MESSAGE_LENGTH - 3] + "..."


def read_list(path: str | Path) -> pd.DataFrame:
    """A list of spectra from a CSV file with a header line.

    The columns plate, mjd and fiberid (or fiber) are needed, in any case and order; others are
    kept. Lines before the header that begin with "#" are passed over, as in SkyServer's files.

    Returns:
        one row per spectrum, like that of `list_spectra`.

    Raises:
        InputError: the file cannot be read, holds no spectrum, lacks a column, or has a cell that
            is no such number; the line is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is no text file; give a CSV of plate, mjd, fiberid") from problem
    except OSError as problem:
        why = (problem.strerror or str(problem)).lower()
        raise InputError(
            f"cannot read {path}: {why}; give a CSV of plate, mjd, fiberid"
        ) from problem
    return _clean(*_parse(text, str(path)), str(path))


def check_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """A list of spectra from any table with plate, mjd and fiberid, cleaned as by `read_list`.

    Raises:
        InputError: the table is empty, lacks a column, or has a cell that is no such number.
    """
    rows = rows.loc[:, ~rows.columns.duplicated()]
    texts = {str(name): rows[name].astype("string").fillna("") for name in rows.columns}
    table = pd.DataFrame(texts, dtype=str).reset_index(drop=True)
    return _clean(table, [f"row {number}" for number in range(len(table))], "the list")


def _parse(text: str, source: str) -> tuple[pd.DataFrame, list[str]]:
    """A CSV text as a table of texts, and the place of each row in words."""
    header: list[str] = []
    rows: list[list[str]] = []
    places: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                if not cells[0].lstrip().startswith("#"):
                    header = [cell.strip() for cell in cells]
                continue
            if len(cells) < len(header) or any(cells[len(header) :]):
                raise InputError(
                    f"{source}, line {reader.line_num}: {len(cells)} cells where the header has "
                    f"{len(header)}; give one cell per column"
                )
            rows.append([cell.strip() for cell in cells[: len(header)]])
            places.append(f"line {reader.line_num}")
    except csv.Error as problem:
        raise InputError(f"{source}, line {reader.line_num}: {problem}; give a CSV") from problem
    if not header:
        raise InputError(f"{source} is empty; a table of plate, mjd, fiberid is needed")
    # A name that comes twice, as in a join of two tables, stands for its first column.
    columns = {name: number for number, name in reversed(list(enumerate(header)))}
    table = pd.DataFrame(
        {name: [row[columns[name]] for row in rows] for name in dict.fromkeys(header)}, dtype=str
    )
    return table, places


def _clean(table: pd.DataFrame, places: Sequence[str], source: str) -> pd.DataFrame:
    """The checked list: known names in lower case, numbers as numbers, each spectrum once."""
    table = _renamed(table, source)
    if not len(table):
        raise InputError(f"{source} lists no spectrum; one row per spectrum is needed")
    clean = {name: _typed(table[name]) for name in table.columns}
    for name, (low, high) in RANGES.items():
        clean[name] = _whole_numbers(table[name], low, high, places, source)
    for name in ("z", "ra", "dec"):
        if name in clean and pd.api.types.is_numeric_dtype(clean[name]):
            clean[name] = clean[name].astype(np.float64)
    if "run2d" in clean:
        clean["run2d"] = _run2d(table["run2d"], places, source)
    result = pd.DataFrame(clean)
    doubled = result.duplicated(list(RANGES))
    result = result[~doubled].reset_index(drop=True)
    notes = (
        [f"{doubled.sum()} rows that name a spectrum again were dropped"] if doubled.any() else []
    )
    result.attrs["notes"] = notes
    return result


def _rank(name: str) -> tuple[bool, bool]:
    """Sorts the usual spelling of a column before others."""
    return name.casefold() in OTHER_NAMES, name != name.casefold()


def _renamed(table: pd.DataFrame, source: str) -> pd.DataFrame:
    names: dict[str, str] = {}
    for name in sorted(table.columns, key=_rank):
        low = name.casefold()
        known = OTHER_NAMES.get(low, low)
        if known in KNOWN and known not in names.values():
            names[name] = known
    lacking = [name for name in RANGES if name not in names.values()]
    if lacking:
        found = " ".join(", ".join(table.columns).split())[:MESSAGE_LENGTH]
        raise InputError(
            f"{source} has no column {' or '.join(lacking)} (found: {found}); "
            "plate, mjd and fiberid are needed"
        )
    return table.rename(columns=names)


def _whole_numbers(
    texts: pd.Series[Any], low: int, high: int, places: Sequence[str], source: str
) -> pd.Series[Any]:
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
    good = (numbers == np.floor(numbers)) & (numbers >= low) & (numbers <= high)
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(
            f"{source}, {places[row]}: {texts.name} is {texts.iloc[row]!r:.40}; "
            f"a whole number from {low} to {high} is needed"
        )
    return pd.Series(numbers.astype(np.int64), index=texts.index)


def _typed(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers where all cells are numbers or empty and none would be rounded, else the texts."""
    try:
        numbers = pd.to_numeric(texts)
    except ValueError:
        return texts
    if numbers.dtype.kind == "f" and texts.str.fullmatch(_LONG_NUMBER.pattern).any():
        return texts
    return numbers


def _run2d(texts: pd.Series[Any], places: Sequence[str], source: str) -> pd.Series[Any]:
    """Names of reductions; a table that took them for numbers may have made 26 into 26.0."""
    names = texts.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    names = names.mask(names.str.casefold().isin(["nan", "null", "none"]), "")
    bad = (names != "") & ~names.str.fullmatch(SAFE_RUN2D.pattern)
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        raise InputError(
            f"{source}, {places[row]}: run2d is {texts.iloc[row]!r:.40}; "
            "a name such as 26 or v5_13_2 is needed"
        )
    return names
