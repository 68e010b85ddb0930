"""The map over images that gives verdicts: what a job is, and the worker that does it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ..faces.analyzer import FaceAnalyzer
from ..faces.records import UNSEEN, FaceRecord, known_record, record_key, record_of, unreadable_record
from ..imageset.ahead import DecodingAhead
from ..imageset.cache import ContentCache
from ..imageset.decode import Rejected
from ..imageset.spool import RowSpool
from .verdicts import Filters, Judged, content_key

BLOCK = 64
"""Images that a worker is told of at once."""
_DIGEST = 32


@dataclass(frozen=True)
class Judgement:
    """An image to judge.

    Attributes:
        place: among the rows of the set.
        file: relative to the set's folder.
        image: see `content_key`.
        key: what the record of its faces is kept under.
        record: of its faces, where it is known.
    """

    place: int
    file: str
    image: str | None
    key: str
    record: FaceRecord | None


class Judgements(Sequence[Judgement]):
    """Images to judge, each made into a job when it is asked for: memory holds 40 bytes of each.

    Args:
        rows: of the set.
        faces: where records are kept.
        settings: `records_key` of the analyzer; None where no faces are looked for.
    """

    def __init__(self, rows: RowSpool, faces: ContentCache, settings: str | None) -> None:
        self._rows, self._faces, self._settings = rows, faces, settings
        self._places, self._digests = array("q"), bytearray()

    def add(self, place: int, digest: str | None) -> None:
        """The row at this place, whose file has this SHA-256; None for one that can't be read."""
        self._places.append(place)
        self._digests += bytes.fromhex(digest) if digest else bytes(_DIGEST)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Judgement: ...
    @overload
    def __getitem__(self, number: slice) -> list[Judgement]: ...
    def __getitem__(self, number: int | slice) -> Judgement | list[Judgement]:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        place = self._places[number]
        digest = self._digests[number * _DIGEST : (number + 1) * _DIGEST]
        name = digest.hex() if any(digest) else None
        key = record_key(name or "", self._settings or "")
        record = known_record(self._faces, key) if self._settings else UNSEEN
        return Judgement(place, self._rows[place].file, content_key(name), key, record)


@dataclass(frozen=True)
class Judging:
    """How the worker is built that judges images of `folder`: each is decoded once, for faces and filters."""

    folder: Path
    filters: Callable[[], Filters]

    def __call__(self) -> DecodingAhead[Judgement, Judged]:
        filters = self.filters()

        def look(job: Judgement, pixels: NDArray[np.uint8]) -> Judged:
            record = job.record or seen(filters.analyzer, pixels)
            return Judged(record, filters.judge(pixels, record))

        def unread(job: Judgement, rejection: Rejected) -> Judged:
            return Judged(unreadable_record(rejection), filters.unread)

        return DecodingAhead(self.folder, look, unread)


def seen(analyzer: FaceAnalyzer | None, pixels: NDArray[np.uint8]) -> FaceRecord:
    """The faces in `pixels` [H, W, 3]."""
    return UNSEEN if analyzer is None else record_of(pixels, analyzer.analyze(pixels))
