"""The one sentence on what a classifier learned: from intervals, by rules, however its controls come out."""

import itertools

import pytest

from diffusioncleft.diffusioncleft_core.downstream.reading import (
    ABOVE,
    AT,
    BEATEN,
    BELOW,
    CHANCE,
    FEW_PEOPLE,
    FEW_TRAININGS,
    KEPT,
    LINE,
    LOWER,
    NEEDED,
    NOT_LOWER,
    NOT_RUN,
    REACHED,
    SAYINGS,
    SHUFFLED,
    UNDER,
    UNREACHED,
    against_chance,
    chance_level,
    judged,
    reading,
)

CONTROLS = {**dict.fromkeys(NEEDED, CHANCE), "generated_negatives": KEPT, "lip_alone": KEPT}
UP, OVER, DOWN = (0.62, 0.80), (0.41, 0.58), (0.20, 0.40)
"""Intervals above chance, about it, below it."""


def findings(**ends):
    """Every control as it should come out, but for those named."""
    right = {name: UP if expected == KEPT else OVER for name, expected in CONTROLS.items()}
    return [judged(name, CONTROLS[name], interval) for name, interval in {**right, **ends}.items()]


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((0.51, 0.9), ABOVE),
        ((0.5, 0.9), AT),
        ((0.1, 0.49), UNDER),
        ((0.1, 0.5), AT),
        ((0.4, 0.95), AT),
        ((0.0, 1.0), AT),
    ],
)
def test_an_interval_that_holds_chance_is_not_told_from_it_wherever_its_middle_lies(ends, verdict):
    assert against_chance(ends) == verdict


@pytest.mark.parametrize(
    ("expected", "ends", "passed"),
    [
        (CHANCE, OVER, True),
        (CHANCE, UP, False),
        (CHANCE, DOWN, False),
        (KEPT, UP, True),
        (KEPT, OVER, False),
        (KEPT, DOWN, False),
        (CHANCE, None, None),
        (KEPT, None, None),
    ],
)
def test_a_control_passes_where_its_interval_is_where_it_must_be(expected, ends, passed):
    found = judged("c", expected, ends)
    assert found.passed is passed
    assert (found.verdict == NOT_RUN) == (ends is None)


@pytest.mark.parametrize(
    ("difference", "verdict", "passed"),
    [((0.01, 0.2), LOWER, True), ((0.0, 0.2), NOT_LOWER, False), ((-0.1, 0.2), NOT_LOWER, False)],
)
def test_a_control_that_must_be_below_the_source_is_judged_by_the_difference(difference, verdict, passed):
    found = judged("lip_masked", BELOW, UP, difference)
    assert (found.verdict, found.passed) == (verdict, passed)
    assert judged("lip_masked", BELOW, UP, None).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        ((0.01, 0.2), BEATEN),
        ((0.0, 0.2), REACHED),
        ((-0.1, 0.0), REACHED),
        ((-0.1, 0.1), REACHED),
        ((-0.2, -0.01), UNREACHED),
    ],
)
def test_a_line_to_beat_is_held_against_the_source_and_is_neither_passed_nor_failed(difference, verdict):
    found = judged("real", LINE, UP, difference)
    assert (found.verdict, found.passed, found.ends) == (verdict, None, difference)
    assert judged("real", LINE, None, difference).verdict == judged("real", LINE, UP).verdict == NOT_RUN


def test_the_more_controls_must_be_at_chance_the_wider_each_interval():
    assert chance_level(0) == chance_level(1) == pytest.approx(0.95)
    assert chance_level(4) == pytest.approx(0.9875)


def test_where_all_comes_out_as_it_must_the_reading_stands_and_says_what_is_left_open():
    said = reading("generated", UP, findings(background=(0.38, 0.61)))
    assert said.startswith("The reading that it learned the lip stands;")
    assert "AUC of up to 0.61" in said, "the highest end of those that must be at chance, of no other"
    assert "does not sort" in reading("generated", UP, findings(), sorts=False)


@pytest.mark.parametrize("name", SAYINGS)
@pytest.mark.parametrize("ends", [UP, OVER, DOWN])
def test_each_control_alone_keeps_the_reading_from_standing_when_it_comes_out_otherwise(name, ends):
    passes = (ends == OVER) if CONTROLS[name] == CHANCE else (ends == UP)
    said = reading("generated", UP, findings(**{name: ends}))
    assert (SAYINGS[name] in said) is not passes
    assert ("does not stand" in said) is not passes


