"""Lips of people: found from five landmarks on every photograph, in the same place at any size."""

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.downstream.cropper import Cropper
from diffusioncleft.diffusioncleft_core.downstream.lips import lip_box
from diffusioncleft.diffusioncleft_core.downstream.task import Crop
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image


@pytest.fixture(scope="module")
def photographs(people):
    return [read_image(path) for paths in people.values() for path in paths[:4]]


def lip_of(faces, image):
    found = faces.analyze(image)
    return None if not found else lip_box(found[0].landmarks, (image.shape[1], image.shape[0]))


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    both = np.prod(sides)
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def test_a_lip_is_found_on_every_photograph_and_its_square_holds_mouth_and_nose_tip(faces, photographs):
    for image in photographs:
        landmarks = faces.analyze(image)[0].landmarks
        lip = lip_box(landmarks, (image.shape[1], image.shape[0]))
        assert lip is not None
        low, high = lip.square[:2], lip.square[2:]
        assert (landmarks[2:] > low).all() and (landmarks[2:] < high).all()
        eyes = landmarks[:2]
        assert (eyes[:, 1] < low[1]).all(), "the eyes, which tell who it is, are not in the crop"


@pytest.mark.long
def test_the_lip_lies_in_the_same_place_at_another_size_and_in_the_mirror(faces, photographs):
    found = []
    for image in photographs:
        first = lip_of(faces, image)
        height, width = image.shape[:2]
        larger = np.array(Image.fromarray(image).resize((2 * width, 2 * height), Image.Resampling.LANCZOS))
        mirrored = np.ascontiguousarray(image[:, ::-1])
        second, third = lip_of(faces, larger), lip_of(faces, mirrored)
        turned = np.array([width - third.box[2], third.box[1], width - third.box[0], third.box[3]])
        found += [overlap(first.box, second.box / 2), overlap(first.box, turned)]
    assert np.median(found) > 0.85 and np.mean(np.array(found) > 0.6) > 0.95


def test_photographs_of_one_person_are_one_person_in_a_set_without_labels(faces, people, tmp_path):
    import shutil

    paths = {subject: found[:3] for subject, found in list(people.items())[:3]}
    for subject, found in paths.items():
        for path in found:
            shutil.copy(path, tmp_path / f"{subject}-{path.name}")
    crops = Cropper.of(Crop(side=96), faces).read(tmp_path, 1)
    assert len(crops) == 9 and not crops.phantom
    assert len(set(crops.people)) <= 4
