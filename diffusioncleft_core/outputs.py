"""Where results are to lie: whether it can be written, asked before the work, and what names can't be."""

import contextlib
import errno
import os
import re
import secrets
from pathlib import Path

from .files import TEMPORARY_PREFIX, explained

WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$", re.IGNORECASE)
"""Names that no file or folder can have on Windows, with or without a suffix; to be matched."""


def can_write(folder: Path) -> bool:
    """Whether a file can be made in `folder`, or in the next folder above it that is there.

    It is tried: permissions say nothing of a share that is mounted read-only. A full disk counts as one that
    can be written.
    """
    try:
        _try_to_write(_existing(folder))
    except OSError as error:
        return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return True


def check_output(path: Path | None) -> None:
    """Raise the UserError that writing the file `path` would end in; nothing is made and None is fine."""
    if path is None:
        return
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        try:
            _try_to_write(_existing(path.parent))
        except OSError as error:
            error.filename = os.fspath(path)  # the file that was asked for, not the one that was tried
            raise


def _existing(folder: Path) -> Path:
    """The folder, or the next one above that is there."""
    folder = Path(folder)
    while not os.path.lexists(folder) and folder.parent != folder:
        folder = folder.parent
    return folder


def _try_to_write(folder: Path) -> None:
    trial = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        os.close(os.open(trial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()
