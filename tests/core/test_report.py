"""The page: every block is drawn, text is escaped, nothing in it is fetched."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from warte.core.report import (
    Cell,
    Drawing,
    Facts,
    Gallery,
    Notes,
    Page,
    Picture,
    Section,
    Table,
    Text,
    render,
    write_page,
)

PNG = bytes(cv2.imencode(".png", np.zeros((4, 6), np.uint8))[1])
JPEG = bytes(cv2.imencode(".jpg", np.zeros((4, 6), np.uint8))[1])
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Balance(HTMLParser):
    """Collects tags that are closed in the wrong order, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag, attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def parsed(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    return parser


def page_of(*sections: Section) -> Page:
    return Page("tab", "What was found", "In one paragraph", sections, footer="the end")


def everything() -> Page:
    picture = Picture(PNG, "a sky", "below", '<svg viewBox="0 0 6 4"></svg>', "Show lines")
    blocks = [
        Text("words"),
        Text("small words", muted=True),
        Notes(["look out"]),
        Facts([("speed", "3 px/s")]),
        Table(
            ["name", "size"],
            [[Cell("a", "#one", "#ff0000"), Cell("7")]],
            frozenset({"size"}),
        ),
        picture,
        Gallery([Picture(JPEG, "first", "1", pixelated=True), Picture(PNG, "second", large=True)]),
        Drawing('<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>', "a curve"),
    ]
    card = Section("Card", "one", [Text("inside")], "#00ff00")
    return page_of(Section("All", "all", blocks, cards=[card]))


def test_every_block_is_drawn() -> None:
    html = render(everything())
    tree = parsed(html)
    assert (tree.faults, tree.open) == ([], [])
    for text in ("words", "small words", "look out", "3 px/s", "Show lines", "a curve", "inside"):
        assert text in html
    assert html.count('type="checkbox"') == 1
    assert '<td class="number">7</td>' in html
    assert html.count("background:#ff0000") == html.count("background:#00ff00") == 1
    assert 'id="one"' in html and 'href="#one"' in html


def test_nothing_is_fetched() -> None:
    html = render(everything())
    for address in parsed(html).addresses:
        assert address.startswith(("data:", "#"))
    assert not re.search(r"url\(|@import|<script|<iframe", html)
    pictures = [one for one in parsed(html).addresses if one.startswith("data:image/")]
    assert sum(one.startswith("data:image/jpeg;") for one in pictures) == 1
    assert sum(one.startswith("data:image/png;") for one in pictures) == 2
    assert sum(one.startswith("data:image/svg+xml,") for one in pictures) == 1  # the icon


def test_text_is_escaped() -> None:
    evil = '<script>alert("1")</script>'
    blocks = [
        Text(evil),
        Notes([evil]),
        Facts([(evil, evil)]),
        Table([evil], [[Cell(evil, href='x" onclick="y', colour='red" onclick="y')]]),
        Picture(PNG, alt='" onerror="y', caption=evil),
    ]
    html = render(page_of(Section(evil, "a", blocks)))
    assert "<script" not in html
    assert not re.search(r'" on\w+="', html)
    assert parsed(html).faults == []


def test_anchors_are_unique() -> None:
    twice = page_of(
        Section("a", "same", []), Section("b", "b", [], cards=[Section("c", "same", [])])
    )
    with pytest.raises(ValueError, match="'same'"):
        render(twice)


def test_an_empty_page_is_a_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", Page("tab", "Größe ± 1", "", []))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "Größe ± 1" in html
    assert "<footer>" not in html
    assert parsed(html).faults == []
