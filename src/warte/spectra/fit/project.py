"""The linear half of a line fit: the best fluxes for given velocities and widths, and slopes there.

For given velocities and widths the model is linear in fluxes, absorption and continuum. The
continuum is projected out of the data once (`prepare`); fluxes and absorption are found by least
squares between bounds (`bounded`); what is left of chi-square depends on velocities and widths
alone, and `normal` tells how: variable projection (Golub & Pereyra 1973, SIAM J. Numer. Anal. 10,
413) with the Jacobian of Kaufman (1975, BIT 15, 49).

Inside, a width is the total one at the mean instrument, sqrt(sigma^2 + reference^2): in it the
model is smooth also where a line is not resolved. These internal parameters are called theta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from warte.spectra.fit.layout import Layout, rest_wavelengths
from warte.spectra.fit.profile import (
    ABSORPTION_LIMIT,
    absorption,
    blocks,
    densities,
    levels,
    polynomials,
    velocities,
)
from warte.spectra.spectrum import C_KM_S

_LEAST = 0.4  # of the least exponent: profiles are cut there, as numbers that underflow are slow


@dataclass(frozen=True)
class Lines:
    """The pixels of many spectra around their lines; float64 tensors on one device.

    wavelength: (N, P) rest Angstrom, rising, padded with the last value.
    flux: (N, P) per Angstrom; what stands where the weight is 0 has no effect.
    weight: (N, P) inverse variance, 0 where a pixel is missing or padding.
    instrument: (N, L) width (sigma) of the instrument's profile at each of `layout.lines`, km/s.
    """

    wavelength: Tensor
    flux: Tensor
    weight: Tensor
    instrument: Tensor

    def __len__(self) -> int:
        return len(self.wavelength)

    def take(self, rows: Tensor | slice) -> Lines:
        """Some of the spectra."""
        return Lines(
            self.wavelength[rows], self.flux[rows], self.weight[rows], self.instrument[rows]
        )


@dataclass(frozen=True)
class Bounds:
    """Allowed velocities and intrinsic widths, (low, high) in km/s."""

    velocity: tuple[float, float] = (-1000.0, 1000.0)  # of a narrow component
    sigma: tuple[float, float] = (10.0, 1200.0)  # of a narrow component
    broad_velocity: tuple[float, float] = (-3000.0, 3000.0)  # of the broad component
    broad_sigma: tuple[float, float] = (400.0, 8000.0)  # of the broad component


@dataclass(frozen=True)
class Part:
    """Lines of one window that belong to the same systems, each line over its own columns.

    B spectra, C systems, J lines, n columns; the curves of a part follow each other, system by
    system and group by group.
    """

    systems: slice  # among the kinematic systems
    curves: slice  # among the curves
    groups: tuple[tuple[int, ...], ...]  # of each line: the groups that hold it
    begins: tuple[int, ...]  # of each line: its first column
    mix: Tensor  # (G, J) flux of a line as a multiple of its group's parameter
    peaks: Tensor  # (J,) peak of a profile of flux 1 and width 1 km/s
    own: Tensor  # (B, 1, J) square of the instrument's width less that of the reference
    seen: Tensor  # (B, 1, J, n) velocities of the columns
    root: Tensor  # (B, 1, J, n) roots of the weights, in the unit of the task
    room: Tensor  # (3, B, C, J, n) memory for distances, profiles and slopes

    def take(self, rows: Tensor) -> Part:
        """The same for some of the spectra, each as often as it is named; it shares the memory."""
        own, room = self.own[rows], self.room
        if len(own) > room.shape[1]:
            room = room.new_empty(len(room), len(own), *room.shape[2:])
        room = room[:, : len(own)]
        return replace(self, own=own, seen=self.seen[rows], root=self.root[rows], room=room)


@dataclass(frozen=True)
class Task:
    """What stays the same during the fit of a chunk of B spectra.

    `rows` are products of pixels with the roots of their weights, over P columns: F of the
    orthonormal continuum and one of the data without it; then, written by every evaluation, M'
    curves of the bounded linear parameters, and K slopes. The curves are the absorption, if there
    is one, and the groups of each part; `order` leads back to the order of the linear parameters.

    The memory of curves, slopes and parts is written over by every evaluation, as fresh memory
    is slow: a `Point` must be used up before the next is made.
    """

    layout: Layout
    parts: tuple[Part, ...]
    columns: slice  # the P columns among all
    order: Tensor  # (M',) place of each linear parameter among the curves
    upper: Tensor  # (M',) largest value of each curve's parameter
    rows: Tensor  # (B, F + 1 + M' + K, P)
    turn: Tensor  # (B, F, F) lower triangle, polynomials = turn @ continuum's rows
    share: Tensor  # (B, F) products of the continuum's rows and the data
    unit: Tensor  # (B, 1) largest root of a weight; the curves are made with roots in this unit
    reference: Tensor  # (B, 1) mean width of the instrument
    low: Tensor  # (B, K) bounds of theta
    high: Tensor  # (B, K)
    rest: Tensor  # (B,) chi-square without any line
    measured: Tensor  # (B,) number of measured pixels
    spread: Tensor  # (B,) km/s by which any line may be wider than theta says, in quadrature
    level: Tensor  # (B, windows) continuum to which the absorption refers

    @property
    def smooth(self) -> int:
        """F, the number of the continuum's rows."""
        return self.turn.shape[1]

    @property
    def known(self) -> int:
        """How many rows no evaluation writes: continuum, data and absorption."""
        return self.smooth + 1 + self.layout.absorption

    @property
    def curves(self) -> slice:
        """The rows of the curves."""
        return slice(self.smooth + 1, self.smooth + 1 + len(self.order))

    def take(self, rows: Tensor) -> Task:
        """The same for some of the spectra."""
        return replace(
            self,
            parts=tuple(part.take(rows) for part in self.parts),
            rows=_fresh(self.rows[rows, : self.known], self.rows.shape[1]),
            turn=self.turn[rows],
            share=self.share[rows],
            unit=self.unit[rows],
            reference=self.reference[rows],
            low=self.low[rows],
            high=self.high[rows],
            rest=self.rest[rows],
            measured=self.measured[rows],
            spread=self.spread[rows],
            level=self.level[rows],
        )

    def to(self, dtype: torch.dtype) -> Task:
        """The same in another precision."""

        def cast(thing: Task | Part) -> dict[str, Any]:
            tensors = {key: value for key, value in vars(thing).items() if torch.is_tensor(value)}
            return {k: v.to(dtype) for k, v in tensors.items() if v.is_floating_point()}

        parts = [
            replace(part, **cast(part) | {"room": torch.empty_like(part.room, dtype=dtype)})
            for part in self.parts
        ]
        rows = _fresh(self.rows[:, : self.known].to(dtype), self.rows.shape[1])
        return replace(self, **cast(self) | {"rows": rows}, parts=tuple(parts))

    def inside(self, nonlinear: Tensor) -> Tensor:
        """Theta, within bounds, of velocities and intrinsic widths, (B, K) both."""
        theta = nonlinear.to(self.low.dtype, copy=True)
        theta[:, 1::2] = torch.hypot(theta[:, 1::2], self.reference.expand_as(theta[:, 1::2]))
        return self.clip(theta)

    def outside(self, theta: Tensor) -> Tensor:
        """Velocities and intrinsic widths of theta, (B, K) both."""
        nonlinear = theta.clone()
        nonlinear[:, 1::2] = (theta[:, 1::2] ** 2 - self.reference**2).clamp(min=0).sqrt()
        return nonlinear

    def clip(self, theta: Tensor) -> Tensor:
        """Theta moved onto its bounds where it is outside."""
        return torch.minimum(torch.maximum(theta, self.low), self.high)


