"""Classes, decisions and line measurements against the truth of simulated spectra.

Components are matched one to one by velocity, and only where the right number of them was found:
one component fitted to two is neither of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from warte.core.errors import InputError
from warte.core.match import match_one_to_one
from warte.core.score import (
    ONE_SIGMA,
    confusion_matrix,
    f1_scores,
    macro_f1,
    reliability,
    wilson_interval,
)
from warte.spectra.lines import CLASSES
from warte.spectra.simulate.truth import Truth

QUANTITIES = ("flux", "velocity_km_s", "sigma_km_s")
ERRORS = {"flux": "flux_err", "velocity_km_s": "velocity_err_km_s", "sigma_km_s": "sigma_err_km_s"}
BROAD = "broad"
TEXTS = ("file", "class", "line", "component", "flags", "reason")  # columns that are no numbers


def evaluate(
    classes: pd.DataFrame | None,
    fits: pd.DataFrame | None,
    lines: pd.DataFrame | None,
    truth: Truth,
) -> dict[str, object]:
    """Scores of whatever was found, plain values ready for JSON but for NaN.

    Args:
        classes: file, class, p_<class> for each class, p_two_components; "" or NaN where none.
        fits: file, components, p_two.
        lines: file, line, component, and flux, velocity_km_s, sigma_km_s with their errors.
        truth: of the same files; others may be in it.

    Returns:
        With classes: confusion (true class, then counts by found class), f1 per class, macro_f1,
        auc per class (one against all others), auc_two_components, unclassified.
        With fits: two_components (recall and false_positive_rate, see `decisions`), auc_p_two,
        failed. With lines: coverage (see `coverage`) and bias (median of found minus true in units
        of the error).

    Raises:
        InputError: a file that was found is not in the truth, or is there twice.
    """
    scores: dict[str, object] = {}
    if classes is not None:
        scores |= _class_scores(classes, truth)
    if fits is not None:
        known = _with_truth(fits, truth)
        scores["two_components"] = decisions(fits, truth).to_dict("records")
        scores["auc_p_two"] = auc(known["p_two"], known["true_components"] == 2)
        scores["failed"] = int((~(fits["components"] >= 1)).sum())
    if lines is not None:
        pairs = matched(lines, truth)
        scores["coverage"] = coverage(pairs).to_dict("records")
        scores["bias"] = {
            name: float(np.median(pull)) if len(pull) else float("nan")
            for name, pull in ((name, _pulls(pairs, name)) for name in QUANTITIES)
        }
    return scores


def read_found(
    folder: Path,
) -> tuple[pd.DataFrame | None, pd.DataFrame | None, pd.DataFrame | None]:
    """classes, fits and lines of a folder of results, None where there is no such file.

    Spectra that were classified and, not being candidates, not fitted count as found with one
    component.

    Raises:
        InputError: none of the files is there, or one is no table.
    """
    found: list[pd.DataFrame | None] = []
    for name in ("classes.csv", "fits.csv", "lines.csv"):
        path = folder / name
        try:
            table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str))
        except FileNotFoundError:
            found.append(None)
        except (OSError, ValueError) as problem:
            raise InputError(f"cannot read {path}: {problem}; make it anew") from problem
        else:
            found.append(table.fillna(dict.fromkeys(TEXTS, "")))
    classes, fits, lines = found
    if classes is None and fits is None:
        raise InputError(
            f"{folder} has no classes.csv and no fits.csv; give a folder of "
            "`warte spectra classify` or `fit`"
        )
    if classes is not None and fits is not None:
        passed = classes.loc[~classes["file"].isin(fits["file"]), ["file"]]
        fits = pd.concat([fits, passed.assign(components=1)], ignore_index=True)
    return classes, fits, lines


def tables(scores: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The scores of `evaluate` as tables for people, by title."""
    found: dict[str, pd.DataFrame] = {}
    if "confusion" in scores:
        counts = pd.DataFrame.from_dict(scores["confusion"], orient="index")
        found["Classes: rows true, columns found"] = counts.rename_axis("true").reset_index()
        each = {"class": list(CLASSES), "f1": scores["f1"].values(), "auc": scores["auc"].values()}
        # Classes that are not in the truth have no score.
        found["Each class against the others"] = pd.DataFrame(each).dropna(subset=["f1"])
    if "two_components" in scores:
        found["Two components"] = pd.DataFrame(scores["two_components"])
    if "coverage" in scores:
        found["True values within the stated 68 % intervals"] = pd.DataFrame(scores["coverage"])
    single = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    found["In one number"] = pd.DataFrame({"name": single.keys(), "value": single.values()})
    return found


