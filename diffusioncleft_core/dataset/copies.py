"""Thumbnails of a dataset's photographs, among which near copies are looked for. Private, kept with them."""

import base64
import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from ..imageset.cache import ContentCache, entry_key
from ..imageset.copies import COPIES_VERSION, Grey, Pair, near_copy_pairs, thumbnail
from ..imageset.decode import Rejected, read_image
from ..imageset.manifest import ImageRow
from .folder import dataset_cache

COPIES_CACHE = "copies"
"""Part of the dataset's cache: erased with it, and whenever a photograph is withdrawn."""


def thumbnail_cache(folder: Path) -> ContentCache:
    """Where a dataset's thumbnails are kept, by the hash of the photograph's pixels."""
    return ContentCache(dataset_cache(folder, COPIES_CACHE), "thumbnails")


def known_thumbnail(known: ContentCache, sha256: str) -> Grey | None:
    """The kept thumbnail of the photograph with these pixels; None when it is not there or is damaged."""
    with contextlib.suppress(KeyError, TypeError, ValueError, OSError):
        data = base64.b64decode((known.value(entry_key(sha256, COPIES_VERSION)) or {})["png"])
        return np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]), np.uint8)
    return None


def keep_thumbnail(known: ContentCache, sha256: str, image: NDArray[np.uint8]) -> Grey:
    """Keep the thumbnail of the photograph `image` [H, W, 3] with these pixels, and return it."""
    grey = thumbnail(image)
    data = io.BytesIO()
    Image.fromarray(grey).save(data, "PNG")
    known.keep_value(
        entry_key(sha256, COPIES_VERSION), {"png": base64.b64encode(data.getvalue()).decode("ascii")}
    )
    return grey


def dataset_thumbnails(folder: Path, rows: Sequence[ImageRow]) -> list[Grey]:
    """The thumbnails of these photographs, in their order. UserError for one that can't be read."""
    known = thumbnail_cache(folder)
    found = []
    for row in rows:
        sha256 = row.sha256 or row.file
        grey = known_thumbnail(known, sha256)
        if grey is None:
            try:
                grey = keep_thumbnail(known, sha256, read_image(folder / row.file))
            except Rejected as rejection:
                raise UserError(f"{row.file} of {folder}: {rejection.detail}; build it again") from rejection
        found.append(grey)
    return found


def near_copies(
    known: ContentCache, hashes: Sequence[str], thumbnails: Callable[[], Sequence[Grey]], threshold: float
) -> list[Pair]:
    """`near_copy_pairs` of photographs with these pixel hashes; known without a look for the same ones."""
    key = entry_key(list(hashes), "pairs", threshold, COPIES_VERSION)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return [Pair(int(i), int(j), bool(m)) for i, j, m in (known.value(key) or {})["pairs"]]
    pairs = near_copy_pairs(thumbnails(), threshold)
    known.keep_value(key, {"pairs": [list(pair) for pair in pairs]})
    return pairs
