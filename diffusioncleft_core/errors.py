"""The one exception that is meant for a person, and the system's own errors in such words."""

import errno
import os
from pathlib import Path

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_ADVICE = {
    errno.EACCES: "change its permissions or choose another place",
    errno.EPERM: "change its permissions or choose another place",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a file stands where a folder is needed: check the path",
    errno.EISDIR: "a folder stands where a file is needed: check the path",
    errno.EEXIST: "what stands there is in the way: give another name, or move it",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its links lead in a circle: name the place itself",
    errno.ENOTEMPTY: "give another name, or move what is there",
    errno.EIO: "the disk reports a fault: check it",
}


class UserError(Exception):
    """A mistake or a circumstance the user can change: one sentence with what, where and what to do.

    The command line prints it as one line without a traceback and exits 2; a node shows it as its message.
    """


def closed_folder(path: str | os.PathLike[str]) -> str | None:
    """The sentence on the outermost folder of `path` that can't be opened; what lies in it is not known."""
    for folder in (*reversed(Path(path).parents), Path(path)):
        if folder.is_dir() and not os.access(folder, os.X_OK):
            return f"the folder {folder} can't be opened ({os.strerror(errno.EACCES)}); make it readable"
    return None


def system_sentence(error: OSError, path: os.PathLike[str] | None = None) -> str | None:
    """What an error of the operating system means for a person; None when it speaks of no file and no disk.

    path: the file it is about, where the error itself names none or a temporary one.
    """
    name = error.filename if path is None else path
    where = os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else ""
    if error.errno in _FULL:
        unwritten = f": {where} was not written" if where else ""
        return f"the disk is full{unwritten}; free some space and run the same command again"
    if not where and error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return None
    if error.errno == errno.EACCES and (closed := closed_folder(where)) is not None:
        return closed
    advice = _ADVICE.get(error.errno or 0, "check the path and the disk")
    return f"{where + ': ' if where else ''}{error.strerror or error}; {advice}"
