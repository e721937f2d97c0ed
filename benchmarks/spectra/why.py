"""Why real spectra come out differently: one assumption changed at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.spectra.fit import FitSettings
from warte.spectra.lines import NII_RATIO, WAVELENGTH
from warte.spectra.spectrum import Spectrum

APART, SIGMAS = 0.2, 3.0  # more than both is a disagreement
BROAD_KM_S = 1000.0  # a line as wide as this is a broad one
AWAY_KM_S = 500.0  # narrow lines so far from the redshift are none of the galaxy's
STRONG_BIC = 10.0  # Kass & Raftery 1995, JASA 90, 773
WORST_FIT = 3.0  # reduced chi-square
BROAD_ALPHA = "H-alpha, broad"
RED = ("H-alpha", "[N II] 6583")
IN_RED = (*RED, "[N II] 6548", "[S II] 6716", "[S II] 6731")
BESIDE_RED = ((6400.0, 6450.0), (6770.0, 6820.0))  # rest Angstrom, continuum on both sides
# What is changed, and the settings with the change alone.
FORCED = "a broad component in every case"
ALL_CHANGED = "one component, no absorption, no broad one, straight continuum"
VARIANTS = {
    "one component": FitSettings(components=1),
    "no stellar absorption": FitSettings(absorption=False),
    "no broad component": FitSettings(broad=False),
    FORCED: FitSettings(broad=True),
    ALL_CHANGED: FitSettings(components=1, absorption=False, broad=False, order=1),
}


class Other(Protocol):
    """What another program says of a line."""

    @property
    def program(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def line(self) -> str: ...
    @property
    def flux(self) -> float: ...
    @property
    def error(self) -> float: ...
    @property
    def sigma(self) -> float: ...


@dataclass(frozen=True)
class Measured:
    """A line of Warte's: narrow components together.

    sigma: km/s, with the instrument's; broad: flux of the broad component, 0 where there is none.
    """

    flux: float
    error: float
    sigma: float
    broad: float


@dataclass(frozen=True)
class Results:
    """All that was found of the real spectra; tables indexed by file but for lines."""

    spectra: dict[str, Spectrum]
    fits: pd.DataFrame
    lines: pd.DataFrame
    variants: dict[str, pd.DataFrame]
    classes: pd.DataFrame
    ratios: pd.DataFrame
    reference: pd.DataFrame

    def measured(self, file: str, line: str, variant: str = "") -> Measured | None:
        """A line of a file, by the usual fit or by a variant; None where it was not fitted."""
        lines = self.variants[variant] if variant else self.lines
        return measured(lines, self.spectra.get(file), line)


def measured(lines: pd.DataFrame, spectrum: Spectrum | None, line: str) -> Measured | None:
    """One line of a table; "H-alpha, broad" is the broad component alone."""
    if spectrum is None:
        return None
    name = line.removesuffix(", broad")
    rows = lines[(lines["file"] == spectrum.name) & (lines["line"] == name)]
    if rows.empty:
        return None
    broad = rows[rows["component"] == "broad"]
    part = broad if line != name else rows[rows["component"] != "broad"]
    if line != name and part.empty:
        return Measured(0.0, 0.0, float("nan"), 0.0)
    place = WAVELENGTH[name] * (1 + spectrum.z)
    known = np.isfinite(spectrum.resolution_km_s)
    instrument = np.interp(place, spectrum.wavelength[known], spectrum.resolution_km_s[known])
    flux, velocity, sigma = (
        part[name].to_numpy(dtype=np.float64)[:, None]
        for name in ("flux", "velocity_km_s", "sigma_km_s")
    )
    width = second_moment(flux, velocity, np.hypot(sigma, instrument))
    error = float(np.sqrt((part["flux_err"] ** 2).sum(skipna=False)))
    total = float(part["flux"].sum(skipna=False))
    return Measured(total, error, float(width[0]), float(broad["flux"].sum()))


def second_moment(
    flux: npt.NDArray[np.float64],
    velocity: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(n,) width of the sum of Gaussians (parts, n); NaN where the sum is not positive."""
    total = np.where(flux.sum(axis=0) > 0, flux.sum(axis=0), np.nan)
    mean = (flux * velocity).sum(axis=0) / total
    square = (flux * (sigma**2 + (velocity - mean) ** 2)).sum(axis=0) / total
    return np.asarray(np.sqrt(square))


def pull(ours: Measured, flux: float, error: float) -> float:
    """The difference over both errors."""
    return (ours.flux - flux) / float(np.hypot(ours.error, error))


def differs(ours: Measured, flux: float, error: float) -> bool:
    """Whether two fluxes disagree by APART and by SIGMAS."""
    return abs(ours.flux - flux) > APART * abs(flux) and abs(pull(ours, flux, error)) > SIGMAS


