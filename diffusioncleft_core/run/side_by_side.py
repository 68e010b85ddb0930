"""Run a few jobs at once, each a thread that waits for a process of its own; stop them all together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")
Stop = Callable[[], bool]


def side_by_side(jobs: Mapping[str, Callable[[Stop], Result]], at_once: int) -> dict[str, Result]:
    """Run `jobs`, `at_once` at a time, and return their results by name.

    Each job is given a function that says whether to stop. When one fails, or at Ctrl-C, the others are asked
    to stop and waited for; then the first failure, or KeyboardInterrupt, is raised.
    """
    if at_once == 1:
        return {name: job(lambda: False) for name, job in jobs.items()}
    asked = threading.Event()
    with ThreadPoolExecutor(at_once) as pool:
        futures = {name: pool.submit(job, asked.is_set) for name, job in jobs.items()}
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            failures = [error for future in done if (error := future.exception())]
        finally:
            # On the way out of a Ctrl-C too: leaving the pool waits for jobs that save a checkpoint first.
            asked.set()
    if failures:
        raise failures[0]
    return {name: future.result() for name, future in futures.items()}
