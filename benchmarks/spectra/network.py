"""Part network: speed of the classifier, and what missing pixels cost it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from benchmarks.clock import median_times, on_threads
from benchmarks.page import Table
from benchmarks.spectra.data import NETWORK, THREADS, generator
from warte.cli.common import Report
from warte.spectra import presets
from warte.spectra.classify import BATCH, classify, load, probabilities
from warte.spectra.grid import look, rest_frame
from warte.spectra.simulate import Batch, simulate, simulate_batch
from warte.spectra.train import areas, hide_third, labelled

TIMED, QUICK_TIMED = 4096, 512
SINGLE_FILES = 512  # spectra given one by one
JUDGED, QUICK_JUDGED = 8000, 600
WANTED_SPEED, WANTED_FALL = 20_000.0, 0.01
AREAS = {
    "auc_class": "class",
    "auc_two": "two components",
    "auc_two_all": "two, hopeless pairs too",
    "auc_two_clear": "two, clear pairs",
}


def network_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """Spectra per second, then areas under the curves."""
    progress("network", 0, 2)
    speed = _speed(seed, quick)
    progress("network", 1, 2)
    curves = _areas(seed, quick)
    progress("network", 2, 2)
    return [speed, curves]


def _speed(seed: int, quick: bool) -> Table:
    number, repeats = (QUICK_TIMED, 1) if quick else (TIMED, 5)
    batch, _ = simulate_batch(presets.survey(), number, generator(seed, NETWORK, 0))
    few = min(SINGLE_FILES, number)
    spectra, _ = simulate(replace(presets.survey(), count=few), generator(seed, NETWORK, 1))
    rows: list[dict[str, object]] = []
    for threads in (THREADS, 1):
        with on_threads(threads), torch.inference_mode():
            for name, count, work in _works(batch, spectra):
                work()
                took = median_times(work, repeats)
                rows.append(
                    {
                        "step": name,
                        "threads": threads,
                        "spectra/s": f"{count / took.wall:.0f}",
                        "core us per spectrum": f"{1e6 * took.core / count:.0f}",
                        "wanted spectra/s": f"{WANTED_SPEED:.0f}" if threads == THREADS else "-",
                    }
                )
    return Table(
        "Network: speed",
        pd.DataFrame(rows),
        f"{number} simulated spectra of presets.survey, seed {seed}, in batches of {BATCH}; median "
        f"of {repeats} runs after one to warm up. `classify` gets {few} single spectra and makes "
        "the table. Reading files is not in it. Wanted on two threads, of the network.",
    )


def _works(batch: Batch, spectra: list) -> list[tuple[str, int, Callable[[], object]]]:
    """Name, number of spectra, and what is timed: each step with those before it."""
    model = load()
    flux, ivar = rest_frame(batch.loglam, batch.flux, batch.ivar, batch.z)
    parts = [slice(first, first + BATCH) for first in range(0, len(flux), BATCH)]
    seen = [look(flux[part], ivar[part]) for part in parts]

    def alone() -> None:
        for inputs in seen:
            model(inputs)

    def gridded() -> None:
        probabilities(model, *rest_frame(batch.loglam, batch.flux, batch.ivar, batch.z))

    return [
        ("the network alone", len(flux), alone),
        ("with its look at the lines", len(flux), lambda: probabilities(model, flux, ivar)),
        ("with gridding, from arrays", len(flux), gridded),
        ("`classify`, from single spectra", len(spectra), lambda: classify(spectra)),
    ]


def _areas(seed: int, quick: bool) -> Table:
    number = QUICK_JUDGED if quick else JUDGED
    rng = generator(seed, NETWORK, 2)
    test = labelled(presets.training(), number, rng)
    gone = hide_third(test.ivar, rng)
    nothing = np.float32(0)
    views = {
        "complete": (test.flux, test.ivar),
        "30 % missing": (test.flux, np.where(gone, nothing, test.ivar)),
        "30 % as measured zeros": (np.where(gone, nothing, test.flux), test.ivar),
    }
    model = load()
    found = {
        name: areas(*probabilities(model, flux, ivar), test) for name, (flux, ivar) in views.items()
    }
    rows = []
    for name, values in found.items():
        row: dict[str, object] = {"pixels": name}
        for key, word in AREAS.items():
            row[word] = f"{values[key]:.4f}"
            row[f"{word}: fall"] = f"{found['complete'][key] - values[key]:.4f}"
        wanted = f"{WANTED_FALL:g} or less" if name == "30 % missing" else "-"
        rows.append(row | {"wanted fall": wanted})
    return Table(
        "Network: areas under the curve with pixels missing",
        pd.DataFrame(rows),
        f"{number} simulated spectra of presets.training, seed {seed}: other random numbers than "
        "in training. Class: mean of each class against the others; two components: pairs that "
        "leave no trace in the data left out (train.looks_double), then counted, then only pairs "
        "of 200 km/s, peak S/N 10 and flux ratio 0.3 or more. 30 % of the pixels are gone, half "
        "of those of the [O III] window included; the last row gives the same network the same "
        "pixels as zeros with their inverse variance, as if they had been measured.",
    )
