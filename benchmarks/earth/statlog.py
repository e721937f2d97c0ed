"""Part statlog: classifiers of Landsat pixels, and what a search with pruning saves.

Statlog Landsat (training file): 4435 pixels with their eight neighbours in four bands, six kinds of
land. All numbers are cross-validated on this file.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.clock import on_threads
from benchmarks.page import Table
from warte.cli.common import Report
from warte.core.data import registry
from warte.core.search import Searched, SearchSettings, search

FILE = "earth/statlog_landsat/sat.trn"
CENTRE = slice(16, 20)  # the four bands of the middle pixel among the 36 values
FOLDS = 3  # of the cross-validation that a search looks at
TRIALS = 50
PRUNED_TRIALS = 2  # times as many for the search with pruning, if it needs them
SEEDS, QUICK_SEEDS = 5, 1
OUTER, QUICK_OUTER = 5, 2  # folds of the table of classifiers
WANTED = 0.5  # of the core time
Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def statlog_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """Classifiers, then searches; none where the file is not here."""
    if registry.locate(FILE) is None:
        return []
    table = np.loadtxt(registry.get(FILE), skiprows=1)  # line 1 is a header of numbers
    # Pixels that lie beside each other stand beside each other in the file: mixed, all folds of all
    # programs are alike.
    table = table[np.random.default_rng(seed).permutation(len(table))]
    values, labels = table[:, :-1], table[:, -1].astype(np.int64)
    with on_threads(1):
        return [
            _classifiers(values, labels, seed, quick, progress),
            _searches(values, labels, seed, quick, progress),
        ]


# the search


def support_vectors(penalty: float, gamma: float, around: float) -> Pipeline:
    """Support vectors with an RBF kernel; the eight neighbours count `around` times as much."""
    weights = np.full(36, around)
    weights[CENTRE] = 1
    return make_pipeline(StandardScaler(), _Weighted(weights), SVC(C=penalty, gamma=gamma))


@dataclass
class _Weighted:
    """A step of a pipeline that multiplies each column."""

    weights: Values

    def fit(self, values: Values, labels: Labels | None = None) -> _Weighted:
        """Nothing is learnt."""
        return self

    def transform(self, values: Values) -> Values:
        """The columns, multiplied."""
        return values * self.weights


@dataclass(frozen=True)
class CrossValidated:
    """Mean accuracy over folds of support vectors, with or without early looks.

    gradual: tell the mean after each fold, and give up where the pruner says so.
    """

    values: Values
    labels: Labels
    gradual: bool

    def __call__(self, trial: Any) -> float:
        """The accuracy of a trial's parameters."""
        model = support_vectors(
            trial.suggest_float("penalty", 0.1, 1000, log=True),
            trial.suggest_float("gamma", 1e-3, 2, log=True),
            trial.suggest_float("around", 0.05, 1),
        )
        folds = list(StratifiedKFold(FOLDS).split(self.values, self.labels))
        scores: list[float] = []
        for step, (learn, judge) in enumerate(folds, 1):
            scores.append(self._score(model, learn, judge))
            if self.gradual and step < FOLDS:
                self._look(trial, step, float(np.mean(scores)))
        return float(np.mean(scores))

    def _score(self, model: Pipeline, learn: Labels, judge: Labels) -> float:
        model.fit(self.values[learn], self.labels[learn])
        return float(model.score(self.values[judge], self.labels[judge]))

    def _look(self, trial: Any, step: int, score: float) -> None:
        trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned


@dataclass(frozen=True)
class Course:
    """How good the best complete trial was after so much core time (s)."""

    core_s: Values
    best: Values
    found: Searched


def searched(objective: CrossValidated, trials: int, seed: int) -> Course:
    """Run a search as it comes; all that it does counts."""
    started, core = time.process_time(), []

    def note(step: str, done: int, total: int | None) -> None:
        core.append(time.process_time() - started)

    settings = SearchSettings(trials=trials, seed=seed, direction="maximize")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "study"
        out.mkdir()
        found = search(objective, settings, out, report=note)
    complete = found.trials["state"].eq("complete").to_numpy()
    best = np.maximum.accumulate(np.where(complete, found.trials["value"], 0.0))
    return Course(np.array(core[1:]), best, found)


