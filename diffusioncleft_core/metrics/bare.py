"""Photographs, or other images, in a bare folder that sets are compared with in the place of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..dataset.copies import keep_thumbnail, known_thumbnail
from ..dataset.folder import owned_cache
from ..dataset.references import FACES_CACHE as DATASET_FACES
from ..dataset.references import FoundFaces
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..faces.records import FaceRecord, are_phantoms, face_records
from ..files import sha256_bytes
from ..imageset.cache import ContentCache
from ..imageset.copies import Grey
from ..imageset.decode import INGEST_VERSION
from ..imageset.places import FACES_CACHE
from .sets import MeasuredImage, Warn, measured_set, name_damaged

ENOUGH = 40
"""Pictures of a folder that are looked at to tell phantoms from people."""


def faces_in(
    folder: Path,
    images: Sequence[MeasuredImage],
    analyzer: FaceAnalyzer,
    cache_dir: Path | None,
    what: str,
) -> list[FaceRecord]:
    """The faces of some images of one folder, kept where the filters keep them."""
    files = [image.file for image in images]
    return face_records(folder, files, analyzer, faces_cache(folder, cache_dir), description=what)


def faces_cache(folder: Path, cache_dir: Path | None) -> Path | None:
    """The private folder for what the faces of a folder's images are compared by."""
    return owned_cache(folder, DATASET_FACES, cache_dir or folder / FACES_CACHE)


def thumbnails_of(images: Sequence[MeasuredImage], cache: Path | None) -> list[Grey]:
    """The thumbnails of images, less those that can't be read; each is decoded once and kept in `cache`."""
    known, found = ContentCache(cache, "thumbnails"), []
    for image in images:
        content = f"{image.sha256} {INGEST_VERSION}"
        grey = known_thumbnail(known, content)
        if grey is None and (pixels := image.pixels()) is not None:
            grey = keep_thumbnail(known, content, pixels)
        if grey is not None:
            found.append(grey)
    return found


def bare_faces(
    folders: Mapping[Path, str], analyzer: FaceAnalyzer, cache_dir: Path | None, warn: Warn
) -> list[FoundFaces]:
    """The faces and thumbnails of bare folders, each with the condition that it shows.

    Nobody says who is on which image, so all may show one person.

    Raises:
        UserError: no face is found in a folder, or the embedded face models would see people in it.
    """
    found = []
    for folder, condition in folders.items():
        images = [image for image in measured_set(folder, condition)[0] if image.raw]
        records = faces_in(folder, images, analyzer, cache_dir, "faces, reference")
        name_damaged(images, np.array([record.unreadable is not None for record in records], bool), warn)
        if not any(record.has_face for record in records):
            raise UserError(
                f"no face was found in {folder}, so nothing could be compared with it; "
                "give a folder of faces, another face pack, or leave fir out of --metrics"
            )
        if analyzer.phantom_only and not are_phantoms(records):
            raise UserError(SEEMS_PEOPLE.format(folder=folder))
        readable = [
            (image, record)
            for image, record in zip(images, records, strict=True)
            if record.unreadable is None
        ]
        greys = thumbnails_of([image for image, _ in readable], faces_cache(folder, cache_dir))
        contents = sorted(image.sha256 or "" for image, _ in readable)
        kept = [record for _, record in readable]
        shown, nobody = [condition] * len(kept), [""] * len(kept)
        fingerprint = sha256_bytes("\n".join(contents).encode())
        found.append(FoundFaces(shown, nobody, kept, greys, fingerprint))
    return found


SEEMS_PEOPLE = (
    "{folder} seems to hold photographs of people, and --phantom is for phantoms alone; leave --phantom out "
    "(diffusioncleft weights list shows what is then needed)"
)


def refuse_people(folders: Mapping[Path, str], cache_dir: Path | None) -> None:
    """Raise UserError where a bare folder seems to hold photographs of people: networks with seeded weights,
    which are for phantoms, must not measure them.
    """
    analyzer = load_face_analyzer("phantom") if folders else None
    for folder, condition in folders.items():
        images = measured_set(folder, condition)[0]
        looked_at = images[:: max(1, len(images) // ENOUGH)][:ENOUGH]
        assert analyzer is not None
        records = faces_in(folder, looked_at, analyzer, cache_dir, "phantoms")
        if any(record.has_face for record in records) and not are_phantoms(records):
            raise UserError(SEEMS_PEOPLE.format(folder=folder))
