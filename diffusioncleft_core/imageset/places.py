"""The files of an image set, and where each image lies: in the folder itself, or set aside in `rejected/`.

A picture `000123_4711.png` is named by its place in the plan and the seed of its noise. The manifest is
written first and images are moved afterwards, so that after a crash an image may still lie where it was:
`current_place` finds it, and the filter's next call moves it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..conditions.names import RunOwn
from ..conditions.plan import REFILL_STRIDE
from ..errors import UserError
from ..files import TEMPORARY_PREFIX, explained, folder_lock, inside, remove_leftovers, shown

MANIFEST = "manifest.jsonl"
SETTINGS = "generation.json"
"""What all images of a generated set were made with."""
REJECTED = "rejected"
"""Folder inside a set for what the filters set aside; nothing in it is ever deleted."""
FACES_CACHE = ".faces"
"""Folder inside a set that keeps its face records, closed to others (0700)."""
CROPS_CACHE = ".downstream"
"""Folder inside a set that keeps the crops of its lips and their features, likewise."""

_NUMBERED = re.compile(r"\d{6,}_.*\.json")

RUN_PRIVATE, RUN_STAGES = "private", RunOwn.STAGES
"""Folder of a run that alone holds what comes from photographs, and in it the stages' records."""


def set_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other processes out of a set that is drawn or filtered; UserError while one is at work in it."""
    return folder_lock(
        folder,
        lambda process: (
            f"process {process} is at work in the set {folder}; wait for it, or stop it, and run this again"
        ),
    )


def remove_set_leftovers(folder: Path) -> None:
    """Remove what a crash left of writes to a set, whose lock is held."""
    for place in (folder, folder / REJECTED):
        remove_leftovers(place)


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


def sidecars_in(folder: Path) -> Iterator[Path]:
    """The JSON files of images that are named by their place in a plan, of a set and what it set aside.

    One by one and in any order: a set may have a million.
    """
    for place in (folder, folder / REJECTED):
        if place.is_dir():
            with os.scandir(place) as entries:
                for entry in entries:
                    if _NUMBERED.fullmatch(entry.name):
                        yield Path(entry.path)


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


def refuse_unmovable(folder: Path, files: Iterable[str]) -> None:
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


READ_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif"),
        *(".tif", ".tiff", ".jp2", ".avif", ".heic", ".heif"),
    }
)
"""Of the formats that `ingest` decodes; HEIC where pillow-heif is installed."""
UNREAD_SUFFIXES = frozenset(
    {
        *(".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm"),
        *(".pdf", ".svg", ".eps", ".exr", ".hdr", ".jxl", ".mp4", ".mov"),
    }
)
"""Pictures too, which nothing here decodes: they are named, never passed over."""
_NEVER_IMAGES = frozenset(
    {".json", ".jsonl", ".txt", ".caption", ".csv", ".toml", ".md", ".npz", ".safetensors", ".db", ".ini"}
)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_NAMED_AT_MOST = 20


@dataclass(frozen=True)
class Listing:
    """What a folder holds, names sorted, forward slashes.

    Attributes:
        images: files that look like images, whether or not they can be decoded.
        folders: subfolders with images in them, which were not looked at.
        hidden: images whose name begins with a dot.
        outside: links that lead out of the folder.
    """

    images: tuple[str, ...]
    folders: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    def notices(self, folder: Path, known: Collection[str] | None = None) -> list[str]:
        """Sentences that name what was not looked at; with `known`, the images among them that it lacks."""
        unknown = [] if known is None else [name for name in self.images if name not in known]
        told = (
            (unknown, "images in {} are not in its manifest and were not looked at"),
            (self.hidden, "hidden images in {} were not looked at"),
            (self.outside, "links in {} lead out of it and were not followed; copy the files themselves"),
            (self.folders, "subfolders of {} hold images that were not looked at; give each by itself"),
        )
        return [
            f"{sentence.format(shown(folder))} ({len(names)}): {named(names)}"
            for names, sentence in told
            if names
        ]


def list_images(folder: Path, *, own: Collection[str] = ()) -> Listing:
    """The images in `folder` itself.

    Suffixes count in any case; a file with an unknown suffix or none is an image if its first bytes say so.
    Left out are half-written files and the subfolders named in `own`.

    Raises:
        UserError: the folder can't be read.
    """
    images: list[str] = []
    folders: list[str] = []
    hidden: list[str] = []
    outside: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, path, is_link = entry.name, Path(entry.path), entry.is_symlink()
                if name.startswith(TEMPORARY_PREFIX):
                    continue
                if (
                    path.is_dir() if is_link else entry.is_dir()
                ):  # the entry's own fails on a link in a circle
                    if not name.startswith(".") and name not in own and holds_images(path):
                        folders.append(name)
                elif looks_like_image(path):
                    visible = hidden if name.startswith(".") else images
                    (outside if is_link and not _stays(folder, name) else visible).append(name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} can't be read ({error.strerror}); check the path and its permissions"
        ) from error
    return Listing(*(tuple(sorted(names)) for names in (images, folders, hidden, outside)))


def looks_like_image(path: Path) -> bool:
    """Whether a file's suffix is a picture's, or its first bytes are; of a hidden file these alone count."""
    suffix = path.suffix.lower()
    if not path.name.startswith(".") and suffix in READ_SUFFIXES | UNREAD_SUFFIXES:
        return True
    if suffix in _NEVER_IMAGES:
        return False
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as handle:
            head = handle.read(12)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head.startswith(_MAGIC) or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def holds_images(folder: Path) -> bool:
    """Whether an image lies in `folder` or below it, hidden ones and linked folders aside.

    A folder that can't be read may hold some.
    """
    closed: list[OSError] = []
    for place, folders, files in os.walk(folder, followlinks=False, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(not name.startswith(".") and looks_like_image(Path(place) / name) for name in files):
            return True
    return bool(closed)


def named(names: Sequence[str]) -> str:
    """The names for a sentence, at most 20 of them, printable everywhere."""
    more = [f"and {len(names) - _NAMED_AT_MOST} more"] if len(names) > _NAMED_AT_MOST else []
    return ", ".join([*map(shown, names[:_NAMED_AT_MOST]), *more])


def _stays(folder: Path, name: str) -> bool:
    try:
        inside(folder, name)
    except UserError:
        return False
    return True
