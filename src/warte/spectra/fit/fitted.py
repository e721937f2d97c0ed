"""Fits as arrays: components in order, where each flux stands, how significant it is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from warte.spectra.fit.layout import Layout
from warte.spectra.fit.solve import Solution
from warte.spectra.spectrum import FloatArray

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """Fits of N spectra with one layout, as arrays; NaN where a fit failed.

    nonlinear: (N, K), linear: (N, M), covariance: (N, K + M, K + M) as in `Solution`.
    fixed: (N, K + M) parameters that lie on a bound: their variance is 0.
    """

    layout: Layout
    nonlinear: FloatArray
    linear: FloatArray
    covariance: FloatArray
    chi2: FloatArray
    dof: FloatArray
    converged: BoolArray
    fixed: BoolArray

    def take(self, rows: npt.NDArray[np.integer] | BoolArray) -> Fitted:
        """The fits of some of the spectra."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "layout"}
        return replace(self, **arrays)

    def spread(self, rows: IntArray, count: int) -> Fitted:
        """The same as some rows of `count` spectra; the fits of the others have failed."""
        arrays: dict[str, Any] = {}
        for item in fields(self):
            if item.name != "layout":
                value = getattr(self, item.name)
                empty = False if value.dtype == bool else np.nan
                whole = np.full((count, *value.shape[1:]), empty, dtype=value.dtype)
                whole[rows] = value
                arrays[item.name] = whole
        return replace(self, **arrays)

    @property
    def parameters(self) -> FloatArray:
        """(N, K + M) the non-linear parameters, then the linear ones."""
        return np.concatenate([self.nonlinear, self.linear], axis=1)

    @property
    def errors(self) -> FloatArray:
        """(N, K + M) standard errors; 0 on a bound."""
        variance = np.diagonal(self.covariance, axis1=1, axis2=2)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))

    @property
    def chi2_reduced(self) -> FloatArray:
        """(N,) chi-square per degree of freedom."""
        return np.asarray(self.chi2 / np.maximum(self.dof, 1))


def fitted(layout: Layout, solution: Solution) -> Fitted:
    """A solution as arrays, with the component that is brighter in [O III] 5007 first.

    Where [O III] is not fitted or has no flux, the one with more flux in all lines is first.
    """
    arrays = {
        name: getattr(solution, name).cpu().numpy()
        for name in ("nonlinear", "linear", "covariance", "chi2", "dof", "converged", "fixed")
    }
    found = Fitted(layout, **arrays)
    if layout.components == 1:
        return found
    first, second = (fluxes(found, component) for component in (0, 1))
    brighter = second.sum(axis=1) > first.sum(axis=1)
    names = [group.name for group in layout.groups]
    if "[O III]" in names:
        at = names.index("[O III]")
        seen = first[:, at] + second[:, at] > 0
        brighter = np.where(seen, second[:, at] > first[:, at], brighter)
    return _swapped(found, brighter)


def flux_places(layout: Layout, component: int) -> slice:
    """Where the fluxes of a component (0, 1; `components` for the broad one) stand in (K + M)."""
    start = layout.nonlinear + component * len(layout.groups)
    size = len(layout.groups) if component < layout.components else len(layout.broad)
    return slice(start, start + size)


def fluxes(found: Fitted, component: int) -> FloatArray:
    """(N, G) fluxes of the first line of each group of a component."""
    return found.parameters[:, flux_places(found.layout, component)]


def _swapped(found: Fitted, rows: BoolArray) -> Fitted:
    """The fits with components 1 and 2 exchanged in some rows."""
    layout = found.layout
    order = np.arange(layout.parameters)
    one, two = flux_places(layout, 0), flux_places(layout, 1)
    order[0:4] = (2, 3, 0, 1)
    order[one], order[two] = order[two].copy(), order[one].copy()
    orders = np.where(rows[:, None], order, np.arange(order.size))
    values = np.take_along_axis(found.parameters, orders, axis=1)
    covariance = np.take_along_axis(found.covariance, orders[:, :, None], axis=1)
    covariance = np.take_along_axis(covariance, orders[:, None, :], axis=2)
    return replace(
        found,
        nonlinear=values[:, : layout.nonlinear],
        linear=values[:, layout.nonlinear :],
        covariance=covariance,
        fixed=np.take_along_axis(found.fixed, orders, axis=1),
    )


def significance(found: Fitted, component: int, *, alone: bool = False) -> FloatArray:
    """(N,) flux over its error of the component's most significant group of lines.

    alone: take the error that a flux would have if all other parameters were known.
    """
    return np.asarray(significances(found, component, alone=alone).max(axis=1))


def significances(found: Fitted, component: int, *, alone: bool) -> FloatArray:
    """(N, G) flux over its error of each group of a component; 0 on the bound."""
    place = flux_places(found.layout, component)
    error = _errors_alone(found) if alone else found.errors
    value, error = found.parameters[:, place], error[:, place]
    return np.divide(value, error, out=np.zeros_like(value), where=error > 0)


def _errors_alone(found: Fitted) -> FloatArray:
    """(N, K + M) standard error of each parameter if all others were known; 0 on a bound."""
    covariance = np.where(np.isfinite(found.covariance), found.covariance, 0.0)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    free = variance > 0
    scale = np.where(free, np.sqrt(np.abs(variance)), 1.0)
    unit = covariance / (scale[:, :, None] * scale[:, None, :])
    unit = unit + np.eye(found.layout.parameters) * ~free[:, :, None]
    precision = np.diagonal(np.linalg.pinv(unit, hermitian=True), axis1=1, axis2=2)
    return np.where(free, scale / np.sqrt(np.maximum(precision, 1.0)), 0.0)
