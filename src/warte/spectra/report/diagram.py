"""The diagram of the line ratios as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from warte.core.curve import Frame, labelled, ticks
from warte.spectra.bpt import (
    KAUFFMANN_POLE,
    KEWLEY_POLE,
    FloatArray,
    kauffmann_2003,
    kewley_2001,
    schawinski_2007,
)
from warte.spectra.report.scatter import scatter
from warte.spectra.report.words import CLASS_COLOURS

X_RANGE, Y_RANGE = (-2.0, 1.0), (-1.5, 1.5)


def bpt_diagram(table: pd.DataFrame, cards: Mapping[str, str]) -> str:
    """SVG of log10([O III] / H-beta) against log10([N II] / H-alpha) with the three curves.

    Args:
        table: rows of the overview; those with both ratios measured are drawn, the first ones
            with their names. Points outside the axes are drawn on their edge.
        cards: anchor of the card of each file that has one; its point is a link.
    """
    frame = Frame(
        X_RANGE, Y_RANGE, labelled(ticks(*X_RANGE, 6)), labelled(ticks(*Y_RANGE, 6)),
        "log10 ([N II] 6583 / H-alpha)", "log10 ([O III] 5007 / H-beta)", 640, 480,
    )  # fmt: skip
    known = table[table["bpt_class"] != ""]
    x, y = known["log_nii_ha"].to_numpy(), known["log_oiii_hb"].to_numpy()
    words = np.where(known["components"] == 2, "two components, ", "")
    rows = zip(known["file"], words, x, y, strict=True)
    points = pd.DataFrame(
        {
            "at_x": frame.across(np.clip(x, *X_RANGE)),
            "at_y": frame.up(np.clip(y, *Y_RANGE)),
            "colour": known["bpt_class"].map(CLASS_COLOURS).to_numpy(),
            "title": [f"{file}: {pair}{a:.2f}, {b:.2f}" for file, pair, a, b in rows],
            "anchor": [cards.get(file, "") for file in known["file"]],
            "ring": (known["components"] == 2).to_numpy(),
        }
    )
    inside = _curves(frame) + _names(frame) + scatter(points)
    return frame.draw("Line ratios of the spectra, with the curves that part the classes", inside)


def _curves(frame: Frame) -> str:
    kauffmann = np.linspace(X_RANGE[0], KAUFFMANN_POLE - 0.01, 120)
    kewley = np.linspace(X_RANGE[0], KEWLEY_POLE - 0.01, 120)
    border = np.linspace(*X_RANGE, 300)
    above = schawinski_2007(border)
    border = border[above > np.nan_to_num(kewley_2001(border), nan=-np.inf)]
    return (
        _line(frame, kauffmann, kauffmann_2003(kauffmann), ' stroke-dasharray="5 4"')
        + _line(frame, kewley, kewley_2001(kewley))
        + _line(frame, border, schawinski_2007(border), ' stroke-dasharray="1.5 3"')
    )


def _line(frame: Frame, x: FloatArray, y: FloatArray, style: str = "") -> str:
    inside = (y >= Y_RANGE[0]) & (y <= Y_RANGE[1])
    points = zip(frame.across(x[inside]), frame.up(y[inside]), strict=True)
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path d="M{path}" fill="none" stroke="currentColor" stroke-opacity=".8"{style}/>'


def _names(frame: Frame) -> str:
    places = (
        ("star-forming", -1.75, -0.6), ("composite", -0.16, -1.38), ("Seyfert", -0.9, 1.3),
        ("LINER", 0.55, 0.25),
    )  # fmt: skip
    return "".join(
        f'<text x="{frame.across(x):.0f}" y="{frame.up(y):.0f}" fill="{CLASS_COLOURS[name]}" '
        f'font-weight="600">{name}</text>'
        for name, x, y in places
    )
