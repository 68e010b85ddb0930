"""One TOML table, read with its types and with mistakes that name file and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError
from .grammar import Template, check_template


class Table:
    """One TOML table: typed reading, and mistakes reported with file and place."""

    def __init__(self, content: Mapping[str, Any], file: str, place: str = "") -> None:
        self.content, self.file, self.place = content, file, place

    def fail(self, message: str) -> UserError:
        where = f"{self.file}, [{self.place}]" if self.place else self.file
        return UserError(f"{where}: {message}")

    def only(self, *known: str) -> None:
        for key in self.content:
            if key not in known:
                raise self.fail(f"unknown key {key!r}; allowed: {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise self.fail(f"{key} must be a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(f"{key} must be true or false")
        return value

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        value = self.content.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
            raise self.fail(f"{key} must be a list of texts")
        if len(set(value)) != len(value):
            raise self.fail(f"{key} names something twice")
        return tuple(value)

    def table(self, key: str) -> Table:
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"{key} must be a table")
        return Table(value, self.file, f"{self.place}.{key}".lstrip("."))

    def tables(self, key: str) -> dict[str, Table]:
        parent = self.table(key)
        return {name: parent.table(name) for name in parent.content}

    def text_map(self, key: str) -> dict[str, str]:
        table = self.table(key)
        return {name: table.text(name, "") for name in table.content}

    def allowed_map(self, key: str) -> dict[str, tuple[str, ...]]:
        table = self.table(key)
        return {name: table.texts(name) for name in table.content}

    def template(self, key: str) -> str:
        return self._checked(key, self.text(key))

    def templates(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        return tuple(self._checked(key, item) for item in self.texts(key, default))

    def list_of_tables(self, key: str) -> list[Table]:
        entries = self.content.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self.fail(f"{key} must be written as [[...{key}]] tables")
        place = f"{self.place}.{key}".lstrip(".")
        return [
            Table(entry, self.file, f"{place}, number {count}")
            for count, entry in enumerate(entries, start=1)
        ]

    def phrases(self, key: str) -> dict[str, Template]:
        table = self.table(key)
        return {
            name: table.template(name) if isinstance(value, str) else table.templates(name)
            for name, value in table.content.items()
        }

    def _checked(self, key: str, template: str) -> str:
        problem = check_template(template)
        if problem:
            raise self.fail(f"{key} {problem}: {template!r}")
        return template
