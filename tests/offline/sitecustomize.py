"""Cuts a Python process off from every host but its own.

The fixture `no_network` applies it to the test process; a child gets it when this folder stands on its
PYTHONPATH (fixture `offline_env`).
"""

import ipaddress
import socket

_connect, _connect_ex, _sendto = socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto
_getaddrinfo = socket.getaddrinfo


def is_local(address):
    """True for loopback, for no host at all, and for sockets that are not IP (their address is no tuple)."""
    if not isinstance(address, tuple):
        return True
    host = address[0]
    if host in ("", "localhost", None):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse(address):
    if not is_local(address):
        raise ConnectionRefusedError(f"the network is blocked in tests: {address[0]}")


def connect(self, address):
    refuse(address)
    return _connect(self, address)


def connect_ex(self, address):
    refuse(address)
    return _connect_ex(self, address)


def sendto(self, data, *rest):
    refuse(rest[-1])
    return _sendto(self, data, *rest)


def getaddrinfo(host, *rest, **settings):
    name = host.decode() if isinstance(host, bytes) else host
    refuse((name,))
    return _getaddrinfo(host, *rest, **settings)


def block():
    socket.socket.connect = connect
    socket.socket.connect_ex = connect_ex
    socket.socket.sendto = sendto
    socket.getaddrinfo = getaddrinfo


def unblock():
    socket.socket.connect = _connect
    socket.socket.connect_ex = _connect_ex
    socket.socket.sendto = _sendto
    socket.getaddrinfo = _getaddrinfo


if __name__ == "sitecustomize":
    block()
