"""Near copies in the audit: how many generated images show a training photograph's own pixels.

A recogniser compares people and misses copies in grey, in other hues, turned, cut or half covered; these are
looked for in the pixels (`imageset.copies`), in images without a face too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import HERE, Done, Engine, Work, builder
from ..dataset import references
from ..dataset.copies import dataset_thumbnails
from ..dataset.folder import dataset_rows, owned_cache
from ..dataset.references import ReferenceSet, read_references
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..imageset.cache import ContentCache, entry_key
from ..imageset.copies import COPIES_VERSION, NO_HINT, CopyIndex, thumbnail
from ..imageset.places import FACES_CACHE
from ..progress import progress
from ..small_counts import FEWEST, is_small
from ..statistics import clopper_pearson
from .bare import bare_faces
from .fir import share_as_json
from .sets import ALL, Group, MeasuredImage, Population, References

Scores = NDArray[np.float64]
SCORES = "copies"
SCORES_VERSION = 2
"""Counted up when kept scores may be of other photographs than they are kept for."""
CAUGHT = "Zero by construction where the filter looked for near copies: the raw set's figure is the result."
HELD_OUT = "Photographs that were not trained on: what other photographs score."


def copy_figures(
    population: Population,
    references: References,
    known: ReferenceSet,
    cache_dir: Path | None,
    *,
    phantom: bool,
    engine: Engine = HERE,
    analyzer: FaceAnalyzer | None = None,
) -> dict[str, dict[str, Any]]:
    """`near_copies`, and `near_copies_control` from five hold-out photographs on, of every group.

    known: the photographs of `references`, of all conditions, of which each is a copy too many. phantom:
    whether the images are drawings, of which the figures say nothing about photographs. engine: who compares;
    workers elsewhere read the photographs where they lie, with the pack of `analyzer`.
    """
    assert known.copies is not None
    again = None
    if analyzer is not None and analyzer.again is not None:
        again = Knowing(references, cache_dir, analyzer.again, known.fingerprint, len(known.copies))
    scores = copy_scores(population.images, known, cache_dir, engine, again)
    shared = {
        "threshold": known.copies.threshold,
        "extractor": {
            "name": f"near-copy check, version {COPIES_VERSION}",
            "sha256": None,
            "phantom": phantom,
            "licence": "Apache-2.0",
        },
    }
    others = {
        folder: _scores_of([*dataset_thumbnails(folder, dataset_rows(folder, "holdout"))], known.copies)
        for folder in dict.fromkeys(map(Path, references.datasets))
    }
    conditions = {folder: {row.condition for row in dataset_rows(folder, "train")} for folder in others}
    figures: dict[str, dict[str, Any]] = {}
    for group in population.groups:
        found = {
            variant: _figure(scores[mask], known.copies, CAUGHT if variant == "filtered" else None) | shared
            for variant, mask in group.variants().items()
        }
        figures[group.name] = {"near_copies": {"robust": found}}
        held = [part for folder, part in others.items() if _belongs(group, conditions[folder])]
        outside = np.concatenate([np.zeros(0), *held])
        # One of few beside others would follow from the union's count.
        if len(outside) >= FEWEST and not any(is_small(len(part)) for part in held):
            control = _figure(outside, known.copies, HELD_OUT) | shared
            figures[group.name]["near_copies_control"] = {"robust": {"holdout": control}}
    return figures


def copy_scores(
    images: Sequence[MeasuredImage],
    known: ReferenceSet,
    cache_dir: Path | None,
    engine: Engine = HERE,
    again: Knowing | None = None,
) -> Scores:
    """[N]: the highest score of each image against any photograph; NaN for one that can't be read.

    Kept with the set that owns the image, by the content of image and photographs. again: how workers of
    `engine` come by the photographs.
    """
    assert known.copies is not None
    caches = {
        folder: ContentCache(
            owned_cache(folder, references.FACES_CACHE, cache_dir or folder / FACES_CACHE), SCORES
        )
        for folder in dict.fromkeys(image.folder for image in images)
    }
    scores = np.full(len(images), np.nan)
    jobs = []
    with progress(len(images), "near copies") as bar:
        for place, image in enumerate(images):
            kept: Any = None
            if image.sha256 is not None:
                versions = (COPIES_VERSION, SCORES_VERSION)
                key = entry_key(image.sha256, known.fingerprint, len(known.copies), *versions)
                kept = (caches[image.folder].value(key) or {}).get("score")
                if not isinstance(kept, float):
                    jobs.append(Comparison(place, image.folder, image.file, key))
                    continue
                scores[place] = kept
            bar.update()
        for result in engine.run(
            Work(Comparing(builder(engine, known.copies, again)), block=len(jobs) or 1), jobs
        ):
            job = result.job
            if isinstance(result, Done) and result.found is not None:
                scores[job.place] = result.found
                caches[job.folder].keep_value(job.key, {"score": result.found})
            bar.set_postfix_str(engine.told(), refresh=False)
            bar.update()
    return scores


@dataclass(frozen=True)
class Comparison:
    """An image to compare: its place in the population, folder and file, and what its score is kept under."""

    place: int
    folder: Path
    file: str
    key: str


@dataclass(frozen=True)
class Knowing:
    """The thumbnails of the references' photographs, read where they lie.

    `fingerprint` and `size` are of what is looked for; UserError where something else lies there.
    """

    references: References
    cache_dir: Path | None
    analyzer: Callable[[], FaceAnalyzer]
    fingerprint: str
    size: int

    def __call__(self) -> CopyIndex:
        analyzer = self.analyzer()
        others = bare_faces(self.references.folders, analyzer, self.cache_dir, lambda message: None)
        found = read_references(self.references.datasets, analyzer, others=others)
        assert found.copies is not None
        if (found.fingerprint, len(found.copies)) != (self.fingerprint, self.size):
            raise UserError(
                "a worker sees other photographs than this process to look for near copies of; give folders "
                "that all workers see, and change none of them meanwhile"
            )
        return found.copies


@dataclass(frozen=True)
class Comparing:
    """How the worker is built that looks for near copies."""

    copies: Callable[[], CopyIndex]

    def __call__(self) -> Comparer:
        return Comparer(self.copies())


class Comparer:
    """Looks for near copies of the photographs."""

    def __init__(self, copies: CopyIndex) -> None:
        self._copies = copies

    def prepare(self, jobs: Sequence[Comparison]) -> None:
        """See `Worker.prepare`."""

    def do(self, job: Comparison) -> float | None:
        """The highest score against any photograph; None for an image that can't be read."""
        pixels = MeasuredImage(job.folder, job.file, "").pixels()
        return None if pixels is None else float(_scores_of([thumbnail(pixels)], self._copies)[0])

    def close(self) -> None:
        """See `Worker.close`."""


def _scores_of(thumbnails: Sequence[NDArray[np.uint8]], copies: CopyIndex) -> Scores:
    found = [copies.best(grey) for grey in thumbnails]
    return np.array([NO_HINT if match is None else match.score for match in found], np.float64)


def _belongs(group: Group, conditions: set[str | None]) -> bool:
    return group.shows == ALL or group.shows in {name or "unknown" for name in conditions}


def _figure(scores: Scores, copies: CopyIndex, note: str | None) -> dict[str, Any]:
    """The share of images that are near copies, with the interval of Clopper and Pearson."""
    read = scores[~np.isnan(scores)]
    share = share_as_json(clopper_pearson(int((read >= copies.threshold).sum()), len(read)))
    counts = {
        "n_images": len(read),
        "n_unreadable": len(scores) - len(read),
        "n_reference": len(copies),
    }
    return share | counts | ({"note": note} if note else {})
