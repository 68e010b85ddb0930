"""A training that starts anew leaves nothing of an earlier one that could pass for its own."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import recipe_of

from diffusioncleft.diffusioncleft_core.dataset.trained import run_fingerprint
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal
from diffusioncleft.diffusioncleft_core.files import write_bytes
from diffusioncleft.diffusioncleft_core.imageset.synthetic import write_marked
from diffusioncleft.diffusioncleft_core.run.holdings import Search
from diffusioncleft.trainer.checkpoint import (
    checkpoint_path,
    clear_for_new,
    found_checkpoint,
    goes_on_here,
    save_checkpoint,
)
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.pictures import write_grid

EARLIER, NEW = {"images": "with a photograph that was withdrawn"}, {"images": "without it"}
LORAS = ["lora-step000100.safetensors", "lora.safetensors"]
OTHERS = ["lora-step000100-mine.safetensors", "loss.txt", "other-step000100.safetensors", "previews/mine.png"]


def preview(folder, step):
    write_marked(
        folder / "previews" / f"step_{step:06d}_00.png", np.zeros((64, 64, 3), np.uint8), "a boy", {}
    )


def checkpoint(folder, step, made_from):
    parameter = torch.nn.Parameter(torch.ones(2))
    save_checkpoint(folder / "state", step, made_from, {"a": parameter}, torch.optim.AdamW([parameter]))


def found(folder, resume="auto", **settings):
    recipe = recipe_of(output_dir=folder, output_name="lora", resume=resume, **settings)
    checkpoint = found_checkpoint(recipe, folder / "state", Events(lambda event: None))
    if not goes_on_here(checkpoint, folder / "state"):
        clear_for_new(recipe, folder / "state")
    return checkpoint


def names(folder):
    """The files that are there, but for checkpoints."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "state")
    return sorted(path.relative_to(folder).as_posix() for path in files)


@pytest.fixture
def earlier(tmp_path):
    """What a training left, among files of the user's own."""
    checkpoint(tmp_path, 100, EARLIER)
    preview(tmp_path, 100)
    write_grid(tmp_path / "previews", ["a boy"], 100)
    for name in (*LORAS, *OTHERS, "loss.jsonl", "loss.png"):
        write_bytes(tmp_path / name, b"")
    return tmp_path


def test_what_a_training_goes_on_from_keeps_all_that_it_left(earlier):
    before = names(earlier)
    assert found(earlier).step == 100
    assert names(earlier) == before


def test_resume_no_leaves_the_finished_lora_and_what_is_the_users_own(earlier):
    assert found(earlier, "no") is None
    assert names(earlier) == sorted(["lora.safetensors", *OTHERS])
    assert not list((earlier / "state").iterdir())


def test_the_lora_that_it_begins_with_stays(earlier):
    assert found(earlier, "no", network_weights=earlier / "previews" / ".." / LORAS[0]) is None
    assert names(earlier) == sorted([*LORAS, *OTHERS])


def test_where_the_checkpoints_were_removed_by_hand_the_pictures_go_and_the_loras_stay(earlier):
    for path in (earlier / "state").iterdir():
        path.unlink()
    assert found(earlier) is None
    assert names(earlier) == sorted([*LORAS, *OTHERS])


def test_a_checkpoint_of_another_training_begins_here_and_leaves_its_own_folder_as_it_was(
    earlier, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    checkpoint(other, 20, NEW)
    preview(other, 20)
    before = names(other)
    assert found(earlier, str(checkpoint_path(other / "state", 20))).step == 20
    assert names(earlier) == sorted(["lora.safetensors", *OTHERS])
    assert names(other) == before and found(other).step == 20
    checkpoint(earlier, 30, NEW)
    assert found(earlier).step == 30, "an earlier training's later steps would have it removed"


def test_a_copied_checkpoint_of_the_same_training_keeps_all_that_it_left(earlier, tmp_path_factory):
    kept = shutil.copy(checkpoint_path(earlier / "state", 100), tmp_path_factory.mktemp("kept"))
    checkpoint(earlier, 150, EARLIER)
    before = names(earlier)
    assert found(earlier, str(kept)).step == 100
    assert names(earlier) == before and found(earlier).step == 150


@pytest.mark.parametrize("resume", ["no", "auto"])
def test_no_picture_of_a_withdrawn_lora_enters_the_new_trainings_grid(earlier, resume):
    withdrawn = [Withdrawal(run_fingerprint(EARLIER), (), "2026-01-01", "a dataset")]
    (held,) = Search(withdrawn, [earlier]).held()
    assert earlier / "previews" in held.files
    for path in (earlier / "state").iterdir() if resume == "auto" else ():
        path.unlink()
    assert found(earlier, resume) is None
    checkpoint(earlier, 98, NEW)
    for step in (98, 490):
        preview(earlier, step)
    with Image.open(write_grid(earlier / "previews", ["a boy"], 490)) as grid:
        assert grid.width == 2 * 264 + 8
    assert Search(withdrawn, [earlier]).held() == []
    assert not [name for name in names(earlier) if "000100" in name and name not in (*LORAS, *OTHERS)]
