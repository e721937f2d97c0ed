"""The fast Kullback-Leibler solver: against closed forms, scikit-learn and its own promises."""

import warnings
from itertools import pairwise

import hypothesis
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import strategies as st
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from warte.nmf.divergence import beta_divergence
from warte.nmf.solve import Penalty, multiplicative, poisson
from warte.nmf.solve.multiplicative import factor_loss
from warte.nmf.solve.poisson import FLAT, GROW, SHRINK

Case = tuple[Tensor, Tensor, Tensor]


def _counts(seed: int, n: int = 60, m: int = 40, k: int = 4, mean: float = 5.0) -> Case:
    """Counts of a rank-k model, and a random start, in double precision."""
    rng = np.random.default_rng(seed)
    model = rng.gamma(0.5, size=(n, k)) @ rng.gamma(0.5, size=(k, m))
    x = rng.poisson(mean * model / model.mean()).astype(float)
    level = np.sqrt(mean / k)
    w, h = level * rng.random((n, k)) + 0.01, level * rng.random((k, m)) + 0.01
    return torch.tensor(x), torch.tensor(w), torch.tensor(h)


def _loss(x: Tensor, w: Tensor, h: Tensor) -> float:
    return float(beta_divergence(x, w @ h, 1.0))


def test_rank_one_is_the_product_of_the_sums() -> None:
    """For one component the optimum is rows times columns over everything."""
    x, w, h = _counts(0)
    found = poisson.solve(x, w[:, :1], h[:1], tol=0, max_iter=60)
    expected = x.sum(1, keepdim=True) * x.sum(0) / x.sum()
    torch.testing.assert_close(found.w @ found.h, expected, rtol=1e-6, atol=1e-6)


def test_w_alone_reaches_the_optimum_of_a_convex_problem() -> None:
    """With h fixed, each row is what a general optimiser finds (L-BFGS-B of SciPy)."""
    x, w, h = _counts(1)
    found = poisson.solve(x, w, h, tol=0, max_iter=300, update_h=False)
    assert found.h is not h
    assert torch.equal(found.h, h)
    other = h.numpy()
    for row in range(3):
        counts = x[row].numpy()

        def loss(p: np.ndarray, counts: np.ndarray = counts) -> tuple[float, np.ndarray]:
            y = p @ other + 1e-12
            return float(y.sum() - counts @ np.log(y)), other @ (1 - counts / y)

        best = scipy.optimize.minimize(
            loss, w[row].numpy(), jac=True, bounds=[(0, None)] * 4, options={"ftol": 1e-14}
        )
        here = loss(found.w[row].numpy())[0]
        assert here == pytest.approx(best.fun, abs=1e-6)


def test_at_the_end_nothing_can_be_gained() -> None:
    """Karush-Kuhn-Tucker: no gradient on what is positive, none below zero on what is zero."""
    x, w, h = _counts(2)
    found = poisson.solve(x, w, h, tol=0, max_iter=1500)
    ratio = x / (found.w @ found.h).clamp_min(1e-12)
    for factor, slope in (
        (found.w, (1 - ratio) @ found.h.T / found.h.sum(1)),
        (found.h, found.w.T @ (1 - ratio) / found.w.sum(0)[:, None]),
    ):
        assert float((factor * slope).abs().max() / factor.mean()) < 1e-3
        assert float(slope.min()) > -1e-2


