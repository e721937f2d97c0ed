"""sha256 of files and of whole folders."""

import hashlib
from pathlib import Path


def sha256_of_file(path: Path) -> str:
    """The sha256 of the contents of one file, in lower-case hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """The sha256 of all files below a folder: of the sorted lines "sha256  relative name".

    The names are relative to the folder, with "/"; times and owners of the files do not enter.

    Raises:
        OSError: a file in the folder cannot be read.
    """
    names = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    )
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{sha256_of_file(folder / name)}  {name}\n".encode())
    return whole.hexdigest()
