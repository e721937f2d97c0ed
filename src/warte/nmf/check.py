"""What may be factorised: checks at the border, and the way from arrays to tensors.

Each error is one line: the name of the array, what was found, what is allowed, what to do.
"""

import math
import warnings
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

KINDS = "NumPy arrays, SciPy sparse matrices or torch tensors of real numbers"


def is_sparse(x: Tensor) -> bool:
    """Tell whether a tensor has a sparse layout of any kind."""
    return x.layout != torch.strided


def compressed(x: Tensor) -> Tensor:
    """Return a sparse tensor in the layout whose products with dense matrices are fastest here.

    That is compressed rows where the library at hand has a kernel for it, else coordinates. Its
    transpose is wanted as `compressed(x.t())` of a tensor in coordinates.
    """
    if x.device.type == "cpu" and not torch.backends.mkl.is_available():
        return x.coalesce() if x.layout == torch.sparse_coo else x.to_sparse_coo().coalesce()
    with warnings.catch_warnings():
        # torch says once that this layout is in beta.
        warnings.simplefilter("ignore", UserWarning)
        return x.to_sparse_csr()


def _real_dtype(dtype: torch.dtype, name: str) -> torch.dtype:
    """Return float32 for float32 and float64 for every other real type."""
    if dtype.is_complex:
        raise ValueError(
            f"{name} is complex. Complex data not supported: pass real numbers, e.g. magnitudes"
        )
    return dtype if dtype == torch.float32 else torch.float64


def _sparse_tensor(x: Any, name: str) -> Tensor:
    """Return a SciPy sparse matrix as a coalesced tensor in coordinates."""
    matrix = x.tocoo()
    if matrix.dtype.kind not in "fiub":
        raise ValueError(_wrong_dtype(name, matrix.dtype))
    values = matrix.data if matrix.dtype == np.float32 else matrix.data.astype(np.float64)
    places = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(np.array(values)), size=matrix.shape, check_invariants=False
    ).coalesce()


def _wrong_dtype(name: str, dtype: object) -> str:
    return (
        f"{name} has dtype {dtype}; allowed are real numbers (float, integer, bool): "
        "convert it first"
    )


def as_tensor(x: Any, name: str = "X") -> Tensor:
    """Return an array as a tensor of float32 (where it is that already) or float64.

    Args:
        x: NumPy array or what converts to one, SciPy sparse matrix, or torch tensor (dense or
            sparse); bool, integers and floats. A masked array loses its mask: `check_data` keeps
            it.
        name: the name used in errors.

    Returns:
        A tensor on the device of x (CPU unless x is a tensor). Dense ones share memory with x
        where they can. Sparse ones are coalesced, in coordinates (COO), with two axes.

    Raises:
        ValueError: x is complex or does not hold numbers.
    """
    if isinstance(x, Tensor):
        x = x.detach().to(_real_dtype(x.dtype, name))
        if not is_sparse(x):
            return x
        return (x if x.layout == torch.sparse_coo else x.to_sparse_coo()).coalesce()
    if scipy.sparse.issparse(x):
        if np.issubdtype(x.dtype, np.complexfloating):
            _real_dtype(torch.complex128, name)
        return _sparse_tensor(x, name)
    array = np.asarray(x)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is not numeric ({error}); allowed are {KINDS}") from error
    if array.dtype.kind == "c":
        _real_dtype(torch.complex128, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(_wrong_dtype(name, array.dtype))
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    # torch shares only writable memory with strides of the usual kind and byte order.
    if not array.flags.writeable or any(s < 0 for s in array.strides) or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def check_kind(x: Any, name: str = "X") -> None:
    """Check that an array, or what converts to one, is a matrix of real numbers.

    For estimators, ahead of scikit-learn's own check, whose words are longer and do not name the
    array. Data frames, sparse matrices and objects are left to that.

    Raises:
        ValueError: it has not two axes, one of them is empty, or it does not hold real numbers.
    """
    if hasattr(x, "columns") or scipy.sparse.issparse(x):
        return
    try:
        array = np.asanyarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name} has rows of different lengths; every row needs as many numbers"
        ) from error
    if array.dtype.kind == "c":
        _real_dtype(torch.complex128, name)
    if array.dtype.kind not in "fiubO":
        raise ValueError(_wrong_dtype(name, array.dtype))
    check_shape(array, name)


