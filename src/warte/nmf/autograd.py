"""Multiplicative updates from a forward pass alone, by automatic differentiation.

dD/dy splits into two nonnegative parts. Where the model y is built from each parameter by sums and
products of nonnegative numbers, backpropagating each part through it gives the two parts of the
gradient by that parameter, and their ratio is the multiplicative update: a convolutive, tied or
layered model needs a forward pass and no derivation. The approach is Chin-Yun Yu's, "Implementing
NMF in PyTorch Framework: An Autograd Approach" (talk; the package torchnmf).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from warte.nmf.divergence import beta_divergence, derivative_parts, snapped
from warte.nmf.solve import Penalty, Solution, Total, Watch, alone
from warte.nmf.solve.multiplicative import (
    apply_ratio,
    exponent,
    iterate,
    penalty_parts,
    penalty_value,
)

# Returns the (negative, positive) part of a penalty's gradient by one parameter.
PenaltyParts = Callable[[Tensor], tuple[Tensor, Tensor]]
Forward = Callable[[], Tensor]


def gradient_parts(
    forward: Forward, parameter: Tensor, x: Tensor, beta: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the negative and the positive part of the divergence's gradient by one parameter.

    Args:
        forward: returns the model y, shaped like x or (b, *x.shape); y must be a polynomial of the
            parameter with nonnegative coefficients.
        parameter: the tensor that forward reads; whether it requires a gradient does not matter.
        x: data, nonnegative.
        beta: the divergence.
        weights: shaped like x, from 0, or None.

    Raises:
        ValueError: the model does not depend on the parameter.
    """
    wanted = parameter.requires_grad
    parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            y = forward()
        if not y.requires_grad:
            raise ValueError("the model's output does not depend on the parameter to update")
        negative, positive = derivative_parts(x, y.detach(), beta, weights)
        (down,) = torch.autograd.grad(
            y, parameter, grad_outputs=negative.expand_as(y), retain_graph=True, allow_unused=True
        )
        if down is None:
            raise ValueError("the model's output does not depend on the parameter to update")
        (up,) = torch.autograd.grad(y, parameter, grad_outputs=positive)
    finally:
        parameter.requires_grad_(wanted)
    return down, up


@torch.no_grad()
def multiplicative_step(
    forward: Forward,
    parameters: Sequence[Tensor],
    x: Tensor,
    beta: float,
    *,
    weights: Tensor | None = None,
    penalties: Sequence[PenaltyParts | None] | None = None,
    gamma: float | Sequence[float] | None = None,
    totals: Sequence[Total] | None = None,
) -> None:
    """Update every parameter once, in place, one after the other.

    Args:
        forward: returns the model of x; runs once for each parameter, because the update of one
            changes the model that the next one sees.
        parameters: nonnegative leaf tensors, in the order in which they are updated.
        x: data, nonnegative; any shape.
        beta: the divergence.
        weights: shaped like x, from 0, or None.
        penalties: for each parameter a function that returns the two parts of its penalty's
            gradient, or None.
        gamma: power of the ratio, one for all or one for each; None takes what keeps the loss from
            rising where the model is linear in each parameter and there is no penalty. A parameter
            that enters d times in a product (a tied model) needs less: gamma / d is a good choice.
        totals: for each parameter what adds its gradient up over processes; None for one process.
    """
    beta = snapped(beta)
    count = len(parameters)
    default = exponent(beta, Penalty(), "w")
    powers = (
        [default if gamma is None else gamma] * count if not isinstance(gamma, Sequence) else gamma
    )
    for i, parameter in enumerate(parameters):
        negative, positive = gradient_parts(forward, parameter, x, beta, weights)
        if totals is not None:
            negative, positive = totals[i](negative), totals[i](positive)
        penalty = None if penalties is None else penalties[i]
        if penalty is not None:
            less, more = penalty(parameter.detach())
            negative, positive = negative + less, positive + more
        # Rounding in a transform (FFT convolution) can leave a part just below zero.
        negative, positive = negative.clamp_min(0), positive.clamp_min(0)
        parameter.copy_(apply_ratio(parameter.detach(), negative, positive, powers[i]))


