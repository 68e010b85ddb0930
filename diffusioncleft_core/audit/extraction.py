"""The extraction probe: what a LoRA draws from the very captions it learned from, with several seeds each.

Captions of the hold-out, which it has not seen, are its control: the same words in other orders, and nobody
to be found. Everything drawn here may show a training photograph, so it lies in a private folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conditions.plan_rows import PlanRow
from ..dataset.folder import dataset_rows
from ..dataset.references import ReferenceSet
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, face_records
from ..files import keep_from_git, private_dir, sha256_bytes
from ..generation.generate import generate
from ..generation.settings import GenerationSettings
from ..imageset.copies import CopyIndex, near_copy_pairs, thumbnail
from ..imageset.decode import read_image
from ..imageset.manifest import read_image_set
from ..imageset.places import FACES_CACHE
from ..metrics.fir import share_as_json
from ..metrics.sets import Warn
from ..progress import progress
from ..small_counts import is_small
from ..statistics import Proportion, clopper_pearson, residual
from .cliques import largest_clique

HALF = 0.5
"""Share of a caption's drawings that must be alike to count as one picture drawn again and again."""
FEW = "Not told: it would be of fewer than five captions."
NO_CONTROL = "No caption of the hold-out differs from all that were learned from, so there is no control."


@dataclass(frozen=True, eq=False, repr=False)
class Drawings:
    """What was drawn from one caption: faces [K, 512] (zero where there is none), which of them have one [K],
    near-copy scores with the training photographs [K], and which drawings share pixels [K, K].
    """

    faces: NDArray[np.float32]
    found: NDArray[np.bool_]
    copy_scores: NDArray[np.float64]
    alike: NDArray[np.bool_]

    def clique(self, threshold: float) -> list[int]:
        """The largest set of drawings of which each shares its face or its pixels with all others."""
        same = (self.faces @ self.faces.T >= threshold) & self.found[:, None] & self.found[None]
        return largest_clique(same | self.alike)


@dataclass(frozen=True)
class Probe:
    """How the probe is made.

    Attributes:
        seeds: drawings a caption.
        captions: so many of each kind at most, in an order drawn by `seed`; 0: all.
        seed: of the noise and of the choice.
        threshold: cosine from which two faces are one person's.
    """

    seeds: int
    captions: int
    seed: int
    threshold: float


def probe_captions(dataset: Path, probe: Probe) -> tuple[list[str], list[str]]:
    """The captions that were learned from, and those of the hold-out that were not, each once."""
    train, holdout = (
        list(dict.fromkeys(row.caption for row in dataset_rows(dataset, role) if row.caption))
        for role in ("train", "holdout")
    )
    unseen = [caption for caption in holdout if caption not in set(train)]
    rng = np.random.default_rng(probe.seed)
    chosen = []
    for captions in (train, unseen):
        order = rng.permutation(len(captions))[: probe.captions or None]
        chosen.append([captions[place] for place in sorted(order)])
    return chosen[0], chosen[1]


