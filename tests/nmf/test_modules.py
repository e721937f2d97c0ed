"""The modules: trained by their gradients' two parts, by an optimiser, and as a layer."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from warte.nmf import convolutive
from warte.nmf.autograd import fit_module
from warte.nmf.modules import (
    ConvolutiveNMF,
    DeepNMF,
    Factorise,
    NMFModule,
    NonnegativeLinear,
    SymmetricNMF,
    keep_nonnegative,
    project,
    symmetric_exponent,
)
from warte.nmf.solve import multiplicative

DOUBLE = torch.float64


def _data(n: int = 12, m: int = 15, k: int = 3) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.gamma(0.5, 1.0, (n, k)) @ rng.gamma(0.5, 1.0, (k, m)) + 0.01)


def _every() -> list[nn.Module]:
    return [
        NMFModule(12, 15, 3, dtype=DOUBLE),
        DeepNMF([12, 5, 3, 15], dtype=DOUBLE),
        ConvolutiveNMF(12, 15, 3, 4, dtype=DOUBLE),
    ]


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5, 3.0])
@pytest.mark.parametrize("which", range(3))
def test_updates_never_raise_the_loss(which: int, beta: float) -> None:
    module, x = _every()[which], _data()
    losses = []
    for _ in range(15):
        losses += fit_module(module, x, beta, tol=0, max_iter=1)
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()
    assert losses[-1] < 0.3 * losses[0]


def test_the_plain_module_is_the_plain_solver() -> None:
    module, x = NMFModule(12, 15, 3, dtype=DOUBLE), _data()
    w, h = module.w.detach().clone(), module.h.detach().clone()
    fit_module(module, x, 1.0, tol=0, max_iter=30)
    solution = multiplicative.solve(x, w, h, beta=1.0, tol=0, max_iter=30)
    torch.testing.assert_close(module().detach(), solution.w @ solution.h)


def test_the_convolutive_module_is_the_convolutive_solver() -> None:
    module, x = ConvolutiveNMF(12, 15, 3, 4, dtype=DOUBLE), _data()
    w, h = module.components.detach().clone(), module.activations.detach().clone()
    fit_module(module, x, 1.0, tol=0, max_iter=30)
    solution = convolutive.solve(x[None], w, h[None, :, None], beta=1.0, tol=0, max_iter=30)
    torch.testing.assert_close(module.components.detach(), solution.w)
    torch.testing.assert_close(module.activations.detach(), solution.h[0, :, 0])


def test_a_chain_finds_a_product_of_three() -> None:
    rng = np.random.default_rng(4)
    sizes = [20, 6, 3, 18]
    x = torch.from_numpy(np.linalg.multi_dot([rng.gamma(0.5, 1.0, s) for s in pairwise(sizes)]))
    module = DeepNMF(sizes, mean=float(x.mean()), dtype=DOUBLE)
    losses = fit_module(module, x, 2.0, tol=0, max_iter=600)
    assert losses[-1] < 2e-3 * float(x.square().sum())


@pytest.mark.parametrize("beta", [2.0, 1.5, 1.0, 0.5, 3.0])
def test_the_tied_module_never_rises_with_its_exponent(beta: float) -> None:
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.gamma(0.5, 1.0, (10, 10)))
    x = x + x.T + 0.01
    module = SymmetricNMF(10, 3, dtype=DOUBLE)
    losses = []
    for _ in range(60):
        losses += fit_module(module, x, beta, gamma=symmetric_exponent(beta), tol=0, max_iter=1)
    assert (np.diff(losses) <= 1e-9 * losses[0]).all()
    assert losses[-1] < losses[0]


def test_the_tied_module_finds_clusters() -> None:
    member = torch.arange(30) % 3
    x = (member[:, None] == member).double() + 0.02
    module = SymmetricNMF(30, 3, dtype=DOUBLE)
    fit_module(module, x, 1.0, gamma=symmetric_exponent(1.0), tol=0, max_iter=400)
    found = module.w.detach().argmax(1)
    same = found[:, None] == found
    assert bool((same == (member[:, None] == member)).all())


@pytest.mark.parametrize("which", range(3))
def test_an_optimiser_trains_it_at_or_above_zero(which: int) -> None:
    module, x = _every()[which], _data()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    handle = keep_nonnegative(module, optimizer)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (module() - x).square().sum() / 2
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        assert all(float(p.detach().min()) >= 0 for p in module.parameters())
    assert losses[-1] < 0.3 * losses[0]
    handle.remove()
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(200):
        optimizer.step()
    assert any(float(p.detach().min()) < 0 for p in module.parameters())
    project(module)
    assert all(float(p.detach().min()) == 0 for p in module.parameters())


@pytest.mark.parametrize("which", range(3))
def test_a_state_goes_out_and_comes_back(which: int) -> None:
    module = _every()[which]
    fit_module(module, _data(), 2.0, max_iter=5)
    other = _every()[which]
    assert not torch.equal(other(), module())
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(), module())
    single = module.float()()
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), other(), rtol=1e-5, atol=1e-6)
    assert module.to("meta")().device.type == "meta"


def test_a_start_has_the_mean_asked_for_and_its_seed() -> None:
    rng = np.random.default_rng
    modules = [
        lambda seed: NMFModule(80, 90, 6, mean=7.0, generator=rng(seed)),
        lambda seed: DeepNMF([80, 9, 6, 90], mean=7.0, generator=rng(seed)),
        lambda seed: ConvolutiveNMF(80, 90, 6, 3, mean=7.0, generator=rng(seed)),
        lambda seed: SymmetricNMF(80, 6, mean=7.0, generator=rng(seed)),
    ]
    for make in modules:
        assert 0.4 * 7 < float(make(1)().detach().mean()) < 1.5 * 7
        assert torch.equal(make(1)(), make(1)())
        assert not torch.equal(make(1)(), make(2)())


def test_a_dictionary_stands_inside_a_network() -> None:
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.gamma(0.5, 1.0, (40, 3)))
    truth = torch.from_numpy(rng.gamma(0.5, 1.0, (8, 3)))
    layer = NonnegativeLinear(3, 8, dtype=DOUBLE)
    fit_module(layer, codes @ truth.T, 2.0, inputs=[codes], tol=0, max_iter=2000)
    torch.testing.assert_close(layer.weight.detach(), truth, rtol=1e-3, atol=1e-3)
    network = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), NonnegativeLinear(3, 8))
    assert (network(torch.randn(7, 5)) >= 0).all()


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5, 3.0])
def test_gradients_flow_through_the_layer(beta: float) -> None:
    x = _data(4, 5, 2).requires_grad_(True)
    layer = Factorise(2, 3, beta=beta)
    assert torch.autograd.gradcheck(lambda v: layer(v), (x,))


def test_the_layer_makes_the_solver_s_steps() -> None:
    x = _data()
    layer = Factorise(3, 25, beta=1.0)
    w, h = layer._start(x)
    assert float((w @ h).mean()) == pytest.approx(float(x.mean()), rel=0.2)
    solution = multiplicative.solve(x, w, h, beta=1.0, tol=0, max_iter=25)
    found_w, found_h = layer(x)
    torch.testing.assert_close(found_w, solution.w)
    torch.testing.assert_close(found_h, solution.h)


def test_the_layer_takes_batches_and_zeros() -> None:
    x = torch.stack([_data(), 100 * _data().flip(0), torch.zeros(12, 15, dtype=DOUBLE)])
    x[1, 3] = 0.0
    for beta in (2.0, 1.0, 1.5, 0.5):
        layer = Factorise(3, 10, beta=beta)
        single = x[1].clone()
        together = x.clone().requires_grad_(True)
        w, h = layer(together)
        torch.testing.assert_close((w @ h)[1], torch.matmul(*layer(single)))
        (w.sum() + h.square().sum()).backward()
        for result in (w, h, together.grad):
            assert result is not None and bool(torch.isfinite(result).all())


def test_what_comes_before_the_layer_learns() -> None:
    """Gains of the rows are learnt through the layer, from a target for h alone."""
    x = _data()
    target = Factorise(3, 10)(x)[1].detach()
    gains = torch.full((12, 1), 0.0, dtype=DOUBLE, requires_grad=True)
    optimizer = torch.optim.Adam([gains], lr=0.05)
    spoilt = x * torch.linspace(0.3, 3.0, 12, dtype=DOUBLE)[:, None]
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (Factorise(3, 10)(spoilt * gains.exp())[1] - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: DeepNMF([3, 4]), r"sizes is \[3, 4\]"),
        (lambda: Factorise(0), "k is 0"),
        (lambda: Factorise(2, 0), "iterations is 0"),
    ],
)
def test_settings_out_of_range_are_named(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
