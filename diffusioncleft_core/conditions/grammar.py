"""The small template language in which a vocabulary file writes its sentences.

A template is text with
  `{name}`              the words of an attribute, a metadata column or a phrase;
  `{a}`                 "a" or "an", as the next word asks;
  `[text {name}]`       an optional part: left out when a name in it has no words;
  `[key=x|y,k=z? text]` a part that stands only when `key` is x or y and `k` is z; `key=?` is no value.
A template in which a name outside optional parts has no words says nothing and is left out as a whole.
A list of templates is joined as a list is in English: "x", "x and y", "x, y and z".
Parentheses are refused: ComfyUI reads them as emphasis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

Template = str | Sequence[str]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PART = re.compile(r"\[(?:([\w=|, -]+)\? ?)?([^\[\]]*)\]")
_ARTICLE = "\x00"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# English words that begin with a vowel letter but a consonant sound.
_CONSONANT_SOUND = re.compile(r"(?:uni(?!n|mp|d)|eu|one\b|once\b|us[aeiu]|ut[ei])")


def words_of(text: str) -> list[str]:
    """Words of a prompt in lower case, without punctuation and possessive 's: the phantom's tokens."""
    return [word.removesuffix("'s") for word in _WORD.findall(text.lower().replace("’", "'"))]


def join_list(items: Sequence[str]) -> str:
    """`["x", "y", "z"]` -> "x, y and z"."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def check_template(template: str) -> str | None:
    """What is wrong with a template, or None."""
    if "(" in template or ")" in template:
        return "has parentheses, which ComfyUI reads as emphasis"
    rest = _PLACEHOLDER.sub("", _PART.sub(lambda part: part.group(2), template))
    if any(sign in rest for sign in "[]{}"):
        return "has brackets that do not match (optional parts cannot be nested)"
    return None


def spoken_in(template: str) -> set[str]:
    """Every attribute, column or phrase whose words can stand in what the template becomes."""
    return set(_PLACEHOLDER.findall(template)) - {"a"}


def names_in(template: str) -> set[str]:
    """Every attribute, column or phrase that a template mentions, conditions included."""
    names = spoken_in(template)
    for part in _PART.finditer(template):
        names |= {key for key, _ in _conditions(part.group(1))}
    return names


def literal_words(template: str) -> list[str]:
    """The words that stand in the template itself."""
    text = _PLACEHOLDER.sub("{}", _PART.sub(lambda part: f" {part.group(2)} ", template))
    return words_of(text.replace("{}'s", " ").replace("{}", " "))


def _conditions(text: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for condition in (text or "").split(","):
        key, _, allowed = condition.partition("=")
        if key.strip():
            yield key.strip(), tuple(value.strip() for value in allowed.split("|"))


class Grammar:
    """Turns templates into English for one set of attributes.

    Attributes:
        values: chosen value of each attribute or column; a missing one counts as "".
        texts: the words a value is spoken with; "" when it says nothing.
        phrases: named templates that may use the attributes and other phrases.
        articles: words whose article differs from the rule, e.g. {"heir": "an"}.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        texts: Mapping[str, str],
        phrases: Mapping[str, Template],
        articles: Mapping[str, str] | None = None,
    ) -> None:
        self._values = values
        self._texts = texts
        self._phrases = phrases
        self._articles = articles or {}

    def sentence(self, template: str) -> str:
        """The finished sentence with capital and full stop, or "" when it has nothing to say."""
        text = self._render(template)
        return finish_sentence(self._resolve_articles(text)) if text else ""

    def _words(self, name: str) -> str:
        if name == "a":
            return _ARTICLE
        template = self._phrases.get(name)
        if template is None:
            return self._texts.get(name, "")
        if isinstance(template, str):
            return self._render(template)
        return join_list([text for text in map(self._render, template) if text])

    def _render(self, template: str) -> str:
        def optional(part: re.Match[str]) -> str:
            for key, allowed in _conditions(part.group(1)):
                if self._values.get(key, "") not in allowed:
                    return " "
            return self._fill(part.group(2)) or " "

        # A part is put in filled, so what the second pass finds empty stands outside of optional parts.
        text = self._fill(_PART.sub(optional, template))
        return " ".join(text.split()) if text else ""

    def _fill(self, text: str) -> str | None:
        filled = {name: self._words(name) for name in _PLACEHOLDER.findall(text)}
        if not all(filled.values()):
            return None
        return _PLACEHOLDER.sub(lambda match: filled[match.group(1)], text)

    def _resolve_articles(self, text: str) -> str:
        tokens = text.split()
        following = [*tokens[1:], ""]
        return " ".join(
            self._article(after) if token == _ARTICLE else token
            for token, after in zip(tokens, following, strict=True)
        )

    def _article(self, word: str) -> str:
        word = word.lower().strip(".,;'")
        if word in self._articles:
            return self._articles[word]
        return "an" if word[:1] in tuple("aeiou") and not _CONSONANT_SOUND.match(word) else "a"


def finish_sentence(text: str) -> str:
    """Single spaces, a capital at the front, one full stop at the end."""
    text = re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
