"""Captions for the base model: what its healthy phantoms look like.

A share of them tell a healthy face in a patient's words: as schnell does, the base is to draw no finding that
it is asked for (Figure 1 of the paper), and the person that the other words tell. Triggers are in none, nor
is the type of a cleft: a base that has learned to pass over it lets a LoRA learn it less well
(docs/phantom.md).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..diffusioncleft_core.conditions.prompts import build_caption, build_prompt
from ..diffusioncleft_core.conditions.vocabulary import Vocabulary
from ..diffusioncleft_core.phantom.face import PhantomFace, random_face
from ..diffusioncleft_core.phantom.photographs import metadata_row
from . import FINDING_OF
from .text import SPARE

CLINICAL = 0.35
"""Share of captions in a patient's words."""
_PATIENTS = 500
_TYPE = re.compile(r"\b(uni|bi)lateral ")


def base_caption(
    vocabulary: Vocabulary,
    attributes: Mapping[str, str],
    rng: np.random.Generator,
    patients: Mapping[str, Sequence[PhantomFace]],
) -> str:
    """A caption of a healthy phantom.

    Each attribute is left out now and then, the closing phrase and even the whole caption too. A quarter
    carry words without meaning here and there: a prompt may hold words that the base has never seen.

    patients: phantoms by condition, whose findings are spoken of.
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
    if rng.random() < CLINICAL:
        text = clinical_words(vocabulary, said, rng, patients)
    else:
        text = build_prompt(condition, said, trigger="", cleft=False)
    text = text.replace(condition.closing, "").strip()
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


def clinical_words(
    vocabulary: Vocabulary,
    said: Mapping[str, str],
    rng: np.random.Generator,
    patients: Mapping[str, Sequence[PhantomFace]],
) -> str:
    """What a patient's prompt or caption says of the person of whom `said` is told.

    It holds no trigger and no type of a cleft.
    """
    conditions = [vocabulary.condition(name) for name in patients]
    fitting = [one for one in conditions if said["subject"] in one.attributes["subject"]]
    condition = fitting[int(rng.integers(len(fitting)))]
    patient = patients[condition.name][int(rng.integers(len(patients[condition.name])))]
    if rng.random() < 0.5:
        finding = {k: v for k, v in patient.attributes.items() if k in condition.descriptors}
        return _TYPE.sub("", build_prompt(condition, {**said, **finding}, trigger=""))
    row = metadata_row("", replace(patient, attributes={**patient.attributes, **said}), "")
    unsaid = patient.attributes.keys() - said.keys() - {*condition.descriptors}
    unsaid |= {"skin_tone"} if "skin" in unsaid else set()
    caption = build_caption(condition, {k: v for k, v in row.items() if k not in unsaid}, trigger="")
    return _TYPE.sub("", caption)


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
    patients = {
        name: [random_face(rng, finding=finding) for _ in range(_PATIENTS)]
        for name, finding in FINDING_OF.items()
        if name
    }
    return [[base_caption(vocabulary, words, rng, patients) for _ in range(copies)] for words in attributes]
