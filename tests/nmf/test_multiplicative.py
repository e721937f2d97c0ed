"""Multiplicative updates: against scikit-learn and torchnmf step by step, and by their laws."""

import warnings

import numpy as np
import pytest
import scipy.optimize
import torch
from sklearn.decomposition import _nmf

from warte.nmf.divergence import beta_divergence
from warte.nmf.solve import Penalty
from warte.nmf.solve.multiplicative import (
    Pattern,
    exponent,
    factor_loss,
    pattern_of,
    penalty_parts,
    penalty_value,
    problem,
    solve,
)

BETAS = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
PENALTIES = [
    Penalty(l1_w=0.3, l1_h=0.2),
    Penalty(l2_w=0.5, l2_h=3.0),
    Penalty(ortho_h=5.0),
    Penalty(smooth_h=10.0),
    Penalty(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
]


def positive(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(1.0, 1.0, shape) + 0.01)


def case(seed: int = 0, n: int = 25, m: int = 18, k: int = 4) -> tuple[torch.Tensor, ...]:
    return positive(seed, n, m), positive(seed + 1, n, k), positive(seed + 2, k, m)


def holes(seed: int, *shape: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random(shape) * (rng.random(shape) > 0.3))


def sparse_case(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.0, 1.0, (25, 18)) * (rng.random((25, 18)) < 0.2)
    x[3], x[:, 4] = 0, 0
    return torch.from_numpy(x)


@pytest.mark.parametrize("beta", BETAS)
def test_equals_scikit_learn(beta: float) -> None:
    x, w, h = case()
    ours = solve(x, w, h, beta=beta, tol=0, max_iter=50)
    w_theirs, h_theirs, _ = _nmf._fit_multiplicative_update(
        x.numpy(), w.numpy().copy(), h.numpy().copy(), beta, 50, 0, 0, 0, 0, 0
    )
    assert np.allclose(ours.w.numpy(), w_theirs, rtol=1e-8)
    assert np.allclose(ours.h.numpy(), h_theirs, rtol=1e-8)
    theirs = _nmf._beta_divergence(x.numpy(), w_theirs, h_theirs, beta)
    assert ours.losses[-1] == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_equals_scikit_learn_with_l1(beta: float) -> None:
    x, w, h = case(3)
    ours = solve(x, w, h, beta=beta, tol=0, max_iter=40, penalty=Penalty(l1_w=0.3, l1_h=0.7))
    theirs = _nmf._fit_multiplicative_update(
        x.numpy(), w.numpy().copy(), h.numpy().copy(), beta, 40, 0, 0.3, 0.7, 0, 0
    )
    assert np.allclose(ours.h.numpy(), theirs[1], rtol=1e-8)


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_equals_torchnmf(beta: float) -> None:
    x, w, h = (t.float() for t in case(4))
    ours = solve(x, w, h, beta=beta, tol=0, max_iter=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what torch has deprecated
        from torchnmf.nmf import NMF as TorchNMF
    # torchnmf writes V as H W^T and updates W first: the transposed problem.
    theirs = TorchNMF(W=w, H=h.T.contiguous())
    theirs.fit(x.T.contiguous(), beta=beta, tol=0, max_iter=30)
    loss = float(beta_divergence(x, (theirs.W @ theirs.H.T).detach(), beta))
    assert ours.losses[-1] == pytest.approx(loss, rel=1e-4)
    assert torch.allclose(ours.h, theirs.H.detach().T, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("penalty", [Penalty(), *PENALTIES])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_never_rises(beta: float, penalty: Penalty, weighted: bool) -> None:
    x, w, h = case(5)
    weights = holes(6, 25, 18) if weighted else None
    seen: list[float] = []

    def look(_: int, w: torch.Tensor, h: torch.Tensor) -> None:
        seen.append(float(factor_loss(x, w, h, beta, weights, penalty)))

    result = solve(
        x, w, h, beta=beta, weights=weights, penalty=penalty, tol=0, max_iter=40, watch=look
    )
    assert len(seen) == result.n_iter == 40
    assert (np.diff([result.losses[0], *seen]) <= 1e-12 * result.losses[0]).all()
    assert seen[-1] < result.losses[0]
    assert result.losses[-1] == pytest.approx(seen[-1])


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 2.0, 3.0])
def test_sparse_equals_dense(beta: float) -> None:
    x, (_, w, h) = sparse_case(), case(7)
    dense = solve(x, w, h, beta=beta, tol=0, max_iter=25)
    sparse = solve(x.to_sparse_coo(), w, h, beta=beta, tol=0, max_iter=25)
    assert torch.allclose(dense.w, sparse.w, rtol=1e-8, atol=1e-12)
    assert torch.allclose(dense.h, sparse.h, rtol=1e-8, atol=1e-12)
    assert np.allclose(dense.losses, sparse.losses, rtol=1e-8)


def test_sparse_data_stay_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        raise AssertionError("made dense")

    monkeypatch.setattr(torch.Tensor, "to_dense", refuse)
    entries, n = 3000, 1 << 20  # the dense matrix would hold 2^40 values
    rng = np.random.default_rng(0)
    places = torch.from_numpy(rng.integers(0, n, (2, entries)))
    x = torch.sparse_coo_tensor(
        places, torch.ones(entries), (n, n), check_invariants=False
    ).coalesce()
    w, h = torch.rand(n, 2), torch.rand(2, n)
    for beta in (2.0, 1.0):
        result = solve(x, w, h, beta=beta, tol=0, max_iter=2)
        assert result.losses[-1] < result.losses[0]


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, (_, w, h) = sparse_case().to_sparse_coo(), case(8)
    whole = solve(x, w, h, beta=1.5, tol=0, max_iter=5)
    monkeypatch.setattr("warte.nmf.solve.multiplicative.BLOCK", 40)  # two rows at a time
    parts = solve(x, w, h, beta=1.5, tol=0, max_iter=5)
    assert torch.allclose(whole.h, parts.h) and np.allclose(whole.losses, parts.losses)


def test_pattern_swaps_values() -> None:
    x = sparse_case()
    sparse = x.to_sparse_coo().coalesce()
    pattern: Pattern = pattern_of(sparse)
    doubled = pattern.by_rows(sparse.values() * 2).to_dense()
    assert torch.equal(doubled, 2 * x)
    assert torch.equal(pattern.by_columns(sparse.values()).to_dense(), x.T)


@pytest.mark.parametrize(
    ("beta", "kind"),
    [(b, kind) for kind in ("plain", "weighted") for b in (0.0, 1.0, 2.0, 3.0)]
    + [(b, "sparse") for b in (1.0, 2.0, 3.0)],
)
def test_a_batch_of_restarts_is_each_alone(beta: float, kind: str) -> None:
    x, w, h = positive(9, 25, 18), positive(10, 3, 25, 4), positive(11, 3, 4, 18)
    weights = holes(12, 25, 18) if kind == "weighted" else None
    if kind == "sparse":
        x = sparse_case().to_sparse_coo()
    penalty = PENALTIES[-1]
    batch = solve(x, w, h, beta=beta, weights=weights, penalty=penalty, tol=0, max_iter=20)
    ends = []
    for i in range(3):
        one = solve(x, w[i], h[i], beta=beta, weights=weights, penalty=penalty, tol=0, max_iter=20)
        assert torch.allclose(batch.w[i], one.w, rtol=1e-9)
        assert torch.allclose(batch.h[i], one.h, rtol=1e-9)
        ends.append(one.losses[-1])
    assert batch.losses[-1] == pytest.approx(min(ends))


@pytest.mark.parametrize("beta", BETAS)
def test_a_weight_of_two_is_a_row_twice(beta: float) -> None:
    x, w, h = case(13)
    weights = torch.ones_like(x)
    weights[4] = 2
    once = solve(x, w, h, beta=beta, weights=weights, tol=0, max_iter=15)
    twice = solve(torch.cat([x, x[4:5]]), torch.cat([w, w[4:5]]), h, beta=beta, tol=0, max_iter=15)
    assert torch.allclose(once.h, twice.h, rtol=1e-9)
    assert once.losses == pytest.approx(twice.losses)


@pytest.mark.parametrize("beta", BETAS)
def test_hidden_values_do_not_matter(beta: float) -> None:
    x, w, h = case(14)
    weights = holes(15, 25, 18)
    weights[2], weights[:, 5] = 0, 0  # a whole row and a whole column
    other = torch.where(weights == 0, 0.0, x)
    one = solve(x, w, h, beta=beta, weights=weights, tol=0, max_iter=15)
    two = solve(other, w, h, beta=beta, weights=weights, tol=0, max_iter=15)
    assert torch.allclose(one.w, two.w) and torch.allclose(one.h, two.h)
    assert bool((one.w[2] == 0).all()) and bool((one.h[:, 5] == 0).all())


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
def test_rows_and_columns_of_zeros_come_out_zero(beta: float) -> None:
    x, w, h = case(16)
    x[3], x[:, 7] = 0, 0
    result = solve(x, w, h, beta=beta, tol=0, max_iter=300)
    assert bool(torch.isfinite(result.w).all()) and bool(torch.isfinite(result.h).all())
    assert float((result.w @ result.h)[3].max()) < 1e-6
    assert float((result.w @ result.h)[:, 7].max()) < 1e-6


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_two_parts_of_the_rows_are_the_whole(beta: float) -> None:
    """The sums of the other half, kept from a run of it, make a half's h that of the whole."""
    x, w, h = case(17, n=24)
    whole = solve(x, w, h, beta=beta, tol=0, max_iter=1)
    rows = slice(12, 24)
    other = problem(x[rows], beta)
    new_w = whole.w[rows]
    add = iter([other.loss(w[rows], h), *other.h_parts(new_w, h), other.loss(new_w, whole.h)])
    half = solve(
        x[:12], w[:12], h, beta=beta, tol=0, max_iter=1, total=lambda part: part + next(add)
    )
    assert torch.allclose(half.h, whole.h) and half.losses == pytest.approx(whole.losses)
    assert next(add, None) is None


def test_update_h_false_leaves_h_alone_and_solves_w() -> None:
    x, w, h = case(18)
    result = solve(x, w, h, update_h=False, tol=1e-12, max_iter=5000)
    assert torch.equal(result.h, h)
    exact = np.stack([scipy.optimize.nnls(h.numpy().T, row)[0] for row in x.numpy()])
    assert np.allclose(result.w.numpy(), exact, atol=1e-3)


def test_the_start_is_not_written_to_and_tolerance_stops() -> None:
    x, w, h = case(19)
    before = w.clone(), h.clone()
    loose = solve(x, w, h, tol=1e-2, max_iter=1000)
    tight = solve(x, w, h, tol=1e-5, max_iter=1000)
    assert torch.equal(w, before[0]) and torch.equal(h, before[1])
    assert loose.converged and tight.converged and loose.n_iter < tight.n_iter < 1000
    fall = loose.losses[-2] - loose.losses[-1]
    assert fall <= 1e-2 * loose.losses[0] < loose.losses[-3] - loose.losses[-2]
    assert not solve(x, w, h, tol=1e-9, max_iter=11).converged
    assert len(solve(x, w, h, tol=0, max_iter=25).losses) == 4  # start, 10, 20, 25


def test_single_precision_stays() -> None:
    x, w, h = (t.float() for t in case(20))
    result = solve(x, w, h, beta=1.0, max_iter=10)
    assert result.w.dtype == result.h.dtype == torch.float32


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("factor", ["w", "h"])
def test_penalty_parts_are_its_gradient(penalty: Penalty, factor: str) -> None:
    _, w, h = case(21)
    p = (w if factor == "w" else h).requires_grad_()
    (slope,) = torch.autograd.grad(penalty_value(penalty, w, h).sum() + 0 * p.sum(), p)
    negative, more = penalty_parts(penalty, p.detach(), factor)  # type: ignore[arg-type]
    assert bool((negative >= 0).all()) and bool((more >= 0).all())
    assert torch.allclose(more - negative, slope, rtol=1e-10, atol=1e-12)


def test_penalty_values() -> None:
    w, h = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    assert float(penalty_value(Penalty(l1_w=2, l1_h=3), w, h)) == 2 * 3 + 3 * 8
    assert float(penalty_value(Penalty(l2_w=2, l2_h=4), w, h)) == 5 + 2 * 26
    assert float(penalty_value(Penalty(ortho_h=1), w, h)) == 12  # h0 . h1
    assert float(penalty_value(Penalty(smooth_h=1), w, h)) == (4 + 16) / 2


def test_exponent_is_that_of_fevotte_and_idier() -> None:
    for beta, gamma in ((0.0, 0.5), (0.5, 1 / 1.5), (1.0, 1.0), (2.0, 1.0), (3.0, 0.5)):
        assert exponent(beta, Penalty(l1_h=1), "h") == pytest.approx(gamma)
    assert exponent(1.0, Penalty(l2_w=1), "w") == 0.5
    assert exponent(1.0, Penalty(l2_w=1), "h") == 1.0


def test_weights_of_sparse_data_are_refused() -> None:
    x, (_, w, h) = sparse_case().to_sparse_coo(), case(22)
    with pytest.raises(ValueError, match="weights need a dense matrix"):
        solve(x, w, h, weights=torch.ones(25, 18))
