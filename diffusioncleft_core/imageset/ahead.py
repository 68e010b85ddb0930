"""Images of a folder looked at one after the other, the next one decoded meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..environment import usable_cores
from ..files import inside
from .decode import Rejected, normalise, read_bytes


class OfFile(Protocol):
    """A job on an image: `file` is the path relative to the folder, and no other job's."""

    @property
    def file(self) -> str: ...


Job = TypeVar("Job", bound=OfFile)
Found = TypeVar("Found")


class DecodingAhead(Generic[Job, Found]):
    """A worker (see `cluster.work`) that decodes images; on several cores a thread looks at them.

    Decoding stays in the caller's thread, which alone may change Python's warnings and Pillow's limits.

    Args:
        folder: of the images.
        look: what a job comes to, given the pixels [H, W, 3] RGB; one at a time, in one thread.
        unread: what it comes to where the image can't be decoded.
    """

    def __init__(
        self,
        folder: Path,
        look: Callable[[Job, NDArray[np.uint8]], Found],
        unread: Callable[[Job, Rejected], Found],
    ) -> None:
        self._folder, self._look, self._unread = folder, look, unread
        self._thread = ThreadPoolExecutor(1, "look") if usable_cores() > 1 else None
        self._next: dict[str, Job] = {}
        self._begun: dict[str, Callable[[], Found]] = {}

    def prepare(self, jobs: Sequence[Job]) -> None:
        """See `Worker.prepare`; the jobs are taken to come in this order."""
        self._next = {job.file: following for job, following in itertools.pairwise(jobs)}

    def do(self, job: Job) -> Found:
        """What the job comes to."""
        found = self._begun.pop(job.file, None) or self._begin(job)
        if self._thread is not None and (following := self._next.pop(job.file, None)) is not None:
            self._begun[following.file] = self._begin(following)
        return found()

    def _begin(self, job: Job) -> Callable[[], Found]:
        """Decode an image, and have it looked at; what is given waits for that."""
        try:
            pixels: Any = normalise(read_bytes(inside(self._folder, job.file)), first_frame=True).pixels
        except Rejected as rejection:
            unread = self._unread(job, rejection)
            return lambda: unread
        if self._thread is None:
            return lambda: self._look(job, pixels)
        begun: Future[Found] = self._thread.submit(self._look, job, pixels)
        return begun.result

    def close(self) -> None:
        """See `Worker.close`."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
