"""Only who agreed to be shown to raters is drawn, and a consent withdrawn later reaches the study."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from study_sets import bare_pictures, made, names, one_table, people_of_a_dataset, photographs, set_rating

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.dataset.rating_consent import rating_consent, studies_of
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal, add_marks, user_register
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file, write_jsonl
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow, write_image_set
from diffusioncleft.diffusioncleft_core.study.consent import erase_withdrawn
from diffusioncleft.diffusioncleft_core.study.folder import open_study

BUILD = (
    "dataset",
    "build",
    "photos",
    "--condition",
    "pre_op",
    "--phantom",
    "--holdout",
    "0",
    "--out",
    "private",
)
LORA = "a" * 64


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Eight photographs with a table, of which three may not be shown."""
    root = tmp_path_factory.mktemp("drawn")
    folder = photographs(root / "all", 8) / "pre_op"
    said = dict(zip(names(folder), ("yes", "YES", "no", "", "y", "yes", "yes", "yes"), strict=True))
    set_rating(folder, said)
    return folder


@pytest.fixture
def photos(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def dataset(photos, tmp_path, monkeypatch):
    """A dataset of them that counts as one of people."""
    monkeypatch.chdir(tmp_path)
    assert main(list(BUILD)) == 0
    people_of_a_dataset(tmp_path / "private")
    return tmp_path / "private"


def left(study):
    return sum(study.has_image(item.id) for item in study.items)


def test_only_photographs_whose_row_says_yes_are_drawn(photos, tmp_path):
    study, notices = made(tmp_path / "study", {"real": photos})
    assert len(study.items) == 5
    assert any("raters may not see (consent_rating is not yes): fewer than 5" in notice for notice in notices)
    with pytest.raises(UserError, match="6 pictures of the set real were asked for and 5 may be shown"):
        made(tmp_path / "more", {"real": photos}, counts={"real": 6})


def test_consent_to_training_alone_shows_nobody(photos, tmp_path):
    set_rating(photos, dict.fromkeys(names(photos), ""))
    with pytest.raises(UserError, match="write yes under consent_rating in the table"):
        made(tmp_path / "study", {"real": photos})
    assert not (tmp_path / "study").exists()


def test_consent_to_be_rated_without_consent_shows_nobody(photos, tmp_path):
    text = (photos / "metadata.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    with (photos / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"consent": "no"} for row in rows)
    with pytest.raises(UserError, match="there is no picture to show"):
        made(tmp_path / "study", {"real": photos})


def test_a_dataset_knows_who_may_be_shown_and_trains_on_all_the_same(dataset, tmp_path):
    assert len(dataset_rows(dataset, "train")) == 8 and len(rating_consent(dataset)) == 5
    assert "consent_rating" not in (dataset / "manifest.jsonl").read_text("utf-8")
    study, notices = made(tmp_path / "study", {"real": dataset})
    assert {item.photograph for item in study.items} == rating_consent(dataset)
    assert {item.condition for item in study.items} == {"pre_op"}
    assert all(item.groups["age_group"] for item in study.items)
    assert any("is not yes): fewer than 5" in notice for notice in notices)
    assert studies_of(dataset) == [study.root.resolve()]


def test_no_photograph_of_a_dataset_passes_as_generated(dataset, tmp_path):
    for place, said in (
        (dataset, "is a dataset of photographs and can't be the set generated"),
        (dataset / "images", r"images lies in .*private, a dataset of photographs and can't be"),
    ):
        with pytest.raises(UserError, match=said):
            made(tmp_path / "study", {"generated": place})
    linked = tmp_path / "linked"
    linked.symlink_to(dataset / "images")
    with pytest.raises(UserError, match="a dataset of photographs and can't be"):
        made(tmp_path / "study", {"generated": linked})
    assert not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Photographs of both conditions with one table, in which nobody may be shown."""
    return one_table(photographs(tmp_path_factory.mktemp("beside") / "ph", 4, rating="no"))


@pytest.fixture
def one(beside, tmp_path):
    return shutil.copytree(beside, tmp_path / "ph")


@pytest.mark.parametrize("place", ["ph", "ph/pre_op"])
def test_photographs_whose_table_lies_further_up_do_not_pass_as_generated(place, one, tmp_path):
    with pytest.raises(UserError, match=r"ph has a metadata\.csv, as photographs have, and can't be the set"):
        made(tmp_path / "study", {"cleftgan": tmp_path / place})
    table = one / "metadata.csv"
    table.write_text(table.read_text("utf-8").replace("consent,", "agreed,", 1), "utf-8")
    with pytest.raises(UserError, match="can't be the set cleftgan of generated images"):
        made(tmp_path / "study", {"cleftgan": tmp_path / place})
    assert not (tmp_path / "study").exists()


def test_a_table_that_names_photographs_without_their_folder_speaks_of_them_too(one, tmp_path):
    table = one / "metadata.csv"
    table.write_text(table.read_text("utf-8").replace("pre_op/", "").replace("post_op/", ""), "utf-8")
    with pytest.raises(UserError, match="can't be the set generated"):
        made(tmp_path / "study", {"generated": one / "pre_op"})


def test_generated_images_beside_photographs_are_no_photographs(one, tmp_path):
    """Their files bear the same names as those that the table speaks of in other folders."""
    drawn = bare_pictures(one / "drawn", 4)
    assert {*names(drawn / "pre_op")} == {*names(one / "pre_op")}
    study, _ = made(tmp_path / "study", {"generated": drawn}, practice=0)
    assert len(study.items) == 8


@pytest.mark.parametrize(
    ("mark", "said"),
    [("ph/CONSENT.txt", "has a CONSENT.txt, as photographs have,"), ("ph/PRIVATE.txt", "a private folder")],
)
def test_a_folder_that_is_marked_private_holds_no_generated_images(mark, said, one, tmp_path):
    (one / "metadata.csv").unlink()
    (tmp_path / mark).write_text("of people")
    for place in (one, one / "pre_op"):
        with pytest.raises(UserError, match=said):
            made(tmp_path / "study", {"generated": place})


def test_photographs_that_are_called_phantoms_are_looked_at_under_every_name(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "metadata.csv").write_text("file,consent\n0.png,yes\n", "utf-8")
    with pytest.raises(UserError, match="seems to hold photographs of people"):
        made(tmp_path / "study", {"generated": folder}, phantom=True)


def test_one_table_at_the_root_speaks_of_the_photographs_in_its_subfolders(one, tmp_path):
    shown = [
        f"{condition}/{name}" for condition in ("pre_op", "post_op") for name in names(one / condition)[:3]
    ]
    set_rating(one, dict.fromkeys(shown, "yes"))
    study, _ = made(tmp_path / "study", {"real": one}, repeats=2)
    first = [item for item in study.items if item.repeat_of is None]
    assert Counter(item.condition for item in first) == {"pre_op": 3, "post_op": 3}
    assert all(item.groups["age_group"] for item in first) and erase_withdrawn(study) == []
    set_rating(one, {shown[0]: "no"})
    assert "were erased" in erase_withdrawn(study)[0] and 5 <= left(study) < 8


def test_two_tables_that_speak_of_the_same_photographs_are_refused(one, tmp_path):
    shutil.copy(one / "metadata.csv", one / "pre_op" / "metadata.csv")
    with pytest.raises(UserError, match=r"each have a metadata\.csv that speaks of the same photographs"):
        made(tmp_path / "study", {"real": one})
    (one / "pre_op" / "metadata.csv").unlink()
    with pytest.raises(UserError, match=r"speaks of its photographs; give --set real=.*ph$"):
        made(tmp_path / "study", {"real": one / "pre_op"})


def test_a_photograph_with_a_yes_and_a_no_is_not_shown_under_either_name(photos, tmp_path):
    table = photos / "metadata.csv"
    set_rating(photos, dict.fromkeys(names(photos), "yes"))
    pair = names(photos)[:2]
    for name, suffix in zip(pair, ("no", "yes"), strict=True):
        shutil.copy(photos / name, photos / f"copy-{suffix}.png")
        row = next(line for line in table.read_text("utf-8").splitlines() if name in line)
        table.write_text(table.read_text("utf-8") + row.replace(name, f"copy-{suffix}.png") + "\n", "utf-8")
    set_rating(photos, {"copy-no.png": "no"})
    study, notices = made(tmp_path / "study", {"real": photos})
    assert len(study.items) == 8 and any("is not yes): fewer than 5" in notice for notice in notices)
    assert sha256_file(photos / "copy-no.png") not in {item.photograph for item in study.items}
    assert sha256_file(photos / "copy-yes.png") in {item.photograph for item in study.items}
    set_rating(photos, {pair[1]: "no"})
    assert erase_withdrawn(study)[0].startswith("2 pictures") and left(study) == 6
    study, _ = made(tmp_path / "later", {"real": photos})
    set_rating(photos, {pair[1]: "yes", "copy-yes.png": "no"})
    assert len(study.items) == 6 and erase_withdrawn(study) == []


def test_a_copy_in_another_format_that_may_not_be_shown_takes_its_photograph_along(
    photos, tmp_path, monkeypatch
):
    """The dataset knows pixels: a build records none that a photograph without consent_rating has."""
    first = names(photos)[0]
    with Image.open(photos / first) as image:
        image.save(photos / "z.bmp")
    table = photos / "metadata.csv"
    row = next(line for line in table.read_text("utf-8").splitlines() if first in line)
    table.write_text(table.read_text("utf-8") + row.replace(first, "z.bmp") + "\n", "utf-8")
    set_rating(photos, {"z.bmp": "no"})
    monkeypatch.chdir(tmp_path)
    assert main(list(BUILD)) == 0
    recorded = json.loads((tmp_path / "private" / "rating_consent.json").read_text("utf-8"))["photographs"]
    assert len(recorded) == 4


@pytest.mark.parametrize(
    "change", ["no", "row is gone", "table is gone", "photograph and row are gone", "another file and no"]
)
def test_a_row_that_says_yes_no_more_counts_at_once(change, dataset, photos, tmp_path):
    study, _ = made(tmp_path / "study", {"real": dataset}, repeats=5)
    assert left(study) == 10 and erase_withdrawn(study) == []
    table = photos / "metadata.csv"
    first = names(photos)[0]
    if change == "table is gone":
        table.unlink()
    elif change.endswith("no"):
        set_rating(photos, {first: "no"})
    else:
        lines = table.read_text("utf-8").splitlines(keepends=True)
        table.write_text("".join(line for line in lines if first not in line), "utf-8")
    if change.startswith("photograph"):
        (photos / first).unlink()
    elif change.startswith("another file"):
        with Image.open(photos / first) as image:
            pixels = image.copy()
        pixels.save(photos / first, compress_level=1)
    gone = 10 if change == "table is gone" else 2
    (said,) = erase_withdrawn(study)
    assert said.startswith(f"{gone} pictures of the study study were erased")
    assert left(study) == 10 - gone and len(open_study(study.root).items) == 10
    assert first not in said


def test_a_build_reaches_the_studies_drawn_from_the_dataset(dataset, photos, tmp_path, command):
    study, _ = made(tmp_path / "study", {"real": dataset})
    set_rating(photos, {names(photos)[0]: "no"})
    built = command(*BUILD)
    assert built.returncode == 0 and "1 pictures of the study study were erased" in built.stderr
    assert left(study) == 4 and len(rating_consent(dataset)) == 4
    set_rating(photos, dict.fromkeys(names(photos), "no"))
    assert "4 pictures of the study study were erased" in command(*BUILD).stderr
    assert left(study) == 0


def test_a_withdrawn_consent_to_training_reaches_them_too(dataset, photos, tmp_path, command):
    study, _ = made(tmp_path / "study", {"real": dataset})
    (photos / names(photos)[0]).unlink()
    built = command(*BUILD)
    assert built.returncode == 0 and "1 pictures of the study study were erased" in built.stderr
    assert left(study) == 4


def test_a_purge_reaches_them_too(dataset, tmp_path, command):
    study, _ = made(tmp_path / "study", {"real": dataset})
    purged = command("dataset", "purge", "private", "--yes")
    assert purged.returncode == 0 and "5 pictures of the study study were erased" in purged.stderr
    assert left(study) == 0 and not dataset.exists()


def test_photographs_that_are_not_there_are_told_of(photos, tmp_path):
    study, _ = made(tmp_path / "study", {"real": photos})
    photos.rename(tmp_path / "elsewhere")
    (said,) = erase_withdrawn(study)
    assert "are not there, so nobody knows here whether a consent was withdrawn" in said
    assert left(study) == 5


@pytest.mark.parametrize("kind", ["photographs", "dataset"])
def test_an_empty_folder_as_of_a_drive_that_is_not_mounted_withdraws_nobody(kind, dataset, photos, tmp_path):
    study, _ = made(tmp_path / "study", {"real": photos if kind == "photographs" else dataset})
    kept = photos.rename(tmp_path / "elsewhere")
    photos.mkdir()
    (said,) = erase_withdrawn(study)
    assert "photos is empty (is the drive mounted?), so nobody knows here whether a consent" in said
    assert left(study) == 5
    with pytest.raises(UserError, match=r"photos is empty \(is the drive mounted\?\)"):
        made(tmp_path / "later", {"real": photos})
    shutil.copy(kept / "metadata.csv", photos)  # the table is there, so the drive is: all were deleted
    (said,) = erase_withdrawn(study)
    assert said.startswith("5 pictures") and left(study) == 0


def test_images_by_a_withdrawn_lora_are_not_drawn_and_not_shown_any_more(tmp_path, command):
    folder = bare_pictures(tmp_path / "generated", 4) / "pre_op"
    accepted = {"accepted": True}
    rows = [
        ImageRow(file, role="generated", index=number, condition="pre_op", lora=LORA, verdicts=accepted)
        for number, file in enumerate(names(folder))
    ]
    write_image_set(folder, rows)
    study, _ = made(tmp_path / "study", {"generated": folder}, practice=0)
    assert left(study) == 4
    mark = Withdrawal("run", (LORA,), "2026-11-02", "dataset")
    add_marks(folder, [mark])
    with pytest.raises(UserError, match="so nobody is shown them"):
        made(tmp_path / "again", {"generated": folder})
    register = user_register()
    register.parent.mkdir(parents=True, exist_ok=True)
    before = read_jsonl(register) if register.is_file() else []
    write_jsonl(register, [*before, asdict(mark)])
    try:
        listed = command("dataset", "withdraw", "study", "--yes")
        assert "4 pictures of a rater study: " in listed.stdout and left(study) == 0
        assert erase_withdrawn(study) == []
    finally:
        write_jsonl(register, before)


def test_a_run_is_a_study_of_its_images_and_of_who_agreed(photos, tmp_path, command):
    (tmp_path / "run" / "private" / "stages").mkdir(parents=True)
    drawn = bare_pictures(tmp_path / "run" / "generated", 4)
    built = command(*BUILD[:-1], "run/private/pre_op")
    assert built.returncode == 0, built.stderr
    people_of_a_dataset(tmp_path / "run" / "private" / "pre_op")
    shutil.rmtree(drawn / "post_op")
    done = command("study", "create", "run", "--out", "study", "--design", "paper_plus", "--practice", 0)
    assert done.returncode == 0, done.stderr
    assert "generated: 4 (4 pre_op)" in done.stdout and "real: 5 (5 pre_op)" in done.stdout
    assert "phantom" not in done.stdout
    study = open_study(tmp_path / "study")
    assert study.design.conditions == ("pre_op",) and len(study.design.questions) == 4
    assert studies_of(tmp_path / "run" / "private" / "pre_op") == [study.root]
    empty = command("study", "create", "run/private/pre_op", "--out", "other")
    assert empty.returncode == 2 and "is no folder of a run" in empty.stderr


def test_a_first_table_asks_for_it_and_a_misspelt_answer_keeps_nobody_from_training(tmp_path, command):
    folder = photographs(tmp_path / "all", 4) / "pre_op"
    (folder / "metadata.csv").rename(tmp_path / "mine.csv")
    first = command("dataset", "table", folder)
    assert "consent_rating   yes, no" in first.stdout
    header = (folder / "metadata.csv").read_text("utf-8-sig").splitlines()[0].split(",")
    assert header.count("consent_rating") == 1
    (tmp_path / "mine.csv").replace(folder / "metadata.csv")
    set_rating(folder, dict.fromkeys(names(folder), "ja"))
    shutil.copytree(folder, tmp_path / "photos")
    assert command(*BUILD).returncode == 0
    dataset = tmp_path / "private"
    assert len(dataset_rows(dataset)) == 4 and rating_consent(dataset) == frozenset()
    assert json.loads((dataset / "rating_consent.json").read_text("utf-8")) == {"photographs": []}
