"""From linear light to a file's pixels: tone, lens, sensor, JPEG."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ..face import Camera
from .field import Array, blur

_STEPS = 4096


def developed(light: Array, size: int, how: Camera, seed: int) -> NDArray[np.uint8]:
    """The photograph [size, size, 3] RGB of linear light [N, N, 3]."""
    if light.shape[0] != size:
        light = np.asarray(cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA), np.float32)
    light = blur(light, how.blur * size / 512)
    if how.noise > 0:
        grain = np.random.default_rng([seed, 3]).standard_normal((size, size, 3), dtype=np.float32)
        shared = np.random.default_rng([seed, 4]).standard_normal((size, size, 1), dtype=np.float32)
        # Shot noise: its standard deviation grows with the root of the light.
        light = light + np.float32(how.noise) * np.sqrt(np.maximum(light, 0.004)) * (
            0.5 * grain + 0.8 * shared
        )
    picture = encoded(light)
    if how.jpeg is not None:
        done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, how.jpeg])
        read = cv2.imdecode(data, cv2.IMREAD_COLOR) if done else None
        if read is not None:
            picture = np.ascontiguousarray(read[..., ::-1])
    return picture


def encoded(light: Array) -> NDArray[np.uint8]:
    """sRGB of linear light, with a shoulder in place of a hard clip above 0.75."""
    x = np.linspace(0, 1.6, _STEPS)
    over = np.maximum(x - 0.75, 0)
    soft = np.where(x > 0.75, 0.75 + 0.25 * (1 - np.exp(-over / 0.25)), x)
    curve = np.where(soft <= 0.0031308, 12.92 * soft, 1.055 * np.power(soft, 1 / 2.4) - 0.055)
    table = np.clip(curve * 255 + 0.5, 0, 255).astype(np.uint8)
    index = np.clip(light * np.float32((_STEPS - 1) / 1.6), 0, _STEPS - 1).astype(np.uint16)
    return np.asarray(table[index], np.uint8)
