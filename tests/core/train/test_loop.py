"""The loop in one process: against plain PyTorch, its checkpoints, and what it refuses."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from warte.core.errors import InputError, OutputError, SettingsError
from warte.core.train import checkpoint
from warte.core.train.loop import Fitted, LoopSettings, fit, rate_at
from warte.core.train.parallel import Layout

SETTINGS = LoopSettings(steps=12, warmup=3, clip=0.5, weight_decay=0.1, seed=4)


def _build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def _batch(step: int) -> tuple[Tensor, Tensor]:
    """Nine samples, of which some have no label (-1)."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    label = (x.sum(dim=1) > 0).long()
    return x, torch.where(torch.rand(9, generator=generator) < 0.3, -1, label)


def _loss(answer: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    entropy = nn.functional.cross_entropy(answer, label, reduction="sum", ignore_index=-1)
    return entropy, (label >= 0).sum()


def _fit(settings: LoopSettings = SETTINGS, out: Path | None = None) -> Fitted:
    return fit(_build, _batch, _loss, settings, out=out)


def _by_hand() -> tuple[list[float], dict[str, Tensor]]:
    """The same training, with the means and the clipping of PyTorch."""
    with torch.random.fork_rng():
        torch.manual_seed(SETTINGS.seed)
        model = _build()
    matrices = [values for values in model.parameters() if values.ndim > 1]
    biases = [values for values in model.parameters() if values.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    )
    losses = []
    for step in range(SETTINGS.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, SETTINGS)
        x, label = _batch(step)
        loss = nn.functional.cross_entropy(model(x), label, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model.state_dict()


@pytest.mark.parametrize("accumulate", [1, 2, 9])
def test_training_is_that_of_plain_pytorch(accumulate: int) -> None:
    losses, state = _by_hand()
    found = _fit(LoopSettings(**{**vars(SETTINGS), "accumulate": accumulate}))
    # PyTorch's clipping adds 1e-6 to the length.
    assert found.losses == pytest.approx(losses, abs=1e-6)
    assert list(found.state) == list(state) and losses[-1] < losses[0]
    for name, values in state.items():
        assert (found.state[name] - values).abs().max() < 1e-5


def test_the_rate_rises_and_falls() -> None:
    settings = LoopSettings(steps=100, warmup=10, learning_rate=1.0)
    rates = [rate_at(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9]
    assert rates[50] == pytest.approx(0.5) and rates[99] == pytest.approx(0.01)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _fit()
    assert torch.equal(torch.rand(3), expected)


def test_nothing_to_learn_from() -> None:
    found = fit(
        _build, lambda step: (_batch(step)[0], torch.full((9,), -1)), _loss,
        LoopSettings(steps=2, weight_decay=0.0),
    )  # fmt: skip
    assert found.losses == [0.0, 0.0]
    assert all(bool(torch.isfinite(values).all()) for values in found.state.values())


def test_report_and_watch() -> None:
    told: list[tuple[str, int, int | None]] = []
    seen: list[float] = []

    def watch(done: int, loss: float, weights: object) -> bool:
        seen.append(loss)
        assert callable(weights) and set(weights()) == set(_build().state_dict())
        return done == 3

    found = fit(_build, _batch, _loss, SETTINGS, watch=watch, report=lambda *one: told.append(one))
    assert found.losses == seen and told == [("steps", n, 12) for n in (1, 2, 3)]


# checkpoints ------------------------------------------------------------------------------------


class _PulledPlugError(Exception):
    pass


def _interrupted(out: Path, after: int) -> None:
    def watch(done: int, loss: float, weights: object) -> None:
        if done == after:
            raise _PulledPlugError

    settings = LoopSettings(**{**vars(SETTINGS), "checkpoint_every": 3})
    with pytest.raises(_PulledPlugError):
        fit(_build, _batch, _loss, settings, out=out, watch=watch)


def test_resumed_training_is_the_same(tmp_path: Path) -> None:
    whole = _fit()
    _interrupted(tmp_path, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000006"]
    found = _fit(out=tmp_path)
    assert found.resumed == 6 and found.losses == whole.losses
    assert all(torch.equal(found.state[name], whole.state[name]) for name in whole.state)


def test_half_a_checkpoint_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(tmp_path, 4)

    rename = os.rename

    def die(old: Path, new: Path) -> None:
        if new.name == "step-00000006":
            raise _PulledPlugError
        rename(old, new)

    monkeypatch.setattr(os, "rename", die)  # all tensors are written by then
    with pytest.raises(_PulledPlugError):
        checkpoint.save(tmp_path, 6, {"weight": torch.ones(3)}, {})
    monkeypatch.undo()
    assert (tmp_path / ".saving" / "facts.json").is_file()
    assert _fit(out=tmp_path).resumed == 3
    _interrupted(tmp_path, 7)  # what lies about is cleared away
    assert not (tmp_path / ".saving").exists()


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    settings = LoopSettings(**{**vars(SETTINGS), "checkpoint_every": 5})
    first = fit(_build, _batch, _loss, settings, out=tmp_path)

    def never(step: int) -> tuple[Tensor, Tensor]:
        raise AssertionError(step)

    again = fit(_build, never, _loss, settings, out=tmp_path)
    assert again.resumed == 12 and again.losses == first.losses
    assert all(torch.equal(again.state[name], first.state[name]) for name in first.state)


def test_a_checkpoint_of_another_training(tmp_path: Path) -> None:
    _interrupted(tmp_path, 4)
    with pytest.raises(InputError, match=r"step-00000003 was saved with --seed 4; give the same"):
        _fit(LoopSettings(**{**vars(SETTINGS), "seed": 5}), tmp_path)
    with pytest.raises(InputError, match=r"0\.weight is 5 x 3 there and 7 x 3 here; it was saved"):
        fit(lambda: nn.Sequential(nn.Linear(3, 7)), _batch, _loss, SETTINGS, out=tmp_path)
    with pytest.raises(InputError, match=r"1\.weight is missing there and 5 x 5 here"):
        wrong = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 5))
        fit(lambda: wrong, _batch, _loss, SETTINGS, out=tmp_path)


@pytest.mark.parametrize("name", [".metadata", "facts.json", "__0_0.distcp"])
def test_a_damaged_checkpoint(name: str, tmp_path: Path) -> None:
    _interrupted(tmp_path, 7)
    path = tmp_path / "step-00000006" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"step-00000006: the checkpoint is damaged .*; remove it"):
        _fit(out=tmp_path)
    shutil.rmtree(path.parent)
    assert _fit(out=tmp_path).resumed == 3


def test_no_place_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write a checkpoint into .*file: not a dir"):
        checkpoint.save(tmp_path / "file", 1, {"a": torch.ones(2)}, {})

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"the disk of .* is full; the checkpoint before is kept"):
        checkpoint.save(tmp_path, 1, {"a": torch.ones(2)}, {})
    assert checkpoint.latest(tmp_path) is None


