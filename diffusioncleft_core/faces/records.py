"""One pass over the faces of a folder of images, kept, so that no later stage looks for them again."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import HERE, Engine, SetAside, Work, builder
from ..files import inside, sha256_bytes
from ..imageset.ahead import DecodingAhead
from ..imageset.cache import ContentCache
from ..imageset.decode import INGEST_VERSION, Rejected, read_bytes
from ..progress import progress
from .analyzer import Face, FaceAnalyzer

RECORDS_VERSION = 1
RECORDS = "faces"
LARGEST_SECOND = 0.05
"""Area of a second face by the first one's, from which it counts: ISO/IEC 29794-5 SingleFacePresent below
95 of 100. A smaller one is somebody far behind."""
PHANTOM_SCORE = 0.93
"""Score that the embedded detector gives at least to three quarters of a folder's phantoms.

Their lower quartile is 0.945 or more, rendered at 64 to 512 px, compressed, halved, turned, grey, or with
bars, writing or a second face (30 phantoms each), and 0.962 as the embedded base draws them. That of the
photographs of each of six people is 0.74 or less with room round the head. Cut close to the face, which is
how phantoms are framed, it is up to 0.928: three of the people alone would have set the limit at 0.92, the
others at 0.94. Of ten such close crops about 6 % of draws pass, of twenty 0.7 %, of forty 0.05 %; of five,
17 %; of one, half. Phantoms cut off at a side or half covered score like people: one set of ten in 29 with
two of them is refused.
"""


@dataclass(frozen=True, eq=False, repr=False)
class FaceRecord:
    """What was found in one image: the number of faces, and the largest of them.

    Holds neither name nor hash of the image. Coordinates are pixels of the decoded image, upright.
    """

    width: int
    height: int
    n_faces: int = 0
    box: NDArray[np.float32] | None = None
    """[4]: x0, y0, x1, y1 of the largest face; may reach beyond the frame. None without a face."""
    landmarks: NDArray[np.float32] | None = None
    """[5, 2]: the eye left in the image, the eye right in it, nose tip, left and right mouth corner."""
    score: float | None = None
    embedding: NDArray[np.float32] | None = None
    """[512], L2 norm 1."""
    second_share: float = 0.0
    """Area of the second largest box by that of the largest, 0 to 1; 0 when there is one face or none."""
    rung: str | None = None
    """The step of the detector's retry ladder that found it."""
    unreadable: str | None = None
    """Why the file could not be decoded (then all sizes are 0); None when it could."""

    @property
    def has_face(self) -> bool:
        """Whether at least one face was found."""
        return self.n_faces > 0

    @property
    def has_several(self) -> bool:
        """Whether a second face was found that is large enough to count."""
        return self.second_share >= LARGEST_SECOND

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; what is None is left out."""
        row: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "n_faces": self.n_faces,
            "box": None if self.box is None else self.box.tolist(),
            "landmarks": None if self.landmarks is None else self.landmarks.tolist(),
            "score": self.score,
            "embedding": None if self.embedding is None else _encoded(self.embedding),
            "second_share": self.second_share,
            "rung": self.rung,
            "unreadable": self.unreadable,
        }
        return {name: value for name, value in row.items() if value is not None}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> FaceRecord:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError when it is something else."""
        box, landmarks, embedding = row.get("box"), row.get("landmarks"), row.get("embedding")
        return cls(
            width=int(row["width"]),
            height=int(row["height"]),
            n_faces=int(row["n_faces"]),
            box=None if box is None else np.asarray(box, np.float32).reshape(4),
            landmarks=None if landmarks is None else np.asarray(landmarks, np.float32).reshape(5, 2),
            score=row.get("score"),
            embedding=None if embedding is None else _decoded(embedding),
            second_share=float(row.get("second_share", 0.0)),
            rung=row.get("rung"),
            unreadable=row.get("unreadable"),
        )


UNSEEN = FaceRecord(0, 0)
"""The record of an image that was not looked at."""


def unreadable_record(rejection: Rejected) -> FaceRecord:
    """The record of an image that can't be decoded."""
    return FaceRecord(0, 0, unreadable=rejection.detail)


def record_of(image: NDArray[np.uint8], faces: Sequence[Face]) -> FaceRecord:
    """The record of `image` [H, W, 3] in which `faces` (the largest first) were found."""
    height, width = image.shape[:2]
    record = FaceRecord(width=width, height=height, n_faces=len(faces))
    if not faces:
        return record
    largest = faces[0]
    return replace(
        record,
        box=_rounded(largest.box),
        landmarks=_rounded(largest.landmarks),
        score=round(float(largest.score), 4),
        embedding=np.asarray(largest.embedding, np.float32),
        second_share=second_share(np.array([face.box for face in faces])),
        rung=str(largest.rung),
    )


def second_share(boxes: NDArray[np.float32]) -> float:
    """Area of the second largest of `boxes` [n, 4] by that of the largest; 0 with fewer than two."""
    if len(boxes) < 2:
        return 0.0
    sides = boxes[:, 2:4] - boxes[:, :2]
    areas = np.sort(np.prod(np.maximum(sides, 0), axis=1))[::-1]
    return round(float(areas[1] / max(float(areas[0]), 1e-6)), 4)