def _fresh(known: Tensor, count: int) -> Tensor:
    rows = known.new_empty(len(known), count, known.shape[2])
    rows[:, : known.shape[1]] = known
    return rows


@dataclass(frozen=True)
class Point:
    """The model at theta with its best fluxes and absorption."""

    theta: Tensor  # (B, K)
    chi2: Tensor  # (B,)
    linear: Tensor  # (B, M') parameters of the curves; fluxes in the unit of the task
    side: Tensor  # (B, M') -1 on the lower bound, 0 between, 1 on the upper bound
    cross: Tensor  # (B, M', F + 1 + M') products of the curves and the rows up to them
    gram: Tensor  # (B, M', M') products of the curves without their continuum


def prepare(layout: Layout, lines: Lines, bounds: Bounds, *, reach: float = torch.inf) -> Task:
    """Lay out a chunk of spectra for evaluation.

    Args:
        layout: the model.
        lines: B usable spectra.
        bounds: allowed velocities and widths.
        reach: narrow lines are left out farther than this from their rest wavelength, km/s.
    """
    flux = torch.where(lines.weight > 0, lines.flux, 0.0)
    root = lines.weight.sqrt()
    smooth = polynomials(layout, lines.wavelength) * root[:, None]
    frame = orthonormal(smooth)
    whole = flux * root
    data = without(frame, whole)
    known = [frame, data[:, None]]
    level = torch.zeros_like(root[:, : len(layout.windows)])
    if layout.absorption:
        seen = velocities(layout, lines.wavelength)
        level = levels(layout, lines.wavelength, flux, lines.weight)
        known.append((absorption(layout, seen, lines.instrument, level) * root)[:, None])
    reference = lines.instrument.mean(1, keepdim=True)
    low, high = _limits(layout, bounds, reference)
    unit = root.amax(1, keepdim=True)
    unit = torch.where(unit > 0, unit, 1.0)
    parts, places, columns = _parts(layout, lines, root / unit, reference, reach)
    upper = root.new_full((len(places),), torch.inf)
    upper[: int(layout.absorption)] = ABSORPTION_LIMIT
    rows = torch.cat(known, 1)[:, :, columns]
    return Task(
        layout,
        parts,
        columns,
        torch.tensor(places, device=root.device).argsort(),
        upper,
        _fresh(rows, frame.shape[1] + 1 + len(places) + layout.nonlinear),
        smooth @ frame.transpose(1, 2),
        (frame @ whole[:, :, None])[:, :, 0],
        unit,
        reference,
        low,
        high,
        data.square().sum(1),
        (lines.weight > 0).sum(1).to(root.dtype),
        (lines.instrument**2 - reference**2).amax(1).clamp(min=0.0).sqrt(),
        level,
    )


