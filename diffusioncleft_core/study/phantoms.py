"""Whether pictures that are called phantoms are: nobody's consent is asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..files import shown

ENOUGH = 40
"""Pictures that are looked at."""


def refuse_people(paths: Sequence[Path], folder: Path) -> None:
    """Raise UserError where pictures that their owner calls phantoms seem to be photographs of people."""
    from ..faces.analyzer import load_face_analyzer
    from ..faces.records import are_phantoms, face_records

    step = max(1, len(paths) // ENOUGH)
    looked_at = paths[::step][:ENOUGH]
    files = [str(path.relative_to(folder.resolve())) for path in looked_at]
    if not are_phantoms(face_records(folder, files, load_face_analyzer("phantom"), description="phantoms")):
        raise UserError(
            f"{shown(folder)} seems to hold photographs of people: leave --phantom out, and write yes under "
            "consent_rating in its table for those who agreed to be shown to raters"
        )
