"""The races of the matrix factorisation: clocks, summaries and flags, on tiny matrices."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.__main__ import main
from benchmarks.nmf import programs
from benchmarks.nmf.cases import FROBENIUS, KL, WEIGHTED, Race
from benchmarks.nmf.data import Problem, counts, gaussian, weighted
from benchmarks.nmf.picture import draw, write_json
from benchmarks.nmf.programs import Lap, MissingPeer
from benchmarks.nmf.race import Curve, Entrant, divergence, run_one, summary
from warte.nmf.divergence import beta_divergence

SMALL = (60, 50)


def _problem(race: Race) -> Problem:
    if race is WEIGHTED:
        return weighted(SMALL, 0)
    return gaussian(SMALL, 0.1, 0) if race is FROBENIUS else counts(SMALL, 5.0, False, 0)


def _run(race: Race, entrant: Entrant) -> Curve:
    return run_one(
        race.name, entrant, _problem(race), beta=race.beta, target=race.target, limit_s=0.15,
        threads=1, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("race", "entrant"),
    [
        pytest.param(race, entrant, id=f"{race.name}-{entrant.name}")
        for race in (FROBENIUS, KL, WEIGHTED)
        for entrant in race.entrants
    ],
)
def test_every_program_starts_there_and_comes_down(race: Race, entrant: Entrant) -> None:
    curve = _run(race, entrant)
    if curve.missing:
        pytest.skip(curve.missing)
    problem = _problem(race)
    start = divergence(problem, race.beta, problem.w, problem.h)
    assert curve.laps[0] == (0.0, 0, start)
    assert curve.best() < 0.5 * start
    assert curve.iteration_ms > 0
    seconds, iterations, _ = zip(*curve.laps, strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(iterations) == sorted(set(iterations))


def test_plain_updates_of_all_programs_are_the_same() -> None:
    """After ten of them Warte, scikit-learn and torchnmf have the same loss."""
    problem, losses = counts(SMALL, 5.0, False, 1), {}
    for name in ("plain_kl", "sklearn_kl", "torchnmf_kl"):

        def lap(done: int, w: Tensor, h: Tensor, name: str = name) -> None:
            if done == 10:
                losses[name] = divergence(problem, 1, w, h)
                raise programs.Finished

        with torch.no_grad(), pytest.raises(programs.Finished):
            getattr(programs, name)(problem, lap)
    assert list(losses.values()) == pytest.approx([losses["plain_kl"]] * 3, rel=1e-4)


def test_the_losses_are_those_of_the_package() -> None:
    for race in (FROBENIUS, KL, WEIGHTED):
        problem = _problem(race)
        x, y = problem.x.double(), problem.w.double() @ problem.h.double()
        expected = float(beta_divergence(x, y, race.beta, problem.weights))
        assert divergence(problem, race.beta, problem.w, problem.h) == pytest.approx(expected)


def _curve(program: str, seed: int, *laps: tuple[float, int, float]) -> Curve:
    return Curve("race", "problem", program, 1, seed, list(laps), 1.0)


def test_times_are_to_the_best_of_all_and_medians_of_seeds() -> None:
    curves = [
        _curve("ours", 0, (0.0, 0, 9.0), (1.0, 1, 1.01), (2.0, 2, 1.0)),
        _curve("peer", 0, (0.0, 0, 9.0), (3.0, 5, 1.2), (4.0, 9, 1.01)),
        _curve("ours", 1, (0.0, 0, 9.0), (1.0, 1, 1.0)),
        _curve("peer", 1, (0.0, 0, 9.0), (6.0, 9, 1.2)),
    ]
    entrants = [Entrant("ours", _absent), Entrant("peer", _absent, 5.0)]
    table = summary(curves, entrants, 0.02).set_index("program")
    assert table.loc["ours", "seconds to target"] == "1.00"
    assert table.loc["peer", "seconds to target"] == "> 5.00"
    assert table.loc["peer", "times Warte"] == "> 5.0"
    assert table.loc["peer", "reached"] == "1 of 2"
    assert table.loc["peer", "wanted"] == "5"


def _absent(problem: Problem, lap: Lap) -> None:
    raise MissingPeer("No module named 'peer'")


def test_a_missing_peer_says_so() -> None:
    entrant = Entrant("peer", _absent, 5.0)
    ours = _curve("ours", 0, (0.0, 0, 9.0), (1.0, 1, 1.0))
    curve = _run(KL, entrant)
    curve.problem = "problem"
    table = summary([ours, curve], [Entrant("ours", _absent), entrant], 0.01)
    assert list(table["seconds to target"]) == ["1.00", "not measured: No module named 'peer'"]


def test_the_picture_and_the_laps(tmp_path: Path) -> None:
    curves = [
        _curve("ours", 0, (0.0, 0, 9.0), (1.0, 1, 1.0)),
        _curve("peer", 0, (0.0, 0, 9.0), (3.0, 5, 1.2)),
    ]
    draw(tmp_path / "race.png", curves, {"race": 0.01})
    assert (tmp_path / "race.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    write_json(tmp_path / "race.json", curves)
    read = json.loads((tmp_path / "race.json").read_text())
    assert [one["laps"][-1] for one in read] == [[1.0, 1, 1.0], [3.0, 5, 1.2]]


@pytest.mark.parametrize(
    "flags",
    [["--only", "kl,nonsense"], ["--threads", "0"], ["--repeats", "0"], ["--limit", "-1"]],
)
def test_flags_out_of_range(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["nmf", *flags])
    assert left.value.code == 2
    assert f"argument {flags[0]}" in capsys.readouterr().err


def test_a_picture_needs_a_race(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--picture and --json need a race"):
        main(["nmf", "--only", "nearly", "--picture", str(tmp_path / "race.png")])
