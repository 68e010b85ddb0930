"""What a person decides about a set: rejected, taken back, reviewed beside the nearest training face."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from commands import run_command
from html_checks import Page, problems
from report_folders import COPIED, make_run, saved_by

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.decisions import (
    decisions_in,
    read_review,
    readmit,
    reject,
    review,
    review_counts,
)
from diffusioncleft.diffusioncleft_core.filters.stage import filter_summary
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.imageset.manifest import filtered_rows, read_image_set
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.report.html import write_private_html
from diffusioncleft.diffusioncleft_core.report.nearest import nearest_pairs, write_nearest
from diffusioncleft.diffusioncleft_core.report.pictures import withheld

pytestmark = pytest.mark.usefixtures("pages_drawn_once")

CONDITIONS = ("pre_op", "post_op")


@pytest.fixture(scope="module")
def made(tmp_path_factory, analyzer):
    """A run's folder with its page of nearest pairs."""
    folders = make_run(tmp_path_factory.mktemp("made") / "run", analyzer)
    sets = {name: folders.generated(name) for name in CONDITIONS}
    datasets = {name: folders.dataset(name) for name in CONDITIONS}
    pairs = nearest_pairs(folders.root, sets, datasets, analyzer, cache=folders.private / "faces", top=14)
    write_nearest(folders.private, pairs)
    return folders, pairs


@pytest.fixture
def run(made, tmp_path):
    folders, pairs = made
    shutil.copytree(folders.root, tmp_path / "run")
    return RunFolders(tmp_path / "run"), pairs


def rows_of(folder: Path):
    return {row.name: row for row in read_image_set(folder)}


def page_of(folders: RunFolders, pairs) -> Path:
    return write_private_html(pairs, folders.root, folders.private / "report.private.html", phantom=True)


def test_a_persons_rejection_survives_the_filters_and_a_readmission_undoes_it(run, artifacts):
    folder = run[0].generated("pre_op")
    name = next(row.name for row in read_image_set(folder) if row.accepted)
    before = rows_of(folder)[name].verdicts
    (row,) = reject(folder, [name])
    assert row.file == f"rejected/{name}" and (folder / row.file).is_file()
    assert row.reasons == ["person"] and row.verdicts["rejected_by"]["by"] == "a person"
    with pytest.raises(UserError, match="set aside already"):
        reject(folder, [name])
    assert withheld(row.verdicts, phantom=True), "a report shows no image that a person rejected"
    filter_set(folder, Filters(artifacts))
    (again,) = (item for item in read_image_set(folder) if item.name == name)
    assert again.verdicts["settings"] and again.reasons == ["person"]
    assert name not in [item.name for item in filtered_rows(read_image_set(folder))]
    assert filter_summary(read_image_set(folder))["by_kind"]["person"] == 1
    (back,) = readmit(folder, [f"rejected/{name}"])
    assert back.file == name and back.accepted and "rejected_by" not in back.verdicts
    assert "readmitted" not in back.verdicts, "nothing of a filter was overruled"
    assert before["accepted"]


def test_a_rejected_image_that_no_filter_saw_is_unseen_again_when_it_is_taken_back(run):
    folder = run[0].generated("post_op")
    (folder / "manifest.jsonl").write_text(
        "".join(
            json.dumps({key: value for key, value in json.loads(line).items() if key != "verdicts"}) + "\n"
            for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        )
    )
    name = read_image_set(folder)[0].name
    reject(folder, [name])
    assert rows_of(folder)[name].accepted is False
    (row,) = readmit(folder, [name])
    assert row.accepted is None and row.file == name


def test_what_a_person_overruled_and_then_rejected_stays_rejected(run, artifacts):
    folder = run[0].generated("pre_op")
    name = next(row.name for row in read_image_set(folder) if row.accepted is False)
    readmit(folder, [name])
    assert rows_of(folder)[name].accepted
    (row,) = reject(folder, [name])
    assert row.accepted is False and "readmitted" not in row.verdicts and "person" in row.reasons


def test_the_private_page_offers_a_choice_for_each_pair_and_runs_its_own_script_alone(run):
    folders, pairs = run
    page = page_of(folders, pairs)
    text = page.read_text("utf-8")
    assert problems(text, alone=False) == []
    found = Page(text)
    assert len(found.all("fieldset")) == len(pairs)
    assert len(found.all("input")) == 3 * len(pairs)
    assert all(box.inside("label") for box in found.all("input"))
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    for name in {pair.condition for pair in pairs}:
        assert f"diffusioncleft filter {folders.generated(name)} --review review.json" in text


