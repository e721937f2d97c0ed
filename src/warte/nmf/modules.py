"""Nonnegative factorisation as parts of networks: plain `torch.nn.Module`s.

A module needs only a forward pass. `warte.nmf.autograd.fit_module` trains it by multiplicative
updates; any torch optimiser trains it as well, with `keep_nonnegative` holding its parameters at
or above zero. `Factorise` is a layer that factorises its input, through which gradients flow.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from warte.nmf.convolution import reconstruct
from warte.nmf.divergence import derivative_parts, floor_of, snapped
from warte.nmf.solve import Penalty
from warte.nmf.solve.multiplicative import exponent


def _parameter(
    shape: tuple[int, ...],
    scale: float,
    generator: np.random.Generator | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> nn.Parameter:
    """Draw scale |N(0, 1)|; seed 0 without a generator."""
    generator = generator or np.random.default_rng(0)
    numbers = torch.from_numpy(np.abs(generator.standard_normal(shape)) * scale)
    return nn.Parameter(numbers.to(device=device, dtype=dtype or torch.get_default_dtype()))


@torch.no_grad()
def project(module: nn.Module) -> None:
    """Set every parameter below zero to zero, in place."""
    for p in module.parameters():
        p.clamp_min_(0.0)


def keep_nonnegative(module: nn.Module, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Project the module's parameters after each step of the optimiser: projected descent.

    Returns the handle whose `remove()` ends this.
    """

    def after(*_: Any) -> None:
        project(module)

    return optimizer.register_step_post_hook(after)


def symmetric_exponent(beta: float) -> float:
    """Return the power of the update ratio under which the loss of `SymmetricNMF` cannot rise.

    1 / (2 beta) from beta = 1 on, 1 / (4 - 2 beta) below: the model is quadratic in its parameter,
    so its divergence lies between other powers than where it is linear. Yang & Oja, "Unified
    development of multiplicative algorithms for linear and quadratic nonnegative matrix
    factorization", IEEE Trans. Neural Networks 22 (2011).
    """
    beta = snapped(beta)
    return 1.0 / (2.0 * beta) if beta >= 1 else 1.0 / (4.0 - 2.0 * beta)


