"""Which solver: what each can do, which one fits a problem, and its call.

The table is short enough to read; a wrong choice is refused with what to take instead.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warte.nmf import autograd, online
from warte.nmf.check import is_sparse
from warte.nmf.divergence import snapped
from warte.nmf.solve import (
    Penalty,
    Solution,
    Total,
    Watch,
    alone,
    hals,
    multiplicative,
    noisy,
    poisson,
    stacked,
    weighted,
)

LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
EVERY = ("l1_w", "l2_w", "l1_h", "l2_h", "ortho_h", "smooth_h")
SIMPLE = EVERY[:4]


@dataclass(frozen=True)
class Ability:
    """What a solver can do."""

    beta: float | None  # the only divergence it minimises; None for every one
    weights: bool  # whether it takes weights and masks
    sparse: bool  # whether it takes sparse data
    penalties: tuple[str, ...]  # the penalties it takes
    restarts: bool  # whether it takes several restarts as one batch
    negative: bool = False  # whether data may be negative


ABILITIES = {
    "hals": Ability(2.0, False, True, EVERY, True),
    "weighted": Ability(2.0, True, False, SIMPLE, True),
    "poisson": Ability(1.0, True, True, SIMPLE, False),
    "mu": Ability(None, True, True, EVERY, True),
    "autograd": Ability(None, True, False, EVERY, True),
    "online": Ability(None, True, True, SIMPLE, False),
    "shift": Ability(2.0, True, False, SIMPLE, True, negative=True),
    "nearly": Ability(2.0, True, False, SIMPLE, True, negative=True),
}


def beta_of(beta_loss: str | float) -> float:
    """Return the beta of a loss given by name or number.

    Raises:
        ValueError: the name is unknown, or the number is not finite.
    """
    if isinstance(beta_loss, str):
        if beta_loss not in LOSSES:
            raise ValueError(
                f"beta_loss is {beta_loss!r}; allowed are {', '.join(LOSSES)} or a real number"
            )
        return LOSSES[beta_loss]
    number = isinstance(beta_loss, int | float | np.number) and not isinstance(beta_loss, bool)
    if not number or not np.isfinite(beta_loss):
        raise ValueError(f"beta_loss is {beta_loss!r}; allowed are names and finite numbers")
    return snapped(float(beta_loss))


def active(penalty: Penalty) -> list[str]:
    """Return the names of the penalties that are at work."""
    return [name for name in EVERY if getattr(penalty, name)]


def _obstacle(
    solver: str, beta: float, weights: bool, sparse: bool, penalty: Penalty
) -> str | None:
    """Say why a solver cannot take a problem, or None."""
    can = ABILITIES[solver]
    if can.beta is not None and beta != can.beta:
        return f"beta_loss {can.beta:g} only, not {beta:g}"
    if weights and not can.weights:
        return "no weights or mask"
    if sparse and not can.sparse:
        return "no sparse X (X.toarray() makes it dense)"
    for name in active(penalty):
        if name not in can.penalties:
            return f"no {name} (it is {getattr(penalty, name):g})"
    return None


def choose(solver: str, beta: float, *, weights: bool, sparse: bool, penalty: Penalty) -> str:
    """Return the solver to use: the one asked for, or for "auto" the fastest that can.

    Raises:
        ValueError: the solver is unknown, or cannot take this problem; the message says what can.
    """
    if solver == "auto":
        order = ("hals", "weighted", "poisson", "mu")
        return next(s for s in order if _obstacle(s, beta, weights, sparse, penalty) is None)
    if solver not in ABILITIES:
        raise ValueError(f"solver is {solver!r}; allowed are auto, {', '.join(ABILITIES)}")
    obstacle = _obstacle(solver, beta, weights, sparse, penalty)
    if obstacle is None:
        return solver
    able = [s for s in ABILITIES if _obstacle(s, beta, weights, sparse, penalty) is None]
    raise ValueError(
        f'solver "{solver}" takes {obstacle}; take solver="auto" or one of: {", ".join(able)}'
    )


def run(
    solver: str,
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    beta: float,
    weights: Tensor | None,
    penalty: Penalty,
    tol: float,
    max_iter: int,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
    batch_size: int = 256,
    forget: float | None = None,
    generator: np.random.Generator | None = None,
) -> Solution:
    """Solve with a solver that `choose` returned.

    x: (n, m). w: (n, k) or (b, n, k). h: (k, m) or (b, k, m). total: sums over processes that share
    the rows, for all solvers but "online". Restarts are solved one after the
    other where the solver takes no batch, and come back as a batch. batch_size, forget and
    generator are for the solver "online".
    """
    common: dict[str, Any] = {"tol": tol, "max_iter": max_iter, "update_h": update_h}
    common["watch"] = watch
    if solver != "online":
        common["total"] = total
    if w.ndim == 3 and not ABILITIES[solver].restarts:
        common.update(beta=beta, weights=weights, penalty=penalty)
        common.update(batch_size=batch_size, forget=forget, generator=generator)
        parts = [run(solver, x, one, other, **common) for one, other in zip(w, h, strict=True)]
        return stacked(parts)
    if solver == "hals":
        return hals.solve(x, w, h, penalty=penalty, **common)
    if solver == "poisson":
        return poisson.solve(x, w, h, weights=weights, penalty=penalty, **common)
    if solver in ("mu", "autograd"):
        solve = multiplicative.solve if solver == "mu" else autograd.solve
        return solve(x, w, h, beta=beta, weights=weights, penalty=penalty, **common)
    if solver == "online":
        common.update(batch_size=batch_size, forget=forget, generator=generator)
        return online.solve(x, w, h, beta=beta, weights=weights, penalty=penalty, **common)
    full = torch.ones_like(x) if weights is None else weights
    if solver == "weighted":
        return weighted.solve(x, w, h, full, penalty=penalty, **common)
    return noisy.solve(x, w, h, full, method=solver, penalty=penalty, **common)


def loss_of(
    x: Tensor, w: Tensor, h: Tensor, beta: float, weights: Tensor | None, penalty: Penalty
) -> Tensor:
    """Return the penalised divergence: a scalar, or (b,) for restarts, looked at one by one."""
    if w.ndim == 2 or is_sparse(x):
        return multiplicative.factor_loss(x, w, h, beta, weights, penalty)
    each = [
        multiplicative.factor_loss(x, one, other, beta, weights, penalty)
        for one, other in zip(w, h, strict=True)
    ]
    return torch.stack(each)
