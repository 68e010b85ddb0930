"""A real ComfyUI server with the pack in its custom_nodes, for tests and for a look by hand."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACK = "a pack.in-any folder"


def find_comfyui() -> Path | None:
    """`$COMFYUI_PATH`, else ~/comfy/ComfyUI, else the ComfyUI that this pack lies in."""
    places = [os.environ.get("COMFYUI_PATH", ""), "~/comfy/ComfyUI", str(ROOT.parents[1])]
    for place in filter(None, places):
        folder = Path(place).expanduser()
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
            return folder
    return None


def server_environment() -> dict[str, str]:
    """For the server: no other host is reached, and libraries don't try to."""
    offline = Path(__file__).resolve().parents[1] / "offline"
    return {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(offline), os.environ.get("PYTHONPATH", "")])),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**28),  # else page faults are a fifth of drawing
        "MALLOC_TRIM_THRESHOLD_": str(2**29),
    }


class ComfyServer:
    """Starts `main.py` on a base directory of its own; `start()` again after `kill()` is a restart."""

    def __init__(self, comfyui: Path, base: Path, environment: dict[str, str]) -> None:
        self.comfyui, self.base, self.environment = comfyui, base, environment
        self.log_path = base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._extra = base / "extra_model_paths.yaml"
        for name in ("custom_nodes", "input", "output", "temp", "user", "models/loras"):
            (base / name).mkdir(parents=True, exist_ok=True)
        link = base / "custom_nodes" / PACK
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        # The owner's choice: one place that is private, and one that is not and must not be used.
        places = f"{base / 'private datasets'}\n{base / 'output' / 'patients'}"
        self._extra.write_text(f"owner:\n  diffusioncleft_datasets: {json.dumps(places)}\n")
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def start(self, timeout: float = 400.0) -> None:
        arguments = ["--cpu", "--disable-auto-launch", "--port", str(self.port)]
        arguments += ["--base-directory", str(self.base), "--extra-model-paths-config", str(self._extra)]
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "main.py", *arguments],
                cwd=self.comfyui,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI did not start:\n{self.log[-3000:]}")
            try:
                self.get("/queue")
            except OSError:
                time.sleep(0.3)
            else:
                return
        raise RuntimeError(f"ComfyUI did not answer in {timeout} s:\n{self.log[-3000:]}")

    def kill(self) -> None:
        """End the server at once, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def raw(self, path: str, data: Any = None) -> tuple[int, bytes]:
        """Status and body of a request; `data` is posted as JSON."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path: str) -> Any:
        status, body = self.raw(path)
        if status != 200:
            raise OSError(f"{path}: {status} {body[:300]!r}")
        return json.loads(body)

    def queue(self, graph: dict[str, Any], client: str = "tests") -> str:
        """Queue a graph in API format; GraphRefused when the server does not take it."""
        status, body = self.raw("/prompt", {"prompt": graph, "client_id": client})
        answer = json.loads(body)
        if status != 200:
            raise GraphRefused(json.dumps(answer, ensure_ascii=False))
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 900.0) -> dict[str, Any]:
        """The history of a prompt that has ended, however it ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id])
            time.sleep(0.1)
        raise TimeoutError(f"the prompt did not end in {timeout} s:\n{self.log[-3000:]}")

    def run(self, graph: dict[str, Any], timeout: float = 900.0) -> dict[str, Any]:
        """Run a graph and return its outputs by node; NodeFailed with the node's message."""
        history = self.wait(self.queue(graph), timeout)
        for name, message in history["status"]["messages"]:
            if name in ("execution_error", "execution_interrupted"):
                raise NodeFailed(message.get("exception_message", name).strip())
        return dict(history["outputs"])

    def interrupt(self) -> None:
        self.raw("/interrupt", {})

    def view(self, image: dict[str, str]) -> bytes:
        status, body = self.raw("/view?" + urllib.parse.urlencode(image))
        if status != 200:
            raise OSError(f"/view: {status}")
        return body


class GraphRefused(Exception):
    """The server did not take a graph; the message is its answer."""


class NodeFailed(Exception):
    """A node failed; the message is what the user sees on it."""


def watch(server: ComfyServer, stop: threading.Event, client: str = "tests") -> list[Any]:
    """Collect the websocket's messages (JSON ones as objects, binary ones as bytes) until `stop` is set.

    The server has one socket a client: two at once need two names.
    """
    messages: list[Any] = []
    ready = threading.Event()
    threading.Thread(target=_listen, args=(server, stop, ready, messages, client), daemon=True).start()
    ready.wait(10)
    return messages


def _listen(
    server: ComfyServer, stop: threading.Event, ready: threading.Event, messages: list[Any], client: str
) -> None:
    import asyncio

    import aiohttp

    async def listen() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws?clientId={client}") as socket_,
        ):
            ready.set()
            while not stop.is_set():
                try:
                    message = await socket_.receive(timeout=0.2)
                except TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.TEXT:
                    messages.append(json.loads(message.data))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    messages.append(message.data)
                else:
                    return

    asyncio.run(listen())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
