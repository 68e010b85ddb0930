"""A task is a file: two come along, another is another TOML, and mistakes name their place."""

import pytest

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.downstream.task import (
    CHANCE,
    CONTROLS,
    TASKS,
    known_tasks,
    load_task,
)
from diffusioncleft.diffusioncleft_core.errors import UserError

OWN = """
schema = 1
name = "palsy"
title = "Facial palsy"
positive = { title = "palsy", condition = "palsy" }
negative = { title = "healthy", role = "control" }
crop = { margin = 1, side = 96 }
controls = { use = ["shuffled_labels"], curve = [200, 100] }
"""


@pytest.mark.parametrize("name", known_tasks())
def test_the_tasks_that_come_along_are_of_the_vocabulary_and_crop_as_the_cited_work(name):
    task = load_task(name)
    conditions = load_vocabulary().conditions
    assert task.name == name
    assert all(c.condition in conditions for c in (task.positive, task.negative) if c.condition)
    assert (task.crop.margin, task.crop.side) == (0.2, 224)
    assert task.curve[0] == 100 and task.curve[-1] == 2000
    assert {"lip_masked", "background", "shuffled_labels", "base_as_both"} <= {
        control.name for control in task.controls if control.expected == CHANCE
    }
    assert all(0 < figure.value < 1 and figure.n == 100 and figure.caveat for figure in task.reported)


def test_both_of_the_papers_tasks_come_along():
    assert known_tasks() == ("lip_anomaly", "pre_post")
    assert {figure.value for name in known_tasks() for figure in load_task(name).reported} >= {0.79, 0.84}


def test_images_are_told_apart_by_condition_first_and_then_by_role():
    task = load_task("lip_anomaly")
    assert task.label_of("post_op", "generated") == 1
    assert task.label_of("post_op", "control") == 1
    assert task.label_of(None, "control") == 0
    assert task.label_of("pre_op", "generated") is None and task.label_of(None, None) is None
    both = load_task("pre_post")
    assert [both.label_of(name, "holdout") for name in ("pre_op", "post_op")] == [1, 0]


def test_another_anomaly_is_a_file(tmp_path):
    (tmp_path / "palsy.toml").write_text(OWN)
    task = load_task(tmp_path / "palsy.toml")
    assert (task.crop.margin, task.crop.side, task.curve) == (1.0, 96, (100, 200))
    assert task.controls == (CONTROLS["shuffled_labels"],) and task.reported == ()
    assert task.label_of("palsy", None) == 1
    assert load_task(str(tmp_path / "palsy.toml")).sha256 == task.sha256


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema must be 1"),
        ('condition = "palsy"', 'role = "control"', "both classes have the same condition and role"),
        ('condition = "palsy"', 'condition = "../outside"', r"\[positive\]: no condition can be called"),
        (', role = "control"', "", r"\[negative\]: condition or role"),
        ('role = "control"', 'role = "healthy"', "there are: train, holdout"),
        ("margin = 1", "margin = -1", r"\[crop\]: margin must be a number from 0 to 2"),
        ("side = 96", 'side = "96"', "side must be a whole number"),
        ("shuffled_labels", "shuffled", "use names 'shuffled'; there are: generated_negatives"),
        ("[200, 100]", "[0]", "curve must be a list"),
        ("crop =", "crops =", "unknown key 'crops'"),
    ],
)
def test_a_mistake_in_a_task_names_file_and_place(tmp_path, old, new, said):
    assert old in OWN
    (tmp_path / "palsy.toml").write_text(OWN.replace(old, new))
    with pytest.raises(UserError, match=said) as error:
        load_task(tmp_path / "palsy.toml")
    assert "palsy.toml" in str(error.value)


def test_a_task_that_there_is_not_names_those_that_there_are():
    with pytest.raises(UserError, match="no task 'lips'; choose one of: lip_anomaly, pre_post, or"):
        load_task("lips")


def test_every_task_file_is_a_task():
    assert {path.stem for path in TASKS.iterdir()} == set(known_tasks())
