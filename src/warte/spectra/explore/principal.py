"""Components of data with weights and missing entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warte.spectra.spectrum import FloatArray


@dataclass(frozen=True)
class Principal:
    """Data drawn by few components: x is nearly mean + coefficients @ components.

    mean: (m,). components: (k, m). coefficients: (n, k).
    """

    mean: FloatArray
    components: FloatArray
    coefficients: FloatArray


def weighted_pca(
    x: npt.ArrayLike,
    weights: npt.ArrayLike,
    components: int,
    generator: np.random.Generator,
    *,
    tolerance: float = 1e-5,
    most_iterations: int = 200,
    device: str = "cpu",
) -> Principal:
    """Principal components of data with weights, missing entries included.

    Minimises sum_ij weights_ij (x_ij - mean_j - sum_k c_ik h_kj)^2 by turns: the coefficients of
    every row for given components, then mean and components of every column for given
    coefficients (Bailey 2012, PASP 124, 1015; he solves one component after the other, here all
    of a column are solved at once). Equal weights give the usual principal components.

    Args:
        x: (n, m); entries without weight may hold anything finite.
        weights: (n, m) from 0.
        components: k, from 1 to the smaller of n - 1 and m.
        generator: draws the start.
        tolerance: stop when a turn lowers the sum by less than this share of it.
        most_iterations: turns at most.
        device: where to compute.
    """
    data = torch.as_tensor(np.asarray(x, dtype=np.float64), device=device)
    w = torch.as_tensor(np.asarray(weights, dtype=np.float64), device=device)
    mean = (w * data).sum(0) / w.sum(0).clamp_min(1e-300)
    start = generator.standard_normal((components, data.shape[1]))
    h = torch.linalg.qr(torch.as_tensor(start, device=device).T)[0].T
    c = _weighted_solve(data - mean, w, h)
    last = float("inf")
    for _ in range(most_iterations):
        design = torch.cat([torch.ones_like(c[:, :1]), c], dim=1)
        columns = _weighted_solve(data.T, w.T, design.T)
        mean, h = columns[:, 0], torch.linalg.qr(columns[:, 1:])[0].T
        c = _weighted_solve(data - mean, w, h)
        misfit = float((w * (data - mean - c @ h) ** 2).sum())
        if last - misfit <= tolerance * misfit:
            break
        last = misfit
    # Turn to the main axes: coefficients without mean and correlation.
    mean = mean + c.mean(0) @ h
    left, size, right = torch.linalg.svd(c - c.mean(0), full_matrices=False)
    return Principal(*(part.cpu().numpy() for part in (mean, right @ h, left * size)))


def _weighted_solve(x: Tensor, w: Tensor, h: Tensor) -> Tensor:
    """Coefficients (n, k) of the rows of x (n, m) on h (k, m) by weighted least squares."""
    k = h.shape[0]
    pairs = (h[:, None, :] * h[None, :, :]).reshape(k * k, -1)
    normal = (w @ pairs.T).reshape(-1, k, k)
    # A trace of damping keeps rows solvable whose measured pixels cannot tell components apart.
    size = normal.diagonal(dim1=1, dim2=2).mean(1)
    damping = torch.where(size > 0, 1e-9 * size, 1.0)
    normal = normal + damping[:, None, None] * torch.eye(k, dtype=x.dtype, device=x.device)
    return torch.linalg.solve(normal, ((w * x) @ h.T)[..., None])[..., 0]
