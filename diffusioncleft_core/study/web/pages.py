"""The pages that a rater sees, and what each of their forms does."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...files import shown
from ..design import POINT, Design, Question, words_in
from ..items import Item
from ..ratings import Value
from .answers import CELLS, Filled, cells, read_answers, written
from .database import DatabaseAway
from .live import LiveStudy
from .order import Queue
from .raters import Rater
from .rendering import Rendering, wants_json
from .security import read_form
from .signin import Form
from .store import AnsweredSince, RaterGone, Store
from .visits import RequestRefused, SignedOut, Visit, Visits

SECONDS_A_QUESTION = 10
"""Guessed until a rater's own pace is known."""


@dataclass(frozen=True)
class Progress:
    """How far a rater is: pictures that count, and the time that the others may take."""

    done: int
    count: int
    minutes: int


class Pages:
    """The overview, the pages of pictures with their forms, and the pictures."""

    def __init__(self, live: LiveStudy, store: Store, rendering: Rendering, visits: Visits) -> None:
        self._live, self._store, self._rendering, self._visits = live, store, rendering, visits
        self._signatures = store.signatures

    def overview(self, request: Request) -> Response:
        """Where the rater stands: what is asked, how far they are, and on to the next picture."""
        visit = self._visits.visit(request)
        answered = self._store.answered(visit.rater.id)
        following = _first_open(visit.queue, answered)
        items = visit.queue.items
        practice = [item for item in items if item.practice]
        return self._visits.page(
            request,
            visit,
            "overview.html",
            progress=self._progress(visit, answered),
            practice=len(practice),
            practised=bool(practice) and all(item.id in answered for item in practice),
            begun=any(item.id in answered for item in items),
            following=None if following is None else visit.queue.name(following),
            in_practice=following is not None and following.practice,
            given=[
                (place + 1 - len(practice), visit.queue.name(item))
                for place, item in enumerate(items)
                if not item.practice and item.id in answered
            ],
        )

    def show(self, request: Request) -> Response:
        """One picture and its questions, with the answers that the rater gave before."""
        visit = self._visits.visit(request)
        item = self._item(visit.queue, request)
        answered = self._store.answered(visit.rater.id)
        before = answered.get(item.id)
        return self._item_page(request, visit, item, Filled(dict(before or {})), answered)

    async def rate(self, request: Request) -> Response:
        """Keep the answers of a form. Whatever comes between, they stay on the rater's page."""
        return await run_in_threadpool(self._rate, request, await read_form(request))

    def _rate(self, request: Request, fields: Mapping[str, str]) -> Response:
        session = self._visits.session(request)
        form = self._signatures.read_form(fields.get("form", ""))
        queue = self._live.queue(session.rater)
        item = self._item(queue, request)
        design = self._live.study.design
        filled = read_answers(design, fields)
        if form is None or (form.rater, form.item) != (session.rater, item.id):
            raise RequestRefused
        try:
            visit = self._visits.visit(request)
            if not self._visits.is_from(session, fields):
                return self._kept(request, visit, item, filled, form, "send_again", 403)
            if not filled.complete:
                return self._kept(request, visit, item, filled, form, None, 422)
            self._store.save(session.rater, item.id, form.mark, filled.answers, form.seconds)
            answered = self._store.answered(session.rater)
        except RaterGone:
            raise SignedOut from None
        except AnsweredSince as error:
            return self._kept(request, visit, item, filled, form, "answered_since", 409, error.answers)
        except DatabaseAway as error:
            tell(error)
            unproven = Visit(session, Rater(session.rater, "", session.link, "", None), queue)
            return self._kept(request, unproven, item, filled, form, "not_saved", 503)
        following = _first_open(queue, answered)
        is_next = following is not None and (following.practice or not item.practice)
        url = f"/item/{queue.name(following)}" if following is not None and is_next else "/"
        return JSONResponse({"next": url}) if wants_json(request) else RedirectResponse(url, 303)

    def _kept(
        self,
        request: Request,
        visit: Visit,
        item: Item,
        filled: Filled,
        form: Form,
        key: str | None,
        status: int,
        stored: Mapping[str, Value] | None = None,
    ) -> Response:
        """The rater's page with what they filled in, why it is not kept yet, and what is `stored` instead."""
        design = self._live.study.design
        language = self._rendering.language(request, design)
        said = [language(key, answers=_told(design, stored or {}, language.code))] if key else []
        for name, questions in (("missing", filled.missing), ("wrong_answer", filled.wrong)):
            if questions and not key:
                texts = "; ".join(words_in(one.text, language.code) for one in questions)
                said.append(language(name, questions=texts))
        if wants_json(request):
            fresh = {"csrf": self._signatures.csrf(visit.session)}
            if stored is not None:
                fresh["form"] = self._signatures.form(visit.rater.id, item.id, form.at)
            return JSONResponse({"error": " ".join(said), **fresh}, status)
        return self._item_page(request, visit, item, filled, None, said=said, started=form.at, status=status)

    def _item_page(
        self,
        request: Request,
        visit: Visit,
        item: Item,
        filled: Filled,
        answered: Mapping[str, Any] | None,
        *,
        said: list[str] | None = None,
        started: float | None = None,
        status: int = 200,
    ) -> Response:
        """The page of one picture. `answered` None: how far the rater is can't be said at the moment."""
        queue, items = visit.queue, visit.queue.items
        place = items.index(item)
        among = [one for one in items if one.practice == item.practice]
        is_answered = answered is not None and item.id in answered
        following = items[place + 1] if is_answered and place + 1 < len(items) else None
        questions = [_asked(one, filled) for one in self._live.study.design.questions]
        first = next((one for one in questions if one["wrong"]), None)
        first = first or next((one for one in questions if one["value"] is None), questions[0])
        first["focus"] = True
        return self._visits.page(
            request,
            visit,
            "item.html",
            status,
            name=queue.name(item),
            item=item,
            place=among.index(item) + 1,
            among=len(among),
            progress=None if answered is None else self._progress(visit, answered),
            questions=questions,
            form=self._signatures.form(visit.rater.id, item.id, started),
            said=said or [],
            is_answered=is_answered,
            back=queue.name(items[place - 1]) if place else None,
            forward=None if following is None else queue.name(following),
            grid=CELLS,
        )

    def picture(self, request: Request) -> Response:
        """A picture of the rater's own queue. Nothing is told of its file: neither its name nor its date."""
        visit = self._visits.visit(request)
        item = self._item(visit.queue, request)
        try:
            data = self._live.study.image(item.id).read_bytes()
        except FileNotFoundError:
            raise HTTPException(404) from None
        return Response(data, media_type="image/png")

    def _item(self, queue: Queue, request: Request) -> Item:
        place = queue.by_name.get(request.path_params["name"])
        if place is None:
            raise HTTPException(404)
        return queue.items[place]

    def _progress(self, visit: Visit, answered: Mapping[str, Any]) -> Progress:
        counted = [item for item in visit.queue.items if not item.practice]
        done = sum(item.id in answered for item in counted)
        asked = sum(question.required for question in self._live.study.design.questions) or 1
        pace = self._store.pace(visit.rater.id) or SECONDS_A_QUESTION * asked
        return Progress(done, len(counted), math.ceil(pace * (len(counted) - done) / 60))


def _first_open(queue: Queue, answered: Mapping[str, Any]) -> Item | None:
    return next((item for item in queue.items if item.id not in answered), None)


def _asked(question: Question, filled: Filled) -> dict[str, Any]:
    """A question as its template wants it."""
    value: Value | None = filled.answers.get(question.name)
    return {
        "question": question,
        "value": value,
        "cells": cells(value) if question.kind == POINT else [],
        "wrong": question in filled.missing or question in filled.wrong,
        "focus": False,
    }


def _told(design: Design, answers: Mapping[str, Value], language: str) -> str:
    """Answers as a rater reads them: `How real ...? 4; ...`."""
    said = []
    for question in design.questions:
        if question.name in answers:
            value = written(answers[question.name])
            value = words_in(question.choices[value], language) if value in question.choices else value
            said.append(f"{words_in(question.text, language)} {value}")
    return "; ".join(said)


def tell(error: DatabaseAway) -> None:
    """One line for whoever runs the server."""
    print(f"the database is away; what was answered stays on its page: {shown(error)}", file=sys.stderr)
