"""What is measured: the images of generated sets and of datasets, in the groups that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset.folder import dataset_rows
from ..errors import UserError
from ..files import inside, sha256_file
from ..imageset.decode import Rejected, header_size, read_image
from ..imageset.manifest import filtered_rows, read_image_set, unlisted
from ..imageset.places import named

ALL = "all"

Mask = NDArray[np.bool_]
Warn = Callable[[str], None]


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
        try:
            return header_size(self.path)
        except UserError:
            return None

    def pixels(self) -> NDArray[np.uint8] | None:
        """[H, W, 3] sRGB, upright, transparency on white, at most 2048 px a side; None if undecodable."""
        try:
            return read_image(self.path)
        except (Rejected, UserError):
            return None


@dataclass(frozen=True)
class Group:
    """Images measured together: one condition, or all."""

    name: str
    raw: Mask
    """[N] over the list of all measured images."""
    filtered: Mask | None
    """[N], None when not every set of the group went through the filters."""

    def variants(self) -> dict[str, Mask]:
        """`raw`, and `filtered` where there is one."""
        return {"raw": self.raw} | ({} if self.filtered is None else {"filtered": self.filtered})


@dataclass(frozen=True)
class Population:
    """All generated images, or all training photographs, in one list, and their groups."""

    images: list[MeasuredImage]
    groups: list[Group]

    def mask(self, name: str) -> Mask:
        """[N] of one group's images; nowhere True for a group that there is not."""
        known = {group.name: group.raw for group in self.groups}
        return known.get(name, np.zeros(len(self.images), bool))


def measured_set(folder: Path, condition: str) -> tuple[list[MeasuredImage], bool]:
    """The images of a generated set or of a bare folder, and whether the set went through the filters.

    What can't be decoded is among them: it is counted when it is measured. UserError for no folder.
    """
    rows = read_image_set(folder, may_be_empty=True)
    was_filtered = any(row.verdicts for row in rows)
    kept = {row.file for row in filtered_rows(rows)}
    images = [
        MeasuredImage(Path(folder), row.file, condition, row.is_raw, row.file in kept)
        for row in {row.file: row for row in rows}.values()
        if row.is_raw or row.file in kept
    ]
    return images, was_filtered


def condition_of(folder: Path) -> str | None:
    """The condition that most images of a set show; None for a bare folder."""
    known = [row.condition for row in read_image_set(folder, may_be_empty=True) if row.condition]
    return max(dict.fromkeys(known), key=known.count) if known else None


def generated_population(generated: Mapping[str, Path], warn: Warn) -> Population:
    """The images of all generated sets, by condition. Raises UserError when all are empty."""
    refuse_nothing(generated)
    images: list[MeasuredImage] = []
    was_filtered = {}
    for condition, folder in generated.items():
        found, was_filtered[condition] = measured_set(folder, condition)
        images += found
        if not found:
            warn(f"{folder} holds no image")
        for message in unlisted(folder):
            warn(message)
    return Population(images, groups_of(images, was_filtered))


def reference_population(datasets: Sequence[Path], role: str = "train") -> Population:
    """The photographs of these datasets that have a role, the training ones by default; maybe none."""
    images = [
        MeasuredImage(Path(folder), row.file, row.condition or "unknown")
        for folder in dict.fromkeys(map(Path, datasets))
        for row in dataset_rows(folder, role)
    ]
    conditions = {image.condition: False for image in images}
    return Population(images, groups_of(images, {**conditions, ALL: False}) if images else [])


def refuse_nothing(generated: Mapping[str, Path]) -> None:
    """Raise UserError when no set holds an image."""
    if not any(measured_set(folder, condition)[0] for condition, folder in generated.items()):
        folders = ", ".join(str(folder) for folder in generated.values()) or "no folder"
        raise UserError(
            f"there is nothing to measure: no image in {folders}; give the folder of a generated set"
        )


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


def name_damaged(images: Sequence[MeasuredImage], damaged: Mask, warn: Warn) -> None:
    """Warn of the images that a pass could not decode, folder by folder and by name; damaged: [N]."""
    for folder in dict.fromkeys(image.folder for image in images):
        here = [image.folder == folder for image in images]
        lost = [image.file for image, is_lost in zip(images, damaged & here, strict=True) if is_lost]
        if lost:
            warn(
                f"{len(lost)} of {sum(here)} images in {folder} are damaged or missing and are counted "
                f"apart: {named(lost)}"
            )
