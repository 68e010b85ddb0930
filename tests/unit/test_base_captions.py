"""The captions that the base model learned from: healthy faces, a share of them in a patient's words."""

from collections import Counter

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.conditions.grammar import words_of
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.tools.captions import CLINICAL, base_captions
from diffusioncleft.tools.pool import surroundings
from diffusioncleft.tools.text import SPARE, SURROUNDINGS

FINDINGS = {"cleft", "scar", "scars", "repair"}


@pytest.fixture(scope="module")
def told():
    """Phantoms' attributes, and four captions of each."""
    rng = np.random.default_rng(3)
    faces = [random_face(rng) for _ in range(200)]
    words = [face.attributes | surroundings(face) | {"mark": "none"} for face in faces]
    return words, base_captions(load_vocabulary(), words, 4, seed=1)


def test_a_share_is_in_a_patients_words_and_none_has_a_trigger(told):
    captions = [caption for four in told[1] for caption in four]
    vocabulary = load_vocabulary()
    clinical = [caption for caption in captions if FINDINGS & set(words_of(caption))]
    assert abs(len(clinical) / len(captions) - CLINICAL) < 0.06
    types = {"unilateral cleft", "bilateral cleft"}
    assert not [caption for caption in clinical if any(kind in caption for kind in types)]
    kinds = Counter("repair" in words_of(caption) for caption in clinical)
    assert min(kinds.values()) > 0.25 * len(clinical)
    triggers = {condition.trigger.lower() for condition in vocabulary.conditions.values()}
    known = {*vocabulary.words(), *SPARE, *SURROUNDINGS}
    for caption in captions:
        assert not triggers & set(words_of(caption)), caption
        assert set(words_of(caption)) <= known, caption


def test_a_caption_tells_the_person_that_is_shown(told):
    for attributes, captions in zip(*told, strict=True):
        for caption in captions:
            plain = " ".join(word for word in words_of(caption) if word not in SPARE)
            for name, form in (("skin", "{} skin"), ("eyes", "{} eyes")):
                others = {form.format(value) for value in ("dark", "pale", "olive", "green", "blue", "hazel")}
                own = form.format(attributes[name])
                assert not any(other in plain for other in others - {own}), (attributes, caption)
