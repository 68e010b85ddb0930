"""Captions of a dataset: shown by number, corrected, the trigger kept."""

import pytest

from diffusioncleft.diffusioncleft_core.dataset.folder import create_dataset_folder
from diffusioncleft.diffusioncleft_core.dataset.manifest import ImageRow, read_manifest, write_manifest
from diffusioncleft.diffusioncleft_core.dataset.recaption import (
    edit_captions,
    numbered_captions,
    parse_edits,
)
from diffusioncleft.diffusioncleft_core.errors import UserError


@pytest.fixture
def folder(tmp_path):
    made = create_dataset_folder(tmp_path / "d1")
    write_manifest(
        made,
        [
            ImageRow("images/a.png", role="train", caption="[CLP] one"),
            ImageRow("images/b.png", role="holdout", caption="[CLP] held out"),
            ImageRow("images/c.png", role="train", caption="CLPrep three"),
        ],
    )
    return made


def test_only_training_captions_are_numbered_and_nothing_names_a_file(folder):
    assert numbered_captions(folder) == [(1, "[CLP] one"), (2, "CLPrep three")]


def test_a_correction_keeps_the_trigger_and_leaves_the_rest_alone(folder):
    edits = parse_edits("# mine\n1: a girl's face\n\n2 = CLPrep a boy's   face")
    assert edit_captions(folder, edits) == 2
    assert numbered_captions(folder) == [(1, "[CLP] a girl's face"), (2, "CLPrep a boy's face")]
    assert read_manifest(folder)[1].caption == "[CLP] held out"
    assert edit_captions(folder, edits) == 0


@pytest.mark.parametrize("text", ["a girl", "1", "1:", "x: y", "1: "])
def test_a_line_that_is_no_correction_is_named(text):
    with pytest.raises(UserError, match="is no correction"):
        parse_edits(text)


def test_a_number_that_does_not_exist_changes_nothing(folder):
    with pytest.raises(UserError, match="numbers go from 1 to 2"):
        edit_captions(folder, {1: "new", 3: "other"})
    assert numbered_captions(folder)[0] == (1, "[CLP] one")
