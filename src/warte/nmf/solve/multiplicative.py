"""Multiplicative updates: for every beta, with weights, penalties and sparse data.

A factor is multiplied by (negative part of the gradient / positive part) ** gamma. With the gamma
of `exponent` the loss never rises: each term of the loss is majorised by a power of the factor,
and gamma is one over the spread of these powers. Lee & Seung, NIPS 13 (2001); Févotte & Idier,
Neural Computation 23 (2011); Yang & Oja, IEEE Trans. Neural Networks 22 (2011).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from warte.nmf.check import compressed, is_sparse
from warte.nmf.divergence import beta_divergence, derivative_parts, floor_of, snapped
from warte.nmf.solve import Penalty, Solution, Total, Watch, alone

# Iterations between two looks at the loss.
LOOK = 10
# Entries of the model that sparse data let be built at a time.
BLOCK = 1 << 22

Factor = Literal["w", "h"]


def exponent(beta: float, penalty: Penalty, factor: Factor) -> float:
    """Return the largest power of the update ratio for which the loss provably never rises.

    Without penalties this is the gamma of Févotte & Idier: 1/(2 - beta) below 1, 1/(beta - 1)
    above 2, and 1 between. Squares (L2, overlap, smoothness) and the products of neighbours
    (smoothness) widen the spread of powers.
    """
    quadratic, coupled = penalty.l2_w, 0.0
    if factor == "h":
        quadratic = penalty.l2_h + penalty.ortho_h + penalty.smooth_h
        coupled = penalty.smooth_h
    top = max(beta, 2.0 if quadratic else 1.0)
    bottom = min(beta - 1.0, 0.0 if coupled else 1.0)
    return 1.0 / (top - bottom)


def penalty_parts(penalty: Penalty, p: Tensor, factor: Factor) -> tuple[Tensor, Tensor]:
    """Return the negative and the positive part of the penalty's gradient, shaped like p.

    p: w (..., n, k) or h (..., k, m).
    """
    l1, l2 = (penalty.l1_w, penalty.l2_w) if factor == "w" else (penalty.l1_h, penalty.l2_h)
    negative, positive = torch.zeros_like(p), torch.full_like(p, l1)
    if l2:
        positive.add_(p, alpha=l2)
    if factor == "h" and penalty.ortho_h:
        positive.add_(p.sum(dim=-2, keepdim=True) - p, alpha=penalty.ortho_h)
    if factor == "h" and penalty.smooth_h and p.shape[-1] > 1:
        negative[..., 1:] += penalty.smooth_h * p[..., :-1]
        negative[..., :-1] += penalty.smooth_h * p[..., 1:]
        neighbours = torch.full_like(p[..., :1, :], 2.0)
        neighbours[..., 0] = neighbours[..., -1] = 1.0
        positive += penalty.smooth_h * neighbours * p
    return negative, positive


def penalty_value(penalty: Penalty, w: Tensor, h: Tensor, total: Total = alone) -> Tensor:
    """Return the penalty on w (..., n, k) and h (..., k, m): a scalar, or one for each restart."""
    inner = (-2, -1)
    value = torch.zeros(w.shape[:-2], dtype=w.dtype, device=w.device)
    if penalty.l1_w or penalty.l2_w:
        local = penalty.l1_w * w.sum(inner) + penalty.l2_w / 2 * w.square().sum(inner)
        value = value + total(local)
    value = value + penalty.l1_h * h.sum(inner) + penalty.l2_h / 2 * h.square().sum(inner)
    if penalty.ortho_h:
        overlap = h.sum(dim=-2).square().sum(dim=-1) - h.square().sum(inner)
        value = value + penalty.ortho_h / 2 * overlap
    if penalty.smooth_h:
        value = value + penalty.smooth_h / 2 * h.diff(dim=-1).square().sum(inner)
    return value


def apply_ratio(p: Tensor, negative: Tensor, positive: Tensor, gamma: float) -> Tensor:
    """Return p * (negative / positive) ** gamma, finite also where both parts vanish."""
    ratio = negative / positive.clamp_min(floor_of(p.dtype))
    # A zero of p times an overflow would be NaN.
    ratio.clamp_max_(1.0 / floor_of(p.dtype))
    if gamma != 1.0:
        ratio.pow_(gamma)
    return ratio.mul_(p)


def rows_product(x: Tensor, h: Tensor) -> Tensor:
    """Return x h^T for x (n, m), dense or sparse, and h (k, m) or (b, k, m), as one product."""
    if h.ndim == 2:
        return x @ h.mT
    restarts, rank, columns = h.shape
    product = x @ h.reshape(restarts * rank, columns).mT
    return product.reshape(-1, restarts, rank).transpose(0, 1)


def columns_product(w: Tensor, x: Tensor) -> Tensor:
    """Return w^T x for dense x (n, m) and w (n, k) or (b, n, k), as one product."""
    if w.ndim == 2:
        return w.mT @ x  # nine times faster than the transpose of x^T w
    restarts, rows, rank = w.shape
    product = w.transpose(1, 2).reshape(restarts * rank, rows) @ x
    return product.reshape(restarts, rank, -1)


class Dense:
    """Dense data, with or without weights: the parts of the gradient, and the loss."""

    def __init__(self, x: Tensor, beta: float, weights: Tensor | None) -> None:
        self.x, self.beta, self.weights = x, beta, weights
        # With weights, x only ever occurs times them, except in the loss.
        self.weighted = x if weights is None else x * weights

    def _derivatives(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the two parts of dD/dy; no second one where it is 1 everywhere."""
        y = w @ h
        if self.beta == 2:
            return self.weighted, y if self.weights is None else y.mul_(self.weights)
        if self.beta == 1:
            y.clamp_min_(floor_of(y.dtype))
            return torch.div(self.weighted, y, out=y), self.weights
        return derivative_parts(self.x, y, self.beta, self.weights)

    def w_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative and positive part of dD/dw, each (..., n, k)."""
        if self.beta == 2 and self.weights is None:
            return rows_product(self.x, h), w @ (h @ h.mT)
        negative, positive = self._derivatives(w, h)
        first = rows_product(negative, h) if negative.ndim == 2 else negative @ h.mT
        if positive is None:
            return first, h.sum(dim=-1).unsqueeze(-2).expand_as(w)
        return first, rows_product(positive, h) if positive.ndim == 2 else positive @ h.mT

    def h_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative and positive part of dD/dh, each (..., k, m), over local rows."""
        if self.beta == 2 and self.weights is None:
            return columns_product(w, self.x), (w.mT @ w) @ h
        negative, positive = self._derivatives(w, h)
        first = columns_product(w, negative) if negative.ndim == 2 else w.mT @ negative
        if positive is None:
            return first, w.sum(dim=-2).unsqueeze(-1).expand_as(h)
        return first, columns_product(w, positive) if positive.ndim == 2 else w.mT @ positive

    def loss(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the divergence over local rows: a scalar, or one for each restart."""
        return beta_divergence(self.x, w @ h, self.beta, self.weights)


@dataclass
class Pattern:
    """Where a sparse matrix has entries, by rows and by columns, so that values can be swapped."""

    shape: tuple[int, int]
    starts: Tensor  # (n + 1,) first entry of each row
    columns: Tensor  # (entries,)
    starts_t: Tensor  # (m + 1,) first entry of each column
    rows_t: Tensor  # (entries,) rows, sorted by column
    order: Tensor  # (entries,) from sorted by row to sorted by column

    def by_rows(self, values: Tensor) -> Tensor:
        """Return the matrix with these values, in the fastest layout for products."""
        return _csr(self.starts, self.columns, values, self.shape)

    def by_columns(self, values: Tensor) -> Tensor:
        """Return the transpose of the matrix with these values."""
        return _csr(self.starts_t, self.rows_t, values[self.order], self.shape[::-1])


def _csr(starts: Tensor, places: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    matrix = torch.sparse_csr_tensor(starts, places, values, size=shape, check_invariants=False)
    return matrix if torch.backends.mkl.is_available() or values.is_cuda else matrix.to_sparse_coo()


def pattern_of(x: Tensor) -> Pattern:
    """Return the pattern of a coalesced sparse tensor (n, m) in coordinates."""
    compressed(x)  # says once, quietly, that the layout is in beta
    rows, columns = x.indices()
    order = torch.argsort(columns, stable=True)

    def starts(places: Tensor, count: int) -> Tensor:
        counts = torch.bincount(places, minlength=count)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    shape = (int(x.shape[0]), int(x.shape[1]))
    return Pattern(
        shape, starts(rows, shape[0]), columns, starts(columns, shape[1]), rows[order], order
    )


class Sparse:
    """Sparse data: the model is looked at only where there are entries, or in blocks of rows."""

    def __init__(self, x: Tensor, beta: float) -> None:
        x = x.coalesce() if x.layout == torch.sparse_coo else x.to_sparse_coo().coalesce()
        self.values, self.beta, self.pattern = x.values(), beta, pattern_of(x)
        self.floor = floor_of(x.dtype, beta)
        self.ones = self.pattern.by_rows(torch.ones_like(self.values))

    def model_at_entries(self, w: Tensor, h: Tensor) -> Tensor:
        """Return w h where x has entries, (entries,)."""
        mask = self.ones if self.ones.layout == torch.sparse_csr else self.ones.to_sparse_csr()
        return torch.sparse.sampled_addmm(mask, w, h, beta=0.0).values()

    def _negative_values(self, w: Tensor, h: Tensor) -> Tensor:
        if self.beta == 2:
            return self.values
        y = self.model_at_entries(w, h).clamp_min_(self.floor)
        return self.values / y if self.beta == 1 else self.values * y.pow_(self.beta - 2.0)

    def _blocks(self, w: Tensor, h: Tensor) -> Iterator[tuple[slice, Tensor]]:
        step = max(1, BLOCK // h.shape[-1])
        for first in range(0, w.shape[0], step):
            rows = slice(first, first + step)
            yield rows, (w[rows] @ h).clamp_min_(self.floor)

    def _w_one(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        negative = self.pattern.by_rows(self._negative_values(w, h)) @ h.mT
        if self.beta == 2:
            return negative, w @ (h @ h.mT)
        if self.beta == 1:
            return negative, h.sum(dim=-1).expand_as(w)
        positive = torch.empty_like(w)
        for rows, y in self._blocks(w, h):
            positive[rows] = y.pow_(self.beta - 1.0) @ h.mT
        return negative, positive

    def _h_one(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        negative = (self.pattern.by_columns(self._negative_values(w, h)) @ w).mT
        if self.beta == 2:
            return negative, (w.mT @ w) @ h
        if self.beta == 1:
            return negative, w.sum(dim=-2)[:, None].expand_as(h)
        positive = torch.zeros_like(h)
        for rows, y in self._blocks(w, h):
            positive += w[rows].mT @ y.pow_(self.beta - 1.0)
        return negative, positive

    def _loss_one(self, w: Tensor, h: Tensor) -> Tensor:
        at_entries = self.model_at_entries(w, h).double()
        values = self.values.double()
        if self.beta == 2:
            cross = (values.square() / 2 - values * at_entries).sum()
            everywhere = ((w.mT @ w).double() * (h @ h.mT).double()).sum() / 2
            return (cross + everywhere).clamp_min(0).to(w.dtype)
        at_entries = at_entries.clamp_min(self.floor)
        here = beta_divergence(values[None], at_entries[None], self.beta)
        if self.beta == 1:
            everywhere = (w.sum(dim=0).double() * h.sum(dim=1).double()).sum()
            return (here - at_entries.sum() + everywhere).to(w.dtype)
        # d(0, y) = y^beta / beta: everywhere, less where there are entries.
        everywhere = torch.zeros_like(here)
        for _, y in self._blocks(w, h):
            everywhere += y.pow_(self.beta).sum(dtype=torch.float64)
        everywhere -= at_entries.pow(self.beta).sum()
        return (here + everywhere / self.beta).to(w.dtype)

    def w_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative and positive part of dD/dw, each (..., n, k)."""
        if w.ndim == 2:
            return self._w_one(w, h)
        parts = [self._w_one(*pair) for pair in zip(w, h, strict=True)]
        return torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts])

    def h_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative and positive part of dD/dh, each (..., k, m), over local rows."""
        if w.ndim == 2:
            return self._h_one(w, h)
        parts = [self._h_one(*pair) for pair in zip(w, h, strict=True)]
        return torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts])

    def loss(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the divergence over local rows: a scalar, or one for each restart."""
        if w.ndim == 2:
            return self._loss_one(w, h)
        return torch.stack([self._loss_one(*pair) for pair in zip(w, h, strict=True)])


