"""The run's memory of its stages, and the small parts of its report."""

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.imageset.synthetic import (
    BACKGROUND,
    clip,
    contact_sheet,
    fit_lines,
    short_label,
)
from diffusioncleft.diffusioncleft_core.phantom.experiment import drift
from diffusioncleft.diffusioncleft_core.report.summary import goal_of
from diffusioncleft.diffusioncleft_core.run.dataset import photographs_for
from diffusioncleft.diffusioncleft_core.run.stages import (
    Stage,
    Stages,
    State,
    always,
    digest_of,
    never,
    plan_table,
    stage_table,
)


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


@pytest.mark.parametrize(("faces", "holdout"), [(100, 0.1), (201, 0.1), (9, 0.3), (5, 0.0)])
def test_enough_photographs_are_rendered_for_the_holdout(faces, holdout):
    n = photographs_for(faces, holdout)
    assert n - (max(1, round(holdout * n)) if holdout else 0) == faces


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


def test_goals_say_reached_not_reached_or_not_measured():
    assert goal_of("trigger_obedience", 0.95).endswith(": reached")
    assert goal_of("trigger_obedience, dark skin", 0.79).endswith("not reached")
    assert goal_of("cleft_prompt_without_trigger", 0.11).endswith("not reached")
    assert goal_of("cleft_type_accuracy", None).endswith("not measured")
    assert goal_of("other_trigger", 0.5) == ""


def test_a_contact_sheet_shows_every_picture_in_its_place_with_its_label_below(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    pictures = [np.full((64, 128, 3), colour, np.uint8) for colour in colours]
    path = contact_sheet(pictures, ["one", "two", ""], tmp_path / "s.png", title="Faces", columns=2, cell=64)
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
