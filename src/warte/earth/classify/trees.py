"""Boosted trees as plain arrays: read without pickle, evaluated without scikit-learn.

Each node of a tree that a pixel fails rules out the leaves on its left. With the thresholds of a
band in order, what all of its nodes rule out depends only on where the value lies among them, so
it is looked up: one table per band instead of a walk through every tree (QuickScorer, Lucchese et
al. 2015, SIGIR, p. 73, with a table instead of its scan).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

Float64Array = npt.NDArray[np.float64]
MOST_LEAVES = 16  # of a tree: one bit each
CHUNK = 1024  # pixels at once, so that the tables stay in the cache


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees of several classes.

    start: (outputs,) scores before the first tree. feature, threshold, missing_left, tree, ruled:
    (nodes,) of the inner nodes: which feature; at or below the threshold a pixel goes left; where
    a missing value goes; in which tree; and the bits of the leaves to its left. leaves:
    (rounds, outputs, 16) scores. One output stands for two classes, else there is one per class.
    """

    start: Float64Array
    feature: npt.NDArray[np.int32]
    threshold: Float64Array
    missing_left: npt.NDArray[np.bool_]
    tree: npt.NDArray[np.int32]
    ruled: npt.NDArray[np.uint16]
    leaves: Float64Array

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, self.leaves.shape[1])

    def scores(self, features: npt.NDArray[np.floating]) -> Float64Array:
        """Logits (N, classes) of features (N, F); NaN is a missing value."""
        rounds, outputs, _ = self.leaves.shape
        out = np.empty((len(features), outputs))
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            leaf = self._leaf(np.asarray(features[part], np.float64))
            found = np.broadcast_to(self.start, (len(leaf), outputs)).copy()
            for step in range(rounds):  # added in the order of training, to the last bit
                for output in range(outputs):
                    scores = self.leaves[step, output]
                    found[:, output] += scores[leaf[:, step * outputs + output]]
            out[part] = found
        return np.concatenate([np.zeros_like(out), out], axis=1) if outputs == 1 else out

    def _leaf(self, features: Float64Array) -> npt.NDArray[np.uint8]:
        """(N, trees) number of the leaf that each pixel comes to."""
        rounds, outputs, _ = self.leaves.shape
        left = np.full((len(features), rounds * outputs), 0xFFFF, np.uint16)
        for feature, (thresholds, table) in self._tables.items():
            values = features[:, feature]
            place = np.searchsorted(thresholds, values, side="left")
            place[np.isnan(values)] = len(thresholds) + 1
            left &= table[place]
        return _FIRST_BIT[left]

    @cached_property
    def _tables(self) -> dict[int, tuple[Float64Array, npt.NDArray[np.uint16]]]:
        """For each feature its thresholds in order, and the leaves that stay between each two."""
        trees = self.leaves.shape[0] * self.leaves.shape[1]
        tables = {}
        for feature in np.unique(self.feature):
            mine = np.flatnonzero(self.feature == feature)
            thresholds = np.unique(self.threshold[mine])
            table = np.full((len(thresholds) + 2, trees), 0xFFFF, np.uint16)
            for node in mine:
                stays = ~self.ruled[node]
                above = np.searchsorted(thresholds, self.threshold[node]) + 1
                table[above : len(thresholds) + 1, self.tree[node]] &= stays
                if not self.missing_left[node]:
                    table[-1, self.tree[node]] &= stays
            tables[int(feature)] = (thresholds, table)
        return tables

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by name, for a file."""
        return {
            "start": self.start, "feature": self.feature, "threshold": self.threshold,
            "missing_left": self.missing_left, "tree": self.tree, "ruled": self.ruled,
            "leaves": self.leaves,
        }  # fmt: skip


_NUMBERS = np.arange(1 << 16, dtype=np.uint32)
# Number of the lowest bit that is set.
_FIRST_BIT = np.zeros(1 << 16, np.uint8)
for _bit in range(15, -1, -1):
    _FIRST_BIT[(_NUMBERS >> _bit) & 1 == 1] = _bit


def export(model: HistGradientBoostingClassifier) -> Trees:
    """The trees of a fitted classifier of scikit-learn, with at most 16 leaves each.

    Raises ValueError for larger trees and for categorical features.
    """
    rounds = model._predictors
    outputs = len(rounds[0])
    leaves = np.zeros((len(rounds), outputs, MOST_LEAVES))
    nodes: list[tuple[int, float, bool, int, int]] = []
    for step, trees in enumerate(rounds):
        for output, predictor in enumerate(trees):
            scores = _walk(predictor.nodes, step * outputs + output, nodes)
            leaves[step, output, : len(scores)] = scores
    feature, threshold, missing, tree, ruled = zip(*nodes, strict=True) if nodes else [()] * 5
    return Trees(
        np.asarray(model._baseline_prediction, np.float64).ravel(),
        np.array(feature, np.int32),
        np.array(threshold, np.float64),
        np.array(missing, np.bool_),
        np.array(tree, np.int32),
        np.array(ruled, np.uint16),
        leaves,
    )


def _walk(
    tree: npt.NDArray[np.void], number: int, nodes: list[tuple[int, float, bool, int, int]]
) -> list[float]:
    """Scores of the leaves from left to right; the inner nodes are added to `nodes`."""
    if tree["is_categorical"].any():
        raise ValueError("a tree with a categorical feature")
    scores: list[float] = []

    def below(index: int) -> int:
        """Bits of the leaves below a node."""
        node = tree[index]
        if node["is_leaf"]:
            if len(scores) == MOST_LEAVES:
                raise ValueError(f"a tree with more than {MOST_LEAVES} leaves")
            scores.append(float(node["value"]))
            return 1 << (len(scores) - 1)
        left = below(int(node["left"]))
        right = below(int(node["right"]))
        nodes.append(
            (
                int(node["feature_idx"]),
                float(node["num_threshold"]),
                bool(node["missing_go_to_left"]),
                number,
                left,
            )
        )
        return left | right

    below(0)
    return scores
