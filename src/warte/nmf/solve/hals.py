"""Hierarchical alternating least squares for the Frobenius norm, extrapolated and compressed.

Minimises 1/2 ||x - w h||^2 plus the penalties of `Penalty`, for x (n, m), dense or sparse, w
(n, k) >= 0 and h (k, m) >= 0. Three things make it fast:

* several sweeps over the columns of a factor for each product with x (Gillis & Glineur 2012,
  Neural Computation 24, 1085);
* extrapolation of both factors, whose length is taken back when the loss rises (Ang & Gillis
  2019, Neural Computation 31, 417);
* where x is large, rounds of steps that see x through its leading subspace: x = y^T v + r, with
  a narrow v (l, m). The remainder r enters to first order around the factors at the start of the
  round, so that the gradient there is exact and the rounds have the same stationary points as
  the plain steps. A round costs two products with x however many steps it has; it is taken back
  when the loss did not fall about as far as it promised.

The loss that is reported never rises. Inside, both factors are kept as rows: p = w^T (b, k, n)
and h (b, k, m), with b restarts side by side.
"""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from warte.nmf.solve import Penalty, Solution, Total, Watch, alone
from warte.nmf.solve.alternate import Run, State, alternate, begin, exact_loss, fit_p
from warte.nmf.solve.rows import LOOK, Record, dot, gram, into_rows, out_of_rows, tiny, watcher

_SWEEPS = 4  # passes over the columns of a factor for each product with x
_WARM = 3  # plain steps before the first compressed round
_PIECE = 256  # rows of x that are squared at once
_EXTRA = 10  # columns of the sketch beyond the rank
_PAYS = 25  # compress from n m / (n + m) = this many times the rank on
_ROUND, _SHORTEST, _LONGEST = 10, 2, 100  # steps of the first compressed round, and their range
_GOOD, _POOR = 0.75, 0.5  # share of the promised fall that lengthens, or undoes, a round


def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    penalty: Penalty = Penalty(),  # noqa: B008 - frozen
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    total: Total = alone,
    watch: Watch | None = None,
    compress: bool | None = None,
) -> Solution:
    """Minimise half the squared distance between x and w h.

    Args:
        x: (n, m) finite data, dense or sparse (COO or CSR); a sparse one is never made dense.
        w: (n, k) or (b, n, k) start, not negative; b restarts are solved side by side.
        h: (k, m) or (b, k, m) start, not negative.
        penalty: all six. With ortho_h or smooth_h give l1_w or l2_w too: otherwise h can shrink
            and w grow until nothing is left of the penalty.
        tol: stop when the loss falls by less than this share of the loss at the start between two
            looks, ten iterations or more apart; 0 never stops.
        max_iter: iterations at most; one iteration updates w and h once.
        update_h: False solves for w alone.
        total: sums a tensor over all processes that hold rows of x and w.
        watch: called after each iteration, and after each compressed round, with the number of
            iterations and the current w and h.
        compress: whether to use compressed rounds; None decides by the shape of x.

    Returns:
        The factors in the shapes of the start, and the penalised losses, smallest over the
        restarts; the loss of no restart ever rises.
    """
    batched = w.ndim == 3
    p, h = into_rows(w, h)
    data = _Data(x, total)
    run = Run(penalty, Record(tol, max_iter), watcher(watch, batched), _SWEEPS)
    if update_h:
        if compress is None:
            compress = data.rows * x.shape[1] / (data.rows + x.shape[1]) >= _PAYS * h.shape[-2]
        p, h = _fit_both(run, data, p, h, compress)
    else:
        p = fit_p(run, data, p, h)
    record = run.record
    return Solution(*out_of_rows(p, h, batched), record.losses, record.n_iter, record.converged)


class _Data:
    """The data matrix and its products with factors kept as rows."""

    def __init__(self, x: Tensor, total: Total) -> None:
        self.total = total
        self.sparse = x.layout != torch.strided
        if self.sparse:
            self.x, self.x_t, values = _both_ways(x)
        else:
            self.x = self.x_t = values = x
        # Row by row, then in double precision: the loss is a small difference of large sums.
        rows = values[:, None] if self.sparse else values
        parts = [torch.linalg.vecdot(part, part) for part in rows.split(_PIECE)]
        self.square = total(torch.cat(parts).sum(dtype=torch.float64))
        self.rows = int(
            total(torch.tensor(float(x.shape[0]), dtype=torch.float64, device=x.device))
        )

    def by_h(self, h: Tensor) -> Tensor:
        """H x^T, (..., k, n)."""
        flat = h.reshape(-1, h.shape[-1])
        out = (self.x @ flat.T).T if self.sparse else flat @ self.x.T
        return out.reshape(*h.shape[:-1], -1)

    def by_p(self, p: Tensor) -> Tensor:
        """W^T x, (..., k, m), over the rows of all processes."""
        flat = p.reshape(-1, p.shape[-1])
        out = (self.x_t @ flat.T).T if self.sparse else flat @ self.x
        return self.total(out.reshape(*p.shape[:-1], -1))

    def curve_p(self, h: Tensor) -> Tensor:
        """H h^T, (b, k, k)."""
        return gram(h)

    def curve_h(self, p: Tensor) -> Tensor:
        """W^T w, (b, k, k), over the rows of all processes."""
        return self.total(gram(p))

    def offset(self, p: Tensor) -> Tensor | float:
        """What <x, w h> has beyond <by_p(p), h>: nothing."""
        return 0.0


