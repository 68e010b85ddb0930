"""What the faces of all images give: FIR, similarity histograms, and the plane of embeddings (Fig. 7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import HERE, Engine
from ..dataset.references import ReferenceSet, dataset_records, read_references, subjects_of
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, each_face_record, embedding_matrix
from ..imageset.manifest import image_set_rows, unlisted
from ..small_counts import FEWEST, is_small, told
from .bare import bare_faces, faces_cache
from .fir import Faces, control_figures, embedder_info, identity_figures
from .gallery import People
from .sets import ALL, MeasuredImage, Population, References, Warn, measured_set, name_damaged

Array = NDArray[np.floating[Any]]
FEWEST_BINS, MOST_BINS = 3, 12
SHOWN = 0.75
"""Share of each group's photographs that the finest grid still shows."""
STEP = 0.05
CONTROL = "control"


def embedding_plane(
    real: Mapping[str, Array],
    generated: Mapping[str, Array],
    control: Array | None = None,
    *,
    control_is_synthetic: bool = False,
) -> dict[str, Any] | None:
    """figures.pca of the report (see `measure`), less its extractor; None with fewer than 3 generated faces.

    All embeddings are [n, 512] of L2 norm 1; the components are those of all groups together. Photographs
    appear as counts on a grid alone, cells of fewer than 5 are null, and the grid's extent is taken from the
    synthetic points, so that it tells nothing about the outermost photograph.
    """
    shown = {name: faces for name, faces in generated.items() if len(faces)}
    if sum(map(len, shown.values())) < 3:
        return None
    groups = [*real.values(), *shown.values(), *([] if control is None else [control])]
    mean, axes, explained = _components(np.concatenate(groups))

    def place(faces: Array) -> NDArray[np.float64]:
        return np.asarray((faces.astype(np.float64) - mean) @ axes.T, np.float64)

    points = {name: place(faces) for name, faces in shown.items()}
    placed = {name: place(faces) for name, faces in real.items()}
    others = [] if control is None else [place(control)]
    outer = [*points.values(), *(others if control_is_synthetic else [])]
    edges_x, edges_y = _grid(
        np.concatenate(outer), [*placed.values(), *([] if control_is_synthetic else others)]
    )
    histograms = {name: _histogram(xy, edges_x, edges_y) for name, xy in placed.items()}
    spread = {
        "real": {name: _spread(faces) for name, faces in real.items()},
        "generated": {name: _spread(faces) for name, faces in shown.items()},
    }
    found = {
        "explained": [round(float(share), 4) for share in explained],
        "edges_x": edges_x.tolist(),
        "edges_y": edges_y.tolist(),
        "real": {name: suppressed(_on_grid(counts)) for name, counts in histograms.items()},
        "n_real": {name: told(len(faces)) for name, faces in real.items()},
        "generated": {name: np.round(xy, 4).tolist() for name, xy in points.items()},
        "control": None,
        "control_counts": None,
        "n_control": None,
        "spread": spread,
        "overlap": {
            name: _overlap(histograms[name], _histogram(points[name], edges_x, edges_y))
            for name in points
            if name in histograms and len(real[name]) >= FEWEST
        },
        "note": "Real photographs are counts on the grid; cells of fewer than 5 are left out.",
    }
    if control is not None and len(control):
        spread[CONTROL] = {CONTROL: _spread(control)}
        found["n_control"] = len(control) if control_is_synthetic else told(len(control))
        if control_is_synthetic:
            found["control"] = np.round(others[0], 4).tolist()
        found["control_counts"] = suppressed(_on_grid(_histogram(others[0], edges_x, edges_y)))
    return found


def suppressed(counts: NDArray[np.int64]) -> list[list[int | None]]:
    """Counts of photographs with every cell of fewer than 5, empty ones too, as None.

    The smallest other cell goes with them where those within would be fewer than 5 together: their number
    follows from the sum of all.
    """
    shown = counts >= FEWEST
    if shown.any() and is_small(int(counts[~shown].sum())):
        shown &= (
            np.arange(counts.size).reshape(counts.shape) != np.where(shown, counts, counts.max() + 1).argmin()
        )
    return [
        [int(cell) if is_shown else None for cell, is_shown in zip(*pair, strict=True)]
        for pair in zip(counts, shown, strict=True)
    ]


