"""What the page says, by language: files that come with the program, and files that a study brings."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...text import parse_toml, read_text

FOLDER = "messages"
"""Of a study, beside its design."""
DEFAULT = "en"
_OWN = Path(__file__).resolve().parent / "messages"


@dataclass(frozen=True)
class Language:
    """One language of the page. Called with the name of a text and what is filled in, it gives the text."""

    code: str
    name: str
    direction: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        return self.texts[key].format(**values)


def load_languages(study: Path) -> tuple[dict[str, Language], list[str]]:
    """All languages by code, those in the study's folder taking precedence, and what they lack, in words.

    What a study's file does not say is said in English.

    Raises:
        UserError: a file has a text that is not known, or fills in what is not there.
    """
    found = {path.stem: _read(path, None) for path in sorted(_OWN.glob("*.toml"))}
    english = found[DEFAULT]
    notices = []
    for path in sorted((study / FOLDER).glob("*.toml")):
        language = _read(path, english)
        missing = [key for key in english.texts if key not in language.texts]
        if missing:
            notices.append(f"{path} lacks {', '.join(missing)}: English stands there")
        texts = {**english.texts, **language.texts}
        found[path.stem] = Language(language.code, language.name, language.direction, texts)
    return found, notices


def choose_language(offered: Sequence[str], wished: str | None, accepted: str) -> str:
    """The language of a page.

    Args:
        offered: codes, the first for whoever reads none of them.
        wished: what the rater chose before.
        accepted: the browser's Accept-Language.
    """
    if wished in offered:
        return str(wished)
    ranked = []
    for place, part in enumerate(accepted[:500].split(",")):
        code, _, rest = part.strip().partition(";")
        quality = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)", rest)
        ranked.append((-float(quality[1]) if quality else -1.0, place, code.lower()))
    for quality_, _, code in sorted(ranked):
        for candidate in offered:
            if quality_ and code.split("-")[0] == candidate.lower().split("-")[0]:
                return candidate
    return offered[0]


def _read(path: Path, english: Language | None) -> Language:
    table = parse_toml(read_text(path, "the messages"), path)
    texts = table.get("texts")
    name, direction = table.get("language"), table.get("direction", "ltr")
    if not isinstance(texts, dict) or not isinstance(name, str) or direction not in ("ltr", "rtl"):
        raise UserError(
            f"{path} needs language (its name), direction (ltr or rtl) and a table [texts]; "
            f"copy {_OWN / 'en.toml'} and translate it"
        )
    for key, text in texts.items():
        known = None if english is None else english.texts.get(key)
        if english is not None and known is None:
            raise UserError(f"{path} has the text {key!r}, which the page does not say; take it out")
        if not isinstance(text, str) or (known is not None and not _fields(text) <= _fields(known)):
            allowed = ", ".join(f"{{{field}}}" for field in sorted(_fields(known or ""))) or "nothing"
            raise UserError(f"{path}: {key} is no text, or fills in what is not there; it may use {allowed}")
    return Language(path.stem, name, direction, texts)


def _fields(text: Any) -> set[str]:
    """Names in braces; a broken brace counts as a name that nothing has."""
    try:
        parts = string.Formatter().parse(text)
        return {f"{name}{form}{conversion or ''}" for _, name, form, conversion in parts if name is not None}
    except ValueError:
        return {"?"}
