"""Every picture written anew from its pixels, so that its file says nothing of where it comes from.

All are squares of one size, and reduced to it: a picture that kept its size would keep the traces of its own
compression too. The file is a PNG whose pixels are stored, not compressed: its length follows from its size,
and tells nothing of what it shows (a generated picture, being smoother, compresses better than a photograph).
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from ..files import shown, write_bytes
from ..imageset.decode import Rejected, header_size, read_image

REDUCED = 0.9
"""The largest share of its own side that a picture is shown at."""
FEWEST = 64
"""px a side, below which a picture is no use to a rater."""


def largest_side(path: Path) -> int:
    """The side of the square, px, in which a picture can be shown; 0 for one that has no size."""
    size = header_size(path)
    return math.floor(REDUCED * min(size)) if size else 0


def is_decodable(path: Path) -> bool:
    """Whether the picture can be decoded whole."""
    try:
        read_image(path)
    except Rejected:
        return False
    return True


def blind_png(pixels: npt.NDArray[np.uint8], side: int, region: tuple[float, ...] | None = None) -> bytes:
    """A square picture as PNG bytes, without metadata, of a length that its side alone decides.

    Args:
        pixels: [H, W, 3], RGB.
        side: px.
        region: [x0, y0, x1, y1] in px; the square is the middle of the picture, moved so that it holds this.
    """
    image = Image.fromarray(np.ascontiguousarray(_square(pixels, region)))
    reduced = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(reduced)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def write_blind(path: Path, source: Path, side: int, region: tuple[float, ...] | None = None) -> bytes:
    """Write the picture in `source` blind to `path`; returns the file's bytes.

    Raises:
        UserError: it can't be decoded whole.
    """
    try:
        data = blind_png(read_image(source), side, region)
    except Rejected as rejection:
        raise UserError(
            f"{shown(source)} can't be shown ({rejection.detail or rejection.reason}); take it out, "
            "and run this again"
        ) from rejection
    write_bytes(path, data)
    return data


def _square(pixels: npt.NDArray[np.uint8], region: tuple[float, ...] | None) -> npt.NDArray[Any]:
    """[S, S, 3]: the largest square of a picture [H, W, 3] around its middle, moved to hold `region`."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    if region is not None:
        left = _moved(left, side, width, region[0], region[2])
        top = _moved(top, side, height, region[1], region[3])
    return pixels[top : top + side, left : left + side]


def _moved(start: int, length: int, whole: int, low: float, high: float) -> int:
    """`start` of an interval of this length in 0..whole, moved as little as holds `low` to `high`."""
    if high > start + length:
        start = math.ceil(high) - length
    start = min(start, math.floor(low))
    return max(0, min(start, whole - length))
