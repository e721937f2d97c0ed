"""Radar against speckle with known looks, and the formulas of the papers written out."""

from __future__ import annotations

import numpy as np
import pytest

from warte.core.data.tiles import windows
from warte.core.errors import InputError, SettingsError
from warte.earth import radar
from warte.earth.scene import scene_of_array

LOOKS = 4.0


def _speckle(level: np.ndarray, seed: int = 0) -> np.ndarray:
    """Power with speckle of LOOKS looks: a gamma distribution of mean 1 (Goodman 1976)."""
    return level * np.random.default_rng(seed).gamma(LOOKS, 1 / LOOKS, level.shape)


def test_decibels() -> None:
    assert np.allclose(radar.to_db([1.0, 10.0, 0.01]), [0, 10, -20])
    assert np.isnan(radar.to_db([0.0, -1.0])).all()
    power = np.geomspace(1e-5, 1e3, 50)
    assert np.allclose(radar.from_db(radar.to_db(power)), power, rtol=1e-13)


def test_equivalent_looks() -> None:
    assert radar.equivalent_looks(_speckle(np.full((400, 400), 3.0))) == pytest.approx(4, rel=0.02)
    with pytest.raises(InputError, match="two pixels"):
        radar.equivalent_looks([1.0, np.nan])


@pytest.mark.parametrize("name", ["lee", "refined_lee", "multitemporal"])
def test_speckle_goes_and_the_mean_stays(name: str) -> None:
    power = _speckle(np.full((5, 200, 200), 0.2))
    arguments = () if name == "multitemporal" else (LOOKS,)
    filtered = getattr(radar, name)(power, *arguments)
    inner = filtered[:, 10:-10, 10:-10]
    assert inner.mean() == pytest.approx(0.2, rel=0.01)
    looks = np.mean([radar.equivalent_looks(part) for part in inner])
    # Several times the looks: a box of 7 x 7 could reach 49, five dates 5 times.
    assert looks > {"lee": 60, "refined_lee": 30, "multitemporal": 15}[name], looks


@pytest.mark.parametrize("name", ["lee", "refined_lee"])
def test_edges_stay(name: str) -> None:
    level = np.full((200, 200), 0.02)
    level[:, 100:] = 1.0
    filtered = getattr(radar, name)(_speckle(level), LOOKS)
    profile = filtered[20:-20].mean(axis=0)
    blurred = radar._box(_speckle(level), 7)[20:-20].mean(axis=0) / 49
    assert profile[98] < 0.2 < 0.8 < profile[101]
    assert blurred[98] > 0.2  # what a plain mean does
    if name == "refined_lee":  # right beside the edge the speckle goes, and nothing is mixed
        across = radar.refined_lee(_speckle(level.T), LOOKS).T
        for picture in (filtered[20:-20], across[20:-20]):
            assert picture[:, 98].mean() < 0.03 and picture[:, 101].mean() > 0.9
            for beside in (97, 98, 101, 102):
                assert radar.equivalent_looks(picture[:, beside]) > 6 * LOOKS


def test_lee_is_its_formula() -> None:
    power = _speckle(np.ones((9, 9)))
    window = power[1:8, 1:8]
    mean, variance = window.mean(), window.var()
    signal = max((variance - mean**2 / LOOKS) / (1 + 1 / LOOKS), 0)
    expected = mean + signal / variance * (power[4, 4] - mean)
    assert radar.lee(power, LOOKS)[4, 4] == pytest.approx(expected, rel=1e-12)


def test_multitemporal_is_its_formula() -> None:
    power = _speckle(np.ones((3, 9, 9)))
    means = power[:, 1:8, 1:8].mean(axis=(1, 2))
    expected = means * (power[:, 4, 4] / means).mean()
    assert np.allclose(radar.multitemporal(power)[:, 4, 4], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["lee", "refined_lee"])
def test_what_is_not_valid_changes_nothing(name: str) -> None:
    power = _speckle(np.ones((60, 60)))
    power[20:30, 20:30] = np.nan
    filtered = getattr(radar, name)(power, LOOKS)
    assert np.array_equal(np.isnan(filtered), np.isnan(power))
    assert np.nanmin(filtered) > 0.3 and np.nanmax(filtered) < 3
    only = np.full((20, 20), np.nan)
    only[10, 10] = 2.0
    assert getattr(radar, name)(only, LOOKS)[10, 10] == 2.0


@pytest.mark.parametrize("name", radar.FILTERS)
def test_windows_of_a_scene_fit_together(name: str) -> None:
    decibels = radar.to_db(_speckle(np.ones((2, 70, 80))))
    decibels[0, 30:40, 5:9] = np.nan
    scene = scene_of_array(decibels, ["vv", "vh"], quantity="sigma0_db")
    filtered = radar.despeckled(scene, name, looks=LOOKS)
    whole = filtered.read()
    assert np.array_equal(whole.valid, scene.read().valid)
    for window in windows(70, 80, 23):
        cut = (slice(None), *window.slices)
        assert np.array_equal(filtered.read(window).values, whole.values[cut], equal_nan=True)


def test_bad_settings() -> None:
    power = np.ones((9, 9))
    for call in (
        lambda: radar.lee(power, 0.0),
        lambda: radar.lee(power, 4.0, 6),
        lambda: radar.despeckled(scene_of_array(power), "frost", looks=4),
    ):
        with pytest.raises(SettingsError, match="--"):
            call()
    with pytest.raises(InputError, match="not sigma nought in dB"):
        radar.despeckled(scene_of_array(power), "lee", looks=4)
