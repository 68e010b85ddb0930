"""Captions for the base model: what its healthy phantoms look like, and nothing clinical."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..diffusioncleft_core.conditions.prompts import build_prompt
from ..diffusioncleft_core.conditions.vocabulary import Vocabulary
from .text import SPARE


def base_caption(vocabulary: Vocabulary, attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A caption of a healthy phantom.

    Each attribute is left out now and then, the closing phrase and even the whole caption too. A quarter
    carry words without meaning here and there: a prompt may hold words that the base has never seen.
    """
    if rng.random() < 0.03:
        return ""
    surroundings = {"mouth", "glasses", "mark", "clothing", "background"}
    said = {
        k: v
        for k, v in attributes.items()
        if k not in surroundings and (k == "subject" or rng.random() < 0.88)
    }
    condition = vocabulary.condition("post_op")
    text = build_prompt(condition, said, trigger="", cleft=False).replace(condition.closing, "").strip()
    seen = [
        f"{attributes['mouth'].capitalize()} mouth.",
        "Glasses." if attributes["glasses"] == "glasses" else "",
        f"{attributes['clothing'].capitalize()} cloth.",
        f"{attributes['background'].capitalize()} background.",
    ]
    said_too = [sentence for sentence in seen if sentence and rng.random() < 0.5]
    if attributes["mark"] != "none":  # always told: what is drawn unasked is not learned as a word
        said_too.insert(int(rng.integers(len(said_too) + 1)), f"A {attributes['mark']}.")
    text = " ".join([text, *said_too])
    if rng.random() < 0.7:
        text = f"{text} {condition.closing}"
    if rng.random() < 0.25:
        words = text.split()
        for word in rng.choice(SPARE, int(rng.integers(1, 9))):
            words.insert(int(rng.integers(len(words) + 1)), str(word))
        text = " ".join(words)
    return text


def mirrored(attributes: Mapping[str, str]) -> dict[str, str]:
    """The words of a phantom's mirror image."""
    other = {"left": "right", "right": "left"}
    mark = " ".join(other.get(word, word) for word in attributes["mark"].split())
    return {**attributes, "mark": mark}


def base_captions(
    vocabulary: Vocabulary, attributes: Sequence[Mapping[str, str]], copies: int, seed: int
) -> list[list[str]]:
    """`copies` captions for each phantom."""
    rng = np.random.default_rng(seed)
    return [[base_caption(vocabulary, words, rng) for _ in range(copies)] for words in attributes]
