"""Start the trainer as a process of its own, listen to its events, and stop it without losing anything.

Imports no torch: a program that only starts trainings stays small.
"""

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..diffusioncleft_core.environment import check_packages
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.recipe import Recipe
from .config import TrainResult, to_arguments
from .interruption import Interrupted

Event = dict[str, Any]
STOPPING = "stopping: a checkpoint is saved first, and a model that is being loaded may take a while"
GRACE_SECONDS = 300.0
_SCRIPT = Path(__file__).with_name("flux_train_network.py")


def check_installed() -> None:
    """Raise UserError when a package that the trainer's process imports is not installed."""
    check_packages(("accelerate", "diffusers", "peft", "transformers"))


def train(
    recipe: Recipe,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    *,
    grace: float = GRACE_SECONDS,
    processes: int = 1,
) -> TrainResult:
    """Train in a child process, or in several, under `accelerate launch` and return its result.

    If this process dies, the child notices, saves a checkpoint and ends too.

    Args:
        recipe: complete.
        on_event: gets every event (see `events.Events`) in the calling thread, and `stopping` once the child
            is asked to end, which takes a while where it is loading a model.
        stop: when it returns True, or at Ctrl-C or SIGTERM, the child saves a checkpoint and ends, and this
            process waits for it.
        grace: seconds after which what still runs is killed, as at a second Ctrl-C.
        processes: how many train together, a GPU each.

    Raises:
        UserError: a mistake in settings or data, or memory ran out.
        Interrupted: after `stop`.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
        RuntimeError: a fault of the trainer.
    """
    with _signals() as asked, _child(command(recipe, processes)) as child:
        listener = _Listener(child)
        deadline: float | None = None
        by_keyboard = False
        while True:
            try:
                event = listener.next()
                if event is not None:
                    if event["event"] == "end":
                        break
                    on_event(event)
                if asked.count("SIGINT") > 1:
                    raise KeyboardInterrupt
                if asked and not by_keyboard:
                    by_keyboard = True
                    deadline = deadline or _ask_to_stop(child, grace)
                    on_event({"event": "stopping", "message": STOPPING})
                if deadline is None and stop():
                    deadline = _ask_to_stop(child, grace)
                    on_event({"event": "stopping", "message": STOPPING})
                if deadline is not None and time.monotonic() > deadline:
                    break
            except KeyboardInterrupt:
                if by_keyboard:
                    raise
                by_keyboard = True
                deadline = deadline or _ask_to_stop(child, grace)
                on_event({"event": "stopping", "message": STOPPING})
    return listener.result(by_keyboard=by_keyboard, stopped=deadline is not None)


def command(recipe: Recipe, processes: int = 1) -> list[str]:
    """Return the command line that `train` starts."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = int(asked) if asked.isdigit() else max(1, _usable_cores() // processes)
    # -P: a file of the working folder, such as a random.py, takes no library's place.
    launcher = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--quiet"]
    launcher += [
        "--num_processes",
        str(processes),
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    launcher += ["--num_cpu_threads_per_process", str(threads)]  # else the launcher sets OMP_NUM_THREADS=1
    if processes > 1:  # on the processor too, where --cpu would start one; port 0: any that is free
        launcher += ["--multi_gpu", "--main_process_port", "0"]
    elif recipe.memory.device == "cpu":
        launcher += ["--cpu"]
    return [*launcher, str(_SCRIPT), *to_arguments(recipe), "--stop_with_stdin"]


class _Listener:
    """Reads the child's two streams in threads: events, and the last lines that say why it failed."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self._lines: collections.deque[str] = collections.deque(maxlen=40)
        self._last: dict[str, Event] = {}
        threading.Thread(target=self._read_errors, args=(child.stderr,), daemon=True).start()
        threading.Thread(target=self._read_events, args=(child.stdout,), daemon=True).start()

    def next(self) -> Event | None:
        """Return the next event, `end` after the last, or None when there is none for a moment."""
        try:
            event = self._events.get(timeout=0.1)
        except queue.Empty:
            return None
        self._last[event["event"]] = event
        return event

    def result(self, *, by_keyboard: bool, stopped: bool) -> TrainResult:
        """Return what the child said it did, or raise it."""
        if by_keyboard:
            raise KeyboardInterrupt
        if "done" in self._last:
            return TrainResult(Path(self._last["done"]["path"]), int(self._last["done"]["step"]))
        if "interrupted" in self._last or stopped:
            event = self._last.get("interrupted", {"reason": "killed before it could save"})
            raise Interrupted(event["reason"], event.get("step", 0), event.get("total", 0))
        error = self._last.get("error")
        tail = "\n".join(self._lines)
        if error is None:
            raise RuntimeError(
                "the trainer ended without a word, as when the system runs out of memory; the same command "
                f"goes on from the last checkpoint\n{tail}"
            )
        text = "; ".join(filter(None, (error["message"], error.get("hint"))))
        if error["kind"] == "fault":
            raise RuntimeError(f"the trainer failed: {text}\n{tail}")
        raise UserError(text)

    def _read_events(self, stream: IO[bytes]) -> None:
        for line in stream:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    self._events.put(event)
        self._events.put({"event": "end"})

    def _read_errors(self, stream: IO[bytes]) -> None:
        debug = os.environ.get("DIFFUSIONCLEFT_DEBUG") == "1"
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if debug:
                print(text, file=sys.stderr)


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Take note of Ctrl-C and SIGTERM, by name, in place of an exception at any line; a list of those so far.

    Only a program's main thread may: elsewhere signals stay as they are.
    """
    asked: list[str] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        asked.append(signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM"):
            number = getattr(signal, name)
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _child(arguments: list[str]) -> "Iterator[subprocess.Popen[bytes]]":
    """The child in a process group of its own, where a Ctrl-C at the terminal does not reach it; gone
    afterwards.
    """
    own_group: dict[str, Any] = (
        {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "TOKENIZERS_PARALLELISM": "false"}
    child = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **own_group,
    )
    try:
        yield child
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
    except Exception:  # the caller's own: the child still saves a checkpoint
        _ask_to_stop(child, 0.0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=30)
        raise
    finally:
        _kill_tree(child)
        for stream in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _ask_to_stop(child: "subprocess.Popen[bytes]", grace: float) -> float:
    """Ask over standard input, which passes through the launcher and exists on every system; return the
    deadline.
    """
    with contextlib.suppress(OSError):
        assert child.stdin is not None
        child.stdin.write(b"stop\n")
        child.stdin.flush()
    return time.monotonic() + grace


def _kill_tree(child: "subprocess.Popen[bytes]") -> None:
    """Kill the launcher and the trainer below it, if they still run."""
    import psutil

    if child.poll() is not None:
        return
    try:
        processes = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
    except psutil.NoSuchProcess:
        processes = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
