"""Processes of MPI and of torch.distributed give the answer of one, and end together."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.earth.cluster import together
from warte.core.errors import InputError, SettingsError
from warte.earth.cluster import cluster
from warte.earth.cluster.ranks import Alone, torch_ranks
from warte.earth.cluster.ranks import together as agreed

LAUNCHERS = [("mpi", 3), ("torch", 2)]


def _launched(kind: str, number: int, case: str, out: Path) -> subprocess.CompletedProcess[str]:
    out.mkdir()
    program = [str(Path(together.__file__)), kind, case, str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kind == "mpi":
        mpiexec = _mpiexec()
        command = [mpiexec, "-n", str(number), sys.executable, *program]
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number),
            "--master-addr", "127.0.0.1", "--master-port", str(port), *program,
        ]  # fmt: skip
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def _mpiexec() -> str:
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpiexec is not installed")
    return found


@pytest.mark.parametrize(("kind", "number"), LAUNCHERS)
def test_answer_and_errors_are_those_of_one_process(kind: str, number: int, tmp_path: Path) -> None:
    done = _launched(kind, number, "well", tmp_path / "many")
    assert done.returncode == 0, done.stderr
    # Before that, one process could not read a scene: all said so, and nothing was left.
    # Counted, not compared line by line: launchers may glue the lines of several processes.
    assert done.stderr.count("error: scene.tif is cut off in row 100; get it again") == number
    assert done.stderr.count("error:") == number
    (tmp_path / "one").mkdir()
    found = cluster([together.scene()], together.SETTINGS, out=tmp_path / "one")
    facts = json.loads((tmp_path / "many" / "facts.json").read_text())
    one = json.loads(json.dumps(dataclasses.asdict(found)))
    assert (one.pop("ranks"), facts.pop("ranks")) == (1, number)
    assert one == facts
    for name in ("clusters.tif", "centres.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize(("kind", "case"), [("mpi", "dies"), ("mpi", "fails"), ("torch", "dies")])
def test_nobody_waits_for_one_that_is_gone(kind: str, case: str, tmp_path: Path) -> None:
    done = _launched(kind, 2, case, tmp_path / "out")
    assert done.returncode != 0
    said = done.stderr + done.stdout
    if case == "fails":
        assert "ZeroDivisionError: a bug" in said and "failed; all 2 end" in said
    elif kind == "mpi":
        assert "EXIT CODE: 9" in said.upper()
    assert not (tmp_path / "out" / "clusters.tif").exists()


def test_one_process_agrees_with_itself() -> None:
    assert agreed(Alone(), lambda: 3) == 3

    def fail() -> None:
        raise InputError("bad")

    with pytest.raises(InputError, match="bad"):
        agreed(Alone(), fail)


def test_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="torchrun"), torch_ranks():
        raise AssertionError("there is no group")
