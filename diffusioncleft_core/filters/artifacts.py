"""The artifact filter: no face, several faces, a cut face, a bar over the eyes, text.

Closed mouths, covered mouths, expressions and overall quality are not looked at, though ISO/IEC 29794-5 has
measures for them: they reject the anatomy of clefts.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, record_of
from .eye_bar import EyeLine, eye_line
from .text import TextReader, load_text_reader

NO_FACE = "no_face"
SEVERAL_FACES = "several_faces"
"""An image without a face can't be assessed and is rejected whatever is looked for."""
UNREADABLE = "unreadable"
TEXT = "text"
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


@dataclass(frozen=True, eq=False)
class Picture:
    """What a check may look at: the image [H, W, 3] RGB, its faces, and the models."""

    image: NDArray[np.uint8]
    record: FaceRecord
    analyzer: FaceAnalyzer
    reader: TextReader | None

    @cached_property
    def eye_line(self) -> EyeLine:
        """The band of rows across the eyes. Of a picture with a face alone."""
        assert self.record.landmarks is not None
        return eye_line(self.image, self.record.landmarks)


@dataclass(frozen=True)
class ArtifactVerdict:
    """The artifacts of one image: by kind, whether it is one, and the numbers behind it."""

    artifacts: Mapping[str, Mapping[str, Any]]

    @property
    def reasons(self) -> list[str]:
        """Kinds that reject the image."""
        return [kind for kind, found in self.artifacts.items() if found["rejected"]]

    @property
    def accepted(self) -> bool:
        """Whether nothing rejects it."""
        return not self.reasons

    @property
    def rejected(self) -> bool:
        """Whether anything rejects it."""
        return not self.accepted

    def to_json(self) -> dict[str, Any]:
        """The part `artifacts` of a sidecar's verdicts."""
        return {kind: dict(found) for kind, found in self.artifacts.items()}


def check_several_faces(picture: Picture) -> dict[str, Any]:
    """Whether a second face is large enough to count; where one was found a second look is taken."""
    faces, share = picture.record.n_faces, picture.record.second_share
    if faces == 1:
        boxes = picture.analyzer.second_look(picture.image)
        faces, share = max(1, len(boxes)), second_share(boxes)
    return {"rejected": share >= LARGEST_SECOND, "faces": faces, "second_share": round(share, 3)}


def check_cropped_face(picture: Picture) -> dict[str, Any]:
    """Whether the frame cuts the largest face."""
    frame = framing(picture.record)
    return {"rejected": frame.is_cropped, "inside": frame.inside, "margin": frame.margin}


def check_eye_bar(picture: Picture) -> dict[str, Any]:
    """Whether a bar covers the eyes."""
    line = picture.eye_line
    return {"rejected": line.is_bar, "contrast": line.contrast, "spread": line.spread}


def check_text(picture: Picture) -> dict[str, Any]:
    """Whether anything is written in the picture."""
    assert picture.reader is not None
    regions = picture.reader.regions(picture.image)
    read = [region for region in regions if region.is_text]
    best = read[0] if read else None
    return {
        "rejected": bool(read),
        "regions": len(read),
        "letters": best.letters if best else 0,
        "confidence": round(best.confidence, 2) if best else 0.0,
    }


@dataclass(frozen=True)
class ArtifactKind:
    """One kind of artifact. Adding one is adding it to ARTIFACTS, and raising FILTER_VERSION."""

    name: str
    title: str
    """In reports."""
    help: str
    """On the command line and on nodes."""
    check: Callable[[Picture], dict[str, Any]]
    """`rejected` and the numbers behind it, as they stand in the sidecar."""
    needs_face: bool = True
    """Whether it is looked for only where there is a face."""


_KINDS = (
    ArtifactKind(
        SEVERAL_FACES, "Several faces", "Set aside pictures with a second face.", check_several_faces
    ),
    ArtifactKind("cropped_face", "Cropped face", "Set aside faces that the frame cuts.", check_cropped_face),
    ArtifactKind("eye_bar", "Bar over the eyes", "Set aside faces with a bar over the eyes.", check_eye_bar),
    ArtifactKind(
        TEXT,
        "Text or watermark",
        "Set aside pictures with text or a watermark.",
        check_text,
        needs_face=False,
    ),
)
ARTIFACTS: Mapping[str, ArtifactKind] = {kind.name: kind for kind in _KINDS}
"""Kinds that can be chosen, in the order they are looked for."""


class ArtifactFilter:
    """Looks for the artifacts that the paper saw in generated images.

    Args:
        analyzer: finds faces where no record is at hand, and takes a second look for further ones.
        kinds: of ARTIFACTS.
        text: the reader, loaded when it is wanted and not given.
        threads: of that reader.

    Raises:
        UserError: a kind is unknown, or text is wanted and can't be looked for.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        *,
        kinds: Collection[str] = tuple(ARTIFACTS),
        text: TextReader | None = None,
        threads: int | None = None,
    ) -> None:
        self.kinds = check_kinds(kinds)
        self.analyzer = analyzer
        self._text = text
        if text is None and TEXT in self.kinds:
            self._text = load_text_reader(threads)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on: version, kinds, face pack and text models."""
        return {
            "version": FILTER_VERSION,
            "kinds": list(self.kinds),
            "faces": self.analyzer.describe(),
            "text": dict(self._text.weights) if self._text is not None else None,
        }

    def check(self, image: NDArray[np.uint8], record: FaceRecord | None = None) -> ArtifactVerdict:
        """The verdict on `image` [H, W, 3] RGB; `record` saves the look for faces."""
        if record is None:
            record = record_of(image, self.analyzer.analyze(image))
        picture = Picture(image, record, self.analyzer, self._text)
        found = {NO_FACE: _check_for_a_face(picture)}
        for kind in (ARTIFACTS[name] for name in self.kinds):
            if record.landmarks is not None or not kind.needs_face:
                found[kind.name] = kind.check(picture)
        return ArtifactVerdict(found)


def _check_for_a_face(picture: Picture) -> dict[str, Any]:
    faces = picture.record.n_faces
    if picture.record.landmarks is None:
        return {"rejected": not faces, "faces": faces}
    line = picture.eye_line
    return {"rejected": line.is_blank, "faces": faces, "structure": line.structure}


def unreadable_verdict() -> ArtifactVerdict:
    """The verdict on a file that can't be decoded."""
    return ArtifactVerdict({UNREADABLE: {"rejected": True}})


def check_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """The kinds in the order they are looked for. UserError for an unknown one."""
    unknown = [kind for kind in kinds if kind not in ARTIFACTS]
    if unknown:
        raise UserError(f"there is no artifact {unknown[0]!r}; choose among {', '.join(ARTIFACTS)}")
    return tuple(kind for kind in ARTIFACTS if kind in kinds)
