"""The model of a layout: Gaussian lines, stellar absorption and continuum, as curves to sum.

A line of rest wavelength l0 seen in the velocity u = c (wavelength / l0 - 1) is

    flux c / (sqrt(2 pi) s l0) exp(-(u - v)^2 / (2 s^2)),    s^2 = sigma^2 + instrument^2,

so that its integral over wavelength is the flux. The profile is taken at the pixel's centre. The
stellar absorption of all Balmer lines is one equivalent width times Gaussians of
`ABSORPTION_KM_S` at rest, each scaled by the median flux of its window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from warte.spectra.fit.layout import Layout, Window, rest_wavelengths
from warte.spectra.lines import WAVELENGTH, Group
from warte.spectra.spectrum import C_KM_S

ABSORPTION_KM_S = 450.0  # width (sigma) of the stars' Balmer lines with their wings, km/s
ABSORPTION_LIMIT = 10.0  # Angstrom, about what the youngest A stars show in H-beta
_BALMER = ("H-delta", "H-gamma", "H-beta", "H-alpha")


@dataclass(frozen=True)
class Block:
    """Lines of one window that belong to the same systems, and how their groups are made of them.

    systems: kinematic systems (rows of the non-linear parameters), each with all the lines.
    lines: places in `layout.lines`.
    fluxes: for each system the places of its groups among the linear parameters.
    mix: (groups, lines) flux of each line as a multiple of the group's parameter.
    """

    window: int
    systems: tuple[int, ...]
    lines: tuple[int, ...]
    fluxes: tuple[tuple[int, ...], ...]
    mix: tuple[tuple[float, ...], ...]


def blocks(layout: Layout) -> list[Block]:
    """The lines of a layout sorted by window and kind: narrow ones, then broad ones."""
    count, narrow = len(layout.groups), layout.components
    kinds = [(tuple(range(narrow)), layout.groups, 0)]
    if layout.broad:
        kinds.append(((narrow,), layout.broad, narrow * count))
    found = []
    for systems, groups, first in kinds:
        for number, window in enumerate(layout.windows):
            inside = [place for place, group in enumerate(groups) if _lies_in(group, window)]
            names = [name for place in inside for name, _ in groups[place].lines]
            if not names:
                continue
            mix = tuple(
                tuple(dict(groups[place].lines).get(name, 0.0) for name in names)
                for place in inside
            )
            fluxes = tuple(
                tuple(first + rank * len(groups) + place for place in inside)
                for rank in range(len(systems))
            )
            lines = tuple(layout.lines.index(name) for name in names)
            found.append(Block(number, systems, lines, fluxes, mix))
    return found


def _lies_in(group: Group, window: Window) -> bool:
    return window[0] <= WAVELENGTH[group.lines[0][0]] <= window[1]


def velocities(layout: Layout, wavelength: Tensor) -> Tensor:
    """(N, L, P) velocity, km/s, of each pixel (N, P) (rest Angstrom) as seen from each line."""
    rest = wavelength.new_tensor(rest_wavelengths(layout))
    return (wavelength[:, None, :] / rest[None, :, None] - 1) * C_KM_S


def densities(layout: Layout, widths: Tensor) -> Tensor:
    """(..., L) peaks per Angstrom of profiles of flux 1 and total width (..., L), km/s."""
    rest = widths.new_tensor(rest_wavelengths(layout))
    return C_KM_S / (math.sqrt(2 * math.pi) * widths * rest)


def total_widths(sigma: Tensor, instrument: Tensor) -> Tensor:
    """(N, systems, L) widths with the instrument's (N, L), of intrinsic ones (N, systems), km/s."""
    return torch.hypot(sigma[:, :, None], instrument[:, None, :])


def polynomials(layout: Layout, wavelength: Tensor) -> Tensor:
    """(N, windows (order + 1), P) Legendre polynomials over each window, 0 outside of it."""
    rows = []
    for low, high in layout.windows:
        inside = (wavelength >= low) & (wavelength <= high)
        x = (2 * wavelength - (low + high)) / (high - low)
        before, now = torch.zeros_like(x), torch.ones_like(x)
        for degree in range(layout.order + 1):
            rows.append(torch.where(inside, now, 0.0))
            before, now = now, ((2 * degree + 1) * x * now - degree * before) / (degree + 1)
    return torch.stack(rows, 1)


