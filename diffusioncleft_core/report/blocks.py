"""What a report's page is made of, and how its names and numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from markupsafe import Markup

from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import ALL, Reported, Vocabulary
from .drawing import Drawing

SERIES = ("first", "second", "third", "fourth")
"""Series of the conditions' drawings, in the vocabulary's order; a fifth condition has the first's."""
UNION = "union"
PHANTOM_TAG = "phantom"


@dataclass(frozen=True)
class Labels:
    """names: by condition, in the vocabulary's order. The rest is the vocabulary's (see there)."""

    names: Mapping[str, str]
    reported: tuple[Reported, ...] = ()
    reported_notes: tuple[str, ...] = ()
    zero_shot_note: str = ""
    shown: int = 2
    """Conditions in the document."""

    def name(self, condition: str) -> str:
        """The label; of what no vocabulary knows, the name without its underscores."""
        if condition == ALL:
            return "Both" if self.shown == 2 else "All"
        return self.names.get(condition) or condition.replace("_", " ").capitalize()

    def series(self, condition: str) -> str:
        """The series of a condition, which has a colour (`drawing`)."""
        if condition == ALL or condition not in self.names:
            return UNION
        return SERIES[list(self.names).index(condition) % len(SERIES)]

    @property
    def columns(self) -> dict[str, str]:
        """Short titles of the other methods, by method; those with nothing for a table are left out."""
        return {row.method: row.column for row in self.reported if row.metric != "similarity_mean"}

    def of(self, metric: str, condition: str) -> list[Reported]:
        """What others reported for one of our metrics and conditions."""
        return [row for row in self.reported if (row.metric, row.condition) == (metric, condition)]


def vocabulary_block(vocabulary: Vocabulary) -> dict[str, Any]:
    """What report.json carries of the vocabulary, so that a page can be made from it alone."""
    return {
        "title": vocabulary.title,
        "labels": {name: item.label for name, item in vocabulary.conditions.items()},
        "zero_shot_note": vocabulary.zero_shot_note,
        "reported": [asdict(row) for row in vocabulary.reported],
        "reported_notes": list(vocabulary.reported_notes),
    }


def labels_of(document: Mapping[str, Any]) -> Labels:
    """The labels of a report document.

    A document without a `vocabulary` is of the embedded one where that knows its conditions; what others
    reported for conditions that it does not know stays out.
    """
    parts = [document.get(key) or {} for key in ("training", "generation", "sets")]
    shown = [name for name in dict.fromkeys(key for part in parts for key in part) if name != ALL]
    block = document.get("vocabulary")
    if not isinstance(block, Mapping):
        vocabulary = load_vocabulary()
        known = not shown or any(name in vocabulary.conditions for name in shown)
        block = vocabulary_block(vocabulary) if known else {}
    return Labels(
        dict(block.get("labels") or dict.fromkeys(shown, "")),
        tuple(Reported(**row) for row in block.get("reported") or ()),
        tuple(block.get("reported_notes") or ()),
        str(block.get("zero_shot_note") or ""),
        len(shown),
    )


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
class Plot:
    """One drawing with the words and numbers that say the same; without a drawing the words say why."""

    caption: str
    drawing: Drawing | None = None
    svg: Markup = Markup("")  # noqa: RUF009 (text, and never changed)
    tag: str = ""
    numbers: Table | None = None


def plotted(drawing: Drawing, *, numbers: Table | None = None) -> Plot:
    """A drawing as the page shows it."""
    tag = PHANTOM_TAG if drawing.phantom else ""
    return Plot(f"{drawing.title}. {drawing.description}", drawing, drawing.inline(), tag, numbers)


@dataclass(frozen=True)
class Plots:
    """Plots side by side where there is room; `wide`: of two columns, one below the other."""

    plots: Sequence[Plot]
    wide: bool = False
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
    """A section of the page.

    missing: one line that says what is not there and how to get it. group: what several sections in a row
    are parts of, which the navigation says once and each heading says.
    """

    id: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = field(default_factory=tuple)
    missing: str = ""
    group: str = ""

    @property
    def heading(self) -> str:
        return f"{self.group}: {self.title[0].lower()}{self.title[1:]}" if self.group else self.title


SUPPRESSED = "<5"
"""Stands for any count of fewer than five photographs."""
NONE = "none"
SPACE = "\u00a0"
"""Keeps a number and its unit on one line."""


def percent(value: float | None) -> str:
    """A proportion as per cent: one decimal, below 1 % two digits that count: `41.6 %`, `0.0025 %`."""
    if value is None:
        return NONE
    share = 100 * value
    if share in (0, 100):
        return f"{share:z.0f}{SPACE}%"
    if abs(share) >= 1:
        return f"{share:.1f}{SPACE}%"
    places = min(6, 1 - math.floor(math.log10(abs(share))))
    return f"{f'{share:z.{places}f}'.rstrip('0').rstrip('.')}{SPACE}%"


def plain(value: float | None, places: int = 3) -> str:
    return NONE if value is None else f"{value:z,.{places}f}"


def count(value: int | None) -> str:
    """A count of photographs that may have been suppressed."""
    return SUPPRESSED if value is None else f"{value:,}"


def interval(bounds: Sequence[float] | None, show: Any = percent) -> str:
    """`95 %: 0.08 % to 0.58 %`, or nothing."""
    if not bounds:
        return ""
    return f"95{SPACE}%: {show(bounds[0])} to {show(bounds[1])}"


def is_phantom(figure: Mapping[str, Any] | None) -> bool:
    """Whether a figure was made with a phantom or seeded-random extractor."""
    return bool(((figure or {}).get("extractor") or {}).get("phantom"))


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    text = text.strip()
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