def extraction(
    settings: GenerationSettings,
    dataset: Path,
    known: ReferenceSet,
    analyzer: FaceAnalyzer,
    probe: Probe,
    work: Path,
    *,
    photographs: bool,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """Draw from every caption and look for what is drawn again and again, and for the photographs.

    Args:
        settings: base model, LoRA and how pictures are drawn.
        dataset: whose captions the LoRA learned.
        known: the training photographs.
        analyzer: finds faces.
        probe: how many drawings, and from when on faces are the same.
        work: a private folder, in which the drawings stay; the same call goes on there.
        photographs: whether people are on the images, of whom small counts are not told.
        warn: told what will not be told, and what the LoRA itself says against this use of it.

    Returns:
        {"cliques": {"learned", "unseen", "residual"}, "found": {...}, "near_copies": {...}}: shares of
        captions whose drawings hold a clique of at least half of them, whose drawings show a training face,
        and a training photograph's pixels; `seeds`, `threshold`.
    """
    keep_from_git(private_dir(work))
    learned, unseen = probe_captions(dataset, probe)
    for said in untold(len(learned), len(unseen), probe) if photographs else ():
        warn(said)
    captions = [*learned, *unseen]
    rows = dataset_rows(dataset, "train")
    condition = next((row.condition for row in rows if row.condition), "unknown")
    plan = [
        PlanRow(place * probe.seeds + draw, caption, noise_seed(caption, draw, probe.seed), {}, condition)
        for place, caption in enumerate(captions)
        for draw in range(probe.seeds)
    ]
    drawn = work / f"drawings-{sha256_bytes(repr(plan).encode())[:12]}"
    generate(settings, plan, drawn, warn=warn)
    every = drawings_of(drawn, captions, known, analyzer)
    return figures(every[: len(learned)], every[len(learned) :], known, probe, photographs=photographs)


def untold(learned: int, unseen: int, probe: Probe) -> list[str]:
    """What will not be told of so many captions of people's photographs, before anything is drawn."""
    if is_small(probe.captions):
        return ["of drawings from fewer than five captions nothing is told; give a larger --captions"]
    if is_small(learned):
        return ["the dataset has fewer than five captions: of what is drawn from them nothing is told"]
    if is_small(unseen):
        return ["the hold-out has fewer than five captions of its own: the drawings have no control"]
    return []


def noise_seed(caption: str, draw: int, seed: int) -> int:
    """A seed of noise of its own for each drawing."""
    return int(sha256_bytes(f"{seed}/{draw}/{caption}".encode())[:12], 16)


def drawings_of(
    folder: Path, captions: Sequence[str], known: ReferenceSet, analyzer: FaceAnalyzer
) -> list[Drawings]:
    """What was drawn from each caption."""
    rows = read_image_set(folder)
    records = face_records(
        folder, [row.file for row in rows], analyzer, folder / FACES_CACHE, description="faces, drawings"
    )
    by_caption: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_caption.setdefault(row.prompt or "", []).append(place)
    found = []
    for caption in progress(captions, "drawings compared", unit="caption"):
        places = by_caption.get(caption, [])
        images = [read_image(folder / rows[place].file) for place in places]
        found.append(drawings(images, [records[place] for place in places], known.copies))
    return found


def drawings(
    images: Sequence[NDArray[np.uint8]], records: Sequence[FaceRecord], copies: CopyIndex | None
) -> Drawings:
    """The drawings of one caption: images [K], and what was found in each."""
    greys = [thumbnail(image) for image in images]
    faces = np.zeros((len(images), 512), np.float32)
    for place, record in enumerate(records):
        if record.embedding is not None:
            faces[place] = record.embedding
    scores = [None if copies is None else copies.best(grey) for grey in greys]
    alike = np.zeros((len(images), len(images)), bool)
    if copies is not None:
        for pair in near_copy_pairs(greys, copies.threshold):
            alike[pair.i, pair.j] = alike[pair.j, pair.i] = True
    return Drawings(
        faces,
        np.array([record.embedding is not None for record in records], bool),
        np.array([-1.0 if score is None else score.score for score in scores], np.float64),
        alike,
    )


def figures(
    learned: Sequence[Drawings],
    unseen: Sequence[Drawings],
    known: ReferenceSet,
    probe: Probe,
    *,
    photographs: bool,
) -> dict[str, Any]:
    """See `extraction`."""
    least = max(2, int(np.ceil(HALF * probe.seeds)))

    def is_repeated(drawn: Drawings) -> bool:
        return len(drawn.clique(probe.threshold)) >= least

    def shows_face(drawn: Drawings) -> bool:
        faces = drawn.faces[drawn.found]
        return bool(len(faces)) and float(known.similarities(faces).max(initial=-1)) >= probe.threshold

    def shows_pixels(drawn: Drawings) -> bool:
        return known.copies is not None and bool((drawn.copy_scores >= known.copies.threshold).any())

    found = {
        name: beside(
            *(counted([attack(item) for item in part]) for part in (learned, unseen)), photographs=photographs
        )
        for name, attack in (("cliques", is_repeated), ("found", shows_face), ("near_copies", shows_pixels))
    }
    return {**found, "seeds": probe.seeds, "least_alike": least, "threshold": probe.threshold}


def counted(hits: Sequence[bool]) -> Proportion:
    return clopper_pearson(sum(hits), len(hits))


def beside(learned: Proportion, unseen: Proportion, *, photographs: bool) -> dict[str, Any]:
    """A share of captions beside its control; nothing of fewer than five that people's photographs have."""
    empty = {"value": None, "ci95": None, "k": None, "n": None}
    if photographs and is_small(learned.n):
        return {"learned": empty, "unseen": empty, "residual": empty, "note": FEW}
    shown = {"learned": share_as_json(learned)}
    if not unseen.n or (photographs and is_small(unseen.n)):
        return {**shown, "unseen": empty, "residual": empty, "note": FEW if unseen.n else NO_CONTROL}
    return {
        **shown,
        "unseen": share_as_json(unseen),
        "residual": share_as_json(residual(learned, unseen)),
    }
