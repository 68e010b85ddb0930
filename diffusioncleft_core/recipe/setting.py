"""How a recipe's fields are declared: what is known of each beside its type, and how a value is checked."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..ranges import SIDE, Range

Spelling = Callable[[str], str]
"""From a field's path (`optimizer.learning_rate`) to its name at a door (`--learning_rate`)."""


@dataclass(frozen=True)
class Setting:
    """What is known of a field, beside its type and default.

    location: a path, a device, or other words of this machine and its photographs; what it stands for counts
    by its content, and nothing that is shared holds it. tensors: the trained tensors always depend on it.
    """

    help: str
    range: Range | None = None
    choices: tuple[str, ...] = ()
    location: bool = False
    tensors: bool = False


def setting(
    default: Any,
    help: str,
    *,
    range: Range | None = None,
    choices: tuple[str, ...] = (),
    location: bool = False,
    tensors: bool = False,
) -> Any:
    """A dataclass field that is one of a recipe's."""
    return field(default=default, metadata={"setting": Setting(help, range, choices, location, tensors)})


@dataclass(frozen=True)
class Field:
    """One field of a recipe: `kind` is its type without None, `optional` whether None is a value."""

    group: str
    name: str
    kind: Any
    optional: bool
    default: Any
    setting: Setting

    @property
    def path(self) -> str:
        """Group and name, as in a recipe file."""
        return f"{self.group}.{self.name}"

    def check(self, value: Any, spelled: str) -> Any:
        """Return `value` in the field's type; UserError, by the name at the door, for what it can't be."""
        if value is None and self.optional:
            return None
        if self.setting.range is not None:
            return self.setting.range.check(value, spelled)
        if self.setting.choices:
            if value not in self.setting.choices:
                known = ", ".join(self.setting.choices)
                raise UserError(f"{spelled} {value!r} is unknown; choose one of: {known}")
            return value
        if typing.get_origin(self.kind) is tuple:
            return self._checked_tuple(value, spelled)
        if self.kind is Path and isinstance(value, str):
            return Path(value)
        if not isinstance(value, self.kind):
            raise UserError(f"{spelled} is {value!r}; give {_NOUNS[self.kind]}")
        return value

    def _checked_tuple(self, value: Any, spelled: str) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{spelled} is {value!r}; give a list")
        of = typing.get_args(self.kind)[0]
        if of is int:
            return tuple(sorted({SIDE.check(side, spelled) for side in value}))
        if of is not str:
            return tuple(value)
        if not all(isinstance(part, str) for part in value):
            raise UserError(f"{spelled} is {value!r}; give texts, as NAME=VALUE")
        return tuple(value)


_NOUNS = {bool: "true or false", str: "a text", Path: "a path"}


class Group:
    """A group of fields that holds only what each of them takes."""

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for entry in fields_of_group(kind):
            value = getattr(self, entry.name)
            object.__setattr__(self, entry.name, entry.check(value, entry.path))


@functools.cache
def fields_of_group(kind: Any) -> tuple[Field, ...]:
    """The fields of a group's dataclass; the group is called as the class, in lower case."""
    hints = typing.get_type_hints(kind)
    found = []
    for name, entry in kind.__dataclass_fields__.items():
        hint, optional = hints[name], False
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            optional = True
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        found.append(
            Field(kind.__name__.lower(), name, hint, optional, entry.default, entry.metadata["setting"])
        )
    return tuple(found)
