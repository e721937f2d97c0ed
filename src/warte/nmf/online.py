"""Mini-batch factorisation: rows come in batches, and memory is bounded by one of them.

What earlier batches say about h is kept in two accumulated statistics, so that a batch is seen
and let go. For half the squared distance they are w^T x and w^T w (Mairal, Bach, Ponce & Sapiro,
"Online learning for matrix factorization and sparse coding", JMLR 11, 2010). For every other
beta-divergence, and with weights, they are the two coefficients of the auxiliary function whose
minimum is the multiplicative update (Lefèvre, Bach & Févotte, "Online algorithms for nonnegative
matrix factorization with the Itakura-Saito divergence", WASPAA 2011, there for beta = 0; here for
every beta). Older batches are forgotten little by little, for they were seen with an older h.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from warte.nmf.divergence import beta_divergence, derivative_parts, floor_of, snapped
from warte.nmf.solve import Penalty, Solution, Watch
from warte.nmf.solve.multiplicative import apply_ratio, exponent

FRESH = 50  # passes over w for rows that were never seen
WARM = 4  # passes over w for rows whose w is known from the round before
GROWTH = 60  # rounds after which the memory has grown by one whole round
BATCH_TOL = 1e-3  # the passes over w end when w moves by less than this, relative to its length
PENALTIES = ("l1_w", "l2_w", "l1_h", "l2_h")  # those that this way of solving knows


@dataclass(frozen=True)
class State:
    """What is known after some batches.

    h: (k, m). numerator: (k, m). denominator: (k, k) where `exact`, else (k, m). rows: how many
    rows the statistics stand for, the forgotten ones counted less. steps: batches seen. exact:
    whether the statistics are w^T x and w^T w (beta = 2 without weights).
    """

    h: Tensor
    numerator: Tensor
    denominator: Tensor
    beta: float
    exact: bool
    rows: float = 0.0
    steps: int = 0


def begin(h: Tensor, beta: float = 2.0, *, weighted: bool = False) -> State:
    """Return the state before the first batch.

    Args:
        h: start (k, m), nonnegative.
        beta: the divergence, any real number.
        weighted: whether batches will come with weights.
    """
    beta = snapped(beta)
    exact = beta == 2 and not weighted
    k = h.shape[0]
    denominator = h.new_zeros(k, k) if exact else torch.zeros_like(h)
    return State(h.clone(), torch.zeros_like(h), denominator, beta, exact)


def check_penalty(penalty: Penalty) -> None:
    """Refuse penalties that rows in batches cannot have.

    Raises:
        ValueError: another penalty than l1 and l2 is above zero.
    """
    for name, value in vars(penalty).items():
        if value and name not in PENALTIES:
            raise ValueError(
                f"{name} is {value:g}; online factorisation allows {', '.join(PENALTIES)}: "
                'set it to 0 or take solver="hals"'
            )


def _coordinate_pass(v: Tensor, gram: Tensor, product: Tensor, l1: float, l2: float) -> None:
    """Minimise 1/2 <v, gram v> - <product, v> + penalties over each row of v (k, p) in turn."""
    scales = torch.diagonal(gram) + l2
    still = scales <= torch.finfo(v.dtype).tiny
    steps = torch.where(still, 0.0, 1.0 / torch.where(still, 1.0, scales))
    for j in range(v.shape[0]):
        slope = torch.addmv(product[j], v.t(), gram[j], alpha=-1.0)
        slope.sub_(l1).sub_(v[j], alpha=l2)
        v[j].addcmul_(slope, steps[j]).clamp_min_(0.0)


def _share(x: Tensor, h: Tensor, weights: Tensor | None) -> Tensor:
    """Return the start of w for unseen rows: every row of w h has the visible sum of its row of x.

    All its entries are alike within a row, so nothing is ruled out.
    """
    tiny = torch.finfo(x.dtype).tiny
    if weights is None:
        level = x.clamp_min(0.0).sum(1) / h.sum().clamp_min(tiny)
    else:
        level = (weights * x).clamp_min(0.0).sum(1) / (weights @ h.sum(0)).clamp_min(tiny)
    return level.clamp_max(torch.finfo(x.dtype).max ** 0.25)[:, None].repeat(1, h.shape[0])


def _fit_w(
    x: Tensor,
    h: Tensor,
    w: Tensor | None,
    weights: Tensor | None,
    state: State,
    penalty: Penalty,
    passes: int,
) -> Tensor:
    """Return w (rows of x, k) that fits x for this h, from w or from nothing."""
    w = _share(x, h, weights) if w is None else w
    if state.exact:
        gram, product = h @ h.t(), h @ x.t()
        v = w.t().contiguous()
        for _ in range(passes):
            before = v.clone()
            _coordinate_pass(v, gram, product, penalty.l1_w, penalty.l2_w)
            if (v - before).norm() <= BATCH_TOL * v.norm():
                break
        return v.t().contiguous()
    gamma = exponent(state.beta, penalty, "w")
    for _ in range(passes):
        negative, positive = derivative_parts(x, w @ h, state.beta, weights)
        below = positive @ h.t() + penalty.l1_w + penalty.l2_w * w
        new = apply_ratio(w, negative @ h.t(), below, gamma)
        moved, w = (new - w).norm(), new
        if moved <= BATCH_TOL * w.norm():
            break
    return w


def _floor(dtype: torch.dtype, beta: float) -> float:
    """Return the least h whose power h^(1 - beta) is far from overflow in this dtype."""
    return float(torch.finfo(dtype).tiny) ** (0.4 / max(1.0, beta - 1.0))


def _gather(
    state: State, x: Tensor, w: Tensor, weights: Tensor | None, keep: float
) -> tuple[State, Tensor]:
    """Add a batch to the statistics; return them and the divergence of the batch before the step.

    Of the statistics of before a share `keep` stays.
    """
    h, beta = state.h, state.beta
    model = w @ h
    loss = beta_divergence(x, model, beta, weights)
    if state.exact:
        above, below = w.t() @ x, w.t() @ w
    else:
        negative, positive = derivative_parts(x, model, beta, weights)
        above, below = w.t() @ negative, w.t() @ positive
        # The auxiliary function at h has above h^(2 - beta) z^(beta - 1) / (1 - beta) for its
        # falling part and below h^(1 - beta) z^beta / beta for its rising part; where one of
        # them is replaced by its tangent, its power of h falls away.
        if beta <= 2:
            above = above * h.pow(2.0 - beta)
        if beta >= 1:
            below = below * h.clamp_min(_floor(h.dtype, beta)).pow(1.0 - beta)
    gathered = replace(
        state,
        numerator=state.numerator * keep + above,
        denominator=state.denominator * keep + below,
        rows=state.rows * keep + x.shape[0],
        steps=state.steps + 1,
    )
    return gathered, loss


def _move_h(state: State, penalty: Penalty, total_rows: int | None) -> Tensor:
    """Return the h that minimises the accumulated function, the penalties in their proportion."""
    share = 1.0 if total_rows is None else state.rows / total_rows
    l1, l2 = penalty.l1_h * share, penalty.l2_h * share
    if state.exact:
        h = state.h.clone()
        _coordinate_pass(h, state.denominator, state.numerator, l1, l2)
        return h
    h = state.h.clamp_min(_floor(state.h.dtype, state.beta))
    below = state.denominator
    if l1 or l2:
        extra = l1 + l2 * h
        below = below + (extra * h.pow(1.0 - state.beta) if state.beta >= 1 else extra)
    ratio = (state.numerator / below.clamp_min(floor_of(h.dtype))).clamp_max(1 / floor_of(h.dtype))
    whole = exponent(state.beta, Penalty(), "h")
    careful = exponent(state.beta, penalty, "h")
    new = ratio.pow(careful)
    if careful != whole:
        # ratio^whole is where h would go; the penalty allows a part of this way, on a log scale.
        new = new * h.pow(1.0 - careful / whole)
    # A component that no row has used yet says nothing about its h.
    unknown = (state.numerator <= 0) & (state.denominator <= 0)
    return torch.where(unknown, state.h, new)


@torch.no_grad()
def partial_step(
    state: State,
    x: Tensor,
    *,
    w: Tensor | None = None,
    weights: Tensor | None = None,
    penalty: Penalty | None = None,
    keep: float = 1.0,
    total_rows: int | None = None,
) -> tuple[State, Tensor, Tensor]:
    """Learn from one batch of rows.

    Args:
        state: what is known so far, from `begin` or an earlier call.
        x: the batch (rows, m), dense, nonnegative, of the dtype and on the device of state.h.
        w: where these rows stood when they were seen before (rows, k); None for new rows.
        weights: (rows, m), 0 hides an entry; only for a state begun with weighted=True.
        penalty: l1_w, l2_w, l1_h and l2_h are allowed.
        keep: share of the earlier statistics that stays, over 0 to 1.
        total_rows: rows of the whole data, against which l1_h and l2_h are weighed; None takes
            the rows seen, the forgotten ones counted less.

    Returns:
        (state, w, loss): the new state; w (rows, k) of these rows; the divergence of the batch
        (scalar) with this w and the h of before.

    Raises:
        ValueError: weights for a state without weights, a penalty that is not allowed, or another
            number of columns.
    """
    penalty = penalty or Penalty()
    check_penalty(penalty)
    if x.ndim != 2 or x.shape[1] != state.h.shape[1]:
        raise ValueError(
            f"the batch has shape {tuple(x.shape)}; {state.h.shape[1]} columns are needed, "
            "as in the batches before"
        )
    if weights is not None and state.exact:
        raise ValueError(
            "the batch has weights, the batches before had none: begin with weighted=True"
        )
    passes = FRESH if w is None else WARM
    w = _fit_w(x, state.h, w, weights, state, penalty, passes)
    state, loss = _gather(state, x, w, weights, keep)
    return replace(state, h=_move_h(state, penalty, total_rows)), w, loss


def follow(
    batches: Iterable[Tensor],
    h: Tensor,
    *,
    beta: float = 2.0,
    penalty: Penalty | None = None,
    keep: float = 1.0,
) -> tuple[State, list[float]]:
    """Learn h from a stream of batches, each seen once and kept nowhere.

    Args:
        batches: tensors (rows, m), dense and nonnegative; the number of rows may differ.
        h: start (k, m).
        beta: the divergence.
        penalty: as in `partial_step`.
        keep: share of the earlier statistics that stays with each batch; 1 forgets nothing.

    Returns:
        (state, losses): state.h is the result; losses holds for each batch its divergence by row,
        seen with the h before it.
    """
    state, losses = begin(h, beta), []
    for x in batches:
        state, _, loss = partial_step(state, x, penalty=penalty, keep=keep)
        losses.append(float(loss) / x.shape[0])
    return state, losses


class _Rows:
    """Random access to rows of a dense or sparse matrix; a sparse batch is made dense."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.sparse = x.layout != torch.strided
        if self.sparse:
            self.x = x.to_sparse_coo().coalesce()
            edges = torch.arange(x.shape[0] + 1, device=x.device)
            self.edges = torch.searchsorted(self.x.indices()[0].contiguous(), edges)

    def take(self, rows: Tensor) -> Tensor:
        """Return the rows with these numbers, dense (len(rows), m)."""
        if not self.sparse:
            return self.x[rows]
        places, values = self.x.indices(), self.x.values()
        dense = values.new_zeros(len(rows), self.x.shape[1])
        starts, ends = self.edges[rows], self.edges[rows + 1]
        row = torch.repeat_interleave(ends - starts)
        first = torch.cumsum(ends - starts, 0) - (ends - starts)
        entry = torch.arange(len(row), device=row.device) - first[row] + starts[row]
        dense[row, places[1, entry]] = values[entry]
        return dense