def test_every_combination_of_outcomes_gives_the_sentence_of_its_rule():
    names = list(CONTROLS)
    clauses = {name: SAYINGS.get(name, "") for name in names}
    for outcome in itertools.product(("passed", "failed", "not run", "not listed"), repeat=len(names)):
        how = dict(zip(names, outcome, strict=True))
        found = [
            judged(
                name,
                CONTROLS[name],
                None
                if state == "not run"
                else (UP if (CONTROLS[name] == KEPT) == (state == "passed") else OVER),
            )
            for name, state in how.items()
            if state != "not listed"
        ]
        said = reading("generated", UP, found)
        failed = {name for name, state in how.items() if state == "failed"}
        missing = {name for name, state in how.items() if state == "not run"}
        missing |= {name for name in NEEDED if how[name] == "not listed"}
        if SHUFFLED in failed:
            assert said.startswith("The evaluation leaks"), how
        elif failed:
            assert "does not stand" in said, how
            assert {name for name in names if clauses[name] and clauses[name] in said} == failed, how
        elif not any(state == "passed" for state in outcome):
            assert said == "What the classifier learned is not known: no control was run.", how
        elif missing:
            assert "it is not shown without" in said and "stands" not in said, how
            assert {name for name in names if name.replace("_", " ") in said.split(":")[1]} == missing, how
        else:
            assert "learned the lip stands" in said, how
        assert said.count(".") - said.count("0.") == 1 and said.endswith("."), "one sentence"


@pytest.mark.parametrize(("ends", "words"), [(OVER, AT), (DOWN, UNDER), ((0.5, 0.9), AT)])
def test_a_source_that_does_not_beat_chance_has_nothing_to_explain(ends, words):
    for found in (findings(), findings(lip_masked=UP), []):
        said = reading("generated", ends, found)
        assert words in said and "nothing to explain" in said
    assert "nothing to explain" not in reading("generated", (0.501, 0.9), findings())


@pytest.mark.parametrize(
    ("ends", "people", "verdict"),
    [
        ((0.0, 1.0), (0.45, 0.6), FEW_TRAININGS),
        ((0.25, 0.55), (0.45, 0.6), FEW_TRAININGS),
        ((0.0, 1.0), (0.2, 0.6), FEW_PEOPLE),
        ((0.31, 0.69), (0.45, 0.6), AT),
        ((0.51, 1.0), (0.51, 0.9), ABOVE),
    ],
)
def test_an_interval_that_reaches_as_far_as_the_source_does_not_show_a_control_at_chance(
    ends, people, verdict
):
    found = judged(SHUFFLED, CHANCE, ends, people=people, reached=0.7)
    assert found.verdict == verdict and found.passed is {AT: True, ABOVE: False}.get(verdict)
    kept = [item for item in findings() if item.name != SHUFFLED]
    said = reading("generated", UP, [*kept, found])
    if verdict in (FEW_TRAININGS, FEW_PEOPLE):
        assert said.endswith(f"it is not shown without: shuffled labels ({verdict}).")
        alone = reading("generated", UP, [found])
        assert f"shuffled labels ({verdict}), base as both (not run)" in alone
    else:
        assert ("stands" in said) is (verdict == AT)


@pytest.mark.parametrize("expected", [CHANCE, KEPT])
def test_an_interval_that_ends_at_0_or_1_tells_nothing_whatever_the_source_reached(expected):
    for ends in ((0.0, 1.0), (0.0, 0.6), (0.4, 1.0)):
        found = judged("c", expected, ends, people=(0.4, 0.6))
        assert (found.verdict, found.passed) == (FEW_TRAININGS, None)
        assert judged("c", expected, ends, people=ends).verdict == FEW_PEOPLE
    assert judged("c", expected, (0.01, 0.99)).verdict == AT


def test_shuffled_labels_go_before_all_else_and_known_people_before_the_controls():
    leaks = findings(shuffled_labels=UP)
    for ends, leak in itertools.product((UP, OVER, None), (None, "9 of the 50 people are known")):
        assert reading("generated", ends, leaks, leak=leak).startswith("The evaluation leaks")
    said = reading("generated", UP, findings(), leak="9 of the 50 people are known")
    assert said == "What the classifier learned is not shown: 9 of the 50 people are known."
    assert "too few people" in reading("generated", None, findings())


def test_the_line_to_beat_is_no_control_of_what_was_learned():
    line = judged("real", LINE, UP, (-0.2, -0.1))
    assert reading("generated", UP, [line]) == "What the classifier learned is not known: no control was run."
    assert reading("generated", UP, [*findings(), line]) == reading("generated", UP, findings())
    assert reading("generated", UP, [*findings(), judged("real", LINE, None)]) == reading(
        "generated", UP, findings()
    )


def test_a_control_of_a_users_own_counts_too():
    own = judged("other_hospital", CHANCE, UP)
    assert "the control “other hospital” is above chance" in reading("generated", UP, [*findings(), own])
    masked = [item for item in findings() if item.name != "lip_masked"]
    below = judged("lip_masked", BELOW, UP, (-0.1, 0.1))
    said = reading("generated", UP, [*masked, below])
    assert f"the control “lip masked” is {NOT_LOWER}" in said
    assert "stands" in reading("generated", UP, [*masked, judged("lip_masked", BELOW, UP, (0.1, 0.2))])
