"""The images that are measured: generated sets, foreign folders, and a dataset's photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.folder import require_dataset
from ..errors import UserError
from ..files import inside, read_jsonl, sha256_file
from ..imageset.listing import list_images
from ..imageset.manifest import MANIFEST, filtered_rows, raw_rows, read_manifest, read_rows

ALL = "all"


@dataclass(frozen=True)
class MeasuredImage:
    """One image of a set. `raw` and `filtered`: whether it belongs to the set before and after filtering."""

    folder: Path
    file: str
    condition: str
    raw: bool = True
    filtered: bool = False

    @property
    def path(self) -> Path:
        return inside(self.folder, self.file)

    @cached_property
    def sha256(self) -> str | None:
        """Of the file's content; None when it can't be read."""
        try:
            return sha256_file(self.path)
        except (OSError, UserError):
            return None

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in px, upright, as its header says; None when it has none."""
        from ..imageset.decode import header_size

        try:
            return header_size(self.path)
        except UserError:
            return None


@dataclass(frozen=True)
class Group:
    """Images measured together: one condition, or all."""

    name: str
    raw: NDArray[np.bool_]
    """[N] over the list of all measured images."""
    filtered: NDArray[np.bool_] | None
    """[N], None when not every set of the group went through the filters."""

    def variants(self) -> dict[str, NDArray[np.bool_]]:
        """`raw`, and `filtered` where there is one."""
        return {"raw": self.raw} | ({} if self.filtered is None else {"filtered": self.filtered})


def read_generated(folder: Path, condition: str) -> tuple[list[MeasuredImage], bool]:
    """The images of a generated set or of a bare folder, and whether the set went through the filters.

    A bare folder is read without its subfolders. What can't be decoded is still listed: it is counted when it
    is measured. Raises UserError when `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a generated set, or of images")
    if not (folder / MANIFEST).is_file():
        return [MeasuredImage(folder, name, condition) for name in list_images(folder).images], False
    rows = read_rows(folder)
    raw, kept = _files(raw_rows(rows)), _files(filtered_rows(rows))
    was_filtered = any(row.get("verdicts") for row in rows)
    images = [
        MeasuredImage(folder, name, condition, name in raw, was_filtered and name in kept)
        for name in dict.fromkeys(str(row["file"]) for row in rows)
        if name in raw or name in kept
    ]
    return images, was_filtered


def condition_of(folder: Path) -> str | None:
    """The condition that most rows of a set's manifest name; None for a bare folder."""
    if not (Path(folder) / MANIFEST).is_file():
        return None
    named = [row.get("condition") for row in read_jsonl(Path(folder) / MANIFEST)]
    known = [name for name in named if isinstance(name, str)]
    return max(set(known), key=known.count) if known else None


def read_photographs(folders: Sequence[Path], role: str) -> list[MeasuredImage]:
    """The images of these datasets with one role, `train` or `holdout`."""
    return [
        MeasuredImage(Path(folder), row.file, row.condition or "unknown")
        for folder in dict.fromkeys(map(Path, folders))
        for row in read_manifest(require_dataset(folder))
        if row.role == role
    ]


def groups_of(images: Sequence[MeasuredImage], was_filtered: Mapping[str, bool]) -> list[Group]:
    """A group for each condition, and `all` where there are several (or images of no condition)."""
    conditions = np.array([image.condition for image in images], object)
    raw = np.array([image.raw for image in images], bool)
    kept = np.array([image.filtered for image in images], bool)
    names = [name for name in was_filtered if name != ALL]
    groups = []
    for name in names:
        mask = conditions == name
        groups.append(Group(name, raw & mask, kept & mask if was_filtered[name] else None))
    if len(names) != 1 or ALL in was_filtered:
        groups.append(Group(ALL, raw, kept if all(was_filtered.values()) else None))
    return groups


def _files(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {str(row["file"]) for row in rows}
