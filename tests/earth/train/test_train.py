"""Training: what is learned, what is held out, what the card says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from safetensors.numpy import load_file

from tests.earth.train.scenes import CLASSES, scene
from warte.core.errors import InputError, SettingsError
from warte.core.train.parallel import Layout
from warte.earth.classify import classify
from warte.earth.scene import scene_of_array
from warte.earth.train import (
    AugmentSettings,
    Marks,
    NetworkSettings,
    TrainSettings,
    TreeSettings,
    train,
)
from warte.earth.train.samples import deal

TINY = NetworkSettings(steps=60, batch=4, crop=32, patch=8, width=8, depth=1, kernel=3, looks=3)
BOOSTING = TrainSettings(
    method="boosting",
    block=16,
    cross=0,
    radii=(1,),
    trees=TreeSettings(rounds=15, pixels=3000, smallest=20),
)
UNET = TrainSettings(method="unet", block=16, cross=0, chip=64, network=TINY)


def share_right(folder: Path, truth: np.ndarray) -> float:
    with rasterio.open(folder / "classes.tif") as file:
        found = file.read(1)
    seen = found != 255
    return float((found == truth)[seen].mean())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("model", "run"):
        (tmp_path / name).mkdir()
    return tmp_path / "model", tmp_path / "run"


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        (BOOSTING, 0.97),
        (UNET, 0.93),
        (replace(UNET, method="patch"), 0.75),  # a patch has one class, the ground has edges
    ],
    ids=["boosting", "unet", "patch"],
)
def test_a_clear_case_is_learned_and_found_in_another_scene(
    settings: TrainSettings, least: float, folders: tuple[Path, Path]
) -> None:
    model, run = folders
    made, marks = scene()
    trained = train([made], [marks], settings, out=model)
    assert trained is not None
    assert trained.classes == CLASSES
    assert trained.held_out["accuracy"] > least - 0.05
    if settings.method != "boosting":
        assert np.mean(trained.losses[-10:]) < 0.6 * np.mean(trained.losses[:3])
    other, truth = scene(96, 128, seed=8)
    found = classify(other, model, out=run)
    assert share_right(run, truth.index) > least
    assert found.valid == 96 * 128 - 12 * 32
    assert sum(found.pixels) == found.valid


def test_the_card_says_what_was_held_out(folders: tuple[Path, Path]) -> None:
    model, _ = folders
    made, marks = scene()
    train([made], [marks], BOOSTING, out=model)
    card = json.loads((model / "model.json").read_text())
    held = card["held_out"]
    rows = held["confusion_by_group"]
    assert len({row["group"] for row in rows}) == held["groups"]
    np.testing.assert_allclose(
        np.sum([row["found"] for row in rows], axis=0), np.sum(held["confusion"], axis=0), atol=0.1
    )
    # One fifth of the squares, and pixels stand for all of their class.
    assert 0.1 < np.sum(held["confusion"]) / sum(card["data"]["pixels"].values()) < 0.3
    assert card["inputs"]["bands"] == list(made.bands)
    assert set(card["held_out"]["classes"]) == set(CLASSES)


def test_labels_of_held_out_groups_are_not_learned(folders: tuple[Path, Path]) -> None:
    """Noise for labels: what was learned by heart would be known, held-out groups are not."""
    model, _ = folders
    made, _ = scene(hole=False)
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 2, (16, 20)).repeat(8, 0).repeat(8, 1).astype(np.int32)
    random = Marks(("a", "b"), squares)
    settings = replace(BOOSTING, block=8, trees=replace(BOOSTING.trees, smallest=5))
    trained = train([made], [random], settings, out=model)
    assert trained is not None
    assert abs(trained.held_out["accuracy"] - 0.5) < 0.12


def test_few_groups_are_each_held_out_once_and_single_ones_never(
    folders: tuple[Path, Path],
) -> None:
    model, _ = folders
    made, marks = scene(hole=False)
    index = np.full(marks.index.shape, -1, np.int32)
    groups = index.copy()
    corners = [(row, column) for row in range(0, 120, 24) for column in range(0, 150, 20)]
    for number, (row, column) in enumerate(corners):
        square = (slice(row, row + 6), slice(column, column + 6))
        index[square] = np.bincount(marks.index[square].ravel()).argmax()
        groups[square] = number
    names = (*CLASSES, "rare")
    index[40:44, 100:104], groups[40:44, 100:104] = 3, 999
    settings = replace(BOOSTING, cross=100, folds=3)
    trained = train([made], [Marks(names, index, groups)], settings, out=model)
    assert trained is not None
    assert trained.held_out["groups"] == 40
    assert trained.held_out["classes"]["rare"]["iou"] is None
    assert "1 of 41 groups" in trained.notes[0]
    assert trained.held_out["accuracy"] > 0.8


def test_deal_spreads_each_class_and_keeps_groups_whole() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40, dtype=np.int32), 5)
    labels = np.repeat((np.arange(40) % 3).astype(np.int32), 5)
    part = deal(groups, labels, 5, rng)
    assert sorted(part) == list(range(40))
    for label in range(3):
        sizes = np.bincount([part[g] for g in range(40) if g % 3 == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_two_processes_take_the_same_steps(folders: tuple[Path, Path]) -> None:
    one, two = folders
    made, marks = scene(64, 64)
    settings = replace(UNET, chip=32, network=replace(TINY, steps=6, looks=2, crop=16))
    alone = train([made], [marks], settings, out=one)
    both = train([made], [marks], settings, out=two, layout=Layout("ddp", devices=2))
    assert alone is not None and both is not None
    np.testing.assert_allclose(both.losses, alone.losses, rtol=0, atol=1e-5)
    weights, others = (load_file(place / "model.safetensors") for place in (one, two))
    for name, value in weights.items():
        np.testing.assert_allclose(others[name], value, atol=1e-4)


@pytest.mark.parametrize("method", ["boosting", "unet"])
def test_the_same_seed_gives_the_same_files(method: str, folders: tuple[Path, Path]) -> None:
    settings = BOOSTING if method == "boosting" else replace(UNET, network=replace(TINY, steps=5))
    made, marks = scene(64, 64)
    for place in folders:
        train([made], [marks], settings, out=place)
    for name in ("model.json", "model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_missing_bands_and_saturation_are_lived_with(folders: tuple[Path, Path]) -> None:
    model, run = folders
    made, marks = scene()
    strong = AugmentSettings(
        gain=0.1, haze=0.05, saturation=0.5, blur=1.0, zoom=2.0, drop=0.2, noise=0.01
    )
    settings = replace(BOOSTING, augment=strong, trees=replace(BOOSTING.trees, copies=4))
    train([made], [marks], settings, out=model)
    other, truth = scene(64, 96, seed=8)
    classify(other, model, out=run)
    assert share_right(run, truth.index) > 0.9


def test_scenes_and_labels_that_do_not_go_together(tmp_path: Path) -> None:
    made, marks = scene(64, 64)
    decibel = scene_of_array(np.zeros((4, 64, 64)), made.bands, quantity="sigma0_db")
    others = scene_of_array(np.zeros((2, 64, 64)), ("vv", "vh"), quantity="reflectance")
    nothing = scene_of_array(np.full((4, 64, 64), np.nan), made.bands, made.grid, name="empty")
    none = Marks(CLASSES, np.full((64, 64), -1, np.int32))
    for scenes, labels, words in (
        ([], [], "no scene"),
        ([made, decibel], [marks, marks], "same quantity"),
        ([made, others], [marks, marks], "share no band"),
        ([made], [marks, marks], "1 scenes and 2 labels"),
        ([made], [none], "no label lies on"),
        ([nothing], [marks], "no valid pixel"),
        ([made], [Marks(("a",), marks.index * 0)], "one class only"),
        ([made], [Marks(CLASSES, marks.index[:10])], "do not fit"),
        ([made], [Marks(tuple(map(str, range(300))), marks.index)], "300 classes"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            train(scenes, labels, BOOSTING, out=tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="--devices"):
        train([made], [marks], BOOSTING, out=tmp_path, layout=Layout("ddp", devices=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: TrainSettings(method="forest"), "--method"),  # type: ignore[arg-type]
        (lambda: TrainSettings(folds=1), "--folds"),
        (lambda: TrainSettings(inputs="clouds"), "--inputs clouds"),
        (lambda: TrainSettings(balance=2.0), "--balance"),
        (lambda: TreeSettings(leaves=17), "--leaves"),
        (lambda: NetworkSettings(steps=0), "--steps"),
        (lambda: TrainSettings(seed=-1), "--seed"),
    ],
)
def test_settings_out_of_range_name_their_flag(make: object, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        make()  # type: ignore[operator]
