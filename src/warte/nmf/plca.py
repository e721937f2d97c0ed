"""PLCA: a matrix of counts as a mixture of independent pairs of distributions.

P(row, column) = sum over z of P(z) P(row|z) P(column|z), fitted by expectation-maximisation with
Dirichlet priors on all three (Smaragdis, Raj & Shashanka, "A probabilistic latent variable model
for acoustic modeling", NIPS workshop 2006; Shashanka, Raj & Smaragdis, "Probabilistic latent
variable models as nonnegative factorizations", Computational Intelligence and Neuroscience 2008).
With flat priors it is factorisation under the Kullback-Leibler divergence, scaled to
probabilities. `ShiftPLCA` lets the components last for some columns (Smaragdis & Raj,
"Shift-invariant probabilistic latent component analysis", 2007).

Each step needs the derivative of sum x log P by a parameter, times the parameter: the expected
counts. `em_step` takes it from any forward pass by automatic differentiation; the estimators have
it written out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from warte.nmf.check import (
    as_tensor,
    check_data,
    check_kind,
    check_rank,
    check_shape,
    is_sparse,
)
from warte.nmf.convolution import Stacked, reconstruct
from warte.nmf.divergence import floor_of
from warte.nmf.estimator import device_of, generator_of
from warte.nmf.solve.multiplicative import Sparse, iterate

Prior = float | np.ndarray | Tensor
# Axes over which a parameter sums to one.
Axes = tuple[int, ...]


def normalised(p: Tensor, axes: Axes) -> Tensor:
    """Return p >= 0 scaled so that it sums to one over the axes; level where it is all zero."""
    total = p.sum(axes, keepdim=True)
    size = 1
    for axis in axes:
        size *= p.shape[axis]
    # Twice: the first division brings tiny and huge sums to nearly one.
    scaled = p / total.clamp_min(torch.finfo(p.dtype).tiny)
    scaled = torch.where(total > 0, scaled, torch.full_like(p, 1.0 / size))
    return scaled / scaled.sum(axes, keepdim=True)


def most_likely(counts: Tensor, prior: Tensor | float, axes: Axes) -> Tensor:
    """Return the distribution that is most likely for expected counts under a Dirichlet prior.

    It is proportional to counts + prior - 1. A prior below 1 makes this negative where little is
    expected: there it is zero. Where nothing would be left the prior is not heeded.

    Args:
        counts: expected counts, from 0.
        prior: concentrations, above 0; a number or shaped like counts. 1 is flat.
        axes: those over which the distribution sums to one.
    """
    if isinstance(prior, float) and prior == 1.0:
        return normalised(counts, axes)
    with_prior = (counts + (prior - 1.0)).clamp_min(0.0)
    empty = with_prior.sum(axes, keepdim=True) <= 0
    return normalised(torch.where(empty, counts, with_prior), axes)


def log_prior(parameter: Tensor, prior: Tensor | float) -> Tensor:
    """Return the logarithm of the Dirichlet density up to a constant; zeros count as the floor."""
    if isinstance(prior, float) and prior == 1.0:
        return parameter.new_zeros(())
    return ((prior - 1.0) * parameter.clamp_min(floor_of(parameter.dtype)).log()).sum()


def log_likelihood(x: Tensor, y: Tensor) -> Tensor:
    """Return sum x log y, where 0 log 0 = 0. x: counts; y: their probabilities, same shape."""
    return torch.xlogy(x, y.clamp_min(floor_of(y.dtype))).sum()


def em_step(
    forward: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    x: Tensor,
    axes: Sequence[Axes],
    priors: Sequence[Tensor | float] | None = None,
) -> None:
    """Make one step of expectation-maximisation in place, for any model that is a mixture.

    Args:
        forward: returns the probabilities of the entries of x: sums of products in which each
            parameter enters once.
        parameters: distributions, all updated from the same expectation.
        x: counts, shaped like the model.
        axes: for each parameter the axes over which it sums to one.
        priors: for each parameter the Dirichlet concentrations; None is flat.
    """
    wanted = [p.requires_grad for p in parameters]
    for p in parameters:
        p.requires_grad_(True)
    with torch.enable_grad():
        y = forward()
    ratio = x / y.detach().clamp_min(floor_of(x.dtype))
    slopes = torch.autograd.grad(y, list(parameters), grad_outputs=ratio)
    with torch.no_grad():
        for i, (p, slope) in enumerate(zip(parameters, slopes, strict=True)):
            p.requires_grad_(wanted[i])
            p.copy_(most_likely(p * slope, 1.0 if priors is None else priors[i], axes[i]))


class Mixture:
    """The plain model of x (n, m): P(z) (k,), P(row|z) (n, k), P(column|z) (k, m).

    x may be sparse; then the model is computed only where it has entries.
    """

    axes_w: Axes = (0,)
    axes_h: Axes = (1,)

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.sparse = Sparse(x, 1.0) if is_sparse(x) else None

    def expect(self, z: Tensor, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the expected counts of z, w and h, shaped like them."""
        scaled = w * z
        if self.sparse is not None:
            of_w = scaled * self.sparse.w_parts(scaled, h)[0]
            return of_w.sum(0), of_w, h * self.sparse.h_parts(scaled, h)[0]
        ratio = self.x / (scaled @ h).clamp_min(floor_of(self.x.dtype))
        of_w = scaled * (ratio @ h.t())
        return of_w.sum(0), of_w, h * (scaled.t() @ ratio)

    def likelihood(self, z: Tensor, w: Tensor, h: Tensor) -> Tensor:
        """Return the log-likelihood of x."""
        if self.sparse is not None:
            return log_likelihood(self.sparse.values, self.sparse.model_at_entries(w * z, h))
        return log_likelihood(self.x, (w * z) @ h)


