"""Bytes that a training step moves between processes: counted, and from a closed formula.

Both are bytes that processes send, on average of them, if collectives go round a ring: of a tensor
of S bytes on n processes an all-reduce sends 2 (n-1)/n S, an all-gather to S and a reduce-scatter
of S send (n-1)/n S (Thakur, Rabenseifner & Gropp 2005, Int. J. High Perf. Comp. Appl. 19).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from warte.core.train.parallel import Layout
from warte.earth.model import ModelSettings


class Traffic(TorchDispatchMode):
    """Counts the bytes that this process sends in the operations of torch.distributed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        space, name = func.namespace, func._opname
        if space in ("c10d", "_c10d_functional") and name in SHARES:
            leaves = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            share = SHARES[name](_size(args))
            self.sent += share * max(leaf.nbytes for leaf in leaves) if leaves else 0.0
            if name in ("all_gather_into_tensor",):  # its input is a part of what it gives
                self.sent += share * leaves[0].nbytes * (_size(args) - 1)
        return result


def _around(n: int) -> float:
    return (n - 1) / n


# What a process sends of the largest tensor of an operation, from the number of processes.
SHARES: dict[str, Callable[[int], float]] = {
    "allreduce_": lambda n: 2 * _around(n),
    "allreduce_coalesced_": lambda n: 2 * _around(n),
    "all_reduce": lambda n: 2 * _around(n),
    "_allgather_base_": _around,
    "allgather_into_tensor_coalesced_": _around,
    "all_gather_into_tensor": _around,
    "_reduce_scatter_base_": _around,
    "reduce_scatter_tensor_coalesced_": _around,
    "reduce_scatter_tensor": _around,
    "send": lambda n: 1.0,
}


def _size(args: tuple[Any, ...]) -> int:
    """The number of processes of an operation's group, from its object or its name."""
    for value in args:
        if isinstance(value, torch.ScriptObject):
            with_size = dist.ProcessGroup.unbox(value)
            return int(with_size.size())
        if isinstance(value, str) and value not in ("sum", "avg"):
            return int(dist.distributed_c10d._resolve_process_group(value).size())
    return 1


# the formula ------------------------------------------------------------------------------------


def expected(
    layout: Layout, model: ModelSettings, parameters: int, pixels: int, number_bytes: int
) -> float:
    """Bytes that a process sends in a step, on average.

    parameters: of the whole model. pixels: of the global batch. number_bytes: of one number.
    """
    data, stages, tensor = layout.sizes
    weights = parameters * number_bytes / stages
    sent = 0.0
    if layout.strategy == "fsdp":
        split = _split_weights(model) * number_bytes / stages
        own = weights - split + split / tensor
        # Gathered forward and backward; in a pipeline once, and for each microbatch that goes back.
        gathered = 2 if stages == 1 else 1 + layout.microbatches
        sent += (gathered + 1) * _around(data) * own  # and gradients scattered
    elif data > 1:
        sent += 2 * _around(data) * weights
    shown = pixels / data * model.width * number_bytes  # one picture at full resolution
    if tensor > 1:
        # Each block adds up its answer going forward, and the gradient of its input going back.
        blocks = sum(model.blocks / 2**level for level in _levels(model)) / stages
        sent += 2 * 2 * _around(tensor) * blocks * shown
    if stages > 1:
        cuts = _between(model, stages * layout.chunks)
        sent += 2 * sum(cuts) * shown / stages
    return sent


def _levels(model: ModelSettings) -> Iterable[int]:
    """The levels of all pieces that have blocks."""
    return [*range(model.depth), model.depth, *reversed(range(model.depth))]


def _split_weights(model: ModelSettings) -> int:
    """How many weights of all blocks are split by tensor parallelism."""
    return sum(
        model.blocks * (8 * (model.width << level) ** 2 + 4 * (model.width << level))
        for level in _levels(model)
    )


def _between(model: ModelSettings, stages: int) -> list[float]:
    """What goes over each cut, in pictures of full resolution and width: 2**-level at a level."""
    states = [1.0]  # after the stem
    skips: list[float] = []
    for level in range(model.depth):
        skips.append(2.0**-level)
        states.append(2.0 ** -(level + 1) + sum(skips))
    states.append(states[-1])  # after the bottom
    for level in reversed(range(model.depth)):
        skips.pop()
        states.append(2.0**-level + sum(skips))
    pieces = len(states) + 1  # and the head
    return [states[pieces * cut // stages - 1] for cut in range(1, stages)]