def face_records(
    folder: Path,
    files: Iterable[str],
    analyzer: FaceAnalyzer,
    cache: Path | None = None,
    *,
    description: str = "faces",
    engine: Engine = HERE,
) -> list[FaceRecord]:
    """The records of some images of a folder, in their order; see `each_face_record`."""
    names = list(files)
    found = each_face_record(folder, names, analyzer, cache, description=description, engine=engine)
    records = dict(found)
    return [records[place] for place in range(len(names))]


def each_face_record(
    folder: Path,
    names: Sequence[str],
    analyzer: FaceAnalyzer,
    cache: Path | None = None,
    *,
    description: str = "faces",
    engine: Engine = HERE,
) -> Iterator[tuple[int, FaceRecord]]:
    """The place and the record of each of some images of a folder, as they are found: first what is kept.

    What is in the cache is not looked at again, whatever the file is called now. It is written image by
    image, so that an interrupted pass goes on.

    Args:
        folder: the set.
        names: paths relative to it; one that is missing or can't be decoded is a record with `unreadable`.
        analyzer: finds the faces.
        cache: a private folder that keeps records by the content of the file and the face pack's weights.
        description: of the progress bar.
        engine: who looks: this process, or workers on Ray that see the same folder.

    Raises:
        UserError: a path leads out of `folder`.
    """
    known = ContentCache(cache, RECORDS)
    settings = records_key(analyzer)
    wanted: dict[str, list[int]] = {}
    with progress(len(names), description) as bar:
        for place, name in enumerate(names):
            try:
                key = record_key(sha256_bytes(read_bytes(inside(folder, name))), settings)
            except Rejected as rejection:
                yield place, unreadable_record(rejection)
            else:
                record = known_record(known, key)
                if record is None:
                    wanted.setdefault(key, []).append(place)
                    continue
                yield place, record
            bar.update()
        looking = Looking(folder, builder(engine, analyzer, analyzer.again))
        jobs = [Look(names[places[0]], key) for key, places in wanted.items()]
        for result in engine.run(Work(looking, block=len(jobs) or 1), jobs):
            if isinstance(result, SetAside):
                record = FaceRecord(0, 0, unreadable=result.reason)
            else:
                record = result.found
                if record.unreadable is None:
                    known.keep_value(result.job.key, record.to_json())
            yield from ((place, record) for place in wanted[result.job.key])
            bar.set_postfix_str(engine.told(), refresh=False)
            bar.update(len(wanted[result.job.key]))


@dataclass(frozen=True)
class Look:
    """An image to look at: its path in the folder, and what its record is kept under."""

    file: str
    key: str


@dataclass(frozen=True)
class Looking:
    """How the worker is built that looks for the faces in images of `folder`."""

    folder: Path
    analyzer: Callable[[], FaceAnalyzer]

    def __call__(self) -> DecodingAhead[Look, FaceRecord]:
        analyzer = self.analyzer()

        def look(job: Look, pixels: NDArray[np.uint8]) -> FaceRecord:
            return record_of(pixels, analyzer.analyze(pixels))

        return DecodingAhead(self.folder, look, lambda job, rejection: unreadable_record(rejection))


def records_key(analyzer: FaceAnalyzer) -> str:
    """Short hash of what a record depends on beside the file: the pack's weights, sizes and versions."""
    text = json.dumps([RECORDS_VERSION, INGEST_VERSION, analyzer.describe()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_key(digest: str, settings: str) -> str:
    """What a record is kept under: SHA-256 of the file, and `records_key`."""
    return f"{digest[:32]} {settings}"


def are_phantoms(records: Iterable[FaceRecord]) -> bool:
    """Whether pictures of unknown origin are phantoms, by what the embedded detector found in them.

    It finds faces in photographs of people too, and is less sure of them. False where it found none. A guard
    against mistakes, no proof: a few photographs cut close to the face can pass (PHANTOM_SCORE has figures).
    """
    scores = [record.score for record in records if record.score is not None]
    return bool(scores) and float(np.quantile(scores, 0.25)) >= PHANTOM_SCORE


def embedding_matrix(records: Sequence[FaceRecord]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings [N, 512] of the records that have a face, and the place [N] of each among `records`."""
    found = [(place, item.embedding) for place, item in enumerate(records) if item.embedding is not None]
    if not found:
        return np.zeros((0, 512), np.float32), np.zeros(0, np.int64)
    return np.stack([item for _, item in found]), np.array([place for place, _ in found], np.int64)


def known_record(known: ContentCache, key: str) -> FaceRecord | None:
    """The kept record; None for one that is not there or is damaged."""
    row = known.value(key)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return None if row is None else FaceRecord.from_json(row)
    return None


def _rounded(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.round(coordinates.astype(np.float64), 2), np.float32)


def _encoded(embedding: NDArray[np.float32]) -> str:
    return base64.b64encode(embedding.astype("<f4").tobytes()).decode("ascii")


def _decoded(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
