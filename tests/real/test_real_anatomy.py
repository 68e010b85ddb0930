"""The anatomical phantom before models of photographs; tools/evaluate_anatomy.py measures it at large n."""

import pytest

from diffusioncleft.diffusioncleft_core.phantom.face import CLOSE
from diffusioncleft.tools.evaluate_anatomy import KINDS, detection, recognition


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_real_detector_finds_one_face_where_it_is(faces, kind):
    found = detection(faces, KINDS[kind], 8)
    assert found["one_face"]["value"] == 1.0
    assert found["score"]["median"] >= 0.72
    assert found["landmark_error"]["mean"] <= 0.06


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_real_detector_finds_one_face_in_a_close_picture(faces, kind):
    found = detection(faces, KINDS[kind], 8, CLOSE)
    assert found["one_face"]["value"] == 1.0
    assert found["landmark_error"]["mean"] <= 0.07


def test_a_real_recogniser_tells_people_apart(faces):
    assert recognition(faces, people=6, views=2)["auc"] >= 0.98
