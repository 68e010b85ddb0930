"""The mouth: lip borders, vermilion, philtrum, what an open mouth or a gap shows, and scars.

Heights and borders of the lips are those of `measures`; that the vermilion turns up along the margins of a
gap,
and thins out towards its end, is how every drawing of the anatomy has it (Millard, Cleft Craft, 1976).
"""

from dataclasses import dataclass

import numpy as np

from ..face import COMPLETE, PhantomFace
from .cleft import Gap, gaps
from .field import Array, Plane, Window, bump, curve, noise, ridge, softmin, step
from .measures import Measures
from .nose import NoseChange
from .repair import Scar, scars


@dataclass(frozen=True)
class Mood:
    """How the mouth, lids and brows are held; each 0 to 1."""

    smile: float = 0.0
    cry: float = 0.0
    open: float = 0.0
    closed: float = 0.0


def mood(face: PhantomFace) -> Mood:
    """The expression's parts.

    Raises:
        ValueError: there is no such expression.
    """
    s = face.view.strength
    moods = {
        "neutral": Mood(),
        "smile": Mood(smile=s, open=0.45 * max(0.0, s - 0.4)),
        "cry": Mood(cry=s, open=0.75 * s, closed=0.72 * s),
        "open": Mood(open=0.35 + 0.35 * s),
        "closed": Mood(closed=1.0),
    }
    if face.view.expression not in moods:
        raise ValueError(f"the phantom has no expression {face.view.expression!r}; it has {', '.join(moods)}")
    return moods[face.view.expression]


@dataclass(frozen=True)
class LipLines:
    """The borders of both lips as functions of x; mm."""

    corner: tuple[float, float]
    """x (positive) and y of the corners of the mouth."""
    upper: list[tuple[float, float]]
    """Knots of the upper vermilion's border, from the picture's left to right."""
    free: list[tuple[float, float]]
    """Knots of the upper lip's free edge."""
    whole: list[tuple[float, float]]
    """The same of a whole lip: what the lower lip meets, so that no cleft moves it."""
    opening: float
    """How far the mouth is open in the middle."""
    upper_rise: float
    lower: float
    """Height of the lower vermilion in the middle."""
    peaks: dict[int, tuple[float, float]]
    top: float
    """y of the nostril's floor."""
    edge: float
    """y of the free edge in the middle of a whole lip."""


def jaw_drop(m: Measures, held: Mood) -> float:
    """How far the chin sinks, mm."""
    return 0.30 * m.mouth * held.open


