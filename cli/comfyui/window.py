"""The rows that wait, and what keeps a few of them in a server's queue; several servers take from one lot."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...diffusioncleft_core.errors import UserError
from .inputs import Graph
from .run import LOST, MOST_RESTARTS, REQUEUED, cancel, new_id, queue_graph
from .server import ComfyServer, Refused
from .watch import PromptLost, Watcher

Say = Callable[[str], None]
Ended = tuple[int, dict[str, Any] | str]
"""A row's place, and its history entry, or a message where the server gave none."""
LETTING_GO = 2.0
"""Seconds in which a server's thread ends once its prompts are gone."""
IDLE = 0.2
"""Seconds after which a server without a row looks whether one was given back."""


class Waiting:
    """The places of the rows that no server has. Several threads may take from it."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = deque(places)
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self) -> int | None:
        """The next row; None when none waits now."""
        with self._lock:
            return self._places.popleft() if self._places else None

    def give_back(self, places: Sequence[int]) -> None:
        """Rows of a server that is gone: the next to be taken."""
        with self._lock:
            if not self._is_closed:
                self._places.extendleft(reversed(places))

    def close(self) -> None:
        """No row is taken any more."""
        with self._lock:
            self._is_closed = True
            self._places.clear()


@dataclass
class _Queued:
    """A row in the server's queue. refused: the server's message when it did not take the graph."""

    place: int
    name: str
    refused: str = ""


class Window:
    """Keeps a few prompts in the server's queue and gives their histories in order."""

    def __init__(self, server: ComfyServer, say: Say) -> None:
        self.server, self._say = server, say
        self._prompts: list[_Queued] = []

    def places(self) -> list[int]:
        """The rows that the server has."""
        return [prompt.place for prompt in self._prompts]

    def ended(
        self, watcher: Watcher, waiting: Waiting, graphs: Sequence[Graph], ahead: int
    ) -> Iterator[Ended]:
        """Each row that the server ended, until none waits. UserError when the server is gone."""
        while True:
            while len(self._prompts) < ahead and (place := waiting.take()) is not None:
                self._prompts.append(_Queued(place, new_id()))
                self._queue(self._prompts[-1], graphs[place])
            if not self._prompts:
                return
            first = self._prompts[0]
            result = first.refused or self._wait(watcher, first, graphs[first.place])
            self._prompts.pop(0)
            yield first.place, result

    def cancel(self) -> None:
        """Take its prompts off the server."""
        cancel(self.server, [prompt.name for prompt in self._prompts if not prompt.refused], self._say)

    def _queue(self, prompt: _Queued, graph: Graph) -> None:
        try:
            queue_graph(self.server, graph, prompt.name)
        except Refused as error:
            prompt.refused = str(error)

    def _wait(self, watcher: Watcher, prompt: _Queued, graph: Graph) -> dict[str, Any] | str:
        for _ in range(MOST_RESTARTS + 1):
            try:
                return watcher.wait(prompt.name, lambda kind, data: None)
            except PromptLost:
                self._say(REQUEUED)
                prompt.name = new_id()
                self._queue(prompt, graph)
                if prompt.refused:
                    return prompt.refused
        return LOST


Finish = Callable[[ComfyServer, int, "dict[str, Any] | str"], dict[str, Any]]
"""Downloads what a row's history entry names, and gives the journal's line."""


def is_away(server: ComfyServer) -> bool:
    """Whether the server does not answer even after its patience."""
    return not server.wait_until_up(server.patience)


@dataclass(frozen=True)
class _Gone:
    """A server that did not answer for longer than its patience."""

    server: ComfyServer
    message: str


def finished_rows(
    servers: Sequence[ComfyServer],
    places: Sequence[int],
    graphs: Sequence[Graph],
    ahead: int,
    finish: Finish,
    say: Say,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Place and journal's line of each row, from whichever server was free.

    A server that is gone gives its rows back. Whatever ends this takes the prompts off all servers.

    Raises:
        UserError: every server is gone.
    """
    waiting, windows = Waiting(places), [Window(server, say) for server in servers]
    answers: queue.Queue[tuple[int, dict[str, Any]] | _Gone | BaseException] = queue.Queue()
    stop = threading.Event()

    def serve(window: Window) -> None:
        try:
            with Watcher(window.server) as watcher:
                while not stop.is_set():
                    for place, entry in window.ended(watcher, waiting, graphs, ahead):
                        record = finish(window.server, place, entry)
                        if len(windows) > 1 and record["status"] != "done" and is_away(window.server):
                            waiting.give_back([place])
                            raise UserError(record["message"])
                        answers.put((place, record))
                    time.sleep(IDLE)
        except UserError as error:
            waiting.give_back(window.places())
            answers.put(_Gone(window.server, str(error)))
        except BaseException as error:
            answers.put(error)

    alive = len(windows)
    threads = [threading.Thread(target=serve, args=(window,), daemon=True) for window in windows]
    for thread in threads:
        thread.start()
    done = False
    try:
        for _ in places:
            answer = answers.get()
            while isinstance(answer, _Gone):
                alive -= 1
                if not alive:
                    raise UserError(answer.message)
                say(f"{answer.server.url} is gone: its rows go to the other servers ({answer.message})")
                answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield answer
        done = True
    finally:
        stop.set()
        waiting.close()
        for window, thread in zip(windows, threads, strict=True):
            if not done:
                window.cancel()
                thread.join(LETTING_GO)
                window.cancel()  # what was on its way to the server meanwhile
