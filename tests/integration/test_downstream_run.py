"""Classifiers on a run's folder: real files, phantoms, the embedded models."""

import json
from dataclasses import replace

import pytest
import torch
from downstream_phantoms import as_generated, write_phantoms
from phantom_datasets import phantom_dataset

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.downstream.cropper import Cropper
from diffusioncleft.diffusioncleft_core.downstream.document import read_document
from diffusioncleft.diffusioncleft_core.downstream.experiment import ExperimentSettings
from diffusioncleft.diffusioncleft_core.downstream.task import CONTROLS, Crop, load_task
from diffusioncleft.diffusioncleft_core.downstream.training import TrainSettings
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.generation.settings import Sampling
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.report.nearest import forget_dataset
from diffusioncleft.diffusioncleft_core.run import downstream
from diffusioncleft.diffusioncleft_core.run.downstream import read_evidence, try_classifiers, try_tasks
from diffusioncleft.diffusioncleft_core.run.downstream_material import Holdings
from diffusioncleft.diffusioncleft_core.run.run import Run
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.diffusioncleft_core.run.stages import State
from diffusioncleft.diffusioncleft_core.weights.backbones import load_backbone

IMAGES, TEST = 24, 40
SMALL = ExperimentSettings(TrainSettings(kind="probe"), seeds=2, folds=2)
FEW = tuple(CONTROLS[name] for name in ("generated_negatives", "lip_masked", "base_as_both"))


def few(name: str):
    """A task with three controls, on small crops."""
    return replace(load_task(name), controls=FEW, curve=(), crop=Crop(side=96))


