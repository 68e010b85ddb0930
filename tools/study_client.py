"""A rater made of HTTP alone: opens a link, reads pages, fills in forms. For tests and measurements."""

import http.client
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode, urlsplit


@dataclass
class Page:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def location(self) -> str:
        return self.headers.get("location", "")

    def fields(self, action: str) -> dict[str, str]:
        """Hidden fields of the form that is sent to `action`, and the radio buttons that are chosen."""
        parser = _Forms()
        parser.feed(self.text)
        return parser.forms.get(action, {})

    @property
    def links(self) -> list[str]:
        return re.findall(r'href="(/item/[^"]+)"', self.text)

    @property
    def picture(self) -> str:
        found = re.search(r'src="(/picture/[^"]+)"', self.text)
        return found[1] if found else ""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._action = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._action = values.get("action", "")
            self.forms[self._action] = {}
        is_chosen = values.get("type") != "radio" or "checked" in values
        if tag == "input" and self._action and values.get("name") and is_chosen:
            self.forms[self._action][values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._action = ""


@dataclass
class Client:
    """A browser without a screen: one connection, cookies, no redirects followed unless asked."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    timeout: float = 30.0
    _connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Page:
        sent = {"Host": urlsplit(self.base).netloc, **(headers or {})}
        if self.cookies:
            sent.setdefault("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        try:
            return self._once(method, path, body, sent)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if method != "GET":  # a form is never sent again by itself
                raise
            return self._once(method, path, body, sent)

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Page:
        if self._connection is None:
            where = urlsplit(self.base)
            self._connection = http.client.HTTPConnection(
                str(where.hostname), where.port or 80, timeout=self.timeout
            )
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            page = Page(answer.status, answer.headers, answer.read())
        except BaseException:
            self.close()
            raise
        for line in page.headers.get_all("set-cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
        return page

    def get(self, path: str, **headers: str) -> Page:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Page:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return self.request("POST", path, urlencode(fields).encode(), headers)

    def open_link(self, link: str) -> Page:
        """Open a personal link and follow it to the overview."""
        page = self.get(urlsplit(link).path)
        return self.get(page.location) if page.status == 303 else page

    def next_item(self) -> str:
        """Where the overview leads on to; "" when all is rated."""
        found = re.search(r'class="button main" href="(/item/[^"]+)"', self.get("/").text)
        return found[1] if found else ""

    def rate(self, item: str, answers: dict[str, object]) -> Page:
        """Open an item's page and send answers."""
        fields = self.get(item).fields(item)
        return self.post(item, fields | {f"answer.{name}": str(value) for name, value in answers.items()})

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
