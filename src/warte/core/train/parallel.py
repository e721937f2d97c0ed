"""How a model is laid out over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from warte.core.errors import SettingsError

Strategy = Literal["single", "ddp", "fsdp", "tensor", "pipeline"]
Schedule = Literal["gpipe", "1f1b", "interleaved"]
STRATEGIES: tuple[Strategy, ...] = ("single", "ddp", "fsdp", "tensor", "pipeline")
SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "interleaved")


@dataclass(frozen=True)
class Layout:
    """Which process holds what of a model, and which samples it sees.

    The processes form a box of data x pipeline x tensor. With `tensor` or `pipeline` as strategy
    all of them share one copy of the model, unless --tensor or --stages say that fewer do; then
    the rest are copies, which see different samples ("fsdp" and "ddp" always are copies).
    """

    strategy: Strategy = "single"
    devices: int = 1  # processes, one on each device (processes)
    tensor: int = 1  # processes that share each layer (processes)
    stages: int = 1  # processes that a pipeline of layers goes through (processes)
    schedule: Schedule = "1f1b"  # order of a pipeline's forward and backward passes
    microbatches: int = 4  # pieces of each copy's share of the batch in a pipeline (pieces)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SettingsError(
                f"--strategy is {self.strategy}; allowed are {', '.join(STRATEGIES)}"
            )


@dataclass(frozen=True)
class Plan:
    """What a domain says about its model, so that it can be laid out over processes.

    tensor: from names of layers to how they are split (`torch.distributed.tensor.parallel`).
    shard: the parts of a model whose weights are gathered together when they are needed.
    cut: the model's parts for a pipeline of so many stages, with the model's own tensor names.
    """

    tensor: Callable[[nn.Module], Mapping[str, Any]]
    shard: Callable[[nn.Module], Sequence[nn.Module]]
    cut: Callable[[nn.Module, int], Sequence[nn.Module]]