def problem(x: Tensor, beta: float, weights: Tensor | None = None) -> Dense | Sparse:
    """Return the gradients and the loss of x (n, m), dense or sparse, under a divergence.

    Raises:
        ValueError: a sparse x comes with weights.
    """
    if not is_sparse(x):
        return Dense(x, snapped(beta), weights)
    if weights is not None:
        raise ValueError("X is sparse; weights need a dense matrix: pass X.to_dense()")
    return Sparse(x, snapped(beta))


def factor_loss(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    beta: float,
    weights: Tensor | None = None,
    penalty: Penalty | None = None,
    total: Total = alone,
) -> Tensor:
    """Return the penalised divergence of x (n, m), dense or sparse, from w h.

    w: (n, k) or (b, n, k). h: (k, m) or (b, k, m). Returns a scalar, or (b,). A sparse x is not
    made dense.
    """
    beta = snapped(beta)
    data = problem(x, beta, weights)
    loss = total(data.loss(w, h))
    return loss if penalty is None else loss + penalty_value(penalty, w, h, total)


def iterate(
    step: Callable[[], None],
    loss: Callable[[], Tensor],
    *,
    tol: float,
    max_iter: int,
    watch: Callable[[int], None] | None = None,
) -> tuple[list[float], int, bool]:
    """Repeat a step until the loss settles: (losses every ten steps, steps made, settled).

    It has settled when it fell, over ten steps, by at most the share tol of its first value; with
    tol = 0 it never has. loss returns a scalar, or one for each restart (the least is listed).
    """
    first = before = loss()
    losses = [float(first.min())]
    for done in range(1, max_iter + 1):
        step()
        if watch is not None:
            watch(done)
        if done % LOOK and done < max_iter:
            continue
        now = loss()
        losses.append(float(now.min()))
        if done % LOOK == 0 and tol > 0 and bool((before - now <= tol * first).all()):
            return losses, done, True
        before = now
    return losses, max_iter, False


