"""Prompts and captions of a condition, and how long they are for the text encoders."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .grammar import Grammar, finish_sentence, names_in
from .vocabulary import Attribute, Condition

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

    Args:
        condition: whose phrases are used.
        attributes: value of each attribute that is to be said; those missing or "" are left out.
        bracketed: `[TRIGGER]` as the paper prints it, otherwise the bare word.
        trigger: another word in place of the condition's own, "" for none.
        cleft: False gives the healthy prompt; the condition's descriptors are then ignored.
        extra: a phrase of the user's own before the closing phrase; its parentheses are escaped for ComfyUI.

    Raises:
        UserError: an attribute or value is unknown or does not fit the others, or nothing is said about the
            anomaly although the condition asks for it.
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


@dataclass(frozen=True)
class CaptionForm:
    """How captions are written: the trigger as `[CLP]` or bare; whole, or clinical facts alone."""

    bracketed: bool = True
    whole: bool = True


AS_PROMPTS = CaptionForm()


def build_caption(
    condition: Condition,
    metadata: Mapping[str, str],
    *,
    bracketed: bool = True,
    trigger: str | None = None,
    whole: bool = True,
) -> str:
    """The training caption of a photograph.

    Clinical facts as in the paper (section 4.1) and, unless they are to be all, what prompts say beside them:
    skin, hair and eyes where the table has them, and the closing phrase. A LoRA then sees in training what it
    is asked with.

    Args:
        condition: whose phrases are used.
        metadata: a row of metadata.csv; columns of no use to the caption are ignored, blank ones say nothing.
        bracketed: `[TRIGGER]`, otherwise the bare word.
        trigger: another word in place of the condition's own, "" for none.
        whole: False for the paper's captions, which end with the clinical facts.

    Raises:
        UserError: a value is not allowed.
    """
    text = _caption(condition, condition.caption, metadata, whole)
    return with_trigger(condition, text, bracketed=bracketed, trigger=trigger)


def healthy_caption(condition: Condition, metadata: Mapping[str, str], *, whole: bool = True) -> str | None:
    """The caption of the same person without the anomaly and without the trigger, as healthy prompts are.

    None where `healthy_face` names an attribute that captions do not know, or says nothing of this person.
    Arguments and errors are those of `build_caption`.
    """
    face = (condition.healthy_face,)
    known = {"a", *condition.caption_phrases, *condition.columns}
    if not names_in(condition.healthy_face) <= known or not _caption(condition, face, metadata, whole=False):
        return None
    return _caption(condition, face, metadata, whole)


def _caption(condition: Condition, face: Sequence[str], metadata: Mapping[str, str], whole: bool) -> str:
    checked = {
        name: column.check(metadata[name].strip(), f"the caption of {condition.name}")
        for name, column in condition.columns.items()
        if (metadata.get(name) or "").strip()
    }
    grammar = _grammar(condition, checked, condition.columns, captions=True)
    sentences = [grammar.sentence(template) for template in face]
    if whole:
        sentences += [grammar.sentence(template) for template in condition.caption_appearance]
        sentences.append(finish_sentence(condition.closing))
    return _join(sentences)


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


CLIP_LIMIT = 77
_MARGIN = 3  # start token, end token, and one for a short word that CLIP splits
_PIECE = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class PromptLength:
    """tokens: with start and end token. estimated: counted without CLIP's tokenizer, high rather than low."""

    tokens: int
    estimated: bool

    def warning(self) -> str | None:
        """What is lost above the limit, or None."""
        if self.tokens <= CLIP_LIMIT:
            return None
        how = "by an estimate, no tokenizer was given" if self.estimated else "by its tokenizer"
        return (
            f"the prompt has {self.tokens} CLIP tokens ({how}); CLIP reads {CLIP_LIMIT} and drops the rest "
            f"(T5 reads it all): leave attributes out or shorten the extra text"
        )


def prompt_length(prompt: str, tokenizer: Callable[[str], Any] | None = None) -> PromptLength:
    """Length of a prompt in CLIP tokens.

    Args:
        prompt: as it would be given to the text encoder.
        tokenizer: CLIP's, as transformers loads it: its result has `input_ids` with start and end token.
            Without it the length is estimated: one token for a sign and for a word of up to seven letters,
            one for every six letters of a longer word, every two of a word that begins in capitals, every
            digit, and every byte of a word that is not ASCII.
    """
    text = plain_text(prompt)
    if tokenizer is not None:
        return PromptLength(len(tokenizer(text).input_ids), estimated=False)
    return PromptLength(_MARGIN + sum(map(_estimate, _PIECE.findall(text))), estimated=True)


def _estimate(piece: str) -> int:
    if piece.isdigit() or not piece.isascii():
        return len(piece.encode())
    if piece[:2].isupper() and len(piece) > 1:
        return math.ceil(len(piece) / 2)
    return 1 if len(piece) <= 7 else math.ceil(len(piece) / 6)
