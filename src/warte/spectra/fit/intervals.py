"""Errors of pairs from the shape of their likelihood.

Components that overlap share their light along a curved valley of chi-square. The normal matrix at
its lowest point makes their errors too small, most of all where a flux lies on its bound and so
counts as known. Here the whole valley counts: how far each parameter must go until the least
chi-square over all others, within their bounds, has risen by one, and how much wider the valley
has become there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

from warte.spectra.fit.fitted import Fitted, IntArray
from warte.spectra.fit.project import Bounds, Lines, Task, derivatives, evaluate, prepare, scaled
from warte.spectra.fit.solve import in_chunks
from warte.spectra.spectrum import FloatArray

PAIR = 4  # velocities and widths of the pair, the first of all parameters
_DRAWN = 10.0  # widths around its centre over which a narrow line is drawn
_ROUNDS = 8  # steps towards an end at most
_CLOSE = 0.05  # of the distance to the end: a step that changes no more of it is the last
_FAR = 2.0  # a step that raises chi-square by so much more than wanted, as a multiple, is halved
_HALVINGS = 3
_STOPPED = 4  # bounds that a step may meet
_MOST_TILT = 1.0  # beyond, a straight line says little about the width of the valley
_WITHIN = float(erf(np.sqrt(0.5)))  # 0.6827


def pair_errors(
    found: Fitted,
    lines: Lines,
    scale: FloatArray,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> FloatArray:
    """(N, K + M) errors of all parameters of fits with two narrow components.

    Velocities, widths and fluxes of the pair: the `half_width` for the two sides of the likelihood.
    A flux of 0, on its bound: the upper side. All others, and those of which a side has no end: the
    root of the variance.

    Args:
        found: the fits.
        lines: the N spectra that were fitted.
        scale: (N,) factor of all errors.
        bounds: of velocities and widths, those of the fit.
    """
    errors = found.errors * scale[:, None]
    places = _places(found)
    sides, tilts = likelihood_sides(found, lines, scale, bounds=bounds)
    sides = np.where(sides > 0, sides, errors[:, places])
    held = found.fixed[:, places]
    sides[0, held], tilts[0, held] = sides[1, held], tilts[1, held]
    errors[:, places] = half_width(sides, np.nan_to_num(tilts))
    return errors


def likelihood_sides(
    found: Fitted,
    lines: Lines,
    scale: FloatArray,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> tuple[FloatArray, FloatArray]:
    """The likelihood on both sides of the velocities, widths and fluxes of pairs.

    Arguments as of `pair_errors`; J parameters: velocity and width of each component, then the
    fluxes of the first, then those of the second.

    Returns:
        (2, N, J) distances from the fit to where the least chi-square over all other parameters has
        risen by scale^2: down, then up. NaN where no such place was found.
        (2, N, J) half the logarithm by which the determinant of the normal matrix of all other
        parameters is larger there.
    """
    places = _places(found)
    rise = torch.from_numpy(scale**2).to(lines.flux)
    rows = torch.arange(2 * places.size * len(scale), device=lines.flux.device)
    work = partial(_sides, found, lines, places, rise, bounds)
    ends = in_chunks(work, rows).reshape(-1, 2, places.size, 2) if len(rows) else rise.new_empty(0)
    sides, tilts = ends.reshape(-1, 2, places.size, 2).cpu().numpy().transpose(3, 1, 0, 2)
    return sides, tilts


def half_width(sides: FloatArray, tilts: FloatArray) -> FloatArray:
    """(...) half the symmetric interval that holds 68.27 % of a density of two halves.

    At the distance x = s t of a side s the density is exp(-t^2 / 2 - k t), k its tilt: the
    likelihood integrated over all other parameters, by Laplace's approximation (Tierney & Kadane
    1986, JASA 81, 82). Without tilts this is the two-piece normal distribution.

    sides: (2, ...) in any unit, at least 0. tilts: (2, ...).
    """
    tilts = tilts.clip(-_MOST_TILT, _MOST_TILT)
    safe = np.where(sides > 0, sides, np.nan)
    weight = safe * np.exp(tilts**2 / 2)
    start = erf(tilts / np.sqrt(2))
    whole = (weight * (1 - start)).sum(axis=0)
    low, high = np.zeros_like(whole), 6 * safe.max(axis=0)
    for _ in range(30):
        middle = (low + high) / 2
        held = (weight * (erf((middle / safe + tilts) / np.sqrt(2)) - start)).sum(axis=0)
        less = held < _WITHIN * whole
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return np.asarray(np.where(sides.max(axis=0) > 0, high, sides.max(axis=0)))


def _places(found: Fitted) -> IntArray:
    """(J,) where velocities, widths and fluxes of the pair stand among all parameters."""
    size = found.layout.nonlinear
    return np.r_[0:PAIR, size : size + 2 * len(found.layout.groups)]


@dataclass(frozen=True)
class _Place:
    """Chi-square around values of all parameters but the continuum's, which is at its best.

    The n parameters are those of the curves of a `Task`, then theta.
    """

    values: Tensor  # (B, n)
    chi2: Tensor  # (B,)
    matrix: Tensor  # (B, n, n) normal matrix
    down: Tensor  # (B, n) half the downhill gradient

    def take(self, rows: Tensor) -> _Place:
        """Some of the rows."""
        return _Place(*(getattr(self, field.name)[rows] for field in fields(self)))

    def put(self, rows: Tensor, other: _Place) -> None:
        """Write other into some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)