def _parts(
    layout: Layout, lines: Lines, root: Tensor, reference: Tensor, reach: float
) -> tuple[tuple[Part, ...], list[int], slice]:
    """The parts of a task, which linear parameter each curve is, and the columns of all parts."""
    unit = densities(layout, torch.ones_like(lines.instrument[0]))
    rest = rest_wavelengths(layout)
    found: list[Part] = []
    places = [layout.fluxes] * layout.absorption
    for block in blocks(layout):
        which = list(block.lines)
        limit = reach if block.systems[0] < layout.components else torch.inf
        begins, width = _columns(layout, lines, which, block.window, limit)
        first = len(places)
        places += [place for fluxes in block.fluxes for place in fluxes]
        seen = [
            (lines.wavelength[:, at : at + width] / rest[line] - 1) * C_KM_S
            for line, at in zip(which, begins, strict=True)
        ]
        found.append(
            Part(
                slice(block.systems[0], block.systems[-1] + 1),
                slice(first, len(places)),
                tuple(
                    tuple(g for g, row in enumerate(block.mix) if row[j]) for j in range(len(which))
                ),
                begins,
                root.new_tensor(block.mix),
                unit[which],
                lines.instrument[:, None, which] ** 2 - reference[:, None] ** 2,
                torch.stack(seen, 1)[:, None],
                torch.stack([root[:, at : at + width] for at in begins], 1)[:, None],
                root.new_empty(3, len(root), len(block.systems), len(which), width),
            )
        )
    start = 0 if layout.absorption else min(min(part.begins) for part in found)
    stop = max(max(part.begins) + part.seen.shape[-1] for part in found)
    columns = slice(start, root.shape[1] if layout.absorption else stop)
    parts = [replace(p, begins=tuple(at - start for at in p.begins)) for p in found]
    return tuple(parts), places, columns


