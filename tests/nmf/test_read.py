"""Matrices from files: what each format holds, and one line for whatever is wrong with one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import scipy.sparse
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from warte.core.errors import InputError, MissingExtraError, SettingsError
from warte.nmf.read import (
    Matrix,
    Source,
    count_rows,
    read,
    read_mask,
    read_part,
    read_rows,
    read_source,
    read_weights,
)
from warte.nmf.write import (
    read_components,
    write_activations,
    write_components,
)

X = np.arange(12.0).reshape(4, 3)
PLACE = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 4100000.0)


def _picture(path: Path, bands: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of bands (b, height, width)."""
    settings = {"crs": "EPSG:32633", "transform": PLACE, **profile}
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count,
        dtype=bands.dtype, **settings,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def _says(words: str, call: Callable[[], object]) -> None:
    """The call ends with an InputError of one line that says this."""
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# NumPy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("f8", "f8"),
        ("f4", "f4"),
        ("f2", "f4"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("i4", "f8"),
        ("?", "f4"),
    ],
)
def test_npy(dtype: str, kept: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(dtype))
    found = read([tmp_path / "x.npy"])
    assert found.values.dtype == kept and found.shape == (4, 3)
    assert np.array_equal(found.values, X.astype(dtype).astype(kept))
    assert (found.hidden, found.rows, found.columns, found.grid) == (None, None, None, None)


def test_rows_of_npy_without_the_others(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    assert count_rows(path) == 4
    assert np.array_equal(read_rows(path, 1, 3), X[1:3])
    assert np.array_equal(read_rows(path, 3, 4), X[3:])
    # The head promises more than there is; rows before the break can still be had from a copy.
    path.write_bytes(path.read_bytes()[:-8])
    _says("cannot be read as .npy", lambda: read_rows(path, 0, 1))


@pytest.mark.parametrize("layout", ["csr", "csc", "coo"])
def test_sparse_npz_stays_sparse(layout: str, tmp_path: Path) -> None:
    dense = np.where(X % 2 == 0, X, 0).astype(np.float32)
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.coo_matrix(dense).asformat(layout))
    found = read([tmp_path / "x.npz"]).values
    assert scipy.sparse.issparse(found) and found.dtype == np.float32
    assert np.array_equal(found.toarray(), dense)


def test_npz_takes_the_matrix_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, S=X, rate=22050, names=np.array(["a", "b"]))
    assert np.array_equal(read([path]).values, X)
    np.savez(path, ivar=X + 1, flux=X)
    assert np.array_equal(read([path]).values, X)
    assert np.array_equal(read([path], key="ivar").values, X + 1)
    np.savez(path, one=X, other=X)
    _says("several matrices: one (4, 3), other (4, 3); choose one with --key", lambda: read([path]))
    _says("no array third; it has one", lambda: read([path], key="third"))
    np.savez(path, names=np.array(["a"]))
    _says("no matrix: no numbers at all", lambda: read([path]))


def test_real_npz(real_file: Callable[[str], Path]) -> None:
    assert read([real_file("nearly_nmf_doublet.npz")]).shape == (510, 500)
    assert read([real_file("rm017_epochs.npz")], key="ivar").shape == (78, 4651)
    assert read([real_file("trumpet_stft.npz")]).values.dtype == np.float32


