"""The figures of the phantom face models, on two people a skin tone."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.phantom.face import HEALTHY
from diffusioncleft.tools.evaluate_faces import in_a_larger_frame, measure_people, photograph_people


@pytest.fixture(scope="module")
def pictures():
    return photograph_people(2, 2, 64, seed=1)


def test_people_are_measured_overall_and_by_skin_tone(analyzer, pictures):
    found = measure_people(analyzer, pictures)
    assert found["detection"]["overall"]["one_box"]["n"] == len(pictures) == 4 * len(HEALTHY["skin"])
    assert found["detection"]["overall"]["one_box"]["value"] > 0.9
    assert found["identity"]["overall"]["auc"]["value"] > 0.9
    assert found["identity"]["overall"]["people"] == 2 * len(HEALTHY["skin"])
    for part in found.values():
        assert list(part["by_skin"]) == list(HEALTHY["skin"])


def test_in_a_larger_frame_box_and_landmarks_lie_where_the_face_does(pictures):
    truth = pictures[0][1]
    framed = in_a_larger_frame(truth, np.random.default_rng(0))
    x, y = np.round(framed.box - truth.box)[:2].astype(int)
    side = len(truth.image)
    assert len(framed.image) >= 2 * side
    np.testing.assert_array_equal(framed.image[y : y + side, x : x + side], truth.image)
    np.testing.assert_allclose(framed.landmarks - truth.landmarks, np.tile([x, y], (5, 1)), atol=1e-4)