def test_a_review_is_counted_rejects_the_same_person_and_is_shown_again(run, artifacts, tmp_path):
    folders, pairs = run
    folder = folders.generated("pre_op")
    mine = [Path(pair.generated).name for pair in pairs if pair.condition == "pre_op"]
    copied = next(name for name in mine if name.startswith(f"{COPIED:06d}_"))
    others = [name for name in mine if name != copied]
    verdicts = {copied: "same_person", others[0]: "not_same"}
    elsewhere = [Path(pair.generated).name for pair in pairs if pair.condition == "post_op"][:1]
    verdicts |= dict.fromkeys(elsewhere, "unsure")
    file = saved_by(page_of(folders, pairs), verdicts, tmp_path / "review.json")
    photographs = {Path(pair.photograph).stem for pair in pairs}
    assert not [stem for stem in photographs if stem in file.read_text("utf-8")]

    result = review(folder, read_review(file))
    assert result.counts == {"pairs": 2, "same_person": 1, "not_same": 1, "unsure": 0}
    assert result.elsewhere == len(elsewhere)
    rows = rows_of(folder)
    assert rows[copied].accepted is False and "person" in rows[copied].reasons
    assert rows[others[0]].verdicts["review"]["verdict"] == "not_same"
    assert not [stem for stem in photographs if stem in (folder / "manifest.jsonl").read_text("utf-8")]

    filter_set(folder, Filters(artifacts))
    assert review_counts(read_image_set(folder))["pairs"] == 2
    assert "person" in rows_of(folder)[copied].reasons
    assert filter_summary(read_image_set(folder))["reviewed"]["same_person"] == 1
    checked = re.findall(r'data-image="([^"]+)"(?:(?!</fieldset>).)*?value="(\w+)" checked',
                         page_of(folders, pairs).read_text("utf-8"), re.DOTALL)  # fmt: skip
    assert dict(checked) == {copied: "same_person", others[0]: "not_same"}

    # A second look takes back what the first one set aside.
    second = saved_by(page_of(folders, pairs), {copied: "not_same"}, tmp_path / "second.json")
    review(folder, read_review(second))
    row = rows_of(folder)[copied]
    assert row.verdicts["review"]["verdict"] == "not_same" and "person" not in row.reasons
    readmit_all = [name for name, item in rows_of(folder).items() if "person" in item.reasons]
    assert readmit_all == []


def test_a_review_of_other_images_is_refused_and_changes_nothing(run, tmp_path):
    folders, pairs = run
    folder = folders.generated("pre_op")
    before = decisions_in(folder)
    elsewhere = {Path(pair.generated).name: "unsure" for pair in pairs if pair.condition == "post_op"}
    file = saved_by(page_of(folders, pairs), elsewhere, tmp_path / "review.json")
    with pytest.raises(UserError, match="no image of this review"):
        review(folder, read_review(file))
    mine = {Path(pair.generated).name: "same_person" for pair in pairs if pair.condition == "pre_op"}
    file = saved_by(page_of(folders, pairs), mine, tmp_path / "review.json")
    for name in mine:  # drawn anew since, under the same names
        path = next(folder.rglob(name))
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="no image of this review"):
        review(folder, read_review(file))
    assert decisions_in(folder) == before


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"kind": "diffusioncleft review", "schema": 1, "pairs": [{"image": "a.png"}]}',
        '{"kind": "diffusioncleft review", "schema": 1, "pairs": [7]}',
        '{"kind": "diffusioncleft review", "schema": 1, "pairs": [{"condition": "pre_op", "image": "a.png", '
        '"content": "0", "similarity": 0.5, "verdict": "perhaps"}]}',
        '{"kind": "diffusioncleft review", "schema": 2, "pairs": []}',
    ],
)
def test_what_is_no_review_is_refused_with_one_sentence(tmp_path, content):
    (tmp_path / "review.json").write_text(content)
    with pytest.raises(UserError, match=r"review\.json"):
        read_review(tmp_path / "review.json")


def test_the_commands_reject_review_and_report(run, tmp_path):
    folders, pairs = run
    folder = folders.generated("pre_op")
    name = next(row.name for row in read_image_set(folder) if row.accepted)
    done = run_command("filter", folder, "--reject", name)
    assert done.returncode == 0, done.stderr
    assert f"rejected/{name}" in done.stdout
    both = run_command("filter", folder, "--reject", name, "--readmit", name)
    assert both.returncode == 2 and len(both.stderr.strip().splitlines()) <= 3
    seen = {Path(pair.generated).name: "unsure" for pair in pairs if pair.condition == "pre_op"}
    file = saved_by(page_of(folders, pairs), seen, tmp_path / "review.json")
    done = run_command("filter", folder, "--review", file)
    assert done.returncode == 0, done.stderr
    assert f"{len(seen)} pairs reviewed" in done.stdout
    done = run_command("report", folders.root)
    assert done.returncode == 0, done.stderr
    page = folders.root.joinpath("report.html").read_text("utf-8")
    assert "person’s decision" in page
    assert f"looked at {len(seen)} images beside the nearest training face" in page
