"""Light on the head: diffuse with its scattering in the skin, shadow, occlusion, shine.

The scattering widens the light under the skin most in red and least in blue (after Jensen et al., SIGGRAPH
2001,
and the texture-space blur of Borshukov and Lewis, 2003), which warms the edge of every shadow.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..face import Light
from .field import Array, Plane, blur


@dataclass(frozen=True)
class Lit:
    """What light does on the plane."""

    light: Array
    """[H, W, 3] diffuse light, about 1 on a lit cheek."""
    normal: tuple[Array, Array, Array]
    occlusion: Array
    """1 in the open to 0 in a fold."""
    shadow: Array
    """1 where the key light reaches."""


def direction(light: Light) -> NDArray[np.float64]:
    """Unit vector to the key light in the picture's axes (x right, y down, z to the camera)."""
    a, e = np.radians([light.azimuth, light.elevation])
    return np.array([np.sin(a) * np.cos(e), -np.sin(e), np.cos(a) * np.cos(e)])


def tint(light: Light) -> tuple[Array, Array]:
    """Colours of the key light and of what comes from around, linear RGB."""
    w = light.warmth
    key = np.array([1 + 0.13 * w, 1.0, 1 - 0.17 * w], np.float32)
    around = np.array([1 - 0.05 * w, 1.0, 1 + 0.07 * w], np.float32)
    return key, around


def normals(height: Array, density: float) -> tuple[Array, Array, Array]:
    """Unit normals of a height (mm) on a grid of `density` points a mm: x, y, z, each [H, W]."""
    k = np.array([[-0.5, 0, 0.5]], np.float32) * np.float32(density)
    gx, gy = cv2.filter2D(height, -1, k), cv2.filter2D(height, -1, k.T)
    inverse = 1 / np.sqrt(1 + gx * gx + gy * gy)
    return -gx * inverse, -gy * inverse, inverse


def illuminate(area: Plane, height: Array, light: Light, turn: NDArray[np.float64], skin: Array) -> Lit:
    """Light a surface. `turn` [3, 3] is the head's rotation, `skin` [H, W] how far a point is skin (and
    scatters)."""
    toward = direction(light) @ turn
    up = np.array([0.0, -1.0, 0.0]) @ turn
    nx, ny, nz = normals(height, area.density)
    facing = nx * np.float32(toward[0]) + ny * np.float32(toward[1]) + nz * np.float32(toward[2])
    above = nx * np.float32(up[0]) + ny * np.float32(up[1]) + nz * np.float32(up[2])
    open_ = occlusion(area, height)
    reached = shadow(area, height, toward)
    wrap = np.float32(0.18)
    diffuse = np.maximum((facing + wrap) / (1 + wrap), 0) * (0.35 + 0.65 * reached)
    ambient = (0.50 + 0.34 * nz + 0.26 * above) * open_
    key_colour, around = tint(light)
    level = max(0.45, float(toward[2]) * 0.8 + 0.25)
    key = np.float32(light.key / level)
    rest = np.float32((1 - light.key) / 0.85)
    sigma = area.density * 1.5
    key_light = diffuse * np.sqrt(open_)
    scattered = blur(key_light, sigma)
    red = key_light + (scattered - key_light) * (0.78 * skin)
    green = key_light + (scattered - key_light) * (0.34 * skin)
    total = []
    for channel, diffuse_light in enumerate((red, green, key_light)):
        bleed = (1.0, 0.86, 0.82)[channel]
        bounced = ambient * (np.float32(bleed) + np.float32(1 - bleed) * open_)
        gain = np.float32(1.10 * light.exposure)
        total.append(
            (key * gain * key_colour[channel]) * diffuse_light + (rest * gain * around[channel]) * bounced
        )
    return Lit(np.asarray(cv2.merge(total), np.float32), (nx, ny, nz), open_, reached)


def occlusion(area: Plane, height: Array) -> Array:
    """How open each point is, 1 to about 0.25: from how far it lies under its surroundings."""
    near = np.clip((blur(height, 2.2 * area.density) - height) * np.float32(1 / 3.0), 0, 1)
    far = np.clip((blur(height, 7.5 * area.density) - height) * np.float32(1 / 11.0), 0, 1)
    return np.asarray((1 - 0.55 * near) * (1 - 0.50 * far), np.float32)


def shadow(area: Plane, height: Array, toward: NDArray[np.float64]) -> Array:
    """1 where the key light reaches, 0 in a cast shadow with a soft edge, [H, W]."""
    factor = max(1, int(area.density / 0.5))
    h, w = area.shape
    small = cv2.resize(height, (max(2, w // factor), max(2, h // factor)), interpolation=cv2.INTER_AREA)
    density = area.density * small.shape[1] / w
    across = float(np.hypot(toward[0], toward[1]))
    if across < 0.05:
        return np.ones(area.shape, np.float32)
    ux, uy, climb = toward[0] / across, toward[1] / across, toward[2] / across
    hidden = np.zeros_like(small)
    for reach in (4.0, 7.0, 11.0, 16.0, 23.0, 33.0):
        move = np.array([[1, 0, -ux * reach * density], [0, 1, -uy * reach * density]], np.float32)
        there = cv2.warpAffine(
            small, move, (small.shape[1], small.shape[0]), borderMode=cv2.BORDER_CONSTANT, borderValue=-200.0
        )
        hidden = np.maximum(
            hidden,
            np.clip((there - np.float32(reach * climb) - small + 0.6) / np.float32(1.5 + 0.22 * reach), 0, 1),
        )
    hidden = blur(np.asarray(hidden, np.float32), 1.2 * density)
    return np.asarray(1 - cv2.resize(hidden, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def shine(lit: Lit, light: Light, turn: NDArray[np.float64], dull: Array, wet: Array) -> Array:
    """Specular light [H, W]: a broad lobe of strength `dull` and a narrow one of strength `wet` (Blinn and
    Phong)."""
    toward = direction(light)
    half = toward + np.array([0.0, 0.0, 1.0])
    half = (half / np.linalg.norm(half)) @ turn
    nx, ny, nz = lit.normal
    c = np.maximum(nx * np.float32(half[0]) + ny * np.float32(half[1]) + nz * np.float32(half[2]), 0)
    c2 = c * c
    c4 = c2 * c2
    c8 = c4 * c4
    broad = c8 * c8 * c2
    narrow = np.square(np.square(broad))
    strength = lit.shadow * lit.occlusion * np.float32(light.key * light.exposure)
    return np.asarray((dull * broad + wet * narrow) * strength, np.float32)
