"""Training that is killed goes on and ends as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.earth.train.scenes import scene
from warte.core.errors import InputError
from warte.core.train import checkpoint, launch
from warte.core.train.launch import LostError, Place
from warte.core.train.layout import Layout
from warte.earth.train import NetworkSettings, Trained, TrainSettings, kept, network, train

STEPS, EVERY, LOOKS = 20, 4, 10
SETTINGS = TrainSettings(
    block=16,
    cross=0,
    chip=32,
    network=NetworkSettings(
        steps=STEPS, batch=4, crop=16, width=4, depth=1, kernel=3, looks=LOOKS, learning_rate=0.03
    ),
)
FOLDS = replace(SETTINGS, cross=1000, folds=2)  # two held-out parts, then all
FILES = ("model.json", "model.safetensors")


def _train(
    out: Path,
    settings: TrainSettings = SETTINGS,
    layout: Layout | None = None,
    tell: Callable[[str], None] | None = None,
) -> Trained:
    made, marks = scene(64, 64)
    out.mkdir(exist_ok=True)
    found = train(
        [made], [marks], settings, out=out, layout=layout, checkpoint_every=EVERY, tell=tell
    )
    assert found is not None
    return found


def _stop(at: int, times: int, how: Callable[[], None]) -> Callable[[network.Batches, int], Any]:
    """What Batches do: they stop before some step, the first time it comes or a later one."""
    original, left = network.Batches.__call__, [times]

    def stopping(self: network.Batches, step: int) -> Any:
        left[0] -= step == at
        if not left[0]:
            how()
        return original(self, step)

    return stopping


def _die(out: Path) -> None:
    """A process of its own, which kills itself."""
    torch.set_num_threads(1)
    kill = partial(os.kill, os.getpid(), signal.SIGKILL)
    network.Batches.__call__ = _stop(11, 1, kill)  # type: ignore[method-assign]
    _train(out)


def _interrupted(
    out: Path, settings: TrainSettings, at: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in this process."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(network.Batches, "__call__", _stop(at, times, interrupt))
        _train(out, settings)


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are taken from now on in this process."""
    steps: list[int] = []
    original = network.Batches.__call__

    def counted(self: network.Batches, step: int) -> Any:
        steps.append(step)
        return original(self, step)

    monkeypatch.setattr(network.Batches, "__call__", counted)
    return steps


def _same(one: Path, other: Path) -> None:
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.work")


