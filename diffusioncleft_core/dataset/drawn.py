"""Which LoRA drew what: by what sets and images name it, and where on this machine it was put.

A record of a LoRA is `{"sha256", "strength"}`, with `training` where its file tells what it came from (of a
merged one several names, with spaces between): that stays the same when the LoRA is converted, its hash does
not. The user's own list on this machine holds the folders of sets, sheets and figures that were drawn outside
a run, and of converted LoRAs, so that a consent withdrawn later reaches them.
"""

import contextlib
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import append_jsonl, private_dir, read_json, read_jsonl, sha256_file, shown
from ..home import state_home
from ..imageset.manifest import listed_rows
from ..imageset.places import SETTINGS, list_images
from ..imageset.synthetic import TRAINING, drawn_by, lora_of_image
from .withdrawn import SAID, Withdrawal, known_withdrawals, metadata_of, origins, read_mark, withdrawal_of

DRAWN = "drawn.jsonl"
"""In the user's state folder, beside the list of withdrawn LoRAs."""


def traced(lora: Path, sha256: str, strength: float) -> dict[str, Any]:
    """What sidecars and settings say of the LoRA file with this SHA-256."""
    training = " ".join(sorted(origins(metadata_of(lora))))
    return {"sha256": sha256, "strength": strength, **({TRAINING: training} if training else {})}


def same_record(stored: object, given: object) -> bool:
    """Whether two records say the same; of earlier versions none says what the LoRA came from."""

    def compared(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: content for key, content in value.items() if key != TRAINING}
        return value

    return compared(stored) == compared(given)


def lora_names(loras: Iterable[Path]) -> set[str]:
    """All by which what these LoRAs draw knows them."""
    return {name for lora in loras for name in drawn_by(traced(lora, sha256_file(lora), 1.0))}


def set_record(folder: Path) -> Mapping[str, Any]:
    """What the settings of a generated set say of its LoRA; empty where they say nothing."""
    path = Path(folder) / SETTINGS
    record = read_json(path) if path.is_file() else None
    lora = record.get("lora") if isinstance(record, dict) else None
    return lora if isinstance(lora, dict) else {}


def set_names(folder: Path) -> set[str]:
    """By what a set knows the LoRAs that drew it: by its settings, else by its images."""
    if (Path(folder) / SETTINGS).is_file():
        return drawn_by(set_record(folder))
    return {name for names in loose_images(folder).values() for name in names}


def loose_images(folder: Path) -> dict[Path, set[str]]:
    """The images in a folder without settings, each with what it knows its LoRA by: a row of the manifest,
    its sidecar, the PNG itself. Empty sets of others."""
    folder = Path(folder)
    found: dict[Path, set[str]] = {}
    with contextlib.suppress(UserError):  # a foreign manifest, or a folder that can't be read
        found = {folder / row.file: {row.lora or ""} - {""} for row in listed_rows(folder)}
    with contextlib.suppress(UserError):
        found |= {folder / name: found.get(folder / name, set()) for name in list_images(folder).images}
    return {image: names | lora_of_image(image) for image, names in found.items() if image.is_file()}


def set_withdrawal(folder: Path, known: Sequence[Withdrawal] | None = None) -> Withdrawal | None:
    """The withdrawal under which a generated set falls, by its mark or by the LoRA that drew it.

    known: beside what the set's mark says (default: the user's list).
    """
    if marked := read_mark(folder):
        return marked[0]
    known = known_withdrawals() if known is None else known
    return withdrawal_of(set_names(folder), known) if known else None


def refuse_withdrawn_set(folder: Path, known: Sequence[Withdrawal] | None = None) -> None:
    """Raise UserError for a folder of images whose LoRA learned from a photograph that was withdrawn."""
    if folder.is_dir() and set_withdrawal(folder, known) is not None:
        raise UserError(
            f"the LoRA that drew what is in {shown(folder)} {SAID}, so nothing is added to it: give another "
            f"folder, and erase this one with 'diffusioncleft dataset withdraw {shlex.quote(shown(folder))}'"
        )


def refuse_withdrawn_lesson(folder: Path) -> None:
    """Raise UserError for images to learn from whose LoRA learned from a photograph that was withdrawn."""
    if folder.is_dir() and set_withdrawal(folder) is not None:
        raise UserError(
            f"the LoRA that drew what is in {shown(folder)} {SAID}, so no classifier learns from it: draw "
            "the images with a LoRA that was trained without that photograph, and erase these with "
            f"'diffusioncleft dataset withdraw {shlex.quote(shown(folder))}'"
        )


def set_provenance(sets: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """`loras` and `trainings` of measured sets: the hash of each one's LoRA, and what it came from."""
    records = {name: set_record(folder) for name, folder in sets.items()}
    return {
        key: found
        for key, word in (("loras", "sha256"), ("trainings", TRAINING))
        if (found := {name: str(record[word]) for name, record in records.items() if word in record})
        or key == "loras"
    }


def remember_place(place: Path | str, names: Collection[str]) -> None:
    """Note in the user's list that something of the LoRAs known by `names` is put into `place`.

    Where the list can't be written, the records beside the images still tell who asks for the folder.

    place: a folder, or as text the URL of one in a store, which holds no secret (`storage.place_of`).
    """
    path = _list()
    where = {"url": place} if isinstance(place, str) else {"folder": str(Path(place).resolve())}
    row = {**where, "loras": sorted(names)}
    if path is None or not names:
        return
    with contextlib.suppress(UserError, OSError):
        private_dir(path.parent)
        if row not in _rows():
            append_jsonl(path, row)


def remembered_places(names: Collection[str]) -> list[Path]:
    """The folders that the user's list knows of LoRAs with one of these names, as far as they are there."""
    places = dict.fromkeys(Path(str(row["folder"])) for row in _rows_of(names) if "folder" in row)
    return [place for place in places if place.is_dir()]


def remembered_urls(names: Collection[str]) -> list[str]:
    """The URLs to which something of LoRAs with one of these names was exported, by the user's list."""
    return list(dict.fromkeys(str(row["url"]) for row in _rows_of(names) if "url" in row))


def _rows_of(names: Collection[str]) -> list[dict[str, Any]]:
    wanted = set(names)
    return [row for row in _rows() if wanted.intersection(map(str, row.get("loras") or ()))]


def _rows() -> list[dict[str, Any]]:
    path = _list()
    with contextlib.suppress(UserError, OSError):
        return read_jsonl(path) if path is not None and path.is_file() else []
    return []


def _list() -> Path | None:
    state = state_home()
    return None if state is None else state / "diffusioncleft" / DRAWN
