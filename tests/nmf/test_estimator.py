"""The estimator: scikit-learn's own checks, its values, and every refusal."""

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
import sklearn.decomposition
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import warte.nmf
from warte.nmf import NMF
from warte.nmf.choose import ABILITIES, choose
from warte.nmf.solve import Penalty
from warte.nmf.solve.multiplicative import factor_loss


def planted(rows: int = 40, columns: int = 25, rank: int = 4, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(rows, rank)) @ rng.exponential(size=(rank, columns))
    return x + noise * rng.random((rows, columns))


def model(**settings: Any) -> NMF:
    return NMF(**{"n_components": 4, "random_state": 0, **settings})


# scikit-learn's conventions


@parametrize_with_checks([NMF(2, tol=1e-7)])
def test_passes_the_checks_of_scikit_learn(estimator: NMF, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_transformer_general,
        estimator_checks.check_methods_subset_invariance,
        estimator_checks.check_methods_sample_order_invariance,
        estimator_checks.check_estimators_dtypes,
        estimator_checks.check_fit_idempotent,
    ],
)
def test_values_pass_them_for_counts_too(check: Any) -> None:
    check("NMF", NMF(2, beta_loss="kullback-leibler", tol=1e-7))


def test_can_be_cloned_searched_and_put_in_a_pipeline() -> None:
    copy = clone(model(beta_loss=1.5, l1_w=0.5))
    assert copy.get_params()["beta_loss"] == 1.5 and copy.l1_w == 0.5
    pipeline = make_pipeline(model(), sklearn.decomposition.PCA(2))
    assert pipeline.fit_transform(planted()).shape == (40, 2)


