"""`study analyse`: from a study's database, from its own table, from one made elsewhere."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rated_studies import table

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import folder_lock
from diffusioncleft.diffusioncleft_core.study.folder import Study
from diffusioncleft.diffusioncleft_core.study.items import Item
from diffusioncleft.diffusioncleft_core.study.ratings import (
    Rating,
    rating_table,
)
from diffusioncleft.diffusioncleft_core.study.ratings_file import read_ratings, write_ratings
from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document
from diffusioncleft.diffusioncleft_core.study.web.answers import read_answers
from diffusioncleft.diffusioncleft_core.study.web.store import Store, stored_ratings
from diffusioncleft.tools.study_server import make_study

pytestmark = pytest.mark.usefixtures("pages_drawn_once")


def rated_by_two(study: Study) -> None:
    """Anna and Ben answer everything."""
    store = Store(study)
    for name in ("Anna", "Ben"):
        rater = store.invite(name)[0].id
        for number, item in enumerate(study.rated):
            store.save(rater, item.id, f"form {item.id}", {"realism": 4 + number % 2, "plausibility": 5}, 8.0)
    store.close()


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
    rated_by_two(study)
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
    rated_by_two(study)
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
