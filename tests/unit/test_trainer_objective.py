"""Where the loss counts more."""

import numpy as np
import pytest
import torch

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.select import region_box
from diffusioncleft.diffusioncleft_core.faces.records import FaceRecord
from diffusioncleft.trainer.data import region_in_bucket
from diffusioncleft.trainer.objective import region_weights


def face(side, *landmarks):
    """The record of a picture of `side` px with a face."""
    return FaceRecord(side, side, n_faces=1, landmarks=np.array(landmarks, np.float32))


FACE = face(128, [40, 50], [88, 50], [64, 79], [48, 96], [80, 96])


def test_the_region_of_a_cleft_is_lip_and_nose_and_leaves_the_eyes_out():
    for name in ("pre_op", "post_op"):
        x0, y0, x1, y1 = region_box(load_vocabulary().condition(name).region, FACE)
        for x, y in FACE.landmarks[2:]:
            assert x0 < x < x1
            assert y0 < y < y1
        assert y0 > 50
        assert (x0 + x1) / 2 == pytest.approx(64)


def test_a_region_stays_inside_the_image_and_needs_a_face():
    region = load_vocabulary().condition("pre_op").region
    low = face(10, [0, 0], [9, 0], [5, 5], [0, 9], [9, 9])
    assert region_box(region, low) == pytest.approx([0.0, 1.85, 10.0, 10.0], abs=0.06)
    assert region_box(region, FaceRecord(10, 10)) is None
    assert region_box(None, FACE) is None


def test_a_region_follows_the_image_into_its_bucket():
    assert region_in_bucket([50, 60, 90, 100], 256, 256, (128, 128)) == (25, 30, 45, 50)
    # A wide image is cropped at both sides: 64 px of the original go on the left.
    assert region_in_bucket([164, 60, 204, 100], 384, 256, (128, 128)) == (50, 30, 70, 50)
    assert region_in_bucket([0, 0, 60, 100], 384, 256, (128, 128)) is None
    assert region_in_bucket(None, 384, 256, (128, 128)) is None
    # A tall one at the top and below.
    assert region_in_bucket([60, 164, 100, 204], 256, 384, (128, 128)) == (30, 50, 50, 70)
    assert region_in_bucket([60, 330, 100, 380], 256, 384, (128, 128)) is None
    # What is cropped away of a region is cut off.
    assert region_in_bucket([-10, -10, 999, 999], 96, 64, (96, 64)) == (0, 0, 96, 64)
    assert region_in_bucket([0.2, 0.2, 0.4, 0.4], 96, 64, (96, 64)) == pytest.approx((0.2, 0.2, 0.4, 0.4))
    assert region_in_bucket([5, 5, 5, 9], 96, 64, (96, 64)) is None
    assert region_in_bucket([5, 5, 9, 5], 96, 64, (96, 64)) is None


def test_weights_are_as_many_times_larger_inside_and_one_on_average():
    weights = region_weights((32.0, 64.0, 96.0, 112.0), 16, 16, 8.0)
    assert weights.shape == (1, 16, 16)
    assert weights.mean() == pytest.approx(1)
    inside = weights[0, 8:14, 4:12]
    assert torch.all(inside == inside[0, 0])
    assert inside[0, 0] / weights[0, 0, 0] == pytest.approx(8)
    assert (weights == weights.max()).sum() == inside.numel()
    assert torch.equal(region_weights(None, 4, 4, 8.0), torch.ones(1, 4, 4))
