"""What the trainer says at its end, and its exit status."""

from dataclasses import dataclass, field
from typing import Any

from ..diffusioncleft_core.errors import UserError, system_sentence
from . import memory
from .interruption import Interrupted
from .processes import LostProcess


@dataclass(frozen=True)
class Ending:
    """Exit status, event and its fields; `ours`: a fault, whose traceback is wanted."""

    status: int
    event: str
    fields: dict[str, Any] = field(default_factory=dict)
    ours: bool = False


def ending_of(error: Exception) -> Ending:
    """How a training ends with `error`: 1 a fault of ours, 2 a user's mistake, 130 stopped."""
    if isinstance(error, Interrupted):
        return Ending(130, "interrupted", {"step": error.step, "total": error.total, "reason": str(error)})
    if isinstance(error, LostProcess):
        message, _, hint = str(error).partition("; ")
        return Ending(1, "error", {"kind": "fault", "message": message, "hint": hint})
    sentence = str(error) if isinstance(error, UserError) else None
    if isinstance(error, OSError):
        sentence = system_sentence(error)
    if sentence:
        message, _, hint = sentence.partition("; ")
        return Ending(2, "error", {"kind": "user", "message": message, "hint": hint})
    if memory.is_out_of_memory(error):
        said = {"kind": "memory", "message": "out of memory", "hint": memory.OUT_OF_MEMORY_HINT}
        return Ending(1, "error", said, ours=True)
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    hint = "the traceback is on standard error"
    return Ending(1, "error", {"kind": "fault", "message": message, "hint": hint}, ours=True)
