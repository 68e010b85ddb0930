"""Which row of the table speaks of which photograph."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..files import shown
from ..imageset.places import named
from .metadata import MetadataRow


@dataclass(frozen=True)
class Matches:
    """Rows by photograph; rows without one, each with what it may mean; what the reader should be told."""

    rows: Mapping[str, list[MetadataRow]]
    unmatched: Sequence[tuple[MetadataRow, str]]
    notices: tuple[str, ...] = ()


def file_key(name: str) -> str:
    """The form in which names of files are compared: NFC, forward slashes, without a leading './'."""
    key = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    while key.startswith("./"):
        key = key[2:]
    return key


def match_rows(names: Iterable[str], rows: Iterable[MetadataRow]) -> Matches:
    """Assign rows to photographs by name.

    A name that differs only in case is taken when it can mean one photograph alone, and so is one whose bytes
    on disk are Windows-1252 instead of UTF-8, one without its suffix, and one with folders before it that are
    the same for all rows that have any too many (`C:\\photos\\a.png`). The last two are said.
    """
    photographs = _Photographs(names)
    matched: dict[str, list[MetadataRow]] = {}
    others: list[MetadataRow] = []
    for row in rows:
        found = photographs.named(file_key(row.file))
        if found is None:
            others.append(row)
        else:
            matched.setdefault(found, []).append(row)
    guesses = [photographs.meant(file_key(row.file)) for row in others]
    prefixes = {prefix for prefix, found in guesses if len(found) == 1 and prefix}
    unmatched: list[tuple[MetadataRow, str]] = []
    taken: list[str] = []
    for row, (prefix, meant) in zip(others, guesses, strict=True):
        if len(meant) == 1 and (not prefix or len(prefixes) == 1):
            matched.setdefault(meant[0], []).append(row)
            taken.append(f"{row.file} as {shown(meant[0])}")
        else:
            hint = f"; if {named(meant)} is meant, write that" if meant else ""
            unmatched.append((row, hint))
    notice = (
        f"rows that name a photograph with its folder or without its suffix were taken ({len(taken)}): "
        f"{named(taken)}; correct them if that is wrong"
    )
    return Matches(matched, unmatched, (notice,) if taken else ())


class _Photographs:
    """The photographs' names in the forms in which a table may write them."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._exact = {file_key(name): name for name in names}
        self._folded: dict[str, list[str]] = {}
        self._legacy: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for key, name in self._exact.items():
            self._folded.setdefault(key.casefold(), []).append(name)
            self._stems.setdefault(str(PurePosixPath(key).with_suffix("")).casefold(), []).append(name)
        for name in names:
            if (as_windows := _as_windows(name)) is not None:
                self._legacy.setdefault(file_key(as_windows).casefold(), []).append(name)

    def named(self, key: str) -> str | None:
        """The photograph of this name; None when there is none, or more than one."""
        near = self._folded.get(key.casefold()) or self._legacy.get(key.casefold(), [])
        return self._exact.get(key) or (near[0] if len(near) == 1 else None)

    def meant(self, key: str) -> tuple[str, list[str]]:
        """(leading folders, photographs) that a name may mean without these folders or with a suffix."""
        parts = key.split("/")
        for start in range(len(parts)):
            if ".." in parts[: start + 1]:
                break
            prefix, rest = "/".join(parts[:start]), "/".join(parts[start:])
            if start and (found := self.named(rest)):
                return prefix, [found]
            if found_by_stem := self._stems.get(rest.casefold()):
                return prefix, found_by_stem
        return "", []


def written_name(name: str) -> str:
    """A photograph's name as a table writes it: bytes that are no UTF-8 as Windows-1252 has them."""
    return _as_windows(name) or shown(name)


def _as_windows(name: str) -> str | None:
    """A file name whose bytes are no UTF-8, read as Windows-1252; None for another, and where it is none."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return os.fsencode(name).decode("cp1252")
        except UnicodeError:
            return None
    return None