def _columns(
    layout: Layout, lines: Lines, which: list[int], window: int, reach: float
) -> tuple[tuple[int, ...], int]:
    """For each line the first of the columns it is seen in, the same number for all."""
    rest = lines.wavelength.new_tensor(rest_wavelengths(layout))[which]
    low, high = layout.windows[window]
    ends = torch.stack([rest * (1 - reach / C_KM_S), rest * (1 + reach / C_KM_S)]).clamp(low, high)
    ends = ends.flatten().expand(len(lines), -1).contiguous()
    found = torch.searchsorted(lines.wavelength, ends).unflatten(1, (2, -1))
    first, last = found[:, 0].amin(0).tolist(), found[:, 1].amax(0).tolist()
    total = lines.wavelength.shape[1]
    width = max(1, *(min(z + 1, total) - a for a, z in zip(first, last, strict=True)))
    return tuple(min(a, total - width) for a in first), width


def _limits(layout: Layout, bounds: Bounds, reference: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) lowest and highest theta."""
    kinds = [bounds.velocity, bounds.sigma] * layout.components
    if layout.broad:
        kinds += [bounds.broad_velocity, bounds.broad_sigma]
    ends = []
    for end in (0, 1):
        row = reference.new_tensor([kind[end] for kind in kinds]).repeat(len(reference), 1)
        row[:, 1::2] = torch.hypot(row[:, 1::2], reference.expand_as(row[:, 1::2]))
        ends.append(row)
    return ends[0], ends[1]


def orthonormal(rows: Tensor) -> Tensor:
    """Rows (B, R, P) made orthonormal by Gram and Schmidt, twice; dependent ones become 0."""
    done = torch.empty_like(rows)
    for rank in range(rows.shape[1]):
        row = rows[:, rank]
        length = row.square().sum(1)
        if rank:
            row = without(done[:, :rank], row)
        rest = row.square().sum(1)
        good = rest > 1e4 * torch.finfo(rows.dtype).eps * length
        done[:, rank] = torch.where(good, rest, torch.inf).rsqrt()[:, None] * row
    return done


def without(frame: Tensor, row: Tensor) -> Tensor:
    """Row (B, P) without its share in an orthonormal frame (B, R, P); twice, for full accuracy."""
    row = row[:, None]
    for _ in range(2):
        row = torch.baddbmm(row, row @ frame.transpose(1, 2), frame, alpha=-1)
    return row[:, 0]


def evaluate(
    task: Task, theta: Tensor, side: Tensor | None = None, rounds: int | None = None
) -> Point:
    """Chi-square and best linear parameters at theta (B, K).

    side: a guess of where the linear parameters are, as in `Point`; it only saves time.
    rounds: of corrections to it, see `bounded`.
    """
    curves = task.rows[:, task.curves]
    curves[:, int(task.layout.absorption) :].zero_()
    least = _LEAST * math.log(torch.finfo(curves.dtype).tiny)
    for part in task.parts:
        distance, profile, _ = part.room
        width = _widths(part, theta)
        centre = theta[:, 0::2][:, part.systems, None, None]
        torch.sub(part.seen, centre, out=distance).mul_(width.reciprocal()[..., None])
        torch.mul(distance, distance, out=profile).mul_(-0.5).clamp_(min=least).exp_()
        profile.mul_(part.root)
        mix = part.mix * (part.peaks / width)[:, :, None, :]
        rows = curves[:, part.curves].unflatten(1, mix.shape[1:3])
        for line, (begin, groups) in enumerate(zip(part.begins, part.groups, strict=True)):
            end = begin + profile.shape[-1]
            for group in groups:
                height = mix[:, :, group, line, None]
                rows[:, :, group, begin:end].addcmul_(profile[:, :, line], height)
    cross = curves @ task.rows[:, : task.curves.stop].transpose(1, 2)
    own, right = cross[:, :, : task.smooth], cross[:, :, task.smooth]
    gram = torch.baddbmm(cross[:, :, task.curves], own, own.transpose(1, 2), alpha=-1)
    linear, side = bounded(gram, right, task.upper, side, rounds)
    fall = ((2 * right - (gram @ linear[:, :, None])[:, :, 0]) * linear).sum(1)
    return Point(theta, task.rest - fall, linear, side, cross, gram)


def _widths(part: Part, theta: Tensor) -> Tensor:
    """(B, C, J) total width at each line of the widths in theta."""
    squares = theta[:, 1::2][:, part.systems, None] ** 2 + part.own
    return squares.clamp(min=1e-6).sqrt()


def derivatives(task: Task, point: Point) -> Tensor:
    """(B, K, P) derivatives of the model by theta at the point just made, times root."""
    theta = point.theta
    slopes = task.rows[:, task.curves.stop :].zero_()
    for part in task.parts:
        distance, profile, slope = part.room
        width = _widths(part, theta)
        flux = point.linear[:, part.curves].unflatten(1, (-1, len(part.mix))) @ part.mix
        height = flux * part.peaks / width**2
        stretch = height * theta[:, 1::2][:, part.systems, None] / width
        by_velocity = slopes[:, 0::2][:, part.systems]
        by_width = slopes[:, 1::2][:, part.systems]
        torch.mul(distance, profile, out=slope)
        for line, begin in enumerate(part.begins):
            end = begin + profile.shape[-1]
            by_velocity[..., begin:end].addcmul_(slope[:, :, line], height[:, :, line, None])
        slope.mul_(distance).sub_(profile)
        for line, begin in enumerate(part.begins):
            end = begin + profile.shape[-1]
            by_width[..., begin:end].addcmul_(slope[:, :, line], stretch[:, :, line, None])
    return slopes


def normal(task: Task, point: Point) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes of chi-square at the point just made.

    Returns:
        Kaufman's normal matrix (B, K, K) of theta, half the downhill gradient (B, K), and the
        products (B, K, F + 1 + M' + K) of the slopes and all rows.
    """
    cross = derivatives(task, point) @ task.rows.transpose(1, 2)
    own = cross[:, :, : task.smooth]
    curves = point.cross[:, :, : task.smooth]
    mixed = torch.baddbmm(cross[:, :, task.curves], own, curves.transpose(1, 2), alpha=-1)
    plain = torch.baddbmm(cross[:, :, task.curves.stop :], own, own.transpose(1, 2), alpha=-1)
    down = cross[:, :, task.smooth] - (mixed @ point.linear[:, :, None])[:, :, 0]
    free = point.side == 0
    unit, scale = scaled(point.gram, free)
    factor, _ = torch.linalg.cholesky_ex(unit)
    seen = (mixed * (scale * free)[:, None, :]).transpose(1, 2)
    half = torch.linalg.solve_triangular(factor, seen, upper=False)
    return torch.baddbmm(plain, half.transpose(1, 2), half, alpha=-1), down, cross