def levels(layout: Layout, wavelength: Tensor, flux: Tensor, weight: Tensor) -> Tensor:
    """(N, windows) median flux of each window's measured pixels, at least 0; 0 if there are none.

    The lines fill a small part of a window, so the median is a fair continuum; it only sets the
    unit of the absorption.
    """
    found = []
    for low, high in layout.windows:
        inside = (wavelength >= low) & (wavelength <= high) & (weight > 0)
        middle = torch.where(inside, flux, torch.nan).nanmedian(1).values
        found.append(torch.nan_to_num(middle).clamp(min=0.0))
    return torch.stack(found, 1)


def absorption(layout: Layout, seen: Tensor, instrument: Tensor, level: Tensor) -> Tensor:
    """(N, P) the stars' Balmer lines of equivalent width 1 Angstrom, negative.

    seen: (N, L, P) velocities from `velocities`; instrument: (N, L) km/s; level: (N, windows).
    """
    curve = torch.zeros_like(seen[:, 0])
    widths = torch.hypot(instrument, instrument.new_tensor(ABSORPTION_KM_S))
    peaks = densities(layout, widths)
    for place, name in enumerate(layout.lines):
        if name in _BALMER:
            inside = [low <= WAVELENGTH[name] <= high for low, high in layout.windows]
            depth = peaks[:, place] * level[:, inside.index(True)]
            shape = torch.exp(-0.5 * (seen[:, place] / widths[:, place, None]) ** 2)
            curve -= depth[:, None] * shape
    return curve


def parts(
    layout: Layout,
    nonlinear: Tensor,
    linear: Tensor,
    wavelength: Tensor,
    instrument: Tensor,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The curves of which the model is the sum.

    Args:
        layout: what the parameters mean.
        nonlinear: (N, K) velocities and intrinsic widths, km/s.
        linear: (N, M) fluxes, equivalent width of the absorption, polynomials.
        wavelength: (N, P) rest Angstrom.
        instrument: (N, L) width (sigma) of the instrument's profile at each line, km/s.
        level: (N, windows) continuum to which the absorption refers: `Solution.level`.

    Returns:
        (N, systems, P) the lines of each kinematic system, narrow ones first, and (N, P) the
        continuum with its absorption.

    Raises:
        ValueError: the layout has absorption and no level is given.
    """
    seen = velocities(layout, wavelength)
    widths = total_widths(nonlinear[:, 1::2], instrument)
    peaks = densities(layout, widths)
    curves = torch.zeros(
        (len(wavelength), layout.systems, wavelength.shape[1]),
        dtype=wavelength.dtype,
        device=wavelength.device,
    )
    for block in blocks(layout):
        mix = linear.new_tensor(block.mix)
        for system, fluxes in zip(block.systems, block.fluxes, strict=True):
            heights = (linear[:, list(fluxes)] @ mix) * peaks[:, system, list(block.lines)]
            for rank, line in enumerate(block.lines):
                offset = seen[:, line] - nonlinear[:, 2 * system, None]
                shape = torch.exp(-0.5 * (offset / widths[:, system, line, None]) ** 2)
                curves[:, system] += heights[:, rank, None] * shape
    first = layout.fluxes + layout.absorption
    continuum = torch.einsum("nm,nmp->np", linear[:, first:], polynomials(layout, wavelength))
    if layout.absorption:
        if level is None:
            raise ValueError("a layout with absorption needs the level of the continuum")
        strength = linear[:, layout.fluxes, None]
        continuum = continuum + strength * absorption(layout, seen, instrument, level)
    return curves, continuum


def model(
    layout: Layout,
    nonlinear: Tensor,
    linear: Tensor,
    wavelength: Tensor,
    instrument: Tensor,
    level: Tensor | None = None,
) -> Tensor:
    """(N, P) the sum of all `parts`, whose arguments these are."""
    curves, continuum = parts(layout, nonlinear, linear, wavelength, instrument, level)
    return curves.sum(1) + continuum
