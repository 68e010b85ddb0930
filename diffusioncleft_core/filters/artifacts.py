"""The artifact filter: no face, several faces, a cut face, a bar over the eyes, text.

Closed mouths, covered mouths, expressions and overall quality are not looked at, though ISO/IEC 29794-5 has
measures for them: they reject the anatomy of clefts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, record_of
from ..imageset.verdicts import (
    ARTIFACTS,
    CROPPED_FACE,
    EYE_BAR,
    NO_FACE,
    SEVERAL_FACES,
    TEXT,
    UNREADABLE,
    ArtifactVerdict,
)
from .eye_bar import eye_line
from .text import TextReader, load_text_reader

LEAST_INSIDE = 0.95
"""Share of the face box inside the frame: faces cut by 25 % or more show at most 0.96, whole ones 1."""
LEAST_MARGIN = 0.15
"""Distance of eyes and mouth corners from the frame's edge, in eye distances: nearer, and skin is missing."""
LARGEST_SECOND = 0.05
"""Area of a second face by the first one's: ISO/IEC 29794-5 SingleFacePresent below 95 of 100."""


@dataclass(frozen=True)
class Framing:
    """Where the largest face lies."""

    inside: float
    """Share of its box inside the frame, 0 to 1."""
    margin: float
    """Smallest distance of an eye or a mouth corner from the edge, in eye distances; negative outside."""

    @property
    def is_cropped(self) -> bool:
        """Whether a part of the face is outside the frame."""
        return self.inside < LEAST_INSIDE or self.margin < LEAST_MARGIN


def framing(record: FaceRecord) -> Framing:
    """Measure the largest face of `record`. Raises ValueError for a record without a face."""
    if record.box is None or record.landmarks is None:
        raise ValueError("a record without a face has no framing")
    frame = np.array([record.width, record.height], np.float64)
    low, high = record.box[:2].astype(np.float64), record.box[2:].astype(np.float64)
    size = np.maximum(high - low, 1e-6)
    inside = np.maximum(np.minimum(high, frame) - np.maximum(low, 0), 0)
    points = record.landmarks[[0, 1, 3, 4]].astype(np.float64)
    apart = max(float(np.linalg.norm(points[1] - points[0])), 1e-6)
    margin = float(np.minimum(points, frame - points).min()) / apart
    return Framing(round(float(np.prod(inside / size)), 3), round(margin, 3))


def second_share(boxes: NDArray[np.float32]) -> float:
    """Area of the second largest of `boxes` [n, 4] by that of the largest; 0 with fewer than two."""
    if len(boxes) < 2:
        return 0.0
    sides = boxes[:, 2:4] - boxes[:, :2]
    areas = np.sort(np.prod(np.maximum(sides, 0), axis=1))[::-1]
    return round(float(areas[1] / max(float(areas[0]), 1e-6)), 3)


FILTER_VERSION = 1
"""Raised whenever a rule or a threshold changes: verdicts of an older one are made again."""


class ArtifactFilter:
    """Looks for the artifacts that the paper saw in generated images.

    analyzer: finds faces where no record is at hand, and takes a second look for further ones; kinds: of
    `verdicts.ARTIFACTS`; text: the reader, loaded when it is wanted and not given. Raises UserError for an
    unknown kind, and when text is wanted and can't be looked for.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        *,
        kinds: Collection[str] = ARTIFACTS,
        text: TextReader | None = None,
        threads: int | None = None,
    ) -> None:
        self.kinds = check_kinds(kinds)
        self._analyzer = analyzer
        self._text = text
        if text is None and TEXT in self.kinds:
            self._text = load_text_reader(threads)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on: version, kinds, face pack and text models."""
        return {
            "version": FILTER_VERSION,
            "kinds": list(self.kinds),
            "faces": self._analyzer.describe(),
            "text": dict(self._text.weights) if self._text is not None else None,
        }

    def check(self, image: NDArray[np.uint8], record: FaceRecord | None = None) -> ArtifactVerdict:
        """The verdict on `image` [H, W, 3] RGB; `record` saves the look for faces."""
        if record is None:
            record = record_of(image, self._analyzer.analyze(image))
        found: dict[str, dict[str, Any]] = {
            NO_FACE: {"rejected": not record.has_face, "faces": record.n_faces}
        }
        if record.landmarks is not None:
            found |= self._check_face(image, record, record.landmarks)
        if self._text is not None and TEXT in self.kinds:
            found[TEXT] = _check_text(self._text, image)
        return ArtifactVerdict(found)

    def _check_face(
        self, image: NDArray[np.uint8], record: FaceRecord, landmarks: NDArray[np.float32]
    ) -> dict[str, dict[str, Any]]:
        line = eye_line(image, landmarks)
        found: dict[str, dict[str, Any]] = {
            NO_FACE: {"rejected": line.is_blank, "faces": record.n_faces, "structure": line.structure}
        }
        if SEVERAL_FACES in self.kinds:
            faces, share = record.n_faces, record.second_share
            if faces == 1:
                boxes = self._analyzer.second_look(image)
                faces, share = max(1, len(boxes)), second_share(boxes)
            found[SEVERAL_FACES] = {
                "rejected": share >= LARGEST_SECOND,
                "faces": faces,
                "second_share": round(share, 3),
            }
        if CROPPED_FACE in self.kinds:
            frame = framing(record)
            found[CROPPED_FACE] = {
                "rejected": frame.is_cropped,
                "inside": frame.inside,
                "margin": frame.margin,
            }
        if EYE_BAR in self.kinds:
            found[EYE_BAR] = {
                "rejected": line.is_bar,
                "contrast": line.contrast,
                "spread": line.spread,
            }
        return found


def unreadable_verdict() -> ArtifactVerdict:
    """The verdict on a file that can't be decoded."""
    return ArtifactVerdict({UNREADABLE: {"rejected": True}})


def check_kinds(kinds: Collection[str]) -> Sequence[str]:
    """The kinds in the order they are looked for. UserError for an unknown one."""
    unknown = [kind for kind in kinds if kind not in ARTIFACTS]
    if unknown:
        raise UserError(f"there is no artifact {unknown[0]!r}; choose among {', '.join(ARTIFACTS)}")
    return tuple(kind for kind in ARTIFACTS if kind in kinds)


def _check_text(reader: TextReader, image: NDArray[np.uint8]) -> dict[str, Any]:
    regions = reader.regions(image)
    read = [region for region in regions if region.is_text]
    best = read[0] if read else None
    return {
        "rejected": bool(read),
        "regions": len(read),
        "letters": best.letters if best else 0,
        "confidence": round(best.confidence, 2) if best else 0.0,
    }
