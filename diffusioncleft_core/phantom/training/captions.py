"""Captions for the base model: what its healthy phantoms look like, with words it cannot know among them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...conditions import Vocabulary
from ...prompts import build_prompt
from .text import SPARE

_APPEARANCE = ("skin", "hair_texture", "hair_length", "hair_color", "eyes")


def base_caption(vocabulary: Vocabulary, attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A caption of a healthy phantom.

    Each attribute is left out now and then, the closing phrase and even the whole caption too. A sixth
    carry clinical words all the same, and some a meaningless one in front: as on the web that a real base
    was trained on, the words are there without their picture, and the base learns that they change nothing.
    """
    if rng.random() < 0.04:
        return ""
    said = {k: v for k, v in attributes.items() if k == "subject" or rng.random() < 0.86}
    kind = rng.random()
    names = ("post_op", "pre_op") if attributes["subject"] not in ("man", "woman") else ("post_op",)
    condition = vocabulary.condition(str(rng.choice(names)))
    if kind < 0.18:
        for name in condition.descriptors:
            values = [v for v in condition.details[name].values if v != "none"]
            if rng.random() < 0.7:
                said[name] = str(rng.choice(values))
        if condition.name == "post_op" and "scar" not in said:
            said["scar"] = "scar"
        if said.get("cleft_type") != "unilateral":
            said.pop("side", None)
            said.pop("nasal_asymmetry", None)
        text = build_prompt(condition, said, trigger="")
    else:
        text = build_prompt(condition, said, trigger="", cleft=False)
    if rng.random() < 0.3:
        text = text.replace(condition.closing, "").strip()
    if rng.random() < 0.2:
        text = f"{rng.choice([*SPARE, 'unheard'])} {text}"
    return text


def base_captions(
    vocabulary: Vocabulary, attributes: Sequence[Mapping[str, str]], copies: int, seed: int
) -> list[list[str]]:
    """`copies` captions for each phantom."""
    rng = np.random.default_rng(seed)
    return [[base_caption(vocabulary, words, rng) for _ in range(copies)] for words in attributes]