def _portions(n: int, size: int, generator: np.random.Generator | None) -> Iterator[Tensor]:
    """Yield the numbers of the rows of each batch: shuffled, or in order without a generator."""
    order = torch.arange(n) if generator is None else torch.from_numpy(generator.permutation(n))
    # Batches of nearly the same size: a small last one would count as much as the others.
    yield from torch.tensor_split(order, max(1, -(-n // size)))


def _penalty_of(penalty: Penalty, w: Tensor, h: Tensor) -> float:
    """Return the l1 and l2 terms of the loss."""
    parts = penalty.l1_w * w.sum() + penalty.l2_w / 2 * w.square().sum()
    parts = parts + penalty.l1_h * h.sum() + penalty.l2_h / 2 * h.square().sum()
    return float(parts)


def _last_look(
    rows: _Rows, w: Tensor, state: State, weights: Tensor | None, size: int, penalty: Penalty
) -> float:
    """Fit every row of w to the final h, in place; return the penalised divergence."""
    loss = 0.0
    for portion in _portions(w.shape[0], size, None):
        part = portion.to(w.device)
        x = rows.take(part)
        some = None if weights is None else weights[part]
        w[part] = _fit_w(x, state.h, w[part], some, state, penalty, FRESH)
        loss += float(beta_divergence(x, w[part] @ state.h, state.beta, some))
    return loss + _penalty_of(penalty, w, state.h)


def _divergence(
    rows: _Rows, w: Tensor, h: Tensor, beta: float, weights: Tensor | None, size: int
) -> float:
    """Return the divergence of the whole matrix, batch by batch."""
    loss = 0.0
    for portion in _portions(w.shape[0], size, None):
        part = portion.to(w.device)
        some = None if weights is None else weights[part]
        loss += float(beta_divergence(rows.take(part), w[part] @ h, beta, some))
    return loss


def _round(
    state: State,
    rows: _Rows,
    w: Tensor,
    weights: Tensor | None,
    portions: Iterable[Tensor],
    penalty: Penalty,
    keep: float,
) -> tuple[State, float]:
    """Learn from every batch once, w in place; return the divergences as they were met, summed."""
    met = 0.0
    for portion in portions:
        part = portion.to(w.device)
        state, w[part], loss = partial_step(
            state,
            rows.take(part),
            w=w[part],
            weights=None if weights is None else weights[part],
            penalty=penalty,
            keep=keep,
            total_rows=w.shape[0],
        )
        met += float(loss)
    return state, met


def _check_settings(penalty: Penalty, batch_size: int, forget: float | None) -> None:
    check_penalty(penalty)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; allowed are whole numbers from 1")
    if forget is not None and not 0 < forget <= 1:
        raise ValueError(f"forget is {forget:g}; allowed is over 0 to 1")


@torch.no_grad()
def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    beta: float = 2.0,
    weights: Tensor | None = None,
    penalty: Penalty | None = None,
    batch_size: int = 256,
    forget: float | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    watch: Watch | None = None,
    generator: np.random.Generator | None = None,
) -> Solution:
    """Factorise a matrix whose rows are visited in shuffled batches.

    Beside x, w and h, memory holds one batch and the statistics. x may be a tensor over a
    memory-mapped file.

    Args:
        x: data (n, m), dense or sparse; batches of a sparse x are made dense.
        w, h: start (n, k) and (k, m); not written to.
        beta: the divergence, any real number.
        weights: (n, m), 0 hides an entry; x holds 0 there. Not with a sparse x.
        penalty: l1_w, l2_w, l1_h and l2_h are allowed.
        batch_size: rows of a batch, from 1.
        forget: share of the earlier statistics that each batch of the first round drops, over 0
            to 1. Later rounds drop less and less, so that h comes to rest. None takes 0.2 where
            the statistics are exact (beta = 2 without weights), else 1: an auxiliary function
            made at an old h holds the new one back.
        tol: stop when the loss of a round is less than this below that of the round before, as a
            share of the loss at the start; 0 never stops.
        max_iter: rounds over all rows at most.
        update_h: False only fits w.
        watch: called after every round with its number, w and h.
        generator: shuffles the rows; seed 0 when None.

    Returns:
        losses: at the start, then as they were met during each round (h moves on within a round),
        and last that of the w and h returned. n_iter counts rounds.

    Raises:
        ValueError: batch_size, forget or a penalty is out of range.
    """
    penalty = penalty or Penalty()
    _check_settings(penalty, batch_size, forget)
    generator = generator or np.random.default_rng(0)
    n, rows, w = x.shape[0], _Rows(x), w.clone()
    state = begin(h, beta, weighted=weights is not None)
    memory = 1.0 / (forget or (0.2 if state.exact else 1.0))  # batches
    first = _divergence(rows, w, h, state.beta, weights, batch_size) + _penalty_of(penalty, w, h)
    losses, converged, done = [first], False, 0
    for done in range(1, max_iter + 1 if update_h else 1):
        keep = 1.0 - 1.0 / (memory + (done - 1) * n / (batch_size * GROWTH))
        portions = _portions(n, batch_size, generator)
        state, met = _round(state, rows, w, weights, portions, penalty, keep)
        losses.append(met + _penalty_of(penalty, w, state.h))
        if watch is not None:
            watch(done, w, state.h)
        if tol > 0 and done > 1 and losses[-2] - losses[-1] < tol * losses[0]:
            converged = True
            break
    losses.append(_last_look(rows, w, state, weights, batch_size, penalty))
    return Solution(w, state.h, losses, done, converged or not update_h)
