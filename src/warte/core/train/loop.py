"""One training loop for every layout of the model over processes.

The model is written for one device. All processes make it from the same seed and see the same
global batch, of which each takes its share; the gradient is that of the sum of the loss over the
global batch, divided by the sum of its weights (pixels with a label, say). So every layout takes
the same steps, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from warte.core.errors import SettingsError
from warte.core.train.parallel import Layout, Plan

Report = Callable[[str, int, int | None], None]  # (step, done, total or None)
Batches = Callable[[int], tuple[Tensor, ...]]  # from the step (from 0) to the whole global batch
Loss = Callable[..., tuple[Tensor, Tensor]]  # (answer, rest of the batch...) to sum and weight
# Called in all processes after each step with the number of steps done, the loss, and a function
# that gives the whole weights (on process 0, else nothing) if it is called in all processes.
# The training ends early where it returns True (in all processes).
Watch = Callable[[int, float, Callable[[], dict[str, Tensor]]], bool | None]

LOWEST_RATE = 0.01  # of the learning rate at its highest, at the end


@dataclass(frozen=True)
class LoopSettings:
    """How the loop runs."""

    steps: int = 1000  # updates of the weights (steps)
    learning_rate: float = 2e-3  # of AdamW at its highest; falls along half a cosine
    weight_decay: float = 1e-2  # of AdamW (dimensionless)
    warmup: int = 50  # steps until the learning rate is at its highest (steps)
    clip: float = 1.0  # longest gradient of all weights together (dimensionless)
    accumulate: int = 1  # parts of a process's share of the batch, one after the other (parts)
    checkpoint_every: int = 0  # steps between checkpoints; 0 for none (steps)
    seed: int = 0  # of the first weights

    def __post_init__(self) -> None:
        for flag, value, low in (
            ("--steps", self.steps, 1),
            ("--warmup", self.warmup, 0),
            ("--accumulate", self.accumulate, 1),
            ("--checkpoint-every", self.checkpoint_every, 0),
            ("--seed", self.seed, 0),
        ):
            if value < low:
                raise SettingsError(f"{flag} is {value}; allowed is {low} or more")
        for flag, number in (("--learning-rate", self.learning_rate), ("--clip", self.clip)):
            if not (number > 0 and math.isfinite(number)):
                raise SettingsError(f"{flag} is {number}; it must be over 0")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise SettingsError(f"--weight-decay is {self.weight_decay}; allowed is 0 or more")


@dataclass(frozen=True)
class Fitted:
    """What the training gave.

    losses: of each step, the mean over the global batch, before the step; the same in all
    processes. state: all weights by the names of the single-device model, on the CPU; empty in
    processes other than 0.
    """

    losses: list[float]
    state: dict[str, Tensor]


def rate_at(step: int, settings: LoopSettings) -> float:
    """The learning rate of a step (from 0): a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, min(settings.warmup, settings.steps // 4)))
    fall = 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
    return settings.learning_rate * rise * max(LOWEST_RATE, fall)


def fit(
    build: Callable[[], nn.Module],
    batches: Batches,
    loss: Loss,
    settings: LoopSettings,
    layout: Layout | None = None,
    plan: Plan | None = None,
    *,
    out: Path | None = None,
    device: torch.device | str = "cpu",
    report: Report | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train a model.

    Args:
        build: gives the model with fresh weights.
        batches: from the number of a step (from 0) to the whole global batch: the model's input,
            then what the loss needs, all with samples along their first axis. It is called in
            every process and gives the same in all.
        loss: from the model's answer and the rest of the batch to the sum over its samples and
            the weight to divide it by, both scalars; it is called on parts of the batch.
        layout: how the model lies over processes; None for one process.
        plan: how this model can be laid out; needed unless the strategy is "single" or "ddp".
        out: folder for checkpoints.
        device: where this process computes.
        report: called with ("steps", done, total).
        watch: see `Watch`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build().to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    losses: list[float] = []

    def state() -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        optimizer.zero_grad(set_to_none=True)
        total, weight = 0.0, 0.0
        batch = [part.to(device) for part in batches(step)]
        for x, *rest in zip(*(part.chunk(settings.accumulate) for part in batch), strict=True):
            part_sum, part_weight = loss(model(x), *rest)
            part_sum.backward()
            total, weight = total + float(part_sum), weight + float(part_weight)
        for parameter in model.parameters():
            if parameter.grad is not None and weight > 0:
                parameter.grad /= weight
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        losses.append(total / weight if weight > 0 else 0.0)
        if report is not None:
            report("steps", step + 1, settings.steps)
        if watch is not None and watch(step + 1, losses[-1], state):
            break
    return Fitted(losses, state())
