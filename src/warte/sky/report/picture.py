"""The sky with its tracks: as a picture file and as a drawing over a picture."""

from __future__ import annotations

from html import escape

import cv2
import numpy as np
import pandas as pd

from warte.sky.report import words
from warte.sky.report.look import (
    KIND_COLOURS,
    Bytes,
    FloatArray,
    View,
    bgr,
    place_labels,
    put_text,
)
from warte.sky.tables import KINDS


def draw_preview(sky: Bytes, lines: list[FloatArray], tracks: pd.DataFrame, view: View) -> Bytes:
    """The sky (H, W) with tracks, numbers and a legend, as BGR bytes.

    lines: (N, 2) points of each track in px of the view, in the order of `tracks`.
    """
    picture = cv2.cvtColor(sky, cv2.COLOR_GRAY2BGR)
    drawn = picture.copy()
    kinds, unit = list(tracks["kind"]), view.unit
    thick = 1 if unit < 1.6 else 2
    for points, kind in zip(lines, kinds, strict=True):
        colour = bgr(KIND_COLOURS[kind])
        fixed = np.rint(points * 16).astype(np.int32)[:, None]
        cv2.polylines(drawn, [fixed], False, colour, thick, cv2.LINE_AA, 4)
        start = (int(fixed[0, 0, 0]), int(fixed[0, 0, 1]))
        cv2.circle(drawn, start, round(6 * unit * 16), colour, thick, cv2.LINE_AA, 4)
        head = np.rint(_arrow(points, 9 * unit) * 16).astype(np.int32)[:, None]
        cv2.fillPoly(drawn, [head], colour, cv2.LINE_AA, 4)
    # Half transparent, so that a line does not hide its trail.
    picture = cv2.addWeighted(picture, 0.2, drawn, 0.8, 0)
    names = [str(number) for number in tracks["track_id"]]
    sizes = [(9.0 * unit * len(name), 10.0 * unit) for name in names]
    corners = place_labels(lines, sizes, view.width, view.height)
    for name, corner, kind in zip(names, corners, kinds, strict=True):
        put_text(picture, name, corner, bgr(KIND_COLOURS[kind]), unit)  # type: ignore[arg-type]
    _draw_legend(picture, kinds, view)  # type: ignore[arg-type]
    return picture  # type: ignore[return-value]


def svg_overlay(lines: list[FloatArray], tracks: pd.DataFrame, view: View) -> str:
    """SVG of all tracks in px of the view, each a link to its card."""
    names = [str(number) for number in tracks["track_id"]]
    unit = view.unit
    sizes = [(9.0 * unit * len(name), 11.0 * unit) for name in names]
    corners = place_labels(lines, sizes, view.width, view.height)
    parts = [f'<svg viewBox="-0.5 -0.5 {view.width} {view.height}" font-size="{13 * unit:.1f}">']
    kinds = list(tracks["kind"])
    for name, points, corner, kind in zip(names, lines, corners, kinds, strict=True):
        # 80 points are enough for any smooth path.
        few = points[np.unique(np.linspace(0, len(points) - 1, 80).round().astype(int))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in few)
        head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _arrow(points, 9 * unit))
        colour, width = KIND_COLOURS[kind], 1.3 * unit
        parts.append(
            f'<a href="#track-{name}"><title>Track {name}: {escape(words.kind_name(kind))}</title>'
            f'<g fill="none" stroke="{colour}" stroke-width="{width:.1f}">'
            f'<polyline points="{path}" stroke="transparent" stroke-width="{12 * unit:.0f}"/>'
            f'<polyline points="{path}" stroke-opacity=".7"/>'
            f'<circle cx="{points[0, 0]:.1f}" cy="{points[0, 1]:.1f}" r="{6 * unit:.1f}"/></g>'
            f'<polygon points="{head}" fill="{colour}"/>'
            f'<text x="{corner[0]:.1f}" y="{corner[1]:.1f}" fill="{colour}" stroke="#000" '
            f'stroke-width="{3 * unit:.1f}" paint-order="stroke">{name}</text></a>'
        )
    return "".join(parts) + "</svg>"


def _draw_legend(picture: Bytes, kinds: list[str], view: View) -> None:
    """Kinds that occur with their numbers, in the lower left corner."""
    unit = view.unit
    present = [kind for kind in KINDS if kind in kinds]
    for row, kind in enumerate(reversed(present)):
        y = view.height - (10 + 18 * row) * unit
        centre = (round(13 * unit), round(y - 4 * unit))
        cv2.circle(picture, centre, round(4 * unit), bgr(KIND_COLOURS[kind]), -1, cv2.LINE_AA)
        text = words.count_of(kind, kinds.count(kind))
        put_text(picture, text, (23 * unit, y), (225, 225, 225), unit)


def _arrow(points: FloatArray, size: float) -> FloatArray:
    """(3, 2) corners of an arrow head at the end of a path; a point gets one that points up."""
    back = np.hypot(*(points - points[-1]).T)
    before = np.flatnonzero(back >= size)
    way = points[-1] - points[before[-1] if len(before) else 0]
    length = float(np.hypot(*way))
    way = way / length if length > 0 else np.array([0.0, -1.0])
    side = 0.4 * np.array([-way[1], way[0]])
    return np.stack(
        [points[-1], points[-1] - size * (way + side), points[-1] - size * (way - side)]
    )
