"""Likeness to training faces beyond that to unseen ones, and the plot of it."""

import io

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.tools.memorisation import resembles
from diffusioncleft.tools.memorisation_plot import memorisation_drawing


def faces(n, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, 512)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_faces_of_strangers_have_no_excess_and_copies_have_all_of_it():
    training, control = faces(20, 1), faces(20, 2)
    strangers = resembles(faces(200, 3), training, control)
    low, high = strangers["excess"]["ci95"]
    assert low < 0 < high and strangers["excess"]["n"] == 200
    copies = resembles(training, training, control)
    assert copies["to_training"]["value"] == pytest.approx(1.0, abs=1e-5)
    assert copies["excess"]["ci95"][0] > 0.8


def test_the_excess_is_the_mean_difference_of_the_nearest_similarities():
    training, control, generated = faces(4, 1), faces(4, 2), faces(3, 3)
    nearest = [max(float(face @ other) for other in training) for face in generated]
    apart = [max(float(face @ other) for other in control) for face in generated]
    found = resembles(generated, training, control)
    assert found["to_training"]["value"] == pytest.approx(np.mean(nearest), abs=1e-6)
    assert found["excess"]["value"] == pytest.approx(np.mean(nearest) - np.mean(apart), abs=1e-6)


def test_the_nearest_of_unequally_many_faces_is_not_compared():
    with pytest.raises(ValueError, match="4 training faces and 5 control faces"):
        resembles(faces(3, 1), faces(4, 2), faces(5, 3))


def test_without_a_face_nothing_is_claimed():
    found = resembles(faces(0, 1).reshape(0, 512), faces(2, 2), faces(2, 3))
    assert found["excess"] == {"value": None, "ci95": [-1.0, 1.0], "n": 0}


def test_the_plot_is_drawn_of_whatever_was_measured():
    def row(captions, rank, steps, excess):
        value = (
            {"value": excess, "ci95": [excess - 0.1, excess + 0.1], "n": 9} if excess is not None else None
        )
        share = {"value": 0.5, "ci95": [0.4, 0.6], "n": 9}
        return {
            "captions": captions,
            "rank": rank,
            "steps_per_image": steps,
            "obedience": share,
            "excess": value or {"value": None, "ci95": [-1.0, 1.0], "n": 0},
        }

    loras = {"base": row("base", 0, 0, 0.0)}
    loras |= {
        f"{c}{r}{s}": row(c, r, s, 0.01 * s) for c in ("full", "trigger") for r in (4, 16) for s in (10, 100)
    }
    loras["none"] = row("full", 64, 10, None)
    drawing = memorisation_drawing({"people": 20, "loras": loras})
    width, height = Image.open(io.BytesIO(drawing.render("png")[0])).size
    assert width > 2000 and height > 800
    assert len(drawing.rows) == 9 and "Phantom" in drawing.svg.decode()
