"""Prompts and training captions from a condition's grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..conditions.grammar import Grammar, finish_sentence
from ..conditions.vocabulary import Attribute, Condition
from ..errors import UserError

_PARENTHESIS = re.compile(r"\\*([()])")


def build_prompt(
    condition: Condition,
    attributes: Mapping[str, str],
    *,
    bracketed: bool = True,
    trigger: str | None = None,
    cleft: bool = True,
    extra: str = "",
) -> str:
    """The prompt in the paper's form (section 3.3): trigger, whole face, appearance, closing phrase.

    attributes: value of each attribute that is to be said; those missing or "" are left out.
    bracketed: `[TRIGGER]` as the paper prints it, otherwise the bare word.
    trigger: another word in place of the condition's own, "" for none.
    cleft: False gives the healthy prompt; the condition's descriptors are then ignored.
    extra: a phrase of the user's own before the closing phrase; its parentheses are escaped for ComfyUI.

    Raises UserError for an unknown attribute or value, for one that does not fit the others, and when nothing
    is said about the anomaly although the condition asks for it.
    """
    if cleft:
        checked = condition.check_attributes(attributes)
        _check_described(condition, checked)
    else:
        person = {key: value for key, value in attributes.items() if key not in condition.descriptors}
        checked = condition.check_attributes(person)
    grammar = _grammar(condition, checked, condition.details, captions=False)
    sentences = [grammar.sentence(condition.face if cleft else condition.healthy_face)]
    sentences += [grammar.sentence(template) for template in condition.appearance]
    sentences += [finish_sentence(escape_emphasis(extra)), finish_sentence(condition.closing)]
    return with_trigger(condition, _join(sentences), bracketed=bracketed, trigger=trigger)


def build_caption(
    condition: Condition,
    metadata: Mapping[str, str],
    *,
    bracketed: bool = True,
    trigger: str | None = None,
    closing: bool = False,
) -> str:
    """The training caption of a photograph (section 4.1): clinical facts, no skin, eyes, hair, background.

    metadata: a row of metadata.csv; columns of no use to the caption are ignored, blank ones say nothing.
    closing: append the prompt's closing phrase; the paper gives it for prompts alone.

    Raises UserError for a value that is not allowed.
    """
    checked = {
        name: column.check(metadata[name].strip(), f"the caption of {condition.name}")
        for name, column in condition.columns.items()
        if (metadata.get(name) or "").strip()
    }
    grammar = _grammar(condition, checked, condition.columns, captions=True)
    sentences = [grammar.sentence(template) for template in condition.caption]
    if closing:
        sentences.append(finish_sentence(condition.closing))
    return with_trigger(condition, _join(sentences), bracketed=bracketed, trigger=trigger)


def with_trigger(
    condition: Condition, text: str, *, bracketed: bool = True, trigger: str | None = None
) -> str:
    """Put the trigger in front of a prompt or of a caption somebody wrote, once.

    A trigger that already stands there, in either form, is replaced.
    """
    own = re.escape(condition.trigger)
    text = re.sub(rf"^\s*(?:\[{own}\]|{own}\b)[\s,.:]*", "", text).strip()
    word = condition.trigger if trigger is None else trigger.strip()
    if not word:
        return text
    return f"[{word}] {text}" if bracketed else f"{word} {text}"


def escape_emphasis(text: str) -> str:
    """`(` -> `\\(` and `)` -> `\\)`, so that ComfyUI takes them as they are; escaped ones stay escaped."""
    return _PARENTHESIS.sub(r"\\\1", text)


def plain_text(prompt: str) -> str:
    """The prompt for an encoder that knows no emphasis: `\\(` -> `(`."""
    return re.sub(r"\\([()])", r"\1", prompt)


def _grammar(
    condition: Condition, values: Mapping[str, str], details: Mapping[str, Attribute], *, captions: bool
) -> Grammar:
    texts = {name: detail.text(values.get(name, "")) for name, detail in details.items()}
    phrases = condition.caption_phrases if captions else condition.phrases
    return Grammar(values, texts, phrases, condition.articles)


def _check_described(condition: Condition, values: Mapping[str, str]) -> None:
    needed = condition.needs_one_of
    if needed and not any(condition.details[name].text(values.get(name, "")) for name in needed):
        raise UserError(
            f"a prompt of {condition.name} must describe at least one of {', '.join(needed)}; "
            f"set one of them, or ask for the healthy prompt"
        )


def _join(sentences: list[str]) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
