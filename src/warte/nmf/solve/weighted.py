"""Weighted least squares, with holes: exact residuals, separable curvature, extrapolation.

Minimises 1/2 sum_ij v_ij (x_ij - (w h)_ij)^2 with weights v (n, m) >= 0, 0 where an entry is
hidden, over w (n, k) >= 0 and h (k, m) >= 0. Half of the usual chi-square, in other words, when v
holds inverse variances.

One pass over the data gives the loss at an anchor (w0, h0) and the weighted residual
r = v (x - w0 h0). Around the anchor the loss is replaced by

    q/2 sum_ij s_i t_j ((w h)_ij - (w0 h0)_ij)^2 - <r, w h - w0 h0>

which has the same gradient there and, where v is near s_i t_j, nearly the same curvature. Its
weights separate, so that it is an ordinary least-squares factorisation and is lowered by
alternating sweeps of coordinate descent. Where q s_i t_j >= v_ij it lies above the loss, as in the
EM updates for missing data (Zhang et al. 2006, SIAM Data Mining, 549); elsewhere q plays the part
of Levenberg's and Marquardt's factor and grows when the true loss did not follow. The anchors are
extrapolated (Ang & Gillis 2019, Neural Computation 31, 417) and taken back when the loss rises.

Where the rank is small, or once q has had to grow, because rows see different columns or a few
entries outweigh the rest, each row of w and each column of h gets its own exact curvature
h diag(v_i) h^T. It costs k (k + 1) / 2 columns in one product with v and makes every update the
weighted least-squares solution.

The losses that are reported never rise.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from warte.nmf.solve import Penalty, Solution, Total, Watch, alone
from warte.nmf.solve.alternate import Run, State, alternate, begin, fit_p
from warte.nmf.solve.rows import (
    LOOK,
    Record,
    Shown,
    at_rows,
    dot,
    into_rows,
    out_of_rows,
    tiny,
    watcher,
)

_BLOCK = 1 << 18  # entries of x worked on at once: they should stay in the cache
_STEPS = 2  # alternations around one anchor
_SWEEPS = 2  # passes over the rows of a factor in each
_FIRST, _GROW, _GROW_LIMIT, _SHRINK = 0.3, 1.1, 1.02, 1.5  # length of the extrapolation
_EXACT_RANK = 10  # up to this rank the exact curvature costs no more than the residual
_EXACT_SIZE, _EXACT_FREE = 4, 1 << 24  # entries it may take: so many times those of x, or so many
_EXACT_SWEEPS = 4  # passes over the rows of a factor with the exact curvature
_DAMP_UP, _DAMP_DOWN, _LEAST_DOWN = 2.0, 1.2, 1.05  # the factor q, 1 or more


def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    weights: Tensor,
    *,
    penalty: Penalty = Penalty(),  # noqa: B008 - frozen
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
    exact: bool | None = None,
) -> Solution:
    """Minimise half the weighted squared distance between x and w h.

    Args:
        x: (n, m) dense, finite; what stands under a zero weight has no effect.
        w: (n, k) or (b, n, k) start, not negative; b restarts are solved side by side.
        h: (k, m) or (b, k, m) start, not negative.
        weights: (n, m) not negative, in the unit of 1 / x^2 if they are inverse variances.
        penalty: the four of `l1` and `l2`.
        tol: stop when the loss falls by less than this share of the loss at the start between two
            looks, ten iterations or more apart; 0 never stops.
        max_iter: iterations at most; one iteration updates w and h once.
        update_h: False solves for w alone.
        total: sums a tensor over all processes that hold rows of x, w and the weights.
        watch: called after each anchor with the number of iterations and the current w and h.
        exact: whether each row and column gets its own exact curvature; None decides by the rank,
            by how the steps go, and by the memory it takes: k^2 numbers for each row or column.

    Returns:
        The factors in the shapes of the start and the penalised losses, smallest over the
        restarts; the loss of no restart ever rises.

    Raises:
        ValueError: x is sparse, or the penalty is one that needs another solver.
    """
    if x.layout != torch.strided or weights.layout != torch.strided:
        raise ValueError(
            "X, weights: found a sparse matrix, with weights only dense ones are allowed; "
            "call to_dense() or leave the weights out"
        )
    if penalty.ortho_h or penalty.smooth_h:
        raise ValueError(
            "penalty: found ortho_h or smooth_h, with weights only l1 and l2 are allowed; "
            "set them to 0 or leave the weights out"
        )
    batched = w.ndim == 3
    p, h = into_rows(w, h)
    data = _Data(x, weights.to(x.dtype), total)
    task = _Task(data, penalty, update_h)
    record = Record(tol, max_iter)
    show = watcher(watch, batched)
    k = p.shape[1]
    entries = len(p) * k * k * max(x.shape if update_h else x.shape[:1])
    fits = entries <= max(_EXACT_SIZE * x.numel(), _EXACT_FREE)
    if exact is None and fits and (k <= _EXACT_RANK or not update_h):
        exact = True
    if not exact:
        p, h = _iterate(task, record, show, p, h, switch=exact is None and fits)
    elif update_h:
        p, h = _exactly(task, record, show, p, h)
    else:
        p = fit_p(Run(penalty, record, show, 1), _Exact(data), p, h)
    return Solution(*out_of_rows(p, h, batched), record.losses, record.n_iter, record.converged)


def _floor(marginal: Tensor, total: Total) -> Tensor:
    """Sums of weights, lifted where nearly nothing was seen: they are divided by."""
    both = total(torch.stack([marginal.sum(), torch.ones_like(marginal).sum()]))
    mean = both[0] / both[1].clamp_min(1)
    return marginal.clamp_min(1e-3 * mean) if mean > 0 else torch.ones_like(marginal)


class _Data:
    """The data, its weights, and weights s_i t_j that come near them."""

    def __init__(self, x: Tensor, v: Tensor, total: Total) -> None:
        self.x, self.v, self.total = x, v, total
        rows = v.sum(dim=1, dtype=torch.float64)
        columns = total(v.sum(dim=0, dtype=torch.float64))
        self.s = _floor(rows, total).to(x.dtype)  # (n,)
        self.t = _floor(columns / columns.sum().clamp_min(1e-300), alone).to(x.dtype)  # (m,)
        self.size = max(1, _BLOCK // max(1, x.shape[1]))

    def around(self, p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One pass over the data: the weighted residual (b, n, m) and half of its cost (b,)."""
        rest = p.new_empty(len(p), *self.x.shape)
        chi = torch.zeros(len(p), dtype=torch.float64, device=p.device)
        w = p.transpose(-1, -2)
        for i in range(0, p.shape[-1], self.size):
            at = slice(i, i + self.size)
            miss = torch.baddbmm(self.x[at].expand(len(p), -1, -1), w[:, at], h, alpha=-1)
            torch.mul(self.v[at], miss, out=rest[:, at])
            chi += torch.linalg.vecdot(rest[:, at], miss).sum(dim=-1, dtype=torch.float64)
        return rest, 0.5 * self.total(chi)


