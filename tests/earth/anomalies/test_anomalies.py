"""Whole runs: planted targets are found, noise yields next to nothing, the files are right."""

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from sklearn.metrics import roc_auc_score

from warte.core.errors import InputError, SettingsError
from warte.core.execute import executor
from warte.earth import presets
from warte.earth.anomalies import AnomalySettings, anomalies, fit
from warte.earth.anomalies.settings import Method
from warte.earth.scene import Grid, Scene, scene_of_array
from warte.earth.simulate import GroundSettings, sentinel_1, simulate

UTM = Grid(90, 110, Affine(10, 0, 600_000, 0, -10, 4_000_000), CRS.from_epsg(32618))
FAST = AnomalySettings(trees=10)
TARGETS = ((15, 20, 3, 3), (40, 80, 2, 4), (70, 30, 5, 2), (60, 90, 2, 2))  # row, column, size


def planted(
    bands: int = 40, strength: float = 0.5, grid: Grid | None = UTM
) -> tuple[Scene, np.ndarray]:
    """Fields of five mixed materials with noise, and rectangles of a sixth mixed into them."""
    rng = np.random.default_rng(5)
    wave = np.linspace(0, 1, bands)
    materials = np.stack([
        0.3 + 0.2 * np.sin(6 * wave * rng.uniform(0.5, 1.5) + rng.uniform(0, 6)) for _ in range(6)
    ])  # fmt: skip
    rows, columns = np.indices((90, 110))
    field = (rows // 23 + 2 * (columns // 31)) % 5
    mix = rng.dirichlet(np.ones(5) * 0.3, (90, 110)) * 0.2 + 0.8 * np.eye(5)[field]
    values = np.einsum("rcm,mb->brc", mix, materials[:5])
    truth = np.zeros((90, 110), bool)
    for row, column, height, width in TARGETS:
        truth[row : row + height, column : column + width] = True
    values[:, truth] = (1 - strength) * values[:, truth] + strength * materials[5][:, None]
    values += rng.normal(0, 0.005, values.shape)
    return scene_of_array(values, grid=grid, name="planted"), truth


def score_of(scene: Scene, settings: AnomalySettings) -> np.ndarray:
    return fit(scene, settings)([scene.read()])["anomaly.tif"][0]


@pytest.mark.parametrize(
    ("method", "wanted"),
    [("ensemble", 0.99), ("contrast", 0.99), ("local-rx", 0.97), ("rx", 0.9), ("forest", 0.97),
     ("autoencoder", 0.85)],
)  # fmt: skip
def test_planted_targets_stand_out(method: Method, wanted: float) -> None:
    scene, truth = planted()
    score = score_of(scene, AnomalySettings(method=method))
    assert roc_auc_score(truth.ravel(), score.ravel()) > wanted


def test_files_are_right_and_regions_are_the_targets(tmp_path: Path) -> None:
    scene, truth = planted()
    found = anomalies(scene, AnomalySettings(trees=20), out=tmp_path)
    with rasterio.open(tmp_path / "anomaly.tif") as file:
        assert (file.crs, file.transform, file.dtypes) == (UTM.crs, UTM.transform, ("float32",))
        assert np.isnan(file.nodata)
        score = file.read(1)
    frame = geopandas.read_file(tmp_path / "regions.gpkg")
    copy = geopandas.read_parquet(tmp_path / "regions.parquet")
    assert copy.geometry.geom_equals(frame.geometry).all()
    np.testing.assert_array_equal(copy.drop(columns="geometry"), frame.drop(columns="geometry"))
    assert frame.crs == UTM.crs and found.regions == len(frame)
    np.testing.assert_allclose(frame.geometry.area / 100, frame["pixels"])
    np.testing.assert_allclose(frame["area_ha"], frame["pixels"] * 0.01)
    assert found.region_px == frame["pixels"].sum()
    assert (np.diff(frame["evidence"]) <= 0).all()
    first = frame.iloc[0]
    assert score[first["row"], first["column"]] == pytest.approx(first["peak"])
    met = 0
    for row, column, height, width in TARGETS:
        x = UTM.transform.c + 10 * (column + width / 2)
        y = UTM.transform.f - 10 * (row + height / 2)
        met += frame.intersects(geopandas.points_from_xy([x], [y])[0].buffer(10)).any()
    assert met >= 3  # the fourth has four pixels, a field's edge has more
    inside = truth[frame["row"], frame["column"]]
    assert (~inside).sum() <= 2


@pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
def test_pure_noise_yields_next_to_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    found = anomalies(scene_of_array(rng.normal(size=(6, 150, 150))), FAST, out=tmp_path)
    assert found.regions == 0
    frame = geopandas.read_parquet(tmp_path / "regions.parquet")
    assert len(frame) == found.regions and frame.crs is None


@pytest.mark.parametrize("method", ["rx", "local-rx", "contrast"])
@pytest.mark.parametrize("law", ["gauss", "t"])
def test_threshold_lets_through_the_share_that_was_asked_for(method: Method, law: str) -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(4, 220, 220))
    if law == "t":
        values /= np.sqrt(rng.chisquare(5, (220, 220)) / 5)
    score = score_of(scene_of_array(values), AnomalySettings(method=method))
    assert 0.008 < (score > 2).mean() < 0.012
    assert 0.0002 < (score > 3).mean() < 0.002


