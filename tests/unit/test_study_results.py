"""What is counted of a study's ratings, and what is not told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rated_studies import answers, table, told

from diffusioncleft.diffusioncleft_core.report.study_page import PHANTOM, study_page
from diffusioncleft.diffusioncleft_core.study.design import Design, SetDesign
from diffusioncleft.diffusioncleft_core.study.design_file import load_design
from diffusioncleft.diffusioncleft_core.study.items import Item
from diffusioncleft.diffusioncleft_core.study.ratings import (
    Rating,
    rating_table,
)
from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document


@pytest.fixture(scope="module")
def document():
    return study_document(table(), load_design("paper_plus"), simulated=True)


def test_every_part_of_the_study_is_told(document):
    realism = document["questions"]["realism"]
    whole = next(
        cell for cell in realism["cells"] if (cell["origin"], cell["condition"]) == ("generated", "all")
    )
    assert whole["images"] == 50 and whole["ratings"] == 100
    assert sum(whole["distribution"].values()) == 100 and list(whole["distribution"]) == list("12345")
    assert whole["mean"]["ci95"][0] < whole["mean"]["value"] < whole["mean"]["ci95"][1]
    assert [cell["condition"] for cell in realism["cells"][:3]] == ["all", "pre_op", "post_op"]
    assert realism["agreement"]["images"] == 60 and realism["repeats"]["pictures"] == 8
    assert realism["comparisons"][0]["margin"] == 0.5
    assert "superiority" in realism["comparisons"][0]["ordinal"]
    assert document["questions"]["origin"]["detection"][0]["accuracy"]["value"] == pytest.approx(0.5, abs=0.2)


def test_the_document_is_json_and_names_no_rater_and_no_image(document):
    text = json.dumps(document, allow_nan=False)
    assert "Dr." not in text and "generated1" not in text and "again1" not in text


def test_two_raters_are_two_raters_and_nothing_is_significant(document):
    words = told(document)
    assert "These are two raters" in words and "can't be told from so few" in words
    assert "significan" not in words.lower()
    assert "simulated" in words


def test_eight_raters_stand_for_raters_like_them():
    found = study_document(table(raters=8))
    assert "raters like these" in told(found)
    assert found["questions"]["realism"]["cells"][0]["mean"]["about"] == "raters like these"


def test_equivalence_that_is_not_shown_is_no_proof_of_a_difference():
    words = told(study_document(table(quality=1.0, shift=0.8)))
    assert "equivalence is not shown, which is no proof of a difference" in words


def test_one_rater_has_no_agreement_and_the_rest_stays():
    found = study_document(table(raters=1))
    assert found["questions"]["realism"]["agreement"] is None
    assert found["questions"]["realism"]["cells"][0]["mean"]["value"] > 3
    assert "One rater" in told(found)


def test_without_real_images_nothing_is_compared():
    found = study_document(table(real=0))
    assert found["questions"]["realism"]["comparisons"] == []
    assert study_page(found).drawings


def test_nothing_is_told_of_fewer_than_five_photographs_unless_they_are_phantoms():
    few = table(real=4)
    hidden = study_document(few)
    assert hidden["sets"]["real"]["images"] is None
    cells = [cell for cell in hidden["questions"]["realism"]["cells"] if cell["origin"] == "real"]
    assert cells and all(cell["mean"] is None for cell in cells)
    assert hidden["questions"]["realism"]["comparisons"][0]["difference"] is None
    assert hidden["questions"]["origin"]["detection"] == []
    shown = study_document(few, phantom=True)
    assert shown["sets"]["real"]["images"] == 4
    assert shown["questions"]["realism"]["comparisons"][0]["difference"] is not None


def test_photographs_beside_pictures_of_the_phantom_model_are_photographs():
    drawn = SetDesign("generated", 20, "generated", phantom=True)
    questions = load_design("paper_plus").questions
    found = {
        real: study_document(table(generated=20, real=3), Design("s", {"en": "S"}, questions, sets))
        for real, sets in {
            "photographs": (drawn, SetDesign("real", 3, "real")),
            "phantoms": (drawn, SetDesign("real", 3, "real", phantom=True)),
        }.items()
    }
    assert {real: document["phantom"] for real, document in found.items()} == {
        "photographs": False,
        "phantoms": True,
    }
    hidden = found["photographs"]
    cells = [cell for cell in hidden["questions"]["realism"]["cells"] if cell["origin"] == "real"]
    assert hidden["sets"]["real"]["images"] is None and all(cell["mean"] is None for cell in cells)
    assert found["phantoms"]["sets"]["real"]["images"] == 3
    assert study_page(hidden).banners == [] and study_page(found["phantoms"]).banners == [PHANTOM]


@pytest.mark.parametrize(
    ("sets", "of_phantoms"),
    [
        ((("generated", True), ("real", False)), False),
        ((("generated", False), ("real", True)), True),
        ((("real", True), ("real", False)), False),
        ((("generated", True), ("generated", False)), True),
        ((("generated", False),), False),
    ],
)
def test_the_real_sets_say_whether_a_study_is_of_phantoms(sets, of_phantoms):
    made = tuple(SetDesign(f"set{i}", 5, role, phantom) for i, (role, phantom) in enumerate(sets))
    assert replace(load_design("paper"), sets=made).of_phantoms is of_phantoms


def rated_otherwise(items, ratings, origin, dropped=()):
    """The table when raters had said something else of the pictures of a set, and seen fewer of them."""
    its = {item.id for item in items if item.origin == origin}
    other = {"origin": "real", "realism": 1, "plausibility": 1}
    changed = [
        replace(rating, value=other[rating.question], seconds=99.0) if rating.item in its else rating
        for rating in ratings
        if rating.item not in dropped
    ]
    return rating_table(changed, items, {origin: "real"})


def test_no_figure_depends_on_what_was_said_of_fewer_than_five_photographs():
    """Neither their number nor their ratings can be had by subtracting what is told of the others."""
    items, ratings = answers(generated=20, real=3)
    items = [replace(item, groups=items[0].groups) if item.origin == "real" else item for item in items]
    items.append(Item("seen again", "real", "pre_op", repeat_of="real1"))
    ratings += [Rating(f"Dr. {n}", "seen again", "realism", 5, 9.0) for n in range(2)]
    design = load_design("paper_plus")
    found = study_document(rating_table(ratings, items), design)
    assert found == study_document(rated_otherwise(items, ratings, "real", ["real2"]), design)
    realism = found["questions"]["realism"]
    assert realism["agreement"]["images"] == 20 and realism["repeats"]["pictures"] == 8
    assert "leaves out the sets of fewer than five photographs" in told(found)
    phantoms = study_document(rating_table(ratings, items), design, phantom=True)["questions"]["realism"]
    assert phantoms["agreement"]["images"] == 23 and phantoms["repeats"]["pictures"] == 9


def test_a_small_set_of_photographs_is_left_out_beside_a_large_one():
    items, ratings = answers(generated=20)
    items += [Item(f"clinic{n}", "clinic", "pre_op") for n in range(3)]
    ratings += [
        Rating(f"Dr. {rater}", f"clinic{n}", "realism", 4, 9.0) for n in range(3) for rater in range(2)
    ]
    found = study_document(rating_table(ratings, items, {"clinic": "real"}))
    assert found == study_document(rated_otherwise(items, ratings, "clinic", ["clinic2"]))
    realism = found["questions"]["realism"]
    assert realism["agreement"]["images"] == 30 and realism["comparisons"][0]["real_images"] == 10


def test_the_few_repeats_of_photographs_are_left_out():
    """Ten photographs are told of; what a rater said again of two of them is not."""
    items, ratings = answers()
    shown = {item.id: item for item in items}
    items += [replace(shown[f"real{n}"], id=f"once more {n}", repeat_of=f"real{n}") for n in range(2)]
    ratings += [
        Rating(f"Dr. {rater}", f"once more {n}", "realism", 1, 9.0) for n in range(2) for rater in range(2)
    ]
    assert study_document(rating_table(ratings, items))["questions"]["realism"]["repeats"]["pictures"] == 8


def test_no_part_is_told_from_which_fewer_than_five_photographs_follow():
    """Six photographs before and four after repair: the four would follow from all and the six."""
    items, ratings = answers(repeats=0)
    moved = [replace(item, condition="pre_op") if item.id == "real0" else item for item in items]
    found = study_document(rating_table(ratings, moved))
    cells = [cell for cell in found["questions"]["realism"]["cells"] if cell["origin"] == "real"]
    assert {cell["condition"]: cell["images"] for cell in cells} == {
        "all": 10,
        "pre_op": None,
        "post_op": None,
    }
    compared = {
        each["condition"]: each["difference"] for each in found["questions"]["realism"]["comparisons"]
    }
    assert compared["all"] and not compared["pre_op"] and not compared["post_op"]


def test_all_fives_are_told_with_a_width_and_kappa_is_explained():
    found = study_document(table(quality=9.0))
    realism = found["questions"]["realism"]
    assert realism["cells"][0]["mean"]["value"] == 5 and realism["cells"][0]["mean"]["ci95"][0] < 5
    assert realism["agreement"]["kappa"] == {"value": None, "ci95": None}
    assert "can't be computed" in told(found)
    assert "missing" in realism["comparisons"][0]["ordinal"]
    assert study_page(found).drawings


def rated_twice(*pairs):
    """Two raters' answers on pictures, so many times each pair."""
    answers = [pair for *pair, times in pairs for _ in range(times)]
    items = [Item(f"p{number}", "generated") for number in range(len(answers))]
    return rating_table(
        [
            Rating(rater, item.id, "realism", pair[place])
            for item, pair in zip(items, answers, strict=True)
            for place, rater in enumerate(("A", "B"))
        ],
        items,
    )


def test_agreement_that_is_not_above_chance_is_called_that_and_ac2_does_not_save_it():
    blind = told(study_document(rated_twice((5, 5, 58), (4, 5, 1), (5, 4, 1))))
    assert "the same answer on 97 %" in blind and "each answering as often as it did, 97 %" in blind
    assert "Agreement beyond chance is not shown" in blind and "the one to read" not in blind
    assert "98 % of the ratings are 5" in blind and "Kappa is -0.02" in blind
    seeing = told(study_document(rated_twice((5, 5, 50), (2, 2, 10))))
    assert "not shown" not in seeing and "AC2 does not count agreement on a frequent answer as luck" in seeing
    mixed = told(study_document(rated_twice((5, 4, 15), (4, 5, 15), (5, 5, 15), (4, 4, 15))))
    assert "Agreement beyond chance is not shown: raters who did not look" in mixed


def test_a_rater_who_left_pictures_out_costs_no_other():
    items, ratings = answers()
    kept = [rating for number, rating in enumerate(ratings) if number % 7]
    found = study_document(rating_table(kept, items))
    assert found["questions"]["realism"]["agreement"]["images"] < 60
    assert study_page(found).drawings
