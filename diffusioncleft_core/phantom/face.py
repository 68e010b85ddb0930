"""What a phantom is: identity, attributes, cleft or repair, and how it is photographed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .anatomy.measures import IDENTITY_SIZE

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

EXPRESSIONS = ("neutral", "smile", "cry", "open", "closed")
"""`open` is a mouth open with teeth, `closed` closed eyes."""
BACKGROUNDS = ("plain", "clinic", "outdoors")
WHOLE_HEAD, CLOSE = 1.42, 0.94
"""Heights of the frame, of the head's from the skull's top to the chin: the head with neck and shoulders; the
face from the hairline to below the chin, as clinics photograph it: there the mouth is 1.5 times as wide."""
INCOMPLETE, COMPLETE = 0.25, 0.75
"""From these severities on a cleft is incomplete (below: microform) and complete."""


@dataclass(frozen=True)
class Cleft:
    """An unrepaired cleft of the lip. `side` is the patient's own: left lies on the right of the picture."""

    side: Side
    severity: float
    """0 (no cleft) to 1: below 0.25 a microform, from 0.75 on complete. Of a bilateral cleft its left
    side."""
    nasal_asymmetry: float
    """0 (none) to 1 (ala flat, low and back, columella and tip towards the healthy side)."""
    other: float | None = None
    """Of a bilateral cleft the severity of the right side; None for a symmetric one."""

    def by_side(self) -> dict[int, float]:
        """The severity of each cleft by its direction in the picture, -1 (patient's right) or 1."""
        return _by_side(self.side, self.severity, self.other)


@dataclass(frozen=True)
class Repair:
    """A repaired cleft. Strengths from 0 (not visible) to 1 (marked)."""

    side: Side
    scar: float
    lip_asymmetry: float
    """The bow's peak off level, and the vermilion notched (whistle deformity)."""
    nose_asymmetry: float
    """The nostril flat and small, the ala low and wide."""
    tip_ptosis: float = 0.0
    bow: float = 1.0
    """Depth of the cupid's bow as a share of the healthy one."""
    curved: bool = False
    """The scar follows a rotation-advancement (Millard) and not the straight line of the philtral column."""
    flat: float = 0.5
    """How far the philtrum is flattened."""

    def by_side(self) -> dict[int, float]:
        """The visibility of each scar by its direction in the picture, -1 (patient's right) or 1."""
        return _by_side(self.side, self.scar, None)


def _by_side(side: Side, strength: float, other: float | None) -> dict[int, float]:
    if side == "bilateral":
        return {-1: strength if other is None else other, 1: strength}
    return {1: strength} if side == "left" else {-1: strength}


@dataclass(frozen=True)
class Light:
    """A key light and what comes from all around."""

    azimuth: float = -25.0
    """Degrees, from -75 (left of the picture) to 75."""
    elevation: float = 30.0
    key: float = 0.62
    """Share of the key light in the whole."""
    warmth: float = 0.0
    """-1 (blue sky) to 1 (a lamp)."""
    exposure: float = 1.0


@dataclass(frozen=True)
class Camera:
    """What lens, sensor and file do to the picture."""

    blur: float = 0.0
    """Sigma of the blur as a share of 1/512 of the side."""
    noise: float = 0.006
    """Standard deviation of the sensor's noise, of 1."""
    jpeg: int | None = None
    """Quality of a JPEG passage, 30 to 100; None for none."""


@dataclass(frozen=True)
class View:
    """How a face is photographed."""

    yaw: float = 0.0
    """Degrees to the picture's right, -20 to 20."""
    pitch: float = 0.0
    """Degrees up, -10 to 10."""
    roll: float = 0.0
    """Degrees clockwise, -10 to 10."""
    frame: float = WHOLE_HEAD
    """Height of the frame, of the head's: `WHOLE_HEAD`, `CLOSE` or between."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Shift of the face as a share of the frame."""
    expression: str = "neutral"
    strength: float = 1.0
    """How strong the expression is, 0 to 1."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Degrees the eyes turn right and down of the camera."""
    light: Light = field(default_factory=Light)
    camera: Camera = field(default_factory=Camera)
    background: str = "plain"
    ground: tuple[float, float, float] = (0.62, 0.66, 0.70)
    """Colour of the background, sRGB 0 to 1."""
    clothing: tuple[float, float, float] = (0.30, 0.38, 0.50)
    collar: float = 0.5
    """0 high to 1 low."""


