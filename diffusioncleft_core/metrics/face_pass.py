"""What the faces of all images give: FIR, the similarity histograms, and the plane of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .identity import Faces, control_figures, embedder_info, identity_figures
from .image_sets import ALL, MeasuredImage, read_generated
from .pca import embedding_plane
from .sides import Side, Warn, name_damaged

if TYPE_CHECKING:
    from ..faces.analyzer import FaceAnalyzer
    from ..faces.references import ReferenceSet


def measure_identity(
    side: Side,
    references: Sequence[Path],
    analyzer: FaceAnalyzer,
    cache_dir: Path | None,
    control: Path | None,
    threshold: float,
    warn: Warn,
) -> dict[str, Any]:
    """FIR of every group, the similarity histograms and the plane of embeddings."""
    from ..faces.references import read_references

    info = embedder_info(analyzer)
    faces = faces_of(side.images, analyzer, cache_dir, "faces, generated")
    name_damaged(side.images, faces.unreadable, warn)
    known: ReferenceSet | None = read_references(references, analyzer) if references else None
    held = holdout_faces(references, analyzer)
    sets: dict[str, Any] = {}
    similarity: dict[str, Any] = {}
    for group in side.groups:
        sets[group.name], histograms = identity_figures(group, faces, known, info, threshold)
        if histograms:
            similarity[group.name] = histograms
        if known is not None:
            others = [item for name, item in held.items() if group.name in (name, ALL) and len(item)]
            if others:
                outside = np.concatenate(others)
                sets[group.name] |= control_figures(group.name, outside, known, info, threshold)
    pca = plane(side, faces, known, control_faces(control, analyzer, cache_dir, warn), info)
    return {"sets": sets, "figures": {"similarity": similarity, "pca": pca}}


def faces_of(
    images: Sequence[MeasuredImage], analyzer: FaceAnalyzer, cache_dir: Path | None, description: str
) -> Faces:
    """The faces of images of several folders, looked for once and kept where the filters keep them."""
    from ..faces.records import FaceRecord, face_records

    records: dict[int, FaceRecord] = {}
    for folder in dict.fromkeys(image.folder for image in images):
        places = [place for place, image in enumerate(images) if image.folder == folder]
        files = [images[place].file for place in places]
        found = face_records(folder, files, analyzer, faces_cache(folder, cache_dir), description=description)
        records |= dict(zip(places, found, strict=True))
    return Faces.of([records[place] for place in range(len(images))])


def faces_cache(folder: Path, cache_dir: Path | None) -> Path:
    """Where faces of the images in `folder` are kept: a dataset's in its own cache, others where the filters
    keep them.
    """
    from ..dataset.folder import is_dataset
    from ..faces import references
    from ..filters import sets

    return folder / references.FACES_CACHE if is_dataset(folder) else cache_dir or folder / sets.FACES_CACHE


def holdout_faces(references: Sequence[Path], analyzer: FaceAnalyzer) -> dict[str, NDArray[np.float32]]:
    """Embeddings [n, 512] of the hold-out photographs, by condition."""
    from ..faces.records import embedding_matrix
    from ..faces.references import dataset_records

    found: dict[str, NDArray[np.float32]] = {}
    for folder in references:
        rows, records = dataset_records(folder, analyzer, roles=("holdout",), description="faces, hold-out")
        for name in dict.fromkeys(row.condition or "unknown" for row in rows):
            pairs = zip(rows, records, strict=True)
            found[name] = embedding_matrix(
                [item for row, item in pairs if (row.condition or "unknown") == name]
            )[0]
    return found


def control_faces(
    control: Path | None, analyzer: FaceAnalyzer, cache_dir: Path | None, warn: Warn
) -> tuple[NDArray[np.float32], bool] | None:
    """Embeddings [n, 512] of a control set, and whether its manifest says that it is synthetic."""
    if control is None:
        return None
    from ..dataset.manifest import read_image_set, unlisted

    for message in unlisted(control):
        warn(message)
    images, _ = read_generated(control, "control")
    faces = faces_of(images, analyzer, cache_dir, "faces, control")
    name_damaged(images, faces.unreadable, warn)
    roles = {row.role for row in read_image_set(control)}
    return faces.embeddings[faces.found], bool(roles) and roles <= {"generated", "control"}


def plane(
    side: Side,
    faces: Faces,
    known: ReferenceSet | None,
    control: tuple[NDArray[np.float32], bool] | None,
    info: dict[str, Any],
) -> dict[str, Any] | None:
    """figures.pca, of the raw sets."""
    names = [group.name for group in side.groups if group.name != ALL] or [ALL]
    masks = {group.name: group.raw & faces.found for group in side.groups}
    real = {} if known is None else {name: known.of(name) for name in dict.fromkeys(known.conditions)}
    found = embedding_plane(
        real,
        {name: faces.embeddings[masks[name]] for name in names},
        None if control is None else control[0],
        control_is_synthetic=control is not None and control[1],
    )
    return None if found is None else found | {"extractor": info}
