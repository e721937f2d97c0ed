"""PLCA against closed forms, torchnmf, factorisation under Kullback-Leibler, and by autograd."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from warte.nmf.convolution import reconstruct
from warte.nmf.divergence import beta_divergence
from warte.nmf.plca import PLCA, Mixture, Shifted, ShiftPLCA, em_step, most_likely, solve
from warte.nmf.solve import multiplicative

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchnmf is built on a deprecated part of torch
    import torchnmf.plca


# torchnmf adds 1.2e-7 to probabilities before it divides by them, here up to 1e-2.
PEER = {"rtol": 5e-4, "atol": 2e-6}


def _counts(seed: int = 0, shape: tuple[int, int] = (40, 30), k: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mean = rng.gamma(0.5, 1.0, (shape[0], k)) @ rng.gamma(0.5, 5.0, (k, shape[1]))
    return rng.poisson(mean).astype(float)


def _start(k: int, shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """z level, w over its first axis and h over its last at random."""
    rng = np.random.default_rng(3)
    w, h = torch.from_numpy(rng.random(shape) + 0.1), torch.from_numpy(rng.random(other) + 0.1)
    return torch.full((k,), 1.0 / k, dtype=torch.float64), w, h


def _check_distributions(z: Any, w: Any, h: Any, axes_w: Any, axes_h: Any) -> None:
    for p, axes in ((z, 0), (w, axes_w), (h, axes_h)):
        assert np.isfinite(p).all() and (np.asarray(p) >= 0).all()
        np.testing.assert_allclose(np.asarray(p).sum(axes), 1.0, rtol=0, atol=1e-14)


@parametrize_with_checks([PLCA(2, random_state=0, tol=1e-6, max_iter=300)])
def test_it_is_a_transformer_of_scikit_learn(
    estimator: BaseEstimator, check: Callable[[BaseEstimator], None]
) -> None:
    check(estimator)


def test_one_component_is_the_product_of_the_margins() -> None:
    x = _counts()
    model = PLCA(1, max_iter=3).fit(x)
    np.testing.assert_allclose(model.components_[0], x.sum(0) / x.sum())
    np.testing.assert_allclose(model.activations_[:, 0], x.sum(1) / x.sum())
    expected = (x * np.log(np.outer(x.sum(1), x.sum(0)) / x.sum() ** 2 + (x == 0))).sum()
    assert model.log_likelihood_ == pytest.approx(expected)


def test_a_prior_adds_its_counts_to_one_component() -> None:
    x = _counts()
    smooth = PLCA(1, prior_h=3.0, max_iter=3).fit(x).components_[0]
    np.testing.assert_allclose(smooth, (x.sum(0) + 2.0) / (x.sum() + 2.0 * x.shape[1]))
    wanted = np.linspace(1.0, 9.0, x.shape[1])
    each = PLCA(1, prior_h=wanted, max_iter=3).fit(x).components_[0]
    np.testing.assert_allclose(each, (x.sum(0) + wanted - 1) / (x.sum() + (wanted - 1).sum()))
    sparse = PLCA(1, prior_h=1e-9, prior_w=1e-9, max_iter=3).fit(np.array([[1.0, 2], [0, 4]]))
    np.testing.assert_allclose(sparse.components_, [[0.0, 1.0]], atol=1e-8)


def test_a_prior_that_would_leave_nothing_is_not_heeded() -> None:
    counts = torch.tensor([[0.1, 0.3], [0.0, 0.0], [4.0, 0.3]])
    found = most_likely(counts, 0.5, (1,))
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]))


def test_the_distributions_sum_to_one_and_make_the_model() -> None:
    x = _counts()
    model = PLCA(3, random_state=0)
    counts = model.fit_transform(x)
    _check_distributions(model.weights_, model.activations_, model.components_, 0, 1)
    np.testing.assert_allclose(counts, model.activations_ * model.weights_ * x.sum())
    expected = model.inverse_transform(counts)
    np.testing.assert_allclose(expected.sum(), x.sum())
    likelihood = (x * np.log(np.where(x > 0, expected / x.sum(), 1.0))).sum()
    assert model.log_likelihood_ == pytest.approx(likelihood)
    assert model.log_posteriors_[-1] == pytest.approx(likelihood)


@pytest.mark.parametrize("priors", [{}, {"prior_z": 2.0, "prior_w": 1.3, "prior_h": 4.0}])
def test_the_posterior_never_falls(priors: dict[str, float]) -> None:
    x = torch.from_numpy(_counts())
    z, w, h = _start(3, (40, 3), (3, 30))
    values = tuple(priors.values()) or (1.0, 1.0, 1.0)
    w, h = w / w.sum(0), h / h.sum(1, keepdim=True)
    posteriors = []
    for _ in range(60):  # one by one: the solver itself looks only every ten steps
        (z, w, h), looks, _ = solve(Mixture(x), z, w, h, priors=values, tol=0, max_iter=1)
        posteriors += looks
    assert np.diff(posteriors).min() > -1e-9 * abs(posteriors[0])
    assert posteriors[-1] > posteriors[0] + 100


def test_flat_priors_make_it_factorisation_under_kullback_leibler() -> None:
    x = torch.from_numpy(_counts())
    model = PLCA(3, random_state=0, tol=0, max_iter=1500)
    w, h = model.fit_transform(x), model.components_
    stepped = multiplicative.solve(x, w, h, beta=1.0, tol=0, max_iter=1)
    torch.testing.assert_close(stepped.w, w, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(stepped.h, h, rtol=1e-4, atol=1e-6)
    size = x.sum()
    saturated = torch.xlogy(x, x / size).sum()
    divergence = beta_divergence(x, w @ h, 1.0)
    assert float(saturated) - model.log_likelihood_ == pytest.approx(float(divergence), rel=1e-6)
    # From another way to the same place.
    _, w, h = _start(3, (40, 3), (3, 30))
    direct = multiplicative.solve(x, w, h, beta=1.0, tol=0, max_iter=1500)
    assert direct.losses[-1] == pytest.approx(float(divergence), rel=1e-3)


def test_torchnmf_takes_the_same_steps() -> None:
    x = torch.from_numpy(_counts(shape=(10, 8)))
    z, w, h = _start(3, (10, 3), (3, 8))
    w, h = w / w.sum(0), h / h.sum(1, keepdim=True)
    peer = torchnmf.plca.PLCA(W=h.T.contiguous(), H=w, Z=z).double()
    for own, start in ((peer.W, h.T), (peer.H, w), (peer.Z, z)):
        own.data.copy_(start)
    peer.fit(x, tol=-np.inf, max_iter=25)
    (z, w, h), _, _ = solve(Mixture(x), z, w, h, tol=0, max_iter=25)
    torch.testing.assert_close(z, peer.Z.data, **PEER)
    torch.testing.assert_close(w, peer.H.data, **PEER)
    torch.testing.assert_close(h, peer.W.data.T, **PEER)


def test_torchnmf_takes_the_same_steps_with_shifts() -> None:
    x = torch.from_numpy(_counts(shape=(12, 25)))
    z, w, h = _start(2, (2, 12, 4), (2, 22))
    w, h = w / w.sum((1, 2), keepdim=True), h / h.sum(1, keepdim=True)
    peer = torchnmf.plca.SIPLCA(W=w.transpose(0, 1), H=h[None], Z=z).double()
    for own, start in ((peer.W, w.transpose(0, 1)), (peer.H, h[None]), (peer.Z, z)):
        own.data.copy_(start)
    peer.fit(x[None], tol=-np.inf, max_iter=25)
    (z, w, h), _, _ = solve(Shifted(x, 4), z, w, h, tol=0, max_iter=25)
    torch.testing.assert_close(z, peer.Z.data, **PEER)
    torch.testing.assert_close(w, peer.W.data.transpose(0, 1), **PEER)
    torch.testing.assert_close(h, peer.H.data[0], **PEER)


@pytest.mark.parametrize("shifted", [False, True])
def test_the_forward_pass_alone_gives_the_same_steps(shifted: bool) -> None:
    x = torch.from_numpy(_counts(shape=(12, 25)))
    z, w, h = _start(2, (2, 12, 4), (2, 22)) if shifted else _start(2, (12, 2), (2, 25))
    axes_w: tuple[int, ...] = (1, 2) if shifted else (0,)
    w, h = w / w.sum(axes_w, keepdim=True), h / h.sum(1, keepdim=True)
    priors = (1.5, 0.7, 2.0)
    mixture: Any = Shifted(x, 4) if shifted else Mixture(x)
    (z1, w1, h1), _, _ = solve(mixture, z, w, h, priors=priors, tol=0, max_iter=20)

    def forward() -> Tensor:
        if not shifted:
            return (w * z) @ h
        whole = torch.nn.functional.pad(h, (0, 3))[None, :, None]
        return reconstruct(w * z[:, None, None], whole, 12)[0]

    for _ in range(20):
        em_step(forward, [z, w, h], x, [(0,), axes_w, (1,)], priors)
    assert not z.requires_grad
    for ours, theirs in ((z1, z), (w1, w), (h1, h)):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_sparse_counts_give_the_same() -> None:
    x = _counts()
    settings_ = {"random_state": 0, "max_iter": 40, "tol": 0}
    dense = PLCA(3, **settings_).fit(x)
    sparse = PLCA(3, **settings_).fit(scipy.sparse.csr_array(x))
    np.testing.assert_allclose(sparse.components_, dense.components_, atol=1e-10)
    assert sparse.log_posteriors_ == pytest.approx(dense.log_posteriors_)
    new = _counts(5)
    np.testing.assert_allclose(sparse.transform(scipy.sparse.coo_array(new)), dense.transform(new))


def test_known_rows_are_seen_as_in_the_fit() -> None:
    x = _counts()
    model = PLCA(3, random_state=0, tol=0, max_iter=1500)
    counts = model.fit_transform(x)
    again = model.transform(x)
    np.testing.assert_allclose(again, counts, atol=0.01)
    np.testing.assert_allclose(again.sum(1), x.sum(1), rtol=1e-6, atol=1e-9)


def test_a_sparse_prior_makes_zeros_and_a_smooth_one_none() -> None:
    x = _counts()
    zeros = {
        prior: int(
            (PLCA(3, prior_w=prior, random_state=0, tol=0).fit(x).activations_ < 1e-12).sum()
        )
        for prior in (0.05, 1.0, 2.0)
    }
    assert zeros[0.05] > zeros[1.0] > zeros[2.0] == 0


def test_planted_patterns_are_found() -> None:
    rng = np.random.default_rng(2)
    w, h = rng.gamma(0.2, 1.0, (2, 20, 4)), np.zeros((2, 60))
    w /= w.sum((1, 2), keepdims=True)
    for z in range(2):
        h[z, rng.choice(57, 6, replace=False)] = rng.uniform(50, 200, 6)
    x = np.zeros((20, 60))
    for t in range(4):
        x[:, t:] += w[:, :, t].T @ h[:, : 60 - t]
    tries = [ShiftPLCA(2, 4, random_state=i, tol=0, max_iter=300).fit(x) for i in range(4)]
    model = max(tries, key=lambda found: found.log_likelihood_)
    _check_distributions(model.weights_, model.components_, model.activations_, (1, 2), 1)
    assert model.activations_.shape == (2, 57)
    order = [0, 1] if abs(model.components_[0] - w[0]).sum() < 1 else [1, 0]
    np.testing.assert_allclose(model.components_[order], w, atol=0.01)
    np.testing.assert_allclose(model.weights_[order], h.sum(1) / h.sum(), atol=0.01)
    np.testing.assert_allclose(model.model() * x.sum(), x, atol=0.01 * x.max())


def test_tensors_give_tensors() -> None:
    x = torch.from_numpy(_counts()).float()
    model = PLCA(2, random_state=0, max_iter=5)
    for result in (model.fit_transform(x), model.components_, model.inverse_transform(x[:, :2])):
        assert isinstance(result, Tensor) and result.dtype == torch.float32
    shifted = ShiftPLCA(2, 3, random_state=0, max_iter=5).fit(x)
    assert isinstance(shifted.model(), Tensor)


@settings(max_examples=15)
@given(data=st.data())
def test_no_counts_and_no_prior_make_nan(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    prior = st.sampled_from([1e-3, 0.5, 1.0, 1.7, 1e6])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.gamma(0.3, 1.0, (n, m)) * 10.0 ** data.draw(st.integers(-9, 9))
    x[data.draw(st.integers(0, n - 1))] = 0.0
    x[data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, m - 1))] = 3.0
    priors = {name: data.draw(prior) for name in ("prior_z", "prior_w", "prior_h")}
    k = data.draw(st.integers(1, min(n, m)))
    model = PLCA(k, random_state=0, max_iter=20, tol=0, **priors).fit(x)
    _check_distributions(model.weights_, model.activations_, model.components_, 0, 1)
    assert np.isfinite(model.log_posteriors_).all()
    assert np.isfinite(model.transform(x)).all()
    shifted = ShiftPLCA(k, m, random_state=0, max_iter=20, tol=0, **priors).fit(x)
    _check_distributions(shifted.weights_, shifted.components_, shifted.activations_, (1, 2), 1)


@pytest.mark.parametrize(
    "settings_, words",
    [
        ({"n_components": 0}, "n_components is 0"),
        ({"n_components": 7}, "n_components is 7"),
        ({"prior_w": 0.0}, "prior_w is 0"),
        ({"prior_h": np.inf}, "prior_h is inf"),
        ({"prior_h": np.ones((2, 2))}, r"prior_h has shape \(2, 2\)"),
        ({"random_state": "x"}, "random_state is 'x'"),
    ],
)
def test_settings_out_of_range_are_named(settings_: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PLCA(**{"n_components": 2, **settings_}).fit(np.ones((6, 9)))


def test_data_out_of_range_are_named() -> None:
    x = np.ones((6, 9))
    for bad, words in (
        (0 * x, "only zeros"),
        (-x, "Negative values"),
        (np.ma.masked_array(x, x > 2), "X is masked"),
        (x * np.nan, "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            PLCA(2).fit(bad)
    with pytest.raises(ValueError, match="window is 10"):
        ShiftPLCA(2, 10).fit(x)
    with pytest.raises(ValueError, match=r"\(rows, 2\) is needed"):
        PLCA(2, max_iter=2).fit(x).inverse_transform(np.ones((4, 3)))
    with pytest.raises(ValueError, match="X is sparse"):
        ShiftPLCA(2, 3).fit(torch.ones(6, 9).to_sparse())
