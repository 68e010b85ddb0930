"""Follows queued prompts until they end: progress by websocket, the truth by HTTP.

The websocket only tells how far the server is; whether a prompt has ended, and how, is read from /history.
So a connection that breaks costs progress messages and nothing else: it is opened again, and until then the
server is asked every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError
from .server import ComfyServer, ConnectionLost, describe

# Seconds: between two questions while no message comes, and until a broken websocket is tried again.
_QUIET, _RETRY = 2.0, 2.0
_ENDS = {"execution_success", "execution_error", "execution_interrupted"}

Event = Mapping[str, Any]
Listener = Callable[[str, Event], None]


class PromptLost(Exception):
    """The server knows the prompt no more: it was restarted, or somebody cleared its queue."""


class Watcher:
    """One websocket for all prompts of a client. patience: seconds a silent server may take to return."""

    def __init__(self, server: ComfyServer, patience: float = 120.0) -> None:
        self._server = server
        self._patience = patience
        self._socket: Any = None
        self._tried = 0.0
        self._ended: set[str] = set()

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
        asked = 0.0
        while True:
            message = self._receive()
            if message is not None:
                self._note(message, prompt_id, listen)
            if prompt_id in self._ended or (message is None and time.monotonic() - asked > _QUIET):
                asked = time.monotonic()
                entry = self._look(prompt_id)
                if entry is not None:
                    self._ended.discard(prompt_id)
                    return entry

    def _note(self, message: Event, prompt_id: str, listen: Listener) -> None:
        kind, data = str(message.get("type")), message.get("data")
        if not isinstance(data, dict):
            return
        about = data.get("prompt_id")
        if about is not None and (kind in _ENDS or (kind == "executing" and data.get("node") is None)):
            self._ended.add(str(about))
        if about == prompt_id:
            listen(kind, data)

    def _look(self, prompt_id: str) -> dict[str, Any] | None:
        """The history's entry; None while the prompt is queued. The queue is asked first: a prompt only moves
        from there to the history, so one that is in neither is lost."""
        for _ in range(2):
            try:
                queued = self._server.is_queued(prompt_id)
                entry = self._server.history(prompt_id)
            except ConnectionLost:
                self._drop()
                self._await_server()
                continue
            if entry is None and not queued:
                raise PromptLost(prompt_id)
            return entry
        return None

    def _await_server(self) -> None:
        if not self._server.wait_until_up(self._patience):
            raise UserError(
                f"{self._server.url} has not answered for {self._patience:.0f} s; "
                "start ComfyUI, or check --server, and run the same command again"
            )

    def _receive(self) -> Event | None:
        """The next message, or None when none came for a while; reconnects by itself."""
        import websocket

        if self._socket is None and time.monotonic() - self._tried > _RETRY:
            self._connect()
        if self._socket is None:
            time.sleep(0.2)
            return None
        try:
            raw = self._socket.recv()
        except websocket.WebSocketTimeoutException:
            return None
        except (websocket.WebSocketException, OSError):
            self._drop()
            return None
        if not raw:  # the server closed the connection
            self._drop()
            return None
        if not isinstance(raw, str):  # a preview picture
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
