"""Hair: the volume round the skull, its hairline, and strands that follow it down."""

from dataclasses import dataclass

import numpy as np

from ..face import PhantomFace
from .field import Array, Plane, blur, curve, noise, step, strands
from .measures import Measures
from .shape import Outline

# sRGB 0 to 1 of lit hair: black is never 0, red is copper, blonde is no yellow.
COLOURS: dict[str, tuple[float, float, float]] = {
    "blonde": (0.78, 0.64, 0.44),
    "brown": (0.34, 0.215, 0.135),
    "black": (0.095, 0.080, 0.078),
    "red": (0.58, 0.265, 0.125),
}


@dataclass(frozen=True)
class Style:
    """How a person wears hair; mm."""

    thick: float
    """Height of the volume over the crown."""
    side: float
    """Breadth of the volume over the temples."""
    long: bool
    parting: float
    fringe: float
    """0 none, 1 to the brows."""
    texture: str
    ears: float
    """0 covers the ears, 1 shows them (long hair)."""
    thin: float
    """Share of scalp that shines through: babies."""


@dataclass(frozen=True)
class Hair:
    """Hair over the plane, [H, W]."""

    cover: Array
    """Share of each point that hair covers."""
    height: Array
    """Height of the hair's surface, mm."""
    tone: Array
    """Brightness of single hairs and locks, about 1."""
    bulk: Array
    """Slope of the volume down the head, for the band that shines."""


def style(face: PhantomFace, m: Measures) -> Style:
    """The style of a person: subject and attributes decide, the identity varies."""
    z = np.tanh(face.identity[30:38])
    words = face.attributes
    texture, subject = words["hair_texture"], words["subject"]
    long = words["hair_length"] == "long"
    k = m.head_half / 74
    curl = {"straight": 0.0, "wavy": 2.5, "curly": 6.5, "coily": 8.5}[texture]
    male = subject in ("man", "boy")
    thick = (9.0 if not male else 7.5) + 3.0 * z[0] + curl + (2.5 if long else 0)
    side = (3.4 if not male else 2.2) + 1.2 * z[1] + 0.75 * curl
    if subject == "baby":
        thick, side = 0.45 * thick - 0.5, 0.5 * side
    wears_fringe = z[3] > (0.3 if subject in ("girl", "woman", "kid", "baby") else 0.55)
    return Style(
        thick=k * max(2.0, thick),
        side=k * max(1.2, side),
        long=long,
        parting=30 * k * float(z[2]),
        fringe=(0.30 + 0.55 * abs(float(z[4]))) if wears_fringe else 0.0,
        texture=texture,
        ears=float(z[5] > 0.1) if long else 1.0,
        thin=0.22 if subject == "baby" and not long else 0.0,
    )


def _outer(area: Plane, m: Measures, worn: Style) -> Array:
    """Half breadth of the whole hair by rows, [H, 1] mm; negative above it."""
    k = m.head_half / 74
    v, t, s = m.vertex, worn.thick, worn.side
    top = v - t
    head = m.head_half + s
    knots = [
        (top - 0.5, -3.0),
        (top, 0.0),
        (top + 0.012 * -v, 0.175 * head),
        (top + 0.06 * -v, 0.405 * head),
        (top + 0.18 * -v, 0.67 * head),
        (top + 0.38 * -v, 0.89 * head),
        (0.40 * v, head * 1.015),
    ]
    if worn.long:
        flare = {"straight": 0.0, "wavy": 5.0, "curly": 12.0, "coily": 13.0}[worn.texture]
        knots += [
            (-4, head + (2 + 0.4 * flare) * k),
            (0.5 * m.gnathion, head + (3 + 0.8 * flare) * k),
            (m.gnathion, head + (4 + flare) * k),
            (1.5 * m.gnathion, head + (1 + flare) * k),
            (2.4 * m.gnathion, head - (6 - flare) * k),
        ]
    else:
        knots += [
            (-10 * k, head * 0.985),
            (10 * k, head * 0.95),
            (24 * k, m.face_half * 0.96),
            (30 * k, 0.90 * m.face_half),
            (32 * k, -3.0),
        ]
    return curve(area.y, knots)