def _both_ways(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sparse matrix and its transpose by rows, and the values that are not zero."""
    coo = x.to_sparse_coo().coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return coo.to_sparse_csr(), coo.t().coalesce().to_sparse_csr(), coo.values()


class _Sketch:
    """The data through its leading subspace, exact to first order around an anchor."""

    def __init__(self, data: _Data, h: Tensor) -> None:
        self.total, self.square = data.total, data.square
        self.curve_p, self.curve_h = data.curve_p, data.curve_h
        m = h.shape[-1]
        # The same numbers on every process and in every run; the result hardly feels them.
        dice = torch.Generator().manual_seed(0)
        v = torch.randn(_EXTRA, m, generator=dice).to(h)
        v = torch.cat([h[0] / torch.linalg.vector_norm(h[0]).clamp_min(tiny(h)), v])
        v = torch.linalg.qr(data.by_p(data.by_h(torch.linalg.qr(v.T)[0].T)).T)[0]
        self.v = v.T.contiguous()  # (l, m) orthonormal rows
        self.y = data.by_h(self.v)  # (l, n), x = y^T v + r

    def anchor(self, a: Tensor, c: Tensor, p: Tensor, h: Tensor) -> None:
        """Make the products exact at (p, h), where they are a = h x^T and c = p x."""
        self.rest_a = a - (h @ self.v.T) @ self.y
        self.rest_c = c - self.total(p @ self.y.T) @ self.v
        self.both = dot(self.rest_c, h)

    def by_h(self, h: Tensor) -> Tensor:
        """About h x^T, (b, k, n)."""
        return self.rest_a + (h @ self.v.T) @ self.y

    def by_p(self, p: Tensor) -> Tensor:
        """About w^T x, (b, k, m)."""
        return self.rest_c + self.total(p @ self.y.T) @ self.v

    def offset(self, p: Tensor) -> Tensor | float:
        """What about <x, w h> has beyond <by_p(p), h>."""
        return self.total(dot(self.rest_a, p)) - self.both


def _fit_both(run: Run, data: _Data, p: Tensor, h: Tensor, compress: bool) -> tuple[Tensor, Tensor]:
    """Alternate between w and h, plainly or in compressed rounds."""
    record = run.record
    state = begin(run, data, p, h)
    record.look(state.loss)
    sketch: _Sketch | None = None
    length, steps = _ROUND, _WARM if compress else LOOK
    while record.left > 0:
        state = _plain(run, data, state, min(steps, record.left))
        steps = LOOK
        known: Tensor | None = None
        while compress and record.left > 1:
            sketch = sketch or _Sketch(data, state.h)
            length = min(length, record.left)
            state, known, share = _round(run, data, sketch, state, known, length)
            if share < _POOR:
                compress, length = length > _SHORTEST, max(length // 4, _SHORTEST)
                break
            length = min(2 * length, _LONGEST) if share > _GOOD else length
    return state.shown, state.h


def _plain(run: Run, data: _Data, state: State, steps: int) -> State:
    """Some steps with the whole of x, then a look."""
    for _ in range(steps):
        state = alternate(run, data, state)
        run.record.n_iter += 1
        run.show(run.record.n_iter, state.shown, state.h)
    run.record.look(state.loss)
    return state


def _round(
    run: Run, data: _Data, sketch: _Sketch, old: State, known: Tensor | None, steps: int
) -> tuple[State, Tensor, float]:
    """Some steps through the sketch, undone for the restarts where they promised too much.

    known: w^T x at the old state, from the round before. Returns the new state, w^T x there if
    nothing was undone, and the smallest share of the promised fall that came true.
    """
    c = data.by_p(old.shown) if known is None else known
    sketch.anchor(data.by_h(old.h), c, old.shown, old.h)
    state = old
    for _ in range(steps):
        state = alternate(run, sketch, state)
        run.record.n_iter += 1
    c = data.by_p(state.shown)
    loss = exact_loss(run, data, state.shown, state.h, c)
    share = (old.loss - loss) / (old.loss - state.loss).clamp_min(tiny(old.loss))
    bad = ~(share >= _POOR)
    state = replace(state, loss=loss).back_to(old, bad)
    run.show(run.record.n_iter, state.shown, state.h)
    run.record.look(state.loss, judge=not bool(bad.any()))
    return state, c, float(torch.nan_to_num(share, nan=0.0).min())
