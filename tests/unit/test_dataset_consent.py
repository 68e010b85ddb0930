"""A first table to fill in, and consent for a whole folder in so many words."""

import csv
import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.folder_consent import STATEMENT, table_and_photographs
from diffusioncleft.diffusioncleft_core.dataset.metadata import read_table
from diffusioncleft.diffusioncleft_core.dataset.trained import remember_lora, remember_training
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import MARK, RUN_KEY
from diffusioncleft.diffusioncleft_core.errors import UserError, system_sentence

BUILD = ("dataset", "build", "photos", "--condition", "pre_op", "--phantom", "--out", "private")


@pytest.fixture
def photos(tmp_path):
    """Four phantoms without a table."""
    phantom.write_photographs(tmp_path / "photos", 4, "cleft", 5).unlink()
    return tmp_path / "photos"


def set_aside(tmp_path):
    lines = (tmp_path / "private" / "set_aside.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file"]: row["reason"] for row in map(json.loads, lines)}


def test_a_first_table_lists_the_photographs_and_gives_no_consent(photos, tmp_path, command):
    (photos / "photo-0003.png").rename(photos / "Zoë; 3.png")
    made = command("dataset", "table", "photos")
    assert made.returncode == 0 and "consent          yes, no (needed)" in made.stdout
    table = read_table(photos / "metadata.csv")
    names = ["Zoë; 3.png", "photo-0000.png", "photo-0001.png", "photo-0002.png"]
    assert [row.file for row in table.rows] == names and not any(row.values for row in table.rows)
    assert table.columns == tuple(load_vocabulary().columns)
    assert command(*BUILD).returncode == 2
    assert set(set_aside(tmp_path).values()) == {"no_consent"}


def test_a_filled_in_table_builds_and_is_never_written_over(photos, tmp_path, command):
    assert command("dataset", "table", "photos", "--out", "mine.csv").returncode == 0
    with open(tmp_path / "mine.csv", encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    known = {"age_group": "baby", "gender": "female", "cleft_type": "unilateral", "asymmetry": "none"}
    known |= {"scarring": "none", "repair_status": "unrepaired", "consent": "yes"}
    filled = [row | known for row in rows]
    with open(tmp_path / "mine.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(filled)
    before = (tmp_path / "mine.csv").read_bytes()
    again = command("dataset", "table", "photos", "--out", "mine.csv")
    assert again.returncode == 2 and "left as it is" in again.stderr
    assert (tmp_path / "mine.csv").read_bytes() == before
    built = command(*BUILD, "--metadata", "mine.csv")
    assert built.returncode == 0, built.stderr
    assert "4 photographs" in built.stdout


def test_captions_alone_are_enough_where_the_folder_has_consent_in_so_many_words(photos, tmp_path, command):
    for number in range(3):
        (photos / f"photo-000{number}.txt").write_text("[CLP] a face")
    refused = command(*BUILD)
    assert (
        refused.returncode == 2 and "dataset table" in refused.stderr and not (tmp_path / "private").exists()
    )
    (photos / "CONSENT.txt").write_text(f"{STATEMENT}\nEthics board 12/2026\n")
    built = command(*BUILD)
    assert built.returncode == 0, built.stderr
    assert set_aside(tmp_path) == {"photo-0003.png": "metadata"}
    described = json.loads((tmp_path / "private" / "dataset.json").read_text(encoding="utf-8"))
    assert described["consent_for_folder"] == f"{STATEMENT}\nEthics board 12/2026"
    (photos / "photo-0001.png").unlink()
    assert "withdrawn and erased 1" in command(*BUILD).stdout


RUN = "dc" * 32


@pytest.fixture
def trained(photos, tmp_path, command):
    """A dataset on CONSENT.txt, and a LoRA that learned from it."""
    for number in range(4):
        (photos / f"photo-000{number}.txt").write_text("[CLP] a face")
    (photos / "CONSENT.txt").write_text(STATEMENT)
    assert command(*BUILD).returncode == 0
    remember_training(tmp_path / "private", RUN, tmp_path)
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "clp.safetensors", metadata={RUN_KEY: RUN})
    remember_lora(tmp_path / "private", RUN, tmp_path / "clp.safetensors")
    return tmp_path / "private"


@pytest.mark.parametrize("text", [None, "", f"We do not agree any more. {STATEMENT}"])
def test_a_statement_that_is_gone_or_changed_withdraws_what_was_learned(photos, trained, command, text):
    images = list((trained / "images").iterdir())
    if text is None:
        (photos / "CONSENT.txt").unlink()
    else:
        (photos / "CONSENT.txt").write_text(text)
    for _ in range(2):
        done = command(*BUILD)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert "counts as withdrawn" in last and "Put the statement back" in last and "purge" in last
        assert (trained.parent / MARK).is_file()
        assert not [path for path in images if path.exists()], "what was derived stays"
    assert "withdrawn is what learned" not in done.stderr, "it is said once"
    (photos / "CONSENT.txt").write_text(STATEMENT)
    done = command(*BUILD)
    assert done.returncode == 0 and "have consent again" in done.stderr
    assert not (trained.parent / MARK).exists()


TABLE_BUILD = (*BUILD, "--metadata", "photos/metadata.csv", "--holdout", "0")


@pytest.fixture
def tabled(tmp_path, command):
    """A dataset on a metadata.csv, and a LoRA that learned from it."""
    phantom.write_photographs(tmp_path / "photos", 4, "cleft", 5)
    assert command(*TABLE_BUILD).returncode == 0
    remember_training(tmp_path / "private", RUN, tmp_path)
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "clp.safetensors", metadata={RUN_KEY: RUN})
    remember_lora(tmp_path / "private", RUN, tmp_path / "clp.safetensors")
    return tmp_path / "private"


