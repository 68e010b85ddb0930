"""The engine whose workers are Ray actors, on this machine or on a cluster.

An actor holds its models and does jobs in turn; this process alone hands them out, at most `AHEAD` to a
worker, and takes what they come to. What dies or hangs is replaced, and what it had goes back on the board:
Ray itself retries nothing, so nothing is done twice without being asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..environment import keep_freed_memory, usable_cores, versions
from ..errors import UserError
from .board import DEATHS, Board, Ticket
from .settings import LOCAL, RaySettings
from .work import Done, Found, Job, SetAside, Work

INSTALL = "--ray needs the package ray; run: pip install ray fsspec"
AHEAD = 2
"""Jobs that a worker has before it at once: the one that it does, and the next."""
SHOWN = 8
"""Workers whose speed is told one by one."""
LOADING = 4
"""Loading models, and preparing a block, may take so many times as long."""
STORE_BYTES = 200 << 20
"""Ray's object store on this machine: results pass through it one by one."""
STARTS = 3
"""How often Ray is started where the machine is too busy for it to come up in time."""
SLOW_START = "timed out during startup"
TICK = 0.5
"""Seconds between two looks for workers that hang."""
SAME = ("diffusioncleft", "python", "torch", "diffusers")
"""Packages whose versions must be the same on every host, or the pictures would not be."""

DONE, REFUSED = "done", "refused"
REASONS = {
    "OutOfMemoryError": "Ray ended it: its host ran out of memory",
    "ActorDiedError": "its process or its host ended",
    "ActorUnavailableError": "its host does not answer",
    "NodeDiedError": "its host ended",
    "WorkerCrashedError": "its process ended",
}

Say = Callable[[str], None]


class _Actor:
    """What runs in a worker's process."""

    _worker: Any

    def start(self, build: Callable[[], Any], expected: Mapping[str, str]) -> tuple[str, Any]:
        """Build the worker and give its process number; `expected`: versions that this host must have."""
        os.environ["DIFFUSIONCLEFT_PROGRESS"] = "0"
        keep_freed_memory()
        here = versions()
        others = [
            f"{name} {here.get(name)} in place of {want}"
            for name, want in expected.items()
            if here.get(name) != want
        ]
        if others:
            return REFUSED, (
                f"the worker on {socket.gethostname()} has {', '.join(others)}; install the same on every "
                "host"
            )

        def start() -> int:
            self._worker = build()
            return os.getpid()

        return self._told(start)

    def prepare(self, jobs: Sequence[Any]) -> tuple[str, Any]:
        """See `Worker.prepare`."""
        return self._told(lambda: self._worker.prepare(jobs))

    def do(self, job: Any) -> tuple[str, Any]:
        """See `Worker.do`."""
        return self._told(lambda: self._worker.do(job))

    @staticmethod
    def _told(act: Callable[[], Any]) -> tuple[str, Any]:
        """A person's mistake goes back as a sentence: as an exception it would stand in Ray's logs."""
        try:
            return DONE, act()
        except UserError as error:
            return REFUSED, str(error)


@dataclass(eq=False)
class _Seat:
    """A worker as this process sees it.

    `asked`: what it has before it, in order, by the reference of the answer; None is starting or preparing.
    `block`: the jobs that it has prepared and was not asked for. `since`: when its first job was done.
    """

    name: str
    actor: Any
    asked: deque[tuple[Any, Ticket[Any] | None]] = field(default_factory=deque)
    block: deque[Ticket[Any]] = field(default_factory=deque)
    heard: float = field(default_factory=time.monotonic)
    process: int | None = None
    begun: float | None = None
    images: int = 0

    @property
    def rate(self) -> float:
        """Images a second since its first job began."""
        return 0.0 if self.begun is None else self.images / max(time.monotonic() - self.begun, 1e-6)

    def unfinished(self) -> list[Ticket[Any]]:
        """What goes back when it is gone, in order."""
        return [*(ticket for _, ticket in self.asked if ticket is not None), *self.block]


