"""Findings in words, and numbers with their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Colours that can be told apart by most colour-blind people, on a light and on a dark page
# (after Okabe & Ito 2008); "" is a spectrum without a class.
CLASS_COLOURS = {
    "star-forming": "#2f8fdc",
    "composite": "#0aa578",
    "Seyfert": "#d9601a",
    "LINER": "#d9a013",
    "broad-line": "#c56fa5",
    "passive": "#8d8475",
    "": "#8794a6",
}
NO_CLASS = "no class"
FOOTER = "Made by Warte. This page is one file and fetches nothing."
# What the files of a result hold.
FILES = {
    "classes.csv": "one row per file: class, probabilities of all classes and of two components",
    "fits.csv": "one row per file: components, chi-square, evidence, and why a fit failed",
    "lines.csv": "one row per file, line and component: flux, velocity, width, equivalent width",
    "lines.fits": "the same for astronomers' tools",
    "run.json": "how this result was made: command, versions, inputs, times",
}
HOW_TO_READ = (
    "The diagram compares two pairs of neighbouring lines, so dust and the size of the galaxy drop "
    "out. Below the dashed curve (Kauffmann 2003) young stars make the gas shine; above the full "
    "one (Kewley 2001) they cannot, and something harder does: a black hole that is being fed (a "
    "Seyfert nucleus, above the straight line of Schawinski 2007) or a weaker source (LINER). "
    "Between the curves both take part. Only files whose four lines all exceed three times their "
    "errors are in the diagram; broad components do not count.",
    "Each card shows the data as steps with a band of one standard error; a gap is where pixels "
    "are missing. The model is drawn over them, and each component by itself, standing on the "
    "continuum. The strip below is data minus model in units of the error: with a good model "
    "about two thirds of it lie in the grey band, without a pattern.",
    "Two components mean that two Gaussians draw the narrow lines better, and that the pair passed "
    "every check: both fluxes positive and significant, and the two apart in velocity or in width. "
    "The log evidence ratio (natural logarithm) says how much better, with the extra parameters "
    "paid for; 'p two' is the chance that there are two if either answer was as likely before.",
    "Two components are not two black holes. Outflows, a rotating disc and two merging galaxies "
    "look alike in one spectrum; a reduced chi-square far above 1 says that the lines are not "
    "Gaussian at all, and then the second component only mends their shape.",
    "Velocities are relative to the redshift of the file, positive away from us; widths are the "
    "sigma of the Gaussian without the instrument's. Errors are one standard deviation. Fluxes are "
    "in the unit of the file times Angstrom.",
)


def headline(spectra: int, seyferts: int, doubles: int) -> str:
    """'12 of 340 spectra are Seyferts; 3 have two components'."""
    if not spectra:
        return "No spectrum could be used"
    first = f"{seyferts:,} of {spectra:,} spectra {'is a' if seyferts == 1 else 'are'} Seyfert"
    first += "" if seyferts == 1 else "s"
    return f"{first}; {doubles:,} {'has' if doubles == 1 else 'have'} two components"


def measured(value: float, error: float) -> str:
    """A value with its error, both to the place of the error's second digit: '677.4 ± 7.4'."""
    if not np.isfinite(value):
        return ""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.4g}"
    places = 1 - int(np.floor(np.log10(error)))
    if places > 6:  # fluxes in erg/s, for example
        return f"{value:.4g} ± {error:.2g}"
    if places < 0:  # large numbers are not written with invented digits
        value, error = round(value, places), round(error, places)
    shown = max(places, 0)
    return f"{value:,.{shown}f} ± {error:,.{shown}f}"


def plain(value: float, digits: int = 2) -> str:
    """A number with so many decimals; nothing for NaN."""
    return f"{value:,.{digits}f}" if np.isfinite(value) else ""


def chance(probability: float) -> str:
    """A probability of 0 to 1 in percent, never all or nothing; nothing for NaN."""
    if not np.isfinite(probability):
        return ""
    percent = 100 * probability
    if percent > 99.5:
        return "over 99 %"
    return "under 1 %" if percent < 0.5 else f"{percent:.0f} %"


def class_name(name: str) -> str:
    """The class as it is shown."""
    return name or NO_CLASS


def files_in(folder: Path) -> list[str]:
    """Names of the result files in the folder, and run.json, which is still to come."""
    return [name for name in FILES if name == "run.json" or (folder / name).exists()]
