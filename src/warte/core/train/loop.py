"""One training loop for every layout of the model over processes.

The model is written for one device. All processes make it from the same seed and see the same
global batch, of which each takes its share; the gradient is that of the sum of the loss over the
global batch, divided by the sum of its weights (pixels with a label, say). So every layout takes
the same steps, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from warte.core.errors import InputError, SettingsError
from warte.core.train import checkpoint
from warte.core.train.launch import total, waiting
from warte.core.train.layout import Layout
from warte.core.train.parallel import Batch, Loss, Plan, Spread, distributed, lay_out

Report = Callable[[str, int, int | None], None]  # (step, done, total or None)
Batches = Callable[[int], Batch]  # from the step (from 0) to the whole global batch
# Called in all processes after each step, before its checkpoint, with the number of steps done, the
# loss, and a function that gives the whole weights (on process 0, else nothing) if it is called in
# all processes. The training ends early where it returns True (in all processes).
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
    processes other than 0. resumed: steps that a checkpoint had done already.
    """

    losses: list[float]
    state: dict[str, Tensor]
    resumed: int = 0


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
    """Train a model; called in every process of the run (`warte.core.train.launch.run`).

    Args:
        build: gives the model with fresh weights, of one type of numbers.
        batches: from the number of a step (from 0) to the whole global batch: the model's input,
            then what the loss needs, all with samples along their first axis. It is called in
            every process and gives the same in all.
        loss: from the model's answer and the rest of the batch to the sum over its samples and
            the weight to divide it by, both scalars; it is called on parts of the batch.
        layout: how the model lies over processes; None for one process.
        plan: how this model can be cut; needed unless the strategy is "single" or "ddp".
        out: folder for checkpoints, on a disk that all processes see; the newest one in it, saved
            in whatever layout, is gone on from.
        device: where this process computes.
        report: called with ("steps", done, total).
        watch: see `Watch`.

    Raises:
        SettingsError: the layout does not go with the run, the model or the batch, or the loss has
            become infinite.
        InputError: the checkpoint is of another training.
        OutputError: a checkpoint cannot be written.
        LostError: another process has ended.
    """
    layout, device = layout or Layout(), torch.device(device)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build().train()
    with waiting():
        spread = lay_out(model, layout, plan, device, settings.accumulate)
        optimizer = _optimizer(spread.parameters().values(), settings)
        losses = _resumed(out, spread, optimizer, settings)
        first = len(losses)
        for step in range(first, settings.steps):
            batch = _share(batches(step), spread, layout, settings)
            batch = tuple(values.to(device) for values in batch)
            losses.append(_step(step, batch, loss, spread, optimizer, settings))
            if report is not None:
                report("steps", step + 1, settings.steps)
            # Before the checkpoint, so that a run that goes on from it has missed no watch.
            if watch is not None and watch(step + 1, losses[-1], lambda: whole_state(spread)):
                break
            if out is not None and _is_due(step + 1, settings):
                facts = {"losses": losses, "settings": asdict(settings)}
                checkpoint.save(out, step + 1, _tensors(spread, optimizer), facts)
        return Fitted(losses, whole_state(spread), first)


def _is_due(done: int, settings: LoopSettings) -> bool:
    """Whether a checkpoint is saved after so many steps."""
    every = settings.checkpoint_every
    return every > 0 and (done % every == 0 or done == settings.steps)


def _optimizer(parameters: Iterable[nn.Parameter], settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with a state that can be filled."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        # Whole and distributed tensors cannot be updated together; biases are not to be small.
        kind = (distributed(parameter) is not None, parameter.ndim > 1)
        groups.setdefault(kind, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": some, "weight_decay": settings.weight_decay if matrices else 0.0}
            for (_, matrices), some in groups.items()
        ],
        lr=settings.learning_rate,
    )
    for some in groups.values():
        for parameter in some:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter.detach()),
                "exp_avg_sq": torch.zeros_like(parameter.detach()),
            }
    return optimizer


def _share(batch: Batch, spread: Spread, layout: Layout, settings: LoopSettings) -> Batch:
    """The samples of this process: a part of the global batch, in its order."""
    count = len(batch[0])
    piped = layout.sizes[1] > 1
    parts = spread.copies * (layout.microbatches if piped else settings.accumulate)
    if count < parts or (piped and count % parts):
        raise SettingsError(
            f"--batch: {count} samples cannot be dealt to {spread.copies} copies of the model in "
            f"{parts // spread.copies} {'equal ' if piped else ''}parts each; give a multiple of "
            f"{parts}"
        )
    start = count * spread.share // spread.copies
    end = count * (spread.share + 1) // spread.copies
    return tuple(values[start:end] for values in batch)


