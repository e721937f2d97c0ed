"""Classifying scenes: no seams, the right grid, nothing made up, plain errors."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from safetensors.numpy import load_file, save_file

from tests.earth.train.scenes import CLASSES, scene
from warte.core.errors import InputError, SettingsError
from warte.core.execute import executor
from warte.earth.classify import ClassifySettings, classify
from warte.earth.classify.inputs import survey
from warte.earth.classify.predict import load
from warte.earth.scene import Scene, scene_of_array
from warte.earth.train import NetworkSettings, TrainSettings, TreeSettings, train

SETTINGS = {
    "boosting": TrainSettings(
        method="boosting", block=16, cross=0, trees=TreeSettings(rounds=8, pixels=1500)
    ),
    "unet": TrainSettings(
        block=16, cross=0,
        network=NetworkSettings(steps=12, batch=2, crop=32, width=8, depth=2, kernel=3, looks=1),
    ),
    "patch": TrainSettings(
        method="patch", block=16, cross=0,
        network=NetworkSettings(steps=12, batch=4, patch=12, width=8, depth=1, looks=1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    made, marks = scene(96, 96)
    folders = {}
    for method, settings in SETTINGS.items():
        folders[method] = tmp_path_factory.mktemp(method)
        train([made], [marks], settings, out=folders[method])
    yield folders


def run(made: Scene, model: Path, out: Path, settings: ClassifySettings) -> tuple[np.ndarray, ...]:
    out.mkdir()
    classify(made, model, settings, out=out)
    with (
        rasterio.open(out / "classes.tif") as classes,
        rasterio.open(out / "probabilities.tif") as chances,
    ):
        return classes.read(1), chances.read()


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("blend", [0, 16])
def test_tiles_give_what_the_whole_gives(
    method: str, blend: int, models: dict[str, Path], tmp_path: Path
) -> None:
    made, _ = scene(130, 115, seed=4)
    whole = run(made, models[method], tmp_path / "whole", ClassifySettings(tile=512))
    tiles = run(made, models[method], tmp_path / "tiles", ClassifySettings(tile=40, blend=blend))
    predictor = load(models[method])
    chances = predictor.probabilities(made.read(), survey(made, predictor.card.inputs))
    np.testing.assert_allclose(tiles[1], chances, rtol=0, atol=1e-5)
    np.testing.assert_allclose(whole[1], chances, rtol=0, atol=1e-5)
    assert (tiles[0] != whole[0]).mean() < 1e-3  # ties within rounding


def test_pictures_lie_where_the_scene_lies_and_no_data_is_no_data(
    models: dict[str, Path], tmp_path: Path
) -> None:
    made, _ = scene(130, 115, seed=4)
    tmp_path.joinpath("run").mkdir()
    found = classify(made, models["boosting"], out=tmp_path / "run")
    valid = made.read().valid
    with rasterio.open(tmp_path / "run" / "classes.tif") as file:
        classes = file.read(1)
        assert (file.transform, file.crs) == (made.grid.transform, made.grid.crs)
        assert (file.dtypes[0], file.nodata) == ("uint8", 255)
        assert file.colormap(1)[0][:3] == (31, 119, 180)
        assert any("wood" in str(value) for value in file.tags().values())
    with rasterio.open(tmp_path / "run" / "probabilities.tif") as file:
        chances = file.read()
        assert file.descriptions == CLASSES
        assert np.isnan(file.nodata)
    np.testing.assert_array_equal(classes == 255, ~valid)
    np.testing.assert_array_equal(np.isnan(chances[0]), ~valid)
    np.testing.assert_allclose(chances[:, valid].sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(classes[valid], chances[:, valid].argmax(axis=0))
    table = pd.read_csv(tmp_path / "run" / "areas.csv")
    assert list(table["class"]) == list(CLASSES)
    np.testing.assert_array_equal(table["pixels"], np.bincount(classes[valid], minlength=3))
    np.testing.assert_allclose(table["mapped_ha"], table["pixels"] * 0.01)  # 10 m pixels
    assert found.mapped_ha is not None
    assert sum(found.mapped_ha) == pytest.approx(valid.sum() * 0.01)


def test_areas_have_intervals_where_labels_of_the_scene_were_held_out(
    models: dict[str, Path], tmp_path: Path
) -> None:
    made, marks = scene(96, 96)
    found = classify(made, models["boosting"], out=tmp_path)
    table = pd.read_csv(tmp_path / "areas.csv")
    assert "polygons drawn again" in found.interval
    true = np.bincount(marks.index[made.read().valid], minlength=3) * 0.01
    assert ((table["low_ha"] - 1 <= true) & (true <= table["high_ha"] + 1)).all()
    assert (table["low_ha"] <= table["area_ha"] + 1e-9).all()


def test_areas_of_another_scene_have_none(models: dict[str, Path], tmp_path: Path) -> None:
    made, _ = scene(64, 64, seed=4)
    other = replace(made, name="other")
    found = classify(other, models["boosting"], out=tmp_path)
    assert found.interval.startswith("no interval: mapped_ha is counted from the map alone")
    assert "not of other" in found.interval
    assert pd.read_csv(tmp_path / "areas.csv")["low_ha"].isna().all()


def test_other_processes_find_the_same(models: dict[str, Path], tmp_path: Path) -> None:
    made, _ = scene(96, 96, seed=4)
    settings = ClassifySettings(tile=48, blend=8)
    alone = run(made, models["unet"], tmp_path / "alone", settings)
    (tmp_path / "two").mkdir()
    with executor("processes", 2) as pool:
        classify(made, models["unet"], settings, out=tmp_path / "two", pool=pool)
    for name in ("classes.tif", "probabilities.tif"):
        one, two = (tmp_path / place / name for place in ("alone", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert alone[0].shape == (96, 96)


def test_bands_may_stand_in_another_order_and_others_between(
    models: dict[str, Path], tmp_path: Path
) -> None:
    made, _ = scene(64, 64, seed=4)
    values = made.read().values
    more = np.concatenate([values[::-1], np.full((1, 64, 64), 7, np.float32)])
    other = scene_of_array(more, (*made.bands[::-1], "pan"), made.grid, quantity="reflectance")
    one = run(made, models["boosting"], tmp_path / "one", ClassifySettings())
    two = run(other, models["boosting"], tmp_path / "two", ClassifySettings())
    np.testing.assert_array_equal(one[1], two[1])


def test_scenes_that_the_model_is_not_for(models: dict[str, Path], tmp_path: Path) -> None:
    made, _ = scene(64, 64)
    values = made.read().values
    few = scene_of_array(values[:2], ("blue", "green"), made.grid, quantity="reflectance")
    numbers = scene_of_array(values * 10_000, made.bands, made.grid, quantity="number")
    unscaled = scene_of_array(values * 10_000, made.bands, made.grid, quantity="reflectance")
    empty = scene_of_array(values * np.nan, made.bands, made.grid, quantity="reflectance")
    for other, words in (
        (few, "lacks what the model learned from: red, nir"),
        (numbers, "plain numbers"),
        (unscaled, "another scale"),
        (empty, "no valid pixel"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            classify(other, models["boosting"], out=tmp_path)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_scene_outside_of_what_was_learned_is_noted(
    models: dict[str, Path], tmp_path: Path
) -> None:
    made, _ = scene(64, 64)
    bright = scene_of_array(made.read().values + 0.4, made.bands, made.grid, quantity="reflectance")
    found = classify(bright, models["boosting"], out=tmp_path)
    assert "medians lie outside" in found.notes[0]


@pytest.mark.parametrize("method", ["boosting", "unet"])
def test_models_that_are_damaged(method: str, models: dict[str, Path], tmp_path: Path) -> None:
    made, _ = scene(64, 64)
    card = json.loads((models[method] / "model.json").read_text())
    weights = (models[method] / "model.safetensors").read_bytes()
    fewer = load_file(models[method] / "model.safetensors")
    fewer.pop(sorted(fewer)[0])
    save_file(fewer, tmp_path / "fewer.bin")
    cases = {
        "none": (None, None, "no model"),
        "no card": (None, weights, "no model"),
        "no weights": (json.dumps(card), None, "no model"),
        "not json": ("{", weights, "damaged"),
        "newer": (json.dumps({**card, "format": 99}), weights, "format 99"),
        "lacks": (json.dumps({"format": 1}), weights, "damaged"),
        "cut": (json.dumps(card), weights[: len(weights) // 2], "damaged"),
        "fewer": (json.dumps(card), (tmp_path / "fewer.bin").read_bytes(), "damaged"),
    }
    for name, (text, arrays, words) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        if text is not None:
            (folder / "model.json").write_text(text)
        if arrays is not None:
            (folder / "model.safetensors").write_bytes(arrays)
        with pytest.raises(InputError, match=words) as caught:
            classify(made, folder, out=tmp_path)
        assert "\n" not in str(caught.value)


def test_settings_out_of_range_name_their_flag() -> None:
    with pytest.raises(SettingsError, match="--tile"):
        ClassifySettings(tile=8)
    with pytest.raises(SettingsError, match="--margin"):
        replace(ClassifySettings(), margin=-2)
