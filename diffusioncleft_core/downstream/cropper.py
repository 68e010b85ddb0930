"""Cuts the lips out of sets of pictures, each once, and keeps the crops with their set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.drawn import refuse_withdrawn_lesson, set_names
from ..dataset.folder import dataset_cache, dataset_rows, is_dataset
from ..dataset.references import dataset_records
from ..dataset.select import SAME_PERSON, SAME_PERSON_PHANTOM
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, embedding_matrix, face_records
from ..files import inside, sha256_bytes
from ..imageset.cache import ContentCache, Tensors, entry_key
from ..imageset.decode import INGEST_VERSION, Rejected, normalise, pixel_sha256, read_bytes
from ..imageset.manifest import ImageRow, filtered_rows, raw_rows, read_image_set
from ..imageset.places import CROPS_CACHE, FACES_CACHE, named
from ..progress import progress
from ..small_counts import is_small
from .crops import GREY, Crops, Pixels, grown
from .lips import LIPS_VERSION, LandmarkModel, Lip, cut_square, lip_box, load_landmark_model, within
from .task import Crop

DATASET_CACHE = "downstream"
"""Part of a dataset's cache: erased with it, and whenever a photograph is withdrawn."""
CROPS, LANDMARKS = "crops", "landmarks"
FACE_GROWTH = 0.25
"""By how much of its longer side the greyed face reaches beyond its box, which ends at the forehead."""
CUT_VERSION = 2
"""Of what is cut out of a picture; counted up when it comes out otherwise."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "skin_tone": ("skin_tone", "skin"),
    "age_group": ("age_group",),
    "gender": ("gender",),
}
"""Groups that figures are told by, and the attributes of a row that name them, the first one there counts."""


@dataclass(frozen=True)
class Cropper:
    """Cuts the lips out of sets of pictures.

    Attributes:
        crop: margin and side.
        analyzer: finds the faces.
        landmarks: the face pack's own model of 68 or 106 landmarks; without one the lip comes from five.
        cache_dir: a private folder in the place of a generated set's own, or what gives one by the set.
        warn: told how many images of a set show no lip, and which ones are damaged or missing: by name but in
            a dataset, of which no count of 1 to 4 is told either.
    """

    crop: Crop
    analyzer: FaceAnalyzer
    landmarks: LandmarkModel | None = None
    cache_dir: Path | Callable[[Path], Path] | None = None
    warn: Callable[[str], None] = lambda message: None

    @classmethod
    def of(
        cls,
        crop: Crop,
        analyzer: FaceAnalyzer,
        cache_dir: Path | Callable[[Path], Path] | None = None,
        warn: Callable[[str], None] = lambda message: None,
    ) -> Cropper:
        """With the landmark model that the analyzer's face pack may hold."""
        return cls(crop, analyzer, load_landmark_model(analyzer.pack), cache_dir, warn)

    def describe(self) -> dict[str, Any]:
        """How the lip is found, for a model's file; `pack`: SHA-256 of the face models."""
        n = 5 if self.landmarks is None else self.landmarks.n_landmarks
        pack = sorted(self.analyzer.pack.weights().values())
        return {"margin": self.crop.margin, "side": self.crop.side, "landmarks": n, "pack": pack}

    def read(
        self, folder: Path, label: int, *, roles: Sequence[str] = (), description: str = "lips"
    ) -> Crops:
        """The crops of a generated set, a dataset or a bare folder of pictures.

        Of a set that went through the filters what they accepted, of another one every first attempt; of a
        dataset the photographs with one of `roles`, all of them when none is named.

        Raises:
            UserError: the folder is none, its photographs may not be seen by the face pack, or not one lip
                was found.
        """
        folder = Path(folder)
        rows, records = self._faces(folder, roles, description)
        cache = self._kept_in(folder, CROPS_CACHE)
        found: list[tuple[ImageRow, FaceRecord, str, Tensors]] = []
        kept, points = ContentCache(cache, CROPS), ContentCache(cache, LANDMARKS)
        for row, record in progress(
            list(zip(rows, records, strict=True)), description, unit="image", leave=True
        ):
            cut = self._cut(folder, row, record, kept, points)
            if cut is not None:
                found.append((row, record, *cut))
        damaged = [row.file for row, record in zip(rows, records, strict=True) if record.unreadable]
        if not found:
            n, torn = len(rows), len(damaged)
            told = _is_told(folder, n, torn, n - torn)
            number = torn if told else "some"
            raise UserError(
                f"no lip was found in the {f'{n} ' if told else ''}images of {folder}"
                f"{f', {number} of them damaged' if damaged else ''}; "
                "check that they show faces, or name another face pack"
            )
        self._tell(folder, len(rows), len(rows) - len(found) - len(damaged), damaged)
        stacks = {
            name: np.stack([entry[3][name].numpy() for entry in found])
            for name in ("pixels", "surroundings", "lip")
        }
        return Crops(
            pixels=stacks["pixels"],
            surroundings=stacks["surroundings"],
            lips=stacks["lip"],
            labels=np.full(len(found), label, np.int64),
            subjects=tuple(row.subject for row, *_ in found),
            groups={
                name: tuple(_attribute(row, names) for row, *_ in found) for name, names in GROUPS.items()
            },
            keys=tuple(key for _, _, key, _ in found),
            pictures=tuple(cut["picture"].numpy().tobytes().hex() for *_, cut in found),
            embeddings=embedding_matrix([record for _, record, *_ in found])[0],
            owners=(cache,) * len(found),
            same_person=SAME_PERSON_PHANTOM if self.analyzer.phantom_only else SAME_PERSON,
            phantom=self.analyzer.phantom_only,
            n_not_found=len(rows) - len(found),
            loras=drawing_loras(folder),
            datasets=frozenset([folder.resolve()] if is_dataset(folder) else []),
            bare=any(row.role is None for row in rows),
        )

    def training_set(self, folder: Path, label: int) -> Crops:
        """The crops that a classifier may learn from: of a dataset those of its training photographs.

        Raises:
            UserError: as `read`, or the LoRA that drew them learned from a photograph that was withdrawn.
        """
        refuse_withdrawn_lesson(Path(folder))
        return self.read(folder, label, roles=("train",), description=f"lips, {Path(folder).name}")

    def test_set(self, folder: Path, label: int) -> Crops:
        """The crops of a test set: of a dataset the hold-out, all photographs where nothing is held out."""
        roles = tested_roles(folder) if is_dataset(folder) else ()
        return self.read(folder, label, roles=roles, description=f"lips, {Path(folder).name}")

    def _tell(self, folder: Path, n: int, lipless: int, damaged: Sequence[str]) -> None:
        """Say what of a set is not among its crops; of a dataset no photograph's name and no small count."""
        if damaged:
            names = "" if is_dataset(folder) else f": {named(damaged)}"
            self.warn(
                f"{_part(folder, len(damaged), n)} are damaged or missing and count as images "
                f"without a lip{names}"
            )
        if lipless:
            self.warn(f"no lip was found in {_part(folder, lipless, n)}; they are left out")

    def _kept_in(self, folder: Path, own: str) -> Path:
        """Where what is computed from a set's images is kept; own: the name of a generated set's cache."""
        if is_dataset(folder):
            return dataset_cache(folder, DATASET_CACHE)
        elsewhere = self.cache_dir(folder) if callable(self.cache_dir) else self.cache_dir
        return elsewhere or folder / own

    def _faces(
        self, folder: Path, roles: Sequence[str], description: str
    ) -> tuple[list[ImageRow], list[FaceRecord]]:
        if is_dataset(folder):
            known = roles or ("train", "holdout")
            rows, records = dataset_records(folder, self.analyzer, roles=known, description=description)
            if not rows:
                raise UserError(
                    f"the dataset {folder} has no photograph with the role {' or '.join(known)}; "
                    "build it with others, or name another set"
                )
            return rows, records
        everything = list({row.file: row for row in read_image_set(folder)}.values())
        was_filtered = any(row.verdicts for row in everything)
        rows = filtered_rows(everything) if was_filtered else raw_rows(everything)
        if not rows:
            raise UserError(f"the filters accepted no image of {folder}; look at its rejected images")
        cache = self._kept_in(folder, FACES_CACHE)
        found = face_records(folder, [row.file for row in rows], self.analyzer, cache, description="faces")
        return rows, found

    def _cut(
        self, folder: Path, row: ImageRow, record: FaceRecord, kept: ContentCache, points: ContentCache
    ) -> tuple[str, Tensors] | None:
        """Key and tensors `pixels`, `surroundings`, `lip`, `picture` of one; None where it shows no lip."""
        import torch

        if record.landmarks is None or record.box is None or record.embedding is None:
            return None
        try:
            data = read_bytes(inside(folder, row.file))
            image: list[Pixels] = []  # decoded once, and only where something is missing
            sha256 = sha256_bytes(data)
            landmarks = self._landmarks(data, image, sha256, record, points)
            lip = lip_box(landmarks, (record.width, record.height), self.crop.margin)
            if lip is None:
                return None
            side = self.crop.side
            place = [*lip.box.tolist(), *lip.square.tolist(), *record.box.tolist()]
            key = entry_key(sha256, INGEST_VERSION, LIPS_VERSION, CUT_VERSION, side, place)
            tensors = kept.tensors(key)
            if tensors is None or tensors.keys() != {"pixels", "surroundings", "lip", "picture"}:
                pixels = _decoded(data, image)
                tensors = {
                    "pixels": torch.from_numpy(cut_square(pixels, lip.square, side)),
                    "surroundings": torch.from_numpy(surroundings_of(pixels, record.box, lip, side)),
                    "lip": torch.from_numpy(within(lip, side)),
                    "picture": torch.frombuffer(bytearray.fromhex(pixel_sha256(pixels)), dtype=torch.uint8),
                }
                kept.keep_tensors(key, tensors)
        except Rejected:
            return None
        return key, tensors

    def _landmarks(
        self, data: bytes, image: list[Pixels], sha256: str, record: FaceRecord, points: ContentCache
    ) -> NDArray[np.floating[Any]]:
        assert record.landmarks is not None and record.box is not None
        if self.landmarks is None:
            return record.landmarks
        key = entry_key(sha256, INGEST_VERSION, self.landmarks.sha256, record.box.tolist())
        value = points.value(key)
        if value is None:
            found = self.landmarks(_decoded(data, image), record.box)
            value = {"points": np.round(found, 2).tolist()}
            points.keep_value(key, value)
        return np.asarray(value["points"], np.float64)


