"""A study's design: the shipped ones are the paper's, and a file that is none says where and why."""

import re
from dataclasses import replace

import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.study.design import Question, words_in
from diffusioncleft.diffusioncleft_core.study.design_file import (
    DESIGNS,
    load_design,
    parse_design,
    written_design,
)

MINIMAL = """
name = "mine"
title = "Mine"
[sets.generated]
n = 4
[questions.realism]
kind = "scale"
text = "How real?"
anchors.1 = "not"
anchors.5 = "fully"
"""
POINTS = "".join(f'[questions.{name}]\nkind = "point"\ntext = "?"\n' for name in ("here", "there"))
ODD = """
name = "odd"
title = 'With "quotes", a \\ and a tab'
languages = ["de", "en-GB"]
[title]
de = "Ein Titel"
en-GB = 'A "title" with \\ and #'
[sets.cleftgan]
n = 3
[sets.photographs]
n = 2
role = "real"
[questions.severity]
kind = "scale"
low = -2
high = 2
text = { de = "Wie schwer?", en-GB = "How severe?" }
anchors.-2 = { de = "leicht", en-GB = "slight" }
anchors.0 = { de = "mittel", en-GB = "moderate" }
anchors.2 = { de = "schwer", en-GB = "severe" }
[questions.remark]
kind = "text"
text = { de = "Was noch?", en-GB = "What else?" }
""".replace("title = 'With \"quotes\", a \\ and a tab'\n", "")


def test_the_default_is_the_papers_evaluation():
    design = load_design("paper")
    assert {item.origin: (item.n, item.role) for item in design.sets} == {
        "generated": (50, "generated"),
        "real": (10, "real"),
    }
    assert design.conditions == ("pre_op", "post_op")
    assert [(question.name, question.values) for question in design.questions] == [
        ("realism", (1, 2, 3, 4, 5)),
        ("plausibility", (1, 2, 3, 4, 5)),
    ]
    assert design.margin == 0.5 and design.repeats == 0


def test_the_larger_design_asks_for_the_origin_and_for_a_place_too():
    paper, plus = load_design("paper"), load_design("paper_plus")
    assert plus.questions[:2] == paper.questions and plus.sets == paper.sets
    origin, wrong = plus.questions[2:]
    assert origin.asks_role and origin.required
    assert wrong.kind == "point" and not wrong.required


@pytest.mark.parametrize("name", DESIGNS)
def test_every_word_of_a_shipped_design_is_there_in_every_language(name):
    design = load_design(name)
    assert len(design.languages) == 2
    texts = [design.title, design.introduction]
    for question in design.questions:
        texts += [question.text, *question.anchors.values(), *question.choices.values()]
    assert all(tuple(words) == design.languages and all(words.values()) for words in texts)
    assert all(words_in(words, "fr") == words["en"] for words in texts)


@pytest.mark.parametrize("text", [MINIMAL, ODD], ids=["minimal", "odd"])
def test_a_written_design_reads_back_the_same(text):
    design = parse_design(text, "mine.toml")
    assert parse_design(written_design(design), "again.toml") == design


@pytest.mark.parametrize("name", DESIGNS)
def test_a_shipped_design_reads_back_the_same(name):
    design = replace(load_design(name), seed=2**63 - 1, margin=0.25, side=512)
    assert parse_design(written_design(design), "again.toml") == design


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "scale"', 'kind = "likert"', "questions.realism.kind is 'likert'; give one of scale"),
        ('anchors.5 = "fully"', "", "questions.realism.anchors lacks 5; say what both ends mean"),
        ('anchors.5 = "fully"', 'anchors.6 = "fully"', "anchors.6 is no point from 1 to 5"),
        ('text = "How real?"', 'text = ""', "questions.realism.text says nothing in 'en'"),
        ('text = "How real?"', 'text = { fr = "?" }', "has the language 'fr', which languages does not name"),
        ("n = 4", "n = 0", "sets.generated.n is 0; give a whole number from 1 to 2147483647"),
        ("n = 4", "n = 4\nrole = 'fake'", "sets.generated.role is 'fake'; give generated or real"),
        ("[sets.generated]", "[sets.'../x']", "sets.../x is '../x'; give up to 40 lower-case letters"),
        ("[questions.realism]", "[questions.'a b']", "give up to 40 lower-case letters, digits and _"),
        ('title = "Mine"', 'title = "Mine"\nmargins = 1', "the file has the key 'margins'; known are schema"),
        ('title = "Mine"', 'title = "Mine"\nmargin = nan', "margin is nan; give a number above 0"),
        ('title = "Mine"', 'title = "Mine"\nschema = 2', "its schema is 2 and this version reads 1"),
        ('title = "Mine"', 'title = "Mine"\nconditions = ["a", "a"]', "conditions names one twice"),
        ('title = "Mine"', 'title = "Mine"\nseed = true', "seed is True; give a whole number from 0"),
        ('title = "Mine"', "", "title is missing; write what is shown"),
        ('name = "mine"', "name = ", "is not valid TOML"),
        ('kind = "scale"', 'kind = "scale"\nhigh = 1', "runs from 1 to 1; give low below high"),
        ("[questions.realism]", f"{POINTS}[questions.realism]", "questions.there is a second point"),
    ],
)
def test_a_mistake_is_told_with_its_place(old, new, said):
    assert old in MINIMAL
    with pytest.raises(UserError) as error:
        parse_design(MINIMAL.replace(old, new), "mine.toml")
    assert said in str(error.value) and "mine.toml" in str(error.value)


def test_the_design_in_the_documentation_is_one(repository):
    text = (repository / "docs" / "study.md").read_text("utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    design = parse_design(example, "docs/study.md")
    assert [question.kind for question in design.questions] == ["scale", "choice", "point", "text"]
    assert design.question("origin").asks_role and not design.question("wrong").required


def test_a_design_that_is_not_there_names_the_shipped_ones():
    with pytest.raises(UserError, match="give a TOML file, or one of paper, paper_plus"):
        load_design("papper")


def test_an_answer_is_held_to_its_question():
    scale = load_design("paper").question("realism")
    assert scale.check(5) == 5
    for wrong in (0, 6, True, "5", 4.5, None):
        with pytest.raises(UserError, match="realism is"):
            scale.check(wrong)
    point = Question("wrong", {"en": "?"}, "point", required=False)
    assert point.check((0, 0.25)) == [0.0, 0.25]
    for wrong in ([0.5], [0.5, 1.1], [0.5, float("nan")], "0.5 0.5", None):
        with pytest.raises(UserError, match="two numbers from 0 to 1"):
            point.check(wrong)
    choice = load_design("paper_plus").question("origin")
    assert choice.check("real") == "real"
    with pytest.raises(UserError, match="give one of real, generated"):
        choice.check("photograph")


def test_a_margin_as_wide_as_the_scale_would_prove_anything_and_is_refused():
    design = load_design("paper")
    assert replace(design, margin=3.9).margin == 3.9
    with pytest.raises(UserError, match="a margin of 4 holds whatever raters answer on realism, from 1 to 5"):
        replace(design, margin=4.0)
    with pytest.raises(UserError, match="a margin of 9 holds"):
        parse_design("margin = 9\n" + MINIMAL, "mine.toml")