@pytest.mark.parametrize("left", [None, "", "file,consent\n"])
def test_a_table_that_is_gone_or_empty_withdraws_what_was_learned(tabled, tmp_path, command, left):
    table, images = tmp_path / "photos" / "metadata.csv", list((tabled / "images").iterdir())
    text = table.read_bytes()
    table.unlink()
    if left is not None:
        table.write_text(left)
    for words in (TABLE_BUILD, (*BUILD, "--holdout", "0")):
        done = command(*words)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert "counts as withdrawn" in last and "Put the table back" in last and "purge" in last
        assert (tmp_path / MARK).is_file()
        assert not [path for path in images if path.exists()], "what was derived stays"
    table.write_bytes(text)
    done = command(*TABLE_BUILD)
    assert done.returncode == 0 and "have consent again" in done.stderr
    assert not (tmp_path / MARK).exists()


def test_a_table_elsewhere_that_is_not_named_again_withdraws_nothing_until_it_is_gone(
    tabled, tmp_path, command
):
    (tmp_path / "photos" / "metadata.csv").rename(tmp_path / "mine.csv")
    build = (*BUILD, "--holdout", "0")
    assert command(*build, "--metadata", "mine.csv").returncode == 0
    for words in ((), ("--metadata", "mime.csv")):
        done = command(*build, *words)
        assert done.returncode == 2 and "withdrawn" not in done.stderr, done.stderr
    assert "built with the table" in command(*build).stderr
    assert not (tmp_path / MARK).exists()
    (tmp_path / "mine.csv").unlink()
    assert "Put the table back" in command(*build, "--metadata", "mine.csv").stderr
    assert (tmp_path / MARK).is_file()


@pytest.mark.parametrize("word", ["y", "true", "1", "ja", "Yes."])
def test_another_word_for_yes_is_no_consent_and_the_build_says_what_to_write(photos, tmp_path, command, word):
    assert command("dataset", "table", "photos").returncode == 0
    table = photos / "metadata.csv"
    with open(table, encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    with open(table, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(row | {"consent": word} for row in rows)
    done = command(*BUILD)
    assert done.returncode == 2
    assert f"consent is '{word}' in 4 rows of the table; only yes is consent: write yes" in done.stderr
    listed = command("dataset", "show", "private", "--list").stdout
    assert f"no_consent: line 2: consent is '{word}'; only yes is consent: write yes" in listed
    run = command("run", "--phantom", "--photos-pre", "photos", "--out", "run", "--device", "cpu")
    assert run.returncode == 2 and "write yes" in run.stderr


@pytest.mark.parametrize("kept", ["photo-*.txt", "*.txt", "nothing"])
def test_photographs_that_are_all_gone_withdraw_what_was_learned_and_erase_nothing(
    photos, trained, tmp_path, command, kept
):
    away = tmp_path / "away"
    photos.rename(away)
    photos.mkdir()
    for path in away.glob(kept):
        shutil.copy(path, photos)
    images = list((trained / "images").iterdir())
    done = command(*BUILD)
    assert done.returncode == 2
    assert "withdrawn is what learned" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "holds no photograph any more" in last and "Put them back" in last and "purge" in last
    assert (tmp_path / MARK).is_file() and all(path.exists() for path in images)
    shutil.rmtree(photos)
    away.rename(photos)
    assert "have consent again" in command(*BUILD).stderr
    assert not (tmp_path / MARK).exists()


def test_a_folder_that_was_never_built_is_a_mistake_and_nothing_is_made(tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "CONSENT.txt").write_text(STATEMENT)
    done = command(*BUILD)
    assert done.returncode == 2 and "holds no photograph; check the path" in done.stderr
    assert not (tmp_path / "private").exists()


def test_a_table_decides_alone_where_there_is_one(photos, tmp_path):
    (photos / "CONSENT.txt").write_text(STATEMENT)
    (photos / "photo-0000.txt").write_text("[CLP] a face")
    (photos / "metadata.csv").write_text("file,consent\nphoto-0000.png,no\n")
    table, _ = table_and_photographs(photos, photos / "metadata.csv")
    assert [row.consent for row in table.rows] == [False] and table.statement is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "consent: yes",
        STATEMENT.replace("consented", "has not consented"),
        f"Not true: {STATEMENT}",
        f"{STATEMENT} Not yet.",
        f"Draft\n{STATEMENT}",
    ],
)
def test_other_words_are_no_consent(photos, text):
    (photos / "CONSENT.txt").write_text(text)
    with pytest.raises(UserError, match=r"does not give consent; .* word for word"):
        table_and_photographs(photos, None)


def test_a_folder_that_cannot_be_opened_is_named_and_not_a_file_that_may_not_be_there(photos, monkeypatch):
    can = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != photos and can(path, mode))
    said = f"the folder {photos} can't be opened (Permission denied); make it readable"
    statement = photos / "inner" / "CONSENT.txt"
    assert system_sentence(PermissionError(errno.EACCES, "Permission denied", str(statement))) == said
    with pytest.raises(UserError, match=re.escape(said)):
        table_and_photographs(photos, None)
