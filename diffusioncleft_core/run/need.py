"""One thing that a run needs: what was looked for, what was found, and how what is missing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Need:
    """One thing that a run needs. problem: what is wrong with it, None when nothing is.

    detail: what was found. fetch: the command that fetches what is missing. required: whether the run stops
    without it. warning: the run goes on as it is, to a worse end. asked: it is what the command asks for, so
    a problem with it is a mistake, and nothing that is missing.
    """

    what: str
    detail: str = ""
    problem: str | None = None
    fetch: str = ""
    required: bool = True
    warning: bool = False
    asked: bool = False

    @property
    def state(self) -> str:
        """`ok`, `missing`, `wrong`, `short` for what only may turn out too little, or `warning`."""
        if self.problem is None:
            return "warning" if self.warning else "ok"
        if self.asked:
            return "wrong"
        return "missing" if self.required else "short"


class Alarming(str):
    """What was found, which the run goes on with to a worse end."""


def looked(what: str, look: Callable[[], str], fetch: str = "", *, asked: bool = False) -> Need:
    """What `look` found, or what it raised."""
    try:
        found = look()
        return Need(what, found, fetch=fetch, warning=isinstance(found, Alarming), asked=asked)
    except UserError as error:
        return Need(what, problem=str(error), fetch=fetch, asked=asked)


def needs_table(needs: Sequence[Need]) -> str:
    """The table of `run --check`: what, state, and what was found or what to do."""
    width = max(len(need.what) for need in needs)
    lines = []
    for need in needs:
        lines.append(f"{need.what:<{width}}  {need.state:<7}  {need.problem or need.detail}".rstrip())
        if (need.problem or need.warning) and need.fetch:
            lines.append(f"{'':<{width}}  {'':<7}  run: {need.fetch}")
    return "\n".join(lines)


def gib(size: float) -> str:
    """`22.2 GiB`, or MiB below a tenth of one."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{-(-int(size) // 2**20)} MiB"
