"""Shapes that are no face: they keep the autoencoder general although it sees healthy phantoms only."""

import cv2
import numpy as np
from numpy.typing import NDArray


def doodle(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A copy of `image` [H, W, 3] uint8 with 1 to 5 random strokes and spots of any colour on it."""
    picture = image.copy()
    side = picture.shape[0]
    for _ in range(int(rng.integers(1, 6))):
        colour = tuple(int(c) for c in rng.integers(0, 256, size=3))
        if rng.random() < 0.4:
            colour = tuple(int(c * 0.5) for c in colour)
        centre = rng.uniform(0.1, 0.9, size=2) * side
        radius = rng.uniform(0.015, 0.09) * side
        corners = centre + radius * rng.standard_normal((int(rng.integers(2, 7)), 2))
        fixed = np.round(corners * 16).astype(np.int32)
        if rng.random() < 0.5:
            cv2.fillPoly(picture, [cv2.convexHull(fixed)], colour, cv2.LINE_AA, 4)
        else:
            cv2.polylines(picture, [fixed], False, colour, int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    return picture
