"""Eyes and brows: lids with their fold and lashes, sclera, iris, pupil, and the light that they reflect.

The iris is as large as in people: a visible diameter of 11.7 mm (Rüfer, Schröder and Erb, Cornea 2005,
white to
white) against 60 to 64 mm between an adult's pupils; an infant's is nearly as large.
"""

from dataclasses import dataclass

import numpy as np

from ..face import PhantomFace
from .field import Array, Plane, Window, noise, ridge, step, strands
from .lips import Mood
from .measures import Measures


@dataclass(frozen=True)
class Eye:
    """One eye over its window; shares 0 to 1 and heights in mm, [H, W]."""

    plane: Plane
    window: Window
    height: Array
    ball: Array
    """The visible eyeball."""
    iris: Array
    pupil: Array
    fibre: Array
    """Brightness of the iris, about 1."""
    shade: Array
    """Light on the ball under the lids, 0 to 1."""
    glint: Array
    corner: Array
    """Caruncle and wet lid margin."""
    lashes: Array
    lid: Array
    """Skin of the lids, which is thinner and darker."""
    crease: Array


def eye(
    area: Plane,
    face: PhantomFace,
    m: Measures,
    held: Mood,
    direction: int,
    gaze: tuple[float, float],
    light: tuple[float, float],
) -> Eye:
    """The eye in `direction` (-1 on the picture's left).

    `gaze` is how far the iris lies right and down of the lids' middle in mm, `light` the key light's x and y.
    """
    k = m.fissure / 15
    cx = direction * m.pupil
    part, window = area.window(cx - 36 * k, -28 * k, cx + 36 * k, 28 * k)
    x, y = part.x, part.y
    s = (x - np.float32(cx)) * direction
    u = s / np.float32(m.fissure)
    inner = np.clip(u, -1, 1)
    arch = np.maximum(1 - inner * inner, 0)
    tilt = -np.float32(m.tilt) * inner * 0.5
    squint = 1 - 0.24 * held.smile - 0.25 * held.cry
    rise = np.float32(0.43 * m.aperture * squint * (1 - held.closed))
    sink = np.float32(0.53 * m.aperture * (1 - 0.30 * held.smile) * (1 - 0.12 * held.closed))
    # The upper lid is highest towards the nose, the lower one lowest towards the temple.
    top = tilt - rise * np.power(arch, np.float32(0.62)) * (1 - 0.16 * inner)
    low = tilt + sink * np.power(arch, np.float32(0.80)) * (1 + 0.20 * inner)
    top = np.minimum(
        top + (sink * 0.92) * np.power(arch, np.float32(0.8)) * held.closed * (1 + 0.2 * inner),
        low,
    )
    soft = max(0.22, 0.5 / part.density)
    within = step(np.abs(u), 1.02, 0.96)
    ball = step(y - top, -soft, soft) * step(low - y, -soft, soft) * within
    if held.closed > 0.9:
        ball = ball * 0
    gx, gy = s - np.float32(direction * gaze[0]), y - np.float32(gaze[1])
    r = np.sqrt(gx * gx + gy * gy)
    radius = m.iris / 2
    iris = step(r, radius + soft, radius - soft) * ball
    pupil = step(r, 1.95 + soft * 0.7, 1.95 - soft * 0.7) * ball
    fibre = 1 + 0.10 * step(r, 3.6, 2.4) - 0.55 * step(r, radius - 1.6, radius - 0.2)
    if part.density > 0.9:
        angle = np.arctan2(gy, gx) * np.float32(30 / np.pi)
        fibre = fibre + 0.16 * strands(angle + 40, r * 0.5, (7, direction + 2))
    under = np.clip((y - top) / np.float32(4.2 * k), 0, 1)
    shade = (0.36 + 0.64 * under) * (1 - 0.38 * np.power(np.abs(inner), np.float32(2.2)))
    lx, ly = light
    glint = step(np.hypot(gx - direction * 2.2 * lx, gy - 2.2 * ly + 0.3), 1.15, 0.45) * ball
    inner_corner = step(u, -0.72, -0.93) * ball
    margin = ridge(y - low - 0.1, 0.45) * within * step(np.abs(u), 1.0, 0.85)
    corner = np.maximum(inner_corner, 0.75 * margin * (1 - held.closed))
    # Lid margin, fold and lashes.
    over = top - y
    female = face.attributes["subject"] in ("woman", "girl")
    length = (2.5 if female else 1.8) * k * (0.55 + 0.45 * np.clip(u + 0.6, 0, 1.4))
    near = step(np.abs(u), 1.12, 0.92)
    line = ridge(over - 0.05, 0.62 if not female else 0.78) * step(np.abs(u), 1.03, 0.95)
    hair = step(over, -0.4, 0.1) * step(over - length, 0.0, -1.2) * near
    if part.density > 1.0:
        comb = strands((s + over * (0.55 + 0.5 * inner)) / 0.62 + 200, over * 0.1 + 5, (11, direction + 2))
        hair = hair * np.clip(0.42 + 0.75 * comb, 0, 1)
    else:
        hair = hair * 0.42
    down = step(y - low, -0.2, 0.3) * step(y - low, 1.5, 0.4) * near * (0.16 if female else 0.10)
    if held.closed > 0.6:
        hair, line = (
            step(-over, -0.3, 0.2) * step(-over - length, 0.0, -1.2) * near * 0.5,
            line * 0.8,
        )
    lashes = np.clip(np.maximum(np.maximum(0.92 * line, 0.85 * hair), down), 0, 1)
    fold = np.float32(m.lid_fold * (1 + 1.1 * held.closed)) * np.power(arch, np.float32(0.4)) + 0.5
    crease = ridge(over - fold, 0.75 * k) * step(np.abs(inner), 1.0, 0.82) * step(np.abs(u), 1.15, 0.95)
    outer = np.hypot(s, y + 1.0)
    lid = step(outer, 1.35 * m.fissure, 0.8 * m.fissure) * (1 - ball)
    globe = (
        4.4
        * k
        * np.exp(-0.5 * (np.square(s / np.float32(10.0 * k)) + np.square((y + 0.6) / np.float32(7.6 * k))))
    )
    height = globe - 0.9 * k * ball - 0.75 * k * crease + 0.45 * k * ridge(over - 1.0, 0.9) * within
    height += 0.35 * k * ridge(y - low - 1.1, 0.8) * within - 0.4 * ridge(y - low - 3.4 * k, 1.6) * within
    return Eye(
        part, window, height.astype(np.float32), ball, iris, pupil, fibre.astype(np.float32), shade, glint,
        corner, lashes, lid, crease,
    )  # fmt: skip