def test_the_package_names_its_estimators() -> None:
    assert warte.nmf.NMF is NMF
    assert {"NMF", "NMFD", "PLCA", "ShiftPLCA"} <= set(dir(warte.nmf))
    for name in warte.nmf.__all__:
        assert getattr(warte.nmf, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'NMFX'"):
        _ = warte.nmf.NMFX


def test_names_of_features() -> None:
    frame = pd.DataFrame(planted(columns=3), columns=["a", "b", "c"])
    fitted = model(n_components=2).fit(frame)
    assert list(fitted.feature_names_in_) == ["a", "b", "c"]
    assert list(fitted.get_feature_names_out()) == ["nmf0", "nmf1"]
    table = fitted.set_output(transform="pandas").transform(frame)
    assert list(table.columns) == ["nmf0", "nmf1"]


# values


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler", "itakura-saito", 1.5, 3])
def test_same_start_same_result_as_scikit_learn(beta_loss: str | float) -> None:
    x = planted(noise=0.1) + 0.05
    rng = np.random.default_rng(1)
    w, h = rng.random((40, 4)) + 0.1, rng.random((4, 25)) + 0.1
    ours = model(solver="mu", beta_loss=beta_loss, tol=0, max_iter=60)
    ours_w = ours.fit_transform(x, W=w, H=h)
    theirs = sklearn.decomposition.NMF(
        4, init="custom", solver="mu", beta_loss=beta_loss, tol=0, max_iter=60
    )
    theirs_w = theirs.fit_transform(x, W=w.copy(), H=h.copy())
    assert np.allclose(ours_w, theirs_w, rtol=1e-6)
    assert np.allclose(ours.components_, theirs.components_, rtol=1e-6)
    assert ours.reconstruction_err_ == pytest.approx(theirs.reconstruction_err_, rel=1e-6)
    assert ours.n_iter_ == theirs.n_iter_ == 60


def test_hals_is_not_behind_scikit_learn() -> None:
    x = planted(noise=0.3)
    rng = np.random.default_rng(1)
    w, h = rng.random((40, 4)), rng.random((4, 25))
    ours = model(tol=0, max_iter=200)
    ours.fit_transform(x, W=w, H=h)
    theirs = sklearn.decomposition.NMF(4, init="custom", tol=1e-12, max_iter=2000)
    theirs.fit_transform(x, W=w.copy(), H=h.copy())
    assert ours.solver_ == "hals"
    assert ours.reconstruction_err_ <= theirs.reconstruction_err_ * (1 + 1e-4)


FITS: list[dict[str, Any]] = [
    {"solver": "hals"},
    {"solver": "mu"},
    {"solver": "autograd"},
    {"solver": "weighted"},
    {"solver": "shift"},
    {"solver": "nearly"},
    {"solver": "online", "batch_size": 16},
    {"solver": "poisson", "beta_loss": 1},
    {"solver": "mu", "beta_loss": 1},
    {"solver": "mu", "beta_loss": 0},
    {"solver": "mu", "beta_loss": 2.5},
    {"solver": "online", "beta_loss": 1, "batch_size": 16},
]


@pytest.mark.parametrize("settings", FITS, ids=str)
def test_every_solver_recovers_a_planted_matrix(settings: dict[str, Any]) -> None:
    x = planted().astype(np.float32)
    fitted = model(n_init=3, tol=1e-6, max_iter=500, **settings)
    w = fitted.fit_transform(x)
    y = fitted.inverse_transform(w)
    assert w.dtype == fitted.components_.dtype == y.dtype == np.float32
    assert float(np.linalg.norm(x - y)) < 0.06 * float(np.linalg.norm(x))
    assert (w >= 0).all() and (fitted.components_ >= 0).all()
    assert fitted.solver_ == settings["solver"]
    assert fitted.n_components_ == 4 and fitted.n_features_in_ == 25
    assert fitted.restart_losses_.shape == (3,)
    beta = float(settings.get("beta_loss", 2))
    loss = float(
        factor_loss(
            torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(fitted.components_), beta
        )
    )
    rounding = 1e-5 * float(x.sum())
    assert fitted.reconstruction_err_**2 / 2 == pytest.approx(loss, rel=1e-3, abs=rounding)
    again = fitted.transform(x) @ fitted.components_
    assert float(np.linalg.norm(x - again)) < 0.07 * float(np.linalg.norm(x))


def test_transform_solves_each_row_exactly() -> None:
    x = planted(noise=0.3)
    fitted = model(tol=1e-6).fit(x)
    w = fitted.transform(x)
    exact = [scipy.optimize.nnls(fitted.components_.T, row)[0] for row in x]
    assert np.allclose(w, np.stack(exact), atol=1e-4)
    assert np.allclose(fitted.transform(x[:3]), w[:3], atol=1e-6)


def test_known_components_need_no_fit() -> None:
    h = np.eye(3, 25) + np.eye(3, 25, 3)
    w = np.random.default_rng(8).random((6, 3))
    for size in (1.0, 1e-17):
        fitted = NMF().use_components(h * size)
        assert np.allclose(fitted.transform(w @ h * size), w, atol=1e-6)
        assert fitted.n_components_ == 3
        assert np.allclose(fitted.inverse_transform(w), w @ h * size, atol=0)
    for bad, match in ((-h, "negative"), (h[0], "1 axis"), (h * np.nan, "non-finite")):
        with pytest.raises(ValueError, match=match):
            NMF().use_components(bad)
    with pytest.raises(ValueError, match="24 features"):
        NMF().use_components(h).transform(np.ones((2, 24)))


def test_hidden_entries_are_filled_in() -> None:
    x = planted()
    mask = np.random.default_rng(2).random(x.shape) < 0.2
    filled = np.where(mask, np.nan, x)
    for hidden in ({"X": np.ma.masked_invalid(filled)}, {"X": filled, "mask": mask}):
        fitted = model(tol=1e-8, max_iter=1000)
        w = fitted.fit_transform(**hidden)
        assert fitted.solver_ == "weighted"
        y = w @ fitted.components_
        assert float(np.abs(y - x)[mask].mean()) < 0.02 * float(x.mean())
    again = fitted.transform(filled, mask=mask) @ fitted.components_
    assert float(np.abs(again - x)[mask].mean()) < 0.02 * float(x.mean())


def test_weights_count_entries() -> None:
    x = planted(noise=0.5)
    x[0] += 10 * np.random.default_rng(3).random(25)
    weights = np.ones_like(x)
    plain = model(n_components=2, max_iter=500, tol=1e-7)
    w = plain.fit_transform(x, weights=weights)
    heavy = model(n_components=2, max_iter=500, tol=1e-7)
    weights[0] = 1e3
    w_heavy = heavy.fit_transform(x, weights=weights)
    before = np.linalg.norm(x[0] - w[0] @ plain.components_)
    after = np.linalg.norm(x[0] - w_heavy[0] @ heavy.components_)
    assert after < 0.5 * before
    chi2 = float((weights * (x - w_heavy @ heavy.components_) ** 2).sum())
    assert heavy.reconstruction_err_ == pytest.approx(math.sqrt(chi2), rel=1e-6)


def test_data_below_zero() -> None:
    rng = np.random.default_rng(4)
    truth = 0.2 * planted(60, 30)
    x = truth + rng.normal(size=truth.shape)
    assert (x < 0).any()
    fitted = model(solver="nearly", max_iter=500)
    w = fitted.fit_transform(x, weights=np.ones_like(x))
    assert (w >= 0).all() and (fitted.components_ >= 0).all()
    clipped = model(max_iter=500)
    bias = (clipped.fit_transform(x.clip(0)) @ clipped.components_ - truth).mean()
    assert abs((w @ fitted.components_ - truth).mean()) < 0.5 * abs(bias)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_sparse_equals_dense(beta_loss: str) -> None:
    make = scipy.sparse.csc_matrix if beta_loss == "frobenius" else scipy.sparse.csr_array
    rng = np.random.default_rng(5)
    x = planted() * (rng.random((40, 25)) < 0.3)
    start = {"W": rng.random((40, 4)), "H": rng.random((4, 25))}
    settings = {"beta_loss": beta_loss, "tol": 0, "max_iter": 50}
    dense, sparse = model(**settings), model(**settings)
    dense.fit_transform(x, **start)
    sparse.fit_transform(make(x), **start)
    assert sparse.solver_ == dense.solver_
    assert sparse.reconstruction_err_ == pytest.approx(dense.reconstruction_err_, rel=1e-3)
    assert np.allclose(sparse.transform(make(x)), sparse.transform(x), atol=1e-3)


def test_tensors_give_tensors() -> None:
    x = torch.from_numpy(planted()).float()
    fitted = model(device="cpu")
    w = fitted.fit_transform(x)
    for result in (w, fitted.components_, fitted.transform(x), fitted.inverse_transform(w)):
        assert isinstance(result, torch.Tensor) and result.dtype == torch.float32
    assert isinstance(fitted.transform(x.numpy()), np.ndarray)
    assert isinstance(model().fit_transform(x.to_sparse_csr()), torch.Tensor)
    arrays = model().fit(x.numpy())
    assert np.allclose(arrays.components_, model().fit(x).components_.numpy())


def test_restarts_keep_the_best() -> None:
    x = planted(noise=0.5)
    fitted = model(n_components=6, n_init=5, solver="mu", tol=0, max_iter=60).fit(x)
    assert np.ptp(fitted.restart_losses_) > 0
    assert fitted.losses_[-1] == pytest.approx(fitted.restart_losses_.min())
    assert fitted.reconstruction_err_**2 / 2 == pytest.approx(fitted.restart_losses_.min())


def test_restarts_too_large_for_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"n_init": 5, "solver": "mu", "tol": 0, "max_iter": 20}
    whole = model(**settings).fit(planted())
    monkeypatch.setattr("warte.nmf.estimator.BATCH_ENTRIES", 2 * 40 * 25)  # two at a time
    parts = model(**settings).fit(planted())
    assert np.allclose(whole.restart_losses_, parts.restart_losses_)
    assert np.allclose(whole.components_, parts.components_)


