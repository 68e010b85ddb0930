"""A drawing surface in face coordinates: filled outlines, soft spots and strokes, antialiased."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = Sequence[float]
Points = NDArray[np.float64]
_SHIFT = 4


class Canvas:
    """An RGB picture [S, S, 3] float32 addressed by points in the unit square through an affine pose."""

    def __init__(self, size: int, background: Colour) -> None:
        self.size = size
        self.pixels: NDArray[np.float32] = np.empty((size, size, 3), np.float32)
        self.pixels[:] = np.asarray(background, np.float32)
        self.affine = np.array([[1.0, 0, 0], [0, 1.0, 0]])

    def pose(self, angle: float, scale: float, shift: tuple[float, float]) -> None:
        """Rotate (degrees) and scale about the middle of the frame, then shift (shares of the frame)."""
        c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
        self.affine = np.array(
            [
                [c, -s, 0.5 - 0.5 * c + 0.5 * s + shift[0]],
                [s, c, 0.5 - 0.5 * s - 0.5 * c + shift[1]],
            ]
        )

    def to_pixels(self, points: Points) -> Points:
        """Face coordinates [N, 2] to pixels [N, 2] (pixel centres at .5)."""
        moved: Points = np.asarray(points, np.float64) @ self.affine[:, :2].T + self.affine[:, 2]
        return moved * self.size

    def _blend(self, points: Points, colour: Colour, alpha: float, blur: float, thickness: float) -> None:
        pixels = self.to_pixels(points)
        pad = 3 + int(3 * blur * self.size) + int(thickness * self.size)
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(pixels.max(0)).astype(int) + pad, self.size)
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.round((pixels - [x0, y0] - 0.5) * 2**_SHIFT).astype(np.int32)
        if thickness:
            width = max(1, round(thickness * self.size))
            cv2.polylines(mask, [fixed], False, 255, width, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        weight = mask.astype(np.float32) * (alpha / 255)
        if blur:
            sigma = blur * self.size
            weight = cv2.GaussianBlur(weight, (0, 0), sigma)
        region = self.pixels[y0:y1, x0:x1]
        region += weight[..., None] * (np.asarray(colour, np.float32) - region)

    def fill(self, points: Points, colour: Colour, alpha: float = 1.0, blur: float = 0.0) -> None:
        """Fill a closed outline [N, 2]; `blur` is the edge's softness as a share of the frame."""
        self._blend(points, colour, alpha, blur, 0.0)

    def stroke(
        self, points: Points, width: float, colour: Colour, alpha: float = 1.0, blur: float = 0.0
    ) -> None:
        """Draw an open line [N, 2] of `width` (share of the frame)."""
        self._blend(points, colour, alpha, blur, width)

    def shade(self, light: tuple[float, float], amount: float = 0.05) -> None:
        """Brighten towards the light by `amount` across the frame."""
        ramp = np.linspace(-1, 1, self.size, dtype=np.float32)
        field = 1 + amount * (light[0] * ramp[None, :] + light[1] * ramp[:, None])
        self.pixels *= field[..., None]

    def image(self, size: int, grain: int, exposure: float) -> NDArray[np.uint8]:
        """The picture as uint8 RGB [size, size, 3], area-averaged, with a fine grain."""
        picture = self.pixels
        if size != self.size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng(grain).standard_normal((size, size, 1), np.float32)
        return np.clip(picture * exposure + 1.2 * noise + 0.5, 0, 255).astype(np.uint8)


def ellipse(centre: Sequence[float], rx: float, ry: float, n: int = 40) -> Points:
    """Outline of an ellipse, [n, 2]."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)], 1)


def smooth(points: Sequence[Sequence[float]], closed: bool = True, per_segment: int = 8) -> Points:
    """A Catmull-Rom curve through control points [K, 2]: [K * per_segment, 2]."""
    control = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([control[-1:], control, control[:2]])
    else:
        padded = np.concatenate([control[:1], control, control[-1:]])
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, per_segment, endpoint=False)[None, :, None]
    a, b, c, d = p0[:, None], p1[:, None], p2[:, None], p3[:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, control[-1:]])
