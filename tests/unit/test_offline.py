"""The tests themselves: neither this process nor its children reach another host."""

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
