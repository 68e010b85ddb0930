"""Eyes hidden on purpose, and pictures that hide nothing: photographs taken otherwise, softened, coarse.

For proving the checks of the eyes. Needs no more than five landmarks; everything is drawn from `rng` alone.
Lengths are in eye distances.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Landmarks = NDArray[np.float32]
COLOURS: Mapping[str, tuple[int, int, int] | None] = {
    "black": (8, 8, 8),
    "white": (248, 248, 248),
    "grey": (128, 128, 128),
    "red": (200, 25, 35),
    "blue": (35, 60, 200),
    "skin": None,
}
"""Of bars; `skin`: the cheeks' own colour, three tenths darker."""
OPACITIES = (0.75, 0.85, 1.0)
HEIGHTS = (0.45, 0.6, 0.85)
BLOCKS = (4, 5, 6, 8, 10, 12, 14, 16)
"""Blocks across the eyes, over 1.8 to 2.4 eye distances."""
SIGMAS = (0.08, 0.1, 0.12, 0.15, 0.2, 0.3)


def crop(image: Image, box: NDArray[np.float32], side: int = 512) -> Image:
    """The square of twice the face box's height around its centre, at `side` px."""
    x0, y0, x1, y1 = (float(value) for value in box)
    scale = side / (2 * (y1 - y0))
    move = np.array(
        [[scale, 0, side / 2 - scale * (x0 + x1) / 2], [0, scale, side / 2 - scale * (y0 + y1) / 2]]
    )
    return _warped(image, move, (side, side))


def taken_otherwise(image: Image, rng: np.random.Generator) -> Image:
    """The same face as another photograph might show it: turned, nearer, mirrored, in other light."""
    height, width = image.shape[:2]
    move = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), rng.uniform(0.9, 1.12))
    move[:, 2] += rng.uniform(-0.04, 0.04, 2) * [width, height]
    picture = _warped(image, move, (width, height))
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    light = (picture.astype(np.float32) / 255) ** np.exp(rng.uniform(-0.7, 0.7))
    light *= np.exp(rng.uniform(-0.5, 0.35))
    light = (light - light.mean()) * rng.uniform(0.7, 1.3) + light.mean()
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        slope = 1.5 * rng.uniform(0.2, 0.8) * (np.cos(angle) * columns + np.sin(angle) * rows)
        light *= np.clip(1 + slope, 0.25, 1.75)[..., None]
    return np.ascontiguousarray((np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8))


