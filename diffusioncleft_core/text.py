"""Text files that people bring: one reader for captions, tables, plans, JSON and TOML in the usual encodings.

UTF-8 with or without a byte order mark, and UTF-16 with one. Captions, tables and statements of consent may
be Windows-1252 (Latin-1 with typographic signs) where the bytes can hardly be anything else, and that is
said; JSON and TOML, which their standards want in UTF-8, may not. What would come out as wrong letters is
refused, and so are NUL bytes.
"""

import codecs
import contextlib
import difflib
import io
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LETTERS = "À-ÖØ-öø-ÿŠšŽžŒœŸ"
_CAPITALS = "À-ÖØ-ÞŠŽŒŸ"
_SIGNS = "€‚„…‘’“”•–—™‹›\u00a0¡¢£§©«®°±²³´µ·º»¼½¾¿×"
_NOT_WESTERN = re.compile(
    rf"[^\x00-\x7f{_LETTERS}{_SIGNS}]"  # what no Western European text holds
    rf"|[{_LETTERS}]{{3}}"  # Cyrillic, Greek: hardly a letter of theirs is ASCII
    rf"|[a-z{_LETTERS}][{_CAPITALS}]"  # DOS, Macintosh, East Asian
    r"|\w[‚„]|[^\W\d_][‘“”…‹›«»¡¢£§©®°±²³´µ·º¼½¾¿×•™€][^\W\d_]"  # a letter that became a sign
)
_PARTLY_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|\xe2\x80")
_SAVE = "save it as UTF-8"


def counted(n: int, noun: str) -> str:
    """`1 image`, `2,000 images`: a number with its noun, which takes an s."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def was(n: int) -> str:
    """The verb of a counted subject: `1 was`, `2 were`."""
    return "was" if n == 1 else "were"


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant: a letter or two off, in any case. None where no name is near."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wanted.casefold(), names, n=1, cutoff=0.75)
    return names[near[0]] if near else None


class Decoded(NamedTuple):
    """A file's text, and what the reader should be told of how it was read."""

    text: str
    notice: str | None = None


def decoded(data: bytes, name: object) -> Decoded:
    """The text of a file's bytes. UserError, by the file's name, where its letters can't be told."""
    text = _unicode(data, name)
    found = _windows(data, name) if text is None else Decoded(text)
    _refuse_nul(found.text, name)
    return found


def unicode_text(data: bytes, name: object) -> str:
    """The same for formats that are UTF-8 by their standard, in which no letter is guessed."""
    text = _unicode(data, name)
    if text is None:
        raise UserError(f"{name} is not UTF-8; {_SAVE} (in an editor: Save as, encoding UTF-8)")
    _refuse_nul(text, name)
    return text


def _unicode(data: bytes, name: object) -> str | None:
    """UTF-8 and marked UTF-16 as text; None for other bytes."""
    try:
        return data.decode("utf-16" if data.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(UTF16):
            raise UserError(f"{name} begins as UTF-16 and is damaged ({error.reason}); {_SAVE}") from None
        return None


def _refuse_nul(text: str, name: object) -> None:
    if "\0" in text:
        raise UserError(
            f"{name} is no text file: it holds NUL bytes, as UTF-16 without a byte order mark does; {_SAVE}"
        )


def _windows(data: bytes, name: object) -> Decoded:
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = "\ufffd"
    if _NOT_WESTERN.search(text) or _PARTLY_UTF8.search(data):
        raise UserError(f"{name} is not UTF-8, and its bytes don't say what its letters are; {_SAVE}")
    return Decoded(text, f"{name} is not UTF-8 and was read as Windows-1252; check accents, or {_SAVE}")


@contextlib.contextmanager
def opened(path: Path, what: str = "") -> Iterator[io.BufferedReader]:
    """A file open for reading. UserError for whatever keeps it from being read; `what` says what it is."""
    subject = f"{what} {path}" if what else str(path)
    try:
        with open(path, "rb") as handle:
            yield handle
    except FileNotFoundError as error:
        raise UserError(f"{subject} does not exist; check the path") from error
    except OSError as error:
        raise UserError(
            f"{subject} can't be read ({error.strerror or error}); check that it is a file you may read"
        ) from error


def read_text(path: Path, what: str = "") -> str:
    """A file's text, line ends as they are. UserError as `opened` and `unicode_text`."""
    with opened(path, what) as handle:
        return unicode_text(handle.read(), f"{what} {path}" if what else path)


def parse_toml(text: str, name: object) -> dict[str, Any]:
    """A TOML document. UserError with the parser's position, and a hint where a Windows path is the cause."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line (\d+)", str(error))
        lines = text.splitlines()
        line = lines[int(where[1]) - 1] if where and int(where[1]) <= len(lines) else ""
        hint = WINDOWS_PATH if "\\" in line else "correct it"
        raise UserError(f"{name} is not valid TOML ({error}); {hint}") from error


WINDOWS_PATH = r"write a Windows path in single quotes ('C:\photos') or with forward slashes (C:/photos)"
