"""One self-contained HTML page from text, tables and pictures: nothing in it is fetched."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    muted: bool = False  # smaller and paler, for remarks


@dataclass(frozen=True)
class Notes:
    """Things a reader must not miss, such as warnings."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    href: str = ""  # address, relative to the page or an #anchor
    colour: str = ""  # a dot of this CSS colour stands before the text


@dataclass(frozen=True)
class Table:
    """A table; columns named in `numeric` are set flush right."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Picture:
    """An encoded picture (PNG or JPEG), with a drawing that a reader can switch off."""

    data: bytes  # the file's bytes
    alt: str  # what it shows, for those who cannot see it
    caption: str = ""
    overlay: str = ""  # trusted SVG in the picture's own pixel coordinates
    overlay_name: str = ""  # label of the switch
    pixelated: bool = False  # magnify without smoothing
    large: bool = False  # in a gallery: larger than the others

    @property
    def address(self) -> str:
        """The picture as a data URI."""
        png = self.data.startswith(b"\x89PNG")
        return f"data:image/{'png' if png else 'jpeg'};base64,{b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Drawing:
    """Inline SVG; colours of the page are there as currentColor. The markup is trusted."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Widget:
    """Something with a script of its own, such as a map to zoom; markup and script are trusted."""

    html: str
    script: str  # JavaScript that runs after the markup; it must fetch nothing
    caption: str = ""


Block = Text | Notes | Facts | Table | Picture | Gallery | Drawing | Widget


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it, and cards below those."""

    title: str
    anchor: str  # letters, digits and dashes; unique in the page
    blocks: Sequence[Block]
    colour: str = ""  # a dot of this CSS colour stands before the title
    cards: Sequence[Section] = field(default_factory=tuple)


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str  # of the browser's tab
    headline: str  # the finding in one sentence
    lead: str  # one paragraph below it
    sections: Sequence[Section]
    footer: str = ""


def render(page: Page) -> str:
    """The page as one HTML text. Raises ValueError when two sections share an anchor."""
    anchors = [part.anchor for section in page.sections for part in (section, *section.cards)]
    for anchor in anchors:
        if anchors.count(anchor) > 1:
            raise ValueError(f"anchor {anchor!r} stands twice in the page, it must be unique")
    return _template().render(page=page, favicon=_FAVICON, kind_of=_kind_of)


def write_page(path: Path, page: Page) -> None:
    """Render the page into a file (UTF-8)."""
    path.write_text(render(page), encoding="utf-8")


# A tower under a star. Without an icon in the page a browser asks the server for one.
_FAVICON = "data:image/svg+xml," + quote(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
    "<rect width='16' height='16' rx='3' fill='#14304f'/>"
    "<path d='M5 14V8h1V7h4v1h1v6z' fill='#e8eef6'/>"
    "<circle cx='11.5' cy='3.5' r='1.5' fill='#ffc44d'/></svg>"
)


def _kind_of(block: Block) -> str:
    """The name by which the template chooses how to draw a block."""
    return type(block).__name__.lower()


@cache
def _template() -> Template:
    source = files("warte.core").joinpath("templates", "page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)
