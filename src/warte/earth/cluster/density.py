"""Clusters of any shape and number: HDBSCAN on a sample; the other pixels follow their neighbours.

Campello, Moulavi & Sander, "Density-based clustering based on hierarchical density estimates",
PAKDD 2013, as scikit-learn has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from warte.core.errors import InputError
from warte.earth.cluster.settings import LARGEST_K
from warte.earth.cluster.store import Float32Array, Float64Array, Frame

NEIGHBOURS = 5  # whose distance says how dense the sample is around a pixel of it
MOST = 10_000  # pixels of the sample: time and memory rise with their square


@dataclass(frozen=True)
class Density:
    """A clustered sample. Its last group, `noise`, is of vectors far from all clusters.

    tree: of the sample's vectors, scaled. groups: (n,) from 0. reach: (n,) distance up to which a
    vector follows its nearest neighbour in the sample. scale: (columns,), roots of the weights.
    """

    tree: KDTree
    groups: npt.NDArray[np.intp]
    reach: Float64Array
    scale: Float64Array
    noise: int

    def __call__(self, x: Float32Array) -> npt.NDArray[np.intp]:
        """Groups (n,) of centred vectors (columns, n)."""
        points, inverse = np.unique(self._points(x), axis=0, return_inverse=True)
        distance, nearest = self.tree.query(points)
        groups = np.where(distance <= self.reach[nearest], self.groups[nearest], self.noise)
        return groups[inverse]

    def _points(self, x: Float32Array) -> Float64Array:
        return _scaled(x, self.scale)


def _scaled(x: Float32Array, scale: Float64Array) -> Float64Array:
    used = scale > 0
    return (x[used].astype(np.float64) * scale[used, None]).T


def fit_density(frame: Frame, sample: Float32Array, smallest: int) -> Density:
    """Cluster a centred sample (columns, n), of which the first MOST are used.

    Args:
        smallest: pixels of the sample that make a cluster.

    Raises:
        InputError: the sample has no clusters, too many, or is too small.
    """
    from sklearn.cluster import HDBSCAN

    scale = np.sqrt(frame.weights)
    points = _scaled(sample[:, :MOST], scale)
    if len(points) <= max(smallest, NEIGHBOURS):
        raise InputError(
            f"{len(points)} valid pixels are too few for clusters of {smallest} or more; "
            "lower --smallest, or use --method kmeans"
        )
    labels = HDBSCAN(
        min_cluster_size=smallest, min_samples=NEIGHBOURS, copy=True
    ).fit_predict(points)  # fmt: skip
    count = int(labels.max()) + 1
    if not 1 <= count <= LARGEST_K:
        raise InputError(
            f"hdbscan finds {count} clusters in the sample; 1 to {LARGEST_K} can be written: "
            f"{'lower' if count == 0 else 'raise'} --smallest, or use --method kmeans"
        )
    tree = KDTree(points)
    reach = tree.query(points, k=NEIGHBOURS + 1)[0][:, -1]
    return Density(tree, np.where(labels < 0, count, labels), reach, scale, count)