@pytest.fixture
def root(tmp_path):
    """What a run leaves of its generated sets, and its healthy faces."""
    folders = RunFolders(tmp_path / "run")
    for seed, (condition, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        as_generated(write_phantoms(folders.generated(condition), finding, seed, IMAGES), condition)
    write_phantoms(folders.photographs("control"), None, 50, IMAGES)
    return folders.root


@pytest.fixture
def holdings(root, analyzer):
    folders = RunFolders(root)
    return Holdings(folders, Cropper.of(Crop(), analyzer, folders.faces), load_vocabulary(), n_test=TEST)


@pytest.fixture
def backbone():
    return load_backbone("seeded", torch.device("cpu"))


def test_both_tasks_run_on_a_folder_and_tell_what_is_missing(root, holdings, backbone):
    said = []
    holdings.warn = said.append
    tasks = [few("lip_anomaly"), few("pre_post")]
    document = try_tasks(holdings, tasks, backbone, SMALL, warn=said.append)
    assert read_document(root / "downstream.json") == document
    for name in ("lip_anomaly", "pre_post"):
        task = document["tasks"][name]
        assert task["test"]["n"] + task["test"]["n_not_found"] == TEST and task["test"]["leak"] is None
        rows = {row["name"]: row["verdict"] for row in task["controls"]}
        assert rows["base_as_both"] == "not run" and rows["lip_masked"] != "not run"
        source = task["sources"]["generated"]
        assert source["seeds"]["n"] == SMALL.seeds
        for kind, groups in source["groups"].items():
            told = {group: figures["accuracy"]["n"] for group, figures in groups.items()}
            assert sum(told.values()) == task["test"]["n"] and len(told) > 1, kind
        assert set(source["groups"]) == {"skin_tone", "age_group", "gender"}
        assert (
            "unknown" not in source["groups"]["skin_tone"] and task["test"]["n_subjects"] == task["test"]["n"]
        )
    assert all("no faces of the base model alone" in message for message in said) and said
    shared = json.dumps(document)
    assert str(root) not in shared and "photo-0" not in shared
    assert (root / "private" / "downstream").stat().st_mode & 0o077 == 0
    forget_dataset(root / "private" / "pre_op")
    assert (root / "private" / "downstream").exists()  # no run of ours: it has no stages
    (root / "private" / "stages").mkdir()
    forget_dataset(root / "private" / "pre_op")
    assert not (root / "private" / "downstream").exists()


@pytest.mark.long
def test_a_task_without_its_images_costs_the_other_one_nothing(root, holdings, backbone):
    RunFolders(root).generated("pre_op").rename(root / "elsewhere")
    said = []
    document = try_tasks(holdings, [few("pre_post"), few("lip_anomaly")], backbone, SMALL, warn=said.append)
    assert list(document["tasks"]) == ["lip_anomaly"]
    assert any("no generated images of pre_op; make them: diffusioncleft run" in text for text in said)
    with pytest.raises(UserError, match="no generated images of pre_op"):
        try_tasks(holdings, [few("pre_post")], backbone, SMALL)


@pytest.mark.long
def test_the_stage_draws_the_base_model_and_is_skipped_when_nothing_changed(root, monkeypatch):
    monkeypatch.setattr(downstream, "PHANTOM_TEST", TEST)
    monkeypatch.setattr(downstream, "PHANTOM_BASE", 6)
    monkeypatch.setattr(downstream, "PHANTOM_SETTINGS", SMALL)
    monkeypatch.setattr(downstream, "load_task", few)
    sampling = Sampling(torch.device("cpu"), torch.float32, 128, 128, batch=6)
    settings = RunSettings(
        root, phantom_source(), sampling, "phantom", phantom=True, n=IMAGES, downstream=("pre_post",)
    )

    def called() -> Run:
        run = Run(settings, say=lambda line: None)
        for stages in run.facts.values():
            stages["dataset"] = {"manifest": "as it was"}
        try_classifiers(run, None)
        return run

    run = called()
    drawn = read_image_set(root / "base")
    assert len(drawn) == 6 and {row.role for row in drawn} == {"control"}
    assert not any("cleft" in (row.prompt or "") or "[" in (row.prompt or "") for row in drawn)
    evidence = read_evidence(run)
    rows = {row["name"]: row["verdict"] for row in evidence["tasks"]["pre_post"]["controls"]}
    assert rows["base_as_both"] != "not run" and rows["generated_negatives"] == "not run"
    assert {row.name: row.state for row in called().stages.rows} == {
        "base": State.DONE,
        "downstream": State.DONE,
    }


def test_a_runs_datasets_are_the_folders_that_were_built(root, tmp_path, analyzer):
    folders = RunFolders(root)
    assert folders.datasets() == []
    folders.faces.mkdir(parents=True)
    built = phantom_dataset(tmp_path / "photos", "pre_op", folders.dataset("pre_op"), analyzer, n=4, seed=1)
    assert folders.datasets() == [built]


def test_a_run_on_phantoms_is_told_from_one_on_photographs_before_weights_are_looked_for(
    refused, tmp_path, analyzer
):
    folders = RunFolders(tmp_path / "run")
    folders.generated("pre_op").mkdir(parents=True)
    folders.private.mkdir()
    phantom_dataset(tmp_path / "photos", "pre_op", folders.dataset("pre_op"), analyzer, n=4, seed=1)
    told = refused("downstream", "run", tmp_path / "run", "--weights", tmp_path)
    assert f"the photographs of the run {tmp_path / 'run'} are phantoms: give --phantom" in told


def test_a_mistake_is_one_line(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    run = ("downstream", "run", tmp_path / "empty", "--phantom")
    assert "is no folder of a run" in refused(*run)
    assert "there is no task 'lips'" in refused(*run, "--task", "lips")
    assert "is no NAME=POSITIVE,NEGATIVE" in refused(*run, "--foreign", "gan=images")
    for name in ("generated", "real", "shuffled_labels"):
        assert f"a foreign source can't be called {name}" in refused(*run, "--foreign", f"{name}=a,b")
    assert "a foreign source can't be called '/tmp/gan'" in refused(*run, "--foreign", "/tmp/gan=a,b")
    assert "two foreign sources are called gan" in refused(
        *run, "--foreign", "gan=a,b", "--foreign", "gan=c,d"
    )
    assert "there is no task 'lips'" in refused(
        "run", "--phantom", "--out", tmp_path / "run", "--downstream", "lips"
    )
    assert not (tmp_path / "run").exists()
