"""The run's memory of its stages, and the small parts of its report."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.cli.run import tell_photographs
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow, described
from diffusioncleft.diffusioncleft_core.imageset.synthetic import (
    BACKGROUND,
    clip,
    contact_sheet,
    fit_lines,
    short_label,
)
from diffusioncleft.diffusioncleft_core.phantom.experiment import drift
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.diffusioncleft_core.report.summary import aside_rows, goal_of
from diffusioncleft.diffusioncleft_core.run.dataset import photographs_for
from diffusioncleft.diffusioncleft_core.run.evaluation import training_facts
from diffusioncleft.diffusioncleft_core.run.stages import (
    Stage,
    StageRow,
    Stages,
    State,
    always,
    digest_of,
    digest_of_each,
    never,
    plan_table,
    stage_table,
)
from diffusioncleft.diffusioncleft_core.run.training import photographs_input
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson


class Work:
    """A stage that writes one file and counts its calls."""

    def __init__(self, path):
        self.path = path
        self.calls = 0
        self.interrupted = False

    def __call__(self):
        self.calls += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(str(self.calls))
        if self.interrupted:
            raise KeyboardInterrupt
        return {"calls": self.calls}


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "out" / "file")


def stages_in(tmp_path, **settings) -> Stages:
    return Stages(tmp_path, tmp_path / "private", say=lambda line: None, **settings)


def stage(work, fits=never, **inputs) -> Stage:
    return Stage("s", lambda: inputs, [work.path], work, fits=fits)


def test_a_finished_stage_is_skipped_and_gives_its_results(tmp_path, work):
    first = stages_in(tmp_path).run(stage(work, seed=1))
    second = stages_in(tmp_path)
    assert second.run(stage(work, seed=1)) == first == {"calls": 1}
    assert work.calls == 1
    assert second.rows[0].state == State.DONE
    assert "(done before)" in stage_table(second.rows)


def test_the_table_has_this_calls_seconds_apart_from_those_of_earlier_calls():
    rows = [
        StageRow("training-pre_op", State.GOES_ON, "interrupted", seconds=30.0, before=600.0),
        StageRow("plan-pre_op", State.DONE, before=1.5),
        StageRow("filters", State.NEW, "not made yet", seconds=10.0),
    ]
    table = [line.split() for line in stage_table(rows).splitlines()]
    assert table[0] == ["stage", "seconds", "share", "before"]
    assert table[1] == ["training-pre_op", "30.0", "75%", "600.0"]
    assert table[2] == ["plan-pre_op", "0.0", "0%", "1.5", "(done", "before)"]
    assert table[3] == ["filters", "10.0", "25%"]
    assert table[4] == ["total", "40.0", "601.5"]


def test_photographs_set_aside_are_told_by_reason_and_a_small_count_is_not_in_the_summary(capsys, tmp_path):
    aside = {"no_face": 12, "duplicate": 3}
    tell_photographs(
        "pre_op", {"training_images": 40, "holdout_images": 6, "set_aside": aside}, tmp_path / "a b"
    )
    told = capsys.readouterr().out
    assert "pre_op: 40 photographs trained on, 6 held out, 15 set aside" in told
    assert "12  no_face: no face was found" in told and "3  duplicate: the same picture again" in told
    assert f"dataset show '{tmp_path}/a b' --list" in told
    done = {"training_images": 40, "recipe": {}, "last_step": None}
    stages = {"dataset": {"holdout_images": 6, "set_aside": aside}, "training": done}
    rows = aside_rows("pre_op", training_facts(stages, phantom=False))
    assert rows == ["| pre_op | no face was found | 12 |", "| pre_op | the same picture again | <5 |"]


def test_a_stage_whose_output_is_gone_is_done_again(tmp_path, work):
    stages_in(tmp_path).run(stage(work, seed=1))
    work.path.unlink()
    stages = stages_in(tmp_path)
    assert stages.examine(stage(work, seed=1)) == (State.GOES_ON, "file is gone")
    assert stages.run(stage(work, seed=1)) == {"calls": 2}


def test_outputs_of_other_inputs_are_set_aside_and_never_deleted(tmp_path, work):
    stages_in(tmp_path).run(stage(work, seed=1, mode="paper"))
    for seed in (2, 3):
        said = []
        stages = stages_in(tmp_path)
        stages.say = said.append
        stages.run(stage(work, seed=seed, mode="paper"))
        aside = f"superseded/s-{seed - 1}"
        assert said[0] == f"s … made anew (seed changed); what was there is now in {aside}"
        assert (tmp_path / aside / "file").read_text() == str(seed - 1)
        assert work.path.read_text() == str(seed)


def test_private_outputs_are_set_aside_in_the_private_folder(tmp_path):
    work = Work(tmp_path / "private" / "photographs" / "file")
    stages_in(tmp_path).run(stage(work, seed=1))
    stages_in(tmp_path).run(stage(work, seed=2))
    assert (tmp_path / "private" / "superseded" / "s-1" / "file").read_text() == "1"
    assert not (tmp_path / "superseded").exists()


def test_outputs_that_still_fit_are_brought_up_to_date_where_they_lie(tmp_path, work):
    for n in (1, 2, 2):
        stages_in(tmp_path).run(stage(work, always, n=n))
    assert work.calls == 2
    assert not (tmp_path / "superseded").exists()


def test_redo_makes_anew_what_is_done(tmp_path, work):
    stages_in(tmp_path).run(stage(work, lambda: True, seed=1))
    stages_in(tmp_path, redo=True).run(stage(work, lambda: True, seed=1))
    assert work.calls == 2
    assert (tmp_path / "superseded" / "s-1" / "file").read_text() == "1"


def test_a_dry_run_says_what_waits_for_what_and_writes_nothing(tmp_path, work):
    stages_in(tmp_path).run(stage(work, seed=1))
    follower = Work(tmp_path / "follower")
    stages_in(tmp_path).run(Stage("t", dict, [follower.path], follower, ["s"]))
    before = sorted(tmp_path.rglob("*"))
    dry = stages_in(tmp_path, dry=True)
    dry.run(stage(work, seed=2))
    dry.run(Stage("t", lambda: pytest.fail("not known yet"), [follower.path], follower, ["s"]))
    dry.run(Stage("u", lambda: pytest.fail("not known yet"), [tmp_path / "u"], follower, ["t"]))
    assert [(row.state, row.why) for row in dry.rows] == [
        (State.ANEW, "seed changed"), (State.FOLLOWS, "after s"), (State.NEW, "not made yet"),
    ]  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before
    assert (work.calls, follower.calls) == (1, 1)
    assert plan_table(dry.rows).splitlines()[1].split() == ["s", "made", "anew", "seed", "changed"]


def test_an_interrupted_stage_goes_on_and_its_seconds_add_up(tmp_path, work):
    work.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        stages_in(tmp_path).run(stage(work, seed=1))
    work.interrupted = False
    stages = stages_in(tmp_path)
    assert stages.run(stage(work, seed=1)) == {"calls": 2}
    assert stages.rows[0].state == State.GOES_ON


def test_digests_see_values_and_not_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


@pytest.mark.parametrize("values", [[], [1], [("ä", None, 2.5), {"b": 1, "a": [1j]}, "z"]])
def test_a_digest_of_values_one_by_one_is_that_of_their_list(values):
    assert digest_of_each(iter(values)) == digest_of(values)


@pytest.mark.parametrize(("faces", "holdout"), [(100, 0.1), (201, 0.1), (9, 0.3), (5, 0.0)])
def test_enough_photographs_are_rendered_for_the_holdout(faces, holdout):
    n = photographs_for(faces, holdout)
    assert n - (max(1, round(holdout * n)) if holdout else 0) == faces


def test_the_documentation_has_the_demos_holdout(repository):
    shown = [found.phantom.photographs for found in load_vocabulary().conditions.values() if found.phantom]
    held = sum(photographs_for(n, 0.1) - n for n in shown)
    text = (repository / "docs" / "downstream.md").read_text("utf-8")
    assert f"{held} phantoms in the demo" in text


def test_drift_is_nothing_between_equal_pictures_and_the_difference_otherwise():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, size=(6, 8, 8, 3), dtype=np.uint8)
    same = drift(base, base)
    assert same["mean_absolute_difference"]["value"] == 0
    assert same["psnr"]["value"] is None
    moved = drift(base, base + np.uint8(5))
    assert moved["mean_absolute_difference"]["value"] == 5
    assert moved["psnr"]["value"] == pytest.approx(10 * np.log10(255**2 / 25))
    with pytest.raises(ValueError, match="equal shape"):
        drift(base, base[:3])


def share(k: int, n: int) -> dict:
    return clopper_pearson(k, n).as_dict()


@pytest.mark.parametrize(
    ("label", "figure", "verdict"),
    [
        ("trigger_obedience", share(198, 200), "at least 90 %: reached"),
        ("trigger_obedience", share(95, 100), "at least 90 %: not decided at n = 100"),
        ("trigger_obedience", share(120, 200), "at least 90 %: not reached"),
        ("trigger_obedience, dark skin", share(6, 33), "at least 80 %: not reached"),
        ("cleft_prompt_without_trigger", share(0, 6), "at most 10 %: too few to tell, n = 6"),
        ("trigger_obedience", share(0, 4), "at least 90 %: too few to tell, n = 4"),
        ("cleft_prompt_without_trigger", share(0, 12), "at most 10 %: not decided at n = 12"),
        ("cleft_prompt_without_trigger", share(0, 100), "at most 10 %: reached"),
        ("cleft_prompt_without_trigger", share(30, 100), "at most 10 %: not reached"),
        ("cleft_type_accuracy", share(0, 0), "at least 85 %: not measured"),
        ("other_trigger", share(3, 6), ""),
    ],
)
def test_a_goal_is_reached_or_missed_where_the_whole_interval_says_so(label, figure, verdict):
    assert goal_of(label, figure) == verdict


def test_a_contact_sheet_shows_every_picture_in_its_place_with_its_label_below(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    pictures = [np.full((64, 128, 3), colour, np.uint8) for colour in colours]
    labelled = list(zip(pictures, ("one", "two", ""), strict=True))
    path = contact_sheet(labelled, tmp_path / "s.png", title="Faces", columns=2, cell=64)
    with Image.open(path) as image:
        sheet = np.asarray(image)
    # Two columns of 64 px with 8 px around; a title of 14 px in 8 px; under 32 px of picture three lines
    # of 9 + 2 px, and 8 px to the next row.
    assert sheet.shape == (30 + 2 * 73 + 8, 2 * 72 + 8, 3)
    for colour, (left, top) in zip(colours, ((8, 30), (80, 30), (8, 103)), strict=True):
        assert (sheet[top : top + 32, left : left + 64] == colour).all()
    written = (sheet != BACKGROUND).any(axis=2)
    assert written[8:22, 8:60].any() and not written[:8].any() and not written[:, :8].any()
    labels = [
        written[top + 33 : top + 44, left : left + 64].any() for left, top in ((8, 30), (80, 30), (8, 103))
    ]
    assert labels == [True, True, False]
    assert not written[103:135, 80:].any()


def test_labels_name_the_finding_and_fit_their_picture():
    label = short_label({"subject": "girl", "cleft_type": "unilateral", "skin": "dark", "scar": "none"})
    assert label == "girl, unilateral, dark skin"
    lines = fit_lines("one two three four five six seven", 9, len)
    assert lines[:2] == ["one two", "three"]
    assert all(len(line) <= 9 for line in lines)
    assert lines[-1].endswith("…")
    assert clip("abcdefgh", 4, len) == "abc…"


@pytest.mark.parametrize(("preset", "healthy"), [("robust", True), ("paper", False)])
def test_healthy_captions_count_where_the_base_models_output_is_preserved(preset, healthy):
    """`paper` never sees them: a LoRA of it is not trained anew because a dataset has them now."""
    run = SimpleNamespace(stages=SimpleNamespace(inputs=lambda stage: {}))
    dataset = {"manifest": "m", "trained_on": "t", "healthy_captions": "h"}
    recipe = named_recipe(preset, phantom=True)
    photographs = {"training photographs": "t"}
    found = photographs_input(run, "training-pre_op", dataset, recipe)
    assert found == photographs | ({"healthy captions": "h"} if healthy else {})
    dataset |= {"healthy_captions": None}
    assert photographs_input(run, "training-pre_op", dataset, recipe) == photographs


def test_what_a_dataset_says_of_its_photographs_leaves_healthy_captions_out_where_they_do_not_count():
    rows = [ImageRow("a.png", caption="[CLP] A girl.", healthy_caption=text) for text in ("A girl.", None)]
    without = [{"file": "a.png", "caption": "[CLP] A girl."}] * 2
    assert described(rows, healthy=False) == without
    assert described(rows, healthy=True) == [without[0] | {"healthy_caption": "A girl."}, without[1]]
