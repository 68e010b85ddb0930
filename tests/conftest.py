"""Fixtures for every test: no network, small disks, read-only folders, child processes."""

import functools
import gc
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import OFFLINE, offline_environment, run_command

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Share the cores among the workers, and let child processes end at Ctrl-C.

    The latter also where the tests were started in the background.

    A shell gives its background jobs an ignored SIGINT, which their children inherit; a handler of our own is
    not inherited, so they start with the default.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    from diffusioncleft.diffusioncleft_core.environment import keep_freed_memory

    keep_freed_memory()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every child would compile the sources: 0.4 s
    os.environ.setdefault("DIFFUSIONCLEFT_PROGRESS", "0")  # what commands print doesn't hang on the machine
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory) -> None:
    """The list of withdrawn LoRAs is the tests' own, in child processes too."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def left_out_of_collections() -> set[str]:
    """Names of the modules that `modules_left_out_of_collections` has seen."""
    return set()


@pytest.fixture(autouse=True)
def modules_left_out_of_collections(left_out_of_collections) -> None:
    """What earlier tests imported is not looked through at each garbage collection: half a second."""
    if len(sys.modules) > len(left_out_of_collections) + 100:
        left_out_of_collections.update(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return ROOT


@pytest.fixture(scope="session")
def analyzer():
    """The embedded face pack, on one thread."""
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer

    return load_face_analyzer("phantom", threads=1)


@pytest.fixture(scope="session")
def artifacts(analyzer):
    """The artifact filter with that pack."""
    from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter

    return ArtifactFilter(analyzer, threads=1)


@pytest.fixture(scope="session")
def plots() -> dict[str, bytes]:
    """Plots that this process drew, for the fixtures that draw them once."""
    return {}


@pytest.fixture(scope="module")
def plots_drawn_once(plots):
    """For tests of plots: what says the same is drawn once in each form."""
    from drawn_plots import drawn_once, of_plots

    with drawn_once(plots, of_plots):
        yield


@pytest.fixture(scope="module")
def pages_drawn_once(plots):
    """For tests of pages: the same of what a page holds; beside it lies a PDF and a PNG of that name."""
    from drawn_plots import drawn_once, of_pages

    with drawn_once(plots, of_pages):
        yield


@pytest.fixture(scope="module")
def one_plot_of_a_name(plots):
    """For tests that look at no plot."""
    from drawn_plots import drawn_once, of_names

    with drawn_once(plots, of_names):
        yield


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL, started by an unprivileged user."""
    from diffusioncleft.tools.postgres import Postgres, find_postgres

    programs = find_postgres()
    if programs is None:
        pytest.skip("NO POSTGRESQL: install Debian's postgresql; the study was tested on SQLite alone")
    server = Postgres(programs)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def database(request):
    """Where a study's ratings lie: None is its own SQLite file, else the URL of an empty database."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres").database()


@pytest.fixture(autouse=True)
def no_network():
    """Connections to any other host raise ConnectionRefusedError in the test process."""
    spec = importlib.util.spec_from_file_location("blocked_network", OFFLINE / "sitecustomize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.block()
    yield
    module.unblock()


@pytest.fixture
def offline_env() -> dict[str, str]:
    """The `offline_environment` of now."""
    return offline_environment()


@pytest.fixture
def python(offline_env, tmp_path):
    """Run `python ...` as a process, from an empty folder; gives the finished process."""

    def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        settings = {"cwd": tmp_path, "env": offline_env, "timeout": 300, **settings}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            **settings,
        )

    return run


@pytest.fixture
def command(offline_env, tmp_path):
    """Run `python -m diffusioncleft ...` as a process, from an empty folder; gives the finished process."""
    return functools.partial(run_command, cwd=tmp_path, env=offline_env)


@pytest.fixture
def refused(capsys):
    """Runs the command line and returns the one line with which it refuses the arguments."""
    from diffusioncleft.cli.main import main

    def run(*words: object) -> str:
        try:
            status = main(list(map(str, words)))
        except SystemExit as stop:
            status = stop.code
        error = capsys.readouterr().err
        assert status == 2
        assert len(error.strip().splitlines()) == 1, error
        return error

    return run


def _mount(folder: Path, options: str, of: str | Path = "tmpfs") -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a disk of its own needs Linux and root")
    done = subprocess.run(
        ["mount", *([] if options == "bind" else ["-t", "tmpfs"]), "-o", options, str(of), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no right to mount here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 256 KiB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    _mount(folder, "size=256k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def make_read_only():
    """Call it with a folder that nobody can write any more, root included, until the test ends."""
    undo = []

    def make(folder: Path) -> Path:
        if os.name == "posix" and os.geteuid() != 0:
            below = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
            modes = [(path, path.stat().st_mode) for path in below]
            undo.extend(functools.partial(path.chmod, mode) for path, mode in modes)
            for path, mode in modes:
                path.chmod(mode & ~0o222)
            return folder
        _mount(folder, "bind", of=folder)
        undo.append(functools.partial(subprocess.run, ["umount", "-l", str(folder)], check=True))
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        return folder

    yield make
    for step in reversed(undo):
        step()


@pytest.fixture
def read_only_folder(tmp_path):
    """A folder that even root can't write to."""
    folder = tmp_path / "read only"
    folder.mkdir()
    if os.name == "posix" and os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    _mount(folder, "size=256k,ro")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
