"""Captions of a built dataset: shown by number, corrected by hand."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from .folder import require_dataset
from .manifest import read_manifest, write_manifest

TRAIN = "train"
MAX_CAPTION = 2000
_EDIT = re.compile(r"(\d+)\s*[:=]\s*(.*)")


def numbered_captions(folder: Path) -> list[tuple[int, str]]:
    """(number, caption) of the training photographs, from 1, in the manifest's order; no name among them."""
    rows = [row for row in read_manifest(require_dataset(folder)) if row.role == TRAIN]
    return [(number, row.caption or "") for number, row in enumerate(rows, start=1)]


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


def edit_captions(folder: Path, edits: Mapping[int, str]) -> int:
    """Give training photographs other captions; return how many changed.

    The trigger stays what it is: a caption without the one that the old caption begins with gets it in front.
    Kept in the manifest until the dataset is built again. UserError for a number that does not exist.
    """
    folder = require_dataset(folder)
    rows = read_manifest(folder)
    places = [place for place, row in enumerate(rows) if row.role == TRAIN]
    changed = 0
    for number, text in edits.items():
        if not 1 <= number <= len(places):
            raise UserError(f"there is no caption {number}; the numbers go from 1 to {len(places)}")
        if len(text) > MAX_CAPTION:
            raise UserError(f"caption {number} has more than {MAX_CAPTION} characters; shorten it")
        place = places[number - 1]
        caption = _with_old_trigger(rows[place].caption or "", text)
        changed += caption != rows[place].caption
        rows[place] = replace(rows[place], caption=caption)
    if changed:
        write_manifest(folder, rows)
    return changed


def _with_old_trigger(old: str, new: str) -> str:
    match = re.match(r"\[[\w-]+\]|[A-Z]{2}[\w-]*\b", old)
    trigger = match[0] if match else ""
    return new if not trigger or new.startswith(f"{trigger} ") else f"{trigger} {new}"
