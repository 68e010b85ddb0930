"""The operating system's own lock on an open file: it ends with its process, however that ends."""

import contextlib
import os
import time

_WAIT = 0.02
"""Seconds between two attempts to get a lock that another holds."""
_FAR = (1 << 31) - 2
"""The byte that is locked on Windows, which keeps others from reading what is locked: behind all content."""


def try_lock(descriptor: int) -> bool:
    """Lock a file that is open for writing; whether nobody else holds it."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_lock(descriptor: int) -> None:
    """Lock a file that is open for writing as soon as nobody else holds it.

    A file system that knows no locks is written without.
    """
    with contextlib.suppress(OSError):
        while not try_lock(descriptor):
            time.sleep(_WAIT)