def auc(score: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Chance that a positive has a higher score than a negative, ties counting half.

    The area under the curve of recall against false-positive rate (Hanley & McNeil 1982, Radiology
    143, 29). Entries whose score is NaN are left out; NaN without positives or negatives.
    """
    value = np.asarray(score, dtype=np.float64)
    known = np.isfinite(value)
    value, true = value[known], np.asarray(positive, dtype=bool)[known]
    hits, others = int(true.sum()), int((~true).sum())
    if not hits or not others:
        return float("nan")
    ranks = rankdata(value)
    return float((ranks[true].sum() - hits * (hits + 1) / 2) / (hits * others))


def confusion(classes: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Counts: row the true class, column the one found; spectra without a found class left out."""
    known = _with_truth(classes, truth)
    known = known[known["class"].isin(CLASSES)]
    counts = confusion_matrix(list(known["true_class"]), list(known["class"]), CLASSES)
    return pd.DataFrame(counts, index=pd.Index(CLASSES, name="class"), columns=list(CLASSES))


def decisions(fits: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """How often two components were found where there are two, and where there are not.

    Columns: rate ("recall" or "false_positives"), trials, hits, value, low, high (95 % Wilson).
    Spectra that could not be fitted count as not two.
    """
    known = _with_truth(fits, truth)
    two = known["components"] == 2
    rows = []
    for name, chosen in (
        ("recall", known["true_components"] == 2),
        ("false_positives", known["true_components"] < 2),
    ):
        trials, hits = int(chosen.sum()), int((chosen & two).sum())
        value = hits / trials if trials else float("nan")
        rows.append((name, trials, hits, value, *wilson_interval(hits, trials)))
    return pd.DataFrame(rows, columns=["rate", "trials", "hits", "value", "low", "high"])


def matched(lines: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """Found lines beside true ones: the columns of `lines`, and true_<quantity> for QUANTITIES.

    Narrow components are paired one to one so that their velocities differ least; a spectrum with
    another number of them than the truth is left out. The broad one stands for the broad one.
    """
    true = truth.lines.assign(component=truth.lines["component"].astype(str))
    found = lines.assign(component=lines["component"].astype(str))
    partner = _partners(found, true)
    found = found.merge(partner, on=["file", "component"])
    columns = {name: f"true_{name}" for name in QUANTITIES}
    right = true[["file", "line", "component", *QUANTITIES]].rename(
        columns={**columns, "component": "partner"}
    )
    return found.merge(right, on=["file", "line", "partner"], validate="many_to_one")


def coverage(pairs: pd.DataFrame) -> pd.DataFrame:
    """Share of the true values that lie within the stated 68 % intervals.

    Args:
        pairs: of `matched`. Velocities and widths that several lines share count once.

    Returns:
        quantity, trials, hits, rate, rate_low, rate_high (95 % Wilson), and spread: the standard
        deviation of found minus true in units of the error, from the 16 and 84 % quantiles.
    """
    tables = []
    for name in QUANTITIES:
        pull = _pulls(pairs, name)
        table = reliability(pull, np.ones(len(pull)), levels=(ONE_SIGMA,)).drop(columns="level")
        low, high = np.quantile(pull, (0.1587, 0.8413)) if len(pull) else (np.nan, np.nan)
        tables.append(table.assign(quantity=name, spread=(high - low) / 2))
    return pd.concat(tables, ignore_index=True)[
        ["quantity", "trials", "hits", "rate", "rate_low", "rate_high", "spread"]
    ]


def _class_scores(classes: pd.DataFrame, truth: Truth) -> dict[str, object]:
    known = _with_truth(classes, truth)
    table = confusion(classes, truth)
    counts = table.to_numpy()
    return {
        "confusion": table.to_dict("index"),
        "f1": dict(zip(CLASSES, f1_scores(counts).tolist(), strict=True)),
        "macro_f1": macro_f1(counts),
        "auc": {name: auc(known[f"p_{name}"], known["true_class"] == name) for name in CLASSES},
        "auc_two_components": auc(known["p_two_components"], known["true_components"] == 2),
        "unclassified": int((~classes["class"].isin(CLASSES)).sum()),
    }


def _with_truth(found: pd.DataFrame, truth: Truth) -> pd.DataFrame:
    """The rows found, with true_class and true_components."""
    files = truth.spectra["file"]
    strange = found.loc[~found["file"].isin(files), "file"]
    if len(strange):
        raise InputError(
            f"{strange.iloc[0]} is not in the truth; give the truth of the files that were used"
        )
    if found["file"].duplicated().any():
        name = found.loc[found["file"].duplicated(), "file"].iloc[0]
        raise InputError(f"{name} stands twice in the results; give one row for each file")
    true = truth.spectra[["file", "class", "components"]].rename(
        columns={"class": "true_class", "components": "true_components"}
    )
    return found.merge(true, on="file")


def _partners(found: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """file, component (found) and partner (the true one)."""
    ours = {name: table for name, table in _velocities(found).groupby("file", sort=False)}
    theirs = {name: table for name, table in _velocities(true).groupby("file", sort=False)}
    rows = []
    for name, mine in ours.items():
        other = theirs.get(name)
        if other is None or len(mine) != len(other):
            continue
        cost = np.abs(
            mine["velocity_km_s"].to_numpy()[:, None] - other["velocity_km_s"].to_numpy()[None, :]
        )
        for i, j in match_one_to_one(cost):
            rows.append((name, mine["component"].iloc[i], other["component"].iloc[j]))
    broad = found.loc[found["component"] == BROAD, "file"].unique()
    rows.extend((name, BROAD, BROAD) for name in broad)
    return pd.DataFrame(rows, columns=["file", "component", "partner"], dtype=object)


def _velocities(lines: pd.DataFrame) -> pd.DataFrame:
    """One row per file and narrow component, with the velocity of its first line."""
    narrow = lines[lines["component"] != BROAD]
    return narrow.drop_duplicates(["file", "component"])[["file", "component", "velocity_km_s"]]


def _pulls(pairs: pd.DataFrame, quantity: str) -> npt.NDArray[np.float64]:
    """Found minus true in units of the stated error; lines without an error above 0 left out."""
    table = pairs if quantity == "flux" else pairs.drop_duplicates(["file", "component"])
    error = table[ERRORS[quantity]].to_numpy(dtype=np.float64)
    away = (table[quantity] - table[f"true_{quantity}"]).to_numpy(dtype=np.float64)
    good = np.isfinite(away) & (error > 0) & np.isfinite(error)
    return np.asarray(away[good] / error[good])
