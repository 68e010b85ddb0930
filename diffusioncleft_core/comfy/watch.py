"""Follows queued prompts until they end: progress by websocket, the truth by HTTP.

The websocket only tells how far the server is; whether a prompt has ended, and how, is read from /history.
The server is asked every few seconds, whatever the websocket brings: a message may be missed while others
come. A connection that breaks costs progress messages and nothing else; it is opened again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from .server import ComfyServer, ConnectionLost, describe

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
    """One websocket for all prompts of a client. patience: seconds a silent server may take to return."""

    def __init__(self, server: ComfyServer, patience: float = 120.0) -> None:
        self._server = server
        self._patience = patience
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

        listen: called with the type and data of each message about this prompt. Raises PromptLost when the
        server no longer knows it, UserError when the server stays away longer than the patience.
        """
        unknown = _Stopwatch()
        asked = 0.0
        while True:
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
