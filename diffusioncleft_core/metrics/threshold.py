"""The threshold at which the audit counts two faces as one person's, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces.analyzer import FacePack
from ..faces.calibration import COUNTED, RATES, StatedThreshold, calibrate
from ..ranges import PAPER_SIMILARITY, number
from ..small_counts import FEWEST
from ..statistics import Proportion

FALSE_MATCH_RATE = 1e-5
"""Of impostor pairs: 1 in 100,000, so that an image compared with 100 photographs matches none by chance
999 times of 1,000."""
STATED_RATE = number(0, 0.01, above=True)
PACK, PHOTOGRAPHS, WITH_CONTROL, PAPER = "pack", "photographs", "photographs and control faces", "paper"


@dataclass(frozen=True)
class AuditThreshold:
    """A cosine, and how it was found.

    Attributes:
        value: from which two faces count as one person's.
        source: the pack's own calibration, these photographs, with control faces too, or the paper.
        stated: what is known of it; None of the paper's.
        wanted: the false-match rate a pair that was asked for.
        reason: why another rate than that is stated, or none.
    """

    value: float
    source: str
    stated: StatedThreshold | None
    wanted: float
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON values; `paper` is the paper's threshold, which stands beside."""
        stated = None if self.stated is None else self.stated.as_json()
        return {
            "value": self.value,
            "source": self.source,
            "wanted": self.wanted,
            "stated": stated,
            "reason": self.reason,
            "paper": PAPER_SIMILARITY,
        }

    def by_chance(self, people: int) -> Proportion | None:
        """Share of strangers' images that match one of so many people by chance, where the pack states the
        rate: it knows many more pairs than a set has controls.

        A fitted tail may state more than there is, and what is subtracted too much hides leaks: its value is
        what was counted at the least, and only the upper end what was fitted.

        people: rounded up to fives, because their number would else follow.
        """
        people = -(-people // FEWEST) * FEWEST
        if self.source != PACK or self.stated is None or self.stated.rate_ci95 is None:
            return None
        low, high = self.stated.rate_ci95
        rates = (self.stated.rate if self.stated.method == COUNTED else low, low, high)
        value, low, high = (float(-np.expm1(people * np.log1p(-rate))) for rate in rates)
        return Proportion(value, (low, high), 0, self.stated.n_pairs)

    @property
    def true_match(self) -> tuple[float, float] | None:
        """95 % interval of the share of a person's own pictures that it finds; None where it is not known."""
        known = None if self.stated is None else self.stated.true_match
        if not known or known.get("value") is None:
            return None
        return float(known["ci95"][0]), float(known["ci95"][1])


def audit_threshold(
    pack: FacePack,
    recogniser: str,
    photographs: tuple[NDArray[np.float32], Sequence[str]],
    control: NDArray[np.float32] | None,
    wanted: float = FALSE_MATCH_RATE,
) -> AuditThreshold:
    """The threshold at the false-match rate `wanted`, or at the nearest weaker one that can be stated.

    The pack's own calibration comes first; then pairs of these photographs, then those of control faces too.
    Where none can state a rate the paper's threshold is taken, whose rate is not known.

    Args:
        pack: may bring a calibration along, which counts for its recogniser alone.
        recogniser: SHA-256 of the recogniser in use.
        photographs: faces [N, 512] and who is on each.
        control: faces [n, 512] of other people, one each.
        wanted: false matches a pair.
    """
    rates = sorted({wanted, *(rate for rate in RATES if rate > wanted)})
    shipped = pack.calibration
    found: list[tuple[str, list[StatedThreshold]]] = []
    if shipped is not None and shipped.recogniser == recogniser:
        found.append((PACK, [row for row in shipped.thresholds if row.rate >= wanted * 0.999]))
    # A number of pairs would else tell how few photographs have no face.
    few = len(photographs[0]) // FEWEST * FEWEST
    faces, people = photographs[0][:few], list(photographs[1])[:few]
    if not found:
        found.append((PHOTOGRAPHS, calibrate(faces, people, rates)))
        if control is not None and len(control):
            more = np.concatenate([faces, control])
            others = [f"control {place}" for place in range(len(control))]
            found.append((WITH_CONTROL, calibrate(more, [*people, *others], rates)))
    reason = next((row.reason for _, rows in found for row in rows if row.reason), "")
    for rate in rates:
        for source, rows in found:
            for row in rows:
                if row.threshold is not None and np.isclose(row.rate, rate):
                    said = "" if np.isclose(rate, wanted) else reason or "the pack states weaker rates alone"
                    return AuditThreshold(row.threshold, source, row, wanted, said)
    return AuditThreshold(PAPER_SIMILARITY, PAPER, None, wanted, reason)
