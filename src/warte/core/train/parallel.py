"""How a model is laid out over processes: data, sharded, tensor and pipeline parallelism.

The model is written for one device. What is done to it here comes from PyTorch: DDP (Li et al.
2020, arXiv 2006.15704), FSDP2 (Zhao et al. 2023, arXiv 2304.11277), tensor parallelism (Shoeybi et
al. 2019, arXiv 1909.08053), and pipelines in the order of GPipe (Huang et al. 2019, arXiv
1811.06965), 1F1B (Narayanan et al. 2019, SOSP) or interleaved 1F1B (Narayanan et al. 2021, arXiv
2104.04473).
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from warte.core.errors import SettingsError
from warte.core.train.layout import Layout as Layout  # callers find it here, too

if TYPE_CHECKING:  # they take seconds to import, and one process needs none of them
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.pipelining import PipelineStage
    from torch.distributed.tensor import DTensor

# They write tables about failures that are raised anyway, and about the speed of what is done once.
CHATTERING = ("torch.distributed.pipelining.schedules", "torch.distributed.tensor._redistribute")

Batch = tuple[Tensor, ...]
Loss = Callable[..., tuple[Tensor, Tensor]]  # (answer, rest of the batch...) to sum and weight


@dataclass(frozen=True)
class Plan:
    """What a domain says about its model, so that it can be laid out over processes.

    tensor: from names of layers to how they are split (`torch.distributed.tensor.parallel`); it
    is asked for the whole model, or for each part of a pipeline.
    shard: the parts of a model whose weights are gathered together when they are needed.
    cut: the model's parts for a pipeline of so many stages, with the model's own tensor names.
    """

    tensor: Callable[[nn.Module], Mapping[str, Any]]
    shard: Callable[[nn.Module], Sequence[nn.Module]]
    cut: Callable[[nn.Module, int], Sequence[nn.Module]]


@dataclass(frozen=True)
class Spread:
    """What a process holds of a model that is laid out.

    parts: parts of the model; their tensors have the names of the whole model. backward: from this
    process's share of a batch and the loss to the sum and the weight that the process has found
    (others may have found them, too: see `found_by`); it adds the gradient of the sum over all
    copies, divided by `copies`, to the parameters. shares: of a batch, as many as copies. share:
    the one of this process. found_by: how many processes give the same sum for one share. stages:
    the group of processes that hold the other layers of the same copy, None without a pipeline.
    """

    parts: list[nn.Module]
    backward: Callable[[Batch, Loss], tuple[float, float]]
    copies: int = 1
    share: int = 0
    found_by: int = 1
    stages: dist.ProcessGroup | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that this process holds, or has a part of, by their names."""
        return {name: value for part in self.parts for name, value in part.named_parameters()}

    def buffers(self) -> dict[str, Tensor]:
        """The buffers that this process holds, by their names."""
        return {name: value for part in self.parts for name, value in part.named_buffers()}

    def owners(self, parameter: nn.Parameter) -> int:
        """How many processes hold the same part of this parameter."""
        if not dist.is_initialized():
            return 1
        pipeline = 1 if self.stages is None else dist.get_world_size(self.stages)
        pieces = 1
        spread = distributed(parameter)
        if spread is not None:
            mesh = spread.device_mesh
            for dimension, placement in enumerate(spread.placements):
                # A strided shard, as of layers split by tensor and by FSDP, is no `is_shard()`.
                pieces *= 1 if placement.is_replicate() else mesh.size(dimension)
        return dist.get_world_size() // (pipeline * pieces)


def distributed(tensor: Tensor) -> DTensor | None:
    """The tensor itself, if processes hold parts of it."""
    module = sys.modules.get("torch.distributed.tensor")  # without it there are none
    if module is None or not isinstance(tensor, module.DTensor):
        return None
    found: DTensor = tensor
    return found


def lay_out(
    model: nn.Module, layout: Layout, plan: Plan | None, device: torch.device, accumulate: int
) -> Spread:
    """Lay a model, the same in all processes, out over them.

    Args:
        layout: which process holds what.
        plan: how this model can be cut; needed for all but "single" and "ddp" without stages.
        device: where this process computes.
        accumulate: parts of a share that go through the model one after the other; a pipeline has
            its microbatches instead.

    Raises:
        SettingsError: the layout has another number of processes than the run, or does not go
            with the model.
    """
    _check_group(layout)
    data, stages, tensor = layout.sizes
    if layout.devices == 1:
        return Spread([model], _one_by_one([model.to(device)], accumulate))

    from torch.distributed.device_mesh import init_device_mesh

    for name in CHATTERING:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    mesh = init_device_mesh(device.type, layout.sizes, mesh_dim_names=("data", "stages", "tensor"))
    parts = [model]
    if stages > 1:
        own = range(mesh.get_local_rank("stages"), stages * layout.chunks, stages)
        cut = _planned(plan).cut(model, stages * layout.chunks)
        parts = [cut[number] for number in own]
        for part in parts:
            part.register_forward_pre_hook(_even_inputs)
            part.register_forward_hook(_even_outputs)
    parts = [part.to(device) for part in parts]
    if tensor > 1:
        from torch.distributed.tensor.parallel import parallelize_module

        for part in parts:
            parallelize_module(part, mesh["tensor"], dict(_planned(plan).tensor(part)))
    active = parts
    if layout.strategy == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for part in parts:
            for unit in (*_planned(plan).shard(part), part):
                fully_shard(unit, mesh=mesh["data"])
    elif data > 1:
        active = [_copied(part, mesh["data"], device) for part in parts]
    share = mesh.get_local_rank("data")
    if stages == 1:
        backward = _one_by_one(active, accumulate, sharded=layout.strategy == "fsdp")
        return Spread(parts, backward, data, share, tensor)
    group = mesh.get_group("stages")
    backward = _piped(active, own, layout, device, group)
    return Spread(parts, backward, data, share, tensor, group)