def lip_lines(face: PhantomFace, m: Measures, held: Mood) -> LipLines:
    """The lips' borders for this expression, cleft or repair."""
    k = m.mouth / 25
    opening = 0.62 * m.mouth * held.open
    corner_x = m.mouth * (1 + 0.15 * held.smile + 0.07 * held.cry - 0.05 * held.open * (1 - held.cry))
    corner_y = m.stomion - 1.2 * k - 5.6 * k * held.smile + 1.6 * k * held.cry + 0.42 * opening
    rise = (0.20 * opening + 0.8 * k * held.smile) if held.open else 0.0
    edge = m.stomion - rise - 0.4 * k * held.smile
    thick = m.upper_vermilion * (1 - 0.22 * held.smile)
    repair = face.repair
    bow = m.bow * (repair.bow if repair else 1.0)
    if repair:  # A bow that is hardly there goes with a thin vermilion.
        thick *= 0.74 + 0.26 * repair.bow
    peak_y = dict.fromkeys((-1, 1), edge - thick - 0.55 * bow)
    peak_x = dict.fromkeys((-1, 1), m.peak * (1 + 0.12 * held.smile))
    dip = edge - thick + 0.45 * bow
    notch = dict.fromkeys((-1, 1), 0.0)
    middle_edge = edge + 0.5 * k
    if repair:
        for d in repair.by_side():
            peak_y[d] -= 2.3 * k * repair.lip_asymmetry
            notch[d] = 2.0 * k * repair.lip_asymmetry
        if repair.side == "bilateral":
            middle_edge -= 2.4 * k * repair.lip_asymmetry
            dip += 0.6 * k * repair.lip_asymmetry
            notch = dict.fromkeys((-1, 1), 0.0)
    cleft = face.cleft
    if cleft and cleft.side == "bilateral":
        worst = min(cleft.by_side().values())
        if worst >= 0.25:
            middle_edge -= 2.6 * k * worst
            dip = middle_edge - (2.6 + 1.6 * (1 - worst)) * k
            peak_y = dict.fromkeys((-1, 1), dip + 0.5 * k)
    elif cleft:
        # The healthy peak stays; the bow rises towards the gap.
        d = next(iter(cleft.by_side()))
        lift = 1.6 * k * min(1.0, cleft.severity * 1.3)
        peak_y[d] -= lift
        dip -= 0.35 * lift
    c = corner_x
    side = dict.fromkeys((-1, 1), (0.58 * c, edge - 0.62 * thick + 0.36 * (corner_y - edge)))
    upper = [
        (-c, corner_y),
        (-0.84 * c, corner_y - 0.26 * thick + 0.10 * (edge - corner_y)),
        (-side[-1][0], side[-1][1]),
        (-peak_x[-1] - 1.6 * k, peak_y[-1] + 0.35 * k),
        (-peak_x[-1], peak_y[-1]),
        (0.0, dip),
        (peak_x[1], peak_y[1]),
        (peak_x[1] + 1.6 * k, peak_y[1] + 0.35 * k),
        (side[1][0], side[1][1]),
        (0.84 * c, corner_y - 0.26 * thick + 0.10 * (edge - corner_y)),
        (c, corner_y),
    ]
    free = _free(c, corner_y, edge, k, notch, middle_edge)
    whole = _free(c, corner_y, edge, k, dict.fromkeys((-1, 1), 0.0), edge + 0.5 * k)
    return LipLines(
        corner=(c, corner_y),
        upper=upper,
        free=free,
        whole=whole,
        opening=opening,
        upper_rise=rise,
        lower=m.lower_vermilion * (1 - 0.16 * held.smile),
        peaks={d: (d * peak_x[d], peak_y[d]) for d in (-1, 1)},
        top=m.subnasale - 0.6,
        edge=edge,
    )


def _free(
    c: float, corner_y: float, edge: float, k: float, notch: dict[int, float], middle: float
) -> list[tuple[float, float]]:
    beside, far = edge - 0.45 * k + 0.10 * (corner_y - edge), edge + 0.58 * (corner_y - edge) - 0.2 * k
    left, right = (-0.30 * c, beside - notch[-1]), (0.30 * c, beside - notch[1])
    return [(-c, corner_y), (-0.66 * c, far), left, (0.0, middle), right, (0.66 * c, far), (c, corner_y)]


def lower_lines(x: Array, lines: LipLines) -> tuple[Array, Array]:
    """y of the lower lip's free edge and of its border with the skin, by x."""
    u = np.clip(np.abs(x) / np.float32(lines.corner[0]), 0, 1)
    free = curve(x, lines.whole)
    sag = np.float32(lines.opening) * np.power(1 - u * u, np.float32(0.62))
    edge = free + sag
    body = np.power(np.maximum(1 - np.power(u, np.float32(2.3)), 0), np.float32(0.72))
    return edge, edge + np.float32(lines.lower) * body


@dataclass(frozen=True)
class Mouth:
    """The mouth over its window; shares 0 to 1 and heights in mm, [H, W]."""

    plane: Plane
    window: Window
    height: Array
    vermilion: Array
    lower: Array
    """The lower lip's part of the vermilion."""
    inside: Array
    """What lies behind the lips: an open mouth or a gap."""
    gap: Array
    teeth: Array
    tongue: Array
    gum: Array
    scar: Array
    redness: Array
    """Around a scar."""
    roll: Array
    """The white roll along the vermilion's border."""
    lines: LipLines
    gaps: tuple[Gap, ...]
    scars: tuple[Scar, ...]


