"""The sampling plan: in every beginning each value has its share, same settings give the same rows."""

import itertools
import json
import math
import pickle
import tracemalloc
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import AttributeChoices, Strata, sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import (
    Plan,
    PlanRow,
    as_plan,
    extend_plan,
    read_plan,
    write_plan,
)
from diffusioncleft.diffusioncleft_core.conditions.prompts import build_prompt
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.progress import watched

VOCABULARY = load_vocabulary()
PRE, POST = VOCABULARY.condition("pre_op"), VOCABULARY.condition("post_op")


def counts(rows, name):
    return Counter(row.attributes[name] for row in rows if name in row.attributes)


def assert_shares(rows, name, shares):
    """Counts of `name` are within one of `shares` (any scale) of the rows that have it."""
    found = counts(rows, name)
    n, total = sum(found.values()), sum(shares.values())
    assert set(found) <= set(shares)
    for value, share in shares.items():
        assert abs(found[value] - Fraction(share * n, total)) < 1, (name, value, found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(any), st.integers(0, 10**6))
def test_every_beginning_of_a_sequence_holds_each_share_to_within_one(weights, seed):
    named = {str(i): Fraction(weight, 7) for i, weight in enumerate(weights)}
    strata, total, seen = Strata(named, str(seed)), sum(named.values()), Counter()
    for place in range(1, 150):
        seen[strata.draw()] += 1
        assert all(abs(seen[value] - place * weight / total) < 1 for value, weight in named.items())


def test_a_sequence_is_random_within_its_shares():
    weights = {"a": Fraction(1), "b": Fraction(1), "c": Fraction(2)}
    sequences = set()
    for seed in range(40):
        strata = Strata(weights, str(seed))
        sequences.add("".join(strata.draw() for _ in range(12)))
    assert len(sequences) > 30


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([PRE, POST]), st.integers(1, 130), st.integers(0, 10**6))
def test_paper_mode_is_uniform(condition, n, seed):
    rows = sampling_plan(condition, n, seed)
    for name in condition.mode("paper").draw:
        shares = dict.fromkeys(condition.attributes[name], 1)
        if name == "scar":
            shares = {"scar": 1, "scars": 1}
        meant = [row for row in rows if condition.attribute(name).applies(row.attributes)]
        assert sum(counts(rows, name).values()) == len(meant)
        assert_shares(meant, name, shares)


def test_a_side_is_asked_of_every_unilateral_cleft_and_of_no_other():
    rows = sampling_plan(PRE, 40, 3)
    assert all(("side" in row.attributes) == (row.attributes["cleft_type"] == "unilateral") for row in rows)
    assert all("on the left side" in row.prompt for row in rows if row.attributes.get("side") == "left")


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6))
def test_clinical_mode_weights_pre_op_to_babies_and_strata_hold_in_dependent_attributes(n, seed):
    rows = sampling_plan(PRE, n, seed, AttributeChoices("clinical"))
    assert_shares(rows, "subject", {"baby": 17, "girl": 1, "boy": 1, "kid": 1})
    unilateral = [row for row in rows if row.attributes["cleft_type"] == "unilateral"]
    assert all("side" in row.attributes for row in unilateral)
    assert sum(counts(rows, "side").values()) == len(unilateral)
    assert_shares(unilateral, "side", {"left": 1, "right": 1})
    complete = [row for row in unilateral if row.attributes["severity"] == "complete"]
    incomplete = [row for row in unilateral if row.attributes["severity"] == "incomplete"]
    assert_shares(complete, "nasal_asymmetry", {"slight": 1, "marked": 1})
    assert_shares(incomplete, "nasal_asymmetry", {"none": 1, "slight": 1, "marked": 1})
    older = [row for row in rows if row.attributes["subject"] != "baby"]
    assert_shares(older, "hair_length", {"short": 1, "long": 1})
    assert set(counts([row for row in rows if row not in older], "hair_length")) <= {"short"}


def test_a_repair_has_a_scar_for_each_repaired_side_in_clinical_mode():
    for row in sampling_plan(POST, 200, 3, AttributeChoices("clinical")):
        assert (row.attributes["cleft_type"], row.attributes["scar"]) not in {
            ("unilateral", "scars"),
            ("bilateral", "scar"),
        }


def test_attributes_are_independent_of_each_other():
    rows = sampling_plan(PRE, 2400, 5)
    pairs = Counter((row.attributes["skin"], row.attributes["cleft_type"]) for row in rows)
    expected = 2400 / 12
    chi_squared = sum((count - expected) ** 2 / expected for count in pairs.values())
    assert len(pairs) == 12
    assert chi_squared < 20.5  # 5 degrees of freedom, p = 0.001


