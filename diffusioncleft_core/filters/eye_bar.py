"""A bar over the eyes, of whatever colour: one even colour across both eyes that is not the skin's.

An uncovered eye line is anything but even (white, iris, lashes, the skin between the eyes), in dark skin and
under dark hair too; what is even and has the colour of the cheeks are closed eyes, and no bar.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EYE_DISTANCE = 32
"""Distance of the eyes in the levelled patch, px."""
PATCH = 80
"""Side of the patch, px, with the point between the eyes in its middle (row and column)."""
EYE_ROWS = 4
"""Rows above and below the eye line that are looked at: an eighth of the eyes' distance."""
REACH = 23
"""Columns to either side: 0.72 of the eyes' distance, so that both eyes are within."""
EVENNESS_FLOOR = 6.0
"""Added to the spread, RGB units: the noise of a picture must not decide."""
RATIO = 1.2
"""Uncovered: at most 1.1 on 200 generated and 334 drawn phantoms; covered: 99 % above 1.5."""
MOST_SPREAD = 60.0
"""Spread above which the eye line is not even, whatever its contrast: what shines through a bar of three
quarters' opacity reaches 50, large dark eyes in pale skin 150."""
LEAST_CONTRAST = 20.0
"""RGB distance of a bar's colour from the cheeks' below which nobody would see it."""
BLANK = 4.0
"""Structure below which nothing is where the eyes should be: faces 7 and more, wiped ones at most 3."""


@dataclass(frozen=True)
class EyeLine:
    """What the rows across the eyes look like. RGB units, 0 to 441."""

    contrast: float
    """Distance of the rows' median colour from the cheeks' median colour."""
    spread: float
    """75th percentile of the distances from the row's own median colour."""
    structure: float
    """Standard deviation of the smoothed colours of the band that holds the eyes, 0 to 128."""

    @property
    def ratio(self) -> float:
        """Contrast by spread: large for one even colour that is not the skin's."""
        return self.contrast / (self.spread + EVENNESS_FLOOR)

    @property
    def is_bar(self) -> bool:
        """Whether a bar covers the eyes."""
        even = self.spread <= MOST_SPREAD and self.ratio >= RATIO
        return even and self.contrast >= LEAST_CONTRAST

    @property
    def is_blank(self) -> bool:
        """Whether no eyes are where the detector saw a face, and no bar either: wiped out, an empty oval."""
        return self.structure < BLANK and not self.is_bar


def eye_line(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> EyeLine:
    """Measure `image` [H, W, 3] RGB along the line through the two eyes of `landmarks` [5, 2]."""
    patch = levelled(image, landmarks)
    middle = PATCH // 2
    columns = slice(middle - REACH, middle + REACH + 1)
    rows = patch[middle - EYE_ROWS : middle + EYE_ROWS + 1, columns]
    medians = np.median(rows, axis=1)
    spreads = np.percentile(np.linalg.norm(rows - medians[:, None], axis=2), 75, axis=1)
    cheeks = np.median(patch[middle + 18 : middle + 28, middle - 19 : middle + 20].reshape(-1, 3), axis=0)
    contrasts = np.linalg.norm(medians - cheeks, axis=1)
    return EyeLine(
        contrast=round(float(np.median(contrasts)), 1),
        spread=round(float(np.median(spreads)), 1),
        structure=round(_structure(patch), 1),
    )


def levelled(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[80, 80, 3], 0 to 255: the eyes level and 32 px apart, the point between them in the middle."""
    import cv2

    left, right = landmarks[0].astype(np.float64), landmarks[1].astype(np.float64)
    span = right - left
    apart = max(float(np.hypot(*span)), 1e-3)
    picture, zoom = image, EYE_DISTANCE / apart
    if zoom < 0.7:  # reduce large pictures by area first: sampling points alone would see noise
        shrink = min(1.0, 1.5 * zoom)
        size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
        picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        scale = np.array([size[0] / image.shape[1], size[1] / image.shape[0]])
        left, right = left * scale, right * scale
        span = right - left
        zoom = EYE_DISTANCE / max(float(np.hypot(*span)), 1e-3)
    cosine, sine = span / max(float(np.hypot(*span)), 1e-6)
    turn = np.array([[cosine, sine], [-sine, cosine]]) * zoom
    shift = np.array([PATCH / 2, PATCH / 2]) - turn @ ((left + right) / 2)
    patch = cv2.warpAffine(
        picture, np.c_[turn, shift], (PATCH, PATCH), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(patch, np.float32)


def _structure(patch: NDArray[np.float32]) -> float:
    import cv2

    smooth = cv2.GaussianBlur(patch, (0, 0), 2.0)  # noise is no structure
    middle = PATCH // 2
    band = smooth[middle - 6 : middle + 7, middle - REACH : middle + REACH + 1].reshape(-1, 3)
    return float(np.sqrt(band.var(axis=0).mean()))
