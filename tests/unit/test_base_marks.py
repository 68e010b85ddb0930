"""The marks on the base model's healthy phantoms are where their captions say, and never on the lips."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.tools.captions import mirrored
from diffusioncleft.tools.pool import draw_mark


@pytest.fixture(scope="module")
def marked():
    """Per face: rendering, what changed in each pixel, and what the mark is called."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(24):
        made = render(random_face(rng), 128)
        image, name = draw_mark(made, rng)
        changed = np.abs(image.astype(int) - made.image.astype(int)).sum(2)
        found.append((made, changed, name))
    return found


def test_a_mark_lies_on_the_side_that_its_name_says(marked):
    sides = []
    for made, changed, name in marked:
        middle, along = made.landmarks[:2].mean(0), made.landmarks[1] - made.landmarks[0]
        rows, columns = np.nonzero(changed > 60)
        if not len(rows):
            continue
        right = (columns - middle[0]) * along[0] + (rows - middle[1]) * along[1] > 0
        share = (right * changed[rows, columns]).sum() / changed[rows, columns].sum()
        if name.startswith("unilateral"):
            assert (share > 0.7) if name.endswith("left side") else (share < 0.3), name
            sides.append(name.split()[-2])
        else:
            assert "side" not in name
    assert {"left", "right"} == set(sides)


def test_no_mark_touches_the_lips(marked):
    for made, changed, _ in marked:
        x1, y1, x2, y2 = made.lips.astype(int)
        assert not changed[y1:y2, x1:x2].any()


def test_a_mirror_image_has_the_other_side_in_its_words():
    words = {"mark": "unilateral red wedge of the cheek on the left side", "skin": "pale"}
    assert mirrored(words)["mark"].endswith("on the right side")
    assert mirrored(mirrored(words)) == words
    assert mirrored({"mark": "bilateral dark line on the chin"})["mark"] == "bilateral dark line on the chin"
