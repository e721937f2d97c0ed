"""The picture of recall against the signal-to-noise ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from warte.core.score import wilson_interval


def draw_recall(path: Path, curves: dict[str, pd.DataFrame]) -> None:
    """The recall picture: one curve per name, each a table of snr, hits, trials; bars are 95 %
    Wilson intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
    for number, (name, table) in enumerate(curves.items()):
        snr = table["snr"].to_numpy(dtype=float) * 1.015 ** (number - len(curves) / 2)
        share = (table["hits"] / table["trials"]).to_numpy(dtype=float)
        pairs = zip(table["hits"], table["trials"], strict=True)
        ends = np.array([wilson_interval(int(hits), int(trials)) for hits, trials in pairs])
        bars = np.abs(ends.T - share)
        axes.errorbar(snr, share, yerr=bars, marker="o", markersize=4, capsize=2, label=name)
    axes.set_xscale("log")
    ticks = sorted({snr for table in curves.values() for snr in table["snr"]})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("signal-to-noise ratio in one frame (matched filter)")
    axes.set_ylabel("share of satellites found")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
