"""Exact and near duplicates: perceptual hashes find candidates, the pixels and the face confirm them.

dHash: signs of the horizontal differences of a 17 x 16 grey thumbnail, 256 bits. pHash: signs about the
median of the 8 x 8 lowest frequencies (DCT-II, without the mean) of a 32 x 32 grey thumbnail, 63 bits
(Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Signature:
    """What is compared: `dhash` [32] and `phash` [8] uint8 (packed bits), `thumbnail` [32, 32, 3] uint8."""

    dhash: Array
    phash: Array
    thumbnail: Array

    def to_json(self) -> dict[str, str]:
        """Hexadecimal text of the three arrays."""
        return {name: getattr(self, name).tobytes().hex() for name in ("dhash", "phash", "thumbnail")}

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


def near_duplicates(
    signatures: Sequence[Signature], embeddings: Sequence[Array | None]
) -> list[tuple[int, int]]:
    """All pairs (i < j) that show nearly the same picture.

    A pair is a candidate by dHash and pHash, and one if its thumbnails differ by at most THUMBNAIL_RMS (root
    mean square, of 255) and its faces, where both have one, by a cosine of at least FACE_COSINE. Memory:
    O(n).
    """
    if len(signatures) < 2:
        return []
    dhash = np.stack([item.dhash for item in signatures])
    phash = np.stack([item.phash for item in signatures])
    pairs = []
    for i in range(len(signatures) - 1):
        far = np.bitwise_count(dhash[i + 1 :] ^ dhash[i]).sum(axis=1, dtype=np.int64)
        low = np.bitwise_count(phash[i + 1 :] ^ phash[i]).sum(axis=1, dtype=np.int64)
        for j in (i + 1 + int(k) for k in np.flatnonzero((far <= DHASH_BITS) & (low <= PHASH_BITS))):
            if _same_picture(signatures[i], signatures[j]) and _same_face(embeddings[i], embeddings[j]):
                pairs.append((i, j))
    return pairs


def _same_picture(one: Signature, other: Signature) -> bool:
    difference = one.thumbnail.astype(np.float64) - other.thumbnail
    return bool(np.sqrt(np.mean(difference**2)) <= THUMBNAIL_RMS)


def _same_face(one: Array | None, other: Array | None) -> bool:
    return one is None or other is None or float(one @ other) >= FACE_COSINE


def _dct_basis(n: int) -> Array:
    """The DCT-II as a matrix [n, n], rows by frequency."""
    k, x = np.mgrid[0:n, 0:n]
    return np.asarray(np.cos(np.pi * (2 * x + 1) * k / (2 * n)))
