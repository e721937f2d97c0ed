"""The same fits one spectrum at a time with lmfit, in the usual way: slow, and independent.

The residual is written by hand in NumPy and minimised by lmfit (Newville et al. 2014, Zenodo
10.5281/zenodo.11813) over all parameters at once, without derivatives. Model, bounds and order of
parameters are those of `warte.spectra.fit.solve`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from warte.core.errors import MissingExtraError
from warte.spectra.fit import profile
from warte.spectra.fit.layout import Layout, rest_wavelengths
from warte.spectra.fit.solve import Bounds, Lines, Solution
from warte.spectra.lines import Group
from warte.spectra.spectrum import C_KM_S, FloatArray

MOST_CALLS = 4000  # evaluations of the residual from one start
ON_BOUND = 1e-6  # of the range of a parameter, or of its error: closer to a bound lies on it


@dataclass(frozen=True)
class _Problem:
    """The good pixels of one spectrum.

    seen: (L, P) velocity of each pixel as seen from each line, km/s; instrument: (L,) km/s.
    linear: (P, M) columns of the absorption and the continuum in place, zeros for the fluxes.
    data, root: (P,) flux and square root of its inverse variance.
    low, high: (K + M,) bounds.
    """

    layout: Layout
    seen: FloatArray
    instrument: FloatArray
    linear: FloatArray
    data: FloatArray
    root: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class _Best:
    """The best fit of one spectrum."""

    values: FloatArray  # (K + M,)
    covariance: FloatArray  # (K + M, K + M)
    fixed: npt.NDArray[np.bool_]  # (K + M,) on a bound, or without a pixel to tell it
    chi2: float
    calls: int
    converged: bool


def solve(
    layout: Layout,
    lines: Lines,
    starts: Tensor,
    *,
    bounds: Bounds = Bounds(),  # noqa: B008 - frozen
) -> Solution:
    """The best fit of each spectrum from all of its starts.

    Args:
        layout: what the parameters mean.
        lines: N spectra.
        starts: (N, S, K) non-linear parameters.
        bounds: of velocities and widths.

    Raises:
        MissingExtraError: lmfit is not installed.
    """
    try:
        import lmfit
    except ImportError as error:
        raise MissingExtraError("lmfit", "spectra") from error
    level = profile.levels(layout, lines.wavelength, lines.flux, lines.weight)
    problems = _problems(layout, lines, level, bounds)
    found = [
        _best(lmfit, problem, tries.cpu().numpy())
        for problem, tries in zip(problems, starts, strict=True)
    ]
    return _solution(layout, lines, level, found)


def _problems(layout: Layout, lines: Lines, level: Tensor, bounds: Bounds) -> list[_Problem]:
    seen = profile.velocities(layout, lines.wavelength)
    columns = torch.zeros((*lines.flux.shape, layout.linear), dtype=lines.flux.dtype)
    if layout.absorption:
        columns[:, :, layout.fluxes] = profile.absorption(layout, seen, lines.instrument, level)
    first = layout.fluxes + layout.absorption
    columns[:, :, first:] = profile.polynomials(layout, lines.wavelength).mT
    low, high = _limits(layout, bounds)
    found = []
    for row, weight in enumerate(lines.weight):
        good = weight > 0
        found.append(
            _Problem(
                layout,
                seen[row][:, good].numpy(),
                lines.instrument[row].numpy(),
                columns[row, good].numpy(),
                lines.flux[row, good].numpy(),
                weight[good].sqrt().numpy(),
                low,
                high,
            )
        )
    return found


def _limits(layout: Layout, bounds: Bounds) -> tuple[FloatArray, FloatArray]:
    """(K + M,) lower and upper bounds of all parameters."""
    pairs = [bounds.velocity, bounds.sigma] * layout.components
    if layout.broad:
        pairs += [bounds.broad_velocity, bounds.broad_sigma]
    pairs += [(0.0, np.inf)] * layout.fluxes
    pairs += [(0.0, profile.ABSORPTION_LIMIT)] * layout.absorption
    pairs += [(-np.inf, np.inf)] * (layout.parameters - len(pairs))
    low, high = np.array(pairs).T
    return low, high


def _columns(problem: _Problem, nonlinear: FloatArray) -> FloatArray:
    """(P, M) what one unit of each linear parameter adds to the flux."""
    layout, columns = problem.layout, problem.linear.copy()
    systems: list[tuple[Group, ...]] = [layout.groups] * layout.components
    systems += [layout.broad] if layout.broad else []
    rest = rest_wavelengths(layout)
    place = 0
    for system, groups in enumerate(systems):
        velocity, sigma = nonlinear[2 * system : 2 * system + 2]
        for group in groups:
            for name, ratio in group.lines:
                line = layout.lines.index(name)
                width = np.hypot(sigma, problem.instrument[line])
                peak = C_KM_S / (np.sqrt(2 * np.pi) * width * rest[line])
                shape = np.exp(-0.5 * ((problem.seen[line] - velocity) / width) ** 2)
                columns[:, place] += ratio * peak * shape
            place += 1
    return columns


def _residual(problem: _Problem, values: FloatArray) -> FloatArray:
    """(P,) data minus model in units of the noise."""
    split = problem.layout.nonlinear
    model = _columns(problem, values[:split]) @ values[split:]
    return np.asarray((problem.data - model) * problem.root)


def _best(lmfit: Any, problem: _Problem, tries: FloatArray) -> _Best:
    size = problem.layout.parameters
    failed = _Best(
        np.full(size, np.nan), np.full((size, size), np.nan), np.zeros(size, bool), np.nan, 0, False
    )
    if problem.data.size < size:
        return failed
    results = [_minimized(lmfit, problem, start) for start in tries if np.isfinite(start).all()]
    if not results:
        return failed
    result = min(results, key=lambda one: float(one.chisqr))
    values = np.array(list(result.params.valuesdict().values()))
    covariance, fixed = _covariance(problem, values, np.asarray(result.jac))
    calls = sum(int(one.nfev) for one in results)
    return _Best(values, covariance, fixed, float(result.chisqr), calls, bool(result.success))


def _minimized(lmfit: Any, problem: _Problem, start: FloatArray) -> Any:
    """lmfit's result from one start; the linear parameters start at their best."""
    split = problem.layout.nonlinear
    weighted = _columns(problem, start) * problem.root[:, None]
    limits = (problem.low[split:], problem.high[split:])
    linear = lsq_linear(weighted, problem.data * problem.root, bounds=limits).x
    parameters = lmfit.Parameters()
    for at, value in enumerate(np.concatenate([start, linear])):
        parameters.add(f"p{at}", value=value, min=problem.low[at], max=problem.high[at])

    def residual(trial: Any) -> FloatArray:
        return _residual(problem, np.array(list(trial.valuesdict().values())))

    return lmfit.minimize(
        residual, parameters, method="least_squares", max_nfev=MOST_CALLS, x_scale="jac"
    )


