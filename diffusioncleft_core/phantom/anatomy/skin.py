"""The skin's colour: measured tones, redder and darker places, freckles, moles, blemishes, stubble, pores.

Tones are CIELAB colours with the individual typology angle ITA = atan((L* - 50) / b*) of Chardon, Cretois and
Hourseau (Int J Cosmet Sci 1991): above 55 degrees very light, 41 to 55 light, 28 to 41 intermediate, 10 to
28 tan,
-30 to 10 brown, below dark. Table 1's words map to them; olive is a tan skin with less red (hue angle 66
degrees), no
khaki. a* and b* stay within what spectrophotometers read on faces (a* 6 to 15, b* 11 to 24).
"""

import cv2
import numpy as np

from ..face import PhantomFace
from .field import Array, Plane, bump, noise, ridge, step
from .measures import Measures

TONES: dict[str, tuple[float, float, float]] = {
    "pale": (78.5, 7.5, 11.5),
    "fair": (72.0, 13.5, 16.5),
    "light": (69.5, 9.5, 21.0),
    "medium": (56.5, 14.0, 21.0),
    "olive": (60.0, 9.6, 21.5),
    "dark": (35.5, 11.5, 16.0),
}
"""CIELAB (D65) of the cheek; ITA 68, 53, 43, 17, 25 and -42 degrees."""


def ita(tone: tuple[float, float, float]) -> float:
    """The individual typology angle of a CIELAB colour, degrees."""
    return float(np.degrees(np.arctan2(tone[0] - 50, tone[2])))


def lab_to_linear(lab: tuple[float, float, float]) -> Array:
    """CIELAB (D65, 2 degrees) to linear sRGB, [3]."""
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([0.95047, 1.0, 1.08883])
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    return np.asarray(np.clip(matrix @ xyz, 0.002, 1), np.float32)


def srgb_to_linear(colour: tuple[float, float, float]) -> Array:
    """sRGB 0 to 1 to linear light, [3] (IEC 61966-2-1)."""
    c = np.asarray(colour, np.float64)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), np.float32)


def base_colour(face: PhantomFace) -> Array:
    """The person's own cheek, linear RGB [3]: the tone's middle and a small deviation."""
    z = np.tanh(face.identity[24:27])
    lightness, a, b = TONES[face.attributes["skin"]]
    return lab_to_linear((lightness + 1.6 * z[0], a + 0.8 * z[1], b + 0.9 * z[2]))


def lip_colour(skin: Array, redness: float, painted: bool) -> Array:
    """Vermilion: the same skin with the blood shining through, linear RGB [3]."""
    level = float(skin @ np.array([0.2126, 0.7152, 0.0722], np.float32))
    dark = float(np.clip((0.22 - level) / 0.16, 0, 1))
    tint = (
        np.array([0.90, 0.43, 0.50], np.float32) * (1 - dark)
        + np.array([0.98, 0.68, 0.70], np.float32) * dark
    )
    red = skin * (1 - redness * (1 - tint) * 1.18)
    if painted:
        red = red * np.array([1.0, 0.80, 0.84], np.float32)
    return np.maximum(red, 0.004)


def skin_colour(area: Plane, face: PhantomFace, m: Measures) -> Array:
    """Albedo of the face's skin without lips and eyes, linear RGB [H, W, 3]."""
    base = base_colour(face)
    level = float(base @ np.array([0.2126, 0.7152, 0.0722], np.float32))
    dark = float(np.clip((0.22 - level) / 0.16, 0, 1))
    x, y = np.abs(area.x), area.y
    k = m.pupil / 31
    baby = face.attributes["subject"] == "baby"
    seed = int(abs(face.identity[0]) * 1e6)
    # Blood: cheeks, tip and wings of the nose, chin, ears; less of it round the eyes and on the forehead.
    blood = 1.0 * bump(x, y, (1.30 * m.pupil, 0.72 * m.subnasale), (13 * k, 11 * k))
    blood += 0.9 * bump(x, y, (0.0, m.subnasale - m.tip_lift), (8 * k, 7 * k))
    blood += 0.7 * bump(x, y, (m.ala, m.subnasale - 3 * k), (5 * k, 5 * k))
    blood += 0.35 * bump(x, y, (0.0, m.gnathion - 12 * k), (13 * k, 9 * k))
    blood += 0.28 * noise((seed, 41), area, 13 * k) + 0.14 * noise((seed, 42), area, 4.5 * k)
    # Melanin: lids and the skin under the eyes, and a slow mottling.
    brown = 0.55 * bump(x, y, (m.pupil, 1.0), (15 * k, 8.5 * k)) + 0.35 * bump(
        x, y, (0.8 * m.pupil, 10 * k), (9 * k, 4 * k)
    )
    brown += 0.18 * noise((seed, 43), area, 22 * k) + 0.10 * noise((seed, 44), area, 3.0 * k)
    brown -= 0.30 * bump(x, y, (0.0, m.brow + 0.5 * (m.trichion - m.brow)), (30 * k, 15 * k))
    if area.density > 1.4:
        brown += 0.09 * noise((seed, 45), area, 1.1 * k)
    rosy = (1.25 if baby else 1.0) * (1 - 0.55 * dark)
    absorb_blood = np.array([0.02, 0.16, 0.13], np.float32) * np.float32(rosy)
    absorb_brown = np.array([0.10, 0.15, 0.19], np.float32) * np.float32(1 + 0.5 * dark)
    brown += _freckles(area, m, seed, dark) + _moles(area, face, m)
    if face.attributes["subject"] == "man":
        brown += _stubble(area, face, m) * (1 - 0.5 * dark)
    if not baby:
        blood += _blemishes(area, face, m)
    planes = [
        np.float32(colour) * np.exp(-(blood * np.float32(b) + brown * np.float32(m_)))
        for colour, b, m_ in zip(base, absorb_blood, absorb_brown, strict=True)
    ]
    return np.asarray(cv2.merge(planes), np.float32)


