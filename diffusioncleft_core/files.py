"""Atomic writes, JSON and JSON Lines, content hashes, paths that stay where they belong, and folder locks."""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import UserError, system_sentence
from .home import cache_home
from .locks import try_lock, wait_lock
from .progress import progress
from .text import UTF16, opened, read_text, unicode_text

TEMPORARY_PREFIX = ".writing-"
_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_NAMES = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced to disk and takes the name `path`.

    The temporary name keeps the suffix, because image writers choose the format by it, and starts with
    `.writing-`, so that a reader of the folder skips what a crash left behind. An exception removes it and
    leaves an earlier `path` as it was. A full disk or a folder that can't be written raises UserError.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{path.suffix}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "r+b") as handle:
                os.fsync(handle.fileno())
            _replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove what a crash left of atomic writes in `folder`.

    older_than: seconds since it was written. Where others may be writing now, give more than a write takes.
    """
    newest = time.time() - older_than
    for left in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not older_than or left.stat().st_mtime <= newest:
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the write errors that a person can do something about into UserError; others pass through."""
    try:
        yield
    except Exception as raised:
        error = _system_error(raised)
        if error is None:
            raise
        if error.errno in _FULL:
            raise UserError(
                f"the disk is full: {path} was not written; free some space and run the same command again"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(
                f"no permission to write {path}; make its folder writable or choose another output folder"
            ) from error
        if error.errno in _WRONG_NAMES:
            is_ours = TEMPORARY_PREFIX in os.fsdecode(error.filename or "")
            raise UserError(system_sentence(error, path if is_ours else None) or str(error)) from error
        raise


def _system_error(error: Exception) -> OSError | None:
    """The system's error behind an exception; safetensors puts its number into the words of its own."""
    if isinstance(error, OSError):
        return error
    said = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(said[1]), str(error)) if said and type(error).__name__ == "SafetensorError" else None


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` to `path` atomically. private: mode 0600 from the first byte on."""
    with atomic_path(path) as temporary:
        if private:
            temporary.touch(0o600)
        temporary.write_bytes(data)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write `text` to `path` atomically, UTF-8, line ends as they are in `text` on every system."""
    write_bytes(path, encoded(text), private=private)


def encoded(text: str) -> bytes:
    r"""UTF-8. What stands for a file name's bytes that are no UTF-8 becomes `\udcXX`.

    In JSON that is the escape of the same character, so that a reader gets the very name back.
    """
    return text.encode("utf-8", "backslashreplace")


def shown(name: object) -> str:
    r"""A file name or path as it can be printed and shown everywhere: bytes that are no UTF-8 as `\udcXX`."""
    return encoded(str(name)).decode("utf-8")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    """Write `value` atomically as indented JSON. NaN and infinity raise ValueError: they are no JSON.

    private: mode 0600.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text, private=private)


def parse_json(text: str) -> Any:
    """Parse JSON as the standard has it: NaN, infinity and numbers beyond float64 raise ValueError.

    So does what is nested deeper than Python reads.
    """
    try:
        return json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, advice: str = "restore the file or delete it") -> Any:
    """Read a JSON file, UTF-8 or UTF-16 with its mark. A missing or damaged file raises UserError.

    advice: what the error tells to do. A file that a person named may be another one.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        hint = "write a backslash twice" if "escape" in str(error) else advice
        raise UserError(f"{path} is not valid JSON ({error}); {hint}") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write `rows` atomically, one JSON object a line, each as it comes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        for row in rows:
            handle.write(encoded(_line(row)))


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Append one row and sync it to disk; a process that appends to the same file is waited for.

    A last line that a crash tore off is dropped first; when the disk is full the file keeps its old length.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as handle:
            wait_lock(handle.fileno())  # or a row that another adds meanwhile would be cut off
            end, separator = _sound_end(handle)
            handle.truncate(end)
            data = memoryview(separator + encoded(_line(row)))
            try:
                while data:
                    data = data[handle.write(data) :]
                os.fsync(handle.fileno())
            except OSError:
                handle.truncate(end)
                raise


def read_jsonl(path: Path, advice: str = "restore the file or delete that line") -> list[dict[str, Any]]:
    """Read a JSON Lines file; a torn last line is left out, any other damaged line raises UserError.

    advice: as `read_json` has it.
    """
    return list(iterate_jsonl(path, advice))


def iterate_jsonl(
    path: Path, advice: str = "restore the file or delete that line"
) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file one by one, as `read_jsonl` has them."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            if not line.endswith("\n") and isinstance(error, json.JSONDecodeError):
                return
            raise UserError(f"line {number} of {path} is not valid JSON ({error}); {advice}") from error
        if not isinstance(row, dict):
            raise UserError(f"line {number} of {path} is no JSON object; {advice}")
        yield row


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def inside(root: Path, path: Path | str) -> Path:
    """Resolve `path` (relative to `root`, or absolute) and return it if it lies in `root` or is `root`.

    Raises:
        UserError: it leads out of `root`, by `..` or by a link: links are followed before the comparison.
    """
    base = Path(root).resolve()
    try:
        target = (base / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(path)!r} can't be resolved inside {base}; give a plain path") from error
    if not target.is_relative_to(base):
        raise UserError(f"{str(path)!r} leads out of {base}; give a path inside that folder")
    return target


def private_dir(path: Path) -> Path:
    """Make the folder `path` with access for its owner alone and return it.

    Mode 0700; on Windows it has its parent's rights.
    """
    path = Path(path)
    with explained(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            path.chmod(0o700)
    return path


def keep_from_git(folder: Path, pattern: str = "*") -> None:
    """Put a .gitignore into `folder`, so that what is private in it is not committed; one there is kept."""
    path = Path(folder) / ".gitignore"
    if not path.is_file():
        write_text(path, f"{pattern}\n")


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends; a last one that was torn within a letter is left out."""
    with opened(path) as handle:
        if handle.peek(2).startswith(UTF16):
            yield from io.StringIO(unicode_text(handle.read(), path), newline="\n")
            return
        for number, line in enumerate(handle, start=1):
            try:
                text = unicode_text(line, f"line {number} of {path}")
            except UserError:
                if not line.endswith(b"\n"):
                    return
                raise
            yield text


def _sound_end(handle: Any) -> tuple[int, bytes]:
    """Return the length up to which a JSON Lines file is whole, and what must stand before the next row."""
    size: int = handle.seek(0, os.SEEK_END)
    start, tail = size, b""
    while start and b"\n" not in tail:
        step = min(_CHUNK, start)
        start -= step
        handle.seek(start)
        tail = handle.read(step) + tail
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return size, b""
    try:
        json.loads(last)
    except ValueError:
        return size - len(last), b""
    return size, b"\n"


def _replace(source: Path, target: Path) -> None:
    """`os.replace`, tried for a second: on Windows a virus scanner or viewer may hold the target open."""
    for attempt in range(10):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == 9:
                raise
            time.sleep(0.1)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


LOCK = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path, busy: Callable[[str], str]) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be.

    The lock is the operating system's own on an open file, so it ends with its process, however that ends;
    the file stays.

    Args:
        folder: locked as a whole.
        busy: the error's sentence, from the number of the process that holds the lock.

    Raises:
        UserError: a live process holds it.
    """
    path = Path(folder) / LOCK
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():  # what it leads to is not ours to write
            path.unlink()
        handle = open(path, "a+b", buffering=0)  # noqa: SIM115, closing one with a buffer writes again
    with handle:
        if not try_lock(handle.fileno()):
            handle.seek(0)
            raise UserError(busy(handle.read(32).decode("ascii", "replace").strip() or "?"))
        with explained(path):
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode("ascii"))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                handle.truncate(0)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made if need be and stays; who holds it now is waited for.

    For what is read, changed and written as one. It can't be taken again by who holds it.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "ab")  # noqa: SIM115
    with handle:
        wait_lock(handle.fileno())
        yield


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
    cache = hash_cache()
    if before[0] < LARGE or cache is None:
        return sha256_file(path)
    entry = cache / f"{sha256_bytes(os.fsencode(path))[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(entry.read_text("utf-8"))
        if known["identity"] == before and len(known["sha256"]) == 64:
            return str(known["sha256"])
    digest = _sha256_told(path, before[0])
    newest = max(before[1:3]) / 1e9
    if _identity(path) == before and time.time() - newest > _SETTLED:
        with contextlib.suppress(Exception):  # a cache that can't be written costs time alone
            private_dir(entry.parent)
            write_json(entry, {"identity": before, "sha256": digest})
    return digest


def _sha256_told(path: Path, size: int) -> str:
    """SHA-256 of a large file, with progress."""
    digest = hashlib.sha256()
    with progress(size >> 20, "reading models", unit="MB", leave=False) as bar, open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            bar.update()
    return digest.hexdigest()


def hash_cache() -> Path | None:
    """The user's own folder of remembered hashes; None for a user without a home."""
    cache = cache_home()
    return None if cache is None else cache / "diffusioncleft" / "hashes"


def _identity(path: Path) -> list[int]:
    """Size, times of modification and status change in ns, inode, device."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
