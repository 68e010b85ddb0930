"""Where in a photograph the finding lies, from the landmarks of its face."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..conditions.vocabulary import Region
from ..faces.landmarks import LANDMARKS


def region_box(
    region: Region | None, face: Mapping[str, Any] | None, width: int, height: int
) -> list[float] | None:
    """[x0, y0, x1, y1] in px: the box around the region's landmarks with its margin, inside the image.

    face: `landmarks` [5, 2] in px. None where the condition names no region or no face was found.
    """
    if region is None or face is None:
        return None
    points = np.array([face["landmarks"][LANDMARKS.index(name)] for name in region.landmarks])
    low, high = points.min(0), points.max(0)
    margin = region.margin * float((high - low).max())
    x0, y0 = np.clip(low - margin, 0, (width, height))
    x1, y1 = np.clip(high + margin, 0, (width, height))
    return [round(float(value), 1) for value in (x0, y0, x1, y1)] if x1 > x0 and y1 > y0 else None
