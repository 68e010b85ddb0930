"""The design of a study as a TOML file: those that come with the program, reading and writing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..ranges import COUNT, NONE_OR_MORE, SEED, Range, whole
from ..text import parse_toml, read_text
from .design import (
    CHOICE,
    IDENTIFIER,
    IDENTIFIER_FORM,
    KINDS,
    MARGIN,
    POINT,
    ROLES,
    SCALE,
    Design,
    Question,
    SetDesign,
    Words,
    usual_role,
)

SCHEMA = 1
DESIGNS = ("paper", "paper_plus")
"""The designs that come with the program."""
POINTS = whole(-100, 100)
"""Ends of a scale."""
SIDE = whole(64, 4096)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")


def load_design(name: str | Path) -> Design:
    """A design that comes with the program, by name, or one from a TOML file.

    Raises:
        UserError: there is no such file, or it is no design; the sentence says where and what to do.
    """
    own = Path(__file__).parent / "designs" / f"{name}.toml"
    path = own if str(name) in DESIGNS else Path(name)
    if path is not own and path.is_dir():
        raise UserError(f"{path} is a folder; give a TOML file as the design, or one of {', '.join(DESIGNS)}")
    if path is not own and not path.is_file():
        raise UserError(f"there is no design {str(name)!r}; give a TOML file, or one of {', '.join(DESIGNS)}")
    return parse_design(read_text(path, "the design"), str(name) if path is own else str(path))


def parse_design(text: str, where: str) -> Design:
    """A design from its TOML text; `where` names it in an error's sentence."""
    return _Reader(where).design(parse_toml(text, where))


def written_design(design: Design) -> str:
    """The design as TOML, which `parse_design` reads back to the same."""
    lines = [f"schema = {SCHEMA}", f"name = {_toml(design.name)}"]
    for name in ("languages", "conditions"):
        lines.append(f"{name} = {_toml(list(getattr(design, name)))}")
    for name in ("seed", "repeats", "practice", "margin", "side"):
        lines.append(f"{name} = {_toml(getattr(design, name))}")
    for name, words in (("title", design.title), ("introduction", design.introduction)):
        if words:
            lines += ["", f"[{name}]", *_word_lines("", words)]
    for item in design.sets:
        lines += ["", f"[sets.{item.origin}]", f"n = {item.n}", f"role = {_toml(item.role)}"]
        lines.append(f"phantom = {_toml(item.phantom)}")
    for question in design.questions:
        lines += ["", f"[questions.{question.name}]", f"kind = {_toml(question.kind)}"]
        if question.kind == SCALE:
            lines += [f"low = {question.low}", f"high = {question.high}"]
        lines += [f"required = {_toml(question.required)}", *_word_lines("text.", question.text)]
        for point, words in question.anchors.items():
            lines += _word_lines(f"anchors.{point}.", words)
        for value, words in question.choices.items():
            lines += _word_lines(f"choices.{value}.", words)
    return "\n".join(lines) + "\n"


def _word_lines(prefix: str, words: Words) -> list[str]:
    return [f"{prefix}{language} = {_toml(text)}" for language, text in words.items()]


