"""Twelve phantoms as photographs, and the dataset that was built from them."""

import shutil

import pytest
from dataset_building import N

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer

SETTINGS = BuildSettings(phantom=True)


@pytest.fixture(scope="session")
def faces():
    return load_face_analyzer("phantom", threads=1)


@pytest.fixture(scope="session")
def condition():
    return load_vocabulary().condition("pre_op")


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    phantom.write_photographs(folder, N, "cleft", 5, subjects=N - 2)
    return folder


@pytest.fixture(scope="session")
def built(originals, tmp_path_factory, faces, condition):
    out = tmp_path_factory.mktemp("private") / "pre_op"
    build_dataset(
        Photographs(originals, originals / "metadata.csv"), condition, out, faces, settings=SETTINGS
    )
    return out


@pytest.fixture
def photos(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "photos")


@pytest.fixture
def dataset(built, tmp_path):
    return shutil.copytree(built, tmp_path / "private" / "pre_op")


@pytest.fixture
def build(photos, dataset, faces, condition):
    def run(out=dataset, **settings):
        settings = BuildSettings(phantom=True, **settings)
        return build_dataset(
            Photographs(photos, photos / "metadata.csv"), condition, out, faces, settings=settings
        )

    return run
