"""Everything around the mouth: background, hair, head, ears, eyes and brows."""

from itertools import pairwise

import numpy as np

from .canvas import Canvas, Colour, Geometry, Points, ellipse, smooth
from .face import EYES, HAIR, PUPIL, SCLERA, PhantomFace
from .lip import mix


def draw_behind(canvas: Canvas, geo: Geometry, face: PhantomFace, skin: Colour) -> None:
    """Hair behind the head, neck and shoulders."""
    hair = HAIR[face.attributes["hair_color"]]
    if face.attributes["hair_length"] == "long":
        canvas.fill(_hair_outline(geo, face, 1.16, 1.02), mix(hair, (0.0, 0.0, 0.0), 0.22))
    canvas.fill(
        np.array([(0.40, 0.80), (0.60, 0.80), (0.62, 1.10), (0.38, 1.10)]),
        mix(skin, (60.0, 25.0, 20.0), 0.30),
    )
    canvas.fill(
        smooth(
            [
                (0.02, 1.20),
                (0.16, 0.975),
                (0.40, 0.93),
                (0.5, 0.965),
                (0.60, 0.93),
                (0.84, 0.975),
                (0.98, 1.20),
            ]
        ),
        face.pose.clothing,
    )
    if face.attributes["hair_length"] == "long":
        for sign in (-1, 1):
            lock = smooth(
                [
                    (0.5 + sign * (geo.cheek + 0.05), 0.45),
                    (0.5 + sign * (geo.cheek + 0.10), 0.75),
                    (0.5 + sign * (geo.cheek + 0.03), 1.05),
                    (0.5 + sign * (geo.cheek - 0.10), 1.05),
                    (0.5 + sign * (geo.cheek - 0.03), 0.75),
                ]
            )
            canvas.fill(_textured(lock, face, 0.8), hair)


def _textured(outline: Points, face: PhantomFace, strength: float = 1.0) -> Points:
    """Hair outline with its texture: smooth, waved or curled at the rim, each as large as 128 px can show."""
    texture = face.attributes["hair_texture"]
    if texture == "straight":
        return outline
    waves, height = (7, 0.026) if texture == "wavy" else (13, 0.034)
    closed = np.concatenate([outline, outline[:1]])
    dense = np.concatenate([np.linspace(a, b, 6, endpoint=False) for a, b in pairwise(closed)])
    centre = dense.mean(0)
    offset = dense - centre
    radius = np.linalg.norm(offset, axis=1, keepdims=True) + 1e-9
    angle = np.arctan2(offset[:, 1:], offset[:, :1])
    ripple = np.sin(waves * angle) if texture == "wavy" else np.abs(np.sin(0.5 * waves * angle)) * 1.7 - 0.7
    moved: Points = dense + strength * height * ripple * offset / radius
    return moved


def _hair_outline(geo: Geometry, face: PhantomFace, spread: float, bottom: float) -> Points:
    w = geo.cheek * spread + 0.03
    return _textured(
        smooth(
            [
                (0.5, geo.top - 0.085),
                (0.5 + 0.80 * w, geo.top + 0.03),
                (0.5 + w, 0.42),
                (0.5 + w * 0.98, bottom),
                (0.5 - w * 0.98, bottom),
                (0.5 - w, 0.42),
                (0.5 - 0.80 * w, geo.top + 0.03),
            ]
        ),
        face,
    )


def head_outline(geo: Geometry) -> Points:
    """Outline of the head without hair and ears, [N, 2]."""
    half = [
        (0.0, geo.top),
        (0.62 * geo.cheek, geo.top + 0.035),
        (0.96 * geo.cheek, 0.36),
        (geo.cheek, 0.54),
        (geo.jaw, 0.745),
        (0.52 * geo.jaw, geo.chin - 0.028),
    ]
    right = [(0.5 + x, y) for x, y in half]
    left = [(0.5 - x, y) for x, y in half[:0:-1]]
    return smooth([*right, (0.5, geo.chin), *left])


def draw_head(canvas: Canvas, geo: Geometry, face: PhantomFace, skin: Colour) -> None:
    """Cap of hair, ears, head with shading and blush."""
    hair = HAIR[face.attributes["hair_color"]]
    shadow = mix(skin, (60.0, 25.0, 20.0), 0.30)
    canvas.fill(_hair_outline(geo, face, 1.06, 0.50), hair)
    for sign in (-1, 1):
        canvas.fill(
            ellipse((0.5 + sign * (geo.cheek + 0.010), geo.eye_y + 0.055), 0.036, geo.ear),
            mix(skin, shadow, 0.30),
        )
        canvas.fill(
            ellipse((0.5 + sign * (geo.cheek + 0.014), geo.eye_y + 0.055), 0.015, geo.ear * 0.55),
            shadow,
            0.6,
            0.004,
        )
    outline = head_outline(geo)
    canvas.fill(outline, skin)
    canvas.stroke(np.concatenate([outline, outline[:1]]), 0.012, shadow, 0.35, 0.010)
    for sign in (-1, 1):
        canvas.fill(
            ellipse((0.5 + sign * 0.62 * geo.cheek, geo.nose_y + 0.02), 0.065, 0.05),
            mix(skin, (226.0, 96.0, 92.0), 0.55),
            0.28,
            0.028,
        )
    if face.attributes["subject"] == "man":
        beard = smooth(
            [
                (0.5 - 0.9 * geo.jaw, 0.74),
                (0.5, geo.mouth_y + 0.055),
                (0.5 + 0.9 * geo.jaw, 0.74),
                (0.5, geo.chin),
            ]
        )
        canvas.fill(beard, mix(skin, hair, 0.42), 0.42, 0.016)
    if geo.mole[2]:
        canvas.fill(ellipse(geo.mole[:2], geo.mole[2], geo.mole[2], 16), mix(skin, (58.0, 30.0, 24.0), 0.75))


