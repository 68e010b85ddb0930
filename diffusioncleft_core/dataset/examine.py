"""What a photograph shows, found once and kept: decoding, size, faces, signature. Keyed by content."""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..files import explained, read_jsonl, write_jsonl
from ..imageset.decode import INGEST_VERSION, Photograph, Rejected, normalise, pixel_sha256
from .duplicates import Signature, signature
from .folder import EXAMINED

Array = np.ndarray[Any, np.dtype[Any]]


class Analyzer(Protocol):
    """What is needed of `faces.FaceAnalyzer`."""

    @property
    def phantom_only(self) -> bool:
        """Whether its models know phantoms alone."""

    def analyze(self, image: Array) -> list[Any]:
        """Faces in an image [H, W, 3] uint8 RGB, the largest first."""

    def describe(self) -> dict[str, object]:
        """Pack, weights and versions: what makes its answers what they are."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What was seen. `source` is the SHA-256 of the file, `pixels` that of the normalised pixels.

    Sizes in px; `faces` the number found; `face` box, landmarks, score and rung of the largest; `embedding`
    [512]. `reason` and `detail` are set when the file could not be decoded.
    """

    source: str
    settings: str
    pixels: str | None = None
    width: int = 0
    height: int = 0
    original_width: int = 0
    original_height: int = 0
    faces: int = 0
    face: Mapping[str, Any] | None = None
    embedding: Array | None = None
    signature: Signature | None = None
    reason: str | None = None
    detail: str = ""

    def rejection(self, min_side: int, overruled: Collection[str]) -> tuple[str, str] | None:
        """The first reason, with detail, that keeps the photograph out, leaving out `overruled`."""
        if self.reason is not None:
            return self.reason, self.detail
        if min(self.original_width, self.original_height) < min_side and "too_small" not in overruled:
            return (
                "too_small",
                f"{self.original_width} x {self.original_height} px; at least {min_side} on each side",
            )
        if self.faces == 0 and "no_face" not in overruled:
            return "no_face", "no face was found; if there is one, take it back"
        if self.faces > 1 and "several_faces" not in overruled:
            return "several_faces", f"{self.faces} faces; crop it, or take it back if only one is real"
        return None

    def to_json(self) -> dict[str, Any]:
        """The ledger's row."""
        row = {name: value for name, value in vars(self).items() if value is not None}
        if self.embedding is not None:
            row["embedding"] = base64.b64encode(self.embedding.astype("<f4").tobytes()).decode("ascii")
        if self.signature is not None:
            row["signature"] = self.signature.to_json()
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Facts":
        """Read the ledger's row. Raises KeyError, TypeError or ValueError when it is not one."""
        values = dict(row)
        if "embedding" in values:
            values["embedding"] = np.frombuffer(base64.b64decode(values["embedding"]), dtype="<f4").astype(
                np.float32
            )
        if "signature" in values:
            values["signature"] = Signature.from_json(values["signature"])
        return cls(**values)


class Ledger:
    """`examined.jsonl`: facts by source hash, appended one by one, so that an interrupted build goes on."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / EXAMINED
        self.facts: dict[str, Facts] = {}
        if not self.path.is_file():
            return
        try:
            rows = read_jsonl(self.path)
        except UserError:  # it can be made again from the photographs
            return
        for row in rows:
            try:
                facts = Facts.from_json(row)
            except (KeyError, TypeError, ValueError):
                continue
            self.facts[facts.source] = facts

    def find(self, source: str, settings: str) -> Facts | None:
        """Facts of this file found with these settings, if any."""
        facts = self.facts.get(source)
        return facts if facts is not None and facts.settings == settings else None

    def add(self, facts: Facts) -> None:
        """Keep facts, on disk as well.

        Flushed but not synced, which costs more than the examination of a small image: what a power cut tears
        is examined again.
        """
        self.facts[facts.source] = facts
        line = json.dumps(facts.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        with explained(self.path), open(self.path, "a", encoding="utf-8", newline="\n") as handle:
            handle.write(line)

    def keep(self, sources: Collection[str]) -> None:
        """Forget all other photographs, on disk as well; a torn last line goes with them."""
        self.facts = {source: facts for source, facts in self.facts.items() if source in sources}
        if self.path.is_file():
            write_jsonl(self.path, (facts.to_json() for facts in self.facts.values()))


def examine_settings(analyzer: Analyzer, max_side: int) -> dict[str, Any]:
    """What the facts depend on beside the file itself."""
    return {"ingest": INGEST_VERSION, "max_side": max_side, "faces": analyzer.describe()}


def settings_key(settings: Mapping[str, Any], first_frame: bool) -> str:
    """Short hash of `examine_settings` and of whether an animation's first frame is taken."""
    text = json.dumps([settings, first_frame], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def examine(
    data: bytes, source: str, key: str, analyzer: Analyzer, *, max_side: int, first_frame: bool
) -> tuple[Facts, Photograph | None]:
    """Decode a photograph, find and describe its faces. What can't be decoded has a `reason`, no pixels."""
    try:
        photograph = normalise(data, max_side=max_side, first_frame=first_frame)
    except Rejected as rejection:
        return Facts(source, key, reason=rejection.reason, detail=rejection.detail), None
    pixels = photograph.pixels
    height, width = pixels.shape[:2]
    facts = Facts(
        source,
        key,
        pixels=pixel_sha256(pixels),
        width=width,
        height=height,
        original_width=photograph.original_width,
        original_height=photograph.original_height,
        signature=signature(pixels),
    )
    faces = analyzer.analyze(pixels)
    if not faces:
        return facts, photograph
    largest = faces[0]
    face = {
        "box": [round(float(value), 2) for value in largest.box],
        "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in largest.landmarks],
        "score": round(float(largest.score), 4),
        "rung": largest.rung,
    }
    return replace(
        facts, faces=len(faces), face=face, embedding=np.asarray(largest.embedding, np.float32)
    ), photograph
