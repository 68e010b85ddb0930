"""Prompts and captions: the paper's form to the letter, grammatical, nothing ComfyUI would misread."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusioncleft.diffusioncleft_core.conditions.grammar import words_of
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.prompts import (
    build_caption,
    build_prompt,
    escape_emphasis,
    healthy_caption,
    plain_text,
    prompt_length,
    with_trigger,
)
from diffusioncleft.diffusioncleft_core.errors import UserError

VOCABULARY = load_vocabulary()
PRE, POST = VOCABULARY.condition("pre_op"), VOCABULARY.condition("post_op")
CLOSING = " Only one face, no text, no watermarks, no masks or occlusions."
LONGEST = 46
EXAMPLE = {"subject": "girl", "cleft_type": "unilateral", "skin": "light", "eyes": "brown"}


@st.composite
def chosen_attributes(draw, condition):
    """Any attributes that fit together, any of them left out."""
    chosen = {}
    for name, detail in condition.details.items():
        if detail.applies(chosen):
            value = draw(st.sampled_from(["", *detail.values]))
            chosen |= {name: value} if value else {}
    if condition.needs_one_of and not any(
        chosen.get(name, "none") != "none" for name in condition.needs_one_of
    ):
        chosen["scar"] = "scar"
    return chosen


def any_condition_with_attributes():
    return st.sampled_from([PRE, POST]).flatmap(lambda c: st.tuples(st.just(c), chosen_attributes(c)))


any_metadata = st.fixed_dictionaries(
    {
        name: st.sampled_from(["", *column.values])
        for name, column in VOCABULARY.columns.items()
        if column.values
    }
)


def test_the_papers_example_is_reproduced_to_the_letter():
    paper = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip. Light skin. Brown eyes."
    assert build_prompt(PRE, EXAMPLE) == paper + CLOSING


def test_a_repaired_adult_is_described_in_grammatical_english():
    attributes = {
        "eyes": "green",
        "subject": "man",
        "scar": "scar",
        "asymmetry": "slight nose asymmetry",
        "skin": "olive",
        "hair_color": "black",
        "hair_length": "short",
        "hair_texture": "curly",
    }
    assert build_prompt(POST, attributes) == (
        "[CLPrep] A man's whole face after cleft lip repair with a subtle scar and slight nose asymmetry. "
        "Olive skin. Short curly black hair. Green eyes." + CLOSING
    )


def test_the_descriptors_of_figures_5_and_6_have_words():
    pre = {"cleft_type": "unilateral", "severity": "complete", "side": "left", "nasal_asymmetry": "marked"}
    assert build_prompt(PRE, {"subject": "baby"} | pre) == (
        "[CLP] A baby's whole face with an unrepaired complete unilateral cleft lip on the left side and "
        "marked nasal asymmetry on the same side." + CLOSING
    )
    post = {"scar": "philtrum scar", "nasal_tip": "ptosis", "cupids_bow": "poorly defined"}
    assert build_prompt(POST, post | {"subject": "woman", "cleft_type": "bilateral"}) == (
        "[CLPrep] A woman's whole face after bilateral cleft lip repair with philtrum scarring, "
        "nasal tip ptosis and a poorly defined cupid's bow." + CLOSING
    )


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, "[CLP] A girl's whole face with an unrepaired"),
        ({"bracketed": False}, "CLP A girl's whole face with an unrepaired"),
        ({"trigger": ""}, "A girl's whole face with an unrepaired"),
        ({"trigger": "CLPrep"}, "[CLPrep] A girl's whole face with an unrepaired"),
        ({"cleft": False}, "[CLP] A girl's whole face. Light skin."),
        ({"cleft": False, "trigger": ""}, "A girl's whole face. Light skin."),
    ],
)
def test_trigger_and_anomaly_can_each_be_left_out_or_replaced(options, start):
    prompt = build_prompt(PRE, EXAMPLE, **options)
    assert prompt.startswith(start)
    assert prompt.endswith(CLOSING)


@settings(max_examples=150, deadline=None)
@given(any_condition_with_attributes(), st.booleans())
def test_every_prompt_is_grammatical_short_and_of_known_words(chosen, cleft):
    condition, attributes = chosen
    prompt = build_prompt(condition, attributes, cleft=cleft)
    body = prompt.removeprefix(f"[{condition.trigger}] ")
    assert body != prompt
    assert body.endswith(CLOSING)
    assert not set(body) & set("()[]{}\x00")
    assert not re.search(r"\s\s|\s[.,]|\.\.|,,|[.,][^\s]|\b(and|with|after|an?) [.,]", body)
    assert all(sentence[0].isupper() for sentence in body.split(". "))
    for article, word in re.findall(r"\b(an?) (\w+)", body, flags=re.IGNORECASE):
        sounds_like_vowel = word[0] in "aeiou" and word != "unilateral"
        assert (article.lower() == "an") == sounds_like_vowel
    words = words_of(prompt)
    assert len(words) <= LONGEST
    assert set(words) <= set(VOCABULARY.words())
    if cleft:
        assert " cleft lip" in body
    else:
        assert not {"cleft", "scar", "scars", "scarring", "asymmetry", "ptosis"} & set(words)


def test_the_longest_prompt_is_as_long_as_the_phantom_can_read():
    everything = {name: max(values, key=lambda v: len(v.split())) for name, values in POST.attributes.items()}
    everything |= {"scar": "philtrum scar", "nasal_tip": "ptosis"}
    assert len(words_of(build_prompt(POST, everything))) == LONGEST


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PRE, POST]), any_metadata)
def test_whole_captions_add_what_prompts_say(condition, metadata):
    caption, clinical = (build_caption(condition, metadata, whole=whole) for whole in (True, False))
    assert caption.startswith(clinical)
    added = caption.removeprefix(clinical)
    assert added.endswith(f" {CLOSING.strip()}")
    words = words_of(added)
    assert set(words) <= set(VOCABULARY.words())
    assert len(words_of(caption)) <= LONGEST
    for name, word in (("skin_tone", "skin"), ("eyes", "eyes")):
        assert (f"{metadata[name]} {word}".capitalize() in added) == bool(metadata[name])
    assert ("hair" in words) == any(metadata[f"hair_{what}"] for what in ("texture", "length", "color"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PRE, POST]), any_metadata)
def test_captions_are_clinical_and_of_known_words(condition, metadata):
    caption = build_caption(condition, metadata, whole=False)
    assert caption.startswith(f"[{condition.trigger}] A")
    words = words_of(caption)
    assert set(words) <= set(VOCABULARY.words())
    assert not {"skin", "hair", "eyes", "eye", "background"} & set(words)
    assert ("bilateral" in words) == (metadata["cleft_type"] == "bilateral")
    assert ("left" in words) == (metadata["cleft_type"] == "unilateral" and metadata["side"] == "left")
    assert ("visible" in words) == (metadata["scarring"] == "visible")
    assert ("baby" in words) == (metadata["age_group"] == "baby")
    assert bool({"woman", "girl"} & set(words)) == (
        metadata["gender"] == "female" and metadata["age_group"] != ""
    )


def test_captions_of_both_conditions_read_as_the_prompts_do():
    row = {"age_group": "baby", "gender": "female", "cleft_type": "unilateral", "side": "left"}
    assert build_caption(PRE, row | {"asymmetry": "slight", "scarring": "none", "consent": "yes"}) == (
        "[CLP] A baby girl's whole face with an unrepaired unilateral cleft lip on the left side and "
        f"slight nasal asymmetry on the same side.{CLOSING}"
    )
    appearance = {"skin_tone": "dark", "hair_length": "short", "hair_color": "black", "eyes": "brown"}
    assert build_caption(PRE, row | appearance | {"side": "", "cleft_type": ""}) == (
        "[CLP] A baby girl's whole face with an unrepaired cleft lip. Dark skin. Short black hair. "
        f"Brown eyes.{CLOSING}"
    )
    row = {"age_group": "adult", "gender": "unknown", "cleft_type": "bilateral", "scarring": "visible"}
    assert build_caption(POST, row | {"asymmetry": "marked"}, bracketed=False, whole=False) == (
        "CLPrep An adult's whole face after bilateral cleft lip repair with a visible scar and "
        "marked nose asymmetry."
    )


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([PRE, POST]), any_metadata)
def test_a_healthy_caption_says_the_person_and_nothing_of_the_finding(condition, metadata):
    found = {whole: healthy_caption(condition, metadata, whole=whole) for whole in (True, False)}
    caption = build_caption(condition, metadata, trigger="")
    face = found[False].removesuffix(".")
    assert face.endswith("'s whole face")
    assert caption.startswith(face)
    assert found[True].removeprefix(found[False]) == caption.removeprefix(
        build_caption(condition, metadata, trigger="", whole=False)
    )


def test_a_healthy_caption_reads_as_the_healthy_prompt_does():
    row = {"age_group": "child", "gender": "female", "cleft_type": "bilateral", "scarring": "visible"}
    appearance = {"hair_length": "long", "hair_color": "red", "eyes": "green"}
    person = {"subject": "girl", "skin": "pale", **appearance}
    for condition in (PRE, POST):
        caption = healthy_caption(condition, row | appearance | {"skin_tone": "pale"})
        assert caption == build_prompt(condition, person, trigger="", cleft=False)


def test_there_is_no_healthy_caption_without_words_for_the_face():
    """A vocabulary's healthy face may speak of an attribute that is no column."""
    row = {"age_group": "adult"}
    for face in ("{a} face with {nasal_tip}", "{a} face [nasal_tip=? at rest]", "{a} {skin_tone} face"):
        assert healthy_caption(replace(POST, healthy_face=face), row) is None
    said = healthy_caption(replace(POST, healthy_face="{a} {skin_tone} face"), row | {"skin_tone": "olive"})
    assert said.startswith("An olive face. ")


