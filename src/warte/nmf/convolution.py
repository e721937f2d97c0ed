"""The convolutive model and its two adjoints, each in the way that is fastest for its shape.

The model of one recording is y[i, j] = sum over z, u, v of w[z, u, v] h[z, i - u, j - v]: each of
k templates w (k, a, b) starts wherever its activations h (k, p, m) are above zero, and what would
lie outside the recording (n, m) is cut off. With a = n and p = 1 templates move along time only
(Smaragdis, "Non-negative matrix factor deconvolution", ICA 2004), with a = n and p > 1 up the
frequencies too (Schmidt & Mørup, "Nonnegative matrix factor 2-D deconvolution for blind single
channel source separation", ICA 2006), with p = n a template of any size lies anywhere in a picture.
Several recordings that share their templates stand along the first axis of x, y and h.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Above this many shifts of one template (p * b) transforms are faster than products of matrices.
MOST_SHIFTS = 128


def reconstruct(w: Tensor, h: Tensor, rows: int) -> Tensor:
    """Return the model by a plain convolution, through which gradients flow.

    Args:
        w: templates (k, a, b).
        h: activations (s, k, p, m).
        rows: n, the rows of a recording.

    Returns:
        (s, n, m).
    """
    columns = h.shape[-1]
    if h.shape[2] == 1:
        return functional.conv_transpose1d(h[:, :, 0], w)[:, :rows, :columns]
    return functional.conv_transpose2d(h, w[:, None])[:, 0, :rows, :columns]


class Stacked:
    """Shifted copies of h are stacked, so that model and adjoints are one product of matrices.

    The layout is (n, s m): recordings one after the other.

    Args:
        shape: (s, n, m) of the data.
        window: (a, b) of the templates.
        shifts: p, the rows of the activations.
    """

    def __init__(
        self, shape: tuple[int, int, int], window: tuple[int, int], shifts: int = 1
    ) -> None:
        self.shape, self.window, self.shifts = shape, window, shifts

    def lay(self, x: Tensor) -> Tensor:
        """Return (s, n, m) as (n, s m)."""
        return x.transpose(0, 1).reshape(self.shape[1], -1)

    def _copies(self, h: Tensor) -> Tensor:
        """Return h moved right by b - 1, ..., 0 columns: (k p b, s m)."""
        length = self.window[1]
        moved = functional.pad(h, (length - 1, 0)).unfold(-1, h.shape[-1], 1)
        return moved.permute(1, 2, 3, 0, 4).reshape(-1, h.shape[0] * h.shape[-1])

    def _columns(self, w: Tensor) -> Tensor:
        """Return w moved down by 0, ..., p - 1 rows, latest column first: (n, k p b)."""
        rows, w = self.shape[1], w.flip(-1)
        below = max(0, rows - w.shape[1])
        moved = functional.pad(w, (0, 0, self.shifts - 1, below)).unfold(1, rows, 1)
        moved = moved[:, : self.shifts].flip(1)  # (k, p, b, n)
        return moved.permute(3, 0, 1, 2).reshape(rows, -1)

    def model(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the model (n, s m)."""
        return self._columns(w) @ self._copies(h)

    def w_adjoint(self, d: Tensor, h: Tensor) -> Tensor:
        """Return the derivative by w of <d, model>, (k, a, b)."""
        return self._templates_of(d @ self._copies(h).t())

    def h_adjoint(self, d: Tensor, w: Tensor) -> Tensor:
        """Return the derivative by h of <d, model>, (s, k, p, m)."""
        return self._activations_of(self._columns(w).t() @ d)

    def w_adjoint_of_model(self, w: Tensor, h: Tensor) -> Tensor:
        """Return `w_adjoint` of the model itself, without building the model."""
        copies = self._copies(h)
        return self._templates_of(self._columns(w) @ (copies @ copies.t()))

    def h_adjoint_of_model(self, w: Tensor, h: Tensor) -> Tensor:
        """Return `h_adjoint` of the model itself, without building the model."""
        columns = self._columns(w)
        return self._activations_of((columns.t() @ columns) @ self._copies(h))

    def _templates_of(self, stacked: Tensor) -> Tensor:
        """Sum (n, k p b) over the moves of each template: (k, a, b)."""
        (height, length), rows = self.window, self.shape[1]
        by_shift = stacked.reshape(rows, -1, self.shifts, length)
        result = stacked.new_zeros(by_shift.shape[1], height, length)
        for shift in range(self.shifts):
            part = by_shift[shift : shift + height, :, shift]
            result[:, : part.shape[0]] += part.transpose(0, 1)
        return result.flip(-1)

    def _activations_of(self, stacked: Tensor) -> Tensor:
        """Sum (k p b, s m) over the moves of each activation: (s, k, p, m)."""
        recordings, _, columns = self.shape
        length = self.window[1]
        by_lag = stacked.reshape(-1, self.shifts, length, recordings, columns)
        result = by_lag[:, :, length - 1].clone()  # (k, p, s, m)
        for lag in range(1, min(length, columns)):
            result[..., : columns - lag] += by_lag[:, :, length - 1 - lag, :, lag:]
        return result.permute(2, 0, 1, 3)


