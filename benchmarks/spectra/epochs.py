"""Part epochs: one quasar on 78 nights; the scatter of its [O III] velocity against the errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.nmf.data import arrays_of
from benchmarks.page import Table
from benchmarks.spectra import peers
from benchmarks.spectra.data import BLUE
from warte.cli.common import Report
from warte.spectra.fit.batch import batches
from warte.spectra.fit.choose import FitSettings, compare
from warte.spectra.fit.solve import Lines
from warte.spectra.lines import BLUE_WINDOW
from warte.spectra.spectrum import make_spectrum

FloatArray = npt.NDArray[np.float64]
FILE = "rm017_epochs.npz"
BEYOND = 20.0  # rest Angstrom beyond the blue window that are kept


def epoch_tables(quick: bool, progress: Report) -> list[Table]:
    """Standard deviation of velocity over error, of Warte and of lmfit."""
    title = "Epochs: scatter of the [O III] velocity of one quasar over its stated error"
    arrays = arrays_of(FILE)
    if isinstance(arrays, str):
        return [Table(title, pd.DataFrame({"not measured": [arrays]}))]
    z = float(np.median(arrays["z"]))
    lines = _windows(arrays, z)
    if quick:
        lines = lines.take(slice(0, 12))
    rows = []
    for step, (name, velocity, error) in enumerate(_programs(lines)):
        progress("epochs", step, 5)
        rows.append({"program": name} | _scatter(velocity, error))
    progress("epochs", 5, 5)
    return [
        Table(
            title,
            pd.DataFrame(rows),
            f"{FILE}: {len(lines)} epochs, all at z = {z:.4f}, H-beta and [O III], one narrow "
            "component. Pull: velocity less its weighted mean, over its error; uncertainty of its "
            "standard deviation: that over sqrt(2 (n - 1)). Wanted of Warte: 0.9 to 1.1. The "
            "wavelengths of the epochs themselves are not perfect, and one Gaussian is not the "
            "whole truth about the line.",
        )
    ]


def _windows(arrays: dict[str, np.ndarray], z: float) -> Lines:
    """The blue window of all epochs, at one redshift."""
    wavelength = 10 ** arrays["loglam"].astype(np.float64)
    near = (wavelength > (BLUE_WINDOW[0] - BEYOND) * (1 + z)) & (
        wavelength < (BLUE_WINDOW[1] + BEYOND) * (1 + z)
    )
    spectra = [
        make_spectrum(str(number), wavelength[near], flux[near], ivar[near], z=z)
        for number, (flux, ivar) in enumerate(zip(arrays["flux"], arrays["ivar"], strict=True))
    ]
    (batch,), _ = batches(spectra)
    return batch.lines


def _programs(lines: Lines) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Name, (N,) velocities and errors, km/s."""
    for broad, word in ((False, "no broad line"), (True, "broad H-beta")):
        settings = FitSettings(components=1, broad=broad)
        compared = compare(lines, BLUE, settings)
        found = compared.fits[1, broad]
        scale = np.sqrt(compared.misfit)
        yield f"Warte, {word}", found.nonlinear[:, 0], found.errors[:, 0] * scale
        if broad:
            yield (
                "Warte, broad H-beta, errors not scaled",
                found.nonlinear[:, 0],
                found.errors[:, 0],
            )
        shape = peers.Shape(1, broad)
        usual = [
            peers.lmfit_residual(one, shape, peers.usual_start(one, shape))
            for one in peers.pixels_of(lines)
        ]
        velocity, error = (
            np.array([getattr(one, key)[0] for one in usual]) for key in ("values", "errors")
        )
        yield f"lmfit, {word}, straight continuum", velocity, error


def _scatter(velocity: FloatArray, error: FloatArray) -> dict[str, object]:
    good = np.isfinite(velocity) & np.isfinite(error) & (error > 0)
    weight = error[good] ** -2.0
    mean = float(np.average(velocity[good], weights=weight))
    pull = (velocity[good] - mean) / error[good]
    spread = float(pull.std(ddof=1))
    low, high = np.quantile(pull, (0.1587, 0.8413))
    return {
        "epochs": int(good.sum()),
        "mean velocity, km/s": f"{mean:.1f}",
        "median error, km/s": f"{np.median(error[good]):.1f}",
        "scatter, km/s": f"{velocity[good].std(ddof=1):.1f}",
        "pull, standard deviation": f"{spread:.2f} +- {spread / np.sqrt(2 * (good.sum() - 1)):.2f}",
        "pull, half of 16-84 %": f"{(high - low) / 2:.2f}",
    }
