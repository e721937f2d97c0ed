"""Search for the best hyperparameters with Optuna, by one process or by many that share a study.

The sampler is the tree-structured Parzen estimator: Bergstra, Bardenet, Bengio & Kégl, "Algorithms
for hyper-parameter optimization", NeurIPS 2011, of all parameters together (Falkner, Klein &
Hutter, ICML 2018). A trial that was given up counts with the value that it would probably have
reached.

Trials that look bad early are given up by racing: complete trials show how far a value at a step
goes on to change, and a trial that would have to gain much more than that to become the best is
given up. With steps that are folds of a cross-validation, this compares fold by fold (Birattari et
al., "A racing algorithm for configuring metaheuristics", GECCO 2002). Others: successive halving
(Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020), Hyperband, which
halves with several degrees of patience (Li et al., JMLR 18, 2018), or giving up what is worse than
the median of the others at that step.

Each trial draws from random numbers of its own place in the study. So a study of one worker that
was stopped and goes on is the study that was not stopped; but for Hyperband, whose degrees of
patience go by the number of a trial, and numbers of trials that died are not used again.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from warte.core.data.resume import fingerprint
from warte.core.data.runs import kept_beside
from warte.core.errors import InputError, MissingExtraError, SettingsError
from warte.core.execute import ordered

Report = Callable[[str, int, int | None], None]  # (step, done, total or None)
# What is searched: it gets an Optuna trial, asks it for parameters (`suggest_float`...), may tell
# it how well it does so far (`report(value, step)`, steps from 1) and give up where it
# `should_prune()` by raising optuna.TrialPruned; it returns the value that is wanted.
Objective = Callable[[Any], float]
Pruner = Literal["none", "median", "halving", "hyperband", "racing"]

PRUNERS = ("none", "median", "halving", "hyperband", "racing")
RACED = 5  # complete trials below which racing gives up none
WIDE = 1.0  # a trial is given up where it would have to gain so many deviations more than others
FEW = 20  # complete trials below which importances say little
OWNER = "owner"  # attribute of a trial: the process that runs it
UNOWNED_S = 60.0  # a running trial that nobody claims is dead after this time
HEARTBEAT_S = 60  # how often a trial in a database says that it is alive


@dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    trials: int = 50  # in all, with those that the storage holds already
    seed: int = 0
    direction: Literal["minimize", "maximize"] = "minimize"
    storage: str = ""  # a journal file, or the URL of a database; shared by all that search
    study: str = "search"  # name of the study in the storage
    pruner: Pruner = "racing"
    steps: int = 0  # steps of a trial that is not pruned, for hyperband; 0: learnt from the first
    patience: int = 1  # steps before any trial is pruned
    random: int = 10  # trials drawn at random before the sampler learns from them

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("steps", 0), ("patience", 1), ("random", 1)):
            value = getattr(self, name)
            if value < least:
                raise SettingsError(f"--{name} {value}: it must be {least} or more")
        if self.seed < 0:
            raise SettingsError(f"--seed {self.seed}: it must be 0 or more")
        if self.pruner not in PRUNERS:
            raise SettingsError(f"--pruner {self.pruner}: it must be one of {', '.join(PRUNERS)}")
        if self.direction not in ("minimize", "maximize"):
            raise SettingsError(f"--direction {self.direction}: it must be minimize or maximize")


@dataclass(frozen=True)
class Searched:
    """What a search found.

    value, parameters, number: of the best complete trial. trials: one row per trial: number, state
    (complete, pruned, failed, running), value (of a pruned one the last that it reported), steps
    (reported), seconds, and one column per parameter. importances: parameter and importance (sums
    to 1), the largest first; empty below two complete trials. note: what has to be known to read
    them, or "".
    """

    value: float
    parameters: dict[str, Any]
    number: int
    trials: pd.DataFrame
    importances: pd.DataFrame
    note: str


def search(
    objective: Objective,
    settings: SearchSettings,
    out: Path,
    *,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Searched:
    """Run the trials that the study still lacks, and write what it found.

    Args:
        objective: see `Objective`; can be pickled.
        settings: without a storage the study lies beside `out` until the run is complete, and
            the same command goes on with it after a kill.
        out: gets trials.csv, importances.csv and best.json, with the columns of `Searched`.
        pool: from `warte.core.execute.executor`; one trial for each worker at a time.
        report: called with ("trials", done, total).

    Trials that a dead process left running are given up and tried again with the same parameters;
    those of other machines only where the storage is a database, because they cannot be looked at.

    Raises:
        MissingExtraError: Optuna is not installed.
        SettingsError: the storage holds this study with another direction, or cannot be opened.
        InputError: no trial was completed.
    """
    optuna = _optuna()
    storage = settings.storage or _beside(objective, settings, out)
    with _quiet(optuna):
        study = _study(storage, settings)
        _requeue_dead(optuna, study)
        missing = settings.trials - _counted(optuna, study)
        one = partial(_run_one, objective, storage, settings)
        if report is not None:
            report("trials", settings.trials - max(0, missing), settings.trials)
        for _ in ordered(pool, one, range(missing)):
            if report is not None:
                report("trials", min(_counted(optuna, study), settings.trials), settings.trials)
        found = _searched(optuna, study, settings)
    _write(found, out)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as problem:
        raise MissingExtraError("optuna", "search") from problem
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from writing a line for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _beside(objective: Objective, settings: SearchSettings, out: Path) -> str:
    """Journal of a study that only this command uses."""
    key = fingerprint(objective, settings.direction, settings.study, settings.seed)
    folder = kept_beside(out)
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"study-{key[:16]}.journal")


def _run_one(objective: Objective, storage: str, settings: SearchSettings, _: int) -> None:
    """Run one trial of the study, unless it has all of them."""
    optuna = _optuna()
    with _quiet(optuna):
        study = _study(storage, settings)
        if _counted(optuna, study) < settings.trials:
            study.optimize(partial(_owned, objective), n_trials=1)


def _owned(objective: Objective, trial: Any) -> float:
    """The objective of a trial that says which process runs it."""
    trial.set_user_attr(OWNER, [platform.node(), os.getpid(), _born(os.getpid())])
    return objective(trial)


def _born(pid: int) -> str:
    """When a process of this machine started, in ticks; "" where it is gone or cannot be asked."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[19]