def hair(area: Plane, face: PhantomFace, m: Measures, shape: Outline, inside: Array, skin: Array) -> Hair:
    """Hair in front of and around the head. `inside` is the head's distance to its outline, `skin` its
    height."""
    worn = style(face, m)
    x, y, k = area.x, area.y, m.head_half / 74
    outer = _outer(area, m, worn)
    # Strands fan out from the parting and then run parallel to the outline.
    lean = np.clip((y - np.float32(m.vertex)) / np.float32(-m.vertex), 0, 1)
    parting = np.float32(worn.parting) * (1 - lean)
    psi = (x - parting) / np.maximum(outer, np.float32(14 * k)) * np.float32(m.head_half)
    psi, wave, turn = _waved(psi, area, worn, k)
    frizz = {"straight": 0.5, "wavy": 1.3, "curly": 2.6, "coily": 2.8}[worn.texture] * k
    rough = noise((3, 21), area, {"straight": 6.0, "wavy": 8.0, "curly": 7.5, "coily": 5.0}[worn.texture] * k)
    reach = y if worn.texture in ("straight", "wavy") else turn * 2.2
    single = strands(psi / np.float32(0.55 * k) + 500, reach * 0.05 + 30, (5, 1))
    locks = strands(psi / np.float32(2.4 * k) + 300, reach * 0.022 + 20, (5, 2))
    bulk = strands(psi / np.float32(8.5 * k) + 100, reach * 0.014 + 10, (5, 3))
    edge = frizz * rough + 0.35 * k * locks
    # Rows where the volume begins are narrow: distance to the top counts there.
    outside = np.minimum(outer - np.abs(x), (y - np.float32(m.vertex - worn.thick)) * 1.3) + edge
    line = _hairline(area, m, worn)
    over = line - y + 0.8 * k * locks + 0.45 * k * single
    if worn.texture != "straight":
        over = over + 0.40 * frizz * rough
    limit = m.face_half * (0.93 if worn.long and not worn.ears else 1.0)
    low = m.gnathion
    if worn.long:
        sides = [(-60 * k, limit), (-20 * k, limit), (0.35 * low, limit * 0.985), (0.8 * low, 0.91 * limit)]
        side_in = curve(y, [*sides, (1.2 * low, 0.83 * limit), (2.4 * low, 0.78 * limit)])
        beside = np.abs(x) - side_in + 0.7 * k * locks + 0.4 * edge
        over = np.maximum(over, np.where(y > -30 * k, beside, np.maximum(beside, over)))
    else:
        over = np.maximum(over, np.where(y < 12 * k, 0.2 - inside, np.float32(-9)))
    cover = step(over, -0.8 * k, 2.0 * k) * step(outside, -0.5 * k, 0.9 * k)
    if worn.thin:
        sparse = np.clip(0.86 + 0.16 * locks + 0.16 * single, 0, 1)
        cover = cover * sparse * (1 - worn.thin * step(over, 26 * k, 3 * k))
    height = _volume(area, m, shape, worn, inside, skin, over, outer)
    bulge = blur(
        np.gradient(height, axis=0).astype(np.float32) * np.float32(area.density), 7.0 * area.density
    )
    deep = {"straight": 0.55, "wavy": 0.8, "curly": 0.9, "coily": 0.8}[worn.texture]
    relief = deep * k * (0.50 * locks + 0.95 * bulk) + wave * k
    if area.density > 0.8:
        relief = relief + 0.13 * k * single
    height = height + relief * (0.35 if worn.thin else 1.0)
    quiet = 0.5 if worn.thin else 1.0
    tone = 1 + quiet * (0.17 * locks + 0.13 * bulk + (0.19 * single if area.density > 0.8 else 0))
    return Hair(cover, height.astype(np.float32), np.clip(tone, 0.35, 1.8), bulge)


def _volume(
    area: Plane,
    m: Measures,
    shape: Outline,
    worn: Style,
    inside: Array,
    skin: Array,
    over: Array,
    outer: Array,
) -> Array:
    """The smooth surface of the hair: skull and volume, and what hangs beside the face, mm [H, W]."""
    x, y, k = area.x, area.y, m.head_half / 74
    # Where the head's outline ends the volume goes on in an ellipsoid of its own.
    half = np.maximum(outer, np.float32(8 * k))
    u = np.minimum(np.abs(x) / half, 1)
    top = np.float32(m.vertex - worn.thick)
    rise = np.clip((y - top) / np.float32(-top), 0, 1)
    dome = np.float32(-84 * k) + 92 * k * np.sqrt(np.maximum(1 - (1 - rise) ** 2.4, 0))
    round_ = dome - 88 * k * (1 - np.sqrt(np.maximum(1 - u * u, 0))) - np.float32(6 * k)
    depth = step(over, 0.0, 15 * k)
    on_skull = skin + np.float32(min(worn.thick, 10 * k)) * (0.22 + 0.78 * depth) * (
        0.5 if worn.thin else 1.0
    )
    edge = step(np.minimum(inside, 0.9 * (y - np.float32(m.vertex))), -1.0 * k, 14 * k)
    height = round_ + edge * (on_skull - round_)
    if worn.long:
        fall = np.float32(-36 * k) - 34 * k * np.power(u, 6) - 9 * k * step(y, 0, 80 * k)
        height = height + step(y, -28 * k, 14 * k) * (fall - height)
    return blur(np.asarray(height, np.float32), 1.0 * area.density)