def check_number(value: Any, name: str, *, above: bool = False, most: float = math.inf) -> None:
    """Check that a setting is a finite number from 0, or above 0, to `most`.

    Raises:
        ValueError: it is not; the message names it.
    """
    allowed = "over 0" if above else "from 0"
    allowed += "" if most == math.inf else f" to {most:g}"
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and 0 <= value <= most and value < math.inf and (value > 0 or not above)):
        raise ValueError(f"{name} is {value!r}; allowed are finite numbers {allowed}")


def check_rank(k: int, shape: tuple[int, ...], name: str = "n_components") -> None:
    """Check that a rank is a whole number from 1 to the smaller side of the matrix.

    Raises:
        ValueError: it is not; the message names the rank and the shape.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"{name} is {k!r}; allowed are whole numbers from 1")
    if k > min(shape):
        raise ValueError(
            f"{name} is {k}, but X has shape {tuple(shape)}; allowed are 1 to {min(shape)}: "
            "lower it"
        )


def check_factor(factor: Any, shape: tuple[int, ...], like: Tensor, name: str) -> Tensor:
    """Return a given start of w or h as a fresh tensor of the dtype and device of the data.

    Raises:
        ValueError: its shape is not `shape`, or it holds negative or non-finite values, or only
            zeros.
    """
    tensor = as_tensor(factor, name)
    if is_sparse(tensor):
        tensor = tensor.to_dense()
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; {tuple(shape)} is needed")
    if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
        raise ValueError(f"{name} holds negative or non-finite values; allowed are 0 and above")
    if not bool((tensor > 0).any()):
        raise ValueError(f"{name} holds only zeros; a start needs positive values")
    return tensor.to(device=like.device, dtype=like.dtype, copy=True)


def _mask_of(x: Any, mask: Any, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Return where entries are hidden: the mask given, that of a masked array, or both."""
    hidden: Tensor | None = None
    if isinstance(x, np.ma.MaskedArray) and x.mask is not np.ma.nomask:
        hidden = torch.from_numpy(np.array(np.ma.getmaskarray(x), dtype=bool)).to(device)
    if mask is None:
        return hidden
    given = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    if given.dtype != torch.bool:
        raise ValueError(
            f"mask has dtype {given.dtype}; allowed is bool, True where an entry is hidden"
        )
    if tuple(given.shape) != shape:
        raise ValueError(f"mask has shape {tuple(given.shape)}; X has shape {shape}: pass that")
    given = given.to(device)
    return given if hidden is None else hidden | given


def _weights_of(weights: Any, x: Tensor) -> Tensor:
    """Return weights as a full matrix in the dtype of x, checked."""
    tensor = as_tensor(weights, "weights")
    if is_sparse(tensor):
        tensor = tensor.to_dense()
    rows, columns = x.shape
    if tensor.ndim != 2 or tensor.shape[0] not in (1, rows) or tensor.shape[1] not in (1, columns):
        raise ValueError(
            f"weights has shape {tuple(tensor.shape)}; X has shape {(rows, columns)}: pass that, "
            f"or {(rows, 1)} or {(1, columns)}"
        )
    tensor = tensor.to(device=x.device, dtype=x.dtype).expand(rows, columns)
    bad = ~torch.isfinite(tensor) | (tensor < 0)
    if bool(bad.any()):
        raise ValueError(
            f"weights holds {int(bad.sum())} negative or non-finite values; allowed are inverse "
            "variances from 0, and 0 hides an entry"
        )
    return tensor


