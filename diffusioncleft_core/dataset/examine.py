"""What a photograph shows, found once and kept by content: decoding, size, faces, signature; near duplicates.

dHash: signs of the horizontal differences of a 17 x 16 grey thumbnail, 256 bits. pHash: signs about the
median of the 8 x 8 lowest frequencies (DCT-II, without the mean) of a 32 x 32 grey thumbnail, 63 bits
(Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1).
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import UserError
from ..faces.records import UNSEEN, FaceRecord, record_of
from ..files import explained, read_jsonl, write_jsonl
from ..imageset.copies import Pair
from ..imageset.decode import INGEST_VERSION, Photograph, Rejected, normalise, pixel_sha256
from .folder import EXAMINED

Array = np.ndarray[Any, np.dtype[Any]]

# Copies of 300 phantoms that were resized, re-encoded (JPEG quality 50) or brightened by 3 % reach 28 bits,
# 4 bits and an RMS of 5.3, at a cosine of 0.94 or more. Two photographs of one phantom begin at 21 bits, 2
# bits and 11.6 (one pair of 1,000 is within all three), of two phantoms at an RMS of 15.5 (249,000 pairs).
DHASH_BITS = 64
PHASH_BITS = 12
THUMBNAIL = 32
THUMBNAIL_RMS = 12.0
FACE_COSINE = 0.80
# Such copies, mirrored, reach 53 bits, 4 bits and an RMS of 5.3; other phantoms begin at 17.3. A recogniser
# is less sure of a mirrored face: the lowest cosine of 1,800 was 0.298.
MIRRORED_DHASH_BITS = 80
MIRRORED_FACE_COSINE = 0.25


@dataclass(frozen=True)
class Signature:
    """What is compared: `dhash` [32] and `phash` [8] uint8 (packed bits), `thumbnail` [32, 32, 3] uint8."""

    dhash: Array
    phash: Array
    thumbnail: Array

    def to_json(self) -> dict[str, str]:
        """Hexadecimal text of the three arrays."""
        return {name: getattr(self, name).tobytes().hex() for name in ("dhash", "phash", "thumbnail")}

    def mirrored(self) -> "Signature":
        """The signature of the mirrored picture, from the thumbnail: a few bits off the exact one."""
        return signature(np.ascontiguousarray(self.thumbnail[:, ::-1]))

    @classmethod
    def from_json(cls, row: dict[str, str]) -> "Signature":
        """Read what `to_json` wrote."""
        dhash, phash, thumbnail = (
            np.frombuffer(bytes.fromhex(row[name]), dtype=np.uint8)
            for name in ("dhash", "phash", "thumbnail")
        )
        return cls(dhash, phash, thumbnail.reshape(THUMBNAIL, THUMBNAIL, 3))


def signature(pixels: Array) -> Signature:
    """Signature of an image [H, W, 3] uint8."""
    image = Image.fromarray(pixels)
    grey = image.convert("L")
    small = np.asarray(grey.resize((17, 16), Image.Resampling.BOX), dtype=np.int16)
    dhash = np.packbits(small[:, 1:] > small[:, :-1])
    wide = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    basis = _dct_basis(32)[:8]
    low = (basis @ wide @ basis.T).ravel()[1:]
    phash = np.packbits(low > np.median(low))
    thumbnail = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.uint8)
    return Signature(dhash, phash, thumbnail)


def near_duplicates(signatures: Sequence[Signature], embeddings: Sequence[Array | None]) -> list[Pair]:
    """All pairs that show nearly the same picture, or its mirror image.

    A pair is a candidate by dHash and pHash, and one if its thumbnails differ by at most THUMBNAIL_RMS (root
    mean square, of 255) and its faces, where both have one, by a cosine of at least FACE_COSINE. For mirrored
    pairs dHash and cosine have limits of their own. Memory: O(n).
    """
    if len(signatures) < 2:
        return []
    dhash = np.stack([item.dhash for item in signatures])
    phash = np.stack([item.phash for item in signatures])
    pairs = []
    for i in range(len(signatures) - 1):
        for mirrored, one in ((False, signatures[i]), (True, signatures[i].mirrored())):
            far = np.bitwise_count(dhash[i + 1 :] ^ one.dhash).sum(axis=1, dtype=np.int64)
            low = np.bitwise_count(phash[i + 1 :] ^ one.phash).sum(axis=1, dtype=np.int64)
            bits = MIRRORED_DHASH_BITS if mirrored else DHASH_BITS
            cosine = MIRRORED_FACE_COSINE if mirrored else FACE_COSINE
            for j in (i + 1 + int(k) for k in np.flatnonzero((far <= bits) & (low <= PHASH_BITS))):
                same_face = _same_face(embeddings[i], embeddings[j], cosine)
                if same_face and _same_picture(one, signatures[j]):
                    pairs.append(Pair(i, j, mirrored))
    return pairs


def _same_picture(one: Signature, other: Signature) -> bool:
    difference = one.thumbnail.astype(np.float64) - other.thumbnail
    return bool(np.sqrt(np.mean(difference**2)) <= THUMBNAIL_RMS)


def _same_face(one: Array | None, other: Array | None, cosine: float) -> bool:
    return one is None or other is None or float(one @ other) >= cosine


def _dct_basis(n: int) -> Array:
    """The DCT-II as a matrix [n, n], rows by frequency."""
    k, x = np.mgrid[0:n, 0:n]
    return np.asarray(np.cos(np.pi * (2 * x + 1) * k / (2 * n)))


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
                f"{self.original_width} x {self.original_height} px, and --min-side asks for {min_side} on "
                "each side; give a smaller one, or take it back with 'diffusioncleft dataset readmit'",
            )
        if not self.record.has_face and "no_face" not in overruled:
            return "no_face", "no face was found; if there is one, take it back"
        if self.record.has_several and "several_faces" not in overruled:
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
        self.folder = Path(folder)
        self.path = self.folder / EXAMINED
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
