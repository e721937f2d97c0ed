"""Matrices from files: .npy, .npz (dense or sparse), .csv, .tsv, .parquet, GeoTIFF.

In a picture every pixel is a row and every band a column; pixels without data in all bands are
left out of the matrix and remembered in its `Grid`.
"""

from __future__ import annotations

import csv
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse

from warte.core.errors import InputError, MissingExtraError, SettingsError

Array = npt.NDArray[Any]
Missing = Literal["error", "nan"]

PICTURES = (".tif", ".tiff")
KINDS = (".npy", ".npz", ".csv", ".tsv", ".parquet", *PICTURES)
# Names under which the data of an .npz file are looked for, when it holds several matrices.
USUAL_NAMES = ("X", "x", "V", "flux", "data", "S")
# Texts that stand for an empty cell of a table.
EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none"})


@dataclass(frozen=True)
class Grid:
    """Where the rows of a matrix lie in a picture.

    kept: (height, width) bool, True for pixels that are a row of the matrix, in reading order.
    crs: the coordinate system as WKT, "" when unknown. transform: the six numbers (a, b, c, d, e,
    f) of x = a column + b row + c, y = d column + e row + f.
    """

    kept: npt.NDArray[np.bool_]
    crs: str
    transform: tuple[float, ...]


@dataclass(frozen=True)
class Matrix:
    """A matrix and what its file says about it.

    values: (n, m) float32 (where that holds the file's numbers exactly) or float64, or sparse by
    rows; hidden entries are 0. hidden: (n, m) bool, True where there is no value; None when
    there is one everywhere. rows, columns: names, None where the file has none.
    """

    values: Any
    hidden: npt.NDArray[np.bool_] | None = None
    rows: list[str] | None = None
    columns: list[str] | None = None
    grid: Grid | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        rows, columns = self.values.shape
        return int(rows), int(columns)


@dataclass(frozen=True)
class Source:
    """Files that together are a matrix with weights."""

    paths: Sequence[Path]  # of the matrix, as `read` takes them
    key: str | None = None  # array of an .npz file with several
    weights: Path | None = None  # file of inverse variances
    ivar: str | None = None  # array of the matrix's own .npz file with inverse variances
    mask: Path | None = None  # file with 1 where an entry is hidden
    missing: Missing = "error"  # what empty cells and NaN are


@dataclass(frozen=True)
class Data:
    """A matrix with what weights and hides its entries.

    weights: (n, m) inverse variances, None when all count alike. hidden: (n, m) bool, from the
    matrix and from a mask; None when nothing is hidden that way.
    """

    matrix: Matrix
    weights: Array | None = None
    hidden: npt.NDArray[np.bool_] | None = None

    @property
    def effective(self) -> Array | None:
        """Weights (n, m) with 0 where an entry is hidden; None when all count alike."""
        if self.hidden is None:
            return self.weights
        weights = np.ones(self.matrix.shape) if self.weights is None else self.weights
        return np.where(self.hidden, 0, weights).astype(self.matrix.values.dtype)

    @property
    def hidden_share(self) -> float:
        """Share of entries that do not count, 0 to 1."""
        weights = self.effective
        return 0.0 if weights is None else float((weights == 0).mean())

    def rows(self, start: int, stop: int) -> Data:
        """The rows from start to stop (exclusive) alone, without names and grid."""
        weights = None if self.weights is None else self.weights[start:stop]
        hidden = None if self.hidden is None else self.hidden[start:stop]
        matrix = Matrix(self.matrix.values[start:stop], columns=self.matrix.columns)
        return Data(matrix, weights, hidden)


def read_source(source: Source) -> Data:
    """Read a matrix with its weights and its mask.

    Raises:
        InputError, SettingsError, MissingExtraError: as for `read`; or weights and mask do not fit
            the matrix.
    """
    if source.weights is not None and source.ivar is not None:
        raise SettingsError("--weights and --ivar both give inverse variances; leave one out")
    first = source.paths[0]
    if source.ivar is not None and first.suffix.lower() != ".npz":
        raise SettingsError(f"--ivar is for .npz files, and {first} is none; give --weights FILE")
    matrix = _read(source.paths, source.key)
    weights, mask = None, None
    if source.ivar is not None:
        weights = read_weights(first, matrix, key=source.ivar)
    if source.weights is not None:
        weights = read_weights(source.weights, matrix)
    if source.mask is not None:
        mask = read_mask(source.mask, matrix)
    if scipy.sparse.issparse(matrix.values) and (weights is not None or mask is not None):
        raise InputError(f"{first} is sparse; weights and masks need a dense matrix: give one")
    return _covered(matrix, weights, mask, source)


