"""What holds for every shape, divergence, mask and layout: no NaN, no negative, no higher loss."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warte.nmf import NMF
from warte.nmf.autograd import solve as by_autograd
from warte.nmf.solve import Penalty
from warte.nmf.solve.multiplicative import solve

BETAS = st.sampled_from([-1.0, 0.0, 0.3, 1.0, 1.0 + 1e-3, 1.5, 2.0, 3.0])
STRENGTHS = st.sampled_from([0.0, 0.0, 0.1, 10.0])
EXAMPLES = settings(max_examples=40)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """A matrix with zeros, empty rows and holes, its start, and a divergence that allows it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    k = draw(st.integers(1, min(n, m)))
    beta = draw(BETAS)
    size = 10.0 ** draw(st.integers(-3, 3))
    x = rng.gamma(0.5, size, (n, m)) + size * 1e-3
    if beta > 0:
        x *= rng.random((n, m)) < draw(st.sampled_from([0.3, 1.0]))
        x[rng.integers(n)] *= draw(st.sampled_from([0, 1]))
    weights = None
    if draw(st.booleans()):
        weights = rng.random((n, m)) * (rng.random((n, m)) < draw(st.sampled_from([0.5, 1.0])))
    kind = draw(st.sampled_from([np.float32, np.float64]))
    return {
        "x": x.astype(kind),
        "w": (rng.random((n, k)) * np.sqrt(size)).astype(kind),
        "h": (rng.random((k, m)) * np.sqrt(size)).astype(kind),
        "weights": None if weights is None else weights.astype(kind),
        "beta": beta,
    }


def sound(*factors: torch.Tensor | np.ndarray) -> bool:
    arrays = [np.asarray(f) for f in factors]
    return all(bool(np.isfinite(a).all()) and bool((a >= 0).all()) for a in arrays)


def as_tensors(problem: dict[str, Any]) -> dict[str, Any]:
    tensor = {n: torch.from_numpy(v) for n, v in problem.items() if isinstance(v, np.ndarray)}
    return {**problem, **tensor}


@given(problem=problems(), strengths=st.tuples(*[STRENGTHS] * 6))
@EXAMPLES
def test_multiplicative_updates(problem: dict[str, Any], strengths: tuple[float, ...]) -> None:
    result = solve(**as_tensors(problem), penalty=Penalty(*strengths), tol=0, max_iter=20)
    assert sound(result.w, result.h) and np.isfinite(result.losses).all()
    slack = 1e-3 if problem["x"].dtype == np.float32 else 1e-9
    assert (np.diff(result.losses) <= slack * abs(result.losses[0])).all()


@given(problem=problems())
@EXAMPLES
def test_autograd_equals_updates_by_hand(problem: dict[str, Any]) -> None:
    tensors = as_tensors(problem)
    tensors = {n: v.double() if isinstance(v, torch.Tensor) else v for n, v in tensors.items()}
    ours, by_hand = (s(**tensors, tol=0, max_iter=5) for s in (by_autograd, solve))
    assert sound(ours.w, ours.h)
    assert torch.allclose(ours.w @ ours.h, by_hand.w @ by_hand.h, rtol=1e-6, atol=1e-9)


@given(problem=problems(), sparse=st.booleans(), n_init=st.integers(1, 2))
@EXAMPLES
def test_the_estimator(problem: dict[str, Any], sparse: bool, n_init: int) -> None:
    x, weights, beta = problem["x"], problem["weights"], problem["beta"]
    if not x.any() or (weights is not None and not (x * weights).any()):
        return
    data: Any = x
    if sparse and weights is None and beta > 0:
        data = scipy.sparse.csr_array(x)
    model = NMF(
        problem["w"].shape[1], beta_loss=beta, n_init=n_init, random_state=0, max_iter=20, tol=0
    )
    w = model.fit_transform(data, weights=weights)
    assert sound(w, model.components_, model.losses_, model.restart_losses_)
    assert sound(model.transform(data, weights=weights))
    assert w.dtype == x.dtype and w.shape == problem["w"].shape
    assert model.losses_[-1] <= model.losses_[0] * (1 + 1e-3) + 1e-4 * float(x.sum())
