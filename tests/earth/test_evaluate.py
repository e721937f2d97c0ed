"""Scores against scikit-learn, against counts by hand, and of files against arrays."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from sklearn import metrics

from warte.core.errors import InputError
from warte.earth.evaluate import (
    Calibration,
    Ranks,
    anomaly_scores,
    change_scores,
    evaluate,
    match_regions,
    pictures,
)
from warte.earth.scene import Grid
from warte.earth.write import write_cog

GRID = Grid(60, 80, Affine(10, 0, 500_000, 0, -10, 5_300_000), CRS.from_epsg(32633))


def write(path: Path, values: np.ndarray, nodata: float | None = None, **words: object) -> Path:
    bands = values[None] if values.ndim == 2 else values
    kind = str(bands.dtype)
    names = words.pop("bands", [f"band_{number}" for number in range(len(bands))])
    write_cog(
        path, GRID, [(GRID.whole, bands)], dtype=kind, nodata=nodata, bands=names, **words,
    )  # type: ignore[arg-type]  # fmt: skip
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def noisy(rng: np.random.Generator, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A truth in squares and a picture of it that is wrong in a third of the pixels."""
    truth = np.kron(rng.integers(0, classes, (6, 8)), np.ones((10, 10), int)).astype(np.uint8)
    wrong = rng.random(truth.shape) < 0.33
    return truth, np.where(wrong, rng.integers(0, classes, truth.shape), truth).astype(np.uint8)


def test_scores_of_classes_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    scores = evaluate(found, truth)
    true, said = truth.ravel(), found.ravel()
    assert scores.numbers["overall_accuracy"] == pytest.approx(metrics.accuracy_score(true, said))
    assert scores.numbers["macro_f1"] == pytest.approx(
        metrics.f1_score(true, said, average="macro")
    )
    assert np.allclose(scores.table["iou"], metrics.jaccard_score(true, said, average=None))
    assert np.allclose(
        scores.table["producers_accuracy"], metrics.recall_score(true, said, average=None)
    )
    assert np.allclose(
        scores.table["users_accuracy"], metrics.precision_score(true, said, average=None)
    )
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(true, said))


def test_a_class_that_is_never_found_counts(rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    found[found == 2] = 1
    scores = evaluate(found, truth)
    for name, iou in zip(scores.table["class"], scores.table["iou"], strict=True):
        expected = metrics.jaccard_score(truth.ravel() == int(name), found.ravel() == int(name))
        assert iou == pytest.approx(expected)
    assert np.isnan(scores.table.set_index("class").loc["2", "users_accuracy"])


def test_scores_of_clusters_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    shuffled = np.array([30, 7, 2, 11])[found]
    scores = evaluate(shuffled, truth, what="clusters").numbers
    true, said = truth.ravel(), shuffled.ravel()
    assert scores["adjusted_rand"] == pytest.approx(metrics.adjusted_rand_score(true, said))
    assert scores["mutual_information"] == pytest.approx(
        metrics.normalized_mutual_info_score(true, said)
    )
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(true, found.ravel()))


def test_area_and_precision_are_those_of_scikit_learn_with_ties(rng: np.random.Generator) -> None:
    truth = (rng.random((60, 80)) < 0.05).astype(np.uint8)
    score = np.round(rng.normal(truth * 1.5, 1.0), 1)
    found = anomaly_scores(score, truth)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(truth.ravel(), score.ravel()))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(truth.ravel(), score.ravel())
    )
    assert found["share"] == pytest.approx(truth.mean())


def test_ranks_of_a_stream_are_those_of_all_at_once(rng: np.random.Generator) -> None:
    true, others = rng.normal(1, 1, 50).round(1), rng.normal(0, 1, 5000).round(1)
    whole, parts = Ranks.of(true), Ranks.of(true)
    whole.add(others)
    for part in np.array_split(others, 13):
        parts.add(part)
    assert whole.numbers() == parts.numbers()


def test_no_anomaly_gives_no_area() -> None:
    found = anomaly_scores(np.ones((3, 3)), np.zeros((3, 3)))
    assert np.isnan(found["auc"])
    assert np.isnan(found["average_precision"])


def test_brier_score_and_calibration_error() -> None:
    chance = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    calibration = Calibration()
    calibration.add(chance, np.array([0, 0, 0, 1]))
    numbers = calibration.numbers()
    # By hand: confidence 0.9 is right always, 0.6 half of the time.
    assert numbers["calibration_error"] == pytest.approx((0.1 + 0.1) / 2)
    assert numbers["brier"] == pytest.approx(np.mean([0.02, 0.02, 0.32, 0.72]))