# text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("1,2\n3,4.5\n", None, None),
        ("a,b\n1,2\n3,4.5\n", None, ["a", "b"]),
        ("name,a,b\nx,1,2\ny,3,4.5\n", ["x", "y"], ["a", "b"]),
        (",a,b\n0,1,2\n1,3,4.5\n", ["0", "1"], ["a", "b"]),
        ("x,1,2\ny,3,4.5\n", ["x", "y"], None),
        ("\ufeffa;b\r\n1;2\r\n\r\n3;4.5\r\n", None, ["a", "b"]),
        ('"a, b",c\n1,2\n3,4.5', None, ["a, b", "c"]),
    ],
)
def test_csv(text: str, rows: list[str] | None, columns: list[str] | None, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = read([path])
    assert np.array_equal(found.values, [[1, 2], [3, 4.5]])
    assert (found.rows, found.columns) == (rows, columns)


def test_tsv_with_numbers_of_years_above(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("kind\t2020\tmean\nA\t1\t2\nB\t3\t1e-3\n")
    found = read([path])
    assert np.array_equal(found.values, [[1, 2], [3, 1e-3]])
    assert (found.rows, found.columns) == (["A", "B"], ["2020", "mean"])


@pytest.mark.parametrize("cell", ["", "nan", "NA", "null"])
def test_empty_cells(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"a,b\n1,2\n{cell},4\n5,\n")
    _says("has 2 empty or NaN entries; fill them, or give --missing nan", lambda: read([path]))
    found = read([path], missing="nan")
    assert found.hidden is not None
    assert np.array_equal(found.hidden, [[0, 0], [1, 0], [0, 1]])
    assert np.array_equal(found.values, [[1, 2], [0, 4], [5, 0]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", "has 1 cells in line 3 and 2 in the first line"),
        ("1,2\n3,4,5\n", "has 3 cells in line 2 and 2 in the first line"),
        ("a,b\n1,2\n3,many\n", "has the text 'many' in line 3"),
        ("a,b\n1,2\n,many\n", "has the text 'many' in line 3"),
        ("", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("1,2\n3,inf\n", "has 1 infinite entries"),
    ],
)
def test_wrong_csv(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    _says(words, lambda: read([path]))


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe1,2\n")
    _says("cannot be read as .csv", lambda: read([path]))


# Parquet ----------------------------------------------------------------------------------------


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    when = pd.to_datetime(["2024-01-01", "2024-01-02"])
    frame = pd.DataFrame({"star": ["A", "B"], "u": [1.0, 2.0], "g": [3, 4], "when": when})
    frame.to_parquet(path)
    found = read([path])
    assert np.array_equal(found.values, [[1, 3], [2, 4]])
    assert (found.rows, found.columns) == (["A", "B"], ["u", "g"])
    assert found.warnings == ["x.parquet: not numbers, left out: when"]


def test_parquet_with_an_index_and_holes(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"u": pd.array([1, None], dtype="Int64")}, index=pd.Index(["A", "B"]))
    frame["g"] = np.array([2, 3], dtype=np.float32)
    frame.to_parquet(path)
    _says("has 1 empty or NaN entries", lambda: read([path]))
    found = read([path], missing="nan")
    assert np.array_equal(found.values, [[1, 2], [0, 3]])
    assert found.rows == ["A", "B"]


def test_parquet_keeps_single_precision(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pd.DataFrame({"u": np.ones(2, np.float32)}).to_parquet(path)
    assert read([path]).values.dtype == np.float32


def test_parquet_without_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pd.DataFrame({"star": ["A"]}).to_parquet(path)
    _says("has no column of numbers; its columns are star", lambda: read([path]))


# GeoTIFF ----------------------------------------------------------------------------------------


def _bands() -> np.ndarray:
    """Three bands of 2 x 4 pixels, (3, 2, 4); one pixel is empty in all, one in one band."""
    bands = np.arange(1.0, 25.0, dtype=np.float32).reshape(3, 2, 4)
    bands[:, 0, 1] = -9
    bands[2, 1, 3] = -9
    return bands


def test_picture_of_many_bands(tmp_path: Path) -> None:
    bands = _bands()
    found = read([_picture(tmp_path / "x.tif", bands, nodata=-9)])
    kept = np.ones((2, 4), bool)
    kept[0, 1] = False
    assert found.grid is not None and np.array_equal(found.grid.kept, kept)
    expected = bands.reshape(3, -1).T[kept.ravel()]
    assert found.hidden is not None
    assert np.array_equal(found.hidden, expected == -9) and found.hidden.sum() == 1
    assert np.array_equal(found.values, np.where(expected == -9, 0, expected))
    assert found.columns == ["band_1", "band_2", "band_3"]
    assert found.grid.transform == tuple(PLACE)[:6]


def test_stack_of_pictures_is_the_same_matrix(tmp_path: Path) -> None:
    bands = _bands()
    whole = read([_picture(tmp_path / "x.tif", bands, nodata=-9)])
    names = ["blue", "green", "red"]
    paths = [
        _picture(tmp_path / f"{name}.tif", band[None], nodata=-9)
        for name, band in zip(names, bands, strict=True)
    ]
    found = read(paths)
    assert np.array_equal(found.values, whole.values)
    assert found.columns == names
    _picture(tmp_path / "small.tif", bands[:1, :, :3], nodata=-9)
    _says(
        "has a size (rows, columns) of (2, 3), but", lambda: read([*paths, tmp_path / "small.tif"])
    )
    moved = _picture(tmp_path / "moved.tif", bands[:1], transform=PLACE @ Affine.translation(1, 0))
    _says("has the transform", lambda: read([*paths, moved]))
    _picture(tmp_path / "zone.tif", bands[:1], crs="EPSG:32634")
    _says("has the coordinate system", lambda: read([*paths, tmp_path / "zone.tif"]))


def test_maps_come_back_where_they_were(tmp_path: Path) -> None:
    found = read([_picture(tmp_path / "x.tif", _bands(), nodata=-9)])
    w = np.arange(14.0).reshape(7, 2)
    write_activations(tmp_path, w, grid=found.grid)
    with rasterio.open(tmp_path / "abundances.tif") as file:
        assert file.transform == PLACE and file.crs.to_epsg() == 32633
        assert file.descriptions == ("component_1", "component_2")
        maps = file.read()
    assert np.isnan(maps[:, 0, 1]).all()
    assert np.array_equal(maps[:, found.grid.kept], w.T)  # type: ignore[union-attr]
    again = read([tmp_path / "abundances.tif"])
    assert np.array_equal(again.values, w) and again.columns == ["component_1", "component_2"]


def test_picture_without_a_place(tmp_path: Path) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        _picture(
            tmp_path / "x.tif", np.ones((2, 2, 4), np.uint16), crs=None, transform=Affine.identity()
        )
    found = read([tmp_path / "x.tif"])
    assert found.shape == (8, 2) and found.hidden is None
    assert found.grid is not None and found.grid.crs == ""
    write_activations(tmp_path, np.ones((8, 1)), grid=found.grid)
    assert read([tmp_path / "abundances.tif"]).shape == (8, 1)


def test_picture_of_nothing(tmp_path: Path) -> None:
    path = _picture(tmp_path / "x.tif", np.full((1, 2, 2), -9.0, np.float32), nodata=-9)
    _says("has no pixel with data", lambda: read([path]))


# weights and masks ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_hidden_entries_need_not_be_numbers(value: float, tmp_path: Path) -> None:
    x = X.copy()
    x[1, 2] = value
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", flux=x, ivar=np.isfinite(x) * 2.0)
    np.save(tmp_path / "mask.npy", ~np.isfinite(x))
    np.save(tmp_path / "v.npy", np.isfinite(x) * 2.0)
    plain = [tmp_path / "x.npy"]
    sources = (
        Source(plain, mask=tmp_path / "mask.npy"),
        Source(plain, weights=tmp_path / "v.npy"),
        Source([tmp_path / "x.npz"], key="flux", ivar="ivar"),
    )
    for source in sources:
        for data in (read_source(source), read_part(source, lambda count: (0, count))[0]):
            assert data.effective is not None
            assert np.array_equal(data.effective == 0, ~np.isfinite(x))
            assert np.array_equal(data.matrix.values, np.where(np.isfinite(x), x, 0))
    elsewhere = np.zeros(x.shape, dtype=bool)
    elsewhere[0, 0] = True
    np.save(tmp_path / "mask.npy", elsewhere)
    _says("x.npy has 1 ", lambda: read_source(sources[0]))
    _says("x.npy has 1 ", lambda: read_part(sources[0], lambda count: (0, count)))


def test_weights_and_masks_fit_the_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", X)
    np.save(tmp_path / "mask.npy", X > 5)
    assert np.array_equal(read_weights(tmp_path / "v.npy", Matrix(X)), X)
    assert np.array_equal(read_mask(tmp_path / "mask.npy", Matrix(X)), X > 5)
    _says(
        "has shape (4, 3), the matrix (2, 3)",
        lambda: read_mask(tmp_path / "mask.npy", Matrix(X[:2])),
    )
    _says("is no mask: it holds numbers", lambda: read_mask(tmp_path / "v.npy", Matrix(X)))
    np.save(tmp_path / "v.npy", X - 1)
    _says("has 1 negative weights", lambda: read_weights(tmp_path / "v.npy", Matrix(X)))


def test_weights_of_a_picture_follow_its_pixels(tmp_path: Path) -> None:
    bands = _bands()
    found = read([_picture(tmp_path / "x.tif", bands, nodata=-9)])
    weights = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    weights[:, 1, 1] = -1  # no data here, so a weight of zero
    path = _picture(tmp_path / "v.tif", weights, nodata=-1)
    weights[:, 1, 1] = 0
    expected = weights.reshape(3, -1).T[found.grid.kept.ravel()]  # type: ignore[union-attr]
    assert np.array_equal(read_weights(path, found), expected)


# whatever is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [".npy", ".npz", ".parquet", ".tif"])
def test_files_that_break_off(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{kind}"
    large = np.random.default_rng(0).random((60, 50))
    if kind == ".npy":
        np.save(path, large)
    elif kind == ".npz":
        np.savez(path, X=large)
    elif kind == ".parquet":
        pd.DataFrame(large).rename(columns=str).to_parquet(path)
    else:
        _picture(path, large[None])
    assert read([path]).shape[1] in (1, 50)
    whole = path.read_bytes()
    for share in (0.0, 0.4, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        _says(f"x{kind} cannot be read as {kind} (", lambda: read([path]))


@pytest.mark.parametrize("kind", [".npy", ".npz", ".parquet", ".tif"])
def test_files_of_another_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{kind}"
    path.write_text("1,2\n3,4\n")
    _says(f"cannot be read as {kind}", lambda: read([path]))


def test_names_and_shapes(tmp_path: Path) -> None:
    _says("does not exist", lambda: read([tmp_path / "x.npy"]))
    (tmp_path / "y.npy").mkdir()
    _says("is a folder", lambda: read([tmp_path / "y.npy"]))
    _says("is a folder", lambda: read([tmp_path]))
    _says("ends in .mat; allowed are .npy", lambda: read([tmp_path / "x.mat"]))
    _says("has no ending; allowed are .npy", lambda: read([tmp_path / "x"]))
    np.save(tmp_path / "x.npy", np.zeros(3))
    _says("has shape (3,); a matrix with two axes", lambda: read([tmp_path / "x.npy"]))
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    _says("rows and columns are needed", lambda: read([tmp_path / "x.npy"]))
    np.save(tmp_path / "x.npy", np.array([["a", "b"]]))
    _says("holds <U1; real numbers are needed", lambda: read([tmp_path / "x.npy"]))
    np.save(tmp_path / "x.npy", X)
    _says("2 files were given", lambda: read([tmp_path / "x.npy"] * 2))
    with pytest.raises(SettingsError, match=r"--key is for .npz files"):
        read([tmp_path / "x.npy"], key="X")


def test_npy_and_npz_are_not_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    _says("holds one array as .npy files do", lambda: read([tmp_path / "x.npz"]))
    np.savez(tmp_path / "y.npz", X=X)
    (tmp_path / "y.npz").rename(tmp_path / "y.npy")
    _says("cannot be read as .npy (the magic string", lambda: read([tmp_path / "y.npy"]))
    _says("cannot be read as .npy (the magic string", lambda: count_rows(tmp_path / "y.npy"))


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    _says("cannot be read as .npy", lambda: read([tmp_path / "x.npy"]))


@pytest.mark.parametrize(("package", "kind"), [("pyarrow", ".parquet"), ("rasterio", ".tif")])
def test_missing_packages(
    package: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"x{kind}").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} .*pip install 'warte\[nmf\]'"):
        read([tmp_path / f"x{kind}"])


# writing ----------------------------------------------------------------------------------------


def test_components_and_activations(tmp_path: Path) -> None:
    h, w = X[:2], X[:, :2] / 3
    write_components(tmp_path, h, ["u", "g", "component"])
    write_activations(tmp_path, w, rows=["A", "B", "C", "D"])
    table = pd.read_csv(tmp_path / "components.csv", header=None)
    assert list(table.iloc[0]) == ["component", "u", "g", "component"]
    assert list(table.iloc[1]) == ["component_1", "0", "1", "2"]
    found, names = read_components(tmp_path)
    assert np.array_equal(found, h) and names == ["u", "g", "component"]
    table = pd.read_csv(tmp_path / "activations.csv")
    assert list(table.columns) == ["row", "component_1", "component_2"]
    assert list(table["row"]) == ["A", "B", "C", "D"]
    assert np.allclose(table.iloc[:, 1:], w, rtol=1e-8)
    assert np.array_equal(np.load(tmp_path / "w.npy"), w)
    write_activations(tmp_path, w, table="parquet")
    assert list(pd.read_parquet(tmp_path / "activations.parquet")["row"]) == [1, 2, 3, 4]


def test_components_without_names(tmp_path: Path) -> None:
    write_components(tmp_path, X, None)
    assert read_components(tmp_path)[1] is None
    np.save(tmp_path / "h.npy", X[:, :2])
    _says("h.npy has shape (4, 2) and components.csv 3 columns", lambda: read_components(tmp_path))
    (tmp_path / "h.npy").write_bytes(b"")
    _says("cannot be read", lambda: read_components(tmp_path))
    (tmp_path / "h.npy").unlink()
    _says(
        "has no h.npy; give a folder that `warte nmf fit` made", lambda: read_components(tmp_path)
    )