def _check_group(layout: Layout) -> None:
    running = dist.get_world_size() if dist.is_initialized() else 1
    if layout.devices != running:
        raise SettingsError(
            f"--devices is {layout.devices}, and {running} processes are running; give --devices "
            f"{running}, or start {layout.devices}"
        )


def _planned(plan: Plan | None) -> Plan:
    if plan is None:
        raise SettingsError("this model has no plan for --strategy; give --strategy ddp")
    return plan


def _plainly(gradient: Tensor) -> Tensor:
    return gradient.clone(memory_format=torch.contiguous_format)


def _copied(part: nn.Module, mesh: DeviceMesh, device: torch.device) -> nn.Module:
    """DDP over the processes along `data`."""
    for parameter in part.parameters():
        if parameter.ndim > 2:
            # Convolutions give gradients in their own order in memory, of which DDP complains.
            parameter.register_hook(_plainly)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(
        part,
        device_ids=[device.index] if device.type == "cuda" else None,
        process_group=mesh.get_group(),
    )


class _Even(torch.autograd.Function):
    """The tensor itself; its gradient gets the plain order in memory that can be sent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def _even_inputs(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(_Even.apply(x) for x in inputs)  # type: ignore[no-untyped-call]


def _even_outputs(part: nn.Module, inputs: tuple[Tensor, ...], outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.contiguous()
    return tuple(x.contiguous() for x in outputs)


@contextmanager
def _views_allowed() -> Iterator[None]:
    """FSDP2 warns of answers that are views, as skip connections are; only writing to them is bad.

    Models that are written for one device and trained here do not write to their answers.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        yield


def _one_by_one(
    models: list[nn.Module], accumulate: int, *, sharded: bool = False
) -> Callable[[Batch, Loss], tuple[float, float]]:
    """Forward and backward of a whole model, for one part of the batch after the other."""
    (model,) = models

    def backward(batch: Batch, loss: Loss) -> tuple[float, float]:
        total, weight = 0.0, 0.0
        parts = list(zip(*(values.tensor_split(accumulate) for values in batch), strict=True))
        for number, (x, *rest) in enumerate(parts, 1):
            with _synchronised(model, number == len(parts), sharded), _views_allowed():
                part_sum, part_weight = loss(model(x), *rest)
                torch.autograd.backward(part_sum)
            total, weight = total + float(part_sum.detach()), weight + float(part_weight)
        return total, weight

    return backward


def _synchronised(model: nn.Module, last: bool, sharded: bool) -> AbstractContextManager[None]:
    """Gradients are added up over the copies only once, with the last part of the batch."""
    if sharded:
        cast("FSDPModule", model).set_requires_gradient_sync(last)
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def _piped(
    models: list[nn.Module],
    numbers: Sequence[int],
    layout: Layout,
    device: torch.device,
    group: dist.ProcessGroup,
) -> Callable[[Batch, Loss], tuple[float, float]]:
    """Forward and backward of this process's stages of a pipeline, microbatch after microbatch."""
    from torch.distributed.pipelining import PipelineStage

    count = layout.sizes[1] * layout.chunks
    stages = [
        PipelineStage(model, number, count, device, group=group)
        for model, number in zip(models, numbers, strict=True)
    ]
    rest: list[Tensor] = []
    found: list[tuple[Tensor, Tensor]] = []
    losses: list[Loss] = []

    def of_microbatch(answer: Tensor, rows: Tensor) -> Tensor:
        part = losses[0](answer, *(values[rows] for values in rest))
        found.append((part[0].detach(), part[1].detach()))
        return part[0]

    schedule = _schedule(stages, layout, of_microbatch)

    def backward(batch: Batch, loss: Loss) -> tuple[float, float]:
        rest[:], losses[:] = batch[1:], [loss]
        found.clear()
        # A schedule hands on one target per sample: here its place in the batch.
        rows = torch.arange(len(batch[0]), device=device) if stages[-1].is_last else None
        inputs = (batch[0],) if stages[0].is_first else ()
        with _views_allowed():
            schedule.step(*inputs, target=rows, return_outputs=False)
        # Before the first step it calls the loss once to learn the shapes.
        last = found[-layout.microbatches :]
        return sum(float(s) for s, _ in last), sum(float(w) for _, w in last)

    return backward


def _schedule(
    stages: list[PipelineStage], layout: Layout, loss: Callable[[Tensor, Tensor], Tensor]
) -> Any:
    from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

    number = layout.microbatches
    if layout.schedule == "interleaved":
        return ScheduleInterleaved1F1B(list(stages), number, loss_fn=loss, scale_grads=False)
    kind = ScheduleGPipe if layout.schedule == "gpipe" else Schedule1F1B
    return kind(stages[0], number, loss_fn=loss, scale_grads=False)
