"""Who is asking: signing in by a personal link, sessions, signing out, and the reader's language."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from .live import LiveStudy
from .order import Queue
from .raters import Rater
from .rendering import LANGUAGE_COOKIE, Rendering
from .security import read_form
from .signin import RENEWED_AFTER, SESSION_SECONDS, Attempts, Session, same
from .store import Store

YEAR = 365 * 24 * 3600


class SignedOut(Exception):
    """The request comes from no rater: it has no session, or one that expired or whose link has ended."""


class StudyClosed(Exception):
    """The study takes no answers any more."""


class RequestRefused(Exception):
    """A form without the mark of its session."""


@dataclass(frozen=True)
class Visit:
    """A request of a signed-in rater, and the pictures in their order."""

    session: Session
    rater: Rater
    queue: Queue


class Visits:
    """Lets raters in, and knows who each request is from."""

    def __init__(self, live: LiveStudy, store: Store, rendering: Rendering, *, tls: bool) -> None:
        self._live, self._store, self._rendering = live, store, rendering
        self._signatures = store.signatures
        self._attempts = Attempts()
        self._tls = tls
        self._cookie = f"{'__Host-' if tls else ''}study_{self._signatures.derived('cookie').hex()[:8]}"

    def session(self, request: Request) -> Session:
        """The session of a request, by its signature alone. SignedOut where it has none."""
        session = self._signatures.read_session(request.cookies.get(self._cookie))
        if session is None:
            raise SignedOut
        return session

    def visit(self, request: Request) -> Visit:
        """The rater of a request, by the database. SignedOut and StudyClosed where it may not go on."""
        session = self.session(request)
        rater = self._store.rater(session.rater)
        if rater is None or not rater.token_hash.startswith(session.link):
            raise SignedOut
        if self._live.closed:
            raise StudyClosed
        return Visit(session, rater, self._live.queue(rater.id))

    def _sign_in(self, response: Response, rater: Rater, mark: str = "") -> None:
        response.set_cookie(
            self._cookie,
            self._signatures.session(rater.id, rater.token_hash, mark),
            max_age=SESSION_SECONDS,
            secure=self._tls,
            httponly=True,
            samesite="lax",
        )

    def page(
        self, request: Request, visit: Visit, template: str, status: int = 200, **values: Any
    ) -> Response:
        """A page for a signed-in rater; it puts off the end of the session."""
        values |= {"visit": visit, "csrf": self._signatures.csrf(visit.session)}
        response = self._rendering.page(request, self._live.study.design, template, status, **values)
        if visit.session.age > RENEWED_AFTER:
            self._sign_in(response, visit.rater, visit.session.mark)
        return response

    def check(self, session: Session, fields: Mapping[str, str]) -> None:
        """RequestRefused for a form that does not carry the mark of its session."""
        if not self.is_from(session, fields):
            raise RequestRefused

    def is_from(self, session: Session, fields: Mapping[str, str]) -> bool:
        """Whether a form carries the mark of its session."""
        return same(fields.get("csrf", ""), self._signatures.csrf(session))

    def enter(self, request: Request) -> Response:
        """A personal link is opened."""
        return self._enter(request, None)

    async def enter_instead(self, request: Request) -> Response:
        """A personal link is opened where someone else was signed in, and that was asked for."""
        return await run_in_threadpool(self._enter, request, await read_form(request))

    def _enter(self, request: Request, fields: Mapping[str, str] | None) -> Response:
        address = request.client.host if request.client else ""
        design = self._live.study.design
        rater = self._store.by_token(request.path_params["token"])
        if rater is None:
            wait = self._attempts.wait(address)  # for wrong links alone: a clinic has one address
            if wait:
                minutes = math.ceil(wait / 60)
                page = self._rendering.message(
                    request, design, "limited", "limited_title", 429, minutes=minutes
                )
                page.headers["retry-after"] = str(wait)
                return page
            self._attempts.failed(address)
            return self._rendering.message(request, design, "link", "link_title", 403)
        try:
            visit = self.visit(request)
        except (SignedOut, StudyClosed):
            visit = None
        if visit is not None and visit.rater.id != rater.id:
            if fields is None:
                return self.page(request, visit, "switch.html", token=request.path_params["token"])
            self.check(visit.session, fields)
        response = RedirectResponse("/", 303)
        self._sign_in(response, rater)
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        session, fields = self.session(request), await read_form(request)
        self.check(session, fields)
        design = self._live.study.design
        page = self._rendering.message(request, design, "signed_out", "signed_out_title", 200)
        page.delete_cookie(self._cookie, secure=self._tls, httponly=True, samesite="lax")
        return page

    async def choose_language(self, request: Request) -> Response:
        """Keep the reader's language in their browser, and go back to the overview."""
        session, fields = self.session(request), await read_form(request)
        self.check(session, fields)
        response = RedirectResponse("/", 303)
        chosen = fields.get("language", "")
        if chosen in self._rendering.offered(self._live.study.design):
            response.set_cookie(
                LANGUAGE_COOKIE, chosen, max_age=YEAR, secure=self._tls, httponly=True, samesite="lax"
            )
        return response
