"""Data with noise that goes below zero: Shift-NMF and Nearly-NMF.

Both minimise 1/2 sum_ij v_ij (x_ij - (w h)_ij)^2 with inverse variances v (n, m) >= 0 over
nonnegative w and h, while x keeps its negative values: clipping them would make templates that
follow the mean of the noise. The updates are multiplicative (Green & Bailey 2024, The
Astronomical Journal 168, 242):

    shift    h <- h * w^T (v (x + y)) / w^T (v (w h + y)), with y = -min x
    nearly   h <- h * [w^T (v x)]+ / ([w^T (v x)]- + w^T (v (w h)))

and the same for w, where [a]+ and [a]- are the positive and the negative part of a. Without
negative values both are the weighted updates of Lee & Seung. Nearly-NMF takes longer steps.
"""

import torch
from torch import Tensor

from warte.nmf.solve import Penalty, Solution, Total, Watch, alone
from warte.nmf.solve.rows import (
    LOOK,
    Record,
    Shown,
    dot,
    into_rows,
    out_of_rows,
    tiny,
    watcher,
)

METHODS = ("shift", "nearly")

# Where a factor has become zero with all its partners though the data pull it up, multiplying
# cannot bring it back: it starts again from here, as in the authors' program.
_SPROUT = 1e-6


def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    weights: Tensor | None = None,
    *,
    method: str = "nearly",
    shift: float | None = None,
    penalty: Penalty = Penalty(),  # noqa: B008 - frozen
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
) -> Solution:
    """Minimise half the weighted squared distance between x and w h; x may be negative.

    Args:
        x: (n, m) dense, finite; what stands under a zero weight has no effect.
        w: (n, k) or (b, n, k) start, not negative; b restarts are solved side by side.
        h: (k, m) or (b, k, m) start, not negative.
        weights: (n, m) not negative, in the unit of 1 / x^2; None for ones.
        method: "shift" or "nearly".
        shift: what Shift-NMF adds to x so that nothing is negative; None for minus the smallest
            visible value, or 0 if that is positive. Where rows are spread over processes, give all
            the same.
        penalty: the four of `l1` and `l2`.
        tol: stop when the loss falls by less than this share of the loss at the start in ten
            iterations; 0 never stops.
        max_iter: iterations at most; one iteration updates h, then w.
        update_h: False solves for w alone.
        total: sums a tensor over all processes that hold rows of x, w and the weights.
        watch: called after each iteration with its number and the current w and h.

    Returns:
        The factors in the shapes of the start and the penalised losses, smallest over the
        restarts; the updates never raise the loss.

    Raises:
        ValueError: x is sparse, the method or the penalty is unknown here, or the shift leaves
            negative values.
    """
    if method not in METHODS:
        raise ValueError(f"method: found {method!r}, allowed are 'shift' and 'nearly'; choose one")
    if x.layout != torch.strided or (weights is not None and weights.layout != torch.strided):
        raise ValueError(
            "X, weights: found a sparse matrix, for noisy data only dense ones are allowed; "
            "call to_dense()"
        )
    if penalty.ortho_h or penalty.smooth_h:
        raise ValueError(
            "penalty: found ortho_h or smooth_h, for noisy data only l1 and l2 are allowed; "
            "set them to 0"
        )
    batched = w.ndim == 3
    v = torch.ones_like(x) if weights is None else weights.to(x.dtype)
    task = _Task(x, v, penalty, _shift_of(x, v, method, shift), total)
    record = Record(tol, max_iter)
    p, h = into_rows(w, h)
    p, h = _iterate(task, record, watcher(watch, batched), p, h, update_h)
    return Solution(*out_of_rows(p, h, batched), record.losses, record.n_iter, record.converged)


def _shift_of(x: Tensor, v: Tensor, method: str, shift: float | None) -> float:
    """How far Shift-NMF lifts the data; 0 for Nearly-NMF, which lifts nothing."""
    if method == "nearly":
        if shift is not None:
            raise ValueError("shift: found one with method 'nearly', allowed with 'shift' alone; "
                             "leave it out")  # fmt: skip
        return 0.0
    lowest = min(0.0, float(torch.where(v > 0, x, 0).min()))
    if shift is None:
        return -lowest
    if shift < -lowest:
        raise ValueError(
            f"shift: found {shift:g}, which leaves negative values; {-lowest:g} or more is allowed"
        )
    return shift


class _Task:
    """The weighted data, lifted by the shift."""

    def __init__(self, x: Tensor, v: Tensor, penalty: Penalty, shift: float, total: Total) -> None:
        self.v, self.penalty, self.shift, self.total = v, penalty, shift, total
        self.v_x = torch.where(v > 0, v * x, 0)
        self.square = total((self.v_x * x).sum(dtype=torch.float64))
        self.lifted = torch.where(v > 0, v * (x + shift), 0) if shift else self.v_x

    def seen(self, p: Tensor, h: Tensor) -> Tensor:
        """The weighted model without the shift, (b, n, m)."""
        return (p.transpose(-1, -2) @ h).mul_(self.v)

    def lift(self, model: Tensor) -> Tensor:
        """Add the weighted shift to the weighted model, in place."""
        return torch.add(model, self.v, alpha=self.shift, out=model) if self.shift else model

    def loss(self, p: Tensor, h: Tensor) -> Tensor:
        """The penalised loss, (b,)."""
        e = self.penalty
        pulled = 0.5 * self.seen(p, h).sub_(self.v_x, alpha=2)
        of_p = dot(pulled @ h.transpose(-1, -2), p.transpose(-1, -2))
        of_p = of_p + e.l1_w * p.sum(dim=(-2, -1), dtype=torch.float64) + 0.5 * e.l2_w * dot(p, p)
        of_h = e.l1_h * h.sum(dim=(-2, -1), dtype=torch.float64) + 0.5 * e.l2_h * dot(h, h)
        return (0.5 * self.square + self.total(of_p) + of_h).clamp_min(0)


def _scale(f: Tensor, data: Tensor, model: Tensor, l1: float, l2: float) -> Tensor:
    """One multiplicative update; a factor that nothing depends on stays as it is."""
    sprout = (_SPROUT * f.max()).clamp_max(_SPROUT)
    above = data.clamp(min=0)
    below = model + (above - data) + l1 + l2 * f
    new = f * (above / below.clamp_min(tiny(f)))
    new = torch.where(below > 0, new, torch.where(above > 0, sprout, f))
    return new.clamp_(max=torch.finfo(f.dtype).max)


def _iterate(
    task: _Task, record: Record, show: Shown, p: Tensor, h: Tensor, update_h: bool
) -> tuple[Tensor, Tensor]:
    """Update h, then w, until it is time to stop."""
    e = task.penalty
    record.look(task.loss(p, h))
    while record.left > 0:
        if update_h:
            data, model = task.total(p @ task.lifted), p @ task.lift(task.seen(p, h))
            h = _scale(h, data, task.total(model), e.l1_h, e.l2_h)
        model = h @ task.lift(task.seen(p, h)).transpose(-1, -2)
        p = _scale(p, h @ task.lifted.T, model, e.l1_w, e.l2_w)
        record.n_iter += 1
        show(record.n_iter, p, h)
        if record.n_iter % LOOK == 0 or record.left == 0:
            record.look(task.loss(p, h))
    return p, h