def mouth(area: Plane, face: PhantomFace, m: Measures, held: Mood, nose: NoseChange) -> Mouth:
    """The mouth of a face over its part of the plane."""
    lines = lip_lines(face, m, held)
    k = m.mouth / 25
    c = lines.corner[0]
    part, window = area.window(-c - 12 * k, m.subnasale - 9 * k, c + 12 * k, m.gnathion + jaw_drop(m, held))
    x, y = part.x, part.y
    soft = max(0.30 * k, 0.55 / part.density)
    upper, free = curve(x, lines.upper), curve(x, lines.free)
    low_free, low_edge = lower_lines(x, lines)
    within = step(np.abs(x), c + 0.5 * k, c - 1.5 * k)
    found = gaps(face.cleft, m, lines.top, float(lines.edge), nose)
    # The tissue of the upper lip: how far (mm) inside its free edge and the margins of gaps.
    to_edge = free - y
    # A closed mouth shows no slit.
    tissue = to_edge + (0.6 * k if lines.opening < 0.5 else 0.0) + np.zeros_like(y)
    red = y - upper
    margin = np.full(part.shape, 99, np.float32)
    for gap in found:
        away = np.abs(x - gap.middle(y)) - gap.breadth(y)
        above = y < np.float32(gap.apex_y)
        away = np.where(above, np.hypot(x - gap.middle(y), y - np.float32(gap.apex_y)), away)
        margin = np.minimum(margin, away)
        round_ = (3.2 if len(found) > 1 else 5.0) * (1.5 if gap.severity >= COMPLETE else 1.0)
        tissue = softmin(tissue, away, round_ * k * min(1.0, gap.severity * 1.5))
        up = np.clip((gap.low_y - y) / np.float32(max(gap.low_y - gap.apex_y, 1.0)), 0, 1)
        band = np.float32(gap.band) * (1 - np.float32(0.68) * up)
        red = -softmin(-red, away - band, 3.0 * k)
    flesh = step(tissue, -soft, soft)
    lower_lip = step(y - low_free, -soft, soft) * step(low_edge - y, -soft, soft) * within
    covered = step(y - low_free, -soft, soft)
    upper_red = (
        flesh * step(red, -soft, soft) * (1 - covered) * (within if not found else np.maximum(within, 0))
    )
    inside = (1 - flesh) * (1 - covered) * within
    if found:
        gap_mask = np.clip((1 - flesh) * (1 - covered), 0, 1) * step(
            y, lines.edge + 3 * k, lines.edge + 1.2 * k
        )
        near = np.zeros(part.shape, np.float32)
        for gap in found:
            near = np.maximum(near, step(np.abs(x - gap.middle(y)) - gap.breadth(y), 5.0 * k, 2.5 * k))
        gap_mask = gap_mask * near
        inside = np.maximum(inside, gap_mask)
    else:
        gap_mask = np.zeros(part.shape, np.float32)
    marks = scars(face.repair, m, lines.top, lines.peaks)
    scar, pink = _scars(part, marks, free, k)
    height = _height(
        part, face, m, lines, held, (upper, free, low_free, low_edge), tissue, margin, inside, found
    )
    height -= 0.22 * scar
    teeth, tongue, gum, mound = _behind(part, face, m, lines, inside, gap_mask, found, low_free)
    height += mound
    white = ridge(red + 0.9 * k, 0.75 * k) * (1 - covered) * flesh * within
    return Mouth(
        part, window, height, np.maximum(upper_red, lower_lip), lower_lip, inside, gap_mask, teeth, tongue,
        gum, scar, pink, white, lines, found, marks,
    )  # fmt: skip


def _scars(part: Plane, marks: tuple[Scar, ...], free: Array, k: float) -> tuple[Array, Array]:
    scar = np.zeros(part.shape, np.float32)
    pink = np.zeros(part.shape, np.float32)
    for mark in marks:
        away = part.x - mark.line(part.y)
        along = step(part.y, mark.high[1] - 1.5 * k, mark.high[1]) * step(part.y - free, 0.4, -1.2)
        scar = np.maximum(scar, np.float32(min(1.0, mark.strength)) * ridge(away, mark.breadth) * along)
        pink = np.maximum(pink, np.float32(mark.strength) * ridge(away, 3.2 * mark.breadth) * along)
        if mark.patch:
            at = 0.45 * (mark.high[0] + mark.low[0]), 0.5 * (mark.high[1] + mark.low[1])
            height = max(0.36 * (mark.low[1] - mark.high[1]), 1.0)
            spot = np.clip(bump(part.x, part.y, at, (3.2 * k, abs(height))) * 1.5, 0, 1) * along
            scar = np.maximum(scar, np.float32(0.62 * mark.patch * min(1.0, mark.strength)) * spot)
        sill = bump(
            part.x, part.y, (mark.high[0] + mark.direction * 2.2 * k, mark.high[1] + 0.4), (2.4 * k, 0.55 * k)
        )
        scar = np.maximum(scar, np.float32(0.7 * mark.strength) * sill)
    return scar, pink