def bounded(
    gram: Tensor,
    right: Tensor,
    upper: Tensor,
    side: Tensor | None = None,
    rounds: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Least squares with 0 <= x <= upper: the smallest x gram x / 2 - right x.

    Block principal pivoting (Portugal, Judice & Vicente 1994, Math. Comp. 63, 625): all entries
    that are out of bounds, or on a bound with a slope inwards, change at once; should that not
    end, only the last of them does, which surely ends.

    Args:
        gram: (B, M, M) symmetric, not negative.
        right: (B, M).
        upper: (M,), infinity allowed.
        side: (B, M) guess of the result's.
        rounds: changes at most; with few the result may not be the smallest, but lies within
            bounds. None: as many as it takes.

    Returns:
        (B, M) solutions, and (B, M) where their entries are: -1 on the lower bound, 0 between, 1
        on the upper bound. Entries that nothing tells (diagonal 0) are 0 and called -1.
    """
    size = gram.shape[1]
    told = gram.diagonal(dim1=1, dim2=2) > 0
    unit, scale = scaled(gram, told)
    b, top = right * scale, upper / scale
    side = torch.where(told, 0 if side is None else side, -1)
    x = _between(unit, b, top, side)
    rows = torch.arange(len(gram), device=gram.device)
    inputs = (unit, b, top, told, x, side)
    for turn in range(6 * size if rounds is None else rounds):
        target = _wanted(*inputs, alone=turn >= 2 * size)
        wrong = (target != inputs[-1]).any(1).nonzero()[:, 0]
        if not len(wrong):
            break
        rows, target = rows[wrong], target[wrong]
        unit, b, top, told = (value[wrong] for value in inputs[:4])
        inputs = (unit, b, top, told, _between(unit, b, top, target), target)
        x[rows], side[rows] = inputs[4:]
    x = torch.minimum(x.clamp(min=0.0) * scale, upper)
    return torch.where(side > 0, upper, x), side


def _wanted(
    unit: Tensor, b: Tensor, top: Tensor, told: Tensor, x: Tensor, side: Tensor, *, alone: bool
) -> Tensor:
    """(B, M) the sides that the conditions of Karush, Kuhn and Tucker ask for next."""
    slope = b - (unit @ x[:, :, None])[:, :, 0]
    small = torch.finfo(b.dtype).eps ** 0.75 * b.abs().amax(1, keepdim=True)
    free = side == 0
    target = torch.where(free & (x < 0), -1, side)
    target = torch.where(free & (x > top), 1, target)
    inward = ((side < 0) & (slope > small) & told) | ((side > 0) & (slope < -small))
    target = torch.where(inward, 0, target)
    if alone:
        change = target != side
        last = change & (change.flip(1).cumsum(1).flip(1) == 1)
        target = torch.where(last, target, side)
    return target


def _between(unit: Tensor, b: Tensor, top: Tensor, side: Tensor) -> Tensor:
    """(B, M) solution of the free entries while the others stay on their bounds."""
    free = side == 0
    held = torch.where(side > 0, top, 0.0)
    right = torch.where(free, b - (unit @ held[:, :, None])[:, :, 0], held)
    return solve_free(unit, right, free)


def scaled(matrix: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (B, n, n) with unit diagonal, and the scale (B, n) that did it; 1 where not free."""
    scale = torch.where(free, matrix.diagonal(dim1=1, dim2=2), 1.0).rsqrt()
    return masked(matrix * scale[:, :, None] * scale[:, None, :], free), scale


def masked(unit: Tensor, free: Tensor, damping: Tensor | None = None) -> Tensor:
    """A matrix (B, n, n) of unit diagonal with what is not free replaced by the identity.

    A little is added to the diagonal, so that components that merged stay solvable, and the
    damping (B,) where it is given.
    """
    kept = unit.masked_fill(~(free[:, :, None] & free[:, None, :]), 0.0)
    diagonal = kept.diagonal(dim1=1, dim2=2)
    diagonal.fill_(1 + torch.finfo(unit.dtype).eps ** 0.75)
    if damping is not None:
        diagonal += damping[:, None]
    return kept


def solve_free(unit: Tensor, right: Tensor, free: Tensor, damping: Tensor | None = None) -> Tensor:
    """(B, n) solution of systems of unit diagonal (B, n, n); what is not free keeps its right."""
    factor, _ = torch.linalg.cholesky_ex(masked(unit, free, damping))
    return torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
