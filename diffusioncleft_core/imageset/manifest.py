"""The manifest: one JSON line an image, of photographs and of generated images alike.

A set has up to three readings: *raw* is every first attempt, accepted or not; *filtered* is what the filters
accepted, of any attempt; *rejected* is what they set aside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..conditions.plan_rows import PlanRow
from ..errors import UserError
from ..files import append_jsonl, inside, iterate_jsonl, shown, write_jsonl
from .places import (
    FACES_CACHE,
    MANIFEST,
    REJECTED,
    current_place,
    first_index,
    index_of,
    list_images,
    name_of,
    named,
    sidecar_of,
)

ROLES = ("train", "holdout", "generated", "control")
_WHOLE_NUMBERS = ("width", "height", "index", "attempt", "seed")
_OBJECTS = ("attributes", "verdicts")
_OF_PHOTOGRAPHS = frozenset({"sha256", "caption", "healthy_caption", "subject", "region", "made_from"})
"""Fields that a generated image's row leaves out when they are empty; it writes all others."""
_UNKNOWN_IF_ZERO = ("width", "height", "attempt")
_DESCRIBING = ("role", "index", "caption", "prompt")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a set. Sizes in pixels; empty is what is not known of it.

    `file` is relative to the set's folder, with forward slashes. `index` is the place in the plan, `attempt`
    how often the image was made again; `lora` the SHA-256 of its file; `made_from` a hash of what made it.
    Private, in datasets alone: `sha256` of the normalised pixels (`decode.pixel_sha256`), `healthy_caption`,
    that of the same person without the anomaly, `subject`, an opaque label shared by the photographs of one
    person, and `region` [x0, y0, x1, y1], where the finding lies. `others` keeps what else the manifest says.
    """

    file: str
    sha256: str | None = None
    index: int | None = None
    attempt: int = 0
    width: int = 0
    height: int = 0
    condition: str | None = None
    role: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    caption: str | None = None
    healthy_caption: str | None = None
    prompt: str | None = None
    seed: int | None = None
    lora: str | None = None
    verdicts: dict[str, Any] = field(default_factory=dict)
    subject: str | None = None
    region: list[float] | None = None
    made_from: str | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name, which stays wherever the image is moved."""
        return name_of(self.file)

    @property
    def is_raw(self) -> bool:
        """Whether it belongs to the set as first generated."""
        return not self.attempt

    @property
    def accepted(self) -> bool | None:
        """What the filters decided; None when none has seen it."""
        found = self.verdicts.get("accepted")
        return found if isinstance(found, bool) else None

    @property
    def reasons(self) -> list[str]:
        """Why the filters set it aside."""
        return list(self.verdicts.get("reasons") or [])

    def plan_row(self) -> PlanRow:
        """The row of the plan that the image was made from. UserError for one that was not generated."""
        if self.index is None or self.prompt is None or self.seed is None or self.condition is None:
            raise UserError(
                "only a set that `diffusioncleft generate` made can be refilled: its manifest names index, "
                "prompt and seed of every image"
            )
        return PlanRow(self.index, self.prompt, self.seed, dict(self.attributes), self.condition)

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object; what is empty is left out, of a generated image only private fields."""
        row = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "others"}
        empty = {name for name, value in row.items() if value in (None, {})}
        empty |= {name for name in _UNKNOWN_IF_ZERO if row[name] == 0}
        left_out = empty if self.index is None else empty & _OF_PHOTOGRAPHS
        return {name: value for name, value in row.items() if name not in left_out} | self.others

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str = "the manifest") -> ImageRow:
        """Read a row of the manifest `where`. UserError for one that names no file or can't be one."""
        name = row.get("file")
        if not isinstance(name, str) or not name:
            raise UserError(f"a row of {where} has no 'file'; build or generate the set again")
        role = row.get("role")
        if role is not None and role not in ROLES:
            raise UserError(
                f"role {role!r} of {shown(name)} in {where} is unknown; allowed: {', '.join(ROLES)}"
            )
        if not isinstance(row.get("healthy_caption") or "", str):
            raise UserError(f"'healthy_caption' of {shown(name)} in {where} is no text; make the set again")
        known = {item.name for item in fields(cls)} - {"others"}
        values = {key: value for key, value in row.items() if key in known and value is not None}
        for key in values.keys() & {*_WHOLE_NUMBERS, *_OBJECTS}:
            wanted = dict if key in _OBJECTS else int
            if not isinstance(values[key], wanted):
                kind = "JSON object" if wanted is dict else "whole number"
                raise UserError(f"{key!r} of {shown(name)} in {where} is no {kind}; make the set again")
        others = {key: value for key, value in row.items() if key not in known}
        return cls(**_words_once(values), others=_words_once(others))


