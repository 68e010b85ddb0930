"""What a photograph shows, found once and kept: decoding, size, faces, signature. Keyed by content."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..faces.records import UNSEEN, FaceRecord, record_of
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
class Examination:
    """What was seen in a photograph. `source` is the SHA-256 of the file, `pixels` of the normalised pixels.

    Sizes in px; `record` says what faces were found. `reason` and `detail` are set, and the rest is not, when
    the file could not be decoded.
    """

    source: str
    settings: str
    pixels: str | None = None
    original_width: int = 0
    original_height: int = 0
    record: FaceRecord = UNSEEN
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
        if not self.record.has_face and "no_face" not in overruled:
            return "no_face", "no face was found; if there is one, take it back"
        if self.record.n_faces > 1 and "several_faces" not in overruled:
            found = f"{self.record.n_faces} faces"
            return "several_faces", f"{found}; crop it, or take it back if only one is real"
        return None

    def to_json(self) -> dict[str, Any]:
        """The ledger's row."""
        row = {name: value for name, value in vars(self).items() if value is not None}
        row["record"] = self.record.to_json()
        if self.signature is not None:
            row["signature"] = self.signature.to_json()
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Examination":
        """Read the ledger's row. Raises KeyError, TypeError or ValueError when it is not one."""
        values = dict(row)
        record = values.pop("record") if "record" in values else _of_an_earlier_version(values)
        values["record"] = FaceRecord.from_json(record)
        if "signature" in values:
            values["signature"] = Signature.from_json(values["signature"])
        return cls(**values)


def _of_an_earlier_version(values: dict[str, Any]) -> dict[str, Any]:
    """Take the faces out of a row that described the largest alone.

    Where there were several, the others' sizes are not known: such a photograph is examined again.
    """
    face, embedding = values.pop("face", None), values.pop("embedding", None)
    n_faces = int(values.pop("faces", 0))
    if n_faces > 1:
        values["settings"] = ""
    record = {"width": values.pop("width", 0), "height": values.pop("height", 0), "n_faces": n_faces}
    return record if face is None else {**record, **face, "embedding": embedding}


class Ledger:
    """`examined.jsonl`: examinations by source hash, appended one by one: an interrupted build goes on."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / EXAMINED
        self.examined: dict[str, Examination] = {}
        if not self.path.is_file():
            return
        try:
            rows = read_jsonl(self.path)
        except UserError:  # it can be made again from the photographs
            return
        for row in rows:
            try:
                found = Examination.from_json(row)
            except (KeyError, TypeError, ValueError):
                continue
            self.examined[found.source] = found

    def find(self, source: str, settings: str) -> Examination | None:
        """What was seen in this file with these settings, if it is known."""
        found = self.examined.get(source)
        return found if found is not None and found.settings == settings else None

    def add(self, found: Examination) -> None:
        """Keep an examination, on disk as well.

        Flushed but not synced, which costs more than the examination of a small image: what a power cut tears
        is examined again.
        """
        self.examined[found.source] = found
        line = json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        with explained(self.path), open(self.path, "a", encoding="utf-8", newline="\n") as handle:
            handle.write(line)

    def keep(self, sources: Collection[str]) -> None:
        """Forget all other photographs, on disk as well; a torn last line goes with them."""
        self.examined = {source: found for source, found in self.examined.items() if source in sources}
        if self.path.is_file():
            write_jsonl(self.path, (found.to_json() for found in self.examined.values()))


def examine_settings(analyzer: Analyzer, max_side: int) -> dict[str, Any]:
    """What the found depend on beside the file itself."""
    return {"ingest": INGEST_VERSION, "max_side": max_side, "faces": analyzer.describe()}


def settings_key(settings: Mapping[str, Any], first_frame: bool) -> str:
    """Short hash of `examine_settings` and of whether an animation's first frame is taken."""
    text = json.dumps([settings, first_frame], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def examine(
    data: bytes, source: str, key: str, analyzer: Analyzer, *, max_side: int, first_frame: bool
) -> tuple[Examination, Photograph | None]:
    """Decode a photograph, find and describe its faces. What can't be decoded has a `reason`, no pixels."""
    try:
        photograph = normalise(data, max_side=max_side, first_frame=first_frame)
    except Rejected as rejection:
        return Examination(source, key, reason=rejection.reason, detail=rejection.detail), None
    pixels = photograph.pixels
    examined = Examination(
        source,
        key,
        pixels=pixel_sha256(pixels),
        original_width=photograph.original_width,
        original_height=photograph.original_height,
        record=record_of(pixels, analyzer.analyze(pixels)),
        signature=signature(pixels),
    )
    return examined, photograph
