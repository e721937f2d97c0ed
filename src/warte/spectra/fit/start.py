"""Where the fits begin: velocities and widths found from the data alone.

A line is looked for with a bank of Gaussians over velocity and width. For each of them the score
test (Rao 1948, Proc. Camb. Phil. Soc. 44, 50) says how much chi-square would fall if it were added
and all that is already in the model gave way a little: continuum, fluxes, and, for a second
component, velocity and width of the first. The highest peaks of that map are the starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from warte.spectra.fit.layout import Layout, rest_wavelengths
from warte.spectra.fit.project import (
    Bounds,
    Lines,
    Task,
    derivatives,
    evaluate,
    orthonormal,
    prepare,
    without,
)
from warte.spectra.fit.solve import REACH, in_chunks, scout
from warte.spectra.spectrum import C_KM_S

_MARGIN, _TOLERANCE = 1.0, 0.1  # as in `solve`, for the first of two components
_FIRST, _PEAKS, _PEAKS_OF_BLENDS = 3, 3, 5  # peaks that become starts of a component
# Widths of the bank, km/s, without the instrument's.
_WIDTHS = (10.0, 50.0, 90.0, 140.0, 200.0, 320.0, 550.0, 900.0)
_STEP = 50.0  # between the velocities of the bank, km/s
_BIN, _INSTRUMENT = 34.5, 65.0  # km/s, bins of half a pixel of SDSS, and its usual instrument
_WINGS = 1500.0  # km/s beyond the bounds that the bank looks at
_LEAST_NEW = 0.01  # share of a Gaussian that must be new to the model
_BLENDED, _SWEEPS = 0.01, 3  # overlap from which groups are told apart, and how thoroughly
_BROAD_FROM = 350.0  # km/s, widths left to the broad component where there is one
_BROAD = (700.0, 1500.0, 3200.0)  # widths tried for a broad component, km/s
# Two components from one of velocity v and total width s: (velocity - v) / s and width / s of each.
_SPLITS = ((-0.4, 0.8, 0.4, 0.8), (0.0, 0.7, 0.0, 2.0), (0.0, 0.95, 0.0, 5.0))


@dataclass(frozen=True)
class _Bank:
    """Gaussians of K = widths times velocities over V bins of velocity."""

    velocity: Tensor  # (v,)
    width: Tensor  # (w,) intrinsic
    bins: Tensor  # (V,)
    shapes: Tensor  # (V, K), width by width
    blends: Tensor | None  # (G, G, w) overlap of the groups' profiles, None if there is none


@dataclass(frozen=True)
class _Bins:
    """How the pixels of B spectra fall into the V bins of a bank around each of L lines.

    Every pixel is shared between the two bins it lies between, so that products with a smooth
    shape are those with the shape drawn straight from bin to bin. Bins are half as wide as pixels:
    none gets more than the pixel nearest to it.
    """

    mix: Tensor  # (G, L) height of each line in each group's profile, as a multiple
    root: Tensor  # (B, P) roots of the weights
    place: Tensor  # (B, L, V) the pixel nearest to each bin
    share: Tensor  # (B, L, V) what of it falls into the bin
    raw: Tensor  # (B, G, K) squares of each member of the bank


def starts(
    layout: Layout,
    lines: Lines,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> Tensor:
    """(N, S, K) velocities and widths, km/s, to begin the fit of `layout` from, best first.

    Spectra that cannot be fitted get starts too; they are of no use.
    """

    def work(rows: Tensor) -> Tensor:
        return _starts_of_chunk(layout, lines.take(rows), bounds)

    if not len(lines):
        return lines.flux.new_empty(0, 1, layout.nonlinear)
    return in_chunks(work, torch.arange(len(lines), device=lines.flux.device))


def _starts_of_chunk(layout: Layout, lines: Lines, bounds: Bounds) -> Tensor:
    lines = _mended(lines)
    task = prepare(replace(layout, components=1), lines, bounds, reach=REACH)
    single = task.to(torch.float32)
    bank = _bank(layout, bounds, lines.flux.device)
    bins = _bins(layout, _near(task, lines), bank)
    frame = orthonormal(
        torch.cat([_without_data(single)[:, : single.known - 1], _broad(single)], 1)
    )
    gains = _gains(bins, bank, frame, without(frame, single.rows[:, single.smooth]))
    peaks = _peaks(bank, gains, _FIRST)
    if layout.broad:
        peaks = _with_broad(peaks)
    if layout.components == 1:
        return peaks.to(lines.flux.dtype)
    alone = bank.blends is None and not layout.broad
    theta = scout(task, peaks[:, :1] if alone else peaks, _MARGIN, _TOLERANCE)
    one = single.outside(theta)
    frame, rest = _tangent(single, theta)
    count = _PEAKS if alone else _PEAKS_OF_BLENDS
    second = _peaks(bank, _gains(bins, bank, frame, rest), count)
    added = torch.cat([one[:, None, :2].expand_as(second), second], 2)
    found = torch.cat([added, _splits(one, single.reference)], 1)
    if layout.broad:
        found = torch.cat([found, one[:, None, 2:].expand(-1, found.shape[1], -1)], 2)
        found = torch.cat([found, *_broad_as_second(one)], 1)
    return found.to(lines.flux.dtype)


def _without_data(task: Task) -> Tensor:
    """The rows of a task without the data's."""
    rows = torch.arange(task.rows.shape[1], device=task.rows.device)
    return task.rows[:, rows != task.smooth]


