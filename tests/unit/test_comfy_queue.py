"""A graph that the server checks for long before it queues it."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from diffusioncleft.cli.comfyui import server as routes
from diffusioncleft.cli.comfyui.run import queue_graph
from diffusioncleft.cli.comfyui.server import ComfyServer
from diffusioncleft.diffusioncleft_core.errors import UserError


class SlowDoor(ThreadingHTTPServer):
    """Checks each graph for a second and a half before it is queued."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), SlowHandler)
        self.posted, self.queued = [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class SlowHandler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        pending = [[0, name] for name in self.server.queued]
        self.say({"queue_running": [], "queue_pending": pending} if self.path == "/queue" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append(body["prompt_id"])
        time.sleep(1.5)
        self.server.queued.append(body["prompt_id"])
        self.say({"prompt_id": body["prompt_id"], "node_errors": {}})

    def say(self, answer):
        body = json.dumps(answer).encode()
        with contextlib.suppress(OSError):  # who asked has gone
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture
def slow_door():
    server = SlowDoor()
    yield server
    server.shutdown()
    server.server_close()


def test_a_graph_that_the_server_checks_for_long_is_queued_once(slow_door, monkeypatch):
    monkeypatch.setattr(routes, "_TIMEOUT", 0.5)
    client = ComfyServer(f"http://127.0.0.1:{slow_door.server_address[1]}", patience=20)
    queue_graph(client, {}, "one")
    assert slow_door.posted == slow_door.queued == ["one"]


def test_a_graph_without_an_answer_in_time_is_not_sent_again(slow_door, monkeypatch):
    monkeypatch.setattr(routes, "_QUEUE_TIMEOUT", (5.0, 0.5))
    client = ComfyServer(f"http://127.0.0.1:{slow_door.server_address[1]}", patience=20)
    with pytest.raises(UserError, match="has not said whether it is queued"):
        queue_graph(client, {}, "one")
    assert slow_door.posted == ["one"]