@dataclass(frozen=True)
class _Task:
    """What stays the same during a solution."""

    data: _Data
    penalty: Penalty
    update_h: bool

    def anchor(self, p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted residual at (p, h) and the penalised loss (b,)."""
        e = self.penalty
        rest, loss = self.data.around(p, h)
        of_p = e.l1_w * p.sum(dim=(-2, -1), dtype=torch.float64) + 0.5 * e.l2_w * dot(p, p)
        of_h = e.l1_h * h.sum(dim=(-2, -1), dtype=torch.float64) + 0.5 * e.l2_h * dot(h, h)
        return rest, loss + self.data.total(of_p) + of_h


@dataclass(frozen=True)
class _State:
    """The anchor, where it came from, and how far each restart dares to go."""

    p: Tensor  # (b, k, n) factors of the anchor
    h: Tensor  # (b, k, m)
    rest: Tensor  # (b, n, m) weighted residual there
    loss: Tensor  # (b,) float64, penalised
    p_from: Tensor  # (b, k, n) the same factors before they were extrapolated
    h_from: Tensor  # (b, k, m)
    reach: Tensor  # (b,) length of the extrapolation
    limit: Tensor  # (b,) and its upper limit
    damp: Tensor  # (b,) the factor q
    least: Tensor  # (b,) and its lower limit
    calm: Tensor  # (b,) bool: the last step was taken back, the next is not extrapolated


def _sweep(f: Tensor, c: Tensor, g: Tensor, ridge: Tensor | None) -> None:
    """Go once over the rows of f (b, k, n), in place: each the best one given the others.

    Minimises 1/2 <f, g f> + 1/2 <ridge, f^2> - <c, f> over f >= 0, with ridge (b, 1, n).
    """
    most = torch.finfo(f.dtype).max
    for j in range(f.shape[1]):
        at = slice(j, j + 1)
        own = g[:, at, at]
        stiff = own if ridge is None else own + ridge
        pull = torch.baddbmm(c[:, at], g[:, at], f, alpha=-1).addcmul_(own, f[:, at])
        new = (pull / stiff.clamp_min(tiny(f))).clamp_(min=0, max=most)
        f[:, at] = torch.where(stiff > 0, new, f[:, at])


class _Exact:
    """The data with the exact curvature of each row and column, for `alternate`."""

    def __init__(self, data: _Data) -> None:
        self.v, self.total = data.v, data.total
        self.v_x = torch.where(data.v > 0, data.v * data.x, 0)
        self.square = data.total((self.v_x * data.x).sum(dtype=torch.float64))

    def by_h(self, h: Tensor) -> Tensor:
        """H (v x)^T, (b, k, n)."""
        return h @ self.v_x.T

    def by_p(self, p: Tensor) -> Tensor:
        """P (v x), (b, k, m), over the rows of all processes."""
        return self.total(p @ self.v_x)

    def curve_p(self, h: Tensor) -> Tensor:
        """H diag(v_i) h^T for each row i, (b, k, k, n)."""
        pairs, place = _pairs(h)
        return (pairs @ self.v.T)[:, place]

    def curve_h(self, p: Tensor) -> Tensor:
        """P diag(v_j) p^T for each column j, (b, k, k, m), over the rows of all processes."""
        pairs, place = _pairs(p)
        return self.total(pairs @ self.v)[:, place]

    def offset(self, p: Tensor) -> Tensor | float:
        """What <v x, w h> has beyond <by_p(p), h>: nothing."""
        return 0.0


def _pairs(f: Tensor) -> tuple[Tensor, Tensor]:
    """Products of all pairs of rows of f, (b, k (k + 1) / 2, n), and where each pair is, (k, k)."""
    k = f.shape[1]
    one, other = torch.triu_indices(k, k, device=f.device)
    place = torch.empty(k, k, dtype=torch.long, device=f.device)
    place[one, other] = place[other, one] = torch.arange(len(one), device=f.device)
    return f[:, one] * f[:, other], place


def _exactly(
    task: _Task, record: Record, show: Shown, p: Tensor, h: Tensor, loss: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Alternate with the exact curvature; loss (b,): what the steps so far have reached."""
    source = _Exact(task.data)
    run = Run(task.penalty, record, show, _EXACT_SWEEPS)
    s: State = begin(run, source, p, h)
    if loss is None:
        record.look(s.loss)
    else:
        # The same up to rounding, which must not look like a rise.
        s = replace(s, loss=torch.minimum(s.loss, loss))
    while record.left > 0:
        for _ in range(min(LOOK, record.left)):
            s = alternate(run, source, s)
            record.n_iter += 1
            show(record.n_iter, s.shown, s.h)
        record.look(s.loss)
    return s.shown, s.h


def _iterate(
    task: _Task, record: Record, show: Shown, p: Tensor, h: Tensor, switch: bool
) -> tuple[Tensor, Tensor]:
    """Go from anchor to anchor; switch: change to the exact curvature where this goes badly."""
    rest, loss = task.anchor(p, h)
    ones = torch.ones_like(loss)
    s = _State(p, h, rest, loss, p, h, _FIRST * ones, ones, ones, ones, ones < 0)
    record.look(s.loss)
    looked = 0
    while record.left > 0:
        steps = min(_STEPS if task.update_h else 1, record.left)
        s = _step(task, s, steps)
        record.n_iter += steps
        show(record.n_iter, s.p, s.h)
        if record.n_iter - looked >= LOOK or record.left == 0:
            looked = record.n_iter
            record.look(s.loss)
        if switch and task.update_h and bool((s.damp > 1).any()):
            return _exactly(task, record, show, s.p, s.h, s.loss)
    return s.p, s.h


def _step(task: _Task, s: _State, steps: int) -> _State:
    """Go to a new anchor; back to the old one, and more carefully, where the loss rose."""
    p, h = _model(task, s, steps)
    reach = torch.where(s.calm, 0, s.reach).to(p.dtype)[:, None, None]
    p_far = torch.clamp(p + reach * (p - s.p_from), min=0)
    h_far = torch.clamp(h + reach * (h - s.h_from), min=0) if task.update_h else h
    rest, loss = task.anchor(p_far, h_far)
    # A loss that is not a number is no fall either.
    rose = ~(loss <= s.loss)
    longer = torch.where(s.calm, s.reach, torch.minimum(s.reach * _GROW, s.limit))
    damp = torch.where(s.calm, s.damp * _DAMP_UP, s.damp)
    return _State(
        p=at_rows(rose, s.p, p_far),
        h=at_rows(rose, s.h, h_far),
        rest=_keep(rose, s.rest, rest),
        loss=torch.where(rose, s.loss, loss),
        p_from=at_rows(rose, s.p, p),
        h_from=at_rows(rose, s.h, h),
        reach=torch.where(rose, s.reach / _SHRINK, longer),
        limit=torch.where(rose, s.reach, (s.limit * _GROW_LIMIT).clamp_max(1)),
        damp=torch.where(rose, damp, torch.maximum(s.damp / _DAMP_DOWN, s.least)),
        least=torch.where(rose & s.calm, s.damp, (s.least / _LEAST_DOWN).clamp_min(1)),
        calm=rose,
    )


def _keep(rose: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """`at_rows` for the large residual, which is not copied where all restarts agree."""
    if bool(rose.all()):
        return old
    return at_rows(rose, old, new) if bool(rose.any()) else new


def _model(task: _Task, s: _State, steps: int) -> tuple[Tensor, Tensor]:
    """Lower the model around the anchor by some alternations; returns p and h."""
    d, e = task.data, task.penalty
    q = s.damp.to(s.p.dtype)[:, None, None]
    ridge_p = e.l2_w / (q * d.s) if e.l2_w else None
    ridge_h = e.l2_h / (q * d.t) if e.l2_h else None
    p, h = s.p.clone(), s.h.clone()
    for _ in range(steps):
        spread = (h * d.t).transpose(-1, -2)
        pull = (h @ s.rest.transpose(-1, -2) - e.l1_w) / (q * d.s)
        c = torch.baddbmm(pull, (s.h @ spread).transpose(-1, -2), s.p)
        g = h @ spread
        for _ in range(_SWEEPS):
            _sweep(p, c, g, ridge_p)
        if not task.update_h:
            break
        spread = (p * d.s).transpose(-1, -2)
        pull = (d.total(p @ s.rest) - e.l1_h) / (q * d.t)
        c = torch.baddbmm(pull, d.total(s.p @ spread).transpose(-1, -2), s.h)
        g = d.total(p @ spread)
        for _ in range(_SWEEPS):
            _sweep(h, c, g, ridge_h)
    return p, h
