"""The training photographs' faces: what every generated face is compared with. Private, and without names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..conditions.vocabulary import ALL
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, embedding_matrix, face_records
from ..files import read_json, sha256_bytes
from ..imageset.copies import CopyIndex, Grey
from ..imageset.manifest import ImageRow
from .copies import dataset_thumbnails
from .examine import Ledger, examine_settings, settings_key
from .folder import SETTINGS, dataset_cache, dataset_rows, holds_phantoms
from .settings import recorded_max_side

FACES_CACHE = "faces"
"""Part of the dataset's cache: erased with it, and whenever a photograph is withdrawn."""


@dataclass(frozen=True, eq=False, repr=False)
class ReferenceSet:
    """Faces of training photographs of one or more conditions. Holds no name, path or hash.

    The counts are by condition: photographs, those without a face found, those with several.
    """

    embeddings: NDArray[np.float32]
    """[N, 512], L2 norm 1: the largest face of every photograph that has one."""
    conditions: tuple[str, ...]
    """[N]: the condition of each row of `embeddings`."""
    subjects: tuple[str, ...] = ()
    """[N]: who is on it, an opaque label of one dataset: it tells people apart, and nothing of them. Empty
    where that is not known, as in a bare folder."""
    n_photographs: Mapping[str, int] = field(default_factory=dict)
    n_no_face: Mapping[str, int] = field(default_factory=dict)
    n_several: Mapping[str, int] = field(default_factory=dict)
    embedder: Mapping[str, Any] = field(default_factory=dict)
    """`FaceAnalyzer.describe()` of what made the embeddings."""
    fingerprint: str = ""
    """Tells sets of photographs apart; made from the datasets' keyed fingerprints, so it says no more."""
    copies: CopyIndex | None = None
    """All photographs, those without a face too: what near copies are looked for among."""

    def __len__(self) -> int:
        return len(self.conditions)

    def of(self, condition: str) -> NDArray[np.float32]:
        """Embeddings [n, 512] of the photographs that show this condition."""
        return self.embeddings[np.flatnonzero(np.array(self.conditions, object) == condition)]

    def index(self, condition: str) -> NDArray[np.int64]:
        """Places [n] among the rows of `embeddings` of what a set of this condition is compared with: its
        photographs and those of no one condition; for `all` everything.
        """
        shown = np.array(self.conditions, object)
        return np.flatnonzero((shown == condition) | (shown == ALL) | (condition == ALL))

    def similarities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine similarity [M, N] of `embeddings` [M, 512] (L2 norm 1) to every photograph."""
        return np.asarray(embeddings @ self.embeddings.T, np.float32)


def dataset_records(
    folder: Path, analyzer: FaceAnalyzer, *, roles: Sequence[str] = ("train",), description: str = "faces"
) -> tuple[list[ImageRow], list[FaceRecord]]:
    """The rows of a dataset with one of `roles`, and what the faces of their images are.

    What `dataset build` has found with the same face pack is taken from the dataset; the rest is looked for
    now and kept in the dataset's cache.

    Raises:
        UserError: the folder is no dataset, or the embedded face models, which know phantoms alone, would see
            photographs.
    """
    rows = dataset_rows(folder, *roles)
    if analyzer.phantom_only and not holds_phantoms(folder):
        raise UserError(
            f"the embedded face models know phantoms alone and {folder} holds photographs; "
            "name a face pack (--faces)"
        )
    known = _examined(folder, analyzer, recorded_max_side(folder))
    records = {row.file: known[row.sha256] for row in rows if row.sha256 in known}
    others = [row.file for row in rows if row.file not in records]
    if others:
        found = face_records(
            folder, others, analyzer, dataset_cache(folder, FACES_CACHE), description=description
        )
        records |= dict(zip(others, found, strict=True))
    return rows, [records[row.file] for row in rows]


@dataclass(frozen=True, eq=False, repr=False)
class FoundFaces:
    """What was found in the photographs of a dataset or of a bare folder, in their order.

    subjects: who is on each, "" where that is not known; fingerprint: tells sets of photographs apart.
    """

    conditions: Sequence[str]
    subjects: Sequence[str]
    records: Sequence[FaceRecord]
    thumbnails: Sequence[Grey]
    fingerprint: str


def read_references(
    folders: Sequence[Path],
    analyzer: FaceAnalyzer,
    *,
    roles: Sequence[str] = ("train",),
    others: Sequence[FoundFaces] = (),
) -> ReferenceSet:
    """The faces of the photographs with one of `roles` in these dataset folders, of whatever condition.

    others: photographs that lie in no dataset.

    Raises:
        UserError: no folder is given, or in a condition no face was found at all: nothing could be compared
            with it, and silence would look like safety.
    """
    if not folders and not others:
        raise UserError("there is nothing to compare with; give the dataset of each condition (--reference)")
    parts: list[FoundFaces] = []
    for folder in dict.fromkeys(Path(item) for item in folders):
        rows, found = dataset_records(folder, analyzer, roles=roles)
        if not any(record.has_face for record in found):
            raise UserError(
                f"no face was found in the {'/'.join(roles)} photographs of {folder}; "
                "build the dataset again, or use the face pack it was built with"
            )
        subjects = subjects_of(rows, prefix=f"{sum(len(part.records) for part in parts)} ")
        shown = [row.condition or "unknown" for row in rows]
        fingerprint = str(_description(folder).get("fingerprint"))
        parts.append(FoundFaces(shown, subjects, found, dataset_thumbnails(folder, rows), fingerprint))
    parts += others
    conditions = [name for part in parts for name in part.conditions]
    subjects = [name for part in parts for name in part.subjects]
    records = [record for part in parts for record in part.records]
    embeddings, places = embedding_matrix(records)
    names = list(dict.fromkeys(conditions))
    pairs = list(zip(conditions, records, strict=True))
    # Datasets' own fingerprints are keyed with a secret that stays in each.
    known = sorted(part.fingerprint for part in parts)
    return ReferenceSet(
        embeddings=embeddings,
        conditions=tuple(conditions[place] for place in places),
        subjects=tuple(subjects[place] for place in places),
        n_photographs={name: conditions.count(name) for name in names},
        n_no_face={name: sum(c == name and not r.has_face for c, r in pairs) for name in names},
        n_several={name: sum(c == name and r.has_several for c, r in pairs) for name in names},
        embedder=analyzer.describe(),
        fingerprint=sha256_bytes("\n".join([*known, *roles]).encode())[:16],
        copies=CopyIndex(
            [grey for part in parts for grey in part.thumbnails],
        ),
    )


def subjects_of(rows: Sequence[ImageRow], prefix: str = "") -> list[str]:
    """Who is on each photograph; one of which that is not known shows somebody of its own."""
    return [f"{prefix}{row.subject or f'photograph {place}'}" for place, row in enumerate(rows)]


def _description(folder: Path) -> dict[str, Any]:
    described = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    return described if isinstance(described, dict) else {}


def _examined(folder: Path, analyzer: FaceAnalyzer, max_side: int) -> dict[str, FaceRecord]:
    """The faces that `dataset build` found with this pack, by pixel hash."""
    settings = examine_settings(analyzer, max_side)
    keys = {settings_key(settings, first_frame) for first_frame in (False, True)}
    return {
        found.pixels: found.record
        for found in Ledger(folder).examined.values()
        if found.pixels is not None and found.settings in keys
    }
