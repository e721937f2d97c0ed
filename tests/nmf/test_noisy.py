"""Noise below zero: the published factors of Nearly-NMF's authors, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from warte.nmf.solve import Penalty
from warte.nmf.solve.noisy import METHODS, solve

NONE = Penalty()


def problem(
    n: int, m: int, k: int, noise: float = 0.3, hidden: float = 0.2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy data that go below zero, a random start, and inverse variances; all float64."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) @ (rng.random((k, m)) * (rng.random((k, m)) < 0.3))
    v = rng.gamma(4.0, 0.25, (n, m))
    x = truth + noise * rng.standard_normal((n, m)) / np.sqrt(v)
    v *= rng.random((n, m)) >= hidden
    return tuple(torch.from_numpy(a) for a in (x, rng.random((n, k)), rng.random((k, m)), v))


def loss_of(x: Tensor, w: Tensor, h: Tensor, v: Tensor, e: Penalty = NONE) -> float:
    out = 0.5 * (v * (x - w @ h) ** 2).sum() + e.l1_w * w.sum() + e.l2_w / 2 * (w**2).sum()
    return float(out + e.l1_h * h.sum() + e.l2_h / 2 * (h**2).sum())


@pytest.mark.parametrize("method", METHODS)
def test_published_factors_of_the_doublet(method: str, real_file: Callable[[str], Path]) -> None:
    """The expected factors are those of the authors' tests, after 300 rounds from this start.

    github.com/dylanagreen/nearly_nmf, tests/test_continuity.py: coefficients uniform from the
    generator of seed 100921, templates all one.
    """
    with np.load(real_file("nearly_nmf_doublet.npz"), allow_pickle=False) as data:
        x, v = (torch.from_numpy(data[name].astype(float)) for name in ("X", "V"))
        expected_w, expected_h = data[f"W_{method}_truth"], data[f"H_{method}_truth"]
    h = np.random.default_rng(100921).uniform(size=(2, 500))
    w = torch.ones(510, 2, dtype=torch.float64)
    found = solve(x, w, torch.from_numpy(h), v, method=method, tol=0, max_iter=300)
    np.testing.assert_allclose(found.w.numpy(), expected_w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.h.numpy(), expected_h, rtol=1e-5, atol=1e-6)


def test_without_negative_values_both_are_the_weighted_updates() -> None:
    x, w, h, v = problem(30, 20, 3, noise=0, hidden=0)
    x = x + 0.01
    found = {method: solve(x, w, h, v, method=method, tol=0, max_iter=30) for method in METHODS}
    for _ in range(30):
        h = h * (w.T @ (v * x)) / (w.T @ (v * (w @ h)))
        w = w * ((v * x) @ h.T) / ((v * (w @ h)) @ h.T)
    for method in METHODS:
        torch.testing.assert_close(found[method].w, w, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[method].h, h, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_nearer_the_truth_than_clipping(method: str) -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((200, 2)) @ (rng.random((2, 80)) * (rng.random((2, 80)) < 0.4))
    x = torch.from_numpy(truth + 0.5 * rng.standard_normal(truth.shape))
    w, h = torch.from_numpy(rng.random((200, 2))), torch.from_numpy(rng.random((2, 80)))
    found = solve(x, w, h, method=method, tol=0, max_iter=300)
    clipped = solve(x.clamp_min(0), w, h, method=method, tol=0, max_iter=300)

    def bias(f_w: Tensor, f_h: Tensor) -> float:
        return abs(float((f_w @ f_h).mean()) - float(truth.mean()))

    assert bias(found.w, found.h) < 0.25 * bias(clipped.w, clipped.h)


def test_nearly_takes_longer_steps_than_shift() -> None:
    x, w, h, v = problem(60, 50, 3)
    nearly = solve(x, w, h, v, method="nearly", tol=0, max_iter=50)
    shift = solve(x, w, h, v, method="shift", tol=0, max_iter=50)
    assert nearly.losses[-1] < shift.losses[-1] < 0.5 * shift.losses[0]
    further = solve(x, w, h, v, method="shift", shift=100.0, tol=0, max_iter=50)
    assert shift.losses[-1] < further.losses[-1]


@pytest.mark.parametrize("method", METHODS)
def test_what_stands_in_a_hole_does_not_matter(method: str) -> None:
    x, w, h, v = problem(40, 30, 3)
    found = solve(x, w, h, v, method=method, max_iter=40)
    other = solve(torch.where(v > 0, x, -1e6), w, h, v, method=method, max_iter=40)
    torch.testing.assert_close(other.w, found.w, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other.h, found.h, rtol=1e-9, atol=1e-12)


@settings(max_examples=30)
@given(
    n=st.integers(1, 20),
    m=st.integers(1, 20),
    k=st.integers(1, 4),
    seed=st.integers(0, 999),
    hidden=st.sampled_from([0.0, 0.5, 1.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    strength=st.sampled_from([0.0, 0.5]),
    single=st.booleans(),
    method=st.sampled_from(METHODS),
)
def test_losses_never_rise_and_are_true(
    n: int, m: int, k: int, seed: int, hidden: float, scale: float, strength: float,
    single: bool, method: str,
) -> None:  # fmt: skip
    dtype = torch.float32 if single else torch.float64
    x, w, h, v = (a.to(dtype) for a in problem(n, m, k, noise=1.0, hidden=hidden, seed=seed))
    x = scale * x
    e = Penalty(*[strength * scale] * 4)
    found = solve(x, w, h, v, penalty=e, method=method, tol=0, max_iter=40)
    rounding = 1e-5 if single else 1e-12
    assert all(
        b <= a * (1 + rounding) for a, b in zip(found.losses, found.losses[1:], strict=False)
    )
    for f in (found.w, found.h):
        assert bool(torch.isfinite(f).all() and (f >= 0).all())
    exact = loss_of(*(a.double() for a in (x, found.w, found.h, v)), e)
    assert found.losses[-1] == pytest.approx(exact, rel=1e-4 if single else 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_w_alone_goes_to_weighted_nonnegative_least_squares(method: str) -> None:
    from scipy.optimize import nnls

    x, w, h, v = problem(8, 60, 2)
    found = solve(x, w, h, v, method=method, tol=0, max_iter=4000, update_h=False)
    root = v.sqrt().numpy()
    rows = zip(x.numpy(), root, strict=True)
    expected = np.stack([nnls(h.numpy().T * r[:, None], row * r)[0] for row, r in rows])
    np.testing.assert_allclose(found.w.numpy(), expected, atol=1e-3)
    assert torch.equal(found.h, h)


@pytest.mark.parametrize("method", METHODS)
def test_restarts_side_by_side_are_as_alone(method: str) -> None:
    x, w, h, v = problem(40, 30, 3)
    _, w2, h2, _ = problem(40, 30, 3, seed=9)
    many = solve(
        x, torch.stack([w, w2]), torch.stack([h, h2]), v, method=method, tol=0, max_iter=25
    )
    for i, start in enumerate([(w, h), (w2, h2)]):
        one = solve(x, *start, v, method=method, tol=0, max_iter=25)
        torch.testing.assert_close(many.w[i], one.w, rtol=1e-9, atol=1e-6)
        torch.testing.assert_close(many.h[i], one.h, rtol=1e-9, atol=1e-6)


def test_stops_and_leaves_its_input_alone() -> None:
    x, w, h, v = problem(40, 30, 3)
    kept = [a.clone() for a in (x, w, h, v)]
    loose, tight = (solve(x, w, h, v, tol=tol, max_iter=3000) for tol in (1e-2, 1e-5))
    assert loose.converged and tight.converged
    assert loose.n_iter < tight.n_iter < 3000
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, w, h, v), strict=True))


def test_refuses_what_it_cannot_do() -> None:
    x, w, h, v = problem(10, 8, 2)
    with pytest.raises(ValueError, match="allowed are 'shift' and 'nearly'"):
        solve(x, w, h, v, method="lift")
    with pytest.raises(ValueError, match="leaves negative values"):
        solve(x, w, h, v, method="shift", shift=1e-9)
    with pytest.raises(ValueError, match="leave it out"):
        solve(x, w, h, v, method="nearly", shift=1.0)
    with pytest.raises(ValueError, match="sparse matrix"):
        solve(x.to_sparse(), w, h, v)
    with pytest.raises(ValueError, match="ortho_h or smooth_h"):
        solve(x, w, h, v, penalty=Penalty(ortho_h=1.0))