def _broad(task: Task) -> Tensor:
    """(B, R, P) broad lines at rest, of several widths, if the layout has any."""
    layout = task.layout
    if not layout.broad:
        return task.rows[:, :0]
    found = []
    for width in _BROAD:
        nonlinear = task.low.new_tensor([0.0, 100.0] * layout.components + [0.0, width])
        evaluate(task, task.inside(nonlinear.expand_as(task.low)))
        curves = task.rows[:, task.curves][:, task.order]
        found.append(curves[:, layout.fluxes - len(layout.broad) : layout.fluxes])
    return torch.cat(found, 1)


def _near(task: Task, lines: Lines) -> Lines:
    """The columns of a task, the weights in its unit."""
    here = task.columns
    return Lines(
        lines.wavelength[:, here].contiguous(),
        lines.flux[:, here],
        lines.weight[:, here] / task.unit**2,
        lines.instrument,
    )


def _mended(lines: Lines) -> Lines:
    """Without numbers that are not finite, so that every spectrum can be worked on."""
    weight = torch.where(torch.isfinite(lines.flux), lines.weight, 0.0)
    return Lines(
        torch.nan_to_num(lines.wavelength, nan=1.0),
        torch.nan_to_num(lines.flux),
        torch.nan_to_num(weight, posinf=0.0).clamp(min=0.0),
        torch.nan_to_num(lines.instrument, nan=_INSTRUMENT),
    )


def _bank(layout: Layout, bounds: Bounds, device: torch.device) -> _Bank:
    """Gaussians of many velocities and widths, seen through a usual instrument."""
    low, high = bounds.velocity
    single = torch.float32
    number = max(2, round((high - low) / _STEP) + 1)
    velocity = torch.linspace(low, high, number, dtype=single, device=device)
    widths = [width for width in _WIDTHS if not layout.broad or width < _BROAD_FROM]
    width = torch.tensor(widths, dtype=single, device=device).clamp(*bounds.sigma)
    bins = torch.arange(low - _WINGS, high + _WINGS, _BIN, dtype=single, device=device)
    total = torch.hypot(width, torch.full_like(width, _INSTRUMENT))
    shapes = torch.exp(-0.5 * ((bins[:, None, None] - velocity) / total[:, None]) ** 2)
    shapes = (shapes / total[:, None]).flatten(1)
    return _Bank(velocity, width, bins, shapes, _blends(layout, total))


def _blends(layout: Layout, total: Tensor) -> Tensor | None:
    """(G, G, w) products of the groups' profiles, of norm 1, for each total width (w,)."""
    rest = total.new_tensor(rest_wavelengths(layout))
    apart = (rest[:, None] / rest - 1) * C_KM_S
    overlap = torch.exp(-0.25 * (apart[:, :, None] / total) ** 2)
    mix = _mix(layout, total)
    found = torch.einsum("gl,hm,lmw->ghw", mix, mix, overlap)
    norm = torch.einsum("ggw->gw", found).rsqrt()
    found = found * norm[:, None] * norm[None]
    eye = torch.eye(len(found), device=total.device)[:, :, None]
    return found if bool(((found - eye).abs() > _BLENDED).any()) else None


def _bins(layout: Layout, lines: Lines, bank: _Bank) -> _Bins:
    """Place the pixels of spectra into bins; single precision is enough for that."""
    wavelength = lines.wavelength.to(bank.bins.dtype)
    rest = wavelength.new_tensor(rest_wavelengths(layout))
    target = (rest[:, None] * (1 + bank.bins / C_KM_S)).flatten()
    target = target.expand(len(lines), -1).contiguous()
    after = torch.searchsorted(wavelength, target).clamp(1, wavelength.shape[1] - 1)
    before = target - wavelength.gather(1, after - 1)
    behind = wavelength.gather(1, after) - target
    place = torch.where(before < behind, after - 1, after)
    away = torch.minimum(before.abs(), behind.abs()) / target * (C_KM_S / _BIN)
    place, share = (part.unflatten(1, (len(rest), -1)) for part in (place, (1 - away).clamp(min=0)))
    weight = _binned(lines.weight[:, None].to(rest.dtype), place, share)[:, 0]
    mix = _mix(layout, rest)
    raw = (mix**2 @ weight) @ bank.shapes**2
    return _Bins(mix, lines.weight.sqrt().to(rest.dtype), place, share, raw)


