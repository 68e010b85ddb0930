"""What a phantom face is: identity, attributes, cleft or repair, and how it is photographed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SKIN: dict[str, tuple[float, float, float]] = {
    "pale": (252, 236, 230),
    "fair": (248, 208, 194),
    "light": (236, 196, 148),
    "medium": (200, 144, 104),
    "olive": (178, 156, 100),
    "dark": (98, 64, 46),
}
HAIR: dict[str, tuple[float, float, float]] = {
    "blonde": (226, 190, 106),
    "brown": (116, 72, 40),
    "black": (30, 27, 30),
    "red": (186, 70, 30),
}
EYES: dict[str, tuple[float, float, float]] = {
    "brown": (84, 46, 20),
    "green": (62, 150, 72),
    "blue": (58, 122, 222),
    "hazel": (190, 134, 48),
}
SCLERA = (246.0, 246.0, 248.0)
PUPIL = (14.0, 12.0, 14.0)
MUCOSA = (186.0, 62.0, 74.0)
GAP = (62.0, 10.0, 18.0)
TEETH = (244.0, 240.0, 230.0)


IDENTITY_SIZE = 24
"""Length of an identity vector; each entry is N(0, 1) and moves one feature of the face."""

FINDINGS = CLEFT, SCAR = "cleft", "scar"
"""What the phantom can draw: an unrepaired cleft, the scar of a repaired one."""
Side = Literal["left", "right", "bilateral"]

SUBJECTS = ("girl", "boy", "baby", "kid", "man", "woman")
HEALTHY: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "skin": ("light", "pale", "medium", "fair", "dark", "olive"),
    "hair_texture": ("straight", "wavy", "curly"),
    "hair_length": ("short", "long"),
    "hair_color": ("blonde", "brown", "black", "red"),
    "eyes": ("brown", "green", "blue", "hazel"),
}
"""Attributes every phantom has, in the words of Table 1 of the paper."""


@dataclass(frozen=True)
class Cleft:
    """An unrepaired cleft of the upper lip. `side` is the patient's side (left lies right in the image)."""

    side: Side
    severity: float
    """0.4 (a notch in the vermilion) to 1 (complete, open into the nostril)."""
    nasal_asymmetry: float
    """0 (none) to 1 (flattened ala, widened nostril, tip turned away)."""


@dataclass(frozen=True)
class Repair:
    """A repaired cleft. Strengths from 0 (not visible) to 1 (plain to see)."""

    side: Side
    scar: float
    lip_asymmetry: float
    nose_asymmetry: float
    tip_ptosis: float = 0.0
    """0 to 1: how far the nasal tip hangs."""
    bow: float = 1.0
    """Depth of the cupid's bow as a share of the healthy one."""


@dataclass(frozen=True)
class Pose:
    """How the face lies in the frame and in the light."""

    angle: float = 0.0
    """In-plane rotation, degrees."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Shift of the face as a share of the frame."""
    light: tuple[float, float] = (0.0, 0.0)
    """Direction the light comes from, each -1 to 1."""
    exposure: float = 1.0
    mouth_open: float = 0.0
    """0 closed to 1 open by a third of the lip height."""
    background: tuple[float, float, float] = (190.0, 195.0, 205.0)
    clothing: tuple[float, float, float] = (90.0, 110.0, 140.0)
    grain: int = 0
    """Seed of the skin grain."""


@dataclass(frozen=True)
class PhantomFace:
    """Everything the renderer needs: the same value always gives the same picture."""

    identity: NDArray[np.float64]
    attributes: dict[str, str]
    pose: Pose = field(default_factory=Pose)
    cleft: Cleft | None = None
    repair: Repair | None = None

    @property
    def finding(self) -> str | None:
        """`cleft`, `scar` or None for a healthy face."""
        return CLEFT if self.cleft else SCAR if self.repair else None

    def photographed_again(self, rng: np.random.Generator) -> "PhantomFace":
        """The same person in another pose, light and place."""
        return replace(self, pose=random_pose(rng))


def random_identity(rng: np.random.Generator) -> NDArray[np.float64]:
    """A new person: [24] float64, each entry N(0, 1)."""
    return rng.standard_normal(IDENTITY_SIZE)


def random_pose(rng: np.random.Generator) -> Pose:
    """Frontal, as in the paper's photographs, with the small differences between two visits."""
    hue = rng.uniform(0, 2 * np.pi)
    base = rng.uniform(120, 225)
    tint = 22 * np.cos(hue + np.array([0.0, 2.1, 4.2]))
    cloth = rng.uniform(40, 215, size=3)
    return Pose(
        angle=float(rng.normal(0, 2.5)),
        scale=float(rng.uniform(0.95, 1.06)),
        shift=(float(rng.normal(0, 0.012)), float(rng.normal(0, 0.012))),
        light=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 0.3))),
        exposure=float(rng.uniform(0.96, 1.04)),
        mouth_open=float(rng.uniform(0, 1)) if rng.random() < 0.3 else 0.0,
        background=(float(base + tint[0]), float(base + tint[1]), float(base + tint[2])),
        clothing=(float(cloth[0]), float(cloth[1]), float(cloth[2])),
        grain=int(rng.integers(2**31)),
    )