def _step(
    step: int,
    batch: Batch,
    loss: Loss,
    spread: Spread,
    optimizer: torch.optim.AdamW,
    settings: LoopSettings,
) -> float:
    """One update of the weights; the loss of the global batch before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate_at(step, settings)
    optimizer.zero_grad(set_to_none=True)
    part_sum, part_weight = spread.backward(batch, loss)
    gradients = [
        (_local(parameter.grad), spread.owners(parameter))
        for parameter in spread.parameters().values()
        if parameter.grad is not None
    ]
    squares = sum(
        float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) ** 2 / owners
        for gradient, owners in gradients
    )
    sums = torch.tensor(
        [part_sum / spread.found_by, part_weight / spread.found_by, squares], dtype=torch.float64
    )
    all_sum, all_weight, square = (total(sums) if dist.is_initialized() else sums).tolist()
    if not math.isfinite(all_sum) or not math.isfinite(square):
        raise SettingsError(
            f"the loss is not finite at step {step + 1}; give a lower --learning-rate, or look for "
            "values without bounds in the data"
        )
    scale = spread.copies / all_weight if all_weight > 0 else 0.0
    length = scale * math.sqrt(square)
    for gradient, _ in gradients:
        gradient *= scale * min(1.0, settings.clip / max(length, settings.clip))
    optimizer.step()
    return float(all_sum / all_weight) if all_weight > 0 else 0.0


def _local(tensor: Tensor) -> Tensor:
    """The part of a distributed tensor that lies here, or the tensor itself."""
    spread = distributed(tensor)
    return tensor if spread is None else spread.to_local()


# what is kept -----------------------------------------------------------------------------------


def whole_state(spread: Spread) -> dict[str, Tensor]:
    """All weights of a model by its own names, on the CPU of process 0; nothing in the others.

    To be called in all processes.

    Raises:
        LostError: another process has ended.
    """
    own: dict[str, Tensor] = {}
    for name, value in {**spread.parameters(), **spread.buffers()}.items():
        value = value.detach()
        spread_out = distributed(value)
        whole = value if spread_out is None else spread_out.full_tensor()
        own[name] = whole.cpu().clone()
    rank = dist.get_rank() if dist.is_initialized() else 0
    if spread.stages is None:
        return own if rank == 0 else {}
    first = dist.get_global_rank(spread.stages, 0)
    found: list[dict[str, Tensor]] | None = None
    if rank == first:
        found = [{}] * dist.get_world_size(spread.stages)
    dist.gather_object(own, found, dst=first, group=spread.stages)
    if rank > 0 or found is None:
        return {}
    return {name: value for part in found for name, value in part.items()}


def _tensors(spread: Spread, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The weights and the optimiser's moments of this process, by names of the whole model."""
    tensors: dict[str, Tensor] = dict(spread.buffers())
    for name, parameter in spread.parameters().items():
        state = optimizer.state[parameter]
        tensors[name] = parameter.detach()
        tensors[f"{name} mean"] = state["exp_avg"]
        tensors[f"{name} square"] = state["exp_avg_sq"]
    return tensors


def _resumed(
    out: Path | None, spread: Spread, optimizer: torch.optim.AdamW, settings: LoopSettings
) -> list[float]:
    """Fill weights and moments from the newest checkpoint; the losses so far."""
    place = checkpoint.latest(out) if out is not None else None
    if place is None:
        return []
    facts = checkpoint.load(place, _tensors(spread, optimizer))
    changed = [
        name
        for name, value in asdict(settings).items()
        if name not in ("checkpoint_every", "accumulate") and facts["settings"][name] != value
    ]
    if changed:
        flag = "--" + changed[0].replace("_", "-")
        raise InputError(
            f"{place} was saved with {flag} {facts['settings'][changed[0]]}; give the same, or "
            "remove the checkpoint"
        )
    losses = [float(loss) for loss in facts["losses"]]
    for state in optimizer.state.values():
        state["step"].fill_(len(losses))
    return losses
