"""What lies round the head: the room behind it, the hair that hangs there, neck, shoulders and clothes,
ears."""

import cv2
import numpy as np

from ..face import PhantomFace
from .field import Array, blur, curve, step, strands, tinted, wide
from .hair import COLOURS, style
from .light import direction, tint
from .measures import Measures
from .pose import Camera3D
from .skin import srgb_to_linear


def backdrop(face: PhantomFace, size: int) -> Array:
    """The room or garden behind, out of focus, linear RGB [size, size, 3]."""
    draw = np.random.default_rng([face.seed, 11])
    n = 48
    base = srgb_to_linear(face.view.ground)
    v, u = np.mgrid[0:n, 0:n].astype(np.float32) / n
    kind = face.view.background
    if kind == "plain":
        side = draw.uniform(-0.25, 0.25)
        picture = base * (1 + np.float32(side) * (u - 0.5) - 0.16 * (v - 0.4))[..., None]
        return np.asarray(cv2.resize(picture.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC))
    if kind == "clinic":
        picture = np.ones((n, n, 3), np.float32) * (0.5 * base + 0.32)
        for _ in range(int(draw.integers(3, 6))):
            left, width = draw.uniform(-0.1, 1.0), draw.uniform(0.04, 0.3)
            top, bottom = draw.uniform(0, 0.6), draw.uniform(0.6, 1.2)
            inside = (u > left) & (u < left + width) & (v > top) & (v < bottom)
            colour = srgb_to_linear(
                tuple(np.clip(draw.uniform(0.3, 0.95) + draw.normal(0, 0.06, 3), 0.05, 1))
            )
            picture[inside] = 0.35 * picture[inside] + 0.65 * colour
        return _soft(picture, size, draw.uniform(0.8, 2.0))
    if kind != "outdoors":
        raise ValueError(f"the phantom has no background {kind!r}; it has plain, clinic, outdoors")
    sky, green = np.array([0.50, 0.62, 0.80], np.float32), np.array([0.10, 0.17, 0.055], np.float32)
    horizon = draw.uniform(0.1, 0.6)
    leaf = cv2.resize(draw.standard_normal((9, 9)).astype(np.float32), (n, n), interpolation=cv2.INTER_CUBIC)
    share = np.clip((v - horizon) * 3 + 0.5 + 0.45 * leaf, 0, 1)[..., None]
    picture = sky * (1 - share) + green * share * (1 + 0.45 * leaf[..., None])
    for _ in range(int(draw.integers(3, 12))):
        spot = np.hypot(u - draw.uniform(0, 1), v - draw.uniform(0, 0.8)) < draw.uniform(0.02, 0.05)
        picture[spot] = picture[spot] * 0.5 + 0.5 * np.array([0.75, 0.80, 0.5], np.float32)
    return _soft(np.clip(picture, 0.01, 1.2), size, draw.uniform(0.9, 1.8))


def _soft(picture: Array, size: int, sigma: float) -> Array:
    small = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), float(sigma))
    large = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(large, 0.004, 1.4), np.float32)


def _mm(cam: Camera3D, size: int) -> tuple[Array, Array]:
    """The picture's points in mm from the pivot, [1, S] and [S, 1]."""
    x = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(cam.offset[0])) / np.float32(cam.scale)
    y = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(cam.offset[1])) / np.float32(cam.scale)
    return x[None], y[:, None]


