"""What is told of a study: from a table of ratings to study.json, its words, its page and its plots."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_checks import problems

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import folder_lock
from diffusioncleft.diffusioncleft_core.report.html import UNREADABLE, write_html
from diffusioncleft.diffusioncleft_core.report.study_page import study_page, write_study_page
from diffusioncleft.diffusioncleft_core.study.design_file import load_design, parse_design
from diffusioncleft.diffusioncleft_core.study.items import Item
from diffusioncleft.diffusioncleft_core.study.ratings import (
    Rating,
    rating_table,
)
from diffusioncleft.diffusioncleft_core.study.ratings_file import read_ratings, write_ratings
from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document
from diffusioncleft.diffusioncleft_core.study.statistics.simulate import CUTS
from diffusioncleft.diffusioncleft_core.study.web.answers import read_answers
from diffusioncleft.diffusioncleft_core.study.web.store import Store, stored_ratings
from diffusioncleft.tools.study_server import make_study

AGES = ("baby", "child")
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


def answers(raters=2, generated=50, real=10, *, quality=2.4, shift=0.0, repeats=8, seed=0):
    """A study as the paper's, rated by a program: items and ratings. shift: of the real pictures' quality."""
    rng = np.random.default_rng(seed)
    items = [
        Item(
            f"{origin}{number}",
            origin,
            "pre_op" if number % 2 else "post_op",
            {"age_group": AGES[number // 2 % 2], "skin_tone": None, "gender": None},
        )
        for origin, n in (("generated", generated), ("real", real))
        for number in range(n)
    ]
    items += [
        Item(f"again{n}", "generated", items[n].condition, repeat_of=items[n].id) for n in range(repeats)
    ]
    pictures = {item.id: rng.normal(quality + shift * (item.origin == "real"), 0.6) for item in items}
    ratings = []
    for item in items:
        for number in range(raters):
            for question in ("realism", "plausibility"):
                seen = pictures[item.picture] + rng.normal(0.1 * number, 0.6)
                score = int(1 + np.searchsorted(CUTS, seen))
                ratings.append(Rating(f"Dr. {number}", item.id, question, score, 9.0))
            said = "generated" if rng.random() < 0.5 else "real"
            ratings.append(Rating(f"Dr. {number}", item.id, "origin", said))
    return items, ratings


def table(**options):
    items, ratings = answers(**options)
    return rating_table(ratings, items)


@pytest.fixture(scope="module")
def document():
    return study_document(table(), load_design("paper_plus"), simulated=True)


def told(document) -> str:
    parts = [part["words"] for part in document["questions"].values()]
    lines = [*document["words"], *(line for part in parts for line in part)]
    return " ".join(lines).replace("\u00a0", " ")


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


def test_a_csv_made_elsewhere_gives_the_same_figures(tmp_path, monkeypatch):
    """Five columns are enough; order of the lines changes no figure."""
    monkeypatch.chdir(tmp_path)
    own = table(repeats=0)
    write_ratings(tmp_path / "own.csv", own)
    with open("own.csv", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    needed = ("rater", "item", "origin", "question", "value")
    np.random.default_rng(1).shuffle(rows)
    with open("bare.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, needed, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert main(["study", "analyse", "--ratings", "bare.csv", "--out", "out"]) == 0
    bare = json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))
    full = study_document(own)
    for name in ("realism", "plausibility"):
        mine, theirs = (found["questions"][name] for found in (full, bare))
        assert theirs["cells"][0]["mean"]["value"] == pytest.approx(mine["cells"][0]["mean"]["value"])
        assert theirs["cells"][0]["distribution"] == mine["cells"][0]["distribution"]
        assert theirs["agreement"]["ac2"]["value"] == pytest.approx(mine["agreement"]["ac2"]["value"])
    again = read_ratings(tmp_path / "out" / "ratings.csv")
    assert len(again) == len(own)


def test_a_study_is_analysed_from_its_database(tmp_path, capsys):
    study = make_study(tmp_path / "study", n=6, practice=1, side=64)
    assert main(["study", "analyse", str(study.root)]) == 2
    assert "no rating yet" in capsys.readouterr().err
    assert not study.results.exists()
    store = Store(study)
    for name in ("Anna", "Ben"):
        rater = store.invite(name)[0].id
        for number, item in enumerate(study.rated):
            store.save(rater, item.id, f"form {item.id}", {"realism": 4 + number % 2, "plausibility": 5}, 8.0)
    store.close()
    capsys.readouterr()
    (study.results / "figures").mkdir(parents=True)
    for folder in (study.results, study.results / "figures"):
        (folder / ".writing-of-a-killed-call").write_text("half")
    with folder_lock(study.results, str):
        assert main(["study", "analyse", str(study.root)]) == 2
    assert "writes results into" in capsys.readouterr().err
    assert main(["study", "analyse", str(study.root)]) == 0
    assert not [*study.results.rglob(".writing-*")]
    assert "Phantoms. The pictures are drawings" in capsys.readouterr().out
    found = json.loads((study.results / "study.json").read_text("utf-8"))
    assert found["raters"] == 2 and found["margin_from"].startswith("the design")
    assert sum(item["images"] for item in found["sets"].values()) == len(study.rated)
    text = "".join(
        path.read_text("utf-8") for path in (study.results / "study.json", study.results / "study.html")
    )
    assert "Anna" not in text and not any(item.id in text for item in study.items)
    again = ["study", "analyse", str(study.root), "--ratings", str(study.results / "ratings.csv")]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "study.json").read_text("utf-8")) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "the design, stated before the data"),
        ("margin", "changed since the study was made, when it was ±0.5; not stated before the data"),
        ("other", "stated before the data; something else in study.toml was changed since"),
        ("no record", "nothing was kept of it when the study was made, so whether before is not known"),
    ],
)
def test_a_margin_that_was_changed_later_is_not_called_stated_before_the_data(change, said, tmp_path, capsys):
    study = make_study(tmp_path / "study", n=6, practice=0, side=64)
    design = study.root / "study.toml"
    if change == "margin":
        design.write_text(design.read_text("utf-8").replace("margin = 0.5", "margin = 3.0"), "utf-8")
    elif change == "other":
        design.write_text(design.read_text("utf-8") + "# a remark\n", "utf-8")
    elif change == "no record":
        (study.private / "design.json").unlink()
    store = Store(study)
    for name in ("Anna", "Ben"):
        rater = store.invite(name)[0].id
        for number, item in enumerate(study.rated):
            store.save(rater, item.id, f"form {item.id}", {"realism": 4 + number % 2, "plausibility": 5}, 8.0)
    store.close()
    capsys.readouterr()
    assert main(["study", "analyse", str(study.root)]) == 0
    page = (study.results / "study.html").read_text("utf-8")
    found = json.loads((study.results / "study.json").read_text("utf-8"))
    for place in (capsys.readouterr().out, page, found["margin_from"]):
        assert said in place
    again = ["study", "analyse", "--ratings", str(study.results / "ratings.csv"), "--design", "paper"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert "as the design file has it; whether before the data is not known" in capsys.readouterr().out


def test_results_are_read_and_analysed_without_the_packages_of_the_page(tmp_path, offline_env):
    """What requirements.txt leaves out for ComfyUI: the nodes read a study's SQLite file and no more."""
    study = make_study(tmp_path / "study", n=6, practice=0, side=64)
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("starlette", "uvicorn", "pg8000", "sklearn")))
from pathlib import Path
from diffusioncleft.diffusioncleft_core.report.study_page import study_page
from diffusioncleft.diffusioncleft_core.study.folder import open_study
from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document
from diffusioncleft.diffusioncleft_core.study.web.store import Store, stored_ratings
study = open_study(Path({str(study.root)!r}))
store = Store(study)
for name in ("Anna", "Ben"):
    rater = store.invite(name)[0].id
    for n, item in enumerate(study.rated):
        store.save(rater, item.id, item.id, {{"realism": 3 + n % 3, "plausibility": 4 + n % 2}}, 1.0)