def draw_fringe(canvas: Canvas, geo: Geometry, face: PhantomFace) -> None:
    """Hair over the forehead with its parting, and strands that show the texture."""
    hair = HAIR[face.attributes["hair_color"]]
    w, part = geo.cheek * 1.03, 0.5 + geo.parting
    cap = smooth(
        [
            (0.5 - w, 0.45),
            (0.5 - 0.84 * w, geo.hairline + 0.05),
            (part, geo.hairline - 0.03),
            (0.5 + 0.84 * w, geo.hairline + 0.05),
            (0.5 + w, 0.45),
            (0.5 + w * 1.04, 0.32),
            (0.5 + 0.7 * w, geo.top - 0.02),
            (0.5, geo.top - 0.07),
            (0.5 - 0.7 * w, geo.top - 0.02),
            (0.5 - w * 1.04, 0.32),
        ]
    )
    canvas.fill(_textured(cap, face, 0.8), hair)
    bright = sum(hair) / 3
    strand = mix(hair, (255.0, 236.0, 200.0), 0.28) if bright < 90 else mix(hair, (70.0, 35.0, 10.0), 0.34)
    texture = face.attributes["hair_texture"]
    if texture == "curly":
        for row in (0, 1):
            for k in np.linspace(-0.75, 0.75, 5 + row):
                curl = (0.5 + k * w, geo.top - 0.025 + 0.075 * row + 0.05 * k * k)
                canvas.stroke(ellipse(curl, 0.032, 0.030, 20), 0.014, strand, 0.8)
        return
    if texture == "wavy":
        k = np.linspace(-0.85, 0.85, 40)
        for row in (0, 1):
            y = geo.top - 0.035 + 0.07 * row + 0.07 * k * k + 0.022 * np.sin(9 * k)
            canvas.stroke(np.stack([0.5 + k * w, y], 1), 0.016, strand, 0.8)
        return
    for k in np.linspace(-0.86, 0.86, 7):
        t = np.linspace(0, 1, 22)
        x = part + (k * w - geo.parting) * (0.25 + 0.75 * t)
        y = geo.top - 0.045 + (geo.hairline + 0.05 - geo.top) * t * (0.35 + 0.9 * abs(k))
        canvas.stroke(np.stack([x, y], 1), 0.012, strand, 0.75)


def draw_eyes(canvas: Canvas, geo: Geometry, face: PhantomFace, skin: Colour) -> None:
    """Sclera, iris, pupil, lid, lashes and brow of both eyes."""
    iris = EYES[face.attributes["eyes"]]
    lashes = face.attributes["subject"] in ("girl", "woman")
    line = mix(HAIR["black"], skin, 0.15)
    brow = mix(HAIR[face.attributes["hair_color"]], (40.0, 26.0, 20.0), 0.35)
    for sign in (-1, 1):
        cx, cy = 0.5 + sign * geo.eye_dx, geo.eye_y
        tilt = np.radians(geo.eye_tilt) * -sign
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])

        def at(
            points: list[tuple[float, float]], cx: float = cx, cy: float = cy, turn: Points = turn
        ) -> Points:
            return np.asarray(points) @ turn.T + [cx, cy]

        rx, ry = geo.eye_rx, geo.eye_ry
        almond = smooth(
            [
                (-rx, 0.004),
                (-0.5 * rx, -0.80 * ry),
                (0, -ry),
                (0.5 * rx, -0.80 * ry),
                (rx, 0.004),
                (0.5 * rx, 0.72 * ry),
                (0, 0.85 * ry),
                (-0.5 * rx, 0.72 * ry),
            ]
        )
        canvas.fill(at(list(map(tuple, almond * 1.16))), mix(skin, (90.0, 45.0, 40.0), 0.22), 0.6, 0.006)
        canvas.fill(at(list(map(tuple, almond))), SCLERA)
        r = min(geo.iris, 0.93 * ry)
        canvas.fill(ellipse((cx, cy), r, r), mix(iris, PUPIL, 0.45))
        canvas.fill(ellipse((cx, cy), r * 0.86, r * 0.86), iris)
        canvas.fill(ellipse((cx, cy), r * 0.38, r * 0.38, 20), PUPIL)
        canvas.fill(ellipse((cx + 0.010, cy - 0.012), 0.008, 0.008, 12), (255.0, 255.0, 255.0))
        lid = smooth(
            [(-rx, 0.004), (-0.5 * rx, -0.82 * ry), (0, -1.02 * ry), (0.5 * rx, -0.82 * ry), (rx, 0.004)],
            closed=False,
        )
        canvas.stroke(at(list(map(tuple, lid))), 0.018 if lashes else 0.010, line)
        if lashes:
            canvas.stroke(at([(sign * rx, 0.0), (sign * rx * 1.32, -0.022)]), 0.010, line)
        y = -ry - geo.brow_gap
        arch = smooth(
            [
                (-1.1 * rx, y + 0.012),
                (-0.4 * rx, y - 0.6 * geo.brow_arch),
                (0.4 * rx, y - 0.6 * geo.brow_arch),
                (1.1 * rx, y + 0.012),
            ],
            closed=False,
        )
        canvas.stroke(at(list(map(tuple, arch))), max(geo.brow_width, 0.007), brow, 0.92)
