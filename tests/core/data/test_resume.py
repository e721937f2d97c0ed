"""Pieces are found again by the same run only, and torn ones are made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from warte.core.data.resume import JOURNAL, Pieces, file_facts, fingerprint, pieces
from warte.core.data.runs import STALE_S, RunFolder, kept_beside
from warte.core.errors import OutputError
from warte.core.execute import LostWorkerError


def arrays(index: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(index).random((2, 3, 4), np.float32)
    return {"values": values, "": np.array([[True, False]])}


def test_pieces_are_found_again(tmp_path: Path) -> None:
    kept = Pieces(tmp_path / "work")
    kept.put(3, arrays(3))
    kept.put(1, {})
    again = Pieces(tmp_path / "work")
    assert [index in again for index in range(4)] == [False, True, False, True]
    assert again.get(1) == {}
    for name, values in arrays(3).items():
        found = again.get(3)[name]
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("torn", ["line", "file", "bit", "gone"])
def test_what_a_crash_has_torn_is_made_again(tmp_path: Path, torn: str) -> None:
    kept = Pieces(tmp_path)
    for index in range(3):
        kept.put(index, arrays(index))
    file, journal = tmp_path / "00000002-0.npy", tmp_path / JOURNAL
    data = file.read_bytes()
    if torn == "line":
        journal.write_bytes(journal.read_bytes()[:-9])
    elif torn == "file":
        file.write_bytes(data[:-1])
    elif torn == "bit":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        file.unlink()
    again = Pieces(tmp_path)
    assert [index in again for index in range(3)] == [True, True, False]
    again.put(2, arrays(2))
    assert 2 in Pieces(tmp_path)


@pytest.mark.parametrize(
    ("problem", "left"),
    [(KeyboardInterrupt, True), (LostWorkerError, True), (SystemExit, True), (ValueError, False)],
)
def test_pieces_stay_where_a_run_was_stopped(
    tmp_path: Path, problem: type[BaseException], left: bool
) -> None:
    out = tmp_path / "out"
    with pytest.raises(problem), pieces(out, "a" * 64) as kept:
        kept.put(0, arrays(0))
        raise problem
    assert kept_beside(out).exists() == left
    with pieces(out, "b" * 64) as other:  # another command finds nothing
        assert len(other) == 0
    assert not kept_beside(out).exists()


def test_a_run_folder_keeps_the_pieces_of_all_its_steps_until_it_is_complete(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), RunFolder(out) as run:
        with pieces(run.path, "a" * 64) as kept:
            kept.put(0, arrays(0))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    with RunFolder(out) as run, pieces(run.path, "a" * 64) as kept:
        assert 0 in kept
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_folder_that_fails_leaves_no_pieces(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    with (
        pytest.raises(OutputError, match="disk"),
        RunFolder(tmp_path / "out") as run,
        pieces(run.path, "a" * 64),
    ):
        raise full
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_runs_go_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / ".out.partial-0123abcd"
    dead.mkdir()
    other = tmp_path / ".more.partial-0123abcd"
    other.mkdir()
    monkeypatch.setattr("warte.core.data.runs.time.time", lambda: 1e12)
    assert STALE_S < 60
    with RunFolder(tmp_path / "out") as living:
        assert not dead.exists()
        with pytest.raises(OutputError), RunFolder(tmp_path / "out"):
            (living.path.parent / "out").mkdir()
            (living.path.parent / "out" / "x").touch()
            assert living.path.exists()
        (tmp_path / "out" / "x").unlink()
    assert other.exists()


def test_fingerprints_are_those_of_contents(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(network.state_dict())
    assert fingerprint(network, np.arange(4)) == fingerprint(twin, np.arange(4))
    with torch.no_grad():
        twin.weight[0, 0] += 1e-7
    assert fingerprint(network) != fingerprint(twin)
    assert fingerprint(np.zeros(4)) != fingerprint(np.zeros(4, np.float32))
    file = tmp_path / "scene.tif"
    before = file_facts([file])
    file.write_text("a")
    assert before != file_facts([file])


def test_fingerprints_do_not_depend_on_the_process() -> None:
    code = (
        "import torch, numpy as np; from warte.core.data.resume import fingerprint; "
        "torch.manual_seed(0); print(fingerprint(torch.nn.Linear(3, 2), np.arange(3.0), {'a': 1}))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""
