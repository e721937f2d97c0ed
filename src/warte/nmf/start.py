"""Where a factorisation starts: from the singular vectors of the data, or at random.

NNDSVD: Boutsidis & Gallopoulos, "SVD based initialization: A head start for nonnegative matrix
factorization", Pattern Recognition 41 (2008). Randomised SVD: Halko, Martinsson & Tropp, "Finding
structure with randomness", SIAM Review 53 (2011).
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from warte.nmf.check import compressed, is_sparse

Kind = Literal["nndsvd", "nndsvda", "nndsvdar", "random"]

# Columns drawn beyond the rank, and passes over the data, of the randomised SVD.
OVERSAMPLING = 10
POWER_PASSES = 4
# A smaller side up to this many times the columns drawn: the exact SVD is as cheap.
SMALL = 3


def default_kind(beta: float, *, negative: bool = False) -> Kind:
    """Return the kind of start where none is asked for; negative: data go below zero.

    The singular vectors are those of the Frobenius loss, and of data that are not noise.
    """
    return "nndsvdar" if beta == 2 and not negative else "random"


def _normal(generator: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Draw normal numbers with the dtype and on the device of a tensor."""
    numbers = torch.from_numpy(generator.standard_normal(shape))
    return numbers.to(device=like.device, dtype=like.dtype)


def mean_of(x: Tensor, weights: Tensor | None = None) -> float:
    """Return the mean of the visible entries, each below zero counted as zero.

    x: (n, m), dense or sparse. weights: (n, m); only entries above 0 are visible.
    """
    rows, columns = x.shape
    if is_sparse(x):
        return float(x.values().double().clamp_min(0).sum()) / (rows * columns)
    positive = x.clamp_min(0)
    if weights is None:
        return float(positive.sum(dtype=torch.float64)) / (rows * columns)
    visible = weights > 0
    return float(positive[visible].sum(dtype=torch.float64)) / max(1, int(visible.sum()))


def random_start(
    shape: tuple[int, int], k: int, mean: float, generator: np.random.Generator, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw w (n, k) and h (k, m) as sqrt(mean/k) |N(0, 1)|, so that w h is of the data's size.

    h is drawn before w, row by row: the rows of w do not depend on how many follow them.
    """
    scale = float(np.sqrt(mean / k))
    h = _normal(generator, (k, shape[1]), like).abs_().mul_(scale)
    w = _normal(generator, (shape[0], k), like).abs_().mul_(scale)
    return w, h


def leading_svd(x: Tensor, k: int, generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k leading singular vectors and values of x: (n, k), (k,), (k, m).

    Randomised subspace iteration; exact where the smaller side of x is small. x: (n, m), dense
    or sparse; a sparse one is not made dense, unless it is small.
    """
    rows, columns = x.shape
    width = min(k + OVERSAMPLING, rows, columns)
    if min(rows, columns) <= SMALL * width and rows * columns <= 1 << 22:
        dense = x.to_dense() if is_sparse(x) else x
        u, s, v = torch.linalg.svd(dense, full_matrices=False)
        return u[:, :k], s[:k], v[:k]
    if is_sparse(x):
        forward, backward = compressed(x), compressed(x.t().coalesce())
    else:
        forward, backward = x, x.t()
    basis = torch.linalg.qr(forward @ _normal(generator, (columns, width), x))[0]
    for _ in range(POWER_PASSES):
        across = torch.linalg.qr(backward @ basis)[0]
        basis = torch.linalg.qr(forward @ across)[0]
    u, s, v = torch.linalg.svd((backward @ basis).t(), full_matrices=False)
    return (basis @ u)[:, :k], s[:k], v[:k]


def nndsvd(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Turn singular vectors into nonnegative factors that hold zeros.

    For each pair the parts of one sign are kept: those whose product is larger.

    Args:
        u: (n, k). s: (k,), values from large to small. v: (k, m).

    Returns:
        w (n, k) and h (k, m). The first pair of a nonnegative matrix has one sign throughout.
    """
    best = torch.zeros_like(s)
    w, h = torch.zeros_like(u), torch.zeros_like(v)
    for sign in (1.0, -1.0):
        left, right = (sign * u).clamp_min_(0), (sign * v).clamp_min_(0)
        left_norm, right_norm = left.norm(dim=0), right.norm(dim=1)
        size = left_norm * right_norm
        better = size > best
        scale = (s * size).clamp_min(0).sqrt()
        tiny = torch.finfo(u.dtype).tiny
        w = torch.where(better, left * (scale / left_norm.clamp_min(tiny)), w)
        h = torch.where(better[:, None], right * (scale / right_norm.clamp_min(tiny))[:, None], h)
        best = torch.maximum(best, size)
    return w, h


def _filled(x: Tensor, weights: Tensor) -> Tensor:
    """Fill hidden entries with what the means of their row and column make of them."""
    visible = (weights > 0).to(x.dtype)
    total = float((x * visible).sum()) / float(visible.sum())
    rows = (x * visible).sum(dim=1) / visible.sum(dim=1).clamp_min(1)
    columns = (x * visible).sum(dim=0) / visible.sum(dim=0).clamp_min(1)
    guess = torch.outer(rows, columns) / total if total > 0 else torch.zeros_like(x)
    return torch.where(visible > 0, x, guess)


def start(
    x: Tensor,
    k: int,
    kind: Kind,
    generator: np.random.Generator,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a start w (n, k), h (k, m) for the solvers.

    Args:
        x: data (n, m), dense or sparse.
        k: rank, at most min(n, m) unless kind is "random".
        kind: "nndsvd" (holds zeros, which multiplicative updates never leave), "nndsvda" (zeros
            filled with the mean of x), "nndsvdar" (filled with small random values) or "random".
        generator: source of all randomness.
        weights: (n, m) or None; entries of weight 0 are filled from their row and column first.

    Returns:
        Nonnegative, finite factors with the dtype and device of x.

    Raises:
        ValueError: the kind is unknown.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"init is {kind!r}; allowed are {', '.join(get_args(Kind))}")
    rows, columns = x.shape
    mean = mean_of(x, weights)
    if kind == "random":
        return random_start((rows, columns), k, mean, generator, x)
    full = x if weights is None else _filled(x, weights)
    w, h = nndsvd(*leading_svd(full, k, generator))
    if kind == "nndsvda":
        return w.masked_fill(w == 0, mean), h.masked_fill(h == 0, mean)
    if kind == "nndsvdar":
        w = torch.where(w == 0, _normal(generator, (rows, k), x).abs_().mul_(mean / 100), w)
        h = torch.where(h == 0, _normal(generator, (k, columns), x).abs_().mul_(mean / 100), h)
    return w, h