@dataclass(frozen=True)
class _Goal:
    """The ends that are looked for, one in each of B rows."""

    place: Tensor  # (B,) of the parameter
    sign: Tensor  # (B,) -1 for the lower end, 1 for the upper one
    chi2: Tensor  # (B,) at the end
    rise: Tensor  # (B,) of chi-square from the minimum
    low: Tensor  # (B, n) bounds
    high: Tensor  # (B, n)

    def take(self, rows: Tensor) -> _Goal:
        """Some of the rows."""
        return _Goal(*(getattr(self, field.name)[rows] for field in fields(self)))

    def of(self, values: Tensor) -> Tensor:
        """(B,) that parameter's entry of values (B, n)."""
        return values.gather(1, self.place[:, None])[:, 0]


def _sides(
    found: Fitted, lines: Lines, places: IntArray, rise: Tensor, bounds: Bounds, rows: Tensor
) -> Tensor:
    """(B, 2) distances of ends in the units of `Fitted`, and tilts; NaN where there is no end.

    rows: (B,) numbers of ends: those of the first spectrum, at first the lower ones in the order of
        the places, then the upper ones; those of the next spectrum; and so on.
    """
    count = len(places)
    spectra, which = torch.unique(rows // (2 * count), return_inverse=True)
    part, some = found.take(spectra.cpu().numpy()), lines.take(spectra)
    task = prepare(found.layout, some, bounds, reach=_reach(part, some))
    values, inner = _inside(task, part, places)
    start = _around(task, values).take(which)
    kind = rows % count
    sign = torch.where(rows % (2 * count) < count, -1.0, 1.0).to(rise)
    task = task.take(which)
    goal = _goal(task, inner[kind], sign, start.chi2, rise[spectra][which])
    end, tilt = _walk(task, start, goal)
    away = _outside(task, kind, end) - _outside(task, kind, goal.of(start.values))
    return torch.stack([away.abs(), tilt], 1)


def _outside(task: Task, kind: Tensor, value: Tensor) -> Tensor:
    """(B,) values of velocities, widths and fluxes of a pair in the units of `Fitted`."""
    width = (value**2 - task.reference[:, 0] ** 2).clamp(min=0).sqrt()
    is_width = (kind < PAIR) & (kind % 2 == 1)
    return torch.where(kind < PAIR, torch.where(is_width, width, value), value / task.unit[:, 0])


def _reach(found: Fitted, lines: Lines) -> float:
    """km/s within which all narrow lines are seen whole, and with some room to move."""
    pair = torch.from_numpy(np.nan_to_num(found.nonlinear[:, :PAIR])).to(lines.flux)
    width = torch.hypot(pair[:, 1::2], lines.instrument.amax(1, keepdim=True))
    return float((pair[:, 0::2].abs() + _DRAWN * width).max())


def _inside(task: Task, found: Fitted, places: IntArray) -> tuple[Tensor, Tensor]:
    """(B, n) parameters in the units and the order of a `_Place`, and where the places stand."""
    curves, size = len(task.order), found.layout.nonlinear
    nonlinear = torch.from_numpy(found.nonlinear).to(task.low)
    linear = torch.from_numpy(found.linear[:, :curves]).to(task.low)
    linear[:, : found.layout.fluxes] *= task.unit
    values = torch.cat([torch.empty_like(linear), task.inside(nonlinear)], 1)
    values[:, task.order] = linear
    order = torch.cat([curves + torch.arange(size, device=task.order.device), task.order])
    return values, order[torch.from_numpy(places).to(order.device)]


def _goal(task: Task, place: Tensor, sign: Tensor, chi2: Tensor, rise: Tensor) -> _Goal:
    """The goals of a task's rows, whose least chi-square is chi2 (B,)."""
    curves = len(task.order)
    low = torch.cat([task.low.new_zeros(len(chi2), curves), task.low], 1)
    high = torch.cat([task.upper.expand(len(chi2), -1), task.high], 1)
    # A flux may fall below 0 in its own interval, so that this has two sides.
    own = torch.where(place < curves, -torch.inf, low.gather(1, place[:, None])[:, 0])
    low.scatter_(1, place[:, None], own[:, None])
    return _Goal(place, sign, chi2 + rise, rise, low, high)


def _around(task: Task, values: Tensor) -> _Place:
    """Chi-square around values (B, n)."""
    curves = len(task.order)
    point = evaluate(task, values[:, curves:], torch.zeros_like(values[:, :curves]), 0)
    heights = values[:, :curves]
    derivatives(task, replace(point, linear=heights))
    rows = task.rows[:, task.curves.start :]
    products = rows @ task.rows.transpose(1, 2)
    own, right = products[:, :, : task.smooth], products[:, :, task.smooth]
    matrix = torch.baddbmm(products[:, :, task.smooth + 1 :], own, own.transpose(1, 2), alpha=-1)
    model = (matrix[:, :, :curves] @ heights[:, :, None])[:, :, 0]
    fall = ((2 * right - model)[:, :curves] * heights).sum(1)
    return _Place(values, task.rest - fall, matrix, right - model)


def _walk(task: Task, start: _Place, goal: _Goal) -> tuple[Tensor, Tensor]:
    """(B,) values of the parameters at the ends and (B,) the tilts; NaN where none was found."""
    begin, narrow = goal.of(start.values), _narrowness(start, goal)
    found = torch.full_like(begin, torch.nan)
    tilt = found.clone()
    rows = torch.arange(len(begin), device=begin.device)
    here, last = start, begin
    for _ in range(_ROUNDS):
        target = _step(here, goal)
        end = goal.of(target)
        done = (end - last).abs() <= _CLOSE * (end - begin).abs()
        found[rows[done]] = end[done]
        tilt[rows[done]] = (_narrowness(here, goal) - narrow)[done] / 2
        go = (~done).nonzero()[:, 0]
        if not len(go):
            break
        if len(go) < len(done):
            task, here, goal, rows = task.take(go), here.take(go), goal.take(go), rows[go]
        begin, narrow, last = begin[go], narrow[go], end[go]
        here = _moved(task, here, goal, target[go])
    return found, tilt


def _narrowness(here: _Place, goal: _Goal) -> Tensor:
    """(B,) log determinant of the normal matrix of all parameters but the goal's."""
    free = here.matrix.diagonal(dim1=1, dim2=2) > 0
    free = free.scatter(1, goal.place[:, None], False)
    unit, scale = scaled(here.matrix, free)
    factor, _ = torch.linalg.cholesky_ex(unit)
    return 2 * (factor.diagonal(dim1=1, dim2=2).log() - scale.log()).sum(1)


def _moved(task: Task, here: _Place, goal: _Goal, target: Tensor) -> _Place:
    """The place at target (B, n), or half or less of the way there where chi-square rises far."""
    there = _around(task, target)
    for _ in range(_HALVINGS):
        far = (~(there.chi2 - goal.chi2 <= _FAR * goal.rise)).nonzero()[:, 0]
        if not len(far):
            break
        middle = (here.values[far] + there.values[far]) / 2
        there.put(far, _around(task.take(far), middle))
    return there


def _step(here: _Place, goal: _Goal) -> Tensor:
    """(B, n) values where chi-square, as seen from here, has its end: the farthest in the goal's
    parameter at which it is no larger.

    The step of Venzon & Moolgavkar (1988, Applied Statistics 37, 87) with the normal matrix for the
    curvature. Where it leaves the bounds, the parameter that is farthest out in units of its error
    is put on its bound and the others follow; up to `_STOPPED` times.
    """
    free = here.matrix.diagonal(dim1=1, dim2=2) > 0
    unit, scale = scaled(here.matrix, free)
    scale = scale * free
    covariance = torch.cholesky_inverse(torch.linalg.cholesky_ex(unit)[0])
    covariance = covariance * scale[:, :, None] * scale[:, None, :]
    best = (covariance @ here.down[:, :, None])[:, :, 0]  # to the minimum
    least = here.chi2 - (here.down * best).sum(1)
    best = here.values + best
    rows = torch.arange(len(best), device=best.device)
    for left in range(_STOPPED, -1, -1):
        own = covariance[rows, goal.place]
        length = ((goal.chi2 - least).clamp(min=0) / goal.of(own).clamp(min=1e-300)).sqrt()
        end = best + (goal.sign * length)[:, None] * own
        inside = torch.minimum(torch.maximum(end, goal.low), goal.high)
        variance = covariance.diagonal(dim1=1, dim2=2).clamp(min=0)
        out = torch.where(variance > 0, (end - inside).square() / variance, 0.0)
        out = out.scatter(1, goal.place[:, None], 0.0)
        worst, which = out.max(1)
        if left == 0 or not bool((worst > 0).any()):
            break
        # the distribution of the others, given that one
        column = covariance[rows, which] / variance[rows, which].clamp(min=1e-300)[:, None]
        column = column * (worst > 0)[:, None]
        gap = (inside - best)[rows, which]
        least = least + torch.where(worst > 0, gap**2 / variance[rows, which], 0.0)
        best = best + gap[:, None] * column
        covariance = covariance - column[:, :, None] * covariance[rows, which][:, None, :]
        held = torch.zeros_like(out, dtype=torch.bool)
        held[rows, which] = worst > 0
        covariance = covariance.masked_fill(held[:, :, None] | held[:, None, :], 0.0)
    return inside
