"""The programs of the races: each runs from a start and reports after its iterations.

A program calls `lap(iterations, w, h)` when it has made so many; the lap stops the clock, and ends
the run by raising `Finished`. Peers are driven through the steps of their own loops, without the
stopping rules, so that only their work is timed.
"""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.nmf.data import Problem
from warte.nmf.solve import hals, multiplicative, poisson, weighted

Lap = Callable[[int, Tensor, Tensor], None]
Program = Callable[[Problem, Lap], None]

FOREVER = sys.maxsize


class Finished(Exception):
    """The clock has seen enough of this run."""


class MissingPeer(Exception):
    """The package of a peer is not installed, or is another version than the one known here."""


def warte_hals(problem: Problem, lap: Lap) -> None:
    """Accelerated HALS, beta 2."""
    hals.solve(problem.x, problem.w, problem.h, tol=0, max_iter=FOREVER, watch=lap)


def warte_poisson(problem: Problem, lap: Lap) -> None:
    """Guarded quasi-Newton steps, beta 1."""
    poisson.solve(problem.x, problem.w, problem.h, tol=0, max_iter=FOREVER, watch=lap)


def warte_weighted(problem: Problem, lap: Lap) -> None:
    """Weighted Frobenius."""
    assert problem.weights is not None
    weighted.solve(
        problem.x, problem.w, problem.h, problem.weights, tol=0, max_iter=FOREVER, watch=lap
    )


def _plain(problem: Problem, lap: Lap, beta: float) -> None:
    """Multiplicative updates with this package's products, and no look at the loss."""
    data, w, h = multiplicative.problem(problem.x, beta), problem.w, problem.h
    done = 0
    while True:
        w = multiplicative.apply_ratio(w, *data.w_parts(w, h), 1.0)
        h = multiplicative.apply_ratio(h, *data.h_parts(w, h), 1.0)
        done += 1
        lap(done, w, h)


def plain_kl(problem: Problem, lap: Lap) -> None:
    """Plain multiplicative updates, beta 1."""
    _plain(problem, lap, 1.0)


def sklearn_cd(problem: Problem, lap: Lap) -> None:
    """scikit-learn's coordinate descent, beta 2: the loop of its `_fit_coordinate_descent`."""
    try:
        from sklearn.decomposition._nmf import _update_coordinate_descent as update
    except ImportError as error:
        raise MissingPeer(str(error)) from error
    x, w = problem.x.numpy(), problem.w.numpy().copy()
    ht = np.ascontiguousarray(problem.h.numpy().T)
    rng = np.random.RandomState(0)
    done = 0
    while True:
        update(x, w, ht, 0.0, 0.0, False, rng)
        update(x.T, ht, w, 0.0, 0.0, False, rng)
        done += 1
        lap(done, torch.from_numpy(w), torch.from_numpy(ht).T)


def sklearn_kl(problem: Problem, lap: Lap) -> None:
    """scikit-learn's multiplicative updates, beta 1: the loop of `_fit_multiplicative_update`."""
    try:
        from sklearn.decomposition import _nmf
    except ImportError as error:
        raise MissingPeer(str(error)) from error
    x, w, h = (part.numpy().copy() for part in (problem.x, problem.w, problem.h))
    if not hasattr(_nmf, "_multiplicative_update_h"):
        raise MissingPeer("scikit-learn has no _multiplicative_update_h")
    done = 0
    while True:
        w, *_ = _nmf._multiplicative_update_w(x, w, h, 1, 0, 0, 1)
        h = _nmf._multiplicative_update_h(x, w, h, 1, 0, 0, 1)
        h[h < np.finfo(np.float64).eps] = 0.0
        done += 1
        lap(done, torch.from_numpy(w), torch.from_numpy(h))


def _torchnmf(problem: Problem, lap: Lap, beta: float) -> None:
    """Ten updates a call, after which it looks at its loss anyway; a call's first look, which one
    long run would make once, is some 4 % of the ten."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compiles with torch.jit
            from torchnmf.nmf import NMF
    except ImportError as error:
        raise MissingPeer(str(error)) from error
    # It updates first what it calls W; given the transpose, that is w here, as for the others.
    peer = NMF(W=problem.w.clone(), H=problem.h.T.contiguous())
    x, done = problem.x.T.contiguous(), 0
    while True:
        with torch.enable_grad():
            peer.fit(x, beta=beta, tol=-np.inf, max_iter=10)
        done += 10
        lap(done, peer.W.detach(), peer.H.detach().T)


def torchnmf_frobenius(problem: Problem, lap: Lap) -> None:
    """torchnmf, beta 2."""
    _torchnmf(problem, lap, 2)


def torchnmf_kl(problem: Problem, lap: Lap) -> None:
    """torchnmf, beta 1."""
    _torchnmf(problem, lap, 1)


def nonnegmfpy(problem: Problem, lap: Lap) -> None:
    """NonnegMFPy, weighted: it computes its cost after every iteration, where the lap is taken."""
    try:
        from NonnegMFPy import nmf
    except ImportError as error:
        raise MissingPeer(str(error)) from error
    assert problem.weights is not None
    done = -1

    class Watched(nmf.NMF):  # type: ignore[misc]
        @property
        def cost(self) -> float:
            nonlocal done
            value = float(super().cost)
            done += 1
            if done:
                lap(done, torch.from_numpy(self.W), torch.from_numpy(self.H))
            return value

    parts = {"W": problem.w, "H": problem.h, "V": problem.weights}
    peer = Watched(
        problem.x.numpy(),
        n_components=problem.w.shape[1],
        **{key: part.numpy() for key, part in parts.items()},
    )
    with contextlib.redirect_stdout(io.StringIO()):
        peer.SolveNMF(maxiters=FOREVER, tol=-np.inf)
