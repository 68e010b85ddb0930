"""Nothing reports to anybody; and the tests and their children reach no other host."""

import re
import socket
import subprocess
import sys

import pytest

ELSEWHERE = [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_a_test_reaches_no_other_host(address):
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    with socket.socket(family) as connection, pytest.raises(ConnectionRefusedError, match="blocked"):
        connection.connect(address)
    with pytest.raises(ConnectionRefusedError, match="blocked"):
        socket.create_connection(("example.org", 443), timeout=5)


def test_a_test_reaches_its_own_host():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as connection,
    ):
        assert connection.getpeername() == server.getsockname()


def test_a_child_reaches_no_other_host(offline_env):
    code = "import urllib.request; urllib.request.urlopen('http://example.org', timeout=5)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the network is blocked in tests" in done.stderr


LOOKS_AT_FACES = """
import numpy as np
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.filters.text import load_text_reader
load_face_analyzer("phantom").analyze(np.zeros((128, 128, 3), np.uint8))
load_text_reader()
"""


def test_onnxruntime_keeps_no_events_to_report(offline_env, tmp_path):
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path)}
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # under CI it is silent by itself
        offline_env.pop(name, None)
    subprocess.run([sys.executable, "-c", LOOKS_AT_FACES], env=offline_env | home, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_onnxruntime_is_imported_in_one_place(repository):
    names = ("benchmarks", "cli", "diffusioncleft_core", "nodes", "scripts", "tools", "trainer")
    folders = [repository / name for name in names]
    imports = re.compile(r"^\s*(import|from) onnxruntime\b", re.MULTILINE)
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert not [path.name for path in sources if imports.search(path.read_text(encoding="utf-8"))]
