"""Rows of an image set that went through the filters: what counts as raw, what as filtered."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..dataset.listing import list_images
from ..dataset.manifest import MANIFEST, REJECTED, current_place, image_rows, read_image_set
from ..errors import UserError
from ..files import inside, read_jsonl, write_jsonl

FACES_CACHE = ".faces"
"""Folder inside a set that keeps its face records, closed to others (0700)."""

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

    A bare folder that was filtered has a manifest too; images that came later are rows without verdicts. An
    earlier version could stop after it had moved images and before it wrote the manifest: they are found.
    Raises UserError for no folder, no image, a row without `file`, and a file that leads out of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a generated set, or of images")
    if not (folder / MANIFEST).is_file():
        return _bare_rows(folder)
    rows = read_jsonl(folder / MANIFEST)
    if not rows:
        raise UserError(f"{folder / MANIFEST} lists no image; generate the set first, or check the path")
    for row in rows:
        if not isinstance(row.get("file"), str) or not row["file"]:
            raise UserError(f"a row of {folder / MANIFEST} has no 'file'; generate the set again")
        inside(folder, row["file"])
        row["file"] = current_place(folder, row["file"])
    if any("role" in row or "index" in row for row in rows):
        return rows
    known = {PurePosixPath(row["file"]).name for row in rows}
    new = [name for name in list_images(folder).images if name not in known]
    return [*rows, *(row.to_json() for row in image_rows(folder, new))]


def write_set_rows(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the manifest atomically, every field of the rows as it is."""
    write_jsonl(Path(folder) / MANIFEST, (dict(row) for row in rows))


def _bare_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of a folder without a manifest; of one with our face records also what lies under `rejected/`."""
    aside: list[str] = []
    if (folder / FACES_CACHE).is_dir() and (folder / REJECTED).is_dir():
        aside = [f"{REJECTED}/{name}" for name in list_images(folder / REJECTED).images]
    if not aside:
        return [row.to_json() for row in read_image_set(folder)]
    return [row.to_json() for row in image_rows(folder, [*list_images(folder).images, *aside])]
