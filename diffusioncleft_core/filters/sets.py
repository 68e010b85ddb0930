"""Rows of an image set that went through the filters: what counts as raw, what as filtered."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..dataset.manifest import MANIFEST, read_image_set
from ..errors import UserError
from ..files import inside, read_jsonl, write_jsonl

REJECTED = "rejected"
"""Folder inside a set for what the filters set aside; nothing in it is ever deleted."""

Row = TypeVar("Row", bound=Mapping[str, Any])


def raw_rows(rows: Iterable[Row]) -> list[Row]:
    """The set as it was first generated: rows of attempt 0, accepted or not."""
    return [row for row in rows if not row.get("attempt")]


def filtered_rows(rows: Iterable[Row]) -> list[Row]:
    """What the filters accepted, of any attempt. Rows that no filter has seen are left out."""
    return [row for row in rows if (row.get("verdicts") or {}).get("accepted") is True]


def rejected_rows(rows: Iterable[Row]) -> list[Row]:
    """What the filters rejected, of any attempt."""
    return [row for row in rows if (row.get("verdicts") or {}).get("accepted") is False]


def read_set_rows(folder: Path) -> list[dict[str, Any]]:
    """The manifest's rows of a set, or a row for each image of a bare folder.

    Raises UserError for no folder, no image, a row without `file`, and a file that leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a generated set, or of images")
    if not (folder / MANIFEST).is_file():
        return [row.to_json() for row in read_image_set(folder)]
    rows = read_jsonl(folder / MANIFEST)
    if not rows:
        raise UserError(f"{folder / MANIFEST} lists no image; generate the set first, or check the path")
    for row in rows:
        if not isinstance(row.get("file"), str) or not row["file"]:
            raise UserError(f"a row of {folder / MANIFEST} has no 'file'; generate the set again")
        inside(folder, row["file"])
    return rows


def write_set_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the manifest atomically, every field of the rows as it is."""
    write_jsonl(Path(folder) / MANIFEST, (dict(row) for row in rows))


def place_of(folder: Path, name: str) -> str:
    """Where the image `name` (without folder) lies now, relative to `folder`: there, or under `rejected/`.

    When it lies nowhere its place is the folder itself.
    """
    aside = f"{REJECTED}/{name}"
    if not (Path(folder) / name).is_file() and (Path(folder) / aside).is_file():
        return aside
    return name
