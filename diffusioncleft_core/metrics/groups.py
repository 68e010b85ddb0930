"""The images that are measured: generated sets, foreign folders, and a dataset's photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset.folder import dataset_rows
from ..errors import UserError
from ..files import inside, sha256_file
from ..imageset.manifest import read_image_set

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


def measured_set(folder: Path, condition: str) -> tuple[list[MeasuredImage], bool]:
    """The images of a generated set or of a bare folder, and whether the set went through the filters.

    What can't be decoded is among them: it is counted when it is measured. UserError for no folder.
    """
    rows = read_image_set(folder, may_be_empty=True)
    was_filtered = any(row.verdicts for row in rows)
    images = [
        MeasuredImage(Path(folder), row.file, condition, row.is_raw, was_filtered and row.accepted is True)
        for row in {row.file: row for row in rows}.values()
        if row.is_raw or row.accepted is True
    ]
    return images, was_filtered


def condition_of(folder: Path) -> str | None:
    """The condition that most images of a set show; None for a bare folder."""
    known = [row.condition for row in read_image_set(folder, may_be_empty=True) if row.condition]
    return max(dict.fromkeys(known), key=known.count) if known else None


def read_photographs(folders: Sequence[Path], role: str) -> list[MeasuredImage]:
    """The images of these datasets with one role, `train` or `holdout`."""
    return [
        MeasuredImage(Path(folder), row.file, row.condition or "unknown")
        for folder in dict.fromkeys(map(Path, folders))
        for row in dataset_rows(folder, role)
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
