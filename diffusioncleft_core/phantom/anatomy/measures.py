"""The measures of one head in millimetres: the subject sets the middle, the identity the deviation.

Middles follow the anthropometry of Farkas (Anthropometry of the Head and Face, 2nd ed., Raven Press 1994:
zy-zy, go-go, eu-eu, n-gn, n-sn, sn-prn, al-al, en-en, ex-ex, ch-ch, sn-sto, ls-sto, sto-li), rounded to
what a
picture can show. The baby is about six months old, child subjects about seven years. Deviations are wider
than
a population's (about 6 to 9 % each way), so that people are told apart at 128 px.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

IDENTITY_SIZE = 40
"""Length of an identity vector; each entry is N(0, 1) and moves one feature of the face."""


@dataclass(frozen=True)
class Measures:
    """Lengths in mm of one head at rest; `half` is from the midline. Heights y are below the pupils."""

    vertex: float
    """y of the top of the skull (negative)."""
    trichion: float
    """y of the hairline's middle (negative)."""
    head_half: float
    """Half of eu-eu, the skull's breadth."""
    face_half: float
    """Half of zy-zy."""
    jaw_half: float
    """Half of go-go."""
    gnathion: float
    chin_half: float
    pupil: float
    """Half of the interpupillary distance."""
    fissure: float
    """Half length of the lid fissure, (ex - en) / 2."""
    aperture: float
    """Height of the open lid fissure."""
    tilt: float
    """Rise of the outer over the inner canthus, mm."""
    iris: float
    """Diameter of the visible iris."""
    lid_fold: float
    """Height of the tarsal fold over the lid margin; small is a covered lid."""
    brow: float
    """y of the brow's middle (negative)."""
    brow_arch: float
    brow_width: float
    brow_density: float
    subnasale: float
    prominence: float
    """sn-prn, the nose's protrusion."""
    root: float
    """Height of the bridge at the nasion."""
    bridge: float
    """Half breadth of the bridge."""
    hump: float
    tip: float
    """Half breadth of the tip."""
    tip_lift: float
    """How far the tip lies above the subnasale."""
    ala: float
    """Half of al-al."""
    stomion: float
    mouth: float
    """Half of ch-ch."""
    upper_vermilion: float
    """ls-sto."""
    lower_vermilion: float
    """sto-li."""
    bow: float
    """Height of the cupid's bow peaks over its middle."""
    peak: float
    """Half distance of the bow's peaks (crista philtri)."""
    philtrum: float
    """Depth of the philtral groove."""
    fullness: float
    """How far the lips stand out."""
    cheekbone: float
    cheek: float
    """Fullness of the cheeks (buccal fat)."""
    brow_ridge: float
    chin: float
    """Prominence of the chin."""
    fold: float
    """Depth of the nasolabial fold."""
    ear: float
    """Length of the ear."""
    ear_out: float
    """How far the ear stands off, degrees from the head."""
    neck_half: float
    lip_redness: float
    freckles: float
    moles: float
    wrinkles: float
    widow: float
    """Shape of the hairline: positive dips in the middle, negative recedes at the temples."""


