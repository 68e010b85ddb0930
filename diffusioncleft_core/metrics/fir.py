"""Face identity recognition (FIR): how often a generated face is taken for a training photograph's.

The paper counts pairs (every generated x every training image) at a cosine of 0.6 or more. A set of 2,000
images has hundreds of thousands of pairs, so a leaked person hardly shows in a share of pairs; the share of
images with at least one such pair is what a reader expects. Both are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..files import sha256_model
from ..small_counts import FEWEST
from ..statistics import Proportion, clopper_pearson
from .pairs import BINS, PairCounts, count_pairs, counted
from .sets import ALL, Group

if TYPE_CHECKING:
    from pathlib import Path

    from ..dataset.references import ReferenceSet
    from ..faces.analyzer import FaceAnalyzer
    from ..faces.records import FaceRecord

Array = NDArray[np.floating[Any]]


def similarity_histogram(similarities: Array | PairCounts, threshold: float) -> dict[str, Any]:
    """Counts in bins of 0.02 from -1 to 1 of the cosines [M, N] (generated x training), and their mean."""
    edges = np.round(np.arange(-BINS // 2, BINS // 2 + 1) * 2 / BINS, 2)
    found = counted(similarities, ())
    shown = similarities.size > 0 and similarities.shape[1] >= FEWEST
    return {
        "edges": edges.tolist(),
        "counts": found.bins.tolist() if shown else None,
        "mean": round(found.total / found.size, 4) if shown else None,
        "threshold": threshold,
        "n_pairs": int(similarities.size),
    }


SWEEP = tuple(round(0.30 + 0.05 * step, 2) for step in range(9))
"""0.30, 0.35 ... 0.70."""


def fir_pairs(similarities: Array | PairCounts, threshold: float) -> Proportion:
    """Share of pairs at or above `threshold`; `similarities` [M, N] are the cosines, generated x training.

    The interval is Clopper and Pearson's and takes pairs as independent, as the paper's share does.
    """
    found = counted(similarities, (threshold,))
    return clopper_pearson(found.at_least[threshold], found.size)


def fir_images(similarities: Array | PairCounts, threshold: float) -> Proportion:
    """Share of generated images with at least one training image at or above `threshold`; [M, N] as above."""
    if similarities.shape[1] == 0:
        return clopper_pearson(0, 0)
    return clopper_pearson(counted(similarities, ()).images(threshold), similarities.shape[0])


def fir_sweep(similarities: Array | PairCounts, thresholds: Sequence[float] = SWEEP) -> list[dict[str, Any]]:
    """Both shares at every threshold, as JSON values."""
    similarities = counted(similarities, thresholds)
    return [
        {
            "threshold": threshold,
            "pairs": share_as_json(fir_pairs(similarities, threshold)),
            "images": share_as_json(fir_images(similarities, threshold)),
        }
        for threshold in thresholds
    ]


def share_as_json(share: Proportion) -> dict[str, Any]:
    """{"value", "ci95", "k", "n"}; a share of nothing has neither value nor interval."""
    ci95 = None if share.value is None else list(share.ci95)
    return {"value": share.value, "ci95": ci95, "k": share.k, "n": share.n}


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
        """Of a record for each image."""
        return cls.at(len(records), enumerate(records))

    @classmethod
    def at(cls, n: int, found: Iterable[tuple[int, FaceRecord]]) -> Faces:
        """Of records that come one by one, each with its place among the `n` images."""
        faces = cls(np.zeros((n, 512), np.float32), *(np.zeros(n, bool) for _ in range(3)))
        for place, record in found:
            if record.embedding is not None:
                faces.embeddings[place] = record.embedding
                faces.found[place] = True
            faces.several[place] = record.has_several
            faces.unreadable[place] = record.unreadable is not None
        return faces


def embedder_info(analyzer: FaceAnalyzer) -> dict[str, Any]:
    """The report's `extractor` for what the face pack measured; sha256 is the recogniser's file's."""
    from ..weights.registry import read_registry

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
        own, every = compared_counts(faces.embeddings, entered, references, group.shows, threshold)
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


def compared_counts(
    embeddings: NDArray[np.float32],
    entered: NDArray[np.bool_],
    references: ReferenceSet | None,
    condition: str,
    threshold: float,
) -> tuple[PairCounts | None, PairCounts | None]:
    """What is counted of images against the photographs of their condition, and against all."""
    if references is None:
        return None, None
    places = references.index(condition)
    others = np.setdiff1d(np.arange(len(references)), places)
    rows = np.flatnonzero(entered)
    own, rest = (
        count_pairs(embeddings, references.embeddings, (*SWEEP, threshold), rows=rows, columns=part)
        for part in (places, others)
    )
    return own, own.beside(rest)


def control_figures(
    name: str,
    holdout: NDArray[np.float32],
    references: ReferenceSet,
    extractor: dict[str, Any],
    threshold: float,
) -> dict[str, Any]:
    """Hold-out photographs [n, 512] against the training photographs; empty with fewer than 5."""
    if len(holdout) < FEWEST:
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


def _figure(
    similarities: NDArray[np.float32] | PairCounts | None, share: Any, threshold: float
) -> dict[str, Any]:
    if similarities is None or similarities.shape[1] == 0:
        empty = {"value": None, "ci95": None, "k": None, "n": 0, "n_reference": 0}
        return empty | {"note": NO_REFERENCE}
    figure = share_as_json(share(similarities, threshold)) | {"n_reference": int(similarities.shape[1])}
    return figure if similarities.shape[0] else figure | {"note": NO_FACE}
