"""One component or two, broad lines or none: evidence first, then rules that forbid nonsense.

The evidence of a model is its likelihood averaged over its prior; what a ratio of evidences is
worth is found by simulation, see `warte.spectra.fit.calibrate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammainc, gammaln

from warte.core.errors import SettingsError
from warte.spectra.fit import lmfit_engine, profile, solve
from warte.spectra.fit.fitted import (
    BoolArray,
    Fitted,
    IntArray,
    fitted,
    significance,
    significances,
)
from warte.spectra.fit.layout import layout_for
from warte.spectra.fit.solve import Bounds, Lines
from warte.spectra.fit.start import starts
from warte.spectra.spectrum import FloatArray

LEAST_SIGNIFICANCE = 3.0  # flux over its error, taken alone, in a component's best line
LEAST_APART = 1.0  # combined errors in velocity or in width
BROAD_SIGNIFICANCE = 5.0  # flux over its error of a broad line
LAGS = 4  # pixels, about the width of a line, over which residuals may be correlated
BROAD_RATIO = 2.0  # width of the broad component over the widest narrow one


@dataclass(frozen=True)
class FitSettings:
    """How lines are fitted.

    engine: "batched" fits thousands at once, "lmfit" one after the other in the usual way.
    components: 2 tries one and two narrow components and decides; 1 tries one only.
    broad: a broad component of the Balmer lines in every spectrum (True), in none (False), or
        where the evidence asks for it ("auto").
    order: degree of the continuum's polynomial in each window, 0..5.
    absorption: whether stellar Balmer absorption is fitted.
    false_positives: share of spectra with one component that may be called two, 0.001..0.1.
    errors: "stated" follows from the inverse variances of the files; "scatter" grows by the root of
        the reduced chi-square where that is above 1, by more than chance explains; "full" also
        where the residuals of neighbouring pixels go together, as where starlight is not quite a
        polynomial. "scatter" is right for comparing spectra of one object, in which that is the
        same.
    bounds: of velocities and widths, km/s.
    device: of the batched engine, "cpu" or "cuda".
    """

    engine: Literal["batched", "lmfit"] = "batched"
    components: Literal[1, 2] = 2
    broad: bool | Literal["auto"] = "auto"
    order: int = 2
    absorption: bool = True
    false_positives: float = 0.01
    errors: Literal["stated", "scatter", "full"] = "full"
    bounds: Bounds = field(default_factory=Bounds)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.engine not in ("batched", "lmfit"):
            raise SettingsError(f"engine is {self.engine!r}; allowed are batched and lmfit")
        if self.components not in (1, 2):
            raise SettingsError(f"components is {self.components}; allowed are 1 and 2")
        if self.broad not in ("auto", True, False):
            raise SettingsError(f"broad is {self.broad!r}; allowed are auto, True and False")
        if self.errors not in ("stated", "scatter", "full"):
            raise SettingsError(f"errors is {self.errors!r}; allowed are stated, scatter and full")
        if not 0 <= self.order <= 5:
            raise SettingsError(f"order is {self.order}; allowed are 0 to 5")
        if not 0.001 <= self.false_positives <= 0.1:
            raise SettingsError(
                f"--false-positives is {self.false_positives}; allowed are 0.001 to 0.1"
            )


def log_bayes_factor(gain: FloatArray, extra: int) -> FloatArray:
    """(N,) natural log of the evidence of a larger model over that of one nested in it.

    Marginal likelihoods under a mixture of g-priors: the extra parameters have a normal prior as
    wide as g times their own covariance, and g the hyper-g prior with a = 4 (Liang, Paulo, Molina,
    Clyde & Berger 2008, JASA 103, 410, section 3, here with the variance known). The integral over
    g has a closed form; with x = gain / 2 and b = extra / 2 + 1 the ratio is
    exp(x) gammainc_lower(b, x) / x^b.

    Laplace's approximation is not used: where a second component is not needed its covariance is
    nearly singular, and the determinant of it is noise.

    gain: (N,) chi-square of the smaller model less that of the larger; below 0 counts as 0.
    extra: number of extra parameters.
    """
    x = np.maximum(gain, 1e-6) / 2
    b = extra / 2 + 1
    return np.asarray(x + gammaln(b) + np.log(gammainc(b, x)) - b * np.log(x))


def pair_faults(found: Fitted, instrument: FloatArray, misfit: FloatArray) -> npt.NDArray[np.str_]:
    """(N,) why a fit may not be called two components; '' where it may.

    The rules, in this order:
    it converged;
    no velocity or width of the pair is on a bound;
    in at least one group of lines both components have a flux of 3 sigma, taken alone;
    velocities or widths differ by more than their combined error, covariance included, and by
    more than the width of the instrument, whose own profile is not known to be a Gaussian.

    Stricter rules for the errors cost true pairs and do not make the pairs that remain more
    accurate: the fluxes of blended components are uncertain even where their presence is not.

    instrument: (N,) sigma of the instrument, km/s. misfit: (N,) factor of all variances.
    """
    error = np.sqrt(misfit)
    v1, s1, v2, s2 = found.nonlinear.T[:4]
    bound = found.fixed[:, :4].any(axis=1)
    alone = [significances(found, part, alone=True) for part in (0, 1)]
    weak = ~(np.min(alone, axis=0).max(axis=1) > LEAST_SIGNIFICANCE * error)
    near = [
        np.abs(gap) < np.maximum(LEAST_APART * error * _difference_error(found, at, at + 2), least)
        for gap, at, least in ((v1 - v2, 0, instrument), (s1 - s2, 1, instrument))
    ]
    lost = ~found.converged | ~np.isfinite(found.covariance).all(axis=(1, 2))
    names = ["second fit failed", "pair on a bound", "second component weak", "components merged"]
    return np.select([lost, bound, weak, near[0] & near[1]], names, default="")


def _difference_error(found: Fitted, first: int, second: int) -> FloatArray:
    c = found.covariance
    variance = c[:, first, first] + c[:, second, second] - 2 * c[:, first, second]
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def broad_is_sound(found: Fitted, misfit: FloatArray) -> BoolArray:
    """(N,) whether a broad component is real: a line of 5 sigma, twice as wide as the narrow ones.

    A component that ends on a bound of its velocity or on its upper bound of width is continuum.
    """
    layout = found.layout
    at = 2 * layout.components
    narrow = found.nonlinear[:, 1:at:2].max(axis=1)
    strong = significance(found, layout.components) > BROAD_SIGNIFICANCE * np.sqrt(misfit)
    free = ~found.fixed[:, at : at + 2].any(axis=1)
    wide = found.nonlinear[:, at + 1] > BROAD_RATIO * narrow
    return np.asarray(found.converged & strong & free & wide)


@dataclass(frozen=True)
class Comparison:
    """All models of N spectra that share their windows, and what speaks for a second component.

    fits: (components, broad) -> its fits.
    broad: (N,) whether the broad component is kept.
    log_ratio: (N,) log evidence of two components over that of one; NaN where only one was tried.
    fault: (N,) why the second component may not stand whatever its evidence; '' where it may.
    snr: (N,) flux over its error of the most significant line of the fit with one component.
    misfit: (N,) reduced chi-square of the best model where it is significantly above 1, else 1: by
        this the variances are larger than stated.
    redness: (N,) what the correlation of its residuals adds where it is significant, at least 1.
        Evidence, rules and snr count both always, for there caution costs little; errors that only
        chance can widen would be too large on average.
    absorption: (N,) strongest absorption of the fits with the broad component as decided,
        Angstrom; 0 where none is fitted.
    """

    fits: dict[tuple[int, bool], Fitted]
    broad: BoolArray
    log_ratio: FloatArray
    fault: npt.NDArray[np.str_]
    snr: FloatArray
    misfit: FloatArray
    redness: FloatArray
    absorption: FloatArray

    def take(self, rows: BoolArray) -> Comparison:
        """Some of the spectra."""
        fits = {key: found.take(rows) for key, found in self.fits.items()}
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "fits"}
        return Comparison(fits, **arrays)

    def chosen(self, components: npt.NDArray[np.integer]) -> list[tuple[Fitted, IntArray]]:
        """The fits of the models chosen, with the places of their spectra."""
        parts = []
        for (count, broad), found in self.fits.items():
            rows = np.flatnonzero((components == count) & (self.broad == broad))
            if rows.size:
                parts.append((found.take(rows), rows))
        return parts


def compare(lines: Lines, windows: tuple[bool, bool], settings: FitSettings) -> Comparison:
    """Fit all models that the settings allow and weigh them."""
    fits = _all_fits(lines, windows, settings)
    kinds = sorted({broad for _, broad in fits})
    best = _best(fits)
    misfit = np.maximum(best.min(axis=0), 1.0)
    misfit[~np.isfinite(misfit)] = 1.0
    redness, chance = _redness(lines, list(fits.values()), best.argmin(axis=0))
    doubt = misfit * redness
    redness = np.where(redness > 1 + 2 * chance, redness, 1.0)
    measured = (lines.weight > 0).sum(1).clamp(min=1).cpu().numpy()
    misfit = np.where(misfit > 1 + 2 * np.sqrt(2 / measured), misfit, 1.0)
    broad = np.full(misfit.size, kinds[-1])
    if len(kinds) == 2:
        broad = _broad(fits, doubt)
    snr = _either(broad, {kind: significance(fits[1, kind], 0) for kind in kinds})
    ratio, fault = np.full(misfit.size, np.nan), np.full(misfit.size, "")
    if settings.components == 2:
        extra = 2 + len(fits[2, kinds[0]].layout.groups)
        gains = {kind: fits[1, kind].chi2 - fits[2, kind].chi2 for kind in kinds}
        ratio = log_bayes_factor(_either(broad, gains) / doubt, extra)
        instrument = lines.instrument.mean(1).cpu().numpy()
        faults = {kind: pair_faults(fits[2, kind], instrument, doubt) for kind in kinds}
        fault = _either(broad, faults)
    strengths = {key: _absorption(one) for key, one in fits.items()}
    strength = np.max(
        [
            _either(broad, {kind: strengths[n, kind] for kind in kinds})
            for n in range(1, settings.components + 1)
        ],
        axis=0,
    )
    return Comparison(fits, broad, ratio, fault, snr / np.sqrt(doubt), misfit, redness, strength)


def _all_fits(
    lines: Lines, windows: tuple[bool, bool], settings: FitSettings
) -> dict[tuple[int, bool], Fitted]:
    """The fits by (components, broad).

    Two components and broad lines together are only tried where broad lines help one component:
    in the other spectra that fit is left out, and failed.
    """
    counts = range(1, settings.components + 1)
    if settings.broad != "auto":
        kind = bool(settings.broad)
        return {(n, kind): _fit(lines, windows, n, kind, settings) for n in counts}
    fits = {(n, False): _fit(lines, windows, n, False, settings) for n in counts}
    fits[1, True] = _fit(lines, windows, 1, True, settings)
    if settings.components == 2:
        misfit = np.maximum(np.nan_to_num(_best(fits).min(axis=0), posinf=1.0), 1.0)
        helps = _broad({key: fits[key] for key in ((1, False), (1, True))}, misfit)
        rows = np.flatnonzero(helps)
        some = lines.take(torch.from_numpy(rows).to(lines.flux.device))
        fits[2, True] = _fit(some, windows, 2, True, settings).spread(rows, len(lines))
    return fits


def _best(fits: dict[tuple[int, bool], Fitted]) -> FloatArray:
    """(models, N) reduced chi-square, inf where a fit failed."""
    return np.stack([np.nan_to_num(one.chi2_reduced, nan=np.inf) for one in fits.values()])


def _redness(
    lines: Lines, fits: Sequence[Fitted], which: IntArray
) -> tuple[FloatArray, FloatArray]:
    """(N,) factor >= 1 by which correlated residuals make features wider than a pixel less sure,
    and (N,) how much it scatters by chance.

    The variance of a sum over neighbouring pixels grows by 1 + 2 sum of the correlations at lags
    1, 2, ... (Bartlett 1946, Supplement to the J. of the Royal Statistical Society 8, 27). Noise
    that the reduction has spread over pixels and stars that are not in the model both do this.

    which: (N,) the fit whose residuals are taken.
    """
    factor = np.ones(which.size)
    for at, found in enumerate(fits):
        rows = np.flatnonzero((which == at) & np.isfinite(found.chi2))
        if not rows.size:
            continue
        some = lines.take(torch.from_numpy(rows).to(lines.flux.device))
        level = profile.levels(found.layout, some.wavelength, some.flux, some.weight)
        nonlinear = torch.from_numpy(found.nonlinear[rows]).to(some.flux)
        linear = torch.from_numpy(found.linear[rows]).to(some.flux)
        model = profile.model(
            found.layout, nonlinear, linear, some.wavelength, some.instrument, level
        )
        seen = some.weight > 0
        residual = torch.where(seen, (some.flux - model) * some.weight.sqrt(), 0.0)
        variance = residual.square().sum(1) / seen.sum(1)
        total = torch.ones_like(variance)
        for lag in range(1, LAGS + 1):
            both = (seen[:, lag:] & seen[:, :-lag]).sum(1).clamp(min=1)
            product = (residual[:, lag:] * residual[:, :-lag]).sum(1) / both
            total += 2 * product / variance
        factor[rows] = total.clamp(min=1.0).cpu().numpy()
    measured = (lines.weight > 0).sum(1).clamp(min=1).cpu().numpy()
    return factor, 2 * np.sqrt(LAGS / measured)


def _absorption(found: Fitted) -> FloatArray:
    """(N,) equivalent width of the stellar absorption, Angstrom; 0 where it is not fitted."""
    if not found.layout.absorption:
        return np.zeros(found.chi2.size)
    return np.nan_to_num(found.linear[:, found.layout.fluxes])


def _against_simplest(
    fits: dict[tuple[int, bool], Fitted], key: tuple[int, bool], misfit: FloatArray
) -> FloatArray:
    """(N,) log evidence of a model over that of the smallest one; -inf where it failed."""
    smallest = fits[min(fits)]
    if key == min(fits):
        return np.zeros(misfit.size)
    extra = fits[key].layout.parameters - smallest.layout.parameters
    value = log_bayes_factor((smallest.chi2 - fits[key].chi2) / misfit, extra)
    return np.where(np.isfinite(value) & fits[key].converged, value, -np.inf)


def _fit(
    lines: Lines, windows: tuple[bool, bool], components: int, broad: bool, settings: FitSettings
) -> Fitted:
    layout = layout_for(
        windows,
        components,
        broad=broad,
        order=settings.order,
        absorption=settings.absorption,
    )
    first = starts(layout, lines, bounds=settings.bounds)
    engine = lmfit_engine.solve if settings.engine == "lmfit" else solve.solve
    return fitted(layout, engine(layout, lines, first, bounds=settings.bounds))


def _broad(fits: dict[tuple[int, bool], Fitted], misfit: FloatArray) -> BoolArray:
    """(N,) whether the best model with a broad component beats the best without, and is sound."""
    evidence = {key: _against_simplest(fits, key, misfit) for key in fits}
    counts = sorted({n for n, broad in fits if broad})
    with_broad = np.stack([evidence[n, True] for n in counts])
    without = np.stack([evidence[n, False] for n in counts])
    sound = np.stack([broad_is_sound(fits[n, True], misfit) for n in counts])
    winner = with_broad.argmax(axis=0)[None]
    wins = with_broad.max(axis=0) > without.max(axis=0)
    return np.asarray(wins & np.take_along_axis(sound, winner, axis=0)[0])


def _either(broad: BoolArray, values: dict[bool, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """(N,) the values with the broad component where it is kept, else those without."""
    if len(values) == 1:
        return next(iter(values.values()))
    return np.where(broad, values[True], values[False])