def test_a_caption_refuses_a_value_it_cannot_say():
    with pytest.raises(UserError, match=r"no scarring 'lots'; allowed: none, subtle, visible"):
        build_caption(POST, {"scarring": "lots"})


@pytest.mark.parametrize(
    ("condition", "attributes", "message"),
    [
        (
            PRE,
            {"skn": "dark"},
            r"pre_op has no attribute 'skn'; did you mean 'skin'\? Allowed: subject, cleft_type",
        ),
        (
            PRE,
            {"skin": "green"},
            r"pre_op has no skin 'green'.* llowed: light, pale, medium, fair, dark, olive",
        ),
        (PRE, {"skin": "purple"}, r"pre_op has no skin 'purple'; allowed: light, pale"),
        (PRE, {"skin": "Drak"}, r"pre_op has no skin '\w+'; did you mean 'dark'\? Allowed"),
        (PRE, {"subject": "man"}, r"pre_op has no subject 'man'; allowed: girl, boy, baby, kid"),
        (
            PRE,
            {"cleft_type": "bilateral", "side": "left"},
            r"side can be given only with cleft_type unilateral",
        ),
        (POST, {"subject": "man", "scar": "none"}, r"must describe at least one of scar, asymmetry"),
    ],
)
def test_an_impossible_request_is_answered_with_what_is_possible(condition, attributes, message):
    with pytest.raises(UserError, match=message.replace(" llowed", " ?[Aa]?llowed")):
        build_prompt(condition, attributes)


