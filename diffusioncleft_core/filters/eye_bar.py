"""A bar over the eyes, of whatever colour: one even colour across both eyes and the bridge between them.

An uncovered eye line is anything but even (white, iris, lashes, the skin of the bridge), in dark skin, under
dark hair and in deep sockets too. A bar is even from end to end, and ends above and below the eyes in edges
that are straight, parallel and as wide as both eyes. What is even and has the colour of the cheeks are closed
eyes, and no bar.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eye_region import EYES_COLUMN, EYES_ROW, HEIGHT, REACH, WIDTH, LevelFace

EYE_ROWS = 4
"""Rows above and below the eye line that are looked at: an eighth of the eyes' distance."""
EVENNESS_FLOOR = 6.0
"""Added to the spread, RGB units: the noise of a picture must not decide."""
TILTS = (-8, -4, 0, 4, 8)
"""Angles between the eye line and a bar's edges, degrees: detectors place covered eyes askew."""
NEAREST_EDGE, FARTHEST_EDGE = 5, 22
"""Rows between the eye line and a bar's edge, to both sides: bars of 0.3 to 1.4 eye distances."""
EVEN = 15.0
"""Spread up to which a colour of its own is a bar even where no edges are seen, as under hair of that colour:
uncovered eyes reach 25 and more."""
LEAST_CONTRAST = 20.0
"""RGB distance of such a bar's colour from the cheeks' below which nobody would see it."""
EVIDENCE = 0.9
"""Evidence from which it is a bar. Uncovered eyes reach 0.8 in 99 of 100 photographs, bars of three quarters'
opacity exceed 1 in 97."""
BLANK = 4.0
"""Structure below which nothing is where the eyes should be: faces 7 and more, wiped ones at most 3."""


@dataclass(frozen=True)
class EyeLine:
    """What the rows across the eyes look like. RGB units, 0 to 441."""

    contrast: float
    """Distance of the rows' median colour from the cheeks' median colour."""
    spread: float
    """90th percentile of the distances from the row's own median colour."""
    edges: float
    """Step of colour across the fainter of the two edges, which three quarters of its columns exceed, in
    units of the spread at the same tilt."""
    structure: float
    """Standard deviation of the smoothed colours of the band that holds the eyes, 0 to 128."""

    @property
    def evidence(self) -> float:
        """How much speaks for a bar: its edges, or a very even colour that is not the skin's."""
        apart = self.spread <= EVEN and self.contrast >= LEAST_CONTRAST
        return max(self.edges, self.contrast / (self.spread + EVENNESS_FLOOR) if apart else 0.0)

    def is_bar(self, evidence: float = EVIDENCE) -> bool:
        """Whether a bar covers the eyes; `evidence`: how much of it is needed."""
        return self.evidence >= evidence

    @property
    def is_blank(self) -> bool:
        """Whether no eyes are where the detector saw a face, and no bar either: wiped out, an empty oval."""
        return self.structure < BLANK and not self.is_bar()


def eye_line(face: LevelFace) -> EyeLine:
    """Measure the line through the two eyes of a levelled face."""
    medians, spread = _colours(face.pixels)
    below = face.pixels[EYES_ROW + 18 : EYES_ROW + 28, EYES_COLUMN - 19 : EYES_COLUMN + 20]
    cheeks = np.median(below.reshape(-1, 3), axis=0)
    return EyeLine(
        contrast=round(float(np.median(np.linalg.norm(medians - cheeks, axis=1))), 1),
        spread=round(spread, 1),
        edges=round(max(_edges(_turned(face.pixels, tilt)) for tilt in TILTS), 3),
        structure=round(_structure(face.pixels), 1),
    )


def _colours(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Median colours [9, 3] of the rows across the eyes, and the median row's spread about its own."""
    rows = pixels[EYES_ROW - EYE_ROWS : EYES_ROW + EYE_ROWS + 1, _COLUMNS]
    medians = np.median(rows, axis=1)
    distances = np.linalg.norm(rows - medians[:, None], axis=2)
    return medians, float(np.median(np.percentile(distances, 90, axis=1)))


def _edges(pixels: NDArray[np.float32]) -> float:
    """The fainter of the strongest straight edges above and below the eye line, by the spread between."""
    columns = pixels[:, _COLUMNS]
    pairs = (columns[:-1] + columns[1:]) / 2
    rows = np.arange(EYES_ROW - FARTHEST_EDGE, EYES_ROW + FARTHEST_EDGE)
    steps = np.linalg.norm(pairs[rows + 1] - pairs[rows - 3], axis=2)  # the edge's own rows are soft
    edges = np.percentile(steps, 25, axis=1)
    inner = FARTHEST_EDGE - NEAREST_EDGE + 1
    fainter = min(edges[:inner].max(), edges[-inner:].max())
    return float(fainter) / (_colours(pixels)[1] + EVENNESS_FLOOR)


def _turned(pixels: NDArray[np.float32], tilt: float) -> NDArray[np.float32]:
    import cv2

    if not tilt:
        return pixels
    turn = cv2.getRotationMatrix2D((EYES_COLUMN, EYES_ROW), tilt, 1.0)
    size, border = (WIDTH, HEIGHT), cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(pixels, turn, size, borderMode=border), np.float32)


def _structure(pixels: NDArray[np.float32]) -> float:
    import cv2

    smooth = cv2.GaussianBlur(pixels, (0, 0), 2.0)  # noise is no structure
    band = smooth[EYES_ROW - 6 : EYES_ROW + 7, _COLUMNS].reshape(-1, 3)
    return float(np.sqrt(band.var(axis=0).mean()))


_COLUMNS = slice(EYES_COLUMN - REACH, EYES_COLUMN + REACH + 1)
