"""Mini-batches: as good as all rows at once, from rows that are seen and let go."""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from warte.nmf import online
from warte.nmf.check import compressed
from warte.nmf.divergence import beta_divergence
from warte.nmf.online import begin, follow, partial_step, solve
from warte.nmf.solve import Penalty, multiplicative

SHAPE, RANK = (600, 80), 5


def _problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (600, 80) of rank 5 above zero, and a random start."""
    rng = np.random.default_rng(seed)
    (n, m), k = SHAPE, RANK
    mean = rng.gamma(0.5, 1.0, (n, k)) @ rng.gamma(0.5, 1.0, (k, m))
    x = rng.poisson(3 * mean) / 3.0 + 0.01
    scale = np.sqrt(x.mean() / k)
    w, h = (np.abs(rng.standard_normal(shape)) * scale for shape in ((n, k), (k, m)))
    return torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(h)


def _full(
    x: Tensor, w: Tensor, h: Tensor, beta: float, weights: Tensor | None = None, **more: Any
) -> float:
    found = multiplicative.solve(x, w, h, beta=beta, weights=weights, tol=0, max_iter=200, **more)
    return found.losses[-1]


@pytest.mark.parametrize(
    ("beta", "weighted"),
    [(2.0, False), (2.0, True), (1.0, False), (1.0, True), (0.5, True), (1.5, False)],
)
def test_it_comes_near_all_rows_at_once(beta: float, weighted: bool) -> None:
    x, w, h = _problem()
    weights = None
    if weighted:
        weights = torch.from_numpy(np.random.default_rng(1).choice([0.0, 1.0, 2.0], SHAPE))
        x = torch.where(weights > 0, x, 0.0)
    found = solve(x, w, h, beta=beta, weights=weights, batch_size=64, max_iter=60)
    share = 1.01 if beta >= 1 and not weighted else 1.02
    assert found.losses[-1] <= share * _full(x, w, h, beta, weights)
    model = found.w @ found.h
    exact = float(beta_divergence(x, model, beta, weights))
    assert found.losses[-1] == pytest.approx(exact)
    assert found.losses[0] == pytest.approx(float(beta_divergence(x, w @ h, beta, weights)))


def test_it_stops_at_rest_and_goes_on_without_a_tolerance() -> None:
    x, w, h = _problem()
    rest = solve(x, w, h, max_iter=100)
    assert rest.converged and rest.n_iter < 100
    rounds: list[int] = []
    solve(x, w, h, max_iter=7, tol=0, watch=lambda number, _w, _h: rounds.append(number))
    assert rounds == [1, 2, 3, 4, 5, 6, 7]


def test_the_start_is_not_written_to_and_the_seed_decides() -> None:
    x, w, h = _problem()
    before = [part.clone() for part in (x, w, h)]

    def found(seed: int) -> Tensor:
        return solve(x, w, h, beta=1.0, max_iter=3, generator=np.random.default_rng(seed)).h

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))
    assert all(torch.equal(a, b) for a, b in zip(before, (x, w, h), strict=True))


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_sparse_rows_give_the_same(beta: float) -> None:
    x, w, h = _problem()
    x = torch.where(x > 0.5, x, 0.0)
    x[7] = 0.0
    dense = solve(x, w, h, beta=beta, max_iter=4, tol=0)
    sparse = solve(x.to_sparse(), w, h, beta=beta, max_iter=4, tol=0)
    torch.testing.assert_close(sparse.h, dense.h)
    assert sparse.losses == pytest.approx(dense.losses)
    rows = solve(compressed(x.to_sparse()), w, h, beta=beta, max_iter=4, tol=0)
    torch.testing.assert_close(rows.w, dense.w)


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_w_alone_is_fitted_with_h_as_it_is(beta: float) -> None:
    x, w, h = _problem()
    found = solve(x, w, h, beta=beta, update_h=False)
    assert torch.equal(found.h, h)
    best = multiplicative.solve(x, w, h, beta=beta, update_h=False, tol=0, max_iter=500)
    assert found.losses[-1] <= 1.001 * best.losses[-1]


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_penalties_weigh_as_they_do_on_all_rows(beta: float) -> None:
    x, w, h = _problem()
    penalty = Penalty(l1_w=0.3, l2_w=0.2, l1_h=30.0, l2_h=20.0)
    found = solve(x, w, h, beta=beta, penalty=penalty, batch_size=64, max_iter=60)
    assert found.losses[-1] <= 1.02 * _full(x, w, h, beta, penalty=penalty)
    free = solve(x, w, h, beta=beta, batch_size=64, max_iter=60)
    assert float(found.h.sum()) < 0.9 * float(free.h.sum())


def test_hidden_entries_do_not_matter() -> None:
    x, w, h = _problem()
    weights = torch.from_numpy(np.random.default_rng(1).choice([0.0, 1.0], SHAPE))
    results = [
        solve(torch.where(weights > 0, x, value), w, h, weights=weights, max_iter=3, tol=0).h
        for value in (0.0, 50.0)
    ]
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("beta, keep", [(2.0, 0.8), (1.0, 0.3)])
def test_a_stream_is_learnt_from_and_let_go(beta: float, keep: float) -> None:
    x, _, h = _problem()
    alive: list[weakref.ref[Tensor]] = []

    def batches() -> Iterator[Tensor]:
        for turn in range(8):
            for first in range(0, 600, 50):
                assert sum(ref() is not None for ref in alive) <= 1  # that in the caller's hand
                batch = x[first : first + 50 + turn].clone()
                alive.append(weakref.ref(batch))
                yield batch

    state, losses = follow(batches(), h, beta=beta, keep=keep)
    assert state.steps == 96 and len(losses) == 96
    assert np.mean(losses[-12:]) < 0.7 * losses[0]
    fitted = solve(x, torch.ones(600, RANK, dtype=x.dtype), state.h, beta=beta, update_h=False)
    _, w, h = _problem()
    assert fitted.losses[-1] < 1.1 * _full(x, w, h, beta)


@pytest.mark.parametrize("beta", [1.5, 1.0, 3.0, 0.5])
def test_one_batch_of_all_rows_is_the_update_of_all_rows(beta: float) -> None:
    """What is accumulated from one batch leads exactly to the step of the plain solver."""
    x, w, h = _problem()
    state, moved, loss = partial_step(begin(h, beta), x, w=w)
    assert float(loss) == pytest.approx(float(beta_divergence(x, moved @ h, beta)))
    expected = multiplicative.solve(
        x.T.contiguous(), h.T, moved.T, beta=beta, update_h=False, tol=0, max_iter=1
    )
    torch.testing.assert_close(state.h, expected.w.T)


def test_coordinate_passes_lead_to_nonnegative_least_squares() -> None:
    x, w, h = _problem()
    found = h.clone()
    for _ in range(200):
        online._coordinate_pass(found, w.T @ w, w.T @ x, 0.0, 0.0)
    for column in (0, 17, 79):
        best, _ = scipy.optimize.nnls(w.numpy(), x[:, column].numpy())
        np.testing.assert_allclose(found[:, column], best, atol=1e-9)


def test_two_halves_gather_what_the_whole_gathers() -> None:
    x, w, h = _problem()
    for beta in (2.0, 1.0, 0.5):
        whole = online._gather(begin(h, beta), x, w, None, 1.0)[0]
        half = online._gather(begin(h, beta), x[:300], w[:300], None, 1.0)[0]
        half = online._gather(half, x[300:], w[300:], None, 1.0)[0]
        torch.testing.assert_close(half.numerator, whole.numerator)
        torch.testing.assert_close(half.denominator, whole.denominator)
        assert half.rows == whole.rows == 600
        faded = online._gather(whole, x[:100], w[:100], None, 0.5)[0]
        assert faded.rows == 400


@settings(max_examples=25)
@given(data=st.data())
def test_no_data_make_nan(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 7))
    k, beta = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([2.0, 1.0, 0.3, 3.0, 1.4]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = torch.from_numpy(rng.gamma(0.3, 1.0, (n, m)))
    x[data.draw(st.integers(0, n - 1))] = 0.0
    x[:, data.draw(st.integers(0, m - 1))] = 0.0
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    weights = None
    if data.draw(st.booleans()):
        weights = torch.from_numpy(rng.choice([0.0, 1.0], (n, m))).to(dtype)
    w, h = torch.from_numpy(rng.random((n, k))), torch.from_numpy(rng.random((k, m)))
    w[:, 0] = 0.0
    size = data.draw(st.integers(1, 4))
    x, w, h = x.to(dtype), w.to(dtype), h.to(dtype)
    found = solve(x, w, h, beta=beta, weights=weights, batch_size=size, max_iter=8, tol=0)
    for result in (found.w, found.h):
        assert result.dtype == dtype
        assert bool(torch.isfinite(result).all()) and bool((result >= 0).all())
    assert np.isfinite(found.losses).all()


def test_values_out_of_range_are_named() -> None:
    x, w, h = _problem()
    for more, words in (
        ({"batch_size": 0}, "batch_size is 0"),
        ({"forget": 0.0}, "forget is 0"),
        ({"forget": 1.5}, "forget is 1.5"),
        ({"penalty": Penalty(ortho_h=1.0)}, "ortho_h is 1"),
    ):
        with pytest.raises(ValueError, match=words):
            solve(x, w, h, **more)
    with pytest.raises(ValueError, match="80 columns are needed"):
        partial_step(begin(h), x[:, 1:])
    with pytest.raises(ValueError, match="begin with weighted=True"):
        partial_step(begin(h), x, weights=torch.ones_like(x))