def _covered(
    matrix: Matrix, weights: Array | None, mask: npt.NDArray[np.bool_] | None, source: Source
) -> Data:
    """Put together what was read: only entries that nothing hides must be numbers."""
    covered = mask
    if weights is not None:
        covered = weights == 0 if mask is None else mask | (weights == 0)
    if covered is not None:
        values = np.where(covered, 0, matrix.values).astype(matrix.values.dtype, copy=False)
        matrix = replace(matrix, values=values)
    matrix = _checked(matrix, source.paths[0], source.missing)
    hidden = matrix.hidden
    if mask is not None:
        hidden = mask if hidden is None else hidden | mask
    return Data(matrix, weights, hidden)


def read_part(source: Source, part: Callable[[int], tuple[int, int]]) -> tuple[Data, Matrix, int]:
    """Read some rows of a matrix, with their weights and mask.

    Where all files are .npy only these rows are read, else all of them and the others let go.

    Args:
        source: the files.
        part: from the number of rows to the first one wanted and the one after the last.

    Returns:
        The rows; a matrix with the names, the grid and the warnings of the files (its values are
        not all of them); and the number of rows in the files.

    Raises:
        InputError, SettingsError, MissingExtraError: as for `read_source`.
    """
    files = [*source.paths, *(path for path in (source.weights, source.mask) if path is not None)]
    plain = len(source.paths) == 1 and source.ivar is None and source.key is None
    if not plain or {_kind(path) for path in files} != {".npy"}:
        whole = read_source(source)
        count = whole.matrix.shape[0]
        rows = whole.rows(*part(count))
        return rows, replace(whole.matrix, values=rows.matrix.values, hidden=None), count
    first = source.paths[0]
    count = count_rows(first)
    window = part(count)
    matrix = Matrix(read_rows(first, *window))
    weights, mask = None, None
    if source.weights is not None:
        _check_count(source.weights, count)
        weights = _positive(_fitting(read_rows(source.weights, *window), source.weights, matrix),
                            source.weights)  # fmt: skip
    if source.mask is not None:
        _check_count(source.mask, count)
        mask = _yes_or_no(_fitting(read_rows(source.mask, *window), source.mask, matrix),
                          source.mask)  # fmt: skip
    data = _covered(matrix, weights, mask, source)
    return data, data.matrix, count


def _check_count(path: Path, count: int) -> None:
    found = count_rows(path)
    if found != count:
        raise InputError(f"{path} has {found} rows, the matrix {count}; give as many")


def read(paths: Sequence[Path], *, key: str | None = None, missing: Missing = "error") -> Matrix:
    """Read a matrix from one file, or from several GeoTIFF pictures of the same place.

    Args:
        paths: one file, or several .tif; each band of each is a column.
        key: the name of the array in an .npz file that holds several.
        missing: what empty cells and NaN are: "error", or "nan" for hidden entries. No-data
            pixels of a GeoTIFF are hidden in either case.

    Raises:
        InputError: a file is missing, damaged, or does not hold a matrix of numbers.
        SettingsError: `key` does not go with the files.
        MissingExtraError: pyarrow or rasterio is needed and not installed.
    """
    return _checked(_read(paths, key), paths[0], missing)


def _read(paths: Sequence[Path], key: str | None) -> Matrix:
    """What `read` does, but entries may be NaN or infinite."""
    kinds = {_kind(path) for path in paths}
    if key is not None and kinds != {".npz"}:
        raise SettingsError(f"--key is for .npz files, and {paths[0]} is none; leave it out")
    if kinds <= set(PICTURES):
        return _read_pictures(paths)
    if len(paths) > 1:
        raise InputError(
            f"{len(paths)} files were given, the first is {paths[0]}; several files are allowed "
            "for .tif only: give one file"
        )
    path, kind = paths[0], kinds.pop()
    if kind == ".npz":
        return _read_npz(path, key)
    readers: dict[str, Callable[[Path], Matrix]] = {
        ".npy": _read_npy,
        ".csv": _read_text,
        ".tsv": _read_text,
        ".parquet": _read_parquet,
    }
    return readers[kind](path)


