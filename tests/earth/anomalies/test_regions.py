"""Regions against scipy's labels, in any shape and across windows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from warte.earth.anomalies import regions_of
from warte.earth.anomalies.regions import reported
from warte.earth.scene import Grid, pixel_area_ha


def written(path: Path, score: np.ndarray, grid: Grid) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=grid.rows, width=grid.columns, count=1, dtype="float32",
        crs=grid.crs, transform=grid.transform, nodata=float("nan"),
    ) as file:  # fmt: skip
        file.write(score.astype(np.float32), 1)
    return path


def of_size(evidence: float, mass: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Chance makes no region of such an evidence and mass, and many smaller ones."""
    return lambda found, above: np.where((found >= evidence) & (above >= mass), 0.0, 9.0)


def test_of_what_is_reported_a_share_is_chance() -> None:
    # One in a hundred alone, two of one in fifty; of three the third may be three times as likely.
    assert reported(np.array([0.021, 0.011, 5.0]), 0.01).tolist() == [False, False, False]
    assert reported(np.array([0.029, 1e-9, 5.0, 0.02]), 0.01).tolist() == [True, True, False, True]
    assert reported(np.zeros(0), 0.01).shape == (0,)


def test_chance_makes_no_more_reports_than_asked_for() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(2000):  # pictures whose oddest regions come as chance makes them
        found += reported(np.cumsum(rng.exponential(size=30)), 0.1).sum()
    assert found / 2000 == pytest.approx(0.1, rel=0.35)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6])
def test_regions_are_those_of_scipy(
    tmp_path: Path, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warte.earth.anomalies.regions.TILE", 16)  # many windows
    rng = np.random.default_rng(0)
    score = np.where(rng.random((50, 70)) < density, 5 + rng.random((50, 70)), 1.0)
    score[20:25, 30:40] = np.nan
    grid = Grid(50, 70, Affine(0.001, 0, 13, 0, -0.001, 48), CRS.from_epsg(4326))
    path = written(tmp_path / "a.tif", score, grid)
    frame = regions_of(path, grid, 4.0, 3, of_size(20.0, 6.0), 0.01)
    labels, _ = ndimage.label(score > 4, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    sums = ndimage.sum(np.nan_to_num(score), labels, np.arange(1, len(sizes) + 1))
    assert sorted(frame["pixels"]) == sorted(
        sizes[(sizes >= 3) & (sums >= 20) & (sums - 4 * sizes >= 6)]
    )
    areas = pixel_area_ha(grid)
    for row in frame.itertuples():
        part = labels == labels[row.row, row.column]
        assert row.pixels == part.sum()
        assert row.peak == pytest.approx(np.float32(score[part].max()))
        assert row.evidence == pytest.approx(score[part].sum(), rel=1e-6)
        assert row.score == pytest.approx(score[part].mean(), rel=1e-6)
        assert row.area_ha == pytest.approx((part * areas[:, None]).sum())
        assert row.geometry.is_valid
        assert row.geometry.area == pytest.approx(part.sum() * 1e-6)
    assert list(frame["region"]) == list(range(1, len(frame) + 1))


def test_no_region_is_an_empty_table_with_the_same_columns(tmp_path: Path) -> None:
    grid = Grid(8, 9, Affine(1, 0, 0, 0, -1, 8), None)
    path = written(tmp_path / "a.tif", np.ones((8, 9)), grid)
    frame = regions_of(path, grid, 4.0, 1, of_size(0.0, 0.0), 0.01)
    assert len(frame) == 0
    assert list(frame.columns) == [
        "region", "score", "peak", "evidence", "chance", "pixels", "area_ha", "x", "y",
        "row", "column", "geometry",
    ]  # fmt: skip
