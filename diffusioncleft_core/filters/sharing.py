"""What of a generated set may go to a place that nobody declared private."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from ..imageset.manifest import ImageRow
from ..text import counted
from .identity import LEAKS

DECLARE = "--private-place says that the place is closed to all who may not see the photographs"


def refuse_private(folder: Path, rows: Iterable[ImageRow], place: str) -> None:
    """Raise UserError where one of these images of a set may show a person of the training photographs.

    That is every image that the filters did not accept, that a person took back although it was too like a
    photograph, or that a LoRA drew and nobody compared with the photographs.

    place: what the URL calls the undeclared place.
    """
    found = Counter(why for row in rows if (why := why_private(row)))
    if not found:
        return
    reasons = "; ".join(f"{counted(n, 'image')} {why}" for why, n in found.items())
    raise UserError(
        f"{folder} is not exported to {place}, which is not declared private: {reasons}. Run 'diffusioncleft "
        f"filter' with --reference and leave out --all; or {DECLARE}"
    )


def why_private(row: ImageRow) -> str | None:
    """Why an image may show a person of the photographs, as `was …`; None where it was found not to."""
    if row.accepted is not True:
        return "not accepted by the filters"
    if set(row.reasons) & {*LEAKS}:
        return "taken back though too like a training photograph"
    identity = row.verdicts.get("identity")
    compared = isinstance(identity, dict) and identity.get("max_similarity") is not None
    return None if compared or row.lora is None else "never compared with the training photographs"
