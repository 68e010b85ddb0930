"""Progress on standard error, with the time left, and for whoever watches the core from outside.

Long work asks here for its next part, so here it ends where it was told to.
"""

import contextlib
import contextvars
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .interruption import check_interrupted

Watcher = Callable[[str, int, int], None]
"""Called with (description, done, total) before each item or after each update; may raise to stop all."""
_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("progress_watcher", default=None)


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of all progress made inside, in this thread: a program of its own shows it, or stops."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _lines() -> dict[str, Any]:
    """Settings of a bar that is told in lines, or not at all."""
    asked = os.environ.get("DIFFUSIONCLEFT_PROGRESS")
    if asked == "0":
        return {"disable": True}
    apart = ASKED_SECONDS if asked == "1" else SECONDS
    settings = {"file": _LineWriter(), "ascii": True, "ncols": 100, "leave": True, "miniters": 1}
    return settings | {"mininterval": apart, "maxinterval": 60.0, "delay": 0 if asked == "1" else apart}


class _LineWriter:
    """Prints each state of a progress bar as a line of its own, for logs and pipes."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


SECONDS = 30.0
"""Between two lines where standard error is no terminal; what is done sooner says nothing."""
ASKED_SECONDS = 5.0
"""The same under DIFFUSIONCLEFT_PROGRESS=1, and from the first moment on."""


def progress(
    iterable_or_total: Iterable[Any] | int,
    description: str,
    total: int | None = None,
    unit: str = "image",
    *,
    leave: bool = True,
) -> Any:
    """Return a `tqdm` over an iterable, or one to `update()` by hand when given a number.

    leave: whether the bar stays when it is done. Where standard error is no terminal, lines, `SECONDS` apart:
    more of them under DIFFUSIONCLEFT_PROGRESS=1, none under DIFFUSIONCLEFT_PROGRESS=0.
    """
    iterable: Iterable[Any] | None
    if isinstance(iterable_or_total, int):
        iterable, total = None, iterable_or_total
    else:
        iterable = iterable_or_total
    settings: dict[str, Any] = {"desc": description, "total": total, "unit": unit, "leave": leave}
    settings |= {"dynamic_ncols": True} if sys.stderr.isatty() else _lines()
    return _bar()(iterable, **settings).watched(_watcher.get(), description, total or len_of(iterable))


@functools.cache
def _bar() -> Any:
    """The class of all bars: one, since tqdm starts a thread for each class of its that is used."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        """A bar that tells the watcher too, whether it is drawn or not, and ends where that was asked for."""

        _watcher: Watcher | None = None
        _told = ("", 0)
        _done = 0

        def watched(self, watcher: Watcher | None, description: str, total: int) -> Any:
            self._watcher, self._told = watcher, (description, total)
            return self

        def __iter__(self) -> Iterator[Any]:
            for self._done, item in enumerate(super().__iter__()):
                self._tell()
                yield item

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            self._tell()
            shown: bool | None = super().update(n)
            return shown

        def _tell(self) -> None:
            check_interrupted()
            if self._watcher is not None:
                description, total = self._told
                self._watcher(description, self._done, total)

    return Bar


class Phases:
    """One bar after the other, for a work that tells of its phases itself."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> "Phases":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def advance(self, what: str, done: int, total: int, unit: str = "item", **told: str) -> None:
        """Bring the bar of the phase `what` to `done` of `total`; its first call begins the phase.

        told: what stands behind the bar, by its name.
        """
        if self._what != what:
            self._close()
            self._what, self._bar = what, progress(total, what, unit=unit)
            self._bar.initial = self._bar.n = done
        if told:
            self._bar.set_postfix(told, refresh=False)
        self._bar.update(done - self._bar.n)

    def clear(self) -> None:
        """Take the bar off the line, on which something else is about to be printed."""
        if self._bar is not None:
            self._bar.clear()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""


def len_of(iterable: Any) -> int:
    return len(iterable) if hasattr(iterable, "__len__") else 0
