"""The verb on small scenes with known groups: files, features, methods, bad input."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from warte.core.errors import InputError, SettingsError
from warte.earth.cluster import Clustered, ClusterSettings, cluster
from warte.earth.scene import Grid, Scene, scene_of_array

BANDS = ("blue", "red", "nir")
MIDDLES = np.array([[40, 60, 200], [90, 90, 80], [20, 25, 10]], float)


def _truth(rows: int = 60, columns: int = 70) -> np.ndarray:
    """(rows, columns) groups 0, 1, 2 in blocks of falling share, -1 for no data."""
    truth = np.zeros((rows, columns), int)
    truth[:, 40:] = 1
    truth[20:, 55:] = 2
    truth[:7, :9] = -1
    return truth


def _scene(noise: float = 4, name: str = "field", whole: bool = True, shift: float = 0) -> Scene:
    truth = _truth()
    values = MIDDLES[truth] + np.random.default_rng(1).normal(0, noise, (*truth.shape, 3)) + shift
    values = np.rint(values).clip(0, 255) if whole else values * 1e-4
    values[truth < 0] = np.nan
    grid = Grid(*truth.shape, Affine(20, 0, 5e5, 0, -20, 5e6), CRS.from_epsg(32633))
    return scene_of_array(values.transpose(2, 0, 1), BANDS, grid, name=name)


def _plain(values: np.ndarray, bands: list[str] | None = None) -> Scene:
    """A scene without CRS; of which areas are not known."""
    shape = values.shape[-2:]
    grid = Grid(*shape, Affine(2, 0, 10, 0, -2, 20), None)
    return scene_of_array(values, bands, grid)


def _run(scenes: list[Scene], out: Path, **more: object) -> tuple[Clustered, list[np.ndarray]]:
    out.mkdir()
    found = cluster(scenes, ClusterSettings(**{"k": 3, **more}), out=out)  # type: ignore[arg-type]
    pictures = []
    for path in sorted(out.glob("*clusters.tif")):
        with rasterio.open(path) as file:
            assert file.dtypes == ("uint8",) and file.nodata == 0
            pictures.append(file.read(1))
    return found, pictures


@pytest.mark.parametrize("whole", [True, False])
def test_groups_are_found(whole: bool, tmp_path: Path) -> None:
    scene, truth = _scene(whole=whole), _truth()
    found, (picture,) = _run([scene], tmp_path / "out")
    # By falling size: group 0 is cluster 1.
    assert np.array_equal(picture.astype(int), truth + 1)
    assert found.counts == tuple(int((truth == group).sum()) for group in range(3))
    assert found.pixels == sum(found.counts) and found.noise == 0
    pixels = scene.read()
    values = pixels.values.transpose(1, 2, 0).astype(float)
    means = [values[truth == group].mean(axis=0) for group in range(3)]
    assert np.allclose(found.centres, means, rtol=1e-6)
    objective = sum(((values[truth == group] - means[group]) ** 2).sum() for group in range(3))
    assert found.objective == pytest.approx(objective, rel=1e-9)
    assert found.objective_per_pixel == pytest.approx(objective / found.pixels, rel=1e-9)
    with (tmp_path / "out" / "centres.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["cluster", "pixels", "area_ha", *BANDS]
    assert [int(row["cluster"]) for row in rows] == [1, 2, 3]
    assert [float(row["area_ha"]) for row in rows] == pytest.approx(
        [count * 0.04 for count in found.counts]
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "centres.csv", "clusters.tif",
    ]  # fmt: skip
    with rasterio.open(tmp_path / "out" / "clusters.tif") as file:
        assert file.transform == scene.grid.transform and file.crs == scene.grid.crs


@pytest.mark.parametrize("features", ["pixels", "texture", "learned"])
def test_chunks_and_tiles_do_not_show(features: str, tmp_path: Path) -> None:
    scene = _scene(noise=25, whole=False)
    found = []
    for chunk in (100, 997, 10**6):
        out = tmp_path / str(chunk)
        facts, _ = _run([scene], out, chunk=chunk, features=features, sample=500)
        found.append(
            (facts, (out / "centres.csv").read_bytes(), (out / "clusters.tif").read_bytes())
        )
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("features", ["texture", "learned"])
def test_features_tell_apart_what_pixels_do_not(features: str, tmp_path: Path) -> None:
    """Two groups of one mean: one smooth, one of stripes with noise."""
    rng = np.random.default_rng(2)
    values = rng.normal(100, 2, (64, 64))
    if features == "texture":
        values[:, 32:] = rng.normal(100, 20, (64, 32))
    else:  # fine noise that patches average away
        values += rng.normal(0, 30, (64, 64))
        values[:, 32:] += 40
    truth = np.arange(64)[None] >= np.full((64, 1), 32)
    scores = []
    for kind in ("pixels", features):
        _, (picture,) = _run([_plain(values)], tmp_path / kind, k=2, features=kind)
        scores.append(adjusted_rand_score(truth.ravel(), picture.ravel()))
    assert scores[1] > 0.8 > scores[0] + 0.2


def test_several_scenes_share_their_clusters(tmp_path: Path) -> None:
    scenes = [_scene(name="one"), _scene(name="two", shift=6)]
    found, pictures = _run(scenes, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tif"))
    assert names == ["one_clusters.tif", "two_clusters.tif"]
    for picture in pictures:
        assert np.array_equal(picture.astype(int), _truth() + 1)
    assert found.counts[0] == 2 * (_truth() == 0).sum()
    middle = (scenes[0].read().values[0] + scenes[1].read().values[0])[_truth() == 0].mean() / 2
    assert found.centres[0][0] == pytest.approx(float(middle), rel=1e-6)


def test_mixture_is_that_of_scikit_learn(tmp_path: Path) -> None:
    scene = _scene(noise=8, whole=False)
    found, (picture,) = _run(
        [scene], tmp_path / "out", method="mixture", tolerance=1e-9, iterations=200
    )
    pixels = scene.read()
    values = pixels.values[:, pixels.valid].T.astype(float)
    peer = GaussianMixture(3, tol=1e-9, max_iter=500, random_state=0, reg_covar=1e-12).fit(values)
    assert found.log_likelihood == pytest.approx(peer.score(values) * len(values), rel=1e-6)
    assert found.bic == pytest.approx(peer.bic(values), rel=1e-6)
    assert adjusted_rand_score(peer.predict(values), picture[pixels.valid]) > 0.99
    assert found.objective is None


def test_hdbscan_finds_the_number_and_the_noise(tmp_path: Path) -> None:
    scene = _scene(noise=2, whole=False)
    far = scene.read().values
    far[:, 30:33, 10:13] = 1e-4 * np.array([240, 5, 120])[:, None, None]
    scene = scene_of_array(far, BANDS, scene.grid)
    found, (picture,) = _run([scene], tmp_path / "out", method="hdbscan", smallest=60)
    assert found.clusters == 3 and found.noise == (picture == 255).sum() > 0
    assert (picture[30:33, 10:13] == 255).all()
    seen = (picture > 0) & (picture < 255)
    assert adjusted_rand_score(_truth()[seen], picture[seen]) == 1
    assert seen.mean() > 0.8


def test_standardised_bands_count_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(2, size=(50, 50))
    values = np.stack([rng.normal(0, 1000, (50, 50)), truth + rng.normal(0, 0.05, (50, 50))])
    scores = []
    for standardise in (False, True):
        _, (picture,) = _run(
            [_plain(values)], tmp_path / str(standardise), k=4, standardise=standardise
        )
        # Four clusters: two halves of the first band for each group.
        pure = [truth[picture == value].mean() for value in range(1, 5)]
        scores.append(float(np.mean(np.abs(np.array(pure) - 0.5))))
    assert scores[0] < 0.2 and scores[1] > 0.45


def test_no_data_has_no_influence(tmp_path: Path) -> None:
    scene = _scene(whole=False)
    wild = scene.read().values
    wild[:, _truth() < 0] = 1e30
    other = scene_of_array(wild, BANDS, scene.grid, valid=_truth() >= 0)
    for features in ("pixels", "texture", "learned"):
        one, two = tmp_path / f"{features}1", tmp_path / f"{features}2"
        found = [_run([scene], one, features=features), _run([other], two, features=features)]
        assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])


def test_bad_scenes_are_told_in_one_line(tmp_path: Path) -> None:
    def said(scenes: list[Scene], **more: object) -> str:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(InputError) as problem:
            _run(scenes, out, **more)
        assert not list(out.iterdir())
        assert "\n" not in str(problem.value)
        return str(problem.value)

    two = np.tile([[3.0, 7.0]], (9, 4))
    assert "have 2 distinct values, fewer than --k 3; take --k 2" in said([_plain(two)])
    assert "nothing to cluster" in said([_plain(np.ones((9, 9)))])
    assert "no pixel is valid" in said([_plain(np.full((9, 9), np.nan))])
    assert "no pixel is valid" in said([_plain(np.full((9, 9), np.inf))], features="learned")
    assert "no scene" in said([])
    other = _plain(np.ones((9, 9)), ["green"])
    assert "array has no CRS and field has EPSG:32633" in said([_scene(), other])
    grid = _scene().grid
    placed = scene_of_array(np.ones((1, grid.rows, grid.columns)), ["green"], grid)
    assert "has no band blue" in said([_scene(), placed])
    assert "has no band swir" in said([_scene()], bands=("swir",))
    assert "two scenes are called field" in said([_scene(), _scene()])
    assert "lower --smallest" in said([_plain(two)], method="hdbscan")


def test_rare_values_are_found_beyond_the_sample(tmp_path: Path) -> None:
    values = np.zeros((100, 100))
    values[50, 50], values[3, 4] = 9, 5
    found, (picture,) = _run([_plain(values)], tmp_path / "out", k=3, sample=256)
    assert found.counts == (9998, 1, 1) and picture[3, 4] == 2 and picture[50, 50] == 3


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k", 1), ("k", 255), ("seed", -1), ("starts", 0), ("tolerance", 1.0), ("iterations", 0),
        ("features", "deep"), ("method", "dbscan"), ("chunk", 0), ("radius", 0), ("sample", 1),
    ],
)  # fmt: skip
def test_settings_out_of_range_name_their_flag(setting: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^--{setting} is {value}"):
        ClusterSettings(**{setting: value})  # type: ignore[arg-type]
