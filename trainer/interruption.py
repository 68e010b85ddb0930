"""When a run has to stop early, and the lock that keeps two runs out of one folder."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.files import folder_lock

_CHECK_SECONDS = 0.25


class Interrupted(Exception):
    """The run was asked to stop after `step` of `total` steps; what was done so far is on disk."""

    def __init__(self, reason: str, step: int = 0, total: int = 0) -> None:
        super().__init__(reason)
        self.step, self.total = step, total


class Interruption:
    """Tells whether the run was asked to stop, by whom it may: a signal, a stop file, a parent that died, a
    caller.
    """

    def __init__(self, stop_file: Path | None = None, stop: Callable[[], bool] | None = None) -> None:
        self._stop_file, self._stop = stop_file, stop
        self._reason: str | None = None
        self._parent: int | None = None
        self._next_check = 0.0

    def request(self, reason: str) -> None:
        """Ask the run to stop; safe from signal handlers and threads."""
        self._reason = self._reason or reason

    def reason(self) -> str | None:
        """Say why the run has to stop, or None. Cheap enough to ask at every step."""
        now = time.monotonic()
        if self._reason is None and now >= self._next_check:
            self._next_check = now + _CHECK_SECONDS
            if self._stop is not None and self._stop():
                self.request("stopped by the caller")
            elif self._stop_file is not None and self._stop_file.exists():
                self.request("stop file")
            elif self._parent is not None and os.getppid() != self._parent:
                self.request("the process that started the trainer is gone")
        return self._reason

    def raise_if_requested(self) -> None:
        """Raise Interrupted if the run has to stop."""
        reason = self.reason()
        if reason:
            raise Interrupted(reason)

    @contextlib.contextmanager
    def of_process(self, *, stdin: bool) -> Iterator[None]:
        """Stop at SIGINT, SIGTERM (Windows: Ctrl-Break), at the parent's death, and with `stdin` at its end.

        Standard input is the one channel that works alike on every system and through the launcher: whoever
        started us holds its other end, writes `stop`, or dies, and then it ends by itself.
        """
        names = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        # A run under nohup keeps ignoring SIGHUP.
        numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        if os.name == "posix" and os.getppid() > 1:
            self._parent = os.getppid()
        if stdin:
            threading.Thread(target=self._read_standard_input, name="stop", daemon=True).start()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.request(signal.Signals(number).name)

    def _read_standard_input(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096).strip() not in (b"", b"stop"):
                pass
        self.request("asked by the process that started the trainer")


def output_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of an output folder; UserError if a live process holds it."""
    return folder_lock(
        folder,
        lambda owner: (
            f"process {owner} is training into {folder} already; stop it, wait for it, or choose another "
            "--output_dir"
        ),
    )
