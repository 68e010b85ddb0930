"""The eyes and what lies around them, brought to one size and level, for the checks that look there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EYE_DISTANCE = 32
"""Distance of the eyes in the levelled patch, px."""
WIDTH, HEIGHT = 112, 136
"""Of the patch, px: from above the brows to below the chin, and the same to both sides."""
EYES_COLUMN, EYES_ROW = 56, 44
"""The point between the eyes."""
REACH = 23
"""Columns to either side of it: 0.72 of the eyes' distance, so that both eyes are within."""


@dataclass(frozen=True, eq=False)
class LevelFace:
    """A face whose eyes lie on one row, `EYE_DISTANCE` px apart."""

    pixels: NDArray[np.float32]
    """[136, 112, 3], 0 to 255."""
    landmarks: NDArray[np.float64]
    """[5, 2]: the five landmarks there, px."""


def levelled(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> LevelFace:
    """The face of `image` [H, W, 3] with `landmarks` [5, 2]; what is outside the frame repeats its edge."""
    import cv2

    points = landmarks.astype(np.float64)
    picture, zoom = image, EYE_DISTANCE / max(_distance(points), 1e-3)
    if zoom < 0.7:  # reduce large pictures by area first: sampling points alone would see noise
        shrink = min(1.0, 1.5 * zoom)
        size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
        picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        points = points * np.array([size[0] / image.shape[1], size[1] / image.shape[0]])
        zoom = EYE_DISTANCE / max(_distance(points), 1e-3)
    cosine, sine = (points[1] - points[0]) / max(_distance(points), 1e-6)
    turn = np.array([[cosine, sine], [-sine, cosine]]) * zoom
    shift = np.array([EYES_COLUMN, EYES_ROW]) - turn @ ((points[0] + points[1]) / 2)
    patch = cv2.warpAffine(
        picture,
        np.c_[turn, shift],
        (WIDTH, HEIGHT),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return LevelFace(np.asarray(patch, np.float32), points @ turn.T + shift)


def _distance(points: NDArray[np.float64]) -> float:
    return float(np.hypot(*(points[1] - points[0])))