@dataclass(frozen=True)
class PhantomFace:
    """Everything the renderer needs: the same value always gives the same picture."""

    identity: NDArray[np.float64]
    """[40], N(0, 1)."""
    attributes: dict[str, str]
    """The words of the vocabulary that say how the face looks; coily is a hair texture beyond it."""
    view: View = field(default_factory=View)
    cleft: Cleft | None = None
    repair: Repair | None = None
    glasses: bool = False
    seed: int = 0
    """Of what is different at each visit: the sensor's noise, the blurred background, single hairs."""

    def __post_init__(self) -> None:
        if self.identity.shape != (IDENTITY_SIZE,):
            raise ValueError(f"an identity has {IDENTITY_SIZE} numbers, not {self.identity.shape}")
        if self.cleft and self.repair:
            raise ValueError("a lip is cleft or repaired, not both")

    @property
    def finding(self) -> str | None:
        """`cleft`, `scar` or None for a healthy face."""
        return CLEFT if self.cleft else SCAR if self.repair else None

    def photographed_again(self, rng: np.random.Generator) -> "PhantomFace":
        """The same person in another pose, light and place."""
        return replace(self, view=random_view(rng, self.attributes["subject"]), seed=int(rng.integers(2**31)))

    def repaired(self, rng: np.random.Generator) -> "PhantomFace":
        """The same person after repair of the same cleft: same side, same type.

        Raises:
            ValueError: the face has no cleft.
        """
        if self.cleft is None:
            raise ValueError("only a face with a cleft can be repaired")
        wanted = {"cleft_type": "unilateral", "side": self.cleft.side}
        if self.cleft.side == "bilateral":
            wanted = {"cleft_type": "bilateral", "scar": "scars"}
        repair = random_repair(rng, wanted)
        healthy = {key: value for key, value in self.attributes.items() if key in HEALTHY}
        return replace(
            self, cleft=None, repair=repair, attributes=healthy | describe_repair(repair)
        ).photographed_again(rng)


def random_identity(rng: np.random.Generator) -> NDArray[np.float64]:
    """A new person: [40] float64, each entry N(0, 1)."""
    return rng.standard_normal(IDENTITY_SIZE)