def test_results_do_not_depend_on_windows_or_processes(tmp_path: Path) -> None:
    scene, _ = planted(bands=6)
    pictures, regions = [], []
    for name, tile, workers in (("a", 512, 1), ("b", 60, 1), ("c", 60, 2)):
        (tmp_path / name).mkdir()
        with executor(workers=workers) as pool:
            found = anomalies(scene, FAST, out=tmp_path / name, tile=tile, pool=pool)
        with rasterio.open(tmp_path / name / "anomaly.tif") as file:
            pictures.append(file.read(1))
        regions.append(geopandas.read_parquet(tmp_path / name / "regions.parquet"))
        assert found.regions == len(regions[-1]) >= 2
    np.testing.assert_allclose(pictures[1], pictures[0], rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(
        regions[1].drop(columns="geometry"), regions[0].drop(columns="geometry"), rtol=1e-5
    )
    for file in ("anomaly.tif", "regions.parquet"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("b", "c"))
        assert one == two, file


def test_bright_targets_stand_out_of_speckle(tmp_path: Path) -> None:
    ground = GroundSettings(width_m=1280.0, height_m=1280.0, towns=0.0)
    choice = replace(presets.radar(), ground=ground, sensors=(sentinel_1(),))
    (scene,), _ = simulate(choice, np.random.default_rng(1))
    values, quantity = scene.read().values.copy(), scene.quantity
    assert quantity == "sigma0_db"
    (tmp_path / "without").mkdir()
    assert anomalies(scene, FAST, out=tmp_path / "without").regions <= 1
    places = [(20, 30), (64, 100), (100, 20), (110, 90)]
    for row, column in places:  # corners of two by two pixels, 10 dB in VV and 5 dB in VH
        part = (slice(None), slice(row, row + 2), slice(column, column + 2))
        power = 10 ** (values[part] / 10) + np.array([10.0, 3.0])[:, None, None]
        values[part] = 10 * np.log10(power)
    bright = scene_of_array(values, scene.bands, scene.grid, quantity=quantity)
    anomalies(bright, FAST, out=tmp_path)
    frame = geopandas.read_parquet(tmp_path / "regions.parquet")
    for row, column in places:
        assert (np.hypot(frame["row"] - row, frame["column"] - column) < 3).sum() == 1
    assert len(frame) <= len(places) + 1


@pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
def test_no_data_is_never_scored_and_changes_nothing(tmp_path: Path) -> None:
    scene, _ = planted(bands=6, grid=None)
    values = scene.read().values
    valid = np.ones(values.shape[1:], bool)
    valid[:, 60:] = False
    results = []
    for fill in (0.0, -9999.0):
        filled = np.where(valid, values, fill)
        part = scene_of_array(filled, valid=valid)
        folder = tmp_path / str(fill)
        folder.mkdir()
        found = anomalies(part, FAST, out=folder)
        assert found.valid_px == valid.sum()
        with rasterio.open(folder / "anomaly.tif") as file:
            results.append(file.read(1))
    np.testing.assert_array_equal(results[0], results[1])
    assert np.isnan(results[0][~valid]).all() and np.isfinite(results[0][valid]).all()


@pytest.mark.parametrize("method", ["ensemble", "rx", "local-rx", "contrast", "forest"])
def test_small_scenes_and_single_bands_are_scored(method: Method) -> None:
    rng = np.random.default_rng(8)
    for shape in ((1, 30, 40), (60, 4, 5), (2, 1, 2)):
        score = score_of(scene_of_array(rng.normal(size=shape)), AnomalySettings(method=method))
        assert score.shape == shape[1:] and np.isfinite(score).all()
    single = rng.normal(size=(1, 60, 60))
    single[0, 30, 30] = 30
    score = score_of(scene_of_array(single), AnomalySettings(method=method))
    assert score.argmax() == 30 * 60 + 30


def test_an_autoencoder_of_one_band_is_refused() -> None:
    scene = scene_of_array(np.random.default_rng(9).normal(size=(1, 30, 30)), name="one")
    with pytest.raises(InputError, match=r"one varies in one band only.*two or more"):
        fit(scene, AnomalySettings(method="autoencoder"))


def test_large_pictures_go_without_the_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = planted(bands=6)
    assert "forest" in fit(scene, AnomalySettings()).weights
    monkeypatch.setattr("warte.earth.anomalies.score.FOREST_PX", 1000)
    assert "forest" not in fit(scene, AnomalySettings()).weights
    assert "forest" in fit(scene, AnomalySettings(method="forest")).weights


def test_seeds_are_all_that_is_random() -> None:
    scene, _ = planted(bands=6)
    for method in ("forest", "autoencoder"):
        settings = AnomalySettings(method=method, trees=10, epochs=2)
        one, two = score_of(scene, settings), score_of(scene, settings)
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, score_of(scene, replace(settings, seed=1)))


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("method", "magic", "--method"), ("false_alarms", 0.5, "--false-alarms"),
        ("false_regions", 0.0, "--false-regions"), ("inner_px", 4, "--inner-px"),
        ("inner_px", 25, "--inner-px"), ("outer_px", 999, "--outer-px"),
        ("largest_px", 1, "--largest-px"), ("components", 0, "--components"),
        ("trees", 0, "--trees"), ("epochs", 0, "--epochs"), ("smallest_px", 0, "--smallest-px"),
        ("seed", -1, "--seed"),
    ],
)  # fmt: skip
def test_settings_out_of_range_name_their_flag(field: str, value: object, flag: str) -> None:
    with pytest.raises(SettingsError, match=f"^{flag} is {value}"):
        AnomalySettings(**{field: value})  # type: ignore[arg-type]
