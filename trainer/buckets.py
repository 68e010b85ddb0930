"""Aspect-ratio buckets: which size an image is trained at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.recipe import SIZE_STEP

MAX_ASPECT = 4.0


@dataclass(frozen=True)
class BucketSides:
    """What the sides of all buckets keep to, px: multiples of `step`, from `low` to `high` (0: no bound)."""

    step: int = SIZE_STEP
    low: int = 0
    high: int = 0

    def hold(self, side: int) -> bool:
        """Whether a side lies between the bounds."""
        return side >= self.low and (not self.high or side <= self.high)


PLAIN_SIDES = BucketSides()


@lru_cache(maxsize=64)
def bucket_sizes(base: int, sides: BucketSides) -> tuple[tuple[int, int], ...]:
    """All (width, height) of one base resolution: multiples of the step, area at most base², aspect at most
    4:1, sides within the bounds; empty when the bounds leave none.

    For each width the tallest height that still fits, so that buckets lie close under the base's area.
    """
    sizes, step = [], sides.step
    for width in range(step, int(base * math.sqrt(MAX_ASPECT)) + 1, step):
        height = base * base // width // step * step
        kept = sides.hold(width) and sides.hold(height)
        if height and kept and max(width, height) <= MAX_ASPECT * min(width, height):
            sizes.append((width, height))
    return tuple(sizes)


def assign_buckets(
    width: int, height: int, bases: Sequence[int], sides: BucketSides = PLAIN_SIDES
) -> tuple[tuple[int, int], ...]:
    """Return the (width, height) at each base resolution that an image of `width` by `height` pixels can be
    trained at, the largest first.

    Those are the buckets that the image covers without being enlarged; an image that covers none takes the
    smallest base and is enlarged. Within a base: the bucket of the nearest aspect ratio (in logarithm), of
    equally near ones the larger.
    """
    aspect = math.log(width / height)

    def distance(size: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(size[0] / size[1]) - aspect), -size[0] * size[1]

    nearest = [
        min(sizes, key=distance)
        for base in sorted(bases, reverse=True)
        if (sizes := bucket_sizes(base, sides))
    ]
    if not nearest:
        raise UserError(
            f"no bucket of --resolution {','.join(map(str, bases))} has its sides between --min_bucket_reso "
            f"{sides.low} and --max_bucket_reso {sides.high}; change one of them"
        )
    covered = [bucket for bucket in nearest if bucket[0] <= width and bucket[1] <= height]
    return tuple(dict.fromkeys(covered or nearest[-1:]))


def cover_box(width: int, height: int, bucket: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the centred box (left, top, right, bottom; px) of the image that has the bucket's aspect ratio.

    Resizing this box to the bucket is the same as covering the bucket with the image and cropping its centre.
    """
    scale = min(width / bucket[0], height / bucket[1])
    box_width, box_height = bucket[0] * scale, bucket[1] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height