def _words_once(value: Any) -> Any:
    """The JSON value with one copy in memory of each name and text that many rows have."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {sys.intern(name): _words_once(item) for name, item in value.items()}
    return [_words_once(item) for item in value] if isinstance(value, list) else value


def read_image_set(folder: Path, *, may_be_empty: bool = False) -> list[ImageRow]:
    """All rows that `image_set_rows` gives."""
    return list(image_set_rows(folder, may_be_empty=may_be_empty))


def image_set_rows(folder: Path, *, may_be_empty: bool = False) -> Iterator[ImageRow]:
    """The images of a dataset, a generated set, or a bare folder of images (sorted by name, not recursive).

    One by one, for a set may have a million. Each row says where its image lies now. Of a bare folder `file`,
    `width` and `height` are known; what can't be read is among them, 0 px wide and high. A bare folder that
    was filtered has a manifest too: what came later is added without verdicts. What is an image:
    `places.list_images`.

    Raises:
        UserError: there is no folder, or no image (unless it `may_be_empty`), or the manifest is damaged or
            leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a dataset, a generated set, or of images")
    if not (folder / MANIFEST).is_file():
        yield from _bare_rows(folder, may_be_empty)
        return
    known: set[str] | None = set()
    for row in listed_rows(folder):
        if any(getattr(row, name) is not None for name in _DESCRIBING):
            known = None
        elif known is not None:
            known.add(row.name)
        yield row
    if known is None:
        return
    others = [name for name in list_images(folder).images if name not in known]
    if not known and not others and not may_be_empty:
        raise UserError(f"{folder / MANIFEST} lists no image; generate the set first, or check the path")
    yield from image_rows(folder, others)


def listed_rows(folder: Path) -> Iterator[ImageRow]:
    """The rows of a manifest one by one; none when there is no manifest. UserError as `read_image_set`."""
    path = Path(folder) / MANIFEST
    for found in iterate_jsonl(path) if path.is_file() else ():
        row = ImageRow.from_json(found, str(path))
        try:
            inside(folder, row.file)
        except UserError:  # what it leads to may be private: it is not named
            raise UserError(
                f"a row of {path} names a file that leads out of its folder; make the set again"
            ) from None
        yield replace(row, file=current_place(folder, row.file))


@dataclass(frozen=True)
class Reread:
    """Rows that are read anew each time that they are gone through, so that memory holds one.

    read: such as `partial(image_set_rows, folder)`.
    """

    read: Callable[[], Iterator[ImageRow]]

    def __iter__(self) -> Iterator[ImageRow]:
        return self.read()


