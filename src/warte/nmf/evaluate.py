"""How good a factorisation is."""

from __future__ import annotations

import torch
from torch import Tensor

from warte.nmf.check import is_sparse
from warte.nmf.divergence import beta_divergence
from warte.nmf.solve import Total, alone


def explained_share(
    x: Tensor, beta: float, loss: float, weights: Tensor | None = None, total: Total = alone
) -> float | None:
    """Share of the divergence from the mean that a model explains: 1 - loss / D(x, mean of x).

    The (weighted) mean is the best single value for every beta. Where entries can be negative the
    mean may be below zero; it is taken as it is.

    Args:
        x: (n, m), dense or sparse. weights: (n, m) or None.
        beta: the divergence.
        loss: divergence of x from the model, of the rows of all processes.
        total: sum over the processes that hold rows.

    Returns:
        At most 1; None where all visible entries are equal.
    """
    values = x.coalesce().values() if is_sparse(x) else x
    entries = float(x.shape[0] * x.shape[1])
    summed = (values if weights is None else values * weights).sum(dtype=torch.float64)
    size = torch.full_like(summed, entries) if weights is None else weights.double().sum()
    summed, size = total(torch.stack([summed, size]))
    mean = summed / size.clamp_min(torch.finfo(torch.float64).tiny)
    values = values.double().reshape(values.shape if values.ndim == 2 else (1, -1))
    even = beta_divergence(values, mean.expand(values.shape), beta, weights)
    if is_sparse(x) and entries > values.numel():
        zero = torch.zeros_like(mean).expand(1, 1)
        even = even + (entries - values.numel()) * beta_divergence(zero, mean.expand(1, 1), beta)
    spread = float(total(even))
    least = 1e-12 * float(size) * abs(float(mean)) ** beta
    return 1.0 - loss / spread if spread > least else None