def test_random_state_of_any_kind() -> None:
    def fit(state: Any) -> np.ndarray:
        return model(init="random", random_state=state, max_iter=5).fit(planted()).components_

    assert np.array_equal(fit(3), fit(3))
    assert np.array_equal(fit(3), fit(np.random.default_rng(3)))
    assert np.array_equal(fit(np.random.RandomState(3)), fit(np.random.RandomState(3)))
    assert not np.array_equal(fit(None), fit(None))


@pytest.mark.parametrize("size", [1e-17, 1e15])
@pytest.mark.parametrize(
    "settings",
    [{}, {"beta_loss": 1}, {"solver": "mu", "beta_loss": 0}, {"solver": "mu", "l1_w": 1.0}],
    ids=str,
)
def test_the_size_of_the_data_does_not_matter(size: float, settings: dict[str, Any]) -> None:
    """Fluxes in SI units, in single precision: powers of four keep every number the same."""
    factor = 4.0 ** round(math.log(size, 4))
    x = (planted(noise=0.1) + 0.01).astype(np.float32)
    weights = np.linspace(0.5, 2, 25, dtype=np.float32)[None]
    beta = float(settings.get("beta_loss", 2))
    big = dict(settings)
    if "l1_w" in settings:  # a share of the loss, which has the size of x^beta; w of x^(1/2)
        big["l1_w"] = settings["l1_w"] * factor**1.5
    for kwargs in ({}, {"weights": weights}):
        if settings.get("solver") is None and kwargs and beta == 2:
            continue  # the solver with weights is tested with "mu"
        usual = model(init="random", tol=0, max_iter=30, **settings)
        start_w, start_h = np.ones((40, 4)), np.random.default_rng(6).random((4, 25)) + 0.1
        usual.fit_transform(x, W=start_w, H=start_h, **kwargs)
        scaled = model(init="random", tol=0, max_iter=30, **big)
        root = math.sqrt(factor)
        scaled.fit_transform(x * np.float32(factor), W=start_w * root, H=start_h * root, **kwargs)
        ratio = scaled.components_ / root
        assert np.allclose(ratio, usual.components_, rtol=1e-3, atol=1e-4)
        expected = usual.reconstruction_err_ * factor ** (beta / 2)
        assert scaled.reconstruction_err_ == pytest.approx(expected, rel=1e-3)
        again = scaled.transform(x * np.float32(factor), **kwargs) / root
        assert np.allclose(again, usual.transform(x, **kwargs), rtol=1e-3, atol=1e-3)


