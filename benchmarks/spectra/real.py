"""Part real: the real spectra beside the survey's pipeline and beside GELATO."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits

from benchmarks.page import Table
from benchmarks.spectra import why
from benchmarks.spectra.why import Measured, Results
from warte.cli.common import Report
from warte.core.data import registry
from warte.spectra.bpt import ratios
from warte.spectra.classify import classify
from warte.spectra.fit import fit
from warte.spectra.read import read_all
from warte.spectra.spectrum import C_KM_S, Spectrum

FOLDER, REFERENCE = "spectra", "reference.csv"
# Our name of a line, the pipeline's column, GELATO's columns (parts that add up).
LINES = {
    "H-beta": ("hb", ("Balmer_HI_4862.68",)),
    "[O III] 5007": ("oiii5007", ("AGN_[OIII]_5008.24", "Outflow_[OIII]_Outflow_5008.24")),
    "H-alpha": ("ha", ("Balmer_HI_6564.61",)),
    "[N II] 6583": ("nii6584", ("AGN_[NII]_6585.27",)),
}
BROAD_ALPHA = ("Balmer_HI_Broad_6564.61",)
SEEN = 3.0  # a line above so many of its errors is there


@dataclass(frozen=True)
class Other:
    """What another program says of a line: flux, width with the instrument's, km/s."""

    program: str
    file: str
    line: str
    flux: float
    error: float
    sigma: float


def real_tables(progress: Report) -> list[Table]:
    """Classes, fluxes, and why they differ."""
    folder = Path(os.environ.get(registry.DATA_VARIABLE, "")) / FOLDER
    if not os.environ.get(registry.DATA_VARIABLE) or not (folder / REFERENCE).is_file():
        told = f"{FOLDER}/{REFERENCE} is not on this machine: set {registry.DATA_VARIABLE}"
        return [Table("Real: skipped", pd.DataFrame({"part": ["real"], "why": [told]}))]
    reference = pd.read_csv(folder / REFERENCE).set_index("file", drop=False)
    reference[["cls", "subclass", "bpt"]] = reference[["cls", "subclass", "bpt"]].fillna("")
    progress("real", 0, 2)
    spectra, failures = read_all([folder / name for name in reference["file"]])
    results = _results(spectra, reference)
    progress("real", 1, 2)
    others = [*_pipeline(reference), *_gelato(folder, reference)]
    reasons = pd.DataFrame(why.reasons(results, others))
    progress("real", 2, 2)
    unread = "; ".join(f"{one.name}: {one.reason}" for one in failures)
    return [_classes(results, unread), _fluxes(results, others), _whole(reasons)]


def _results(spectra: list[Spectrum], reference: pd.DataFrame) -> Results:
    found = fit(spectra)
    others = {word: fit(spectra, settings).lines for word, settings in why.VARIANTS.items()}
    return Results(
        spectra={one.name: one for one in spectra},
        fits=found.fits.set_index("file"),
        lines=found.lines,
        variants=others,
        classes=classify(spectra).set_index("file"),
        ratios=ratios(found.lines).set_index("file"),
        reference=reference,
    )


def _pipeline(reference: pd.DataFrame) -> list[Other]:
    """The areas that the survey's pipeline gives; those with an error of 0 or less are none."""
    return [
        Other("pipeline", str(name), line, *(float(row[f"{key}_{what}"]) for what in _COLUMNS))
        for name, row in reference.iterrows()
        for line, (key, _) in LINES.items()
        if row[f"{key}_area_err"] > 0
    ]


_COLUMNS = ("area", "area_err", "sigma_kms")


def _gelato(folder: Path, reference: pd.DataFrame) -> list[Other]:
    """Mean and scatter of GELATO's bootstraps, where its results lie beside the spectrum."""
    found = []
    for name in reference["file"]:
        path = folder / name.replace(".fits", "-gelato-results.fits")
        if not path.is_file():
            continue
        with fits.open(path) as opened:
            table = opened["PARAMS"].data
            wanted = {line: parts for line, (_, parts) in LINES.items()}
            for line, parts in (wanted | {"H-alpha, broad": BROAD_ALPHA}).items():
                there = [part for part in parts if f"{part}_Flux" in table.names]
                if there:
                    values = _bootstraps(table, there)
                    found.append(Other("GELATO", name, line, *values))
    return found


