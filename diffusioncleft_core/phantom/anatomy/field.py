"""The frontal plane that a head is computed on, and the few functions that everything is made of."""

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Arrays of this package: float32 where nothing else is said."""
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Plane:
    """A grid over the frontal plane; row i, column j is the point (x[0, j], y[i, 0]) in mm."""

    x: Array
    """[1, W] mm."""
    y: Array
    """[H, 1] mm."""
    density: float
    """Points per mm."""
    extent: tuple[float, float]
    """Width and height in mm, the same at every density."""

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.y.shape[0], self.x.shape[1]

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple["Plane", Window]:
        """The part between these mm, and where it lies."""
        h, w = self.shape
        x0, y0 = float(self.x[0, 0]), float(self.y[0, 0])
        j0 = min(max(int((left - x0) * self.density), 0), w - 2)
        j1 = min(max(int((right - x0) * self.density) + 1, j0 + 2), w)
        i0 = min(max(int((top - y0) * self.density), 0), h - 2)
        i1 = min(max(int((bottom - y0) * self.density) + 1, i0 + 2), h)
        part = Plane(self.x[:, j0:j1], self.y[i0:i1], self.density, (right - left, bottom - top))
        return part, (slice(i0, i1), slice(j0, j1))

    def columns(self, x: Array) -> Array:
        """Where x (mm) lies, in columns."""
        return np.asarray((x - self.x[0, 0]) * np.float32(self.density))

    def rows(self, y: Array) -> Array:
        """Where y (mm) lies, in rows."""
        return np.asarray((y - self.y[0, 0]) * np.float32(self.density))


def plane(half_width: float, top: float, bottom: float, density: float) -> Plane:
    """A grid from -half_width to half_width and top to bottom mm."""
    w, h = round(2 * half_width * density), round((bottom - top) * density)
    x = (np.arange(w, dtype=np.float32) + 0.5) / density - half_width
    y = (np.arange(h, dtype=np.float32) + 0.5) / density + top
    return Plane(
        x[None].astype(np.float32), y[:, None].astype(np.float32), density, (2 * half_width, bottom - top)
    )


def curve(at: Array, knots: list[tuple[float, float]]) -> Array:
    """A smooth line through knots (position, value): Catmull-Rom, clamped at the ends. Meant for one axis."""
    p = np.array([knot[0] for knot in knots], np.float64)
    v = np.array([knot[1] for knot in knots], np.float64)
    h = p[1:] - p[:-1]
    rise = (v[1:] - v[:-1]) / h
    slope = np.empty_like(v)
    slope[0], slope[-1] = rise[0], rise[-1]
    slope[1:-1] = (h[:-1] * rise[1:] + h[1:] * rise[:-1]) / (h[:-1] + h[1:])
    x = np.minimum(np.maximum(np.asarray(at, np.float64), p[0]), p[-1])
    k = np.searchsorted(p[1:-1], x, side="right")
    t = x - p[k]
    # Hermite's cubic of each piece, by powers of the way into it.
    square = (3 * rise - 2 * slope[:-1] - slope[1:]) / h
    cube = (slope[:-1] + slope[1:] - 2 * rise) / (h * h)
    return np.asarray(((cube[k] * t + square[k]) * t + slope[k]) * t + v[k], np.float32)


def step(value: Array, low: float, high: float) -> Array:
    """0 at or below low, 1 at or above high, smooth between (Hermite). low > high falls."""
    t = np.asarray(value - np.float32(low))
    t *= np.float32(1 / (high - low))
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    slope = np.asarray(t * -2)
    slope += 3
    t *= t
    t *= slope
    return t


def bump(
    x: Array, y: Array, at: tuple[float, float], spread: tuple[float, float], turn: float = 0.0
) -> Array:
    """A Gaussian hill of height 1 at `at` with standard deviations `spread` (mm), turned by degrees."""
    dx, dy = x - np.float32(at[0]), y - np.float32(at[1])
    if turn == 0.0:
        across = np.exp(dx * dx * np.float32(-0.5 / spread[0] ** 2))
        down = np.exp(dy * dy * np.float32(-0.5 / spread[1] ** 2))
        return np.asarray(across * down)
    c, s = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
    u, v = c * dx + s * dy, c * dy - s * dx
    return np.exp(u * u * np.float32(-0.5 / spread[0] ** 2) + v * v * np.float32(-0.5 / spread[1] ** 2))


def ridge(distance: Array, spread: float) -> Array:
    """A Gaussian over a distance in mm."""
    return np.exp(distance * distance * np.float32(-0.5 / spread**2))


def softmin(a: Array, b: Array, radius: float) -> Array:
    """The lesser of two distances with a fillet of that radius (polynomial smooth minimum, Quilez)."""
    h = np.maximum(np.float32(radius) - np.abs(a - b), 0) * np.float32(1 / radius)
    return np.asarray(np.minimum(a, b) - h * h * np.float32(radius * 0.25))


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur by sigma points; a wide one is done on a smaller picture."""
    if sigma < 0.3:
        return image
    if sigma > 6:
        h, w = image.shape[:2]
        factor = int(min(sigma / 3, 8))
        small = cv2.resize(image, (max(2, w // factor), max(2, h // factor)), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma * small.shape[1] / w)
        return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def noise(seed: tuple[int, ...], area: Plane, cell: float, stretch: float = 1.0) -> Array:
    """Smooth noise, N(0, 1) at the knots, on knots `cell` mm apart (`stretch` times as far along y).

    The knots do not depend on the grid's density: a larger picture shows the same spots.
    """
    h, w = area.shape
    across = max(2, round(area.extent[0] / cell))
    down = max(2, round(area.extent[1] / (cell * stretch)))
    knots = np.random.default_rng(seed).standard_normal((down, across), dtype=np.float32)
    return np.asarray(cv2.resize(knots, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)


def wide(plane_: Array) -> Array:
    """[H, W] three times over, [H, W, 3]: much faster to compute with than a broadcast along the last
    axis."""
    return np.asarray(cv2.merge([plane_, plane_, plane_]), np.float32)


def tinted(plane_: Array, colour: Array) -> Array:
    """[H, W] times a colour [3], [H, W, 3]."""
    return np.asarray(cv2.merge([plane_ * np.float32(c) for c in colour]), np.float32)


def strands(across: Array, along: Array, seed: tuple[int, ...]) -> Array:
    """Values of single hairs, N(0, 1): they change from hair to hair (`across`, in hairs) and slowly
    `along`."""
    table = _strand_table(seed)
    u, v = np.broadcast_arrays(_wrapped(across, 254), _wrapped(along, 46))
    found = cv2.remap(table, np.ascontiguousarray(u), np.ascontiguousarray(v), cv2.INTER_LINEAR)
    return np.asarray(found, np.float32)


@functools.lru_cache(32)
def _strand_table(seed: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal((48, 256), dtype=np.float32)


def _wrapped(value: Array, period: float) -> Array:
    """`value` modulo `period`; numpy's own takes four times as long."""
    value = np.asarray(value, np.float32)
    return value - np.floor(value * np.float32(1 / period)) * np.float32(period)
