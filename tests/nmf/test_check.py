"""Every kind of unusable data is refused in one line that says what to do."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from warte.nmf import NMF, PLCA
from warte.nmf.check import (
    as_tensor,
    check_data,
    check_factor,
    check_number,
    check_rank,
    compressed,
)

GOOD = np.arange(1.0, 13.0).reshape(4, 3)


def refused(match: str, *args: object, **kwargs: object) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        check_data(*args, **kwargs)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def changed(value: float) -> np.ndarray:
    x = GOOD.copy()
    x[1, 2] = value
    return x


@pytest.mark.parametrize("kind", [np.float16, np.int32, np.uint8, bool, object, ">f8"])
def test_numbers_of_any_kind_become_double(kind: type) -> None:
    x, weights = check_data(GOOD.astype(kind))
    assert x.dtype == torch.float64 and weights is None
    assert np.array_equal(x.numpy(), GOOD.astype(kind).astype(float))


def test_single_precision_stays() -> None:
    assert as_tensor(GOOD.astype(np.float32)).dtype == torch.float32
    assert as_tensor(torch.ones(2, 2)).dtype == torch.float32
    sparse = as_tensor(scipy.sparse.csr_matrix(GOOD.astype(np.float32)))
    assert sparse.dtype == torch.float32


def test_views_and_read_only_arrays_are_taken() -> None:
    fixed = GOOD.copy()
    fixed.setflags(write=False)
    for x in (GOOD[::-1], GOOD.T, GOOD[:, ::2], fixed):
        assert np.array_equal(as_tensor(x).numpy(), x)


@pytest.mark.parametrize("make", ["csr_array", "csc_array", "coo_matrix"])
def test_sparse_becomes_coordinates(make: str) -> None:
    x, _ = check_data(getattr(scipy.sparse, make)(np.diag([1.0, 0.0, 2.0])))
    assert x.layout == torch.sparse_coo and x.is_coalesced()
    assert np.array_equal(x.to_dense().numpy(), np.diag([1.0, 0.0, 2.0]))
    other = check_data(compressed(x))[0]
    assert torch.equal(other.to_dense(), x.to_dense())


def test_compressed_multiplies_as_dense_does() -> None:
    dense = torch.from_numpy(np.diag([1.0, 0.0, 2.0]) + np.eye(3, k=1))
    sparse = dense.to_sparse_coo()
    right = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    assert torch.allclose(compressed(sparse) @ right, dense @ right)
    assert torch.allclose(compressed(sparse.t()) @ right, dense.T @ right)


def test_values_that_are_refused() -> None:
    refused("contains NaN or infinity: 1 NaN and 0 infinite", changed(np.nan))
    refused("0 NaN and 1 infinite values; hide these", changed(np.inf))
    refused('Negative values in data passed as X: 1, the lowest -2.*solver="nearly"', changed(-2))
    refused("beta=1 allows 0 and above", changed(-2), beta=1.0)
    refused("contains 1 zeros; beta=0 allows only values above 0", changed(0), beta=0.0)
    refused("is sparse, so it contains zeros", scipy.sparse.eye(3), beta=0.0)
    sparse = scipy.sparse.csr_matrix(changed(-2))
    refused("Negative values", sparse)
    refused("V contains NaN", changed(np.nan), name="V")


def test_what_the_divergence_allows_is_taken() -> None:
    assert check_data(changed(-2), allow_negative=True)[0][1, 2] == -2
    assert check_data(changed(0), beta=1.0)[0][1, 2] == 0
    x = GOOD.copy()
    x[1], x[:, 0] = 0, 0
    assert torch.equal(check_data(x)[0], torch.from_numpy(x))


def test_shapes_and_types_that_are_refused() -> None:
    refused("has 1 axis .*Reshape your data", GOOD[0])
    refused("has 3 axes", GOOD[None])
    refused("0 feature", GOOD[:, :0])
    refused("0 sample", GOOD[:0])
    refused("Complex data not supported", GOOD + 1j)
    refused("Complex data not supported", torch.ones(2, 2, dtype=torch.complex64))
    refused("Complex data not supported", scipy.sparse.csr_matrix(GOOD + 1j))
    refused("has dtype <U", np.array([["a", "b"]]))
    refused("is not numeric", np.array([["a", {}]], dtype=object))


@pytest.mark.parametrize("estimator", [NMF(2), PLCA(2)], ids=["NMF", "PLCA"])
def test_estimators_name_the_array_in_one_line(estimator: Any) -> None:
    for bad, words in (
        (GOOD + 1j, "X is complex"),
        (np.array([["a", "b"]]), "X has dtype <U1; allowed are real numbers"),
        (np.zeros((2, 2), dtype="datetime64[D]"), "X has dtype datetime64"),
        (GOOD[0], r"X has 1 axis \(shape \(3,\)\); 2 are needed"),
        (GOOD[None], "X has 3 axes"),
        (GOOD[:0], r"X has 0 sample\(s\)"),
        (None, "X has 0 axes"),
        ([[1, 2], [3]], "X has rows of different lengths"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            estimator.fit(bad)
        assert "\n" not in str(caught.value)


def test_numbers_of_settings() -> None:
    for good in (0, 1.5, np.float32(2)):
        check_number(good, "tol")
    for bad in (-1, np.inf, np.nan, "1", None, True):
        with pytest.raises(ValueError, match=r"tol is .*; allowed are finite numbers from 0"):
            check_number(bad, "tol")
    check_number(1.0, "forget", above=True, most=1.0)
    for bad in (0, 1.1):
        with pytest.raises(
            ValueError, match=r"forget is .*; allowed are finite numbers over 0 to 1"
        ):
            check_number(bad, "forget", above=True, most=1.0)


def test_hidden_entries_get_weight_and_value_zero() -> None:
    x = changed(np.nan)
    mask = np.isnan(x)
    for data, kwargs in (
        (x, {"mask": mask}),
        (x, {"mask": torch.from_numpy(mask)}),
        (np.ma.masked_invalid(x), {}),
        (x, {"weights": 1.0 - mask}),
        (torch.from_numpy(x), {"mask": mask}),
    ):
        tensor, weights = check_data(data, **kwargs)
        assert tensor[1, 2] == 0
        assert weights is not None
        assert torch.equal(weights, torch.from_numpy(1.0 - mask))
    assert np.isnan(x[1, 2])  # the data given are not written to


def test_masks_add_up_and_weights_spread() -> None:
    data = np.ma.MaskedArray(GOOD, GOOD == 1)
    _, weights = check_data(data, weights=np.array([[1.0, 2.0, 0.0]]), mask=GOOD == 5)
    expected = np.tile([1.0, 2.0, 0.0], (4, 1))
    expected[GOOD == 1] = expected[GOOD == 5] = 0
    assert weights is not None and np.array_equal(weights.numpy(), expected)
    _, weights = check_data(GOOD.astype(np.float32), weights=np.ones((4, 1)))
    assert weights is not None and weights.shape == (4, 3) and weights.dtype == torch.float32


def test_a_mask_of_nothing_is_no_mask() -> None:
    assert check_data(GOOD, mask=np.zeros((4, 3), dtype=bool))[1] is None


def test_masks_and_weights_that_are_refused() -> None:
    refused("mask has dtype", GOOD, mask=np.zeros((4, 3)))
    refused("mask has shape", GOOD, mask=np.zeros((3, 4), dtype=bool))
    refused("hide every entry", GOOD, mask=np.ones((4, 3), dtype=bool))
    refused("weights has shape", GOOD, weights=np.ones(3))
    refused("weights has shape", GOOD, weights=np.ones((4, 2)))
    refused("weights holds 1 negative", GOOD, weights=changed(-1))
    refused("weights holds 1 negative or non-finite", GOOD, weights=changed(np.inf))
    refused("need a dense matrix", scipy.sparse.eye(3), weights=np.ones((3, 3)))


def test_ranks() -> None:
    check_rank(3, (4, 3))
    for k, match in ((4, "allowed are 1 to 3"), (0, "from 1"), (1.5, "from 1"), (True, "from 1")):
        with pytest.raises(ValueError, match=match):
            check_rank(k, (4, 3))  # type: ignore[arg-type]


def test_factors() -> None:
    x = torch.ones(4, 3)
    start = np.ones((4, 2))
    factor = check_factor(start, (4, 2), x, "W")
    assert factor.dtype == torch.float32
    factor[0] = 7
    assert start[0, 0] == 1
    for bad, match in (
        (np.ones((2, 4)), r"W has shape \(2, 4\)"),
        (-np.ones((4, 2)), "negative or non-finite"),
        (np.full((4, 2), np.nan), "negative or non-finite"),
        (np.zeros((4, 2)), "only zeros"),
    ):
        with pytest.raises(ValueError, match=match):
            check_factor(bad, (4, 2), x, "W")
