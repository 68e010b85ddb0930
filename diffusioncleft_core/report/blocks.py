"""What a report page is made of: sections of text, tables, plots and galleries, before any HTML.

The sections fill these in from report.json and pictures; one template writes them all out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, smaller text under it, and a tag such as `phantom`.

    bar: a share from 0 to 1 that is drawn as a bar beside the text; empty: read as `no value` by a screen
    reader.
    """

    text: str
    small: str = ""
    tag: str = ""
    bar: float | None = None
    numeric: bool = True

    @property
    def empty(self) -> bool:
        return not self.text


@dataclass(frozen=True)
class Row:
    """A row under its header; `group`: the row is a heading over those that follow."""

    head: str
    cells: Sequence[Cell] = ()
    group: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption and a header row; columns[0] stands over the rows' headers."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    folded: bool = False
    tag: str = ""


@dataclass(frozen=True)
class Legend:
    """One entry: `mark` is square, dot, line, dashes or diamond, `series` the CSS class of its colour."""

    mark: str
    series: str
    label: str


@dataclass(frozen=True)
class Plot:
    """One drawing with the words and numbers that say the same."""

    svg: Markup
    caption: str
    legend: Sequence[Legend] = ()
    tag: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Plots:
    """Plots side by side where there is room."""

    plots: Sequence[Plot]
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Photo:
    """One picture as a data URI. width, height: px of the thumbnail; badge: a word over the caption."""

    src: str
    alt: str
    caption: str
    width: int
    height: int
    badge: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures under one heading; `wide`: few, larger pictures."""

    title: str
    photos: Sequence[Photo]
    note: str = ""
    wide: bool = False
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Text:
    """Paragraphs, or a list of sentences when `listed`."""

    lines: Sequence[str]
    listed: bool = False
    heading: str = ""
    kind: ClassVar[str] = "text"


Block = Table | Plots | Gallery | Text


@dataclass(frozen=True)
class Section:
    """A section of the page. `missing`: one line that says what is not there and how to get it."""

    id: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = field(default_factory=tuple)
    missing: str = ""
