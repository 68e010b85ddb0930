"""What sockets carry of datasets and image sets, read from their folders by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import inside, read_json, read_jsonl, sha256_file
from ..diffusioncleft_core.imageset.manifest import ImageRow, read_image_set
from ..diffusioncleft_core.imageset.places import MANIFEST, sidecar_of
from . import places
from .common import ImageSetHandle


@dataclass(frozen=True, repr=False)
class DatasetHandle:
    """What the DATASET socket carries. The folder stays in this process: sockets are not saved."""

    name: str
    folder: Path
    condition: str
    phantom: bool
    n_train: int
    n_holdout: int
    set_aside: dict[str, int]
    sha256: str

    def __repr__(self) -> str:
        return f"DatasetHandle({self.name!r})"


def open_dataset(name: str) -> DatasetHandle:
    """Read what a dataset is; UserError when its name is none or it is damaged."""
    from ..diffusioncleft_core.dataset.folder import SET_ASIDE, SETTINGS, dataset_rows

    folder = places.dataset_folder(name)
    rows = dataset_rows(folder)
    described = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    aside: dict[str, int] = {}
    for row in read_jsonl(folder / SET_ASIDE) if (folder / SET_ASIDE).is_file() else []:
        reason = str(row.get("reason", "unknown"))
        aside[reason] = aside.get(reason, 0) + 1
    conditions = {row.condition for row in rows if row.condition}
    return DatasetHandle(
        name=name,
        folder=folder,
        condition=conditions.pop() if len(conditions) == 1 else "",
        phantom=bool(described.get("settings", {}).get("phantom", False)),
        n_train=sum(row.role == "train" for row in rows),
        n_holdout=sum(row.role == "holdout" for row in rows),
        set_aside=aside,
        sha256=sha256_file(folder / MANIFEST),
    )


def dataset_fingerprint(name: str) -> str:
    """Hash of a dataset's manifest, `missing` when there is none."""
    try:
        return sha256_file(places.dataset_folder(name) / MANIFEST)
    except (OSError, UserError):
        return "missing"


@dataclass(frozen=True)
class OpenedSet:
    """An image set of the output folder, and its manifest's rows."""

    handle: ImageSetHandle
    rows: list[ImageRow]


def open_set(name: str) -> OpenedSet:
    """Read the manifest of a set; UserError for a name that is none."""
    folder = places.output_folder(name)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"there is no image set {name!r} under ComfyUI's output folder; save one first")
    rows = read_image_set(folder, may_be_empty=True)
    return OpenedSet(handle_of(folder, rows), rows)


def set_fingerprint(name: str) -> str:
    """Hash of a set's manifest, and whether it is withdrawn; `missing` when there is none."""
    try:
        folder = places.output_folder(name)
        return sha256_file(folder / MANIFEST) + (" withdrawn" if withdrawn_notes([folder]) else "")
    except (OSError, UserError):
        return "missing"


def withdrawn_notes(sets: Iterable[Path]) -> list[str]:
    """What is said of sets whose LoRA learned from a photograph whose consent was withdrawn; [] of others."""
    from ..diffusioncleft_core.report.withdrawn import with_withdrawal

    notes: list[str] = with_withdrawal({}, places.withdrawals(), sets).get("notes", [])
    return notes


def handle_of(folder: Path, rows: list[ImageRow]) -> ImageSetHandle:
    """What the IMAGE_SET socket carries of a set with these rows."""
    conditions = {row.condition for row in rows if row.condition}
    return ImageSetHandle(
        name=places.shown_name(folder),
        folder=folder,
        condition=str(conditions.pop()) if len(conditions) == 1 else "",
        phantom=_of_phantom(folder, rows),
    )


def _of_phantom(folder: Path, rows: list[ImageRow]) -> bool:
    """Whether the set was drawn by the embedded base model, by the hash in its first sidecar."""
    from ..diffusioncleft_core.flux.source import phantom_source

    for row in rows[:1]:
        try:
            sidecar = read_json(sidecar_of(inside(folder, row.file)))
        except UserError:
            return False
        base = sidecar.get("base", {}) if isinstance(sidecar, dict) else {}
        return bool(base.get("sha256") == phantom_source().fingerprint())
    return False
