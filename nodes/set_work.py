"""Reading and writing sets of synthetic images under ComfyUI's output folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import (
    append_jsonl,
    inside,
    read_json,
    read_jsonl,
    sha256_file,
    write_json,
    write_jsonl,
)
from ..diffusioncleft_core.generation.files import manifest_row, read_done, sidecar_of, write_image
from . import places
from .common import ImageSetHandle, stop_if_interrupted
from .pictures import pixels_of
from .verdicts import Record, picture_key

MANIFEST = "manifest.jsonl"
SETTINGS = "generation.json"
REJECTED = "rejected"
MADE_BY = "comfyui"
_OTHER = "give another folder"
_SHARED = ("base", "lora")
_NO_ROW: dict[str, Any] = {"index": None, "prompt": "", "seed": 0, "attributes": {}, "condition": ""}


@dataclass(frozen=True)
class OpenedSet:
    handle: ImageSetHandle
    rows: list[dict[str, Any]]


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


def open_set(name: str) -> OpenedSet:
    """Read the manifest of a set; UserError for a name that is none."""
    folder = places.output_folder(name)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"there is no image set {name!r} under ComfyUI's output folder; save one first")
    rows = read_jsonl(folder / MANIFEST)
    return OpenedSet(_handle(folder, rows), rows)


def set_fingerprint(name: str) -> str:
    try:
        return sha256_file(places.output_folder(name) / MANIFEST)
    except (OSError, UserError):
        return "missing"


def is_accepted(row: Mapping[str, Any]) -> bool:
    """Whether no filter set the image aside."""
    return bool((row.get("verdicts") or {}).get("accepted", True))


def load_images(
    found: OpenedSet, which: str, start: int, limit: int
) -> tuple[list[Any], list[dict[str, Any]], str]:
    """Pictures [H, W, 3] uint8, their rows, and a sentence. A damaged image is counted and left out."""
    from ..diffusioncleft_core.dataset.reasons import Rejected
    from ..diffusioncleft_core.faces.records import read_image

    wanted = [row for row in found.rows if which == "all" or is_accepted(row) == (which == "accepted")]
    part = wanted[start : start + limit] if limit else wanted[start:]
    pictures, rows, damaged = [], [], 0
    for row in part:
        stop_if_interrupted()
        try:
            # A manifest is a file that anyone may have written: its names must not lead out of its folder.
            pictures.append(read_image(inside(found.handle.folder, row["file"])))
        except (Rejected, UserError, OSError):
            damaged += 1
            continue
        rows.append(_socket_row(row))
    text = f"{found.handle.name}: {len(found.rows)} images, {len(pictures)} given ({which})"
    return pictures, rows, text + (f", {damaged} can't be read" if damaged else "")


def save_images(
    folder: Path,
    images: Any,
    rows: Any,
    record: Mapping[str, Any],
    verdicts: Record | None = None,
    drawn: Mapping[str, Any] | None = None,
) -> SavedSet:
    """Write every picture that the set does not hold yet; UserError when it holds others' pictures.

    What the filters set aside goes into the subfolder `rejected`, as the core's filter puts it. drawn: prompt
    and seed of pictures that come without rows.
    """
    pictures = pixels_of(images)
    given = rows_for(rows, len(pictures), drawn)
    _same_settings(folder, record)
    writer = _Writer(folder, record)
    for pixels, row in zip(pictures, given, strict=True):
        stop_if_interrupted()
        found = (verdicts or {}).get(picture_key(pixels)) or row.get("verdicts") or {}
        writer.write(pixels, {**row, "verdicts": dict(found)})
    handle = _handle(folder, writer.manifest)
    there = f", {len(pictures) - writer.made} were there" if len(pictures) > writer.made else ""
    aside = f", {writer.aside} of them set aside" if writer.aside else ""
    text = f"{handle.name}: {writer.made} saved{there}{aside}, {len(writer.manifest)} in all"
    return SavedSet(handle, len(writer.manifest), writer.shown, writer.files, text)


class _Writer:
    """Writes pictures into one set and keeps its manifest."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        self._folder, self._record = folder, record
        self.manifest = read_jsonl(folder / MANIFEST) if (folder / MANIFEST).is_file() else []
        self._taken = {row["file"] for row in self.manifest}
        self._free = 1 + max(map(_place, self._taken), default=-1)
        self.shown: list[dict[str, str]] = []
        self.files: list[dict[str, str]] = []
        self.made = self.aside = 0

    def write(self, pixels: Any, row: dict[str, Any]) -> None:
        """Write one picture with its row, unless the set holds it."""
        index = row["index"]
        if index is None:
            index, self._free = self._free, self._free + 1
        accepted = is_accepted(row)
        self.aside += not accepted
        known = self._known(index, row)
        if known is None:
            place = self._folder if accepted else self._folder / REJECTED
            sidecar = write_image(place, pixels, {**self._record, **row, "index": index})
            known = sidecar["file"] if accepted else f"{REJECTED}/{sidecar['file']}"
            self._note({**manifest_row(sidecar, "generated"), "file": known, "verdicts": row["verdicts"]})
            self.made += 1
        self.files.append(places.shown_file(self._folder / known))
        if accepted:
            self.shown.append(self.files[-1])

    def _known(self, index: int, row: Mapping[str, Any]) -> str | None:
        """The picture's file when the set holds it whole; UserError when its place is another prompt's."""
        for folder, prefix in ((self._folder, ""), (self._folder / REJECTED, f"{REJECTED}/")):
            sidecar = read_done(folder, index, row["seed"])
            if sidecar is not None:
                if sidecar["prompt"] != row["prompt"]:
                    raise UserError(
                        f"{places.shown_name(self._folder)} holds picture {index} of another plan; {_OTHER}"
                    )
                file = f"{prefix}{sidecar['file']}"
                if file in self._taken:
                    return file
        return None

    def _note(self, row: dict[str, Any]) -> None:
        if row["file"] in self._taken:
            self.manifest = [row if old["file"] == row["file"] else old for old in self.manifest]
            write_jsonl(self._folder / MANIFEST, self.manifest)
            return
        append_jsonl(self._folder / MANIFEST, row)
        self.manifest.append(row)
        self._taken.add(row["file"])


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
    changed = [name for name in _SHARED if stored.get(name) != record[name]]
    if changed:
        raise UserError(
            f"{places.shown_name(folder)} holds pictures made with another {' and '.join(changed)}; {_OTHER}"
        )


