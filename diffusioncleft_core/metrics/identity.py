"""FIR of a group of generated images: the figures of the report, from face records and training faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..digests import sha256_model
from .fir import fir_images, fir_pairs, fir_sweep, share_as_json
from .image_sets import ALL, Group
from .similarity import FEWEST_PHOTOGRAPHS, similarity_histogram

if TYPE_CHECKING:
    from pathlib import Path

    from ..faces.analyzer import FaceAnalyzer
    from ..faces.records import FaceRecord
    from ..faces.references import ReferenceSet

NO_REFERENCE = "There are no training photographs of this condition to compare with."
NO_FACE = "No face was found in this set."
BY_CONSTRUCTION = (
    "Zero by construction where the filter rejected at this threshold with this recogniser: the raw set's "
    "figure is the result."
)
HELD_OUT = "Photographs that were not trained on against the training photographs: what other people score."


@dataclass(frozen=True)
class Faces:
    """The faces of a list of N images."""

    embeddings: NDArray[np.float32]
    """[N, 512]; zero where there is no face."""
    found: NDArray[np.bool_]
    several: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[FaceRecord]) -> Faces:
        embeddings = np.zeros((len(records), 512), np.float32)
        for place, record in enumerate(records):
            if record.embedding is not None:
                embeddings[place] = record.embedding
        return cls(
            embeddings,
            np.array([record.embedding is not None for record in records], bool),
            np.array([record.n_faces > 1 for record in records], bool),
            np.array([record.unreadable is not None for record in records], bool),
        )


def embedder_info(analyzer: FaceAnalyzer) -> dict[str, Any]:
    """The report's `extractor` for what the face pack measured; sha256 is the recogniser's file's."""
    from ..weights import read_registry

    pack = analyzer.pack
    recogniser: Path | str = analyzer._app.models["recognition"].model_file
    licences = {model.name: model.licence for model in read_registry()}
    own = "Apache-2.0" if pack.phantom_only else "as its files came"
    return {
        "name": pack.name,
        "sha256": sha256_model(pack.folder / str(recogniser)),
        "phantom": pack.phantom_only,
        "licence": licences.get(pack.name, own),
    }


def identity_figures(
    group: Group, faces: Faces, references: ReferenceSet | None, extractor: dict[str, Any], threshold: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, similarity histograms by variant) of one group; see `measure` for their form."""
    metrics: dict[str, Any] = {}
    histograms: dict[str, Any] = {}
    for variant, mask in group.variants().items():
        entered = mask & faces.found
        counts = {
            "n_images": int(entered.sum()),
            "n_unreadable": int((mask & faces.unreadable).sum()),
            "n_no_face": int((mask & ~faces.found & ~faces.unreadable).sum()),
            "n_several": int((entered & faces.several).sum()),
            "threshold": threshold,
            "extractor": extractor,
        }
        note = {"note": BY_CONSTRUCTION} if variant == "filtered" else {}
        every = None if references is None else references.similarities(faces.embeddings[entered])
        own = every if group.name == ALL or references is None or every is None else None
        if own is None and references is not None and every is not None:
            own = every[:, references.index(group.name)]
        for name, similarities, share in (
            ("fir_pairs", own, fir_pairs),
            ("fir_images", own, fir_images),
            ("fir_images_any", every, fir_images),
        ):
            figure = _figure(similarities, share, threshold) | counts
            if figure["value"] is not None:
                figure |= note
            metrics.setdefault(name, {"paper": {}})["paper"][variant] = figure
        if own is not None and own.size:
            metrics.setdefault("fir_sweep", {"paper": {}})["paper"][variant] = fir_sweep(own)
            histograms[variant] = similarity_histogram(own, threshold) | {"extractor": extractor}
    return metrics, histograms


def control_figures(
    name: str,
    holdout: NDArray[np.float32],
    references: ReferenceSet,
    extractor: dict[str, Any],
    threshold: float,
) -> dict[str, Any]:
    """Hold-out photographs [n, 512] against the training photographs; empty with fewer than 5."""
    if len(holdout) < FEWEST_PHOTOGRAPHS:
        return {}
    similarities = references.similarities(holdout)
    if name != ALL:
        similarities = similarities[:, references.index(name)]
    shared = {
        "n_images": len(holdout),
        "threshold": threshold,
        "extractor": extractor,
        "note": HELD_OUT,
    }
    return {
        f"fir_control_{unit}": {"robust": {"holdout": _figure(similarities, share, threshold) | shared}}
        for unit, share in (("pairs", fir_pairs), ("images", fir_images))
    }


def _figure(similarities: NDArray[np.float32] | None, share: Any, threshold: float) -> dict[str, Any]:
    if similarities is None or similarities.shape[1] == 0:
        empty = {"value": None, "ci95": None, "k": None, "n": 0, "n_reference": 0}
        return empty | {"note": NO_REFERENCE}
    figure = share_as_json(share(similarities, threshold)) | {"n_reference": int(similarities.shape[1])}
    return figure if len(similarities) else figure | {"note": NO_FACE}
