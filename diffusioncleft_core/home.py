"""The user's home folder and name, where the system knows them: in a container it may know neither."""

import getpass
import os
from pathlib import Path

from .errors import UserError


def home() -> Path | None:
    """The home folder; None without HOME and without an entry of the user's among the system's accounts."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(path: str | Path) -> Path:
    """A path that a person gave, its `~` replaced. UserError when it begins with one and there is no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"{path} can't be found, because no home folder is known for it; give the whole path, or set HOME"
        ) from None


def below_home(path: str) -> list[Path]:
    """A usual place below the home folder, in a list that is empty without one."""
    folder = home()
    return [] if folder is None else [folder / path]


def cache_home() -> Path | None:
    """`$XDG_CACHE_HOME`, else `~/.cache`; None where neither is known."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return expanded(named)
    return next(iter(below_home(".cache")), None)


def state_home() -> Path | None:
    """`$XDG_STATE_HOME`, else `~/.local/state`; None where neither is known."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return expanded(named)
    return next(iter(below_home(".local/state")), None)


def user_name() -> str:
    """The user's name; empty where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
