"""Real and published data with holes and negative noise: hidden pixels, and the doublet set."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from benchmarks.nmf.data import arrays_of
from benchmarks.page import Table
from warte.nmf.solve import Penalty, hals, noisy, weighted

HIDE = 0.1  # share of the good pixels that are hidden
# Pixels are judged where so many spectra are left: beyond, no method can know the level.
MIN_SEEN = 10
RANKS, QUICK_RANKS = (1, 2, 3, 5), (2,)
ITERATIONS, QUICK_ITERATIONS = 500, 100
# Start and length of the published fits: nearly_nmf, tests/test_continuity.py.
DOUBLET_SEED, DOUBLET_ITERATIONS = 100921, 300
METHODS = (
    "nearly",
    "shift",
    "weighted",
    "weighted, negatives clipped to zero",
    "hals, hidden filled with zeros",
)


def factorise(
    method: str, x: torch.Tensor, ivar: torch.Tensor, rank: int, seed: int, iterations: int
) -> torch.Tensor:
    """The model (n, m) that a method makes of x (n, m) and inverse variances; 0 is hidden."""
    rng = np.random.default_rng(seed)
    seen = ivar > 0
    level = float(x[seen].clamp_min(0).mean() / rank) ** 0.5
    w = torch.tensor(level * (0.5 + rng.random((len(x), rank))))
    h = torch.tensor(level * (0.5 + rng.random((rank, x.shape[1]))))
    shown = torch.where(seen, x, 0.0)
    options = {"tol": 0.0, "max_iter": iterations}
    if method in ("nearly", "shift"):
        found = noisy.solve(shown, w, h, ivar, method=method, **options)
    elif method.startswith("weighted"):
        data = shown if method == "weighted" else shown.clamp_min(0)
        found = weighted.solve(data, w, h, ivar, penalty=Penalty(), **options)
    else:
        found = hals.solve(shown.clamp_min(0), w, h, **options)
    return found.w @ found.h


def hidden_table(quick: bool, seeds: list[int]) -> Table:
    """Reduced chi-square of hidden pixels of real spectra, by method and rank."""
    title = "Hidden pixels: reduced chi-square of hidden good pixels of rm017_epochs.npz"
    arrays = arrays_of("rm017_epochs.npz")
    if isinstance(arrays, str):
        return Table(title, pd.DataFrame({"not measured": [arrays]}))
    flux, ivar = (torch.tensor(arrays[key], dtype=torch.float64) for key in ("flux", "ivar"))
    good = (ivar > 0) & flux.isfinite()
    ivar = torch.where(good, ivar, 0.0)
    ranks, iterations = (QUICK_RANKS, QUICK_ITERATIONS) if quick else (RANKS, ITERATIONS)
    rows = []
    for rank in ranks:
        found: dict[str, list[float]] = {method: [] for method in METHODS}
        for seed in seeds:
            drawn = torch.tensor(np.random.default_rng(seed).random(flux.shape)) < HIDE
            held = good & drawn
            judged = held & ((good & ~held).sum(dim=0) >= MIN_SEEN)
            for method in METHODS:
                shown = torch.where(held, 0.0, ivar)
                model = factorise(method, flux, shown, rank, seed, iterations)
                chi2 = ((flux - model).square() * ivar)[judged].mean()
                found[method].append(float(chi2))
        for method, values in found.items():
            spread = f"{min(values):.4f}-{max(values):.4f}"
            rows.append((rank, method, float(np.median(values)), spread))
    columns = ["rank", "method", "median", "range"]
    note = (
        f"{len(flux)} spectra of {flux.shape[1]} pixels, {HIDE:.0%} of the good ones hidden at "
        f"random, {len(seeds)} seeds, {iterations} iterations; judged where at least {MIN_SEEN} "
        "spectra are left. Wanted: Warte's own below filling and clipping; 1 is the noise."
    )
    return Table(title, pd.DataFrame(rows, columns=columns), note)


def doublet_table() -> Table:
    """How far the fits of the published doublet set lie from the published ones."""
    title = "Doublet: agreement with the published fits of nearly_nmf"
    arrays = arrays_of("nearly_nmf_doublet.npz")
    if isinstance(arrays, str):
        return Table(title, pd.DataFrame({"not measured": [arrays]}))
    x, v = (torch.tensor(arrays[key], dtype=torch.float64) for key in ("X", "V"))
    rows = []
    for method in ("shift", "nearly"):
        truth_w, truth_h = arrays[f"W_{method}_truth"], arrays[f"H_{method}_truth"]
        h = torch.tensor(np.random.default_rng(DOUBLET_SEED).uniform(size=truth_h.shape))
        w = torch.ones(truth_w.shape, dtype=torch.float64)
        found = noisy.solve(x, w, h, v, method=method, tol=0.0, max_iter=DOUBLET_ITERATIONS)
        rows.append((method, _away(found.w, truth_w), _away(found.h, truth_h), 1e-5))
    columns = ["method", "W: largest difference", "H: largest difference", "wanted below"]
    note = (
        f"Of the largest entry; {DOUBLET_ITERATIONS} iterations from the start the published fits "
        "were made from."
    )
    return Table(title, pd.DataFrame(rows, columns=columns), note)


def _away(found: torch.Tensor, truth: np.ndarray) -> float:
    return float(np.abs(found.numpy() - truth).max() / np.abs(truth).max())
