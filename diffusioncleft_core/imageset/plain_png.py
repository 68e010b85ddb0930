"""PNGs of the kind that is generated here, decoded by OpenCV to the same pixels in two thirds of the time.

Anything else about a file (a palette, alpha, 16 bits, interlacing, a colour profile, EXIF, a damaged chunk)
is left to `decode`, which knows what to do with it.
"""

from __future__ import annotations

import functools
import struct
import zlib
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_RGB = (8, 2, 0, 0, 0)
"""Bits a sample, colour type, compression, filter and interlace method (PNG specification, 11.2.1)."""
_WITHOUT_MEANING = frozenset({b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"tIME"})
"""Chunks that say nothing about the pixels, unless their text is of `_OF_CAMERAS`."""
_OF_CAMERAS = (b"Raw profile type", b"XML:com.adobe.xmp")
"""Keywords of texts in which EXIF or XMP, and an orientation with them, may be wrapped."""


def decode_plain_png(data: bytes, max_side: int) -> NDArray[np.uint8] | None:
    """[H, W, 3] uint8 RGB of a whole PNG of 8-bit RGB and nothing else, at most `max_side` px; else None."""
    cv2 = _opencv()
    if cv2 is None or not data.startswith(_SIGNATURE):
        return None
    size = _plain_size(memoryview(data))
    if size is None or max(size) > max_side:
        return None
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if found is None or found.shape != (*size, 3):
        return None
    pixels: NDArray[np.uint8] = cv2.cvtColor(found, cv2.COLOR_BGR2RGB, found)
    return pixels


def _plain_size(data: memoryview) -> tuple[int, int] | None:
    """(height, width) of a PNG whose chunks are whole and say nothing unusual of its pixels."""
    place, kind, size = len(_SIGNATURE), b"", None
    while kind != b"IEND":
        if place + 12 > len(data):
            return None
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = bytes(data[place + 4 : place + 8]), place + 8 + length
        checked = data[end : end + 4]
        if len(checked) < 4 or zlib.crc32(data[place + 4 : end]) != int.from_bytes(checked, "big"):
            return None
        if kind == b"IHDR" and size is None and length == _HEADER.size:
            width, height, *form = _HEADER.unpack_from(data, place + 8)
            if tuple(form) != _RGB:
                return None
            size = (height, width)
        elif kind in _WITHOUT_MEANING:
            if bytes(data[place + 8 : end][:20]).startswith(_OF_CAMERAS):
                return None
        elif kind not in (b"IDAT", b"IEND"):
            return None
        place = end + 4
    return size


@functools.cache
def _opencv() -> ModuleType | None:
    """OpenCV, which comes with the face packs; None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    module: ModuleType = cv2
    return module
