"""The study as it lies on the disk now, though a server runs for weeks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..folder import CLOSED, IMAGES, KEY, Study, open_study
from ..items import Item
from .order import Queue
from .signin import Signatures

State = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Reading:
    """The study as it was when its files were in this state, and the queues made from it."""

    state: State
    study: Study
    shown: tuple[Item, ...]
    queues: dict[int, Queue] = field(default_factory=dict)


class LiveStudy:
    """Reads the study again once its key or its pictures change: a withdrawn photograph is not shown on."""

    def __init__(self, root: Path, signatures: Signatures) -> None:
        self._root, self._signatures = root, signatures
        self._reading = self._read()

    @property
    def closed(self) -> bool:
        """Whether the study takes no rating any more."""
        return (self._root / CLOSED).is_file()

    @property
    def study(self) -> Study:
        return self._current().study

    def queue(self, rater: int) -> Queue:
        """The rater's own order of the items whose pictures are there."""
        reading = self._current()
        queue = reading.queues.get(rater)
        if queue is None:
            queue = reading.queues[rater] = Queue(self._signatures, rater, reading.shown)
        return queue

    def _current(self) -> _Reading:
        if self._reading.state != self._state():
            self._reading = self._read()
        return self._reading

    def _read(self) -> _Reading:
        state, study = self._state(), open_study(self._root)
        return _Reading(state, study, tuple(item for item in study.items if study.has_image(item.id)))

    def _state(self) -> State:
        return tuple(_stat(self._root / name) for name in (KEY, IMAGES))


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
