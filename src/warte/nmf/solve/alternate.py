"""Alternating coordinate descent with extrapolation and a guard, for any quadratic model of x.

A `Source` says what the loss looks like as a function of one factor while the other stays:
1/2 <f, g f> - <c, f> with a linear part c and a curvature g, one matrix for all columns of the
factor or one for each. `alternate` lowers it by sweeps over the rows of the factor (Gillis &
Glineur 2012, Neural Computation 24, 1085), extrapolates both factors, and takes the step back
where the loss rose (Ang & Gillis 2019, Neural Computation 31, 417).

Both factors are rows: p = w^T (b, k, n) and h (b, k, m), b restarts side by side.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from warte.nmf.solve import Penalty, Total
from warte.nmf.solve.rows import LOOK, Record, Shown, at_rows, dot, gram, tiny

_FIRST, _GROW, _GROW_LIMIT, _SHRINK = 0.5, 1.05, 1.01, 1.5  # extrapolation, Ang & Gillis 2019
_DEAD = 1e-24  # curvature, as a share of the largest, under which a row has no say


class Source(Protocol):
    """The data as the solver sees them."""

    total: Total
    square: Tensor  # <x, x>, over the rows of all processes

    def by_h(self, h: Tensor) -> Tensor:
        """The linear part for p: h x^T, (b, k, n)."""

    def by_p(self, p: Tensor) -> Tensor:
        """The linear part for h: p x, (b, k, m), over the rows of all processes."""

    def curve_p(self, h: Tensor) -> Tensor:
        """The curvature for p: (b, k, k), or (b, k, k, n) if each column has its own."""

    def curve_h(self, p: Tensor) -> Tensor:
        """The curvature for h: (b, k, k) or (b, k, k, m), over the rows of all processes."""

    def offset(self, p: Tensor) -> Tensor | float:
        """What <x, w h> has beyond <by_p(p), h>."""


@dataclass(frozen=True)
class Run:
    """What stays the same during a solution, and the record of its looks."""

    penalty: Penalty
    record: Record
    show: Shown
    sweeps: int  # passes over the rows of a factor for each product with x


@dataclass(frozen=True)
class State:
    """Factors on their way, and the length of the extrapolation of each restart.

    p, h: after their last update; shown, ahead: the same, extrapolated. The pair (shown, h) is
    what the loss belongs to.
    """

    p: Tensor  # (b, k, n)
    h: Tensor  # (b, k, m)
    shown: Tensor  # (b, k, n)
    ahead: Tensor  # (b, k, m)
    loss: Tensor  # (b,) float64
    step: Tensor  # (b,) length of the extrapolation
    limit: Tensor  # (b,) and its upper limit
    calm: Tensor  # (b,) bool: the last step was taken back, the next one goes without

    def back_to(self, old: "State", where: Tensor) -> "State":
        """This state, and the old one, at rest, for the restarts (b,) where it is told."""
        return State(
            p=at_rows(where, old.shown, self.p),
            h=at_rows(where, old.h, self.h),
            shown=at_rows(where, old.shown, self.shown),
            ahead=at_rows(where, old.h, self.ahead),
            loss=torch.where(where, old.loss, self.loss),
            step=torch.where(where, old.step / _SHRINK, self.step),
            limit=torch.where(where, old.step, self.limit),
            calm=where,
        )


def begin(run: Run, source: Source, p: Tensor, h: Tensor) -> State:
    """The state at rest at (p, h)."""
    loss = exact_loss(run, source, p, h, source.by_p(p))
    ones = torch.ones_like(loss)
    return State(p, h, p, h, loss, _FIRST * ones, ones, ones < 0)


def exact_loss(run: Run, source: Source, p: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """The penalised loss (b,) at (p, h), where c = p x is known."""
    return _loss(run, source, p, h, dot(c, h) + source.offset(p), _bend(source.curve_h(p), h))


def _bend(curve: Tensor, f: Tensor) -> Tensor:
    """<f, g f>, (b,)."""
    return dot(curve, gram(f)) if curve.ndim == 3 else dot((curve * f[:, None]).sum(dim=2), f)


def _loss(run: Run, source: Source, p: Tensor, h: Tensor, cross: Tensor, bend: Tensor) -> Tensor:
    """The penalised loss (b,) from <x, w h> and <w h, w h>."""
    e, total = run.penalty, source.total
    out = (0.5 * source.square - cross + 0.5 * bend).clamp_min(0)
    if e.l1_w or e.l2_w:
        out = out + total(
            e.l1_w * p.sum(dim=(-2, -1), dtype=torch.float64) + e.l2_w / 2 * dot(p, p)
        )
    if e.l1_h:
        out = out + e.l1_h * h.sum(dim=(-2, -1), dtype=torch.float64)
    if e.l2_h or e.ortho_h:
        both = gram(h)
        own = both.diagonal(dim1=-2, dim2=-1).sum(-1, dtype=torch.float64)
        rest = both.sum(dim=(-2, -1), dtype=torch.float64) - own
        out = out + 0.5 * e.l2_h * own + 0.5 * e.ortho_h * rest
    if e.smooth_h:
        steps = h.diff(dim=-1)
        out = out + 0.5 * e.smooth_h * dot(steps, steps)
    return out


def alternate(run: Run, source: Source, s: State) -> State:
    """Update w and h once, extrapolate, and go back where the loss rose."""
    e = run.penalty
    reach = torch.where(s.calm, 0, s.step).to(s.p.dtype)[:, None, None]
    p = s.shown.clone()
    _lower(run, p, source.by_h(s.ahead) - e.l1_w, _stiffen(source.curve_p(s.ahead), e.l2_w))
    shown = torch.clamp(p + reach * (p - s.p), min=0)
    c, curve = source.by_p(shown), source.curve_h(shown)
    h = s.ahead.clone()
    _lower(run, h, c - e.l1_h, _stiffen(curve, e.l2_h, e.ortho_h), e.smooth_h)
    ahead = torch.clamp(h + reach * (h - s.h), min=0)
    new = State(
        p=p,
        h=h,
        shown=shown,
        ahead=ahead,
        loss=_loss(run, source, shown, h, dot(c, h) + source.offset(shown), _bend(curve, h)),
        step=torch.where(s.calm, s.step, torch.minimum(s.step * _GROW, s.limit)),
        limit=(s.limit * _GROW_LIMIT).clamp_max(1),
        calm=torch.zeros_like(s.calm),
    )
    # A loss that is not a number is no fall either.
    return new.back_to(s, ~(new.loss <= s.loss))


def fit_p(run: Run, source: Source, p: Tensor, h: Tensor) -> Tensor:
    """Sweep over p alone; h stays, so that x is needed once."""
    record, e = run.record, run.penalty
    raw, curve = source.by_h(h), source.curve_p(h)
    c, g = raw - e.l1_w, _stiffen(curve, e.l2_w)

    def look() -> None:
        cross, bend = source.total(dot(raw, p)), source.total(_bend(curve, p))
        record.look(_loss(run, source, p, h, cross, bend))

    p = p.clone()
    look()
    while record.left > 0:
        for _ in range(min(LOOK, record.left)):
            _lower(run, p, c, g)
            record.n_iter += 1
            run.show(record.n_iter, p, h)
        look()
    return p


def _stiffen(g: Tensor, ridge: float, overlap: float = 0.0) -> Tensor:
    """A curvature with the quadratic penalties on the same factor."""
    if not ridge and not overlap:
        return g
    eye = torch.eye(g.shape[1], dtype=g.dtype, device=g.device)
    extra = ridge * eye + overlap * (1 - eye)
    return g + (extra if g.ndim == 3 else extra[..., None])


def _lower(run: Run, f: Tensor, c: Tensor, g: Tensor, smooth: float = 0.0) -> None:
    """Sweep over the rows of f (b, k, n), in place: each becomes the best one given the others.

    Minimises 1/2 <f, g f> - <c, f> + smooth/2 sum (f[:, j+1] - f[:, j])^2 over f >= 0. A row that
    nothing depends on stays as it is, or becomes zero where a penalty pulls at it.
    """
    if smooth:
        for _ in range(run.sweeps):
            _sweep_smooth(f, c, g, smooth)
    elif g.ndim == 4:
        for _ in range(run.sweeps):
            _sweep_each(f, c, g)
    else:
        _sweep(f, c, g, run.sweeps)


def _sweep(f: Tensor, c: Tensor, g: Tensor, times: int) -> None:
    """Some sweeps with one curvature (b, k, k) for all columns."""
    d = g.diagonal(dim1=-2, dim2=-1)[..., None]
    alive = d > d.amax(dim=-2, keepdim=True) * _DEAD
    safe = torch.where(alive, d, 1)
    scaled = c / safe
    if not bool(alive.all()):
        scaled = torch.where(alive, scaled, torch.where(c < 0, 0, f))
    # With the diagonal out of the way a row's best value is `scaled` minus the other rows' part.
    g = torch.where(alive, g / safe, 0)
    g.diagonal(dim1=-2, dim2=-1).zero_()
    single = len(f) == 1
    rows = [(scaled[:, j : j + 1], g[:, j : j + 1], f[:, j : j + 1]) for j in range(f.shape[1])]
    f_t, new = f[0].T, torch.empty_like(f[0, 0])
    for _ in range(times):
        for aim, weight, row in rows:
            if single:
                torch.addmv(aim[0, 0], f_t, weight[0, 0], alpha=-1, out=new)
                torch.clamp(new, min=0, out=row[0, 0])
            else:
                torch.clamp(torch.baddbmm(aim, weight, f, alpha=-1), min=0, out=row)


def _sweep_each(f: Tensor, c: Tensor, g: Tensor) -> None:
    """One sweep with a curvature for each column, (b, k, k, n)."""
    d = g.diagonal(dim1=1, dim2=2).movedim(-1, 1)
    alive = d > d.amax(dim=1, keepdim=True) * _DEAD
    safe = torch.where(alive, d, 1)
    for j in range(f.shape[1]):
        pull = c[:, j] - (g[:, j] * f).sum(dim=1)
        own = torch.where(c[:, j] < 0, 0, f[:, j])
        f[:, j] = torch.where(alive[:, j], (f[:, j] + pull / safe[:, j]).clamp_min(0), own)


def _sweep_smooth(f: Tensor, c: Tensor, g: Tensor, smooth: float) -> None:
    """One sweep with a pull between neighbours: first the even entries of a row, then the odd.

    Neither the even nor the odd entries depend on each other, so each half is solved exactly.
    """
    around = torch.full_like(f[:1, :1], 2.0)
    around[..., 0] -= 1
    around[..., -1] -= 1
    for j in range(f.shape[1]):
        at = slice(j, j + 1)
        row, own = f[:, at], g[:, at, at]
        pull = torch.baddbmm(c[:, at], g[:, at], f, alpha=-1) + own * row
        stiff = own + smooth * around
        for parity in (0, 1):
            near = torch.zeros_like(row)
            near[..., 1:] += row[..., :-1]
            near[..., :-1] += row[..., 1:]
            new = ((pull + smooth * near) / stiff.clamp_min(tiny(f))).clamp_min(0)
            new = torch.where(stiff > 0, new, row)
            row[..., parity::2] = new[..., parity::2]
