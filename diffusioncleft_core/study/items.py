"""The pictures of a study as they are shown, and the private table that says where each comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..conditions.vocabulary import GROUPS
from ..errors import UserError
from ..files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Item:
    """One picture as it is shown. What a rater may know of it is `id`, `width` and `height` alone.

    Attributes:
        id: random; its file is `ID.png`.
        origin: the set that it is from.
        condition: None where the set does not know it; so for each of `groups`.
        groups: by the names of `GROUPS`.
        repeat_of: the item whose picture it shows again.
        practice: it comes first and does not count.
        width, height: px.
        sha256: of the file.
        photograph: of a person, by the pixel hash of its dataset or else the hash of its file; None for
            what is none, and once the study is closed.
        source: of a photograph, the place of its set in the study's list of sources.
        lora: SHA-256 of the LoRA that drew it.
    """

    id: str
    origin: str
    condition: str | None = None
    groups: Mapping[str, str | None] = field(default_factory=lambda: dict.fromkeys(GROUPS))
    repeat_of: str | None = None
    practice: bool = False
    width: int = 0
    height: int = 0
    sha256: str = ""
    photograph: str | None = None
    source: int | None = None
    lora: str | None = None

    @property
    def picture(self) -> str:
        """The item whose picture it is: its own id, or the one that it repeats."""
        return self.repeat_of or self.id


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write the key of a study: an item a line."""
    write_jsonl(path, (asdict(item) for item in items))


def read_items(path: Path) -> tuple[Item, ...]:
    """The items of a study's key. UserError where it is missing or damaged."""
    return tuple(_item(row, path) for row in read_jsonl(path))


def _item(row: dict[str, Any], path: Path) -> Item:
    known = {item.name for item in fields(Item)}
    groups = row.get("groups")
    try:
        if not isinstance(groups, dict):
            raise TypeError
        item = Item(**{key: value for key, value in row.items() if key in known})
    except TypeError:
        raise UserError(f"{path} is damaged: a row of it is no item; restore it from a copy") from None
    return item