class NMFModule(nn.Module):
    """w (n, k) @ h (k, m), both parameters.

    Args:
        n, m: shape of the data.
        k: rank.
        mean: about the mean of the model at the start.
        generator: draws the start; seed 0 when None.
        dtype, device: of the parameters, as everywhere in torch.
    """

    def __init__(
        self,
        n: int,
        m: int,
        k: int,
        *,
        mean: float = 1.0,
        generator: np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        generator = generator or np.random.default_rng(0)
        scale = float(np.sqrt(mean / k))
        self.w = _parameter((n, k), scale, generator, dtype, device)
        self.h = _parameter((k, m), scale, generator, dtype, device)

    def forward(self) -> Tensor:
        """Return the model (n, m)."""
        return self.w @ self.h


class NonnegativeLinear(nn.Module):
    """x (..., inputs) @ weight^T, with a nonnegative weight (outputs, inputs) and no bias.

    With nonnegative x it is a dictionary: each column of the weight is what one input adds.
    Arguments as for `NMFModule`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        generator: np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.weight = _parameter((outputs, inputs), inputs**-0.5, generator, dtype, device)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs)."""
        return functional.linear(x, self.weight)


class DeepNMF(nn.Module):
    """A chain of factors: sizes [n, k1, k2, ..., m] give w_1 (n, k1) @ w_2 (k1, k2) @ ... (.., m).

    Trigeorgis, Bousmalis, Zafeiriou & Schuller, "A deep matrix factorization method for learning
    attribute representations", PAMI 39 (2017), there without the sign of the first factor.
    Other arguments as for `NMFModule`.

    Raises:
        ValueError: there are fewer than three sizes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        mean: float = 1.0,
        generator: np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 3:
            raise ValueError(
                f"sizes is {list(sizes)}; three and more are needed: rows, ranks, columns"
            )
        generator = generator or np.random.default_rng(0)
        count = len(sizes) - 1
        scale = (mean / float(np.prod(sizes[1:-1], dtype=float))) ** (1.0 / count)
        self.factors = nn.ParameterList(
            [_parameter(pair, scale, generator, dtype, device) for pair in pairwise(sizes)]
        )

    def forward(self) -> Tensor:
        """Return the model (n, m)."""
        factors = list(self.factors)
        product = factors[0]
        for factor in factors[1:]:
            product = product @ factor
        return product


class ConvolutiveNMF(nn.Module):
    """The model of `warte.nmf.NMFD` with its components (k, n, window) and activations (k, m).

    n: frequencies. m: frames. Other arguments as for `NMFModule`.
    """

    def __init__(
        self,
        n: int,
        m: int,
        k: int,
        window: int,
        *,
        mean: float = 1.0,
        generator: np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        generator = generator or np.random.default_rng(0)
        scale = float(np.sqrt(mean / (k * window)))
        self.components = _parameter((k, n, window), scale, generator, dtype, device)
        self.activations = _parameter((k, m), scale, generator, dtype, device)

    def forward(self) -> Tensor:
        """Return the model (n, m)."""
        rows = self.components.shape[1]
        return reconstruct(self.components, self.activations[None, :, None], rows)[0]


class SymmetricNMF(nn.Module):
    """w (n, k) @ w^T: one factor tied to itself, for similarities (n, n) such as graphs.

    The model is quadratic in w: train it with gamma=symmetric_exponent(beta). Ding, He & Simon,
    "On the equivalence of nonnegative matrix factorization and spectral clustering", SDM 2005.
    Other arguments as for `NMFModule`.
    """

    def __init__(
        self,
        n: int,
        k: int,
        *,
        mean: float = 1.0,
        generator: np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.w = _parameter((n, k), float(np.sqrt(mean / k)), generator, dtype, device)

    def forward(self) -> Tensor:
        """Return the model (n, n)."""
        return self.w @ self.w.T


class Factorise(nn.Module):
    """A layer that factorises what comes in: unrolled multiplicative updates of w and h.

    Every update is differentiable, so a loss on w or h teaches what made x. The start is the same
    for every x of a shape, apart from its scale. Hershey, Le Roux & Weninger, "Deep unfolding",
    arXiv 1409.2574.

    Args:
        k: rank.
        iterations: updates of both factors.
        beta: the divergence, any real number.
        seed: of the start.
    """

    def __init__(self, k: int, iterations: int = 20, *, beta: float = 2.0, seed: int = 0) -> None:
        super().__init__()
        for name, value in (("k", k), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed are whole numbers from 1")
        self.k, self.iterations, self.seed = k, iterations, seed
        self.beta = snapped(beta)

    def extra_repr(self) -> str:
        """Return the settings for print."""
        return f"k={self.k}, iterations={self.iterations}, beta={self.beta:g}"

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a start whose model has the mean of x, matrix by matrix."""
        generator = np.random.default_rng(self.seed)

        def draw(rows: int, columns: int) -> Tensor:
            numbers = torch.from_numpy(generator.uniform(0.5, 1.5, (rows, columns)))
            return numbers.to(device=x.device, dtype=x.dtype)

        n, m = x.shape[-2:]
        w, h = draw(n, self.k), draw(self.k, m)
        mean = x.mean((-2, -1), keepdim=True).clamp_min(floor_of(x.dtype))
        size = (mean / self.k).sqrt()
        return w * size, h * size

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return w (..., n, k) and h (..., k, m) with w @ h near x (..., n, m), x nonnegative."""
        w, h = self._start(x)
        gamma = exponent(self.beta, Penalty(), "w")
        for _ in range(self.iterations):
            negative, positive = derivative_parts(x, w @ h, self.beta)
            w = w * _ratio(negative @ h.mT, positive @ h.mT, gamma)
            negative, positive = derivative_parts(x, w @ h, self.beta)
            h = h * _ratio(w.mT @ negative, w.mT @ positive, gamma)
        return w, h


def _ratio(negative: Tensor, positive: Tensor, gamma: float) -> Tensor:
    """Return (negative / positive) ** gamma, with finite derivatives also at zero."""
    floor = floor_of(negative.dtype)
    ratio = negative / positive.clamp_min(floor)
    return ratio if gamma == 1.0 else ratio.clamp_min(floor).pow(gamma)
