"""The estimator `NMF`, in scikit-learn's conventions, over all the solvers."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from warte.nmf import online
from warte.nmf.check import (
    as_tensor,
    check_data,
    check_factor,
    check_kind,
    check_number,
    check_rank,
    check_shape,
    is_sparse,
)
from warte.nmf.choose import ABILITIES, beta_of, choose, loss_of, run
from warte.nmf.divergence import floor_of
from warte.nmf.solve import Penalty, Solution, Watch
from warte.nmf.start import default_kind, mean_of, random_start, start

# Rank taken when none is given, where the matrix is large enough.
DEFAULT_RANK = 10
# Restarts are solved at once up to this many entries of their models (256 MiB in double).
BATCH_ENTRIES = 1 << 25
# Data whose mean lies within 2^-20 to 2^20 are factorised as they are.
USUAL_BITS = 20
# Iterations of the first and of the last restart to print about.
PRINT_EVERY = 10


@dataclass(frozen=True)
class Scale:
    """Powers of four that bring data and weights of unusual size near one.

    x = data * x', weights = weights * weights', w = root * w', h = root * h'; so a loss is
    `loss` times that of the primed.
    """

    data: float = 1.0
    weights: float = 1.0
    beta: float = 2.0

    @property
    def root(self) -> float:
        """What each factor is to be multiplied with."""
        return math.sqrt(self.data)

    @property
    def loss(self) -> float:
        """What the divergence is to be multiplied with."""
        return self.data**self.beta * self.weights

    def penalty(self, penalty: Penalty) -> Penalty:
        """Return the penalty that weighs the same against the divergence of the primed."""
        if self.loss == 1.0 and self.data == 1.0:
            return penalty
        values = vars(penalty).items()
        return Penalty(
            **{n: v * self.root ** (1 if n.startswith("l1") else 2) / self.loss for n, v in values}
        )


def _power_of_four(value: float) -> float:
    """Return the power of four nearest to a positive value; 1 for zero and for usual sizes."""
    if value <= 0 or not math.isfinite(value) or abs(math.log2(value)) <= USUAL_BITS:
        return 1.0
    return 4.0 ** round(math.log2(value) / 2)


def scale_of(x: Tensor, weights: Tensor | None, beta: float) -> Scale:
    """Return the scale by which data (n, m) are brought near one; of usual data, 1."""
    typical = 0.0 if weights is None else float(weights[weights > 0].double().mean())
    return Scale(_power_of_four(mean_of(x, weights)), _power_of_four(typical), beta)


def generator_of(random_state: Any) -> np.random.Generator:
    """Return a generator from None, a seed, a `numpy.random.RandomState` or a generator.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    if random_state is None or isinstance(random_state, int | np.integer):
        return np.random.default_rng(random_state)
    raise ValueError(
        f"random_state is {random_state!r}; allowed are None, a whole number, a NumPy Generator "
        "or a RandomState"
    )


def device_of(device: Any, x: Tensor, given: Any) -> torch.device:
    """Return where to compute: "auto" keeps a tensor where it is, and takes a GPU for arrays.

    Raises:
        ValueError: the device is unknown or not there.
    """
    if device == "auto":
        if isinstance(given, Tensor) or not torch.cuda.is_available():
            return x.device
        return torch.device("cuda")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(
            f'device is {device!r}, which cannot be used here; allowed are "auto", "cpu" or a '
            "GPU that torch sees"
        ) from error
    return chosen


def row_start(x: Tensor, h: Tensor, weights: Tensor | None) -> Tensor:
    """Return a start of w (n, k) for a known h: every row of w h has the visible sum of x's row.

    Each row depends on its own data alone; a row without any is zero.
    """
    tiny = floor_of(x.dtype)
    if is_sparse(x):
        sums = torch.sparse.sum(x, dim=1).to_dense()
        level = sums / h.sum().clamp_min(tiny)
    elif weights is None:
        level = x.clamp_min(0).sum(dim=1) / h.sum().clamp_min(tiny)
    else:
        visible = (weights > 0).to(x.dtype)
        level = (x.clamp_min(0) * visible).sum(dim=1) / (visible @ h.sum(dim=0)).clamp_min(tiny)
    return level.clamp_max(1 / tiny)[:, None].repeat(1, h.shape[0])


