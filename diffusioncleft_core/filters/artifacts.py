"""The artifact filter: no face, several faces, a cut face, a bar over the eyes, hidden eyes, text.

Closed mouths, covered mouths, expressions and overall quality are not looked at, though ISO/IEC 29794-5 has
measures for them: they reject the anatomy of clefts.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, record_of, second_share
from ..ranges import Range, number
from .eye_bar import EVIDENCE, EyeLine, eye_line
from .eye_region import LevelFace, levelled
from .framing import framing
from .hidden_eyes import BLOCKS, LEAST_DETAIL, eye_detail
from .text import TextReader, load_text_reader

NO_FACE = "no_face"
SEVERAL_FACES = "several_faces"
"""An image without a face can't be assessed and is rejected whatever is looked for."""
UNREADABLE = "unreadable"
TEXT = "text"


FILTER_VERSION = 2
"""Raised whenever a rule or a threshold changes: verdicts of an older one are made again."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What a check may look at: the image [H, W, 3] RGB, its faces, and the models that are wanted."""

    image: NDArray[np.uint8]
    record: FaceRecord
    analyzer: FaceAnalyzer | None
    reader: TextReader | None
    limits: Mapping[str, float]

    @cached_property
    def level_face(self) -> LevelFace:
        """The largest face, its eyes level. Of a picture with a face alone."""
        assert self.record.landmarks is not None
        return levelled(self.image, self.record.landmarks)

    @cached_property
    def eye_line(self) -> EyeLine:
        """The band of rows across the eyes. Of a picture with a face alone."""
        return eye_line(self.level_face)


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
    record = picture.record
    if record.n_faces == 1:
        assert picture.analyzer is not None
        boxes = picture.analyzer.second_look(picture.image)
        record = replace(record, n_faces=max(1, len(boxes)), second_share=second_share(boxes))
    share = round(record.second_share, 3)
    return {"rejected": record.has_several, "faces": record.n_faces, "second_share": share}


def check_cropped_face(picture: Picture) -> dict[str, Any]:
    """Whether the frame cuts the largest face."""
    frame = framing(picture.record)
    return {"rejected": frame.is_cropped, "inside": frame.inside, "margin": frame.margin}


def check_eye_bar(picture: Picture) -> dict[str, Any]:
    """Whether a bar covers the eyes."""
    line = picture.eye_line
    rejected = line.is_bar(picture.limits["bar_evidence"])
    return {"rejected": rejected, "evidence": round(line.evidence, 2), "spread": line.spread}


def check_hidden_eyes(picture: Picture) -> dict[str, Any]:
    """Whether the eyes are pixelated or blurred."""
    assert picture.record.landmarks is not None
    eyes = eye_detail(picture.image, picture.record.landmarks, picture.level_face)
    rejected = eyes.is_hidden(picture.limits["eye_detail"], picture.limits["eye_blocks"])
    return {"rejected": rejected, **asdict(eyes)}


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
class Limit:
    """A number by which a kind decides. `help` stands on the command line and on nodes."""

    name: str
    default: float
    range: Range
    help: str


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
    limits: tuple[Limit, ...] = ()
    """What can be set of it; a check finds the numbers in `Picture.limits`."""