def read_rows(path: Path, start: int, stop: int) -> Array:
    """Rows start to stop (exclusive) of a matrix in an .npy file; no others are read.

    Raises:
        InputError: as for `read`.
    """
    with _readable(path):
        rows = np.lib.format.open_memmap(path, mode="r")
        return _numbers(np.array(_two_axes(rows, path)[start:stop]), path)


def count_rows(path: Path) -> int:
    """Number of rows of the matrix in an .npy file, from its head alone.

    Raises:
        InputError: as for `read`.
    """
    with _readable(path):
        return int(_two_axes(np.lib.format.open_memmap(path, mode="r"), path).shape[0])


def read_weights(path: Path, matrix: Matrix, *, key: str | None = None) -> Array:
    """Read inverse variances (n, m) for a matrix; 0 where a picture has no data.

    Raises:
        InputError: as for `read`; or the shape is not that of the matrix, or a weight is negative.
        SettingsError: as for `read`.
    """
    return _positive(_read_beside(path, matrix, key), path)


def read_mask(path: Path, matrix: Matrix) -> npt.NDArray[np.bool_]:
    """Read a mask (n, m) for a matrix: true, or 1, where an entry is hidden.

    Raises:
        InputError: as for `read`; or the shape is not that of the matrix, or there are other
            numbers than 0 and 1.
    """
    return _yes_or_no(_read_beside(path, matrix, None), path)


def _positive(weights: Array, path: Path) -> Array:
    if (weights < 0).any():
        raise InputError(
            f"{path} has {int((weights < 0).sum())} negative weights; allowed are inverse "
            "variances from 0, where 0 hides an entry"
        )
    return weights


def _yes_or_no(mask: Array, path: Path) -> npt.NDArray[np.bool_]:
    if not np.isin(mask, (0.0, 1.0)).all():
        raise InputError(
            f"{path} is no mask: it holds numbers other than 0 and 1; give 1 where an entry "
            "is hidden, or use --weights"
        )
    return np.asarray(mask != 0)


def _read_beside(path: Path, matrix: Matrix, key: str | None) -> Array:
    """The numbers of another file, row by row those of the matrix."""
    other = read([path], key=key, missing="nan")
    if other.hidden is not None and other.grid is None:
        raise InputError(f"{path} has {int(other.hidden.sum())} empty or NaN entries; give numbers")
    values = np.asarray(
        other.values.toarray() if scipy.sparse.issparse(other.values) else other.values
    )
    if matrix.grid is not None and other.grid is not None:
        kept = other.grid.kept
        if kept.shape == matrix.grid.kept.shape:
            every = np.zeros((*kept.shape, values.shape[1]), dtype=values.dtype)
            every[kept] = values
            values = every[matrix.grid.kept]
    return _fitting(values, path, matrix)


def _fitting(values: Array, path: Path, matrix: Matrix) -> Array:
    if values.shape != matrix.shape:
        raise InputError(f"{path} has shape {values.shape}, the matrix {matrix.shape}; give that")
    if not np.isfinite(values).all():
        raise InputError(f"{path} has entries that are not finite; give numbers from 0")
    return values


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file that ends in {', '.join(KINDS)}")
    if kind not in KINDS:
        found = f"ends in {kind}" if kind else "has no ending"
        raise InputError(f"{path} {found}; allowed are {', '.join(KINDS)}: convert it first")
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file that ends in {', '.join(KINDS)}")
    return kind


class _readable:
    """Turns what readers raise for damaged files into an InputError that names the file."""

    def __init__(self, path: Path, *further: type[Exception]) -> None:
        self.path = path
        self.problems: tuple[type[Exception], ...] = (
            OSError,
            ValueError,
            EOFError,
            zipfile.BadZipFile,
            *further,
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, problem: Any, _: object) -> None:
        if isinstance(problem, self.problems):
            said = " ".join(str(problem).split()) or type(problem).__name__
            raise InputError(
                f"{self.path} cannot be read as {self.path.suffix.lower()} ({said}); it may be "
                "cut short or be of another kind: make or fetch it again"
            ) from problem


def _two_axes(array: Array, path: Path) -> Array:
    if array.ndim != 2:
        raise InputError(f"{path} has shape {array.shape}; a matrix with two axes is needed")
    return array


def _numbers(array: Array, path: Path) -> Array:
    """The array as floating point of the type that `_float_type` says."""
    return array.astype(_float_type(array.dtype, path), copy=False)


