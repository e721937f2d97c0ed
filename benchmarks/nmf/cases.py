"""The three races: Frobenius, Kullback-Leibler, and weighted with hidden entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.nmf import data, programs
from benchmarks.nmf.data import QUICK_SHAPE, SHAPE, Problem
from benchmarks.nmf.race import Curve, Entrant, run_one, summary
from benchmarks.page import Table

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Race:
    """A race: its programs, Warte's first; the target is a share above the best known loss."""

    name: str
    title: str
    beta: int
    target: float
    limit_s: float  # how long a program is watched
    entrants: tuple[Entrant, ...]
    note: str


FROBENIUS = Race(
    "frobenius",
    "Frobenius: time to within 1e-4 of the best known loss",
    2,
    1e-4,
    20.0,
    (
        Entrant("Warte hals", programs.warte_hals),
        Entrant("scikit-learn CD", programs.sklearn_cd, 2.5),
        Entrant("torchnmf", programs.torchnmf_frobenius, 20.0),
    ),
    "A product of rank 20 and mean 1 with normal noise, cut at zero; rank 20.",
)
KL = Race(
    "kl",
    "Kullback-Leibler: time to within 1 % of the best known loss",
    1,
    1e-2,
    25.0,
    (
        Entrant("Warte poisson", programs.warte_poisson),
        Entrant("plain MU", programs.plain_kl, 5.0),
        Entrant("scikit-learn MU", programs.sklearn_kl, 5.0),
        Entrant("torchnmf", programs.torchnmf_kl),
    ),
    "Poisson counts of a product of rank 20, and magnitudes of an audio clip (1025x1292); rank 20. "
    "Plain MU are Warte's own multiplicative updates without looks at the loss. The clip has many "
    "local optima, and who finds a better one sets the target for all.",
)
WEIGHTED = Race(
    "weighted",
    "Weighted: time to within 1 % of the best known chi-square",
    2,
    1e-2,
    30.0,
    (
        Entrant("Warte weighted", programs.warte_weighted),
        Entrant("NonnegMFPy", programs.nonnegmfpy, 10.0),
    ),
    "20 % of the entries hidden, inverse variances over three orders of magnitude; rank 20. "
    "Wanted of Warte: 45 ms per iteration or less on two threads.",
)
RACES = (FROBENIUS, KL, WEIGHTED)


def problems(race: Race, quick: bool, seed: int) -> Iterator[Problem]:
    """The problems of a race for one seed."""
    shape = QUICK_SHAPE if quick else SHAPE
    if race is FROBENIUS:
        yield data.gaussian(shape, 0.1, seed)
        if not quick:
            yield data.gaussian(shape, 1.0, seed)
    elif race is KL:
        yield data.counts(shape, 10.0, False, seed)
        if not quick:
            yield data.counts(shape, 1.0, False, seed)
            yield data.counts(shape, 10.0, True, seed)
            clip = data.spectrogram("vibeace_stft.npz", seed)
            if clip is not None:
                yield clip
    else:
        yield data.weighted(shape, seed)


def run_race(
    race: Race,
    *,
    quick: bool,
    threads: Sequence[int],
    seeds: Sequence[int],
    limit_s: float | None,
    progress: Progress,
) -> tuple[Table, list[Curve]]:
    """Run every program on every problem, number of threads and seed; programs take turns."""
    limit = limit_s or (race.limit_s / 5 if quick else race.limit_s)
    curves: list[Curve] = []
    for number, seed in enumerate(seeds):
        for problem in problems(race, quick, seed):
            for count in threads:
                for entrant in race.entrants:
                    progress(race.name, number, len(seeds))
                    curves.append(
                        run_one(
                            race.name,
                            entrant,
                            problem,
                            beta=race.beta,
                            target=race.target,
                            limit_s=limit,
                            threads=count,
                            seed=seed,
                        )
                    )
    progress(race.name, len(seeds), len(seeds))
    shape = "x".join(map(str, QUICK_SHAPE if quick else SHAPE))
    note = (
        f"{race.note} {shape}, float32, the same random start; medians of {len(seeds)} seeds; each "
        f"program was watched for at most {limit:g} s. The loss is computed in double precision "
        "while the clock stands."
    )
    return Table(race.title, summary(curves, race.entrants, race.target), note), curves
