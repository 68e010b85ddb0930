"""The head's surface: skull, forehead, brow, sockets, cheeks, jaw and chin, as height over the frontal
plane."""

from dataclasses import dataclass

import numpy as np

from .field import Array, Plane, bump, curve, ridge, step
from .measures import Measures


@dataclass(frozen=True)
class Outline:
    """The skull by rows: half breadth, height of the middle line, depth from there to the side; mm, [H,
    1]."""

    half: Array
    middle: Array
    depth: Array
    bottom: Array
    """y where the jaw ends, by column, [1, W]."""


def outline(area: Plane, m: Measures, drop: float = 0.0) -> Outline:
    """Half breadth and midline by rows. `drop` mm is how far the jaw is open."""
    y = area.y
    chin = m.gnathion + drop
    low = chin - m.subnasale
    v = m.vertex
    face, head = m.face_half * 1.035, m.head_half
    knots = [
        (v - 0.5, -2.0),
        (v, 0.0),
        (0.985 * v, 0.175 * head),
        (0.94 * v, 0.395 * head),
        (0.84 * v, 0.635 * head),
        (0.66 * v, 0.865 * head),
        (0.44 * v, 1.0 * head),
        (0.20 * v, 0.99 * head),
        (0.0, 0.5 * (0.95 * head + face)),
        (0.5 * m.subnasale, face),
        (m.subnasale, 0.55 * face + 0.45 * m.jaw_half * 1.12),
        (m.subnasale + 0.42 * low, m.jaw_half * 1.0),
        (m.subnasale + 0.62 * low, 0.66 * m.jaw_half + 0.36 * m.chin_half),
        (m.subnasale + 0.78 * low, 0.42 * m.jaw_half + 0.56 * m.chin_half),
        (m.subnasale + 0.90 * low, 0.18 * m.jaw_half + 0.72 * m.chin_half),
        (m.subnasale + 0.965 * low, 0.05 * m.jaw_half + 0.66 * m.chin_half),
        (chin, 0.34 * m.chin_half),
        (chin + 0.8, 0.0),
        (chin + 1.3, -2.0),
    ]
    half = curve(y, knots)
    big = head / 74
    middle = curve(
        y,
        [
            (v, -84 * big),
            (0.96 * v, -56 * big),
            (0.86 * v, -30 * big),
            (0.70 * v, -10 * big),
            (0.50 * v, 0.0),
            (0.30 * v, 4.0 * big),
            (0.18 * v, 4.0 * big + 1.6 * m.brow_ridge),
            (-2, -1.0),
            (0.5 * m.subnasale, -2.5),
            (m.subnasale, -1.5 * big),
            (m.subnasale + 0.33 * low, 1.0 * big),
            (m.subnasale + 0.58 * low, -3.0 * big),
            (m.subnasale + 0.78 * low, -1.0 * big + 2.2 * (m.chin - 0.8)),
            (m.subnasale + 0.93 * low, -5.0 * big + 2.2 * (m.chin - 0.8)),
            (chin + 0.5, -16 * big),
            (chin + 2, -24 * big),
        ],
    )
    depth = curve(
        y,
        [
            (v, 10 * big),
            (0.85 * v, 55 * big),
            (0.45 * v, 92 * big),
            (0.0, 92 * big),
            (m.subnasale, 88 * big),
            (m.subnasale + 0.55 * low, 70 * big),
            (m.subnasale + 0.85 * low, 42 * big),
            (chin, 26 * big),
        ],
    )
    return Outline(half, middle, depth, area.x * 0 + chin)


def skull(area: Plane, shape: Outline, grow: float = 0.0) -> tuple[Array, Array]:
    """Height of the smooth head [H, W] mm, and how far (mm) each point lies inside its outline.

    The section is an ellipse; beyond the outline the surface falls off steeply. `grow` mm widens it.
    """
    half = np.maximum(shape.half + np.float32(grow), 0.5)
    u = np.abs(area.x) / half
    inside = np.maximum(1 - np.square(np.minimum(u, 1.0)), 0)
    height = shape.middle - shape.depth * (1 - np.sqrt(inside))
    over = np.maximum(u - 1, 0) * half
    return height - 4.0 * over, shape.half + np.float32(grow) - np.abs(area.x)