def _check_values(values: Tensor, name: str, beta: float, allow_negative: bool) -> None:
    """Check the visible values against what the divergence allows."""
    wrong = ~torch.isfinite(values)
    if bool(wrong.any()):
        nan, count = int(torch.isnan(values).sum()), int(wrong.sum())
        raise ValueError(
            f"{name} contains NaN or infinity: {nan} NaN and {count - nan} infinite values; "
            "hide these entries with mask, or with weight 0"
        )
    if not allow_negative and bool((values < 0).any()):
        count = int((values < 0).sum())
        advice = (
            'take solver="nearly" for noisy data around zero' if beta == 2 else "hide or clip them"
        )
        raise ValueError(
            f"Negative values in data passed as {name}: {count}, the lowest "
            f"{float(values.min()):.4g}; beta={beta:g} allows 0 and above: {advice}"
        )
    if beta <= 0 and bool((values == 0).any()):
        raise ValueError(
            f"{name} contains {int((values == 0).sum())} zeros; beta={beta:g} allows only values "
            "above 0: add a small value, hide these entries, or take beta > 0"
        )


def check_shape(x: Any, name: str = "X") -> None:
    """Check that a tensor or an array has two axes and that neither is empty.

    Raises:
        ValueError: it has not; the message names the shape.
    """
    if x.ndim != 2:
        raise ValueError(
            f"{name} has {x.ndim} {'axis' if x.ndim == 1 else 'axes'} (shape {tuple(x.shape)}); "
            "2 are needed. Reshape your data, e.g. to (rows, columns)"
        )
    for axis, what in ((0, "sample"), (1, "feature")):
        if x.shape[axis] == 0:
            raise ValueError(
                f"{name} has 0 {what}(s) (shape={tuple(x.shape)}) while a minimum of 1 is required."
            )


def check_data(
    x: Any,
    weights: Any = None,
    mask: Any = None,
    beta: float = 2.0,
    *,
    allow_negative: bool = False,
    name: str = "X",
) -> tuple[Tensor, Tensor | None]:
    """Check a matrix and its weights, and make them ready for the solvers.

    Args:
        x: the matrix (n, m): NumPy array, masked array, SciPy sparse matrix or torch tensor.
        weights: inverse variances (n, m), (n, 1) or (1, m), from 0; 0 hides an entry.
        mask: bool (n, m), True where an entry is hidden, as in `numpy.ma`.
        beta: the divergence; beta <= 0 forbids zeros in x.
        allow_negative: whether visible entries may be negative.
        name: the name of x in errors.

    Returns:
        (x, weights): tensors of the same dtype (float32 stays, all else is float64) on the device
        of x. A sparse x comes back coalesced, in coordinates. weights is None when every entry is
        visible and counts alike; otherwise it is (n, m), and hidden entries have weight 0 and
        value 0. The arrays given are not written to.

    Raises:
        ValueError: the shape, the dtype or visible values are not allowed, every entry is hidden,
            or a sparse x comes with weights or a mask.
    """
    tensor = as_tensor(x, name)
    check_shape(tensor, name)
    hidden = _mask_of(x, mask, tuple(tensor.shape), tensor.device)
    if is_sparse(tensor):
        if weights is not None or hidden is not None:
            raise ValueError(
                f"{name} is sparse; weights and mask need a dense matrix: pass {name}.toarray()"
            )
        _check_values(tensor.values(), name, beta, allow_negative)
        if beta <= 0 and tensor.values().numel() < tensor.shape[0] * tensor.shape[1]:
            raise ValueError(
                f"{name} is sparse, so it contains zeros; beta={beta:g} allows only values above 0"
            )
        return tensor, None
    if weights is None and (hidden is None or not bool(hidden.any())):
        _check_values(tensor, name, beta, allow_negative)
        return tensor, None
    scale = torch.ones_like(tensor) if weights is None else _weights_of(weights, tensor)
    if hidden is not None:
        scale = scale.masked_fill(hidden, 0.0)
    visible = scale > 0
    if not bool(visible.any()):
        raise ValueError(f"mask and weights hide every entry of {name}; leave some visible")
    _check_values(tensor[visible], name, beta, allow_negative)
    return tensor.masked_fill(~visible, 0.0), scale.contiguous()