@pytest.mark.usefixtures("one_thread")
def test_killed_and_started_again_it_is_the_same_model(tmp_path: Path, taken: list[int]) -> None:
    whole, model = tmp_path / "whole", tmp_path / "model"
    losses = _train(whole).losses
    assert not _beside(whole).exists()
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(model,))
    process.start()
    process.join(60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not list(model.iterdir())
    (folder,) = _beside(model).glob("training/*/without-0")
    assert checkpoint.steps(folder) == [4, 8]
    taken.clear()
    said: list[str] = []
    again = _train(model, tell=said.append)
    assert said == ["goes on at step 8 of 20"] and taken == list(range(8, STEPS))
    assert again.losses == losses
    _same(whole, model)
    assert not _beside(model).exists()


@pytest.mark.usefixtures("one_thread")
def test_finished_parts_are_not_trained_again(
    tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, model = tmp_path / "whole", tmp_path / "model"
    _train(whole, FOLDS)
    assert len(taken) == 3 * STEPS
    _interrupted(model, FOLDS, 9, 2, monkeypatch)  # in the second held-out part
    taken.clear()
    _train(model, FOLDS)
    assert taken == [*range(8, STEPS), *range(STEPS)]
    _same(whole, model)


@pytest.mark.usefixtures("one_thread")
def test_weights_that_were_best_before_the_stop_stay_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = itertools.count()
    monkeypatch.setattr(network, "loss_of", lambda held: float(next(worse)))
    whole, model = tmp_path / "whole", tmp_path / "model"
    _train(whole)
    worse = itertools.count()
    _interrupted(model, SETTINGS, 11, 1, monkeypatch)
    _train(model)
    _same(whole, model)


def _without_result(*args: Any) -> None:
    """The training in a process that is started here, but for what is kept at its end."""
    network.save_learned = lambda *_: None
    network._learned(*args)


@pytest.mark.usefixtures("one_thread")
def test_processes_are_started_once_for_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, model = tmp_path / "whole", tmp_path / "model"
    _train(whole, FOLDS)
    starts: list[int] = []

    def counted(devices: int, *args: Any, **how: Any) -> Any:
        starts.append(devices)
        return launch.run(devices, *args, **how)

    monkeypatch.setattr(network, "run", counted)
    _train(model, FOLDS, Layout("ddp", devices=2))
    assert starts == [2]
    weights, others = (load_file(place / "model.safetensors") for place in (whole, model))
    for name, value in weights.items():
        np.testing.assert_allclose(others[name], value, atol=1e-4)
    assert not _beside(model).exists()


@pytest.mark.usefixtures("one_thread")
def test_saved_by_two_processes_one_goes_on(
    tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, model = tmp_path / "whole", tmp_path / "model"
    _train(whole)

    def stopped(devices: int, _: object, *args: Any, **how: Any) -> None:
        launch.run(devices, _without_result, *args, **how)
        raise KeyboardInterrupt

    # The two have ended well by then, and only their checkpoints are left.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(network, "run", stopped)
        _train(model, layout=Layout("ddp", devices=2))
    (folder,) = _beside(model).glob("training/*/without-0")
    newest = checkpoint.latest(folder)
    assert newest is not None and newest.name == "step-00000020"
    newest.rename(tmp_path / "away")
    taken.clear()
    found = _train(model)
    assert taken == list(range(16, STEPS)) and len(found.losses) == STEPS
    weights, others = (load_file(place / "model.safetensors") for place in (whole, model))
    for name, value in weights.items():
        np.testing.assert_allclose(others[name], value, atol=1e-4)


@pytest.mark.usefixtures("one_thread")
def test_other_settings_do_not_go_on(
    tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    _interrupted(model, SETTINGS, 11, 1, monkeypatch)
    taken.clear()
    _train(model, replace(SETTINGS, seed=1))
    assert taken == list(range(STEPS))
    assert not _beside(model).exists()


def test_an_error_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: network.Batches, step: int) -> Any:
        if step == 10:
            raise ValueError
        return original(self, step)

    original = network.Batches.__call__
    monkeypatch.setattr(network.Batches, "__call__", broken)
    with pytest.raises(ValueError):
        _train(tmp_path / "model")
    assert not _beside(tmp_path / "model").exists()


# the best weights -------------------------------------------------------------------------------


def _found(done: int) -> kept.Found:
    return kept.Found({"w": torch.full((2,), float(done))}, done, 1 / done)


def test_weights_later_than_the_checkpoint_are_not_taken_up(tmp_path: Path) -> None:
    assert kept.load_best(tmp_path / "nothing", 100) is None
    for done in (2, 6, 10):
        kept.save_best(tmp_path, _found(done))
    assert kept.load_best(tmp_path, 1) is None
    for until, last in ((2, 2), (9, 6), (10, 10), (99, 10)):
        found = kept.load_best(tmp_path, until)
        assert found is not None and (found.done, found.loss) == (last, 1 / last)
        assert torch.equal(found.weights["w"], _found(last).weights["w"])


def test_only_looks_that_may_be_gone_back_to_are_kept(tmp_path: Path) -> None:
    for done in range(2, 21, 2):
        kept.save_best(tmp_path, _found(done))
        if done % 6 == 0:
            checkpoint.save(tmp_path, done, {"w": torch.ones(1)}, {})
    # Checkpoints at 12 and 18: one can still go back to the best of step 12.
    left = sorted(path.name for path in tmp_path.glob("best-*"))
    assert left == [f"best-{done:08d}.safetensors" for done in (12, 14, 16, 18, 20)]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    kept.save_best(tmp_path, _found(2))
    (place,) = tmp_path.iterdir()
    place.write_bytes(place.read_bytes()[:30])
    with pytest.raises(InputError, match=r"best-00000002.safetensors is damaged; remove") as caught:
        kept.load_best(tmp_path, 2)
    assert "\n" not in str(caught.value)


# processes that wait ----------------------------------------------------------------------------


def _look(place: Place, seconds: float) -> float:
    """Process 0 works alone while the other one waits."""
    if place.rank == 0:
        time.sleep(seconds)
    return float(launch.total(torch.ones(1)))


def _death(place: Place, noted: Path) -> None:
    """Process 1 dies while process 0 waits for it."""
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        launch.total(torch.ones(1))
    finally:
        noted.write_text(str(time.monotonic() - started))


def test_a_busy_process_is_waited_for() -> None:
    found = launch.start_local(2, _look, 8.0, timeout_s=6.0, patience_s=60.0)
    assert found == 2.0


def test_a_dead_process_is_noticed_at_once_whatever_the_patience(tmp_path: Path) -> None:
    noted = tmp_path / "seconds"
    with pytest.raises(LostError, match=r"process 1 .* SIGKILL"):
        launch.start_local(2, _death, noted, timeout_s=30.0, patience_s=1800.0)
    # Of itself, before the process that started it ends it.
    assert float(noted.read_text()) < launch.GRACE_S


def test_training_has_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def started(devices: int, *_: object, **how: Any) -> None:
        seen.update(how, devices=devices)

    monkeypatch.setattr(network, "run", started)
    lesson = network.Lesson([], [], *(None,) * 6, SETTINGS)  # type: ignore[arg-type]
    assert network.learn(lesson, Layout("ddp", devices=2)) is None
    assert seen["devices"] == 2 and seen["patience_s"] >= 1800


def test_boosting_needs_no_pytorch(tmp_path: Path) -> None:
    """In an interpreter of its own: it trains and classifies without it."""
    code = (
        "import sys, pathlib\n"
        "from tests.earth.train.scenes import scene\n"
        "from warte.earth.train import TrainSettings, TreeSettings, train\n"
        "from warte.earth.classify import classify\n"
        "assert 'sklearn' not in sys.modules\n"
        "made, marks = scene(64, 64)\n"
        "model, run = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        "trees = TreeSettings(rounds=3, smallest=5, pixels=500)\n"
        "train([made], [marks], TrainSettings(method='boosting', block=16, cross=0, trees=trees),"
        " out=model)\n"
        "classify(made, model, out=run)\n"
        "assert 'torch' not in sys.modules\n"
    )
    for name in ("model", "run"):
        (tmp_path / name).mkdir()
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "run")],
        check=True, timeout=120,
    )  # fmt: skip
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert card["method"] == "boosting"
