"""Who a request comes from: personal links, signed sessions, the marks that forms carry, limited attempts."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

from ...errors import UserError
from ...files import TEMPORARY_PREFIX, explained

SECRET = "secret"  # noqa: S105 (the name of a file)
SESSION_SECONDS = 12 * 3600
"""A session ends so long after the rater's last page."""
RENEWED_AFTER = 600
"""Seconds after which a page gives the session a new date."""
FAILURES, WINDOW = 10, 600
"""So many failed attempts of an address in so many seconds, and it has to wait."""
_ADDRESSES = 10_000


def read_secret(private: Path) -> bytes:
    """The study's key, made at its first use. All that is signed or derived for raters hangs on it."""
    path = private / SECRET
    if not path.exists():
        made = private / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        with explained(path):
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "w", encoding="ascii") as handle:
                    handle.write(secrets.token_hex(32))
                    handle.flush()
                    os.fsync(descriptor)
                with contextlib.suppress(FileExistsError):  # another process was first
                    os.link(made, path)
            finally:
                made.unlink(missing_ok=True)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if len(text) != 64:
        raise UserError(f"{path} is damaged; restore it from a copy of the study")
    return text.encode("ascii")


def new_token() -> str:
    """What a personal link ends in: 256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token. It is random, so that a plain hash can't be searched."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Session:
    """A signed-in browser: the rater, which of their links it was, and a random mark of its own."""

    rater: int
    link: str
    mark: str
    age: float = 0.0


@dataclass(frozen=True)
class Form:
    """A form as it was given out: for whom and what, when, and a random mark by which it counts once."""

    rater: int
    item: str
    mark: str
    at: float

    @property
    def seconds(self) -> float:
        """Since it was given out."""
        return max(0.0, round(time.time() - self.at, 1))


class Signatures:
    """Signs and reads what browsers hold, and derives what only this study's raters can name."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._sessions = URLSafeTimedSerializer(secret, salt="session")
        self._forms = URLSafeSerializer(secret, salt="form")

    def derived(self, *parts: object) -> bytes:
        """32 bytes that hang on the parts and on the secret."""
        message = "\0".join(map(str, parts)).encode("utf-8")
        return hmac.digest(self._secret, message, "sha256")

    def session(self, rater: int, link_hash: str, mark: str = "") -> str:
        """A cookie's value. `mark` goes on with a session."""
        return str(self._sessions.dumps([rater, link_hash[:16], mark or secrets.token_hex(16)]))

    def read_session(self, cookie: str | None) -> Session | None:
        """None for one that is missing, expired or not ours."""
        with contextlib.suppress(BadSignature, ValueError, TypeError):
            (rater, link, mark), at = self._sessions.loads(
                cookie or "", max_age=SESSION_SECONDS, return_timestamp=True
            )
            return Session(int(rater), str(link), str(mark), time.time() - at.timestamp())
        return None

    def csrf(self, session: Session) -> str:
        """What each form of a session carries, so that no other site can send one."""
        return self.derived("csrf", session.mark).hex()

    def form(self, rater: int, item: str, started: float | None = None) -> str:
        """The mark of a form; `started` goes on with the clock of one that came back with a mistake."""
        at = time.time() if started is None else started
        return str(self._forms.dumps([rater, item, secrets.token_hex(16), round(at, 1)]))

    def read_form(self, text: str) -> Form | None:
        """None for one that is not ours."""
        with contextlib.suppress(BadSignature, ValueError, TypeError):
            rater, item, mark, at = _sequence(self._forms.loads(text))
            return Form(int(rater), str(item), str(mark), float(at))
        return None


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8"))


def _sequence(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


class Attempts:
    """Counts failed attempts by address, in the memory of the server."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Seconds until the address may try again; 0 for now."""
        times = self._failures.get(address)
        if times is None:
            return 0
        now = time.monotonic()
        while times and now - times[0] > WINDOW:
            times.popleft()
        return int(WINDOW - (now - times[0])) + 1 if len(times) >= FAILURES else 0

    def failed(self, address: str) -> None:
        """Note a failed attempt."""
        times = self._failures.setdefault(address, deque(maxlen=FAILURES))
        times.append(time.monotonic())
        self._failures.move_to_end(address)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)
