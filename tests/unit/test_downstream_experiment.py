"""All trainings of a task: what is trained on what, kept, resumed and put together as evidence."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from downstream_phantoms import random_crops, small_cropper

from diffusioncleft.diffusioncleft_core.downstream import features
from diffusioncleft.diffusioncleft_core.downstream.crops import GREY
from diffusioncleft.diffusioncleft_core.downstream.evidence import task_block
from diffusioncleft.diffusioncleft_core.downstream.experiment import ExperimentSettings, run_experiment
from diffusioncleft.diffusioncleft_core.downstream.held_out import HeldOut, each_once, people_of
from diffusioncleft.diffusioncleft_core.downstream.task import CONTROLS, load_task
from diffusioncleft.diffusioncleft_core.downstream.training import TrainSettings, train_classifier
from diffusioncleft.diffusioncleft_core.downstream.trainings import (
    SOURCE,
    Material,
    crossed,
    halves,
    planned,
    shuffled,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.weights.backbones import Backbone, load_backbone

SETTINGS = ExperimentSettings(TrainSettings(kind="probe"), seeds=2, folds=2)


def marked(n: int, seed: int):
    """Noise in which every positive has a bright lip: what a classifier of the lip can learn."""
    crops = random_crops(n, seed=seed)
    pixels = crops.pixels // 4
    for picture, lip, label in zip(pixels, crops.lips, crops.labels, strict=True):
        x0, y0, x1, y1 = lip
        picture[y0:y1, x0:x1] += np.uint8(150 * label)
    return replace(crops, pixels=pixels, surroundings=crops.surroundings // 4)


def classes(crops):
    return crops.where(crops.labels == 1), crops.where(crops.labels == 0)


def held_out(n: int, seed: int, folder):
    crops = marked(n, seed)
    return HeldOut(crops, people_of(folder, crops))


@pytest.fixture
def material(tmp_path):
    positive, negative = classes(marked(80, 1))
    return Material(
        positive,
        negative,
        held_out(60, 2, tmp_path),
        base_negative=random_crops(30, seed=3),
        base=random_crops(40, seed=4),
        photographs=marked(20, 5),
        foreign={"foreign": classes(marked(40, 6))},
    )


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("seeded", torch.device("cpu"))


@pytest.fixture
def task():
    return replace(load_task("lip_anomaly"), curve=(10, 20, 1000))


@pytest.fixture
def short(task):
    """The same with three controls and no curve."""
    names = ("generated_negatives", "lip_masked", "base_as_both")
    return replace(task, curve=(), controls=tuple(CONTROLS[name] for name in names))


@pytest.mark.long
def test_every_control_source_and_point_of_the_curve_is_trained(task, material, backbone, analyzer, tmp_path):
    settings = replace(SETTINGS, seeds=4)  # of two no interval tells a control from anything
    evidence = run_experiment(task, material, backbone, small_cropper(analyzer), tmp_path / "p", settings)
    assert list(evidence.sources) == ["generated", "foreign"]
    assert {control.name: len(control.trainings) for control in evidence.controls} == {
        control.name: 4 for control in task.controls
    }
    assert list(evidence.curve) == [10, 20, 40]
    block = task_block(evidence, resamples=200)
    verdicts = {control["name"]: control["passed"] for control in block["controls"]}
    assert block["sources"]["generated"]["auc"]["value"] > 0.9
    assert verdicts["lip_masked"] and verdicts["lip_alone"] and verdicts["background"]
    assert (tmp_path / "p").stat().st_mode & 0o077 == 0


def test_no_foreign_source_stands_in_for_a_training_of_the_tasks_own(material):
    for name in (SOURCE, "real", "base_as_both"):
        with pytest.raises(UserError, match=f"can't be called {name}"):
            replace(material, foreign={name: classes(marked(40, 6))})


def test_what_there_is_no_material_for_is_not_run(task, short, material, backbone, analyzer, tmp_path):
    poor = Material(material.positive, material.negative, material.test)
    names = [plan.name for plan in planned(task, poor, 2)]
    assert not {"generated_negatives", "base_as_both", "foreign"} & set(names) and "real" in names
    evidence = run_experiment(
        replace(short, controls=(CONTROLS["base_as_both"], CONTROLS["shuffled_labels"])),
        poor,
        backbone,
        small_cropper(analyzer),
        tmp_path / "p",
        SETTINGS,
    )
    rows = {control["name"]: control for control in task_block(evidence, resamples=100)["controls"]}
    assert rows["base_as_both"]["verdict"] == "not run" and rows["shuffled_labels"]["verdict"] != "not run"


def test_a_background_of_which_nothing_is_seen_is_not_run(task, material, backbone, analyzer, tmp_path):
    close = {
        name: replace(crops, surroundings=np.full_like(np.asarray(crops.surroundings), GREY))
        for name, crops in (("positive", material.positive), ("negative", material.negative))
    }
    controls = (CONTROLS["background"], CONTROLS["lip_masked"])
    told: list[str] = []
    for _ in range(2):  # what was kept of the first call tells no more in the second
        evidence = run_experiment(
            replace(task, curve=(), controls=controls),
            replace(material, **close),
            backbone,
            small_cropper(analyzer),
            tmp_path / "p",
            SETTINGS,
            warn=told.append,
        )
        rows = {control["name"]: control for control in task_block(evidence, resamples=100)["controls"]}
        assert rows["background"]["verdict"] == "not run" and rows["lip_masked"]["verdict"] != "not run"
    assert len(told) == 2 and all("nothing beside the face" in line for line in told)


def test_a_second_call_trains_nothing_anew_and_a_killed_one_goes_on(
    short, material, backbone, analyzer, tmp_path, monkeypatch
):
    from diffusioncleft.diffusioncleft_core.downstream import experiment

    real, trained = experiment.train_classifier, []

    def counted(*arguments, **named):
        if len(trained) == 3 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        trained.append(named["seed"])
        return real(*arguments, **named)

    monkeypatch.setattr(experiment, "train_classifier", counted)
    arguments = (short, material, backbone, small_cropper(analyzer), tmp_path / "p", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(*arguments)
    first = run_experiment(*arguments)
    whole = len(trained)
    kept = sorted((tmp_path / "p").glob("*.jsonl"))
    assert whole == len(kept)
    again = run_experiment(*arguments)
    assert len(trained) == whole
    assert [p.scores.tolist() for p in again.sources["generated"]] == [
        p.scores.tolist() for p in first.sources["generated"]
    ]
    kept[0].write_text("torn")
    run_experiment(*arguments)
    assert len(trained) == whole + 1
    more = replace(material, positive=material.positive.where(range(39)))
    run_experiment(short, more, *arguments[2:])
    assert len(trained) > whole + 2


def test_a_control_that_cannot_be_trained_is_told_and_costs_nothing_else(
    short, material, backbone, analyzer, tmp_path
):
    few = replace(material, base_negative=random_crops(1, seed=9))
    said = []
    evidence = run_experiment(
        short, few, backbone, small_cropper(analyzer), tmp_path / "p", SETTINGS, warn=said.append
    )
    rows = {control.name: control.trainings for control in evidence.controls}
    assert rows["generated_negatives"] == () and rows["base_as_both"]
    assert len(said) == 1 and "generated negatives is not run" in said[0]
    with pytest.raises(UserError, match="one person alone"):
        none = replace(material, positive=material.positive.where([0]))
        run_experiment(short, none, backbone, small_cropper(analyzer), tmp_path / "q", SETTINGS)


def test_nobody_is_tried_on_whom_a_fold_learned_from(material):
    labels = tuple(f"p{index // 3}" for index in range(60))
    test = replace(material.test, crops=replace(material.test.crops, subjects=labels))
    both = replace(material, test=test, photographs=replace(material.photographs, subjects=labels[:20]))
    folds = crossed(both, 4, seed=1)
    assert sorted(key for fold in folds for key in fold.test.keys) == sorted(test.crops.keys)
    for fold in folds:
        learned = {*fold.positive.subjects, *fold.negative.subjects}
        assert learned and not learned & set(fold.test.subjects)
        assert set(fold.positive.labels) == {1} and set(fold.negative.labels) == {0}


def look_alikes(n: int, people: int):
    """Crops without labels of people so alike (0.82) that few of them chain into one, and 20 don't."""
    faces = np.zeros((n, 512), np.float32)
    places = np.arange(n)
    faces[:, 0], faces[places, 1 + places % people], faces[places, 100 + places] = np.sqrt(
        [[0.82], [0.17], [0.01]]
    )
    return replace(marked(n, 8), embeddings=faces)


