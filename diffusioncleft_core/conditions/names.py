"""What a condition may be called: its name becomes folders of a run, some of them beside the run's own."""

from __future__ import annotations

import re
from enum import StrEnum

from ..outputs import WINDOWS_DEVICE
from .vocabulary import ALL


class RunOwn(StrEnum):
    """Folders that a run makes in `private` for itself, where each condition's dataset is one too."""

    STAGES = "stages"
    FACES = "faces"
    DOWNSTREAM = "downstream"
    AUDITS = "audit"
    TRAINING_CACHE = "training"
    SUPERSEDED = "superseded"
    PHANTOM_PHOTOGRAPHS = "phantom_photographs"


CONTROL, HEALTHY = "control", "healthy"
"""Healthy faces beside the conditions' phantoms: for the face map, and as a class of a downstream task."""
_TAKEN = frozenset({*RunOwn, CONTROL, HEALTHY, ALL})
_PLAIN = re.compile(r"[^\W_][\w-]{0,39}")


def why_not(name: str) -> str | None:
    """Why no condition can have this name; None where one can."""
    if not _PLAIN.fullmatch(name):
        return "give up to 40 letters, digits, _ and -, the first no sign"
    if WINDOWS_DEVICE.match(name):
        return "Windows keeps this name for a device; give another"
    if name.casefold() in _TAKEN:
        return "a run calls something of its own so; give another name"
    return None