@torch.no_grad()
def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    beta: float = 2.0,
    weights: Tensor | None = None,
    penalty: Penalty = Penalty(),  # noqa: B008 - frozen
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
) -> Solution:
    """Minimise the penalised divergence of a dense x from w h, with no derivative by hand.

    Arguments and result are those of `warte.nmf.solve.multiplicative.solve`, whose every step this
    repeats up to rounding; slower, and for dense x alone.
    """
    w, h = w.clone(), h.clone()

    def forward() -> Tensor:
        return w @ h

    def on_w(p: Tensor) -> tuple[Tensor, Tensor]:
        return penalty_parts(penalty, p, "w")

    def on_h(p: Tensor) -> tuple[Tensor, Tensor]:
        return penalty_parts(penalty, p, "h")

    def step() -> None:
        last = 2 if update_h else 1
        multiplicative_step(
            forward,
            [w, h][:last],
            x,
            beta,
            weights=weights,
            penalties=[on_w, on_h][:last],
            gamma=[exponent(snapped(beta), penalty, "w"), exponent(snapped(beta), penalty, "h")],
            totals=[alone, total],
        )

    def loss() -> Tensor:
        divergence = beta_divergence(x, w @ h, beta, weights)
        return total(divergence) + penalty_value(penalty, w, h, total)

    def report(done: int) -> None:
        if watch is not None:
            watch(done, w, h)

    losses, done, converged = iterate(step, loss, tol=tol, max_iter=max_iter, watch=report)
    return Solution(w, h, losses, done, converged)


def _trainable(module: nn.Module, mentioned: Sequence[str]) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name, checked against names mentioned."""
    named: dict[str, Tensor] = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("the module has no parameter that requires a gradient; nothing to train")
    for name, p in named.items():
        if not bool(torch.isfinite(p).all()) or bool((p < 0).any()):
            raise ValueError(
                f"parameter {name} holds negative or non-finite values; allowed are 0 and above: "
                "start from its absolute values"
            )
    for name in mentioned:
        if name not in named:
            raise ValueError(f"{name} is no trainable parameter; allowed are {', '.join(named)}")
    return named


def fit_module(
    module: nn.Module,
    x: Tensor,
    beta: float = 2.0,
    *,
    weights: Tensor | None = None,
    penalties: dict[str, PenaltyParts] | None = None,
    gamma: float | dict[str, float] | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    inputs: Sequence[Tensor] = (),
    watch: Callable[[int], None] | None = None,
) -> list[float]:
    """Train a module by multiplicative updates of its parameters, in place.

    Args:
        module: its forward pass returns a model of x, and is a polynomial with nonnegative
            coefficients of each parameter. Parameters that require no gradient stay as they are.
        x: data, shaped like the output; nonnegative.
        beta: the divergence.
        weights: shaped like x, from 0, or None.
        penalties: by parameter name, the function of `multiplicative_step`.
        gamma: power of the update ratio, one for all or by parameter name (others take the
            default); None as in `multiplicative_step`.
        tol: stop when the loss falls, over ten iterations, by less than this share of its first
            value; 0 never stops. Penalties do not count in this loss.
        max_iter: the largest number of iterations; each updates every parameter once, in the
            module's order.
        inputs: what the forward pass is called with.
        watch: called with the number of each iteration.

    Returns:
        The divergence at the start and every ten iterations.

    Raises:
        ValueError: a parameter holds negative or non-finite values, no parameter may be trained,
            or a name in penalties or gamma is not the module's.
    """
    powers = gamma if isinstance(gamma, dict) else {}
    named = _trainable(module, [*(penalties or {}), *powers])
    default = exponent(snapped(beta), Penalty(), "w")
    common = gamma if isinstance(gamma, int | float) else default

    def step() -> None:
        multiplicative_step(
            lambda: module(*inputs),
            list(named.values()),
            x,
            beta,
            weights=weights,
            penalties=[(penalties or {}).get(name) for name in named],
            gamma=[powers.get(name, common) for name in named],
        )

    @torch.no_grad()
    def loss() -> Tensor:
        y = module(*inputs)
        flat = (1, -1)
        weighted = None if weights is None else weights.reshape(flat)
        return beta_divergence(x.reshape(flat), y.reshape(flat), beta, weighted)

    return iterate(step, loss, tol=tol, max_iter=max_iter, watch=watch)[0]
