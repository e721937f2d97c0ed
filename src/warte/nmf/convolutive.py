"""NMFD: components that are patterns in time or in a picture, not single columns.

The model is that of `warte.nmf.convolution`. Here the columns of X are moments and its rows are
frequencies, as the field has it, so X is (n_frequencies, n_frames); of a picture they are just
columns and rows. This differs from scikit-learn, where rows are samples.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from warte.nmf.autograd import multiplicative_step
from warte.nmf.check import as_tensor, check_data, check_factor, is_sparse
from warte.nmf.choose import beta_of
from warte.nmf.convolution import (
    Spectral,
    Stacked,
    fastest,
    reconstruct,
    sums_for_h,
    sums_for_w,
)
from warte.nmf.divergence import beta_divergence, derivative_parts, floor_of, snapped
from warte.nmf.estimator import device_of, generator_of
from warte.nmf.solve import Penalty, Solution, Watch
from warte.nmf.solve.multiplicative import apply_ratio, exponent, iterate, penalty_parts
from warte.nmf.start import mean_of

Way = Literal["auto", "stacked", "spectral", "autograd"]
WAYS = ("auto", "stacked", "spectral", "autograd")
_MAKERS: dict[str, Callable[..., Stacked | Spectral]]
_MAKERS = {"stacked": Stacked, "spectral": Spectral}
PENALTIES = ("l1_w", "l2_w", "l1_h", "l2_h", "smooth_h")


def check_penalty(penalty: Penalty) -> None:
    """Refuse a penalty that the convolutive model does not know.

    Raises:
        ValueError: ortho_h is above zero.
    """
    if penalty.ortho_h:
        raise ValueError(
            f"ortho_h is {penalty.ortho_h:g}; NMFD allows {', '.join(PENALTIES)}: set it to 0"
        )


def _penalty_value(penalty: Penalty, w: Tensor, h: Tensor) -> Tensor:
    value = penalty.l1_w * w.sum() + penalty.l2_w / 2 * w.square().sum()
    value = value + penalty.l1_h * h.sum() + penalty.l2_h / 2 * h.square().sum()
    if penalty.smooth_h:
        value = value + penalty.smooth_h / 2 * h.diff(dim=-1).square().sum()
    return value


class _Fast:
    """One update of both factors by written-out adjoints."""

    def __init__(
        self, way: Stacked | Spectral, x: Tensor, beta: float, weights: Tensor | None
    ) -> None:
        self.way, self.beta, self.shape = way, beta, way.shape
        self.x = way.lay(x)
        self.weights = None if weights is None else way.lay(weights)
        # The squared distance needs products of factors, not the model.
        unweighted = beta == 2 and weights is None
        self.square = way if unweighted and isinstance(way, Stacked) else None

    def loss(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the divergence, a scalar."""
        return beta_divergence(self.x, self.way.model(w, h), self.beta, self.weights).sum()

    def w_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two parts of the gradient by w."""
        if self.square is not None:
            return self.way.w_adjoint(self.x, h), self.square.w_adjoint_of_model(w, h)
        above, below = self._derivatives(w, h)
        negative = self.way.w_adjoint(above, h)
        if below is None:
            return negative, sums_for_w(h, self.shape, self.way.window)
        return negative, self.way.w_adjoint(below, h)

    def h_parts(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two parts of the gradient by h."""
        if self.square is not None:
            return self.way.h_adjoint(self.x, w), self.square.h_adjoint_of_model(w, h)
        above, below = self._derivatives(w, h)
        negative = self.way.h_adjoint(above, w)
        if below is None:
            return negative, sums_for_h(w, self.shape, self.way.shifts)
        return negative, self.way.h_adjoint(below, w)

    def _derivatives(self, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the two parts of dD/dy; None for the second one where it is 1 everywhere."""
        y = self.way.model(w, h)
        if self.beta == 1 and self.weights is None:
            y.clamp_min_(floor_of(y.dtype))
            return torch.div(self.x, y, out=y), None
        return derivative_parts(self.x, y, self.beta, self.weights)


def _fast_step(fast: _Fast, w: Tensor, h: Tensor, penalty: Penalty, update_w: bool) -> None:
    """Update w, if wanted, and then h, in place."""
    if update_w:
        negative, positive = fast.w_parts(w, h)
        less, more = penalty_parts(penalty, w, "w")
        w.copy_(apply_ratio(w, negative + less, positive + more, exponent(fast.beta, penalty, "w")))
    negative, positive = fast.h_parts(w, h)
    less, more = penalty_parts(penalty, h, "h")
    h.copy_(apply_ratio(h, negative + less, positive + more, exponent(fast.beta, penalty, "h")))


def _autograd_step(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    fast: _Fast,
    weights: Tensor | None,
    penalty: Penalty,
    both: bool,
) -> Callable[[], None]:
    """Return the step that knows only the forward pass."""
    first = 0 if both else 1

    def step() -> None:
        multiplicative_step(
            lambda: reconstruct(w, h, x.shape[1]),
            [w, h][first:],
            x,
            fast.beta,
            weights=weights,
            penalties=[
                lambda p: penalty_parts(penalty, p, "w"),
                lambda p: penalty_parts(penalty, p, "h"),
            ][first:],
            gamma=[exponent(fast.beta, penalty, "w"), exponent(fast.beta, penalty, "h")][first:],
        )

    return step


@torch.no_grad()
def solve(
    x: Tensor,
    w: Tensor,
    h: Tensor,
    *,
    beta: float = 1.0,
    weights: Tensor | None = None,
    penalty: Penalty | None = None,
    tol: float = 1e-4,
    max_iter: int = 200,
    update_w: bool = True,
    way: Way = "auto",
    watch: Watch | None = None,
) -> Solution:
    """Minimise the penalised divergence of recordings from the convolutive model.

    Multiplicative updates, first of w, then of h; the loss never rises.

    Args:
        x: data (s, n, m), dense, nonnegative.
        w: start of the templates (k, a, b); zeros stay zeros.
        h: start of the activations (s, k, p, m); zeros stay zeros.
        beta: the divergence, any real number.
        weights: (s, n, m), from 0; 0 hides an entry.
        penalty: on w and h; smooth_h counts steps along time; ortho_h must be 0.
        tol: stop when the loss falls, over ten iterations, by less than this share of its first
            value; 0 never stops.
        max_iter: the largest number of iterations.
        update_w: False solves for h alone.
        way: how the model is computed: "stacked" (products of matrices), "spectral" (Fourier
            transforms), "auto" the faster of these two, "autograd" derivatives from the forward
            pass. All give the same up to rounding.
        watch: called after every iteration.

    Returns:
        w, h, and the losses at the start and every ten iterations.

    Raises:
        ValueError: way or a penalty is not allowed.
    """
    if way not in WAYS:
        raise ValueError(f"way is {way!r}; allowed are {', '.join(WAYS)}")
    penalty = penalty or Penalty()
    check_penalty(penalty)
    w, h = w.clone(), h.clone()
    shape = (x.shape[0], x.shape[1], x.shape[2])
    window, shifts = (w.shape[1], w.shape[2]), h.shape[2]
    fast = _Fast(_MAKERS.get(way, fastest)(shape, window, shifts), x, snapped(beta), weights)
    slow = _autograd_step(x, w, h, fast, weights, penalty, update_w)
    losses, done, converged = iterate(
        slow if way == "autograd" else lambda: _fast_step(fast, w, h, penalty, update_w),
        lambda: fast.loss(w, h) + _penalty_value(penalty, w, h),
        tol=tol,
        max_iter=max_iter,
        watch=None if watch is None else lambda number: watch(number, w, h),
    )
    return Solution(w, h, losses, done, converged)


def random_start(
    x: Tensor,
    k: int,
    window: tuple[int, int],
    shifts: int,
    generator: np.random.Generator,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw templates (k, a, b) and activations (s, k, p, m) whose model is of the data's size.

    Both are sqrt(mean / terms) |N(0, 1)|, where terms is the number of products in an entry of the
    model. x: (s, n, m).
    """
    terms = k * window[1] * min(window[0], shifts)
    flat = x.reshape(-1, x.shape[-1])
    mean = mean_of(flat, None if weights is None else weights.reshape(flat.shape))
    scale = float(np.sqrt(mean / terms))

    def draw(*shape: int) -> Tensor:
        numbers = torch.from_numpy(np.abs(generator.standard_normal(shape)) * scale)
        return numbers.to(device=x.device, dtype=x.dtype)

    return draw(k, *window), draw(x.shape[0], k, shifts, x.shape[2])


def _flat(part: Any, shape: tuple[int, ...], name: str) -> Any:
    """Return what belongs to each entry of several recordings as rows under each other."""
    if tuple(np.shape(part)) != shape:
        raise ValueError(f"{name} has shape {tuple(np.shape(part))}; X has {shape}: pass that")
    return part.reshape(-1, shape[-1])


def _with_phase(X: Any) -> tuple[Tensor | None, Any]:
    """Return (a complex spectrogram as a tensor, its magnitudes); (None, X) where X is real."""
    if isinstance(X, Tensor):
        return (X, X.abs()) if X.is_complex() else (None, X)
    if not np.iscomplexobj(X):
        return None, X
    return torch.from_numpy(np.array(np.ma.getdata(X))), np.abs(X)


def _like(tensor: Tensor, torch_wanted: bool) -> Any:
    """Return a tensor as it is, or as a NumPy array."""
    return tensor if torch_wanted else tensor.cpu().numpy()


class NMFD(BaseEstimator):
    """Convolutive nonnegative factorisation of a spectrogram or a picture.

    X (n_frequencies, n_frames) is modelled by templates that each last for `window` frames and
    start wherever their activation is above zero: X ~ sum over t of W_t shift(H, t). **The columns
    of X are time**, other than in scikit-learn, where rows are samples. X may also be
    (n_recordings, n_frequencies, n_frames): recordings that share their templates.

    Args:
        n_components: number of templates.
        window: frames that a template lasts (Smaragdis 2004); or (rows, columns) of a template
            that may lie anywhere in a picture (Schmidt & Mørup 2006).
        shifts: rows that a template may be moved down, counting none: for a window in frames,
            shifts=12 on a logarithmic axis of frequency lets a template sound in 12 pitches.
            None is 1 for a window in frames, and all rows for a window of a picture.
        beta_loss: "frobenius" (2), "kullback-leibler" (1), "itakura-saito" (0), or any number.
        init: "random", or "custom": the start is given to fit as components and activations.
        n_init: random starts; each is tried for a tenth of max_iter, and the best one is carried
            on. One where init is "custom".
        tol, max_iter: as in `solve`.
        random_state: seed, NumPy Generator or RandomState, or None for another start each time.
        l1_w, l2_w: penalties on the components (the field's W).
        l1_h, l2_h, smooth_h: penalties on the activations (the field's H).
        way: "auto", "stacked", "spectral" or "autograd", as in `solve`.
        device: "auto" (where a tensor is; a GPU for arrays, if there is one), or one of torch's.

    Attributes:
        components_: (n_components, n_frequencies, window), or (n_components, rows, columns).
        activations_: (n_components, n_frames); (n_components, shifts, n_frames) where templates
            move down too; for several recordings with their number in front.
        n_iter_, losses_: iterations, and the loss at the start and every ten of them.
        reconstruction_err_: sqrt(2 * divergence), as in scikit-learn.
        n_features_in_: n_frequencies.

    Arrays come back as NumPy, or as torch tensors where X was one.
    """

    def __init__(
        self,
        n_components: int = 4,
        window: int | tuple[int, int] = 8,
        *,
        shifts: int | None = None,
        beta_loss: str | float = "kullback-leibler",
        init: str = "random",
        n_init: int = 1,
        tol: float = 1e-4,
        max_iter: int = 200,
        random_state: Any = None,
        l1_w: float = 0.0,
        l2_w: float = 0.0,
        l1_h: float = 0.0,
        l2_h: float = 0.0,
        smooth_h: float = 0.0,
        way: Way = "auto",
        device: str = "auto",
    ) -> None:
        self.n_components = n_components
        self.window = window
        self.shifts = shifts
        self.beta_loss = beta_loss
        self.init = init
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.l1_w = l1_w
        self.l2_w = l2_w
        self.l1_h = l1_h
        self.l2_h = l2_h
        self.smooth_h = smooth_h
        self.way = way
        self.device = device

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        weights: Any = None,
        mask: Any = None,
        components: Any = None,
        activations: Any = None,
    ) -> "NMFD":
        """Learn templates and activations.

        Args:
            X: (n_frequencies, n_frames) or (n_recordings, n_frequencies, n_frames), nonnegative;
                NumPy (masked arrays too) or torch.
            y: not used.
            weights: shaped like X, from 0; 0 hides an entry.
            mask: bool, shaped like X, True where an entry is hidden.
            components, activations: the start, shaped like the attributes; for init="custom".

        Raises:
            ValueError: the data, a parameter or a start is not allowed.
        """
        self.fit_transform(
            X, weights=weights, mask=mask, components=components, activations=activations
        )
        return self

    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        *,
        weights: Any = None,
        mask: Any = None,
        components: Any = None,
        activations: Any = None,
    ) -> Any:
        """Learn templates and activations, and return the activations. See `fit`."""
        x, scale = self._data(X, weights, mask)
        if not bool((x > 0).any()):
            raise ValueError("X holds only zeros; there is nothing to factorise")
        starts = self._starts(x, scale, components, activations)
        best = self._solve(x, *self._most_promising(x, scale, list(starts)), scale)
        self.n_iter_, self.losses_ = best.n_iter, best.losses
        self.n_features_in_ = x.shape[1]
        as_torch = isinstance(X, Tensor)
        self.components_ = _like(best.w, as_torch)
        self.activations_ = _like(self._outward(best.h, np.ndim(X) == 3), as_torch)
        model = reconstruct(best.w, best.h, x.shape[1])
        divergence = beta_divergence(x, model, self._beta(), scale).sum().clamp_min(0)
        self.reconstruction_err_ = float((2.0 * divergence).sqrt())
        return self.activations_

    def transform(self, X: Any, *, weights: Any = None, mask: Any = None) -> Any:
        """Return the activations of the known templates in new data.

        Args:
            X: as for `fit`; the number of frames may differ.
            weights, mask: as for `fit`.

        Returns:
            Activations, shaped like `activations_` for this X.

        Raises:
            ValueError: the data are not allowed or have another number of frequencies.
        """
        x, scale = self._data(X, weights, mask)
        h = self._activations(x, scale, self._templates(x))
        return _like(self._outward(h, np.ndim(X) == 3), isinstance(X, Tensor))

    def inverse_transform(self, activations: Any) -> Any:
        """Return the model of X for given activations, shaped like those of `transform`."""
        h = as_tensor(activations, "activations")
        w = self._templates(h)
        several = h.ndim == (4 if self._moves_down() else 3)
        h = self._inward(h)
        if h.ndim != 4 or h.shape[1] != w.shape[0]:
            raise ValueError(
                f"activations has shape {tuple(np.shape(activations))}; {w.shape[0]} components "
                "are needed, in the axes of activations_"
            )
        picture = not isinstance(self.window, int | np.integer)
        rows = h.shape[2] if picture and self.shifts is None else self.n_features_in_
        y = reconstruct(w, h, rows)
        return _like(y if several else y[0], isinstance(activations, Tensor))

    def separate(self, X: Any, *, power: float = 1.0, weights: Any = None, mask: Any = None) -> Any:
        """Share X out among the components by soft masks, so that the parts sum to X.

        Part z is X y_z^power / (sum over components of y^power), where y_z is what component z
        alone would give. Where no component gives anything all parts are alike; where an entry of
        X is hidden its place is taken by the model.

        Args:
            X: as for `transform`; may also be a complex spectrogram, whose magnitudes are then
                modelled and whose phases all parts share.
            power: 1 shares in proportion to the models, 2 like a Wiener filter between
                magnitudes; over 0.
            weights, mask: as for `fit`.

        Returns:
            (n_components, ...) with the shape of X behind.

        Raises:
            ValueError: power is not above 0, or the data are not allowed.
        """
        if not power > 0:
            raise ValueError(f"power is {power:g}; allowed are numbers above 0, e.g. 1 or 2")
        whole, size = _with_phase(X)
        x, scale = self._data(size, weights, mask)
        w = self._templates(x)
        h = self._activations(x, scale, w)
        parts = torch.stack(
            [reconstruct(w[z : z + 1], h[:, z : z + 1], x.shape[1]) for z in range(w.shape[0])]
        )
        top, model = parts.amax(0), parts.sum(0)
        shares = (parts / top.clamp_min(torch.finfo(x.dtype).tiny)).pow_(power)
        shares = torch.where(top > 0, shares, 1.0)
        shares = shares / shares.sum(0)
        target = x if whole is None else whole.to(x.device).reshape(x.shape)
        if scale is not None:
            target = torch.where(scale > 0, target, model.to(target.dtype))
        result = shares * target
        return _like(result if np.ndim(X) == 3 else result[:, 0], isinstance(X, Tensor))

    def _beta(self) -> float:
        return beta_of(self.beta_loss)

    def _penalty(self) -> Penalty:
        return Penalty(self.l1_w, self.l2_w, self.l1_h, self.l2_h, smooth_h=self.smooth_h)

    def _moves_down(self) -> bool:
        """Tell whether activations have an axis of shifts."""
        return self.shifts is not None or not isinstance(self.window, int | np.integer)

    def _data(self, X: Any, weights: Any, mask: Any) -> tuple[Tensor, Tensor | None]:
        """Return checked data and weights (s, n, m) on the device to compute on."""
        if np.ndim(X) == 3:
            shape = tuple(X.shape)
            flat = (-1, shape[-1])
            X = X.reshape(flat)
            weights = None if weights is None else _flat(weights, shape, "weights")
            mask = None if mask is None else _flat(mask, shape, "mask")
        else:
            shape = (1, *np.shape(X))
        x, scale = check_data(X, weights, mask, self._beta())
        if is_sparse(x):
            raise ValueError("X is sparse; NMFD needs a dense matrix: pass X.toarray()")
        device = device_of(self.device, x, X)
        x = x.to(device).reshape(shape)
        return x, None if scale is None else scale.to(device).reshape(shape)

    def _sizes(self, x: Tensor) -> tuple[tuple[int, int], int]:
        """Return the window (a, b) and the shifts p for data (s, n, m), checked."""
        rows, columns = x.shape[1:]
        picture = not isinstance(self.window, int | np.integer)
        window: tuple[int, int] = tuple(self.window) if picture else (rows, self.window)  # type: ignore
        shifts = self.shifts if self.shifts is not None else (rows if picture else 1)
        counts = {"n_components": self.n_components, "shifts": shifts, "n_init": self.n_init}
        for name, value in counts.items():
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value!r}; allowed are whole numbers from 1")
        if len(window) != 2 or not (1 <= window[0] <= rows and 1 <= window[1] <= columns):
            raise ValueError(
                f"window is {self.window!r}; X has {rows} rows and {columns} columns: allowed are "
                f"1 to {columns} columns, or (rows, columns) no larger than X"
            )
        if shifts > rows:
            raise ValueError(f"shifts is {shifts}; X has {rows} rows: allowed are 1 to {rows}")
        return window, shifts

    def _starts(
        self, x: Tensor, scale: Tensor | None, components: Any, activations: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the starts to try."""
        window, shifts = self._sizes(x)
        if self.init not in ("random", "custom"):
            raise ValueError(f"init is {self.init!r}; allowed are random, custom")
        given = components is not None and activations is not None
        if (self.init == "custom") != given or (components is None) != (activations is None):
            raise ValueError(
                "components and activations belong to init='custom': pass both with it, "
                f"and neither with init={self.init!r}"
            )
        if given:
            down = (shifts,) if self._moves_down() else ()
            shape: tuple[int, ...] = (self.n_components, *down, x.shape[2])
            if x.shape[0] > 1 or np.ndim(activations) > len(shape):
                shape = (x.shape[0], *shape)
            h = check_factor(activations, shape, x, "activations")
            w = check_factor(components, (self.n_components, *window), x, "components")
            yield w, self._inward(h)
            return
        generator = generator_of(self.random_state)
        for _ in range(self.n_init):
            yield random_start(x, self.n_components, window, shifts, generator, scale)

    def _most_promising(
        self, x: Tensor, scale: Tensor | None, starts: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Return the factors that stand best after a tenth of the iterations; the only start."""
        if len(starts) == 1:
            return starts[0]
        few = -(-self.max_iter // 10)
        tries = [self._solve(x, w, h, scale, max_iter=few) for w, h in starts]
        best = min(tries, key=lambda found: found.losses[-1])
        return best.w, best.h

    def _activations(self, x: Tensor, scale: Tensor | None, w: Tensor) -> Tensor:
        """Return the activations (s, k, p, m) of given templates in data, from a level start."""
        picture = not isinstance(self.window, int | np.integer)
        if not (picture and self.shifts is None) and x.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {x.shape[1]} rows; {self.n_features_in_} are needed, as in fit"
            )
        self._sizes(x)
        shifts = self.shifts if self.shifts is not None else (x.shape[1] if picture else 1)
        flat = (-1, x.shape[2])
        mean = mean_of(x.reshape(flat), None if scale is None else scale.reshape(flat))
        level = mean / max(float(w.sum()) / x.shape[1] * min(x.shape[1], shifts), 1e-30)
        h = x.new_full((x.shape[0], w.shape[0], shifts, x.shape[2]), level)
        return self._solve(x, w, h, scale, update_w=False).h

    def _templates(self, x: Tensor) -> Tensor:
        """Return the learned templates (k, a, b), in the dtype and on the device of x."""
        check_is_fitted(self)
        return as_tensor(self.components_, "components_").to(x)

    def _solve(
        self,
        x: Tensor,
        w: Tensor,
        h: Tensor,
        scale: Tensor | None,
        *,
        max_iter: int | None = None,
        update_w: bool = True,
    ) -> Solution:
        return solve(
            x,
            w,
            h,
            beta=self._beta(),
            weights=scale,
            penalty=self._penalty(),
            tol=self.tol,
            max_iter=max_iter or self.max_iter,
            update_w=update_w,
            way=self.way,
        )

    def _inward(self, h: Tensor) -> Tensor:
        """Return activations as the user has them as (s, k, p, m)."""
        h = h if self._moves_down() else h.unsqueeze(-2)
        return h if h.ndim == 4 else h[None]

    def _outward(self, h: Tensor, several: bool) -> Tensor:
        """Return activations (s, k, p, m) without the axes that the user does not have."""
        h = h if self._moves_down() else h[:, :, 0]
        return h if several else h[0]
