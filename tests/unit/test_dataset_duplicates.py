"""Near duplicates: copies of a photograph are found, other photographs are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.dataset.examine import (
    Pair,
    Signature,
    near_duplicates,
    signature,
)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(11)
    return [phantom.render(phantom.random_face(rng, finding="cleft"), 128).image for _ in range(20)]


def copies(pixels):
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return {
        "re-encoded": Image.open(buffer),
        "smaller": image.resize((80, 80), Image.Resampling.LANCZOS),
        "larger": image.resize((300, 300), Image.Resampling.BICUBIC),
        "brighter": ImageEnhance.Brightness(image).enhance(1.03),
    }


def test_copies_of_a_photograph_are_near_duplicates(pictures):
    for pixels in pictures[:6]:
        for name, copy in copies(pixels).items():
            pair = [signature(pixels), signature(np.asarray(copy.convert("RGB")))]
            assert near_duplicates(pair, [None, None]) == [Pair(0, 1)], name


def test_mirrored_copies_are_near_duplicates_too(pictures):
    for pixels in pictures[:6]:
        mirrored = np.ascontiguousarray(pixels[:, ::-1])
        for name, copy in {**copies(mirrored), "as it is": Image.fromarray(mirrored)}.items():
            pair = [signature(pixels), signature(np.asarray(copy.convert("RGB")))]
            assert near_duplicates(pair, [None, None]) == [Pair(0, 1, mirrored=True)], name


def test_the_mirror_image_of_another_face_is_no_duplicate(pictures):
    mirrored = [signature(pictures[0]), signature(np.ascontiguousarray(pictures[0][:, ::-1]))]
    one, other = np.eye(2, 512, dtype=np.float32)
    assert near_duplicates(mirrored, [one, other]) == []


def test_other_photographs_are_not(pictures):
    assert near_duplicates([signature(item) for item in pictures], [None] * len(pictures)) == []


def test_another_face_on_nearly_the_same_picture_is_no_duplicate(pictures):
    same = [signature(pictures[0])] * 2
    one, other = np.eye(2, 512, dtype=np.float32)
    assert near_duplicates(same, [one, other]) == []
    assert near_duplicates(same, [one, one]) == near_duplicates(same, [one, None]) == [Pair(0, 1)]


def test_a_signature_survives_the_ledger(pictures):
    before = signature(pictures[0])
    after = Signature.from_json(before.to_json())
    assert before.dhash.tolist() == after.dhash.tolist()
    assert before.phash.tolist() == after.phash.tolist()
    assert (before.thumbnail == after.thumbnail).all()
