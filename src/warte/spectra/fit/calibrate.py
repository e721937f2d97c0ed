"""What an evidence ratio is worth: thresholds and probabilities from simulated galaxies.

Galaxies with one and with two components are drawn with all that real ones have beside their lines
(starlight that no polynomial follows, correlated noise, remains of the night sky, missing pixels)
and fitted as any other. A threshold is the quantile of the ratio among those with one component, by
signal-to-noise ratio; fits that break a rule of `choose.pair_faults` count as below every
threshold. The probability is the share of galaxies with two components among those with such a
ratio, when both kinds are equally common and drawn as `mix` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from warte.core.errors import SettingsError
from warte.spectra import presets
from warte.spectra.fit.batch import WINDOWS, Batch, batches
from warte.spectra.fit.choose import FitSettings, compare
from warte.spectra.fit.fitted import BoolArray
from warte.spectra.simulate import SimulateSettings, simulate
from warte.spectra.spectrum import FloatArray, Spectrum

Windows = tuple[bool, bool]
KINDS: dict[str, Windows] = {"blue": (True, False), "red": (False, True), "both": (True, True)}
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # false positives for which thresholds are kept
TAIL = 0.02  # share of spectra beyond which the ratios are taken to fall off exponentially
BINS = 4  # of signal-to-noise ratio, with as many spectra of one component each
KNOTS = 12  # of the map to probabilities in each bin
BLOCK = 500  # galaxies simulated at once
CARD = "evidence.json"
CLASS_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 0.0, 0.0)  # of `lines.CLASSES`: those of narrow lines alone
REDSHIFTS = (0.005, 0.34)  # both windows lie on the detectors


@dataclass(frozen=True)
class Calibration:
    """Thresholds and probabilities for each kind of windows and S/N.

    snr: kind -> (B,) centres of the bins, flux over its error of the most significant line.
    thresholds: kind -> (B, R) log evidence ratio at each of `rates`.
    rates: (R,) shares of false positives.
    knots, chances: kind -> (B, J) log evidence ratio, rising, and probability of two there.
    unsound: kind -> (B,) probability of two where a rule forbids the pair.
    """

    rates: FloatArray
    snr: dict[str, FloatArray]
    thresholds: dict[str, FloatArray]
    knots: dict[str, FloatArray]
    chances: dict[str, FloatArray]
    unsound: dict[str, FloatArray]

    def threshold(self, windows: Windows, snr: FloatArray, rate: float) -> FloatArray:
        """(N,) log evidence ratio above which `rate` of the spectra with one component lie.

        Beyond the calibrated range of S/N the end of it counts.
        """
        kind = _kind(windows)
        levels = [np.interp(np.log(rate), np.log(self.rates), row) for row in self.thresholds[kind]]
        return np.interp(_log(snr), np.log(self.snr[kind]), levels)

    def probability(
        self, windows: Windows, snr: FloatArray, ratio: FloatArray, sound: BoolArray
    ) -> FloatArray:
        """(N,) probability of two components when one and two are equally common; NaN for NaN."""
        kind = _kind(windows)
        rows = zip(self.knots[kind], self.chances[kind], self.unsound[kind], strict=True)
        table = np.stack(
            [np.where(sound, np.interp(ratio, knots, p), low) for knots, p, low in rows]
        )  # (B, N)
        place = np.interp(_log(snr), np.log(self.snr[kind]), np.arange(len(table)))
        below = np.minimum(place.astype(int), len(table) - 2)
        part = place - below
        each = np.arange(ratio.size)
        chance = (1 - part) * table[below, each] + part * table[below + 1, each]
        return np.where(np.isnan(ratio), np.nan, chance)


def _kind(windows: Windows) -> str:
    return next(name for name, value in KINDS.items() if value == windows)


def _log(snr: FloatArray) -> FloatArray:
    return np.log(np.maximum(np.nan_to_num(snr), 1e-3))


@lru_cache(maxsize=1)
def shipped() -> Calibration:
    """The calibration that is part of the package."""
    text = resources.files("warte.spectra").joinpath("weights", CARD).read_text("utf-8")
    return from_card(json.loads(text))


def from_card(card: dict[str, Any]) -> Calibration:
    """The calibration of a card as `calibrate` makes it."""
    tables = {
        name: {kind: np.array(card[f"{name}_{kind}"], dtype=np.float64) for kind in KINDS}
        for name in ("snr", "thresholds", "knots", "chances", "unsound")
    }
    return Calibration(np.array(card["rates"], dtype=np.float64), **tables)


@dataclass(frozen=True)
class CalibrateSettings:
    """How the evidence is calibrated."""

    count: int = 4000  # galaxies of each kind of windows with one component, and with two
    seed: int = 1  # of the galaxies

    def __post_init__(self) -> None:
        if self.count < 100:
            raise SettingsError(f"count is {self.count}; allowed is 100 or more")


def mix(components: int, count: int) -> SimulateSettings:
    """Galaxies with lines, all with so many components, as a network learns from them too."""
    return replace(
        presets.training(),
        count=count,
        class_weights=CLASS_WEIGHTS,
        two_fraction=float(components == 2),
        z=REDSHIFTS,
    )


def galaxies(
    windows: Windows, components: int, count: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """About `count` galaxies of `mix`, as fitted in these windows alone."""
    hidden = [window for window, use in zip(WINDOWS, windows, strict=True) if not use]
    for low in range(0, count, BLOCK):
        spectra, _ = simulate(mix(components, min(BLOCK, count - low)), rng)
        found, _ = batches([_without(spectrum, hidden) for spectrum in spectra])
        yield from (batch for batch in found if batch.windows == windows)


def _without(spectrum: Spectrum, hidden: Sequence[tuple[float, float]]) -> Spectrum:
    """The spectrum with the pixels of these windows missing."""
    rest = spectrum.rest_wavelength
    lost = np.zeros(rest.size, dtype=bool)
    for low, high in hidden:
        lost |= (rest >= low) & (rest <= high)
    return replace(
        spectrum,
        flux=np.where(lost, np.nan, spectrum.flux),
        ivar=np.where(lost, 0.0, spectrum.ivar),
    )


def write_calibration(
    settings: CalibrateSettings,
    folder: Path,
    *,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Calibrate, and write the card as evidence.json into an existing folder; the card."""
    card = calibrate(settings, report=report)
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def calibrate(
    settings: CalibrateSettings, *, report: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """A card with thresholds and probabilities. `report` gets the parts done and all parts."""
    card: dict[str, Any] = {
        "model": "log evidence ratio to threshold and probability, by windows and S/N",
        "command": f"warte spectra train --only evidence --seed {settings.seed} --out DIR",
        "data": "simulated galaxies, equally many with one and with two components",
        "mix": asdict(mix(2, settings.count)),
        "seed": settings.seed,
        "count": settings.count,
        "rates": list(RATES),
    }
    rng = np.random.default_rng(settings.seed)
    figures: dict[str, float] = {}
    for done, (kind, windows) in enumerate(KINDS.items()):
        parts = []
        for number in (1, 2):
            parts.append(_statistics(galaxies(windows, number, settings.count, rng)))
            if report is not None:
                report(2 * done + number, 2 * len(KINDS))
        card |= {f"{name}_{kind}": value for name, value in _tables(*parts).items()}
        figures[f"auc_{kind}"] = round(_auc(*parts), 4)
    return card | {"figures": figures}


def _auc(one: _Statistics, two: _Statistics) -> float:
    """Chance that a galaxy with two components has a higher ratio than one with one."""
    ranks = rankdata(np.concatenate([one.ratio, two.ratio]))[one.ratio.size :]
    excess = ranks.sum() - two.ratio.size * (two.ratio.size + 1) / 2
    return float(excess / (one.ratio.size * two.ratio.size))


@dataclass(frozen=True)
class _Statistics:
    """Of spectra with finite fits: log ratio, -inf where a rule forbids the pair, and S/N."""

    ratio: FloatArray
    snr: FloatArray


def _statistics(drawn: Iterable[Batch]) -> _Statistics:
    ratio, snr = [], []
    for batch in drawn:
        compared = compare(batch.lines, batch.windows, FitSettings())
        known = np.isfinite(compared.log_ratio)
        ratio.append(np.where(compared.fault == "", compared.log_ratio, -np.inf)[known])
        snr.append(compared.snr[known])
    return _Statistics(np.concatenate(ratio), np.concatenate(snr))


def _tables(one: _Statistics, two: _Statistics) -> dict[str, Any]:
    """The entries of a card for one kind of windows, from S/N bins of equally many single lines."""
    edges = np.quantile(one.snr, np.linspace(0, 1, BINS + 1))
    edges[0], edges[-1] = -np.inf, np.inf
    found: dict[str, list[Any]] = {
        name: [] for name in ("snr", "thresholds", "knots", "chances", "unsound")
    }
    for low, high in pairwise(edges):
        single, double = (s.ratio[(s.snr > low) & (s.snr <= high)] for s in (one, two))
        knots, chances, unsound = _chances(single, double)
        middle = one.snr[(one.snr > low) & (one.snr <= high)]
        found["snr"].append(round(float(np.exp(np.log(middle).mean())), 2))
        found["thresholds"].append([round(float(_threshold(single, rate)), 3) for rate in RATES])
        found["knots"].append([round(float(value), 3) for value in knots])
        found["chances"].append([round(float(value), 4) for value in chances])
        found["unsound"].append(round(unsound, 4))
    return found


def _threshold(single: FloatArray, rate: float) -> float:
    """The ratio that `rate` of the spectra with one component exceed, at least 0.

    Below TAIL it follows from an exponential tail with the median excess of those beyond, which
    is far less noisy than a quantile of few spectra and does not mind a fit gone astray. It is at
    least 0: evidence must speak for two even where the rules alone keep the rate.
    """
    start = max(float(np.quantile(single, 1 - max(rate, TAIL), method="higher")), 0.0)
    if rate >= TAIL:
        return start
    beyond = single[single > start]
    if not beyond.size:
        return start
    scale = float(np.median(beyond - start)) / np.log(2)
    return max(start + scale * float(np.log(beyond.size / single.size / rate)), 0.0)


def _chances(single: FloatArray, double: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Knots and probabilities of two there, rising; and the probability where a rule forbids it.

    Each knot is the mean of as many spectra; single and double ones weigh the same in total.
    """
    ratio = np.concatenate([single, double])
    two = np.repeat([0.0, 1.0], [single.size, double.size])
    weight = np.repeat([1 / single.size, 1 / double.size], [single.size, double.size])
    sound = np.isfinite(ratio)
    unsound = np.average(two[~sound], weights=weight[~sound]) if (~sound).any() else 0.0
    ratio, two, weight = ratio[sound], two[sound], weight[sound]
    order = np.argsort(ratio, kind="stable")
    parts = np.array_split(order, KNOTS)
    knots = np.array([ratio[part].mean() for part in parts])
    share = np.array([np.average(two[part], weights=weight[part]) for part in parts])
    total = np.array([weight[part].sum() for part in parts])
    chances = isotonic_regression(share, weights=total).x
    return knots, np.clip(chances, 0.001, 0.999), float(unsound)
