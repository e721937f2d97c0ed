"""The same fit of H-beta and [O III] one spectrum at a time, in three usual ways.

Parameters are those of `warte.spectra.fit.layout.blue_layout` in its order: velocity and width of
each component (km/s), fluxes of H-beta and [O III] 5007 of each, then level and slope of the
continuum: ten for two components, six for one. A broad H-beta, where asked for, comes after the
narrow ones among velocities and widths and after them among the fluxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lmfit
import numpy as np
import numpy.typing as npt
from lmfit.models import GaussianModel, LinearModel
from scipy.optimize import least_squares

from warte.spectra.fit.solve import Bounds, Lines
from warte.spectra.lines import BLUE_WINDOW, OIII_RATIO, WAVELENGTH
from warte.spectra.spectrum import C_KM_S

FloatArray = npt.NDArray[np.float64]

# Rest wavelength, which flux of the component, and how much of it.
LINES = (
    (WAVELENGTH["H-beta"], 0, 1.0),
    (WAVELENGTH["[O III] 5007"], 1, 1.0),
    (WAVELENGTH["[O III] 4959"], 1, 1 / OIII_RATIO),
)
BOUNDS = Bounds()
FIRST_SIGMA, FIRST_APART = 120.0, 300.0  # km/s, of the usual start
FIRST_BROAD = 1500.0  # km/s


@dataclass(frozen=True)
class Pixels:
    """The measured pixels of one spectrum: rest Angstrom, flux, root of the inverse variance."""

    wavelength: FloatArray
    flux: FloatArray
    root: FloatArray
    resolution_km_s: float


@dataclass(frozen=True)
class PeerFit:
    """What a program found; errors are NaN where it gives none."""

    values: FloatArray
    errors: FloatArray
    chi2: float


@dataclass(frozen=True)
class Shape:
    """Which model: narrow components, and whether H-beta is broad besides."""

    components: int = 2
    broad: bool = False

    @property
    def systems(self) -> int:
        """Kinematic systems."""
        return self.components + self.broad

    @property
    def fluxes(self) -> int:
        """Flux parameters."""
        return 2 * self.components + self.broad

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters in their order."""
        nonlinear = [f"{kind}{n}" for n in range(self.systems) for kind in "vs"]
        fluxes = [f"f{n}" for n in range(self.fluxes)]
        return (*nonlinear, *fluxes, "c0", "c1")


def pixels_of(lines: Lines) -> Iterator[Pixels]:
    """The measured pixels of each spectrum."""
    for wavelength, flux, weight, width in zip(
        lines.wavelength.numpy(),
        lines.flux.numpy(),
        lines.weight.numpy(),
        lines.instrument.numpy(),
        strict=True,
    ):
        good = weight > 0
        yield Pixels(wavelength[good], flux[good], np.sqrt(weight[good]), float(width.mean()))


def model(pixels: Pixels, shape: Shape, values: FloatArray) -> FloatArray:
    """(P,) the flux of all lines and the continuum."""
    first = 2 * shape.systems
    out = _place(pixels) * values[-1] + values[-2]
    for system in range(shape.systems):
        velocity, sigma = values[2 * system : 2 * system + 2]
        for rest, which, ratio in LINES[: 1 if system >= shape.components else 3]:
            flux = ratio * values[first + 2 * system + which]
            out = out + flux * _gaussian(pixels, rest, velocity, sigma)[0]
    return np.asarray(out)


def _place(pixels: Pixels) -> FloatArray:
    """(P,) wavelengths from -1 to 1 over the window."""
    low, high = BLUE_WINDOW
    return (2 * pixels.wavelength - (low + high)) / (high - low)


def _gaussian(
    pixels: Pixels, rest: float, velocity: float, sigma: float
) -> tuple[FloatArray, FloatArray, float]:
    """A line of flux 1 (P,), its distance from the centre in widths (P,), and its width, km/s."""
    width = float(np.hypot(sigma, pixels.resolution_km_s))
    away = (C_KM_S * (pixels.wavelength / rest - 1) - velocity) / width
    peak = C_KM_S / (np.sqrt(2 * np.pi) * width * rest)
    return peak * np.exp(-0.5 * away**2), away, width


def slopes(pixels: Pixels, shape: Shape, values: FloatArray) -> FloatArray:
    """(P, M) derivatives of the model."""
    out = np.zeros((pixels.flux.size, values.size))
    first = 2 * shape.systems
    for system in range(shape.systems):
        velocity, sigma = values[2 * system : 2 * system + 2]
        for rest, which, ratio in LINES[: 1 if system >= shape.components else 3]:
            at = first + 2 * system + which
            curve, away, width = _gaussian(pixels, rest, velocity, sigma)
            flux = ratio * values[at] * curve
            out[:, 2 * system] += flux * away / width
            out[:, 2 * system + 1] += flux * (away**2 - 1) * sigma / width**2
            out[:, at] += ratio * curve
    out[:, -2], out[:, -1] = 1.0, _place(pixels)
    return out