def test_probabilities_that_hold_are_calibrated(rng: np.random.Generator) -> None:
    chance = rng.dirichlet([1.0, 1.0, 1.0], 200_000)
    true = (rng.random(len(chance))[:, None] > np.cumsum(chance, axis=1)).sum(axis=1)
    calibration = Calibration()
    calibration.add(chance, np.minimum(true, 2))
    assert calibration.numbers()["calibration_error"] < 0.01


def test_regions_are_matched_one_to_one() -> None:
    truth = geopandas.GeoDataFrame(
        geometry=[shapely.box(0, 0, 4, 4), shapely.box(6, 0, 10, 4), shapely.box(20, 20, 21, 21)]
    )
    # The first found polygon covers two true ones, and may claim one.
    found = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 10, 4), shapely.box(50, 50, 51, 51)])
    numbers = match_regions(found, truth)
    assert numbers["regions_matched"] == 1
    assert numbers["region_recall"] == pytest.approx(1 / 3)
    assert numbers["region_precision"] == pytest.approx(1 / 2)
    nothing = match_regions(found.iloc[:0], truth)
    assert nothing["region_recall"] == 0
    assert np.isnan(nothing["region_precision"])


def test_scores_of_changes_by_hand() -> None:
    names = (("no change", "burn", "flood"), ("no change", "burn", "vegetation loss"))
    counts = np.array([[90, 4, 6], [10, 30, 0], [5, 0, 15]])
    scores = change_scores(counts, names, {"burn": {0: 20, 12: 10}})
    assert scores.numbers["precision"] == pytest.approx(45 / 55)
    assert scores.numbers["recall"] == pytest.approx(45 / 60)
    assert scores.numbers["f1"] == pytest.approx(2 * 45 / (60 + 55))
    assert scores.numbers["kind_accuracy"] == pytest.approx(30 / 45)
    burn = scores.table.set_index("kind").loc["burn"]
    assert burn["recall"] == pytest.approx(30 / 40)
    assert burn["day_error"] == 0
    assert burn["day_inside"] == pytest.approx(2 / 3)


def test_files_score_as_arrays_do(tmp_path: Path, rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    names = {0: "water", 1: "wood", 2: "field", 3: "town"}
    # The numbers of the same classes differ between the two files; the names count.
    write(
        tmp_path / "truth.tif",
        (truth + 1).astype(np.uint8),
        0,
        labels={k + 1: n for k, n in names.items()},
    )
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "classes.tif", found, 255, labels=names)
    by_file = evaluate(tmp_path / "run", tmp_path / "truth.tif")
    by_array = evaluate(found, truth)
    assert by_file.numbers == by_array.numbers
    assert list(by_file.table["class"]) == list(names.values())


