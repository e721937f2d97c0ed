"""Matching: checked against brute force over all pairings."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from warte.core.match import match_one_to_one


def brute_force(cost: np.ndarray, gate: float) -> tuple[int, float]:
    """(most pairs, smallest sum among those) over every possible pairing."""
    rows, columns = cost.shape
    best = (0, 0.0)
    for size in range(1, min(rows, columns) + 1):
        for some in combinations(range(rows), size):
            for other in permutations(range(columns), size):
                chosen = cost[list(some), list(other)]
                if np.all(chosen <= gate):
                    key = (size, float(chosen.sum()))
                    if key[0] > best[0] or key[1] < best[1]:
                        best = key
    return best


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 3)])
def test_agrees_with_brute_force(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for gate in (0.2, 0.5, 2.0):
        cost = rng.random(shape)
        pairs = match_one_to_one(cost, gate)
        number, total = brute_force(cost, gate)
        assert len(pairs) == number
        assert cost[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(total)


def test_each_row_and_column_is_used_once() -> None:
    pairs = match_one_to_one(np.zeros((5, 3)))
    assert len(pairs) == 3
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == 3


def test_many_pairs_are_better_than_one_cheap_pair() -> None:
    pairs = match_one_to_one(np.array([[0.0, 9.0], [9.0, np.inf]]), gate=10.0)
    assert pairs.tolist() == [[0, 1], [1, 0]]


def test_forbidden_pairs_are_never_made() -> None:
    assert len(match_one_to_one(np.array([[np.nan, np.inf]]))) == 0
    assert len(match_one_to_one(np.array([[3.1]]), gate=3.0)) == 0
    assert match_one_to_one(np.zeros((0, 4))).shape == (0, 2)


def test_huge_and_negative_costs_keep_their_order() -> None:
    cost = np.array([[-1e12, 0.0], [0.0, -1e12]])
    assert match_one_to_one(cost).tolist() == [[0, 0], [1, 1]]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="2"):
        match_one_to_one(np.zeros(3))
    with pytest.raises(ValueError, match="NaN"):
        match_one_to_one(np.zeros((1, 1)), gate=float("nan"))
