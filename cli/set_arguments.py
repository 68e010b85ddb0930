"""What `diffusioncleft measure` is given: sets and references, each a folder, with a name or a condition."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.conditions.vocabulary import ALL
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.text import nearest

if TYPE_CHECKING:
    from ..diffusioncleft_core.metrics.sets import References

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
FORMS = "give FOLDER, NAME=FOLDER, CONDITION=FOLDER or NAME:CONDITION=FOLDER"


@dataclass(frozen=True)
class GivenSet:
    """A set to measure: what it is called in the report, and what it shows (`all`: no one condition)."""

    name: str
    folder: Path
    condition: str


def sets_from(texts: Sequence[str], conditions: Collection[str]) -> list[GivenSet]:
    """The sets of the command line, in its order.

    A generated set's manifest says what it shows; a bare folder shows no one condition unless its name says
    so. A set without a name is called by its condition, by that and its number where several show it, and
    `set_1`, `set_2` … where it shows none: a folder's own name is not put into a report.

    Args:
        texts: FOLDER, NAME=FOLDER, CONDITION=FOLDER or NAME:CONDITION=FOLDER.
        conditions: that there are; those of the sets' manifests are added.

    Raises:
        UserError: a folder is none, a condition is not known, or two sets have one name.
    """
    from ..diffusioncleft_core.metrics.sets import condition_of

    parts = [_parted(text, "the folder of a generated set, or of images") for text in texts]
    shown = {folder: condition_of(folder) for _, folder in parts}
    known = {*conditions, ALL, *(name for name in shown.values() if name)}
    found: list[tuple[str | None, Path, str]] = []
    for label, folder in parts:
        name, separator, condition = label.partition(":")
        if separator:
            found.append((_named(name), folder, _condition(condition, known)))
        elif not name or name in known:
            found.append((None, folder, name or shown[folder] or ALL))
        else:
            if near := nearest(name, known):
                raise UserError(
                    f"there is no condition {name!r}; did you mean {near!r}? A set is called {name} with "
                    f"{name}:{near}={folder}"
                )
            found.append((_named(name), folder, shown[folder] or ALL))
    return _with_names(found)


def _with_names(found: Sequence[tuple[str | None, Path, str]]) -> list[GivenSet]:
    """Give those a name that have none; UserError for one name twice."""
    shown = [condition for _, _, condition in found]
    sets: list[GivenSet] = []
    for place, (own, folder, condition) in enumerate(found, start=1):
        name = own
        if name is None and shown.count(condition) == 1:
            name = condition
        elif name is None:
            name = f"set_{place}" if condition == ALL else f"{condition}_{place}"
        for other in sets:
            if other.name == name:
                raise UserError(
                    f"{other.folder} and {folder} are both called {name}; give each a name, NAME=FOLDER"
                )
        sets.append(GivenSet(name, folder, condition))
    return sets


def references_from(texts: Sequence[str], conditions: Collection[str]) -> References:
    """Datasets and bare folders that the sets are compared with.

    Args:
        texts: DATASET, FOLDER or CONDITION=FOLDER. A generated set shows what its manifest says.
        conditions: that there are, beside the datasets' own.

    Raises:
        UserError: a folder is none or empty, a condition is not known, or a dataset is given one.
    """
    from ..diffusioncleft_core.dataset.folder import is_dataset
    from ..diffusioncleft_core.metrics.sets import References, condition_of, measured_set

    parts = [_parted(text, "a dataset, or a folder of images") for text in texts]
    datasets = [folder for _, folder in parts if is_dataset(folder)]
    known = {*conditions, *dataset_conditions(datasets), ALL}
    folders: dict[Path, str] = {}
    for label, folder in parts:
        if folder in datasets:
            if label:
                raise UserError(f"the dataset {folder} knows its condition itself; leave out {label}=")
            continue
        if not measured_set(folder, ALL)[0]:
            raise UserError(f"{folder} is no dataset and holds no image to compare with; check the path")
        folders[folder] = _condition(label, known) if label else condition_of(folder) or ALL
    return References(tuple(dict.fromkeys(datasets)), folders)


def dataset_conditions(folders: Sequence[Path]) -> set[str]:
    """The conditions that these datasets show."""
    from ..diffusioncleft_core.dataset.folder import dataset_rows

    return {row.condition for folder in folders for row in dataset_rows(folder) if row.condition}


def conditions_known(references: References | None = None) -> set[str]:
    """The conditions of the embedded vocabulary and of what the sets are compared with."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary

    known = set(load_vocabulary().conditions)
    if references is not None:
        known |= dataset_conditions(references.datasets) | set(references.folders.values())
    return known


def told_names(sets: Sequence[GivenSet]) -> list[str]:
    """For each set that is not called by its condition, which folder it is."""
    return [f"{given.name} is {given.folder}" for given in sets if given.name != given.condition]


def _parted(text: str, wanted: str) -> tuple[str, Path]:
    """What stands before the folder, or "", and the folder."""
    label, separator, folder = text.partition("=")
    named = bool(separator) and not Path(text).is_dir()
    path = Path(folder) if named else Path(text)
    if not path.is_dir() or (named and not label):
        raise UserError(f"{path} is no folder; give {wanted} ({FORMS})" if label or not named else FORMS)
    return (label if named else ""), path


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a set: it has letters, digits, - and _, 40 at most; {FORMS}"
        )
    return name


def _condition(name: str, known: Collection[str]) -> str:
    """The condition; UserError names the nearest one."""
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}? " if near else ""
        raise UserError(f"there is no condition {name!r}; {hint}Allowed: {', '.join(sorted(known))}")
    return name
