"""Rows spread over processes: the answer of one process, and an end when one is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from warte.cli import main
from warte.core.errors import SettingsError
from warte.core.train import launch
from warte.nmf import NMF, distributed
from warte.nmf.check import as_tensor
from warte.nmf.start import start

CUT = 23  # rows of the first process; the second has the other ones
LAUNCHERS = {name for names in launch.LAUNCHERS for name in names}


@pytest.fixture(scope="module", autouse=True)
def _alone() -> Iterator[None]:
    """No launcher's variables from outside."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*LAUNCHERS, "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        yield


def _matrix(columns: int = 50, seed: int = 0) -> np.ndarray:
    """Nonnegative (63, columns), four parts and noise."""
    rng = np.random.default_rng(seed)
    return rng.random((63, 4)) ** 3 @ rng.random((4, columns)) ** 3 + 0.05 * rng.random(
        (63, columns)
    )


def _weights(columns: int = 50) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.random((63, columns)) * (rng.random((63, columns)) > 0.2)


def _sparse() -> scipy.sparse.csr_matrix:
    x = _matrix()
    return scipy.sparse.csr_matrix(np.where(x > np.quantile(x, 0.6), x, 0))


def _own(x: Any, rank: int) -> Any:
    return x[:CUT] if rank == 0 else x[CUT:]