def _float_type(dtype: np.dtype[Any], path: Path) -> type[np.floating[Any]]:
    """float32 where that holds every number of this type exactly, else float64."""
    if dtype.kind not in "fiub":
        raise InputError(f"{path} holds {dtype}; real numbers are needed: convert it first")
    return np.float32 if np.can_cast(dtype, np.float32) else np.float64


def _checked(matrix: Matrix, path: Path, missing: Missing) -> Matrix:
    """The matrix with NaN turned into hidden entries, or refused."""
    sparse = scipy.sparse.issparse(matrix.values)
    numbers: Array = matrix.values.data if sparse else matrix.values
    if 0 in matrix.shape:
        raise InputError(f"{path} has shape {matrix.shape}; rows and columns are needed")
    endless = int(np.isinf(numbers).sum())
    if endless:
        raise InputError(
            f"{path} has {endless} infinite entries; give finite numbers, or hide them with --mask"
        )
    empty = np.isnan(numbers)
    count = int(empty.sum())
    if count == 0:
        return matrix
    if sparse:
        raise InputError(f"{path} is sparse and has {count} NaN entries; give finite numbers")
    if missing == "error":
        raise InputError(
            f"{path} has {count} empty or NaN entries; fill them, or give --missing nan to take "
            "them as hidden"
        )
    values = np.where(empty, 0, numbers).astype(numbers.dtype, copy=False)
    hidden = empty if matrix.hidden is None else matrix.hidden | empty
    return Matrix(values, hidden, matrix.rows, matrix.columns, matrix.grid, matrix.warnings)


# NumPy ------------------------------------------------------------------------------------------


def _read_npy(path: Path) -> Matrix:
    with _readable(path), path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return Matrix(_numbers(_two_axes(array, path), path))


def _read_npz(path: Path, key: str | None) -> Matrix:
    # Opened here, because np.load leaves a damaged file open.
    with _readable(path, KeyError), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"{path} holds one array as .npy files do; rename it to .npy")
        names = set(archive.files)
        if {"format", "shape", "data"} <= names and key is None:
            found = scipy.sparse.load_npz(path)
            return Matrix(scipy.sparse.csr_matrix(found, dtype=_float_type(found.dtype, path)))
        if key is not None:
            if key not in names:
                raise InputError(f"{path} has no array {key}; it has {_listed(archive)}")
            return Matrix(_numbers(_two_axes(archive[key], path), path))
        shapes = _shapes(archive)
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        usual = [name for name in USUAL_NAMES if name in matrices]
        if len(matrices) != 1 and not usual:
            many = "several matrices" if matrices else "no matrix"
            raise InputError(f"{path} has {many}: {_listed(archive)}; choose one with --key")
        chosen = matrices[0] if len(matrices) == 1 else usual[0]
        return Matrix(_numbers(archive[chosen], path))


