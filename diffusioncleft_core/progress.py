"""Progress on standard error, with the time left."""

import os
import sys
from collections.abc import Iterable
from typing import Any


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
    return tqdm(iterable, **settings)