def random_view(rng: np.random.Generator, subject: str, frame: float = CLOSE) -> View:
    """A clinic's photograph: nearly frontal, mostly at rest, lit from some side; babies cry more often and
    smile less."""
    baby = subject == "baby"
    mood = [0.74, 0.10, 0.07, 0.06, 0.03] if baby else [0.78, 0.14, 0.01, 0.06, 0.01]
    hue = rng.uniform(0, 2 * np.pi)
    ground = np.clip(rng.uniform(0.35, 0.85) + 0.07 * np.cos(hue + np.array([0.0, 2.1, 4.2])), 0, 1)
    cloth = np.clip(
        rng.uniform(0.12, 0.85) + rng.uniform(0, 0.3) * np.cos(hue + 2 + np.array([0, 2.1, 4.2])), 0.03, 0.95
    )
    return View(
        yaw=float(np.clip(rng.normal(0, 5.0), -20, 20)),
        pitch=float(np.clip(rng.normal(0, 3.0), -10, 10)),
        roll=float(np.clip(rng.normal(0, 2.4), -10, 10)),
        frame=frame,
        scale=float(rng.uniform(0.95, 1.06)),
        shift=(float(rng.normal(0, 0.012)), float(rng.normal(0, 0.012))),
        expression=str(rng.choice(EXPRESSIONS, p=mood)),
        strength=float(rng.uniform(0.45, 1.0)),
        gaze=(float(rng.normal(0, 3)), float(rng.normal(0, 2))),
        light=Light(
            azimuth=float(np.clip(rng.normal(0, 30), -70, 70)),
            elevation=float(rng.uniform(10, 50)),
            key=float(rng.uniform(0.4, 0.72)),
            warmth=float(np.clip(rng.normal(0.05, 0.3), -1, 1)),
            exposure=float(rng.uniform(0.94, 1.06)),
        ),
        camera=Camera(
            blur=float(rng.uniform(0.2, 1.0)),
            noise=float(rng.uniform(0.003, 0.012)),
            jpeg=int(rng.integers(82, 97)) if rng.random() < 0.5 else None,
        ),
        background=str(rng.choice(BACKGROUNDS, p=[0.7, 0.18, 0.12])),
        ground=(float(ground[0]), float(ground[1]), float(ground[2])),
        clothing=(float(cloth[0]), float(cloth[1]), float(cloth[2])),
        collar=float(rng.uniform(0, 1)),
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
    if finding not in (None, *FINDINGS):
        raise ValueError(f"the phantom has no finding {finding!r}; it has {', '.join(FINDINGS)}")
    chosen: dict[str, str] = {}
    for key, values in HEALTHY.items():
        allowed = values[:4] if key == "subject" and finding == CLEFT else values
        value = wanted.get(key) or str(rng.choice(allowed))
        if value not in values and (key, value) != ("hair_texture", "coily"):
            raise ValueError(f"the phantom has no {key} {value!r}; it has {', '.join(values)}")
        chosen[key] = value
    cleft = random_cleft(rng, wanted) if finding == CLEFT else None
    repair = random_repair(rng, wanted) if finding == SCAR else None
    chosen |= describe_cleft(cleft) if cleft else describe_repair(repair) if repair else {}
    person = random_identity(rng) if identity is None else np.asarray(identity, dtype=np.float64)
    glasses = chosen["subject"] != "baby" and rng.random() < 0.08
    view = random_view(rng, chosen["subject"])
    return PhantomFace(person, chosen, view, cleft, repair, glasses, int(rng.integers(2**31)))


def _random_side(rng: np.random.Generator, wanted: Mapping[str, str]) -> Side:
    kind = wanted.get("cleft_type") or str(rng.choice(["unilateral", "bilateral"], p=[0.7, 0.3]))
    if kind == "bilateral":
        return "bilateral"
    side = wanted.get("side") or str(rng.choice(["left", "right"], p=[0.6, 0.4]))
    return "left" if side == "left" else "right"


def random_cleft(rng: np.random.Generator, wanted: Mapping[str, str]) -> Cleft:
    """A cleft with the words in `wanted` (cleft_type, side, severity, nasal_asymmetry) and the rest drawn."""
    severity = wanted.get("severity") or str(rng.choice(["incomplete", "complete"]))
    extent = rng.uniform(0.84, 1.0) if severity == "complete" else rng.uniform(0.38, 0.68)
    asymmetry = wanted.get("nasal_asymmetry") or str(rng.choice(["none", "slight", "marked"]))
    low, high = {"none": (0.0, 0.15), "slight": (0.35, 0.6), "marked": (0.75, 1.0)}[asymmetry]
    strength = float(rng.uniform(low, high))
    side = _random_side(rng, wanted)
    other = None
    if side == "bilateral" and rng.random() < 0.4:
        other = (
            float(extent * rng.uniform(0.75, 1.0))
            if severity == "incomplete"
            else float(rng.uniform(0.76, 1))
        )
    return Cleft(side, float(extent), strength, other)


def random_repair(rng: np.random.Generator, wanted: Mapping[str, str]) -> Repair:
    """A repair with the words in `wanted` (cleft_type, side, scar, asymmetry, nasal_tip, cupids_bow)."""
    asymmetry = wanted.get("asymmetry") or str(rng.choice(["none", "lip", "nose", "lip and nose"]))
    lip = rng.uniform(0.5, 1.0) if "lip" in asymmetry else rng.uniform(0.0, 0.2)
    nose = rng.uniform(0.5, 1.0) if "nose" in asymmetry else rng.uniform(0.0, 0.2)
    word = wanted.get("scar", "scar")
    scar = rng.uniform(0.0, 0.12) if word == "none" else rng.uniform(0.65, 1.0)
    side: Side = "bilateral" if word == "scars" else _random_side(rng, wanted)
    tip = rng.uniform(0.6, 1.0) if wanted.get("nasal_tip") == "ptosis" else 0.0
    bow = rng.uniform(0.0, 0.2) if wanted.get("cupids_bow") == "poorly defined" else rng.uniform(0.75, 1.0)
    flat = rng.uniform(0.8, 1.0) if word == "philtrum scar" else rng.uniform(0.2, 0.7)
    curved = bool(rng.random() < 0.5) and side != "bilateral"
    return Repair(side, float(scar), float(lip), float(nose), float(tip), float(bow), curved, float(flat))


def describe_cleft(cleft: Cleft) -> dict[str, str]:
    """The words for a cleft: cleft_type, severity and, of a unilateral one, side and nasal_asymmetry.

    The vocabulary has no microform: it is called incomplete. A bilateral cleft is as complete as its
    milder side.
    """
    mildest = min(cleft.by_side().values())
    severity = "complete" if mildest >= COMPLETE else "incomplete"
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
    """The words for a repair: cleft_type, side, scar, asymmetry, nasal_tip, cupids_bow.

    A scar over a philtrum that is flattened is a philtrum scar.
    """
    words = {"cleft_type": "bilateral" if repair.side == "bilateral" else "unilateral"}
    if repair.side != "bilateral":
        words["side"] = repair.side
    visible = "scars" if repair.side == "bilateral" else "philtrum scar" if repair.flat >= 0.75 else "scar"
    words["scar"] = visible if repair.scar >= 0.25 else "none"
    places = [
        place
        for place, strength in (("lip", repair.lip_asymmetry), ("nose", repair.nose_asymmetry))
        if strength >= 0.4
    ]
    words["asymmetry"] = f"slight {' and '.join(places)} asymmetry" if places else "none"
    words["nasal_tip"] = "ptosis" if repair.tip_ptosis >= 0.5 else "none"
    words["cupids_bow"] = "poorly defined" if repair.bow < 0.5 else "none"
    return words
