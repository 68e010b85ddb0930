"""The HTTP routes of a ComfyUI server that the client needs, and what they answer when something is wrong."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from ...diffusioncleft_core.errors import UserError

DEFAULT_URL = "http://127.0.0.1:8188"
PATIENCE = 120.0
_TIMEOUT = 30.0
"""Seconds to wait for one answer."""
_QUEUE_TIMEOUT = (_TIMEOUT, 600.0)
"""The same to connect and to answer a graph, which the server's door checks first: it may build models."""
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_NO_ADDRESS = "{!r} is no address of a server; give --server http://HOST:PORT"
_TRANSIENT = {500, 502, 503, 504}


class ConnectionLost(Exception):
    """The server did not answer; it may come back."""


class Unanswered(ConnectionLost):
    """The server took a request and did not answer in time; it may still do what was asked."""


class Refused(UserError):
    """The server found the graph invalid and did not queue it."""


class ComfyServer:
    """One ComfyUI server. Every call raises ConnectionLost when it does not answer.

    Args:
        url: `http://host:port`, with a path before it where a proxy puts one; `host:port` alone is http.
        patience: seconds that a silent server may take to return.
    """

    def __init__(self, url: str = DEFAULT_URL, patience: float = PATIENCE) -> None:
        import requests

        self.url = _clean(url)
        self.client_id = uuid.uuid4().hex
        self.patience = patience
        self._session = requests.Session()
        # A proxy from the environment stands between this machine and the others, never before its own.
        self.uses_proxies = urlsplit(self.url).hostname not in _LOOPBACK
        self._session.trust_env = self.uses_proxies

    @property
    def websocket_url(self) -> str:
        """Address of the websocket that reports progress to this client."""
        parts = urlsplit(self.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        query = urlencode({"clientId": self.client_id})
        return urlunsplit((scheme, parts.netloc, f"{parts.path}/ws", query, ""))

    def object_info(self) -> dict[str, Any]:
        """Every node class of the server: inputs, outputs, options."""
        info = self._json("GET", "/object_info")
        if not isinstance(info, dict):
            raise UserError(f"{self.url} is no ComfyUI server: its /object_info is no object")
        return info

    def queue(self, prompt: Mapping[str, Any], prompt_id: str) -> dict[str, Any]:
        """Queue an API-format graph under an id of the caller's; the answer may hold `node_errors`.

        A refused graph raises Refused with each node's own message; no answer in time raises Unanswered.
        """
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self.client_id}
        answer = self._request("POST", "/prompt", json=body, timeout=_QUEUE_TIMEOUT)
        payload: dict[str, Any] = _payload(answer)
        if answer.status_code != 200:
            raise Refused(refusal(payload, prompt) or f"{self.url} refused the workflow: {answer.text[:300]}")
        return payload

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What the server kept of a finished prompt (`status`, `outputs`); None while it is not finished."""
        history = self._json("GET", f"/history/{prompt_id}")
        entry = history.get(prompt_id) if isinstance(history, dict) else None
        return entry if isinstance(entry, dict) else None

    def is_queued(self, prompt_id: str) -> bool:
        """True while the prompt waits or runs."""
        queue = self._json("GET", "/queue")
        if not isinstance(queue, dict):
            raise UserError(f"{self.url} is no ComfyUI server: its /queue is no object")
        entries = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
        return any(len(entry) > 1 and entry[1] == prompt_id for entry in entries)

    def cancel(self, prompt_id: str) -> None:
        """Take the prompt out of the queue, and interrupt it where it runs; other prompts stay."""
        self._request("POST", "/queue", json={"delete": [prompt_id]})
        self._request("POST", "/interrupt", json={"prompt_id": prompt_id})

    def file(self, filename: str, subfolder: str = "", kind: str = "output") -> bytes | None:
        """Content of an output file; None when the server does not have it."""
        query = {"filename": filename, "subfolder": subfolder, "type": kind}
        answer = self._request("GET", "/view", params=query)
        # ComfyUI never sends a page: that is the login of what stands before it.
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        return bytes(answer.content) if answer.status_code == 200 and not page else None

    def wait_until_up(self, patience: float) -> bool:
        """Ask until the server answers; False when it has not within `patience` seconds."""
        end = time.monotonic() + patience
        while True:
            try:
                self._request("GET", "/queue")
                return True
            except ConnectionLost:
                if time.monotonic() > end:
                    return False
                time.sleep(1.0)

    def _json(self, method: str, route: str) -> Any:
        answer = self._request(method, route)
        if answer.status_code != 200:
            raise UserError(
                f"{self.url}{route} answered {answer.status_code}; check that --server names a ComfyUI server"
            )
        return _payload(answer)

    def _request(self, method: str, route: str, **arguments: Any) -> Any:
        import requests

        arguments.setdefault("timeout", _TIMEOUT)
        try:
            answer = self._session.request(method, self.url + route, **arguments)
        except requests.exceptions.InvalidURL as error:
            raise UserError(
                f"{self.url} is no address of a server; give --server http://HOST:PORT"
            ) from error
        except requests.exceptions.ReadTimeout as error:
            raise Unanswered(str(error)) from error
        except requests.exceptions.RequestException as error:
            raise ConnectionLost(str(error)) from error
        if answer.status_code in _TRANSIENT and route != "/prompt":
            raise ConnectionLost(f"{route} answered {answer.status_code}")
        return answer


def refusal(payload: Mapping[str, Any], prompt: Mapping[str, Any]) -> str:
    """The messages of a refused graph as one sentence, node by node; empty when there are none."""
    errors = payload.get("node_errors")
    parts = []
    for node_id, found in (errors if isinstance(errors, dict) else {}).items():
        details = "; ".join(
            " ".join(str(part) for part in (error.get("message"), error.get("details")) if part)
            for error in found.get("errors", [])
        )
        parts.append(f"node {describe(node_id, prompt)}: {details}")
    if not parts and isinstance(payload.get("error"), dict):
        error = payload["error"]
        parts = [" ".join(str(part) for part in (error.get("message"), error.get("details")) if part)]
    return f"the server refused the workflow: {' / '.join(parts)}" if parts else ""


def describe(node_id: str, prompt: Mapping[str, Any]) -> str:
    """`5 (KSampler)`, or `5 (title, class)` where the title says something else."""
    node = prompt.get(str(node_id))
    if not isinstance(node, Mapping):
        return str(node_id)
    kind = str(node.get("class_type", "?"))
    title = str((node.get("_meta") or {}).get("title") or kind)
    return f"{node_id} ({kind})" if title == kind else f"{node_id} ({title}, {kind})"


def _payload(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise UserError(
            f"{answer.url} answered no JSON; check that --server names a ComfyUI server"
        ) from error


def _clean(url: str) -> str:
    address = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(_NO_ADDRESS.format(url))
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
