"""`warte nmf` from end to end, on tiny matrices."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import scipy.sparse
from rasterio.transform import Affine

from warte.cli import main
from warte.cli.nmf import BETAS, parse_loss
from warte.core.errors import SettingsError
from warte.nmf import NMF

PLACE = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 4100000.0)


def _truth() -> tuple[np.ndarray, np.ndarray]:
    """w (12, 2) and h (2, 6), each component with columns and rows of its own."""
    rng = np.random.default_rng(0)
    w, h = rng.random((12, 2)), rng.random((2, 6))
    w[:3, 0] = w[3:6, 1] = h[0, :2] = h[1, 4:] = 0
    return w, h


def _matrix() -> np.ndarray:
    w, h = _truth()
    return w @ h


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with x.npy, in which the commands run."""
    np.save(tmp_path / "x.npy", _matrix())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _fit(*words: str, code: int = 0) -> None:
    assert main(["nmf", "fit", *words, "--out", "out", "--device", "cpu", "--quiet"]) == code


def _run_file(folder: str = "out") -> dict:
    return dict(json.loads(Path(folder, "run.json").read_text()))


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr, with nothing on stdout and nothing written."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert not [path for path in Path().iterdir() if path.is_dir() and path.name != "model"]
    return line


@pytest.mark.parametrize("name", ["fit", "transform"])
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nmf", name, "--help"]) == 0
    assert f"Example: warte nmf {name} " in capsys.readouterr().out


# fit --------------------------------------------------------------------------------------------


