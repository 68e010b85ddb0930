"""Counts of photographs in a node's text, which every connected browser is sent: of people none of 1 to 4."""

from collections.abc import Mapping

from ..diffusioncleft_core.small_counts import FEWEST, is_small, told_parts

_FEW = f"fewer than {FEWEST}"


def photographs_told(n: int, *, phantom: bool) -> str:
    """`12`, or `fewer than 5`."""
    return f"{n}" if phantom or not is_small(n) else _FEW


def faces_told(n: int, faces: int, faceless: int, *, phantom: bool) -> str:
    """`40 faces of 46 photographs, 6 without a face found`, or what tells of no fewer than 5.

    Args:
        n: photographs.
        faces: those of them with a face found.
        faceless: those without.
        phantom: they are phantoms.
    """
    if phantom or not any(map(is_small, (n, faces, faceless))):
        return f"{faces} faces of {n} photographs, {faceless} without a face found"
    if is_small(n):
        return f"{_FEW} photographs"
    return f"{n} photographs, {_FEW} {'without' if is_small(faceless) else 'with'} a face found"


def reasons_told(set_aside: Mapping[str, int], *, phantom: bool) -> list[str]:
    """`duplicate: 6`, or the reason alone; of fewer than 5 in all no reason, which would count them."""
    reasons: dict[str, int | None] = dict(sorted(set_aside.items()))
    if not phantom:
        reasons = {} if is_small(sum(set_aside.values())) else told_parts(dict(sorted(set_aside.items())))
    return [reason if n is None else f"{reason}: {n}" for reason, n in reasons.items()]
