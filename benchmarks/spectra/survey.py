"""Part survey: the network chooses, the fit decides, on a mix as a survey meets it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.clock import Times, measure, on_threads
from benchmarks.page import Table
from benchmarks.spectra.data import SURVEY, THREADS, generator, percent_of
from warte.cli.common import Report
from warte.spectra import presets
from warte.spectra.classify import candidate_threshold, classify
from warte.spectra.fit import fit
from warte.spectra.lines import CLASSES
from warte.spectra.simulate import SimulateSettings, simulate
from warte.spectra.spectrum import Spectrum
from warte.spectra.train import clear_doubles

BoolArray = npt.NDArray[np.bool_]
MIX, QUICK_MIX = 3000, 100
DRAWN, QUICK_DRAWN = 4000, 100  # galaxies with double lines, of which the clear ones are used
KEPT, FITTED = 98, 10  # per cent, wanted


@dataclass(frozen=True)
class Found:
    """What was found of N spectra; seconds of classifying all, and of fitting all and the chosen.

    passed: (N,) whether the network thinks that a fit is worth it. two: (N,) whether the fit says
    that there are two components.
    """

    passed: BoolArray
    two: BoolArray
    classify: Times
    fit_all: Times
    fit_passed: Times


def survey_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """Kept and fitted, recall and false positives, with the network first and without it."""
    count, drawn = (QUICK_MIX, QUICK_DRAWN) if quick else (MIX, DRAWN)
    mix = replace(presets.survey(), count=count)
    progress("survey", 0, 3)
    galaxies, truth = simulate(mix, generator(seed, SURVEY, 0))
    found = _find(galaxies)
    progress("survey", 1, 3)
    doubles, clear = _clear_doubles(replace(mix, count=drawn, two_fraction=1.0), seed)
    progress("survey", 2, 3)
    pairs = _find(doubles)
    progress("survey", 3, 3)
    single = truth.spectra["components"].to_numpy() < 2
    # Every galaxy with lines was drawn double; in the mix only a part of them is.
    share = clear * mix.two_fraction
    note = (
        f"{count} galaxies of presets.survey for what is fitted, false positives and time. Doubles "
        f"are rare among them; therefore {drawn} more were drawn from the same distribution with "
        f"all lines double, and the {len(doubles)} clear ones of them (separation 200 km/s, peak "
        f"S/N 10, flux ratio 0.3 or more) say what is kept and found; seed {seed}; 95 % Wilson "
        f"intervals. Threshold of the package's card: {candidate_threshold():g}. Fits with default "
        "settings; two threads, files not read. Last two columns: expected among 10,000 galaxies "
        f"of the mix, where {1e4 * share:.0f} are clear doubles. "
        f"Wanted: {KEPT} % of the clear doubles kept, {FITTED} % of the galaxies fitted or less."
    )
    return [
        Table("Survey: network first, fit second", _rows(found, single, pairs, share), note),
        _by_class(found, truth.spectra),
    ]


def _clear_doubles(settings: SimulateSettings, seed: int) -> tuple[list[Spectrum], float]:
    """Those of the galaxies whose lines are clearly double, and their share."""
    spectra, truth = simulate(settings, generator(seed, SURVEY, 1))
    clear = clear_doubles(truth.spectra)
    return [spectra[row] for row in np.flatnonzero(clear)], float(clear.mean())


def _find(spectra: list[Spectrum]) -> Found:
    """Classify and fit all of them, and again those that the network chooses, on two threads."""
    tables: list[pd.DataFrame] = []
    with on_threads(THREADS):
        classified = measure(lambda: tables.append(classify(spectra)))
        fitted = measure(lambda: tables.append(fit(spectra).fits))
        chance = tables[0]["p_two_components"].to_numpy(dtype=np.float64)
        passed = np.nan_to_num(chance) >= candidate_threshold()
        chosen = [spectra[row] for row in np.flatnonzero(passed)]
        fitted_chosen = measure(lambda: fit(chosen))
    two = tables[1]["components"].to_numpy() == 2
    return Found(passed, two, classified, fitted, fitted_chosen)


def _rows(found: Found, single: BoolArray, pairs: Found, share: float) -> pd.DataFrame:
    """One row for each way; share: of clear doubles in the mix."""
    scale = 1e4 / found.two.size
    everything = np.ones_like(found.passed), np.ones_like(pairs.passed), found.fit_all.wall
    chosen = found.passed, pairs.passed, found.classify.wall + found.fit_passed.wall
    rows = []
    for name, (fitted, kept, seconds) in (("fit of all", everything), ("network first", chosen)):
        right, wrong = kept & pairs.two, fitted & found.two & single
        rows.append(
            {
                "way": name,
                "clear doubles kept, %": percent_of(kept),
                "galaxies fitted, %": percent_of(fitted),
                "clear doubles found, %": percent_of(right),
                "single ones called two, %": percent_of(wrong[single]),
                "s per 10,000": f"{scale * seconds:.1f}",
                "time of fit of all, times": f"{found.fit_all.wall / seconds:.1f}",
                "true doubles in 10,000": f"{1e4 * share * right.mean():.0f}",
                "false doubles in 10,000": f"{scale * wrong.sum():.0f}",
            }
        )
    return pd.DataFrame(rows)


def _by_class(found: Found, truth: pd.DataFrame) -> Table:
    """Where the false doubles come from."""
    single = truth["components"].to_numpy() < 2
    rows = []
    for name in CLASSES:
        here = single & (truth["class"] == name).to_numpy()
        rows.append(
            {
                "class": name,
                "fit of all, %": percent_of(found.two[here]),
                "network first, %": percent_of((found.two & found.passed)[here]),
            }
        )
    note = (
        "The galaxies of the mix that have one component or none. Wanted: at most 1, the rate that "
        "the thresholds were calibrated to, on galaxies of the first four classes drawn alike."
    )
    return Table("Survey: single galaxies called two, by class", pd.DataFrame(rows), note)