def _is_online(estimator: "NMF") -> bool:
    """Tell whether the estimator's solver learns from batches."""
    return estimator.solver in ("auto", "online")


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorisation: X (n, m) is nearly W (n, k) @ components_ (k, m).

    Takes NumPy arrays, masked arrays, data frames, SciPy sparse matrices and torch tensors (dense
    or sparse). float32 data stay float32, all else is float64. A tensor gives tensors, on its
    device; all else gives arrays.

    Args:
        n_components: rank k, from 1 to the smaller side of X; None takes 10, or that side.
        beta_loss: "frobenius" (2, half the squared distance), "kullback-leibler" (1),
            "itakura-saito" (0), or any real beta.
        solver: "auto", or
            "hals" (beta 2; fast, sparse X too),
            "weighted" (beta 2 with weights),
            "poisson" (beta 1; fast),
            "mu" (multiplicative updates: every beta, weights, sparse X, every penalty),
            "autograd" (the same by automatic differentiation; slower),
            "shift", "nearly" (beta 2 for noisy data that go below zero, Green & Bailey 2024),
            "online" (batches of rows; for X too large for the others).
        init: "nndsvd", "nndsvda", "nndsvdar" or "random"; None takes "nndsvdar" for beta 2, and
            "random" for other losses, several restarts and data below zero.
        n_init: restarts from random starts, from 1; the one with the least loss is kept.
        tol: stop when the loss falls, over ten iterations, by less than this share of its first
            value; 0 never stops.
        max_iter: the largest number of iterations, from 1.
        random_state: None, a seed, a NumPy Generator or RandomState.
        l1_w, l2_w, l1_h, l2_h, ortho_h, smooth_h: penalties added to the loss, see
            `warte.nmf.solve.Penalty`; from 0. Which solver takes which: an error says.
        batch_size: rows of a batch of the solver "online", from 1.
        forget: share of what earlier batches taught that each batch of the first round drops,
            over 0 to 1; None takes what suits the loss. For the solver "online".
        device: "auto", or a torch device such as "cpu" or "cuda:1".
        verbose: 1 prints the result, 2 also the loss every ten iterations.

    Attributes:
        components_: (k, m), h.
        n_components_: the rank k.
        n_iter_: iterations made; of the longest restart.
        converged_: whether the loss settled before the iterations ran out.
        losses_: the penalised losses that were looked at, the first at the start.
        reconstruction_err_: sqrt(2 D) with D the (weighted) divergence of X from W H, as in
            scikit-learn; for beta 2 the Frobenius norm of X - W H. Not after `partial_fit`.
        restart_losses_: (n_init,) the penalised loss at which each restart ended.
        solver_: the solver that was used.
        n_features_in_: m.
        feature_names_in_: (m,) names, where X was a data frame.

    Examples:
        >>> import numpy as np
        >>> from warte.nmf import NMF
        >>> x = np.random.default_rng(0).random((20, 3)) @ np.random.default_rng(1).random((3, 8))
        >>> model = NMF(3, random_state=0, tol=0)
        >>> model.fit_transform(x).shape
        (20, 3)
    """

    _state: online.State
    _scale: Scale | None

    def __init__(
        self,
        n_components: int | None = None,
        *,
        beta_loss: str | float = "frobenius",
        solver: str = "auto",
        init: str | None = None,
        n_init: int = 1,
        tol: float = 1e-4,
        max_iter: int = 200,
        random_state: Any = None,
        l1_w: float = 0.0,
        l2_w: float = 0.0,
        l1_h: float = 0.0,
        l2_h: float = 0.0,
        ortho_h: float = 0.0,
        smooth_h: float = 0.0,
        batch_size: int = 256,
        forget: float | None = None,
        device: Any = "auto",
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.beta_loss = beta_loss
        self.solver = solver
        self.init = init
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.l1_w = l1_w
        self.l2_w = l2_w
        self.l1_h = l1_h
        self.l2_h = l2_h
        self.ortho_h = ortho_h
        self.smooth_h = smooth_h
        self.batch_size = batch_size
        self.forget = forget
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn which data are taken: sparse and, by some solvers, negative ones."""
        tags = super().__sklearn_tags__()
        ability = ABILITIES.get(self.solver)
        tags.input_tags.positive_only = ability is None or not ability.negative
        tags.input_tags.sparse = ability is None or ability.sparse
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        """Number of columns of W, from which scikit-learn makes their names."""
        return int(self.components_.shape[0])

    # What is asked for

    def _penalty(self) -> Penalty:
        """Return the penalties, checked."""
        penalty = Penalty(self.l1_w, self.l2_w, self.l1_h, self.l2_h, self.ortho_h, self.smooth_h)
        for name, value in vars(penalty).items():
            check_number(value, name)
        return penalty

    def _check_settings(self) -> None:
        """Check the numbers that no solver checks."""
        for name in ("max_iter", "n_init", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value!r}; allowed are whole numbers from 1")
        check_number(self.tol, "tol")
        if self.n_init > 1 and self.init not in (None, "random"):
            raise ValueError(
                f'init is {self.init!r} with n_init={self.n_init}; restarts need init="random"'
            )
        if self.forget is not None:
            check_number(self.forget, "forget", above=True, most=1.0)

    def _prepare(
        self, X: Any, weights: Any, mask: Any, *, reset: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Check data and bring them to the device: x (n, m) and weights (n, m) or None."""
        beta = beta_of(self.beta_loss)
        ability = ABILITIES.get(self.solver)
        if isinstance(X, Tensor):
            check_shape(X)
            validate_data(self, X, reset=reset, skip_check_array=True)
            matrix: Any = X
        else:
            check_kind(X)
            matrix = validate_data(
                self,
                X,
                reset=reset,
                accept_sparse=("csr", "csc", "coo"),
                dtype=[np.float64, np.float32],
                ensure_all_finite=False,
            )
            if isinstance(X, np.ma.MaskedArray):
                matrix = np.ma.MaskedArray(matrix, np.ma.getmaskarray(X))
        negative = ability is not None and ability.negative
        x, scale = check_data(matrix, weights, mask, beta, allow_negative=negative)
        device = device_of(self.device, x, X)
        return x.to(device), None if scale is None else scale.to(device)

    def _solver_for(self, x: Tensor, weights: Tensor | None, penalty: Penalty, solver: str) -> str:
        """Return the solver for this problem."""
        return choose(
            solver,
            beta_of(self.beta_loss),
            weights=weights is not None,
            sparse=is_sparse(x),
            penalty=penalty,
        )

    def _rank(self, shape: tuple[int, ...]) -> int:
        """Return the rank for a matrix of this shape, checked."""
        k = min(DEFAULT_RANK, *shape) if self.n_components is None else self.n_components
        check_rank(k, shape)
        return int(k)

    def _starts(
        self, x: Tensor, weights: Tensor | None, k: int, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the start, or the starts of all restarts as a batch."""
        if self.n_init == 1:
            negative = bool(((x.values() if is_sparse(x) else x) < 0).any())
            kind = self.init or default_kind(beta_of(self.beta_loss), negative=negative)
            return start(x, k, kind, generator, weights)  # type: ignore[arg-type]
        mean = mean_of(x, weights)
        shape = (int(x.shape[0]), int(x.shape[1]))
        pairs = [random_start(shape, k, mean, generator, x) for _ in range(self.n_init)]
        return torch.stack([w for w, _ in pairs]), torch.stack([h for _, h in pairs])

    def _watch(
        self, x: Tensor, weights: Tensor | None, scale: Scale, watch: Watch | None
    ) -> Watch | None:
        """Return the watch given, with the lines to print; factors are shown in the data's size."""
        if watch is None and self.verbose < 2:
            return None
        beta = beta_of(self.beta_loss)
        penalty = scale.penalty(self._penalty())

        def show(done: int, w: Tensor, h: Tensor) -> None:
            if watch is not None:
                watch(done, w * scale.root, h * scale.root)
            if self.verbose >= 2 and done % PRINT_EVERY == 0:
                loss = float(loss_of(x, w, h, beta, weights, penalty).min()) * scale.loss
                print(f"iteration {done}: loss {loss:.6g}")

        return show

    # Fitting

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        weights: Any = None,
        mask: Any = None,
        watch: Watch | None = None,
    ) -> Self:
        """Learn the components of X.

        Args:
            X: (n, m), nonnegative (solvers "shift" and "nearly": any sign; beta <= 0: above 0).
            y: not used.
            weights: inverse variances (n, m), (n, 1) or (1, m), from 0; 0 hides an entry.
            mask: bool (n, m), True where an entry is hidden, as in `numpy.ma`; X may be NaN there.
            watch: called after every iteration with its number, w and h (of all restarts, where
                they are solved as a batch).

        Raises:
            ValueError: the data or a setting is not allowed; one line says what is.
        """
        self.fit_transform(X, weights=weights, mask=mask, watch=watch)
        return self

    def fit_transform(
        self,
        X: Any,
        y: None = None,
        *,
        weights: Any = None,
        mask: Any = None,
        W: Any = None,
        H: Any = None,
        watch: Watch | None = None,
    ) -> Any:
        """Learn the components of X and return W (n, k).

        Args:
            X, y, weights, mask, watch: as in `fit`.
            W, H: a start (n, k) and (k, m) in place of init; both or none.

        Raises:
            ValueError: as in `fit`, and if only one of W and H is given or does not fit.
        """
        self._check_settings()
        penalty, beta = self._penalty(), beta_of(self.beta_loss)
        x, given = self._prepare(X, weights, mask, reset=True)
        solver = self._solver_for(x, given, penalty, self.solver)
        if not bool(((x.values() if is_sparse(x) else x) != 0).any()):
            raise ValueError("X holds only zeros; there is nothing to factorise")
        k = self._rank(tuple(x.shape))
        generator = generator_of(self.random_state)
        scale = scale_of(x, given, beta)
        x = x / scale.data if scale.data != 1 else x
        given = given / scale.weights if given is not None and scale.weights != 1 else given
        w, h = self._given_start(x, k, W, H, scale) or self._starts(x, given, k, generator)
        solution, losses = self._solve(x, w, h, given, solver, scale, generator, watch)
        keep = replace(solution, losses=[loss * scale.loss for loss in solution.losses])
        err = losses.min()
        if penalty.any():
            err = loss_of(x, keep.w, keep.h, beta, given, Penalty())
        self._store(X, keep, solver, scale, losses * scale.loss, float(err) * scale.loss)
        return self._like(X, keep.w * scale.root)

    def _given_start(
        self, x: Tensor, k: int, W: Any, H: Any, scale: Scale
    ) -> tuple[Tensor, Tensor] | None:
        """Return the start that the user gave, checked and scaled, or None."""
        if W is None and H is None:
            return None
        if W is None or H is None:
            raise ValueError(f"{'W' if W is None else 'H'} is missing; give both W and H, or none")
        if self.n_init > 1:
            raise ValueError(f"W and H are given with n_init={self.n_init}; allowed is n_init=1")
        w = check_factor(W, (x.shape[0], k), x, "W")
        h = check_factor(H, (k, x.shape[1]), x, "H")
        return w / scale.root, h / scale.root

    def _solve(
        self,
        x: Tensor,
        w: Tensor,
        h: Tensor,
        weights: Tensor | None,
        solver: str,
        scale: Scale,
        generator: np.random.Generator,
        watch: Watch | None,
    ) -> tuple[Solution, np.ndarray]:
        """Solve from one start or a batch of them; return the best one and all final losses."""
        beta, penalty = beta_of(self.beta_loss), scale.penalty(self._penalty())
        batched = w.ndim == 3
        size = max(1, BATCH_ENTRIES // (x.shape[0] * x.shape[1])) if batched else 1
        best: Solution | None = None
        least, losses, longest = math.inf, [], 0
        pairs = zip(w.split(size), h.split(size), strict=True) if batched else [(w, h)]
        for one, other in pairs:
            solution = run(
                solver,
                x,
                one,
                other,
                beta=beta,
                weights=weights,
                penalty=penalty,
                tol=self.tol,
                max_iter=self.max_iter,
                watch=self._watch(x, weights, scale, watch),
                batch_size=self.batch_size,
                forget=self.forget,
                generator=generator,
            )
            if solver == "online":
                solution = self._exact_w(x, solution, weights, scale)
            ends = loss_of(x, solution.w, solution.h, beta, weights, penalty).reshape(-1)
            if solver == "online":
                solution = replace(solution, losses=[*solution.losses, float(ends.min())])
            losses += ends.tolist()
            longest = max(longest, solution.n_iter)
            if best is None or float(ends.min()) < least:
                least, best = float(ends.min()), _of_batch(solution, int(ends.argmin()))
        assert best is not None
        return replace(best, n_iter=longest), np.array(losses)

    def _exact_w(
        self, x: Tensor, solution: Solution, weights: Tensor | None, scale: Scale
    ) -> Solution:
        """Return a solution, or a batch of them, with w solved anew for its h."""
        if solution.h.ndim == 2:
            return replace(solution, w=self._solve_w(x, solution.h, weights, scale).w)
        each = [self._solve_w(x, h, weights, scale).w for h in solution.h]
        return replace(solution, w=torch.stack(each))

    def _store(
        self, X: Any, solution: Solution, solver: str, scale: Scale, ends: np.ndarray, err: float
    ) -> None:
        """Set the attributes that a fit leaves."""
        self._scale = scale
        self.components_ = self._like(X, solution.h * scale.root)
        self.n_components_ = int(solution.h.shape[0])
        self.n_iter_ = solution.n_iter
        self.converged_ = solution.converged
        self.losses_ = solution.losses
        self.restart_losses_ = ends
        self.reconstruction_err_ = math.sqrt(2.0 * max(err, 0.0))
        self.solver_ = solver
        self.__dict__.pop("_state", None)
        if self.verbose:
            settled = "settled" if solution.converged else "not settled"
            print(f"{solver}: {solution.n_iter} iterations, {settled}, loss {ends.min():.6g}")

    @staticmethod
    def _like(X: Any, result: Tensor) -> Any:
        """Return a tensor where X was one, on its device, else an array."""
        if isinstance(X, Tensor):
            return result.to(X.device).contiguous()
        return np.ascontiguousarray(result.cpu().numpy())

    # Using what was learned

    def transform(self, X: Any, *, weights: Any = None, mask: Any = None) -> Any:
        """Return W (n, k) that fits X to the components, which stay as they are.

        For a given row it depends on that row alone. The tolerance is the square of tol, for the
        problem is convex for beta from 1 to 2 and soon solved.

        Args:
            X: (n, m), any number of rows.
            weights, mask: as in `fit`.

        Raises:
            ValueError: the data are not allowed, or have another number of columns.
        """
        check_is_fitted(self)
        self._check_settings()
        x, given = self._prepare(X, weights, mask, reset=False)
        scale = self._scale or scale_of(x, given, beta_of(self.beta_loss))
        h = as_tensor(self.components_, "components_").to(device=x.device, dtype=x.dtype)
        x, h = x / scale.data, h / scale.root
        given = None if given is None else given / scale.weights
        solution = self._solve_w(x, h, given, scale)
        return self._like(X, solution.w * scale.root)

    def _solve_w(self, x: Tensor, h: Tensor, weights: Tensor | None, scale: Scale) -> Solution:
        """Return the solution for w alone, of scaled data and components."""
        penalty = replace(self._penalty(), l1_h=0.0, l2_h=0.0, ortho_h=0.0, smooth_h=0.0)
        # Learning in batches is about h; for w the other solvers are more exact.
        wanted = "auto" if self.solver == "online" else self.solver
        solver = self._solver_for(x, weights, penalty, wanted)
        return run(
            solver,
            x,
            row_start(x, h, weights),
            h,
            beta=beta_of(self.beta_loss),
            weights=weights,
            penalty=scale.penalty(penalty),
            tol=self.tol**2,
            max_iter=self.max_iter,
            update_h=False,
        )

    def use_components(self, components: Any) -> Self:
        """Take known components, such as templates, in place of a fit; then `transform` works.

        Args:
            components: (k, m), finite, from 0; k may be larger than m.

        Raises:
            ValueError: they hold negative or non-finite values, or only zeros.
        """
        h = as_tensor(components, "components")
        check_shape(h, "components")
        h = check_factor(h, tuple(h.shape), h, "components")
        self.components_ = self._like(components, h)
        self.n_components_, self.n_features_in_ = (int(side) for side in h.shape)
        self._scale = None
        return self

    def inverse_transform(self, X: Any) -> Any:
        """Return the matrix (n, m) that W stands for: W @ components_.

        Args:
            X: W (n, k), an array, a sparse matrix or a tensor (which gives a tensor).

        Raises:
            ValueError: W has another number of columns than there are components.
        """
        check_is_fitted(self)
        w = as_tensor(X, "W")
        check_shape(w, "W")
        if w.shape[1] != self._n_features_out:
            raise ValueError(
                f"W has {w.shape[1]} columns; {self._n_features_out} are needed, one for each "
                "component"
            )
        h = as_tensor(self.components_, "components_").to(device=w.device, dtype=w.dtype)
        return self._like(X, w @ h)

    @available_if(_is_online)
    def partial_fit(self, X: Any, y: None = None, *, weights: Any = None, mask: Any = None) -> Self:
        """Learn from one more batch of rows, and let it go. For solver "online" or "auto".

        Args:
            X: batch (rows, m); the first one sets the start.
            y: not used.
            weights, mask: as in `fit`; in every batch or in none, if the loss is Frobenius.

        Raises:
            ValueError: as in `fit`, or another number of columns than before.
        """
        self._check_settings()
        penalty, beta = self._penalty(), beta_of(self.beta_loss)
        first = not hasattr(self, "_state")
        x, given = self._prepare(X, weights, mask, reset=first)
        choose("online", beta, weights=given is not None, sparse=is_sparse(x), penalty=penalty)
        x = x.to_dense() if is_sparse(x) else x
        if first:
            self._begin(X, x, given, beta)
        scale, state = self._scale or Scale(), self._state
        memory = 1.0 / self.forget if self.forget else 5.0 if state.exact else 1.0
        self._state, _, _ = online.partial_step(
            state,
            x / scale.data,
            weights=None if given is None else given / scale.weights,
            penalty=scale.penalty(penalty),
            # The memory grows with the batches seen, so that h comes to rest.
            keep=1.0 - 1.0 / (memory + state.steps / online.GROWTH),
        )
        self.components_ = self._like(X, self._state.h * scale.root)
        self.n_iter_ = self._state.steps
        return self

    def _begin(self, X: Any, x: Tensor, weights: Tensor | None, beta: float) -> None:
        """Start learning in batches from the first of them."""
        if not bool((x != 0).any()):
            raise ValueError("X holds only zeros; the first batch needs something to start from")
        k = self._rank((x.shape[1],))
        self._scale = scale = scale_of(x, weights, beta)
        kind = self.init or "random"
        if k > x.shape[0] and kind != "random":
            raise ValueError(
                f"init is {kind!r}, but the first batch has {x.shape[0]} rows, fewer than "
                f'n_components={k}; give more rows or init="random"'
            )
        generator = generator_of(self.random_state)
        h = start(x / scale.data, k, kind, generator, weights)[1]  # type: ignore[arg-type]
        self._state = online.begin(h, beta, weighted=weights is not None)
        self.n_components_, self.solver_ = k, "online"


def _of_batch(solution: Solution, place: int) -> Solution:
    """Return one restart of a batch, or the only one."""
    if solution.w.ndim == 2:
        return solution
    return replace(solution, w=solution.w[place], h=solution.h[place])


__all__ = ["NMF"]
