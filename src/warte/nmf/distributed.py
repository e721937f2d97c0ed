"""Rows of a matrix spread over the processes of torch.distributed.

Every process holds some rows of x and of w, and all of h. The solvers add up every sum over rows
with `total`; nothing else is sent. The start is the one that a single process would draw, so the
answer is the same up to rounding.

A long, thin matrix of which each process has some rows is made orthonormal from the eigenvectors
of its Gram matrix, twice: Stathopoulos & Wu, "A block orthogonalization procedure with constant
synchronization requirements", SIAM J. Sci. Comput. 23 (2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from warte.core.errors import SettingsError
from warte.core.train import launch
from warte.core.train.launch import TIMEOUT_S, Place, everyones, launched, total, waiting
from warte.core.train.launch import LostError as LostError  # callers find it here, too
from warte.nmf.check import as_tensor, check_data, check_rank, is_sparse
from warte.nmf.choose import choose, run
from warte.nmf.divergence import snapped
from warte.nmf.evaluate import explained_share
from warte.nmf.solve import Penalty, Solution, Watch
from warte.nmf.solve.multiplicative import factor_loss
from warte.nmf.start import (
    OVERSAMPLING,
    POWER_PASSES,
    SMALL,
    Kind,
    default_kind,
    leading_svd,
    mean_of,
    random_start,
)

SOLVERS = ("hals", "weighted", "poisson", "mu")  # whose sums over rows all go through `total`
T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """What all processes found together.

    solution: w holds the rows (n_local, k) of this process; h (k, m) and the losses are the same
    on all. solver: the one that was used. loss: the divergence of all rows, without penalties.
    explained: as `warte.nmf.evaluate.explained_share` says.
    """

    solution: Solution
    solver: str
    loss: float
    explained: float | None


@contextmanager
def group(*, cuda: bool = False, timeout_s: float = TIMEOUT_S) -> Iterator[Place]:
    """Join the other processes of this run, as `warte.core.train.launch.group` does.

    Raises:
        SettingsError: the program was not started by torchrun, mpiexec or srun.
        LostError: the other processes did not come.
    """
    if launched() is None:
        raise SettingsError(
            "--distributed: this is a single process; type: "
            "torchrun --nproc-per-node 2 -m warte nmf fit ... --distributed"
        )
    with launch.group(cuda=cuda, timeout_s=timeout_s) as place:
        yield place


def all_rows(part: Tensor) -> Tensor:
    """The rows of all processes, (n_local, k) each, one below the other.

    Raises:
        LostError: another process has ended.
    """
    counts = everyones(len(part))
    # Processes send blocks of one size.
    padded = part.new_zeros((max(counts), part.shape[1]))
    padded[: len(part)] = part
    blocks = [torch.empty_like(padded) for _ in counts]
    with waiting():
        dist.all_gather(blocks, padded)
    return torch.cat([block[:count] for block, count in zip(blocks, counts, strict=True)])


def own_rows(count: int, place: Place) -> tuple[int, int]:
    """First row of a process and the one after its last, of `count` rows spread evenly."""
    return count * place.rank // place.size, count * (place.rank + 1) // place.size


def mean_of_rows(value: float, count: int) -> float:
    """The mean of a value over all rows, from that over the `count` rows of each process.

    Raises:
        LostError: another process has ended.
    """
    pairs = everyones((value * count, count))
    return sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)


def fit(
    x_local: Any,
    k: int,
    *,
    beta: float = 2.0,
    weights: Any = None,
    solver: str = "auto",
    init: Kind | None = None,
    penalty: Mapping[str, float] | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
) -> Fit:
    """Factorise a matrix whose rows are spread over the processes of the default group.

    Every process calls this with the same arguments but for its own rows.

    Args:
        x_local: (n_local, m) rows of this process, in the order of the ranks; dense or sparse.
        k: rank, at most the smaller side of the whole matrix.
        beta: 2 Frobenius, 1 Kullback-Leibler, 0 Itakura-Saito, or any real number.
        weights: (n_local, m) inverse variances from 0; 0 hides an entry. None counts all alike.
        solver: "auto", "hals", "weighted", "poisson" or "mu", as in `NMF`.
        init: kind of the start; None takes the one that `NMF` takes.
        penalty: weights of penalties by the names of `Penalty`.
        seed: of the start; the same seed gives the answer of one process.
        device: where this process computes.
        tol, max_iter, watch: as for every solver.

    Raises:
        ValueError: the matrix or a setting is not allowed, on all processes with the words of the
            first one that found it.
        LostError: another process has ended.
    """
    beta, penalties = snapped(beta), Penalty(**(penalty or {}))
    if any(everyones(weights is not None)) and weights is None:
        weights = np.ones(tuple(x_local.shape), dtype=np.float32)
    x, scale = _agreed(lambda: _check(x_local, weights, beta))
    x, scale = x.to(device), None if scale is None else scale.to(device)
    rows = _Rows.of(x)
    _agreed(lambda: check_rank(k, (rows.count, x.shape[1])))
    chosen = _agreed(lambda: _choose(solver, x, beta, scale, penalties))
    w, h = start(x, k, init or default_kind(beta), np.random.default_rng(seed), scale)
    solution = run(
        *(chosen, x, w, h),
        beta=beta,
        weights=scale,
        penalty=penalties,
        tol=tol,
        max_iter=max_iter,
        total=total,
        watch=watch,
    )
    loss = float(factor_loss(x, solution.w, solution.h, beta, scale, None, total))
    return Fit(solution, chosen, loss, explained_share(x, beta, loss, scale, total))


def _choose(solver: str, x: Tensor, beta: float, weights: Tensor | None, penalty: Penalty) -> str:
    found = choose(solver, beta, weights=weights is not None, sparse=is_sparse(x), penalty=penalty)
    if found not in SOLVERS:
        raise ValueError(
            f"solver is {found!r}; spread over processes allowed are auto, {', '.join(SOLVERS)}"
        )
    return found


def _agreed(work: Callable[[], T]) -> T:
    """Do something on every process, and fail on all when it fails on one."""
    result, said = None, ""
    try:
        result = work()
    except ValueError as problem:
        said = str(problem)
    first = next((words for words in everyones(said) if words), "")
    if first:
        raise ValueError(first)
    return result  # type: ignore[return-value]  # none failed, so there is one


def _check(x_local: Any, weights: Any, beta: float) -> tuple[Tensor, Tensor | None]:
    """`check_data`, which would refuse that every row of this process is hidden."""
    if weights is not None and not bool((as_tensor(weights) > 0).any()):
        x, scale = as_tensor(x_local), as_tensor(weights)
        return torch.zeros_like(x), scale.to(x)
    return check_data(x_local, weights, None, beta)


@dataclass(frozen=True)
class _Rows:
    """Rows of the whole matrix, and how many come before those of this process."""

    count: int
    before: int

    @classmethod
    def of(cls, x: Tensor) -> _Rows:
        counts = everyones(int(x.shape[0]))
        return cls(sum(counts), sum(counts[: dist.get_rank()]))


# the start --------------------------------------------------------------------------------------


def start(
    x: Tensor, k: int, kind: Kind, generator: np.random.Generator, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rows of this process of what `warte.nmf.start.start` gives for the whole matrix.

    x: (n_local, m), dense or sparse. weights: (n_local, m) or None. The generator has the same
    seed on all processes. Returns w (n_local, k), and h (k, m), which is the same on all.
    """
    rows = _Rows.of(x)
    mean = _mean(x, weights)
    if kind == "random":
        w, h = random_start(
            (rows.before + x.shape[0], x.shape[1]), k, mean, generator, _empty_like(x)
        )
        return w[rows.before :].clone(), h
    full = x if weights is None else _filled(x, weights)
    w, h = _nndsvd(*_leading_svd(full, k, rows, generator))
    if kind == "nndsvda":
        return w.masked_fill(w == 0, mean), h.masked_fill(h == 0, mean)
    if kind == "nndsvdar":
        drawn = [generator.standard_normal(shape) for shape in ((rows.count, k), h.shape)]
        own = drawn[0][rows.before : rows.before + len(w)]
        w, h = (
            torch.where(
                factor == 0, torch.from_numpy(np.abs(noise)).to(factor) * (mean / 100), factor
            )
            for factor, noise in ((w, own), (h, drawn[1]))
        )
    return w, h


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty(0, dtype=x.dtype, device=x.device)


