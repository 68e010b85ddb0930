"""Where the largest face lies in the frame, and whether the frame cuts it."""

from dataclasses import dataclass

import numpy as np

from ..faces.records import FaceRecord

LEAST_INSIDE = 0.95
"""Share of the face box inside the frame: faces cut by 25 % or more show at most 0.96, whole ones 1."""
LEAST_MARGIN = 0.15
"""Distance of eyes and mouth corners from the frame's edge, in eye distances: nearer, and skin is missing."""


@dataclass(frozen=True)
class Framing:
    """Where the largest face lies."""

    inside: float
    """Share of its box inside the frame, 0 to 1."""
    margin: float
    """Smallest distance of an eye or a mouth corner from the edge, in eye distances; negative outside."""

    @property
    def is_cropped(self) -> bool:
        """Whether a part of the face is outside the frame."""
        return self.inside < LEAST_INSIDE or self.margin < LEAST_MARGIN


def framing(record: FaceRecord) -> Framing:
    """Measure the largest face of `record`. Raises ValueError for a record without a face."""
    if record.box is None or record.landmarks is None:
        raise ValueError("a record without a face has no framing")
    frame = np.array([record.width, record.height], np.float64)
    low, high = record.box[:2].astype(np.float64), record.box[2:].astype(np.float64)
    size = np.maximum(high - low, 1e-6)
    inside = np.maximum(np.minimum(high, frame) - np.maximum(low, 0), 0)
    points = record.landmarks[[0, 1, 3, 4]].astype(np.float64)
    apart = max(float(np.linalg.norm(points[1] - points[0])), 1e-6)
    margin = float(np.minimum(points, frame - points).min()) / apart
    return Framing(round(float(np.prod(inside / size)), 3), round(margin, 3))
