"""The page of a study's results, and its plots."""

from __future__ import annotations

import csv
import re

import pytest
from html_checks import problems
from rated_studies import answers, table, told

from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, write_html
from diffusioncleft.diffusioncleft_core.report.study_page import study_page, write_study_page
from diffusioncleft.diffusioncleft_core.study.design_file import load_design, parse_design
from diffusioncleft.diffusioncleft_core.study.items import Item
from diffusioncleft.diffusioncleft_core.study.ratings import (
    Rating,
    rating_table,
)
from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

MINIMAL_CHOICE = """
name = "mine"
title = "Mine"
[sets.generated]
n = 8
[questions.grade]
kind = "choice"
text = "How severe?"
choices = { none = "None", mild = "Mild", severe = "Severe" }
"""


@pytest.fixture(scope="module")
def document():
    return study_document(table(), load_design("paper_plus"), simulated=True)


def test_the_page_is_sound_and_says_that_nobody_rated(document, tmp_path):
    files = write_study_page(document, tmp_path / "study.html")
    text = (tmp_path / "study.html").read_text("utf-8")
    assert problems(text) == []
    assert "No person judged a picture" in text
    assert {path.suffix for path in files} == {".html", ".svg", ".pdf", ".png", ".csv"}
    with open(tmp_path / "figures" / "study-ratings-generated.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert sum(int(row["ratings"]) for row in rows if row["question"] == "realism") == 100


def test_a_runs_report_has_the_study_and_a_foreign_one_costs_that_part_alone(document, tmp_path):
    path = write_html({"study": document}, None, tmp_path / "report.html")
    assert 'id="study-agreement"' in path.read_text("utf-8")
    path = write_html({"study": {"questions": 5}}, None, tmp_path / "report.html")
    assert UNREADABLE in path.read_text("utf-8")


def test_the_navigation_names_the_study_once_and_each_heading_says_whose_it_is(document, tmp_path):
    path = write_html({"study": document}, None, tmp_path / "report.html")
    text = path.read_text("utf-8")
    navigation = text[text.index("<nav") : text.index("</nav>")]
    assert navigation.count("Rater study, simulated raters") == 1
    sections = re.findall(r'<section id="(study-[\w-]+)"', text)
    assert len(sections) > 4
    parts = navigation[navigation.index("Rater study, simulated raters") :].split("</ul>")[0]
    assert re.findall(r'href="#([\w-]+)"', parts) == sections
    assert text.count("<h2") == text.count("<li><a ")
    assert len(re.findall(r"<h2[^>]*>Rater study, simulated raters: \w", text)) == len(sections)
    assert problems(text) == []


def marked(*, real=10):
    """Ratings in which the first of two raters marks one in five generated and every real picture."""
    items, ratings = answers(real=real)
    for number, item in enumerate(items):
        if item.origin == "real" or number % 5 == 0:
            ratings.append(Rating("Dr. 0", item.id, "wrong", [0.25, 0.75 if item.repeat_of is None else 0.1]))
    return rating_table(ratings, items)


def test_marks_are_counted_and_drawn_and_none_is_told_of_a_photograph():
    found = study_document(marked(), load_design("paper_plus"))
    part = found["questions"]["wrong"]
    cells = {(cell["origin"], cell["condition"]): cell for cell in part["cells"]}
    whole = cells["generated", "all"]
    assert (whole["images"], whole["ratings"], whole["marked"]["n"]) == (50, 100, 10)
    assert whole["marked"]["ci95"][0] < whole["marked"]["value"] == 0.1 < whole["marked"]["ci95"][1]
    assert cells["real", "all"]["marked"]["n"] == 10
    assert part["places"] == {"generated": [[0.25, 0.75]] * 10}, "of repeats and of photographs none"
    assert "a place was marked in 10 %" in told(found) and "(10 of 100, 50 images)" in told(found)
    (drawing,) = [one for one in study_page(found).drawings if one.name == "study-marks-wrong"]
    assert drawing.numbers().splitlines() == ["set,x,y", *["generated,0.25,0.75"] * 10]
    few = study_document(marked(real=4), load_design("paper_plus"))["questions"]["wrong"]
    assert [cell["marked"] for cell in few["cells"] if cell["origin"] == "real"] == [None] * 3
    assert set(study_document(marked(), phantom=True)["questions"]["wrong"]["places"]) == {
        "generated",
        "real",
    }


def test_no_mark_at_all_is_told_too(document):
    part = document["questions"]["wrong"]
    assert part["places"] == {} and part["cells"][0]["marked"]["n"] == 0
    assert part["cells"][0]["marked"]["ci95"][1] > 0


def test_the_answers_to_a_choice_are_counted_on_the_page(tmp_path):
    text = MINIMAL_CHOICE
    design = parse_design(text, "mine.toml")
    items = [Item(f"p{number}", "generated", "pre_op") for number in range(8)]
    values = ["none", "mild", "mild", "severe"] * 2
    given = [Rating("A", item.id, "grade", value) for item, value in zip(items, values, strict=True)]
    found = study_document(rating_table(given, items), design)
    assert found["questions"]["grade"]["cells"][0]["counts"] == {"none": 2, "mild": 4, "severe": 2}
    write_study_page(found, tmp_path / "study.html")
    page = (tmp_path / "study.html").read_text("utf-8").replace("\u00a0", " ")
    assert "How severe?" in page and "4 of 8" in page and problems(page) == []


def test_every_plot_says_that_raters_are_simulated(document):
    for drawing in study_page(document).drawings:
        assert "simulated raters" in drawing.svg.decode("utf-8"), drawing.name


def test_no_mark_of_a_value_is_cut_at_the_end_of_a_scale(document):
    """A mean of 5 is drawn whole."""
    drawings = {one.name: one.svg.decode("utf-8") for one in study_page(document).drawings}
    for name in ("study-ages", "study-means"):
        assert "<use " in drawings[name]
        assert not re.search(r'<g clip-path="[^"]*">\s*<use ', drawings[name]), name


def test_ages_are_told_and_drawn_by_condition():
    """Each point of the plot is the mean of the images of one set, age group and condition."""
    own = table()
    page = study_page(study_document(own, phantom=True))
    (drawing,) = [one for one in page.drawings if one.name == "study-ages"]
    rows = list(csv.DictReader(drawing.numbers().splitlines()))
    for row in rows:
        known = (own.condition == row["condition"]) & (own.groups["age_group"] == row["age_group"])
        part = own.where(known & (own.origin == row["set"])).of(row["question"])
        assert float(row["mean"]) == pytest.approx(part.scores.mean(), abs=1e-4)
    keys = {(row["question"], row["set"], row["condition"], row["age_group"]) for row in rows}
    assert len(keys) == len(rows) == 2 * 2 * 2 * 2


def test_no_table_has_two_columns_of_one_head(document):
    tables = [
        block for part in study_page(document).sections for block in part.blocks if block.kind == "table"
    ]
    assert len(tables) > 4
    for found in tables:
        assert len(set(found.columns)) == len(found.columns), found.columns


def test_the_page_says_what_p_is_held_against(document, tmp_path):
    write_study_page(document, tmp_path / "study.html")
    page = re.sub(r"\s+", " ", (tmp_path / "study.html").read_text("utf-8"))
    assert "p (shown below 0.025)" in page and "where p is below 0.025" in page
    for part in document["questions"].values():
        for found in part.get("comparisons", ()):
            assert found["equivalent"] is (found["p"] < 0.025)


def test_a_handful_of_images_is_not_said_to_find_a_difference(document, tmp_path):
    few = study_document(table(generated=3, real=1, repeats=0), load_design("paper_plus"), phantom=True)
    said = told(few)
    assert "3 against 1 image." in said and "from 1 image;" in said and "1 images" not in said
    assert "true difference" not in said and "can't be told from so few images" in said
    write_study_page(few, tmp_path / "study.html")
    assert "too few images" in (tmp_path / "study.html").read_text("utf-8")
    assert "true difference" in told(document)
