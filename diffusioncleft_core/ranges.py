"""The numbers that a setting takes: finite, whole or not, within bounds. One check for every door.

Not-a-number compares false with every bound: a check written as `value < low` lets it through.
"""

import argparse
import math
from dataclasses import dataclass, field, fields
from typing import Any

from .errors import UserError


@dataclass(frozen=True)
class Range:
    """Numbers of one kind from `low` to `high`, both included unless `above` or `below` says otherwise.

    Called with a text, as argparse does with an option's value, it returns the number.
    """

    kind: type[int] | type[float]
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """`low` itself is left out."""
    below: bool = False
    """`high` itself is left out."""

    def holds(self, value: Any) -> bool:
        """Whether `value` is such a number: no truth value, no text, not-a-number never."""
        whole = isinstance(value, int)
        if isinstance(value, bool) or not (whole or (self.kind is float and isinstance(value, float))):
            return False
        if not whole and not math.isfinite(value):
            return False
        high_enough = value > self.low if self.above else value >= self.low
        return bool(high_enough and (value < self.high if self.below else value <= self.high))

    def check(self, value: Any, name: str) -> Any:
        """Return `value`, as a float where the kind is float; UserError, by `name`, unless `holds`."""
        if not self.holds(value):
            raise UserError(f"{name} is {value!r}; give {self}")
        return self.kind(value)

    def __call__(self, text: str) -> Any:
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not self.holds(value):
            shown = text if len(text) <= 40 else f"{text[:36]}..."
            raise argparse.ArgumentTypeError(f"{shown!r} is not {self}")
        return value

    def __str__(self) -> str:
        noun = "a whole number" if self.kind is int else "a number"
        low, high = (_shown(bound) for bound in (self.low, self.high))
        if math.isinf(self.low) and math.isinf(self.high):
            return noun if self.kind is int else "a finite number"
        if math.isinf(self.high):
            return f"{noun} above {low}" if self.above else f"{noun} of {low} or more"
        if not (self.above or self.below):
            return f"{noun} from {low} to {high}"
        start = f"above {low}" if self.above else f"from {low} on"
        return f"{noun} {start} and {'below' if self.below else 'at most'} {high}"


def whole(low: float = -math.inf, high: float = math.inf) -> Range:
    """Whole numbers from `low` to `high`."""
    return Range(int, low, high)


def number(
    low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Range:
    """Finite numbers from `low` to `high`."""
    return Range(float, low, high, above, below)


COUNT = whole(1, 2**31 - 1)
NONE_OR_MORE = whole(0, 2**31 - 1)
PHANTOMS = whole(1, 100_000)
"""Rendered photographs of a condition."""
PHANTOM_NOISE = (200, 800)
"""Least and most noise (thousandths) that `robust` trains on with phantoms; a condition may say its most."""
SEED = whole(0, 2**63 - 1)
SIDE = whole(64, 4096)
"""Side of a picture, px."""
CROP_SIDE = whole(32, 512)
"""Side of a classifier's crop, px."""
HOLDOUT = number(0, 0.5)
"""Share of subjects."""
COSINE = number(-1, 1)
SIMILARITY = number(0, 1, above=True)
"""Cosine similarity from which two faces count as one person's."""
PAPER_SIMILARITY = 0.6
"""The paper's."""
MOST_MEASURED = 50_000
"""Images of a set that distances are measured on: as many as FID's makers draw (Heusel et al., NIPS 2017)."""
STRENGTH = number(-4, 4)
"""Factor on a LoRA's own scale."""
LEARNING_RATE = number(0, 1, above=True)
SAMPLING_STEPS = whole(1, 50)
REFILLS = whole(0, 20)


def sides(text: str) -> tuple[int, ...]:
    """`768,512` or `512 768` → (512, 768), px."""
    found = tuple(sorted({SIDE(part) for part in text.replace(",", " ").split()}))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes in px, such as 512,768")
    return found


def ranged(allowed: Range, **options: Any) -> Any:
    """A dataclass field that `check_fields` holds to a range; `options` are those of `dataclasses.field`."""
    return field(metadata={"range": allowed}, **options)


def check_fields(settings: Any) -> None:
    """Raise UserError, by name, for a field of a dataclass instance outside its range; None passes."""
    for entry in fields(settings):
        allowed, value = entry.metadata.get("range"), getattr(settings, entry.name)
        if allowed is not None and value is not None:
            allowed.check(value, entry.name)


def _shown(bound: float) -> str:
    return f"{bound:.15g}" if isinstance(bound, float) else str(bound)
