"""Follow a prompt on a server: websocket messages, polling, progress bars."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.interruption import check_interrupted
from ...diffusioncleft_core.progress import progress
from .inputs import Graph
from .server import ComfyServer, ConnectionLost, describe


class ProgressBar:
    """Counts the nodes of a graph as the server reports them."""

    def __init__(self, graph: Graph) -> None:
        self._titles = {
            node_id: str((node.get("_meta") or {}).get("title") or node["class_type"])
            for node_id, node in graph.items()
        }
        self._done: set[str] = set()
        self._running: str | None = None
        self._since = 0.0
        self._shown = 0.0

    def __enter__(self) -> ProgressBar:
        if sys.stderr.isatty() or os.environ.get("DIFFUSIONCLEFT_PROGRESS") == "0":
            self._bar = progress(len(self._titles), "nodes", unit="node")
            # Nodes take from milliseconds to hours: a rate, and a time left by it, would mislead.
            self._bar.bar_format = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
        else:
            self._bar = _Lines(len(self._titles))
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take one message of the server about the prompt."""
        if kind == "execution_start":
            self._done.clear()
            self._bar.reset()
        elif kind == "execution_cached":
            self._finish(*map(str, data.get("nodes") or []))
        elif kind == "executing":
            if self._running is not None:
                self._finish(self._running)
            self._running = None if data.get("node") is None else str(data["node"])
            self._since = time.monotonic()
            if self._running is not None:
                self._show(self._title(self._running))
        elif kind == "progress":
            self._steps(data)
        elif kind == "execution_success":
            self._finish(*self._titles)

    def _steps(self, data: Mapping[str, Any]) -> None:
        value, total = data.get("value"), data.get("max")
        if not isinstance(value, (int, float)) or not isinstance(total, (int, float)) or total <= 1:
            return
        node = str(data.get("node") or self._running)
        text = f"{self._title(node)} {value:g}/{total:g}"
        if 0 < value < total and self._since:
            left = (time.monotonic() - self._since) * (total - value) / value
            text += f", {int(left // 60)}:{int(left % 60):02d} left"
        self._show(text)

    def _show(self, text: str) -> None:
        """Show what runs, no more often than the bar's own interval: steps come many times a second."""
        now = time.monotonic()
        due = now - self._shown >= getattr(self._bar, "mininterval", 0.1)
        self._bar.set_postfix_str(text, refresh=due)
        if due:
            self._shown = now

    def _title(self, node: str) -> str:
        # a node that expands into a subgraph runs as `id.0.0.1`
        return self._titles.get(node) or self._titles.get(node.split(".", maxsplit=1)[0]) or node

    def _finish(self, *nodes: str) -> None:
        new = {node for node in nodes if node in self._titles} - self._done
        self._done |= new
        self._bar.update(len(new))


class _Lines:
    """The bar where standard error is a pipe or a file: what runs, as a line now and then, and the end."""

    mininterval = 5.0

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        if refresh:
            print(f"nodes: {self._done}/{self._total}, {text}", file=sys.stderr, flush=True)

    def update(self, count: int) -> None:
        self._done += count

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        print(f"nodes: {self._done}/{self._total}", file=sys.stderr, flush=True)


# Seconds: between two questions, until a broken websocket is tried again, and for how long a prompt may be in
# neither queue nor history: a server behind a cache or a busy one writes its history late.
_CLOCK, _RETRY, _GRACE = 2.0, 2.0, 10.0
_ENDS = {"execution_success", "execution_error", "execution_interrupted"}

Event = Mapping[str, Any]
Listener = Callable[[str, Event], None]


class PromptLost(Exception):
    """The server knows the prompt no more: it was restarted, or somebody cleared its queue."""


