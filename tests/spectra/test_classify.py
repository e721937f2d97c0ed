"""Classes of real spectra, whole probabilities, and reasons where there is nothing to tell."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warte.core.errors import InputError
from warte.spectra import presets
from warte.spectra.classify import (
    CARD,
    COLUMNS,
    PROBABILITIES,
    WEIGHTS,
    candidate_threshold,
    classify,
    load,
    save,
)
from warte.spectra.model import ModelSettings, build
from warte.spectra.read import read
from warte.spectra.simulate import simulate
from warte.spectra.spectrum import Spectrum, make_spectrum


@pytest.fixture(scope="module")
def galaxies() -> tuple[list[Spectrum], pd.DataFrame]:
    settings = replace(presets.training(), count=150, snr=(20.0, 60.0))
    spectra, truth = simulate(settings, np.random.default_rng(11))
    return spectra, truth.spectra


def test_probabilities_are_whole(galaxies: tuple[list[Spectrum], pd.DataFrame]) -> None:
    calls = []
    table = classify(galaxies[0], report=lambda done, total: calls.append((done, total)))
    assert tuple(table.columns) == COLUMNS
    assert list(table["file"]) == [spectrum.name for spectrum in galaxies[0]]
    np.testing.assert_allclose(table[list(PROBABILITIES)].sum(axis=1), 1, atol=1e-9)
    assert table["p_two_components"].between(0, 1).all()
    assert (table["reason"] == "").all()
    best = table[list(PROBABILITIES)].idxmax(axis=1).str.removeprefix("p_")
    assert list(best) == list(table["class"])
    assert calls == [(128, 150), (150, 150)]


def test_simulated_galaxies_are_told(galaxies: tuple[list[Spectrum], pd.DataFrame]) -> None:
    table, truth = classify(galaxies[0]), galaxies[1]
    assert (table["class"] == truth["class"]).mean() > 0.85
    chance = table["p_two_components"].to_numpy()
    wide = (truth["components"] == 2) & (truth["separation_km_s"] > 350)
    wide &= (truth["flux_ratio"] > 0.3) & (truth["peak_snr_oiii"] > 15)
    assert np.median(chance[wide]) > 0.9
    assert np.median(chance[truth["components"] < 2]) < 0.1
    assert (chance[wide] >= candidate_threshold()).all()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("spec-1163-52669-0292.fits", {"Seyfert"}),  # Mrk 477
        ("spec-1176-52791-0591.fits", {"star-forming"}),
        ("spec-0266-51602-0526.fits", {"passive"}),
        ("spec-0332-52367-0639.fits", {"broad-line"}),
        ("spec-2101-53858-0049.fits", {"Seyfert", "broad-line"}),  # NGC 5273, Seyfert 1.5
        ("spec-0295-51585-0596.fits", {"Seyfert", "broad-line"}),  # with a faint broad H-alpha
    ],
)
def test_real_galaxies(name: str, allowed: set[str], real_file: Callable[[str], Path]) -> None:
    table = classify(read(real_file(name)))
    assert table["class"][0] in allowed
    assert table["reason"][0] == ""


def test_values_of_missing_pixels_do_not_matter(
    galaxies: tuple[list[Spectrum], pd.DataFrame],
) -> None:
    one = galaxies[0][0]
    missing = np.random.default_rng(0).random(one.wavelength.size) < 0.3
    tables = []
    for value in (0.0, 1e6, np.nan):
        flux = np.where(missing, value, one.flux)
        spectrum = make_spectrum(one.name, one.wavelength, flux, one.ivar, z=one.z, missing=missing)
        tables.append(classify([spectrum]))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_what_cannot_be_classified_is_named_and_the_others_go_on(
    galaxies: tuple[list[Spectrum], pd.DataFrame],
) -> None:
    one = galaxies[0][0]
    table = classify([replace(one, z=np.nan), one, replace(one, z=3.0)])
    assert list(table["class"] == "") == [True, False, True]
    assert table.loc[[0, 2], [*PROBABILITIES, "p_two_components"]].isna().all(axis=None)
    assert table["reason"][0] == "no redshift" and "z = 3.0" in table["reason"][2]
    assert table["reason"][1] == ""
    np.testing.assert_allclose(
        table.loc[1, list(PROBABILITIES)].astype(float),
        classify([one]).loc[0, list(PROBABILITIES)].astype(float),
        atol=1e-5,
    )
    assert tuple(classify([]).columns) == COLUMNS


def test_weights_come_back_as_they_went(tmp_path: Path) -> None:
    model = build(ModelSettings(4, 8, 4, 16)).eval()
    save(model, tmp_path)
    back = load(tmp_path)
    assert back.settings == model.settings
    for name, value in model.state_dict().items():
        assert (back.state_dict()[name] == value).all()


def test_unusable_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=WEIGHTS):
        load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="warte spectra train"):
        load(tmp_path)
    (tmp_path / CARD).write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="not the card"):
        candidate_threshold(tmp_path)
