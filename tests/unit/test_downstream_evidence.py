"""The document of the evidence: complete, checked, and without a word on any person."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from downstream_sets import CONTROLS, of, on_people, task

from diffusioncleft.diffusioncleft_core.downstream.compare import exact_mcnemar, images_needed
from diffusioncleft.diffusioncleft_core.downstream.document import (
    check_document,
    read_document,
    rounded,
    write_document,
)
from diffusioncleft.diffusioncleft_core.downstream.evidence import (
    Control,
    TaskEvidence,
    downstream_document,
    task_block,
)
from diffusioncleft.diffusioncleft_core.downstream.reading import CHANCE, LINE
from diffusioncleft.diffusioncleft_core.downstream.resampling import METRICS
from diffusioncleft.diffusioncleft_core.downstream.scores import figures
from diffusioncleft.diffusioncleft_core.errors import UserError

FEW = 100
"""Resamples."""


@pytest.fixture(scope="module")
def made():
    return downstream_document({"lip_anomaly": task(whole=True)}, resamples=FEW)


@pytest.fixture
def document(made):
    return copy.deepcopy(made)


@pytest.fixture
def block(document):
    return document["tasks"]["lip_anomaly"]


def controls(block):
    return {row["name"]: row for row in block["controls"]}


def test_the_file_gives_back_the_document(document, tmp_path):
    write_document(tmp_path / "downstream.json", document)
    assert read_document(tmp_path / "downstream.json") == document


def test_the_document_names_no_person_and_no_picture(document):
    assert "secret" not in json.dumps(document)


def test_every_source_control_and_comparison_is_there(block):
    assert list(block["sources"]) == ["generated", "deformed"]
    assert [row["name"] for row in block["controls"]] == list(CONTROLS)
    assert [(row["a"], row["b"]) for row in block["comparisons"]] == [
        ("generated", "deformed"),
        ("generated", "real"),
        ("generated", "real_and_generated"),
    ]
    assert [point["n"] for point in block["curve"]] == [100, 200, 500, 1000, 2000]
    assert block["test"]["n"] == 240 and block["test"]["n_subjects"] == 120
    assert (block["test"]["n_not_found"], block["test"]["touched"]) == (7, "2026-11-24")
    assert block["sources"]["generated"]["seeds"]["n"] == 5


def test_the_reading_is_that_of_the_controls(block):
    verdicts = {name: (row["verdict"], row["passed"]) for name, row in controls(block).items()}
    assert verdicts["lip_alone"] == verdicts["generated_negatives"] == ("above chance", True)
    for name in ("lip_masked", "background", "shuffled_labels", "base_as_both"):
        assert verdicts[name] == ("not told from chance", True)
    assert verdicts["real"] == ("the source is below it", None)
    assert block["reading"].startswith("The reading that it learned the lip stands;")


def test_a_classifier_whose_threshold_does_not_carry_over_orders_and_does_not_sort():
    plain = task()
    shifted = [replace(item, scores=0.5 * item.scores) for item in plain.sources["generated"]]
    block = task_block(replace(plain, sources={"generated": shifted}), FEW)
    assert block["sources"]["generated"]["sensitivity"]["value"] == 0
    assert "stands, though at its own threshold it does not sort them;" in block["reading"]


@pytest.mark.parametrize(
    ("name", "effect", "words"),
    [
        ("background", 1.5, "does not need the lip"),
        ("lip_masked", 1.5, "does not need the lip"),
        ("base_as_both", 1.5, "learns the generator"),
        ("generated_negatives", 0.0, "may tell generated from real"),
        ("shuffled_labels", 1.5, "The evaluation leaks"),
        ("generated", 0.0, "nothing to explain"),
    ],
)
def test_a_control_that_comes_out_otherwise_is_in_the_reading(name, effect, words):
    assert words in task_block(task(**{name: effect}), FEW)["reading"]


def test_people_who_are_known_mark_the_test_set_and_the_reading():
    block = task_block(task(leak="9 of the 120 people in the test set are also on …"), FEW)
    assert block["test"]["leak"].startswith("9 of the 120")
    assert block["reading"].startswith("What the classifier learned is not shown: 9 of")


def test_each_control_at_chance_is_judged_by_a_wider_interval_the_more_there_are(block):
    rows = controls(block)
    for name, row in rows.items():
        assert row["level"] == pytest.approx(0.9875 if row["expected"] == CHANCE else 0.95)
        own = row["figures"]["auc"]["ci95_trainings"]
        low, high = row["judged_by"]
        if row["expected"] == CHANCE:
            assert low < own[0] and high > own[1], name
        elif row["expected"] == LINE:
            difference = next(item for item in block["comparisons"] if item["b"] == name)["difference"]["auc"]
            assert (low, high) == pytest.approx(tuple(difference["ci95_trainings"])), name
        else:
            assert (low, high) == pytest.approx(tuple(own)), name


def test_trainings_that_lie_far_apart_are_no_evidence_against_a_control():
    """Labels shuffled another way each time: one seed may be far from chance on all images."""
    plain = task()
    apart = [
        on_people(effect, trainings=1, seed=i)[0] for i, effect in enumerate((2.5, -1.5, 2.0, -1.0, 0.8))
    ]
    listed = [
        replace(item, trainings=apart) if item.name == "shuffled_labels" else item for item in plain.controls
    ]
    row = controls(task_block(replace(plain, controls=listed), FEW))["shuffled_labels"]
    assert row["figures"]["auc"]["ci95"][0] > 0.5, (
        "chance in the draw of people alone would take it for a leak"
    )
    assert (row["verdict"], row["passed"]) == ("can’t be told, too few trainings", None)
    reading = task_block(replace(plain, controls=listed), FEW)["reading"]
    assert "it is not shown without: shuffled labels (can’t be told, too few trainings)" in reading
    alone = [
        replace(item, trainings=apart[:1]) if item.name == "shuffled_labels" else item
        for item in plain.controls
    ]
    assert controls(task_block(replace(plain, controls=alone), FEW))["shuffled_labels"]["passed"] is False


def test_a_control_that_was_not_run_is_listed_and_keeps_the_reading_open():
    plain = task()
    listed = [replace(item, trainings=()) if item.name == "background" else item for item in plain.controls]
    block = task_block(replace(plain, controls=listed), FEW)
    row = controls(block)["background"]
    assert (row["verdict"], row["figures"], row["passed"]) == ("not run", None, None)
    assert "without: background (not run)." in block["reading"]
    assert controls(block)["lip_masked"]["level"] == pytest.approx(1 - 0.05 / 3)
    check_document({"schema": 1, "phantom": False, "tasks": {"t": rounded(block)}})


def test_a_control_below_the_source_is_judged_by_their_difference():
    plain = task()
    for effect, passed in ((0.8, True), (2.5, False)):
        below = [
            replace(item, expected="below", trainings=on_people(effect, seed=77))
            if item.name == "lip_masked"
            else item
            for item in plain.controls
        ]
        row = controls(task_block(replace(plain, controls=below), FEW))["lip_masked"]
        assert row["passed"] is passed and row["level"] == 0.95


def test_predictions_are_paired_by_their_images_and_not_by_their_place():
    plain = replace(task(), controls=())
    order = np.random.default_rng(0).permutation(240)
    shuffled = [item._at(order.tolist()) for item in plain.sources["deformed"]]
    mixed = replace(plain, sources={**plain.sources, "deformed": shuffled})
    assert task_block(mixed, FEW)["comparisons"] == task_block(plain, FEW)["comparisons"]


def test_other_images_are_never_compared():
    plain = task()
    few = [item.where(np.arange(240) < 200) for item in on_people(1.0)]
    with pytest.raises(ValueError, match="same images"):
        task_block(replace(plain, controls=[Control("lip_masked", "x", CHANCE, few)]), FEW)
    with pytest.raises(ValueError, match="same images"):
        task_block(replace(plain, sources={**plain.sources, "deformed": few}), FEW)
    with pytest.raises(ValueError, match="a source"):
        task_block(replace(plain, sources={}), FEW)


def test_small_numbers_of_people_are_untold_of_photographs_and_told_of_phantoms():
    groups = task_block(task(whole=True), FEW)["sources"]["generated"]["groups"]["age_group"]
    assert groups["baby"]["accuracy"]["value"] is None and groups["child"]["accuracy"]["value"] is None
    assert "fewer than 5" in groups["baby"]["accuracy"]["note"]
    free = task_block(task(photographs=False, whole=True), FEW)
    assert free["sources"]["generated"]["groups"]["age_group"]["baby"]["accuracy"]["n"] == 12
    one = of([1] * 3 + [0] * 30, [0.9] * 3 + [0.1] * 30, n_not_found=2)
    small = TaskEvidence("t", "p", "n", {"generated": [one]}, "2026-11-24")
    block = task_block(small, FEW)
    assert block["test"]["n_not_found"] is None and block["test"]["n"] == 33
    assert block["sources"]["generated"]["auc"]["value"] is None
    assert block["sources"]["generated"]["seeds"]["mean"] is None
    assert "too few people" in block["reading"]
    counts = task_block(replace(small, photographs=False), FEW)
    assert counts["test"]["n_not_found"] == 2 and counts["sources"]["generated"]["auc"]["value"] == 1


def test_two_sources_are_not_compared_where_a_class_has_few_people():
    labels = [1] * 3 + [0] * 30
    sides = {name: [of(labels, [score] * 3 + [0.1] * 30)] for name, score in (("a", 0.9), ("b", 0.2))}
    line = Control("real", "x", LINE, sides["b"])
    small = TaskEvidence("t", "p", "n", sides, "2026-11-24", controls=[line])
    assert task_block(small, FEW)["comparisons"] == []
    drawn = replace(small, photographs=False)
    assert [row["only_a"] for row in task_block(drawn, FEW)["comparisons"]] == [3, 3]
    whole = replace(small, sources={name: [of([1] * 5 + [0] * 30, [0.9] * 5 + [0.1] * 30)] for name in "ab"})
    assert len(task_block(replace(whole, controls=()), FEW)["comparisons"]) == 1


@pytest.mark.parametrize(
    ("n_a", "n_b", "told"), [(7, 2, False), (2, 7, False), (7, 6, True), (7, 0, True), (0, 0, True)]
)
def test_the_p_is_untold_where_the_people_follow_from_it(n_a, n_b, told):
    labels = np.arange(60) % 2
    right_a, right_b = np.ones(60, bool), np.ones(60, bool)
    right_b[:n_a] = False
    right_a[n_a : n_a + n_b] = False
    a, b = ([of(labels, 0.2 + 0.6 * np.where(item, labels, 1 - labels))] for item in (right_a, right_b))
    both = TaskEvidence("t", "p", "n", {"a": a, "b": b}, "2026-11-24")
    document = downstream_document({"t": both}, resamples=FEW)
    (row,) = document["tasks"]["t"]["comparisons"]
    assert (row["mcnemar_p"] is not None) is told
    (row,) = task_block(replace(both, photographs=False), FEW)["comparisons"]
    assert row["mcnemar_p"] == exact_mcnemar(n_a, n_b)


def test_discordant_people_are_untold_where_they_are_few():
    labels = np.arange(60) % 2
    right, other = np.ones(60, bool), np.ones(60, bool)
    other[:3] = False
    a, b = ([of(labels, 0.2 + 0.6 * np.where(item, labels, 1 - labels))] for item in (right, other))
    told = TaskEvidence("t", "p", "n", {"a": a, "b": b}, "2026-11-24")
    (row,) = task_block(told, FEW)["comparisons"]
    assert (row["only_a"], row["only_b"], row["n"]) == (None, None, 60)
    (row,) = task_block(replace(told, photographs=False), FEW)["comparisons"]
    assert row["only_a"] == 3


def test_images_needed_to_tell_two_sources_apart_stand_beside_them():
    labels = np.arange(100) % 2
    sides = []
    for right in (80, 66):
        called = np.where(np.arange(100) < right, labels, 1 - labels)
        sides.append([of(labels, 0.2 + 0.6 * called)])
    evidence = TaskEvidence("t", "p", "n", {"a": sides[1], "b": sides[0]}, "2026-11-24")
    (row,) = task_block(evidence, FEW)["comparisons"]
    assert row["n_needed"] == images_needed(0.80, 0.66)
    same = TaskEvidence("t", "p", "n", {"a": sides[0], "b": sides[0]}, "2026-11-24")
    assert task_block(same, FEW)["comparisons"][0]["n_needed"] is None


def test_a_phantom_document_says_so_only_when_nothing_else_is_in_it():
    few = TaskEvidence("t", "p", "n", {"a": [of([1, 0] * 6, [0.9, 0.1] * 6)]}, "2026-11-24")
    drawn = replace(few, photographs=False)
    assert downstream_document({"a": drawn}, resamples=FEW)["phantom"] is True
    assert downstream_document({"a": drawn, "b": few}, resamples=FEW)["phantom"] is False
    assert "Not a diagnostic device" in downstream_document({"a": few}, resamples=FEW)["notice"]


def test_the_same_predictions_give_the_same_document(made):
    assert downstream_document({"lip_anomaly": task(whole=True)}, resamples=FEW) == made
    assert rounded({"a": [0.12345678, 1, None, "x"]}) == {"a": [0.123457, 1, None, "x"]}


def test_figures_in_the_document_are_those_of_the_predictions(block):
    source = on_people(2.5, seed=0, grouped=True)
    assert {name: block["sources"]["generated"][name] for name in METRICS} == rounded(
        figures(source, photographs=True, resamples=FEW)
    )


# What is refused


def broken(place, value):
    def change(document):
        at = document
        for key in place[:-1]:
            at = at[key]
        if value is KeyError:
            del at[place[-1]]
        else:
            at[place[-1]] = value
        return document

    return pytest.param(
        change, ".".join(str(key) for key in place), id=f"{'.'.join(map(str, place))}={value}"
    )


TASK = ("tasks", "lip_anomaly")
SOURCE = (*TASK, "sources", "generated")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        broken(("schema",), 2),
        broken(("phantom",), "no"),
        broken(("tasks",), []),
        broken((*TASK, "title"), ""),
        broken((*TASK, "reading"), KeyError),
        broken((*TASK, "classes", "positive"), None),
        broken((*TASK, "model"), "MobileNetV2"),
        broken((*TASK, "test", "n"), -1),
        broken((*TASK, "test", "n_not_found"), 1.5),
        broken((*TASK, "test", "n_subjects"), True),
        broken((*TASK, "test", "touched"), "yesterday"),
        broken((*TASK, "test", "leak"), False),
        broken((*TASK, "sources"), {}),
        broken((*SOURCE, "auc"), KeyError),
        broken((*SOURCE, "auc", "n_subjects"), KeyError),
        broken((*SOURCE, "auc", "value"), 1.0001),
        broken((*SOURCE, "auc", "value"), -0.0001),
        broken((*SOURCE, "auc", "ci95"), None),
        broken((*SOURCE, "auc", "ci95"), [0.1, 0.2, 0.3]),
        broken((*SOURCE, "auc", "ci95"), [0.99, 1.0]),
        broken((*SOURCE, "auc", "ci95"), [0.1, 1.01]),
        broken((*SOURCE, "auc", "ci95_trainings"), [0.99, 1.0]),
        broken((*SOURCE, "groups", "skin_tone", "dark", "brier"), KeyError),
        broken((*SOURCE, "seeds"), None),
        broken((*SOURCE, "reliability"), None),
        broken((*TASK, "controls", 0, "expected"), "luck"),
        broken((*TASK, "controls", 0, "verdict"), ""),
        broken((*TASK, "controls", 0, "passed"), 1),
        broken((*TASK, "controls", 1, "figures", "auc"), KeyError),
        broken((*TASK, "curve", 1, "n"), 100),
        broken((*TASK, "curve", 0, "n"), 0),
        broken((*TASK, "curve", 0, "balanced_accuracy"), None),
        broken((*TASK, "comparisons", 0, "mcnemar_p"), 1.1),
        broken((*TASK, "comparisons", 0, "mcnemar_p"), KeyError),
        broken((*TASK, "comparisons", 0, "b"), None),
        broken((*TASK, "comparisons", 0, "difference", "auc", "value"), -1.1),
        broken((*TASK, "reported", 0, "value"), 79),
        broken((*TASK, "reported", 0, "n"), 0),
        broken((*TASK, "saliency"), 0.7),
        broken((*TASK, "saliency"), {"inside": 1.1, "area": 0.3}),
        broken(
            (
                *TASK,
                "saliency",
            ),
            {"inside": 0.5},
        ),
        broken((*TASK, "saliency"), {"lip": 0.7}),
    ],
)
def test_what_is_not_of_the_schema_is_named_by_its_place(document, tmp_path, change, place):
    wrong = change(document)
    with pytest.raises(UserError) as told:
        write_document(tmp_path / "downstream.json", wrong)
    assert "downstream.json is no downstream evidence of schema 1" in str(told.value)
    named = place.replace(".0.", "[0].").replace(".1.", "[1].")
    said = str(told.value).split("(")[1].split(" ")[0]
    assert named.startswith(said) or said in (f"{named}.inside", f"{named}.area"), told.value
    assert not (tmp_path / "downstream.json").exists()
    assert "\n" not in str(told.value)


def test_a_saliency_of_nothing_is_of_the_schema(document):
    document["tasks"]["lip_anomaly"]["saliency"] = {"inside": None, "area": None, "n": 3}
    check_document(document)


def test_values_at_the_very_ends_are_of_the_schema(document):
    figure = document["tasks"]["lip_anomaly"]["sources"]["generated"]["auc"]
    for value in (0.0, 1.0):
        figure.update(value=value, ci95=[0.0, 1.0], ci95_trainings=[value, value])
        check_document(document)
    for value in (0.19, 0.91):
        figure.update(value=value, ci95=[0.2, 0.9], ci95_trainings=None)
        with pytest.raises(UserError, match=r"sources\.generated\.auc\.ci95"):
            check_document(document)
    figure.update(value=None, ci95=None, ci95_trainings=None, n=None)
    check_document(document)
    figure.update(ci95=[0.1, 0.2])
    with pytest.raises(UserError, match="without a value"):
        check_document(document)
    with pytest.raises(UserError, match="JSON object"):
        check_document([])