def test_fit_writes_the_factors(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fit("x.npy", "--rank", "2", "--tol", "0", "--max-iter", "400", "--json", "--seed", "3")
    names = ["activations.csv", "components.csv", "h.npy", "report.html", "run.json", "w.npy"]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    w, h = np.load("out/w.npy"), np.load("out/h.npy")
    assert np.abs(w @ h - _matrix()).max() < 1e-4
    table = pd.read_csv("out/components.csv", index_col="component")
    assert list(table.columns) == [f"column_{n}" for n in range(1, 7)]
    assert np.allclose(table, h, rtol=1e-8)
    assert np.allclose(pd.read_csv("out/activations.csv", index_col="row"), w, rtol=1e-8)
    told, run = json.loads(capsys.readouterr().out), _run_file()
    assert told["report"] == str(Path("out/report.html"))
    for facts in (told, run):
        assert (facts["rows"], facts["columns"], facts["rank"]) == (12, 6, 2)
        assert facts["iterations"] == 400 and facts["converged"] is False
        assert 0.9999 < facts["explained_share"] <= 1
        assert "the loss still fell after 400 iterations" in facts["warnings"][0]
    assert run["loss"] == pytest.approx(0.5 * ((_matrix() - w @ h) ** 2).sum(), abs=1e-12)
    assert run["losses"][0] > run["losses"][-1] and run["seed"] == 3
    assert {"read", "fit", "write"} <= set(run["seconds"])
    assert [entry["name"] for entry in run["inputs"]] == ["x.npy"]


def test_fit_is_what_the_library_does(desk: Path) -> None:
    settings = {"l1_w": 0.01, "l2_h": 0.02, "smooth_h": 0.03}
    flags = [word for name, value in settings.items()
             for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    _fit("x.npy", "--rank", "2", "--loss", "1.5", "--solver", "mu", "--init", "nndsvda",
         "--max-iter", "30", "--tol", "0", "--seed", "7", *flags)  # fmt: skip
    model = NMF(
        2,
        beta_loss=1.5,
        solver="mu",
        init="nndsvda",
        max_iter=30,
        tol=0,
        random_state=7,
        **settings,
    )
    assert np.array_equal(np.load("out/w.npy"), model.fit_transform(_matrix()))
    assert np.array_equal(np.load("out/h.npy"), model.components_)


def test_same_seed_same_result(desk: Path) -> None:
    found = []
    for seed in ("1", "1", "2"):
        _fit(
            "x.npy", "--rank", "2", "--init", "random", "--seed", seed, "--max-iter", "5", "--force"
        )
        found.append(np.load("out/h.npy"))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_restarts_keep_the_best(desk: Path) -> None:
    losses = []
    for count in ("1", "6"):
        _fit("x.npy", "--rank", "2", "--restarts", count, "--init", "random", "--max-iter", "3",
             "--force")  # fmt: skip
        losses.append(_run_file()["loss"])
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    ("loss", "solver"), [("frobenius", "hals"), ("kl", "poisson"), ("is", "mu")]
)
def test_losses(loss: str, solver: str, desk: Path) -> None:
    np.save("x.npy", _matrix() + 0.1)
    _fit("x.npy", "--rank", "2", "--loss", loss)
    assert _run_file()["solver"] == solver
    model = NMF(2, beta_loss=BETAS[loss], max_iter=500, random_state=0).fit(_matrix() + 0.1)
    assert np.sqrt(2 * _run_file()["loss"]) == pytest.approx(model.reconstruction_err_, rel=1e-6)


def test_noisy_data_below_zero(desk: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez("x.npz", flux=_matrix() + rng.normal(0, 0.05, (12, 6)), ivar=np.full((12, 6), 400.0))
    _fit("x.npz", "--ivar", "ivar", "--rank", "2", "--solver", "nearly")
    w, h = np.load("out/w.npy"), np.load("out/h.npy")
    assert w.min() >= 0 and h.min() >= 0
    assert np.abs(w @ h - _matrix()).mean() < 0.05


# what hides entries -----------------------------------------------------------------------------


def _spoilt() -> tuple[np.ndarray, np.ndarray]:
    """The matrix with three entries that are far off, and where they are."""
    wrong = np.zeros((12, 6), bool)
    wrong[[1, 5, 9], [2, 0, 4]] = True
    return np.where(wrong, 50.0, _matrix()), wrong


@pytest.mark.parametrize("way", ["mask", "weights", "ivar", "missing"])
def test_hidden_entries_do_not_count(way: str, desk: Path) -> None:
    spoilt, wrong = _spoilt()
    words = {
        "mask": ["x.npy", "--mask", "hide.npy"],
        "weights": ["x.npy", "--weights", "weight.npy"],
        "ivar": ["x.npz", "--ivar", "ivar", "--key", "X"],
        "missing": ["x.npy", "--missing", "nan"],
    }[way]
    np.save("x.npy", np.where(wrong, np.nan, spoilt) if way == "missing" else spoilt)
    np.save("hide.npy", wrong)
    np.save("weight.npy", (~wrong).astype(np.float32))
    np.savez("x.npz", X=spoilt, ivar=(~wrong) * 1.0)
    _fit(*words, "--rank", "2", "--max-iter", "5000", "--tol", "1e-9")
    w, h = np.load("out/w.npy"), np.load("out/h.npy")
    assert np.abs(w @ h - _matrix())[~wrong].max() < 0.05
    assert np.abs(w @ h - _matrix())[wrong].max() < 0.3
    assert _run_file()["hidden_share"] == pytest.approx(3 / 72)
    assert "4.2% hidden" in Path("out/report.html").read_text()


def test_sparse_matrix(desk: Path) -> None:
    x = scipy.sparse.csr_matrix(np.where(_matrix() > 0.3, _matrix(), 0))
    scipy.sparse.save_npz("x.npz", x)
    _fit("x.npz", "--rank", "2")
    run = _run_file()
    w, h = np.load("out/w.npy"), np.load("out/h.npy")
    assert run["loss"] == pytest.approx(0.5 * ((x.toarray() - w @ h) ** 2).sum(), rel=1e-6)


# tables and pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_keep_their_names(kind: str, desk: Path) -> None:
    stars = [f"star {n}" for n in range(12)]
    frame = pd.DataFrame(_matrix(), columns=list("ugrizy"))
    frame.insert(0, "star", stars)
    frame.to_csv("x.csv", index=False) if kind == "csv" else frame.to_parquet("x.parquet")
    _fit(f"x.{kind}", "--rank", "2")
    assert list(pd.read_csv("out/components.csv").columns) == ["component", *"ugrizy"]
    read = pd.read_csv if kind == "csv" else pd.read_parquet
    table = read(f"out/activations.{kind}")
    assert list(table["row"]) == stars
    assert np.allclose(table.iloc[:, 1:], np.load("out/w.npy"), rtol=1e-8)


def test_pictures_give_maps(desk: Path) -> None:
    w, h = _truth()
    bands = (w @ h).T.reshape(6, 3, 4).astype(np.float32)
    bands[:, 2, 3] = -1
    for band, pixels in enumerate(bands):
        with rasterio.open(
            f"b{band}.tif", "w", driver="GTiff", height=3, width=4, count=1, dtype="float32",
            nodata=-1, crs="EPSG:32633", transform=PLACE,
        ) as file:  # fmt: skip
            file.write(pixels, 1)
    paths = [f"b{band}.tif" for band in range(6)]
    _fit(*paths, "--rank", "2", "--tol", "1e-7")
    assert not Path("out/activations.csv").exists()
    with rasterio.open("out/abundances.tif") as file:
        assert file.crs.to_epsg() == 32633 and file.transform == PLACE
        maps = file.read()
    assert maps.shape == (2, 3, 4) and np.isnan(maps[:, 2, 3]).all()
    assert (
        np.abs(np.load("out/h.npy").T @ maps.reshape(2, -1)[:, :11] - _matrix().T[:, :11]).max()
        < 0.02
    )
    assert _run_file()["columns"] == 6 and len(_run_file()["inputs"]) == 6
    page = Path("out/report.html").read_text()
    assert "b0, " in page and "data:image/png" in page
    flags = ["--model", "out", "--out", "again", "--device", "cpu"]
    assert main(["nmf", "transform", *paths, *flags]) == 0
    with rasterio.open("again/abundances.tif") as file:
        assert np.nanmax(np.abs(file.read() - maps)) < 0.05


# transform --------------------------------------------------------------------------------------


@pytest.fixture
def fitted(desk: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The desk with a folder model, fitted to a table with names."""
    pd.DataFrame(_matrix(), columns=list("ugrizy")).to_csv("x.csv", index=False)
    flags = ["--rank", "2", "--out", "model", "--tol", "1e-9", "--max-iter", "2000", "--quiet"]
    assert main(["nmf", "fit", "x.csv", *flags]) == 0
    capsys.readouterr()
    return desk


def _transform(*words: str, code: int = 0) -> None:
    assert main(["nmf", "transform", *words, "--model", "model", "--out", "out"]) == code


def test_transform_finds_the_mixtures(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h = np.load("model/h.npy")
    w = np.random.default_rng(5).random((4, 2))
    np.save("new.npy", w @ h)
    _transform("new.npy", "--json")
    assert np.abs(np.load("out/w.npy") - w).max() < 1e-3
    told, run = json.loads(capsys.readouterr().out), _run_file()
    for facts in (told, run):
        assert (facts["rows"], facts["rank"]) == (4, 2)
        assert facts["explained_share"] > 0.999 and 0 <= facts["loss"] < 1e-4
    assert [entry["name"] for entry in run["inputs"]] == ["new.npy", "model"]
    assert not Path("out/h.npy").exists()


def test_transform_does_not_look_at_hidden_entries(fitted: Path) -> None:
    h = np.load("model/h.npy")
    w = np.random.default_rng(5).random((4, 2))
    new = w @ h
    new[2, 3] = np.nan
    np.save("new.npy", new)
    _transform("new.npy", "--missing", "nan")
    assert np.abs(np.load("out/w.npy") - w).max() < 1e-2


def test_transform_says_what_negative_entries_need(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("new.npy", -_matrix()[:3])
    _transform("new.npy", code=2)
    told = capsys.readouterr().err
    assert "noisy data around zero need a model that was fitted with --solver nearly" in told
    assert told.count("\n") == 1 and not Path("out").exists()


def test_transform_needs_components(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("new.npy", _matrix())
    np.save("model/h.npy", 0 * np.load("model/h.npy"))
    _transform("new.npy", code=2)
    assert "error: model: components holds only zeros" in capsys.readouterr().err


def test_transform_needs_the_same_columns(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("new.npy", np.ones((3, 5)))
    _transform("new.npy", code=2)
    assert "has 5 columns and the components of model have 6" in _error(capsys)
    pd.DataFrame(_matrix(), columns=list("ugirzy")).to_csv("new.csv", index=False)
    _transform("new.csv", code=2)
    assert "has the column i where model has r" in _error(capsys)


@pytest.mark.parametrize("broken", ["h.npy", "run.json", "settings"])
def test_transform_needs_a_model(
    broken: str, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if broken == "settings":
        Path("model/run.json").write_text('{"settings": {"loss": "kl"}}')
    else:
        Path("model", broken).unlink()
    _transform("x.csv", code=2)
    assert "give a folder" in _error(capsys)


# errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["y.npy"], "y.npy does not exist"),
        (["x.mat"], "x.mat ends in .mat; allowed are"),
        (["x.npy", "--rank", "7"], "--rank 7 is above the smaller side of x.npy, which is 12 x 6"),
        (["x.npy", "--rank", "0"], "Invalid value for '--rank'"),
        (["x.npy", "--loss", "l1"], "--loss l1 is not a loss; give frobenius, kl, is"),
        (["x.npy", "--loss", "nan"], "--loss nan is not a loss"),
        (["x.npy", "--l1-w", "inf"], "--l1-w inf is not a number from 0"),
        (["x.npy", "--solver", "hals", "--loss", "kl"], "--solver hals does not minimise --loss"),
        (["x.npy", "--restarts", "2", "--init", "nndsvd"], "--restarts 2 needs random starts"),
        (["x.npy", "--key", "X"], "--key is for .npz files"),
        (["x.npy", "--ivar", "X"], "--ivar is for .npz files"),
        (["x.npy", "--weights", "half.npy"], "half.npy has shape (6, 6), the matrix (12, 6)"),
        (["x.npy", "--mask", "x.npy"], "x.npy is no mask"),
        (["x.npz", "--ivar", "v", "--weights", "x.npy"], "--weights and --ivar both give"),
        (["low.npy"], "low.npy has 1 negative entries, the lowest -3; entries from 0 are allowed "
                      "here: noisy data around zero need --solver nearly"),
        (["low.npy", "--loss", "kl"], "hide them with --mask or clip them"),
        (["zero.npy"], "zero.npy: X holds only zeros"),
        (["zero.npy", "--loss", "is"], "zero.npy: X contains 72 zeros; beta=0 allows only"),
        (["holes.npy"], "holes.npy has 2 empty or NaN entries; fill them, or give --missing nan"),
        (["ragged.csv"], "ragged.csv has 1 cells in line 2 and 2 in the first line"),
        (["text.csv"], "text.csv has the text 'two' in line 3"),
        (["short.npy"], "short.npy cannot be read as .npy"),
        (["x.npy", "--distributed"], "--distributed: this is a single process; type: torchrun"),
        (["x.npy", "--distributed", "--restarts", "2"], "--restarts does not go with"),
        (["x.npy", "--distributed", "--solver", "nearly"], "--solver nearly does not go with"),
        (["x.npy", "x.npy"], "2 files were given"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    words: list[str], said: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = _matrix()
    np.save("half.npy", x[:6])
    np.save("zero.npy", 0 * x)
    np.savez("x.npz", X=x, v=x)
    np.save("low.npy", np.where(x == x.max(), -3, x))
    np.save("holes.npy", np.where(np.isin(x, [x.max(), x.min()]), np.nan, x) if (x > 0).all() else
            np.where(np.arange(72).reshape(12, 6) % 40 == 7, np.nan, x))  # fmt: skip
    Path("ragged.csv").write_text("1,2\n3\n")
    Path("text.csv").write_text("a,b\n1,2\n1,two\n")
    Path("short.npy").write_bytes(Path("x.npy").read_bytes()[:-100])
    rank = [] if "--rank" in words else ["--rank", "1"]
    _fit(*words, *rank, code=2)
    assert said in _error(capsys)


def test_results_are_not_overwritten(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fit("x.npy", "--rank", "1")
    before = Path("out/h.npy").read_bytes()
    _fit("x.npy", "--rank", "2", code=2)
    assert "exists and is not empty" in capsys.readouterr().err
    assert Path("out/h.npy").read_bytes() == before
    _fit("x.npy", "--rank", "2", "--force")
    assert Path("out/h.npy").read_bytes() != before


def test_interruption_leaves_nothing(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("warte.nmf.report.write_report", stop)
    _fit("x.npy", "--rank", "2", code=130)
    assert [path.name for path in desk.iterdir()] == ["x.npy"]


def test_without_the_extra(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    _fit("x.npy", "--rank", "2", code=2)
    assert "sklearn is not installed; type: pip install 'warte[nmf]'" in _error(capsys)


def test_progress_counts_iterations(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warte.cli.common.PROGRESS_AFTER_S", 0.0)
    seen: list[tuple[str, int, int | None]] = []

    def note(self: object, step: str, done: int, total: int | None) -> None:
        seen.append((step, done, total))

    monkeypatch.setattr("warte.cli.common._Bars.report", note)
    words = ["x.npy", "--rank", "2", "--out", "out", "--max-iter", "12", "--tol", "0"]
    assert main(["nmf", "fit", *words]) == 0
    assert seen[0] == ("iterations", 1, 12) and seen[-1] == ("iterations", 12, 12)


def test_losses_by_name_and_number() -> None:
    assert [parse_loss(text) for text in ("frobenius", "KL", "is", "1.5", "-1")] == [
        2,
        1,
        0,
        1.5,
        -1,
    ]
    for text in ("", "1e9", "inf", "kullback"):
        with pytest.raises(SettingsError, match="is not a loss"):
            parse_loss(text)


# real data --------------------------------------------------------------------------------------


def test_spectra_of_a_quasar(real_file: Callable[[str], Path], desk: Path) -> None:
    path = real_file("rm017_epochs.npz")
    _fit(str(path), "--ivar", "ivar", "--rank", "2", "--solver", "nearly", "--max-iter", "20")
    run = _run_file()
    assert run["hidden_share"] == pytest.approx(0.018, abs=0.002)
    assert (run["rows"], run["columns"]) == (78, 4651) and run["explained_share"] > 0.8