def test_folds_of_few_images_tell_the_people_apart_whom_the_whole_test_set_does(
    short, material, backbone, analyzer, tmp_path
):
    crops = look_alikes(36, 12)
    assert len(set(crops.people)) == 12 and len(set(crops.where(range(16)).people)) == 1
    alike = replace(material, test=HeldOut(crops, people_of(tmp_path, crops)), photographs=None)
    for fold in crossed(alike, SETTINGS.folds, seed=0):
        assert len(fold.test) < 20
        whole = dict(zip(crops.keys, crops.people, strict=True))
        assert fold.test.people == tuple(whole[key] for key in fold.test.keys)
    task = replace(short, controls=(CONTROLS["real"],))
    evidence = run_experiment(
        task, alike, backbone, small_cropper(analyzer), tmp_path / "p", SETTINGS, warn=pytest.fail
    )
    (control,) = task_block(evidence, resamples=100)["controls"]
    assert control["verdict"] != "not run"


def test_shuffled_labels_and_halves_hold_every_picture_once(material):
    for parts in (shuffled(material.positive, material.negative, 7), halves(material.base, 7)):
        keys = [key for part in parts for key in part.keys]
        assert len(keys) == len(set(keys)) and abs(len(parts[0]) - len(parts[1])) <= 1
    first, second = shuffled(material.positive, material.negative, 7)
    assert set(first.labels) == set(second.labels) == {0, 1}


def test_a_picture_counts_once_in_a_test_set_and_never_in_both_classes(material):
    crops = material.test.crops
    twice = replace(crops.where([*range(60), 0, 1]), n_not_found=3)
    assert each_once(twice).keys == crops.keys and each_once(twice).n_not_found == 3
    with pytest.raises(UserError, match="in both classes"):
        each_once(replace(twice, labels=np.append(crops.labels, [1, 0])))


def test_features_that_are_in_memory_are_not_computed_again(task, backbone, monkeypatch):
    memory = {}
    train = partial(train_classifier, task, *classes(marked(40, 1)), backbone, SETTINGS.train, memory=memory)
    first = train(seed=0)
    assert len(memory) == 40
    monkeypatch.setattr(Backbone, "prepare", None)  # a second computation would fail
    assert train(seed=0).facts == first.facts
    monkeypatch.setattr(features, "IN_MEMORY", 10 * next(iter(memory.values())).nbytes)
    train(seed=0)
    assert len(memory) == 10
