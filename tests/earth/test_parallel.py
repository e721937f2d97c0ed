"""One model text, every layout: two processes take the steps of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from warte.core.errors import SettingsError
from warte.core.train import launch
from warte.core.train.launch import Place
from warte.core.train.loop import LoopSettings, fit
from warte.core.train.parallel import Layout
from warte.earth.model import ModelSettings, build
from warte.earth.parallel import PLAN

STEPS = 8
SETTINGS = LoopSettings(steps=STEPS, warmup=2, checkpoint_every=STEPS // 2)
LAYOUTS = {
    "ddp": Layout("ddp", 2),
    "fsdp": Layout("fsdp", 2),
    "tensor": Layout("tensor", 2),
    "gpipe": Layout("pipeline", 2, schedule="gpipe"),
    "1f1b": Layout("pipeline", 2),
    "interleaved": Layout("pipeline", 2, schedule="interleaved"),
}


def _build() -> nn.Module:
    return build(ModelSettings(3, 2, width=4, depth=1, kernel=3)).double()


def _batch(step: int) -> tuple[Tensor, Tensor]:
    """Eight pictures; the first ones have hardly any labels, so that means of means are wrong."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)
    label = (x[:, 0] > x[:, 1]).long()
    keep = torch.linspace(0.05, 1, 8)[:, None, None]
    return x, torch.where(torch.rand(label.shape, generator=generator) < keep, label, -1)


def _loss(answer: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    entropy = nn.functional.cross_entropy(answer, label, reduction="sum", ignore_index=-1)
    return entropy, (label >= 0).sum()


Found = dict[str, tuple[list[float], dict[str, Tensor]]]


def _everything(place: Place, folder: Path) -> Found:
    """Train in each layout; then in each from the checkpoint that the one before has saved."""
    torch.set_num_threads(1)
    found: Found = {}
    for name, layout in LAYOUTS.items():
        result = fit(_build, _batch, _loss, SETTINGS, layout, PLAN, out=folder / name)
        found[name] = (result.losses, result.state)
    half = f"step-{STEPS // 2:08d}"
    for before, name in zip([list(LAYOUTS)[-1], *LAYOUTS], LAYOUTS, strict=False):
        out = folder / f"{name} again"
        if place.rank == 0:
            shutil.copytree(folder / before / half, out / half)
        launch.everyones(None)
        result = fit(_build, _batch, _loss, SETTINGS, LAYOUTS[name], PLAN, out=out)
        assert result.resumed == STEPS // 2
        found[f"{name} after {before}"] = (result.losses, result.state)
    return found


def test_every_layout_takes_the_steps_of_one_process(tmp_path: Path) -> None:
    alone = fit(_build, _batch, _loss, SETTINGS)
    found = launch.start_local(2, _everything, tmp_path, timeout_s=60)
    assert len(found) == 2 * len(LAYOUTS) and alone.losses[-1] < alone.losses[0]
    for name, (losses, state) in found.items():
        assert losses == pytest.approx(alone.losses, abs=1e-12), name
        assert set(state) == set(alone.state), name
        for key, values in alone.state.items():
            assert (state[key] - values).abs().max() < 1e-10, (name, key)
    # What two processes have saved, one goes on from.
    for name in LAYOUTS:
        shutil.rmtree(tmp_path / name / f"step-{STEPS:08d}")
        again = fit(_build, _batch, _loss, SETTINGS, out=tmp_path / name)
        assert again.resumed == STEPS // 2, name
        assert again.losses == pytest.approx(alone.losses, abs=1e-12), name


def _refused(place: Place) -> list[str]:
    said = []
    for layout, batch in (
        (Layout("ddp", 2), 1),
        (Layout("pipeline", 2, microbatches=3), 8),
        (Layout("fsdp", 3), 8),
    ):
        try:
            fit(
                _build, lambda step, n=batch: tuple(v[:n] for v in _batch(step)),  # type: ignore[misc]
                _loss, SETTINGS, layout, PLAN,
            )  # fmt: skip
        except SettingsError as problem:
            said.append(str(problem))
    try:
        fit(_build, _batch, _loss, SETTINGS, Layout("tensor", 2))
    except SettingsError as problem:
        said.append(str(problem))
    launch.everyones(None)  # process 0 must not go before the other one has made its groups
    return said


def test_what_does_not_go_together() -> None:
    said = launch.start_local(2, _refused, timeout_s=60)
    assert said == [
        "--batch: 1 samples cannot be dealt to 2 copies of the model in 1 parts each; give a "
        "multiple of 2",
        "--batch: 8 samples cannot be dealt to 1 copies of the model in 3 equal parts each; give a "
        "multiple of 3",
        "--devices is 3, and 2 processes are running; give --devices 2, or start 3",
        "this model has no plan for --strategy; give --strategy ddp",
    ]
