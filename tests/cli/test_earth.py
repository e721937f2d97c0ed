"""`warte earth` from end to end, on simulated scenes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine

from warte.cli import earth, main
from warte.core.data.runs import kept_beside
from warte.core.search import SearchSettings
from warte.core.train.layout import Layout
from warte.earth.anomalies import AnomalySettings
from warte.earth.change.settings import ChangeSettings
from warte.earth.classify import ClassifySettings
from warte.earth.cluster import ClusterSettings
from warte.earth.train import TrainSettings

COMMANDS = (
    "info", "simulate", "evaluate", "cluster", "anomalies", "change", "classify", "train", "search",
)  # fmt: skip
SIDE = 80  # pixels of 10 m
LIMIT_S = 100


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of fields with its truth, as the program itself writes them."""
    return _simulated(tmp_path_factory.mktemp("earth") / "fake", "fields", SIDE * 10, 1)


@pytest.fixture(scope="module")
def scene(fake: Path) -> str:
    """The picture of it."""
    return str(next((fake / "scenes").glob("*.tif")))


@pytest.fixture(scope="module")
def labels(fake: Path) -> str:
    """Its labelled polygons, of the three classes with the most of them that grow or flow."""
    frame = geopandas.read_file(fake / "truth" / "fields.gpkg")
    frame = frame[frame["class"] != "road"]
    most = frame["class"].value_counts().index[:3]
    path = fake.parent / "labels.gpkg"
    frame[frame["class"].isin(most)].to_file(path)
    return str(path)


