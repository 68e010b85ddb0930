"""The same map over independent jobs, whoever does it: what a worker is, and the engine that is this process.

A stage names its jobs and how a worker is built; an engine gives back what each job came to, in any order.
Only the stage writes: a job that is done twice, or never, by a worker that died leaves no trace in a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Job = TypeVar("Job")
Found = TypeVar("Found")
_Taken_contra = TypeVar("_Taken_contra", contravariant=True)
_Given_co = TypeVar("_Given_co", covariant=True)


class Worker(Protocol[_Taken_contra, _Given_co]):
    """Holds the models, loaded once, and does jobs one after the other."""

    def prepare(self, jobs: Sequence[_Taken_contra]) -> None:
        """What the next jobs have in common, such as the embeddings of their prompts."""

    def do(self, job: _Taken_contra) -> _Given_co:
        """What a job comes to: a function of the job and of what the worker was built from, nothing else."""

    def close(self) -> None:
        """Let go what it holds."""


def only_itself(job: Job) -> Sequence[Job]:
    """A job that can't be split."""
    return [job]


@dataclass(frozen=True)
class Work(Generic[Job, Found]):
    """Jobs of one kind.

    Attributes:
        build: makes a worker, in the process that is to work; it can be pickled, and it loads what is large.
        block: jobs that a worker prepares at once, at most.
        size: images in a job, for figures of speed; None where a job is not of images.
        split: the smallest jobs that a job is made of, each of which can be done alone.
    """

    build: Callable[[], Worker[Job, Found]]
    block: int
    size: Callable[[Job], int] | None = lambda job: 1
    split: Callable[[Job], Sequence[Job]] = only_itself


@dataclass(frozen=True)
class Done(Generic[Job, Found]):
    """What a job came to."""

    job: Job
    found: Found


@dataclass(frozen=True)
class SetAside(Generic[Job]):
    """A job that ended the process of its worker each time it was tried."""

    job: Job
    reason: str


class Engine(Protocol):
    """Does the jobs of a work.

    `elsewhere`: whether it may be done by other processes, on other hosts too. `device`: cuda or cpu, where
    these work unless told otherwise; "" is for this process to choose.
    """

    @property
    def elsewhere(self) -> bool: ...

    @property
    def device(self) -> str: ...

    def run(self, work: Work[Job, Found], jobs: Sequence[Job]) -> Iterator[Done[Job, Found] | SetAside[Job]]:
        """Each job, once, in the order in which they are done; what a job raises ends it all."""

    def told(self) -> str:
        """What stands behind the progress bar: the workers and their speed; "" where there is one process."""


def builder(engine: Engine, here: Found, again: Callable[[], Found] | None) -> Callable[[], Found]:
    """How a worker of `engine` comes by a model that is loaded `here` and can be loaded `again` elsewhere."""
    if not engine.elsewhere:
        return lambda: here
    if again is None:
        raise ValueError("this model can't be loaded in another process")
    return again


class OneProcess:
    """The engine that is this process: jobs in their order, nothing set aside."""

    elsewhere = False
    device = ""

    def run(self, work: Work[Job, Found], jobs: Sequence[Job]) -> Iterator[Done[Job, Found]]:
        """See `Engine.run`."""
        if not jobs:
            return
        worker = work.build()
        try:
            for start in range(0, len(jobs), work.block):
                block = jobs[start : start + work.block]
                worker.prepare(block)
                for job in block:
                    yield Done(job, worker.do(job))
        finally:
            worker.close()

    def told(self) -> str:
        """See `Engine.told`."""
        return ""


HERE = OneProcess()
