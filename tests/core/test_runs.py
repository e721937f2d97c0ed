"""Run folders: whole or not at all."""

import errno
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import warte
from warte.core.data import runs
from warte.core.data.runs import RunFolder
from warte.core.errors import InputError, OutputError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _make(out: Path, text: str = "results", **options: bool) -> None:
    with RunFolder(out, **options) as run:
        (run.path / "tracks.csv").write_text(text)


def test_run_file_says_how_it_was_made(tmp_path: Path) -> None:
    source = tmp_path / "night.bin"
    source.write_bytes(b"stars")
    out = tmp_path / "night"
    with RunFolder(out, command=["warte", "sky", "find"], seed=7) as run:
        run.add_input(source)
        for _ in range(2):
            with run.step("detect"):
                time.sleep(0.01)
        run.note(warnings=["cloudy"], frames=np.int64(3))
    assert _names(tmp_path) == ["night", "night.bin"]
    facts = json.loads((out / "run.json").read_text())
    assert facts["command"] == ["warte", "sky", "find"]
    assert facts["seed"] == 7
    assert facts["inputs"] == [
        {"name": "night.bin", "sha256": hashlib.sha256(b"stars").hexdigest()}
    ]
    assert 0.02 <= facts["seconds"]["detect"] <= facts["seconds_total"] < 5
    assert facts["warnings"] == ["cloudy"] and facts["frames"] == 3
    assert facts["versions"]["warte"] == warte.__version__
    assert facts["versions"]["torch"]
    assert facts["started_utc"] < facts["ended_utc"] and facts["ended_utc"].endswith("Z")
    assert str(tmp_path) not in (out / "run.json").read_text()


def test_permissions_are_those_of_an_ordinary_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    _make(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folder_input_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    digests = []
    for index, (name, text) in enumerate([("a", "1"), ("a", "1"), ("b", "1"), ("a", "2")]):
        folder = tmp_path / str(index) / "frames"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / name).write_text(text)
        run = RunFolder(tmp_path / "out")
        run.add_input(folder)
        digests.append(run.inputs[0]["sha256"])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing.mp4: no such file"):
        RunFolder(tmp_path / "out").add_input(tmp_path / "nothing.mp4")


@dataclass(frozen=True)
class _Settings:
    limit: float = float("nan")
    place: Path = Path("a/b")


