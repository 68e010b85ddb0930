"""What is measured: the images of generated sets and of datasets, in the groups that are compared."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..conditions.vocabulary import ALL
from ..dataset.folder import dataset_rows
from ..errors import UserError
from ..files import inside, sha256_file
from ..imageset.decode import Rejected, header_size, read_image
from ..imageset.manifest import ImageRow, filtered, image_set_rows, unlisted
from ..imageset.places import name_of, named

__all__ = ["ALL"]

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
    set_name: str = ""
    """Of the set it belongs to, where that is not the condition."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What it shows, as far as a manifest says."""

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
        return self.decoded()[0]

    def decoded(self) -> tuple[NDArray[np.uint8] | None, str]:
        """`pixels`, and where there are none the reason, one of `decode.REASONS`."""
        try:
            return read_image(self.path), ""
        except Rejected as rejected:
            return None, rejected.reason
        except UserError:
            return None, "outside"


@dataclass(frozen=True)
class Group:
    """Images measured together: one condition, or all."""

    name: str
    raw: Mask
    """[N] over the list of all measured images."""
    filtered: Mask | None
    """[N], None when not every set of the group went through the filters."""
    condition: str = ""
    """Whose photographs it is compared with, where its name does not say it; `all`: everybody's."""

    @property
    def shows(self) -> str:
        """The condition whose photographs it is compared with."""
        return self.condition or self.name

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

    def sampled(self, most: int, seed: int, warn: Warn) -> Population:
        """At most `most` images of each set, drawn at random: those whose names' hashes with `seed` are the
        lowest, so that a set that grows, or whose images are set aside, keeps most of its draw.
        """
        places: dict[tuple[Path, str], list[int]] = {}
        for place, image in enumerate(self.images):
            places.setdefault((image.folder, image.set_name or image.condition), []).append(place)
        if all(len(own) <= most for own in places.values()):
            return self
        chosen: list[int] = []

        def drawn_by(place: int) -> bytes:
            return hashlib.sha256(f"{seed} {name_of(self.images[place].file)}".encode()).digest()

        for (_, name), own in places.items():
            if len(own) > most:
                warn(
                    f"distances, neighbourhoods and LPIPS of {name} are measured on {most:,} of its "
                    f"{len(own):,} images, drawn at random (`measure --most-images` takes another number)"
                )
            chosen += heapq.nsmallest(most, own, key=drawn_by) if len(own) > most else own
        kept = np.array(sorted(chosen))
        groups = [
            replace(group, **{name: mask[kept] for name, mask in group.variants().items()})
            for group in self.groups
        ]
        return Population([self.images[place] for place in kept], groups)


@dataclass(frozen=True)
class References:
    """What sets are compared with.

    Attributes:
        datasets: built datasets, which know conditions, subjects and the hold-out.
        folders: bare folders of images, with the condition that each shows; `all`: every set is compared
            with it.
    """

    datasets: tuple[Path, ...] = ()
    folders: Mapping[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, given: References | Sequence[Path]) -> References:
        """`given`, or datasets alone."""
        return given if isinstance(given, References) else cls(tuple(map(Path, given)))

    def __bool__(self) -> bool:
        return bool(self.datasets or self.folders)


def measured_set(folder: Path, condition: str, name: str = "") -> tuple[list[MeasuredImage], bool]:
    """The images of a generated set or of a bare folder, and whether the set went through the filters.

    What can't be decoded is among them: it is counted when it is measured. name: of the set, where it is not
    its condition's. UserError for no folder.
    """
    rows = _lean_rows(folder)
    was_filtered = any(row.verdicts for row in rows)
    kept = {row.file for row in filtered(rows)}
    images = [
        MeasuredImage(Path(folder), row.file, condition, row.is_raw, row.file in kept, name, row.attributes)
        for row in {row.file: row for row in rows}.values()
        if row.is_raw or row.file in kept
    ]
    return images, was_filtered


