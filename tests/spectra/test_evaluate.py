"""Scores of findings against the truth of simulated spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score

from warte.core.errors import InputError
from warte.core.score import wilson_interval
from warte.spectra.evaluate import auc, confusion, coverage, decisions, evaluate, matched
from warte.spectra.lines import CLASSES
from warte.spectra.simulate import SimulateSettings, Truth, simulate_batch


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return simulate_batch(SimulateSettings(), 300, rng(1))[1]


def perfect_classes(truth: Truth) -> pd.DataFrame:
    kind = truth.spectra["class"]
    chances = {f"p_{name}": (kind == name).astype(float) for name in CLASSES}
    two = (truth.spectra["components"] == 2).astype(float)
    return pd.DataFrame(
        {"file": truth.spectra["file"], "class": kind, **chances, "p_two_components": two}
    )


def perfect_fits(truth: Truth) -> pd.DataFrame:
    number = truth.spectra["components"].clip(lower=1)
    return pd.DataFrame(
        {"file": truth.spectra["file"], "components": number, "p_two": (number == 2).astype(float)}
    )


def measured_lines(truth: Truth, seed: int = 0, scale: float = 1.0) -> pd.DataFrame:
    """Every true line with normal errors; the errors are `scale` times the stated ones.

    Velocity and width are those of the component, the same for all of its lines.
    """
    random, lines = rng(seed), truth.lines.copy()
    number = lines.groupby(["file", "component"], sort=False).ngroup()
    for name, error in (
        ("flux", "flux_err"),
        ("velocity_km_s", "velocity_err_km_s"),
        ("sigma_km_s", "sigma_err_km_s"),
    ):
        lines[error] = 0.5
        away = scale * 0.5 * random.standard_normal(len(lines))
        lines[name] += away if name == "flux" else away[number]
    return lines


def test_auc_is_that_of_scikit_learn() -> None:
    random = rng()
    positive = random.random(500) < 0.3
    score = np.round(random.standard_normal(500) + positive, 1)  # many ties
    assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    score[:50] = np.nan
    assert auc(score, positive) == pytest.approx(roc_auc_score(positive[50:], score[50:]))
    assert auc([1, 1, 1], [True, False, False]) == 0.5
    assert np.isnan(auc([1.0, 2.0], [True, True]))


def test_perfect_findings_score_perfectly(truth: Truth) -> None:
    scores: Any = evaluate(
        perfect_classes(truth), perfect_fits(truth), measured_lines(truth), truth
    )
    assert scores["macro_f1"] == scores["auc_two_components"] == scores["auc_p_two"] == 1
    assert set(scores["auc"].values()) == {1.0}
    assert scores["unclassified"] == scores["failed"] == 0
    rates = {row["rate"]: row["value"] for row in scores["two_components"]}
    assert rates == {"recall": 1.0, "false_positives": 0.0}
    for row in scores["coverage"]:
        assert row["rate_low"] < norm.cdf(1) - norm.cdf(-1) < row["rate_high"]
        assert row["spread"] == pytest.approx(1.0, abs=0.12)


def test_what_is_not_given_is_not_scored(truth: Truth) -> None:
    assert evaluate(None, None, None, truth) == {}
    assert "coverage" not in evaluate(None, perfect_fits(truth), None, truth)


def test_confusion_and_f1_of_wrong_classes(truth: Truth) -> None:
    found = perfect_classes(truth)
    strayed = rng(2).random(len(found)) < 0.4
    found.loc[strayed, "class"] = rng(3).choice(CLASSES, int(strayed.sum()))
    found = found.sample(frac=1, random_state=1)  # the order of rows does not matter
    kind = truth.spectra.set_index("file")["class"][found["file"]]
    expected = f1_score(kind, found["class"], average="macro")
    scores = evaluate(found, None, None, truth)
    assert scores["macro_f1"] == pytest.approx(expected)
    table = confusion(found, truth)
    both = (kind.to_numpy() == "LINER") & (found["class"].to_numpy() == "Seyfert")
    assert table.loc["LINER", "Seyfert"] == both.sum()
    assert table.to_numpy().sum() == len(found)


def test_unclassified_spectra_are_counted(truth: Truth) -> None:
    found = perfect_classes(truth)
    found.loc[:4, "class"] = ""
    found.loc[:4, "p_two_components"] = np.nan
    scores = evaluate(found, None, None, truth)
    assert scores["unclassified"] == 5
    assert confusion(found, truth).to_numpy().sum() == len(found) - 5


def test_decisions_count_recall_and_false_alarms(truth: Truth) -> None:
    fits = perfect_fits(truth)
    two = np.flatnonzero(truth.spectra["components"] == 2)
    one = np.flatnonzero(truth.spectra["components"] == 1)
    none = np.flatnonzero(truth.spectra["components"] == 0)
    fits["components"] = fits["components"].astype(float)
    fits.loc[two[:7], "components"] = 1
    fits.loc[two[7:9], "components"] = np.nan  # could not be fitted: not found
    fits.loc[one[:3], "components"] = 2
    fits.loc[none[:2], "components"] = 2
    table = decisions(fits, truth).set_index("rate")
    recall, false = table.loc["recall"], table.loc["false_positives"]
    assert (recall["hits"], recall["trials"]) == (len(two) - 9, len(two))
    assert (false["hits"], false["trials"]) == (5, len(one) + len(none))
    assert (recall["low"], recall["high"]) == wilson_interval(len(two) - 9, len(two))
    assert evaluate(None, fits, None, truth)["failed"] == 2


def test_components_are_matched_by_velocity(truth: Truth) -> None:
    lines = measured_lines(truth)
    swapped = lines.assign(component=lines["component"].replace({"1": "2", "2": "1"}))
    files = truth.spectra.loc[truth.spectra["components"] == 2, "file"]
    swapped = swapped[swapped["file"].isin(files)]
    pairs = matched(swapped, truth)
    assert len(pairs) == len(swapped)
    assert (pairs["flux"] - pairs["true_flux"]).abs().max() < 3
    assert (pairs["velocity_km_s"] - pairs["true_velocity_km_s"]).abs().max() < 3


def test_numbers_as_components_are_understood(truth: Truth) -> None:
    """A table read from a file without broad lines has numbers there."""
    lines = measured_lines(truth)
    lines = lines[lines["component"] != "broad"]
    pairs = matched(lines.assign(component=lines["component"].astype(int)), truth)
    assert len(pairs) == len(lines)


def test_another_number_of_components_is_left_out(truth: Truth) -> None:
    lines = measured_lines(truth)
    file = truth.spectra.loc[truth.spectra["components"] == 2, "file"].iloc[0]
    fewer = lines[(lines["file"] != file) | (lines["component"] == "1")]
    pairs = matched(fewer, truth)
    assert file not in set(pairs["file"])
    assert set(pairs["file"]) == set(lines["file"]) - {file}


def test_coverage_sees_errors_that_are_too_small(truth: Truth) -> None:
    pairs = matched(measured_lines(truth, scale=2.0), truth)
    table = coverage(pairs).set_index("quantity")
    expected = norm.cdf(0.5) - norm.cdf(-0.5)
    for name in ("flux", "velocity_km_s", "sigma_km_s"):
        assert table.loc[name, "rate_low"] < expected < table.loc[name, "rate_high"]
        assert table.loc[name, "spread"] == pytest.approx(2.0, abs=0.25)
    # Velocities and widths count once for each component, fluxes once for each line.
    number = truth.lines.drop_duplicates(["file", "component"])
    assert table.loc["velocity_km_s", "trials"] == len(number)
    assert table.loc["flux", "trials"] == len(truth.lines)


def test_lines_without_errors_do_not_count(truth: Truth) -> None:
    lines = measured_lines(truth)
    lines.loc[:9, "flux_err"] = np.nan
    lines.loc[10:14, "flux_err"] = 0.0
    table = coverage(matched(lines, truth)).set_index("quantity")
    assert table.loc["flux", "trials"] == len(lines) - 15
    assert coverage(matched(lines.iloc[:0], truth))["trials"].sum() == 0


def test_strange_and_doubled_files_are_named(truth: Truth) -> None:
    fits = perfect_fits(truth)
    with pytest.raises(InputError, match=r"other\.fits is not in the truth"):
        evaluate(None, fits.assign(file="other.fits"), None, truth)
    with pytest.raises(InputError, match="stands twice"):
        evaluate(None, pd.concat([fits, fits.iloc[:1]]), None, truth)