def reasons(results: Results, others: Iterable[Other]) -> list[dict[str, str]]:
    """A row for every disagreement: file, what, Warte, other, why."""
    rows = []
    for file, row in results.reference.iterrows():
        if file in results.fits.index:
            rows += _class_rows(results, str(file), row)
            rows += _component_rows(results, str(file), row)
    for other in others:
        ours = results.measured(other.file, other.line)
        if ours is not None and differs(ours, other.flux, other.error):
            rows.append(
                {
                    "file": other.file,
                    "what": other.line,
                    "Warte": f"{ours.flux:.0f} +- {ours.error:.0f}" if ours.error else "none",
                    "other": f"{other.program}: {other.flux:.0f} +- {other.error:.0f}",
                    "why": _why_flux(results, other, ours),
                }
            )
    return rows


def _why_flux(results: Results, other: Other, ours: Measured) -> str:
    if other.line == BROAD_ALPHA and not ours.flux > 0:
        words = [_why_no_broad(results, other.file)]
    else:
        words = _of_the_other(results, other, ours) + _of_velocity(results, other)
        words += _of_assumptions(results, other, ours)
    misfit = results.fits.loc[other.file, "chi2_reduced"]
    if misfit > WORST_FIT:
        words.append(f"no model here is the whole truth (Warte's reduced chi-square {misfit:.1f})")
    return "; ".join(words) or "not explained"


def _of_the_other(results: Results, other: Other, ours: Measured) -> list[str]:
    """What the pipeline's one Gaussian for each line does."""
    words = []
    wide = other.sigma > BROAD_KM_S
    if wide:
        words.append(f"the pipeline's one Gaussian, {other.sigma:.0f} km/s wide, is the broad line")
        if other.line.startswith("["):
            words[-1] += ", to whose width the forbidden lines are tied"
        if ours.broad > 0:
            words.append(f"Warte's broad part has {ours.broad:.0f}")
        if other.line in RED:
            words.append(_red_sums(results, other.file))
    elif ours.flux < other.flux < ours.flux + ours.broad:
        words.append(
            f"the pipeline's one Gaussian, {other.sigma:.0f} km/s wide, takes a part of the broad "
            f"line, for which Warte has {ours.broad:.0f} apart"
        )
    if other.flux < 0 and not wide:
        words.append("an area below 0 is absorption of the stars; Warte's fluxes end at 0")
    return words


def _red_sums(results: Results, file: str) -> str:
    """What lies above a straight continuum around H-alpha, and what both programs have there."""
    spectrum, row = results.spectra[file], results.reference.loc[file]
    rest, flux = spectrum.rest_wavelength, spectrum.flux
    ends = [(rest > low) & (rest < high) & spectrum.good for low, high in BESIDE_RED]
    level = [float(np.median(flux[end])) for end in ends]
    middle = [float(np.mean(pair)) for pair in BESIDE_RED]
    inside = (rest > BESIDE_RED[0][1]) & (rest < BESIDE_RED[1][0]) & spectrum.good
    above = (flux - np.interp(rest, middle, level))[inside]
    area = float((above * np.gradient(spectrum.wavelength)[inside]).sum())
    lines = results.lines[(results.lines["file"] == file) & results.lines["line"].isin(IN_RED)]
    pipeline = row["ha_area"] + row["nii6584_area"] * (1 + 1 / NII_RATIO)
    return (
        f"all lines of the red window together: {area:.0f} above a straight line by plain sum, "
        f"Warte {lines['flux'].sum():.0f}, the pipeline's H-alpha and [N II] {pipeline:.0f}"
    )


def _of_velocity(results: Results, other: Other) -> list[str]:
    """A single component that has run away from the pipeline's redshift."""
    lines = results.lines[results.lines["file"] == other.file]
    if results.fits.loc[other.file, "components"] != 1:
        return []
    velocity = float(lines["velocity_km_s"].iloc[0])
    if abs(velocity) < AWAY_KM_S:
        return []
    return [f"no clear line: Warte's only component went to {velocity:.0f} km/s"]


def _of_assumptions(results: Results, other: Other, ours: Measured) -> list[str]:
    """Changes of one assumption that end the disagreement, or that lie beyond the other's value."""
    helped, beyond = [], []
    for word in VARIANTS:
        changed = results.measured(other.file, other.line, word)
        if changed is None:
            continue
        text = f"with {word} Warte has {changed.flux:.0f} +- {changed.error:.0f}"
        if not differs(changed, other.flux, other.error):
            helped.append(text)
        elif (changed.flux - other.flux) * (ours.flux - other.flux) < 0:
            beyond.append(f"{text}, so that the other lies between")
    if helped and all(ALL_CHANGED not in text for text in helped[:1]):
        helped = [text for text in helped if ALL_CHANGED not in text]
    return helped[:2] or beyond[:1]


