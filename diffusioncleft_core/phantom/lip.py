"""The clinical part of the picture: mouth and nose base, whole, cleft or repaired.

Image left and right are the reverse of the patient's: a left cleft lies at larger x.
"""

import numpy as np

from .canvas import Canvas, Colour, Geometry, Points, ellipse, smooth
from .face import GAP, MUCOSA, TEETH, Cleft, PhantomFace, Repair, Side


def mix(a: Colour, b: Colour, share: float) -> tuple[float, float, float]:
    """`share` of b in a, channel by channel."""
    return (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2]))


def directions(side: Side) -> tuple[int, ...]:
    """Image directions (-1 left, +1 right) of the affected philtral ridges."""
    return {"left": (1,), "right": (-1,), "bilateral": (-1, 1)}[side]


def lip_colour(geo: Geometry, skin: Colour, subject: str) -> tuple[float, float, float]:
    """Vermilion: the skin reddened, never so pale or dark that the lip is lost."""
    red = mix(skin, (192.0, 66.0, 78.0), geo.lip_redness)
    return mix(red, (170.0, 30.0, 50.0), 0.30) if subject == "woman" else red


def _deviation(face: PhantomFace) -> tuple[float, float]:
    """(strength, image direction) of the nose's asymmetry; bilateral noses are wide, not turned."""
    if face.cleft and face.cleft.side != "bilateral":
        return face.cleft.nasal_asymmetry, float(directions(face.cleft.side)[0])
    if face.repair and face.repair.side != "bilateral":
        return 0.5 * face.repair.nose_asymmetry, float(directions(face.repair.side)[0])
    return 0.0, 0.0


def draw_nose(canvas: Canvas, geo: Geometry, face: PhantomFace, skin: Colour) -> None:
    """Bridge, wings and nostrils; on the side of a cleft the wing is flat, low and wide."""
    strength, direction = _deviation(face)
    wide = 1.25 if face.cleft and face.cleft.side == "bilateral" else 1.0
    shadow, light = mix(skin, (60.0, 25.0, 20.0), 0.34), mix(skin, (255.0, 250.0, 244.0), 0.30)
    tip = 0.5 - 0.016 * strength * direction
    hang = 0.018 * face.repair.tip_ptosis if face.repair else 0.0
    y, rx = geo.nose_y, geo.nose_rx * wide
    for sign in (-1, 1):
        bridge = smooth(
            [
                (0.5 + sign * geo.bridge, geo.eye_y),
                (0.5 + sign * geo.bridge * 0.9, y - 0.09),
                (tip + sign * rx * 0.62, y - 0.03),
            ],
            closed=False,
        )
        canvas.stroke(bridge, 0.014, shadow, 0.42, 0.007)
    canvas.fill(ellipse((tip, y - 0.028 + hang), rx * 0.46, 0.026), light, 0.55, 0.010)
    for sign in (-1, 1):
        hit = strength if sign == direction else 0.0
        wing_x = tip + sign * rx * (0.80 + 0.42 * hit)
        wing = ellipse((wing_x, y - 0.012 + 0.014 * hit), rx * 0.34, 0.024 * (1 - 0.45 * hit))
        canvas.fill(wing, mix(skin, shadow, 0.45), 0.8, 0.004)
        nostril = ellipse(
            (tip + sign * rx * (0.46 + 0.36 * hit), y + 0.004 + 0.012 * hit),
            rx * (0.24 + 0.22 * hit),
            0.012 * (1 - 0.25 * hit),
        )
        canvas.fill(nostril, mix(skin, (36.0, 12.0, 12.0), 0.74), 0.9, 0.002)
    canvas.stroke(
        smooth([(tip - rx * 0.5, y + 0.010), (tip, y + 0.018), (tip + rx * 0.5, y + 0.010)], closed=False),
        0.009,
        shadow,
        0.5,
        0.003,
    )


def _upper_edge(geo: Geometry, face: PhantomFace) -> list[tuple[float, float]]:
    """Vermilion border of the upper lip from corner to corner; a repair lifts its peak."""
    lift = {-1: 0.0, 1: 0.0}
    if face.repair:
        for d in directions(face.repair.side):
            lift[d] = 0.020 * face.repair.lip_asymmetry
    x, y, rx, h = 0.5, geo.mouth_y, geo.mouth_rx, geo.upper_lip
    return [
        (x - rx, y),
        (x - 0.62 * rx, y - 0.62 * h),
        (x - 0.26 * rx, y - h - lift[-1]),
        (x, y - h + geo.bow * (face.repair.bow if face.repair else 1.0)),
        (x + 0.26 * rx, y - h - lift[1]),
        (x + 0.62 * rx, y - 0.62 * h),
        (x + rx, y),
    ]