class Shifted:
    """The convolutive model of x (n, m): P(z) (k), P(row, lag|z) (k, n, b), P(start|z) (k, m').

    m' = m - b + 1: a component that starts lies wholly inside, so that probabilities sum to one.
    """

    axes_w: Axes = (1, 2)
    axes_h: Axes = (1,)

    def __init__(self, x: Tensor, window: int) -> None:
        self.x, self.window = x, window
        shape = (1, int(x.shape[0]), int(x.shape[1]))
        self.way = Stacked(shape, (shape[1], window))

    def _whole(self, h: Tensor) -> Tensor:
        return torch.nn.functional.pad(h, (0, self.window - 1))[None, :, None]

    def model(self, z: Tensor, w: Tensor, h: Tensor) -> Tensor:
        """Return the probabilities (n, m)."""
        return self.way.model(w * z[:, None, None], self._whole(h))

    def expect(self, z: Tensor, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the expected counts of z, w and h, shaped like them."""
        scaled, whole = w * z[:, None, None], self._whole(h)
        ratio = self.x / self.way.model(scaled, whole).clamp_min(floor_of(self.x.dtype))
        of_w = scaled * self.way.w_adjoint(ratio, whole)
        of_h = h * self.way.h_adjoint(ratio, scaled)[0, :, 0, : h.shape[1]]
        return of_w.sum((1, 2)), of_w, of_h

    def likelihood(self, z: Tensor, w: Tensor, h: Tensor) -> Tensor:
        """Return the log-likelihood of x."""
        return log_likelihood(self.x, self.model(z, w, h))


@torch.no_grad()
def solve(
    mixture: Mixture | Shifted,
    z: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    priors: tuple[Tensor | float, Tensor | float, Tensor | float] = (1.0, 1.0, 1.0),
    tol: float = 1e-4,
    max_iter: int = 200,
    update_h: bool = True,
    watch: Callable[[int, Tensor, Tensor, Tensor], None] | None = None,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[float], int]:
    """Maximise the posterior of z, w and h from a start, by expectation-maximisation.

    With priors of 1 and more the posterior never falls.

    Args:
        mixture: the model with its data.
        z, w, h: distributions, shaped as the model says; not written to.
        priors: Dirichlet concentrations of z, w and h, above 0.
        tol: stop when the log-posterior rises, over ten steps, by less than this share of the
            distance at the start between it and the log-likelihood of the data by themselves; 0
            never stops.
        max_iter: the largest number of steps.
        update_h: False leaves h as it is.
        watch: called after every step with its number, z, w and h.

    Returns:
        ((z, w, h), log-posteriors at the start and every ten steps, steps made).
    """
    z, w, h = z.clone(), w.clone(), h.clone()
    values = mixture.x.values() if is_sparse(mixture.x) else mixture.x
    best_possible = log_likelihood(values, values / values.sum())

    def step() -> None:
        of_z, of_w, of_h = mixture.expect(z, w, h)
        z.copy_(most_likely(of_z, priors[0], (0,)))
        w.copy_(most_likely(of_w, priors[1], mixture.axes_w))
        if update_h:
            h.copy_(most_likely(of_h, priors[2], mixture.axes_h))

    def loss() -> Tensor:
        prior = sum(log_prior(p, a) for p, a in zip((z, w, h), priors, strict=True))
        return best_possible - mixture.likelihood(z, w, h) - prior

    losses, done, _ = iterate(
        step,
        loss,
        tol=tol,
        max_iter=max_iter,
        watch=None if watch is None else lambda number: watch(number, z, w, h),
    )
    return (z, w, h), [float(best_possible) - value for value in losses], done


def _prior(prior: Any, shape: tuple[int, ...], like: Tensor, name: str) -> Tensor | float:
    """Return a Dirichlet concentration as a number, or as a tensor of the parameter's shape."""
    values = as_tensor(prior, name)
    if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"{name} is {float(values.min()):g} at its lowest; allowed are finite concentrations "
            "above 0, and 1 is flat"
        )
    if values.ndim == 0:
        return float(values)
    try:
        return values.to(like).expand(shape)
    except RuntimeError as error:
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}; allowed are a number or {shape}"
        ) from error


