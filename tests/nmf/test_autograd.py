"""Updates by automatic differentiation equal those by hand, and need only a forward pass."""

import numpy as np
import pytest
import torch
from torch import nn

from warte.nmf import autograd
from warte.nmf.divergence import beta_divergence
from warte.nmf.solve import Penalty, multiplicative


def positive(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(1.0, 1.0, shape) + 0.01)


@pytest.mark.parametrize("beta", [2.0, 1.5, 1.0, 0.5, 0.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalty", [Penalty(), Penalty(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
def test_equals_the_updates_by_hand(beta: float, weighted: bool, penalty: Penalty) -> None:
    x, w, h = positive(0, 20, 15), positive(1, 20, 4), positive(2, 4, 15)
    weights = positive(3, 20, 15) * (positive(4, 20, 15) > 0.3) if weighted else None
    common = {"beta": beta, "weights": weights, "penalty": penalty, "tol": 0, "max_iter": 50}
    ours = autograd.solve(x, w, h, **common)  # type: ignore[arg-type]
    by_hand = multiplicative.solve(x, w, h, **common)  # type: ignore[arg-type]
    assert torch.allclose(ours.w, by_hand.w, rtol=1e-6, atol=1e-9)
    assert torch.allclose(ours.h, by_hand.h, rtol=1e-6, atol=1e-9)
    assert ours.losses == pytest.approx(by_hand.losses, rel=1e-9)


def test_batches_and_fixed_h_equal_those_by_hand() -> None:
    x, w, h = positive(5, 20, 15), positive(6, 2, 20, 4), positive(7, 2, 4, 15)
    calls: list[int] = []
    ours = autograd.solve(
        x, w, h, beta=1.5, update_h=False, tol=1e-3, watch=lambda i, w, h: calls.append(i)
    )
    by_hand = multiplicative.solve(x, w, h, beta=1.5, update_h=False, tol=1e-3)
    assert torch.allclose(ours.w, by_hand.w, rtol=1e-9) and torch.equal(ours.h, h)
    assert ours.n_iter == by_hand.n_iter == len(calls) and ours.converged


class Layered(nn.Module):
    """x is nearly a @ b @ c, with no derivation by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(positive(8, 20, 6))
        self.b = nn.Parameter(positive(9, 6, 4))
        self.c = nn.Parameter(positive(10, 4, 15))

    def forward(self) -> torch.Tensor:
        return self.a @ self.b @ self.c


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.0])
def test_a_layered_model_needs_only_a_forward_pass(beta: float) -> None:
    truth = positive(11, 20, 4) @ positive(12, 4, 15)
    model = Layered()
    losses = autograd.fit_module(model, truth, beta, tol=0, max_iter=300)
    assert (np.diff(losses) <= 1e-10 * losses[0]).all()
    assert losses[-1] < 0.03 * losses[0]
    assert losses[-1] == pytest.approx(
        float(beta_divergence(truth, model().detach(), beta)), rel=1e-6
    )
    assert all(bool((p >= 0).all()) and p.requires_grad for p in model.parameters())


def test_fixed_parameters_stay_and_inputs_are_passed() -> None:
    class Dictionary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = nn.Parameter(positive(13, 4, 15))
            self.gain = nn.Parameter(torch.ones(15, dtype=torch.float64), requires_grad=False)

        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return (w @ self.h) * self.gain

    w = positive(14, 20, 4)
    h = positive(15, 4, 15)
    model = Dictionary()
    seen: list[int] = []
    autograd.fit_module(model, w @ h, inputs=[w], tol=0, max_iter=800, watch=seen.append)
    assert torch.allclose(model.h, h, atol=0.02)
    assert torch.equal(model.gain, torch.ones(15, dtype=torch.float64))
    assert seen[0] == 1 and seen[-1] == 800


def test_weights_hide_entries_of_a_module() -> None:
    truth = positive(11, 20, 4) @ positive(12, 4, 15)
    weights = (positive(16, 20, 15) > 0.3).double()
    results = []
    for filled in (0.0, 9.0):
        model = Layered()
        x = torch.where(weights > 0, truth, filled)
        autograd.fit_module(model, x, 2.0, weights=weights, tol=0, max_iter=20)
        results.append(model().detach())
    assert torch.allclose(*results)


def test_penalties_and_powers_by_name() -> None:
    truth = positive(11, 20, 4) @ positive(12, 4, 15)
    plain, sparse, slow = Layered(), Layered(), Layered()
    autograd.fit_module(plain, truth, tol=0, max_iter=50)

    def l1(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(p), torch.full_like(p, 20.0)

    autograd.fit_module(sparse, truth, penalties={"b": l1}, tol=0, max_iter=50)
    assert float(sparse.b.detach().sum()) < 0.7 * float(plain.b.detach().sum())
    start = slow.b.detach().clone()
    autograd.fit_module(slow, truth, gamma={"b": 0.0}, tol=0, max_iter=5)
    assert torch.equal(slow.b, start) and not torch.equal(slow.a, Layered().a)


def test_a_tied_model_settles_with_half_the_power() -> None:
    """x is nearly w w^T: the parameter enters twice, so the ratio's power is halved."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(positive(17, 12, 3))

        def forward(self) -> torch.Tensor:
            return self.w @ self.w.T

    w = positive(18, 12, 3)
    losses = autograd.fit_module(Tied(), w @ w.T, gamma=0.5, tol=0, max_iter=500)
    assert (np.diff(losses) <= 0).all() and losses[-1] < 1e-2 * losses[0]


def test_tolerance_stops() -> None:
    truth = positive(11, 20, 4) @ positive(12, 4, 15)
    loose = autograd.fit_module(Layered(), truth, tol=1e-2, max_iter=1000)
    assert len(loose) < 20
    assert loose[-2] - loose[-1] <= 1e-2 * loose[0]


def test_what_cannot_be_trained_is_refused() -> None:
    x = positive(11, 20, 15)
    model = Layered()
    with pytest.raises(ValueError, match="d is no trainable parameter; allowed are a, b, c"):
        autograd.fit_module(model, x, gamma={"d": 1.0})
    with torch.no_grad():
        model.b[0, 0] = -1
    with pytest.raises(ValueError, match="parameter b holds negative"):
        autograd.fit_module(model, x)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        autograd.fit_module(model.requires_grad_(False), x)
    stray, p = torch.ones(3), torch.ones(20, 15, dtype=torch.float64)
    for forward in (lambda: x, lambda: x * p.requires_grad_()):
        with pytest.raises(ValueError, match="does not depend on the parameter"):
            autograd.multiplicative_step(forward, [stray], x, 2.0)
    assert not stray.requires_grad