def _covariance(
    problem: _Problem, values: FloatArray, jacobian: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(K + M, K + M) of the parameters that lie on no bound, and (K + M,) which ones do."""
    scale = np.sqrt((jacobian**2).sum(axis=0))
    error = np.divide(1.0, scale, out=np.full(scale.size, np.inf), where=scale > 0)
    span = problem.high - problem.low
    near = ON_BOUND * np.where(np.isfinite(span), span, error)
    fixed = (values - problem.low <= near) | (problem.high - values <= near)
    fixed |= ~np.isfinite(error)
    free = np.flatnonzero(~fixed)
    covariance = np.zeros((values.size, values.size))
    normal = (jacobian / np.where(scale > 0, scale, 1.0))[:, free]
    inverse = np.linalg.pinv(normal.T @ normal)
    covariance[np.ix_(free, free)] = inverse * error[free][:, None] * error[free]
    return covariance, fixed


def _solution(layout: Layout, lines: Lines, level: Tensor, found: list[_Best]) -> Solution:
    values = torch.from_numpy(np.stack([one.values for one in found]))
    fixed = torch.from_numpy(np.stack([one.fixed for one in found]))
    split = layout.nonlinear
    return Solution(
        nonlinear=values[:, :split],
        linear=values[:, split:],
        covariance=torch.from_numpy(np.stack([one.covariance for one in found])),
        chi2=torch.tensor([one.chi2 for one in found], dtype=torch.float64),
        dof=((lines.weight > 0).sum(1) - (~fixed).sum(1)).to(torch.float64),
        iterations=torch.tensor([one.calls for one in found]),
        converged=torch.tensor([one.converged for one in found]),
        at_bound=fixed[:, :split],
        fixed=fixed,
        level=level,
    )
