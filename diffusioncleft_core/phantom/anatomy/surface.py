"""The head's surface put together on the frontal plane: height, colour, shine, and what each point is."""

from dataclasses import dataclass

import numpy as np

from ..face import PhantomFace
from .cleft import nose_of_cleft
from .eyes import Eye, brows, eye, sclera_veins
from .field import Array, Plane, blur, curve, plane, ridge, step, tinted, wide
from .hair import COLOURS, Hair, hair, style
from .light import direction, illuminate, shine
from .lips import Mood, Mouth, jaw_drop, lip_texture, mood, mouth
from .measures import Measures
from .nose import NoseChange, nose_height, nose_window, nostril, nostril_depth
from .pose import rotation
from .repair import nose_of_repair
from .shape import features, outline, skull, wrinkles
from .skin import base_colour, lip_colour, pores, skin_colour, srgb_to_linear

MUCOSA = np.array([0.20, 0.048, 0.046], np.float32)
DEPTH = np.array([0.105, 0.021, 0.021], np.float32)
TONGUE = np.array([0.40, 0.135, 0.125], np.float32)
TEETH = np.array([0.66, 0.61, 0.50], np.float32)
SCLERA = np.array([0.52, 0.47, 0.44], np.float32)
IRIS: dict[str, tuple[float, float, float]] = {
    "brown": (0.30, 0.175, 0.095),
    "green": (0.35, 0.40, 0.27),
    "blue": (0.36, 0.44, 0.53),
    "hazel": (0.46, 0.33, 0.16),
}
"""sRGB of irises."""


@dataclass(frozen=True)
class Head:
    """A head before it is turned; [H, W] unless said otherwise."""

    plane: Plane
    height: Array
    light: Array
    """[H, W, 3] linear RGB as it is lit."""
    cover: Array
    bald: Array
    """Share that is head, whether hair covers it or not."""
    skin: Array
    """Share that is skin of the face."""
    mouth: Mouth
    eyes: tuple[Eye, Eye]
    mood: Mood
    nose: NoseChange
    worn: Hair
    drop: float
    smooth: Array
    """Height that landmarks are read from."""


def nose_change(face: PhantomFace, m: Measures) -> NoseChange:
    """How this nose differs from a healthy one."""
    if face.cleft:
        return nose_of_cleft(face.cleft, m)
    return nose_of_repair(face.repair, m) if face.repair else NoseChange()


def head(face: PhantomFace, m: Measures, density: float, bottom: float) -> Head:
    """Build and light a head with `density` points a mm; long hair reaches `bottom` (mm)."""
    held = mood(face)
    drop = jaw_drop(m, held)
    worn = style(face, m)
    low = bottom + 12 if worn.long else m.gnathion + drop + 6
    area = plane(m.head_half + (38 if worn.long else 22), m.vertex - 24, low, density)
    turn = rotation(face.view)
    change = nose_change(face, m)
    shape = outline(area, m, drop)
    height, inside = skull(area, shape)
    lips = mouth(area, face, m, held, change)
    height += features(area, m, held.smile, held.cry, drop) + wrinkles(area, m, held.cry)
    part, window = nose_window(area, m)
    height[window] += nose_height(part, m, change)
    height[lips.window] += lips.height
    gaze = (
        12 * float(np.sin(np.radians(face.view.gaze[0] - 0.8 * face.view.yaw))),
        12 * float(np.sin(np.radians(face.view.gaze[1] + 0.8 * face.view.pitch))),
    )
    toward = direction(face.view.light) @ turn
    lit_from = (float(toward[0]), float(toward[1]))
    pair = tuple(eye(area, face, m, held, d, gaze, lit_from) for d in (-1, 1))
    for one in pair:
        height[one.window] += one.height
    on_head = step(inside, -0.4, 0.6)
    cap = hair(area, face, m, shape, inside, height)
    surface = height + pores(area, m, m.wrinkles)
    surface[lips.window] += lip_texture(lips, 1)
    surface = surface + cap.cover * (cap.height - surface)
    cover = np.maximum(on_head, cap.cover)
    skin = on_head * (1 - cap.cover)
    lit = illuminate(area, blur(surface, 0.35), face.view.light, turn, skin)
    colour, dull, wet, dark, bare = _materials(area, face, m, lips, (pair[0], pair[1]), change, skin)
    colour = _haired(area, face, cap, colour, toward)
    gloss = shine(lit, face.view.light, turn, dull * (1 - cap.cover), wet * (1 - cap.cover))
    light = colour * lit.light * wide(dark) + wide(gloss)
    for one in pair:
        w = one.window
        light[w] += (0.85 * one.glint * (1 - cap.cover[w]) * face.view.light.exposure)[..., None]
    # No deeper than the ears: what lies behind them is not to be seen within 20 degrees.
    deepest = np.float32(-80 * m.head_half / 74)
    return Head(
        area, np.maximum(np.where(cover > 0.02, surface, surface - 6), deepest), light, cover, on_head,
        bare * skin, lips, (pair[0], pair[1]), held,
        change, cap, drop, height,
    )  # fmt: skip


