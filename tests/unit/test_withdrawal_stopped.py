"""A withdrawal that is stopped halfway is done again by the same command: nothing stays unmarked."""

import csv
import shutil

import numpy as np
import pytest
from phantom_datasets import phantom_dataset
from safetensors.numpy import save_file

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.drawn import traced
from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs, read_roles
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    remember_lora,
    remember_training,
    remember_validation,
    trained_photographs,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import CHOSEN_BY, MARK, RUN_KEY, read_mark
from diffusioncleft.diffusioncleft_core.files import sha256_file, write_json
from diffusioncleft.diffusioncleft_core.run import withdrawal
from diffusioncleft.diffusioncleft_core.run.withdrawal import note_change, withdraw_dataset

RUN = "ab" * 32
SETTINGS = BuildSettings(phantom=True)


class Clinic:
    """A run with a dataset, a LoRA that learned from it and a set that this drew, and its photographs."""

    def __init__(self, root, analyzer):
        self.photos, self.run, self._analyzer = root / "photos", root / "run", analyzer
        self.dataset, self.loras = self.run / "private" / "pre_op", self.run / "loras" / "pre_op"
        self.drawn, self.lora = self.run / "generated" / "pre_op", self.loras / "clp.safetensors"

    def train(self, *, recorded=True):
        """Leave what a training and a generation leave; `recorded`, as an earlier version did not."""
        self.loras.mkdir(parents=True)
        save_file({"a": np.zeros(1, np.float32)}, self.lora, metadata={RUN_KEY: RUN})
        if recorded:
            remember_training(self.dataset, RUN, self.loras)
            remember_lora(self.dataset, RUN, self.lora)
        record = {"lora": traced(self.lora, sha256_file(self.lora), 1.0)}
        self.drawn.mkdir(parents=True)
        write_json(self.drawn / "generation.json", record)

    def first_of(self, role):
        """The first photograph that has a role."""
        roles = read_roles(self.dataset)
        return next(path for path in sorted(self.photos.glob("*.png")) if roles[sha256_file(path)] == role)

    def columns(self, photograph, **values):
        table = self.photos / "metadata.csv"
        with table.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        next(row for row in rows if row["file"] == photograph.name).update(values)
        with table.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    def build(self, on_change=None):
        """Build the dataset; what the build said."""
        said = []
        build_dataset(
            Photographs(self.photos, self.photos / "metadata.csv"),
            load_vocabulary().condition("pre_op"),
            self.dataset,
            self._analyzer,
            settings=SETTINGS,
            on_change=on_change or (lambda change: said.extend(note_change(self.dataset, change))),
        )
        return "\n".join(said)

    def stopped(self, *, marked):
        """Build the dataset and stop it before, or after, what is to be marked is marked."""

        def stop(change):
            if marked:
                note_change(self.dataset, change)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.build(stop)


@pytest.fixture(scope="module")
def built(tmp_path_factory, analyzer):
    root = tmp_path_factory.mktemp("built")
    (root / "run" / "private" / "stages").mkdir(parents=True)
    phantom_dataset(root / "photos", "pre_op", root / "run" / "private" / "pre_op", analyzer, n=6, seed=2)
    return root


@pytest.fixture
def clinic(built, tmp_path, analyzer, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Clinic(shutil.copytree(built, tmp_path / "clinic"), analyzer)


@pytest.fixture
def stopped_at(monkeypatch):
    """A function that has one of `run.withdrawal`'s own stop the program, once."""

    def arrange(name):
        real, stops = getattr(withdrawal, name), iter([True])

        def called(*arguments, **more):
            if next(stops, False):
                raise KeyboardInterrupt
            return real(*arguments, **more)

        monkeypatch.setattr(withdrawal, name, called)

    return arrange


@pytest.mark.parametrize("marked", [False, True])
def test_a_stopped_build_is_made_up_for_by_the_next_one(clinic, marked):
    clinic.train()
    clinic.columns(clinic.first_of("train"), consent="no")
    clinic.stopped(marked=marked)
    assert (clinic.drawn / MARK).is_file() is marked
    said = clinic.build()
    assert "withdrawn is what learned from them" in said and "dataset withdraw" in said
    assert str(clinic.drawn) in said and "no longer have consent: 1" in said
    assert (clinic.drawn / MARK).is_file() and (clinic.loras / MARK).is_file()
    assert trained_photographs(clinic.dataset) == {}, "their hashes go when all is marked"
    assert clinic.build() == ""


def test_so_it_is_where_the_photograph_had_left_the_dataset_before(clinic):
    clinic.train()
    photograph = clinic.first_of("train")
    clinic.columns(photograph, age_group="toddler")
    assert clinic.build() == ""
    clinic.columns(photograph, consent="no")
    clinic.stopped(marked=False)
    assert str(clinic.drawn) in clinic.build() and (clinic.drawn / MARK).is_file()


def test_so_it_is_where_a_held_out_photograph_chose_the_step(clinic):
    clinic.train()
    held_out = {row.sha256 for row in dataset_rows(clinic.dataset, "holdout")}
    remember_validation(clinic.dataset, RUN, clinic.loras, held_out, CHOSEN_BY)
    remember_lora(clinic.dataset, RUN, clinic.lora, CHOSEN_BY)
    clinic.columns(clinic.first_of("holdout"), consent="no")
    clinic.stopped(marked=False)
    assert "had a part in choosing the step" in clinic.build()
    assert [item.run for item in read_mark(clinic.loras, CHOSEN_BY)] == [RUN]


def test_so_it_is_for_a_lora_of_a_version_that_recorded_nothing(clinic, stopped_at):
    clinic.train(recorded=False)
    clinic.columns(clinic.first_of("train"), consent="no")
    stopped_at("mark_withdrawn")
    with pytest.raises(KeyboardInterrupt):
        clinic.build()
    assert str(clinic.drawn) in clinic.build() and (clinic.drawn / MARK).is_file()


def test_a_superseded_lora_of_a_condition_whose_name_begins_alike_is_not_this_ones(clinic):
    of_its_own, of_another = (
        clinic.run / "superseded" / f"training-{name}-1" / name for name in ("pre_op", "pre_op-late")
    )
    for folder in (of_its_own, of_another):
        folder.mkdir(parents=True)
        metadata = {RUN_KEY: RUN + folder.name}
        save_file({"a": np.zeros(1, np.float32)}, folder / "clp.safetensors", metadata=metadata)
    clinic.columns(clinic.first_of("train"), consent="no")
    clinic.build()
    assert (of_its_own / MARK).is_file() and not (of_another / MARK).exists()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_purge_that_was_stopped_marks_when_it_is_called_again(clinic, stopped_at, recorded):
    clinic.train(recorded=recorded)
    stopped_at("mark_withdrawn")
    with pytest.raises(KeyboardInterrupt):
        withdraw_dataset(clinic.dataset)
    assert str(clinic.drawn) in "\n".join(withdraw_dataset(clinic.dataset))
    assert (clinic.drawn / MARK).is_file()


def test_marks_that_a_stopped_build_left_are_lifted_by_the_next_one(clinic):
    clinic.train()
    photograph = clinic.first_of("train")
    clinic.columns(photograph, consent="no")
    clinic.build()
    clinic.columns(photograph, consent="yes")
    clinic.stopped(marked=False)
    assert (clinic.drawn / MARK).is_file()
    assert "have consent again" in clinic.build()
    assert not list(clinic.run.rglob(MARK))
    assert clinic.build() == ""
    clinic.columns(photograph, consent="no")
    assert str(clinic.drawn) in clinic.build(), "a later withdrawal finds it again"