class _Stopwatch:
    """Seconds since something began."""

    def __init__(self) -> None:
        self._began: float | None = None

    def running(self) -> float:
        """Seconds since the first call after the start or `stop`."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        return now - self._began

    def stop(self) -> None:
        self._began = None


class Watcher:
    """One websocket for all prompts of a client."""

    def __init__(self, server: ComfyServer) -> None:
        self._server = server
        self._patience = server.patience
        self._socket: Any = None
        self._tried = 0.0
        self._ended: set[str] = set()
        self._unanswered = _Stopwatch()

    def __enter__(self) -> Watcher:
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def wait(self, prompt_id: str, listen: Listener) -> dict[str, Any]:
        """Return the prompt's entry in the server's history once it has ended.

        Args:
            prompt_id: of a queued prompt.
            listen: called with the type and data of each message about this prompt.

        Raises:
            PromptLost: the server no longer knows it.
            UserError: the server stays away longer than its patience.
        """
        unknown = _Stopwatch()
        asked = 0.0
        while True:
            check_interrupted()
            message = self._receive()
            if message is not None:
                self._note(message, prompt_id, listen)
            if prompt_id in self._ended or time.monotonic() - asked > _CLOCK:
                self._ended.discard(prompt_id)
                entry = self._look(prompt_id, unknown)
                if entry is not None:
                    return entry
                asked = time.monotonic()

    def _note(self, message: Event, prompt_id: str, listen: Listener) -> None:
        kind, data = str(message.get("type")), message.get("data")
        if not isinstance(data, dict):
            return
        about = data.get("prompt_id")
        if about is not None and (kind in _ENDS or (kind == "executing" and data.get("node") is None)):
            self._ended.add(str(about))
        if about == prompt_id:
            listen(kind, data)

    def _look(self, prompt_id: str, unknown: _Stopwatch) -> dict[str, Any] | None:
        """The history's entry; None while there is none. The queue is asked first: a prompt only moves from
        there to the history, so one that stays in neither is lost."""
        try:
            queued = self._server.is_queued(prompt_id)
            entry = self._server.history(prompt_id)
        except ConnectionLost:
            self._drop()
            if self._unanswered.running() > self._patience or not self._server.wait_until_up(self._patience):
                raise UserError(
                    f"{self._server.url} has not answered for {self._patience:.0f} s; "
                    "start ComfyUI, or check --server, and run the same command again"
                ) from None
            return None
        self._unanswered.stop()
        if queued:
            unknown.stop()
        elif entry is None and unknown.running() > min(_GRACE, self._patience):
            raise PromptLost(prompt_id)
        return entry

    def _receive(self) -> Event | None:
        """The next message, or None when none came for a while; reconnects by itself."""
        import websocket

        if self._socket is None and time.monotonic() - self._tried > _RETRY:
            self._connect()
        if self._socket is None:
            time.sleep(0.2)
            return None
        try:
            # Control frames too: a server that only pings would keep a call that hides them for ever.
            kind, raw = self._socket.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError):
            self._drop()
            return None
        if kind == websocket.ABNF.OPCODE_CLOSE:
            self._drop()
            return None
        if kind != websocket.ABNF.OPCODE_TEXT:  # a preview picture, a ping
            return {}
        try:
            message = json.loads(raw)
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    def _connect(self) -> None:
        import websocket

        self._tried = time.monotonic()
        loopback = {} if self._server.uses_proxies else {"http_no_proxy": ["*"]}
        try:
            self._socket = websocket.create_connection(self._server.websocket_url, timeout=10, **loopback)
            self._socket.settimeout(1.0)
        except (websocket.WebSocketException, OSError):
            self._socket = None

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(Exception):
                self._socket.close()
        self._socket = None
        self._tried = time.monotonic()


def failure(entry: Mapping[str, Any], prompt: Mapping[str, Any]) -> str | None:
    """The failing node and its message, from a prompt's entry in the history; None when it succeeded."""
    status = entry.get("status") or {}
    for kind, data in status.get("messages") or []:
        if kind == "execution_error":
            where = describe(str(data.get("node_id")), prompt)
            told = str(data.get("exception_message") or data.get("exception_type") or "no message").strip()
            return f"node {where} failed: {told}"
        if kind == "execution_interrupted":
            where = describe(str(data.get("node_id")), prompt)
            return f"the prompt was interrupted in node {where}; run the same command again"
    if status.get("status_str") == "error":
        return "the server reports an error without a message; its log says more"
    return None