def random_face(
    rng: np.random.Generator,
    *,
    finding: str | None = None,
    attributes: Mapping[str, str] | None = None,
    identity: NDArray[np.float64] | None = None,
) -> PhantomFace:
    """Draw a face; what `attributes` leaves open is drawn uniformly.

    Args:
        rng: the source of all choices.
        finding: None (healthy), or one of `FINDINGS`.
        attributes: keys and values are those of `conditions/cleft_lip.toml`.
        identity: the person; None draws one.

    Raises:
        ValueError: the phantom cannot draw a value.
    """
    wanted = dict(attributes or {})
    chosen: dict[str, str] = {}
    for key, values in HEALTHY.items():
        allowed = values[:4] if key == "subject" and finding == CLEFT else values
        value = wanted.get(key) or str(rng.choice(allowed))
        if value not in values:
            raise ValueError(f"the phantom has no {key} {value!r}; it has {', '.join(values)}")
        chosen[key] = value
    cleft = _random_cleft(rng, wanted) if finding == CLEFT else None
    repair = _random_repair(rng, wanted) if finding == SCAR else None
    if finding not in (None, *FINDINGS):
        raise ValueError(f"the phantom has no finding {finding!r}; it has {', '.join(FINDINGS)}")
    chosen |= describe_cleft(cleft) if cleft else describe_repair(repair) if repair else {}
    person = random_identity(rng) if identity is None else np.asarray(identity, dtype=np.float64)
    return PhantomFace(person, chosen, random_pose(rng), cleft, repair)


def _random_side(rng: np.random.Generator, wanted: Mapping[str, str]) -> Side:
    kind = wanted.get("cleft_type") or str(rng.choice(["unilateral", "bilateral"], p=[0.7, 0.3]))
    if kind == "bilateral":
        return "bilateral"
    side = wanted.get("side") or str(rng.choice(["left", "right"], p=[0.6, 0.4]))
    return "left" if side == "left" else "right"


def _random_cleft(rng: np.random.Generator, wanted: Mapping[str, str]) -> Cleft:
    severity = wanted.get("severity") or str(rng.choice(["incomplete", "complete"]))
    extent = rng.uniform(0.85, 1.0) if severity == "complete" else rng.uniform(0.5, 0.65)
    asymmetry = wanted.get("nasal_asymmetry") or str(rng.choice(["none", "slight", "marked"]))
    low, high = {"none": (0.0, 0.15), "slight": (0.35, 0.6), "marked": (0.75, 1.0)}[asymmetry]
    strength = rng.uniform(low, high)
    return Cleft(_random_side(rng, wanted), float(extent), float(strength))


def _random_repair(rng: np.random.Generator, wanted: Mapping[str, str]) -> Repair:
    asymmetry = wanted.get("asymmetry") or str(rng.choice(["none", "lip", "nose", "lip and nose"]))
    lip = rng.uniform(0.5, 1.0) if "lip" in asymmetry else rng.uniform(0.0, 0.2)
    nose = rng.uniform(0.5, 1.0) if "nose" in asymmetry else rng.uniform(0.0, 0.2)
    scar_word = wanted.get("scar", "scar")
    scar = 0.0 if scar_word == "none" else rng.uniform(0.65, 1.0)
    side: Side = "bilateral" if scar_word == "scars" else _random_side(rng, wanted)
    tip = 1.0 if wanted.get("nasal_tip") == "ptosis" else 0.0
    bow = 0.1 if wanted.get("cupids_bow") == "poorly defined" else 1.0
    return Repair(side, float(scar), float(lip), float(nose), tip, bow)


def describe_cleft(cleft: Cleft) -> dict[str, str]:
    """The words for a cleft: cleft_type, severity and, of a unilateral one, side and nasal_asymmetry."""
    severity = "complete" if cleft.severity >= 0.75 else "incomplete"
    if cleft.side == "bilateral":
        return {"cleft_type": "bilateral", "severity": severity}
    strength = cleft.nasal_asymmetry
    asymmetry = "marked" if strength >= 0.7 else "slight" if strength >= 0.25 else "none"
    return {
        "cleft_type": "unilateral",
        "severity": severity,
        "side": cleft.side,
        "nasal_asymmetry": asymmetry,
    }


def describe_repair(repair: Repair) -> dict[str, str]:
    """The words for a repair: cleft_type, side, scar, asymmetry, nasal_tip, cupids_bow."""
    words = {"cleft_type": "bilateral" if repair.side == "bilateral" else "unilateral"}
    if repair.side != "bilateral":
        words["side"] = repair.side
    visible = "scars" if repair.side == "bilateral" else "scar"
    words["scar"] = visible if repair.scar >= 0.5 else "none"
    places = [
        place
        for place, strength in (("lip", repair.lip_asymmetry), ("nose", repair.nose_asymmetry))
        if strength >= 0.4
    ]
    words["asymmetry"] = f"slight {' and '.join(places)} asymmetry" if places else "none"
    words["nasal_tip"] = "ptosis" if repair.tip_ptosis >= 0.5 else "none"
    words["cupids_bow"] = "poorly defined" if repair.bow < 0.5 else "none"
    return words
