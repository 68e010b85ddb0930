"""Ctrl-C and its like, remembered: Python drops a KeyboardInterrupt that meets a destructor."""

from types import FrameType

_asked: list[int] = []


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C, and remember it. Raises KeyboardInterrupt."""
    _asked.append(number)
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt where one was dropped since `interrupt`; called between parts of long work."""
    if _asked:
        raise KeyboardInterrupt