def test_weights_of_unusual_size() -> None:
    x = planted(noise=0.1).astype(np.float32)
    weights = np.random.default_rng(7).random(x.shape).astype(np.float32)
    start = {"W": np.ones((40, 4)), "H": np.random.default_rng(6).random((4, 25)) + 0.1}
    usual = model(solver="mu", tol=0, max_iter=30)
    usual.fit_transform(x, weights=weights, **start)
    heavy = model(solver="mu", tol=0, max_iter=30)
    heavy.fit_transform(x, weights=weights * np.float32(4.0**60), **start)
    assert np.allclose(heavy.components_, usual.components_, rtol=1e-4)
    assert heavy.reconstruction_err_ == pytest.approx(usual.reconstruction_err_ * 2.0**60, rel=1e-4)


PENALISED = {
    "l1_w": lambda w, h: w.sum(),
    "l2_w": lambda w, h: (w**2).sum(),
    "l1_h": lambda w, h: h.sum(),
    "l2_h": lambda w, h: (h**2).sum(),
    "ortho_h": lambda w, h: np.triu(h @ h.T, 1).sum(),
    "smooth_h": lambda w, h: (np.diff(h) ** 2).sum(),
}


@cache
def penalised(solver: str, **penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """The factors that a solver finds; those without a penalty are found once."""
    fitted = model(solver=solver, beta_loss=ABILITIES[solver].beta or 2.0, max_iter=30, **penalty)
    return fitted.fit_transform(planted(noise=0.3)), fitted.components_


@pytest.mark.parametrize("name", list(PENALISED))
@pytest.mark.parametrize("solver", list(ABILITIES))
def test_a_penalty_is_at_work_or_refused(name: str, solver: str) -> None:
    if name not in ABILITIES[solver].penalties:
        with pytest.raises(ValueError, match=f'"{solver}" takes no {name} .it is 30.; take'):
            penalised(solver, **{name: 30.0})
        return
    free, held = penalised(solver), penalised(solver, **{name: 30.0})
    assert PENALISED[name](*held) < 0.7 * PENALISED[name](*free)


# batches


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_learning_in_batches(beta_loss: str) -> None:
    x = planted(600, 25)
    fitted = model(solver="online", beta_loss=beta_loss)
    for _ in range(4):
        for rows in np.split(x, 12):
            fitted.partial_fit(rows)
    assert fitted.n_iter_ == 48 and fitted.solver_ == "online"
    error = np.linalg.norm(x - fitted.inverse_transform(fitted.transform(x)))
    assert error < 0.12 * np.linalg.norm(x)
    with pytest.raises(ValueError, match="24 features"):
        fitted.partial_fit(x[:, :-1])
    before = fitted.components_
    fitted.fit(x)  # begins anew
    assert fitted.n_iter_ != 49 and not np.allclose(before, fitted.components_)


def test_first_batches_that_cannot_be_started_from() -> None:
    with pytest.raises(ValueError, match="X holds only zeros; the first batch"):
        model().partial_fit(np.zeros((5, 6)))
    with pytest.raises(ValueError, match='give more rows or init="random"'):
        model(init="nndsvd").partial_fit(planted()[:3])
    assert model().partial_fit(planted()[:3]).components_.shape == (4, 25)
    assert not hasattr(model(solver="mu"), "partial_fit")


# what is printed and watched


def test_watch_and_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    settings = {"solver": "mu", "tol": 0, "max_iter": 12}
    fitted = model(verbose=2, **settings).fit(planted(), watch=lambda i, w, h: seen.append(i))
    assert seen == list(range(1, 13))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"iteration 10: loss {fitted.losses_[1]:.6g}"
    assert out[1] == f"mu: 12 iterations, not settled, loss {fitted.losses_[-1]:.6g}"
    model(verbose=1, **settings).fit(planted())
    assert len(capsys.readouterr().out.splitlines()) == 1
    model(**settings).fit(planted())
    assert capsys.readouterr().out == ""


def test_converged_says_whether_it_settled() -> None:
    assert model(tol=1e-2, max_iter=1000).fit(planted(noise=0.3)).converged_
    assert not model(tol=1e-12, max_iter=11, solver="mu").fit(planted(noise=0.3)).converged_


# refusals


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_components": 26}, r"n_components is 26, but X has shape \(40, 25\); .* 1 to 25"),
        ({"n_components": 0}, "n_components is 0; allowed are whole numbers from 1"),
        ({"beta_loss": "poisson"}, "beta_loss is 'poisson'; allowed are frobenius"),
        ({"beta_loss": math.nan}, "beta_loss is nan"),
        ({"solver": "cd"}, "solver is 'cd'; allowed are auto, hals"),
        ({"solver": "hals", "beta_loss": 1}, r'"hals" takes beta_loss 2 only, not 1; take'),
        ({"solver": "weighted", "ortho_h": 1.0}, "takes no ortho_h.*one of: hals, mu, autograd"),
        ({"init": "svd"}, "init is 'svd'"),
        ({"init": "nndsvd", "n_init": 2}, 'restarts need init="random"'),
        ({"n_init": 0}, "n_init is 0"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"forget": 0.0}, "forget is 0.0"),
        ({"tol": -1.0}, "tol is -1.0"),
        ({"l1_w": -1.0}, "l1_w is -1.0; allowed are finite numbers from 0"),
        ({"device": "nowhere"}, "device is 'nowhere', which cannot be used here"),
        ({"random_state": "seed"}, "random_state is 'seed'"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        model(**settings).fit(planted())
    assert "\n" not in str(caught.value)


def test_data_that_are_refused() -> None:
    x = planted()
    for bad, kwargs, match in (
        (x - 1, {}, 'Negative values in data passed as X: .*solver="nearly"'),
        (np.where(x > 1, np.nan, x), {}, "X contains NaN or infinity"),
        (np.zeros((5, 6)), {}, "X holds only zeros; there is nothing to factorise"),
        (scipy.sparse.csr_array((5, 6)), {}, "X holds only zeros"),
        (torch.ones(5), {}, "has 1 axis"),
        (torch.ones(5, 6), {"mask": np.ones((5, 6), dtype=bool)}, "hide every entry"),
        (x, {"W": np.ones((40, 4))}, "H is missing; give both W and H"),
        (x, {"W": np.ones((39, 4)), "H": np.ones((4, 25))}, r"W has shape \(39, 4\); \(40, 4\)"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            model().fit_transform(bad, **kwargs)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="contains 40 zeros; beta=0"):
        model(beta_loss=0).fit(np.where(np.arange(25) == 3, 0, x))
    with pytest.raises(ValueError, match='"hals" takes no weights'):
        model(solver="hals").fit(x, weights=np.ones_like(x))
    with pytest.raises(ValueError, match="W and H are given with n_init=2"):
        model(n_init=2).fit_transform(x, W=np.ones((40, 4)), H=np.ones((4, 25)))
    with pytest.raises(ValueError, match="W has 3 columns; 4 are needed"):
        model().fit(x).inverse_transform(np.ones((2, 3)))


def test_rows_and_columns_of_zeros_are_taken() -> None:
    x = planted()
    x[3], x[:, 7] = 0, 0
    for beta_loss in (2, 1):
        fitted = model(beta_loss=beta_loss)
        y = fitted.inverse_transform(fitted.fit_transform(x))
        assert np.isfinite(y).all()
        assert y[3].max() < 1e-3 and y[:, 7].max() < 1e-3
        assert (fitted.transform(x)[3] == 0).all()


def test_auto_takes_the_fastest_that_can() -> None:
    def auto(beta: float = 2.0, weights: bool = False, sparse: bool = False, **p: float) -> str:
        return choose("auto", beta, weights=weights, sparse=sparse, penalty=Penalty(**p))

    assert auto() == auto(ortho_h=1) == auto(sparse=True) == "hals"
    assert auto(weights=True) == "weighted"
    assert auto(weights=True, ortho_h=1) == "mu"
    assert auto(1.0) == auto(1.0, sparse=True) == "poisson"
    assert auto(0.0) == auto(1.5, weights=True) == "mu"
