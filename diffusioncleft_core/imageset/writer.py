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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import folder_lock, inside, read_json, sha256_bytes, sha256_file
from .manifest import ImageRow, add_row, listed_rows, write_image_set
from .places import (
    REJECTED,
    first_index,
    image_name,
    index_of,
    place_for,
    remove_set_leftovers,
    sidecar_of,
)
from .synthetic import TRAINING, generated_row, is_ours, write_image

_NAME = re.compile(r"\d+_\d+\.png")
_MAKING = ("prompt", "seed", "index", "base", "lora", "sampler")


def made_from(
    record: Mapping[str, Any], pixels: npt.NDArray[np.uint8], recipe: str = "", copy: int = 0
) -> str:
    """SHA-256 of what makes a picture: prompt, seed, place in its plan, models, sampler, size and recipe.

    Args:
        record: the sidecar's content to be.
        pixels: [H, W, 3]; they count themselves only where no prompt is known.
        recipe: whatever else makes the picture.
        copy: from 0, among pictures that are meant to be alike in all of it, as those of one batch are.
    """
    known = {name: record.get(name) for name in _MAKING}
    if isinstance(lora := known["lora"], Mapping):  # its hash says what it came from
        known["lora"] = {name: value for name, value in lora.items() if name != TRAINING}
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
        self.rows = list(listed_rows(folder))
        self._known = {key: row.file for row in self.rows if (key := self._key_of(row))}
        self._taken = {row.name for row in self.rows}
        self._torn: list[str] = []
        self._mend()
        indices = [index for name in self._taken if (index := index_of(name)) is not None]
        self._free = 1 + max(map(first_index, indices), default=-1)

    def write(self, pixels: npt.NDArray[np.uint8], record: Mapping[str, Any], key: str) -> tuple[str, bool]:
        """Write one picture unless the set holds it whole.

        What the verdicts set aside goes into the folder `rejected`.

        Args:
            pixels: [H, W, 3], RGB.
            record: the sidecar's content, `index` None for a picture of no plan.
            key: by `made_from`.

        Returns:
            Its file in the set, and whether it is new.
        """
        known = self._known.get(key) or self._older(record, pixels)
        if known and self._whole(known):
            return known, False
        accepted = bool((record.get("verdicts") or {}).get("accepted", True))
        before = known or self._torn_of(record)
        index = index_of(before) if before else None
        index = self._index_for(record) if index is None else index
        folder = self._folder if accepted else self._folder / REJECTED
        sidecar = write_image(folder, pixels, {**record, "index": index, "made_from": key})
        file = place_for(sidecar["file"], accepted=accepted)
        self._list(sidecar, file, known)
        if before and before != file:
            self._remove(before)
        return file, True

    def _torn_of(self, record: Mapping[str, Any]) -> str | None:
        """A file that a crash left of a picture with this seed, and with this place if the row has one."""
        for file in self._torn:
            index, _, seed = Path(file).stem.partition("_")
            if int(seed) == record["seed"] and record.get("index") in (None, int(index)):
                self._torn.remove(file)
                return file
        return None

    def _index_for(self, record: Mapping[str, Any]) -> int:
        """The row's own place in its plan, or the next free one."""
        index = record.get("index")
        if index is None or image_name(int(index), int(record["seed"])) in self._taken:
            index = self._free
        self._free = max(self._free, 1 + first_index(int(index)))
        self._taken.add(image_name(int(index), int(record["seed"])))
        return int(index)

    def _older(self, record: Mapping[str, Any], pixels: npt.NDArray[np.uint8]) -> str | None:
        """The picture at the row's own place, of a set whose manifest does not say what made it."""
        if record.get("index") is None:
            return None
        name = image_name(int(record["index"]), int(record["seed"]))
        shown = (pixels.shape[1], pixels.shape[0], record["prompt"])
        for row in self.rows if name in self._taken else ():
            if row.name == name and not self._key_of(row) and (row.width, row.height, row.prompt) == shown:
                return row.file
        return None

    def _list(self, sidecar: Mapping[str, Any], file: str, instead: str | None = None) -> None:
        """Put a picture into the manifest, in the place of `instead` if that is given."""
        row = replace(generated_row(sidecar), file=file)
        gone = {file, instead}
        if any(old.file in gone for old in self.rows):
            self.rows = [row if old.file in gone else old for old in self.rows]
            write_image_set(self._folder, self.rows)
        else:
            add_row(self._folder, row)
            self.rows.append(row)
        self._known[str(row.made_from)] = file

    def _mend(self) -> None:
        """List whole pictures that a crash kept out of the manifest; find those without a sidecar."""
        listed = {row.file for row in self.rows}
        remove_set_leftovers(self._folder)
        for accepted, folder in ((True, self._folder), (False, self._folder / REJECTED)):
            for path in sorted(folder.glob("*.png")):
                file = place_for(path.name, accepted=accepted)
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

    def _key_of(self, row: ImageRow) -> str | None:
        key = row.made_from or self._sidecar(row.file).get("made_from")
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