def _components(pool: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean [512], two axes [2, 512] with a fixed sign, and their shares of the variance [2]."""
    values = pool.astype(np.float64)
    mean = values.mean(axis=0)
    _, singular, rows = np.linalg.svd(values - mean, full_matrices=False)
    axes = rows[:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    total = np.square(singular).sum()
    return mean, axes, np.square(singular[:2]) / (total if total > 0 else 1.0)


def _grid(
    points: NDArray[np.float64], photographs: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges in x and in y, on multiples of 0.05 over the synthetic points: the finest grid that still shows
    three quarters of each group of photographs, or the coarsest one.
    """
    groups = [group for group in photographs if len(group) >= FEWEST]
    for bins in range(MOST_BINS, FEWEST_BINS, -1):
        edges = _edges(points, bins)
        cells = [_on_grid(_histogram(group, *edges)) for group in groups]
        if cells and all(found[found >= FEWEST].sum() >= SHOWN * found.sum() for found in cells):
            return edges
    return _edges(points, FEWEST_BINS)


def _edges(points: NDArray[np.float64], bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    edges: list[NDArray[np.float64]] = []
    for values in points.T:
        low, high = np.floor(values.min() / STEP) * STEP, np.ceil(values.max() / STEP) * STEP
        spaced = np.linspace(low, max(high, low + STEP), bins + 1, dtype=np.float64)
        edges.append(np.asarray(np.round(spaced, 4), np.float64))
    return edges[0], edges[1]


def _histogram(
    points: NDArray[np.float64], edges_x: NDArray[np.float64], edges_y: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[m + 2, m + 2] counts, first index x; the outermost cells are what lies beyond the grid."""
    cells = np.zeros((len(edges_x) + 1, len(edges_y) + 1), np.int64)
    np.add.at(cells, (np.digitize(points[:, 0], edges_x), np.digitize(points[:, 1], edges_y)), 1)
    return cells


def _on_grid(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """[m, m]: what lies beyond the grid counts in its outermost cells."""
    inner = cells.copy()
    for _ in range(2):
        inner[1] += inner[0]
        inner[-2] += inner[-1]
        inner = inner[1:-1].T
    return inner


def _spread(faces: Array) -> float | None:
    """Root mean square distance from the mean; 0 for one face, 1 at most for vectors of norm 1."""
    if len(faces) < FEWEST:
        return None
    values = faces.astype(np.float64)
    return round(float(np.sqrt(np.square(values - values.mean(axis=0)).sum(axis=1).mean())), 3)


def _overlap(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Shared area of two histograms: 0 apart, 1 the same."""
    return round(float(np.minimum(first / first.sum(), second / second.sum()).sum()), 2)


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredFaces:
    """The faces of everything that is compared."""

    generated: Faces
    """In the order of the population's images."""
    references: ReferenceSet | None
    holdout: Mapping[str, People]
    """By condition: photographs that were not trained on."""
    control: NDArray[np.float32] | None
    """[n, 512]: faces of other people, for the plane alone."""
    control_is_synthetic: bool
    extractor: dict[str, Any]


def look_at_faces(
    population: Population,
    references: References | Sequence[Path],
    control: Path | None,
    analyzer: FaceAnalyzer,
    cache_dir: Path | None,
    warn: Warn,
    engine: Engine = HERE,
) -> MeasuredFaces:
    """Look for the faces of generated images, photographs and control set, each once and kept with its owner.

    Args:
        population: the generated sets.
        references: the photographs.
        control: a folder of other people's faces.
        analyzer: finds the faces.
        cache_dir: in the place of a generated set's own cache.
        warn: told what could not be read.
        engine: who looks; the photographs are looked at in this process.
    """
    generated = faces_of(population.images, analyzer, cache_dir, "faces, generated", engine)
    name_damaged(population.images, generated.unreadable, warn)
    compared = References.of(references)
    known: ReferenceSet | None = None
    if compared:
        others = bare_faces(compared.folders, analyzer, cache_dir, warn)
        known = read_references(compared.datasets, analyzer, others=others)
    held = holdout_faces(compared.datasets, analyzer)
    strangers: NDArray[np.float32] | None = None
    synthetic = False
    if control is not None:
        for message in unlisted(control):
            warn(message)
        images, _ = measured_set(control, CONTROL)
        found = faces_of(images, analyzer, cache_dir, "faces, control")
        name_damaged(images, found.unreadable, warn)
        strangers = found.embeddings[found.found]
        roles = {row.role for row in image_set_rows(control)}
        synthetic = bool(roles) and roles <= {"generated", "control"}
    return MeasuredFaces(generated, known, held, strangers, synthetic, embedder_info(analyzer))


def face_figures(population: Population, faces: MeasuredFaces, threshold: float) -> dict[str, Any]:
    """FIR of every group, the similarity histograms and the plane of embeddings."""
    info, known = faces.extractor, faces.references
    sets: dict[str, Any] = {}
    similarity: dict[str, Any] = {}
    for group in population.groups:
        sets[group.name], histograms = identity_figures(group, faces.generated, known, info, threshold)
        if histograms:
            similarity[group.name] = histograms
        others = [
            found.faces for name, found in faces.holdout.items() if group.shows in (name, ALL) and len(found)
        ]
        # Beside the others' the union's count would tell a small one.
        if known is not None and others and not any(is_small(len(found)) for found in others):
            outside = np.concatenate(others)
            sets[group.name] |= control_figures(group.shows, outside, known, info, threshold)
    return {"sets": sets, "figures": {"similarity": similarity, "pca": plane(population, faces)}}


def faces_of(
    images: Sequence[MeasuredImage],
    analyzer: FaceAnalyzer,
    cache_dir: Path | None,
    description: str,
    engine: Engine = HERE,
) -> Faces:
    """The faces of images of several folders, looked for once and kept where the filters keep them."""

    def each() -> Iterator[tuple[int, FaceRecord]]:
        for folder in dict.fromkeys(image.folder for image in images):
            places = [place for place, image in enumerate(images) if image.folder == folder]
            names, cache = [images[place].file for place in places], faces_cache(folder, cache_dir)
            found = each_face_record(folder, names, analyzer, cache, description=description, engine=engine)
            yield from ((places[number], record) for number, record in found)

    return Faces.at(len(images), each())


def holdout_faces(datasets: Sequence[Path], analyzer: FaceAnalyzer) -> dict[str, People]:
    """The faces of the hold-out photographs, by condition; people of two datasets count as different ones."""
    parts: dict[str, list[People]] = {}
    for number, folder in enumerate(dict.fromkeys(map(Path, datasets))):
        rows, records = dataset_records(folder, analyzer, roles=("holdout",), description="faces, hold-out")
        subjects = subjects_of(rows, prefix=f"{number} ")
        for name in dict.fromkeys(row.condition or "unknown" for row in rows):
            own = [place for place, row in enumerate(rows) if (row.condition or "unknown") == name]
            embeddings, with_face = embedding_matrix([records[place] for place in own])
            people = People(embeddings, tuple(subjects[own[place]] for place in with_face))
            parts.setdefault(name, []).append(people)
    return {
        name: People(
            np.concatenate([part.faces for part in own]), tuple(who for part in own for who in part.subjects)
        )
        for name, own in parts.items()
    }


def plane(population: Population, faces: MeasuredFaces) -> dict[str, Any] | None:
    """figures.pca, of the raw sets."""
    names = [group.name for group in population.groups if group.name != ALL] or [ALL]
    masks = {group.name: group.raw & faces.generated.found for group in population.groups}
    known = faces.references
    real = {} if known is None else {name: known.of(name) for name in dict.fromkeys(known.conditions)}
    found = embedding_plane(
        real,
        {name: faces.generated.embeddings[masks[name]] for name in names},
        faces.control,
        control_is_synthetic=faces.control_is_synthetic,
    )
    return None if found is None else found | {"extractor": faces.extractor}