def brows(area: Plane, m: Measures, held: Mood, direction: int) -> tuple[Array, Window]:
    """How much of each point a brow's hairs cover, 0 to 1."""
    k = m.pupil / 31
    cx = direction * m.pupil
    part, window = area.window(cx - 26 * k, m.brow - 15 * k, cx + 28 * k, m.brow + 15 * k)
    s = (part.x - np.float32(cx)) * direction
    u = np.clip((s + 18 * k) / np.float32(39 * k), 0, 1)
    line = (
        m.brow + 1.2 * k - m.brow_arch * np.sin(np.pi * np.power(u, np.float32(1.35))) + 3.0 * k * u * u * u
    )
    line = line + held.cry * (-2.4 + 5.5 * u) * k + 0.8 * held.cry
    half = (
        np.float32(0.5 * m.brow_width)
        * (0.55 + 0.9 * u)
        * np.power(np.maximum(1 - u, 0), np.float32(0.55))
        * 1.45
    )
    v = part.y - line
    edge = step(np.abs(v) - half, 1.3 * k, -1.4 * k) * step(s, -20 * k, -14.5 * k) * step(s, 22 * k, 18 * k)
    if part.density > 0.8:
        lean = s - v * (0.35 - 1.5 * u)
        comb = strands(lean / 0.7 + 300, u * 6 + v * 0.2 + 20, (13, direction + 2))
        edge = edge * np.clip(0.80 + 0.34 * comb, 0.10, 1.0)
    else:
        edge = edge * 0.78
    return np.asarray(edge * np.float32(m.brow_density), np.float32), window


def sclera_veins(area: Plane, seed: int) -> Array:
    """Fine redness of the sclera, about 0 to 1."""
    return np.clip(noise((seed, 17), area, 1.6), 0, 2) * 0.35
