"""How the networks of land cover are laid out over processes: a list of steps to be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from warte.core.errors import SettingsError
from warte.core.train.parallel import Plan
from warte.earth.model import Block, Chain

if TYPE_CHECKING:
    from torch.distributed.tensor.parallel import ParallelStyle


def tensor(model: nn.Module) -> dict[str, ParallelStyle]:
    """Each process has some of the wide channels of every block; the narrow ones are added up."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        if isinstance(module, Block):
            plan[f"{name}.widen"] = ColwiseParallel()
            plan[f"{name}.narrow"] = RowwiseParallel()
    return plan


def shard(model: nn.Module) -> Sequence[nn.Module]:
    """Each piece's weights are gathered when it is its turn, and let go after it."""
    assert isinstance(model, Chain)
    return list(model.pieces.values())


def cut(model: nn.Module, stages: int) -> Sequence[nn.Module]:
    """Chains of pieces one behind the other, none of them empty.

    Raises:
        SettingsError: the network has fewer pieces than there are to be stages.
    """
    assert isinstance(model, Chain)
    pieces = list(model.pieces.items())
    if stages > len(pieces):
        raise SettingsError(
            f"--stages: a pipeline of {stages} stages needs as many pieces, and this network has "
            f"{len(pieces)}; take fewer, another --schedule or a larger --depth"
        )
    bounds = [len(pieces) * n // stages for n in range(stages + 1)]
    return [Chain(dict(pieces[a:b])) for a, b in pairwise(bounds)]


PLAN = Plan(tensor, shard, cut)
