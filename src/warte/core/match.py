"""One-to-one matching of two sets: one detection may claim one true object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment


def match_one_to_one(cost: npt.NDArray[np.floating], gate: float = np.inf) -> npt.NDArray[np.int64]:
    """Pair rows with columns so that as many pairs as possible lie within the gate.

    Among all such pairings the one with the smallest sum of costs is taken (the Hungarian
    method: Kuhn 1955, Naval Research Logistics Quarterly 2, 83).

    Parameters
    ----------
    cost : (N, M) array in any unit. A pair that must not be made has the cost inf or NaN.
    gate : the largest cost a pair may have, in the unit of `cost`; inf allows every finite cost.

    Returns
    -------
    (K, 2) array of row and column indices, sorted by row; K <= min(N, M).

    Raises
    ------
    ValueError when `cost` is not two-dimensional or `gate` is NaN.
    """
    table = np.asarray(cost, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"cost has {table.ndim} dimensions, it must have 2")
    if np.isnan(gate):
        raise ValueError("gate is NaN, it must be a number")
    allowed = np.isfinite(table) & (table <= gate)
    if not allowed.any():
        return np.zeros((0, 2), dtype=np.int64)
    low, high = table[allowed].min(), table[allowed].max()
    # Scaled to 0..1, so that one forbidden pair outweighs every sum of allowed ones.
    scaled = (table - low) / max(high - low, np.finfo(np.float64).tiny)
    scaled = np.where(allowed, scaled, min(table.shape) + 1.0)
    rows, columns = linear_sum_assignment(scaled)
    keep = allowed[rows, columns]
    return np.stack([rows[keep], columns[keep]], axis=1).astype(np.int64)
