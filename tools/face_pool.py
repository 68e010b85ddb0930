"""Faces of many phantoms, drawn and embedded once, and kept: the scores that calibrations and audits need.

Person and visit depend on the seed alone, so that a larger pool begins with a smaller one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer
from ..diffusioncleft_core.files import atomic_path
from ..diffusioncleft_core.phantom.face import FINDINGS, PhantomFace, random_face, random_identity
from ..diffusioncleft_core.phantom.render import render
from ..diffusioncleft_core.progress import progress

SIDE = 128
KINDS = (None, *FINDINGS)
"""What people show in turn: healthy, with a cleft, repaired."""


@dataclass(frozen=True, eq=False)
class FacePool:
    """Embeddings [N, 512] of L2 norm 1, the person [N] and the place of the finding in KINDS [N] of each."""

    embeddings: NDArray[np.float32]
    person: NDArray[np.int64]
    finding: NDArray[np.int64]

    @property
    def first(self) -> NDArray[np.int64]:
        """The place of each person's first picture, by person."""
        return np.unique(self.person, return_index=True)[1]

    @property
    def again(self) -> dict[int, int]:
        """The place of a person's second picture, by person; of those who have one."""
        return {int(self.person[place]): place for place in set(range(len(self.person))) - set(self.first)}


def drawn_person(person: int, seed: int) -> PhantomFace:
    """The person of this number, as first seen."""
    rng = np.random.default_rng([seed, person])
    finding = KINDS[person % len(KINDS)]
    return random_face(rng, finding=finding, identity=random_identity(rng))


def picture_of(person: int, seed: int, visit: int = 0) -> NDArray[np.uint8]:
    """One of the person's pictures [128, 128, 3]."""
    again = np.random.default_rng([seed, person, 1 + visit])
    return render(drawn_person(person, seed).photographed_again(again), SIDE).image


def face_pool(
    analyzer: FaceAnalyzer, people: int, twice: int, seed: int, kept: Path | None = None
) -> FacePool:
    """Faces of `people` persons, of the first `twice` in two pictures each.

    kept: a file of an earlier call, which is taken where it holds as many; else written.
    """
    if kept is not None and kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            pool = FacePool(file["embeddings"], file["person"], file["finding"])
        if len(pool.first) >= people and len(pool.again) >= twice:
            return pool
    embeddings, persons = [], []
    for person in progress(range(people), "phantoms", unit="person"):
        for visit in range(2 if person < twice else 1):
            faces = analyzer.analyze(picture_of(person, seed, visit))
            if faces:
                embeddings.append(faces[0].embedding)
                persons.append(person)
    person_of = np.array(persons, np.int64)
    pool = FacePool(np.stack(embeddings), person_of, person_of % len(KINDS))
    if kept is not None:
        with atomic_path(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, embeddings=pool.embeddings, person=pool.person, finding=pool.finding)
    return pool
