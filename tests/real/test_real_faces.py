"""What the phantom can't show: real detectors and recognisers on photographs of people."""

import io
import shutil
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.faces.records import PHANTOM_SCORE, are_phantoms, record_of
from diffusioncleft.diffusioncleft_core.imageset.decode import normalise, read_image

UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION = 0x0112


def test_a_person_is_nearer_to_themselves_than_to_others(faces, people):
    embeddings = {
        subject: [faces.analyze(read_image(path))[0].embedding for path in paths[:4]]
        for subject, paths in people.items()
    }
    unit = {s: [e / np.linalg.norm(e) for e in found] for s, found in embeddings.items()}
    same = [float(a @ b) for found in unit.values() for a, b in combinations(found, 2)]
    other = [float(a @ b) for s, t in combinations(unit, 2) for a in unit[s] for b in unit[t]]
    assert np.quantile(same, 0.1) > np.quantile(other, 0.9)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", sorted(UNDO))
def test_an_oriented_file_shows_the_same_face_on_the_same_side(faces, people, kind, orientation):
    upright = Image.open(next(iter(people.values()))[0]).convert("RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = io.BytesIO()
    extra = {"lossless": True} if kind == "WEBP" else {}
    upright.transpose(UNDO[orientation]).save(data, kind, exif=exif, **extra)
    pixels = normalise(data.getvalue()).pixels
    assert np.array_equal(pixels, np.asarray(upright))
    found, expected = faces.analyze(pixels)[0], faces.analyze(np.asarray(upright))[0]
    assert np.allclose(found.embedding, expected.embedding)


def test_a_published_detector_of_one_size_looks_at_smaller_sizes_too(real, faces, people, tmp_path):
    """Its second look is what a detector of any size sees at 512 px, and not the first look again."""
    published = real / "det_fixed640.onnx"
    if not published.is_file():
        pytest.skip("there is no det_fixed640.onnx beside the pack")
    shutil.copy(published, tmp_path / "det.onnx")
    shutil.copy(real / "pack" / "rec.onnx", tmp_path)
    fixed = load_face_analyzer(tmp_path)
    assert fixed.describe()["fixed_size"] is True and "fixed_size" not in faces.describe()
    for paths in people.values():
        image = read_image(paths[0])
        (first,) = (face.box for face in fixed.analyze(image)[:1])
        second, other = (analyzer.second_look(image)[0] for analyzer in (fixed, faces))
        height = other[3] - other[1]
        assert np.abs(second - other).max() < 0.06 * height
        assert not np.array_equal(second, first)


def test_photographs_of_people_are_not_taken_for_phantoms(faces, people):
    """Of any one person as they are; and of all together when cut to the face, as phantoms are framed."""
    embedded = load_face_analyzer("phantom")
    close = []
    for paths in people.values():
        images = [read_image(path) for path in paths]
        records = [record_of(image, embedded.analyze(image)) for image in images]
        assert not are_phantoms(records)
        scores = [record.score for record in records if record.score is not None]
        assert np.quantile(scores, 0.25) < PHANTOM_SCORE - 0.1
        for image in images:
            box = faces.analyze(image)[0].box
            middle, half = (box[:2] + box[2:]) / 2, 1.1 * (box[2:] - box[:2]) / 2
            frame = np.concatenate([middle - half, middle + half])
            cut = np.asarray(Image.fromarray(image).crop(tuple(frame.round().astype(int))).resize((256, 256)))
            close.append(record_of(cut, embedded.analyze(cut)))
    assert not are_phantoms(close)