def _binned(rows: Tensor, place: Tensor, share: Tensor) -> Tensor:
    """(B, R, L, V) sums over pixels of rows (B, R, P)."""
    flat = place.flatten(1)[:, None].expand(-1, rows.shape[1], -1)
    return rows.gather(2, flat).unflatten(2, place.shape[1:]) * share[:, None]


def _gains(bins: _Bins, bank: _Bank, frame: Tensor, rest: Tensor) -> Tensor:
    """(B, K) fall of chi-square by a further component, of every member of the bank.

    frame: (B, R, P) orthonormal, what may give way; rest: (B, P) the data without it. The unit of
    the weights does not matter.
    """
    rows = torch.cat([frame, rest[:, None]], 1) * bins.root[:, None]
    first = (bins.mix @ _binned(rows, bins.place, bins.share)) @ bank.shapes  # (B, R + 1, G, K)
    new = bins.raw - first[:, :-1].square().sum(1)
    least = _LEAST_NEW * bins.raw
    score = torch.where(new > least, first[:, -1] * new.clamp(min=0).rsqrt(), 0.0)
    if bank.blends is None:
        return score.clamp(min=0.0).square().sum(1)
    # blended groups must not claim the same light twice: least squares, by descent along axes
    score = score.unflatten(2, (len(bank.width), -1))
    height = torch.zeros_like(score)
    for _ in range(_SWEEPS):
        for group, blend in enumerate(bank.blends):
            others = (blend[:, :, None] * height).sum(1) - height[:, group]
            height[:, group] = (score[:, group] - others).clamp(min=0.0)
    fitted = torch.einsum("ghw,bhwv->bgwv", bank.blends, height)
    return ((2 * score - fitted) * height).sum(1).flatten(1)


def _mix(layout: Layout, like: Tensor) -> Tensor:
    """(G, L) height of each line in each group's profile, as a multiple."""
    rest = rest_wavelengths(layout)
    rows = []
    for group in layout.groups:
        ratio = dict(group.lines)
        rows.append(
            [ratio.get(n, 0.0) / r * rest[0] for n, r in zip(layout.lines, rest, strict=True)]
        )
    return like.new_tensor(rows)


def _peaks(bank: _Bank, gains: Tensor, count: int) -> Tensor:
    """(B, count, 2) velocities and widths of the highest peaks of a map (B, K)."""
    grid = gains.unflatten(1, (len(bank.width), len(bank.velocity)))
    top = _highest_near(_highest_near(grid, 2).transpose(1, 2), 1).transpose(1, 2)
    place = torch.where(grid >= top, grid, -1.0).flatten(1).topk(count, 1).indices
    number = len(bank.velocity)
    return torch.stack([bank.velocity[place % number], bank.width[place // number]], 2)


def _highest_near(values: Tensor, reach: int) -> Tensor:
    """The largest value within some places along the last axis."""
    wide = pad(values, (reach, reach), value=-torch.inf)
    best = values
    for shift in range(2 * reach + 1):
        best = torch.maximum(best, wide[..., shift : shift + values.shape[-1]])
    return best


def _with_broad(narrow: Tensor) -> Tensor:
    """(B, S, 4) each narrow start (B, s, 2) with broad components of several widths."""
    found = []
    for width in _BROAD:
        broad = narrow.clone()
        broad[:, :, 1] = width
        found.append(torch.cat([narrow, broad], 2))
    return torch.cat(found, 1)


def _tangent(task: Task, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal frame (B, R, P) of all the model at theta can do, and the data without it."""
    point = evaluate(task, theta)
    derivatives(task, point)
    task.rows[:, task.curves] *= (point.side == 0)[:, :, None]
    frame = orthonormal(_without_data(task))
    return frame, without(frame, task.rows[:, task.smooth])


def _broad_as_second(one: Tensor) -> list[Tensor]:
    """(B, 1, 6) each: what one narrow and a broad component (B, 4) took for broad as the second.

    Without a second narrow component the broad one often fits the wings of the narrow lines.
    """
    found = []
    for width in _BROAD[1:]:
        broad = torch.stack([one[:, 0], torch.full_like(one[:, 0], width)], 1)
        found.append(torch.cat([one, broad], 1)[:, None])
    return found


def _splits(one: Tensor, reference: Tensor) -> Tensor:
    """(B, S, 4) two components in place of one (B, 2 or 4)."""
    total = torch.hypot(one[:, 1:2], reference)[:, 0]
    found = []
    for split in _SPLITS:
        pair = []
        for offset, share in (split[:2], split[2:]):
            width = ((share * total) ** 2 - reference[:, 0] ** 2).clamp(min=400.0).sqrt()
            pair += [one[:, 0] + offset * total, width]
        found.append(torch.stack(pair, 1))
    return torch.stack(found, 1)