def test_spelling_of_values_does_not_depend_on_case():
    assert build_prompt(PRE, EXAMPLE | {"skin": " LIGHT "}) == build_prompt(PRE, EXAMPLE)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=r"ab()\ ", max_size=20))
def test_text_of_the_user_is_never_emphasis_and_comes_back(text):
    escaped = escape_emphasis(text)
    assert not re.search(r"(?<!\\)[()]", escaped)
    assert escape_emphasis(escaped) == escaped
    if "\\" not in text:
        assert plain_text(escaped) == text


def test_extra_text_stands_before_the_closing_phrase_as_a_sentence():
    prompt = build_prompt(PRE, EXAMPLE, extra="seen in (soft) light")
    assert prompt.endswith(r"Brown eyes. Seen in \(soft\) light." + CLOSING)


@pytest.mark.parametrize("text", ["A face.", "[CLP] A face.", "CLP, A face.", "CLP A face."])
def test_a_caption_written_by_hand_gets_the_trigger_once(text):
    assert with_trigger(PRE, text) == "[CLP] A face."
    assert with_trigger(PRE, text, bracketed=False) == "CLP A face."


def test_a_word_that_only_begins_like_the_trigger_is_kept():
    assert with_trigger(PRE, "CLPrep face.") == "[CLP] CLPrep face."


def test_length_is_counted_by_the_tokenizer_where_one_is_given():
    from transformers import BatchEncoding

    def tokenizer(text):
        return BatchEncoding({"input_ids": [0, *range(len(text.split())), 1]})

    length = prompt_length("one two three", tokenizer)
    assert (length.tokens, length.estimated, length.warning()) == (5, False, None)
    assert "79 CLIP tokens (by its tokenizer)" in prompt_length("word " * 77, tokenizer).warning()


def test_every_prompt_of_the_vocabulary_is_estimated_to_fit_and_a_long_one_is_not():
    everything = {name: max(values, key=len) for name, values in POST.attributes.items()}
    prompt = build_prompt(POST, everything | {"cleft_type": "bilateral"})
    assert prompt_length(prompt).warning() is None
    warning = prompt_length(build_prompt(POST, everything, extra="extraordinary " * 3)).warning()
    assert "by an estimate" in warning


def test_the_command_prints_the_papers_example(command):
    done = command(
        "prompt", "--condition", "pre_op", *(f"--set={key}={value}" for key, value in EXAMPLE.items())
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == build_prompt(PRE, EXAMPLE) + "\n"


def test_the_command_warns_about_a_prompt_that_clip_would_cut(command):
    done = command("prompt", "--condition", "pre_op", "--extra", "(very) long " * 20)
    assert done.returncode == 0
    assert "CLIP reads 77" in done.stderr
    assert done.stdout.count(r"\(very\)") == 20


def test_the_command_answers_an_unknown_value_in_one_line_with_status_two(command):
    done = command("prompt", "--condition", "pre_op", "--set", "eyes=grey")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "brown, green, blue, hazel" in done.stderr