def _study(storage: str, settings: SearchSettings) -> Any:
    """The study, made where there is none."""
    optuna = _optuna()
    try:
        study = optuna.create_study(
            storage=_storage(optuna, storage),
            sampler=_sampler(optuna, settings),
            pruner=_pruner(optuna, settings),
            study_name=settings.study,
            direction=settings.direction,
            load_if_exists=True,
        )
    except Exception as problem:
        raise SettingsError(
            f"--storage {storage} cannot be opened ({str(problem).splitlines()[0]}); give a file, "
            "or a URL such as sqlite:///study.db"
        ) from problem
    if study.direction.name.lower() != settings.direction:
        raise SettingsError(
            f"--storage {storage} holds the study {settings.study}, which has to "
            f"{study.direction.name.lower()}; give another --study"
        )
    return study


@lru_cache(maxsize=1)
def _storage(optuna: Any, place: str) -> Any:
    """The storage at a place; opened once by a worker that runs trial after trial."""
    if "://" in place:
        with warnings.catch_warnings():
            # Optuna calls heartbeats experimental; without them a dead node's trials run for ever.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(place, heartbeat_interval=HEARTBEAT_S)
    backend = optuna.storages.journal.JournalFileBackend(place)
    return optuna.storages.JournalStorage(backend)


def _pruner(optuna: Any, settings: SearchSettings) -> Any:
    pruners, least = optuna.pruners, settings.patience
    match settings.pruner:
        case "median":
            return pruners.MedianPruner(n_startup_trials=settings.random, n_warmup_steps=least)
        case "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=3)
        case "racing":
            return _racing(optuna, least)
        case "hyperband":
            return pruners.HyperbandPruner(
                min_resource=least, max_resource=settings.steps or "auto", reduction_factor=3
            )
        case _:
            return pruners.NopPruner()


def _racing(optuna: Any, least: int) -> Any:
    """A pruner that gives up what will hardly become the best."""

    class Racing(optuna.pruners.BasePruner):  # type: ignore[misc]
        """Defined here because Optuna is imported late."""

        def prune(self, study: Any, trial: Any) -> bool:
            step = trial.last_step
            if step is None or step < least:
                return False
            sign = _sign(study)
            complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            gains = _gains(complete, step, sign)
            if len(gains) < _better(RACED):
                return False
            spread = gains.std(ddof=1) * (1 + 1 / len(gains)) ** 0.5
            hoped = sign * trial.intermediate_values[step] + gains.mean() + WIDE * spread
            return bool(hoped < max(sign * other.value for other in complete))

    return Racing()


def _sign(study: Any) -> float:
    """What makes more of a value better."""
    return 1.0 if study.direction.name == "MAXIMIZE" else -1.0


def _better(count: int) -> int:
    """How many trials the better half of so many are."""
    return (count + 1) // 2


