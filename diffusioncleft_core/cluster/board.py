"""Who does which job: the jobs that wait, and what becomes of one whose worker died. Knows nothing of Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from .work import Found, Job, SetAside, Work

DEATHS = 3
"""So many workers may a job end before it is split, and what can't be split set aside."""


@dataclass
class Ticket(Generic[Job]):
    """A job on its way, with how many workers died while they did it."""

    job: Job
    deaths: int = 0


class Board(Generic[Job, Found]):
    """The jobs of a work that no worker has, the next one first.

    Args:
        work: of the jobs.
        jobs: each once.
        workers: so many share them; a worker takes half of its share at once, so that the last ones to be
            done are few.
    """

    def __init__(self, work: Work[Job, Found], jobs: Sequence[Job], workers: int) -> None:
        self._work, self._jobs, self._begun = work, jobs, 0
        self._back = deque[Ticket[Job]]()
        self._block = max(1, min(work.block, -(-len(jobs) // (2 * workers))))

    def __len__(self) -> int:
        return len(self._back) + len(self._jobs) - self._begun

    def take(self) -> list[Ticket[Job]]:
        """The jobs that a worker prepares together; none when none waits."""
        return [self._next() for _ in range(min(self._block, len(self)))]

    def _next(self) -> Ticket[Job]:
        if self._back:
            return self._back.popleft()
        self._begun += 1
        return Ticket(self._jobs[self._begun - 1])

    def give_back(self, tickets: Sequence[Ticket[Job]]) -> None:
        """Jobs that a worker had before it and did not begin: the next to be taken."""
        self._back.extendleft(reversed(tickets))

    def died_at(self, ticket: Ticket[Job], reason: str) -> SetAside[Job] | None:
        """A worker died while it did this job: it waits again, is split, or is set aside for `reason`."""
        ticket.deaths += 1
        if ticket.deaths < DEATHS:
            self.give_back([ticket])
            return None
        parts = self._work.split(ticket.job)
        if len(parts) > 1:
            self.give_back([Ticket(part) for part in parts])
            return None
        return SetAside(ticket.job, f"{ticket.deaths} workers ended over it; the last: {reason}")