def write_image_set(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write the manifest of `folder` atomically, row by row."""
    write_jsonl(Path(folder) / MANIFEST, (row.to_json() for row in rows))


def described(rows: Iterable[ImageRow], *, healthy: bool) -> list[dict[str, Any]]:
    """What a dataset says of its photographs, with `healthy` captions or without: output preservation alone
    takes those.
    """
    return [(row if healthy else replace(row, healthy_caption=None)).to_json() for row in rows]


def add_row(folder: Path, row: ImageRow) -> None:
    """Append one row to the manifest of `folder` and sync it to disk."""
    append_jsonl(Path(folder) / MANIFEST, row.to_json())


def image_rows(folder: Path, files: Iterable[str]) -> Iterator[ImageRow]:
    """Rows of images that no manifest knows: `file` (relative to `folder`), `width` and `height`."""
    from .decode import header_size

    for file in files:
        width, height = header_size(Path(folder) / file) or (0, 0)
        yield ImageRow(file=file, width=width, height=height)


def unlisted(folder: Path) -> list[str]:
    """Sentences that name the images in a set's folder which `read_image_set` does not give.

    They lie in a subfolder, are hidden, links that lead out of it, or missing from its manifest.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return list_images(folder).notices(folder)
    known, own = set(), {REJECTED}
    for row in listed_rows(folder):
        inner, _, _ = row.file.rpartition("/")
        known.add(row.name)
        own |= {inner.partition("/")[0]} if inner else set()
    places = [(folder, list_images(folder, own=own))]
    if (folder / REJECTED).is_dir():
        places.append((folder / REJECTED, list_images(folder / REJECTED)))
    left = [
        name
        for place, listing in places
        for name in listing.images
        if name not in known and index_of(name) is not None and sidecar_of(place / name).is_file()
    ]
    known |= set(left)
    told = [sentence for place, listing in places for sentence in listing.notices(place, known)]
    if left:
        told.append(
            f"images in {shown(folder)} were drawn for a larger number than this one and are not counted "
            f"({len(left)}): {named(left)}"
        )
    return told


def raw_rows(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """The set as it was first generated: rows of attempt 0, accepted or not."""
    return [row for row in rows if row.is_raw]


def filtered_rows(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """What `filtered` gives of rows that can be read only once."""
    return list(filtered([row for row in rows if row.accepted is True]))


def filtered(rows: Collection[ImageRow] | Reread) -> Iterator[ImageRow]:
    """What the filters accepted: of each row of the plan one attempt, the first of those accepted.

    A person can take back an image that was made again meanwhile: then it counts, and the later one does not.
    Rows that no filter has seen are left out. Memory holds the places of images that were made again.
    """
    first: dict[tuple[str | None, int], int] = {}
    for row in rows:
        if row.attempt and row.accepted is True and row.index is not None:
            place = _place(row.condition, row.index)
            first[place] = min(row.attempt, first.get(place, row.attempt))
    for row in rows if first else ():
        if not row.attempt and row.accepted is True and row.index is not None:
            place = _place(row.condition, row.index)
            if place in first:
                first[place] = 0
    for row in rows:
        if row.accepted is True and (
            row.index is None or first.get(_place(row.condition, row.index), row.attempt) == row.attempt
        ):
            yield row


def _place(condition: str | None, index: int) -> tuple[str | None, int]:
    """The row of the plan that an image was made for, also one that was made again."""
    return condition, first_index(index)


def instead_of(row: ImageRow, rows: Iterable[ImageRow]) -> list[ImageRow]:
    """The accepted later attempts at the place of an accepted image, which do not count beside it."""
    if row.index is None or row.accepted is not True:
        return []
    place = _place(row.condition, row.index)
    return [
        other
        for other in rows
        if other.accepted is True
        and other.index is not None
        and _place(other.condition, other.index) == place
        and other.attempt > row.attempt
    ]


def _bare_rows(folder: Path, may_be_empty: bool) -> Iterator[ImageRow]:
    """Rows of a folder without a manifest; of one with our face records also what lies under `rejected/`."""
    listing = list_images(folder)
    aside: list[str] = []
    if (folder / FACES_CACHE).is_dir() and (folder / REJECTED).is_dir():
        aside = [f"{REJECTED}/{name}" for name in list_images(folder / REJECTED).images]
    if not listing.images and not aside and not may_be_empty:
        below = f" (its subfolders {named(listing.folders)} are not looked at)" if listing.folders else ""
        raise UserError(f"{folder} has no image and no {MANIFEST}{below}; check the path")
    return image_rows(folder, [*listing.images, *aside])