def encoded(image: Image, quality: int) -> Image:
    """The image as JPEG gives it back."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def barred(
    image: Image,
    landmarks: Landmarks,
    colour: str,
    opacity: float,
    height: float,
    rng: np.random.Generator,
) -> Image:
    """A bar over the eyes, tilted with them."""
    shade = COLOURS[colour]
    chosen = _cheeks(image, landmarks) * 0.7 if shade is None else np.array(shade, np.float64)
    bar = _bar(image, landmarks, float(rng.uniform(1.7, 2.8)), height, float(rng.normal(0, 2)))
    return _mixed(image, np.broadcast_to(chosen, image.shape), opacity * bar)


def pixelated(image: Image, landmarks: Landmarks, blocks: int, rng: np.random.Generator) -> Image:
    """A mosaic of upright blocks over both eyes, `blocks` of them across."""
    middle, apart, _ = _geometry(landmarks)
    size = rng.uniform(1.8, 2.4) * apart, rng.uniform(0.6, 1.0) * apart
    block = max(2.0, size[0] / blocks)
    first = middle - np.array(size) / 2 + rng.normal(0, 0.03, 2) * apart
    columns, rows = (
        np.clip(np.round(np.arange(0, length + 0.99 * block, block) + start), 0, limit).astype(int)
        for length, start, limit in zip(size, first, image.shape[1::-1], strict=True)
    )
    picture = image.copy()
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            if bottom > top and right > left:
                part = picture[top:bottom, left:right]
                part[:] = part.reshape(-1, 3).mean(0)
    return picture


def blurred(image: Image, landmarks: Landmarks, sigma: float, rng: np.random.Generator) -> Image:
    """A Gaussian blur over both eyes: within a bar, sharp or soft, or within an oval about each eye."""
    _, apart, tilt = _geometry(landmarks)
    soft = cv2.GaussianBlur(image, (0, 0), sigma * apart)
    if rng.random() < 0.5:
        width, height = float(rng.uniform(1.8, 2.4)), float(rng.uniform(0.6, 1.0))
        where = _bar(image, landmarks, width, height, float(rng.normal(0, 3)))
        if rng.random() < 0.5:
            where = cv2.GaussianBlur(where, (0, 0), 0.08 * apart)
    else:
        where = np.zeros(image.shape[:2], np.float32)
        axes = int(0.42 * apart), int(0.32 * apart)
        for eye in landmarks[:2]:
            cv2.ellipse(where, (int(eye[0]), int(eye[1])), axes, tilt, 0, 360, 1.0, -1, cv2.LINE_AA)
    return _mixed(image, soft, where)


def softened(image: Image, landmarks: Landmarks, rng: np.random.Generator) -> Image:
    """The whole picture out of focus."""
    sigma = float(rng.choice([0.04, 0.08, 0.12, 0.2])) * _geometry(landmarks)[1]
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def enlarged(image: Image, landmarks: Landmarks, rng: np.random.Generator) -> Image:
    """The whole picture from few pixels, smoothly or as blocks."""
    height, width = image.shape[:2]
    scale = float(rng.choice([4, 6, 9, 12, 18, 25])) / _geometry(landmarks)[1]
    few = max(8, round(width * scale)), max(8, round(height * scale))
    how = int(rng.choice([cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    small = cv2.resize(image, few, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)


def coarse(image: Image, landmarks: Landmarks, rng: np.random.Generator) -> Image:
    """The whole picture with the blocks of a strong JPEG compression."""
    return encoded(image, int(rng.integers(5, 25)))


WHOLE: Mapping[str, Callable[[Image, Landmarks, np.random.Generator], Image]] = {
    "softened": softened,
    "enlarged": enlarged,
    "coarse": coarse,
}
"""What happens to a whole picture, and hides no eyes in particular."""


def _geometry(landmarks: Landmarks) -> tuple[NDArray[np.float64], float, float]:
    """The point between the eyes, their distance, px, and their tilt, degrees."""
    left, right = landmarks[:2].astype(np.float64)
    span = right - left
    return (left + right) / 2, float(np.hypot(*span)), float(np.degrees(np.arctan2(span[1], span[0])))


def _bar(image: Image, landmarks: Landmarks, width: float, height: float, turn: float) -> NDArray[np.float32]:
    """Coverage [H, W], 0 to 1, of a bar centred between the eyes."""
    middle, apart, tilt = _geometry(landmarks)
    corners = cv2.boxPoints(((middle[0], middle[1]), (width * apart, height * apart), tilt + turn))
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return np.asarray(mask.astype(np.float32) / 255, np.float32)


def _cheeks(image: Image, landmarks: Landmarks) -> NDArray[np.float64]:
    """Median colour between each eye and its mouth corner."""
    reach = max(2, int(0.12 * _geometry(landmarks)[1]))
    parts = []
    for eye, corner in zip(landmarks[:2], landmarks[3:], strict=True):
        x, y = (int(value) for value in (eye + corner) / 2)
        part = image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        parts.append(part.reshape(-1, 3))
    return np.asarray(np.median(np.concatenate(parts), axis=0), np.float64)


def skin_lightness(image: Image, landmarks: Landmarks) -> float:
    """CIE L* of the cheeks, 0 to 100."""
    shade = (_cheeks(image, landmarks) / 255).astype(np.float32)[None, None]
    return float(cv2.cvtColor(shade, cv2.COLOR_RGB2LAB)[0, 0, 0])


def _mixed(image: Image, layer: NDArray[np.generic], share: NDArray[np.float32]) -> Image:
    mixed = image + share[..., None] * (layer.astype(np.float32) - image)
    return np.asarray(np.clip(mixed + 0.5, 0, 255), np.uint8)


def _warped(image: Image, move: NDArray[np.float64], size: tuple[int, int]) -> Image:
    warped = cv2.warpAffine(image, move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(warped, np.uint8)
