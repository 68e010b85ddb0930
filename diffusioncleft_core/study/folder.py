"""The folder of a study: what lies in it, what of it is private, and how it is opened.

STUDY/study.toml          the design, frozen when the study was made; names no path and no photograph
STUDY/closed.json         there once the study was closed
STUDY/private/            closed to others (0700)
    key.jsonl             where each picture comes from
    sources.jsonl         the sets that were drawn from
    design.json           what study.toml was when the study was made
    images/ID.png         the pictures as they are shown
    study.sqlite          raters and ratings, unless they lie in another database
STUDY/results/            what `study analyse` writes
"""

from __future__ import annotations

import contextlib
import glob
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..dataset.folder import erase
from ..errors import UserError
from ..files import (
    TEMPORARY_PREFIX,
    folder_lock,
    inside,
    read_json,
    sha256_file,
    shown,
    write_json,
    write_text,
)
from ..text import read_text
from .design import FROM_STUDY, Design
from .design_file import parse_design, written_design
from .items import Item, read_items

DESIGN = "study.toml"
CLOSED = "closed.json"
PRIVATE = "private"
KEY = f"{PRIVATE}/key.jsonl"
SOURCES = f"{PRIVATE}/sources.jsonl"
RECORD = f"{PRIVATE}/design.json"
IMAGES = f"{PRIVATE}/images"
DATABASE = f"{PRIVATE}/study.sqlite"
RESULTS = "results"
FIGURES = "study.json"
"""Among the results: all that is told of the ratings."""


@dataclass(frozen=True)
class Study:
    """A study that was made."""

    root: Path
    design: Design
    items: tuple[Item, ...]

    @cached_property
    def by_id(self) -> dict[str, Item]:
        """Its items by id."""
        return {item.id: item for item in self.items}

    @property
    def private(self) -> Path:
        return self.root / PRIVATE

    @property
    def database(self) -> Path:
        """The SQLite file of raters and ratings, where no other database is named."""
        return self.root / DATABASE

    @property
    def results(self) -> Path:
        return self.root / RESULTS

    @property
    def closed(self) -> bool:
        """Whether it was closed: it takes no rating any more, and pictures of photographs are erased."""
        return (self.root / CLOSED).is_file()

    @property
    def practice(self) -> tuple[Item, ...]:
        """The items that come first and don't count."""
        return tuple(item for item in self.items if item.practice)

    @property
    def rated(self) -> tuple[Item, ...]:
        """The items that count, repeats among them."""
        return tuple(item for item in self.items if not item.practice)

    def image(self, item: str) -> Path:
        """The picture of an item, by its id. UserError for an id that is not in the study."""
        if item not in self.by_id:
            raise UserError(f"the study has no item {shown(item)!r}; take an id from its key")
        return inside(self.root / IMAGES, f"{item}.png")

    def has_image(self, item: str) -> bool:
        """Whether the picture is there: closing and withdrawing erase pictures of photographs."""
        return item in self.by_id and self.image(item).is_file()


def is_study(folder: Path) -> bool:
    """Whether a study lies in `folder`."""
    return (Path(folder) / DESIGN).is_file() and (Path(folder) / KEY).is_file()


def open_study(folder: Path) -> Study:
    """The study in a folder.

    Raises:
        UserError: there is none, or a file of it is damaged.
    """
    folder = Path(folder)
    if not is_study(folder):
        raise UserError(
            f"{shown(folder)} is no study (it has no {DESIGN} or no {KEY}); make one with "
            "'diffusioncleft study create'"
        )
    path = folder / DESIGN
    design = parse_design(read_text(path), str(path))
    design = replace(design, margin_from=_margin_from(folder, design))
    return Study(folder, design, read_items(folder / KEY))


def write_design(folder: Path, design: Design) -> None:
    """Write study.toml, and keep what it is now: a margin that is changed later was not stated before."""
    write_text(folder / DESIGN, written_design(design))
    write_json(folder / RECORD, {"sha256": sha256_file(folder / DESIGN), "margin": design.margin})


def _margin_from(folder: Path, design: Design) -> str:
    """Whether the margin stands in study.toml as it did when the study was made."""
    found = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    record = found if isinstance(found, dict) else {}
    margin = record.get("margin")
    if not isinstance(margin, int | float):
        return "the design; nothing was kept of it when the study was made, so whether before is not known"
    if margin != design.margin:
        return f"changed since the study was made, when it was ±{margin:g}; not stated before the data"
    if record.get("sha256") != sha256_file(folder / DESIGN):
        return f"{FROM_STUDY}; something else in {DESIGN} was changed since the study was made"
    return FROM_STUDY


def erase_unfinished(place: Path) -> None:
    """Erase what calls that were killed while they made the study left beside it: it may hold photographs."""
    for left in place.parent.glob(f"{glob.escape(unfinished(place))}-*"):
        with contextlib.suppress(UserError):  # one that is at work
            with study_lock(left):
                pass
            erase(left)


def unfinished(place: Path) -> str:
    """How the names begin under which a study is made, beside its own."""
    return f"{TEMPORARY_PREFIX}{place.name}"


def study_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep others from making, changing or closing the study meanwhile; UserError while one does."""
    return folder_lock(
        Path(folder) / PRIVATE,
        lambda owner: f"process {owner} is at work in the study {shown(folder)}; wait for it, or stop it",
    )
