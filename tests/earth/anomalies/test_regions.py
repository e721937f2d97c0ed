"""Regions against scipy's labels, in any shape and across windows."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from warte.earth.anomalies import regions_of
from warte.earth.scene import Grid, pixel_area_ha


def written(path: Path, score: np.ndarray, grid: Grid) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=grid.rows, width=grid.columns, count=1, dtype="float32",
        crs=grid.crs, transform=grid.transform, nodata=float("nan"),
    ) as file:  # fmt: skip
        file.write(score.astype(np.float32), 1)
    return path


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6])
def test_regions_are_those_of_scipy(
    tmp_path: Path, density: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warte.earth.anomalies.regions.TILE", 16)  # many windows
    rng = np.random.default_rng(0)
    score = np.where(rng.random((50, 70)) < density, 5 + rng.random((50, 70)), 1.0)
    score[20:25, 30:40] = np.nan
    grid = Grid(50, 70, Affine(0.001, 0, 13, 0, -0.001, 48), CRS.from_epsg(4326))
    frame = regions_of(written(tmp_path / "a.tif", score, grid), grid, 4.0, 3, 20.0, 6.0)
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
    frame = regions_of(written(tmp_path / "a.tif", np.ones((8, 9)), grid), grid, 4.0, 1, 0.0, 0.0)
    assert len(frame) == 0
    assert list(frame.columns) == [
        "region", "score", "peak", "evidence", "pixels", "area_ha", "x", "y",
        "row", "column", "geometry",
    ]  # fmt: skip