def _mean(x: Tensor, weights: Tensor | None) -> float:
    """The mean of the visible entries of all processes."""
    count = x.shape[0] * x.shape[1] if weights is None else int((weights > 0).sum())
    sums = torch.tensor([mean_of(x, weights) * count, count], dtype=torch.float64, device=x.device)
    whole, number = total(sums).tolist()
    return float(whole / max(1.0, number))


def _filled(x: Tensor, weights: Tensor) -> Tensor:
    """Hidden entries filled with what the means of their row and column make of them."""
    visible = (weights > 0).to(x.dtype)
    shown = x * visible
    column_sums = total(torch.stack([shown.sum(dim=0), visible.sum(dim=0)]))
    mean = float(column_sums[0].sum()) / float(column_sums[1].sum())
    rows = shown.sum(dim=1) / visible.sum(dim=1).clamp_min(1)
    columns = column_sums[0] / column_sums[1].clamp_min(1)
    guess = torch.outer(rows, columns) / mean if mean > 0 else torch.zeros_like(x)
    return torch.where(visible > 0, x, guess)


def _leading_svd(
    x: Tensor, k: int, rows: _Rows, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Leading singular vectors and values: (n_local, k), (k,), (k, m)."""
    columns = int(x.shape[1])
    width = min(k + OVERSAMPLING, rows.count, columns)
    if min(rows.count, columns) <= SMALL * width and rows.count * columns <= 1 << 22:
        # As small as this it is done by every process, just as a single one does it.
        whole = all_rows(x.to_dense() if is_sparse(x) else x)
        u, s, v = leading_svd(whole, k, generator)
        return u[rows.before : rows.before + x.shape[0]], s, v
    back = x.t().coalesce() if is_sparse(x) else x.t()
    drawn = torch.from_numpy(generator.standard_normal((columns, width)))
    basis = _orthonormal(x @ drawn.to(_empty_like(x)))
    for _ in range(POWER_PASSES):
        across = _same(torch.linalg.qr(total(back @ basis))[0])
        basis = _orthonormal(x @ across)
    u, s, v = torch.linalg.svd(total(back @ basis).t(), full_matrices=False)
    return (basis @ _same(u))[:, :k], _same(s)[:k], _same(v)[:k]


def _same(small: Tensor) -> Tensor:
    """The tensor of process 0, where machines of several kinds could differ in sign or order."""
    shared = small.contiguous()
    with waiting():
        dist.broadcast(shared, 0)
    return shared


def _orthonormal(tall: Tensor) -> Tensor:
    """An orthonormal basis (n_local, l) of the columns of a matrix spread by rows.

    Directions that rounding alone has made become zero columns.
    """
    basis = tall.double()
    for _ in range(2):
        values, vectors = torch.linalg.eigh(total(basis.mT @ basis))
        top = values[-1].clamp_min(torch.finfo(torch.float64).tiny)
        scale = torch.where(values > top * 1e-15, values.clamp_min(0).rsqrt(), 0.0)
        basis = basis @ _same(vectors * scale)
    return basis.to(tall.dtype)


def _nndsvd(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`warte.nmf.start.nndsvd` with u (n_local, k) spread by rows."""
    best = torch.zeros_like(s)
    w, h = torch.zeros_like(u), torch.zeros_like(v)
    tiny = torch.finfo(u.dtype).tiny
    for sign in (1.0, -1.0):
        left, right = (sign * u).clamp_min_(0), (sign * v).clamp_min_(0)
        left_norm = total(left.square().sum(dim=0)).sqrt()
        right_norm = right.norm(dim=1)
        size = left_norm * right_norm
        better = size > best
        scale = (s * size).clamp_min(0).sqrt()
        w = torch.where(better, left * (scale / left_norm.clamp_min(tiny)), w)
        h = torch.where(better[:, None], right * (scale / right_norm.clamp_min(tiny))[:, None], h)
        best = torch.maximum(best, size)
    return w, h
