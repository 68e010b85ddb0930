"""The most memory that was in use within a block: of this process, and of torch on the GPU."""

from __future__ import annotations

import threading
from types import TracebackType

EVERY_SECONDS = 0.05
GIB = 2**30


class Peaks:
    """Watches the memory from `__enter__` to `__exit__`."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._done = threading.Event()
        self._host = 0
        self._device = 0
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Peaks:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._cuda:
            import torch

            self._device = torch.cuda.max_memory_reserved()

    def figures(self) -> dict[str, str | int | float | bool]:
        """`host_peak_gib` (resident set of this process) and on CUDA `gpu_peak_gib` (reserved by torch)."""
        found: dict[str, str | int | float | bool] = {"host_peak_gib": gib(self._host)}
        if self._cuda:
            found["gpu_peak_gib"] = gib(self._device)
        return found

    def _watch(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self._host = max(self._host, process.memory_info().rss)
            if self._done.wait(EVERY_SECONDS):
                self._host = max(self._host, process.memory_info().rss)
                return


def gib(size: int) -> float:
    """Bytes in GiB, two decimals."""
    return round(size / GIB, 2)
