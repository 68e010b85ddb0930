"""The checkup's steps: run each once, with its outcome, figures and peak memory."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from ...diffusioncleft_core.errors import UserError

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


Outcome = Literal["ok", "failed", "skipped"]
Figure = str | int | float | bool
Figures = dict[str, Figure]
FAULT_HINT = "this is a fault of the program: please report it with this result"
MEMORY_HINT = (
    "close what else uses the memory; then, in this order: --gradient-checkpointing, --base-format int8 or "
    "nf4, --blocks-to-swap 20 (up to 56), a smaller --resolution"
)


class Failed(Exception):
    """The step found something wrong and has figures to show for it."""

    def __init__(self, message: str, hint: str = "", figures: Figures | None = None) -> None:
        super().__init__(message)
        self.hint, self.figures = hint, dict(figures or {})


class Skipped(Exception):
    """The step has nothing to examine here; the message says why."""


@dataclass(frozen=True)
class Step:
    """One examination.

    Attributes:
        name: two or three words.
        proves: what is true when it is ok, one clause.
        work: does it and returns its figures.
        needs: names of the steps that must have been ok.
        weighs: whether its memory is worth reporting.
    """

    name: str
    proves: str
    work: Callable[[], Figures]
    needs: tuple[str, ...] = ()
    weighs: bool = False


@dataclass(frozen=True)
class StepResult:
    """What became of a step. seconds: wall time; message, hint: why it is not ok, and what to do."""

    name: str
    proves: str
    outcome: Outcome
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)
    message: str = ""
    hint: str = ""


def run_steps(
    steps: Sequence[Step], device: str, tell: Callable[[int, StepResult | Step], None]
) -> list[StepResult]:
    """Do the steps in order. One that fails takes along only those that need it.

    Args:
        steps: what is examined.
        device: the kind whose memory is watched, "cuda" or another.
        tell: called with the number from 1 and the step before it, its result after it.
    """
    results: dict[str, StepResult] = {}
    for number, step in enumerate(steps, start=1):
        tell(number, step)
        result = _waits_for(step, results) or _do(step, device)
        results[step.name] = result
        tell(number, result)
    return list(results.values())


def _waits_for(step: Step, results: dict[str, StepResult]) -> StepResult | None:
    """The result of a step whose needs are not met; None when it can be done."""
    for name in step.needs:
        outcome = results[name].outcome
        if outcome != "ok":
            was = "failed" if outcome == "failed" else "was skipped"
            return StepResult(step.name, step.proves, "skipped", message=f"needs {name}, which {was}")
    return None


def _do(step: Step, device: str) -> StepResult:
    outcome: Outcome = "ok"
    message = hint = ""
    figures: Figures = {}
    begun = time.monotonic()
    with Peaks(device) as peaks, _silence():
        try:
            figures = step.work()
        except Skipped as reason:
            outcome, message = "skipped", str(reason)
        except Failed as failure:
            outcome, message, hint, figures = "failed", str(failure), failure.hint, failure.figures
        except UserError as error:
            outcome = "failed"
            message, _, hint = str(error).partition("; ")
        except Exception as error:
            outcome = "failed"
            message, hint = _fault(error)
    if step.weighs and outcome != "skipped":
        figures = {**figures, **peaks.figures()}
    return StepResult(step.name, step.proves, outcome, time.monotonic() - begun, figures, message, hint)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what libraries print away from the progress lines, unless DIFFUSIONCLEFT_DEBUG=1."""
    if os.environ.get("DIFFUSIONCLEFT_DEBUG") == "1":
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _fault(error: Exception) -> tuple[str, str]:
    """Message and hint of an unforeseen exception, with the place in this package where it came from."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "memory ran out", MEMORY_HINT
    own = Path(__file__).resolve().parents[2]
    places = [
        f"{Path(frame.filename).relative_to(own).with_suffix('').as_posix().replace('/', '.')}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(own)
    ]
    where = f" (at {places[-1]})" if places else ""
    return f"{type(error).__name__}: {text}{where}", FAULT_HINT