# processes --------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _launched(work: Callable[..., None], rank: int, names: int, port: int, *rest: Any) -> None:
    """Become one of two processes, as one of the launchers would have it."""
    rank_name, size_name, local_name = launch.LAUNCHERS[names]
    os.environ |= {rank_name: str(rank), size_name: "2", local_name: str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    work(rank, *rest)


def _two(work: Callable[..., None], *rest: Any, launcher: int = 0) -> list[int | None]:
    """Run two processes to their end; their exit codes."""
    # A server that has imported everything once, and whose copies start at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "warte.nmf.estimator", "warte.core.data.runs"])
    port = _free_port()
    both = [
        context.Process(target=_launched, args=(work, rank, launcher, port, *rest))
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    codes = [process.exitcode for process in both]
    for process in both:
        process.kill()
    return codes


# the same answer --------------------------------------------------------------------------------

STARTS: dict[str, tuple[int, int, str, bool]] = {  # columns, rank, kind, weights
    "random": (50, 3, "random", False),
    "exact": (20, 3, "nndsvda", False),
    "randomised": (50, 4, "nndsvd", False),
    "noise": (50, 4, "nndsvdar", False),
    "holes": (50, 4, "nndsvda", True),
    "random holes": (50, 3, "random", True),
}
FITS: dict[str, dict[str, Any]] = {
    "hals": {},
    "penalties": {"solver": "hals", "penalty": {"l1_w": 0.1, "l2_h": 0.2, "smooth_h": 0.3}},
    "poisson": {"beta": 1.0},
    "itakura-saito": {"beta": 0.0, "init": "random"},
    "weighted": {"weights": True},
    "weighted poisson": {"beta": 1.0, "weights": True},
    "sparse": {"sparse": True},
    "sparse poisson": {"beta": 1.0, "sparse": True},
}


def _compute(rank: int, folder: Path) -> None:
    """All starts and all fits, in one pair of processes."""
    found: dict[str, np.ndarray] = {}
    with distributed.group(timeout_s=30) as place:
        assert (place.rank, place.size, place.device.type) == (rank, 2, "cpu")
        for name, (columns, k, kind, holes) in STARTS.items():
            x = as_tensor(_own(_matrix(columns), rank))
            weights = as_tensor(_own(_weights(columns), rank)) if holes else None
            w, h = distributed.start(x, k, kind, np.random.default_rng(5), weights)  # type: ignore[arg-type]
            found |= {f"start {name} w": w.numpy(), f"start {name} h": h.numpy()}
        for name, settings in FITS.items():
            more = dict(settings)
            x = _sparse() if more.pop("sparse", False) else _matrix()
            more["weights"] = _own(_weights(), rank) if more.get("weights") else None
            fit = distributed.fit(_own(x, rank), 4, seed=5, tol=1e-6, max_iter=60, **more)
            every = distributed.all_rows(fit.solution.w)
            assert every.shape == (63, 4)
            found |= {f"{name} w": fit.solution.w.numpy(), f"{name} h": fit.solution.h.numpy()}
            found[f"{name} facts"] = np.array([fit.loss, fit.solution.n_iter, fit.explained])
            found[f"{name} losses"] = np.array(fit.solution.losses)
        found["mean"] = np.array(distributed.mean_of_rows(float(rank), CUT if rank == 0 else 40))
        hidden = _weights() * (np.arange(63) >= CUT)[:, None]
        fit = distributed.fit(
            _own(_matrix(), rank), 2, weights=_own(hidden, rank), seed=5, max_iter=20
        )
        found["hidden w"] = fit.solution.w.numpy()
    np.savez(folder / f"{rank}.npz", **found)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What the two processes found, by name."""
    folder = tmp_path_factory.mktemp("two")
    assert _two(_compute, folder) == [0, 0]
    results = []
    for rank in (0, 1):
        with np.load(folder / f"{rank}.npz") as file:
            results.append({name: file[name] for name in file.files})
    return results


def _same(found: list[dict[str, np.ndarray]], name: str, w: np.ndarray, h: np.ndarray) -> None:
    assert np.array_equal(found[0][f"{name} h"], found[1][f"{name} h"])
    both = np.concatenate([one[f"{name} w"] for one in found])
    # The loss of sparse data is a small difference of large sums, whose rounding, other on every
    # processor, says when nothing is gained any more.
    off = 1e-4 if name.startswith("sparse") else 1e-5
    assert np.abs(both - w).max() <= off * np.abs(w).max()
    assert np.abs(found[0][f"{name} h"] - h).max() <= off * np.abs(h).max()


@pytest.mark.parametrize("name", STARTS)
def test_start_is_that_of_one_process(name: str, found: list[dict[str, np.ndarray]]) -> None:
    columns, k, kind, holes = STARTS[name]
    weights = as_tensor(_weights(columns)) if holes else None
    generator = np.random.default_rng(5)
    w, h = start(as_tensor(_matrix(columns)), k, kind, generator, weights)  # type: ignore[arg-type]
    _same(found, f"start {name}", w.numpy(), h.numpy())


@pytest.mark.parametrize("name", FITS)
def test_fit_is_that_of_one_process(name: str, found: list[dict[str, np.ndarray]]) -> None:
    settings = dict(FITS[name])
    x = _sparse() if settings.get("sparse") else _matrix()
    weights = _weights() if settings.get("weights") else None
    model = NMF(
        4, beta_loss=settings.get("beta", 2.0), solver=settings.get("solver", "auto"),
        init=settings.get("init"), tol=1e-6, max_iter=60, random_state=5,
        **settings.get("penalty", {}),
    )  # fmt: skip
    w = model.fit_transform(x, weights=weights)
    _same(found, name, w, model.components_)
    loss, iterations, explained = found[0][f"{name} facts"]
    assert np.sqrt(2 * loss) == pytest.approx(model.reconstruction_err_, rel=1e-6)
    assert iterations == model.n_iter_ and 0 < explained < 1
    for one in found:
        # Zeros that rounding has touched start a little elsewhere.
        assert one[f"{name} losses"] == pytest.approx(np.array(model.losses_), rel=1e-4)


def test_mean_over_rows_of_all(found: list[dict[str, np.ndarray]]) -> None:
    assert [float(one["mean"]) for one in found] == pytest.approx([40 / 63] * 2)


def test_a_process_may_see_nothing(found: list[dict[str, np.ndarray]]) -> None:
    assert np.isfinite(found[0]["hidden w"]).all() and (found[1]["hidden w"] > 0).any()


def test_rows_are_spread_evenly() -> None:
    places = [distributed.Place(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [distributed.own_rows(8, place) for place in places] == [(0, 2), (2, 5), (5, 8)]


# trouble ----------------------------------------------------------------------------------------


def _refused(rank: int, folder: Path) -> None:
    """What each process is told about matrices that are not allowed."""
    said = []
    x = _own(_matrix(), rank)
    bad = -x if rank == 1 else x
    with distributed.group(timeout_s=30):
        for data, more in (
            (bad, {}),
            (x, {"k": 51}),
            (x, {"solver": "nearly"}),
            (x, {"beta": 0.0}),
        ):
            settings: dict[str, Any] = {"k": 2, "max_iter": 1, **more}
            data = np.where(data < 0.01, 0, data) if "beta" in more else data
            try:
                distributed.fit(data, **settings)
            except ValueError as problem:
                said.append(str(problem))
    (folder / f"{rank}.json").write_text(json.dumps(said))


def test_all_processes_are_told_the_same(tmp_path: Path) -> None:
    assert _two(_refused, tmp_path, launcher=1) == [0, 0]
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert said[0] == said[1] and len(said[0]) == 4
    words = ["Negative values", "n_components is 51", "solver is 'nearly'; spread", "zeros; beta=0"]
    assert [word in one for word, one in zip(words, said[0], strict=True)] == [True] * 4


def _lost(rank: int, folder: Path) -> None:
    with distributed.group(timeout_s=30):
        distributed.everyones(rank)
        if rank == 1:
            os._exit(3)
        began = time.monotonic()
        try:
            distributed.total(torch.ones(3))
        except distributed.LostError as problem:
            (folder / "said").write_text(str(problem))
            assert time.monotonic() - began < 20


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    assert _two(_lost, tmp_path) == [0, 3]
    said = (tmp_path / "said").read_text()
    assert said.startswith("another process of this run ended or did not answer; nothing was")
    assert "\n" not in said


@contextmanager
def _environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def test_processes_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        _environment(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_PORT=str(_free_port())),
        pytest.raises(distributed.LostError, match=r"did not answer within 1 s; nothing was"),
        distributed.group(timeout_s=1),
    ):
        raise AssertionError("nobody else came")


def test_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(SettingsError, match=r"single process; type: torchrun --nproc-per-node 2 -m"),
        distributed.group(),
    ):
        raise AssertionError("there is no group")
    for rank, size, local in launch.LAUNCHERS:
        with _environment(monkeypatch, **{rank: "5", size: "8", local: "1"}):
            assert distributed.launched() == (5, 8, 1)


# the command ------------------------------------------------------------------------------------


def _command(rank: int, folder: Path, words: list[str]) -> None:
    with (folder / f"{rank}.err").open("w") as err, (folder / f"{rank}.out").open("w") as out:
        sys.stderr, sys.stdout = err, out
        code = main(words)
    os._exit(code)


def _told(folder: Path) -> list[str]:
    return [(folder / f"{rank}.err").read_text() for rank in (0, 1)]


def test_command_gives_the_answer_of_one_process(tmp_path: Path) -> None:
    x = _matrix()
    x[3, 4] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "v.npy", _weights())
    np.save(tmp_path / "m.npy", np.random.default_rng(2).random(x.shape) > 0.9)
    words = ["nmf", "fit", str(tmp_path / "x.npy"), "--rank", "3", "--missing", "nan", "--quiet"]
    words += ["--weights", str(tmp_path / "v.npy"), "--mask", str(tmp_path / "m.npy")]
    words += ["--device", "cpu", "--tol", "1e-6"]
    spread = [*words, "--out", str(tmp_path / "two"), "--distributed", "--json"]
    assert _two(_command, tmp_path, spread, launcher=2) == [0, 0], _told(tmp_path)
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    for name in ("w.npy", "h.npy"):
        one, two = np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name)
        assert np.abs(one - two).max() <= 1e-5 * one.max()
    runs = [json.loads((tmp_path / out / "run.json").read_text()) for out in ("one", "two")]
    for fact in ("rows", "columns", "solver", "iterations", "converged", "settings", "inputs"):
        assert runs[0][fact] == runs[1][fact], fact
    for fact in ("hidden_share", "loss", "explained_share"):
        assert runs[0][fact] == pytest.approx(runs[1][fact], rel=1e-6), fact
    assert json.loads((tmp_path / "0.out").read_text())["rank"] == 3
    assert (tmp_path / "1.out").read_text() == ""


def test_command_keeps_the_names_of_a_table(tmp_path: Path) -> None:
    lines = ["star,u,g,r", *(f"s{n},{n},{2 * n},{n % 3}" for n in range(1, 9))]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    words = ["nmf", "fit", str(tmp_path / "x.csv"), "--rank", "2", "--out", str(tmp_path / "two")]
    assert _two(_command, tmp_path, [*words, "--distributed"]) == [0, 0], _told(tmp_path)
    table = (tmp_path / "two" / "activations.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["row", *(f"s{n}" for n in range(1, 9))]
    assert (tmp_path / "two" / "components.csv").read_text().startswith("component,u,g,r\n")


@pytest.mark.parametrize(
    ("rows", "low", "words"),
    [(63, -1.0, "has 1 negative entries, the lowest -1;"), (1, 1.0, "has 1 rows for 2 processes")],
)
def test_command_says_once_what_is_wrong(rows: int, low: float, words: str, tmp_path: Path) -> None:
    x = _matrix()[:rows]
    x[-1, 0] = low
    np.save(tmp_path / "x.npy", x)
    out = ["--out", str(tmp_path / "two"), "--distributed"]
    command = ["nmf", "fit", str(tmp_path / "x.npy"), "--rank", "1", *out]
    assert _two(_command, tmp_path, command) == [2, 2]
    told = _told(tmp_path)
    assert words in told[0] and len(told[0].splitlines()) == 1 and told[1] == ""
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("launcher", "words"),
    [("torchrun", ["--nproc-per-node", "2", "--master-port"]), ("mpiexec", ["-n", "2"])],
)
def test_real_launchers(launcher: str, words: list[str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name(launcher)
    found = str(program) if program.is_file() else shutil.which(launcher)
    if found is None:
        pytest.skip(f"{launcher} is not installed")
    port = str(_free_port())
    inner = ["-m", "warte"]
    words = [*words, port] if launcher == "torchrun" else [*words, sys.executable]
    np.save(tmp_path / "x.npy", _matrix())
    fit = ["nmf", "fit", "x.npy", "--rank", "3", "--out", "two", "--distributed", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
    if launcher == "mpiexec":
        environment["MASTER_PORT"] = port
    done = subprocess.run(
        [found, *words, *inner, *fit],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    w, h = np.load(tmp_path / "two" / "w.npy"), np.load(tmp_path / "two" / "h.npy")
    model = NMF(3, random_state=0, max_iter=500)
    assert np.abs(model.fit_transform(_matrix()) - w).max() <= 1e-5 * w.max()
    assert np.abs(model.components_ - h).max() <= 1e-5 * h.max()
