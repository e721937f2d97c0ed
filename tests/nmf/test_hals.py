"""HALS: closed forms, scikit-learn's coordinate descent, and a loss that never rises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import non_negative_factorization
from torch import Tensor

from warte.nmf.solve import Penalty
from warte.nmf.solve.hals import solve

NONE = Penalty()


def problem(
    n: int, m: int, k: int, noise: float = 0.1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Data near rank k with half of the factors zero, and a random start; all float64."""
    rng = np.random.default_rng(seed)
    w = rng.random((n, k)) * (rng.random((n, k)) < 0.5)
    h = rng.random((k, m)) * (rng.random((k, m)) < 0.5)
    x = np.maximum(w @ h + noise * rng.standard_normal((n, m)), 0)
    return tuple(torch.from_numpy(a) for a in (x, rng.random((n, k)), rng.random((k, m))))


def loss_of(x: Tensor, w: Tensor, h: Tensor, penalty: Penalty = NONE) -> float:
    """The penalised loss, term by term as `Penalty` writes it."""
    e, overlap = penalty, h @ h.T
    out = 0.5 * ((x - w @ h) ** 2).sum()
    out += e.l1_w * w.sum() + e.l2_w / 2 * (w**2).sum() + e.l1_h * h.sum()
    out += e.l2_h / 2 * (h**2).sum() + e.ortho_h / 2 * (overlap.sum() - overlap.trace())
    return float(out + e.smooth_h / 2 * ((h[:, 1:] - h[:, :-1]) ** 2).sum())


@pytest.mark.parametrize("compress", [False, True])
def test_rank_one_is_the_leading_singular_pair(compress: bool) -> None:
    x, w, h = problem(40, 30, 1)
    found = solve(x, w, h, tol=0, max_iter=200, compress=compress)
    u, s, v = torch.linalg.svd(x)
    best = s[0] * torch.outer(u[:, 0], v[0])
    torch.testing.assert_close(found.w @ found.h, best, rtol=0, atol=1e-5)
    assert found.losses[-1] == pytest.approx(0.5 * float((s[1:] ** 2).sum()), rel=1e-8)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_not_above_scikit_learn(compress: bool, dtype: torch.dtype) -> None:
    x, w, h = (a.to(dtype) for a in problem(120, 90, 5, seed=2))
    found = solve(x, w, h, tol=0, max_iter=200, compress=compress)
    theirs = non_negative_factorization(
        x.numpy(), w.numpy().copy(), h.numpy().copy(), n_components=5,
        init="custom", solver="cd", tol=0, max_iter=200,
    )  # fmt: skip
    peer = loss_of(x, *(torch.from_numpy(a) for a in theirs[:2]))
    assert loss_of(x, found.w, found.h) <= peer * (1 + 1e-4)
    assert found.w.dtype == found.h.dtype == dtype
    assert found.n_iter == 200


