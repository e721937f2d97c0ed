"""The calibration: tables, their interpolation, and the rate that the shipped one keeps."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import warte.spectra.fit.calibrate as module
from warte.core.errors import SettingsError
from warte.spectra.fit.calibrate import (
    KINDS,
    RATES,
    CalibrateSettings,
    Windows,
    _chances,
    _threshold,
    from_card,
    galaxies,
    mix,
    shipped,
    write_calibration,
)
from warte.spectra.fit.choose import Comparison, FitSettings, compare
from warte.spectra.fit.layout import layout_for


def test_thresholds_of_an_exponential_tail() -> None:
    ratios = np.random.default_rng(1).exponential(1.5, 40_000) - 1.0
    for rate in (0.001, 0.01, 0.03):
        assert _threshold(ratios, rate) == pytest.approx(-1.5 * np.log(rate) - 1.0, rel=0.05)
    assert _threshold(ratios, 0.1) == pytest.approx(np.quantile(ratios, 0.9), abs=0.01)


def test_a_threshold_is_never_negative_and_counts_forbidden_pairs_as_below() -> None:
    assert _threshold(np.full(1000, -np.inf), 0.01) == 0.0
    assert _threshold(np.linspace(-3, -1, 1000), 0.01) == 0.0
    mixed = np.concatenate([np.full(9000, -np.inf), np.linspace(0, 10, 1000)])
    assert _threshold(mixed, 0.1) == pytest.approx(0.0, abs=0.02)
    assert 3 < _threshold(mixed, 0.01) < 12


def test_probabilities_are_those_of_two_normal_distributions() -> None:
    # With equal widths 1 and means 0 and 3 the log odds are 3 x - 4.5.
    rng = np.random.default_rng(2)
    single, double = rng.normal(0, 1, 30_000), rng.normal(3, 1, 10_000)
    single[:3000] = -np.inf
    double[:500] = -np.inf
    knots, chances, unsound = _chances(single, double)
    assert np.all(np.diff(knots) > 0)
    assert np.all(np.diff(chances) >= 0)
    assert unsound == pytest.approx(0.05 / (0.05 + 0.1))
    middle = np.interp(1.5, knots, chances)
    assert middle == pytest.approx(0.95 / (0.95 + 0.9), abs=0.05)
    assert np.interp(3.5, knots, chances) > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_galaxies_are_fitted_in_these_windows_alone(kind: str) -> None:
    found = list(galaxies(KINDS[kind], 2, 30, np.random.default_rng(4)))
    assert 20 <= sum(len(batch.rows) for batch in found) <= 30
    names = layout_for(KINDS[kind]).lines
    for batch in found:
        assert batch.windows == KINDS[kind]
        assert batch.lines.instrument.shape[1] == len(names)
    assert mix(1, 10).two_fraction == 0 and mix(2, 10).two_fraction == 1


def test_a_small_calibration_has_the_form_of_the_shipped_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "KINDS", {"red": KINDS["red"]})
    monkeypatch.setattr(module, "BINS", 2)
    settings = CalibrateSettings(count=100, seed=3)
    card = json.loads(json.dumps(module.calibrate(settings)))
    made = from_card(card)
    assert made.thresholds["red"].shape == (2, len(RATES))
    assert made.chances["red"].shape == made.knots["red"].shape == (2, module.KNOTS)
    told: list[tuple[int, int]] = []
    again = write_calibration(settings, tmp_path, report=lambda *at: told.append(at))
    assert card == json.loads((tmp_path / "evidence.json").read_text())
    assert card == json.loads(json.dumps(again))
    assert told == [(1, 2), (2, 2)]
    file = resources.files("warte.spectra").joinpath("weights/evidence.json")
    assert set(card) <= set(json.loads(file.read_text("utf-8")))
    with pytest.raises(SettingsError, match="100 or more"):
        CalibrateSettings(count=5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_tables_are_sound(kind: str) -> None:
    table, windows = shipped(), KINDS[kind]
    assert np.all(np.diff(table.snr[kind]) > 0)
    assert np.all(np.diff(table.thresholds[kind], axis=1) <= 0)  # rarer is higher
    assert np.all(np.diff(table.knots[kind], axis=1) > 0)
    assert np.all(np.diff(table.chances[kind], axis=1) >= 0)
    snr = np.array([0.0, 3.0, 10.0, 30.0, 1e4, np.nan])
    strict, loose = (table.threshold(windows, snr, rate) for rate in (0.002, 0.05))
    assert np.all(strict > loose)
    assert strict[-2] == pytest.approx(np.interp(np.log(0.002), np.log(RATES),
                                                 table.thresholds[kind][-1]))  # fmt: skip
    sure = table.probability(windows, snr, np.full(6, 50.0), np.full(6, True))
    never = table.probability(windows, snr, np.full(6, -1.0), np.full(6, True))
    assert np.all(sure > 0.9)
    assert np.all((never >= 0) & (never <= 0.5))
    assert np.isnan(table.probability(windows, snr, np.full(6, np.nan), np.full(6, True))).all()


def compared(windows: Windows, components: int, count: int, seed: int) -> Comparison:
    (batch,) = galaxies(windows, components, count, np.random.default_rng(seed))
    return compare(batch.lines, windows, FitSettings())


@pytest.mark.parametrize("kind", ["blue", "both"])
def test_other_seeds_keep_the_rate_of_false_positives(kind: str) -> None:
    windows = KINDS[kind]
    found = compared(windows, 1, 250, 77)
    least = shipped().threshold(windows, found.snr, 0.03)
    wrong = int(((found.log_ratio > least) & (found.fault == "")).sum())
    count = found.snr.size
    # Binomial, three standard deviations and a quarter for the calibration's own noise.
    assert wrong < 1.25 * 0.03 * count + 3 * np.sqrt(count * 0.03)
    assert wrong > 0


def test_probabilities_hold_on_other_seeds() -> None:
    windows = KINDS["both"]
    chances, truth = [], []
    for components in (1, 2):
        found = compared(windows, components, 250, 78 + components)
        sound = found.fault == ""
        chances.append(shipped().probability(windows, found.snr, found.log_ratio, sound))
        truth.append(np.full(sound.size, components - 1.0))
    p, true = np.concatenate(chances), np.concatenate(truth)
    for low, high in ((0.0, 0.4), (0.4, 0.8), (0.8, 1.001)):
        inside = (p >= low) & (p < high)
        assert inside.sum() > 15
        error = np.sqrt(0.25 / inside.sum())
        assert true[inside].mean() == pytest.approx(p[inside].mean(), abs=3 * error)
