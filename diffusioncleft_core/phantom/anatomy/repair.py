"""Repaired clefts: the scar and what surgery leaves of the asymmetry.

After Millard (Cleft Craft, 1976: rotation-advancement, its scar in the line of the philtral column and
round the
base of the columella), Mulliken (bilateral repair; the tip and the philtrum that stay abnormal) and the usual
names of secondary deformities: peak of the bow off level, whistle deformity, flat philtrum, small nostril,
ptosis
of the nasal tip.
"""

from dataclasses import dataclass

import numpy as np

from ..face import Repair
from .field import Array
from .measures import Measures
from .nose import NoseChange, Wing


@dataclass(frozen=True)
class Scar:
    """One scar from the nostril's floor to the free edge of the lip; mm."""

    direction: int
    high: tuple[float, float]
    low: tuple[float, float]
    bulge: float
    """How far its upper half runs towards the columella (rotation-advancement); 0 is a straight line."""
    breadth: float
    """Standard deviation of its profile, mm."""
    strength: float
    patch: float
    """0 to 1: how far the scar spreads over the philtrum (philtrum scarring)."""

    def line(self, y: Array) -> Array:
        """x at heights y."""
        t = np.clip((y - np.float32(self.high[1])) / np.float32(self.low[1] - self.high[1]), 0, 1.3)
        x = np.float32(self.high[0]) + np.float32(self.low[0] - self.high[0]) * t
        inward = np.sin(np.pi * np.minimum(t, 1.0) ** np.float32(0.7)).astype(np.float32)
        return np.asarray(x - np.float32(self.direction * self.bulge) * inward)


def scars(
    repair: Repair | None, m: Measures, lip_top: float, peaks: dict[int, tuple[float, float]]
) -> tuple[Scar, ...]:
    """The scars of a repair; `peaks` are the bow's peaks by direction."""
    if repair is None or repair.scar <= 0:
        return ()
    k = m.mouth / 25
    return tuple(
        Scar(
            direction=direction,
            high=(direction * 0.46 * m.ala, lip_top - 0.5),
            low=peaks[direction],
            bulge=1.9 * k if repair.curved else 0.15 * k,
            breadth=k * (0.55 + 0.85 * strength * strength) * (1 + 0.9 * max(0.0, repair.flat - 0.7)),
            strength=strength,
            patch=max(0.0, (repair.flat - 0.7) / 0.3),
        )
        for direction, strength in repair.by_side().items()
    )


def nose_of_repair(repair: Repair, m: Measures) -> NoseChange:
    """A nostril smaller and flat, a wing low and wide, the tip hanging."""
    k = m.ala / 16
    pull = repair.nose_asymmetry
    wings = {-1: Wing(), 1: Wing()}
    for direction in repair.by_side():
        wings[direction] = Wing(
            out=k * 1.7 * pull, down=k * 1.2 * pull, back=k * 1.6 * pull, flat=0.62 * pull, small=0.45 * pull
        )
    drop = 2.8 * k * repair.tip_ptosis
    if repair.side == "bilateral":
        return NoseChange(wings, 0.0, drop, 0.25 * pull + 0.35 * repair.tip_ptosis, 0.0)
    direction = next(iter(repair.by_side()))
    lean = -direction * 1.7 * k * pull
    return NoseChange(wings, 0.6 * lean, drop, 0.15 * pull, lean)
