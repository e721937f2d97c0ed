"""Kullback-Leibler divergence (Poisson counts) by guarded quasi-Newton steps.

With the other factor fixed, each row of w is a convex problem of its own with the Hessian
sum_j x_ij / y_ij^2 h_j h_j^T, y = w h. Its diagonal is computed; what lies beside it comes from one
k x k matrix for all rows, that of a model whose level is a product of a row's and a column's level,
scaled to each row's diagonal. The box-constrained quadratic problems of all rows are then solved
together by a few sweeps of coordinate descent, and h takes its turn in the same way. This needs
some ten times fewer iterations than multiplicative updates (Lee & Seung, NIPS 13, 2001), each of
which moves against a diagonal bound of the same Hessian.

What this misses is measured: the gradient at the new point tells the true curvature
along each row's step, which scales that row's next step, and whether the step went too far. A row
that did takes the multiplicative step instead, which never raises the loss. The gradient at the new
point is not thrown away, because w and h take theirs from the same pass over the data, in blocks of
rows that stay in the cache.

Newton steps for this problem: Hien & Gillis, "Algorithms for nonnegative matrix factorization with
the Kullback-Leibler divergence", J. Sci. Comput. 87 (2021). Shared curvature: the weights of
Fisher scoring, McCullagh & Nelder, "Generalized Linear Models" (1989), section 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from warte.nmf.check import is_sparse
from warte.nmf.solve import Penalty, Solution, Total, Watch, alone, stacked
from warte.nmf.solve.multiplicative import LOOK, pattern_of, penalty_value

# Entries of the model that are built at a time: 2 MiB in single precision, for the cache.
BLOCK = 1 << 19
# The same on a GPU, where only the memory counts.
BLOCK_GPU = 1 << 26
# No entry of a factor becomes smaller or larger in one step than these multiples of itself,
SHRINK, GROW = 0.05, 7.0
# except that this share of the mean of its row may be added, lest entries near zero stay there.
LIFT = 0.02
# Sweeps of coordinate descent over the k entries of a row.
SWEEPS = 2
# A step is kept when the slope at its end is under this share of the slope at its start. Then the
# loss has not risen: log(1 + u) >= u (FLAT + 1/(1 + u)) / (1 + FLAT) for u + 1 from 0 to GROW.
FLAT = 0.25
# Positive entries stay above this share of the mean of their factor: they could not grow from zero.
LOWEST = 1e-12
# Share of the mean level that is added to each row's and column's.
LEVEL = 1e-3
# Share of the largest diagonal entry that is added to the shared Hessian's.
RIDGE = 1e-6
# No entry's scale is under this share of the mean of its row.
FLATTEST = 1e-4
# Curvatures are computed anew after so many turns, or when so large a share of rows went too far.
AGE, ASTRAY = 5, 0.01
# Bounds of the measured curvature over the shared one.
SOFTEST, STIFFEST = 0.3, 1e6


@dataclass
class Products:
    """Products of r = weights x / y, y = w h, with the factors, and the same for the curvatures.

    w: (n, k) r h^T. h: (k, m) w^T r, over the rows here. curve_w: (n, k) (r / y) (h^2)^T, the
    diagonal of each row's Hessian. curve_h: (k, m) (w^2)^T (r / y). In `want`, these are w (always
    there), h, W and H.
    """

    w: Tensor
    h: Tensor
    curve_w: Tensor
    curve_h: Tensor

    @classmethod
    def zeros(cls, w: Tensor, h: Tensor) -> Products:
        """Return zeros for factors w (n, k) and h (k, m)."""
        return cls(*(torch.zeros_like(part) for part in (w, h, w, h)))


class Dense:
    """Dense data (n, m): the ratio of data and model times either factor, and the loss."""

    def __init__(self, x: Tensor, weights: Tensor | None, floor: float) -> None:
        # Where there are weights, the gradient holds x only times them.
        self.x, self.weights, self.floor = x.contiguous(), weights, floor
        self.counts = self.x if weights is None else self.x * weights
        rows = (BLOCK_GPU if x.is_cuda else BLOCK) // max(1, x.shape[1])
        self.step = min(max(16, rows), max(1, x.shape[0]))
        self.buffers = x.new_empty(2, self.step, x.shape[1])

    def products(self, w: Tensor, h: Tensor, want: str) -> Products:
        """Return what `Products` says; want names the parts, others are zero."""
        found = Products.zeros(w, h)
        w2, h2 = w.square(), h.square()
        for first in range(0, len(w), self.step):
            rows = slice(first, first + self.step)
            model = self._model(w[rows], h)
            ratio = self.buffers[1, : len(model)]
            torch.div(self.counts[rows], model, out=ratio)
            torch.mm(ratio, h.mT, out=found.w[rows])
            if "h" in want:
                found.h.addmm_(w[rows].mT, ratio)
            if "W" in want or "H" in want:
                torch.div(ratio, model, out=model)
            if "W" in want:
                torch.mm(model, h2.mT, out=found.curve_w[rows])
            if "H" in want:
                found.curve_h.addmm_(w2[rows].mT, model)
        return found

    def _model(self, part: Tensor, h: Tensor) -> Tensor:
        return torch.mm(part, h, out=self.buffers[0, : len(part)]).clamp_(min=self.floor)

    def positive_w(self, h: Tensor) -> Tensor:
        """Return the derivative of the sum of the model by w: (1, k), with weights (n, k)."""
        return h.sum(dim=1)[None] if self.weights is None else self.weights @ h.mT

    def positive_h(self, w: Tensor) -> Tensor:
        """Return the derivative of the sum of the model by h: (k, 1), with weights (k, m)."""
        return w.sum(dim=0)[:, None] if self.weights is None else w.mT @ self.weights

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return the sums of the data over columns (n,) and over rows (m,)."""
        return self.counts.sum(dim=1), self.counts.sum(dim=0)

    def loss(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the divergence over the rows here, in double precision."""
        total = ((w * self.positive_w(h)).sum(dtype=torch.float64)) - self.counts.sum(
            dtype=torch.float64
        )
        tiny = torch.finfo(w.dtype).tiny
        for first in range(0, len(w), self.step):
            ratio = self._model(w[first : first + self.step], h)
            torch.div(self.x[first : first + self.step], ratio, out=ratio)
            ratio.clamp_(min=tiny).log_()
            counts = self.counts[first : first + self.step]
            total += torch.dot(ratio.view(-1), counts.view(-1))
        return total

    def rows(self, chosen: Tensor) -> Dense:
        """Return the data of some rows, given by number."""
        weights = None if self.weights is None else self.weights[chosen]
        return Dense(self.x[chosen], weights, self.floor)

    def columns(self, chosen: Tensor) -> Dense:
        """Return the data of some columns, given by number."""
        weights = None if self.weights is None else self.weights[:, chosen]
        return Dense(self.x[:, chosen], weights, self.floor)


class Sparse:
    """Sparse data (n, m): as `Dense`, but only the entries of x are visited."""

    def __init__(self, x: Tensor, floor: float) -> None:
        self.x = x.to_sparse_coo().coalesce()
        self.values, self.floor = self.x.values(), floor
        self.pattern = pattern_of(self.x)
        ones = self.pattern.by_rows(torch.ones_like(self.values))
        self.ones = ones if ones.layout == torch.sparse_csr else ones.to_sparse_csr()

    def products(self, w: Tensor, h: Tensor, want: str) -> Products:
        """Return what `Products` says; want names the parts, others are zero."""
        found = Products.zeros(w, h)
        model = self._model(w, h)
        ratio = self.values / model
        found.w = self.pattern.by_rows(ratio) @ h.mT
        if "h" in want:
            found.h = (self.pattern.by_columns(ratio) @ w).mT
        if "W" in want:
            found.curve_w = self.pattern.by_rows(ratio / model) @ h.square().mT
        if "H" in want:
            found.curve_h = (self.pattern.by_columns(ratio / model) @ w.square()).mT
        return found

    def _model(self, w: Tensor, h: Tensor) -> Tensor:
        model = torch.sparse.sampled_addmm(self.ones, w, h, beta=0.0).values()
        return model.clamp_(min=self.floor)

    def positive_w(self, h: Tensor) -> Tensor:
        """Return the derivative of the sum of the model by w: (1, k)."""
        return h.sum(dim=1)[None]

    def positive_h(self, w: Tensor) -> Tensor:
        """Return the derivative of the sum of the model by h: (k, 1)."""
        return w.sum(dim=0)[:, None]

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return the sums of the data over columns (n,) and over rows (m,)."""
        rows, columns = self.x.indices()
        over_columns = self.values.new_zeros(self.x.shape[0]).index_add_(0, rows, self.values)
        over_rows = self.values.new_zeros(self.x.shape[1]).index_add_(0, columns, self.values)
        return over_columns, over_rows

    def loss(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the divergence over the rows here, in double precision."""
        at_entries = torch.xlogy(self.values, self.values / self._model(w, h))
        total = (w.sum(dim=0).double() * h.sum(dim=1).double()).sum()
        return total + at_entries.sum(dtype=torch.float64) - self.values.sum(dtype=torch.float64)

    def rows(self, chosen: Tensor) -> Sparse:
        """Return the data of some rows, given by number."""
        return Sparse(self.x.index_select(0, chosen), self.floor)

    def columns(self, chosen: Tensor) -> Sparse:
        """Return the data of some columns, given by number."""
        return Sparse(self.x.index_select(1, chosen), self.floor)


@dataclass
class Side:
    """One factor of the two with what its steps need; rows are those of w, or columns of h.

    p: (k, rows) the factor, transposed for w. ratio, curve: (k, rows) see `Products`. positive:
    (k, rows) or (k, 1). sums: (rows,) of x. stiff: (rows,) curvature measured over that expected.
    l1, l2: the penalties. lift: see `LIFT`.
    """

    p: Tensor
    ratio: Tensor
    curve: Tensor
    positive: Tensor
    sums: Tensor
    stiff: Tensor
    l1: float
    l2: float
    lift: float = LIFT

    def slope(self) -> Tensor:
        """Return the gradient of the loss, (k, rows)."""
        return self.positive - self.ratio + self.l1 + self.l2 * self.p

    def after(self, step: Tensor) -> Tensor:
        """Return the factor after a step, zero only where it was, or where the data are."""
        above = self.p.sign() * self.sums.sign() * (LOWEST * self.p.mean())
        return torch.maximum(self.p + step, above)


def shared_hessian(other: Tensor, level: Tensor, total: Total = alone) -> Tensor:
    """Return sum_j o_j o_j^T / level_j (k, k) of the other factor's columns o_j, (k, columns)."""
    gram = total((other / level) @ other.mT)
    ridge = RIDGE * gram.diagonal().max() + torch.finfo(gram.dtype).tiny
    return gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def newton_step(side: Side, gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step (k, rows) and the curvature that was taken along it (rows,).

    Each row minimises slope . d + d^T (stiff S gram S + l2) d / 2 over
    -(1 - SHRINK) p <= d <= (GROW - 1) p + lift, nearly, by coordinate descent from zero; S is
    diagonal and makes the Hessian's diagonal `side.curve`. Rows without data go to zero at once.
    """
    tiny = torch.finfo(gram.dtype).tiny ** 0.5
    scale = (side.curve / gram.diagonal()[:, None]).sqrt_()
    scale = scale.clamp_(min=FLATTEST * scale.mean(dim=0) + tiny)
    # From here on in the unit of 1 / scale.
    slope, l2 = side.slope() / scale, side.l2 / scale.square()
    least = (SHRINK - 1.0) * side.p * scale
    most = ((GROW - 1.0) * side.p + side.lift * side.p.mean(dim=0)) * scale
    curved = side.stiff * gram.diagonal()[:, None] + l2
    # Each entry's best value is free - share * (pull of the others); few operations, for they are
    # as many as entries, and of short vectors.
    free, share = -slope / curved, side.stiff / curved
    others = gram - gram.diagonal().diag()
    step = torch.zeros_like(slope)
    lists = zip(others, free, share, least, most, step, strict=True)
    for pulls, *row, low, high, here in list(lists) * SWEEPS:
        best = torch.addcmul(row[0], row[1], torch.mv(step.mT, pulls), value=-1.0)
        torch.clamp(best, low, high, out=here)
    step = torch.where(side.sums > 0, step, -side.p * scale)
    taken = (step * (side.stiff * (gram @ step) + l2 * step)).sum(dim=0)
    return step / scale, taken


def safe_step(side: Side) -> Tensor:
    """Return the minimiser of the separable bound of the loss, (k, rows): it never rises.

    Without l2 it is the multiplicative update.
    """
    tiny = torch.finfo(side.p.dtype).tiny
    linear = side.positive + side.l1
    pull = side.p * side.ratio
    if side.l2:
        root = (linear.square() + 4.0 * side.l2 * pull).sqrt_()
        return 2.0 * pull / (linear + root).clamp_min(tiny)
    return pull / linear.clamp_min(tiny)


def judge(side: Side, moved: Side, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows went too far, and the curvature measured, over the shared one: (rows,)."""
    step = moved.p - side.p
    before = -(side.slope() * step).sum(dim=0)
    after = (moved.slope() * step).sum(dim=0)
    noise = torch.finfo(step.dtype).eps * (step.abs() * (side.ratio + moved.ratio)).sum(dim=0)
    wrong = ~(after <= FLAT * before + noise)
    known = (taken > noise) & (before > noise)
    measured = (before + after) / taken.clamp_min(torch.finfo(step.dtype).tiny)
    stiff = torch.where(known, side.stiff * measured, side.stiff)
    return wrong, stiff.clamp_(SOFTEST, STIFFEST)


@dataclass(frozen=True)
class Levels:
    """What the data are like, once and for all: sums of rows (n,) and columns (m,), and the same
    kept from zero, by which the shared matrices are weighed."""

    rows: Tensor
    columns: Tensor
    rows_above: Tensor
    columns_above: Tensor


def levels_of(data: Dense | Sparse, total: Total) -> Levels:
    """Return the levels of the data; sums of columns go over all processes."""
    rows, columns = data.sums()
    columns = total(columns)
    count = total(rows.new_tensor(float(len(rows))))
    everything, tiny = columns.sum(), torch.finfo(rows.dtype).tiny ** 0.5
    rows_above = rows + LEVEL * everything / count + tiny
    columns_above = columns + LEVEL * everything / len(columns) + tiny
    return Levels(rows, columns, rows_above, columns_above)


@dataclass
class Curvature:
    """The diagonals of one side's Hessians, computed some turns ago.

    values: (n, k) for w, (k, m) for h, over all processes. stiff: (rows,) see `Side`. due: whether
    to compute them anew, once the other side has moved. age: turns since they were computed.
    """

    values: Tensor
    stiff: Tensor
    due: bool = True
    age: int = 0

    def used(self, stiff: Tensor, astray: float) -> None:
        """Note what a turn measured, and which share of its rows went too far."""
        self.stiff, self.age = stiff, self.age + 1
        self.due = self.age >= AGE or astray > ASTRAY

    def renew(self, values: Tensor) -> None:
        """Take new diagonals."""
        self.values, self.age, self.due = values, 0, False


class Run:
    """A run from one start: where it stands, and its two steps.

    w: (n, k). h: (k, m). at: the products there that the next step needs. curve_w, curve_h: the
    curvatures for both.
    """

    def __init__(
        self,
        data: Dense | Sparse,
        w: Tensor,
        h: Tensor,
        penalty: Penalty,
        total: Total,
        update_h: bool,
    ) -> None:
        self.data, self.penalty, self.total, self.update_h = data, penalty, total, update_h
        self.levels, self.lift = levels_of(data, total), LIFT
        self.count = float(total(w.new_tensor(float(len(w)))))
        self.place(w, h)

    def place(self, w: Tensor, h: Tensor) -> None:
        """Go to these factors."""
        self.w, self.h = w.clone(), h.clone()
        self.at = self.data.products(self.w, self.h, "wW")
        self.curve_w = Curvature(self.at.curve_w, torch.ones_like(w[:, 0]), due=False)
        self.curve_h = Curvature(self.at.curve_h, torch.ones_like(h[0]))

    def loss(self) -> float:
        """Return the penalised divergence, over all processes."""
        divergence = self.total(self.data.loss(self.w, self.h))
        return float(divergence + penalty_value(self.penalty, self.w, self.h, self.total))

    def turn_w(self) -> None:
        """Improve w, and bring the products up to date."""
        positive, l1, l2 = self.data.positive_w(self.h).mT, self.penalty.l1_w, self.penalty.l2_w
        ratio, curve, stiff = self.at.w.mT, self.curve_w.values.mT, self.curve_w.stiff
        side = Side(self.w.mT, ratio, curve, positive, self.levels.rows, stiff, l1, l2, self.lift)
        step, taken = newton_step(side, shared_hessian(self.h, self.levels.columns_above))
        self.w = side.after(step).mT.contiguous()
        self._renew(
            "wh" + "H" * self.curve_h.due if self.update_h else "w" + "W" * self.curve_w.due
        )
        wrong, stiff = judge(side, replace(side, p=self.w.mT, ratio=self.at.w.mT), taken)
        chosen = wrong.nonzero()[:, 0]
        astray = float(self.total(stiff.new_tensor(float(len(chosen)))))
        self.curve_w.used(stiff, astray / self.count)
        if not len(chosen):
            return
        part = self.data.rows(chosen)
        before = part.products(self.w[chosen], self.h, "wh")
        self.w[chosen] = safe_step(side)[:, chosen].mT
        after = part.products(self.w[chosen], self.h, "wh")
        self.at.w[chosen] = after.w
        self.at.h += after.h - before.h

    def turn_h(self) -> None:
        """Improve h, and bring the products up to date."""
        positive, l1, l2 = (
            self.total(self.data.positive_h(self.w)), self.penalty.l1_h, self.penalty.l2_h,
        )  # fmt: skip
        ratio, curve, stiff = self.total(self.at.h), self.curve_h.values, self.curve_h.stiff
        side = Side(self.h, ratio, curve, positive, self.levels.columns, stiff, l1, l2, self.lift)
        gram = shared_hessian(self.w.mT, self.levels.rows_above, self.total)
        step, taken = newton_step(side, gram)
        self.h = side.after(step)
        self._renew("wh" + "W" * self.curve_w.due)
        moved = replace(side, p=self.h, ratio=self.total(self.at.h))
        wrong, stiff = judge(side, moved, taken)
        chosen = wrong.nonzero()[:, 0]
        self.curve_h.used(stiff, len(chosen) / len(wrong))
        if not len(chosen):
            return
        part = self.data.columns(chosen)
        self.at.w -= part.products(self.w, self.h[:, chosen], "w").w
        self.h[:, chosen] = safe_step(side)[:, chosen]
        self.at.w += part.products(self.w, self.h[:, chosen], "w").w

    def _renew(self, want: str) -> None:
        self.at = self.data.products(self.w, self.h, want)
        if "W" in want:
            self.curve_w.renew(self.at.curve_w)
        if "H" in want:
            self.curve_h.renew(self.total(self.at.curve_h))


def _minimise(run: Run, tol: float, max_iter: int, watch: Watch | None) -> Solution:
    """Take turns until the loss settles; what is returned has the least loss that was seen."""
    losses = [run.loss()]
    best = (run.w, run.h)
    for done in range(1, max_iter + 1):
        run.turn_w()
        if run.update_h:
            run.turn_h()
        if watch is not None:
            watch(done, run.w, run.h)
        if done % LOOK and done < max_iter:
            continue
        now, before = run.loss(), losses[-1]
        losses.append(min(now, before))
        if now > before:
            # Entries were lifted from near zero too boldly; without that no step raises the loss.
            lifted, run.lift = run.lift, 0.0
            run.place(*best)
            if lifted:
                continue
        else:
            best = (run.w, run.h)
        if done % LOOK == 0 and tol > 0 and before - losses[-1] <= tol * losses[0]:
            return Solution(*best, losses, done, True)
    return Solution(*best, losses, max_iter, False)


def _floor(x: Tensor, total: Total) -> float:
    """Return the smallest value of the model that divides: far below the data, far above zero."""
    if is_sparse(x):
        here = torch.sparse.sum(x.to_sparse_coo()).double()
    else:
        here = x.sum(dtype=torch.float64)
    # Hidden entries are zeros too, which lowers the mean, but not by orders of magnitude.
    size = total(here.new_tensor(float(x.shape[0] * x.shape[1])))
    limits = torch.finfo(x.dtype)
    return max(limits.eps**2 * float(total(here) / size), limits.tiny**0.5)


def _check(x: Tensor, weights: Tensor | None, penalty: Penalty) -> None:
    """Refuse what this solver cannot do."""
    for name in ("ortho_h", "smooth_h"):
        if getattr(penalty, name):
            raise ValueError(
                f'solver "poisson" takes no {name} (it is {getattr(penalty, name):g}); '
                'take solver="mu"'
            )
    if is_sparse(x) and weights is not None:
        raise ValueError("X is sparse; weights need a dense matrix: pass X.to_dense()")


@torch.no_grad()
def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    weights: Tensor | None = None,
    penalty: Penalty = Penalty(),  # noqa: B008 - frozen
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
) -> Solution:
    """Minimise the penalised Kullback-Leibler divergence of x from w h.

    The loss never rises from one look to the next. Zeros of a start may become positive.

    Args:
        x: data (n, m), nonnegative, dense or sparse; a sparse one is not made dense.
        w: start (n, k), or (b, n, k) for b restarts, one after the other; not written to.
        h: start (k, m), or (b, k, m).
        weights: (n, m) from 0, for dense x; 0 hides an entry.
        penalty: l1 and l2 of either factor.
        tol: stop when the loss falls, over ten iterations, by no more than this share of its first
            value; 0 never stops.
        max_iter: the largest number of iterations, each of which updates w and then h.
        update_h: False solves for w alone.
        total: applied to every sum over rows.
        watch: called after every iteration, with the factors of the restart it belongs to.

    Returns:
        The factors, and the losses at the start and every ten iterations (of the best restart).

    Raises:
        ValueError: the penalty has ortho_h or smooth_h, or a sparse x comes with weights.
    """
    _check(x, weights, penalty)
    floor = _floor(x, total)
    data = Sparse(x, floor) if is_sparse(x) else Dense(x, weights, floor)
    if w.ndim == 2:
        return _minimise(Run(data, w, h, penalty, total, update_h), tol, max_iter, watch)
    parts = [
        _minimise(Run(data, one, other, penalty, total, update_h), tol, max_iter, watch)
        for one, other in zip(w, h, strict=True)
    ]
    return stacked(parts)
