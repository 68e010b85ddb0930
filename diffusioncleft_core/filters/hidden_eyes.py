"""Pixelated or blurred eyes, held against the rest of the same face.

Blur takes the fine detail from the eyes and leaves it at nose and mouth. A mosaic puts all differences of
neighbouring pixels into a few columns and rows, the blocks' edges, around the eyes and not around the mouth.
A picture that is soft or blocky as a whole is so at the mouth too, and hides nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eye_region import EYE_DISTANCE, EYES_COLUMN, EYES_ROW, LevelFace

FINE = 1.2
"""Sigma of the blur that is taken off, px of the levelled face: detail is what 0.04 eye distances hold."""
SURROUNDINGS = 4.0
"""Sigma of the brightness that detail is divided by, px: sockets in the shade have as much as others."""
DARK = 20.0
"""Added to that brightness, grey levels: in the dark there is noise, not detail."""
DETAIL_FLOOR = 0.3
"""Added to the detail of the rest: a smooth surface divides by nothing."""
EYE_CELL, FACE_CELL = (7, 3), (7, 4)
"""Half widths and half heights of what is looked at about an eye, and about nose and mouth, px."""
LEAST_DETAIL = 0.45
"""Share of the rest's detail below which the eyes are blurred: plain ones have 0.6 and more, those of
pictures that are soft as a whole 0.46, those under a blur of 0.1 eye distances or more at most 0.44."""
BLOCKS = 0.28
"""Share of stray differences from which the eyes are a mosaic: plain ones reach 0.25."""
BLOCKIER = 1.7
"""The eyes' share by the mouth's: that of a picture that is a mosaic as a whole reaches 1.65."""
LEAST_DIFFERENCE = 0.2
"""Mean difference of neighbouring pixels, grey levels, below which there is nothing to be seen."""


@dataclass(frozen=True)
class EyeDetail:
    """What can be seen of the eyes."""

    detail: float
    """Fine detail about the eyes, by the median of nose, mouth and its corners."""
    blocks: float
    """Share of differences between neighbouring columns and rows that stand out alone, 0 to 1."""
    other_blocks: float
    """The same about the mouth."""

    def is_hidden(self, detail: float = LEAST_DETAIL, blocks: float = BLOCKS) -> bool:
        """Whether the eyes are blurred (less than so much `detail`) or a mosaic (so many `blocks`)."""
        return self.detail < detail or self.blocks >= max(blocks, BLOCKIER * self.other_blocks)


def eye_detail(image: NDArray[np.uint8], landmarks: NDArray[np.float32], face: LevelFace) -> EyeDetail:
    """Measure the eyes of `image` [H, W, 3] with `landmarks` [5, 2]; `face`: the same, levelled."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    apart = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    grey = image.mean(axis=2, dtype=np.float32)
    return EyeDetail(
        detail=round(_detail(face), 3),
        blocks=round(_blocks(_region(grey, eyes, 1.5 * apart, 0.5 * apart)), 3),
        other_blocks=round(_blocks(_region(grey, mouth, 1.3 * apart, 0.5 * apart)), 3),
    )


def _detail(face: LevelFace) -> float:
    import cv2

    grey = face.pixels.mean(axis=2)
    brightness = cv2.GaussianBlur(grey, (0, 0), SURROUNDINGS) + DARK
    fine = 128 * (grey - cv2.GaussianBlur(grey, (0, 0), FINE)) / brightness
    half = EYE_DISTANCE // 2
    eyes = [_strength(fine, (EYES_COLUMN + side, EYES_ROW), EYE_CELL) for side in (-half, half)]
    nose, left, right = face.landmarks[2:]
    rest = [_strength(fine, point, FACE_CELL) for point in (nose, left, right, (left + right) / 2)]
    return float(np.mean(eyes) / (np.median(rest) + DETAIL_FLOOR))


def _strength(fine: NDArray[np.float32], point: object, cell: tuple[int, int]) -> float:
    """Root mean square about a point (x, y)."""
    x, y = (round(float(value)) for value in np.asarray(point))
    part = fine[max(0, y - cell[1]) : max(0, y + cell[1] + 1), max(0, x - cell[0]) : max(0, x + cell[0] + 1)]
    return float(np.sqrt(np.mean(part**2))) if part.size else 0.0


def _region(
    grey: NDArray[np.float32], centre: NDArray[np.float32], width: float, height: float
) -> NDArray[np.float32]:
    half = np.array([width / 2, height / 2])
    x0, y0 = (max(0, round(float(value))) for value in centre - half)
    x1, y1 = (max(0, round(float(value))) for value in centre + half)
    return grey[y0:y1, x0:x1]


def _blocks(region: NDArray[np.float32]) -> float:
    """By how much the mean differences of neighbouring columns, and of rows, exceed those two further on.

    As a share of all differences: 0.1 in a photograph, which has edges in every direction; 0.3 and more in a
    mosaic. 0 where nothing is to be seen, or the region is too small.
    """
    shares = []
    for axis in (0, 1):
        if region.shape[1 - axis] < 8 or region.shape[axis] < 2:
            return 0.0
        steps = np.abs(np.diff(region, axis=1 - axis)).mean(axis=axis)
        alone = steps[2:-2] - (steps[:-4] + steps[4:]) / 2
        seen = float(steps[2:-2].mean())
        shares.append(float(np.maximum(alone, 0).mean()) / seen if seen >= LEAST_DIFFERENCE else 0.0)
    return float(np.mean(shares))
