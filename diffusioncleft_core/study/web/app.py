"""The application: its addresses, and what is answered where a request can't be served."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .database import DatabaseAway
from .live import LiveStudy
from .messages import Language
from .pages import Pages, tell
from .rendering import Rendering
from .security import FormTooLarge, Guard
from .store import Store
from .visits import RequestRefused, SignedOut, StudyClosed, Visits


def create_app(
    root: Path,
    store: Store,
    languages: dict[str, Language],
    *,
    hosts: Iterable[str] = (),
    tls: bool = False,
) -> Guard:
    """The page of one study.

    Args:
        root: the study's folder.
        store: its database.
        languages: of the page, by code.
        hosts: names by which it may be asked for; none for any.
        tls: whether browsers reach it by https alone.
    """
    live = LiveStudy(root, store.signatures)
    rendering = Rendering(languages)
    visits = Visits(live, store, rendering, tls=tls)
    pages = Pages(live, store, rendering, visits)

    def static(request: Request) -> Response:
        found = rendering.static(request.path_params["file"])
        if found is None:
            raise HTTPException(404)
        return found

    def says(key: str, title: str, status: int) -> object:
        async def answer(request: Request, error: Exception) -> Response:
            if isinstance(error, DatabaseAway):
                tell(error)
            response = rendering.message(request, live.study.design, key, title, status)
            if isinstance(error, HTTPException) and error.headers:
                response.headers.update(error.headers)
            return response

        return answer

    async def signed_out(request: Request, _error: Exception) -> Response:
        is_rating = request.method == "POST" and request.url.path.startswith("/item/")
        key = "signed_out_answer" if is_rating else "link"
        return await run_in_threadpool(
            rendering.message, request, live.study.design, key, "link_title", 401 if is_rating else 403
        )

    routes = [
        Route("/", pages.overview),
        Route("/enter/{token}", visits.enter, methods=["GET"]),
        Route("/enter/{token}", visits.enter_instead, methods=["POST"]),
        Route("/leave", visits.leave, methods=["POST"]),
        Route("/language", visits.choose_language, methods=["POST"]),
        Route("/item/{name}", pages.show, methods=["GET"]),
        Route("/item/{name}", pages.rate, methods=["POST"]),
        Route("/picture/{name}", pages.picture),
        Route("/static/{file}", static),
    ]
    handlers = {
        DatabaseAway: says("away", "away_title", 503),
        SignedOut: signed_out,
        StudyClosed: says("closed", "closed_title", 410),
        RequestRefused: says("refused", "refused_title", 403),
        FormTooLarge: says("refused", "refused_title", 413),
        405: says("refused", "refused_title", 405),
        404: says("missing_page", "missing_title", 404),
        Exception: says("fault", "fault_title", 500),
    }
    app = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]
    return Guard(app, hosts, tls=tls)  # around all of it, answers to faults included
