"""Turning the head: where each pixel's line of sight meets the surface."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..face import CLOSE, View
from .field import Array, Plane, step
from .measures import Measures


@dataclass(frozen=True)
class Camera3D:
    """An orthographic camera: millimetres to pixels after a turn of the head about a point inside it."""

    turn: NDArray[np.float64]
    """[3, 3], from the head's axes to the picture's; x right, y down, z to the camera."""
    pivot: NDArray[np.float64]
    """[3] mm, the point that the head turns about."""
    scale: float
    """Pixels per mm."""
    offset: NDArray[np.float64]
    """[2] px, where the pivot lies."""
    frame: float
    """Height of the frame, mm."""

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels [N, 2] of points [N, 3] in mm."""
        turned = (points - self.pivot) @ self.turn.T
        return turned[:, :2] * self.scale + self.offset

    def resized(self, factor: float) -> "Camera3D":
        """The same view at another size."""
        return Camera3D(self.turn, self.pivot, self.scale * factor, self.offset * factor, self.frame)


def rotation(view: View) -> NDArray[np.float64]:
    """[3, 3]: yaw, then pitch, then roll."""
    a, b, c = np.radians([view.yaw, view.pitch, view.roll])
    yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    pitch = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    roll = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(roll @ pitch @ yaw, np.float64)


def camera(view: View, m: Measures, size: int) -> Camera3D:
    """The camera that shows `view.frame` of the head at `size` px: the nearer, the less of the neck."""
    frame = view.frame * (m.gnathion - m.vertex) / view.scale
    scale = size / frame
    turn = rotation(view)
    pivot = np.array([0.0, 0.25 * m.gnathion, -62.0 * m.head_half / 74])
    # The photographer follows a turned face, though not all the way.
    aim = turn @ (np.array([0.0, 0.25 * m.gnathion, 0.0]) - pivot)
    below = (0.085 + 0.105 * (view.frame - CLOSE)) * frame
    middle = m.gnathion + below - frame / 2
    x = size / 2 + view.shift[0] * size - 0.6 * float(aim[0]) * scale
    y = size / 2 + view.shift[1] * size + (pivot[1] - middle - 0.6 * float(aim[1])) * scale
    return Camera3D(turn, pivot, scale, np.array([x, y]), frame)


def cast(area: Plane, height: Array, cam: Camera3D, size: int) -> tuple[Array, Array, Array]:
    """Columns and rows of the plane that each pixel sees, [size, size] each, and its depth in the picture,
    mm.

    A coarse march from the camera finds the surface in front, three damped Newton steps the point on it.
    """
    q = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(cam.offset[0])) / np.float32(cam.scale)
    r = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(cam.offset[1])) / np.float32(cam.scale)
    back = cam.turn.T.astype(np.float32)
    px, py, pz = (np.float32(p) for p in cam.pivot)
    ox = px + back[0, 0] * q[None] + back[0, 1] * r[:, None]
    oy = py + back[1, 0] * q[None] + back[1, 1] * r[:, None]
    oz = pz + back[2, 0] * q[None] + back[2, 1] * r[:, None]
    dx, dy, dz = (np.float32(back[i, 2]) for i in range(3))
    if abs(dx) < 1e-6 and abs(dy) < 1e-6:
        u, v = area.columns(ox), area.rows(oy)
        return u, v, _sample(height, u, v) - pz
    t = _march(area, height, (ox, oy, oz), (dx, dy, dz), size)
    slope_x = _slope(height, 1) * np.float32(area.density) * dx
    slope = slope_x + _slope(height, 0) * np.float32(area.density) * dy
    both = cv2.merge([height, slope])
    for _ in range(3):
        u, v = area.columns(ox + t * dx), area.rows(oy + t * dy)
        found = cv2.remap(both, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        above = oz + t * dz - found[..., 0]
        t = t - np.clip(above / np.maximum(dz - found[..., 1], np.float32(0.45)), -12, 12)
    return area.columns(ox + t * dx), area.rows(oy + t * dy), t


def facing(columns: Array, rows: Array) -> Array:
    """0 where the turned surface is seen so much more than the frontal plane shows of it that it would
    smear, else 1.

    What a frontal plane can't hold, the far side of the hair, is cut there.
    """
    area_ = _slope(columns, 1) * _slope(rows, 0) - _slope(columns, 0) * _slope(rows, 1)
    return step(np.abs(area_), 0.10, 0.26)


def _slope(height: Array, axis: int) -> Array:
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    return np.asarray(cv2.filter2D(height, -1, kernel if axis == 1 else kernel.T), np.float32)


def _sample(height: Array, u: Array, v: Array) -> Array:
    return np.asarray(cv2.remap(height, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _march(
    area: Plane,
    height: Array,
    origin: tuple[Array, Array, Array],
    ray: tuple[np.float32, np.float32, np.float32],
    size: int,
) -> Array:
    """Depth t [size, size] of the first surface along each ray, found on every fourth pixel."""
    coarse = max(32, min(size // 4, 96))
    ox, oy, oz = (
        cv2.resize(
            np.broadcast_to(o, (size, size)).astype(np.float32),
            (coarse, coarse),
            interpolation=cv2.INTER_AREA,
        )
        for o in origin
    )
    dx, dy, dz = ray
    factor = max(1, round(height.shape[0] / (2 * coarse)))
    small = cv2.resize(height, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    fx, fy = small.shape[1] / height.shape[1], small.shape[0] / height.shape[0]
    steps = np.linspace(112, -78, 26, dtype=np.float32)
    u = np.concatenate([(area.columns(ox + t * dx) + 0.5) * fx - 0.5 for t in steps]).astype(np.float32)
    v = np.concatenate([(area.rows(oy + t * dy) + 0.5) * fy - 0.5 for t in steps]).astype(np.float32)
    z = cv2.remap(small, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    above = np.stack([oz + t * dz for t in steps]) - z.reshape(len(steps), coarse, coarse)
    below = above <= 0
    first = np.clip(np.argmax(below, axis=0), 1, None)
    first = np.where(below.any(0), first, len(steps) - 1)
    after = np.take_along_axis(above, first[None], 0)[0]
    before = np.take_along_axis(above, first[None] - 1, 0)[0]
    share = np.clip(before / np.maximum(before - after, 1e-3), 0, 1)
    t = steps[first - 1] + share * (steps[first] - steps[first - 1])
    return np.asarray(
        cv2.resize(t.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR), np.float32
    )
