"""Training: a loss that falls, no leak between parts, missing pixels as promised, calibration."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from warte.core.errors import SettingsError
from warte.spectra import presets
from warte.spectra.classify import CARD, WEIGHTS, candidate_threshold, load, probabilities
from warte.spectra.grid import CELLS, cell_of
from warte.spectra.lines import CLASSES
from warte.spectra.model import Classifier, ModelSettings
from warte.spectra.train import (
    OIII_WINDOW,
    Labelled,
    TrainSettings,
    batches,
    calibrate,
    clear_doubles,
    hide_some,
    hide_third,
    labelled,
    learn,
    looks_double,
    loss_of,
    reliability_of,
    split_by_object,
    train,
)

TINY = TrainSettings(
    spectra=640,
    chunk=640,
    passes=6,
    batch=32,
    learning_rate=1e-2,
    held_out=200,
    model=ModelSettings(4, 8, 4, 16),
    data=replace(presets.training(), snr=(30.0, 60.0)),
)


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, list[float]]:
    return learn(TINY)


@pytest.fixture(scope="module")
def spectra() -> Labelled:
    return labelled(presets.training(), 300, np.random.default_rng(5))


def test_no_object_is_in_two_parts() -> None:
    rng = np.random.default_rng(0)
    names = [f"object {n}" for n in rng.integers(0, 300, 2000)]
    parts = split_by_object(names, (0.7, 0.1, 0.2), np.random.default_rng(1))
    assert sorted(np.concatenate(parts)) == list(range(2000))
    objects = [{names[row] for row in part} for part in parts]
    assert not (objects[0] & objects[1] or objects[0] & objects[2] or objects[1] & objects[2])
    total = len(set(names))
    assert [len(some) for some in objects] == pytest.approx(
        [0.7 * total, 0.1 * total, 0.2 * total], abs=1
    )
    again = split_by_object(names, (0.7, 0.1, 0.2), np.random.default_rng(1))
    other = split_by_object(names, (0.7, 0.1, 0.2), np.random.default_rng(2))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(parts[0], other[0])


def test_spectra_without_an_object_are_objects_of_their_own() -> None:
    parts = split_by_object([""] * 10, (0.5, 0.5), np.random.default_rng(0))
    assert [len(part) for part in parts] == [5, 5]
    with pytest.raises(ValueError, match="sum 1"):
        split_by_object(["a"], (0.5, 0.4), np.random.default_rng(0))


def test_a_third_of_the_pixels_with_half_of_the_oiii_window() -> None:
    gone = hide_third(np.ones((30, CELLS), np.float32), np.random.default_rng(0))
    low, high = (cell_of(end) for end in OIII_WINDOW)
    assert (gone[:, low:high].sum(1) == (high - low) // 2).all()
    assert (gone.sum(1) == round(0.3 * CELLS)).all()
    assert len(np.unique(gone, axis=0)) == 30


def test_training_only_ever_hides() -> None:
    ivar = np.random.default_rng(1).uniform(0, 3, (400, CELLS)).astype(np.float32)
    out = hide_some(ivar, np.random.default_rng(0))
    assert ((out == ivar) | (out == 0)).all()
    lost = (out == 0).mean(1)
    assert (lost < 0.02).mean() > 0.1 and (lost > 0.3).mean() > 0.2
    low, high = (cell_of(end) for end in OIII_WINDOW)
    assert ((out[:, low:high] == 0).mean(1) >= 0.49).mean() > 0.2


def test_labels_are_those_of_the_simulation(spectra: Labelled) -> None:
    assert [CLASSES[kind] for kind in spectra.kind] == list(spectra.truth["class"])
    np.testing.assert_array_equal(spectra.double, spectra.truth["components"] == 2)
    assert spectra.told[~spectra.double].all()
    assert 0.3 < spectra.told[spectra.double].mean() < 0.9
    assert (spectra.told | ~clear_doubles(spectra.truth)).all()
    assert not clear_doubles(spectra.truth)[~spectra.double].any()
    some = spectra.part(np.array([3, 1]))
    np.testing.assert_array_equal(some.flux, spectra.flux[[3, 1]])
    assert list(some.truth["file"]) == list(spectra.truth["file"].iloc[[3, 1]])


def test_pairs_look_double_from_a_distance_that_falls_with_the_signal() -> None:
    truth = pd.DataFrame(
        [
            ("200 km/s at 7", 200.0, 0.3, 7.1, 1.0, True, False),
            ("200 km/s at 6.9", 200.0, 0.3, 6.9, 1.0, False, False),
            ("H-alpha counts", 200.0, 0.3, 1.0, 7.1, True, False),
            ("100 km/s at 57", 100.0, 0.3, 57.0, 1.0, True, False),
            ("100 km/s at 55", 100.0, 0.3, 55.0, 1.0, False, False),
            ("lost in noise", 800.0, 1.0, 4.0, 4.9, False, False),
            ("too weak", 800.0, 0.14, 90.0, 90.0, False, False),
            ("clear", 200.0, 0.3, 10.0, 1.0, True, True),
            ("no pair", np.nan, 0.0, 90.0, 90.0, False, False),
        ],
        columns=["name", "separation_km_s", "flux_ratio", "peak_snr_oiii", "peak_snr_ha",
                 "looks", "clear"],
    )  # fmt: skip
    truth["components"] = np.where(truth["name"] == "no pair", 1, 2)
    np.testing.assert_array_equal(looks_double(truth), truth["looks"])
    np.testing.assert_array_equal(clear_doubles(truth), truth["clear"])


def test_spectra_come_again_with_other_pixels_missing() -> None:
    few = replace(TINY, spectra=64, chunk=64, batch=64, passes=2)
    (first, one), (second, other) = batches(few)
    orders = [np.argsort(data.truth["file"].to_numpy()) for data in (one, other)]
    np.testing.assert_array_equal(one.flux[orders[0]], other.flux[orders[1]])
    assert (first[orders[0]] != second[orders[1]]).mean() > 0.05
    elsewhere = next(batches(replace(few, seed=2)))[1]
    medians = [np.sort(np.nanmedian(data.flux, axis=1)) for data in (one, elsewhere)]
    assert not np.allclose(*medians)


def test_pairs_that_look_like_one_teach_nothing_about_pairs(spectra: Labelled) -> None:
    hidden = torch.from_numpy(~spectra.told)
    assert hidden.any()
    classes, second = torch.zeros(len(spectra), 6), torch.zeros(len(spectra))
    plain = loss_of((classes, second), spectra)
    assert float(plain) == pytest.approx(np.log(6) + np.log(2), rel=1e-5)
    assert loss_of((classes, second + 9.0 * hidden), spectra) == plain
    assert loss_of((classes, second - 9.0 * ~hidden), spectra) != plain
    sure = torch.nn.functional.one_hot(torch.from_numpy(spectra.kind), 6) * 30.0
    assert float(loss_of((sure, second), spectra)) == pytest.approx(np.log(2), rel=1e-5)


def test_the_loss_falls(trained: tuple[Classifier, list[float]]) -> None:
    model, losses = trained
    assert len(losses) == TINY.passes * TINY.spectra // TINY.batch
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:4])
    assert model.settings == TINY.model


def test_a_seed_repeats() -> None:
    few = replace(TINY, spectra=128, passes=2)
    one, other = (learn(replace(few, seed=seed))[1] for seed in (1, 2))
    assert learn(few)[1] == one
    assert one != other


def test_training_writes_weights_and_their_card(tmp_path: Path) -> None:
    seen = []
    card = train(
        replace(TINY, spectra=128, chunk=100, passes=1),
        out=tmp_path,
        report=lambda step, steps, loss: seen.append((step, steps, loss)),
    )
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5]
    assert {steps for _, steps, _ in seen} == {5}
    stored = json.loads((tmp_path / CARD).read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(card))
    assert {"model", "command", "data", "note", "figures", "settings"} <= set(stored)
    assert candidate_threshold(tmp_path) == card["threshold"]
    assert (tmp_path / WEIGHTS).stat().st_size > 1000
    assert load(tmp_path).settings == TINY.model


def test_calibration_undoes_what_was_done(trained: tuple[Classifier, list[float]]) -> None:
    """Logits that are 4 times too far and moved by 2 are calibrated to the same probabilities."""
    data = labelled(TINY.data, 400, np.random.default_rng(9))
    plain, spoilt = deepcopy(trained[0]).eval(), deepcopy(trained[0]).eval()
    with torch.no_grad():
        for value in (*spoilt.classes.parameters(), *spoilt.second.parameters()):
            value.mul_(4.0)
        spoilt.second.bias.add_(2.0)
    found = [calibrate(one, data, np.random.default_rng(0)) for one in (plain, spoilt)]
    assert found[1]["temperature"] == pytest.approx(4 * found[0]["temperature"], rel=2e-3)
    assert found[1]["slope"] == pytest.approx(found[0]["slope"] / 4, rel=2e-3)
    classes, second = probabilities(plain, data.flux, data.ivar)
    for one, other in zip((classes, second), probabilities(spoilt, data.flux, data.ivar),
                          strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, atol=1e-3)
    # A calibrated probability is true as often as it says, of what it was calibrated to.
    hidden = hide_some(data.ivar, np.random.default_rng(0))
    second = probabilities(plain, data.flux, hidden)[1][data.told]
    assert second.mean() == pytest.approx(data.double[data.told].mean(), abs=2e-3)


def test_reliability_counts_by_hand() -> None:
    rows = reliability_of(np.array([0.05, 0.05, 0.6, 1.0]), np.array([False, True, True, True]))
    assert [row["spectra"] for row in rows] == [2, 1, 1]
    assert rows[0]["true"] == 0.5 and rows[0]["probability"] == 0.05


def test_settings_out_of_range() -> None:
    for change in ({"spectra": 0}, {"learning_rate": 0.0}, {"held_out": 5}, {"seed": -1}):
        with pytest.raises(SettingsError, match=next(iter(change))):
            replace(TrainSettings(), **change)