def draw_mouth(canvas: Canvas, geo: Geometry, face: PhantomFace, skin: Colour) -> None:
    """Philtrum, lips, a mouth that may stand open, then the cleft or the repair."""
    lips = lip_colour(geo, skin, face.attributes["subject"])
    dark = mix(lips, (70.0, 10.0, 20.0), 0.6)
    x, y, rx = 0.5, geo.mouth_y, geo.mouth_rx
    shadow = mix(skin, (60.0, 25.0, 20.0), 0.26)
    for sign in (-1, 1):
        column = np.array(
            [
                (x + sign * 0.018, geo.nose_y + 0.022),
                (x + sign * 0.026 * rx / 0.12, y - geo.upper_lip - 0.004),
            ]
        )
        canvas.stroke(column, 0.009, shadow, 0.28, 0.004)
    drop = face.pose.mouth_open * 0.030
    upper = _upper_edge(geo, face)
    inner = [(x + 0.55 * rx, y + 0.002), (x, y + 0.004), (x - 0.55 * rx, y + 0.002)]
    lower = [
        (x - rx, y),
        (x - 0.5 * rx, y + 0.004 + drop),
        (x, y + 0.006 + drop),
        (x + 0.5 * rx, y + 0.004 + drop),
        (x + rx, y),
        (x + 0.55 * rx, y + drop + 0.80 * geo.lower_lip),
        (x, y + drop + geo.lower_lip),
        (x - 0.55 * rx, y + drop + 0.80 * geo.lower_lip),
    ]
    if drop:
        canvas.fill(
            smooth([(x - rx * 0.9, y), (x, y - 0.004), (x + rx * 0.9, y), (x, y + drop + 0.014)]), GAP
        )
        teeth = smooth(
            [
                (x - rx * 0.5, y),
                (x + rx * 0.5, y),
                (x + rx * 0.36, y + 0.40 * drop),
                (x - rx * 0.36, y + 0.40 * drop),
            ]
        )
        canvas.fill(teeth, TEETH)
    canvas.fill(smooth(lower), mix(lips, (255.0, 200.0, 200.0), 0.12))
    canvas.fill(smooth(upper + inner, per_segment=6), lips)
    canvas.fill(
        ellipse((x, y + drop + 0.55 * geo.lower_lip), 0.42 * rx, 0.007), (255.0, 235.0, 235.0), 0.25, 0.006
    )
    if not drop:
        canvas.stroke(
            smooth(
                [
                    (x - rx, y),
                    (x - 0.4 * rx, y + 0.004),
                    (x, y + 0.002),
                    (x + 0.4 * rx, y + 0.004),
                    (x + rx, y),
                ],
                closed=False,
            ),
            0.008,
            dark,
        )
    if face.cleft:
        draw_cleft(canvas, geo, face.cleft, lips)
    if face.repair:
        draw_repair(canvas, geo, face.repair, skin)


def cleft_outline(geo: Geometry, cleft: Cleft, direction: int, grow: float = 0.0) -> Points:
    """Outline of one gap from the mouth opening upwards, widened by `grow`: [N, 2]."""
    bilateral = cleft.side == "bilateral"
    foot = 0.5 + direction * geo.mouth_rx * (0.40 if bilateral else 0.27)
    head = 0.5 + direction * geo.nose_rx * (0.62 if bilateral else 0.52)
    bottom = geo.mouth_y + 0.008
    reach = bottom - (geo.nose_y + 0.004)
    top = bottom - reach * min(1.0, cleft.severity + 0.02)
    share = (bottom - top) / reach
    middle = foot + (head - foot) * share
    half = geo.mouth_rx * (0.18 if bilateral else 0.27) * (0.80 + 0.25 * cleft.severity) + grow
    crest = half * (0.62 if cleft.severity >= 0.75 else 0.30)
    return smooth(
        [
            (foot - half, bottom + grow),
            (foot - half * 0.92, bottom - 0.35 * (bottom - top)),
            (middle - crest, top + 0.006 - grow),
            (middle, top - 0.004 - grow),
            (middle + crest, top + 0.006 - grow),
            (foot + half * 0.92, bottom - 0.35 * (bottom - top)),
            (foot + half, bottom + grow),
        ]
    )


def draw_cleft(canvas: Canvas, geo: Geometry, cleft: Cleft, lips: Colour) -> None:
    """The gap in the lip: a rim of vermilion turned up along its edges, dark inside."""
    for direction in directions(cleft.side):
        canvas.fill(cleft_outline(geo, cleft, direction, 0.016), mix(lips, MUCOSA, 0.55))
    for direction in directions(cleft.side):
        canvas.fill(cleft_outline(geo, cleft, direction), GAP)


def draw_repair(canvas: Canvas, geo: Geometry, repair: Repair, skin: Colour) -> None:
    """A scar from the nostril floor through the vermilion, with a notch in the lip below it."""
    if not repair.scar:
        return
    bright = sum(skin) / 3 > 130
    scar = mix(skin, (206.0, 84.0, 92.0), 0.78) if bright else mix(skin, (236.0, 168.0, 160.0), 0.70)
    for direction in directions(repair.side):
        line = smooth(
            [
                (0.5 + direction * geo.nose_rx * 0.52, geo.nose_y + 0.020),
                (0.5 + direction * geo.mouth_rx * 0.36, (geo.nose_y + geo.mouth_y) / 2),
                (0.5 + direction * geo.mouth_rx * 0.27, geo.mouth_y - 0.006),
            ],
            closed=False,
        )
        canvas.stroke(line, 0.022, scar, 0.55 + 0.45 * repair.scar, 0.0025)
        canvas.stroke(line, 0.008, mix(scar, (255.0, 240.0, 236.0), 0.55), 0.5 + 0.4 * repair.scar)
