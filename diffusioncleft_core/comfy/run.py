"""Run one graph on a server: queue, follow, fetch."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json
from .convert import Graph
from .outputs import NodeOutput, collect, write_outputs
from .server import ComfyServer, ConnectionLost, Refused, refusal
from .tracking import ProgressBar
from .watch import PromptLost, Watcher, failure

# A prompt that a restarted server lost is queued again; a graph that ends the server must not do so forever.
MOST_RESTARTS = 2
LOST = "the server lost the prompt again and again; see its log, then run the same command again"
REQUEUED = "the server was restarted and lost the prompt: queued again"
_NO_ANSWER = "nothing answers at {}; start ComfyUI, or give its address with --server"
_CANCEL_PATIENCE = 30.0


def read_workflow(path: Path) -> Any:
    """The content of a workflow file, UI or API format."""
    return read_json(path)


def server_info(server: ComfyServer) -> dict[str, Any]:
    """The server's node classes. Raises UserError when nothing answers."""
    try:
        return server.object_info()
    except ConnectionLost as error:
        raise UserError(_NO_ANSWER.format(server.url)) from error


def run_graph(
    server: ComfyServer,
    graph: Graph,
    folder: Path,
    *,
    patience: float = 120.0,
    say: Callable[[str], None] = print,
) -> dict[str, NodeOutput]:
    """Run an API-format graph and download what its output nodes made into `folder`, with `outputs.json`.

    patience: seconds to wait for a server that stopped answering. Raises UserError with the node's message
    when one fails. KeyboardInterrupt takes the prompt off the server (others stay) and is raised again.
    """
    with Watcher(server, patience) as watcher, ProgressBar(graph) as bar:
        for attempt in range(MOST_RESTARTS + 1):
            prompt_id = new_id()
            try:
                queue_graph(server, graph, prompt_id, patience)
                entry = watcher.wait(prompt_id, bar.heed)
                break
            except PromptLost:
                if attempt == MOST_RESTARTS:
                    raise UserError(LOST) from None
                say(REQUEUED)
            except KeyboardInterrupt:
                cancel(server, [prompt_id], say)
                raise
    outputs = collect(server, entry, graph, folder)
    write_outputs(folder, outputs)
    failed = failure(entry, graph)
    if failed:
        raise UserError(failed)
    return outputs


def new_id() -> str:
    """An id for a prompt: ours, so that a prompt whose acknowledgement got lost can be found again."""
    return str(uuid.uuid4())


def queue_graph(server: ComfyServer, graph: Graph, prompt_id: str, patience: float = 120.0) -> None:
    """Queue a graph; waits for a server that does not answer, and never queues twice.

    Raises Refused for an invalid graph, also where the server would run a part of it.
    """
    end = time.monotonic() + patience
    while True:
        try:
            answer = server.queue(graph, prompt_id)
            break
        except ConnectionLost:
            if _knows(server, prompt_id, end):
                return
    refused = refusal(answer, graph)
    if refused:
        server.cancel(prompt_id)
        raise Refused(refused)


def _knows(server: ComfyServer, prompt_id: str, end: float) -> bool:
    """Whether a server that stopped answering got a prompt, once it answers; UserError when it is `end`."""
    while time.monotonic() < end and server.wait_until_up(end - time.monotonic()):
        with contextlib.suppress(ConnectionLost):
            return server.is_queued(prompt_id) or server.history(prompt_id) is not None
        time.sleep(0.5)
    raise UserError(_NO_ANSWER.format(server.url))


def cancel(server: ComfyServer, prompt_ids: list[str], say: Callable[[str], None]) -> None:
    """Take prompts off the server and wait until it has let go of them, so that nothing goes on unseen."""
    end = time.monotonic() + _CANCEL_PATIENCE
    with contextlib.suppress(ConnectionLost, UserError):
        # the last first: otherwise the next one would start; and again and again, because a prompt that is
        # just being started forgets the interruption
        while left := [name for name in reversed(prompt_ids) if server.is_queued(name)]:
            if time.monotonic() > end:
                say("the server was told to stop, but its node has not stopped yet")
                return
            for name in left:
                server.cancel(name)
            time.sleep(0.5)
