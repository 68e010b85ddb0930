"""Captions of a dataset: shown by number, corrected, the trigger kept."""

import json

import pytest

from diffusioncleft.diffusioncleft_core.dataset.corrections import (
    allow_edits,
    edit_captions,
    numbered_captions,
    parse_edits,
    restore_captions,
)
from diffusioncleft.diffusioncleft_core.dataset.folder import (
    SETTINGS,
    create_dataset_folder,
    purge_dataset,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset.manifest import (
    ImageRow,
    read_image_set,
    write_image_set,
)


@pytest.fixture
def folder(tmp_path):
    made = create_dataset_folder(tmp_path / "d1")
    write_image_set(
        made,
        [
            ImageRow("images/a.png", role="train", caption="[CLP] one"),
            ImageRow("images/b.png", role="holdout", caption="[CLP] held out"),
            ImageRow("images/c.png", role="train", caption="CLPrep three"),
        ],
    )
    return made


@pytest.fixture
def allowed(folder):
    allow_edits(folder)
    return folder


def test_only_training_captions_are_numbered_and_nothing_names_a_file(folder):
    assert numbered_captions(folder) == [(1, "[CLP] one"), (2, "CLPrep three")]


def test_captions_stay_as_they_are_until_the_owner_allows_edits(folder):
    before = (folder / "manifest.jsonl").read_bytes()
    with pytest.raises(UserError, match="diffusioncleft dataset allow-edits"):
        edit_captions(folder, {1: "a girl's face"})
    assert (folder / "manifest.jsonl").read_bytes() == before
    allow_edits(folder)
    assert edit_captions(folder, {1: "a girl's face"}) == 1
    allow_edits(folder, False)
    with pytest.raises(UserError, match="not to be changed"):
        edit_captions(folder, {1: "another"})


def test_the_first_captions_are_restored_after_any_number_of_edits(allowed):
    before = (allowed / "manifest.jsonl").read_bytes()
    edit_captions(allowed, {1: "a girl's face"})
    edit_captions(allowed, {1: "nothing", 2: "nothing"})
    assert restore_captions(allowed) == 2
    assert (allowed / "manifest.jsonl").read_bytes() == before
    assert restore_captions(allowed) == 0
    edit_captions(allowed, {2: "later"})
    assert restore_captions(allowed) == 1
    assert (allowed / "manifest.jsonl").read_bytes() == before


def test_a_purge_erases_the_first_captions_and_the_permission(allowed):
    edit_captions(allowed, {1: "a girl's face"})
    assert purge_dataset(allowed).left == ()
    assert not allowed.exists()


def test_the_command_line_allows_edits_and_restores(folder, command):
    assert "may change its captions" in command("dataset", "allow-edits", folder).stdout
    edit_captions(folder, {1: "a girl's face"})
    assert "1 caption restored" in command("dataset", "restore-captions", folder).stdout
    assert numbered_captions(folder)[0] == (1, "[CLP] one")
    assert command("dataset", "allow-edits", folder, "--off").returncode == 0
    with pytest.raises(UserError, match="not to be changed"):
        edit_captions(folder, {1: "a girl's face"})


def test_a_correction_keeps_the_trigger_and_leaves_the_rest_alone(allowed):
    folder = allowed
    edits = parse_edits("# mine\n1: a girl's face\n\n2 = CLPrep a boy's   face")
    assert edit_captions(folder, edits) == 2
    assert numbered_captions(folder) == [(1, "[CLP] a girl's face"), (2, "CLPrep a boy's face")]
    assert read_image_set(folder)[1].caption == "[CLP] held out"
    assert edit_captions(folder, edits) == 0


def test_a_trigger_in_small_letters_is_known_from_the_dataset(allowed):
    folder = allowed
    (folder / SETTINGS).write_text(json.dumps({"trigger": "sks"}))
    write_image_set(folder, [ImageRow("images/a.png", role="train", caption="sks one")])
    edit_captions(folder, {1: "a girl's face"})
    assert numbered_captions(folder) == [(1, "sks a girl's face")]
    edit_captions(folder, {1: "sks a boy's face"})
    assert numbered_captions(folder) == [(1, "sks a boy's face")]


@pytest.mark.parametrize("text", ["a girl", "1", "1:", "x: y", "1: "])
def test_a_line_that_is_no_correction_is_named(text):
    with pytest.raises(UserError, match="is no correction"):
        parse_edits(text)


def test_a_number_that_does_not_exist_changes_nothing(allowed):
    folder = allowed
    with pytest.raises(UserError, match="numbers go from 1 to 2"):
        edit_captions(folder, {1: "new", 3: "other"})
    assert numbered_captions(folder)[0] == (1, "[CLP] one")
