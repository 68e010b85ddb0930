"""Content hashes of model files: a 24 GB file is read once, then known by its identity on disk."""

import contextlib
import json
import os
import time
from pathlib import Path

from .files import private_dir, sha256_bytes, sha256_file, write_json

LARGE = 64 << 20
"""Bytes from which a hash is worth remembering; smaller files are read each time."""
_SETTLED = 2.0
"""Seconds that a file has to lie unchanged: a later write in the same tick of the clock would not show."""


def sha256_model(path: Path) -> str:
    """SHA-256 of a model file's content, 64 hexadecimal digits; of a large file from the user's cache.

    A remembered hash counts while the file's size, times of modification and of status change, inode and
    device are the same. The cache holds hashes of paths, never a path; where it can't be written the file is
    read each time.
    """
    path = Path(path).resolve()
    before = _identity(path)
    if before[0] < LARGE:
        return sha256_file(path)
    entry = hash_cache() / f"{sha256_bytes(os.fsencode(path))[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(entry.read_text("utf-8"))
        if known["identity"] == before and len(known["sha256"]) == 64:
            return str(known["sha256"])
    digest = sha256_file(path)
    newest = max(before[1:3]) / 1e9
    if _identity(path) == before and time.time() - newest > _SETTLED:
        with contextlib.suppress(Exception):  # a cache that can't be written costs time alone
            private_dir(entry.parent)
            write_json(entry, {"identity": before, "sha256": digest})
    return digest


def hash_cache() -> Path:
    """The user's own folder of remembered hashes."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "diffusioncleft" / "hashes"


def _identity(path: Path) -> list[int]:
    """Size, times of modification and status change in ns, inode, device."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
