"""What was asked: as the design says, or as the answers of a table made elsewhere tell."""

from __future__ import annotations

from ...errors import UserError
from ..design import CHOICE, POINT, ROLES, SCALE, TEXT, Design, Question
from ..ratings import RatingTable

LIKERT = (Question.low, Question.high)
"""The scale of whole numbers of which nothing is said."""


def questions_of(table: RatingTable, design: Design | None) -> list[Question]:
    """The design's questions, or what the answers themselves tell: whole numbers are a scale from 1 to 5.

    Raises:
        UserError: an answer is none to its question.
    """
    if design is not None:
        known = {question.name: question for question in design.questions}
        for name, value, place in zip(table.question, table.value, table.place, strict=True):
            if name not in known:
                raise UserError(
                    f"{place} answers {name!r}, which the design does not ask; it asks: {', '.join(known)}"
                )
            try:
                known[name].check(value)
            except UserError as error:
                raise UserError(f"{place}: {error}") from None
        return list(design.questions)
    return [_guessed(name, table.where(table.question == name)) for name in table.questions]


def _guessed(name: str, table: RatingTable) -> Question:
    text = {"en": name.replace("_", " ").capitalize()}
    kinds = {type(value) for value in table.value}
    if kinds == {int}:
        low, high = LIKERT
        for value, place in zip(table.value, table.place, strict=True):
            if not low <= value <= high:
                raise UserError(
                    f"{place}: {name} is {value}, and the scale is taken to be {low} to {high}; give the "
                    "design with --design"
                )
        return Question(name, text, SCALE, low, high)
    if kinds == {list}:
        return Question(name, text, POINT)
    if kinds == {str} and set(table.value) <= set(ROLES):
        return Question(name, text, CHOICE, choices={role: {"en": role} for role in ROLES})
    return Question(name, text, TEXT)
