"""The page of a factorisation: its figures are right, and all is in one file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from warte.nmf.read import Grid
from warte.nmf.report import (
    MOST_COMPONENTS,
    Outcome,
    component_shares,
    line_picture,
    loss_curve,
    map_picture,
    write_report,
)


def _outcome(explained: float | None = 0.875, converged: bool = True) -> Outcome:
    return Outcome("kl", "poisson", 12.5, [900.0, 50.0, 12.5], 20, converged, explained)


def _page(folder: Path, w: np.ndarray, h: np.ndarray, **more: object) -> str:
    outcome = more.pop("outcome", _outcome())
    write_report(folder, "<x>.npy", w, h, outcome, **more)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


def test_shares_of_components() -> None:
    w = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    h = np.array([[1.0, 2.0], [0.0, 2.0], [5.0, 5.0]])
    assert component_shares(w, h) == pytest.approx([0.75, 0.25, 0.0])
    assert component_shares(0 * w, h) == pytest.approx([0, 0, 0])


def test_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, h = rng.random((6, 2)), np.array([[0.1, 9.0, 3.0], [2.0, 0.0, 0.5]])
    (tmp_path / "w.npy").write_bytes(b"")
    page = _page(
        tmp_path, w, h, columns=["blue", "<i>", "red"], hidden=0.125, settings={"rank": 2},
        warnings=["mind the gap"],
    )  # fmt: skip
    for words in (
        "2 components explain 87.5% of what differs from the mean",
        "6 rows × 3 columns, 12.5% hidden; loss kl, solver poisson.",
        "&lt;i&gt;, red, blue",
        "20; the loss settled",
        "mind the gap",
        'href="w.npy"',
    ):
        assert words in page, words
    assert "<x>" not in page and "<i>" not in page
    assert page.count("<svg") == 3  # two components and the loss
    assert 'href="abundances.tif"' not in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_page_of_a_picture(tmp_path: Path) -> None:
    kept = np.ones((4, 5), bool)
    kept[0, 0] = False
    w = np.random.default_rng(0).random((19, 3))
    grid = Grid(kept, "", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    page = _page(tmp_path, w, np.eye(3), grid=grid, outcome=_outcome(None, False))
    assert page.count("data:image/png") == 3
    assert "3 components of a matrix with a single value" in page
    assert "still fell when the iterations ran out" in page


def test_many_components_are_not_all_drawn(tmp_path: Path) -> None:
    k = MOST_COMPONENTS + 2
    page = _page(tmp_path, np.ones((k, k)), np.eye(k))
    assert page.count("<svg") == MOST_COMPONENTS + 1
    assert f"Only the first {MOST_COMPONENTS} components are drawn" in page
    assert f"component_{k}" in page


@pytest.mark.parametrize("columns", [1, 12, 90, 5000])
def test_line_pictures_are_drawn_to_scale(columns: int) -> None:
    values = np.zeros(columns)
    values[columns // 2 :] = 4.0
    svg = line_picture(values, "a <b>")
    ET.fromstring(svg)
    places = re.findall(r"[ML]([\d.]+) ([\d.]+)(?:V([\d.]+))?", svg.split("<path")[2])
    heights = [float(up or down) for _, down, up in places]
    assert (min(heights), max(heights)) == (3, 67 if columns > 1 else 3)
    assert len(places) == min(columns, 600)
    assert "nan" not in line_picture(np.zeros(columns), "zero")


def test_loss_curves() -> None:
    for losses, mark in (([1000.0, 100.0, 1.0], ">10<"), ([10.0, 9.0, 8.0], ">9<"), ([3.0], ">3<")):
        svg = loss_curve(losses)
        ET.fromstring(svg)
        assert svg.count("<circle") == len(losses) and "nan" not in svg
        assert mark in svg
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', loss_curve([1000.0, 100.0, 10.0]))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    assert "nan" not in loss_curve([5.0, 0.0]) and "inf" not in loss_curve([5.0, 0.0])


def test_map_pictures() -> None:
    values = np.linspace(0, 1, 1000 * 500, dtype=np.float32).reshape(1000, 500)
    values[0, 0] = np.nan
    drawn = cv2.imdecode(np.frombuffer(map_picture(values), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None and drawn.shape == (334, 167, 3)
    assert drawn[0, 0].tolist() == [110, 90, 70]
    assert drawn[-1, -1].tolist() == [255, 255, 255] and drawn[1, 1].max() < 3
    assert map_picture(np.zeros((2, 2), np.float32))[:4] == b"\x89PNG"