def test_notes_become_json(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    run.note(settings=_Settings(), values=np.array([1.0, np.inf]), pair=(1, None), text={"k": True})
    assert run.notes == {
        "settings": {"limit": None, "place": "a/b"},
        "values": [1.0, None],
        "pair": [1, None],
        "text": {"k": True},
    }
    with pytest.raises(TypeError, match=r"a object cannot be written to run.json"):
        run.note(strange=object())


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_run_that_fails_leaves_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), RunFolder(tmp_path / "new" / "deep" / "out") as run:
        (run.path / "tracks.csv").write_text("half")
        raise problem
    assert _names(tmp_path) == []


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_a_forced_run_that_fails_keeps_the_earlier_results(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    out = tmp_path / "out"
    _make(out, "first")
    with pytest.raises(problem), RunFolder(out, force=True) as run:
        (run.path / "tracks.csv").write_text("half")
        raise problem
    assert _names(tmp_path) == ["out"]
    assert (out / "tracks.csv").read_text() == "first"


def test_interrupt_between_the_two_renames_puts_the_earlier_results_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _make(out, "first")
    real_rename, calls = os.rename, []

    def rename(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real_rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(runs.os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            _make(out, "second", force=True)
    assert len(calls) == 3
    assert _names(tmp_path) == ["out"]
    assert (out / "tracks.csv").read_text() == "first"


def test_force_replaces_earlier_results_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _make(out, "first")
    (out / "left.txt").write_text("from the first run")
    with pytest.raises(OutputError, match=r"exists and is not empty; .* --force"):
        _make(out, "second")
    assert (out / "tracks.csv").read_text() == "first"
    _make(out, "second", force=True)
    assert _names(out) == ["run.json", "tracks.csv"]
    assert (out / "tracks.csv").read_text() == "second"
    assert _names(tmp_path) == ["out"]


def _add(out: Path, text: str, **options: bool) -> None:
    with RunFolder(out, adds=["lines.csv"], command=["warte", text], **options) as run:
        run.add_input(out / "tracks.csv")
        (run.path / "lines.csv").write_text(text)
        (run.path / "report.html").write_text(text)


def test_a_run_can_add_to_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RunFolder(out, command=["warte", "first"]) as run:
        (run.path / "tracks.csv").write_text("results")
        (run.path / "report.html").write_text("first")
        (run.path / "cards").mkdir()
        (run.path / "cards" / "a.txt").write_text("kept")
    _add(out, "second")
    assert _names(out) == ["cards", "lines.csv", "report.html", "run.json", "tracks.csv"]
    assert (out / "report.html").read_text() == "second"
    assert (out / "cards" / "a.txt").read_text() == "kept"
    with pytest.raises(OutputError, match=r"holds lines\.csv already; .*--force"):
        _add(out, "third")
    _add(out, "third", force=True)
    facts = json.loads((out / "run.json").read_text())
    assert (out / "lines.csv").read_text() == "third" and (out / "tracks.csv").exists()
    assert [run["command"] for run in facts["earlier"]] == [["warte", "first"], ["warte", "second"]]
    assert "earlier" not in facts["earlier"][1]
    assert _names(tmp_path) == ["out"]


def test_what_is_added_to_must_be_a_result_and_stays_if_the_run_fails(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tracks.csv").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        _add(tmp_path / "mine", "second")
    _make(tmp_path / "out")
    with (
        pytest.raises(OutputError, match="replace the input"),
        RunFolder(tmp_path / "out", adds=["tracks.csv"], force=True) as run,
    ):
        run.add_input(tmp_path / "out" / "tracks.csv")
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "out", adds=["lines.csv"]) as run:
        (run.path / "lines.csv").write_text("half")
        raise KeyboardInterrupt
    assert _names(tmp_path / "out") == ["run.json", "tracks.csv"]
    assert _names(tmp_path) == ["mine", "out"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    _make(out)
    assert _names(out) == ["run.json", "tracks.csv"]


def test_force_never_replaces_what_is_not_a_result(tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_text("dear")
    with pytest.raises(OutputError, match=r"holds no run.json"):
        _make(out, force=True)
    assert _names(out) == ["holiday.jpg"]


def test_out_that_appears_during_the_run_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"exists and is not empty"), RunFolder(out):
        _make(out, "somebody else's")
    assert (out / "tracks.csv").read_text() == "somebody else's"
    assert _names(tmp_path) == ["out"]


def test_out_is_not_an_input_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _make(out)
    with pytest.raises(OutputError, match=r"would replace the input"):
        RunFolder(out, force=True).add_input(out / "tracks.csv")
    monkeypatch.chdir(out)
    for place in (".", "..", "/"):
        with pytest.raises(OutputError, match=r"is the folder you are in or above it"):
            _make(Path(place), force=True)
    assert _names(out) == ["run.json", "tracks.csv"]


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match=r"is a file; name a folder"):
        _make(tmp_path / "out")
    with pytest.raises(OutputError, match=r"cannot write --out .*: not a directory"):
        _make(tmp_path / "out" / "below")
    assert _names(tmp_path) == ["out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_out_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"cannot write --out .*: permission denied; name a"):
        _make(tmp_path / "locked" / "out")


def test_out_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot write --out .*: permission denied; name a"):
        _make(tmp_path / "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"the disk of --out .* is full"),
        RunFolder(tmp_path / "out"),
    ):
        Path("/dev/full").write_text("more than fits")
    assert _names(tmp_path) == []


def test_full_disk_told_in_words(tmp_path: Path) -> None:
    """As safetensors and other libraries do that are not written in Python."""
    with pytest.raises(OutputError, match=r"is full"), RunFolder(tmp_path / "out"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_full_disk_while_run_json_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"is full"), RunFolder(tmp_path / "out"):
        monkeypatch.setattr(Path, "write_text", full)
    assert _names(tmp_path) == []


def test_path_exists_only_inside(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out")
    with pytest.raises(RuntimeError, match="inside its with block"):
        _ = run.path
    with run:
        assert run.path.parent == tmp_path and run.path.is_dir()
        shutil.copy(__file__, run.path)
    with pytest.raises(RuntimeError, match="inside its with block"):
        _ = run.path