def _handle(folder: Path, rows: list[dict[str, Any]]) -> ImageSetHandle:
    conditions = {row.get("condition") for row in rows if row.get("condition")}
    return ImageSetHandle(
        name=places.shown_name(folder),
        folder=folder,
        condition=str(conditions.pop()) if len(conditions) == 1 else "",
        phantom=_of_phantom(folder, rows),
    )


def _of_phantom(folder: Path, rows: list[dict[str, Any]]) -> bool:
    """Whether the set was drawn by the embedded base model, by the hash in its first sidecar."""
    from ..diffusioncleft_core.flux.source import phantom_source

    for row in rows[:1]:
        try:
            sidecar = read_json(sidecar_of(inside(folder, row["file"])))
        except UserError:
            return False
        base = sidecar.get("base", {}) if isinstance(sidecar, dict) else {}
        return bool(base.get("sha256") == phantom_source().fingerprint())
    return False


def _socket_row(row: Mapping[str, Any]) -> dict[str, Any]:
    place = _place(str(row["file"]))
    return {
        "index": None if place < 0 else place,
        "prompt": row.get("prompt") or "",
        "seed": row.get("seed") or 0,
        "attributes": row.get("attributes") or {},
        "condition": row.get("condition") or "",
        "verdicts": row.get("verdicts") or {},
    }


def _place(file: str) -> int:
    """The place in the plan that a file's name begins with; -1 for another kind of name."""
    digits = file.rsplit("/", maxsplit=1)[-1].partition("_")[0]
    return int(digits) if digits.isdigit() else -1