def body(
    face: PhantomFace, m: Measures, cam: Camera3D, size: int, skin: Array, drop: float
) -> tuple[Array, Array, Array, tuple[slice, slice]]:
    """Neck, shoulders and clothes: linear RGB [H, S, 3], cover and bare skin [H, S], and the rows they lie
    in."""
    x, y = _mm(cam, size)
    k = m.head_half / 74
    jaw = (cam.turn @ (np.array([0.0, m.gnathion + drop - 8, -30 * k]) - cam.pivot))[:2]
    chin_y = float(jaw[1])
    first = min(max(int(np.searchsorted(y[:, 0], chin_y - 46 * k)), 0), size - 1)
    y = y[first:]
    base_y = m.gnathion + drop - cam.pivot[1] + {"baby": 2, "man": 24}.get(face.attributes["subject"], 20) * k
    lean = np.clip((base_y - y) / np.float32(max(base_y - chin_y + 45 * k, 1)), 0, 1) * np.float32(
        jaw[0] * 0.55
    )
    away = x - lean
    soft = max(0.6, 0.8 / cam.scale)
    t = np.clip((y - np.float32(chin_y - 30 * k)) / np.float32(max(base_y - chin_y + 42 * k, 1)), 0, 1.6)
    half = np.float32(m.neck_half) * (
        1.0 - 0.10 * np.sin(np.pi * np.minimum(t, 1)) + 0.75 * np.power(np.maximum(t - 0.72, 0), 1.6) * 3
    )
    u = np.clip(away / half, -1, 1)
    neck = step(np.abs(away) - half, soft, -soft)
    light = face.view.light
    toward = direction(light)
    key, around = tint(light)
    nx, nz = u, np.sqrt(np.maximum(1 - u * u, 0.02))
    facing = np.maximum((nx * np.float32(toward[0]) + nz * np.float32(toward[2]) + 0.25) / 1.25, 0)
    muscle = 0.10 * np.exp(
        -0.5
        * np.square((np.abs(away) - m.neck_half * (0.85 - 0.62 * np.minimum(t, 1.1))) / np.float32(7 * k))
    )
    hollow = 0.16 * np.exp(
        -0.5 * (np.square(away / np.float32(8 * k)) + np.square((y - base_y - 2 * k) / np.float32(9 * k)))
    )
    under = 0.40 + 0.60 * step(y, chin_y - 2 * k, chin_y + 36 * k)
    direct = facing * (0.45 + 0.55 * under)
    form = np.float32(light.exposure) * under * (1 + muscle - hollow)
    neck_rgb = tinted(direct * form, np.float32(light.key) * key * skin)
    neck_rgb += tinted(form, np.float32(1 - light.key) * around * skin)
    collar = base_y + (3 + 16 * face.view.collar) * k
    # Shoulders slope from the neck; the collar dips in the middle.
    span = {"baby": 1.15, "kid": 1.5, "girl": 1.5, "boy": 1.55, "woman": 1.75, "man": 1.95}[
        face.attributes["subject"]
    ]
    reach = np.float32(span * m.head_half)
    s = np.abs(x) / reach
    slope = (
        base_y - 5 * k + 30 * k * np.maximum(s - 0.25, 0) + 90 * k * np.power(np.maximum(s - 0.85, 0), 1.7)
    )
    trunk = step(y - slope, -soft, soft) * step(s, 1.25, 1.2)
    opening = np.float32(m.neck_half * (1.06 + 0.16 * face.view.collar))
    neckline = collar - (collar - base_y + 7 * k) * np.power(
        np.clip(np.abs(x) / opening, 0, 1.3), 2.4 if face.seed % 2 else 1.3
    )
    cloth = step(y - neckline, -soft, soft) * trunk
    rim = np.exp(-0.5 * np.square((y - neckline - 2.2 * k) / np.float32(1.5 * k)))
    folds = strands(
        x / np.float32(11 * k) + y / np.float32(30 * k) + 500, y * 0.012 + x * 0.004 + 20, (face.seed, 13)
    )
    folds = blur(np.asarray(folds, np.float32), 2.0 * cam.scale)
    weave = (0.03 if cam.scale > 2.0 else 0.0) * np.sin(x * 5.2) * np.sin(y * 5.2)
    shade = np.clip(
        0.80 + 0.13 * folds + np.float32(0.30 * toward[0]) * np.clip(x / reach, -1, 1) - 0.25 * rim + weave,
        0.2,
        1.4,
    )
    cast = 1 - 0.32 * np.exp(
        -0.5 * (np.square(away / np.float32(m.jaw_half)) + np.square((y - base_y) / np.float32(22 * k)))
    )
    cloth_rgb = tinted(shade * cast * np.float32(light.exposure), srgb_to_linear(face.view.clothing))
    bare = np.maximum(neck * (y > chin_y - 45 * k), trunk)
    rgb = neck_rgb + wide(cloth) * (cloth_rgb - neck_rgb)
    rows = slice(first, size), slice(0, size)
    return rgb.astype(np.float32), np.maximum(bare, cloth), bare * (1 - cloth), rows


