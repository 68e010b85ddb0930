"""Erase a dataset: everything that was derived from photographs, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

from ..files import TEMPORARY_PREFIX
from ..locks import LOCK
from .folder import MARKER, OWN_NAMES, dataset_lock, erase, require_dataset


@dataclass(frozen=True)
class PurgeResult:
    """`erased`: number of files; `left`: names in the folder that no stage of ours had made."""

    erased: int
    left: tuple[str, ...]


def derived_files(folder: Path) -> list[Path]:
    """All files that a purge of `folder` erases. Raises UserError for a folder without the marker."""
    folder = require_dataset(folder)
    files: list[Path] = []
    for entry in _derived_entries(folder):
        if entry.is_dir() and not entry.is_symlink():
            files += [path for path in entry.rglob("*") if path.is_symlink() or not path.is_dir()]
        elif entry.exists() or entry.is_symlink():
            files.append(entry)
    return files


def purge_dataset(folder: Path) -> PurgeResult:
    """Erase everything derived in `folder`, and the folder itself if nothing else is in it.

    Erases by name, follows no link, never touches the photographs; files that are not ours are left and
    named. Files are deleted, not overwritten. Interrupted, the same call goes on: the marker goes last.
    """
    folder = require_dataset(folder)
    count = len(derived_files(folder))
    with dataset_lock(folder):
        for entry in _derived_entries(folder):
            if entry.name not in (LOCK, MARKER):
                erase(entry)
    # Windows erases no open file, so the lock is let go first.
    for name in (LOCK, MARKER):
        erase(folder / name)
    left = tuple(sorted(entry.name for entry in folder.iterdir()))
    if not left:
        folder.rmdir()
    return PurgeResult(count, left)


def _derived_entries(folder: Path) -> list[Path]:
    leftovers = sorted(folder.glob(f"{TEMPORARY_PREFIX}*"))
    names = [name for name in OWN_NAMES if name != MARKER]
    return [*leftovers, *(folder / name for name in names), folder / MARKER]
