"""Bounded least-squares fits of emission lines to many spectra at once.

Minimises chi-square = sum_p w_p (y_p - model_p)^2 by Levenberg-Marquardt over velocities and
widths, the linear parameters being the best ones at every step (see `project`). All spectra of a
chunk walk side by side, each with its own damping, and leave when they are done. A chunk is first
sent from its starts in single precision and with narrow lines cut off far from their place; the
best place found is where the walk in double precision over all pixels begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from warte.spectra.fit.layout import Layout
from warte.spectra.fit.project import (
    Bounds,
    Lines,
    Point,
    Task,
    evaluate,
    normal,
    prepare,
    scaled,
    solve_free,
)

__all__ = ["Bounds", "Lines", "Solution", "solve"]

CHUNK = 300  # spectra worked on at once: the memory of larger arrays is given back and forth
REACH = 3500.0  # km/s from its place within which a narrow line is drawn at first
_EXACT = 7.0  # widths within that reach that make it as good as all: exp(-7^2 / 2) = 2e-11
_ROUGH_TOLERANCE = 3e-3
_LEAD = 8  # steps of the first scout before the others
_SCHEDULE = ((1, 40.0), (3, 10.0), (7, 2.0))  # steps of the scouts, and how many margins
_TOGETHER, _LATER = 5, 15  # steps after which those left of all chunks are put together
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-9, 1e12
_PATIENCE = 3  # steps in a row that may gain less than the tolerance


@dataclass(frozen=True)
class Solution:
    """Fits of N spectra; parameters in the order of `Layout`, non-linear before linear.

    nonlinear: (N, K) velocities and intrinsic widths, km/s.
    linear: (N, M) fluxes (flux unit times Angstrom), absorption (Angstrom), polynomials.
    covariance: (N, K + M, K + M) of all parameters, from the Gauss-Newton normal matrix of the
        free ones; rows and columns of fixed ones are 0.
    chi2: (N,) sum of weight times squared residual.
    dof: (N,) measured pixels less free parameters.
    iterations: (N,) steps of the last walk.
    converged: (N,) False where the steps ran out, and where the spectrum cannot be fitted; then
        all numbers are NaN.
    at_bound: (N, K) velocity or width on its bound.
    fixed: (N, K + M) parameters on a bound, or that no pixel tells.
    level: (N, windows) continuum to which the absorption refers, see `profile.levels`.
    """

    nonlinear: Tensor
    linear: Tensor
    covariance: Tensor
    chi2: Tensor
    dof: Tensor
    iterations: Tensor
    converged: Tensor
    at_bound: Tensor
    fixed: Tensor
    level: Tensor


@dataclass(frozen=True)
class Walk:
    """Where each of B spectra is, and what is needed to go on."""

    theta: Tensor  # (B, K) internal parameters
    chi2: Tensor  # (B,)
    side: Tensor  # (B, M') where the linear parameters are, as in `project.Point`
    matrix: Tensor  # (B, K, K) normal matrix at theta
    down: Tensor  # (B, K) half the downhill gradient
    damping: Tensor  # (B,)
    growth: Tensor  # (B,) factor of the damping if the next step fails
    idle: Tensor  # (B,) steps in a row that gained little
    steps: Tensor  # (B,) taken so far
    done: Tensor  # (B,)

    def take(self, rows: Tensor) -> Walk:
        """The walks of some of the spectra."""
        return Walk(*(getattr(self, field.name)[rows] for field in fields(self)))

    def put(self, rows: Tensor, other: Walk) -> None:
        """Write other into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)

    def where(self, rows: Tensor, other: Walk) -> Walk:
        """Other where rows (B,) is true, this elsewhere."""
        return Walk(
            *(
                torch.where(
                    rows.reshape(-1, *[1] * (getattr(self, field.name).ndim - 1)),
                    getattr(other, field.name),
                    getattr(self, field.name),
                )
                for field in fields(self)
            )
        )


