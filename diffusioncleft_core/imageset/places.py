"""The files of an image set, and where each image lies: in the folder itself, or set aside in `rejected/`.

A picture `000123_4711.png` is named by its place in the plan and the seed of its noise. The manifest is
written first and images are moved afterwards, so that after a crash an image may still lie where it was:
`current_place` finds it, and the filter's next call moves it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..conditions.plan import REFILL_STRIDE
from ..errors import UserError
from ..files import explained, shown

MANIFEST = "manifest.jsonl"
SETTINGS = "generation.json"
"""What all images of a generated set were made with."""
REJECTED = "rejected"
"""Folder inside a set for what the filters set aside; nothing in it is ever deleted."""
FACES_CACHE = ".faces"
"""Folder inside a set that keeps its face records, closed to others (0700)."""


def image_name(index: int, seed: int) -> str:
    """`000123_4711.png`: place in the plan, then the seed of its noise."""
    return f"{index:06d}_{seed}.png"


def name_of(file: str) -> str:
    """The name of an image without `rejected/`: it keeps it wherever it is moved."""
    return PurePosixPath(file).name


def index_of(file: str) -> int | None:
    """The place in the plan that a file's name begins with; None for another kind of name."""
    digits = name_of(file).partition("_")[0]
    return int(digits) if digits.isdigit() else None


def first_index(index: int) -> int:
    """The place in the plan of an image, also of one that was made again for a row of it."""
    return index % REFILL_STRIDE


def sidecar_of(image: Path) -> Path:
    """The JSON file beside an image."""
    return image.with_suffix(".json")


def place_for(name: str, *, accepted: bool) -> str:
    """Where an image belongs, relative to its set's folder."""
    return name if accepted else f"{REJECTED}/{name}"


def is_set_aside(file: str) -> bool:
    """Whether a path relative to the set's folder lies in `rejected/`."""
    return PurePosixPath(file).parent.name == REJECTED


def current_place(folder: Path, file: str) -> str:
    """Where the image (or sidecar) that a manifest calls `file` lies now, relative to `folder`.

    It lies where the manifest says when it lies nowhere.
    """
    path = PurePosixPath(file)
    if path.parent not in (PurePosixPath(), PurePosixPath(REJECTED)) or (Path(folder) / file).is_file():
        return file
    other = place_for(path.name, accepted=is_set_aside(file))
    return other if (Path(folder) / other).is_file() else file


def move_all(folder: Path, accepted: Mapping[str, bool]) -> None:
    """Move images and their sidecars to where they belong; accepted: by the image's name."""
    for name, is_accepted in accepted.items():
        for item in (name, sidecar_of(Path(name)).name):
            target = folder / place_for(item, accepted=is_accepted)
            source = folder / place_for(item, accepted=not is_accepted)
            if source.is_file():
                with explained(target):
                    target.parent.mkdir(exist_ok=True)
                    os.replace(source, target)


def refuse_unmovable(folder: Path, files: list[str]) -> None:
    """Raise UserError where an image could not keep its name when it is moved.

    Names must differ without their folders, and `rejected` must be no file.
    """
    if (folder / REJECTED).exists() and not (folder / REJECTED).is_dir():
        raise UserError(f"{folder / REJECTED} is a file; rename it: rejected images are moved to this folder")
    seen = set()
    for path in map(PurePosixPath, files):
        if path.parent not in (PurePosixPath(), PurePosixPath(REJECTED)):
            raise UserError(
                f"{folder} has images in subfolders ({shown(path)}); a set that is filtered has them in one "
                "folder, photographs of a dataset are judged with --photographs"
            )
        both = all((folder / place_for(path.name, accepted=where)).is_file() for where in (True, False))
        if path.name in seen or both:
            raise UserError(
                f"{folder} has two images of the name {shown(path.name)}; give each a name of its own"
            )
        seen.add(path.name)