_KINDS = (
    ArtifactKind(
        SEVERAL_FACES, "Several faces", "Set aside pictures with a second face.", check_several_faces
    ),
    ArtifactKind("cropped_face", "Cropped face", "Set aside faces that the frame cuts.", check_cropped_face),
    ArtifactKind(
        "eye_bar",
        "Bar over the eyes",
        "Set aside faces with a bar over the eyes.",
        check_eye_bar,
        limits=(
            Limit(
                "bar_evidence",
                EVIDENCE,
                number(0, 100, above=True),
                "Evidence from which it is a bar over the eyes: lower finds fainter bars, and dark sockets.",
            ),
        ),
    ),
    ArtifactKind(
        "hidden_eyes",
        "Pixelated or blurred eyes",
        "Set aside faces with pixelated or blurred eyes.",
        check_hidden_eyes,
        limits=(
            Limit(
                "eye_detail",
                LEAST_DETAIL,
                number(0, 1),
                "Detail of the eyes, as a share of the rest of the face's, below which they are blurred.",
            ),
            Limit(
                "eye_blocks",
                BLOCKS,
                number(0, 1, above=True),
                "Share of differences on the edges of blocks from which the eyes are pixelated; 1: never.",
            ),
        ),
    ),
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
        analyzer: finds faces where no record is at hand, and takes a second look for further ones; None where
            no kind `needs_faces`, and then no image is rejected for want of a face.
        kinds: of ARTIFACTS.
        text: the reader, loaded when it is wanted and not given.
        limits: those of the kinds that are not the defaults.
        threads: of that reader.

    Raises:
        UserError: a kind or limit is unknown, or text is wanted and can't be looked for.
        ValueError: a kind needs an analyzer, and there is none.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer | None,
        *,
        kinds: Collection[str] = tuple(ARTIFACTS),
        limits: Mapping[str, float] = MappingProxyType({}),
        text: TextReader | None = None,
        threads: int | None = None,
    ) -> None:
        self.kinds = check_kinds(kinds)
        self.limits = check_limits(limits)
        if analyzer is None and needs_faces(self.kinds):
            raise ValueError(f"these kinds need a face analyzer: {', '.join(self.kinds)}")
        self.analyzer = analyzer
        self._text = text
        if text is None and TEXT in self.kinds:
            self._text = load_text_reader(threads)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on: version, kinds, face pack and text models."""
        return {
            "version": FILTER_VERSION,
            "kinds": list(self.kinds),
            "limits": {
                limit.name: self.limits[limit.name] for kind in self.kinds for limit in ARTIFACTS[kind].limits
            },
            "faces": self.analyzer.describe() if self.analyzer is not None else None,
            "text": dict(self._text.weights) if self._text is not None else None,
        }

    def check(self, image: NDArray[np.uint8], record: FaceRecord | None = None) -> ArtifactVerdict:
        """The verdict on `image` [H, W, 3] RGB; `record` saves the look for faces."""
        if record is None:
            record = record_of(image, self.analyzer.analyze(image) if self.analyzer is not None else [])
        picture = Picture(image, record, self.analyzer, self._text, self.limits)
        found = {NO_FACE: _check_for_a_face(picture)} if self.analyzer is not None else {}
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


def all_limits() -> dict[str, Limit]:
    """What can be set of the kinds, by name."""
    return {limit.name: limit for kind in ARTIFACTS.values() for limit in kind.limits}


def check_limits(given: Mapping[str, float]) -> dict[str, float]:
    """Every limit: the `given` ones, and the others' defaults. UserError for an unknown or impossible one."""
    known = all_limits()
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(f"there is no limit {unknown[0]!r}; choose among {', '.join(known)}")
    return {name: limit.range.check(given.get(name, limit.default), name) for name, limit in known.items()}


def needs_faces(kinds: Collection[str]) -> bool:
    """Whether these kinds can be looked for only where faces are: one of them says so, or there is none."""
    return not kinds or any(ARTIFACTS[kind].needs_face for kind in kinds)


def unreadable_verdict() -> ArtifactVerdict:
    """The verdict on a file that can't be decoded."""
    return ArtifactVerdict({UNREADABLE: {"rejected": True}})


def check_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """The kinds in the order they are looked for. UserError for an unknown one."""
    unknown = [kind for kind in kinds if kind not in ARTIFACTS]
    if unknown:
        raise UserError(f"there is no artifact {unknown[0]!r}; choose among {', '.join(ARTIFACTS)}")
    return tuple(kind for kind in ARTIFACTS if kind in kinds)