def tested_roles(dataset: Path) -> tuple[str, ...]:
    """Which photographs of a dataset are tested on: the hold-out, all of them where nothing is held out."""
    return ("holdout",) if dataset_rows(dataset, "holdout") else ("train", "holdout")


def _part(folder: Path, k: int, n: int) -> str:
    """`6 of 40 images of FOLDER`, or `some images of FOLDER`."""
    number = f"{k} of {n}" if _is_told(folder, k, n, n - k) else "some"
    return f"{number} images of {folder}"


def _is_told(folder: Path, *counts: int) -> bool:
    """Whether counts of a set's images may be told: of a dataset none of 1 to 4."""
    return not (is_dataset(folder) and any(map(is_small, counts)))


def drawing_loras(folder: Path) -> frozenset[tuple[str, ...]]:
    """`Crops.loras` of one set."""
    names = set() if is_dataset(folder) else set_names(folder)
    return frozenset([tuple(sorted(names))] if names else [])


def surroundings_of(image: Pixels, face: NDArray[np.float32], lip: Lip, side: int) -> Pixels:
    """[side, side, 3]: the whole picture, face and lip greyed out, squeezed into a square.

    The face is greyed as an ellipse, which holds the whole of its box: of a face that fills its picture a
    rectangle as wide would leave nothing to see.
    """
    seen = image.copy()
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in face)
    more = FACE_GROWTH * max(x1 - x0, y1 - y0)
    y, x = np.ogrid[:height, :width]
    across = (x + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2 + more)
    down = (y + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2 + more)
    seen[across**2 + down**2 <= 1] = GREY
    left, top, right, bottom = grown(lip.square, 0.0, (width, height))
    seen[top:bottom, left:right] = GREY
    return cut_square(seen, np.array([0.0, 0.0, width, height]), side)


def _decoded(data: bytes, image: list[Pixels]) -> Pixels:
    if not image:
        image.append(normalise(data, first_frame=True).pixels)
    return image[0]


def _attribute(row: ImageRow, names: Sequence[str]) -> str | None:
    values = [row.attributes[name] for name in names if row.attributes.get(name)]
    return values[0] if values else None
