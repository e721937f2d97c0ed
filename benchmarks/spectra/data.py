"""What the parts share: windows as the solver takes them, rates as text, random numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from warte.core.score import wilson_interval
from warte.spectra.fit.batch import batches
from warte.spectra.fit.solve import Lines
from warte.spectra.simulate import Pairs

THREADS = 2  # of the machine that the wanted figures are for
BLUE = (True, False)  # the window of H-beta and [O III] alone
SPEED, SINGLE, DOUBLE, MISSING, NETWORK, SURVEY = range(6)  # streams of random numbers of one seed


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers of one use; the network was trained on other streams."""
    return np.random.default_rng([seed, 9_000, *stream])


def solver_lines(pairs: Pairs) -> tuple[Lines, npt.NDArray[np.int64]]:
    """The pixels of the spectra that can be fitted, and their places among the pairs.

    Raises ValueError where they do not make one batch.
    """
    groups, _ = batches(pairs.spectra())
    (batch,) = groups
    return batch.lines, batch.rows


def percent(hits: int, trials: int) -> str:
    """A rate in per cent with its 95 % Wilson interval, as '68.1 (66.0-70.1)'; '-' without."""
    if trials == 0:
        return "-"
    low, high = wilson_interval(hits, trials)
    return f"{100 * hits / trials:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def percent_of(kept: npt.ArrayLike) -> str:
    """The share of true values in per cent, with its interval."""
    values = np.asarray(kept, dtype=bool)
    return percent(int(values.sum()), values.size)
