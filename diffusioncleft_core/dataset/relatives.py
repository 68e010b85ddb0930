"""Subjects that are in another dataset already keep their side of the hold-out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .folder import keyed_hash, require_dataset
from .images import read_embeddings
from .manifest import read_manifest
from .select import Selected


def roles_elsewhere(
    entered: Sequence[Selected], datasets: Sequence[Path], threshold: float
) -> list[set[str]]:
    """The roles that each photograph's subject has in other datasets, usually the other condition's.

    A photograph with a subject id is compared by it; one without by its face, cosine at least `threshold`.
    Raises UserError for a folder that is no dataset.
    """
    roles: list[set[str]] = [set() for _ in entered]
    for folder in datasets:
        rows = [row for row in read_manifest(require_dataset(folder)) if row.role in {"train", "holdout"}]
        labels = {row.subject: str(row.role) for row in rows}
        embeddings = read_embeddings(folder)
        faces = [(embeddings[row.sha256], str(row.role)) for row in rows if row.sha256 in embeddings]
        known = np.stack([face for face, _ in faces]) if faces else np.zeros((0, 512))
        for index, item in enumerate(entered):
            subject, embedding = item.candidate.subject, item.facts.embedding
            if subject is not None:
                label = keyed_hash(folder, f"id {subject}")[:12]
                if label in labels:
                    roles[index].add(labels[label])
            elif embedding is not None:
                roles[index] |= {faces[int(j)][1] for j in np.flatnonzero(known @ embedding >= threshold)}
    return roles
