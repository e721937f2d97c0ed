"""Models from real pictures: clouds of another sensor, polygons in another CRS."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from warte.earth.classify import classify
from warte.earth.classify.inputs import Inputs, survey
from warte.earth.labels import read_labels
from warte.earth.read import read
from warte.earth.scene import Scene, scene_of_array
from warte.earth.train import Marks, TrainSettings, TreeSettings, clouds, train

CLASSES = ("cloud", "shadow", "clear")
RealFile = Callable[[str], Path]


def picture(path: Path) -> tuple[Scene, Marks]:
    """A picture of csmask with its reference: 4 is cloud, 0 shadow."""
    arrays = np.load(path)
    mask = arrays["msk"].squeeze()
    truth = np.where(mask == 4, 0, np.where(mask == 0, 1, 2)).astype(np.int32)
    values = np.moveaxis(arrays["img"], -1, 0)
    scene = scene_of_array(values, clouds().bands, name=path.stem, quantity="reflectance")
    return scene, Marks(CLASSES, truth)


# Pictures without a place are written without one, which rasterio warns about.
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_clouds_of_another_sensor_are_found(real_file: RealFile, tmp_path: Path) -> None:
    scene, marks = picture(real_file("earth/csmask/sentinel2.npz"))
    other, truth = picture(real_file("earth/csmask/landsat7.npz"))
    model, run = tmp_path / "model", tmp_path / "run"
    model.mkdir()
    run.mkdir()
    few = TreeSettings(rounds=40, pixels=20_000, copies=2, smallest=50)
    trained = train([scene], [marks], replace(clouds(), trees=few), out=model)
    assert trained is not None
    found = classify(other, model, out=run)
    assert found.shadow is not None
    # The direction between the reference's clouds and shadows, by hand, is (-41, -33).
    assert np.hypot(found.shadow[0] + 41, found.shadow[1] + 33) < 4
    with rasterio.open(run / "classes.tif") as file:
        order = np.array([CLASSES.index(name) for name in trained.classes])
        classes = order[file.read(1)]
    scores = [
        ((classes == kind) & (truth.index == kind)).sum()
        / ((classes == kind) | (truth.index == kind)).sum()
        for kind in range(3)
    ]
    assert np.mean(scores) > 0.6  # boosting of each pixel alone reaches 0.48


def test_the_direction_of_shadows_needs_no_labels(real_file: RealFile) -> None:
    scene, _ = picture(real_file("earth/csmask/sentinel2.npz"))
    found = survey(scene, Inputs("clouds", clouds().bands)).shadow
    assert found is not None
    assert np.hypot(found[0] + 17, found[1] + 8) < 4


def test_polygons_in_another_crs_become_a_model(real_file: RealFile, tmp_path: Path) -> None:
    for number in range(1, 9):
        real_file(f"earth/s2_outerbanks/S2B_L1C_20181013_B{number:02}.tiff")
    shapes = real_file("earth/s2_outerbanks/rcr_landcover.shp")
    labels = read_labels(shapes, field="Classname")
    settings = TrainSettings(method="boosting", trees=TreeSettings(rounds=15, smallest=5))
    trained = train([read(shapes.parent)], labels, settings, out=tmp_path)
    assert trained is not None
    assert trained.held_out["groups"] == 22  # of 23 polygons; one class has a single one
    assert trained.held_out["accuracy"] > 0.65
    assert trained.held_out["classes"]["Subtidal Haline"]["iou"] is None
