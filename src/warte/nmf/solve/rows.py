"""What the least-squares solvers share: factors kept as rows, sums in double, the record of looks.

Inside these solvers both factors are rows, p = w^T (b, k, n) and h (b, k, m), with b restarts side
by side: products with the data then run along memory.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from warte.nmf.solve import Watch

LOOK = 10  # iterations between two looks at the tolerance

Shown = Callable[[int, Tensor, Tensor], None]


def into_rows(w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Turn w (n, k) or (b, n, k) and h (k, m) or (b, k, m) into p (b, k, n) and h (b, k, m)."""
    if w.ndim != 3:
        w, h = w[None], h[None]
    return w.transpose(-1, -2).contiguous(), h.contiguous()


def out_of_rows(p: Tensor, h: Tensor, batched: bool) -> tuple[Tensor, Tensor]:
    """Turn p (b, k, n) and h (b, k, m) into w and h, without the first axis if not batched."""
    w = p.transpose(-1, -2).contiguous()
    return (w, h) if batched else (w[0], h[0])


def watcher(watch: Watch | None, batched: bool) -> Shown:
    """The watch for factors kept as rows."""

    def show(number: int, p: Tensor, h: Tensor) -> None:
        if watch is not None:
            w = p.transpose(-1, -2)
            watch(number, w if batched else w[0], h if batched else h[0])

    return show


def tiny(like: Tensor) -> float:
    """The smallest positive number that can be divided by."""
    return float(torch.finfo(like.dtype).tiny)


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Sum of products over the last two axes, in double precision."""
    return (one * other).sum(dim=(-2, -1), dtype=torch.float64)


def gram(f: Tensor) -> Tensor:
    """f f^T, (b, k, k)."""
    return f @ f.transpose(-1, -2)


def at_rows(told: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose between two tensors (b, ...) for each restart, as told (b,) says."""
    return torch.where(told.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


class Record:
    """The losses that were looked at, the number of iterations, and when to stop."""

    def __init__(self, tol: float, max_iter: int) -> None:
        self.tol, self.max_iter = tol, max_iter
        self.losses: list[float] = []
        self.n_iter = 0
        self.converged = False
        self.first: Tensor | None = None
        self.seen: Tensor | None = None
        self.seen_at = 0

    def look(self, loss: Tensor, judge: bool = True) -> None:
        """Record the losses (b,); converged if all fell by little in ten iterations or more.

        judge: False records alone, after steps that were taken back.
        """
        self.losses.append(float(loss.min()))
        if self.first is None or self.seen is None:
            self.first = self.seen = loss
        elif judge and self.n_iter - self.seen_at >= LOOK:
            fall = self.seen - loss
            self.converged = self.tol > 0 and bool((fall <= self.tol * self.first).all())
            self.seen, self.seen_at = loss, self.n_iter

    @property
    def left(self) -> int:
        """Iterations that may still be made."""
        return 0 if self.converged else self.max_iter - self.n_iter
