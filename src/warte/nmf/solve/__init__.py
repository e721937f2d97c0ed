"""Solvers of matrix factorisation: plain functions of tensors, one file for each way.

Every solver minimises a divergence between a data matrix ``x`` (n, m) and the product of a
nonnegative ``w`` (n, k) and ``h`` (k, m), from a given start, and returns a `Solution`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Penalty:
    """Penalties added to the divergence; all zero by default.

    The loss becomes D(x, w h) + l1_w sum(w) + l2_w/2 sum(w^2) + l1_h sum(h) + l2_h/2 sum(h^2)
    + ortho_h/2 sum_{i != j} (h h^T)_ij + smooth_h/2 sum (h[:, j+1] - h[:, j])^2.
    """

    l1_w: float = 0.0  # weight of the sum of w
    l2_w: float = 0.0  # weight of half the sum of w squared
    l1_h: float = 0.0  # weight of the sum of h
    l2_h: float = 0.0  # weight of half the sum of h squared
    ortho_h: float = 0.0  # weight of the overlap of different rows of h
    smooth_h: float = 0.0  # weight of half the squared steps along the rows of h

    def any(self) -> bool:
        """Tell whether some penalty is at work."""
        return any(vars(self).values())


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    w: (n, k) or (b, n, k). h: (k, m) or (b, k, m). losses: the penalised divergence each time it
    was looked at, first at the start. n_iter: iterations made. converged: whether the relative
    change fell under the tolerance before the iterations ran out.
    """

    w: Tensor
    h: Tensor
    losses: list[float] = field(default_factory=list)
    n_iter: int = 0
    converged: bool = False


# Adds up a tensor over all processes that hold rows of x; with one process, the tensor itself.
Total = Callable[[Tensor], Tensor]
# Called after every iteration with its number, w and h; benchmarks time the losses with it.
Watch = Callable[[int, Tensor, Tensor], None]


def alone(part: Tensor) -> Tensor:
    """Return the part itself: the sum over the rows of the only process."""
    return part


def stacked(parts: list[Solution]) -> Solution:
    """Return restarts that were solved one by one as a batch; the losses of the best of them."""
    best = min(parts, key=lambda part: part.losses[-1])
    return Solution(
        torch.stack([part.w for part in parts]),
        torch.stack([part.h for part in parts]),
        best.losses,
        max(part.n_iter for part in parts),
        best.converged,
    )
