"""Reading and writing sets of synthetic images under ComfyUI's output folder."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.dataset.drawn import remember_place, same_record
from ..diffusioncleft_core.dataset.withdrawn import SAID
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import inside, read_json, write_json
from ..diffusioncleft_core.imageset.manifest import ImageRow
from ..diffusioncleft_core.imageset.places import MANIFEST, SETTINGS, index_of, named
from ..diffusioncleft_core.imageset.synthetic import drawn_by
from ..diffusioncleft_core.imageset.writer import made_from, open_set_writer
from . import places
from .common import ImageSetHandle, stop_if_interrupted
from .opened import OpenedSet, handle_of, withdrawn_notes
from .pictures import pixels_of
from .provenance import Drawn
from .verdicts import Record, picture_key

MADE_BY = "comfyui"
_OTHER = "give another folder"
_SHARED = ("base", "lora")


@dataclass(frozen=True)
class SavedSet:
    """`total` images are in the set; `shown` names the accepted ones of this call for ComfyUI's `/view`.

    `files` names all of this call, those set aside too, for a client that fetches the set.
    """

    handle: ImageSetHandle
    total: int
    shown: list[dict[str, str]]
    files: list[dict[str, str]]
    text: str


def load_images(
    found: OpenedSet, which: str, start: int, limit: int
) -> tuple[list[Any], list[dict[str, Any]], str]:
    """Pictures [H, W, 3] uint8, their rows, and a sentence. A damaged image is named and left out."""
    from ..diffusioncleft_core.imageset.decode import Rejected, read_image
    from ..diffusioncleft_core.imageset.manifest import filtered_rows

    aside = which == "rejected"
    passed_over = {row.file for row in found.rows if row.accepted} - {
        row.file for row in filtered_rows(found.rows)
    }
    wanted = [
        row
        for row in found.rows
        if which == "all" or ((row.accepted is False) == aside and row.file not in passed_over)
    ]
    part = wanted[start : start + limit] if limit else wanted[start:]
    pictures, rows = [], []
    damaged: list[str] = []
    for row in part:
        stop_if_interrupted()
        try:
            pictures.append(read_image(inside(found.handle.folder, row.file)))
        except (Rejected, UserError, OSError):
            damaged.append(row.file)
            continue
        rows.append(_socket_row(row))
    text = f"{found.handle.name}: {len(found.rows)} images, {len(pictures)} given ({which})"
    text += f", {len(damaged)} can't be read: {named(damaged)}" if damaged else ""
    return pictures, rows, "\n".join([text, *withdrawn_notes([found.handle.folder])])


def save_images(
    folder: Path,
    images: Any,
    rows: Any,
    record: Mapping[str, Any],
    verdicts: Record | None = None,
    drawn: Drawn | None = None,
) -> SavedSet:
    """Write every picture that the set does not hold yet; UserError when it holds others' pictures.

    What the filters set aside goes into the subfolder `rejected`, as the core's filter puts it. drawn: prompt
    and seed of pictures that come without rows, and what else the graph made them with.
    """
    pictures = pixels_of(images)
    drawn = drawn or Drawn({}, "")
    given = rows_for(rows, len(pictures), drawn.described)
    if withdrawn_notes([folder]):
        raise UserError(f"the LoRA that drew {places.shown_name(folder)} {SAID}; {_OTHER}")
    _same_settings(folder, record)
    remember_place(folder, drawn_by(record.get("lora")))
    asked: Counter[str] = Counter()
    shown, files, made, aside = [], [], 0, 0
    with open_set_writer(folder) as writer:
        for pixels, row in zip(pictures, given, strict=True):
            stop_if_interrupted()
            found = (verdicts or {}).get(picture_key(pixels)) or row.get("verdicts") or {}
            row = {**record, **row, "verdicts": dict(found)}
            alike = made_from(row, pixels, drawn.recipe)
            file, new = writer.write(pixels, row, made_from(row, pixels, drawn.recipe, asked[alike]))
            asked[alike] += 1
            made += new
            files.append(places.shown_file(folder / file))
            if found.get("accepted", True):
                shown.append(files[-1])
            else:
                aside += 1
    handle = handle_of(folder, writer.rows)
    there = f", {len(pictures) - made} were there" if len(pictures) > made else ""
    told = f", {aside} of them set aside" if aside else ""
    text = f"{handle.name}: {made} saved{there}{told}, {len(writer.rows)} in all"
    return SavedSet(handle, len(writer.rows), shown, files, text)


def rows_for(rows: Any, count: int, drawn: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """One row a picture. A single row of a builder serves a whole batch; without any, `drawn` does."""
    given = [dict(row) for row in rows or [] if row]
    if not given:
        plain = {"index": None, "prompt": "", "seed": 0, "attributes": {}, "condition": "", **(drawn or {})}
        return [dict(plain) for _ in range(count)]
    if len(given) == 1 and given[0].get("index") is None:
        return given * count
    if len(given) != count:
        raise UserError(
            f"there are {count} pictures and {len(given)} rows; connect the rows of the same plan or filter"
        )
    return given


def _same_settings(folder: Path, record: Mapping[str, Any]) -> None:
    """A set has one base model and one LoRA: figures of a mixture would mean nothing."""
    settings = folder / SETTINGS
    if not settings.is_file() and (folder / MANIFEST).is_file():
        raise UserError(f"{places.shown_name(folder)} is a set that this node did not make; {_OTHER}")
    if not settings.is_file():
        shared = {name: record[name] for name in (*_SHARED, "sampler")}
        write_json(settings, {"schema": 1, **shared, "made_by": MADE_BY})
        return
    stored = read_json(settings)
    if stored.get("made_by") != MADE_BY:
        raise UserError(f"{places.shown_name(folder)} is a set of the command line; {_OTHER}")
    changed = [name for name in _SHARED if not same_record(stored.get(name), record[name])]
    if changed:
        raise UserError(
            f"{places.shown_name(folder)} holds pictures made with another {' and '.join(changed)}; {_OTHER}"
        )


def _socket_row(row: ImageRow) -> dict[str, Any]:
    return {
        "index": index_of(row.file),
        "prompt": row.prompt or "",
        "seed": row.seed or 0,
        "attributes": row.attributes,
        "condition": row.condition or "",
        "verdicts": row.verdicts,
    }
