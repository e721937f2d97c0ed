"""Loss against time: the picture, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.nmf.race import Curve

LEAST = 1e-6  # excess that is drawn where a run is the best one itself


def write_json(path: Path, curves: Sequence[Curve]) -> None:
    """Every lap of every run: seconds, iterations, loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(curve) for curve in curves]) + "\n", encoding="utf-8")


def draw(path: Path, curves: Sequence[Curve], targets: dict[str, float]) -> None:
    """One panel for each problem: excess over the best known loss against seconds.

    Of several seeds the first is drawn; more threads have a thicker line. `targets` holds the
    excess to reach, by race.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((curve.race, curve.problem) for curve in curves))
    figure, all_axes = plt.subplots(
        -(-len(panels) // 2),
        min(2, len(panels)),
        figsize=(5.0 * min(2, len(panels)), 3.6 * -(-len(panels) // 2)),
        squeeze=False,
        layout="constrained",
    )
    for axes, (race, problem) in zip(all_axes.flat, panels, strict=False):
        here = [c for c in curves if (c.race, c.problem) == (race, problem) and c.laps]
        first = min(curve.seed for curve in here)
        _panel(axes, [curve for curve in here if curve.seed == first], targets[race])
        axes.set_title(f"{race}: {problem}", fontsize=10)
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: object, curves: Sequence[Curve], target: float) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    best = min(curve.best() for curve in curves)
    names = list(dict.fromkeys(curve.program for curve in curves))
    fewest = min(curve.threads for curve in curves)
    for curve in curves:
        seconds = [lap[0] for lap in curve.laps[1:]]
        excess = [max(lap[2] / best - 1, LEAST) for lap in curve.laps[1:]]
        more = curve.threads > fewest
        label = f"{curve.program}, {curve.threads} thread{'s' if curve.threads > 1 else ''}"
        colour = f"C{names.index(curve.program)}"
        axes.plot(seconds, excess, color=colour, lw=2.0 if more else 1.0, label=label)
    axes.axhline(target, color="black", lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("excess over the best known loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
