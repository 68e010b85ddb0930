"""Templates, languages and static files: how a page becomes an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ..design import Design, Words
from .messages import DEFAULT, Language, choose_language

HERE = Path(__file__).resolve().parent
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LANGUAGE_COOKIE = "language"


class Rendering:
    """Renders templates in the reader's language; holds the static files in memory."""

    def __init__(self, languages: Mapping[str, Language]) -> None:
        self._languages = languages
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._static = {path.name: path.read_bytes() for path in (HERE / "static").iterdir()}
        self._versions = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._static.items()}

    def offered(self, design: Design) -> list[str]:
        """The languages of the study that the page speaks too; without one, the page is in English."""
        return [code for code in design.languages if code in self._languages] or [DEFAULT]

    def language(self, request: Request, design: Design) -> Language:
        """The reader's language."""
        wished = request.cookies.get(LANGUAGE_COOKIE)
        accepted = request.headers.get("accept-language", "")
        return self._languages[choose_language(self.offered(design), wished, accepted)]

    def page(
        self, request: Request, design: Design, template: str, status: int = 200, **values: Any
    ) -> Response:
        """A page. `values` go to the template, beside the language, the design and what all pages share."""
        language = self.language(request, design)
        shared = {
            "t": language,
            "words": lambda words: in_language(words, language.code),
            "design": design,
            "languages": [self._languages[code] for code in self.offered(design)],
            "static": lambda name: f"/static/{name}?v={self._versions[name]}",
            "visit": None,
            "csrf": "",
        }
        text = self._templates.get_template(template).render(shared | values)
        return HTMLResponse(text, status, headers={"vary": "Accept-Language, Cookie"})

    def message(
        self, request: Request, design: Design, key: str, title: str, status: int, **values: Any
    ) -> Response:
        """A page that says one thing; as JSON for our script, which shows it on the page that is there."""
        language = self.language(request, design)
        said = language(key, **values)
        if wants_json(request):
            return JSONResponse({"error": said}, status)
        facts = {"title": language(title), "said": said, "lost": status == 404}
        return self.page(request, design, "message.html", status, **facts)

    def static(self, name: str) -> Response | None:
        """A static file; None for a name that is none of ours."""
        data = self._static.get(name)
        if data is None:
            return None
        headers = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(data, media_type=TYPES[Path(name).suffix], headers=headers)


def wants_json(request: Request) -> bool:
    """Whether our script asks, and not the browser itself."""
    return request.headers.get("accept", "").startswith("application/json")


def in_language(words: Words, code: str) -> Markup:
    """A text of the design in a language; marked where only another one has it."""
    if code in words or not words:
        return escape(words.get(code, ""))
    other, text = next(iter(words.items()))
    return Markup('<span lang="{}">{}</span>').format(other, text)
