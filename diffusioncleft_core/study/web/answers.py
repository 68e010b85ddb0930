"""A form's fields as answers to the questions of a study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError
from ..design import POINT, SCALE, TEXT, Design, Question
from ..ratings import Value
from ..ratings_file import read_point

LONGEST_TEXT = 2000
_WHOLE = re.compile(r"-?[0-9]{1,5}")
"""ASCII digits alone; int() takes those of every script, signs and underscores."""
CELLS = 10
"""Rows and columns in which a place of the picture is chosen where no script runs."""


@dataclass
class Filled:
    """What a rater filled in.

    Attributes:
        answers: by question; what was left out is not there.
        missing: questions that need an answer and have none.
        wrong: questions whose answer is none of theirs.
    """

    answers: dict[str, Value] = field(default_factory=dict)
    missing: list[Question] = field(default_factory=list)
    wrong: list[Question] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.missing and not self.wrong


def read_answers(design: Design, fields: Mapping[str, str]) -> Filled:
    """The answers in a form's fields, whose names are `answer.` and the question's."""
    filled = Filled()
    for question in design.questions:
        text = _cleaned(fields.get(f"answer.{question.name}", ""))
        if not text:
            if question.required:
                filled.missing.append(question)
            continue
        try:
            filled.answers[question.name] = question.check(_parsed(question, text))
        except UserError:
            filled.wrong.append(question)
    return filled


def _parsed(question: Question, text: str) -> Any:
    if question.kind == SCALE:
        return int(text) if _WHOLE.fullmatch(text) else text
    if question.kind == POINT:
        return [round(part, 4) for part in read_point(text) or []]
    return text[:LONGEST_TEXT].strip() if question.kind == TEXT else text


def _cleaned(text: str) -> str:
    """Without signs that nobody sees, and without space around it."""
    lines = text.replace("\r\n", "\n")
    return "".join(sign for sign in lines if sign.isprintable() or sign == "\n").strip()


def written(value: Value) -> str:
    """An answer as a form's field holds it."""
    return " ".join(f"{part:.4f}" for part in value) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Cell:
    """A cell of the picture's grid: its place, its value as a field, and whether it is chosen."""

    row: int
    column: int
    value: str
    chosen: bool


def cells(value: Value | None) -> list[Cell]:
    """The grid, row by row; the cell that holds the chosen place keeps its exact value."""
    chosen = None
    if isinstance(value, list):
        x, y = (min(int(part * CELLS), CELLS - 1) for part in value)
        chosen = (y, x)
    found = []
    for row in range(CELLS):
        for column in range(CELLS):
            is_chosen = (row, column) == chosen
            middle: Value = [(column + 0.5) / CELLS, (row + 0.5) / CELLS]
            exact = value if is_chosen and value is not None else middle
            found.append(Cell(row + 1, column + 1, written(exact), is_chosen))
    return found