def _height(
    part: Plane,
    face: PhantomFace,
    m: Measures,
    lines: LipLines,
    held: Mood,
    borders: tuple[Array, Array, Array, Array],
    tissue: Array,
    margin: Array,
    inside: Array,
    found: tuple[Gap, ...],
) -> Array:
    upper, free, low_free, low_edge = borders
    x, y, k = part.x, part.y, m.mouth / 25
    c = lines.corner[0]
    u = np.clip(np.abs(x) / np.float32(c), 0, 1)
    taper = np.power(np.maximum(1 - np.power(u, np.float32(2.6)), 0), np.float32(0.85))
    full = np.float32(m.fullness * k)
    # The skin of the upper lip runs out towards the border, the vermilion rolls in from there to the free
    # edge.
    t_up = np.clip((y - upper) / np.maximum(free - upper, 0.8), 0, 1)
    skin_t = np.clip((y - np.float32(lines.top)) / np.maximum(upper - np.float32(lines.top), 2.0), 0, 1)
    rise = 2.5 * full * taper * skin_t * skin_t
    roll = (
        full * taper * (1.3 * np.sin(np.pi * np.minimum(t_up * 0.92 + 0.04, 1)) - 1.9 * np.power(t_up, 2.6))
    )
    roll = roll * (y > upper)
    height = np.where(y < low_free, rise + roll, 0)
    t_low = np.clip((y - low_free) / np.maximum(low_edge - low_free, 0.8), 0, 1)
    body = full * taper * (0.6 + 3.4 * np.power(np.sin(np.pi * (0.10 + 0.72 * t_low)), 0.8))
    after = np.clip((y - low_edge) / np.float32(7 * k), 0, 1)
    fade = full * taper * 2.2 * (1 - after) * (1 - after)
    below = np.where(y < low_edge, body, np.minimum(body, fade))
    height = np.where(y < low_free, height, below)
    height += (
        0.30
        * full
        * taper
        * (y >= low_free)
        * (
            bump(x, y, (0.24 * c, lines.edge + lines.opening + 4 * k), (0.17 * c, 3 * k))
            + bump(x, y, (-0.24 * c, lines.edge + lines.opening + 4 * k), (0.17 * c, 3 * k))
        )
    )
    # The line between the lips.
    seam = ridge(y - 0.5 * (free + low_free), 0.75 * k) * step(np.abs(x), c + 1.5 * k, c - 1 * k)
    height -= 1.5 * k * seam * (1 if lines.opening < 1 else 0.3)
    height += 0.16 * k * ridge(y - upper + 0.8 * k, 0.7 * k) * taper * (y < upper + 2)
    height = height + _philtrum(part, face, m, lines, upper)
    if found:
        edge = step(tissue, 3.2 * k, -0.2 * k) * step(margin, 6 * k, 2 * k)
        height -= 2.3 * k * edge * (1 - inside) * (y < low_free)
        for gap in found:
            beside = gap.middle(y) + gap.direction * (gap.breadth(y) + 5.0 * k)
            body = step(y, lines.top - 1, lines.top + 5 * k) * step(y, lines.edge + 2, lines.edge - 5 * k)
            height += 1.1 * k * gap.severity * ridge(x - beside, 3.2 * k) * body * (1 - inside)
            furrow = ridge(x - gap.middle(y), 1.0 * k) * step(y, lines.top - 2, lines.top + 2)
            height -= np.float32(gap.furrow) * furrow * (y < gap.apex_y + 1)
        if face.cleft and face.cleft.side == "bilateral":
            severe = min(face.cleft.by_side().values())
            front = 5.0 * k * severe * ridge(x, 5.6 * k) * step(y, lines.top - 6 * k, lines.top + 2 * k)
            height += front * (y < low_free) * step(y, lines.edge + 4 * k, lines.edge - 1 * k)
    return np.asarray(height - (5.0 * k) * inside, np.float32)