def test_compressed_rounds_reach_the_same_point_and_save_products() -> None:
    x, w, h = problem(200, 150, 4, seed=3)
    seen: list[int] = []
    plain = solve(x, w, h, tol=0, max_iter=150, compress=False)
    rounds = solve(x, w, h, tol=0, max_iter=150, compress=True, watch=lambda i, *_: seen.append(i))
    torch.testing.assert_close(rounds.w @ rounds.h, plain.w @ plain.h, rtol=1e-4, atol=1e-4)
    assert max(np.diff(seen)) >= 10  # many steps between two products with the whole of x


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_is_as_dense_and_never_made_dense(
    layout: torch.layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, h = problem(60, 50, 3)
    x = torch.where(x > 0.4, x, 0)
    coo = x.to_sparse_coo()
    sparse = coo if layout == torch.sparse_coo else _quiet_csr(coo)

    def refuse(*_: object) -> Tensor:
        raise AssertionError("made dense")

    dense = solve(x, w, h, tol=0, max_iter=40, compress=True)
    monkeypatch.setattr(torch.Tensor, "to_dense", refuse)
    found = solve(sparse, w, h, tol=0, max_iter=40, compress=True)
    torch.testing.assert_close(found.w, dense.w, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.h, dense.h, rtol=1e-7, atol=1e-9)


def _quiet_csr(coo: Tensor) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return coo.to_sparse_csr()


@pytest.mark.parametrize(
    "penalty",
    [
        Penalty(l1_w=0.5, l1_h=0.2),
        Penalty(l2_w=2.0, l2_h=1.0),
        Penalty(l1_w=0.3, l2_w=0.4, l1_h=0.2, l2_h=0.7),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_penalised_not_above_scikit_learn(penalty: Penalty, compress: bool) -> None:
    x, w, h = problem(70, 50, 4, seed=5)
    n, m = x.shape
    found = solve(x, w, h, penalty=penalty, tol=0, max_iter=300, compress=compress)
    # scikit-learn has one pair of weights and one ratio for both factors: solve their part alone.
    assert found.losses[-1] == pytest.approx(loss_of(x, found.w, found.h, penalty), rel=1e-9)
    if penalty.l1_w and penalty.l2_w:
        return
    ratio = 1.0 if penalty.l1_w else 0.0
    theirs = non_negative_factorization(
        x.numpy(), w.numpy().copy(), h.numpy().copy(), n_components=4, init="custom", tol=0,
        max_iter=300, alpha_W=(penalty.l1_w + penalty.l2_w) / m,
        alpha_H=(penalty.l1_h + penalty.l2_h) / n, l1_ratio=ratio,
    )  # fmt: skip
    peer = loss_of(x, *(torch.from_numpy(a) for a in theirs[:2]), penalty)
    assert found.losses[-1] <= peer * (1 + 1e-4)


@pytest.mark.parametrize(
    "penalty",
    [
        Penalty(ortho_h=0.5, l2_w=1.0),
        Penalty(smooth_h=0.5, l2_w=1.0),
        Penalty(ortho_h=0.2, smooth_h=0.3, l1_h=0.1, l2_w=1.0),
    ],
)
@pytest.mark.parametrize("compress", [False, True])
def test_overlap_and_steps_are_at_a_stationary_point(penalty: Penalty, compress: bool) -> None:
    x, w, h = problem(40, 20, 2, seed=6)
    found = solve(x, w, h, penalty=penalty, tol=0, max_iter=300, compress=compress)
    w, h = found.w.clone().requires_grad_(), found.h.clone().requires_grad_()
    e, overlap = penalty, h @ h.T
    value = 0.5 * ((x - w @ h) ** 2).sum() + e.ortho_h / 2 * (overlap.sum() - overlap.trace())
    value = value + e.smooth_h / 2 * (h.diff(dim=1) ** 2).sum() + e.l1_h * h.sum()
    value = value + e.l2_w / 2 * (w**2).sum()
    value.backward()
    assert float(value.detach()) == pytest.approx(found.losses[-1], rel=1e-9)
    for f in (w, h):
        assert f.grad is not None
        # Zero where the factor is positive, not negative where it is zero.
        assert (
            float(torch.where(f.detach() > 1e-9, f.grad.abs(), (-f.grad).clamp_min(0)).max()) < 1e-3
        )


def test_penalties_do_what_they_say() -> None:
    x, w, h = problem(50, 40, 3, noise=0.3, seed=7)
    plain = solve(x, w, h, penalty=Penalty(l2_w=1.0), max_iter=100)
    smooth = solve(x, w, h, penalty=Penalty(l2_w=1.0, smooth_h=5.0), max_iter=100)
    apart = solve(x, w, h, penalty=Penalty(l2_w=1.0, ortho_h=5.0), max_iter=100)

    def roughness(h: Tensor) -> float:
        return float((h.diff(dim=1) ** 2).sum() / (h**2).sum())

    def overlap(h: Tensor) -> float:
        gram = h @ h.T
        return float((gram.sum() - gram.trace()) / gram.trace())

    assert roughness(smooth.h) < 0.3 * roughness(plain.h)
    assert overlap(apart.h) < 0.5 * overlap(plain.h)


@settings(max_examples=25)
@given(
    n=st.integers(1, 20),
    m=st.integers(1, 20),
    k=st.integers(1, 4),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    compress=st.booleans(),
    strength=st.sampled_from([0.0, 0.5]),
    single=st.booleans(),
)
def test_losses_never_rise_and_are_true(
    n: int, m: int, k: int, seed: int, scale: float, compress: bool, strength: float, single: bool
) -> None:
    dtype = torch.float32 if single else torch.float64
    x, w, h = problem(n, m, k, seed=seed)
    x, w, h = (scale * x).to(dtype), w.to(dtype), h.to(dtype)
    penalty = Penalty(*[strength * scale] * 6)
    found = solve(x, w, h, penalty=penalty, tol=0, max_iter=26, compress=compress)
    assert all(b <= a for a, b in zip(found.losses, found.losses[1:], strict=False))
    for f in (found.w, found.h):
        assert bool(torch.isfinite(f).all() and (f >= 0).all())
    x, w, h = x.double(), found.w.double(), found.h.double()
    rounding = 1e-6 if single else 1e-12
    exact = loss_of(x, w, h, penalty)
    assert found.losses[-1] == pytest.approx(exact, rel=1e-9, abs=rounding * float((x**2).sum()))


@pytest.mark.parametrize("compress", [False, True])
def test_nothing_to_fit_gives_zero_and_no_nan(compress: bool) -> None:
    _, w, h = problem(20, 15, 3)
    found = solve(torch.zeros(20, 15, dtype=torch.float64), w, h, compress=compress)
    assert float((found.w @ found.h).abs().max()) == 0
    assert found.losses[-1] == 0
    assert found.converged
    x, _, _ = problem(20, 15, 2)
    x[4], x[:, 3] = 0, 0
    w[:, 1], h[2] = 0, 0  # dead from the start
    found = solve(x, w, h, tol=0, compress=compress)
    assert bool(torch.isfinite(found.w).all() and torch.isfinite(found.h).all())
    assert float((found.w @ found.h)[4].max()) < 1e-6


@pytest.mark.parametrize("compress", [False, True])
def test_restarts_side_by_side_are_as_alone(compress: bool) -> None:
    x, w, h = problem(50, 40, 3)
    _, w2, h2 = problem(50, 40, 3, seed=9)
    many = solve(x, torch.stack([w, w2]), torch.stack([h, h2]), tol=0, max_iter=30, compress=False)
    for i, (one_w, one_h) in enumerate([(w, h), (w2, h2)]):
        one = solve(x, one_w, one_h, tol=0, max_iter=30, compress=False)
        torch.testing.assert_close(many.w[i], one.w, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(many.h[i], one.h, rtol=1e-7, atol=1e-9)
    many = solve(
        x, torch.stack([w, w2]), torch.stack([h, h2]), tol=0, max_iter=90, compress=compress
    )
    finals = [loss_of(x, many.w[i], many.h[i]) for i in range(2)]
    assert many.losses[-1] == pytest.approx(min(finals), rel=1e-9)
    assert max(finals) < 1.05 * solve(x, w, h, tol=0, max_iter=90).losses[-1]


def test_w_alone_is_nonnegative_least_squares() -> None:
    from scipy.optimize import nnls

    x, w, h = problem(12, 30, 4)
    before = h.clone()
    found = solve(x, w, h, tol=0, max_iter=500, update_h=False)
    expected = np.stack([nnls(h.numpy().T, row)[0] for row in x.numpy()])
    np.testing.assert_allclose(found.w.numpy(), expected, atol=1e-8)
    assert torch.equal(found.h, before)
    ridge = solve(x, w, h, tol=0, max_iter=500, update_h=False, penalty=Penalty(l2_w=2.0))
    tall = np.vstack([h.numpy().T, np.sqrt(2.0) * np.eye(4)])
    expected = np.stack([nnls(tall, np.append(row, np.zeros(4)))[0] for row in x.numpy()])
    np.testing.assert_allclose(ridge.w.numpy(), expected, atol=1e-8)


def test_stops_when_the_loss_does_and_leaves_the_start_alone() -> None:
    x, w, h = problem(50, 40, 3)
    kept = w.clone(), h.clone()
    loose = solve(x, w, h, tol=1e-3, max_iter=1000)
    tight = solve(x, w, h, tol=1e-7, max_iter=1000)
    assert loose.converged and tight.converged
    assert loose.n_iter < tight.n_iter < 1000
    assert tight.losses[-1] < loose.losses[-1] < loose.losses[0]
    assert not solve(x, w, h, tol=0, max_iter=20).converged
    assert torch.equal(w, kept[0]) and torch.equal(h, kept[1])
    untouched = solve(x, w, h, max_iter=0)
    assert torch.equal(untouched.w, w) and untouched.losses == [pytest.approx(loss_of(x, w, h))]


def test_rows_in_two_processes() -> None:
    """Two threads that meet in `total` stand for two processes."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    x, w, h = problem(60, 40, 3)
    barrier, parts = Barrier(2), [torch.empty(0), torch.empty(0)]

    def worker(rank: int) -> tuple[Tensor, Tensor]:
        def total(part: Tensor) -> Tensor:
            parts[rank] = part
            barrier.wait()
            both = parts[0] + parts[1]
            barrier.wait()
            return both

        rows = slice(0, 25) if rank == 0 else slice(25, 60)
        found = solve(x[rows], w[rows], h, tol=1e-6, max_iter=60, compress=True, total=total)
        return found.w, found.h

    with ThreadPoolExecutor(2) as pool:
        (w_a, h_a), (w_b, h_b) = pool.map(worker, range(2))
    alone = solve(x, w, h, tol=1e-6, max_iter=60, compress=True)
    torch.testing.assert_close(torch.cat([w_a, w_b]), alone.w, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(h_a, alone.h, rtol=1e-6, atol=1e-8)
    assert torch.equal(h_a, h_b)
