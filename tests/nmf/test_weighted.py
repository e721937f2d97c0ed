"""Weighted least squares: holes do not matter, weights count rows, the loss never rises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from warte.nmf.solve import Penalty, hals
from warte.nmf.solve.weighted import solve

NONE = Penalty()


def problem(
    n: int, m: int, k: int, noise: float = 0.1, hidden: float = 0.2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Data near rank k, a random start, and inverse variances with holes; all float64."""
    rng = np.random.default_rng(seed)
    true_w = rng.random((n, k)) * (rng.random((n, k)) < 0.5)
    true_h = rng.random((k, m)) * (rng.random((k, m)) < 0.5)
    v = rng.gamma(2.0, 1.0, (n, m)) * (rng.random((n, m)) >= hidden)
    x = true_w @ true_h + noise * rng.standard_normal((n, m)) / np.sqrt(np.maximum(v, 0.3))
    start = rng.random((n, k)), rng.random((k, m))
    return tuple(torch.from_numpy(a) for a in (np.maximum(x, 0), *start, v))


def loss_of(x: Tensor, w: Tensor, h: Tensor, v: Tensor, e: Penalty = NONE) -> float:
    """Half of chi-square, and the penalties term by term."""
    out = 0.5 * torch.where(v > 0, v * (x - w @ h) ** 2, 0).sum()
    out += e.l1_w * w.sum() + e.l2_w / 2 * (w**2).sum()
    return float(out + e.l1_h * h.sum() + e.l2_h / 2 * (h**2).sum())


