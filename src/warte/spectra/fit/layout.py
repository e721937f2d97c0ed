"""What is fitted: which lines in which windows, and what each parameter means."""

from __future__ import annotations

from dataclasses import dataclass

from warte.spectra.lines import (
    BLUE_GROUPS,
    BLUE_WINDOW,
    H_ALPHA,
    H_BETA,
    RED_GROUPS,
    RED_WINDOW,
    WAVELENGTH,
    Group,
)

Window = tuple[float, float]  # rest Angstrom, low and high


@dataclass(frozen=True)
class Layout:
    """The model of one batch of spectra.

    Every narrow component has one velocity and one width for all its lines, and one flux for each
    group. The non-linear parameters are, in this order, velocity and width (km/s) of each narrow
    component, then of the broad one. The linear ones are the fluxes of the groups of component 1,
    of component 2, of the broad groups, the strength of the stellar absorption, then the
    polynomial of each window (Legendre coefficients over the window, low order first).
    """

    windows: tuple[Window, ...]
    groups: tuple[Group, ...]
    components: int = 1  # narrow kinematic components, 1 or 2
    broad: tuple[Group, ...] = ()  # groups that also have one broad component (permitted lines)
    order: int = 1  # degree of the continuum's polynomial in each window
    absorption: bool = False  # stellar Balmer absorption, one equivalent width for all lines

    @property
    def systems(self) -> int:
        """Kinematic systems: narrow components and the broad one."""
        return self.components + bool(self.broad)

    @property
    def nonlinear(self) -> int:
        """Number of non-linear parameters."""
        return 2 * self.systems

    @property
    def fluxes(self) -> int:
        """Number of flux parameters, which stand first among the linear ones."""
        return self.components * len(self.groups) + len(self.broad)

    @property
    def linear(self) -> int:
        """Number of linear parameters."""
        return self.fluxes + self.absorption + len(self.windows) * (self.order + 1)

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.nonlinear + self.linear

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of all lines, each once, in the order of the groups."""
        return tuple(name for group in self.groups for name, _ in group.lines)


def blue_layout(components: int = 1, *, order: int = 1) -> Layout:
    """H-beta and [O III]; with two components, ten parameters."""
    return Layout((BLUE_WINDOW,), BLUE_GROUPS, components, order=order)


def layout_for(
    windows: tuple[bool, bool],
    components: int = 1,
    *,
    broad: bool = False,
    order: int = 1,
    absorption: bool = True,
) -> Layout:
    """The layout of spectra that cover the blue and the red window, or only one of them."""
    blue, red = windows
    groups = (BLUE_GROUPS if blue else ()) + (RED_GROUPS if red else ())
    places = ((BLUE_WINDOW,) if blue else ()) + ((RED_WINDOW,) if red else ())
    wide = ((H_BETA,) if blue else ()) + ((H_ALPHA,) if red else ())
    return Layout(places, groups, components, wide if broad else (), order, absorption)


def rest_wavelengths(layout: Layout) -> tuple[float, ...]:
    """Rest wavelength of each of the layout's lines, vacuum Angstrom."""
    return tuple(WAVELENGTH[name] for name in layout.lines)
