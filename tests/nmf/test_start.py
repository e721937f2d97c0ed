"""Starts: against the exact SVD, scikit-learn's NNDSVD, and what they promise."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.decomposition._nmf import _initialize_nmf

from warte.nmf.check import as_tensor
from warte.nmf.start import leading_svd, mean_of, random_start, start


def planted(rows: int, columns: int, noise: float = 0.01) -> torch.Tensor:
    rng = np.random.default_rng(0)
    x = rng.random((rows, 4)) @ np.diag([8.0, 4, 2, 1]) @ rng.random((4, columns))
    return torch.from_numpy(x + noise * rng.random((rows, columns)))


@pytest.mark.parametrize("sparse", [False, True])
def test_randomised_svd_finds_the_leading_part(sparse: bool) -> None:
    x = planted(300, 200)  # too large for the exact path
    u, s, v = leading_svd(x.to_sparse_coo() if sparse else x, 4, np.random.default_rng(1))
    exact = torch.linalg.svd(x, full_matrices=False)
    assert torch.allclose(s, exact[1][:4], rtol=1e-6)
    best = (exact[0][:, :4] * exact[1][:4]) @ exact[2][:4]
    assert torch.allclose((u * s) @ v, best, atol=1e-4)


@pytest.mark.parametrize("shape", [(300, 200), (12, 9)])
def test_nndsvd_equals_scikit_learn(shape: tuple[int, int]) -> None:
    x = planted(*shape)
    w, h = start(x, 4, "nndsvd", np.random.default_rng(0))
    their_w, their_h = _initialize_nmf(x.numpy(), 4, "nndsvd", random_state=0)
    assert np.allclose((w @ h).numpy(), their_w @ their_h, atol=1e-3)
    assert np.allclose(w.numpy(), their_w, atol=1e-3)


def test_rank_one_of_a_rank_one_matrix_is_exact() -> None:
    x = torch.outer(torch.arange(1.0, 8.0), torch.arange(2.0, 7.0)).double()
    w, h = start(x, 1, "nndsvd", np.random.default_rng(0))
    assert torch.allclose(w @ h, x)


def test_only_plain_nndsvd_holds_zeros() -> None:
    x = planted(30, 20)
    w, _ = start(x, 4, "nndsvd", np.random.default_rng(0))
    zeros = w == 0
    assert 0 < int(zeros.sum()) < w.numel()
    filled, _ = start(x, 4, "nndsvda", np.random.default_rng(0))
    assert torch.allclose(filled[zeros], x.mean())
    assert torch.equal(filled[~zeros], w[~zeros])
    varied, _ = start(x, 4, "nndsvdar", np.random.default_rng(0))
    assert bool((varied > 0).all()) and varied[zeros].unique().numel() > 1
    assert float(varied[zeros].max()) < float(x.mean()) / 10


def test_random_is_of_the_size_of_the_data() -> None:
    x = torch.full((400, 300), 9.0)
    w, h = start(x, 5, "random", np.random.default_rng(0))
    assert float((w @ h).mean()) == pytest.approx(9 * 2 / np.pi, rel=0.1)  # E|a||b| = 2/pi


def test_the_same_seed_gives_the_same_start() -> None:
    x = planted(300, 200)
    for kind in ("random", "nndsvdar"):
        one = start(x, 4, kind, np.random.default_rng(5))  # type: ignore[arg-type]
        two = start(x, 4, kind, np.random.default_rng(5))  # type: ignore[arg-type]
        other = start(x, 4, kind, np.random.default_rng(6))  # type: ignore[arg-type]
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
        assert not torch.equal(one[0], other[0])


def test_more_rows_leave_the_first_ones_as_they_are() -> None:
    like = torch.zeros(1)
    short = random_start((3, 5), 2, 1.0, np.random.default_rng(0), like)
    long = random_start((7, 5), 2, 1.0, np.random.default_rng(0), like)
    assert torch.equal(short[1], long[1]) and torch.equal(short[0], long[0][:3])


def test_hidden_entries_are_filled_first() -> None:
    full = torch.outer(torch.arange(1.0, 21.0), torch.arange(2.0, 17.0)).double()
    weights = torch.from_numpy((np.random.default_rng(0).random((20, 15)) > 0.1).astype(float))
    w, h = start(full * weights, 1, "nndsvd", np.random.default_rng(0), weights)
    plain_w, plain_h = start(full * weights, 1, "nndsvd", np.random.default_rng(0))
    assert float((w @ h - full).norm()) < 0.3 * float((plain_w @ plain_h - full).norm())
    assert mean_of(full * weights, weights) == pytest.approx(float(full[weights > 0].mean()))


def test_mean_of_sparse_counts_the_zeros() -> None:
    x = as_tensor(scipy.sparse.csr_matrix(np.diag([3.0, 6.0, 0.0])))
    assert mean_of(x) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["nndsvd", "nndsvda", "nndsvdar", "random"])
def test_poor_matrices_give_finite_starts(kind: str) -> None:
    x = torch.zeros(6, 5)
    x[2, 3] = 1.0  # rank one, asked for three
    for data in (x, x.to_sparse_coo(), -x, x * 1e-20):
        w, h = start(data, 3, kind, np.random.default_rng(0))  # type: ignore[arg-type]
        assert w.dtype == torch.float32 and w.shape == (6, 3) and h.shape == (3, 5)
        for factor in (w, h):
            assert bool(torch.isfinite(factor).all()) and bool((factor >= 0).all())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="init is 'svd'; allowed are nndsvd, "):
        start(torch.ones(3, 3), 1, "svd", np.random.default_rng(0))  # type: ignore[arg-type]