def test_the_same_settings_give_the_same_rows_and_another_seed_others():
    first = sampling_plan(PRE, 60, 1)
    assert first == sampling_plan(PRE, 60, 1)
    other = sampling_plan(PRE, 60, 2)
    assert [row.attributes for row in first] != [row.attributes for row in other]
    assert not {row.seed for row in first} & {row.seed for row in other}
    assert not {row.seed for row in first} & {row.seed for row in sampling_plan(POST, 60, 1)}


def test_rows_are_the_same_in_every_python_and_release():
    rows = sampling_plan(PRE, 3, 1)
    assert [row.seed for row in rows] == [127061701571686, 34370336356071, 90145166821532]
    assert [row.attributes["skin"] for row in rows] == ["medium", "fair", "olive"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.sampled_from(["paper", "clinical"]))
def test_a_shorter_plan_is_the_beginning_of_a_longer_one(n, more, mode):
    choices = AttributeChoices(mode)
    assert sampling_plan(POST, n + more, 9, choices)[:n] == sampling_plan(POST, n, 9, choices)


def test_seeds_are_distinct_and_exact_in_json_readers_with_floats():
    seeds = [row.seed for row in sampling_plan(PRE, 2000, 0)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**48 and int(float(seed)) == seed for seed in seeds)


def test_an_attribute_can_be_fixed_weighted_left_out_or_drawn_in_addition():
    rows = sampling_plan(
        PRE,
        40,
        1,
        AttributeChoices(
            fixed={"skin": "dark", "cleft_type": "unilateral"},
            weights={"subject": {"baby": 3, "girl": 1}},
            omit=["eyes"],
            draw=["side"],
        ),
    )
    assert counts(rows, "skin") == {"dark": 40}
    assert counts(rows, "subject") == {"baby": 30, "girl": 10}
    assert counts(rows, "side") == {"left": 20, "right": 20}
    assert not counts(rows, "eyes")
    assert all(row.prompt == build_prompt(PRE, row.attributes) for row in rows)


def test_a_fixed_dependent_attribute_is_said_where_it_means_something():
    rows = sampling_plan(PRE, 20, 1, AttributeChoices(fixed={"side": "left"}))
    assert counts(rows, "side") == {"left": 10}
    assert all(row.attributes["cleft_type"] == "unilateral" for row in rows if "side" in row.attributes)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"mode": "clinic"}, r"no mode 'clinic'; did you mean 'clinical'\? Allowed: paper, clinical"),
        ({"fixed": {"skin": "blue"}}, r"no skin 'blue'"),
        ({"omit": ["eye"]}, r"no attribute 'eye'; did you mean 'eyes'"),
        ({"weights": {"skin": {"blue": 1}}}, r"no skin 'blue'"),
        ({"weights": {"skin": {"dark": -1}}}, r"weight of skin dark must be 0 or more"),
        ({"weights": {"skin": {"dark": math.nan}}}, r"weight of skin dark must be 0 or more"),
        ({"weights": {"skin": {"dark": 0}}}, r"skin needs at least one weight above 0"),
        ({"weights": {"skin": {"dark": 1, "light": 1e-6}}}, r"a weight of skin is below a thousandth"),
        ({"fixed": {"skin": "dark"}, "omit": ["skin"]}, r"skin is both fixed and left out"),
        (
            {"fixed": {"side": "left", "cleft_type": "bilateral"}},
            r"side can be set only with cleft_type unilateral",
        ),
    ],
)
def test_an_impossible_plan_is_a_users_mistake(choices, message):
    with pytest.raises(UserError, match=message):
        sampling_plan(PRE, 3, 0, AttributeChoices(**choices))


def test_a_plan_of_no_row_is_a_users_mistake():
    with pytest.raises(UserError, match="a plan needs at least one row"):
        sampling_plan(PRE, 0, 0)


def test_a_plan_of_more_rows_than_there_are_numbers_for_is_refused():
    with pytest.raises(UserError, match="at most 1,000,000 rows"):
        sampling_plan(PRE, 1_000_001, 0)


def test_a_plan_survives_its_file(tmp_path):
    rows = sampling_plan(POST, 12, 4, AttributeChoices("clinical"))
    write_plan(tmp_path / "plan.jsonl", rows)
    assert read_plan(tmp_path / "plan.jsonl") == rows


def test_a_plan_is_made_longer_and_keeps_its_rows(tmp_path):
    path = tmp_path / "plan.jsonl"
    assert extend_plan(path, sampling_plan(PRE, 10, 4)) == 0
    before = path.read_bytes()
    assert extend_plan(path, sampling_plan(PRE, 25, 4)) == 10
    assert path.read_bytes().startswith(before)
    assert read_plan(path) == sampling_plan(PRE, 25, 4)
    assert extend_plan(path, sampling_plan(PRE, 5, 4)) == 25
    assert len(read_plan(path)) == 25


