"""The manifest: one JSON line an image, and which rows are raw, filtered and rejected."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..errors import UserError
from ..files import inside, read_jsonl, write_jsonl
from .listing import list_images, named

MANIFEST = "manifest.jsonl"
ROLES = ("train", "holdout", "generated", "control")
REJECTED = "rejected"
"""Folder inside a set for what the filters set aside; nothing in it is ever deleted."""


@dataclass(frozen=True)
class ImageRow:
    """One image of an image set.

    `file` is relative to the set's folder, with forward slashes. `sha256` is the hash of the normalised
    pixels (see `ingest.pixel_sha256`) and stands in private manifests only. `subject` is an opaque label
    shared by the photographs of one person, private as well. `region` [x0, y0, x1, y1] is where the finding
    lies, private too. Sizes in pixels.
    """

    file: str
    sha256: str | None = None
    width: int = 0
    height: int = 0
    condition: str | None = None
    role: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    caption: str | None = None
    prompt: str | None = None
    seed: int | None = None
    lora: str | None = None
    verdicts: dict[str, Any] = field(default_factory=dict)
    subject: str | None = None
    region: list[float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object; fields that are empty are left out."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in row.items() if value is not None and value != {}}

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str = "the manifest") -> "ImageRow":
        """Read a row; unknown fields are ignored, so that newer manifests can be read."""
        name = row.get("file")
        if not isinstance(name, str) or not name:
            raise UserError(f"a row of {where} has no 'file'; build the set again")
        role = row.get("role")
        if role is not None and role not in ROLES:
            raise UserError(f"role {role!r} of {name} in {where} is unknown; allowed: {', '.join(ROLES)}")
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in row.items() if key in known})


def read_manifest(folder: Path) -> list[ImageRow]:
    """Read `manifest.jsonl` of `folder`. UserError when it is missing or a file leads out of it."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} has no {MANIFEST}; build it with 'diffusioncleft dataset build' or check the path"
        )
    rows = [ImageRow.from_json(row, str(path)) for row in read_jsonl(path)]
    for row in rows:
        inside(folder, row.file)
    return [replace(row, file=current_place(folder, row.file)) for row in rows]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The manifest's rows with every field that they have; those without `file` are left out."""
    rows = [row for row in read_jsonl(Path(folder) / MANIFEST) if isinstance(row.get("file"), str)]
    return [{**row, "file": current_place(folder, row["file"])} for row in rows]


def current_place(folder: Path, file: str) -> str:
    """Where the image that a manifest calls `file` lies now, relative to `folder`.

    A filter writes the manifest before it moves images to `rejected/` and back, so that after a crash an
    image may lie where it was before. It lies where the manifest says when it lies nowhere.
    """
    path = PurePosixPath(file)
    if path.parent not in (PurePosixPath(), PurePosixPath(REJECTED)) or (Path(folder) / file).is_file():
        return file
    other = path.name if path.parent.name else f"{REJECTED}/{path.name}"
    return other if (Path(folder) / other).is_file() else file


def place_of(folder: Path, name: str) -> str:
    """Where the image `name` (without folder) lies now, relative to `folder`: there, or under `rejected/`.

    When it lies nowhere its place is the folder itself.
    """
    return current_place(folder, name)


def write_manifest(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write `manifest.jsonl` of `folder` atomically."""
    write_jsonl(Path(folder) / MANIFEST, (row.to_json() for row in rows))


def read_image_set(folder: Path) -> list[ImageRow]:
    """Read an image set: a folder with a manifest, or a bare folder of images (sorted by name, not
    recursive).

    Of a bare folder only `file`, `width` and `height` are known; what can't be read is among them, 0 px wide
    and high. What is an image: `listing.list_images`. A folder without any raises UserError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a folder of images or of a dataset")
    if (folder / MANIFEST).is_file():
        return read_manifest(folder)
    listing = list_images(folder)
    if not listing.images:
        below = f" (its subfolders {named(listing.folders)} are not looked at)" if listing.folders else ""
        raise UserError(f"{folder} has no image and no {MANIFEST}{below}; check the path")
    return image_rows(folder, listing.images)


def image_rows(folder: Path, files: Iterable[str]) -> list[ImageRow]:
    """Rows of images that no manifest knows: `file` (relative to `folder`), `width` and `height`."""
    from .decode import header_size

    sizes = [(file, header_size(Path(folder) / file) or (0, 0)) for file in files]
    return [ImageRow(file=file, width=width, height=height) for file, (width, height) in sizes]


def unlisted(folder: Path) -> list[str]:
    """Sentences that name the images in a set's folder which `read_image_set` does not give.

    They lie in a subfolder, are hidden, links that lead out of it, or missing from its manifest.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return list_images(folder).notices(folder)
    files = [PurePosixPath(row["file"]) for row in read_rows(folder)]
    known = {path.name for path in files}
    own = {path.parts[0] for path in files if len(path.parts) > 1}
    told = list_images(folder, own={REJECTED, *own}).notices(folder, known)
    if (folder / REJECTED).is_dir():
        told += list_images(folder / REJECTED).notices(folder / REJECTED, known)
    return told


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