@pytest.fixture(scope="module")
def model(fake: Path, labels: str) -> Path:
    """A model of boosting that learned from it."""
    out = fake.parent / "model"
    words = ["train", str(fake / "scenes"), "--labels", labels, "--method", "boosting"]
    words += ["--bands", "red,nir"]
    assert main(["earth", *words, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def flood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A radar pair, before a flood and in it."""
    return _simulated(tmp_path_factory.mktemp("flood") / "fake", "flood", 1280, 0)


def _simulated(folder: Path, preset: str, side_m: int, seed: int) -> Path:
    words = ["simulate", "--preset", preset, "--side-m", str(side_m), "--seed", str(seed)]
    assert main(["earth", *words, "--out", str(folder), "--quiet"]) == 0
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _same_place(path: Path, scene: str | Path) -> None:
    with rasterio.open(path) as found, rasterio.open(scene) as given:
        assert found.transform == given.transform and found.crs == given.crs
        assert found.shape == given.shape
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def _values(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert facts["inputs"] and facts["seconds"]
    return facts


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    return lines[0]


# each command -----------------------------------------------------------------------------------


def test_info(fake: Path, scene: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earth", "info", scene, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["columns"], facts["rows"], facts["CRS"]) == (SIDE, SIDE, "EPSG:32633")
    assert facts["valid pixels"] == SIDE * SIDE and facts["bands"].startswith("blue, green, red")
    assert main(["earth", "info", scene, scene]) == 0
    assert capsys.readouterr().out.count("sentinel-2") >= 2
    assert _names(fake) == ["run.json", "scenes", "truth"]


def test_cluster(scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["earth", "cluster", scene, "--k", "4", "--out", str(out), "--quiet", "--json"]
    assert main(words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert _names(out) == [
        "centres.csv", "clusters.tif", "preview.png", "report.html", "run.json"
    ]  # fmt: skip
    _same_place(out / "clusters.tif", scene)
    table = pd.read_csv(out / "centres.csv")
    assert table.columns[:3].tolist() == ["cluster", "pixels", "area_ha"] and len(table) == 4
    assert facts["table"] == table.to_dict("records") and facts["clusters"] == 4
    # The objective is that of the files: squared distances of the pixels to the centres.
    pixels = _values(Path(scene)).reshape(10, -1)
    with rasterio.open(scene) as file:
        stored = pixels.T * np.array(file.scales) + np.array(file.offsets)
    groups = _values(out / "clusters.tif").ravel()
    # The table gives reflectances, whatever the numbers of the file: one factor for all bands.
    centres = table.iloc[:, 3:].to_numpy()
    means = np.array([stored[groups == number].mean(axis=0) for number in table["cluster"]])
    np.testing.assert_allclose(means, centres, rtol=1e-5)
    objective = ((stored - means[groups - 1]) ** 2).sum()
    assert _facts(out)["found"]["objective"] == pytest.approx(objective, rel=1e-5)
    np.testing.assert_array_equal(table["pixels"], np.bincount(groups)[1:])
    np.testing.assert_allclose(table["area_ha"], table["pixels"] * 0.01)

    # What is there is replaced only where that is asked for.
    assert main(words) == 2
    assert "--force" in _error(capsys)
    assert main([*words, "--force", "--seed", "3"]) == 0
    assert _facts(out)["seed"] == 3 and _facts(out)["settings"]["k"] == 4


def test_several_scenes_share_their_clusters(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copy(scene, tmp_path / "other.tif")
    out = tmp_path / "run"
    words = ["cluster", scene, str(other), "--bands", "red,nir", "--k", "3"]
    assert main(["earth", *words, "--out", str(out), "--quiet"]) == 0
    first, second = sorted(out.glob("*_clusters.tif"))
    np.testing.assert_array_equal(_values(first), _values(second))
    assert pd.read_csv(out / "centres.csv").columns[3:].tolist() == ["red", "nir"]
    shown = capsys.readouterr().out
    assert "objective" in shown and str(out / "report.html") in shown


def test_anomalies(scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Something nine pixels large that is bright where nothing else is, and 8 x 8 without data.
    values = _values(Path(scene))
    values[::2, 30:33, 50:53] = values.max()
    values[:, :8, :8] = 65535
    planted = _written(tmp_path / "planted.tif", scene, values, nodata=65535)
    out = tmp_path / "run"
    words = ["anomalies", planted, "--out", str(out), "--quiet", "--json"]
    assert main(["earth", *words]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert _names(out) == [
        "anomaly.tif", "preview.png", "regions.gpkg", "regions.parquet", "report.html", "run.json"
    ]  # fmt: skip
    _same_place(out / "anomaly.tif", planted)
    (scores,) = _values(out / "anomaly.tif")
    assert scores.dtype == np.float32 and facts["valid pixels"] == SIDE * SIDE - 64
    assert np.isnan(scores[:8, :8]).all() and np.isfinite(scores).sum() == SIDE * SIDE - 64
    frame = geopandas.read_file(out / "regions.gpkg")
    with rasterio.open(planted) as file:
        assert frame.crs == file.crs
        place = file.transform @ (51.5, 31.5)
    assert len(frame) == len(facts["regions"]) == _facts(out)["found"]["regions"]
    strongest = frame.sort_values("score", ascending=False).iloc[0]
    assert strongest.geometry.contains(geopandas.points_from_xy(*[[value] for value in place])[0])
    assert {"region", "score", "pixels", "area_ha", "row", "column"} <= set(frame.columns)
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[0, 30:33, 50:53] = 1
    truth = _written(tmp_path / "truth.tif", scene, mask, nodata=None)
    assert main(["earth", "evaluate", str(out), truth, "--json"]) == 0
    scores_of = json.loads(capsys.readouterr().out)
    assert scores_of["what"] == "anomalies" and scores_of["scores"]["auc"] > 0.99


def test_change(flood: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    pictures = sorted(str(path) for path in (flood / "scenes").glob("*.tif"))
    capsys.readouterr()
    assert main(["earth", "change", *pictures, "--out", str(out), "--quiet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["method"] == "radar" and facts["dates"] == "2024-05-03, 2024-05-15"
    assert _names(out) == [
        "change.csv", "change.tif", "change_date.tif", "change_score.tif", "preview.png",
        "regions.gpkg", "regions.parquet", "report.html", "run.json",
    ]  # fmt: skip
    for name in ("change.tif", "change_score.tif", "change_date.tif"):
        _same_place(out / name, pictures[0])
    table = pd.read_csv(out / "change.csv")
    assert table["kind"].tolist() == ["water gained"]
    assert table["date_from"].tolist() == ["2024-05-03"]
    marked = np.isin(_values(out / "change.tif"), (0, 255), invert=True)
    assert table["pixels"].sum() == marked.sum() > 1000
    assert main(["earth", "evaluate", str(out), str(flood), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["f1"] > 0.9


def test_train_classify_evaluate(
    fake: Path, scene: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _names(model) == ["model.json", "model.safetensors", "report.html", "run.json"]
    assert _facts(model)["settings"]["method"] == "boosting"
    out = tmp_path / "run"
    capsys.readouterr()
    words = ["classify", scene, "--model", str(model), "--out", str(out), "--quiet", "--json"]
    assert main(["earth", *words]) == 0
    assert json.loads(capsys.readouterr().out)["classified pixels"] == SIDE * SIDE
    assert _names(out) == [
        "areas.csv", "classes.tif", "preview.png", "probabilities.tif", "report.html", "run.json"
    ]  # fmt: skip
    for name in ("classes.tif", "probabilities.tif"):
        _same_place(out / name, scene)
    classes, shares = _values(out / "classes.tif")[0], _values(out / "probabilities.tif")
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(classes, shares.argmax(axis=0) + classes.min())
    areas = pd.read_csv(out / "areas.csv")
    assert areas["pixels"].sum() == SIDE * SIDE
    assert main(["earth", "evaluate", str(out), str(fake), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    with rasterio.open(next((fake / "truth").glob("*/classes.tif"))) as file:
        truth, named = file.read(1), json.loads(file.tags()["CLASSES"])
    with rasterio.open(out / "classes.tif") as file:
        known = json.loads(file.tags()["CLASSES"])
    pairs = [
        (named[str(true)], known[str(given)])
        for true, given in zip(truth.flat, classes.flat, strict=True)
    ]
    right = np.array([true == given for true, given in pairs])
    assert scores["overall_accuracy"] == pytest.approx(right.mean())
    # It cannot know the classes that it has not seen.
    assert right[[true in known.values() for true, _ in pairs]].mean() > 0.9
    assert main(["earth", "evaluate", str(out), str(fake)]) == 0
    assert "overall_accuracy" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Target and region quantiles")  # three trials are few
def test_search(
    fake: Path, labels: str, scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    words = ["search", str(fake / "scenes"), "--labels", labels, "--trials", "3"]
    words += ["--bands", "red,nir"]
    assert main(["earth", *words, "--out", str(out), "--quiet", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trials"] == 3 and 0 < facts["mean IoU"] <= 1
    assert _names(out) == [
        "best.json", "importances.csv", "model.json", "model.safetensors", "report.html",
        "run.json", "trials.csv",
    ]  # fmt: skip
    assert not kept_beside(out).exists()


def test_the_same_seed_makes_the_same_scene(fake: Path, scene: str, tmp_path: Path) -> None:
    again = _simulated(tmp_path / "again", "fields", SIDE * 10, 1)
    assert (again / "scenes" / Path(scene).name).read_bytes() == Path(scene).read_bytes()
    np.testing.assert_array_equal(
        geopandas.read_file(again / "truth" / "fields.gpkg").geometry.to_wkb(),
        geopandas.read_file(fake / "truth" / "fields.gpkg").geometry.to_wkb(),
    )


# defaults and help ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "settings", "other"),
    [
        (earth.cluster_scenes, ClusterSettings(), {}),
        (earth.find_anomalies, AnomalySettings(), {}),
        (earth.find_changes, ChangeSettings(), {}),
        (earth.classify_scene, ClassifySettings(), {}),
        (earth.train_model, TrainSettings(), {}),
        (earth.train_model, Layout(), {}),
        (earth.search_settings, SearchSettings(), {}),
    ],
)
def test_defaults_are_those_of_the_settings(
    command: Callable[..., None], settings: Any, other: dict[str, Any]
) -> None:
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    shared = 0
    for field in dataclasses.fields(settings):
        if field.name not in given:
            continue
        value = getattr(settings, field.name)
        shown = ",".join(value) if isinstance(value, tuple) else value
        assert given[field.name] == other.get(field.name, shown), field.name
        shared += 1
    assert shared >= 2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["earth", name, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"Example: warte earth {name}" in words


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "cv2", "pandas", "numpy", "scipy", "rasterio", "geopandas", "mpi4py"]
    program = (
        "import sys\n"
        "from warte.cli import main\n"
        "code = main(['earth', 'cluster', '--help'])\n"
        f"print('heavy:', [name for name in {heavy!r} if name in sys.modules], 'code:', code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.stdout.splitlines()[-1] == "heavy: [] code: 0", done.stdout + done.stderr


# bad input --------------------------------------------------------------------------------------


def _written(path: Path, like: str, values: np.ndarray | None = None, **changed: Any) -> str:
    """A copy of a picture with other pixels or another profile."""
    with rasterio.open(like) as file:
        values = file.read() if values is None else values
        names, scales, offsets = file.descriptions, file.scales, file.offsets
        profile = {
            "driver": "GTiff", "dtype": values.dtype, "count": len(values), "crs": file.crs,
            "height": values.shape[1], "width": values.shape[2], "transform": file.transform,
            "nodata": file.nodata, **changed,
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
        file.scales, file.offsets = scales[: len(values)], offsets[: len(values)]
        for number, name in enumerate(names[: len(values)], 1):
            file.set_band_description(number, name or "")
    return str(path)


@pytest.fixture(scope="module")
def bad(scene: str, labels: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files that no command can use, by name."""
    folder = tmp_path_factory.mktemp("bad")
    values = _values(Path(scene))
    frame = geopandas.read_file(labels)
    good = Path(scene).read_bytes()
    made = {
        "nocrs": _written(folder / "nocrs.tif", scene, crs=None),
        "empty": _written(folder / "empty.tif", scene, np.zeros_like(values), nodata=0),
        "same": _written(folder / "same.tif", scene),
        "mask": _written(folder / "mask.tif", scene, np.zeros((1, SIDE, SIDE), np.uint8), nodata=0),
        "B02": _written(folder / "x_B02.tif", scene, values[:1]),
        "B03": _written(folder / "x_B03.tif", scene, values[:1], transform=Affine.scale(10, -10)),
        "B04": _written(folder / "x_B04.tif", scene, values[:1, :-5]),
        "huge": str(folder / "huge.tif"),
    }
    with rasterio.open(
        folder / "huge.tif", "w", driver="GTiff", dtype="uint8", count=1, height=40_000,
        width=40_000, tiled=True, blockxsize=32_768, blockysize=32_768, sparse_ok=True,
        compress="deflate", transform=Affine.scale(10, -10), crs="EPSG:32633",
    ):  # fmt: skip
        pass
    for name, content in (("cut", good[: len(good) // 2]), ("head", good[:100]), ("no", b"no")):
        (folder / f"{name}.tif").write_bytes(content)
        made[name] = str(folder / f"{name}.tif")
    for name, changed in (
        ("far", frame.set_geometry(frame.translate(1e6, 0))),
        ("none", frame.iloc[:0]),
        ("one", frame.assign(**{"class": "wheat"})),
    ):
        made[name] = str(folder / f"{name}.gpkg")
        changed.to_file(made[name])
    # A class that lies on no pixel of the scene, beside classes that do.
    beside = frame.iloc[:1].assign(**{"class": "glacier"})
    beside = beside.set_geometry(beside.translate(1e6, 0))
    made["glacier"] = str(folder / "glacier.gpkg")
    pd.concat([frame, beside]).to_file(made["glacier"])
    made["folder"] = str(folder)
    return made


BAD = [
    ("train {nocrs} --labels {labels}", "has no CRS"),
    ("search {nocrs} --labels {labels}", "has no CRS"),
    ("cluster {scene} {nocrs}", "nocrs has no CRS and"),
    ("train {scene} {nocrs} --labels {labels}", "nocrs has no CRS and"),
    ("search {scene} {nocrs} --labels {labels}", "nocrs has no CRS and"),
    ("change {nocrs} {scene} --dates 2024-01-01,2024-02-01", "nocrs has no CRS and"),
    ("cluster {scene} {B02}", "has no band"),
    ("anomalies {B02} {B03}", "lies in another place"),
    ("anomalies {B02} {B04}", "do not lie on one grid"),
    ("train {scene} --labels {far}", "does not lie on the scene"),
    ("train {scene} --labels {none}", "holds no polygons"),
    ("train {scene} --labels {one}", "one class only"),
    ("train {scene} --labels {mask}", "holds no labels"),
    ("train {scene} --labels {glacier}", "glacier"),
    ("train {scene} --labels {folder}/nowhere.gpkg", "does not exist"),
    ("train {scene} --labels {labels} --field nonsense", "it has class, value, group"),
    ("train {scene} --labels {labels} --bands blue,nope", "nope"),
    ("train {scene} --labels {labels} --strategy single --devices 2", "--devices"),
    ("train {scene} --labels {labels} --steps 0", "--steps"),
    ("cluster {empty}", "no pixel is valid"),
    ("anomalies {empty}", "no valid pixel"),
    ("classify {empty} --model {model}", "valid"),
    ("change {empty} {same} --dates 2024-01-01,2024-02-01", "no-data"),
    ("train {empty} --labels {labels}", "valid"),
    ("cluster {head}", "cannot read head.tif"),
    ("cluster {no}", "cannot read no.tif"),
    ("cluster {huge}", "blocks of 32768 x 32768"),
    ("cluster {folder}/nothing*.tif", "nothing"),
    ("cluster {scene} --k 255", "--k is 255"),
    ("cluster {scene} --k 1", "--k is 1"),
    ("cluster {scene} --bands red,nope", "nope"),
    ("cluster {scene} --fill nonsense", "--fill is nonsense"),
    ("cluster {scene} --engine mpi", "mpiexec"),
    ("cluster {scene} --engine mpi --scheduler tcp://127.0.0.1:9", "--scheduler"),
    ("cluster {scene} --engine torch", "torchrun"),
    ("classify {scene} --model {model} --engine mpi", "mpiexec"),
    ("classify {scene} --model {fake}", "holds no model"),
    ("classify {scene} --model {folder}/nowhere", "nowhere"),
    ("classify {B02} --model {model}", "lacks"),
    ("classify {scene} --model {model} --tile 0", "--tile is 0"),
    ("classify {scene} --model {model} --scheduler tcp://127.0.0.1:9", "--scheduler"),
    ("change {scene}", "two"),
    ("change {scene} {same} --dates 2024-01-01,x", "--dates: x is no date"),
    ("change {scene} {same} --dates 2024-01-01", "1 dates for 2 scenes"),
    ("change {scene} {same} --dates 2024-01-01,2024-01-01", "date"),
    ("search {scene} --labels {one}", "one class only"),
    ("simulate --side-m 100", "--side-m"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_line(
    words: str,
    message: str,
    fake: Path,
    scene: str,
    labels: str,
    model: Path,
    bad: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    places = {**bad, "fake": fake, "scene": scene, "labels": labels, "model": model}
    arguments = [word.format(**places) for word in words.split()]
    assert main(["earth", *arguments, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert message in _error(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "cluster {nocrs} --k 3",
        "anomalies {nocrs}",
        "classify {nocrs} --model {model}",
        "change {nocrs} {nocrs2} --dates 2024-01-01,2024-02-01",
    ],
)
def test_a_picture_without_crs_is_used_and_said(
    words: str,
    model: Path,
    bad: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    other = tmp_path / "nocrs2.tif"
    other.write_bytes(Path(bad["nocrs"]).read_bytes())
    places = {**bad, "nocrs2": str(other), "model": model}
    arguments = [word.format(**places) for word in words.split()]
    assert main(["earth", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert "note: no CRS is given" in capsys.readouterr().err
    notes = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["notes"]
    assert any(note.startswith("no CRS is given") for note in notes)


CUT = [
    "cluster {cut}",
    "anomalies {cut}",
    "classify {cut} --model {model}",
    "change {cut} {scene} --dates 2024-01-01,2024-02-01",
    "train {cut} --labels {labels}",
    "search {cut} --labels {labels}",
]
EACH = """
import json, sys
from warte.cli import main
print([main(words) for words in json.loads(sys.argv[1])])
"""


def test_a_cut_file_is_one_line(
    scene: str, labels: str, model: Path, bad: dict[str, str], tmp_path: Path
) -> None:
    # In a process of its own: libtiff's complaints about it would be heard by later tests.
    places = {**bad, "scene": scene, "labels": labels, "model": model}
    common = ["--out", str(tmp_path / "run"), "--quiet"]
    commands = [
        ["earth", *(word.format(**places) for word in words.split()), *common] for words in CUT
    ]
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(commands)],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    assert done.stdout == f"{[2] * len(CUT)}\n"
    lines = done.stderr.splitlines()
    assert len(lines) == len(CUT)
    assert all(line.startswith("error: cannot read cut.tif") for line in lines), lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["cluster {}", "anomalies {}", "change {} {}", "info {}"])
def test_no_such_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if command.startswith("info") else ["--out", str(tmp_path / "run")]
    words = command.replace("{}", str(tmp_path / "gone.tif")).split()
    assert main(["earth", *words, *out]) == 2
    assert "gone.tif" in _error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_says_what_is_missing(
    fake: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for found, truth in ((tmp_path, fake), (tmp_path / "gone", fake), (model, fake)):
        assert main(["earth", "evaluate", str(found), str(truth)]) == 2
        _error(capsys)


# engines ----------------------------------------------------------------------------------------


def _launcher(kind: str, number: int) -> list[str]:
    if kind == "torch":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number),
            "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", "warte",
        ]  # fmt: skip
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("mpiexec is not installed")
    return [found, "-n", str(number), sys.executable, "-m", "warte"]


def _launched(kind: str, number: int, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_launcher(kind, number), "earth", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(fake: Path, scene: str, model: Path) -> Path:
    """What one process finds: folders cluster and classify."""
    folder = fake.parent / "alone"
    words = ["cluster", scene, "--k", "4", "--chunk", "1000", "--quiet"]
    assert main(["earth", *words, "--out", str(folder / "cluster")]) == 0
    words = ["classify", scene, "--model", str(model), "--tile", "32", "--quiet"]
    assert main(["earth", *words, "--out", str(folder / "classify")]) == 0
    return folder


@pytest.mark.parametrize("kind", ["mpi", "torch"])
def test_ranks_find_the_clusters_of_one_process(
    kind: str, scene: str, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["cluster", scene, "--k", "4", "--chunk", "1000", "--engine", kind, "--json"]
    words += ["--out", str(out), "--quiet"]
    done = _launched(kind, 2, words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == 2  # printed once, not by each
    for name in ("clusters.tif", "centres.csv"):
        assert (out / name).read_bytes() == (alone / "cluster" / name).read_bytes()
    assert _names(tmp_path) == ["run"]

    # Where the folder is there already, nobody waits for the one that says so.
    before = time.monotonic()
    done = _launched(kind, 2, words)
    assert done.returncode != 0 and time.monotonic() - before < LIMIT_S / 2
    said = {line for line in done.stderr.splitlines() if line.startswith("error:")}
    assert len(said) == 1 and "--force" in said.pop()
    assert _names(tmp_path) == ["run"]


@pytest.mark.parametrize("engine", ["processes", "mpi", "dask"])
def test_engines_classify_as_one_process(
    engine: str, scene: str, model: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["classify", scene, "--model", str(model), "--tile", "32", "--engine", engine]
    words += ["--workers", "2", "--out", str(out), "--quiet"]
    if engine == "mpi":
        done = _launched("mpi", 2, words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("classified pixels") == 1
    else:
        assert main(["earth", *words]) == 0
    for name in ("classes.tif", "probabilities.tif", "areas.csv"):
        assert (out / name).read_bytes() == (alone / "classify" / name).read_bytes()
    assert _names(tmp_path) == ["run"]


def test_an_error_with_mpi_ends_all(bad: dict[str, str], model: Path, tmp_path: Path) -> None:
    words = ["classify", bad["cut"], "--model", str(model), "--engine", "mpi"]
    done = _launched("mpi", 2, [*words, "--out", str(tmp_path / "run")])
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "cannot read cut.tif" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_train_in_two_processes(scene: str, labels: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = ["train", scene, "--labels", labels, "--method", "unet", "--batch", "2"]
    words += ["--strategy", "ddp", "--devices", "2", "--steps", "6", "--device", "cpu"]
    done = _launched("torch", 2, [*words, "--out", str(out), "--quiet"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("labelled pixels") == 1
    assert _facts(out)["layout"]["strategy"] == "ddp"
    assert _names(out) == ["model.json", "model.safetensors", "report.html", "run.json"]


def test_a_killed_run_goes_on(scene: str, model: Path, alone: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.tif"
    values = np.tile(_values(Path(scene)), (1, 6, 6))
    _written(big, scene, values)
    words = ["earth", "classify", str(big), "--model", str(model), "--tile", "32", "--quiet"]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "warte", *words, "--out", str(out)]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        _wait_for(lambda: any(kept_beside(out).rglob("*")), process)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists() and kept_beside(out).exists()
    assert main([*words, "--out", str(out)]) == 0
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    for name in ("classes.tif", "probabilities.tif", "areas.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not kept_beside(out).exists()


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LIMIT_S
    while not ready():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
