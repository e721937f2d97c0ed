"""Part two: is there a second component? Warte's evidence beside lmfit's F-test and BIC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import chi2 as chi2_law
from scipy.stats import f as f_law
from scipy.stats import ncx2

from benchmarks.page import Table
from benchmarks.spectra import peers
from benchmarks.spectra.data import BLUE, DOUBLE, SINGLE, generator, percent_of, solver_lines
from warte.cli.common import Report
from warte.spectra.fit import fit
from warte.spectra.fit.choose import FitSettings, compare
from warte.spectra.fit.layout import blue_layout
from warte.spectra.fit.profile import model
from warte.spectra.fit.solve import Lines, solve
from warte.spectra.fit.start import starts
from warte.spectra.simulate import Pairs, simulate_pairs

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RATE = 0.01  # of single components that may be called two
WIDTHS = ((60.0, 100.0), (60.0, 200.0))  # km/s, of each component
SEPARATIONS = (100.0, 200.0, 300.0, 500.0)  # km/s
PEAKS = (5.0, 10.0, 20.0, 33.0)  # of [O III] 5007 of the brighter component over the noise
QUICK_SEPARATIONS, QUICK_PEAKS = (200.0, 500.0), (10.0,)
FLUX_RATIO = 0.3
EXTRA = 4  # parameters of a second component: velocity, width, two fluxes
STRONG_BIC = 10.0  # difference that is called very strong (Kass & Raftery 1995, JASA 90, 773)
# The peers' own model, so that nobody has a parameter more than the others.
SAME = FitSettings(broad=False, order=1, absorption=False)


@dataclass(frozen=True)
class Sizes:
    """Numbers of spectra: single ones for Warte and lmfit, then doubles of each cell."""

    singles: int
    doubles: int
    peer_singles: int
    peer_doubles: int


FULL, QUICK = Sizes(2000, 400, 300, 50), Sizes(100, 40, 12, 4)


@dataclass(frozen=True)
class Thresholds:
    """Values of each statistic above which RATE of the single components lie."""

    evidence: float
    bic: float


def two_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """False positives, then recall."""
    sizes = QUICK if quick else FULL
    peaks, separations = (QUICK_PEAKS, QUICK_SEPARATIONS) if quick else (PEAKS, SEPARATIONS)
    cells = [(number, widths, peak) for number, widths in enumerate(WIDTHS) for peak in peaks]
    false: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for done, (number, widths, peak) in enumerate(cells):
        progress("two or one", done, len(cells))
        stream = (number, int(peak))
        settings: dict[str, Any] = {"sigma_km_s": widths, "peak_snr": peak}
        head = {"widths, km/s": f"{widths[0]:.0f}-{widths[1]:.0f}", "peak S/N": f"{peak:g}"}
        limits, row = _singles(seed, stream, settings, sizes)
        false.append(head | row)
        for apart in separations:
            rng = generator(seed, DOUBLE, *stream, int(apart))
            pairs = simulate_pairs(
                sizes.doubles, rng, separation_km_s=apart, flux_ratio=FLUX_RATIO, **settings
            )
            wanted = "95" if apart >= 200 and peak >= 10 else "-"
            row = head | {"separation, km/s": f"{apart:.0f}"} | _doubles(pairs, limits, sizes)
            found.append(row | {"wanted": wanted})
    progress("two or one", len(cells), len(cells))
    return [_false_table(false, sizes, seed), _recall_table(found, sizes, seed)]


def _singles(
    seed: int, stream: tuple[int, ...], settings: dict[str, Any], sizes: Sizes
) -> tuple[Thresholds, dict[str, object]]:
    """Thresholds from one set of single components, and what each rule does on another."""
    first, second = (
        simulate_pairs(
            sizes.singles, generator(seed, SINGLE, half, *stream), components=1, **settings
        )
        for half in (0, 1)
    )
    lines = [solver_lines(pairs)[0] for pairs in (first, second)]
    some = slice(0, sizes.peer_singles)
    peer = [usual(part.take(some)) for part in lines]
    limits = Thresholds(
        float(np.quantile(_evidence(lines[0]), 1 - RATE, method="higher")),
        float(np.quantile(peer[0].bic, 1 - RATE, method="higher")),
    )
    return limits, {
        "Warte, measured threshold": percent_of(_evidence(lines[1]) > limits.evidence),
        "Warte, as shipped": percent_of(_shipped(second)),
        "lmfit, measured threshold": percent_of(peer[1].bic > limits.bic),
        f"lmfit, F-test at {RATE:g}": percent_of(peer[1].f_test < RATE),
        f"lmfit, BIC by {STRONG_BIC:g}": percent_of(peer[1].bic > STRONG_BIC),
    }


def _doubles(pairs: Pairs, limits: Thresholds, sizes: Sizes) -> dict[str, object]:
    lines, _ = solver_lines(pairs)
    peer = usual(lines.take(slice(0, sizes.peer_doubles)))
    return {
        "Warte, measured threshold": percent_of(_evidence(lines) > limits.evidence),
        "Warte, as shipped": percent_of(_shipped(pairs)),
        "lmfit, measured threshold": percent_of(peer.bic > limits.bic),
        f"lmfit, F-test at {RATE:g}": percent_of(peer.f_test < RATE),
        f"lmfit, BIC by {STRONG_BIC:g}": percent_of(peer.bic > STRONG_BIC),
        "in theory": f"{100 * power(pairs, lines):.1f}",
    }


def _evidence(lines: Lines) -> FloatArray:
    """(N,) log evidence ratio; -inf where a rule forbids the pair."""
    compared = compare(lines, BLUE, SAME)
    return np.where(compared.fault == "", compared.log_ratio, -np.inf)


def _shipped(pairs: Pairs) -> BoolArray:
    """(N,) whether `fit` with its own settings and threshold reports two components."""
    return fit(pairs.spectra()).fits["components"].to_numpy() == 2


@dataclass(frozen=True)
class Usual:
    """(N,) fall of the BIC by the second component, and the chance of the F-test."""

    bic: FloatArray
    f_test: FloatArray


def usual(lines: Lines) -> Usual:
    """lmfit with one and with two components, one usual start each, amplitudes not below 0."""
    chi2, pixels = np.empty((len(lines), 2)), np.empty(len(lines))
    for row, one in enumerate(peers.pixels_of(lines)):
        pixels[row] = one.flux.size
        for column in (0, 1):
            shape = peers.Shape(column + 1)
            start = peers.usual_start(one, shape)
            chi2[row, column] = peers.lmfit_residual(one, shape, start).chi2
    one, two = np.maximum(chi2[:, 0], chi2[:, 1]), chi2[:, 1]
    freedom = pixels - 10
    # BIC as lmfit counts it: N ln(chi2 / N) + parameters ln N.
    bic = pixels * np.log(one / two) - EXTRA * np.log(pixels)
    return Usual(bic, f_law.sf((one - two) / EXTRA / (two / freedom), EXTRA, freedom))


def power(pairs: Pairs, lines: Lines) -> float:
    """Mean chance that a likelihood-ratio test of four parameters finds the second component.

    From what one component leaves of chi-square without noise; nothing else was to be found out.
    """
    layout = blue_layout(2)
    nonlinear, linear = true_parameters(pairs)
    true = torch.tensor(nonlinear), torch.tensor(linear)
    clean = model(layout, *true, lines.wavelength, lines.instrument)
    noiseless = Lines(lines.wavelength, clean, lines.weight, lines.instrument)
    single = blue_layout(1)
    left = solve(single, noiseless, starts(single, noiseless)).chi2.numpy()
    return float(ncx2.sf(chi2_law.isf(RATE, EXTRA), EXTRA, np.maximum(left, 1e-9)).mean())


def true_parameters(pairs: Pairs) -> tuple[FloatArray, FloatArray]:
    """(N, 4) and (N, 6) parameters of `blue_layout(2)`; the continuum, which says nothing, is 0."""
    table = pairs.truth.spectra
    names = [f"{kind}_{part}_km_s" for part in (1, 2) for kind in ("velocity", "sigma")]
    fluxes = pairs.truth.lines["flux"].to_numpy().reshape(len(table), 2, 3)[:, :, :2]
    linear = np.concatenate([fluxes.reshape(-1, 4), np.zeros((len(table), 2))], axis=1)
    return table[names].to_numpy(dtype=np.float64), linear


def _false_table(rows: list[dict[str, object]], sizes: Sizes, seed: int) -> Table:
    return Table(
        "Two or one: single components called two, %",
        pd.DataFrame(rows),
        f"Simulated spectra of H-beta and [O III] with one component, seed {seed}; {sizes.singles} "
        f"in each cell for Warte, {sizes.peer_singles} of them for lmfit (one usual start, "
        "amplitudes not below 0); 95 % Wilson intervals. Measured threshold: the "
        f"{RATE:.0%} quantile of another set of as many; wanted: {100 * RATE:g}. With it "
        "lmfit's F-test and BIC are the same test, since both rise with the ratio of the two "
        "chi-squares. As shipped: `fit` with its default settings, its absorption, broad lines and "
        f"curved continuum, and the package's own threshold for {RATE:.0%}.",
    )


def _recall_table(rows: list[dict[str, object]], sizes: Sizes, seed: int) -> Table:
    return Table(
        f"Two or one: recall of doubles of flux ratio {FLUX_RATIO:g}, %",
        pd.DataFrame(rows),
        f"{sizes.doubles} doubles in each cell for Warte, {sizes.peer_doubles} of them for lmfit; "
        f"seed {seed}; both widths drawn evenly from the range, peak S/N of the brighter "
        "component (at 33 the fainter one peaks at about 10); columns as in the table before, "
        "whose rates of false positives belong to them. In theory: power of a likelihood-ratio "
        f"test of the {EXTRA} extra parameters at {RATE:.0%}, from the chi-square that one "
        "component leaves of the pair without noise: about what the data can tell.",
    )
