"""The manifest: one JSON line an image, the contract between all stages."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import TEMPORARY_PREFIX, inside, read_jsonl, write_jsonl

MANIFEST = "manifest.jsonl"
ROLES = ("train", "holdout", "generated", "control")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


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
    return rows


def write_manifest(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Write `manifest.jsonl` of `folder` atomically."""
    write_jsonl(Path(folder) / MANIFEST, (row.to_json() for row in rows))


def read_image_set(folder: Path) -> list[ImageRow]:
    """Read an image set: a folder with a manifest, or a bare folder of images (sorted by name, not
    recursive).

    Of a bare folder only `file`, `width` and `height` are known. Hidden and half-written files are skipped,
    and so is an image whose header can't be read; a folder without any image raises UserError.
    """
    from PIL import Image

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give a folder of images or of a dataset")
    if (folder / MANIFEST).is_file():
        return read_manifest(folder)
    rows = []
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith((".", TEMPORARY_PREFIX)):
            continue
        try:
            inside(folder, path.name)
            with Image.open(path) as image:
                width, height = image.size
        except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        rows.append(ImageRow(file=path.name, width=width, height=height))
    if not rows:
        raise UserError(f"{folder} has no image that can be read and no {MANIFEST}; check the path")
    return rows