def features(area: Plane, m: Measures, smile: float, cry: float, drop: float) -> Array:
    """Brow, sockets, cheekbones, cheeks, folds, chin: what they add to the smooth head, mm [H, W]."""
    x, y = np.abs(area.x), area.y
    k, wide = m.subnasale / 48, m.pupil / 31
    chin = m.gnathion + drop
    corner_x, corner_y = m.mouth * (1 + 0.14 * smile), m.stomion - 1.0 * k - 5.6 * k * smile
    # Sockets, and the brow over them.
    total = -5.2 * wide * bump(x, y, (m.pupil, 0.5), (13.5 * wide, 8.5 * wide))
    total -= 3.4 * wide * bump(x, y, (0.52 * m.pupil, -2), (6.0 * wide, 7 * wide))
    total += (1.0 + 2.4 * m.brow_ridge) * bump(
        x, y, (0.78 * m.pupil, m.brow + 1.5), (15 * wide, 5.2 * wide), -5
    )
    total -= (
        1.8 * (1 + 0.6 * m.brow_ridge) * bump(x, y, (m.face_half * 0.93, -18 * wide), (9 * wide, 17 * wide))
    )
    total += 1.6 * wide * bump(x, y, (0.45 * m.head_half, 0.62 * m.vertex), (17 * wide, 17 * wide))
    # Cheekbones, the fat of the cheeks, the hollow under the cheekbone.
    total += (
        (3.4 + 2.0 * m.cheekbone)
        * wide
        * bump(x, y, (1.36 * m.pupil, 0.50 * m.subnasale), (12 * wide, 9 * k), 24)
    )
    total -= 2.4 * m.cheekbone * bump(x, y, (1.50 * m.pupil, m.stomion - 6 * k), (10 * wide, 13 * k), 12)
    total += 6.5 * m.cheek * wide * bump(x, y, (1.32 * m.pupil, m.subnasale + 7 * k), (13 * wide, 14 * k))
    total += 3.2 * smile * wide * bump(x, y, (1.2 * m.pupil, 0.62 * m.subnasale), (11 * wide, 9 * k), 20)
    # The nasolabial fold runs from the wing to outside the corner of the mouth.
    fold = m.fold + 0.75 * smile + 0.55 * cry
    t = np.clip((y - (m.subnasale - 7 * k)) / np.float32(corner_y + 7 * k - m.subnasale + 7 * k), 0, 1)
    line = (m.ala + 2.4 * k) + (corner_x + 6.5 * k - m.ala - 2.4 * k) * np.power(t, 1.25)
    along = step(y, m.subnasale - 10 * k, m.subnasale + 2 * k) * step(y, corner_y + 9 * k, corner_y - 6 * k)
    side = x - line
    total += fold * along * (-1.1 * ridge(side, 2.3 * k) + 1.5 * ridge(side - 5.5 * k, 4.6 * k))
    # Muzzle: the teeth carry the lips forward.
    total += 4.2 * k * bump(x, y, (0.0, m.stomion + 0.3 * drop), (0.92 * m.mouth, 13 * k))
    # Corner of the mouth, sulcus, chin.
    total -= 1.3 * k * bump(x, y, (corner_x + 3.4 * k, corner_y + 1), (3.2 * k, 4.5 * k))
    low = m.stomion + drop + m.lower_vermilion
    sulcus = low + 0.27 * (chin - low)
    total -= (1.5 + 0.8 * m.chin) * k * bump(x, y, (0.0, sulcus), (0.62 * m.mouth, 3.6 * k))
    total += (
        (1.6 + 2.2 * m.chin) * k * bump(x, y, (0.0, low + 0.62 * (chin - low)), (m.chin_half * 0.72, 7.5 * k))
    )
    total += cry * 0.8 * bump(x, y, (0.0, low + 0.5 * (chin - low)), (9 * k, 5 * k))
    return total


def wrinkles(area: Plane, m: Measures, cry: float) -> Array:
    """Lines of the forehead, between the brows, at the outer canthi, mm [H, W]."""
    x, y = np.abs(area.x), area.y
    wide = m.pupil / 31
    total = -0.9 * cry * ridge(x - 5.5 * wide, 1.3) * bump(x * 0, y, (0, m.brow), (1, 6))
    if m.wrinkles > 0.05:
        for n, share in enumerate((0.30, 0.48, 0.66)):
            line = m.brow + share * (m.trichion - m.brow) + 2.0 * np.cos(area.x * 0.05 + n)
            total -= 0.38 * m.wrinkles * ridge(y - line, 0.9) * step(x, 44 * wide, 18 * wide)
        for turn in (-24, 4, 30):
            total -= 0.34 * m.wrinkles * bump(x, y, (m.pupil + m.fissure + 7, turn * 0.14), (4.6, 0.6), turn)
    # Under the lids.
    y_bag = 1.05 * m.aperture + 0.010 * np.square(x - m.pupil)
    total -= (0.35 + 0.8 * m.wrinkles) * ridge(y - y_bag + 1.0, 1.1) * ridge(x - m.pupil + 3, 9 * wide)
    return total.astype(np.float32)