@pytest.mark.parametrize("seed", range(4))
def test_better_than_ten_times_the_multiplicative_updates(seed: int) -> None:
    """40 iterations from a random start beat 300 of scikit-learn's from the same."""
    x, w, h = _counts(seed, 120, 80, 6, mean=20.0)
    found = poisson.solve(x, w, h, tol=0, max_iter=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = non_negative_factorization(
            x.numpy(), W=w.numpy().copy(), H=h.numpy().copy(), n_components=6, init="custom",
            solver="mu", beta_loss="kullback-leibler", tol=0, max_iter=300,
        )  # fmt: skip
    peer = _loss(x, torch.tensor(theirs[0]), torch.tensor(theirs[1]))
    assert _loss(x, found.w, found.h) < 1.005 * peer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_losses_are_those_of_the_factors(dtype: torch.dtype) -> None:
    x, w, h = (part.to(dtype) for part in _counts(3))
    found = poisson.solve(x, w, h, tol=0, max_iter=35)
    assert found.w.dtype == found.h.dtype == dtype
    assert (found.n_iter, len(found.losses), found.converged) == (35, 5, False)
    assert found.losses[0] == pytest.approx(_loss(x, w, h), rel=1e-5)
    assert found.losses[-1] == pytest.approx(_loss(x, found.w, found.h), rel=1e-5)


def test_it_stops_when_the_loss_settles() -> None:
    x, w, h = _counts(4)
    found = poisson.solve(x, w, h, tol=1e-3, max_iter=1000)
    assert found.converged
    assert found.n_iter == 10 * (len(found.losses) - 1) < 1000
    assert found.losses[-2] - found.losses[-1] <= 1e-3 * found.losses[0]


def test_small_data_do_not_change_the_start() -> None:
    x, w, h = _counts(4)
    kept = w.clone(), h.clone()
    poisson.solve(x, w, h, max_iter=5)
    assert torch.equal(w, kept[0])
    assert torch.equal(h, kept[1])


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, h = _counts(5)
    whole = poisson.solve(x, w, h, tol=0, max_iter=20)
    monkeypatch.setattr(poisson, "BLOCK", 1)  # blocks of 16 rows, and a last one of 12
    blocks = poisson.solve(x, w, h, tol=0, max_iter=20)
    torch.testing.assert_close(blocks.w, whole.w, rtol=1e-8, atol=1e-8)
    assert blocks.losses == pytest.approx(whole.losses, rel=1e-10)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_sparse_data_give_what_dense_ones_give(layout: str) -> None:
    x, w, h = _counts(6, mean=0.3)
    dense = poisson.solve(x, w, h, tol=0, max_iter=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that compressed layouts are in beta
        sparse = x.to_sparse_coo() if layout == "coo" else x.to_sparse_csr()
        found = poisson.solve(sparse, w, h, tol=0, max_iter=30)
    torch.testing.assert_close(found.w @ found.h, dense.w @ dense.h, rtol=1e-5, atol=1e-6)
    assert found.losses == pytest.approx(dense.losses, rel=1e-8)


def test_hidden_entries_do_not_matter() -> None:
    x, w, h = _counts(7)
    weights = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.2).double()
    first = poisson.solve(x * weights, w, h, weights=weights, tol=0, max_iter=30)
    other = x * weights + 1000.0 * (1 - weights)
    second = poisson.solve(other, w, h, weights=weights, tol=0, max_iter=30)
    torch.testing.assert_close(first.w, second.w, rtol=1e-6, atol=1e-9)
    seen = float(beta_divergence(x, first.w @ first.h, 1.0, weights))
    assert first.losses[-1] == pytest.approx(seen, rel=1e-9)
    slow = multiplicative.solve(x, w, h, beta=1, weights=weights, tol=0, max_iter=300)
    assert first.losses[-1] < 1.01 * slow.losses[-1]


def test_weights_count_as_repetition() -> None:
    """A column of weight two is that column twice."""
    x, w, h = _counts(8)
    weights = torch.ones_like(x)
    weights[:, :5] = 2.0
    weighted = poisson.solve(x, w, h, weights=weights, tol=0, max_iter=400, update_h=False)
    twice, h2 = torch.cat([x, x[:, :5]], 1), torch.cat([h, h[:, :5]], 1)
    repeated = poisson.solve(twice, w, h2, tol=0, max_iter=400, update_h=False)
    torch.testing.assert_close(weighted.w, repeated.w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "penalty", [Penalty(l1_w=1, l1_h=2), Penalty(l2_w=1, l2_h=2), Penalty(l1_w=2, l2_w=1, l2_h=1)]
)
def test_penalties_weigh_in(penalty: Penalty) -> None:
    """The penalised loss ends no higher than after many multiplicative updates."""
    x, w, h = _counts(9)
    found = poisson.solve(x, w, h, penalty=penalty, tol=0, max_iter=60)
    slow = multiplicative.solve(x, w, h, beta=1, penalty=penalty, tol=0, max_iter=300)
    here = float(factor_loss(x, found.w, found.h, 1.0, penalty=penalty))
    assert found.losses[-1] == pytest.approx(here, rel=1e-9)
    assert here < 1.01 * slow.losses[-1]
    plain = poisson.solve(x, w, h, tol=0, max_iter=60)
    assert here < float(factor_loss(x, plain.w, plain.h, 1.0, penalty=penalty))


def test_a_penalised_row_is_at_its_optimum() -> None:
    """With h fixed, L1 and L2 enter the gradient as they should, term by term."""
    x, w, h = _counts(9)
    penalty = Penalty(l1_w=1.5, l2_w=0.7)
    found = poisson.solve(x, w, h, penalty=penalty, tol=0, max_iter=300, update_h=False)
    slope = (1 - x / (found.w @ h)) @ h.T + 1.5 + 0.7 * found.w
    assert float((found.w * slope).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["ortho_h", "smooth_h"])
def test_other_penalties_are_refused(name: str) -> None:
    x, w, h = _counts(9)
    with pytest.raises(ValueError, match=f'"poisson" takes no {name} .*2.* take solver="mu"'):
        poisson.solve(x, w, h, penalty=Penalty(**{name: 2.0}))


def test_weights_of_sparse_data_are_refused() -> None:
    x, w, h = _counts(9)
    with pytest.raises(ValueError, match="X is sparse; weights need a dense matrix"):
        poisson.solve(x.to_sparse_coo(), w, h, weights=torch.ones_like(x))


def test_restarts_are_the_single_runs() -> None:
    x, w, h = _counts(10)
    w2, h2 = torch.stack([w, w.flip(0)]), torch.stack([h, h.flip(1)])
    both = poisson.solve(x, w2, h2, tol=0, max_iter=20)
    each = [poisson.solve(x, w2[i], h2[i], tol=0, max_iter=20) for i in (0, 1)]
    for i in (0, 1):
        torch.testing.assert_close(both.w[i], each[i].w)
        torch.testing.assert_close(both.h[i], each[i].h)
    assert both.losses[-1] == min(one.losses[-1] for one in each)


def test_rows_in_two_processes_are_the_whole() -> None:
    """Two halves of the rows in step, their sums added, are one run over all rows."""
    import threading

    x, w, h = _counts(11)
    meeting, parts = threading.Barrier(2), {}
    whole = poisson.solve(x, w, h, tol=0, max_iter=15)
    found = {}

    def half(number: int) -> None:
        def total(part: Tensor) -> Tensor:
            parts[number] = part
            meeting.wait()
            both = parts[0] + parts[1]
            meeting.wait()
            return both

        rows = slice(30 * number, 30 * number + 30)
        found[number] = poisson.solve(x[rows], w[rows], h, tol=0, max_iter=15, total=total)

    threads = [threading.Thread(target=half, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    joined = torch.cat([found[0].w, found[1].w])
    torch.testing.assert_close(joined, whole.w, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[0].h, found[1].h)
    assert found[1].losses == pytest.approx(whole.losses, rel=1e-9)


def test_no_step_raises_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """On data of six orders of magnitude, where plain Newton steps go astray; without lifting the
    guard is a proof."""
    monkeypatch.setattr(poisson, "LIFT", 0.0)
    rng = np.random.default_rng(12)
    x = torch.tensor(rng.lognormal(0.0, 3.0, (50, 70)) * (rng.random((50, 70)) < 0.8))
    w, h = (torch.tensor(rng.random(shape)) for shape in ((50, 5), (5, 70)))
    seen = []
    poisson.solve(
        x, w, h, tol=0, max_iter=60, watch=lambda i, w, h: seen.append((i, _loss(x, w, h)))
    )
    assert [number for number, _ in seen] == list(range(1, 61))
    losses = np.array([loss for _, loss in seen])
    assert (np.diff(losses) <= 1e-9 * losses[:-1]).all()


def test_what_a_start_lacks_comes_back() -> None:
    """An entry that is zero at the start grows where the data want it."""
    x, w, h = _counts(13)
    full = poisson.solve(x, w, h, tol=0, max_iter=200, update_h=False)
    entry = full.w == full.w.max()
    found = poisson.solve(x, w.masked_fill(entry, 0), h, tol=0, max_iter=200, update_h=False)
    assert found.losses[-1] == pytest.approx(full.losses[-1], rel=1e-6)
    torch.testing.assert_close(found.w[entry], full.w[entry], rtol=1e-2, atol=0)


def test_a_step_too_bold_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lifting raises the loss, the factors go back and the run goes on without it."""
    x, w, h = _counts(14, mean=0.5)
    monkeypatch.setattr(poisson, "LIFT", 1e6)
    monkeypatch.setattr(poisson, "judge", lambda side, moved, taken: (taken < 0, side.stiff))
    found = poisson.solve(x, w, h, tol=0, max_iter=40)
    assert all(after <= before for before, after in pairwise(found.losses))
    assert found.losses[-1] == pytest.approx(_loss(x, found.w, found.h), rel=1e-9)


def test_the_bound_behind_the_guard_holds() -> None:
    """log(1 + u) lies above the bound for all changes a step may make."""
    u = np.linspace(SHRINK - 1, GROW - 1, 10_001)
    bound = u * (FLAT + 1 / (1 + u)) / (1 + FLAT)
    assert (np.log1p(u) >= bound - 1e-12).all()


@st.composite
def _problems(draw: st.DrawFn) -> Case:
    n, m = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    k = draw(st.integers(1, min(n, m)))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scale = 10.0 ** draw(st.integers(-6, 6))
    x = scale * rng.gamma(0.3, size=(n, m)) * (rng.random((n, m)) < draw(st.floats(0.1, 1.0)))
    x[rng.random(n) < 0.2] = 0.0
    x[:, rng.random(m) < 0.2] = 0.0
    w, h = rng.random((n, k)), rng.random((k, m))
    w[rng.random((n, k)) < 0.2] = 0.0
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(x, dtype=dtype), torch.tensor(w, dtype=dtype), torch.tensor(h, dtype=dtype)


@hypothesis.settings(max_examples=80)
@hypothesis.given(_problems(), st.booleans())
def test_results_are_finite_nonnegative_and_no_worse(case: Case, hidden: bool) -> None:
    x, w, h = case
    weights = (torch.arange(x.numel()).reshape(x.shape) % 3 > 0).to(x.dtype) if hidden else None
    found = poisson.solve(x, w, h, weights=weights, tol=0, max_iter=12)
    for factor in (found.w, found.h):
        assert torch.isfinite(factor).all()
        assert (factor >= 0).all()
    assert all(np.isfinite(found.losses))
    assert all(after <= before for before, after in pairwise(found.losses))
    if weights is None:
        assert (found.w[x.sum(1) == 0] == 0).all()
        assert (found.h[:, x.sum(0) == 0] == 0).all()
