"""On phantoms the truth is known: controls catch a shortcut, and leave a real effect."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from downstream_phantoms import small_cropper, write_phantoms
from PIL import Image

from diffusioncleft.diffusioncleft_core.downstream.crops import joined
from diffusioncleft.diffusioncleft_core.downstream.evidence import task_block
from diffusioncleft.diffusioncleft_core.downstream.experiment import ExperimentSettings, run_experiment
from diffusioncleft.diffusioncleft_core.downstream.held_out import HeldOut, each_once, people_of
from diffusioncleft.diffusioncleft_core.downstream.task import CONTROLS, load_task
from diffusioncleft.diffusioncleft_core.downstream.training import TrainSettings
from diffusioncleft.diffusioncleft_core.downstream.trainings import Material
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.weights.backbones import load_backbone

pytestmark = pytest.mark.long
LEARNED, TESTED = 40, 40
USED = ("lip_masked", "lip_alone", "background", "shuffled_labels", "base_as_both")
SETTINGS = ExperimentSettings(TrainSettings(kind="probe"), seeds=8)
"""Trainings on shuffled labels lie far apart: of five of them no interval tells anything."""


def tinted(folder):
    """The pictures with a cast of colour all over, as another camera or another generator leaves."""
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.int16)
        Image.fromarray(np.clip(pixels + np.array([24, 0, -24]), 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory, analyzer):
    """Runs all controls on positives and negatives made by two functions; gives the task's block."""
    backbone = load_backbone(PHANTOM, torch.device("cpu"))
    cropper = small_cropper(analyzer, side=96)
    task = load_task("lip_anomaly")
    task = replace(task, curve=(), controls=tuple(CONTROLS[name] for name in USED))

    def run(name, positive, negative):
        root = tmp_path_factory.mktemp(name)
        sets = {}
        for part, n, seed in (("learned", LEARNED, 100), ("tested", TESTED, 200)):
            for label, make in ((1, positive), (0, negative)):
                folder = make(root / f"{part}-{label}", seed + label, n)
                sets[part, label] = cropper.read(folder, label)
        base = cropper.read(write_phantoms(root / "base", None, 300, LEARNED), 0)
        test = each_once(joined([sets["tested", 1], sets["tested", 0]]))
        material = Material(
            sets["learned", 1], sets["learned", 0], HeldOut(test, people_of(root, test)), base=base
        )
        return task_block(
            run_experiment(task, material, backbone, cropper, root / "private", SETTINGS), resamples=500
        )

    return run


def passed(block):
    return {control["name"]: control["passed"] for control in block["controls"]}


def test_a_classifier_that_knows_nothing_but_a_shortcut_is_caught(judge):
    block = judge(
        "shortcut",
        lambda folder, seed, n: tinted(write_phantoms(folder, None, seed, n)),
        lambda folder, seed, n: write_phantoms(folder, None, seed, n),
    )
    assert block["sources"]["generated"]["auc"]["value"] > 0.9
    found = passed(block)
    assert found["lip_masked"] is False
    # None: eight trainings on shuffled labels can lie too far apart to tell, which hangs on the processor
    assert found["shuffled_labels"] is not False and found["base_as_both"]
    assert "does not stand" in block["reading"] and "it does not need the lip" in block["reading"]


def on_one_background(folder, seed, n):
    """Healthy phantoms, all in front of the same wall."""
    folder.mkdir()
    for index in range(n):
        face = random_face(np.random.default_rng([seed, index]))
        face = replace(face, view=replace(face.view, background="plain", ground=(0.27, 0.47, 0.31)))
        Image.fromarray(render(face, 128).image).save(folder / f"{index:04d}.png")
    return folder


def test_positives_in_front_of_one_background_are_told_by_the_background_alone(judge):
    block = judge("wall", on_one_background, lambda folder, seed, n: write_phantoms(folder, None, seed, n))
    found = passed(block)
    assert found["background"] is False
    assert found["shuffled_labels"] and found["base_as_both"]
    assert "The reading that it learned the lip stands" not in block["reading"]


def test_a_real_effect_is_found_and_outlives_the_controls_of_its_surroundings(judge):
    block = judge(
        "effect",
        lambda folder, seed, n: write_phantoms(folder, "cleft", seed, n),
        lambda folder, seed, n: write_phantoms(folder, None, seed, n),
    )
    assert block["sources"]["generated"]["auc"]["ci95_trainings"][0] > 0.75
    found = passed(block)
    assert found["background"] and found["shuffled_labels"] and found["base_as_both"] and found["lip_alone"]
