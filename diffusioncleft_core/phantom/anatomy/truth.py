"""What is known of a picture: landmarks, lip contour, masks, boxes."""

import numpy as np
from numpy.typing import NDArray

from ..face import PhantomFace
from .field import curve
from .lips import lower_lines
from .measures import Measures
from .nose import nostril, tip_point
from .pose import Camera3D
from .surface import Head

Points = NDArray[np.float64]


def _on(head: Head, points: list[tuple[float, float]]) -> Points:
    """[N, 3] mm: the points of the frontal plane with the surface's height."""
    p = np.array(points, np.float64)
    j = np.clip(
        head.plane.columns(p[:, 0].astype(np.float32)).round().astype(int), 0, head.plane.shape[1] - 1
    )
    i = np.clip(head.plane.rows(p[:, 1].astype(np.float32)).round().astype(int), 0, head.plane.shape[0] - 1)
    return np.column_stack([p, head.smooth[i, j]])


def landmarks68(face: PhantomFace, m: Measures, head: Head, cam: Camera3D) -> NDArray[np.float32]:
    """[68, 2] px in iBUG's order: jaw, brows, nose, eyes, outer and inner lips; from the picture's left."""
    k = m.pupil / 31
    jaw = []
    rows, halves = head_rows(head), head_half(head)
    chin = m.gnathion + head.drop
    for t in np.linspace(-1, 1, 17):
        y = 6 + (chin - 4) * np.sin(np.pi / 2 * (1 - abs(t))) ** 0.92
        half = float(np.interp(y, rows, halves))
        jaw.append((float(np.sign(t)) * half * 0.97 if t else 0.0, float(min(y, chin - 1))))
    points = list(jaw)
    for d in (-1, 1):
        for u in (0.02, 0.25, 0.5, 0.75, 0.98) if d > 0 else (0.98, 0.75, 0.5, 0.25, 0.02):
            s = -18 * k + 39 * k * u
            line = m.brow + 1.2 * k - m.brow_arch * np.sin(np.pi * u**1.35) + 3.0 * k * u**3
            points.append((d * (m.pupil + s), float(line)))
    tip_x, tip_y = tip_point(m, head.nose)
    points += [(0.0, -1.0), (0.10 * tip_x, 0.28 * tip_y), (0.4 * tip_x, 0.62 * tip_y), (tip_x, tip_y)]
    left, right = (nostril(m, head.nose, d) for d in (-1, 1))
    wings = head.nose.wings
    points += [
        (-(m.ala * 0.86 + wings[-1].out), m.subnasale - 1.5 * k + wings[-1].down),
        (left.x, left.y + left.b),
        (head.nose.columella_x, m.subnasale),
        (right.x, right.y + right.b),
        (m.ala * 0.86 + wings[1].out, m.subnasale - 1.5 * k + wings[1].down),
    ]
    for d in (-1, 1):
        points += _lids(m, d, head)
    points += _lips(m, head)
    return cam.project(_on(head, points)).astype(np.float32)


def _lids(m: Measures, d: int, head: Head) -> list[tuple[float, float]]:
    shut = head.mood.closed
    squint = 1 - 0.24 * head.mood.smile - 0.25 * head.mood.cry

    def lid(u: float, upper: bool) -> tuple[float, float]:
        arch = max(1 - u * u, 0.0)
        tilt = -m.tilt * u * 0.5
        low = tilt + 0.53 * m.aperture * (1 - 0.3 * head.mood.smile) * (1 - 0.12 * shut) * arch**0.8 * (
            1 + 0.2 * u
        )
        top = tilt - 0.43 * m.aperture * squint * (1 - shut) * arch**0.62 * (1 - 0.16 * u)
        top = min(top + 0.4876 * m.aperture * arch**0.8 * shut * (1 + 0.2 * u), low)
        return d * (m.pupil + u * m.fissure), top if upper else low

    inner, outer = lid(-1, True), lid(1, True)
    upper, lower = [lid(-0.35, True), lid(0.35, True)], [lid(0.35, False), lid(-0.35, False)]
    if d < 0:
        return [outer, upper[1], upper[0], inner, lower[1], lower[0]]
    return [inner, upper[0], upper[1], outer, lower[0], lower[1]]


def _lips(m: Measures, head: Head) -> list[tuple[float, float]]:
    lines = head.mouth.lines
    c, cy = lines.corner

    def at(xs: list[float], knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
        ys = curve(np.array(xs, np.float32), knots)
        return [(x, float(y)) for x, y in zip(xs, ys, strict=True)]

    px = lines.peaks[1][0]
    upper = at([-0.60 * c, -px, 0.0, px, 0.60 * c], lines.upper)
    x_low = np.array([0.62 * c, 0.32 * c, 0.0, -0.32 * c, -0.62 * c], np.float32)
    free, edge = lower_lines(x_low, lines)
    low = [(float(x), float(y)) for x, y in zip(x_low, edge, strict=True)]
    inner_up = at([-0.34 * c, 0.0, 0.34 * c], lines.free)
    inner_low = [(float(x_low[i]), float(free[i])) for i in (1, 2, 3)]
    return [(-c, cy), *upper, (c, cy), *low, (-0.88 * c, cy), *inner_up, (0.88 * c, cy), *inner_low]


def head_rows(head: Head) -> Points:
    """Heights (mm) of the plane's rows."""
    return head.plane.y[:, 0].astype(np.float64)


def head_half(head: Head) -> Points:
    """Half breadth (mm) of the head by rows, without hair."""
    width = np.abs(np.where(head.bald > 0.5, head.plane.x, 0)).max(axis=1)
    return np.asarray(width, np.float64)


def five(landmarks: NDArray[np.float32], pupils: NDArray[np.float32]) -> NDArray[np.float32]:
    """[5, 2] px, insightface's order: eyes, nose tip, corners of the mouth; image-left first."""
    return np.stack([pupils[0], pupils[1], landmarks[30], landmarks[48], landmarks[54]])


def pupils(m: Measures, head: Head, cam: Camera3D) -> NDArray[np.float32]:
    """[2, 2] px: the middles of the lid fissures."""
    return cam.project(_on(head, [(-m.pupil, 0.0), (m.pupil, 0.0)])).astype(np.float32)


def face_box(m: Measures, head: Head, cam: Camera3D, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """[4] px: x1 y1 x2 y2 from the hairline to the chin and from cheek to cheek."""
    top = cam.project(_on(head, [(0.0, m.trichion)]))[0]
    low, high = landmarks.min(0), landmarks.max(0)
    return np.array([low[0], min(top[1], low[1]), high[0], high[1]], np.float32)


def lip_box(landmarks: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[4] px: from the nose's base to below the lower lip, corner to corner."""
    mouth = landmarks[48:]
    pad = 0.10 * float(mouth[:, 0].max() - mouth[:, 0].min())
    base = float(landmarks[31:36, 1].min())
    low, high = mouth.min(0), mouth.max(0)
    corners = [low[0] - pad, min(base, low[1]) - pad, high[0] + pad, high[1] + pad]
    return np.asarray(np.clip(np.array(corners), 0, size), np.float32)
