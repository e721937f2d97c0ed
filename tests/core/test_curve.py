"""Frames of plots: ticks, and values in their places."""

import re

import numpy as np
import pytest

from warte.core.curve import BOTTOM, LEFT, RIGHT, TOP, Frame, labelled, ticks


def test_ticks_are_round() -> None:
    assert ticks(0.0, 1.0, 4) == pytest.approx([0.0, 0.5, 1.0])
    assert ticks(-30.0, 90.0, 4) == pytest.approx([0.0, 50.0])
    assert ticks(2.0, 2.0, 4) == [2.0]
    assert labelled([0.5, 1e6]) == [(0.5, "0.5"), (1e6, "1e+06")]


def test_values_are_in_their_places() -> None:
    frame = Frame((2.0, 4.0), (-1.0, 1.0), [(3.0, "a<")], [(0.0, "b")], "x&", "y", 300, 100)
    assert frame.across(np.array([2.0, 4.0])) == pytest.approx([LEFT, 300 - RIGHT])
    assert frame.up(np.array([-1.0, 1.0])) == pytest.approx([100 - BOTTOM, TOP])
    svg = frame.draw("<title>", "<circle/>")
    assert svg.startswith("<svg") and svg.endswith("<circle/></svg>")
    assert "&lt;title&gt;" in svg and ">a&lt;<" in svg and ">x&amp;<" in svg
    middle = (LEFT + 300 - RIGHT) / 2
    assert re.search(rf'<text x="{middle:.1f}" y="77"', svg)
