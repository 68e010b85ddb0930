"""What a person corrects in a built dataset: photographs taken back, captions edited."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..files import append_jsonl, read_jsonl, shown, write_json, write_jsonl
from ..imageset.decode import OVERRULABLE, REASONS, SetAside
from ..imageset.manifest import ImageRow, write_image_set
from .folder import (
    CAPTIONS,
    EDITS,
    READMITTED,
    SET_ASIDE,
    dataset_lock,
    dataset_rows,
    erase,
    require_dataset,
)
from .matching import file_key
from .settings import dataset_trigger


def read_set_aside(folder: Path) -> list[SetAside]:
    """The private list of what was set aside in the dataset `folder`; empty before the first build."""
    path = require_dataset(folder) / SET_ASIDE
    return [SetAside.from_json(row) for row in read_jsonl(path)] if path.is_file() else []


def readmit(folder: Path, file: str) -> SetAside:
    """Overrule the reason for which `file` was set aside; the next build takes it in, if no other stands.

    What is recorded is the photograph's content and this one reason: a changed file is checked anew, and a
    second reason must be overruled for itself.

    Raises:
        UserError: the file is not on the list, or its reason is a matter of consent, of the table or of a
            file that can't be read.
    """
    entries = read_set_aside(folder)
    matching = [item for item in entries if file_key(item.file) == file_key(file) or shown(item.file) == file]
    if not matching:
        raise UserError(
            f"{file} is not on the list of {folder}; those set aside are named by: diffusioncleft dataset "
            f"show {folder} --list"
        )
    for item in matching:
        if item.overrulable and item.source is not None:
            append_jsonl(folder / READMITTED, {"source": item.source, "reason": item.reason})
            return item
    item = matching[0]
    allowed = ", ".join(sorted(OVERRULABLE))
    raise UserError(
        f"{item.file} was set aside because {REASONS.get(item.reason, item.reason)} ({item.detail}); "
        f"that can't be overruled, only {allowed} can: correct the table or the file and build again"
    )


TRAIN = "train"
MAX_CAPTION = 2000
_EDIT = re.compile(r"(\d+)\s*[:=]\s*(.*)")


def numbered_captions(folder: Path) -> list[tuple[int, str]]:
    """(number, caption) of the training photographs, from 1, in the manifest's order; no name among them."""
    return [(n, row.caption or "") for n, row in enumerate(dataset_rows(folder, TRAIN), start=1)]


def parse_edits(text: str) -> dict[int, str]:
    """`12: new caption` a line; blank lines and those that start with # say nothing. UserError for others."""
    edits: dict[int, str] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#"):
            continue
        match = _EDIT.fullmatch(line)
        if match is None or not match[2].strip():
            raise UserError(f"{line[:40]!r} is no correction; write the number, a colon and the new caption")
        edits[int(match[1])] = " ".join(match[2].split())
    return edits


def allow_edits(folder: Path, allowed: bool = True) -> None:
    """Let captions of the dataset be changed, or no more. Its owner's decision: no graph can take it."""
    folder = require_dataset(folder)
    if allowed:
        write_json(folder / EDITS, {"allowed": True})
    else:
        erase(folder / EDITS)


def edits_allowed(folder: Path) -> bool:
    """Whether the owner lets captions be changed; not unless it was said."""
    path = Path(folder) / EDITS
    return path.is_file() and not path.is_symlink()


def edit_captions(folder: Path, edits: Mapping[int, str]) -> int:
    """Give training photographs other captions; return how many changed.

    The trigger stays what it is: a caption without the one that the old caption begins with gets it in front.
    The captions of the build are kept beside the manifest before the first one changes (`restore_captions`).
    A changed caption stays until the dataset is built again.

    Args:
        folder: the dataset.
        edits: caption by number, from 1, as `numbered_captions` counts.

    Raises:
        UserError: the owner has not allowed it, a number does not exist, or a caption is too long.
    """
    folder = require_dataset(folder)
    if not edits:
        return 0
    if not edits_allowed(folder):
        raise UserError(
            f"captions of the dataset {folder.name} are not to be changed; its owner allows it, on the "
            "machine where it lies, with 'diffusioncleft dataset allow-edits' and the dataset's folder"
        )
    with dataset_lock(folder):
        rows = dataset_rows(folder)
        places = [place for place, row in enumerate(rows) if row.role == TRAIN]
        original = list(rows)
        trigger = dataset_trigger(folder)
        changed = 0
        for number, text in edits.items():
            if not 1 <= number <= len(places):
                raise UserError(f"there is no caption {number}; the numbers go from 1 to {len(places)}")
            if len(text) > MAX_CAPTION:
                raise UserError(f"caption {number} has more than {MAX_CAPTION} characters; shorten it")
            place = places[number - 1]
            caption = _with_old_trigger(rows[place].caption or "", text, trigger)
            changed += caption != rows[place].caption
            rows[place] = replace(rows[place], caption=caption)
        if changed:
            if not (folder / CAPTIONS).is_file():
                keep_captions(folder, original)
            write_image_set(folder, rows)
    return changed


def keep_captions(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write the captions of `rows`, as the build made them, beside the manifest."""
    kept = [{"file": row.file, "caption": row.caption} for row in rows]
    write_jsonl(folder / CAPTIONS, kept)


def restore_captions(folder: Path) -> int:
    """Put back the captions of the build; return how many had been changed."""
    folder = require_dataset(folder)
    with dataset_lock(folder):
        if not (folder / CAPTIONS).is_file():
            return 0
        kept = {row.get("file"): row.get("caption") for row in read_jsonl(folder / CAPTIONS)}
        rows = dataset_rows(folder)
        restored = [replace(row, caption=kept.get(row.file, row.caption)) for row in rows]
        changed = sum(old.caption != new.caption for old, new in zip(rows, restored, strict=True))
        if changed:
            write_image_set(folder, restored)
        erase(folder / CAPTIONS)
    return changed


def _with_old_trigger(old: str, new: str, trigger: str | None) -> str:
    known = rf"{re.escape(trigger)}\b|" if trigger else ""
    match = re.match(rf"{known}\[[\w-]+\]|[A-Z]{{2}}[\w-]*\b", old)
    first = match[0] if match else ""
    return new if not first or new.startswith(f"{first} ") else f"{first} {new}"