def _draw(shape: tuple[int, ...], axes: Axes, like: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw distributions that are far from zero everywhere: uniform numbers from 0.5 to 1.5."""
    numbers = torch.from_numpy(rng.uniform(0.5, 1.5, shape))
    return normalised(numbers.to(device=like.device, dtype=like.dtype), axes)


def _checked(estimator: Any, X: Any, *, reset: bool, sparse: bool) -> Tensor:
    """Return counts as a tensor on the device to compute on.

    Raises:
        ValueError: X is not allowed, or holds only zeros.
    """
    matrix = X
    if isinstance(X, Tensor):
        check_shape(X)
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif scipy.sparse.issparse(X) and not sparse:
        raise ValueError("X is sparse; a dense matrix is needed: pass X.toarray()")
    elif not isinstance(X, np.ma.MaskedArray):
        check_kind(X)
        matrix = validate_data(
            estimator,
            X,
            reset=reset,
            accept_sparse=("csr", "csc", "coo"),
            dtype=[np.float64, np.float32],
            ensure_all_finite=False,
        )
    x, weights = check_data(matrix, beta=1.0)
    if weights is not None or isinstance(X, np.ma.MaskedArray):
        raise ValueError(
            "X is masked; PLCA needs every entry: take NMF with beta_loss='kullback-leibler'"
        )
    if is_sparse(x) and not sparse:
        raise ValueError("X is sparse; a dense matrix is needed: pass X.to_dense()")
    if float((x.values() if is_sparse(x) else x).sum()) <= 0:
        raise ValueError("X holds only zeros; there is nothing to factorise")
    return x.to(device_of(estimator.device, x, X))


def _like(X: Any, result: Tensor) -> Any:
    """Return a tensor where X was one, on its device, else an array."""
    return result.to(X.device) if isinstance(X, Tensor) else result.cpu().numpy()


class PLCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Probabilistic latent component analysis of counts X (n rows, m columns).

    Rows are samples, as in scikit-learn. X / sum(X) is modelled by the sum over z of
    weights_[z] * activations_[row, z] * components_[z, column].

    Args:
        n_components: number of components k.
        prior_z, prior_w, prior_h: Dirichlet concentrations, above 0, of P(z) (k,), of P(row|z)
            (n, k) and of P(column|z) (k, m): a number, or an array of that shape. 1 is flat, above
            1 smooths, below 1 makes sparse: what is expected less than 1 - prior times becomes
            zero. They weigh like counts, so the sum of X matters; scale X to weigh them against it.
        tol, max_iter: as in `solve`.
        random_state: seed, NumPy Generator or RandomState, or None for another start each time.
        device: "auto" (where a tensor is; a GPU for arrays, if there is one), or one of torch's.

    Attributes:
        weights_: P(z), (k,); sums to one.
        activations_: P(row|z), (n, k); columns sum to one.
        components_: P(column|z), (k, m); rows sum to one.
        log_likelihood_: sum X log P at the end.
        log_posteriors_: log-likelihood and log-priors (up to a constant) at the start and every
            ten steps.
        n_iter_, n_components_, n_features_in_: steps made, k, m.
    """

    def __init__(
        self,
        n_components: int = 4,
        *,
        prior_z: Prior = 1.0,
        prior_w: Prior = 1.0,
        prior_h: Prior = 1.0,
        tol: float = 1e-4,
        max_iter: int = 200,
        random_state: Any = None,
        device: Any = "auto",
    ) -> None:
        self.n_components = n_components
        self.prior_z = prior_z
        self.prior_w = prior_w
        self.prior_h = prior_h
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn which data are taken: from zero, sparse ones too."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of columns of what `transform` returns, from which names are made."""
        return int(self.n_components_)

    def fit(self, X: Any, y: None = None) -> Self:
        """Learn the distributions.

        Args:
            X: (n, m) counts or what is like them, from 0: NumPy, SciPy sparse or torch.
            y: not used.

        Raises:
            ValueError: X or a parameter is not allowed.
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: None = None) -> Any:
        """Learn the distributions; return (n, k) the counts that each row has of each component."""
        x = _checked(self, X, reset=True, sparse=True)
        check_rank(self.n_components, tuple(x.shape))
        n, m, k = int(x.shape[0]), int(x.shape[1]), int(self.n_components)
        generator = generator_of(self.random_state)
        h = _draw((k, m), (1,), x, generator)
        w = _draw((n, k), (0,), x, generator)
        z, w, h = self._solve(x, w, h, update_h=True)
        self.n_components_ = k
        self.weights_, self.activations_, self.components_ = (_like(X, p) for p in (z, w, h))
        return _like(X, w * z * _total(x))

    def transform(self, X: Any) -> Any:
        """Return (n, k) the counts that each row of new data has of each known component.

        The tolerance is the square of tol, for the problem has one solution and is soon solved.

        Raises:
            ValueError: X is not allowed or has another number of columns.
        """
        check_is_fitted(self)
        x = _checked(self, X, reset=False, sparse=True)
        h = as_tensor(self.components_, "components_").to(x)
        w = torch.full((x.shape[0], h.shape[0]), 1.0 / x.shape[0], dtype=h.dtype, device=h.device)
        z, w, _ = self._solve(x, w, h, update_h=False)
        return _like(X, w * z * _total(x))

    def inverse_transform(self, X: Any) -> Any:
        """Return the expected counts (n, m) for the counts of components (n, k) in X."""
        check_is_fitted(self)
        w = as_tensor(X, "X")
        if w.ndim != 2 or w.shape[1] != self.n_components_:
            raise ValueError(
                f"X has shape {tuple(w.shape)}; (rows, {self.n_components_}) is needed"
            )
        return _like(X, w @ as_tensor(self.components_, "components_").to(w))

    def _solve(
        self, x: Tensor, w: Tensor, h: Tensor, *, update_h: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the steps; when h is learned too, keep what they say about themselves."""
        k = h.shape[0]
        z = x.new_full((k,), 1.0 / k) if not is_sparse(x) else torch.full_like(h[:, 0], 1.0 / k)
        mixture = Mixture(x)
        priors = (
            _prior(self.prior_z, (k,), h, "prior_z"),
            _prior(self.prior_w, tuple(w.shape), h, "prior_w"),
            _prior(self.prior_h, tuple(h.shape), h, "prior_h"),
        )
        found, posteriors, steps = solve(
            mixture,
            z,
            w,
            h,
            priors=priors,
            tol=self.tol if update_h else self.tol**2,
            max_iter=self.max_iter,
            update_h=update_h,
        )
        if update_h:
            self.n_iter_, self.log_posteriors_ = steps, posteriors
            self.log_likelihood_ = float(mixture.likelihood(*found))
        return found


def _total(x: Tensor) -> Tensor:
    """Return the sum of all counts."""
    return (x.values() if is_sparse(x) else x).sum()


class ShiftPLCA(BaseEstimator):
    """PLCA whose components last for some columns and start at any of them.

    X is (n_frequencies, n_frames), as for `warte.nmf.NMFD`: its columns are time. X / sum(X) is
    modelled by the sum over z, lag of weights_[z] components_[z, frequency, lag]
    activations_[z, frame - lag].

    Args:
        n_components: number of components k.
        window: frames that a component lasts, from 1 to n_frames.
        prior_z, prior_w, prior_h: Dirichlet concentrations of weights_, of components_ and of
            activations_ (the field's Z, W and H): numbers, or arrays of these shapes.
        tol, max_iter, random_state, device: as for `PLCA`.

    Attributes:
        weights_: (k,); sums to one.
        components_: (k, n_frequencies, window); each sums to one.
        activations_: (k, n_frames - window + 1); rows sum to one.
        log_likelihood_, log_posteriors_, n_iter_: as for `PLCA`. n_features_in_: n_frames.
    """

    def __init__(
        self,
        n_components: int = 4,
        window: int = 8,
        *,
        prior_z: Prior = 1.0,
        prior_w: Prior = 1.0,
        prior_h: Prior = 1.0,
        tol: float = 1e-4,
        max_iter: int = 200,
        random_state: Any = None,
        device: Any = "auto",
    ) -> None:
        self.n_components = n_components
        self.window = window
        self.prior_z = prior_z
        self.prior_w = prior_w
        self.prior_h = prior_h
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: None = None) -> Self:
        """Learn the distributions.

        Args:
            X: (n_frequencies, n_frames) counts or what is like them, dense, from 0.
            y: not used.

        Raises:
            ValueError: X or a parameter is not allowed.
        """
        x = _checked(self, X, reset=True, sparse=False)
        n, m = int(x.shape[0]), int(x.shape[1])
        check_rank(self.n_components, (n, m))
        if not isinstance(self.window, int | np.integer) or not 1 <= self.window <= m:
            raise ValueError(f"window is {self.window!r}; X has {m} columns: allowed are 1 to {m}")
        k, length, generator = self.n_components, self.window, generator_of(self.random_state)
        w = _draw((k, n, length), (1, 2), x, generator)
        h = _draw((k, m - length + 1), (1,), x, generator)
        priors = (
            _prior(self.prior_z, (k,), x, "prior_z"),
            _prior(self.prior_w, tuple(w.shape), x, "prior_w"),
            _prior(self.prior_h, tuple(h.shape), x, "prior_h"),
        )
        mixture, z = Shifted(x, length), x.new_full((k,), 1.0 / k)
        found, self.log_posteriors_, self.n_iter_ = solve(
            mixture, z, w, h, priors=priors, tol=self.tol, max_iter=self.max_iter
        )
        self.log_likelihood_ = float(mixture.likelihood(*found))
        self.weights_, self.components_, self.activations_ = (_like(X, p) for p in found)
        return self

    def model(self) -> Any:
        """Return the fitted probabilities (n_frequencies, n_frames); they sum to one."""
        check_is_fitted(self)
        z, w, h = (
            as_tensor(p, "parameter") for p in (self.weights_, self.components_, self.activations_)
        )
        h = torch.nn.functional.pad(h, (0, w.shape[2] - 1))[None, :, None]
        return _like(self.components_, reconstruct(w * z[:, None, None], h, w.shape[1])[0])