def _lean_rows(folder: Path) -> list[ImageRow]:
    """The rows of a set with what tells its images apart, for it may have a million: of verdicts the decision
    alone, and one copy in memory of attributes that many images share.
    """
    shared: dict[str, dict[str, str]] = {}
    decided = {accepted: {"accepted": accepted} for accepted in (True, False, None)}
    return [
        ImageRow(
            row.file,
            index=row.index,
            attempt=row.attempt,
            condition=row.condition,
            attributes=shared.setdefault(repr(row.attributes), row.attributes),
            verdicts=decided[row.accepted] if row.verdicts else {},
        )
        for row in image_set_rows(folder, may_be_empty=True)
    ]


def condition_of(folder: Path) -> str | None:
    """The condition that most images of a set show; None for a bare folder."""
    known = Counter(row.condition for row in image_set_rows(folder, may_be_empty=True) if row.condition)
    return max(known, key=known.__getitem__) if known else None


def generated_population(
    generated: Mapping[str, Path], warn: Warn, conditions: Mapping[str, str] | None = None
) -> Population:
    """The images of all generated sets, by name. Raises UserError when all are empty.

    conditions: what the sets show whose name is not their condition.
    """
    refuse_nothing(generated)
    conditions = conditions or {}
    images: list[MeasuredImage] = []
    was_filtered = {}
    for name, folder in generated.items():
        found, was_filtered[name] = measured_set(folder, conditions.get(name, name), name)
        images += found
        if not found:
            warn(f"{folder} holds no image")
        for message in unlisted(folder):
            warn(message)
    return Population(images, groups_of(images, was_filtered, conditions))


def reference_population(
    references: References | Sequence[Path], role: str = "train", conditions: Iterable[str] = ()
) -> Population:
    """The photographs that have a role, the training ones by default; maybe none.

    All images of a bare folder count as training photographs. Those of no one condition belong to every
    condition's group.

    Args:
        references: datasets and bare folders.
        role: in a dataset.
        conditions: that have a group, beside the photographs' own.
    """
    references = References.of(references)
    images = [
        MeasuredImage(folder, row.file, row.condition or "unknown", attributes=row.attributes)
        for folder in dict.fromkeys(references.datasets)
        for row in dataset_rows(folder, role)
    ]
    for folder, condition in references.folders.items() if role == "train" else ():
        images += [image for image in measured_set(folder, condition)[0] if image.raw]
    if not images:
        return Population([], [])
    shown = np.array([image.condition for image in images], object)
    names = dict.fromkeys([*shown.tolist(), *conditions])
    groups = [Group(name, (shown == name) | (shown == ALL), None) for name in names if name != ALL]
    groups.append(Group(ALL, np.ones(len(images), bool), None))
    return Population(images, [group for group in groups if group.raw.any()])


def refuse_nothing(generated: Mapping[str, Path]) -> None:
    """Raise UserError when no set holds an image."""
    rows = (row for folder in generated.values() for row in image_set_rows(folder, may_be_empty=True))
    if not any(row.is_raw or row.accepted for row in rows):
        folders = ", ".join(str(folder) for folder in generated.values()) or "no folder"
        raise UserError(
            f"there is nothing to measure: no image in {folders}; give the folder of a generated set"
        )


def groups_of(
    images: Sequence[MeasuredImage], was_filtered: Mapping[str, bool], conditions: Mapping[str, str]
) -> list[Group]:
    """A group for each set, and `all` where there are several conditions (or images of no condition).

    Sets that have names of their own are not put together: they are compared.
    """
    sets = np.array([image.set_name or image.condition for image in images], object)
    raw = np.array([image.raw for image in images], bool)
    kept = np.array([image.filtered for image in images], bool)
    names = [name for name in was_filtered if name != ALL]
    groups = []
    for name in names:
        mask = sets == name
        filtered = kept & mask if was_filtered[name] else None
        groups.append(Group(name, raw & mask, filtered, conditions.get(name, "")))
    if ALL in was_filtered or (len(names) > 1 and not conditions):
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
