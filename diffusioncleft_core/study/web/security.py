"""What stands around every answer: headers, allowed hosts, requests from other sites, sizes of forms."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_FORM = 256 << 10
MOST_FIELDS = 200
POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("img", "style", "script", "connect")),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}
TLS_HEADERS = {"strict-transport-security": "max-age=31536000"}


class Guard:
    """Refuses foreign hosts and forms of other sites, and gives every answer its headers.

    What comes back is kept by no cache unless its handler said otherwise.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = (), *, tls: bool = False) -> None:
        """
        Args:
            app: what stands behind.
            hosts: names by which the server may be asked for; none for any.
            tls: whether browsers reach it by https alone.
        """
        self._app, self._hosts = app, {host.lower() for host in hosts}
        self._headers = HEADERS | (TLS_HEADERS if tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _refusal(self, headers: Headers, method: str) -> PlainTextResponse | None:
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("This server is not asked for by that name.\n", 400)
        is_foreign = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if method not in ("GET", "HEAD") and is_foreign:
            return PlainTextResponse("Forms of other sites are not accepted.\n", 403)
        return None


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.rpartition("]")[0] + "]" if header.startswith("[") else header.partition(":")[0]
    return name.lower().rstrip(".")


class FormTooLarge(Exception):
    """A form with more bytes or fields than any of ours."""


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise FormTooLarge
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS, keep_blank_values=True)
    except ValueError as error:
        raise FormTooLarge from error
    return {name: value.replace("\0", "") for name, value in pairs}