store.close()
print(len(study_page(study_document(stored_ratings(study), study.design)).drawings))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3


@pytest.mark.parametrize(
    ("lines", "design", "said"),
    [
        ("A,2,generated,realism,7", [], "line 3 of r.csv: realism is 7, and the scale is taken to be 1 to 5"),
        ("A,2,generated,realism,7", ["--design", "paper"], "line 3 of r.csv: realism is 7; give a whole"),
        ("A,2,generated,realism,vier", [], "line 3 of r.csv: realism is 'vier' and elsewhere a whole number"),
        ("A,2,generated,realism,５", ["--design", "paper"], "line 3 of r.csv: realism is '５'; give a whole"),
        ("A,2,generated,grade,1", ["--design", "paper"], "line 3 of r.csv answers 'grade', which the design"),
        ("A,2,generated,realism,4.5", ["--design", "paper"], "line 3 of r.csv: realism is '4.5'; give"),
    ],
)
def test_a_rating_that_is_none_is_told_with_its_line_and_value(
    lines, design, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("r.csv").write_text(f"rater,item,origin,question,value\nA,1,generated,realism,5.0\n{lines}\n")
    assert main(["study", "analyse", "--ratings", "r.csv", "--out", "o", *design]) == 2
    assert said in capsys.readouterr().err
    assert not Path("o").exists()


def test_no_rating_and_words_alone_are_said():
    with pytest.raises(UserError, match="no rating yet"):
        study_document(rating_table([], []))
    item = Item("a", "generated")
    with pytest.raises(UserError, match="nothing to count"):
        study_document(rating_table([Rating("R1", "a", "note", "fine")], [item]))


def test_a_plan_is_printed(capsys):
    assert main(["study", "plan", "--real", "20"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"50 generated and 20 real images, 2 raters", out) and "Margin 0.25" in out


REMARKS = (
    *("12", "0.5 0.5", "-2", "+5", "５", "1e5", "=1+1", "-2+3+cmd|' /C calc'!A0", "'=1", "@x", "''"),
    *('say "so", or; not', "two\nlines\n=3", "-\n1", "real", "nan", "ñ, é", '=HYPERLINK("x")'),
)


@pytest.mark.parametrize("more", [REMARKS, REMARKS[:3]])
def test_a_studys_own_table_gives_the_same_document_whatever_was_written_in_it(more, tmp_path):
    """From the rater's form through the database and ratings.csv back."""
    study = make_study(tmp_path / "study", n=len(more), practice=0, more=True, side=64)
    store = Store(study)
    raters = [store.invite(name)[0].id for name in ("Anna", "Ben")]
    for number, (item, remark) in enumerate(zip(study.rated, more, strict=True)):
        for rater in raters:
            given = {"realism": 1 + number % 5, "plausibility": 4, "origin": "real", "remark": remark}
            given["wrong"] = "0.25 0.1234"
            fields = {f"answer.{name}": str(value) for name, value in given.items()}
            filled = read_answers(study.design, fields)
            assert filled.complete
            store.save(rater, item.id, f"form {item.id}", filled.answers, 2.5)
    store.close()
    table = stored_ratings(study)
    assert sorted(table.of("remark").value) == sorted(more * 2)
    out = tmp_path / "results"
    assert main(["study", "analyse", str(study.root), "--out", str(out)]) == 0
    again = ["--ratings", str(out / "ratings.csv"), "--design", str(study.root / "study.toml")]
    assert main(["study", "analyse", *again, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "ratings.csv").read_bytes() == (out / "ratings.csv").read_bytes()
    ours, theirs = (
        json.loads((folder / "study.json").read_text("utf-8")) for folder in (out, tmp_path / "again")
    )
    for told_of_the_margin in ("margin_from", "words"):  # a file can't tell what was before the data
        assert theirs.pop(told_of_the_margin) != ours.pop(told_of_the_margin)
    assert ours == theirs
    assert read_ratings(out / "ratings.csv", study.design).value.tolist() == table.value.tolist()
    assert main(["study", "analyse", *again[:2], "--out", str(tmp_path / "bare")]) == 0
