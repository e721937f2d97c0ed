"""Who a process is under each launcher, where processes meet, and how a lost one ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from warte.core.errors import InputError, MissingExtraError, SettingsError
from warte.core.train import launch
from warte.core.train.launch import LostError, Place

NAMES = {name for names in launch.LAUNCHERS for name in names}
MORE = {"MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_ID"}


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """No launcher's variables from outside, and none left behind."""
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES | MORE:
            patch.delenv(name, raising=False)
        yield


# who and where ----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", launch.LAUNCHERS)
def test_every_launcher_says_who_we_are(
    names: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch.launched() is None
    for name, value in zip(names, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert launch.launched() == (5, 8, 1)


def test_mpiexec_within_slurm_is_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    for values in (("0", "2", "0"), ("3", "8", "1")):
        for name, value in zip(launch.LAUNCHERS[3 if values[0] == "0" else 2], values, strict=True):
            monkeypatch.setenv(name, value)
    assert launch.launched() == (3, 8, 1)


def test_a_batch_script_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert launch.launched() is None


@pytest.mark.parametrize(  # the examples of SLURM's `scontrol show hostnames`
    ("nodes", "first"),
    [
        ("gpu[003-007,9],login1", "gpu003"),
        ("n7", "n7"),
        ("n7,n8", "n7"),
        ("rack[1,3-4]n2", "rack1n2"),
        ("", ""),
    ],
)
def test_first_node_of_a_list(nodes: str, first: str) -> None:
    assert launch.first_node(nodes) == first


def test_slurm_meets_at_the_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(launch.LAUNCHERS[3], ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "gpu[11-14]")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert launch._meeting(5, 8) == ("gpu11", "24711")


def test_mpi_of_several_machines_needs_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(launch.LAUNCHERS[2], ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.setenv("MPI_LOCALNRANKS", "4")
    with pytest.raises(MissingExtraError, match=r"mpi4py is not installed; .*warte\[mpi\]"):
        launch._meeting(5, 8)
    monkeypatch.setenv("MPI_LOCALNRANKS", "8")
    assert launch._meeting(5, 8) == ("127.0.0.1", launch.PORT)


def test_a_single_process_joins_nobody() -> None:
    with pytest.raises(SettingsError, match="this is a single process"), launch.group():
        raise AssertionError("there is no group")


# processes of this machine ----------------------------------------------------------------------


def _sum(place: Place, what: str) -> tuple[list[float], torch.Tensor]:
    """The sum of all ranks; or one of them fails as it is told."""
    launch.everyones(place.rank)
    if what == "killed" and place.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "together":
        with launch.together():
            if place.rank == 1:
                raise InputError("b.tif is empty")
    return launch.total(torch.full((2,), float(place.rank))).tolist(), torch.ones(3)


def test_processes_add_up() -> None:
    values, ones = launch.start_local(2, _sum, "", timeout_s=30)
    assert values == [1.0, 1.0] and torch.equal(ones, torch.ones(3))


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("killed", LostError, r"process 1 \(of 2, from 0\) was ended by SIGKILL, as when memory"),
        ("together", InputError, "b.tif is empty"),
    ],
)
def test_one_that_fails_ends_all(what: str, error: type[Exception], words: str) -> None:
    began = time.monotonic()
    with pytest.raises(error, match=words) as found:
        launch.start_local(2, _sum, what, timeout_s=60)
    assert time.monotonic() - began < 40
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({1: ("ended", 7)}, LostError, r"process 1 \(of 2, from 0\) ended with exit code 7; the"),
        ({1: ("ended", -15)}, LostError, "was ended by SIGTERM; the others were ended and nothing"),
        ({1: ("ended", None)}, LostError, "does not answer; the others"),
        ({1: ("traceback", "in line 7")}, RuntimeError, "process 1 of 2 failed:\nin line 7"),
        (
            {0: ("error", (LostError, "gone")), 1: ("error", (MissingExtraError, "no optuna"))},
            MissingExtraError,
            "no optuna",
        ),
        ({0: ("error", (LostError, "gone")), 1: ("ended", -9)}, LostError, "process 1 .* SIGKILL"),
        ({0: ("error", (LostError, "gone"))}, LostError, "gone"),
        ({0: ("result", 3), 1: ("ended", 1)}, LostError, "process 1 .* exit code 1"),
    ],
)
def test_the_error_that_says_most(
    said: dict[int, launch.Said], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        launch._verdict(said, 2)


def test_one_process_needs_no_group() -> None:
    assert launch.run(1, _rank) == (0, 1)


def _rank(place: Place) -> tuple[int, int]:
    return place.rank, place.size


def test_run_refuses_what_was_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SettingsError, match="--devices is 2, and the launcher started 4 proc"):
        launch.run(2, _rank)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="--devices is 2, and this machine has 0 GPUs"):
            launch.start_local(2, _rank, cuda=True)


def test_mpiexec_says_where_to_meet(tmp_path: Path) -> None:
    mpiexec = Path(sys.executable).with_name("mpiexec")
    pytest.importorskip("mpi4py")
    if not mpiexec.is_file():
        pytest.skip("mpiexec is not installed")
    # Each rank has a file of its own: what ranks print at once may stand within one another.
    script = (
        "import sys, torch; from pathlib import Path; from warte.core.train import launch\n"
        "with launch.group(timeout_s=60) as place:\n"
        "    total = int(launch.total(torch.tensor([place.rank + 1])).item())\n"
        "    Path(sys.argv[1], str(place.rank)).write_text(str(total))\n"
    )
    done = subprocess.run(
        [mpiexec, "-n", "2", sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3", "3"]
