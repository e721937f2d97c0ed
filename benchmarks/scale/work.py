"""One process of the benchmark: `torchrun -m benchmarks.scale.work TASK N FOLDER`, or mpiexec."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.scale.traffic import Traffic, expected
from warte.core.train import launch
from warte.core.train.launch import Place
from warte.core.train.loop import Fitted, LoopSettings, fit
from warte.core.train.parallel import Layout
from warte.earth.model import ModelSettings, build
from warte.earth.parallel import PLAN

STEPS = 20  # of the losses that are compared
HALF = 4  # steps before the checkpoint that is loaded elsewhere, and after it
TIMED = 6  # steps that are timed, after one that is not
SMALL = ModelSettings(bands=4, classes=3, width=8, depth=3, kernel=3)
LAPTOP = ModelSettings(bands=6, classes=3)
TIMEOUT_S = 300.0


def layouts(processes: int) -> dict[str, Layout]:
    """The layouts of so many processes, by name."""
    if processes == 1:
        return {"single": Layout()}
    found = {
        "DDP": Layout("ddp", processes),
        "FSDP2": Layout("fsdp", processes),
        "tensor": Layout("tensor", processes),
        "GPipe": Layout("pipeline", processes, schedule="gpipe"),
        "1F1B": Layout("pipeline", processes),
        "interleaved": Layout("pipeline", processes, schedule="interleaved"),
    }
    if processes == 4:
        found |= {
            "tensor x FSDP2": Layout("fsdp", processes, tensor=2),
            "1F1B x DDP": Layout("ddp", processes, stages=2),
            "1F1B x FSDP2": Layout("fsdp", processes, stages=2),
            "1F1B x tensor": Layout("pipeline", processes, tensor=2),
        }
    return found


@dataclass(frozen=True)
class Case:
    """A model with made-up pictures of a side, so many in a batch, in numbers of a type."""

    model: ModelSettings
    samples: int
    side: int
    dtype: torch.dtype

    def build(self) -> nn.Module:
        """Fresh weights."""
        return build(self.model).to(self.dtype)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Noise; its label is the sum of two signs; most pixels of the first samples have none."""
        generator = torch.Generator().manual_seed(step)
        shape = (self.samples, self.model.bands, self.side, self.side)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        label = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        keep = torch.linspace(0.05, 1, self.samples)[:, None, None]
        known = torch.rand(label.shape, generator=generator) < keep
        return x.to(self.dtype), torch.where(known, label, -1)

    @property
    def pixels(self) -> int:
        """Of the whole batch."""
        return self.samples * self.side**2


def loss(answer: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of the pixels that have a label, and their number."""
    entropy = nn.functional.cross_entropy(answer, label, reduction="sum", ignore_index=-1)
    return entropy, (label >= 0).sum()


CASES = {
    "float64": Case(SMALL, 16, 16, torch.float64),
    "float32": Case(SMALL, 16, 16, torch.float32),
}


def losses(place: Place, folder: Path) -> dict[str, Any]:
    """The losses of each layout in both types of numbers."""
    torch.set_num_threads(1)
    return {
        name: {
            kind: fit(case.build, case.batch, loss, LoopSettings(STEPS), layout, PLAN).losses
            for kind, case in CASES.items()
        }
        for name, layout in layouts(place.size).items()
    }


def steps(place: Place, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of a step of each layout, with the model for a laptop."""
    torch.set_num_threads(1)
    case = Case(LAPTOP, 16, 64, torch.float32)
    parameters = sum(values.numel() for values in case.build().parameters())
    found = {}
    for name, layout in layouts(place.size).items():
        wall: list[float] = []
        core: list[float] = []
        with _Laps(wall, core) as lap:
            fit(case.build, case.batch, loss, LoopSettings(1 + TIMED), layout, PLAN, watch=lap)
        traffic = _traffic(case, layout)
        everyone = launch.everyones if place.size > 1 else lambda value: [value]
        found[name] = {
            "wall": statistics.median(wall[1:]),
            "core": sum(everyone(statistics.median(core[1:]))),
            "sent": statistics.mean(everyone(traffic)),
            "expected": expected(layout, case.model, parameters, case.pixels, 4),
        }
    return found


class _Laps:
    """A watch of the loop that notes the seconds of each step, and of its cores."""

    def __init__(self, wall: list[float], core: list[float]) -> None:
        self.wall, self.core = wall, core

    def __enter__(self) -> Callable[..., None]:
        self.last = (time.perf_counter(), time.process_time())
        return self._lap

    def _lap(self, done: int, value: float, weights: object) -> None:
        now = (time.perf_counter(), time.process_time())
        self.wall.append(now[0] - self.last[0])
        self.core.append(now[1] - self.last[1])
        self.last = now

    def __exit__(self, *problem: object) -> None:
        pass


def _traffic(case: Case, layout: Layout) -> float:
    """Bytes that this process sends in the second step."""
    sent: list[float] = []
    counter = Traffic()

    def watch(done: int, value: float, weights: object) -> None:
        sent.append(counter.sent)

    with counter:
        fit(case.build, case.batch, loss, LoopSettings(2), layout, PLAN, watch=watch)
    return sent[1] - sent[0]


def save(place: Place, folder: Path) -> dict[str, Any]:
    """Train half the way in each layout, and save."""
    for name in layouts(place.size):
        _trained(name, place, folder / f"{place.size} {name}", stop=HALF)
    return {}


def load(place: Place, folder: Path) -> dict[str, Any]:
    """Train from each checkpoint of all layouts to the end, in each layout of this size."""
    found: dict[str, Any] = {}
    for origin in sorted(path.name for path in folder.iterdir() if path.is_dir()):
        for name in layouts(place.size):
            out = folder / origin
            result = _trained(name, place, out)
            assert result.resumed == HALF
            found[f"{origin} > {place.size} {name}"] = result.losses
    return found


def _trained(name: str, place: Place, out: Path, stop: int | None = None) -> Fitted:
    """Train in float64; stop, and save, after some steps, or go on from what is saved."""
    case, layout = CASES["float64"], layouts(place.size)[name]
    torch.set_num_threads(1)
    settings = LoopSettings(2 * HALF, checkpoint_every=HALF if stop else 0)
    return fit(
        case.build, case.batch, loss, settings, layout, PLAN, out=out,
        watch=lambda done, value, weights: done == stop,
    )  # fmt: skip


def network(place: Place, folder: Path) -> dict[str, Any]:
    """Seconds of an all-reduce of so many bytes, the median of several."""
    found = {}
    for count in (24, 3_000_000, 48_000_000):
        values, taken = torch.zeros(count // 4), []
        for _ in range(12):
            launch.everyones(None)
            began = time.perf_counter()
            launch.total(values)
            taken.append(time.perf_counter() - began)
        found[str(count)] = statistics.median(taken[2:])
    return found


TASKS: dict[str, Callable[[Place, Path], dict[str, Any]]] = {
    "losses": losses, "steps": steps, "network": network, "save": save, "load": load,
}  # fmt: skip


def main(task: str, processes: int, folder: Path) -> None:
    """Do a task in so many processes; process 0 writes what was found."""
    found = launch.run(processes, TASKS[task], folder, timeout_s=TIMEOUT_S)
    if found is not None:
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
