"""Bare folders of images as references."""

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.references import read_references
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset.copies import thumbnail
from diffusioncleft.diffusioncleft_core.metrics.bare import bare_faces
from diffusioncleft.diffusioncleft_core.metrics.copies import Knowing
from diffusioncleft.diffusioncleft_core.metrics.sets import MeasuredImage, References
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

PACK = {"name": "pack", "sha256": "0" * 64, "phantom": True, "licence": "none"}


def test_a_bare_reference_is_decoded_once_and_a_changed_picture_anew(analyzer, tmp_path, monkeypatch):
    folder, decoded = tmp_path / "healthy", []
    folder.mkdir()
    rng = np.random.default_rng(4)
    pictures = [render(random_face(rng), 128).image for _ in range(4)]
    for number, picture in enumerate(pictures[:3]):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"no picture")
    pixels = MeasuredImage.pixels
    monkeypatch.setattr(MeasuredImage, "pixels", lambda image: decoded.append(image.file) or pixels(image))

    def greys():
        decoded.clear()
        (found,) = bare_faces({folder: "all"}, analyzer, None, lambda message: None)
        return found.thumbnails

    first = greys()
    assert len(decoded) == 3 and all(map(np.array_equal, first, map(thumbnail, pictures[:3])))
    assert all(map(np.array_equal, greys(), first)) and decoded == []
    Image.fromarray(pictures[3]).save(folder / "1.png")
    assert np.array_equal(greys()[1], thumbnail(pictures[3])) and decoded == ["1.png"]


def test_a_worker_that_sees_other_photographs_looks_for_no_near_copies(analyzer, tmp_path):
    folder, rng = tmp_path / "healthy", np.random.default_rng(4)
    folder.mkdir()
    for number in range(3):
        Image.fromarray(render(random_face(rng), 128).image).save(folder / f"{number}.png")
    references = References((), {folder: "all"})
    others = bare_faces(references.folders, analyzer, None, lambda message: None)
    known = read_references((), analyzer, others=others)
    knowing = Knowing(references, None, lambda: analyzer, known.fingerprint, 3)
    assert len(knowing()) == len(known.copies) == 3
    (folder / "2.png").unlink()
    with pytest.raises(UserError, match="a worker sees other photographs"):
        knowing()
