"""Our commands as processes of their own, which don't import PyTorch and the rest each time.

Run as a script this is the process that has imported them: it forks for each command, which gets its own
environment, working folder, streams and end.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

OFFLINE = Path(__file__).resolve().parent / "offline"
"""Its `sitecustomize` keeps a Python that has it on its path from the network."""
LIBRARIES = (
    *("scipy.spatial", "scipy.special", "scipy.stats", "skimage.transform", "sklearn.linear_model"),
    *("torch", "torchvision", "accelerate", "peft", "insightface.app"),
    *("transformers.models.clip.modeling_clip", "transformers.models.t5.modeling_t5"),
    *("diffusers.models.transformers.transformer_flux", "diffusers.models.autoencoders.autoencoder_kl"),
)
"""None of them may start a thread, which a fork would leave behind."""
PACKAGES = ("diffusioncleft.cli", "diffusioncleft.diffusioncleft_core")
"""Imported with every module of theirs."""
CAN_FORK = sys.platform == "linux"
LARGEST = 1 << 20
"""Bytes of a command and its environment."""


def offline_environment() -> dict[str, str]:
    """An environment for child Pythons in which they reach no other host, and libraries don't try to.

    A proxy on this machine would be a way around, so none is named.
    """
    return {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH", "")])),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUTF8": "1",
    }


def run_command(
    *words: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 900,
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m diffusioncleft WORDS` as a process, offline; gives the finished process.

    What its libraries read from the environment when they are imported is what stood there at the first call.
    With other settings of `subprocess.run` it imports them itself.
    """
    arguments, folder = list(map(str, words)), Path(cwd or Path.cwd())
    environment = offline_environment() if env is None else env
    if CAN_FORK and not settings:
        return _warm_python().run("diffusioncleft", arguments, folder, environment, timeout)
    return subprocess.run(
        [sys.executable, "-m", "diffusioncleft", *arguments],
        cwd=folder,
        env=environment,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        **settings,
    )


@functools.cache
def _warm_python() -> "WarmPython":
    return WarmPython(Path(tempfile.mkdtemp(prefix="warm-")), offline_environment())


class WarmPython:
    """The process that forks, and this side of it. One for a test process; several threads may use it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._address = folder, str(folder / "warm")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._address)
        listener.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
        listener.close()
        atexit.register(self.close)

    def run(
        self, module: str, arguments: list[str], cwd: Path, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives for `python -m MODULE ARGUMENTS`, with text from both streams."""
        command = [sys.executable, "-m", module, *arguments]
        asked = json.dumps({"module": module, "argv": arguments, "cwd": str(cwd), "env": env}).encode()
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as error,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        ):
            connection.connect(self._address)
            socket.send_fds(connection, [asked], [out.fileno(), error.fileno()])
            pid = int(connection.recv(64))
            connection.settimeout(timeout)
            try:
                status = int(connection.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout, _text(out), _text(error)) from None
            return subprocess.CompletedProcess(command, status, _text(out), _text(error))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _text(stream) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def serve(listener: socket.socket) -> dict | None:
    """Fork for each command; returns in the child that is to run one."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    listener.settimeout(5.0)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != parent:  # the tests were killed
                os._exit(1)
            continue
        connection.setblocking(True)
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked, streams, _, _ = socket.recv_fds(connection, LARGEST, 2)
        pid = os.fork()
        if not pid:
            connection.close()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            return json.loads(asked)
        connection.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)


def main() -> None:
    from diffusioncleft.diffusioncleft_core.environment import import_onnxruntime

    import_onnxruntime()
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    gc.freeze()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = [asked["module"], *asked["argv"]]
    sys.path[0] = asked["cwd"]
    status = 1
    try:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:  # what an interpreter does at its end, but for taking apart a gigabyte of modules: 1.3 s
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