def _over(colour: Array, window: tuple[slice, slice], layer: Array, share: Array) -> None:
    here = colour[window]
    if layer.ndim == 1:
        layer = tinted(np.ones(here.shape[:2], np.float32), layer)
    change = layer - here
    change *= wide(np.asarray(share, np.float32))
    here += change


def _materials(
    area: Plane,
    face: PhantomFace,
    m: Measures,
    lips: Mouth,
    pair: tuple[Eye, Eye],
    change: NoseChange,
    skin: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """Albedo [H, W, 3], dull and wet shine, darkening in depths, and share of bare skin."""
    base = base_colour(face)
    level = float(base @ np.array([0.2126, 0.7152, 0.0722], np.float32))
    colour = skin_colour(area, face, m)
    k = m.mouth / 25
    y = area.y
    x = np.abs(area.x)
    dull: Array = np.full(area.shape, 0.030, np.float32)
    zone = (
        np.exp(-0.5 * np.square(x / np.float32(16 * k)))
        * step(y, 40 * k, 20 * k)
        * step(y, m.trichion, m.trichion + 20)
    )
    dull = dull * (0.75 + 0.9 * zone) * np.float32(1.0 + 0.5 * max(0.0, 0.25 - level) / 0.25)
    wet = 0.016 * zone
    dark = np.ones(area.shape, np.float32)
    bare = np.ones(area.shape, np.float32)
    red = lip_colour(base, m.lip_redness, face.attributes["subject"] == "woman")
    # The mouth.
    w = lips.window
    part = lips.plane
    # A scar is paler than a darker skin; on a light one it is pink, which is what is seen there.
    pale = base + (np.array([0.92, 0.74, 0.71], np.float32) - base) * np.float32(
        0.38 + 0.20 * min(level / 0.4, 1.0)
    )
    if level > 0.34:
        pale = base * np.array([0.90, 0.33, 0.35], np.float32)
    rosy = base * np.array([0.97, 0.66, 0.69], np.float32)
    _over(colour, w, colour[w] * 1.10, 0.7 * lips.roll)
    _over(colour, w, rosy, 0.75 * lips.redness * (1 - lips.vermilion))
    lower = np.float32(1.10 if level < 0.2 else 1.04)
    tone = red * (1 + (lower - 1) * lips.lower[..., None])
    _over(colour, w, tone, lips.vermilion)
    _over(colour, w, pale, np.clip(0.95 * lips.scar * (1 - 0.45 * lips.vermilion), 0, 1))
    hollow = np.broadcast_to(DEPTH, (*part.shape, 3)).copy()
    back = 0.55 + 0.45 * step(part.y, lips.lines.top, lips.lines.edge)
    hollow += (MUCOSA - DEPTH) * (0.30 * lips.gap * back)[..., None]
    hollow += lips.gum[..., None] * (MUCOSA * np.float32(1.20 - 0.05 * min(level / 0.4, 1.0)) - hollow)
    hollow += lips.tongue[..., None] * (TONGUE - hollow)
    curve_ = (1 - 0.45 * np.square(np.clip(part.x / np.float32(m.mouth), -1, 1)))[..., None]
    hollow += lips.teeth[..., None] * (TEETH * curve_ - hollow)
    _over(colour, w, hollow, lips.inside)
    wet[w] += 0.13 * lips.vermilion + 0.16 * lips.inside * np.maximum(lips.teeth, lips.gum) + 0.08 * lips.scar
    dull[w] *= 1 - 0.5 * lips.inside
    seam = ridge(part.y - curve(part.x, lips.lines.whole), 0.55 * k) * lips.vermilion
    dark[w] *= 1 - (0.45 if lips.lines.opening < 0.5 else 0.0) * seam
    bare[w] *= (1 - lips.vermilion) * (1 - lips.inside)
    # Nostrils.
    part, w = area.window(-2.2 * m.ala, m.subnasale - 14, 2.2 * m.ala, m.subnasale + 8)
    for d in (-1, 1):
        depth = nostril_depth(part, nostril(m, change, d))
        _over(colour, w, base * np.array([0.42, 0.22, 0.20], np.float32), depth)
        dark[w] *= 1 - 0.60 * depth
        dull[w] *= 1 - depth
    # Eyes.
    iris = srgb_to_linear(IRIS[face.attributes["eyes"]])
    for one in pair:
        w = one.window
        _over(colour, w, colour[w] * np.array([0.92, 0.84, 0.83], np.float32), 0.55 * one.lid)
        _over(colour, w, colour[w] * np.array([0.62, 0.52, 0.50], np.float32), 0.55 * one.crease)
        white = SCLERA * (
            1 - sclera_veins(one.plane, 5)[..., None] * np.array([0.02, 0.16, 0.16], np.float32)
        )
        ball = white + one.iris[..., None] * (iris * one.fibre[..., None] - white)
        ball = ball + one.pupil[..., None] * (np.float32(0.006) - ball)
        _over(colour, w, ball * one.shade[..., None], one.ball)
        _over(colour, w, base * np.array([0.95, 0.58, 0.55], np.float32), 0.8 * one.corner)
        dull[w] *= 1 - one.ball
        wet[w] = wet[w] * (1 - one.ball) + 0.05 * one.ball + 0.05 * one.corner
        bare[w] *= 1 - one.ball
        lash = srgb_to_linear((0.07, 0.055, 0.05))
        _over(colour, w, lash, one.lashes)
        dull[w] *= 1 - one.lashes
    strands_ = srgb_to_linear(COLOURS[face.attributes["hair_color"]]) * 0.55 + 0.002
    for d in (-1, 1):
        share, w = brows(area, m, mood(face), d)
        _over(colour, w, strands_, 0.86 * share)
        dull[w] *= 1 - 0.8 * share
    return colour, dull, wet, dark, bare


def _haired(area: Plane, face: PhantomFace, cap: Hair, colour: Array, toward: Array) -> Array:
    """Hair over skin: its colour by strand, with the bands that shine across it (after Kajiya and Kay,
    1989)."""
    base = srgb_to_linear(COLOURS[face.attributes["hair_color"]])
    slope_y = np.clip(cap.bulk, -3, 3)
    # Strands run down the surface: tangent (0, 1, slope); light and eye lie in the plane across it.
    length = np.sqrt(1 + slope_y * slope_y)
    half = np.array([0.5 * toward[0], 0.5 * toward[1], 0.5 * toward[2] + 0.5])
    half = half / np.linalg.norm(half)
    along = (np.float32(half[1]) + slope_y * np.float32(half[2])) / length
    along = along + 0.16 * (cap.tone - 1)
    across = np.maximum(1 - along * along, 0)
    band = np.square(np.square(np.square(np.square(across))))
    sheen = {"straight": 0.085, "wavy": 0.065, "curly": 0.045, "coily": 0.02}[face.attributes["hair_texture"]]
    tone = np.square(cap.tone) * 0.95
    lit = tinted(tone, base) + tinted(sheen * band * cap.tone, 0.12 + 2.2 * base)
    return np.asarray(colour + wide(cap.cover) * (lit - colour))
