"""Our commands as processes of their own, which don't import PyTorch and the rest each time.

Run as a script this is the process that has imported them: it forks for each command, which gets its own
environment, working folder, streams and end. A trainer that such a command starts is forked here too,
without the launcher: the two would import PyTorch and the rest for 15 s. Tests of the start itself start it
as users do. Of plots the commands share what a page holds of the same, and the PDF and PNG of a name.
"""

import atexit
import contextlib
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

OFFLINE = Path(__file__).resolve().parent / "offline"
"""Its `sitecustomize` keeps a Python that has it on its path from the network."""
LIBRARIES = (
    *("scipy.spatial", "scipy.special", "scipy.stats", "skimage.transform", "sklearn.linear_model"),
    *("matplotlib.figure", "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg"),
    *("torch", "torchvision", "accelerate", "peft", "insightface.app"),
    *("transformers.models.clip.modeling_clip", "transformers.models.t5.modeling_t5"),
    *("diffusers.models.transformers.transformer_flux", "diffusers.models.autoencoders.autoencoder_kl"),
)
"""None of them may start a thread, which a fork would leave behind."""
TRAINER = "diffusioncleft.trainer.flux_train_network"
PACKAGES = ("diffusioncleft.cli", "diffusioncleft.diffusioncleft_core", "diffusioncleft.trainer")
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
    return run_module("diffusioncleft", *words, cwd=cwd, env=env, timeout=timeout, **settings)


def run_module(
    module: str,
    *words: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 900,
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """`run_command` for `python -m MODULE WORDS`."""
    arguments, folder = list(map(str, words)), Path(cwd or Path.cwd())
    environment = offline_environment() if env is None else env
    if CAN_FORK and not settings:
        return _warm_python().run(module, arguments, folder, environment, timeout)
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        **settings,
    )


def start_command(*words: object, cwd: Path | None = None) -> "subprocess.Popen[str] | Forked":
    """Start `python -m diffusioncleft WORDS`, offline; its standard error can be read as it comes."""
    arguments, folder = list(map(str, words)), Path(cwd or Path.cwd())
    if CAN_FORK:
        return Forked(_warm_python().address, "diffusioncleft", arguments, folder, offline_environment(), "2")
    return subprocess.Popen(
        [sys.executable, "-m", "diffusioncleft", *arguments],
        cwd=folder,
        env=offline_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@contextlib.contextmanager
def forked_trainers() -> Iterator[None]:
    """Within the block trainers that this process starts are forked, as those of `run_command` are."""
    from diffusioncleft.trainer import launch

    before = launch.subprocess
    if CAN_FORK:
        _fork_trainers(_warm_python().address)
    try:
        yield
    finally:
        launch.subprocess = before


@functools.cache
def _warm_python() -> "WarmPython":
    return WarmPython(Path(tempfile.mkdtemp(prefix="warm-")), offline_environment())


class WarmPython:
    """The process that forks, and this side of it. One for a test process; several threads may use it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self.address = folder, str(folder / "warm")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.address)
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
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            files = {1: out.fileno(), 2: error.fileno()}
            process = Forked(self.address, module, arguments, cwd, env, files=files)
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise subprocess.TimeoutExpired(process.args, timeout, _text(out), _text(error)) from None
            return subprocess.CompletedProcess(process.args, status, _text(out), _text(error))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Forked:
    """A process that was forked for `python -m MODULE ARGUMENTS`, as `subprocess.Popen` shows one.

    pipes: the numbers of its streams that are pipes to here, of bytes but for a command's standard error;
    files: what other streams are, which else are nothing.
    """

    def __init__(
        self,
        address: str,
        module: str,
        arguments: list[str],
        cwd: Path,
        env: dict[str, str],
        pipes: str = "",
        files: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.args, self.returncode = [sys.executable, "-m", module, *arguments], None
        ours, theirs = {}, {}
        for number in range(3):
            if str(number) in pipes:
                read, write = os.pipe()
                ours[number], theirs[number] = (read, write) if number else (write, read)
            elif number not in files:
                theirs[number] = os.open(os.devnull, os.O_RDWR)
        asked = json.dumps({"module": module, "argv": arguments, "cwd": str(cwd), "env": env}).encode()
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(address)
        streams = {**theirs, **files}
        socket.send_fds(self._connection, [asked], [streams[number] for number in range(3)])
        for end in theirs.values():
            os.close(end)
        self.pid = int(self._connection.recv(64))
        self.stdin = os.fdopen(ours[0], "wb") if 0 in ours else None
        self.stdout = os.fdopen(ours[1], "rb") if 1 in ours else None
        mode = "rb" if module == TRAINER else "r"
        self.stderr = os.fdopen(ours[2], mode) if 2 in ours else None

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for stream in filter(None, (self.stdin, self.stdout, self.stderr)):
            stream.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._connection.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._connection.close()
        return self.returncode


def _text(stream) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def _reap(*_: object) -> None:
    """Take the ended children, whose processor time then counts as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve(listener: socket.socket) -> dict | None:
    """Fork for each command; returns in the child that is to run one."""
    signal.signal(signal.SIGCHLD, _reap)
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
        asked, streams, _, _ = socket.recv_fds(connection, LARGEST, 3)
        pid = os.fork()
        if not pid:
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return json.loads(asked)
        for stream in streams:
            os.close(stream)
        connection.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # who asked is gone
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)


def _fork_trainers(address: str) -> None:
    """Let this process start trainers, one process each, at the process that listens at `address`."""
    from diffusioncleft.trainer import launch

    def popen(command: list[str], *, env: dict[str, str], **settings) -> "subprocess.Popen[bytes] | Forked":
        if command[command.index("--num_processes") + 1] != "1":
            return subprocess.Popen(command, env=env, **settings)
        script = next(place for place, word in enumerate(command) if word.endswith("flux_train_network.py"))
        return Forked(address, TRAINER, command[script + 1 :], Path.cwd(), env, "012")

    launch.subprocess = SimpleNamespace(
        Popen=popen, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )


def main() -> None:
    from diffusioncleft.diffusioncleft_core.environment import import_onnxruntime

    import_onnxruntime()
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    from drawn_plots import Kept, drawn_once, of_pages

    gc.freeze()
    listener = socket.socket(fileno=int(sys.argv[1]))
    address = listener.getsockname()
    plots = Kept(Path(address).parent / "plots")
    asked = serve(listener)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = [asked["module"], *asked["argv"]]
    sys.path[0] = asked["cwd"]
    # Python's own are for what the streams were when this process's parent began, as files that can seek.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if asked["module"] == TRAINER:
        os.setsid()
    else:
        _fork_trainers(address)
    status = 1
    try:
        with drawn_once(plots, of_pages):
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