# refused ----------------------------------------------------------------------------------------


def test_a_loss_without_bounds() -> None:
    with pytest.raises(SettingsError, match="the loss is not finite at step 1; give a lower"):
        fit(_build, lambda step: (_batch(step)[0] * math.inf, _batch(step)[1]), _loss, SETTINGS)


def test_too_small_a_batch() -> None:
    with pytest.raises(SettingsError, match="--batch: 9 samples cannot be dealt to 1 copies of"):
        _fit(LoopSettings(steps=2, accumulate=10))


def test_a_layout_needs_its_processes() -> None:
    with pytest.raises(SettingsError, match="--devices is 2, and 1 processes are running; give"):
        fit(_build, _batch, _loss, SETTINGS, Layout("ddp", 2))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "--steps is 0; allowed is 1 or more"),
        ({"clip": 0.0}, "--clip is 0.0; it must be over 0"),
        ({"learning_rate": math.nan}, "--learning-rate is nan; it must be over 0"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0; allowed is 0 or more"),
        ({"checkpoint_every": -1}, "--checkpoint-every is -1; allowed is 0 or more"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        LoopSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"strategy": "both"}, "--strategy is both; allowed are single, ddp, fsdp, tensor, pipe"),
        ({"strategy": "single", "devices": 2}, "--strategy single runs in one process, and --dev"),
        ({"strategy": "fsdp", "devices": 3, "tensor": 2}, "--devices is 3, which is no multiple"),
        ({"strategy": "tensor", "devices": 4, "tensor": 2}, "leaves 2 copies of the model; give"),
        ({"strategy": "ddp", "devices": 4, "tensor": 2}, "--strategy ddp cannot copy layers that"),
        ({"strategy": "pipeline", "devices": 8}, "--microbatches is 4; --schedule 1f1b needs at"),
        (
            {"strategy": "pipeline", "devices": 3, "schedule": "interleaved"},
            "--microbatches is 4; --schedule interleaved needs a multiple of --stages, 3",
        ),
        ({"strategy": "pipeline", "schedule": "zigzag"}, "--schedule is zigzag; allowed are gpip"),
        ({"strategy": "ddp", "devices": 0}, "--devices is 0; allowed is 1 or more"),
    ],
)
def test_layouts_that_cannot_be(layout: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Layout(**layout)  # type: ignore[arg-type]


def test_the_box_of_processes() -> None:
    assert Layout("tensor", 4).sizes == (1, 1, 4)
    assert Layout("pipeline", 4).sizes == (1, 4, 1)
    assert Layout("pipeline", 4, tensor=2).sizes == (1, 2, 2)
    assert Layout("fsdp", 8, tensor=2, stages=2).sizes == (2, 2, 2)
    assert Layout("ddp", 6, stages=2).sizes == (3, 2, 1)
    assert Layout().sizes == (1, 1, 1)