def _toml(value: Any) -> str:
    """A value of TOML: JSON's texts, numbers and truth values are TOML's too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class _Reader:
    """Reads the tables of a design, and says of each mistake where it stands."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._languages: tuple[str, ...] = ()

    def design(self, table: dict[str, Any]) -> Design:
        known = ("schema", "name", "title", "introduction", "languages", "conditions", "seed", "repeats")
        self._only(table, (*known, "practice", "margin", "side", "sets", "questions"), "the file")
        if table.get("schema", SCHEMA) != SCHEMA:
            raise self._error(f"its schema is {table['schema']!r} and this version reads {SCHEMA}")
        self._languages = self._texts(table.get("languages", ["en"]), "languages", _LANGUAGE)
        if not self._languages:
            raise self._error("languages is empty; name one at least, such as 'en'")
        sets = self._table(table, "sets")
        questions = self._table(table, "questions")
        if not sets or not questions:
            raise self._error(f"it has no {'sets' if not sets else 'questions'}; give one at least")
        points = [
            name for name, item in questions.items() if isinstance(item, dict) and item.get("kind") == POINT
        ]
        if len(points) > 1:
            raise self._error(f"questions.{points[1]} is a second point: a click on the picture answers one")
        default = Design("", {}, (), ())
        first = table.get("introduction")
        return Design(
            name=self._identifier(table.get("name"), "name"),
            title=self._words(table.get("title"), "title"),
            introduction={} if first is None else self._words(first, "introduction"),
            questions=tuple(self._question(name, item) for name, item in questions.items()),
            sets=tuple(self._set(name, item) for name, item in sets.items()),
            conditions=self._texts(table.get("conditions", []), "conditions", IDENTIFIER),
            seed=self._number(table, "seed", SEED, default.seed),
            repeats=self._number(table, "repeats", NONE_OR_MORE, default.repeats),
            practice=self._number(table, "practice", NONE_OR_MORE, default.practice),
            margin=self._number(table, "margin", MARGIN, default.margin),
            side=self._number(table, "side", SIDE, default.side),
            languages=self._languages,
        )

    def _set(self, origin: str, table: Any) -> SetDesign:
        place = f"sets.{self._identifier(origin, f'sets.{origin}')}"
        if not isinstance(table, dict):
            raise self._error(f"{place} is no table")
        self._only(table, ("n", "role", "phantom"), place)
        role = table.get("role", usual_role(origin))
        if role not in ROLES:
            raise self._error(f"{place}.role is {role!r}; give {' or '.join(ROLES)}")
        phantom = table.get("phantom", False)
        if not isinstance(phantom, bool):
            raise self._error(f"{place}.phantom is {phantom!r}; give true or false")
        return SetDesign(origin, self._number(table, "n", COUNT, None, place), role, phantom)

    def _question(self, name: str, table: Any) -> Question:
        place = f"questions.{self._identifier(name, f'questions.{name}')}"
        if not isinstance(table, dict):
            raise self._error(f"{place} is no table")
        kind = table.get("kind")
        if kind not in KINDS:
            raise self._error(f"{place}.kind is {kind!r}; give one of {', '.join(KINDS)}")
        own = {SCALE: ("low", "high", "anchors"), CHOICE: ("choices",)}.get(kind, ())
        self._only(table, ("text", "kind", "required", *own), place)
        required = table.get("required", kind in (SCALE, CHOICE))
        if not isinstance(required, bool):
            raise self._error(f"{place}.required is {required!r}; give true or false")
        low = self._number(table, "low", POINTS, 1, place)
        high = self._number(table, "high", POINTS, 5, place)
        if not low < high <= low + 100:
            raise self._error(f"{place} runs from {low} to {high}; give low below high, 101 points at most")
        return Question(
            name,
            self._words(table.get("text"), f"{place}.text"),
            kind,
            low,
            high,
            self._anchors(table, low, high, place) if kind == SCALE else {},
            self._choices(table, place) if kind == CHOICE else {},
            required,
        )

    def _anchors(self, table: dict[str, Any], low: int, high: int, place: str) -> dict[int, Words]:
        found = {}
        for point, words in self._table(table, "anchors", place).items():
            if not re.fullmatch(r"-?\d{1,3}", point) or not low <= int(point) <= high:
                raise self._error(f"{place}.anchors.{point} is no point from {low} to {high}")
            found[int(point)] = self._words(words, f"{place}.anchors.{point}")
        missing = [end for end in (low, high) if end not in found]
        if missing:
            raise self._error(
                f"{place}.anchors lacks {' and '.join(map(str, missing))}; say what both ends mean"
            )
        return dict(sorted(found.items()))

    def _choices(self, table: dict[str, Any], place: str) -> dict[str, Words]:
        found = {
            self._identifier(value, f"{place}.choices.{value}"): self._words(
                words, f"{place}.choices.{value}"
            )
            for value, words in self._table(table, "choices", place).items()
        }
        if len(found) < 2:
            raise self._error(f"{place}.choices has {len(found)} values; give two at least")
        return found

    def _words(self, value: Any, place: str) -> Words:
        """A text by language. A plain text stands in the first language."""
        words = {self._languages[0]: value} if isinstance(value, str) else value
        if not isinstance(words, dict) or not all(isinstance(text, str) for text in words.values()):
            raise self._error(f"{place} is {'missing' if value is None else 'no text'}; write what is shown")
        cleaned = {language: " ".join(text.split()) for language, text in words.items()}
        foreign = sorted(set(cleaned) - set(self._languages))
        if foreign:
            raise self._error(f"{place} has the language {foreign[0]!r}, which languages does not name")
        missing = [language for language in self._languages if not cleaned.get(language)]
        if missing:
            raise self._error(
                f"{place} says nothing in {missing[0]!r}; write it, or leave it out of languages"
            )
        return {language: cleaned[language] for language in self._languages}

    def _identifier(self, value: Any, place: str) -> str:
        if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
            raise self._error(f"{place} is {value!r}; {IDENTIFIER_FORM}")
        return value

    def _texts(self, value: Any, place: str, form: re.Pattern[str]) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(
            isinstance(item, str) and form.fullmatch(item) for item in value
        ):
            raise self._error(f"{place} is {value!r}; give a list of names")
        if len(set(value)) < len(value):
            raise self._error(f"{place} names one twice; keep one")
        return tuple(value)

    def _number(self, table: dict[str, Any], name: str, allowed: Range, default: Any, place: str = "") -> Any:
        value = table.get(name, default)
        label = f"{place}.{name}" if place else name
        if value is None:
            raise self._error(f"{label} is missing; give {allowed}")
        return allowed.check(value, f"{self._where}: {label}")

    def _table(self, table: dict[str, Any], name: str, place: str = "") -> dict[str, Any]:
        found = table.get(name, {})
        if not isinstance(found, dict):
            raise self._error(f"{f'{place}.' if place else ''}{name} is no table")
        return found

    def _only(self, table: dict[str, Any], known: tuple[str, ...], place: str) -> None:
        foreign = [name for name in table if name not in known]
        if foreign:
            raise self._error(f"{place} has the key {foreign[0]!r}; known are {', '.join(known)}")

    def _error(self, fact: str) -> UserError:
        return UserError(f"{self._where}: {fact}")
