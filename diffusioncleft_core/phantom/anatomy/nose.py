"""The nose: bridge, tip, wings, columella and nostrils, each side by itself.

A nose beside a unilateral cleft follows the descriptions of the cleft lip nasal deformity (Huffman and
Lierle,
Plast Reconstr Surg 1949; Fisher and Sommerlad, Plast Reconstr Surg 2011): the base of the wing lies lower,
further out and further back, the wing is flat, columella and tip lean to the healthy side.
"""

from dataclasses import dataclass, field

import numpy as np

from .field import Array, Plane, Window, bump, curve, ridge, step
from .measures import Measures


@dataclass(frozen=True)
class Wing:
    """How one side of the nose differs from a healthy one; mm."""

    out: float = 0.0
    """The wing's base lies further from the midline."""
    down: float = 0.0
    back: float = 0.0
    flat: float = 0.0
    """0 (a round nostril) to 1 (a slit that lies on its side)."""
    small: float = 0.0
    """0 to 1: the nostril is narrower."""
    floor: float = 0.0
    """0 to 1: the nostril's floor is open to the lip."""


@dataclass(frozen=True)
class NoseChange:
    """What a cleft or a repair makes of a nose; mm, x in the picture's direction."""

    wings: dict[int, Wing] = field(default_factory=lambda: {-1: Wing(), 1: Wing()})
    """By direction, -1 on the picture's left."""
    tip_x: float = 0.0
    tip_down: float = 0.0
    tip_flat: float = 0.0
    """0 to 1: a broad tip on a short columella."""
    columella_x: float = 0.0


@dataclass(frozen=True)
class Nostril:
    """Where a nostril opens: an ellipse in the frontal plane; mm and degrees."""

    x: float
    y: float
    a: float
    b: float
    turn: float


def nostril(m: Measures, change: NoseChange, direction: int) -> Nostril:
    """The opening of one side."""
    wing = change.wings[direction]
    inner = 0.25 * m.ala
    outer = 0.76 * m.ala + 0.75 * wing.out
    middle = (inner + outer) / 2
    half = (outer - inner) / 2 * (1 - 0.45 * wing.small) * (1 + 0.10 * wing.flat)
    return Nostril(
        x=0.55 * change.columella_x + direction * middle,
        y=m.subnasale - 2.1 * m.ala / 16 + 0.55 * wing.down + 0.4 * wing.flat,
        a=half,
        b=2.0 * m.ala / 16 * (1 - 0.42 * wing.flat) * (1 - 0.35 * wing.small) + 0.8 * wing.floor,
        turn=direction * (17 - 14 * wing.flat),
    )


def tip_point(m: Measures, change: NoseChange) -> tuple[float, float]:
    """x and y of the pronasale."""
    return change.tip_x, m.subnasale - max(m.tip_lift - change.tip_down, 4.4 * m.ala / 16)


def nose_window(area: Plane, m: Measures) -> tuple[Plane, Window]:
    """The part of the plane that the nose lies in."""
    return area.window(-3.6 * m.ala, -26, 3.6 * m.ala, m.subnasale + 14)


def nose_height(area: Plane, m: Measures, change: NoseChange) -> Array:
    """What the nose adds to the face's height over its window, mm [H, W]."""
    x, y = area.x, area.y
    sn, k = m.subnasale, m.ala / 16
    tip_x, tip_y = tip_point(m, change)
    axis = curve(y, [(-12, 0.0), (0.35 * tip_y, 0.15 * tip_x), (tip_y, tip_x), (sn, change.columella_x)])
    dx = x - axis
    height = curve(
        y,
        [
            (-24, 0.0),
            (-17, 0.06 * m.root),
            (-9, 0.55 * m.root),
            (-1, m.root),
            (0.25 * sn, m.root + 0.24 * (m.prominence - m.root) + m.hump),
            (0.50 * sn, m.root + 0.55 * (m.prominence - m.root) + 0.6 * m.hump),
            (tip_y - 5 * k, m.prominence * (0.90 - 0.08 * change.tip_flat)),
            (tip_y, m.prominence * (0.97 - 0.14 * change.tip_flat)),
            (tip_y + 0.45 * (sn - tip_y), m.prominence * 0.72),
            (sn - 1.2, m.prominence * 0.26),
            (sn + 1.5, 0.06 * m.prominence),
            (sn + 6, 0.0),
        ],
    )
    half = curve(
        y,
        [
            (-15, m.bridge * 1.15),
            (-2, m.bridge * 0.92),
            (0.45 * sn, m.bridge * 1.05),
            (tip_y - 6 * k, m.tip * 0.98),
            (tip_y, m.tip * (0.92 + 0.22 * change.tip_flat)),
            (sn - 2, 4.0 * k),
            (sn + 4, 4.0 * k),
        ],
    )
    u = np.abs(dx) / half
    total = height * np.exp(-0.5 * u * u)
    # The side walls spread to the cheeks.
    slope = curve(y, [(-12, 0.0), (2, 0.10), (0.5 * sn, 0.30), (sn - 8 * k, 0.34), (sn, 0.10), (sn + 4, 0.0)])
    total += slope * m.prominence * np.exp(-0.5 * np.square(dx / np.float32(0.95 * m.ala)))
    total += (
        2.1
        * k
        * (1 - 0.6 * change.tip_flat)
        * bump(x, y, (tip_x, tip_y - 0.5 * k), (0.62 * m.tip, 0.62 * m.tip))
    )
    for direction in (-1, 1):
        total += _wing(area, m, change, direction)
    return np.asarray(total)


def _wing(area: Plane, m: Measures, change: NoseChange, direction: int) -> Array:
    x, y, k = area.x, area.y, m.ala / 16
    wing = change.wings[direction]
    out = m.ala + wing.out
    at = (direction * (out - 4.1 * k), m.subnasale - 5.0 * k + wing.down)
    high = m.prominence * (0.43 - 0.17 * wing.flat) - 0.6 * wing.back
    body = high * bump(
        x, y, at, (3.5 * k * (1 + 0.16 * wing.flat), 4.5 * k * (1 - 0.12 * wing.flat)), -direction * 14
    )
    # The alar groove parts the wing from the cheek and from the side wall.
    fx, fy = (x - np.float32(at[0])) * direction, y - np.float32(at[1])
    radius = np.sqrt(np.square(fx) + np.square(fy * np.float32(0.86)))
    outside = step(fx - 0.55 * fy, -2.0 * k, 2.5 * k)
    groove = (1 - 0.45 * wing.flat) * 1.5 * k * ridge(radius - 6.2 * k, 1.25 * k) * outside
    rim = step(y, m.subnasale + wing.down + 4.0 * k, m.subnasale + wing.down - 1.0 * k)
    pit = nostril(m, change, direction)
    hole = nostril_depth(area, pit)
    return np.asarray((body - groove) * rim - 3.2 * k * hole)


def nostril_depth(area: Plane, pit: Nostril) -> Array:
    """0 outside a nostril to 1 in its depth, [H, W]."""
    t = np.radians(pit.turn)
    c, s = np.float32(np.cos(t)), np.float32(np.sin(t))
    dx, dy = area.x - np.float32(pit.x), area.y - np.float32(pit.y)
    u, v = (c * dx + s * dy) / np.float32(pit.a), (c * dy - s * dx) / np.float32(pit.b)
    return step(np.sqrt(u * u + v * v), 1.10, 0.55)
