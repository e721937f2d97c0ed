"""A search finds the known best place, goes on after a kill, and shares its study."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from warte.core.errors import InputError, MissingExtraError, SettingsError
from warte.core.search import SearchSettings, _finished, search

optuna = pytest.importorskip("optuna")


def valley(trial: Any) -> float:
    """Least at x = 2 with kind "a": 0; y does not matter much."""
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    y = trial.suggest_float("y", 0, 1)
    value = (x - 2) ** 2 + 3 * (kind == "b") + 0.01 * y
    for step in range(1, 10):
        trial.report(value + 1 / step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(value)


def valley_that_kills(trial: Any) -> float:
    trial.suggest_float("x", -5, 5)
    if trial.number == int(os.environ.get("KILL", -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    return valley(trial)


def only_pruned(trial: Any) -> float:
    raise optuna.TrialPruned


def level(trial: Any) -> float:
    trial.suggest_float("x", 0, 1)
    trial.suggest_float("y", 0, 1)
    return 1.0


def same_trials(one: pd.DataFrame, two: pd.DataFrame) -> None:
    columns = ["state", "value", "steps", "x", "kind", "y"]
    kept = [table[table["state"] != "failed"][columns] for table in (one, two)]
    pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in kept))


def run(out: Path, objective: Any = valley, **settings: Any) -> Any:
    out.mkdir(parents=True, exist_ok=True)
    return search(objective, SearchSettings(**settings), out)


def test_the_best_place_is_found_and_written(tmp_path: Path) -> None:
    found = run(tmp_path / "out", trials=30, pruner="none")
    assert found.parameters["kind"] == "a"
    assert abs(found.parameters["x"] - 2) < 0.5
    assert found.value == pytest.approx(
        (found.parameters["x"] - 2) ** 2 + 0.01 * found.parameters["y"]
    )
    assert found.note == ""
    order = list(found.importances["parameter"])
    assert order[0] == "x"
    assert found.importances["importance"].sum() == pytest.approx(1)
    written = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert list(written["number"]) == list(range(30))
    assert written["value"].min() == pytest.approx(found.value)
    assert json.loads((tmp_path / "out" / "best.json").read_text())["number"] == found.number


@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median", "racing"])
def test_bad_trials_are_given_up_early(tmp_path: Path, pruner: str) -> None:
    found = run(tmp_path / "out", trials=24, pruner=pruner, steps=9, random=5)
    pruned = found.trials[found.trials["state"] == "pruned"]
    assert len(pruned) >= 2
    assert pruned["steps"].median() < 9
    complete = found.trials[found.trials["state"] == "complete"]
    assert (complete["steps"] == 9).all()
    later = complete[complete["number"] >= 5]  # racing gives up none of the first five
    assert later["value"].median() < pruned["value"].median()


def lesson(trial: Any) -> float:
    """From number to value; each gains exactly 3 after its first step, less 0.1 now and then."""
    trial.suggest_float("x", 0, 1)
    value = [1.0, 2.0, 5.0, 4.0, 3.0, 4.97, 4.95, 0.0][trial.number]
    trial.report(value - 3 + 0.1 * (trial.number == 3), 1)
    if trial.should_prune():
        raise optuna.TrialPruned
    return value


def test_racing_gives_up_what_would_have_to_gain_more_than_others(tmp_path: Path) -> None:
    found = run(tmp_path / "out", lesson, trials=8, pruner="racing", direction="maximize")
    # Five trials without mercy; then the better half gained 3, 2.9, 3 (mean 2.967, deviation
    # 0.067 with that of the mean), so 4.97 may still become the best, and 4.95 and 0 may not.
    assert list(found.trials["state"]) == ["complete"] * 6 + ["pruned"] * 2
    least = run(tmp_path / "least", lesson, trials=8, pruner="racing", patience=2)
    assert (least.trials["state"] == "complete").all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_trial_that_was_given_up_counts_with_what_it_would_have_reached(sign: float) -> None:
    def trial(first: float, value: float | None) -> Any:
        return optuna.create_trial(
            params={"x": 0.5},
            distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            value=None if value is None else sign * value,
            intermediate_values={1: sign * first},
            state=optuna.trial.TrialState["PRUNED" if value is None else "COMPLETE"],
        )

    done = [trial(2, 5), trial(1, 4), trial(0.5, None), trial(0, 0), trial(0, 0)]
    known = _finished(optuna, done, sign)
    # The better half gained 3; of the others, 0 at both steps, nothing is learnt.
    assert [sign * other.value for other in known] == [5, 4, 3.5, 0, 0]


def test_the_same_seed_gives_the_same_trials(tmp_path: Path) -> None:
    one, two, other = (run(tmp_path / str(n), trials=14, seed=s) for n, s in enumerate((1, 1, 2)))
    same_trials(one.trials, two.trials)
    assert not np.allclose(one.trials["x"], other.trials["x"])


def test_a_search_that_was_killed_becomes_the_one_that_was_not(tmp_path: Path) -> None:
    unbroken = run(tmp_path / "unbroken", valley_that_kills, trials=16)
    out = tmp_path / "out"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_search as t; from pathlib import Path\n"
        f"t.run(Path({str(tmp_path / 'study')!r}), t.valley_that_kills, trials=16, "
        f"storage={str(tmp_path / 'journal')!r})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "KILL": "12"}, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run(out, valley_that_kills, trials=16, storage=str(tmp_path / "journal"))
    assert (again.trials["state"] == "failed").sum() == 1
    same_trials(again.trials, unbroken.trials)


def test_trials_are_counted_in_all(tmp_path: Path) -> None:
    shared = str(tmp_path / "journal")
    assert len(run(tmp_path / "a", trials=4, storage=shared).trials) == 4
    assert len(run(tmp_path / "b", trials=6, storage=shared).trials) == 6
    assert len(run(tmp_path / "c", trials=6, storage=shared).trials) == 6


def test_a_database_is_shared_too(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path / 'study.db'}"
    run(tmp_path / "a", trials=2, storage=shared, pruner="none")
    found = run(tmp_path / "b", trials=3, storage=shared, pruner="none")
    assert list(found.trials["number"]) == [0, 1, 2]
    assert "say little" in found.note


@pytest.mark.parametrize("trials", [2, 21])
def test_trials_that_do_equally_well_are_a_note_and_no_warning(tmp_path: Path, trials: int) -> None:
    found = run(tmp_path / "out", level, trials=trials)
    assert found.note == f"importances of {trials} complete trials say little"


def test_what_cannot_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="none of 2 trials"):
        run(tmp_path / "a", only_pruned, trials=2)
    for wrong, flag in (
        ({"trials": 0}, "--trials 0"),
        ({"pruner": "best"}, "--pruner best"),
        ({"seed": -1}, "--seed -1"),
        ({"direction": "up"}, "--direction up"),
    ):
        with pytest.raises(SettingsError, match=flag):
            SearchSettings(**wrong)  # type: ignore[arg-type]
    shared = str(tmp_path / "journal")
    run(tmp_path / "b", trials=1, storage=shared)
    with pytest.raises(SettingsError, match="has to minimize"):
        run(tmp_path / "c", trials=1, storage=shared, direction="maximize")
    with pytest.raises(SettingsError, match="cannot be opened"):
        run(tmp_path / "d", trials=1, storage="nonsense://x")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"warte\[search\]"):
        run(tmp_path / "e", trials=1)
