"""Verdicts on pictures as they travel between the filters and the set that is saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, dict[str, Any]]
"""Verdicts by `picture_key`: a picture is known by its pixels, whatever list it comes in."""


@dataclass(frozen=True)
class Judged:
    """One picture [H, W, 3] uint8, its row, and the verdicts in it."""

    pixels: Any
    row: dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What a filter says of one picture, and the faces that it found in it, the largest first."""

    told: dict[str, Any]
    faces: Sequence[Any]


@dataclass(frozen=True)
class Verdicts:
    """What a filter gives: pictures that passed, those that did not, a line for each, and the record.

    csv: a line a picture. drawn, neighbours: the first pictures [H, W, 3] uint8 with their verdicts on them,
    and beside the generated picture whose face is most like theirs.
    """

    accepted: list[Judged]
    rejected: list[Judged]
    table: str
    record: Record
    csv: str
    drawn: list[Any]
    neighbours: list[Any]


def verdict_words(told: Mapping[str, Any], *, checked: bool) -> str:
    """A verdict in a few words, with the reasons' own names; checked: whether anything looked at it."""
    if not told.get("accepted", True):
        return f"set aside: {', '.join(told.get('reasons', []))}"
    return "accepted" if checked else "not checked"


def picture_key(pixels: Any) -> str:
    """SHA-256 of a picture's size and pixels."""
    from ..diffusioncleft_core.files import sha256_bytes

    return sha256_bytes(repr(pixels.shape).encode() + pixels.tobytes())


def of_both(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts of two filters on one picture: accepted when both accept it, with the reasons of both."""
    before = dict(earlier or {})
    reasons = [*before.get("reasons", []), *now.get("reasons", [])]
    return {
        **before,
        **now,
        "accepted": bool(before.get("accepted", True)) and bool(now.get("accepted", True)),
        "reasons": list(dict.fromkeys(reasons)),
    }