def _gains(complete: list[Any], step: int, sign: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How much the better half of the complete trials gained from a step to the end.

    The better half only, because what bad trials do after a step says little about good ones.
    """
    told = [trial for trial in complete if step in trial.intermediate_values]
    told.sort(key=lambda trial: (-sign * trial.value, trial.number))
    better = told[: _better(len(told))]
    return np.array([sign * (trial.value - trial.intermediate_values[step]) for trial in better])


def _sampler(optuna: Any, settings: SearchSettings) -> Any:
    """TPE whose random numbers depend on the seed and the place of the trial alone."""
    state = optuna.trial.TrialState
    space = optuna.search_space.IntersectionSearchSpace(include_pruned=True)

    class PlacedSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
        """Defined here because Optuna is imported late."""

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            found = space.calculate(study).items()
            return {name: values for name, values in found if not values.single()}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            done = study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))
            if len(done) < settings.random or not search_space:
                return {}
            known = _finished(optuna, done, _sign(study))
            learnt = optuna.create_study(
                direction=settings.direction,
                sampler=_tpe(1, _seed(study, trial, "relative"), multivariate=True),
            )
            learnt.add_trials(known)
            return learnt.ask(search_space).params

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            sampler = _tpe(settings.random, _seed(study, trial, name), multivariate=False)
            return sampler.sample_independent(study, trial, name, distribution)

    def _tpe(random: int, seed: int, *, multivariate: bool) -> Any:
        with warnings.catch_warnings():
            # Optuna calls it experimental since 2020.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=random, seed=seed, multivariate=multivariate
            )

    def _seed(study: Any, trial: Any, use: str) -> int:
        lost = study.get_trials(deepcopy=False, states=(state.FAIL,))
        place = trial.number - sum(other.number < trial.number for other in lost)
        words = [settings.seed, place, zlib.crc32(use.encode())]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    return PlacedSampler()


def _finished(optuna: Any, done: list[Any], sign: float) -> list[Any]:
    """Complete and pruned trials, all as complete ones; pruned ones with the value to be expected.

    Otherwise the sampler would take each complete trial for better than each pruned one.
    """
    complete = [trial for trial in done if trial.state.name == "COMPLETE"]
    known = []
    for trial in done:
        value, step = trial.value, trial.last_step
        if value is None and step is not None:  # given up
            gains = _gains(complete, step, sign)
            value = trial.intermediate_values[step] + sign * (gains.mean() if len(gains) else 0.0)
        if value is None or not np.isfinite(value):
            continue
        known.append(
            optuna.create_trial(
                params=trial.params, distributions=trial.distributions, value=float(value)
            )
        )
    return known


def _requeue_dead(optuna: Any, study: Any) -> None:
    """Give up the trials of processes that have died, and have them tried again."""
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:
        if not _dead(trial):
            continue
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _dead(trial: Any) -> bool:
    owner = trial.user_attrs.get(OWNER)
    if owner is None:
        age = datetime.datetime.now() - trial.datetime_start
        return bool(age.total_seconds() > UNOWNED_S)
    host, pid, born = owner
    return bool(host == platform.node() and _born(pid) != born)


def _counted(optuna: Any, study: Any) -> int:
    """Trials that are done or under way."""
    state = optuna.trial.TrialState
    states = (state.COMPLETE, state.PRUNED, state.RUNNING)
    return len(study.get_trials(deepcopy=False, states=states))


def _searched(optuna: Any, study: Any, settings: SearchSettings) -> Searched:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise InputError(
            f"none of {len(trials)} trials was completed; look at what they report, or give more "
            "--trials or --pruner none"
        )
    best = study.best_trial
    importances, note = _importances(optuna, study, len(complete))
    return Searched(
        float(best.value),
        dict(best.params),
        best.number,
        pd.DataFrame([_row(trial) for trial in trials if trial.state.name != "WAITING"]),
        importances,
        note,
    )


def _row(trial: Any) -> dict[str, Any]:
    """One line of the table of trials."""
    words = {"FAIL": "failed"}
    value = trial.value
    if value is None:
        value = trial.intermediate_values.get(trial.last_step, float("nan"))
    return {
        "number": trial.number,
        "state": words.get(trial.state.name, trial.state.name.lower()),
        "value": value,
        "steps": len(trial.intermediate_values),
        "seconds": trial.duration.total_seconds() if trial.duration else float("nan"),
        **trial.params,
    }


def _importances(optuna: Any, study: Any, complete: int) -> tuple[pd.DataFrame, str]:
    """How much of the variance among the better trials each parameter decides.

    PED-ANOVA: Watanabe, Bansal & Hutter, IJCAI 2023.
    """
    names = ["parameter", "importance"]
    if complete < 2:
        return pd.DataFrame(columns=names), "one complete trial: no importances"
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with warnings.catch_warnings(record=True) as doubts:
            # Optuna says so where trials are too few, or too many of them do equally well.
            warnings.simplefilter("always", UserWarning)
            found: Mapping[str, float] = optuna.importance.get_param_importances(
                study, evaluator=evaluator
            )
    except (ValueError, RuntimeError, ZeroDivisionError) as problem:
        return pd.DataFrame(columns=names), f"no importances: {problem}"
    little = complete < FEW or bool(doubts)
    note = f"importances of {complete} complete trials say little" if little else ""
    return pd.DataFrame(list(found.items()), columns=names), note


def _write(found: Searched, out: Path) -> None:
    found.trials.to_csv(out / "trials.csv", index=False)
    found.importances.to_csv(out / "importances.csv", index=False)
    best = {"number": found.number, "value": found.value, "parameters": found.parameters}
    text = json.dumps(best, indent=2, ensure_ascii=False)
    (out / "best.json").write_text(text + "\n", encoding="utf-8")