def _plain(objective: CrossValidated, trials: int, seed: int) -> tuple[float, float, float]:
    """Optuna's TPE as it comes: best score, core time (s), core time until it had it (s)."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    started, core = time.process_time(), []
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed)
    )  # in memory: nothing is written
    study.optimize(
        objective, trials, callbacks=[lambda *_: core.append(time.process_time() - started)]
    )
    return study.best_value, core[-1], core[study.best_trial.number]


def _searches(values: Values, labels: Labels, seed: int, quick: bool, progress: Report) -> Table:
    seeds = QUICK_SEEDS if quick else SEEDS
    rows: list[dict[str, object]] = []
    for number in range(seeds):
        progress("statlog: searches", number, seeds)
        plain, all_s, until_s = _plain(CrossValidated(values, labels, False), TRIALS, seed + number)
        gradual = CrossValidated(values, labels, True)
        course = searched(gradual, PRUNED_TRIALS * TRIALS, seed + number)
        reached = course.best >= plain
        ours_s = float(course.core_s[reached.argmax()]) if reached.any() else float("inf")
        rows.append(
            {
                "seed": seed + number,
                "TPE, 50 trials": round(plain, 5),
                "core (s)": round(all_s, 1),
                "until its best (s)": round(until_s, 1),
                "Warte reaches it after (s)": round(ours_s, 1),
                "trials": int(reached.argmax()) + 1 if reached.any() else len(course.best),
                "share": round(ours_s / all_s, 2),
            }
        )
    progress("statlog: searches", seeds, seeds)
    median = statistics.median(float(str(row["share"])) for row in rows)
    note = (
        f"Support vectors, {FOLDS} folds, three parameters. Core time of everything, journal "
        f"included. Share of the time of TPE's {TRIALS} trials, median: {median:.2f}, wanted "
        f"{WANTED:g} or less; inf: not reached in {PRUNED_TRIALS * TRIALS} trials."
    )
    return Table("Statlog: search with racing beside TPE", pd.DataFrame(rows), note)


# the classifiers


def _searched_model(values: Values, labels: Labels, seed: int, quick: bool) -> Pipeline:
    """Support vectors with the parameters that a search finds in these pixels."""
    trials = 15 if quick else TRIALS
    found = searched(CrossValidated(values, labels, True), trials, seed).found
    return support_vectors(**found.parameters).fit(values, labels)


def _tuned(model: Any, grid: dict[str, list[Any]]) -> Callable[[Values, Labels], Any]:
    """A model fitted with the best parameters of a grid, by three folds of the training pixels."""
    return lambda values, labels: GridSearchCV(clone(model), grid, cv=FOLDS).fit(values, labels)


def _programs(seed: int, quick: bool) -> dict[str, Callable[[Values, Labels], Any]]:
    trees = 50 if quick else 150
    rounds = 30 if quick else 80
    vectors = make_pipeline(StandardScaler(), SVC())
    network = make_pipeline(
        StandardScaler(),
        MLPClassifier((64, 64), early_stopping=True, max_iter=200, random_state=seed),
    )
    return {
        "Warte's search (support vectors)": lambda x, y: _searched_model(x, y, seed, quick),
        "support vectors, grid": _tuned(
            vectors, {"svc__C": [1, 10, 100], "svc__gamma": [0.03, 0.1, 0.3]}
        ),
        "random forest, grid": _tuned(
            RandomForestClassifier(trees, random_state=seed), {"max_features": [4, 12]}
        ),
        "histogram boosting, grid": _tuned(
            HistGradientBoostingClassifier(max_iter=rounds, random_state=seed),
            {"learning_rate": [0.1, 0.2]},
        ),
        "small network": lambda x, y: clone(network).fit(x, y),
    }


def _classifiers(values: Values, labels: Labels, seed: int, quick: bool, progress: Report) -> Table:
    folds = QUICK_OUTER if quick else OUTER
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    programs = _programs(seed, quick)
    rows: list[dict[str, object]] = []
    for number, (name, fit) in enumerate(programs.items()):
        progress("statlog: classifiers", number, len(programs))
        used, right = time.process_time(), 0
        for learn, judge in splits.split(values, labels):
            model = fit(values[learn], labels[learn])
            right += int((model.predict(values[judge]) == labels[judge]).sum())
        share = right / len(labels)
        error = (share * (1 - share) / len(labels)) ** 0.5
        rows.append(
            {
                "classifier": name,
                "accuracy": f"{share:.4f} ± {error:.4f}",
                "core (s)": round(time.process_time() - used, 1),
            }
        )
    progress("statlog: classifiers", len(programs), len(programs))
    note = (
        f"{len(labels)} pixels, {folds} folds; parameters are chosen inside each training part "
        "alone. The error is that of a share of so many pixels. Pixels are mixed before they are "
        "dealt into folds, as others do it: some lie beside those that they are judged by."
    )
    return Table("Statlog: classifiers, cross-validated", pd.DataFrame(rows), note)
