"""Photographs that show the same pixels as one without consent, from other bytes.

A photograph that loses its consent takes all facts with it, so that a later build could not tell its copies
any more. While such a copy has consent, `withheld.json` keeps keyed hashes: of both files, with that of their
pixels.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from ..files import read_json, write_json
from ..progress import progress
from .examine import Ledger
from .folder import KEY, WITHHELD, erase, keyed_hash


class Withheld:
    """What the pixels of photographs without consent are, as far as an earlier build has seen them."""

    def __init__(self, dataset: Path, sources: Collection[str]) -> None:
        """sources: content hashes of the photographs in the folder that have a row without consent."""
        self._dataset = Path(dataset)
        self._pixels: dict[str, str] = {}
        self._kept: dict[str, str] = {}
        if sources and (self._dataset / KEY).is_file():
            seen = Ledger(self._dataset).examined
            self._pixels = {source: found.pixels for source, found in seen.items() if found.pixels}
            path = self._dataset / WITHHELD
            self._kept = dict(read_json(path)) if path.is_file() else {}
        self._withheld = {source: picture for source in sources if (picture := self._picture(source))}

    def copies(self, sources: Collection[str], look: Callable[[str], str | None]) -> set[str]:
        """Those of these content hashes whose photographs show the pixels of one without consent.

        look: the pixel hash of a photograph that no build has seen; asked for where one is withheld.
        """
        denied = set(self._withheld.values())
        if not denied:
            return set()
        unseen = sorted(source for source in sources if self._picture(source) is None)
        for source in progress(unseen, "comparing") if unseen else ():
            if pixels := look(source):
                self._pixels[source] = pixels
        return {source for source in sources if self._picture(source) in denied}

    def remember(self, copies: Collection[str]) -> None:
        """Keep what tells these copies the next time, and forget all others."""
        pictures = {source: picture for source in copies if (picture := self._picture(source))}
        shared = set(pictures.values())
        pictures |= {source: picture for source, picture in self._withheld.items() if picture in shared}
        if pictures:
            rows = {keyed_hash(self._dataset, source): picture for source, picture in pictures.items()}
            write_json(self._dataset / WITHHELD, dict(sorted(rows.items())))
        else:
            erase(self._dataset / WITHHELD)

    def _picture(self, source: str) -> str | None:
        """The keyed hash of a photograph's pixels, by the hash of its file; None where it is not known."""
        if source in self._pixels:
            return keyed_hash(self._dataset, self._pixels[source])
        return self._kept.get(keyed_hash(self._dataset, source)) if self._kept else None
