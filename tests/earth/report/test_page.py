"""The page of each verb, from tiny folders of runs."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from rasterio.crs import CRS

from tests.sky.test_report import visit
from warte.core.search import Searched
from warte.earth.anomalies import AnomalySettings, anomalies
from warte.earth.change import ChangeSettings, change
from warte.earth.classify import ClassifySettings, classify
from warte.earth.cluster import ClusterSettings, cluster
from warte.earth.report import write_report
from warte.earth.report.models import write_model_report, write_search_report
from warte.earth.scene import Grid, Scene, scene_of_array
from warte.earth.train import Marks, TrainSettings, TreeSettings, train

HOSTILE = "</script><b>&\"'"
UTM = Grid(64, 80, Affine(10, 0, 5e5, 0, -10, 5.2e6), CRS.from_epsg(32633))
BANDS = ("blue", "green", "red", "nir")
MEANS = np.array([[0.08, 0.1, 0.12, 0.3], [0.06, 0.05, 0.03, 0.02]])
NAMES = ("corn <i>", "water")


def _scene(name: str = "made", crs: CRS | None = UTM.crs, seed: int = 0) -> tuple[Scene, Marks]:
    """Two classes in squares, and the class of each pixel."""
    rows, columns = np.indices(UTM.shape)
    classes = ((rows // 16 + columns // 16) % 2).astype(np.int32)
    values = MEANS[classes].transpose(2, 0, 1)
    values = values + np.random.default_rng(seed).normal(0, 0.005, values.shape)
    grid = dataclasses.replace(UTM, crs=crs)
    return scene_of_array(values, BANDS, grid, name=name), Marks(NAMES, classes)


def _planted(name: str = "made", crs: CRS | None = UTM.crs) -> Scene:
    """A scene with a small bright thing in it."""
    scene, _ = _scene(name, crs)
    values = scene.read().values.copy()
    values[::2, 20:23, 40:43] = 0.9
    return scene_of_array(values, BANDS, scene.grid, name=name)


def _page(folder: Path, scenes: Sequence[Scene], found: object, settings: object = None) -> str:
    """The page of a folder; it is whole, and asks nobody for anything."""
    write_report(
        folder, scenes, found=found, settings=settings, warnings=[HOSTILE], seconds={"work": 1.0}
    )
    picture = cv2.imread(str(folder / "preview.png"))
    assert picture is not None and picture.shape == (64, 80, 3) and picture.std() > 0
    return _checked(folder)


def _checked(folder: Path) -> str:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert not re.search(r"""(src|href)=["']?(https?:)?//|fetch\(|XMLHttp|@import|url\(h""", page)
    assert page.count("<script") == page.count("</script>")
    assert HOSTILE not in page and "</script><b>" not in page
    anchors = re.findall(r'<section[^>]* id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    for name in re.findall(r'href="([\w.]+\.\w+)"', page):
        assert (folder / name).is_file(), name
    return page


def _maps(page: str) -> list[dict]:
    """The data of each map."""
    starts = [
        m.end() for m in re.finditer(r'warteMap\(document\.getElementById\("[^"]+"\), ', page)
    ]
    return [json.JSONDecoder().raw_decode(page[start:])[0] for start in starts]


def _legends(page: str) -> list[list[str]]:
    return [
        [name for name, _ in layer["legend"]]
        for data in _maps(page)
        for layer in data["layers"]
        if layer["legend"]
    ]


@pytest.mark.parametrize("name", ["made", HOSTILE])
@pytest.mark.parametrize("crs", [UTM.crs, None])
def test_clusters(name: str, crs: CRS | None, tmp_path: Path) -> None:
    scene, _ = _scene(name, crs)
    settings = ClusterSettings(k=2)
    page = _page(tmp_path, [scene], cluster([scene], settings, out=tmp_path), settings)
    assert ("EPSG:32633" in page) == (crs is not None) and ("no CRS" in page) == (crs is None)
    assert _legends(page) == [["cluster 1", "cluster 2"]]
    (data,) = _maps(page)
    assert (data["rows"], data["columns"], len(data["layers"])) == (64, 80, 2)
    assert (data["lonlat"] is None) == (crs is None) == (data["metres"] == 0)
    assert "2 clusters of 5,120 pixels" in page and "<svg" in page
    # The table has the means of the classes.
    assert re.search(r">0\.0[68]\d*<", page)


def test_several_scenes_have_a_map_each(tmp_path: Path) -> None:
    scenes = [_scene(name, seed=seed)[0] for seed, name in enumerate(("one", "two", "three"))]
    page = _page(tmp_path, scenes, cluster(scenes, ClusterSettings(k=2), out=tmp_path))
    assert len(_maps(page)) == 3 and "Map of two" in page and "one, two, three" in page
    assert _legends(page) == [["cluster 1", "cluster 2"]] * 3


@pytest.mark.parametrize("crs", [UTM.crs, None])
def test_links_lead_to_regions_of_the_map(crs: CRS | None, tmp_path: Path) -> None:
    scene = _planted(HOSTILE, crs)
    settings = AnomalySettings()
    page = _page(tmp_path, [scene], anomalies(scene, settings, out=tmp_path), settings)
    linked = {int(number) for number in re.findall(r'href="#region-(\d+)"', page)}
    (data,) = _maps(page)
    assert linked and linked == {region["number"] for region in data["regions"]}
    boxes = [region["box"] for region in data["regions"]]
    assert any(box[0] <= 41 <= box[2] and box[1] <= 21 <= box[3] for box in boxes)
    assert "region" in page.lower() and "regions.gpkg" in page


def test_nothing_found(tmp_path: Path) -> None:
    scene, _ = _scene()
    settings = AnomalySettings(false_regions=1e-9, method="rx")
    found = anomalies(scene, settings, out=tmp_path)
    assert found.regions == 0
    page = _page(tmp_path, [scene], found, settings)
    assert "Nothing stands out in made" in page and "No region stands out." in page
    assert "#region-1" not in page.split("<script")[0]


def test_changes(tmp_path: Path) -> None:
    before, _ = _scene("before")
    values = _scene(seed=1)[0].read().values.copy()
    values[:, :30, :30] = MEANS[1][:, None, None] * np.linspace(1, 1.2, 30)
    after = scene_of_array(values, BANDS, UTM, name=HOSTILE)
    dates = [datetime.datetime(year, 6, 1, tzinfo=datetime.UTC) for year in (2020, 2021)]
    found = change([before, after], ChangeSettings(), dates=dates, out=tmp_path)
    page = _page(tmp_path, [before, after], found)
    table = pd.read_csv(tmp_path / "change.csv")
    assert len(table) and all(kind in page for kind in table["kind"])
    # No change has no colour in the map, so it is not in the legend either.
    assert "2021-06-01" in page and not any("no change" in names for names in _legends(page))
    (data,) = _maps(page)
    assert len(data["layers"]) >= 4 and data["regions"] == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the two classes."""
    out = tmp_path_factory.mktemp("model")
    scene, marks = _scene(HOSTILE)
    settings = TrainSettings(method="boosting", block=16, trees=TreeSettings(rounds=5, leaves=4))
    found = train([scene], [marks], settings, out=out)
    assert found is not None
    write_model_report(
        out, losses=[3.0, 2.0, 1.0], notes=[HOSTILE], settings=settings, seconds={"train": 1.0}
    )
    return out


def test_classes(model: Path, tmp_path: Path) -> None:
    scene, _ = _scene(HOSTILE)
    page = _page(tmp_path, [scene], classify(scene, model, ClassifySettings(tile=32), out=tmp_path))
    assert _legends(page) == [list(NAMES)]
    assert "corn &lt;i&gt; 50 %" in page and "corn <i>" not in page.split("<script")[0]
    assert "Areas: 95%, stratified estimate" in page


def test_areas_without_labels_say_why_they_have_no_interval(model: Path, tmp_path: Path) -> None:
    scene, _ = _scene("elsewhere")
    page = _page(tmp_path, [scene], classify(scene, model, ClassifySettings(tile=32), out=tmp_path))
    assert "Areas: no interval: mapped_ha is counted from the map alone" in page
    assert "not of elsewhere" in page and "low_ha" not in page


def test_model(model: Path) -> None:
    page = _checked(model)
    assert "corn &lt;i&gt;" in page and "corn <i>" not in page
    assert "What is taken for what" in page and "Loss of each step." in page
    assert "mean IoU 1.000" in page


def test_search(tmp_path: Path) -> None:
    trials = pd.DataFrame({
        "number": [0, 1, 2, 3], "state": ["complete", "pruned", "failed", "complete"],
        "value": [0.5, 0.2, np.nan, 0.7], "steps": [3, 1, 0, 3], "seconds": [1.0, 1, 1, np.nan],
        "rate <b>": [0.1, 0.2, 0.3, 0.4],
    })  # fmt: skip
    importances = pd.DataFrame({"parameter": ["rate <b>"], "importance": [1.0]})
    found = Searched(0.7, {"rate <b>": 0.4}, 3, trials, importances, HOSTILE)
    write_search_report(tmp_path, found, seconds={"search": 1.0})
    page = _checked(tmp_path)
    assert "Best of 4 trials: 0.7 (trial 3)" in page and "rate <b>" not in page
    assert page.count("<circle") == 3 and "2 trials ran to the end" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_browser_draws_the_map_without_complaint(tmp_path: Path) -> None:
    scene = _planted(HOSTILE)
    found = anomalies(scene, AnomalySettings(), out=tmp_path)
    _page(tmp_path, [scene], found)
    asked, console, page = visit(tmp_path, "report.html", tmp_path / "chromium")
    assert asked == ["/report.html"] and console == []
    # The script has written its hint below the map.
    assert "Drag to move" in page.split("<script")[0]
