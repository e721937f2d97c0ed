"""Divergences against scikit-learn, closed forms, and automatic differentiation."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import _nmf

from warte.nmf.divergence import beta_divergence, derivative_parts, floor_of, snapped

BETAS = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]


def positive(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(1.0, 1.0, shape) + 0.05)


@pytest.mark.parametrize("beta", BETAS)
def test_equals_scikit_learn(beta: float) -> None:
    x, w, h = positive(0, 12, 9), positive(1, 12, 3), positive(2, 3, 9)
    ours = beta_divergence(x, w @ h, beta)
    theirs = _nmf._beta_divergence(x.numpy(), w.numpy(), h.numpy(), beta)
    assert float(ours) == pytest.approx(theirs, rel=1e-12)


def test_values_of_one_entry() -> None:
    x, y = torch.tensor([[3.0]]), torch.tensor([[2.0]])
    assert float(beta_divergence(x, y, 2)) == pytest.approx(0.5)
    assert float(beta_divergence(x, y, 1)) == pytest.approx(3 * math.log(1.5) - 1)
    assert float(beta_divergence(x, y, 0)) == pytest.approx(1.5 - math.log(1.5) - 1)
    assert float(beta_divergence(x, y, 3)) == pytest.approx((27 + 2 * 8 - 3 * 3 * 4) / 6)


def test_zero_log_zero_is_zero() -> None:
    x, y = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.25, 2.0]])
    assert float(beta_divergence(x, y, 1)) == pytest.approx(0.25)


@pytest.mark.parametrize("beta", BETAS)
def test_zero_exactly_where_the_model_is_the_data(beta: float) -> None:
    x = positive(3, 6, 5)
    assert float(beta_divergence(x, x.clone(), beta)) == pytest.approx(0, abs=1e-12)
    assert float(beta_divergence(x, x * 1.1, beta)) > 1e-3


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_where_the_model_vanishes(beta: float, dtype: torch.dtype) -> None:
    x = positive(4, 6, 5).to(dtype)
    zero = torch.zeros_like(x)
    assert bool(torch.isfinite(beta_divergence(x, zero, beta)))
    assert all(bool(torch.isfinite(part).all()) for part in derivative_parts(x, zero, beta))


@pytest.mark.parametrize("beta", BETAS)
def test_hidden_entries_do_not_count(beta: float) -> None:
    x, y = positive(5, 6, 5), positive(6, 6, 5)
    weights = positive(7, 6, 5)
    weights[2] = 0
    hidden = x.clone()
    hidden[2] = 0
    keep = [0, 1, 3, 4, 5]
    expected = beta_divergence(x[keep], y[keep], beta, weights[keep])
    assert float(beta_divergence(hidden, y, beta, weights)) == pytest.approx(float(expected))


@pytest.mark.parametrize("beta", BETAS)
def test_a_batch_gives_one_value_each(beta: float) -> None:
    x, y = positive(8, 6, 5), positive(9, 3, 6, 5)
    weights = positive(10, 6, 5)
    batch = beta_divergence(x, y, beta, weights)
    each = torch.stack([beta_divergence(x, one, beta, weights) for one in y])
    assert batch.shape == (3,)
    assert torch.allclose(batch, each, rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_are_the_derivative(beta: float, weighted: bool) -> None:
    x, y = positive(11, 6, 5), positive(12, 6, 5).requires_grad_()
    weights = positive(13, 6, 5) if weighted else None
    (slope,) = torch.autograd.grad(beta_divergence(x, y, beta, weights), y)
    negative, positive_part = derivative_parts(x, y.detach(), beta, weights)
    assert bool((negative >= 0).all()) and bool((positive_part >= 0).all())
    assert torch.allclose(positive_part - negative, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("near", [0.0, 1.0, 2.0])
def test_beta_next_to_a_special_value_is_that_value(near: float) -> None:
    x, y = positive(14, 6, 5), positive(15, 6, 5)
    assert snapped(near + 1e-7) == near
    assert snapped(near + 0.01) == near + 0.01
    exact = float(beta_divergence(x, y, near))
    assert float(beta_divergence(x, y, near + 1e-7)) == exact
    assert float(beta_divergence(x, y, near + 2e-4)) == pytest.approx(exact, rel=2e-3)


def test_floor_keeps_powers_finite() -> None:
    for beta in (-3.0, 0.0, 1.0, 2.5):
        floor = floor_of(torch.float32, beta)
        assert math.isfinite(float(torch.tensor(floor).pow(beta - 2)))
        assert float(torch.tensor(floor)) > 0
