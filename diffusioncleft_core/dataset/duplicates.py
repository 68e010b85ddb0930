"""Exact and near duplicates: perceptual hashes find candidates, the pixels and the face confirm them.

dHash: signs of the horizontal differences of a 17 x 16 grey thumbnail, 256 bits. pHash: signs about the
median of the 8 x 8 lowest frequencies (DCT-II, without the mean) of a 32 x 32 grey thumbnail, 63 bits
(Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

# Copies that were resized, re-encoded (JPEG quality 50) or brightened by 3 % reach 53 bits, 8 bits and an RMS
# of 8.7; two photographs of one phantom begin at 25 bits, 10 bits and 24, of two phantoms at an RMS of 20.
DHASH_BITS = 64
PHASH_BITS = 12
THUMBNAIL = 32
THUMBNAIL_RMS = 12.0
FACE_COSINE = 0.80
# Such copies of 300 phantoms, mirrored, reach 66 bits, 10 bits and an RMS of 9.5; other phantoms begin at an
# RMS of 19.9, another photograph of the same one at 15.0. A recogniser is less sure of a mirrored face: the
# lowest cosine was 0.34.
MIRRORED_DHASH_BITS = 80
MIRRORED_FACE_COSINE = 0.30


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


class Pair(NamedTuple):
    """Two pictures, i < j, that show nearly the same; `mirrored`: one is nearly the other's mirror image."""

    i: int
    j: int
    mirrored: bool = False


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
