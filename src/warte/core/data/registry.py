"""Registered data files: where each comes from, its licence, and its checksum.

A file is looked for in the folder named by the environment variable WARTE_DATA, then among the
files that were downloaded before. Nothing is fetched unless `download=True`, which only the
command `warte data get` says.
"""

import csv
import io
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from warte.core.data.checksum import sha256_of_file
from warte.core.errors import DataError

DATA_VARIABLE = "WARTE_DATA"


@dataclass(frozen=True)
class DataFile:
    """One registered file.

    The address gives exactly these bytes unless `made_by` says how they were made from what lies
    there; such a file cannot be downloaded.
    """

    name: str  # what `warte data get` calls it
    url: str  # public address, at a fixed commit
    sha256: str  # of the file's contents, lower-case hexadecimal
    licence: str  # SPDX name, or what its source says
    description: str  # one line
    local: str  # path below the folder named by WARTE_DATA
    made_by: str = ""  # how it was made from the file at `url`; empty: it is that file


def _registered() -> tuple[DataFile, ...]:
    """What the table beside this file says, a file a row."""
    table = files(__package__).joinpath("files.csv").read_text(encoding="utf-8")
    return tuple(DataFile(**row) for row in csv.DictReader(io.StringIO(table)))


FILES = _registered()


def lookup(name: str) -> DataFile:
    """The registered file of this name.

    Raises:
        DataError: no file has this name.
    """
    for file in FILES:
        if file.name == name:
            return file
    raise DataError(f"no registered file is called {name}; `warte data list` shows all names")


def data_folder() -> Path | None:
    """The folder named by WARTE_DATA, or None where the variable is unset or empty.

    Raises:
        DataError: the variable names something that is not a folder.
    """
    named = os.environ.get(DATA_VARIABLE, "")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"{DATA_VARIABLE} is {named}, which is not a folder; mend or unset it")
    return folder


def cache_folder() -> Path:
    """Where downloaded files are kept: the user's cache folder of the system."""
    import pooch

    return Path(pooch.os_cache("warte"))


def locate(name: str) -> Path | None:
    """Where a registered file lies on this machine, its checksum unchecked; None if nowhere.

    Raises:
        DataError: no file has this name, or WARTE_DATA does not name a folder.
    """
    file = lookup(name)
    folder = data_folder()
    places = [] if folder is None else [folder / file.local]
    places.append(cache_folder() / file.name)
    return next((place for place in places if place.is_file()), None)


def overview() -> list[dict[str, str]]:
    """One row per registered file: name, where, licence, description, url, sha256.

    `where` is "WARTE_DATA", "downloaded" or "not here"; checksums are not looked at.

    Raises:
        DataError: WARTE_DATA does not name a folder.
    """
    rows = []
    for file in FILES:
        place = locate(file.name)
        if place is None:
            where = "not here"
        else:
            where = "downloaded" if place.is_relative_to(cache_folder()) else DATA_VARIABLE
        rows.append(
            {
                "name": file.name,
                "where": where,
                "licence": file.licence,
                "description": file.description,
                "url": file.url if not file.made_by else f"{file.url} ({file.made_by})",
                "sha256": file.sha256,
            }
        )
    return rows


def get(name: str, *, download: bool = False) -> Path:
    """The path of a registered file, after its sha256 was checked.

    Args:
        name: its name in the registry.
        download: fetch it if it is not on this machine, or mend the copy fetched earlier.

    Raises:
        DataError: the name is unknown, the file is not here (and may not be or could not be
            downloaded), or its checksum is wrong.
    """
    file = lookup(name)
    folder = data_folder()
    if folder is not None and (folder / file.local).is_file():
        return _checked(folder / file.local, file, f"restore it, or unset {DATA_VARIABLE}")
    if download and not file.made_by:
        return _download(file)
    cached = cache_folder() / file.name
    if cached.is_file():
        return _checked(cached, file, f"type: warte data get {name}")
    if file.made_by:
        raise DataError(
            f"{name} is not at any address ({file.made_by}, from {file.url}); "
            f"set {DATA_VARIABLE} to a folder that has {file.local}"
        )
    raise DataError(f"{name} is not on this machine; type: warte data get {name}")


def _checked(path: Path, file: DataFile, remedy: str) -> Path:
    try:
        found = sha256_of_file(path)
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}; {remedy}") from problem
    if found != file.sha256:
        raise DataError(
            f"{path} has sha256 {found[:12]}..., not {file.sha256[:12]}... as registered; {remedy}"
        )
    return path


def _download(file: DataFile) -> Path:
    """Fetch a file into the cache, unless a good copy is there; the move into place is atomic."""
    import pooch

    # pooch tells on stderr what it does; the command line has its own words.
    pooch.get_logger().setLevel("ERROR")
    host = urlsplit(file.url).hostname
    place = cache_folder() / file.name
    try:
        got = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=place.name,
            path=place.parent,
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except OSError as problem:  # no network, no such page, no room, no permission
        cause = problem.strerror or type(problem).__name__
        raise DataError(
            f"could not download {file.name} from {host} ({cause}); try again later, or set "
            f"{DATA_VARIABLE} to a folder that has {file.local}"
        ) from problem
    except ValueError as problem:
        raise DataError(
            f"what {host} gave for {file.name} has another sha256 than registered; nothing was kept"
        ) from problem
    return Path(got)