def _bootstraps(table: fits.FITS_rec, parts: list[str]) -> tuple[float, float, float]:
    """Mean and standard deviation of the summed flux, and the mean width of the whole line."""
    flux, velocity, sigma = (
        np.stack([np.asarray(table[f"{part}_{what}"], dtype=np.float64) for part in parts])
        for what in ("Flux", "Redshift", "Dispersion")
    )
    velocity = velocity / (1 + velocity.mean() / C_KM_S)  # GELATO's redshifts are c z
    width = why.second_moment(flux, velocity, sigma)
    total = flux.sum(axis=0)
    return float(total.mean()), float(total.std()), float(np.nanmean(width))


def _classes(results: Results, unread: str) -> Table:
    rows = []
    for name, row in results.reference.iterrows():
        if name not in results.fits.index:
            rows.append({"file": name, "fit": "could not be read"})
            continue
        fitted, network = results.fits.loc[name], results.classes.loc[name]
        ratio = results.ratios["bpt_class"].get(name, "")
        chance = network.get(f"p_{network['class']}", np.nan)
        sign = " (opposite signs)" if row["base_degenerate"] == 1 else ""
        two = pd.notna(fitted["p_two"])
        rows.append(
            {
                "file": name,
                "pipeline": f"{row['cls']} {row['subclass']}".strip(),
                "its ratios": row["bpt"] or "-",
                "network": f"{network['class']} {chance:.2f}" if network["class"] else "-",
                "ratios of the fit": ratio or "-",
                "components": int(fitted["components"]),
                "p two": f"{fitted['p_two']:.3f}" if two else "-",
                "network p two": f"{network['p_two_components']:.3f}",
                "plain lmfit: BIC of one less of two": f"{row['base_dbic']:.0f}{sign}"
                if pd.notna(row["base_dbic"])
                else "-",
                "chi2 reduced": f"{fitted['chi2_reduced']:.2f}",
                "flags": fitted["flags"] or fitted["reason"] or "-",
            }
        )
    fitted_by_lmfit = results.reference["base_degenerate"].notna()
    opposite = int((results.reference["base_degenerate"] == 1).sum())
    return Table(
        "Real: classes and components",
        pd.DataFrame(rows),
        f"All files of {REFERENCE}; default settings. Pipeline: class and subclass of the survey, "
        "and the place of its areas in the diagram. Plain lmfit: one and two Gaussians on H-beta "
        "and [O III] with a straight continuum, made when the files were collected; "
        f"{opposite} of its {int(fitted_by_lmfit.sum())} pairs have amplitudes of opposite signs, "
        f"and of Warte's {int((results.lines['flux'] < 0).sum())} lines have a flux below 0."
        + (f" Not read: {unread}." if unread else ""),
    )


def _fluxes(results: Results, others: list[Other]) -> Table:
    rows = []
    hidden = 0
    for other in others:
        ours = results.measured(other.file, other.line)
        if ours is None:
            continue
        if abs(other.flux) <= SEEN * other.error and ours.flux <= SEEN * ours.error:
            hidden += 1
            continue
        rows.append(_flux_row(other, ours))
    return Table(
        "Real: fluxes and widths beside the pipeline's and GELATO's",
        pd.DataFrame(rows),
        "Narrow components together, 1e-17 erg/s/cm2; widths in km/s, the instrument's included, "
        "of two components by their second moment. Pull: the difference over both errors; those of "
        "Warte's components are added in quadrature, too much where they overlap. "
        f"{hidden} lines that neither program sees at {SEEN:g} sigma are left out. GELATO: mean "
        "and scatter of its 100 bootstraps.",
    )


def _flux_row(other: Other, ours: Measured) -> dict[str, object]:
    ratio = ours.flux / other.flux if other.flux else np.nan
    pull = why.pull(ours, other.flux, other.error)
    return {
        "file": other.file,
        "line": other.line,
        "beside": other.program,
        "Warte": f"{ours.flux:.1f} +- {ours.error:.1f}",
        "broad": f"{ours.broad:.1f}" if ours.broad > 0 else "-",
        "other": f"{other.flux:.1f} +- {other.error:.1f}",
        "ratio": f"{ratio:.2f}",
        "pull": f"{pull:.1f}",
        "width": f"{ours.sigma:.0f}" if np.isfinite(ours.sigma) else "-",
        "other width": f"{other.sigma:.0f}",
        "differs": "yes" if why.differs(ours, other.flux, other.error) else "",
    }


def _whole(reasons: pd.DataFrame) -> Table:
    return Table(
        "Real: every disagreement and its reason",
        reasons,
        f"Fluxes that differ by more than {why.APART:.0%} and by more than {why.SIGMAS:g} sigma; "
        "classes and numbers of components that differ. Reasons are measured: the fit is repeated "
        "with one assumption changed, and the change that brings both together is named.",
    )
