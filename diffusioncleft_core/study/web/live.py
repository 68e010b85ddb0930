"""The study as it lies on the disk now, though a server runs for weeks."""

from __future__ import annotations

import functools
from pathlib import Path

from ..folder import CLOSED, IMAGES, KEY, Study, open_study
from ..items import Item
from .order import Queue
from .signin import Signatures

State = tuple[object, ...]


class LiveStudy:
    """Reads the study again once its key or its pictures change: a withdrawn photograph is not shown on."""

    def __init__(self, root: Path, signatures: Signatures) -> None:
        self._root, self._signatures = root, signatures
        self._read: tuple[State, Study, tuple[Item, ...]] | None = None
        self._queue = functools.lru_cache(maxsize=1000)(self._make_queue)

    @property
    def closed(self) -> bool:
        """Whether the study takes no rating any more."""
        return (self._root / CLOSED).is_file()

    @property
    def study(self) -> Study:
        return self._current()[1]

    def queue(self, rater: int) -> Queue:
        """The rater's own order of the items whose pictures are there."""
        return self._queue(rater, self._current()[2])

    def _make_queue(self, rater: int, items: tuple[Item, ...]) -> Queue:
        return Queue(self._signatures, rater, items)

    def _current(self) -> tuple[State, Study, tuple[Item, ...]]:
        state = (_state(self._root / KEY), _state(self._root / IMAGES))
        if self._read is None or self._read[0] != state:
            study = open_study(self._root)
            self._read = (state, study, tuple(item for item in study.items if study.has_image(item.id)))
        return self._read


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