def multiply(x: Tensor, w: Tensor, h: Tensor, v: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """The plain multiplicative updates of Blanton & Roweis 2007, as a yardstick."""
    for _ in range(rounds):
        h = h * (w.T @ (v * x)) / (w.T @ (v * (w @ h))).clamp_min(1e-300)
        w = w * ((v * x) @ h.T) / ((v * (w @ h)) @ h.T).clamp_min(1e-300)
    return w, h


@pytest.mark.parametrize("exact", [False, True])
def test_ones_reach_what_hals_reaches(exact: bool) -> None:
    x, w, h, _ = problem(60, 50, 3)
    found = solve(x, w, h, torch.ones_like(x), tol=0, max_iter=200, exact=exact)
    plain = hals.solve(x, w, h, tol=0, max_iter=200)
    assert found.losses[-1] == pytest.approx(plain.losses[-1], rel=1e-6)
    torch.testing.assert_close(found.w @ found.h, plain.w @ plain.h, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("exact", [False, True])
def test_holes_are_filled_with_the_truth(exact: bool) -> None:
    x, w, h, v = problem(80, 70, 3, noise=0, hidden=0.4, seed=1)
    found = solve(x, w, h, v, tol=0, max_iter=400, exact=exact)
    hole = v == 0
    assert int(hole.sum()) > 2000
    assert float(((found.w @ found.h) - x)[hole].abs().max()) < 1e-3 * float(x.max())


@pytest.mark.parametrize("exact", [False, True])
def test_what_stands_in_a_hole_does_not_matter(exact: bool) -> None:
    x, w, h, v = problem(40, 30, 3)
    found = solve(x, w, h, v, max_iter=50, exact=exact)
    other = solve(torch.where(v > 0, x, 1e6), w, h, v, max_iter=50, exact=exact)
    torch.testing.assert_close(other.w, found.w, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.h, found.h, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exact", [False, True])
def test_twice_the_weight_is_the_row_twice(exact: bool) -> None:
    x, w, h, v = problem(30, 25, 2)
    double = v.clone()
    double[3] *= 2
    again = torch.cat([x, x[3:4]]), torch.cat([w, w[3:4]]), h, torch.cat([v, v[3:4]])
    found = solve(x, w, h, double, tol=0, max_iter=150, exact=exact)
    twice = solve(*again, tol=0, max_iter=150, exact=exact)
    single = solve(x, w, h, v, tol=0, max_iter=60, exact=exact)
    torch.testing.assert_close(found.w @ found.h, (twice.w @ twice.h)[:-1], rtol=1e-2, atol=1e-3)
    assert found.losses[-1] == pytest.approx(twice.losses[-1], rel=1e-5)
    assert found.losses[-1] > 1.001 * single.losses[-1]


@pytest.mark.parametrize("rank", [4, 12])  # from the start with the exact curvature, or later
@pytest.mark.parametrize("spread", ["gamma", "windows", "wild"])
def test_far_ahead_of_multiplicative_updates(spread: str, rank: int) -> None:
    x, w, h, v = problem(150, 120, rank, seed=4)
    rng = np.random.default_rng(8)
    if spread == "windows":  # each row sees only a part of the columns, as a shifted spectrum
        first = torch.from_numpy(rng.integers(0, 60, (150, 1)))
        at = torch.arange(120)
        v = v * ((at >= first) & (at < first + 60))
    elif spread == "wild":
        v = v * torch.from_numpy(np.exp(1.5 * rng.standard_normal(v.shape)))
    found = solve(x, w, h, v, tol=0, max_iter=100)
    slow = loss_of(x, *multiply(x, w, h, v, 400), v)
    assert loss_of(x, found.w, found.h, v) < slow


def test_w_alone_is_weighted_nonnegative_least_squares() -> None:
    from scipy.optimize import nnls

    x, w, h, v = problem(10, 40, 3)
    found = solve(x, w, h, v, tol=0, max_iter=400, update_h=False)
    root = v.sqrt().numpy()
    rows = zip(x.numpy(), root, strict=True)
    expected = np.stack([nnls(h.numpy().T * r[:, None], row * r)[0] for row, r in rows])
    np.testing.assert_allclose(found.w.numpy(), expected, atol=1e-8)
    assert torch.equal(found.h, h)


@pytest.mark.parametrize("exact", [False, True])
def test_penalties_are_at_a_stationary_point(exact: bool) -> None:
    x, w, h, v = problem(40, 30, 3, seed=2)
    e = Penalty(l1_w=0.3, l2_w=0.2, l1_h=0.1, l2_h=0.4)
    found = solve(x, w, h, v, penalty=e, tol=0, max_iter=300, exact=exact)
    assert found.losses[-1] == pytest.approx(loss_of(x, found.w, found.h, v, e), rel=1e-9)
    rest = v * (found.w @ found.h - x)
    for f, slope in (
        (found.w, rest @ found.h.T + e.l1_w + e.l2_w * found.w),
        (found.h, found.w.T @ rest + e.l1_h + e.l2_h * found.h),
    ):
        # Zero where the factor is positive, not negative where it is zero.
        assert float(torch.where(f > 1e-9, slope.abs(), (-slope).clamp_min(0)).max()) < 1e-3


@settings(max_examples=25)
@given(
    n=st.integers(1, 20),
    m=st.integers(1, 20),
    k=st.integers(1, 4),
    seed=st.integers(0, 999),
    hidden=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    strength=st.sampled_from([0.0, 0.5]),
    single=st.booleans(),
    exact=st.booleans(),
)
def test_losses_never_rise_and_are_true(
    n: int, m: int, k: int, seed: int, hidden: float, scale: float, strength: float,
    single: bool, exact: bool,
) -> None:  # fmt: skip
    dtype = torch.float32 if single else torch.float64
    x, w, h, v = (a.to(dtype) for a in problem(n, m, k, hidden=hidden, seed=seed))
    x = scale * x
    e = Penalty(*[strength * scale] * 4)
    found = solve(x, w, h, v, penalty=e, tol=0, max_iter=30, exact=exact)
    assert all(b <= a for a, b in zip(found.losses, found.losses[1:], strict=False))
    for f in (found.w, found.h):
        assert bool(torch.isfinite(f).all() and (f >= 0).all())
    exact = loss_of(*(a.double() for a in (x, found.w, found.h, v)), e)
    square = float((v * x.double() ** 2).sum())
    assert found.losses[-1] == pytest.approx(exact, rel=1e-5, abs=1e-6 * square)


@pytest.mark.parametrize("exact", [False, True])
def test_restarts_side_by_side_are_as_alone(exact: bool) -> None:
    x, w, h, v = problem(40, 30, 3)
    _, w2, h2, _ = problem(40, 30, 3, seed=9)
    many = solve(x, torch.stack([w, w2]), torch.stack([h, h2]), v, tol=0, max_iter=40, exact=exact)
    ones = [
        solve(x, w, h, v, tol=0, max_iter=40, exact=exact),
        solve(x, w2, h2, v, tol=0, max_iter=40, exact=exact),
    ]
    for i, one in enumerate(ones):
        torch.testing.assert_close(many.w[i], one.w, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(many.h[i], one.h, rtol=1e-6, atol=1e-6)
    assert many.losses[-1] == pytest.approx(min(one.losses[-1] for one in ones), rel=1e-9)


@pytest.mark.parametrize("exact", [False, True])
def test_rows_in_two_processes(exact: bool) -> None:
    """Two threads that meet in `total` stand for two processes."""
    x, w, h, v = problem(60, 40, 3)
    barrier, parts = Barrier(2), [torch.empty(0), torch.empty(0)]

    def worker(rank: int) -> tuple[Tensor, Tensor]:
        def total(part: Tensor) -> Tensor:
            parts[rank] = part
            barrier.wait()
            both = parts[0] + parts[1]
            barrier.wait()
            return both

        at = slice(0, 25) if rank == 0 else slice(25, 60)
        found = solve(x[at], w[at], h, v[at], tol=1e-7, max_iter=60, total=total, exact=exact)
        return found.w, found.h

    with ThreadPoolExecutor(2) as pool:
        (w_a, h_a), (w_b, h_b) = pool.map(worker, range(2))
    alone = solve(x, w, h, v, tol=1e-7, max_iter=60, exact=exact)
    torch.testing.assert_close(torch.cat([w_a, w_b]), alone.w, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(h_a, alone.h, rtol=1e-6, atol=1e-8)
    assert torch.equal(h_a, h_b)


def test_stops_and_leaves_its_input_alone() -> None:
    x, w, h, v = problem(40, 30, 3)
    kept = [a.clone() for a in (x, w, h, v)]
    loose = solve(x, w, h, v, tol=1e-2, max_iter=1000)
    tight = solve(x, w, h, v, tol=1e-8, max_iter=1000)
    assert loose.converged and tight.converged
    assert loose.n_iter < tight.n_iter < 1000
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, w, h, v), strict=True))
    odd = solve(x, w, h, v, tol=0, max_iter=15)
    assert odd.n_iter == 15 and not odd.converged


def test_refuses_what_it_cannot_do() -> None:
    x, w, h, v = problem(10, 8, 2)
    with pytest.raises(ValueError, match="sparse matrix"):
        solve(x.to_sparse(), w, h, v)
    with pytest.raises(ValueError, match="ortho_h or smooth_h"):
        solve(x, w, h, v, penalty=Penalty(smooth_h=1.0))
