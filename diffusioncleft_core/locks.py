"""A lock on a folder, so that two processes never work in it at once."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import UserError
from .files import explained

LOCK = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path, busy: Callable[[str], str]) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be; UserError if a live process holds it.

    busy: the error's sentence, from the number of the process that holds the lock. The lock is the operating
    system's own on an open file, so it ends with its process, however that ends; the file stays.
    """
    path = Path(folder) / LOCK
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():  # what it leads to is not ours to write
            path.unlink()
        handle = open(path, "a+b")  # noqa: SIM115
    with handle:
        if not _lock(handle.fileno()):
            handle.seek(0)
            raise UserError(busy(handle.read(32).decode("ascii", "replace").strip() or "?"))
        with explained(path):
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode("ascii"))
            handle.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                handle.truncate(0)


def _lock(descriptor: int) -> bool:
    if os.name == "nt":
        import msvcrt

        # One byte far behind the text, because Windows keeps others from reading what is locked.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
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
