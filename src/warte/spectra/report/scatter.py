"""Many points as SVG whose text stays small."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

MOST_NAMED = 1500  # points with a name to hover over; the others are bare dots


def scatter(points: pd.DataFrame) -> str:
    """SVG elements of points.

    Bare dots come first, one for each place on the screen, so that their text does not grow with
    their number; then named points, and on top those that lead somewhere.

    Args:
        points: columns at_x, at_y (SVG coordinates), colour, title (said when hovered over),
            anchor (of the page; "" for none), ring (bool: drawn round it). The first 1500 and
            those with an anchor have their titles.
    """
    linked = points["anchor"] != ""
    named = linked | (np.arange(len(points)) < MOST_NAMED)
    parts = [_dots(points[~named])]
    for some in (points[named & ~linked], points[linked]):
        parts += [_point(row) for row in some.to_dict("records")]
    return "".join(parts)


def _dots(points: pd.DataFrame) -> str:
    parts = []
    for colour, group in points.groupby("colour"):
        spots = np.unique(np.rint(group[["at_x", "at_y"]].to_numpy()).astype(int), axis=0)
        path = "".join(f"M{x} {y}h0" for x, y in spots)
        parts.append(
            f'<path d="{path}" stroke="{colour}" stroke-width="3" stroke-linecap="round" '
            'stroke-opacity=".55"/>'
        )
    return "".join(parts)


def _point(row: Mapping[Any, Any]) -> str:
    ring = ' stroke="currentColor" stroke-width="1.5"' if row["ring"] else ""
    circle = (
        f'<circle cx="{row["at_x"]:.1f}" cy="{row["at_y"]:.1f}" r="{4 if row["anchor"] else 2.5}" '
        f'fill="{row["colour"]}" fill-opacity=".85"{ring}>'
        f"<title>{escape(row['title'])}</title></circle>"
    )
    if not row["anchor"]:
        return circle
    return f'<a href="#{row["anchor"]}" style="color:inherit">{circle}</a>'
