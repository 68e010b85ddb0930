"""The design of a study: what is asked, of which pictures, and what is decided before the data are there.

The questions are data: another question is another table of its file (`design_file`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..ranges import number, whole

SCALE, CHOICE, TEXT, POINT = KINDS = ("scale", "choice", "text", "point")
GENERATED, REAL = ROLES = ("generated", "real")
"""What the pictures of a set are."""
MARGIN = number(0, 100, above=True)
FROM_FILE = "as the design file has it; whether before the data is not known here"
FROM_STUDY = "the design, stated before the data"
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,39}")
IDENTIFIER_FORM = "give up to 40 lower-case letters, digits and _, a letter first"

Words = Mapping[str, str]
"""A text by language; at least one."""


@dataclass(frozen=True)
class Question:
    """One question on a picture.

    Attributes:
        name: identifier, as it stands in the tables of results.
        text: what is asked, by language.
        kind: `scale` (a whole number from `low` to `high`), `choice`, `text`, or `point` (a click on the
            picture).
        anchors: the words that define points of a scale, by point and language.
        choices: the values of a choice in order, with their words.
        required: whether a picture is rated only when it is answered.
    """

    name: str
    text: Words
    kind: str
    low: int = 1
    high: int = 5
    anchors: Mapping[int, Words] = field(default_factory=dict)
    choices: Mapping[str, Words] = field(default_factory=dict)
    required: bool = True

    @property
    def values(self) -> tuple[int, ...] | tuple[str, ...]:
        """The answers of a scale or choice in order; none for a text or a point."""
        if self.kind == SCALE:
            return tuple(range(self.low, self.high + 1))
        return tuple(self.choices)

    @property
    def asks_role(self) -> bool:
        """Whether it asks what the picture is: a choice between `real` and `generated`."""
        return self.kind == CHOICE and set(self.choices) == set(ROLES)

    def check(self, value: Any) -> Any:
        """Return an answer in its own form (int, text, or [x, y] as shares of width and height).

        Raises:
            UserError: it is no answer to this question.
        """
        if self.kind == SCALE:
            return whole(self.low, self.high).check(value, self.name)
        if self.kind == POINT:
            share = number(0, 1)
            pair = list(value) if isinstance(value, (list, tuple)) else []
            if len(pair) != 2 or not all(map(share.holds, pair)):
                raise UserError(f"{self.name} is {value!r}; give two numbers from 0 to 1")
            return [float(part) for part in pair]
        if not isinstance(value, str):
            raise UserError(f"{self.name} is {value!r}; give a text")
        if self.kind == CHOICE and value not in self.choices:
            raise UserError(f"{self.name} is {value!r}; give one of {', '.join(self.choices)}")
        return value


@dataclass(frozen=True)
class SetDesign:
    """How many pictures of an origin are shown, what they are, and whether phantoms stand for people."""

    origin: str
    n: int
    role: str
    phantom: bool = False


@dataclass(frozen=True)
class Design:
    """A whole study.

    Attributes:
        name: identifier.
        title: by language, as is the `introduction` that a rater reads first.
        conditions: of which equal shares are drawn; empty takes what is there.
        seed: decides what is drawn and in which order it is shown.
        repeats: how many pictures are shown a second time.
        practice: how many pictures come first and don't count.
        margin: of equivalence, in points of the scale; stated before the data.
        margin_from: in words, where the margin is from: of a study, whether it stood there before the data.
        side: px, at most, of the square in which every picture is shown.
        languages: of all its texts, the first for a reader of another.
    """

    name: str
    title: Words
    questions: tuple[Question, ...]
    sets: tuple[SetDesign, ...]
    introduction: Words = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    seed: int = 0
    repeats: int = 0
    practice: int = 2
    margin: float = 0.5
    side: int = 768
    languages: tuple[str, ...] = ("en",)
    margin_from: str = field(default=FROM_FILE, compare=False)

    def __post_init__(self) -> None:
        for question in self.questions:
            if question.kind == SCALE and self.margin >= question.high - question.low:
                raise UserError(
                    f"a margin of {self.margin:g} holds whatever raters answer on {question.name}, from "
                    f"{question.low} to {question.high}; give a smaller one, such as 0.5"
                )

    def question(self, name: str) -> Question:
        """The question of that name. UserError where there is none."""
        for question in self.questions:
            if question.name == name:
                return question
        known = ", ".join(question.name for question in self.questions)
        raise UserError(f"the study has no question {name!r}; it has: {known}")

    def set(self, origin: str) -> SetDesign:
        """The set of that origin. UserError where there is none."""
        for item in self.sets:
            if item.origin == origin:
                return item
        known = ", ".join(item.origin for item in self.sets)
        raise UserError(f"the study has no set {origin!r}; it has: {known}")

    @property
    def roles(self) -> dict[str, str]:
        """`generated` or `real`, by origin."""
        return {item.origin: item.role for item in self.sets}

    @property
    def of_phantoms(self) -> bool:
        """Whether phantoms stand for people in it: in all real sets; without one, in any."""
        real = [item.phantom for item in self.sets if item.role == REAL]
        return all(real) if real else any(item.phantom for item in self.sets)


def words_in(words: Words, language: str) -> str:
    """The text in a language, else in the first it has; "" for no text."""
    return words.get(language) or next(iter(words.values()), "")


def usual_role(origin: str) -> str:
    """What pictures of an origin are where nothing says so."""
    return REAL if origin == REAL else GENERATED


def check_origin(name: str) -> str:
    """Return the name of a set; UserError for one that can't be."""
    if not IDENTIFIER.fullmatch(name):
        raise UserError(f"a set can't be called {name!r}: {IDENTIFIER_FORM}")
    return name