def _why_no_broad(results: Results, file: str) -> str:
    forced = results.measured(file, BROAD_ALPHA, FORCED)
    words = "no broad component was sound: the curved continuum of the window takes the broad line"
    if forced is None or not forced.flux > 0:
        return words
    return f"{words}; forced, it has {forced.flux:.0f} at a width of {forced.sigma:.0f} km/s"


def expected_classes(row: pd.Series) -> tuple[str, ...]:
    """Classes that agree with the pipeline's; none where it says nothing about emission lines."""
    allowed: tuple[str, ...] = ()
    if "BROADLINE" in row["subclass"] or row["cls"] == "QSO":
        allowed += ("broad-line",)
    if row["bpt"] == "AGN":
        allowed += ("Seyfert", "LINER")
    if row["bpt"] == "SF":
        allowed += ("star-forming",)
    return allowed


def _class_rows(results: Results, file: str, row: pd.Series) -> list[dict[str, str]]:
    allowed = expected_classes(row)
    told = f"pipeline: {row['cls']} {row['subclass']}".strip()
    told += f", ratios {row['bpt']}" if row["bpt"] else ""
    rows = []
    for what, found in (
        ("class, network", str(results.classes.loc[file, "class"])),
        ("class, ratios of the fit", str(results.ratios["bpt_class"].get(file, ""))),
    ):
        if found and allowed and found not in allowed:
            reason = _why_class(results, file, found, what)
            rows.append({"file": file, "what": what, "Warte": found, "other": told, "why": reason})
    return rows


def _why_class(results: Results, file: str, found: str, what: str) -> str:
    broad = results.measured(file, BROAD_ALPHA) or results.measured(file, "H-beta, broad")
    if broad is not None and broad.flux > SIGMAS * broad.error and broad.error > 0:
        there = (
            f"the fit finds a broad H-alpha: {broad.flux:.0f} +- {broad.error:.0f}, "
            f"width {broad.sigma:.0f} km/s"
        )
        if what.endswith("network"):
            return f"{there}; the pipeline's one Gaussian does not look for it"
        return f"the diagram takes the narrow lines alone; {there}"
    if what.endswith("fit"):
        return "the diagram takes the narrow lines alone; no broad component was kept"
    row = results.ratios.loc[file] if file in results.ratios.index else None
    place = f"ratios of the fit: {row['bpt_class'] or 'not measured'}" if row is not None else ""
    chance = results.classes.loc[file, f"p_{found}"]
    return f"the network is alone with it, at a probability of {chance:.2f}; {place}".rstrip("; ")


def _component_rows(results: Results, file: str, row: pd.Series) -> list[dict[str, str]]:
    fitted = results.fits.loc[file]
    sound = row["base_degenerate"] == 0
    usual_two = sound and row["base_dbic"] > STRONG_BIC
    two = fitted["components"] == 2
    if two == usual_two or fitted["components"] == 0:
        return []
    other = "plain lmfit: not fitted"
    if pd.notna(row["base_dbic"]):
        other = f"plain lmfit: BIC {row['base_dbic']:.0f} for two" + (
            "" if sound else ", amplitudes of opposite signs"
        )
    return [
        {
            "file": file,
            "what": "components",
            "Warte": str(int(fitted["components"])),
            "other": other,
            "why": _why_two(results, file) if two else _why_one(fitted),
        }
    ]


def _why_two(results: Results, file: str) -> str:
    ratio = results.fits.loc[file, "log_evidence_ratio"]
    lines = results.lines[(results.lines["file"] == file) & (results.lines["component"] == "2")]
    seen = lines[lines["flux"] > SIGMAS * lines["flux_err"]]
    first = lines.iloc[0]
    words = [
        f"log evidence {ratio:.1f}; second component at {first['velocity_km_s']:.0f} km/s, width "
        f"{first['sigma_km_s']:.0f} km/s, seen in {', '.join(seen['line']) or 'no line at 3 sigma'}"
    ]
    if not seen["line"].str.startswith("[O III]").any():
        words.append("not in [O III]: rather the stars' or the continuum's shape than a component")
    if results.reference.loc[file, "cls"] == "STAR":
        words.append("the spectrum is a star's, which has no such lines at all")
    return "; ".join(words)


def _why_one(fitted: pd.Series) -> str:
    broken = fitted["flags"] or "no rule was broken"
    return f"log evidence {fitted['log_evidence_ratio']:.1f}: {broken}"