def _shapes(archive: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the numeric arrays of an .npz file."""
    arrays = ((name, archive[name]) for name in archive.files)
    return {name: array.shape for name, array in arrays if array.dtype.kind in "fiub"}


def _listed(archive: Any) -> str:
    parts = [f"{name} {shape}" for name, shape in _shapes(archive).items()]
    return ", ".join(parts) or "no numbers at all"


# text -------------------------------------------------------------------------------------------


def _read_text(path: Path) -> Matrix:
    """Numbers between commas, semicolons (.csv) or tabs (.tsv).

    The first line is a header when it has a text among its cells, the first for the row names
    apart; the first column holds row names when its head is empty or its first cell is a text.
    """
    with _readable(path, csv.Error):
        return _parse(_lines(path), path)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not empty."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        comma = ";" if first.count(";") > first.count(",") else ","
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else comma)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
            elif len(cells) > 1:  # a row of empty cells is a row, a bare end of line is none
                yield reader.line_num, ["" for _ in cells]


def _parse(lines: Iterator[tuple[int, list[str]]], path: Path) -> Matrix:
    _, top = next(lines, (0, []))
    second = next(lines, None)
    if not top:
        raise InputError(f"{path} is empty; a matrix of numbers is needed")
    header = any(not _is_number(cell) for cell in top[1:]) or (
        len(top) == 1 and not _is_number(top[0])
    )
    if header and second is None:
        raise InputError(f"{path} has a header and no rows; a matrix of numbers is needed")
    body = second[1] if header and second is not None else top
    named = len(top) > 1 and (not _is_number(body[0]) or (header and top[0] == ""))
    first = [] if header else [(1, top)]
    ahead = [*first, *([second] if second is not None else [])]
    rows: list[Array] = []
    names: list[str] = []
    for line, cells in _chained(ahead, lines):
        if len(cells) != len(top):
            raise InputError(
                f"{path} has {len(cells)} cells in line {line} and {len(top)} in the first line; "
                "every line needs as many: mend or make it again"
            )
        if named:
            names.append(cells[0])
        rows.append(_row(cells[named:], line, path))
    columns = top[named:] if header else None
    return Matrix(np.array(rows), rows=names if named else None, columns=columns)


def _chained(
    ahead: list[tuple[int, list[str]]], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    yield from ahead
    yield from lines


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in EMPTY
    return True


def _row(cells: list[str], line: int, path: Path) -> Array:
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        values = [math.nan if cell.lower() in EMPTY else cell for cell in cells]
        wrong = next((v for v in values if isinstance(v, str) and not _is_number(v)), None)
        if wrong is not None:
            raise InputError(
                f"{path} has the text {wrong[:40]!r} in line {line}; numbers are needed in all "
                "cells but those of a header and of the first column"
            ) from None
        return np.array([float(value) for value in values])


# Parquet ----------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Matrix:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as problem:
        raise MissingExtraError("pyarrow", "nmf") from problem
    with _readable(path, pyarrow.ArrowException):
        table = pyarrow.parquet.read_table(path).to_pandas()
    kept = [name for name in table.columns if table[name].dtype.kind in "fiu"]
    left = [str(name) for name in table.columns if name not in kept]
    if not kept:
        raise InputError(f"{path} has no column of numbers; its columns are {', '.join(left)}")
    numbers = table[kept]
    small = all(kind == np.float32 for kind in numbers.dtypes)
    values = numbers.to_numpy(dtype=np.float32 if small else np.float64, na_value=np.nan)
    index = table.index
    rows = None if index.dtype.kind in "iu" and index.name is None else [str(n) for n in index]
    texts = [name for name in left if table[name].map(lambda cell: isinstance(cell, str)).all()]
    if rows is None and texts:
        rows = [str(name) for name in table[texts[0]]]
        left.remove(texts[0])
    notes = [f"{path.name}: not numbers, left out: {', '.join(left)}"] if left else []
    return Matrix(values, None, rows, [str(name) for name in kept], warnings=notes)


# GeoTIFF ----------------------------------------------------------------------------------------


def _read_pictures(paths: Sequence[Path]) -> Matrix:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError as problem:
        raise MissingExtraError("rasterio", "nmf") from problem
    bands: list[Array] = []
    hidden: list[npt.NDArray[np.bool_]] = []
    names: list[str] = []
    place: tuple[Any, ...] | None = None
    for path in paths:
        with warnings.catch_warnings(), _readable(path, RasterioError):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as picture:
                here = (picture.shape, picture.crs, tuple(picture.transform)[:6])
                place = here if place is None else place
                _check_place(path, here, paths[0], place)
                names += _band_names(picture, path, alone=len(paths) == 1)
                bands += [_numbers(picture.read(band), path) for band in picture.indexes]
                hidden += [picture.read_masks(band) == 0 for band in picture.indexes]
    assert place is not None
    kept = ~np.logical_and.reduce(hidden)
    if not kept.any():
        raise InputError(f"{paths[0]} has no pixel with data; choose another picture")
    values = np.stack([band[kept] for band in bands], axis=1)
    covered = np.stack([band[kept] for band in hidden], axis=1)
    values = np.where(covered, 0, values).astype(values.dtype, copy=False)
    grid = Grid(kept, "" if place[1] is None else place[1].to_wkt(), place[2])
    return Matrix(values, covered if covered.any() else None, None, names, grid)


def _check_place(path: Path, here: tuple[Any, ...], first: Path, place: tuple[Any, ...]) -> None:
    for what, found, allowed in zip(
        ("a size (rows, columns) of", "the coordinate system", "the transform"),
        here,
        place,
        strict=True,
    ):
        if found != allowed:
            raise InputError(
                f"{path} has {what} {found}, but {first} {allowed}; bring all bands to one grid "
                "first"
            )


def _band_names(picture: Any, path: Path, *, alone: bool) -> list[str]:
    """Names of the bands: as described in the file, else its name and the band's number."""
    names = []
    for band, described in zip(picture.indexes, picture.descriptions, strict=True):
        plain = f"band_{band}" if alone else f"{path.stem}_{band}"
        if not alone and picture.count == 1:
            plain = path.stem
        names.append(described or plain)
    return names