def usual_start(pixels: Pixels, shape: Shape) -> FloatArray:
    """Components on both sides of the highest pixel near [O III] 5007, on the median."""
    level = float(np.median(pixels.flux))
    seen = C_KM_S * (pixels.wavelength / LINES[1][0] - 1)
    near = np.flatnonzero(np.abs(seen) < BOUNDS.velocity[1])
    top = near[pixels.flux[near].argmax()] if near.size else 0
    middle = float(seen[top]) if near.size else 0.0
    apart = FIRST_APART if shape.components == 2 else 0.0
    width = np.hypot(FIRST_SIGMA, pixels.resolution_km_s)
    area = max(float(pixels.flux[top]) - level, 0.1) * np.sqrt(2 * np.pi) * width * LINES[1][0]
    share = area / C_KM_S / shape.components
    nonlinear: list[float] = []
    for side in (-0.5, 0.5)[: shape.components]:
        nonlinear += [middle + side * apart, FIRST_SIGMA]
    fluxes = [0.3 * share, share] * shape.components
    if shape.broad:
        nonlinear += [0.0, FIRST_BROAD]
        fluxes += [share]
    return np.array([*nonlinear, *fluxes, level, 0.0])


def random_start(pixels: Pixels, shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Velocities, widths and fluxes drawn at random, the continuum at the median."""
    start = usual_start(pixels, shape)
    count, first = shape.components, 2 * shape.systems
    start[0 : 2 * count : 2] = rng.uniform(-600, 600, count)
    start[1 : 2 * count : 2] = np.exp(rng.uniform(np.log(40), np.log(500), count))
    start[first : first + 2 * count] *= 3 * rng.random(2 * count)
    return start


def lmfit_residual(
    pixels: Pixels, shape: Shape, start: FloatArray, *, bounded: bool = True
) -> PeerFit:
    """lmfit with a residual written by hand in NumPy.

    bounded: velocities and widths within the bounds of Warte's solver, amplitudes not below 0;
        else only widths stay positive.
    """
    parameters = lmfit.Parameters()
    for name, value in zip(shape.names, start, strict=True):
        low, high = _limits(name, shape, bounded)
        parameters.add(name, value=float(np.clip(value, low, high)), min=low, max=high)

    def residual(trial: Any) -> FloatArray:
        values = np.array(list(trial.valuesdict().values()))
        return np.asarray((pixels.flux - model(pixels, shape, values)) * pixels.root)

    result = lmfit.minimize(residual, parameters, method="leastsq")
    values = np.array([result.params[name].value for name in shape.names])
    errors = [result.params[name].stderr for name in shape.names]
    return PeerFit(values, _known(errors), float(result.chisqr))


def _limits(name: str, shape: Shape, bounded: bool) -> tuple[float, float]:
    kind, number = name[0], int(name[1:])
    if kind == "c" or (kind == "f" and not bounded):
        return -np.inf, np.inf
    if kind == "f":
        return 0.0, np.inf
    if not bounded:
        return (0.0, np.inf) if kind == "s" else (-np.inf, np.inf)
    if number >= shape.components:
        return BOUNDS.broad_velocity if kind == "v" else BOUNDS.broad_sigma
    return BOUNDS.velocity if kind == "v" else BOUNDS.sigma


def _known(errors: list[float | None]) -> FloatArray:
    return np.array([np.nan if error is None else float(error) for error in errors])


def lmfit_composite(pixels: Pixels, start: FloatArray) -> PeerFit:
    """Six of lmfit's Gaussians on its line, tied by expressions; amplitudes of any sign."""
    shape = Shape(2)
    middle, half = float(np.mean(BLUE_WINDOW)), float(np.ptp(BLUE_WINDOW)) / 2
    whole = LinearModel(prefix="c_")
    for number in range(6):
        whole = whole + GaussianModel(prefix=f"g{number}_")
    parameters = whole.make_params()
    for name, value in zip(shape.names[:8], start, strict=False):
        parameters.add(name, value=value, **({"min": 0.0} if name[0] == "s" else {}))
    for number in range(6):
        rest, which, ratio = LINES[number % 3]
        system = number // 3
        velocity, sigma, flux = f"v{system}", f"s{system}", f"f{2 * system + which}"
        scale, width = rest / C_KM_S, pixels.resolution_km_s
        parameters[f"g{number}_center"].set(expr=f"{rest - middle!r}+{scale!r}*{velocity}")
        parameters[f"g{number}_sigma"].set(expr=f"{scale!r}*sqrt({sigma}**2+{width!r}**2)")
        parameters[f"g{number}_amplitude"].set(expr=f"{ratio!r}*{flux}")
    parameters["c_intercept"].set(value=start[8])
    parameters["c_slope"].set(value=0.0)
    # From the middle of the window, so that level and slope are not one parameter.
    place = pixels.wavelength - middle
    result = whole.fit(pixels.flux, parameters, x=place, weights=pixels.root)
    names = (*shape.names[:8], "c_intercept", "c_slope")
    values = np.array([result.params[name].value for name in names])
    errors = _known([result.params[name].stderr for name in names])
    values[9], errors[9] = half * values[9], half * errors[9]
    return PeerFit(values, errors, float(result.chisqr))


def scipy_jacobian(pixels: Pixels, start: FloatArray) -> PeerFit:
    """MINPACK's Levenberg-Marquardt with the analytic Jacobian, without bounds."""
    shape = Shape(2)

    def residual(values: FloatArray) -> FloatArray:
        return np.asarray((model(pixels, shape, values) - pixels.flux) * pixels.root)

    def slopes_at(values: FloatArray) -> FloatArray:
        return slopes(pixels, shape, values) * pixels.root[:, None]

    result = least_squares(residual, start, jac=slopes_at, method="lm", x_scale="jac")
    variance = np.diagonal(np.linalg.pinv(result.jac.T @ result.jac))
    return PeerFit(result.x, np.sqrt(np.maximum(variance, 0)), 2 * float(result.cost))
