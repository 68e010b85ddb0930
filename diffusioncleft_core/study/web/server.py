"""Serving a study: where it listens, by what name it is reached, and the server itself."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import UserError
from ...files import write_text
from ..folder import Study
from .app import create_app
from .messages import Language
from .store import Store

HOST, PORT = "127.0.0.1", 8377
ADDRESS = "address"
"""File in the study's private folder: under which address it was served last."""


def _check_certificate(certificate: Path, key: Path) -> None:
    """Raise UserError for a certificate and a key that no server can use together."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError):  # SSLError is an OSError; a key with a password fails on the empty one
        raise UserError(
            f"{certificate} and {key} are no certificate and its key without a password, both as PEM; "
            "check --tls-certificate and --tls-key"
        ) from None


@dataclass(frozen=True)
class Listening:
    """Where the server listens and how it is reached.

    Attributes:
        host, port: of this machine; port 0 takes a free one.
        url: by which raters reach it, where that is another: of a proxy, or a machine's name.
        certificate, key: PEM files, for a server that speaks TLS itself.
        behind_proxy: whether requests come from a proxy on this machine, which says for whom it asks.
    """

    host: str = HOST
    port: int = PORT
    url: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise UserError("TLS needs both --tls-certificate and --tls-key")
        for path in filter(None, (self.certificate, self.key)):
            if not path.is_file():
                raise UserError(f"{path} does not exist; check the path")
        if self.certificate is not None and self.key is not None:
            _check_certificate(self.certificate, self.key)
        if self.url is not None:
            checked_url(self.url)

    @property
    def tls(self) -> bool:
        """Whether browsers reach it by https."""
        return self.certificate is not None or (self.url or "").startswith("https://")

    @property
    def is_local(self) -> bool:
        """Whether it listens on this machine alone."""
        return is_loopback(self.host)

    @property
    def is_open(self) -> bool:
        """Whether names, pictures and answers cross a network where others can read them."""
        return not self.is_local and self.certificate is None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names by which a browser may ask; none where any may."""
        if self.url is not None:
            return (str(urlsplit(self.url).hostname), *(("localhost", "127.0.0.1") if self.is_local else ()))
        return ("localhost", "127.0.0.1", "[::1]") if self.is_local else ()

    def base(self, port: int) -> str:
        """What a personal link begins with."""
        if self.url is not None:
            return self.url.rstrip("/")
        name = f"[{self.host}]" if ":" in self.host else self.host
        if name in ("0.0.0.0", "[::]"):  # noqa: S104 (compared, not bound)
            name = socket.gethostname()
        return f"http{'s' if self.certificate else ''}://{name}:{port}"


def checked_url(url: str) -> str:
    """An address such as https://study.clinic.example. UserError for another kind."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        plain = not (parts.query or parts.fragment or parts.path.strip("/") or parts.username)
        if parts.scheme in ("http", "https") and parts.hostname and plain:
            return url.rstrip("/")
    raise UserError(f"{url!r} is no address of a server; give one such as https://study.clinic.example")


def is_loopback(host: str) -> bool:
    """Whether a host's name or number stands for this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def link(base: str, token: str) -> str:
    """A rater's personal link."""
    return f"{base}/enter/{token}"


def last_address(study: Study) -> str:
    """Under which address the study was served last, or will be by default."""
    with contextlib.suppress(OSError, UserError):
        return checked_url((study.private / ADDRESS).read_text(encoding="utf-8").strip())
    return f"http://{HOST}:{PORT}"


def serve(
    study: Study,
    store: Store,
    languages: dict[str, Language],
    listening: Listening,
    tell: Callable[[str], None],
) -> None:
    """Serve a study until the process is asked to end.

    Args:
        study: its folder is read again when its pictures change.
        store: its database.
        languages: of the page, by code.
        listening: where.
        tell: called once with the address, when the server is about to answer.

    Raises:
        UserError: the study is closed, or the port can't be had.
    """
    import uvicorn

    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # a lost database is told in one line
    if study.closed:
        raise UserError(
            f"the study {study.root} is closed and takes no answers; 'study analyse' reads those it has"
        )
    app = create_app(study.root, store, languages, hosts=listening.hosts, tls=listening.tls)
    with _socket(listening) as listener:
        base = listening.base(listener.getsockname()[1])
        write_text(study.private / ADDRESS, f"{base}\n")
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=listening.behind_proxy,
            ssl_certfile=listening.certificate,
            ssl_keyfile=listening.key,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
        tell(base)
        uvicorn.Server(settings).run(sockets=[listener])


def _socket(listening: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    try:
        return socket.create_server((listening.host, listening.port), family=family, backlog=512)
    except OSError as error:
        where = f"{listening.host}:{listening.port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{where} is taken by another program; end it, or give another --port") from error
        raise UserError(
            f"can't listen on {where} ({error.strerror or error}); give another --host"
        ) from error