def test_windows_do_not_matter(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, found = noisy(rng)
    write(tmp_path / "classes.tif", found, 255)
    write(tmp_path / "truth.tif", truth, 255)
    once = evaluate(tmp_path, tmp_path / "truth.tif", tolerance=2)
    monkeypatch.setattr(pictures, "TILE", 17)
    again = evaluate(tmp_path, tmp_path / "truth.tif", tolerance=2)
    assert once.numbers == again.numbers
    assert np.array_equal(once.confusion, again.confusion)
    assert once.numbers["labelled"] < evaluate(tmp_path, tmp_path / "truth.tif").numbers["labelled"]


def test_no_data_counts_as_unclassified(tmp_path: Path, rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    found[:15] = 255
    write(tmp_path / "classes.tif", found, 255)
    write(tmp_path / "truth.tif", truth, 255)
    numbers = evaluate(tmp_path, tmp_path / "truth.tif").numbers
    assert numbers["unclassified"] == pytest.approx(15 / 60)
    assert numbers["labelled"] == 45 * 80


def test_polygons_in_another_crs_are_truth(tmp_path: Path, rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    write(tmp_path / "classes.tif", found, 255, labels={0: "a", 1: "b", 2: "c", 3: "d"})
    boxes, names = [], []
    for row in range(0, 60, 10):
        for column in range(0, 80, 10):
            left, top = 500_000 + 10 * (column + 1), 5_300_000 - 10 * (row + 1)
            boxes.append(shapely.box(left, top - 80, left + 80, top))
            names.append("abcd"[truth[row, column]])
    frame = geopandas.GeoDataFrame({"class": names}, geometry=boxes, crs=GRID.crs)
    frame.to_crs(4326).to_file(tmp_path / "fields.gpkg")
    scores = evaluate(tmp_path, tmp_path / "fields.gpkg")
    inner = np.zeros((60, 80), bool)
    for row in range(0, 60, 10):
        for column in range(0, 80, 10):
            inner[row + 1 : row + 9, column + 1 : column + 9] = True
    expected = metrics.accuracy_score(truth[inner], found[inner])
    assert scores.numbers["overall_accuracy"] == pytest.approx(expected, abs=0.01)
    assert scores.groups is not None
    assert scores.groups.shape == (48, 4, 4)
    assert np.array_equal(scores.groups.sum(axis=0).T, scores.confusion)


def test_probabilities_are_judged_by_the_names_of_their_bands(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    truth = rng.integers(0, 2, (60, 80)).astype(np.uint8)
    sure = np.full((60, 80), 0.8, np.float32)
    chance = np.stack([np.where(truth == 1, sure, 1 - sure), np.where(truth == 0, sure, 1 - sure)])
    write(tmp_path / "classes.tif", truth, 255, labels={0: "wood", 1: "field"})
    write(
        tmp_path / "probabilities.tif", chance.astype(np.float32), np.nan, bands=("field", "wood")
    )
    write(tmp_path / "truth.tif", truth, 255, labels={0: "wood", 1: "field"})
    numbers = evaluate(tmp_path, tmp_path / "truth.tif").numbers
    assert numbers["calibration_error"] == pytest.approx(0.2, abs=1e-6)
    assert numbers["brier"] == pytest.approx(0.08, abs=1e-6)


def test_anomalies_of_a_run(tmp_path: Path, rng: np.random.Generator) -> None:
    truth = np.zeros((60, 80), np.uint8)
    truth[10:13, 20:24] = truth[40:42, 60:65] = 1
    score = rng.normal(2.0 * truth, 1).astype(np.float32)
    score[:5] = np.nan
    write(tmp_path / "anomaly.tif", score, np.nan)
    write(tmp_path / "anomalies.tif", truth, 255)
    found = geopandas.GeoDataFrame(
        geometry=[shapely.box(500_200, 5_299_870, 500_240, 5_299_900)], crs=GRID.crs
    )
    found.to_file(tmp_path / "regions.gpkg")
    numbers = evaluate(tmp_path, tmp_path).numbers
    expected = metrics.roc_auc_score(truth[5:].ravel(), score[5:].ravel())
    assert numbers["auc"] == pytest.approx(expected)
    assert (numbers["regions_true"], numbers["regions_matched"]) == (2, 1)


def test_changes_of_a_run_with_their_days(tmp_path: Path) -> None:
    truth, found = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    truth[10:20, 10:20], found[10:20, 12:22] = 3, 5
    days = np.full((60, 80), -1, np.int32)
    days[truth > 0] = 19_000
    interval = np.full((2, 60, 80), -(2**31), np.int32)
    interval[:, found > 0] = np.array([[18_990], [19_005]])
    interval[:, 10:14, 12:22] += 20
    (tmp_path / "truth").mkdir()
    write(tmp_path / "change.tif", found, 255, labels={5: "burn"})
    write(tmp_path / "change_date.tif", interval, -(2**31))
    write(tmp_path / "truth" / "changes.tif", truth, 255, labels={3: "burn"})
    write(tmp_path / "truth" / "change_date.tif", days)
    scores = evaluate(tmp_path, tmp_path / "truth")
    assert scores.numbers["precision"] == scores.numbers["recall"] == pytest.approx(0.8)
    assert scores.numbers["kind_accuracy"] == 1
    burn = scores.table.iloc[0]
    assert burn["day_inside"] == pytest.approx(0.6)
    assert burn["day_error"] == 0


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (replace(GRID, transform=Affine(10, 0, 900_000, 0, -10, 5_300_000)), "km apart"),
        (replace(GRID, crs=None), "do not lie on one grid"),
    ],
)  # fmt: skip
def test_truth_elsewhere_is_one_line(tmp_path: Path, grid: Grid, words: str) -> None:
    write(tmp_path / "classes.tif", np.ones((60, 80), np.uint8), 255)
    values = np.ones((1, 60, 80), np.uint8)
    blocks = [(grid.whole, values)]
    write_cog(tmp_path / "truth.tif", grid, blocks, dtype="uint8", nodata=255, bands=("class",))
    with pytest.raises(InputError, match=words) as problem:
        evaluate(tmp_path, tmp_path / "truth.tif")
    assert "\n" not in str(problem.value)


def test_nothing_to_compare_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no result"):
        evaluate(tmp_path, tmp_path)
    (tmp_path / "classes.tif").write_bytes(b"no picture")
    with pytest.raises(InputError, match="does not exist"):
        evaluate(tmp_path, tmp_path / "truth.tif")
    with pytest.raises(InputError, match="cannot read"):
        evaluate(tmp_path, tmp_path)
    with pytest.raises(InputError, match="cannot be compared"):
        evaluate(np.ones((3, 3)), np.ones((3, 4)))


def test_scores_become_json(rng: np.random.Generator) -> None:
    truth, found = noisy(rng)
    found[found == 2] = 1
    text = json.dumps(evaluate(found, truth).to_dict(), allow_nan=False)
    assert json.loads(text)["what"] == "classes"
