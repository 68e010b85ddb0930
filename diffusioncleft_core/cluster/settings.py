"""Where workers on Ray are, how many, and how long one may be silent."""

from __future__ import annotations

from dataclasses import dataclass

from ..ranges import COUNT, number

LOCAL = "local"
"""The address that means: workers on this machine, started and ended with the command."""
TIMEOUT = 900.0
"""Seconds without a result after which a worker counts as hanging."""


@dataclass(frozen=True)
class RaySettings:
    """Where the workers are, how many, and how long one may be silent.

    Attributes:
        address: `local`, `auto`, or a cluster's `host:port`.
        workers: by default one a GPU of the cluster, without GPUs one a core.
        timeout: seconds without a result after which a worker is replaced; None: it may take any time.
    """

    address: str = LOCAL
    workers: int | None = None
    timeout: float | None = TIMEOUT

    def __post_init__(self) -> None:
        if self.workers is not None:
            COUNT.check(self.workers, "the number of workers")
        if self.timeout is not None:
            number(0, above=True).check(self.timeout, "the timeout")
