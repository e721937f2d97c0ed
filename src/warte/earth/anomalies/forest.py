"""Isolation forest on what a pixel is and on how it stands out from its surroundings.

Liu, Ting and Zhou, ICDM 2008, 413; the trees are scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from warte.earth.anomalies.background import FloatArray, Patch, View
from warte.earth.anomalies.contrast import Structures
from warte.earth.scene import Float32Array

ROWS = 50_000  # pixels that the trees draw from at most
BATCH = 100_000  # pixels that are scored at once


@dataclass(frozen=True)
class Forest:
    """Trees, and the standard deviations (components,) that their inputs are divided by."""

    trees: IsolationForest
    deviations: FloatArray

    def score(self, view: View, structures: Structures) -> FloatArray:
        """Anomaly score (0 to 1, about 0.5 for the usual), (rows, columns); 0 where not valid."""
        score = np.zeros(view.valid.shape)
        rows = _features(view.components, structures, self.deviations)[:, view.valid].T
        parts = [
            -self.trees.score_samples(rows[low : low + BATCH]) for low in range(0, len(rows), BATCH)
        ]
        score[view.valid] = np.concatenate(parts) if parts else 0.0
        return score


def fit_forest(
    patches: list[Patch],
    structures: list[Structures],
    deviations: FloatArray,
    trees: int,
    generator: np.random.Generator,
) -> Forest:
    """Grow the trees on a sample; structures: of each patch, see `Contrast.structures`."""
    rows = np.concatenate(
        [
            patch.of(_features(patch.view.components, found, deviations)).T
            for patch, found in zip(patches, structures, strict=True)
        ]
    )
    chosen = generator.choice(len(rows), min(ROWS, len(rows)), replace=False)
    seed = int(generator.integers(2**31))
    forest = IsolationForest(
        n_estimators=trees, max_samples=min(256, len(chosen)), random_state=seed
    )
    return Forest(forest.fit(rows[chosen]), deviations)


def _features(
    components: Float32Array, structures: Structures, deviations: FloatArray
) -> Float32Array:
    """(2 components, rows, columns): the components, and heights in each."""
    scale = deviations[:, None, None].astype(np.float32)
    return np.concatenate([components / scale, structures.heights / scale])