def _hairline(area: Plane, m: Measures, worn: Style) -> Array:
    """y down to which hair grows, by column and row, [1, W]."""
    k = m.head_half / 74
    f = m.face_half
    x = area.x
    tr = m.trichion
    recede = -9.0 * k * max(0.0, -m.widow)
    knots = [
        (0.0, tr + 3.0 * k * max(0.0, m.widow)),
        (0.22 * f, tr - 0.5 * k),
        (0.48 * f, tr + 3 * k + recede),
        (0.70 * f, tr + 12 * k + 0.6 * recede),
        (0.84 * f, tr + 27 * k),
        (0.92 * f, -26 * k),
        (0.965 * f, -8 * k),
        (1.0 * f, 10 * k),
        (1.06 * f, 20 * k),
    ]
    line = curve(np.abs(x), knots)
    if worn.fringe:
        ease = np.clip((x - np.float32(worn.parting)) / np.float32(f), -1, 1)
        low = tr + worn.fringe * (m.brow - 2 - tr)
        cut = (
            low
            + 12 * k * ease * ease * (1 if worn.fringe < 0.6 else 0.2)
            + 1.6 * k * noise((7, 41), area, 9 * k)
        )
        line = np.maximum(line, np.where(np.abs(x) < 0.90 * f, cut, line))
    return line


def _waved(psi: Array, area: Plane, worn: Style, k: float) -> tuple[Array, Array, Array]:
    """The strands' coordinate bent by waves or curls, the relief of these (mm), and the way along a
    strand."""
    y = area.y + np.zeros_like(psi)
    flat = np.zeros(1, np.float32)
    if worn.texture == "straight":
        return psi + 0.8 * np.sin(y * 0.04 + psi * 0.02), flat, y
    if worn.texture == "wavy":
        drift = noise((9, 33), area, 30 * k)
        phase = y * np.float32(0.135 / k) + psi * 0.055 + 1.3 * drift
        return psi + 3.4 * k * np.sin(phase), 1.2 * np.cos(phase), y
    return _curled(psi, area, (9.5 if worn.texture == "curly" else 4.6) * k)


def _curled(psi: Array, area: Plane, cell: float) -> tuple[Array, Array, Array]:
    """Curls: each strand winds round the middle of its lock; locks lie on a jittered grid of `cell` mm."""
    u = (psi + 0.35 * cell * noise((9, 34), area, 2.2 * cell)) / np.float32(cell)
    v = (area.y + 0.35 * cell * noise((9, 35), area, 2.2 * cell)) / np.float32(1.15 * cell)
    jitter = np.random.default_rng((9, 36)).uniform(0.15, 0.85, (3, 64, 64)).astype(np.float32)
    i, j = np.floor(v), np.floor(u)
    at = ((i.astype(np.int64) & 63) << 6) + (j.astype(np.int64) & 63)
    u, v = u - j, v - i
    best = np.full(u.shape, 9, np.float32)
    which = np.zeros(u.shape, np.int64)
    # The tables of the neighbours in each direction: rolled, so that one index serves all nine.
    ways = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    tables = np.stack([np.roll(jitter, (-di, -dj), (1, 2)).reshape(3, -1) for di, dj in ways], 1)
    tables[0] += np.array([dj for _, dj in ways], np.float32)[:, None]
    tables[1] += np.array([di for di, _ in ways], np.float32)[:, None]
    for number, (across, down, one) in enumerate(tables.transpose(1, 0, 2)):
        x, y = u - across.take(at, mode="clip"), v - down.take(at, mode="clip")
        far = x * x + y * y + np.float32(0.35) * one.take(at, mode="clip")
        np.copyto(which, number, where=far < best)
        np.minimum(best, far, out=best)
    at += which * 4096
    across, down, kind = (table.reshape(-1).take(at, mode="clip") for table in tables)
    dx, dy = u - across, v - down
    r = np.sqrt(dx * dx + dy * dy)
    angle = np.arctan2(dy, dx)
    wound = (r * 1.0 + 0.11 * angle * np.sign(kind - 0.5)) * np.float32(cell) + 37 * kind
    loop = np.cos(r * 9.5 + angle * np.sign(kind - 0.5))
    relief = (
        np.float32(0.30 * cell) * (0.75 - r) - np.float32(0.2 * cell) * kind + np.float32(0.045 * cell) * loop
    )
    return wound, relief.astype(np.float32), (angle * 1.5 + 9 * kind) * np.float32(cell * 0.6)