def _philtrum(part: Plane, face: PhantomFace, m: Measures, lines: LipLines, upper: Array) -> Array:
    """Groove and columns between the columella and the bow's peaks."""
    x, y, k = part.x, part.y, m.mouth / 25
    t = np.clip((y - np.float32(lines.top)) / np.maximum(upper - np.float32(lines.top), 2.0), 0, 1)
    along = step(y, lines.top - 1, lines.top + 3 * k) * step(y - upper, 0.8 * k, -0.8 * k)
    keep = {-1: 1.0, 1: 1.0}
    groove = 1.0
    if face.repair:
        groove = 1 - 0.85 * face.repair.flat
        for d in face.repair.by_side():
            keep[d] = 1 - 0.8 * face.repair.flat
    if face.cleft:
        for d, severity in face.cleft.by_side().items():
            keep[d] = 0.0 if severity >= 0.25 else 0.5
            groove *= 1 - 0.6 * min(1.0, severity * 1.5)
    total = -m.philtrum * groove * ridge(x, 2.3 * k) * along
    for d in (-1, 1):
        line = d * (0.62 * m.peak) + (lines.peaks[d][0] - d * 0.62 * m.peak) * t
        total = total + 0.85 * m.philtrum * keep[d] * ridge(x - line, 1.35 * k) * along
    return np.asarray(total, np.float32)


def _behind(
    part: Plane,
    face: PhantomFace,
    m: Measures,
    lines: LipLines,
    inside: Array,
    gap: Array,
    found: tuple[Gap, ...],
    low_free: Array,
) -> tuple[Array, Array, Array, Array]:
    """Teeth, tongue and gum that an open mouth or a gap shows, and the gum's relief, mm."""
    x, y, k = part.x, part.y, m.mouth / 25
    toothless = face.attributes["subject"] == "baby"
    bite = lines.edge + (1.2 if toothless else 5.2) * k - 0.10 * lines.opening - 1.2 * k
    neck = lines.edge - 4.6 * k
    arch = np.square(x / np.float32(0.75 * m.mouth))
    teeth = np.zeros(part.shape, np.float32)
    if not toothless:
        width = 8.2 * k
        cell = (np.abs(x) / np.float32(width)) % 1.0
        between = step(np.minimum(cell, 1 - cell) * np.float32(width), 0.15 * k, 0.75 * k)
        tips = bite - 1.1 * k * np.power(np.abs(cell - 0.5) * 2, 4) - 2.2 * k * arch
        teeth = step(y - tips, 0.3 * k, -0.3 * k) * step(y, neck - 0.8 * k, neck + 0.8 * k) * between
        teeth = teeth * step(np.abs(x), 0.86 * m.mouth, 0.62 * m.mouth) * inside * (lines.opening > 1)
    high = step(y - (neck + (2.6 * k if toothless else 0.6 * k) - 1.4 * k * arch), 0.9 * k, -0.9 * k)
    gum = high * inside * (1 - teeth)
    mound = np.zeros(part.shape, np.float32)
    for one in found:
        across = (x - one.middle(y)) / np.float32(max(one.half, 1.0)) * one.direction
        down = (y - np.float32(lines.top)) / np.float32(lines.edge - lines.top)
        if one.severity >= COMPLETE:
            # A complete cleft parts the gum as well; between its ends the palate's depth shows.
            parted = ridge(across - 0.25 + 0.5 * (down - 0.6), 0.26)
            ends = step(down, 0.12, 0.62) * (1 - 0.65 * parted)
        else:
            ends = step(down, 0.0, 0.7) * np.ones_like(across)
        here = gap * (np.sign(x) == one.direction) if len(found) > 1 else gap
        gum = np.maximum(gum * (1 - here), ends * here)
        teeth = teeth * (1 - here)
        mound = mound + here * (3.2 * k * ends * (0.45 + 0.55 * np.sin(np.pi * np.clip(down, 0.05, 1))))
    tongue = step(y - low_free + (0.40 * lines.opening + 1.0) * (1 - 0.5 * arch), -1.5 * k, 1.5 * k) * inside
    tongue = tongue * (1 - teeth) * (1 - gap) * (0.0 if lines.opening < 2 * k else 1.0)
    return teeth, np.asarray(tongue, np.float32), gum, mound


def lip_texture(mouth_: Mouth, seed: int) -> Array:
    """Fine upright lines of the vermilion as height, mm [H, W]; nothing where a picture can't show them."""
    if mouth_.plane.density < 1.2:
        return np.zeros(mouth_.plane.shape, np.float32)
    lines = noise((seed, 71), mouth_.plane, 0.9, 5.0) + 0.6 * noise((seed, 72), mouth_.plane, 0.5, 5.0)
    return np.asarray(0.085 * lines * mouth_.vermilion, np.float32)
