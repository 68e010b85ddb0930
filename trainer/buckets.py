"""Aspect-ratio buckets: which size an image is trained at."""

import math
from collections.abc import Sequence
from functools import lru_cache

from ..diffusioncleft_core.recipe.recipe import SIZE_STEP

MAX_ASPECT = 4.0


@lru_cache(maxsize=64)
def bucket_sizes(base: int, step: int) -> tuple[tuple[int, int], ...]:
    """All (width, height) of one base resolution: multiples of `step`, area at most base², aspect at most
    4:1.

    For each width the tallest height that still fits, so that buckets lie close under the base's area.
    """
    sizes = []
    for width in range(step, int(base * math.sqrt(MAX_ASPECT)) + 1, step):
        height = base * base // width // step * step
        if height and max(width, height) <= MAX_ASPECT * min(width, height):
            sizes.append((width, height))
    return tuple(sizes)


def assign_bucket(width: int, height: int, bases: Sequence[int], step: int = SIZE_STEP) -> tuple[int, int]:
    """Return the (width, height) that an image of `width` by `height` pixels is trained at.

    Of the base resolutions the largest whose bucket the image covers without being enlarged; an image that
    covers none takes the smallest base and is enlarged. Within a base: the bucket of the nearest aspect ratio
    (in logarithm), of equally near ones the larger.
    """
    aspect = math.log(width / height)

    def distance(size: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]

    smallest: tuple[int, int] | None = None
    for base in sorted(bases, reverse=True):
        smallest = min(bucket_sizes(base, step), key=distance)
        if smallest[0] <= width and smallest[1] <= height:
            return smallest
    if smallest is None:
        raise ValueError("there is no base resolution")
    return smallest


def cover_box(width: int, height: int, bucket: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the centred box (left, top, right, bottom; px) of the image that has the bucket's aspect ratio.

    Resizing this box to the bucket is the same as covering the bucket with the image and cropping its centre.
    """
    scale = min(width / bucket[0], height / bucket[1])
    box_width, box_height = bucket[0] * scale, bucket[1] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height
