"""Unrepaired clefts of the lip: where the gap runs, and what it does to lip and nose.

After the surgical descriptions (Millard, Cleft Craft, 1976; Mulliken, Plast Reconstr Surg 2008, on microform
clefts; LAHSHAL, Kriens 1989: incomplete and complete): the gap lies in the line of the philtral column,
from the
free edge of the lip towards the nostril's floor. A microform notches the vermilion and furrows the skin
above it,
an incomplete cleft ends in the lip, a complete one opens into the nostril. The lower lip has no part in it.
"""

from dataclasses import dataclass

import numpy as np

from ..face import COMPLETE, INCOMPLETE, Cleft
from .field import Array
from .measures import Measures
from .nose import NoseChange, Wing, nostril


@dataclass(frozen=True)
class Gap:
    """One gap in the upper lip, in the frontal plane; mm."""

    direction: int
    """-1 on the picture's left (the patient's right side)."""
    low_x: float
    """Where its middle crosses the free edge."""
    high_x: float
    """Where its middle reaches the nostril's floor."""
    low_y: float
    high_y: float
    apex_y: float
    """Where it ends; above `high_y` when complete."""
    half: float
    """Half breadth at the free edge."""
    high_half: float
    """Half breadth at the nostril's floor; 0 where the gap ends below it."""
    furrow: float
    """Depth of the furrow in the skin above the apex."""
    band: float
    """Breadth of the vermilion along its margins near the free edge."""
    severity: float

    def middle(self, y: Array) -> Array:
        """x of the gap's middle at heights y."""
        t = (y - np.float32(self.high_y)) / np.float32(self.low_y - self.high_y)
        t = np.clip(t, -0.6, 1.4)
        return np.asarray(np.float32(self.high_x) + np.float32(self.low_x - self.high_x) * t)

    def breadth(self, y: Array) -> Array:
        """Half breadth at heights y; negative above the apex, where there is no gap."""
        t = (y - np.float32(self.apex_y)) / np.float32(self.low_y - self.apex_y)
        if self.high_half:
            s = np.clip((y - np.float32(self.high_y)) / np.float32(self.low_y - self.high_y), 0, 1.25)
            # The margins lie close below the nostril and curve apart towards the free edge.
            apart = 0.25 * s + 0.75 * np.power(s, np.float32(2.2))
            return np.asarray(np.float32(self.high_half) + np.float32(self.half - self.high_half) * apart)
        open_ = np.float32(self.half) * np.power(np.clip(t, 0, 1.3), np.float32(0.66))
        return np.asarray(open_ + np.minimum(t, 0) * np.float32(6.0))


def extent(severity: float) -> float:
    """How far up the lip a gap reaches, as a share of the height from the free edge to the nostril's floor.

    0.10 to 0.30 for a microform, up to 0.88 for an incomplete cleft, all of it for a complete one.
    """
    if severity < INCOMPLETE:
        return 0.10 + 0.20 * severity / INCOMPLETE
    if severity < COMPLETE:
        return 0.38 + 0.50 * (severity - INCOMPLETE) / (COMPLETE - INCOMPLETE)
    return 1.0


def gaps(
    cleft: Cleft | None, m: Measures, lip_top: float, lip_low: float, nose: NoseChange
) -> tuple[Gap, ...]:
    """The gaps of a cleft between the nostril's floor `lip_top` and the free edge `lip_low` (y, mm)."""
    if cleft is None:
        return ()
    found = []
    k = m.mouth / 25
    both = cleft.side == "bilateral"
    for direction, severity in cleft.by_side().items():
        if severity <= 0:
            continue
        reach = extent(severity)
        wide = 0.55 + 0.45 * severity if severity >= INCOMPLETE else 0.30 + 0.6 * severity
        half = k * (4.6 if both else 5.8) * wide * (1.18 if severity >= COMPLETE else 1.0)
        pit = nostril(m, nose, direction)
        complete = severity >= COMPLETE
        inner = 6.6 * k if both and severity >= INCOMPLETE else 0.78 * m.peak
        found.append(
            Gap(
                direction=direction,
                low_x=direction * (inner + min(half, 6.2 * k)),
                high_x=pit.x,
                low_y=lip_low,
                high_y=pit.y + 0.2 * pit.b if complete else lip_top,
                apex_y=pit.y if complete else lip_low - reach * (lip_low - lip_top),
                half=half,
                high_half=(0.28 + 0.7 * (severity - COMPLETE)) * pit.a if complete else 0.0,
                furrow=0.5 * k * (1 if severity < COMPLETE else 0),
                band=k * 4.8,
                severity=severity,
            )
        )
    return tuple(found)


def nose_of_cleft(cleft: Cleft, m: Measures) -> NoseChange:
    """What the cleft does to the nose: more with its severity and with `nasal_asymmetry`."""
    k = m.ala / 16
    wings = {-1: Wing(), 1: Wing()}
    sides = cleft.by_side()
    for direction, severity in sides.items():
        pull = cleft.nasal_asymmetry if cleft.side != "bilateral" else 0.55
        pull = pull * (0.35 + 0.65 * severity)
        complete = max(0.0, (severity - COMPLETE) / (1 - COMPLETE)) * 0.5 + 0.5 * (severity >= COMPLETE)
        wings[direction] = Wing(
            out=k * (1.4 * severity + 5.4 * pull),
            down=k * (0.4 * severity + 2.9 * pull),
            back=k * (0.8 * severity + 4.2 * pull),
            flat=min(1.0, 0.15 * severity + 0.85 * pull),
            floor=complete,
        )
    if cleft.side == "bilateral":
        mean = sum(sides.values()) / 2
        lean = (sides[1] - sides[-1]) * 2.2 * k
        return NoseChange(wings, -0.5 * lean, 1.0 * mean * k, 0.75 * mean, -lean)
    direction, severity = next(iter(sides.items()))
    lean = -direction * k * (0.6 * severity + 4.4 * cleft.nasal_asymmetry * (0.35 + 0.65 * severity))
    return NoseChange(wings, 0.62 * lean, 0.4 * cleft.nasal_asymmetry * k, 0.25 * cleft.nasal_asymmetry, lean)
