"""Which files of a folder are photographs, and whether a server shows that folder to others."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import inside
from ..imageset.decode import SetAside
from ..imageset.listing import UNREAD_SUFFIXES, looks_like_image
from .metadata import file_key

_SERVED = ("input", "output", "temp")


@dataclass(frozen=True)
class Listing:
    """`photographs`: sorted names in the folder, forward slashes; `set_aside`: what is not opened."""

    photographs: tuple[str, ...]
    set_aside: tuple[SetAside, ...]


def list_photographs(folder: Path, named: Collection[str] = ()) -> Listing:
    """Find the photographs in `folder` and its subfolders.

    What `listing.looks_like_image` says counts, and what is among `named`, the table's names.
    Hidden files are skipped, links out of the folder are refused, linked folders are not entered.
    Raises UserError when the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of photographs {folder} does not exist; check the path")
    keys = {file_key(name).casefold() for name in named}
    found: list[str] = []
    refused: list[SetAside] = []
    for place, folders, files in os.walk(folder, followlinks=False, onerror=_unreadable):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if (here / name).is_symlink()] + sorted(files):
            if name.startswith("."):
                continue
            path = here / name
            relative = path.relative_to(folder).as_posix()
            suffix = path.suffix.lower()
            wanted = looks_like_image(path) or file_key(relative).casefold() in keys
            try:
                inside(folder, relative)
            except UserError:
                if wanted or path.is_dir():
                    refused.append(SetAside(relative, "outside", "copy the file itself into the folder"))
                continue
            if not wanted or path.is_dir():
                continue
            if suffix in UNREAD_SUFFIXES:
                detail = f"{suffix} is not read; export it as JPEG, PNG or TIFF"
                refused.append(SetAside(relative, "unsupported", detail))
            else:
                found.append(relative)
    return Listing(tuple(sorted(found)), tuple(refused))


def served_folder(path: Path) -> str | None:
    """`input`, `output` or `temp` when `path` lies under that folder of a ComfyUI, which its server shows to
    everyone who can reach it; otherwise None."""
    resolved = Path(path).resolve()
    for ancestor in (resolved, *resolved.parents):
        if ancestor.name.lower() in _SERVED and _is_comfyui(ancestor.parent):
            return ancestor.name
    return None


def served_warnings(photos: Path, out: Path) -> list[str]:
    """A sentence for each of the two folders that lies where ComfyUI's server shows it."""
    places = (("the folder of photographs", photos, "move it"), ("the dataset", out, "choose another --out"))
    return [
        f"{what} {path} lies under ComfyUI's {served} folder, shown to all who reach its server; {advice}"
        for what, path, advice in places
        if (served := served_folder(path))
    ]


def _is_comfyui(folder: Path) -> bool:
    """A checkout (folder_paths.py), or a base directory (custom_nodes beside input or output)."""
    return (folder / "folder_paths.py").is_file() or (folder / "custom_nodes").is_dir()


def _unreadable(error: OSError) -> None:
    raise UserError(
        f"the folder {error.filename} can't be read ({error.strerror}); change its permissions or move it"
    )
