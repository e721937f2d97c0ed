"""What the page says in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from warte.earth.scene import Scene

FOOTER = (
    "Made by warte earth. The pictures in this page are small copies; the .tif files beside it "
    "have every pixel, in the grid of the scene."
)


def clusters(centres: pd.DataFrame, scenes: Sequence[Scene]) -> str:
    """The finding of `cluster`."""
    pixels = int(centres["pixels"].sum()) if "pixels" in centres else 0
    return f"{len(centres)} clusters of {pixels:,} pixels in {named(scenes)}"


def classes(areas: pd.DataFrame, scenes: Sequence[Scene]) -> str:
    """The finding of `classify`: the largest classes and their shares."""
    total = max(float(areas["pixels"].sum()), 1.0)
    largest = areas.sort_values("pixels", ascending=False).head(3)
    shares = [
        f"{row['class']} {100 * row['pixels'] / total:.0f} %"
        for row in largest.to_dict("records")
        if row["pixels"] > 0
    ]
    return f"{named(scenes)}: {', '.join(shares)}"


def anomalies(regions: int, scenes: Sequence[Scene]) -> str:
    """The finding of `anomalies`."""
    what = {0: "Nothing stands out", 1: "One region stands out"}.get(
        regions, f"{regions:,} regions stand out"
    )
    return f"{what} in {named(scenes)}"


def changes(regions: int, area_ha: float, scenes: Sequence[Scene]) -> str:
    """The finding of `change`."""
    if regions == 0:
        return f"No change in {named(scenes)}"
    size = f", {area_ha:,.0f} ha" if area_ha == area_ha and area_ha > 0 else ""
    return f"{regions:,} {'region has' if regions == 1 else 'regions have'} changed{size}"


def named(scenes: Sequence[Scene]) -> str:
    """The scenes by name, not more than three of them."""
    names = [scene.name for scene in scenes]
    if len(names) > 3:
        return f"{len(names)} scenes"
    return ", ".join(names)


def grid_of(scene: Scene) -> str:
    """Size, place and bands of a scene in one sentence."""
    grid = scene.grid
    crs = "no CRS" if grid.crs is None else str(grid.crs.to_string())[:40]
    bands = ", ".join(scene.bands[:12]) + (", ..." if len(scene.bands) > 12 else "")
    when = f", taken {scene.time.date().isoformat()}" if scene.time else ""
    return f"{grid.columns:,} x {grid.rows:,} pixels, {crs}{when}; bands {bands}."