class RayEngine:
    """Workers on Ray. Made by `ray_engine`, which connects and ends the connection."""

    elsewhere = True

    def __init__(self, ray: Any, settings: RaySettings, say: Say) -> None:
        self._ray, self._settings, self._say = ray, settings, say
        resources = ray.cluster_resources()
        self.gpus = int(resources.get("GPU", 0))
        self.workers = settings.workers or self.gpus or max(1, int(resources.get("CPU", 1)))
        self.device = "cuda" if self.gpus else "cpu"
        share = {"num_cpus": 1, "num_gpus": 1} if self.gpus else {"num_cpus": 1}
        options = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD", **share}
        self._remote = ray.remote(**options)(_Actor)
        self._seats: list[_Seat] = []
        self._made = 0
        self._failed_starts = 0

    def run(self, work: Work[Job, Found], jobs: Sequence[Job]) -> Iterator[Done[Job, Found] | SetAside[Job]]:
        """See `Engine.run`. UserError when no worker can be started, or a job raised one."""
        board: Board[Job, Found] = Board(work, jobs, self.workers)
        self._failed_starts = 0
        try:
            self._seats = [self._seat(work) for _ in range(min(self.workers, len(jobs)))]
            while len(board) or any(seat.unfinished() for seat in self._seats):
                for seat in self._seats:
                    self._ask(seat, board)
                yield from self._listen(work, board)
                yield from self._replace_hanging(work, board)
            if self._seats and work.size is not None:
                self._say(self.told())
        finally:
            for seat in self._seats:
                self._end(seat)
            self._seats = []

    def told(self) -> str:
        """See `Engine.told`."""
        rates = [f"{seat.name} {seat.rate:.2g}" for seat in self._seats if seat.begun is not None]
        shown = ", ".join(rates[:SHOWN]) + (" …" if len(rates) > SHOWN else "")
        total = sum(seat.rate for seat in self._seats)
        return f"{len(self._seats)} workers, {total:.2g} images/s" + (f" ({shown})" if rates else "")

    def processes(self) -> list[int]:
        """Process numbers of the workers that are up, each on its own host."""
        return [seat.process for seat in self._seats if seat.process is not None]

    def _seat(self, work: Work[Any, Any]) -> _Seat:
        self._made += 1
        seat = _Seat(f"worker {self._made}", self._remote.remote())
        expected = {name: version for name, version in versions().items() if name in SAME}
        seat.asked.append((seat.actor.start.remote(work.build, expected), None))
        return seat

    def _ask(self, seat: _Seat, board: Board[Any, Any]) -> None:
        """Give a worker what it may have before it."""
        if not seat.asked and not seat.block and len(board):
            seat.block.extend(board.take())
            jobs = [ticket.job for ticket in seat.block]
            seat.asked.append((seat.actor.prepare.remote(jobs), None))
            seat.heard = time.monotonic()
        while seat.block and len(seat.asked) < AHEAD:
            ticket = seat.block.popleft()
            seat.asked.append((seat.actor.do.remote(ticket.job), ticket))

    def _listen(
        self, work: Work[Any, Any], board: Board[Any, Any]
    ) -> Iterator[Done[Any, Any] | SetAside[Any]]:
        """Take an answer that is there, or wait for one a moment."""
        first = {seat.asked[0][0]: seat for seat in self._seats if seat.asked}
        ready, _ = self._ray.wait(list(first), num_returns=1, timeout=TICK)
        for reference in ready:
            seat = first[reference]
            ticket = seat.asked[0][1]
            try:
                said, value = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise  # a fault of ours: it ends the command, as it would in one process
            except self._ray.exceptions.RayError as error:
                yield from self._gone(seat, work, board, reason_of(error))
                continue
            if said == REFUSED:
                raise UserError(value)
            seat.asked.popleft()
            seat.heard = time.monotonic()
            if ticket is not None:
                self._failed_starts = 0
                seat.images += work.size(ticket.job) if work.size is not None else 0
                yield Done(ticket.job, value)
            elif seat.process is None:
                seat.process = value
            elif seat.begun is None:
                seat.begun = time.monotonic()

    def _replace_hanging(self, work: Work[Any, Any], board: Board[Any, Any]) -> Iterator[SetAside[Any]]:
        """Take the place of workers that have been silent for too long."""
        if self._settings.timeout is None:
            return
        now = time.monotonic()
        for seat in list(self._seats):
            if not seat.asked:
                continue
            patience = self._settings.timeout * (LOADING if seat.asked[0][1] is None else 1)
            if now - seat.heard > patience:
                yield from self._gone(seat, work, board, f"no result for {patience:g} s")

    def _gone(
        self, seat: _Seat, work: Work[Any, Any], board: Board[Any, Any], reason: str
    ) -> Iterator[SetAside[Any]]:
        """A worker is gone: what it had waits again, and another takes its place."""
        self._end(seat)
        at = seat.asked[0][1]
        board.give_back([ticket for ticket in seat.unfinished() if ticket is not at])
        self._say(f"{seat.name} is gone ({reason}); another takes its place")
        self._seats[self._seats.index(seat)] = self._seat(work)
        if at is not None:
            aside = board.died_at(at, reason)
            if aside is not None:
                yield aside
            return
        self._failed_starts += 1
        if self._failed_starts >= DEATHS * self.workers:
            raise UserError(
                f"workers end before they have done anything ({reason}): give fewer of them (--ray-workers), "
                "or a machine with more memory"
            )

    def _end(self, seat: _Seat) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            self._ray.kill(seat.actor, no_restart=True)


def reason_of(error: Exception) -> str:
    """What ended a worker, in words that name nothing of its work."""
    kind = type(error).__name__
    return REASONS.get(kind, kind)


@contextlib.contextmanager
def ray_engine(settings: RaySettings, say: Say) -> Iterator[RayEngine]:
    """Connect to a cluster, or start one on this machine that ends with it.

    Without dashboard and usage statistics; the workers' output stays in Ray's own logs on their hosts.

    Args:
        settings: where, and how many workers.
        say: told when a worker is replaced, and of the workers' speed at the end.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # By default Ray's workers are 15 nicer than this process, and starve beside whatever else runs here.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError:
        raise UserError(INSTALL) from None
    where: dict[str, Any] = {"address": settings.address}
    if settings.address == LOCAL:
        cores = settings.workers or usable_cores()
        where |= {"num_cpus": cores, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    with signals_kept():
        for left in reversed(range(STARTS)):
            try:
                ray.init(**where, log_to_driver=False, configure_logging=False)
                break
            except Exception as error:
                ray.shutdown()
                if left and SLOW_START in str(error):  # Ray gives a busy machine half a minute
                    continue
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(
                    f"there is no Ray at {settings.address} ({first}); docs/scale.md says how it is started"
                ) from error
    try:
        yield RayEngine(ray, settings, say)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Ray's start sets signal handlers of its own: put back those that there were."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for kind, handler in before.items():
                signal.signal(kind, handler)
