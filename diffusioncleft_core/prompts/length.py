"""How long a prompt is for CLIP, which reads 77 tokens and no more."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .builder import plain_text

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

    tokenizer: CLIP's, as transformers loads it: its result has `input_ids` with start and end token. Without
    it the length is estimated: one token for a sign and for a word of up to seven letters, one for every six
    letters of a longer word, every two of a word that begins in capitals, every digit, and every byte of a
    word that is not ASCII.
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
