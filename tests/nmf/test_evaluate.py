"""The share that a factorisation explains, against sums written out here."""

import numpy as np
import pytest
import torch

from warte.nmf.divergence import beta_divergence
from warte.nmf.evaluate import explained_share


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_explained_share(beta: float) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((7, 5))) * (torch.from_numpy(rng.random((7, 5))) > 0.4)
    mean = torch.full_like(x, float(x.mean()))
    worst = float(beta_divergence(x, mean, beta))
    assert explained_share(x, beta, 0.25 * worst) == pytest.approx(0.75)
    assert explained_share(x.to_sparse_coo(), beta, 0.25 * worst) == pytest.approx(0.75)
    # No other single value is nearer than the mean, so none explains anything.
    for level in (0.9, 1.1):
        other = float(beta_divergence(x, level * mean, beta))
        assert explained_share(x, beta, other) < 0  # type: ignore[operator]


def test_explained_share_counts_visible_entries_only() -> None:
    x = torch.tensor([[1.0, 3.0], [100.0, 5.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    mean = (1 + 6 + 5) / 4
    worst = 0.5 * ((1 - mean) ** 2 + 2 * (3 - mean) ** 2 + (5 - mean) ** 2)
    assert explained_share(x, 2.0, worst / 2, weights) == pytest.approx(0.5)
    assert explained_share(torch.full((3, 3), 0.1), 2.0, 0.0) is None


def test_explained_share_of_rows_in_two_places() -> None:
    x = torch.from_numpy(np.random.default_rng(1).random((6, 4)))
    parts = [x[:2], x[2:]]
    sums = [torch.stack([p.sum(), torch.tensor(float(p.numel()), dtype=p.dtype)]) for p in parts]
    mean = float(x.mean())
    evens = [0.5 * (p - mean).square().sum() for p in parts]
    answers = iter([sums[0] + sums[1], evens[0] + evens[1]])
    asked = []

    def total(part: torch.Tensor) -> torch.Tensor:
        asked.append(part)
        return next(answers)

    found = explained_share(parts[0], 2.0, 0.1, None, total)
    assert torch.allclose(asked[0], sums[0]) and torch.allclose(asked[1], evens[0])
    assert found == pytest.approx(explained_share(x, 2.0, 0.1))
