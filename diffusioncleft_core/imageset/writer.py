"""Adding pictures to a set from outside the generator: each is known by what makes it, never by its number.

A process that saves may be ended at any point, and whoever drives it then asks for the same picture again. So
the set's manifest holds, with every picture, a hash of all that made it (`made_from`), and a picture whose
hash is there already is kept. What a crash left behind is put right when the set is next opened.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ..conditions.plan import REFILL_STRIDE
from ..errors import UserError
from ..files import (
    append_jsonl,
    folder_lock,
    inside,
    read_json,
    read_jsonl,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
)
from .manifest import MANIFEST, REJECTED, current_place, write_set_rows
from .synthetic import image_name, is_ours, manifest_row, sidecar_of, write_image

_NAME = re.compile(r"\d+_\d+\.png")
_MAKING = ("prompt", "seed", "index", "base", "lora", "sampler")


def made_from(
    record: Mapping[str, Any], pixels: npt.NDArray[np.uint8], recipe: str = "", copy: int = 0
) -> str:
    """SHA-256 of what makes a picture: prompt, seed, place in its plan, models, sampler, size and recipe.

    record: the sidecar's content to be; pixels: [H, W, 3], they count themselves only where no prompt is
    known; recipe: whatever else makes the picture; copy: from 0, among pictures that are meant to be alike in
    all of it, as those of one batch are.
    """
    known = {name: record.get(name) for name in _MAKING}
    shown = None if record.get("prompt") else sha256_bytes(pixels.tobytes())
    text = json.dumps([known, list(pixels.shape), recipe, copy, shown], sort_keys=True)
    return sha256_bytes(text.encode())


@contextlib.contextmanager
def open_set_writer(folder: Path) -> Iterator[SetWriter]:
    """The writer of a set, which is locked meanwhile; UserError while another process works in it."""

    def busy(process: str) -> str:
        return f"process {process} works in the set {folder.name}; run this again when it is done"

    with folder_lock(folder, busy):
        yield SetWriter(folder)


class SetWriter:
    """Writes pictures into one set and keeps its manifest. The caller holds the set's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.rows = _listed(folder)
        self._known = {key: row["file"] for row in self.rows if (key := self._key_of(row))}
        self._taken = {_name(row["file"]) for row in self.rows}
        self._torn: list[str] = []
        self._mend()
        self._free = 1 + max((place_in_plan(name) % REFILL_STRIDE for name in self._taken), default=-1)

    def write(self, pixels: npt.NDArray[np.uint8], record: Mapping[str, Any], key: str) -> tuple[str, bool]:
        """Write one picture unless the set holds it whole; its file in the set, and whether it is new.

        pixels: [H, W, 3]; record: the sidecar's content, `index` None for a picture of no plan; key: by
        `made_from`. What the verdicts set aside goes into the folder `rejected`.
        """
        known = self._known.get(key) or self._older(record, pixels)
        if known and self._whole(known):
            return known, False
        accepted = bool((record.get("verdicts") or {}).get("accepted", True))
        place, prefix = (self._folder, "") if accepted else (self._folder / REJECTED, f"{REJECTED}/")
        before = known or self._torn_of(record)
        index = place_in_plan(before) if before else self._place_for(record)
        sidecar = write_image(place, pixels, {**record, "index": index, "made_from": key})
        file = f"{prefix}{sidecar['file']}"
        self._list(sidecar, file, known)
        if before and before != file:
            self._remove(before)
        return file, True

    def _torn_of(self, record: Mapping[str, Any]) -> str | None:
        """A file that a crash left of a picture with this seed, and with this place if the row has one."""
        for file in self._torn:
            place, _, seed = PurePosixPath(file).stem.partition("_")
            if int(seed) == record["seed"] and record.get("index") in (None, int(place)):
                self._torn.remove(file)
                return file
        return None

    def _place_for(self, record: Mapping[str, Any]) -> int:
        """The row's own place in its plan, or the next free one."""
        index = record.get("index")
        if index is None or image_name(int(index), int(record["seed"])) in self._taken:
            index = self._free
        self._free = max(self._free, 1 + int(index) % REFILL_STRIDE)
        self._taken.add(image_name(int(index), int(record["seed"])))
        return int(index)

    def _older(self, record: Mapping[str, Any], pixels: npt.NDArray[np.uint8]) -> str | None:
        """The picture at the row's own place, of a set whose manifest does not say what made it."""
        if record.get("index") is None:
            return None
        name = image_name(int(record["index"]), int(record["seed"]))
        size = {"width": pixels.shape[1], "height": pixels.shape[0], "prompt": record["prompt"]}
        for row in self.rows if name in self._taken else ():
            if _name(row["file"]) == name and not self._key_of(row) and row | size == row:
                return str(row["file"])
        return None

    def _list(self, sidecar: Mapping[str, Any], file: str, instead: str | None = None) -> None:
        """Put a picture into the manifest, in the place of `instead` if that is given."""
        row = {**manifest_row(sidecar, "generated"), "file": file, "made_from": sidecar["made_from"]}
        gone = {file, instead}
        if any(old["file"] in gone for old in self.rows):
            self.rows = [row if old["file"] in gone else old for old in self.rows]
            write_set_rows(self._folder, self.rows)
        else:
            append_jsonl(self._folder / MANIFEST, row)
            self.rows.append(row)
        self._known[row["made_from"]] = file

    def _mend(self) -> None:
        """List whole pictures that a crash kept out of the manifest; find those without a sidecar."""
        listed = {row["file"] for row in self.rows}
        for prefix in ("", f"{REJECTED}/"):
            remove_leftovers(self._folder / prefix)
            for path in sorted((self._folder / prefix).glob("*.png")):
                file = f"{prefix}{path.name}"
                if not _NAME.fullmatch(path.name) or file in listed:
                    continue
                self._taken.add(path.name)
                if not is_ours(path):
                    continue
                sidecar = self._sidecar(file)
                if not sidecar:
                    self._torn.append(file)
                elif sidecar.get("made_from") and self._whole(file):
                    self._list(sidecar, file)

    def _key_of(self, row: Mapping[str, Any]) -> str | None:
        key = row.get("made_from") or self._sidecar(row["file"]).get("made_from")
        return str(key) if key else None

    def _whole(self, file: str) -> bool:
        try:
            digest = sha256_file(inside(self._folder, file))
        except (OSError, UserError):
            return False
        return bool(self._sidecar(file).get("png_sha256") == digest)

    def _sidecar(self, file: str) -> dict[str, Any]:
        try:
            found = read_json(sidecar_of(inside(self._folder, file)))
        except (OSError, UserError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remove(self, file: str) -> None:
        path = inside(self._folder, file)
        for item in (path, sidecar_of(path)):
            item.unlink(missing_ok=True)


def _listed(folder: Path) -> list[dict[str, Any]]:
    """The manifest's rows; UserError for one that names no file, or one outside the set."""
    path = folder / MANIFEST
    rows = read_jsonl(path) if path.is_file() else []
    for row in rows:
        if not isinstance(row.get("file"), str) or not row["file"]:
            raise UserError(f"a row of {folder.name}/{MANIFEST} has no 'file'; give another folder")
        inside(folder, row["file"])
        row["file"] = current_place(folder, row["file"])
    return rows


def place_in_plan(file: str) -> int:
    """The place in the plan that a file's name begins with; -1 for another kind of name."""
    digits = _name(file).partition("_")[0]
    return int(digits) if digits.isdigit() else -1


def _name(file: str) -> str:
    return PurePosixPath(file).name
