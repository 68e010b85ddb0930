"""A stand-in for a ComfyUI server that misbehaves on purpose: the client's routes, no graph is run.

It does what a real server can't be made to do at will: end messages that get lost, a history that comes
late, a login page in place of an answer. `ComfyServer` in tests/comfyui is the real one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MODES = {
    "ok": "messages and answers as ComfyUI gives them",
    "silent": "a websocket that brings nothing",
    "chatter": "another extension's messages all the time",
    "chatter_missed_end": "such messages, and none about the prompt's end",
    "pings": "a websocket that only pings",
    "no_websocket": "a proxy that lets no websocket through",
    "slow_history": "the prompt leaves the queue seconds before the history has it",
    "html": "a login page in place of every answer",
    "html_later": "a login page once the prompt is queued",
    "html_picture": "a login page in place of the picture",
    "image_missing": "a listed picture that isn't there",
    "no_history": "a history that answers 500 for good",
    "forgets": "a prompt that is in neither queue nor history",
}
GRAPH = {"1": {"class_type": "Draw", "inputs": {"seed": 1, "text": "a face"}}}
_INFO = {
    "Draw": {
        "input": {"required": {"seed": ["INT", {"default": 0}], "text": ["STRING", {}]}},
        "output": [],
        "output_node": True,
        "name": "Draw",
    }
}
_RUNS, _LATE = 0.5, 3.0
_TEXT, _PING = 0x81, 0x89
_ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class StandIn(ThreadingHTTPServer):
    """Listens on a port of its own until `close()`; a prompt takes half a second. queued: ids in order."""

    daemon_threads = True

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.queued: dict[str, float] = {}
        self.posts = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def runs(self, prompt: str) -> bool:
        """Whether the queue holds the prompt."""
        return self.mode != "forgets" and time.monotonic() - self.queued[prompt] < _RUNS

    def history(self, prompt: str) -> dict[str, Any]:
        late = _LATE if self.mode == "slow_history" else 0
        known = prompt in self.queued and self.mode != "forgets"
        if not known or time.monotonic() - self.queued[prompt] < _RUNS + late:
            return {}
        picture = {"filename": f"{prompt}.png", "subfolder": "", "type": "output"}
        status = {"status_str": "success", "completed": True, "messages": []}
        return {prompt: {"outputs": {"1": {"text": ["made"], "images": [picture]}}, "status": status}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        mode, route = self.server.mode, self.path.partition("?")[0]
        if route == "/ws" and mode not in ("no_websocket", "html"):
            self._talk()
        elif mode == "html" or (mode == "html_later" and self.server.queued) or route == "/ws":
            self._answer(b"<html>Log in</html>", "text/html")
        elif route == "/object_info":
            self._json(_INFO)
        elif route == "/queue":
            running = [[0, name, {}, {}, []] for name in self.server.queued if self.server.runs(name)]
            self._json({"queue_running": running, "queue_pending": []})
        elif route.startswith("/history/") and mode != "no_history":
            self._json(self.server.history(route.rpartition("/")[2]))
        elif route == "/view" and mode == "html_picture":
            self._answer(b"<html>Log in</html>", "text/html")
        elif route == "/view" and mode != "image_missing" and "png" in self.path:
            self._answer(_png(), "image/png")
        else:
            self._answer(b"", "text/plain", 500 if mode == "no_history" else 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/prompt":
            self.server.posts += 1
            self.server.queued[body["prompt_id"]] = time.monotonic()
            self._json({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})
        else:
            self._json({})

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), "application/json")

    def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _talk(self) -> None:
        """The websocket, until the client leaves."""
        key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _ACCEPT).encode(), usedforsecurity=False)
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key.digest()).decode())
        self.end_headers()
        told: set[str] = set()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                if self.server.mode.startswith("chatter"):
                    self._send({"type": "monitor", "data": {"cpu": 3.0}})
                if self.server.mode == "pings":
                    self.wfile.write(bytes([_PING, 0]))
                if self.server.mode in ("ok", "chatter"):
                    for name in [name for name in self.server.queued if not self.server.runs(name)]:
                        if name not in told:
                            self._send({"type": "execution_success", "data": {"prompt_id": name}})
                        told.add(name)
                time.sleep(0.2)

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        length = bytes([len(body)]) if len(body) < 126 else b"\x7e" + struct.pack(">H", len(body))
        self.wfile.write(bytes([_TEXT]) + length + body)


def _png() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "PNG")
    return buffer.getvalue()