def test_a_plan_that_was_torn_is_completed(tmp_path):
    path = tmp_path / "plan.jsonl"
    write_plan(path, sampling_plan(PRE, 10, 4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert extend_plan(path, sampling_plan(PRE, 10, 4)) == 9
    assert path.read_bytes() == whole


def test_a_plan_of_other_settings_is_refused_and_kept(tmp_path):
    path = tmp_path / "plan.jsonl"
    write_plan(path, sampling_plan(PRE, 10, 4))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"holds a plan with other settings \(row 0 differs\)"):
        extend_plan(path, sampling_plan(PRE, 20, 5))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    ['{"index": 0}', '{"index": 0, "prompt": "a", "seed": "x", "attributes": [1]}', "[]", "file,consent"],
)
def test_a_file_that_is_no_plan_is_a_users_mistake_and_is_not_to_be_deleted(tmp_path, line):
    (tmp_path / "plan.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="is no sampling plan") as refused:
        read_plan(tmp_path / "plan.jsonl")
    assert "diffusioncleft plan" in str(refused.value) and "delete" not in str(refused.value)


def test_the_command_writes_a_plan_and_makes_it_longer(command, tmp_path):
    options = (
        "plan",
        "--condition",
        "pre_op",
        "--mode",
        "clinical",
        "--seed",
        3,
        "--weight",
        "skin=dark:2,light:1",
    )
    first = command(*options, "--n", 9, "--out", "plan.jsonl")
    assert (first.returncode, first.stderr) == (0, "")
    assert "dark 6" in first.stdout
    done = command(*options, "--n", 12, "--out", "plan.jsonl")
    assert "12 rows, 9 of them there before" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "plan.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["index"] for row in rows] == list(range(12))
    assert set(rows[0]) == {"index", "prompt", "seed", "attributes", "condition"}
    again = command(*options, "--n", 12, "--out", "plan.jsonl", "--bare-trigger")
    assert again.returncode == 2
    assert "other settings" in again.stderr


def test_a_long_plan_tells_how_far_it_is_and_ends_where_it_is_stopped():
    heard = []

    def stop(what, done, total):
        heard.append((what, done, total))
        if done == 200:
            raise InterruptedError

    with watched(stop), pytest.raises(InterruptedError):
        sampling_plan(PRE, 1_000_000, 1)
    assert heard == [("planning", 100, 1_000_000), ("planning", 200, 1_000_000)]


ROWS = [
    PlanRow(0, "a face", 5, {"skin": "pale", "eyes": "blue"}, "pre_op"),
    PlanRow(2_000_003, "another", 2**48 - 1, {"eyes": "blue", "skin": "pale"}, "pre_op"),
    PlanRow(1, "a face", 7, {"skin": "pale", "eyes": "blue"}, "post_op"),
    PlanRow(3, "a face", 5, {}, "pre_op"),
]


def test_a_plan_is_the_sequence_of_its_rows():
    plan = Plan(ROWS)
    assert len(plan) == 4 and list(plan) == ROWS and plan == ROWS and plan == ROWS
    assert [plan[i] for i in (0, -1, 2)] == [ROWS[0], ROWS[3], ROWS[2]]
    assert plan[1:3] == ROWS[1:3] and plan[::-1] == ROWS[::-1] and plan[4:] == []
    assert list(plan[1].attributes) == ["eyes", "skin"], "attributes keep their order"
    assert plan != ROWS[:3] and plan != [*ROWS[:3], ROWS[0]] and plan != "rows"
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert as_plan(plan) is plan and as_plan(ROWS) == plan
    with pytest.raises(IndexError):
        plan[4]


def test_a_row_is_found_by_its_index():
    plan = Plan(ROWS)
    assert [plan.at(row.index) for row in ROWS] == ROWS
    assert plan.at(2) is None and plan.at(10**9) is None and plan.at(-1) is None and Plan().at(0) is None
    assert not plan.has_doubles and not Plan().has_doubles
    plan.append(PlanRow(1, "again", 9, {}, "pre_op"))
    assert plan.has_doubles and plan.at(1) == ROWS[2]


def test_a_row_more_costs_a_few_bytes():
    rows = (PlanRow(i, "a face", i, {"skin": "pale"}, "pre_op") for i in itertools.count())
    plan = Plan(itertools.islice(rows, 1000))
    tracemalloc.start()
    for row in itertools.islice(rows, 20_000):
        plan.append(row)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 40 * 20_000
