"""Progress on standard error, with the time left, and for whoever watches the core from outside."""

import contextlib
import contextvars
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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


class _LineWriter:
    """Prints each state of a progress bar as a line of its own, for logs and pipes."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    iterable_or_total: Iterable[Any] | int,
    description: str,
    total: int | None = None,
    unit: str = "image",
) -> Any:
    """Return a `tqdm` over an iterable, or one to `update()` by hand when given a number.

    Silent when standard error is no terminal, unless DIFFUSIONCLEFT_PROGRESS=1: then lines, seconds apart.
    """
    from tqdm import tqdm

    iterable: Iterable[Any] | None
    if isinstance(iterable_or_total, int):
        iterable, total = None, iterable_or_total
    else:
        iterable = iterable_or_total
    settings: dict[str, Any] = {"desc": description, "total": total, "unit": unit, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        if os.environ.get("DIFFUSIONCLEFT_PROGRESS") == "1":
            settings |= {"file": _LineWriter(), "ascii": True, "dynamic_ncols": False, "ncols": 100}
            settings |= {"mininterval": 5.0, "maxinterval": 60.0}
        else:
            settings["disable"] = True
    watcher = _watcher.get()
    if watcher is None:
        return tqdm(iterable, **settings)

    tell: Watcher = watcher

    class Watched(tqdm):  # type: ignore[misc]
        """A bar that tells the watcher too, whether it is drawn or not."""

        done = 0

        def __iter__(self) -> Iterator[Any]:
            for self.done, item in enumerate(super().__iter__()):
                tell(description, self.done, total or len_of(iterable))
                yield item

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            tell(description, self.done, total or len_of(iterable))
            shown: bool | None = super().update(n)
            return shown

    return Watched(iterable, **settings)


def len_of(iterable: Any) -> int:
    return len(iterable) if hasattr(iterable, "__len__") else 0
