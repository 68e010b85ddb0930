"""Caption files beside images: which file is an image's caption, its text, and which files are not read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..files import inside, shown
from ..text import decoded, opened
from .decode import Rejected
from .places import named

SUFFIX = ".txt"
_OTHER_SUFFIXES = (".txt", ".caption", ".captions", ".cap", ".tags")
_MAX_BYTES = 64 << 10


class CaptionFiles:
    """The captions beside the images of a folder: `photo.txt` or `photo.png.txt` of `photo.png`.

    The suffix counts in any case.
    """

    def __init__(self, folder: Path, suffix: str = SUFFIX) -> None:
        self.folder, self.suffix = Path(folder), suffix
        self._guessed: list[str] = []
        self._listed: dict[PurePosixPath, dict[str, list[str]]] = {}

    def read(self, image: str) -> str | None:
        """The caption of `image` (relative to the folder), white space collapsed; None without one or when it
        is empty.

        Raises Rejected when it is no text, leads out of the folder, or when two files differ.
        """
        texts = {name: self._text(name) for name in self._files(image, self.suffix)}
        if len(set(texts.values())) > 1:
            raise Rejected("caption", f"{' and '.join(map(shown, texts))} differ; keep one")
        return next(iter(texts.values()), None)

    def unread(self, images: Iterable[str]) -> list[str]:
        """Caption files under another suffix beside those of `images` that have none under this one."""
        found = set()
        for image in images:
            if not self._files(image, self.suffix):
                found |= {name for suffix in _OTHER_SUFFIXES for name in self._files(image, suffix)}
        return sorted(found)

    def notices(self, images: Iterable[str], advice: str) -> list[str]:
        """Sentences on captions of an unsure encoding, and on those not read, with `advice` for these."""
        told = (
            (self._guessed, "captions in {} are not UTF-8 and were read as Windows-1252", "check accents"),
            (self.unread(images), "caption files in {} were not read", advice),
        )
        return [
            f"{sentence.format(shown(self.folder))} ({len(names)}): {named(names)}; {what_to_do}"
            for names, sentence, what_to_do in told
            if names
        ]

    def _files(self, image: str, suffix: str) -> list[str]:
        path = PurePosixPath(image)
        if path.parent not in self._listed:
            self._listed[path.parent] = _by_folded_name(self.folder / path.parent)
        listed = self._listed[path.parent]
        return [
            (path.parent / name).as_posix()
            for base in (path.stem, path.name)
            for name in listed.get((base + suffix).casefold(), [])
            if name.startswith(base)
        ]

    def _text(self, name: str) -> str | None:
        path = self.folder / name
        label = shown(path.name)
        try:
            inside(self.folder, name)
        except UserError as error:
            raise Rejected(
                "outside", f"its caption {label} is a link out of the folder; copy the file itself"
            ) from error
        try:
            with opened(path) as handle:
                data = handle.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise Rejected("caption", f"{label} has more than {_MAX_BYTES >> 10} kB; shorten it")
            text, notice = decoded(data, label)
        except UserError as error:
            raise Rejected("caption", str(error).replace(str(path), label)) from error
        if notice:
            self._guessed.append(name)
        return " ".join(text.split()) or None


def _by_folded_name(folder: Path) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    for name in names:
        if (folder / name).is_file():  # not an entry's own: a link in a circle is no error here
            listed.setdefault(name.casefold(), []).append(name)
    return listed