def hair_behind(face: PhantomFace, m: Measures, cam: Camera3D, size: int) -> tuple[Array, Array] | None:
    """Long hair behind the neck: linear RGB and cover; None for short hair."""
    worn = style(face, m)
    if not worn.long:
        return None
    x, y = _mm(cam, size)
    k = m.head_half / 74
    centre = (cam.turn @ np.array([0.0, 0.0, -30.0 * k]))[:2]
    turned = np.float32(np.tan(np.radians(face.view.roll)))
    s = x - np.float32(centre[0]) + turned * y
    flare = {"straight": 0.0, "wavy": 6.0, "curly": 14.0, "coily": 15.0}[worn.texture] * k
    half = curve(
        y + np.float32(cam.pivot[1]),
        [
            (-60 * k, m.head_half),
            (0, m.head_half + 5 * k),
            (m.gnathion, m.head_half + 7 * k + flare),
            (2.6 * m.gnathion, m.head_half + flare),
        ],
    )
    wave = 0.0 if worn.texture == "straight" else 5 * np.sin(y * 0.16 + s * 0.07)
    lock = strands((s + wave) / np.float32(2.6 * k) + 400, y * 0.02 + 20, (6, 2))
    cover = step(np.abs(s) - half - lock * (0.8 + 0.2 * flare), 1.2, -1.2) * (y > -60 * k)
    tone = np.clip(0.36 + 0.10 * lock, 0.12, 1)
    rgb = tinted(tone, srgb_to_linear(COLOURS[face.attributes["hair_color"]]))
    return rgb.astype(np.float32), np.asarray(cover, np.float32)


def ear(
    face: PhantomFace, m: Measures, cam: Camera3D, size: int, skin: Array, side: int
) -> tuple[Array, Array, tuple[slice, slice]] | None:
    """One ear (-1 on the picture's left): linear RGB, cover and window; None where it is turned away."""
    k = m.ear / 60
    out = m.ear_out + side * face.view.yaw * -1.0
    shown = 0.56 * m.ear * float(np.sin(np.radians(max(out, 0.0) + 6)))
    if shown < 3:
        return None
    root = np.array([side * m.face_half * 0.985, 0.40 * m.ear - 4 * k, -66 * m.head_half / 74])
    at = cam.turn @ (root - cam.pivot)
    x, y = _mm(cam, size)
    roll = np.radians(face.view.roll)
    reach = 0.75 * m.ear
    j = np.flatnonzero(np.abs(x[0] - at[0]) < reach)
    i = np.flatnonzero(np.abs(y[:, 0] - at[1]) < reach)
    if not len(i) or not len(j):
        return None
    window = slice(int(i[0]), int(i[-1]) + 1), slice(int(j[0]), int(j[-1]) + 1)
    dx, dy = x[:, window[1]] - np.float32(at[0]), y[window[0]] - np.float32(at[1])
    u = (dx * np.float32(np.cos(roll)) + dy * np.float32(np.sin(roll))) * side
    v = dy * np.float32(np.cos(roll)) - dx * np.float32(np.sin(roll))
    v = v / np.float32(0.5 * m.ear)
    u = (u - 0.16 * shown * (-v)) / np.float32(shown)
    # The outline: broad above, a lobe below.
    edge = np.sqrt(np.maximum(1 - v * v, 0)) * (0.80 - 0.26 * v) + 0.08 * step(v, 0.35, 0.8) * step(
        v, 1.0, 0.8
    )
    soft = max(0.05, 0.9 / cam.scale / shown)
    cover = (
        step(u - edge, soft, -soft)
        * step(u, -0.9, -0.7)
        * step(v * v + 1.3 * np.square(np.minimum(u - 0.12, 0)), 1.0, 0.9)
    )
    rim = np.exp(-0.5 * np.square((u - edge + 0.16) / 0.10))
    inner = step(u - edge + 0.30, 0.05, -0.10)
    anti = np.exp(-0.5 * np.square((u - 0.62 * edge + 0.10 * v) / 0.09)) * step(v, 0.55, 0.1)
    concha = np.exp(-0.5 * (np.square((u - 0.10) / 0.22) + np.square((v - 0.12) / 0.30)))
    light = face.view.light
    toward = direction(light)
    facing = max(0.25, 0.62 + 0.45 * side * float(toward[0]))
    tone = facing * (0.80 + 0.24 * rim - 0.24 * inner + 0.26 * anti - 0.38 * concha)
    shade = 0.72 + 0.28 * step(u, -0.05, 0.35)
    warm = np.array([1.06, 0.90, 0.88], np.float32)
    rgb = skin * warm * (np.clip(tone, 0.12, 1.3) * shade * np.float32(light.exposure))[..., None]
    return rgb.astype(np.float32), np.asarray(cover, np.float32), window
