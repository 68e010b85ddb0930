"""Grad-CAM lies where the difference lies, is drawn of phantoms alone, and its share is counted right."""

import numpy as np
import pytest
import torch
from downstream_phantoms import random_crops

from diffusioncleft.diffusioncleft_core.downstream.crops import joined
from diffusioncleft.diffusioncleft_core.downstream.saliency import grad_cam, lip_saliency, share_on_lip
from diffusioncleft.diffusioncleft_core.downstream.task import load_task
from diffusioncleft.diffusioncleft_core.downstream.training import TrainSettings, train_classifier
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.weights.backbones import load_backbone

CPU = torch.device("cpu")
TASK = load_task("pre_post")
SIDE, STAIN = 160, 24


def stained(n, seed, place):
    """Dim noise, and a bright stain at (x, y); the lip's box is the upper left quarter."""
    crops = random_crops(n, seed=seed, side=SIDE)
    crops.pixels[:] = crops.pixels // 4
    crops.lips[:] = (8, 8, 40, 40)
    if place is not None:
        x, y = place
        crops.pixels[:, y : y + STAIN, x : x + STAIN] = (230, 220, 60)
    return crops


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("phantom", CPU)


def trained(backbone, place, kind="paper"):
    settings = TrainSettings(kind=kind, epochs=8, batch=8)
    return train_classifier(TASK, stained(40, 1, place), stained(40, 2, None), backbone, settings, seed=0)


@pytest.fixture(scope="module")
def of_the_lip(backbone):
    """A classifier of pictures that differ on the lip."""
    return trained(backbone, (12, 12))


@pytest.mark.long
def test_saliency_is_on_the_lip_when_the_difference_is_and_elsewhere_when_it_is_elsewhere(
    backbone, of_the_lip
):
    on, off = (12, 12), (124, 124)
    classifiers = {on: of_the_lip, off: trained(backbone, off)}
    found = {place: lip_saliency(classifiers[place], stained(20, 3, place)) for place in (on, off)}
    assert found[on].inside > 1.6 * found[on].area
    assert found[off].inside < found[off].area / 2
    assert found[on].n == 20 and found[on].area == found[off].area


def test_its_values_are_those_of_the_formula_on_one_picture(of_the_lip):
    classifier = of_the_lip
    crops = stained(1, 5, (12, 12))
    network, stages = classifier.top, classifier.part.backbone
    network.eval()
    x = classifier.part.network(stages.prepare(crops.pixels))
    activations = network.stages(x).detach().requires_grad_(True)
    logits = network.head(activations.mean((2, 3)))
    logits[0, int(logits.argmax())].backward()
    alpha = activations.grad.mean((2, 3))[0]
    expected = torch.relu((alpha[:, None, None] * activations[0]).sum(0)).detach().numpy()
    with torch.inference_mode():  # as a node of ComfyUI calls it
        cam = grad_cam(classifier, crops)[0]
    scale = SIDE // expected.shape[0]
    centres = cam[scale // 2 :: scale, scale // 2 :: scale]
    assert cam.shape == (SIDE, SIDE) and cam.min() >= 0
    assert np.corrcoef(centres.ravel(), expected.ravel())[0, 1] > 0.97
    assert np.isclose(cam.max(), expected.max(), rtol=0.2)


def test_the_share_is_counted_over_the_pictures_that_have_any_saliency():
    crops = random_crops(3, side=SIDE)
    crops.lips[:] = (8, 8, 40, 40)
    x0, y0, x1, y1 = crops.lips[0]
    maps = np.zeros((3, SIDE, SIDE), np.float32)
    maps[0, y0:y1, x0:x1] = 1
    maps[1] = 1
    found = share_on_lip(maps, crops)
    area = 32 * 32 / SIDE**2
    assert (found.n, found.n_flat) == (3, 1)
    assert np.isclose(found.inside, (1 + area) / 2, atol=1e-4) and np.isclose(found.area, area, atol=1e-4)
    assert share_on_lip(maps[2:], crops.where([2])).inside is None


def test_nothing_is_drawn_over_photographs_and_a_probe_has_nothing_to_show(backbone, of_the_lip):
    with pytest.raises(UserError, match="phantoms alone"):
        grad_cam(of_the_lip, random_crops(2, phantom=False, side=SIDE))
    with pytest.raises(UserError, match="needs the paper's model"):
        grad_cam(trained(backbone, (12, 12), "probe"), joined([stained(2, 6, None)]))