class Spectral:
    """Convolution by two-dimensional Fourier transforms: the cost does not depend on the window.

    The layout is that of the data, (s, n, m). Arguments are those of `Stacked`.
    """

    def __init__(
        self, shape: tuple[int, int, int], window: tuple[int, int], shifts: int = 1
    ) -> None:
        self.shape, self.window, self.shifts = shape, window, shifts
        rows = max(shape[1], shifts + window[0] - 1)
        self.size = (quick_length(rows), quick_length(shape[2] + window[1] - 1))

    def lay(self, x: Tensor) -> Tensor:
        """Return the data as they are."""
        return x

    def _forth(self, part: Tensor) -> Tensor:
        return torch.fft.rfft2(part, s=self.size)

    def _back(self, spectrum: Tensor, rows: int, columns: int) -> Tensor:
        # Rounding leaves values just below zero where the result is zero.
        return torch.fft.irfft2(spectrum, s=self.size)[..., :rows, :columns].clamp_min(0.0)

    def model(self, w: Tensor, h: Tensor) -> Tensor:
        """Return the model (s, n, m)."""
        spectrum = (self._forth(h) * self._forth(w)).sum(1)
        return self._back(spectrum, self.shape[1], self.shape[2])

    def w_adjoint(self, d: Tensor, h: Tensor) -> Tensor:
        """Return the derivative by w of <d, model>, (k, a, b)."""
        spectrum = (self._forth(h).conj() * self._forth(d)[:, None]).sum(0)
        return self._back(spectrum, *self.window)

    def h_adjoint(self, d: Tensor, w: Tensor) -> Tensor:
        """Return the derivative by h of <d, model>, (s, k, p, m)."""
        spectrum = self._forth(w).conj() * self._forth(d)[:, None]
        return self._back(spectrum, self.shifts, self.shape[2])


def quick_length(length: int) -> int:
    """Return the next length whose only prime factors are 2, 3 and 5, quick to transform."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def fastest(
    shape: tuple[int, int, int], window: tuple[int, int], shifts: int
) -> Stacked | Spectral:
    """Return the way that is faster for data (s, n, m), windows (a, b) and p shifts down."""
    few = shifts == 1 or shifts * window[1] <= MOST_SHIFTS
    return Stacked(shape, window, shifts) if few else Spectral(shape, window, shifts)


def sums_for_w(h: Tensor, shape: tuple[int, int, int], window: tuple[int, int]) -> Tensor:
    """Return the derivative by w (k, a, b) of the sum of the model: what h leaves in the picture.

    h (s, k, p, m) at (i, j) shows the entry (u, v) of a template if i + u < n and j + v < m.
    """
    return _within(h.sum(0), shape, window)


def sums_for_h(w: Tensor, shape: tuple[int, int, int], shifts: int) -> Tensor:
    """Return the derivative by h of the sum of the model, the same in every recording.

    w: (k, a, b). Returns (1, k, p, m).
    """
    return _within(w, shape, (shifts, shape[2]))[None]


def _within(part: Tensor, shape: tuple[int, int, int], size: tuple[int, int]) -> Tensor:
    """Sum part (k, r, c) over its entries (i, j) with i + u < n and j + v < m: (k, *size)."""
    table = functional.pad(part.cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = (shape[1] - torch.arange(size[0], device=part.device)).clamp(0, part.shape[1])
    columns = (shape[2] - torch.arange(size[1], device=part.device)).clamp(0, part.shape[2])
    return table[:, rows][:, :, columns]