def solve(
    layout: Layout,
    lines: Lines,
    starts: Tensor,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
    margin: float = 0.5,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Solution:
    """Fit each spectrum from its best starts.

    Args:
        layout: the model.
        lines: N spectra.
        starts: (N, S, K) or (S, K) velocities and widths to begin from, km/s; those out of bounds
            are moved onto them.
        bounds: allowed velocities and widths.
        margin: the first start is followed, and of the others those that promise to end little
            above the best chi-square so far: first 40, then 10, at last 2 times this much for
            each group of lines.
        iterations: steps at most, in double precision.
        tolerance: a fit is done when no step is expected to lower chi-square by more than this; a
            parameter is then within about sqrt(tolerance) of its error from the minimum.

    Returns:
        The best fit of each spectrum; other spectra have no influence on it. Spectra with fewer
        pixels than parameters, or with numbers that are not finite where the weight is positive,
        get NaN and converged False.
    """
    if starts.ndim == 2:
        starts = starts.expand(len(lines), -1, -1)
    result = _blank(layout, lines)
    theta = torch.full_like(starts[:, 0], torch.nan)

    def first(rows: Tensor) -> Tensor:
        task = prepare(layout, lines.take(rows), bounds, reach=REACH)
        theta[rows] = scout(task, starts[rows], margin).to(theta.dtype)
        return _nearby(result, rows, task, theta, tolerance)

    def last(rows: Tensor, steps: int) -> Tensor:
        task = prepare(layout, lines.take(rows), bounds)
        walk = descend(task, begin(task, theta[rows]), steps, tolerance)
        theta[rows] = walk.theta
        _write(result, rows, task, walk)
        return rows[~walk.done]

    left = in_chunks(first, _usable(layout, lines).nonzero()[:, 0])
    for steps in (_LATER, iterations):  # those that take longer, put together
        left = in_chunks(partial(last, steps=min(steps, iterations)), left)
    return result


def in_chunks(work: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """What becomes of the chunks of rows (N,), joined, without a record for gradients.

    The tensors of a chunk are too small to share among threads, so torch uses one meanwhile. To use
    several cores, give each of several processes a share of the spectra.
    """

    def quietly(chunk: Tensor) -> Tensor:
        with torch.inference_mode():
            return work(chunk)

    allowed = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [quietly(chunk) for chunk in _split(rows)]
    finally:
        torch.set_num_threads(allowed)
    return torch.cat(found) if found else rows


def _split(rows: Tensor) -> tuple[Tensor, ...]:
    """Pieces of nearly one size, none larger than a chunk and none empty."""
    return rows.tensor_split(-(-len(rows) // CHUNK)) if len(rows) else ()


def _nearby(result: Solution, rows: Tensor, task: Task, theta: Tensor, tolerance: float) -> Tensor:
    """Fit, into some rows, those for which the columns near the lines will do; the other rows."""
    near = _within_reach(task, theta[rows])
    where = near.nonzero()[:, 0]
    if len(where):
        task = task.take(where)
        walk = descend(task, begin(task, theta[rows[where]]), _TOGETHER, tolerance)
        theta[rows[where]] = walk.theta
        near[where] = walk.done & _within_reach(task, walk.theta)
        _write(result, rows[where], task, walk)
    return rows[~near]


def _within_reach(task: Task, theta: Tensor) -> Tensor:
    """(B,) whether the columns near the lines are as good as all of them."""
    narrow = 2 * task.layout.components
    widest = torch.hypot(theta[:, 1:narrow:2], task.spread[:, None])
    return (theta[:, 0:narrow:2].abs() + _EXACT * widest <= REACH).all(1)


def _usable(layout: Layout, lines: Lines) -> Tensor:
    """(N,) spectra that can be fitted: enough pixels, and numbers where there should be."""
    measured = lines.weight > 0
    sound = torch.isfinite(lines.flux) & torch.isfinite(lines.weight) | (lines.weight == 0)
    resolved = torch.isfinite(lines.instrument) & (lines.instrument >= 0)
    placed = torch.isfinite(lines.wavelength) & sound
    return placed.all(1) & resolved.all(1) & (measured.sum(1) > layout.parameters)


def begin(task: Task, theta: Tensor) -> Walk:
    """A walk from theta (B, K)."""
    point = evaluate(task, task.clip(theta))
    matrix, down, _ = normal(task, point)
    zero = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
    return Walk(
        point.theta,
        point.chi2,
        point.side,
        matrix,
        down,
        torch.full_like(point.chi2, _FIRST_DAMPING),
        torch.full_like(point.chi2, 2.0),
        zero,
        zero.clone(),
        zero > 0,
    )


def scout(task: Task, starts: Tensor, margin: float, tolerance: float = _ROUGH_TOLERANCE) -> Tensor:
    """(B, K) the best theta that some steps in single precision find from starts (B, S, K).

    The first start goes ahead, so that there is a good chi-square to compare with; then the
    others, as far as they may still become the best ones. Margin and tolerance are as in `solve`.
    """
    task = task.to(torch.float32)
    walks = [begin(task, task.inside(start)) for start in starts.unbind(1)]
    walks[0] = descend(task, walks[0], _LEAD, tolerance)
    walk = Walk(*(torch.cat([getattr(w, field.name) for w in walks]) for field in fields(Walk)))
    rows = torch.arange(len(starts), device=starts.device).repeat(len(walks))
    for steps, times in _SCHEDULE:
        chosen = _promising(task, walk, rows, margin * times * len(task.layout.groups))
        walk, rows = walk.take(chosen), rows[chosen]
        for some in _split((~walk.done).nonzero()[:, 0]):
            further = descend(task.take(rows[some]), walk.take(some), steps, tolerance)
            walk.put(some, further)
    best = _least(walk.chi2, rows, len(starts))
    first = (walk.chi2 <= best[rows]).nonzero()[:, 0]
    found = walks[0].theta.clone()
    found[rows[first]] = walk.theta[first]
    return found


def _promising(task: Task, walk: Walk, rows: Tensor, margin: float) -> Tensor:
    """Places of the walks that may end less than the margin above where their spectrum's best is.

    As long as even the best is no good fit, promises count little, and the margin grows by what
    it is worse than one, three times.

    rows: the spectrum of each walk.
    """
    _, _, whole = _step(task.low[rows], task.high[rows], walk)
    best = _least(walk.chi2, rows, len(task.low))
    good = task.measured + 3 * (2 * task.measured).sqrt()
    limit = best + margin + 3 * (best - good).clamp(min=0.0)
    return (walk.chi2 - whole <= limit[rows]).nonzero()[:, 0]


def _least(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(count,) the smallest of the values of each row."""
    return values.new_full((count,), torch.inf).scatter_reduce(0, rows, values, "amin")


def descend(task: Task, walk: Walk, iterations: int, tolerance: float) -> Walk:
    """Levenberg-Marquardt: every spectrum goes on, with its own damping, until it is done.

    Damping by the diagonal (Marquardt 1963), led by the rule of H. B. Nielsen (1999,
    IMM-REP-1999-05, Technical University of Denmark).
    """
    final = walk.take(torch.arange(len(walk.theta), device=walk.theta.device))
    rows = torch.arange(len(walk.theta), device=walk.theta.device)
    for turn in range(iterations + 1):
        step, gain, whole = _step(task.low, task.high, walk)
        done = (whole < tolerance) | (walk.idle >= _PATIENCE) | (walk.damping > _MOST_DAMPING)
        walk = replace(walk, done=walk.done | done)
        count = int(walk.done.sum())
        if turn == iterations or count == len(rows):
            break
        if 5 * count >= len(rows):
            final.put(rows[walk.done], walk.take(walk.done))
            go = (~walk.done).nonzero()[:, 0]
            task, walk, rows, step, gain = (
                task.take(go),
                walk.take(go),
                rows[go],
                step[go],
                gain[go],
            )
        walk = _advance(task, walk, step, gain, tolerance)
    final.put(rows, walk)
    return final


def _step(low: Tensor, high: Tensor, walk: Walk) -> tuple[Tensor, Tensor, Tensor]:
    """The damped step within bounds, what it should gain, and what a free step would gain."""
    theta, down, matrix = walk.theta, walk.down, walk.matrix
    held = ((theta <= low) & (down <= 0)) | ((theta >= high) & (down >= 0))
    free = ~held & (matrix.diagonal(dim1=1, dim2=2) > 0)
    unit, scale = scaled(matrix, free)
    right = torch.where(free, down * scale, 0.0)
    whole = (right * solve_free(unit, right, free)).sum(1)
    step = solve_free(unit, right, free, walk.damping) * scale
    step = torch.minimum(torch.maximum(theta + step, low), high) - theta
    gain = ((2 * down - (matrix @ step[:, :, None])[:, :, 0]) * step).sum(1)
    return step, gain.clamp(min=torch.finfo(gain.dtype).tiny), whole


def _advance(task: Task, walk: Walk, step: Tensor, gain: Tensor, tolerance: float) -> Walk:
    """The walk after a step, taken where chi-square falls; those that are done stay."""
    single = step.dtype == torch.float32
    point = evaluate(task, walk.theta + step, walk.side, 1 if single else None)
    matrix, down, _ = normal(task, point)
    fall = walk.chi2 - point.chi2
    better = (fall > 0) & ~walk.done
    less = walk.damping * (1 - (2 * (fall / gain).clamp(0, 1) - 1) ** 3).clamp(min=0.1)
    taken = Walk(
        point.theta,
        point.chi2,
        point.side,
        matrix,
        down,
        less.clamp(min=_LEAST_DAMPING),
        torch.full_like(walk.growth, 2.0),
        torch.where(fall > tolerance, 0, walk.idle + 1),
        walk.steps + 1,
        walk.done,
    )
    stay = replace(
        walk,
        damping=torch.where(walk.done, walk.damping, walk.damping * walk.growth),
        growth=walk.growth * 2,
        steps=walk.steps + (~walk.done).to(walk.steps.dtype),
    )
    return stay.where(better, taken)


def _write(result: Solution, rows: Tensor, task: Task, walk: Walk) -> None:
    """Linear parameters, covariance and the rest at the end of the walks, into some rows."""
    point = evaluate(task, walk.theta, walk.side)
    at_bound = (walk.theta <= task.low) | (walk.theta >= task.high)
    told = task.turn.diagonal(dim1=1, dim2=2) > 0
    gram = _gram(task, point)
    slopes = gram.diagonal(dim1=1, dim2=2)[:, : at_bound.shape[1]]
    held = at_bound | (slopes <= 0)  # a component without flux has no place
    free = torch.cat([~held, point.side == 0, told], 1)
    back = _back(task, walk.theta, told)
    shares = task.share - (point.linear[:, None] @ point.cross[:, :, : task.smooth])[:, 0]
    inner = torch.cat([torch.zeros_like(walk.theta), point.linear, shares * told], 1)
    linear = (back @ inner[:, :, None])[:, walk.theta.shape[1] :, 0]
    found = {
        "nonlinear": task.outside(walk.theta),
        "linear": linear,
        "covariance": back @ _inverse(gram, free) @ back.transpose(1, 2),
        "chi2": point.chi2,
        "dof": task.measured - free.sum(1),
        "iterations": walk.steps,
        "converged": walk.done,
        "at_bound": at_bound,
        "fixed": ~torch.cat([~held, (point.side == 0)[:, task.order], told], 1),
        "level": task.level,
    }
    for name, value in found.items():
        getattr(result, name)[rows] = value


def _gram(task: Task, point: Point) -> Tensor:
    """(B, n, n) normal matrix of theta, the curves and the orthonormal continuum."""
    smooth, curves = task.smooth, task.curves
    _, _, cross = normal(task, point)
    slopes = torch.cat([cross[:, :, curves.stop :], cross[:, :, curves]], 2)
    others = torch.cat([cross[:, :, curves].transpose(1, 2), point.cross[:, :, curves]], 2)
    own = torch.cat([cross[:, :, :smooth], point.cross[:, :, :smooth]], 1)
    eye = torch.eye(smooth, dtype=own.dtype, device=own.device).expand(len(own), -1, -1)
    upper = torch.cat([torch.cat([slopes, others], 1), own], 2)
    return torch.cat([upper, torch.cat([own.transpose(1, 2), eye], 2)], 1)


def _back(task: Task, theta: Tensor, told: Tensor) -> Tensor:
    """(B, n, n) that leads from changes of theta, the curves' parameters and the shares of the
    orthonormal continuum to changes of the layout's parameters.
    """
    size, curves = theta.shape[1], len(task.order)
    back = theta.new_zeros(len(theta), size + curves + task.smooth, size + curves + task.smooth)
    stretch = torch.ones_like(theta)  # sigma^2 = theta^2 - reference^2
    stretch[:, 1::2] = theta[:, 1::2] / task.outside(theta)[:, 1::2].clamp(min=1e-3)
    back[:, :size, :size] = torch.diag_embed(stretch)
    place = torch.arange(curves, device=theta.device)
    is_flux = (place < task.layout.fluxes)[None]
    back[:, size + place, size + task.order] = torch.where(is_flux, 1 / task.unit, 1.0)
    eye = torch.eye(task.smooth, dtype=theta.dtype, device=theta.device)
    turn = torch.where(told[:, :, None], task.turn, eye).transpose(1, 2)
    back[:, size + curves :, size + curves :] = torch.linalg.solve_triangular(
        turn, eye.expand_as(turn), upper=True
    )
    return back


def _inverse(matrix: Tensor, free: Tensor) -> Tensor:
    """(B, n, n) inverse over the free entries, 0 elsewhere."""
    unit, scale = scaled(matrix, free)
    factor, _ = torch.linalg.cholesky_ex(unit)
    scale = scale * free
    return torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]


def _blank(layout: Layout, lines: Lines) -> Solution:
    """Nothing found for any spectrum."""
    count, every, like = len(lines), layout.parameters, lines.flux

    def numbers(*shape: int) -> Tensor:
        return like.new_full((count, *shape), torch.nan)

    def flags(*shape: int) -> Tensor:
        return torch.zeros((count, *shape), dtype=torch.bool, device=like.device)

    return Solution(
        numbers(layout.nonlinear),
        numbers(layout.linear),
        numbers(every, every),
        numbers(),
        numbers(),
        torch.zeros(count, dtype=torch.int64, device=like.device),
        flags(),
        flags(layout.nonlinear),
        flags(every),
        numbers(len(layout.windows)),
    )
