"""Copies of a photograph as they come back: grey, in other hues, mirrored, turned, cut, covered, blended.

For proving that near copies are found. Every change is drawn from `rng` alone.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Change = Callable[[Image, np.random.Generator, Image], Image]
"""The picture [H, W, 3] RGB, the generator, and a picture of somebody else."""


def grey(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Without colour."""
    return _uint8(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def hue_shifted(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Hue turned by 60 to 300 degrees."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(30, 151))) % 180
    return _uint8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def mirrored(image: Image, rng: np.random.Generator, other: Image) -> Image:
    return np.ascontiguousarray(image[:, ::-1])


def brightened(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Contrast and brightness up or down by a fifth."""
    return _uint8(image * float(rng.choice([0.8, 1.2])) + float(rng.uniform(-20, 20)))


def jpeg(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Re-encoded at quality 30."""
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(_uint8(decoded)[..., ::-1])


def rescaled(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Half to twice the size."""
    factor = float(rng.choice([0.5, 0.75, 1.5, 2.0]))
    size = round(image.shape[1] * factor), round(image.shape[0] * factor)
    return _uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC))


def cropped(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """80 % of each side, from anywhere."""
    height, width = (round(0.8 * side) for side in image.shape[:2])
    y, x = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.shape, (height, width)))  # noqa: B905
    return np.ascontiguousarray(image[y : y + height, x : x + width])


def _turned(degrees: float) -> Change:
    def turn(image: Image, rng: np.random.Generator, other: Image) -> Image:
        """Turned either way about the middle, black where nothing was."""
        height, width = image.shape[:2]
        angle = degrees * float(rng.choice([-1, 1]))
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
        return _uint8(cv2.warpAffine(image, matrix, (width, height)))

    return turn


def half_covered(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """One half, of any side, in one colour."""
    covered = image.copy()
    height, width = image.shape[:2]
    halves = (
        (slice(height // 2), slice(None)),
        (slice(height // 2, None), slice(None)),
        (slice(None), slice(width // 2)),
        (slice(None), slice(width // 2, None)),
    )
    covered[halves[int(rng.integers(4))]] = rng.integers(0, 256, 3)
    return covered


def blended(image: Image, rng: np.random.Generator, other: Image) -> Image:
    """Half itself, half the picture of somebody else."""
    second = cv2.resize(other, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA)
    return _uint8(0.5 * image + 0.5 * second)


def _in_turn(*changes: Change) -> Change:
    def both(image: Image, rng: np.random.Generator, other: Image) -> Image:
        for change in changes:
            image = change(image, rng, other)
        return image

    return both


def _uint8(values: NDArray[np.generic]) -> Image:
    return np.clip(np.round(np.asarray(values, np.float64)), 0, 255).astype(np.uint8)


CHANGES: Mapping[str, Change] = {
    "the same": lambda image, rng, other: image,
    "grey": grey,
    "hue shifted": hue_shifted,
    "mirrored": mirrored,
    "brighter or darker": brightened,
    "JPEG, quality 30": jpeg,
    "rescaled": rescaled,
    "cropped to 80 %": cropped,
    "turned by 5°": _turned(5),
    "turned by 10°": _turned(10),
    "half covered": half_covered,
    "blended with another": blended,
    "grey and mirrored": _in_turn(grey, mirrored),
    "cropped, JPEG": _in_turn(cropped, jpeg),
    "mirrored, turned by 5°, grey": _in_turn(mirrored, _turned(5), grey),
    "half covered and mirrored": _in_turn(half_covered, mirrored),
}
"""By the name that reports give them."""
