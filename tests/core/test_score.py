"""Scores: checked against published values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from warte.core.score import (
    confusion_matrix,
    f1_scores,
    inside_interval,
    macro_f1,
    poisson_interval,
    rate_by_bin,
    reliability,
    wilson_interval,
)


# Newcombe 1998, Statistics in Medicine 17, 857, table I, method 3 (score without correction).
@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(10, 10)[1] == 1.0
    low, high = wilson_interval(20, 20)
    mirrored = wilson_interval(0, 20)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)
    for hits, trials in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="hits"):
            wilson_interval(hits, trials)
    with pytest.raises(ValueError, match="level"):
        wilson_interval(1, 2, confidence=1.0)


def test_poisson_agrees_with_the_closed_form() -> None:
    # None seen: the upper bound u solves exp(-u) = 0.025; the table of Garwood has (2.20, 13.06)
    # around 6.
    assert poisson_interval(0) == pytest.approx((0.0, -np.log(0.025)))
    assert poisson_interval(6) == pytest.approx((2.202, 13.060), abs=2e-3)
    with pytest.raises(ValueError, match="count"):
        poisson_interval(-1)


def test_rates_by_bin() -> None:
    table = rate_by_bin([0.5, 1.0, 1.5, np.nan, 9.0], [1, 0, 1, 1, 1], [0.0, 1.0, 2.0, 3.0])
    assert table["trials"].tolist() == [1, 2, 0]
    assert table["hits"].tolist() == [1, 1, 0]
    assert table["rate"].tolist()[:2] == [1.0, 0.5]
    assert np.isnan(table["rate"][2])
    assert (table["rate_low"][2], table["rate_high"][2]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="rising"):
        rate_by_bin([1.0], [True], [2.0, 1.0])
    with pytest.raises(ValueError, match="length"):
        rate_by_bin([1.0], [True, False], [0.0, 1.0])


def test_true_errors_are_calibrated_and_wrong_ones_are_not() -> None:
    rng = np.random.default_rng(1)
    error = rng.uniform(0.1, 2.0, 4000)
    residual = error * rng.standard_normal(4000)
    good = reliability(residual, error)
    assert np.all(good["rate_low"] - 0.01 < good["level"])
    assert np.all(good["rate_high"] + 0.01 > good["level"])
    boastful = reliability(residual, error / 2)
    assert np.all(boastful["rate_high"] < boastful["level"])


def test_reliability_leaves_out_what_is_not_finite() -> None:
    table = reliability([0.0, np.nan, 0.0], [1.0, 1.0, np.nan], levels=(0.5,))
    assert table["trials"].tolist() == [1]
    assert np.isnan(reliability([], [])["rate"]).all()


def test_one_sigma_is_one_error_wide() -> None:
    assert inside_interval([0.999, -0.999, 1.001], [1.0, 1.0, 1.0]).tolist() == [True, True, False]


def test_confusion_and_f1() -> None:
    labels = ("a", "b", "c")
    counts = confusion_matrix(["a", "a", "b", "b"], ["a", "b", "b", "c"], labels)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    # a: precision 1, recall 1/2; b: precision 1/2, recall 1/2; c never true.
    assert f1_scores(counts)[:2] == pytest.approx([2 / 3, 1 / 2])
    assert np.isnan(f1_scores(counts)[2])
    assert macro_f1(counts) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert np.isnan(macro_f1(np.zeros((2, 2), dtype=int)))
    with pytest.raises(ValueError, match="'d'"):
        confusion_matrix(["d"], ["a"], labels)
    with pytest.raises(ValueError, match="found ones"):
        confusion_matrix(["a"], [], labels)