# subject -> (baby, kid, girl, boy, woman, man); units as above.
_COLUMNS = ("baby", "kid", "girl", "boy", "woman", "man")
_MIDDLE: dict[str, tuple[float, float, float, float, float, float]] = {
    "vertex": (-88, -103, -102, -104, -107, -110),
    "trichion": (-54, -61, -61, -61, -64, -66),
    "head_half": (61, 72, 71, 72.5, 74, 77),
    "face_half": (50.5, 61, 60.5, 61.5, 66, 70),
    "jaw_half": (38.5, 45, 44.5, 46, 49, 55),
    "gnathion": (66, 91, 90, 92, 106, 115),
    "chin_half": (15, 18, 17.5, 19, 20, 25),
    "pupil": (22, 27, 27, 27, 30.5, 32),
    "fissure": (11.5, 13.4, 13.5, 13.3, 15, 15.2),
    "aperture": (9.9, 10.6, 10.8, 10.0, 10.6, 9.8),
    "tilt": (1.0, 1.4, 1.6, 1.2, 1.8, 1.2),
    "iris": (11.0, 11.5, 11.5, 11.5, 11.7, 11.7),
    "lid_fold": (2.2, 3.0, 3.2, 2.8, 4.0, 2.8),
    "brow": (-15, -19, -19.5, -18.5, -22.5, -20.5),
    "brow_arch": (1.6, 2.0, 2.4, 1.6, 3.4, 1.4),
    "brow_width": (3.6, 5.2, 4.8, 5.8, 5.6, 8.0),
    "brow_density": (0.45, 0.85, 0.85, 0.9, 0.95, 1.05),
    "subnasale": (27, 37.5, 37, 38, 46, 50),
    "prominence": (9.5, 13.5, 13.2, 13.8, 18, 20),
    "root": (2.0, 3.5, 3.4, 3.6, 5.5, 7.0),
    "bridge": (6.4, 6.4, 6.2, 6.6, 6.4, 7.4),
    "hump": (-0.6, -0.4, -0.5, -0.3, 0.0, 0.8),
    "tip": (6.6, 6.9, 6.6, 7.2, 7.4, 8.4),
    "tip_lift": (6.6, 7.6, 7.6, 7.5, 8.2, 8.4),
    "ala": (12.6, 14.2, 13.9, 14.5, 15.9, 17.6),
    "stomion": (40.5, 54, 53.4, 55, 65.5, 71.5),
    "mouth": (16.0, 20.5, 20.3, 21, 25, 27),
    "upper_vermilion": (5.6, 6.8, 7.0, 6.6, 7.8, 7.0),
    "lower_vermilion": (6.4, 7.8, 8.0, 7.6, 9.4, 8.8),
    "bow": (1.9, 2.1, 2.2, 2.0, 2.4, 1.9),
    "peak": (4.0, 4.6, 4.5, 4.7, 5.2, 5.8),
    "philtrum": (0.9, 1.0, 1.0, 1.0, 1.0, 1.1),
    "fullness": (0.9, 0.95, 1.0, 0.9, 1.1, 0.85),
    "cheekbone": (0.4, 0.6, 0.6, 0.6, 1.0, 1.0),
    "cheek": (1.9, 0.95, 0.95, 0.85, 0.4, 0.1),
    "brow_ridge": (0.0, 0.25, 0.2, 0.35, 0.35, 1.1),
    "chin": (0.5, 0.75, 0.7, 0.8, 0.9, 1.25),
    "fold": (0.28, 0.3, 0.3, 0.3, 0.42, 0.6),
    "ear": (44, 54, 53, 55, 59, 64),
    "ear_out": (24, 27, 25, 28, 22, 25),
    "neck_half": (31, 37, 36, 39, 45, 56),
    "lip_redness": (0.55, 0.55, 0.6, 0.5, 0.8, 0.4),
    "freckles": (0.0, 0.25, 0.25, 0.25, 0.15, 0.15),
    "moles": (0.3, 0.8, 0.8, 0.8, 1.2, 1.4),
    "wrinkles": (0.0, 0.0, 0.0, 0.0, 0.28, 0.42),
    "widow": (0.0, 0.0, 0.1, 0.0, 0.2, -0.5),
}
# One standard deviation: a share of the middle, or (as a tuple of one) an amount.
_SPREAD: dict[str, float | tuple[float]] = {
    "vertex": 0.03, "trichion": 0.10, "head_half": 0.03, "face_half": 0.05, "jaw_half": 0.085,
    "gnathion": 0.05, "chin_half": 0.20, "pupil": 0.055, "fissure": 0.06, "aperture": 0.11, "tilt": (1.3,),
    "iris": 0.015, "lid_fold": (1.3,), "brow": 0.10, "brow_arch": (1.3,), "brow_width": 0.24,
    "brow_density": 0.16, "subnasale": 0.065, "prominence": 0.11, "root": 0.30, "bridge": 0.16, "hump":
    (0.9,),
    "tip": 0.13, "tip_lift": 0.14, "ala": 0.105, "stomion": 0.02, "mouth": 0.085, "upper_vermilion": 0.19,
    "lower_vermilion": 0.17, "bow": 0.34, "peak": 0.15, "philtrum": 0.40, "fullness": 0.22,
    "cheekbone": (0.45,), "cheek": (0.35,), "brow_ridge": (0.3,), "chin": (0.35,), "fold": (0.12,),
    "ear": 0.07, "ear_out": 0.2, "neck_half": 0.06, "lip_redness": (0.2,), "freckles": (0.35,), "moles":
    (0.8,),
    "wrinkles": (0.2,), "widow": (0.6,),
}  # fmt: skip


def measures(subject: str, identity: NDArray[np.float64]) -> Measures:
    """The measures of a person: `identity` [40], N(0, 1), bounded by a tanh.

    The mouth keeps its place between nose and chin whatever these are.
    """
    column = _COLUMNS.index(subject)
    names = [field.name for field in fields(Measures)]
    repeat = np.resize(identity, len(names)) + 0.35 * np.roll(np.resize(identity, len(names)), 17)
    z = 1.6 * np.tanh(repeat / 1.7)
    value: dict[str, float] = {}
    for name, deviation in zip(names, z, strict=True):
        middle = _MIDDLE[name][column]
        spread = _SPREAD[name]
        step = spread[0] if isinstance(spread, tuple) else abs(middle) * spread
        value[name] = float(middle + step * deviation)
    lower = (value["gnathion"] - value["subnasale"]) / (
        _MIDDLE["gnathion"][column] - _MIDDLE["subnasale"][column]
    )
    lip = (_MIDDLE["stomion"][column] - _MIDDLE["subnasale"][column]) * (0.35 + 0.65 * lower)
    value["stomion"] = value["subnasale"] + lip + value["stomion"] - _MIDDLE["stomion"][column]
    for name in ("freckles", "moles", "wrinkles", "cheek", "cheekbone", "brow_ridge", "fold", "philtrum"):
        value[name] = max(0.0, value[name])
    value["lid_fold"] = max(0.6, value["lid_fold"])
    value["lip_redness"] = min(max(value["lip_redness"], 0.15), 1.0)
    return Measures(**value)