def _w_step(data: Dense | Sparse, w: Tensor, h: Tensor, penalty: Penalty) -> Tensor:
    negative, positive = data.w_parts(w, h)
    if penalty.l1_w or penalty.l2_w:
        positive = positive + penalty_parts(penalty, w, "w")[1]
    return apply_ratio(w, negative, positive, exponent(data.beta, penalty, "w"))


def _h_step(data: Dense | Sparse, w: Tensor, h: Tensor, penalty: Penalty, total: Total) -> Tensor:
    negative, positive = (total(part) for part in data.h_parts(w, h))
    if penalty.any():
        less, more = penalty_parts(penalty, h, "h")
        negative, positive = negative + less, positive + more
    return apply_ratio(h, negative, positive, exponent(data.beta, penalty, "h"))


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
    """Minimise the penalised beta-divergence of x from w h by multiplicative updates.

    The loss never rises (see the module's text). Zeros of a start stay zeros.

    Args:
        x: data (n, m), nonnegative, dense or sparse; positive where visible for beta <= 0.
        w: start (n, k), or (b, n, k) for b restarts at once; not written to.
        h: start (k, m), or (b, k, m).
        beta: 2 Frobenius, 1 Kullback-Leibler, 0 Itakura-Saito, or any real number.
        weights: (n, m) from 0, for dense x; 0 hides an entry.
        penalty: what is added to the divergence.
        tol: stop when the loss falls, over ten iterations, by less than this share of its first
            value (in every restart); 0 never stops.
        max_iter: the largest number of iterations, each of which updates w and then h.
        update_h: False solves for w alone.
        total: applied to every sum over rows.
        watch: called after every iteration.

    Returns:
        The factors, and the losses at the start and every ten iterations (of the best restart).

    Raises:
        ValueError: a sparse x comes with weights.
    """
    beta = snapped(beta)
    data = problem(x, beta, weights)

    def look() -> Tensor:
        return total(data.loss(w, h)) + penalty_value(penalty, w, h, total)

    w, h = w.clone(), h.clone()

    def step() -> None:
        nonlocal w, h
        w = _w_step(data, w, h, penalty)
        if update_h:
            h = _h_step(data, w, h, penalty, total)

    def report(done: int) -> None:
        if watch is not None:
            watch(done, w, h)

    losses, done, converged = iterate(step, look, tol=tol, max_iter=max_iter, watch=report)
    return Solution(w, h, losses, done, converged)