def _freckles(area: Plane, m: Measures, seed: int, dark: float) -> Array:
    if m.freckles < 0.1 or dark > 0.5:
        return np.zeros(area.shape, np.float32)
    k = m.pupil / 31
    spots = np.clip(noise((seed, 46), area, 2.3 * k) - 0.85, 0, 1.6) * 1.3
    where = bump(np.abs(area.x), area.y, (0.75 * m.pupil, 0.52 * m.subnasale), (24 * k, 16 * k))
    return np.asarray(np.float32(1.5 * min(1.0, m.freckles)) * spots * where)


def _moles(area: Plane, face: PhantomFace, m: Measures) -> Array:
    total = np.zeros(area.shape, np.float32)
    draw = np.random.default_rng([int(abs(face.identity[20]) * 1e6), 47])
    k = m.pupil / 31
    for _ in range(int(min(4, m.moles * 1.6))):
        x = float(draw.uniform(0.35, 0.86) * m.face_half * draw.choice([-1, 1]))
        y = float(draw.uniform(-1.3, 2.3) * 30 * k)
        size = float(draw.uniform(0.7, 1.6)) * k
        part, window = area.window(x - 5, y - 5, x + 5, y + 5)
        total[window] += np.float32(draw.uniform(2.5, 6.0)) * bump(part.x, part.y, (x, y), (size, size))
    return total


def _blemishes(area: Plane, face: PhantomFace, m: Measures) -> Array:
    total = np.zeros(area.shape, np.float32)
    draw = np.random.default_rng([int(abs(face.identity[21]) * 1e6), 48])
    k = m.pupil / 31
    for _ in range(int(draw.integers(0, 6))):
        x, y = float(draw.uniform(-0.8, 0.8) * m.face_half), float(draw.uniform(-45, 95)) * k
        size = float(draw.uniform(0.8, 1.8)) * k
        part, window = area.window(x - 6, y - 6, x + 6, y + 6)
        total[window] += np.float32(draw.uniform(0.8, 2.2)) * bump(part.x, part.y, (x, y), (size, size))
    return total


def _stubble(area: Plane, face: PhantomFace, m: Measures) -> Array:
    """The shadow of a beard: jaw, chin and upper lip, by how dark the hair is."""
    x, y, k = np.abs(area.x), area.y, m.pupil / 31
    amount = {"black": 0.75, "brown": 0.5, "red": 0.28, "blonde": 0.15}[face.attributes["hair_color"]]
    amount *= 0.55 + 0.45 * float(np.tanh(face.identity[38]))
    jaw = step(y + 0.10 * x, m.subnasale - 1 * k, m.stomion + 6 * k)
    cheek = step(x - 0.55 * (y - m.stomion), 0.35 * m.jaw_half, 0.80 * m.jaw_half)
    chin = step(y, m.stomion + 4 * k, m.stomion + 16 * k)
    lip = bump(x, y, (0.42 * m.mouth, m.subnasale + 8 * k), (0.42 * m.mouth, 5.5 * k))
    shadow = np.clip(jaw * np.maximum(cheek, chin) + 0.8 * lip, 0, 1)
    grain = 1.0 if area.density < 1.2 else np.clip(1 + 0.5 * noise((61, 1), area, 0.8), 0.2, 2)
    return np.asarray(amount * shadow * grain * 1.1, np.float32)


def pores(area: Plane, m: Measures, wrinkled: float) -> Array:
    """Relief of the skin, mm [H, W]: as much of it as the grid can show."""
    k = m.pupil / 31
    total = 0.05 * noise((81, 1), area, 5.0 * k)
    if area.density > 0.9:
        total += 0.040 * noise((81, 2), area, 2.0 * k)
    if area.density > 1.4:
        total += (0.026 + 0.02 * wrinkled) * noise((81, 3), area, 0.9)
    if area.density > 2.0:
        total += (0.016 + 0.012 * wrinkled) * noise((81, 4), area, 0.5)
    nose = ridge(area.x, 14 * k) * step(area.y, -5, 10 * k)
    return np.asarray(total * (0.7 + 0.8 * nose), np.float32)
