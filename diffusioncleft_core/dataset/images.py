"""The dataset's own images and embeddings: written whole, made durable together, erased when unlisted."""

import contextlib
import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import TEMPORARY_PREFIX, atomic_path, explained
from .folder import EMBEDDINGS, IMAGES, erase
from .ingest import pixel_sha256

Array = np.ndarray[Any, np.dtype[Any]]
FACES = f"{EMBEDDINGS}/faces.npz"


def image_name(pixels: str) -> str:
    """Name of the normalised image in the dataset: the first 16 digits of its pixel hash."""
    return f"{IMAGES}/{pixels[:16]}.png"


def save_image(folder: Path, sha256: str, pixels: Array) -> None:
    """Write `pixels` [H, W, 3] uint8 as a PNG without metadata, under a temporary name first.

    Not synced: `settle` does that for all images at once, which takes a fraction of the time.
    """
    path = Path(folder) / image_name(sha256)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.png")
    try:
        with explained(path):
            Image.fromarray(pixels).save(temporary, "PNG", compress_level=4)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_sound(folder: Path, sha256: str) -> bool:
    """Whether the normalised image is there and its pixels are the ones of its hash."""
    path = Path(folder) / image_name(sha256)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.mode == "RGB" and pixel_sha256(np.array(image, dtype=np.uint8)) == sha256
    except Exception:  # a torn file raises nearly anything
        return False


def settle(folder: Path, hashes: Collection[str]) -> None:
    """Sync these images to disk, before a manifest names them."""
    for sha256 in hashes:
        path = Path(folder) / image_name(sha256)
        with explained(path), open(path, "r+b") as handle:
            os.fsync(handle.fileno())


def save_embeddings(folder: Path, hashes: Sequence[str], embeddings: Sequence[Array | None]) -> None:
    """Write `embeddings/faces.npz`: `sha256` [n] and `embedding` [n, 512] float32, of images with a face."""
    known = [(sha256, item) for sha256, item in zip(hashes, embeddings, strict=True) if item is not None]
    matrix = np.stack([item for _, item in known]) if known else np.zeros((0, 512))
    with atomic_path(Path(folder) / FACES) as temporary:
        np.savez(
            temporary, sha256=np.array([sha256 for sha256, _ in known]), embedding=matrix.astype(np.float32)
        )


def read_embeddings(folder: Path) -> dict[str, Array]:
    """Embeddings [512] of the dataset's images, by pixel hash; none before the first build is done."""
    path = Path(folder) / FACES
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as data:
        return dict(zip(data["sha256"].tolist(), data["embedding"], strict=True))


def erase_unlisted(folder: Path, hashes: Collection[str]) -> None:
    """Erase the images that are not among `hashes`; if there are such, the embeddings as well."""
    names = {Path(image_name(sha256)).name for sha256 in hashes}
    with explained(Path(folder) / IMAGES):
        for entry in sorted((Path(folder) / IMAGES).iterdir()):
            if entry.name not in names:
                erase(entry)
    if not set(read_embeddings(folder)) <= set(hashes):
        erase(Path(folder) / FACES)
