"""Beta-divergences: how far a nonnegative model y lies from the data x.

d_beta(x, y) = (x^beta + (beta - 1) y^beta - beta x y^(beta - 1)) / (beta (beta - 1)), with the
limits x log(x/y) - x + y (Kullback-Leibler, beta = 1) and x/y - log(x/y) - 1 (Itakura-Saito,
beta = 0); beta = 2 is half the squared distance. Févotte & Idier, "Algorithms for nonnegative
matrix factorization with the beta-divergence", Neural Computation 23 (2011).

The scalings are those of scikit-learn.
"""

import torch
from torch import Tensor

# A beta this close to 0, 1 or 2 is taken as that value: beside 0 and 1 the general formula
# divides the difference of nearly equal numbers by nearly nothing.
SNAP = 1e-4


def snapped(beta: float) -> float:
    """Return beta, or 0.0, 1.0 or 2.0 where it lies within `SNAP` of that."""
    nearest = float(round(beta))
    return nearest if nearest in (0.0, 1.0, 2.0) and abs(beta - nearest) < SNAP else float(beta)


def floor_of(dtype: torch.dtype, beta: float = 1.0) -> float:
    """Return the smallest model value that divides: its power stays finite in this dtype.

    The derivative of the divergence holds y^(beta - 2). The floor is chosen so that this power is
    at most tiny^(-1/2), about 1e19 in float32 and 1e154 in float64.
    """
    return float(torch.finfo(dtype).tiny) ** (0.5 / max(1.0, 2.0 - beta))


def _entries(x: Tensor, y: Tensor, beta: float) -> Tensor:
    """Return d_beta of every entry, shaped like y."""
    if beta == 2:
        return (y - x).square_().mul_(0.5)
    y = y.clamp_min(floor_of(y.dtype, beta))
    if beta == 1:
        # Where x is 0 the floored logarithm is finite, and the product 0; xlogy is far slower.
        ratio = (x / y).clamp_min(torch.finfo(y.dtype).tiny)
        return ratio.log().mul(x).sub_(x).add_(y)
    if beta <= 0:
        # Hidden entries are stored as zeros; their weight of zero removes them afterwards.
        x = x.clamp_min(floor_of(x.dtype, beta))
    if beta == 0:
        ratio = x / y
        return ratio.sub(ratio.log()).sub_(1.0)
    power = y.pow(beta - 1.0)
    total = x.pow(beta).add(power * y, alpha=beta - 1.0).sub(power * x, alpha=beta)
    # Rounding can leave a small negative number where x and y nearly agree.
    return total.div_(beta * (beta - 1.0)).clamp_min(0.0)


def beta_divergence(x: Tensor, y: Tensor, beta: float, weights: Tensor | None = None) -> Tensor:
    """Return the sum over all entries of weights * d_beta(x, y).

    Args:
        x: data (n, m), dense, nonnegative (any sign for beta = 2).
        y: model (n, m), or (b, n, m) for b models of the same data. Values under `floor_of` count
            as that floor where the divergence divides by them, so the result is finite.
        beta: 2 half the squared distance, 1 Kullback-Leibler, 0 Itakura-Saito, or any real number.
            For beta <= 0 only entries with x > 0 have a finite divergence.
        weights: (n, m), nonnegative; entries with weight 0 do not count. None counts all alike.

    Returns:
        A scalar tensor, or (b,) where y has a leading axis.
    """
    entries = _entries(x, y, snapped(beta))
    if weights is not None:
        entries = entries * weights
    return entries.sum(dim=(-2, -1))


def derivative_parts(
    x: Tensor, y: Tensor, beta: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split the derivative of the divergence by the model: dD/dy = positive - negative.

    Args:
        x: data (n, m), nonnegative.
        y: model (n, m) or (b, n, m), nonnegative.
        beta: as in `beta_divergence`.
        weights: (n, m), nonnegative, or None.

    Returns:
        (negative, positive), both shaped like y: weights * x * y^(beta - 2) and
        weights * y^(beta - 1). Both are finite: y is floored where it divides.
    """
    beta = snapped(beta)
    if beta == 2:
        negative, positive = x.expand_as(y), y
    else:
        y = y.clamp_min(floor_of(y.dtype, beta))
        if beta == 1:
            negative, positive = x / y, torch.ones_like(y)
        else:
            power = y.pow(beta - 2.0)
            negative, positive = x * power, power * y
    if weights is None:
        return negative, positive
    return negative * weights, positive * weights
