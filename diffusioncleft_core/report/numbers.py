"""Numbers as a reader wants them: few digits, their unit, their interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SUPPRESSED = "<5"
"""Stands for any count of fewer than five photographs."""
NONE = "none"
SPACE = "\u00a0"
"""Keeps a number and its unit on one line."""

CONDITION_NAMES = {"pre_op": "Pre-op", "post_op": "Post-op", "all": "Both"}


def condition_name(name: str) -> str:
    """`Pre-op` for `pre_op`; another vocabulary's name without its underscores."""
    return CONDITION_NAMES.get(name, name.replace("_", " ").capitalize())


def percent(value: float | None) -> str:
    """A proportion as per cent: one decimal, below 1 % two digits that count: `41.6 %`, `0.0025 %`."""
    if value is None:
        return NONE
    share = 100 * value
    if share in (0, 100):
        return f"{share:.0f}{SPACE}%"
    if abs(share) >= 1:
        return f"{share:.1f}{SPACE}%"
    places = min(6, 1 - math.floor(math.log10(abs(share))))
    return f"{f'{share:.{places}f}'.rstrip('0').rstrip('.')}{SPACE}%"


def plain(value: float | None, places: int = 3) -> str:
    return NONE if value is None else f"{value:,.{places}f}"


def count(value: int | None) -> str:
    """A count of photographs that may have been suppressed."""
    return SUPPRESSED if value is None else f"{value:,}"


def interval(bounds: Sequence[float] | None, show: Any = percent) -> str:
    """`95 %: 0.08 % to 0.58 %`, or nothing."""
    if not bounds:
        return ""
    return f"95{SPACE}%: {show(bounds[0])} to {show(bounds[1])}"


def is_phantom(figure: Mapping[str, Any] | None) -> bool:
    """Whether a figure was made with a phantom or seeded-random extractor."""
    return bool(((figure or {}).get("extractor") or {}).get("phantom"))


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    text = text.strip()
    return text if not text else text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
