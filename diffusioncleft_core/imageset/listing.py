"""Which files of a folder are images: one list of suffixes and one way to look, for every reader."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import TEMPORARY_PREFIX, inside, shown

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

    `images`: files that look like images, whether or not they can be decoded; `folders`: subfolders with
    images in them, which were not looked at; `hidden`: images whose name begins with a dot; `outside`: links
    that lead out of the folder.
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
    Left out are half-written files and the subfolders named in `own`. Raises UserError for a folder that
    can't be read.
    """
    images: list[str] = []
    folders: list[str] = []
    hidden: list[str] = []
    outside: list[str] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} can't be read ({error.strerror}); check the path and its permissions"
        ) from error
    for entry in entries:
        if entry.name.startswith(TEMPORARY_PREFIX):
            continue
        if entry.is_dir():
            if not entry.name.startswith(".") and entry.name not in own and holds_images(Path(entry.path)):
                folders.append(entry.name)
        elif looks_like_image(Path(entry.path)):
            visible = hidden if entry.name.startswith(".") else images
            (visible if _stays(folder, entry.name) else outside).append(entry.name)
    return Listing(tuple(images), tuple(folders), tuple(hidden), tuple(outside))


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
