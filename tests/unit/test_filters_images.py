"""The filters on one image: what is planted is found, what clefts and dark skin look like is left alone."""

import argparse
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from phantom_datasets import FINDING_OF

from diffusioncleft.diffusioncleft_core.dataset.references import ReferenceSet
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.records import FaceRecord, record_of, second_share
from diffusioncleft.diffusioncleft_core.filters import text as text_module
from diffusioncleft.diffusioncleft_core.filters.artifacts import (
    ARTIFACTS,
    NO_FACE,
    ArtifactFilter,
    ArtifactKind,
)
from diffusioncleft.diffusioncleft_core.filters.eye_bar import eye_line
from diffusioncleft.diffusioncleft_core.filters.eye_region import levelled
from diffusioncleft.diffusioncleft_core.filters.framing import framing
from diffusioncleft.diffusioncleft_core.filters.identity import IDENTITY_LEAK, IdentityFilter
from diffusioncleft.diffusioncleft_core.filters.text import load_text_reader
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters, verdicts_of
from diffusioncleft.diffusioncleft_core.phantom.face import HEALTHY, random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.tools.planted import PLANTED, plant, worn_copy


def drawn(n, seed, size=128, **settings):
    rng = np.random.default_rng(seed)
    return [render(random_face(rng, **settings), size) for _ in range(n)]


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_artifact_is_rejected_with_its_reason(artifacts, kind):
    faces = drawn(10, 3)
    others = [face.image for face in drawn(3, 4)]
    named = caught = 0
    for place, face in enumerate(faces):
        rng = np.random.default_rng([7, place])
        verdict = artifacts.check(plant(face.image, face.landmarks, face.box, kind, rng, others))
        caught += not verdict.accepted
        named += kind in verdict.reasons
    assert caught >= 9 and named >= 8


def test_planting_is_deterministic_and_leaves_its_input_alone():
    face, other = drawn(2, 5)
    for kind in PLANTED:
        before = face.image.copy()
        first, second = (
            plant(face.image, face.landmarks, face.box, kind, np.random.default_rng(9), [other.image])
            for _ in range(2)
        )
        assert np.array_equal(first, second) and first.shape == face.image.shape
        assert np.array_equal(face.image, before) and not np.array_equal(first, face.image)
    with pytest.raises(ValueError, match="no planted artifact"):
        plant(face.image, face.landmarks, face.box, "moustache", np.random.default_rng(9))


def test_clefts_dark_skin_and_dark_hair_are_no_artifact(artifacts):
    """In pictures that show the whole face: of one in twenty the frame cuts the hairline."""
    rejected = []
    conditions, skins = (None, "pre_op", "post_op"), HEALTHY["skin"]
    for number, (condition, skin) in enumerate(itertools.product(conditions, skins)):
        hair = ("black", "brown")[number % 2]
        words = {"skin": skin, "hair_color": hair}
        faces = drawn(4, number, finding=FINDING_OF[condition], attributes=words)
        whole = next(face for face in faces if face.box.min() >= 0 and face.box.max() <= 128)
        rejected += artifacts.check(whole.image).reasons
    assert rejected == []


def is_barred(image, landmarks):
    return eye_line(levelled(image, landmarks)).is_bar()


@pytest.mark.parametrize("skin", ["dark", "pale"])
def test_skin_over_the_eyes_is_no_bar_and_any_other_colour_is(skin):
    face = drawn(1, 11, attributes={"skin": skin})[0]
    apart = np.linalg.norm(face.landmarks[1] - face.landmarks[0])
    rows = slice(int(face.landmarks[0, 1] - 0.25 * apart), int(face.landmarks[0, 1] + 0.25 * apart))
    columns = slice(int(face.landmarks[0, 0] - 0.5 * apart), int(face.landmarks[1, 0] + 0.5 * apart))
    down = np.linspace(0, 1, rows.stop - rows.start)[:, None, None]
    closed = (1 - down) * face.image[rows.start - 1, columns] + down * face.image[rows.stop, columns]
    for colour, is_bar in (
        ((0, 0, 0), True),
        ((240, 240, 240), True),
        ((40, 90, 200), True),
        (closed, False),
    ):
        image = face.image.copy()
        image[rows, columns] = colour
        assert is_barred(image, face.landmarks) is is_bar
    assert not is_barred(face.image, face.landmarks)


def test_under_a_bar_in_the_colour_of_the_skin_the_eyes_are_hidden(artifacts):
    face = drawn(1, 11, attributes={"skin": "dark"})[0]
    left, right = face.landmarks[:2]
    reach = 0.3 * np.linalg.norm(right - left)
    rows = slice(int(left[1] - reach), int(left[1] + reach))
    columns = slice(int(left[0] - reach), int(right[0] + reach))
    face.image[rows, columns] = face.image[int(face.landmarks[2, 1]), int(left[0])]
    assert "hidden_eyes" in artifacts.check(face.image).reasons


def test_large_dark_eyes_in_pale_skin_are_no_bar():
    """Their line has a strong contrast with the cheeks, and is anything but even."""
    face = drawn(1, 3, attributes={"skin": "pale", "eyes": "brown"})[0]
    apart = np.linalg.norm(face.landmarks[1] - face.landmarks[0])
    for eye in face.landmarks[:2]:
        centre = (round(float(eye[0])), round(float(eye[1])))
        cv2.ellipse(face.image, centre, (int(0.3 * apart), int(0.24 * apart)), 0, 0, 360, (40, 25, 20), -1)
    assert not is_barred(face.image, face.landmarks)


def test_a_bar_is_found_at_any_size_of_image():
    face = drawn(1, 12)[0]
    barred = plant(face.image, face.landmarks, face.box, "eye_bar", np.random.default_rng(1))
    for scale in (0.5, 1, 6):
        size = round(128 * scale)
        for image, is_bar in ((face.image, False), (barred, True)):
            resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            assert is_barred(resized, face.landmarks * scale) is is_bar


def record(box, landmarks, size=(100, 100)):
    width, height = size
    return FaceRecord(width, height, 1, np.float32(box), np.float32(landmarks), 0.9)


LANDMARKS = [[40, 40], [60, 40], [50, 50], [42, 60], [58, 60]]


@pytest.mark.parametrize(
    ("box", "shift", "cropped"),
    [
        ((30, 20, 70, 75), (0, 0), False),
        ((-8, 20, 32, 75), (-38, 0), True),
        ((30, 20, 70, 120), (0, 0), True),
        ((30, 20, 70, 75), (0, 39), True),
        ((0, 0, 100, 100), (0, 0), False),
    ],
)
def test_a_face_is_cropped_when_its_box_or_its_landmarks_leave_the_frame(box, shift, cropped):
    assert framing(record(box, np.array(LANDMARKS) + shift)).is_cropped is cropped


def test_a_second_face_counts_by_its_area():
    large, small, tiny = (0, 0, 60, 60), (70, 0, 90, 20), (70, 50, 80, 60)
    assert second_share(np.float32([large])) == 0 and second_share(np.zeros((0, 4), np.float32)) == 0
    assert second_share(np.float32([small, large])) == pytest.approx(400 / 3600, abs=1e-3)
    assert second_share(np.float32([large, tiny])) < 0.05
    with pytest.raises(ValueError, match="no framing"):
        framing(FaceRecord(10, 10))


def test_two_squeezed_faces_side_by_side_are_seen_at_the_second_look(analyzer, artifacts):
    one, other = (face.image[:, 16:112] for face in drawn(2, 30))
    both = np.concatenate([cv2.resize(item, (64, 128)) for item in (one, other)], 1)
    assert len(analyzer.second_look(both)) >= 2
    assert "several_faces" in artifacts.check(both).reasons
    assert analyzer.second_look(np.full((64, 64, 3), 90, np.uint8)).shape == (0, 4)


def test_kinds_can_be_chosen_but_an_image_without_a_face_is_always_rejected(analyzer):
    face = drawn(1, 8)[0]
    barred = plant(face.image, face.landmarks, face.box, "eye_bar", np.random.default_rng(1))
    only_text = ArtifactFilter(analyzer, kinds=["text"], threads=1)
    assert only_text.check(barred).accepted
    assert only_text.check(np.full((96, 96, 3), 120, np.uint8)).reasons == [NO_FACE]
    no_text = ArtifactFilter(analyzer, kinds=["eye_bar"])
    assert no_text.check(barred).reasons == ["eye_bar"] and "text" not in no_text.check(barred).artifacts
    assert no_text.describe()["text"] is None and only_text.describe()["text"]
    with pytest.raises(UserError, match="no artifact 'moustache'"):
        ArtifactFilter(analyzer, kinds=["moustache"])


def test_text_alone_is_looked_for_without_any_face_models(analyzer):
    plain = np.full((96, 96, 3), 120, np.uint8)
    only_text = ArtifactFilter(None, kinds=["text"], threads=1)
    assert only_text.check(plain).accepted and only_text.describe()["faces"] is None
    assert list(only_text.check(plain).artifacts) == ["text"]
    for kinds in (["eye_bar"], ["text", "hidden_eyes"], []):  # no kind: faces alone are looked for
        with pytest.raises(ValueError, match="need"):
            ArtifactFilter(None, kinds=kinds, threads=1)


def test_a_limit_changes_verdicts_and_what_they_depend_on(analyzer):
    face = drawn(1, 8)[0]
    barred = plant(face.image, face.landmarks, face.box, "eye_bar", np.random.default_rng(1))
    usual, other = (
        ArtifactFilter(analyzer, kinds=["eye_bar"], limits=limits) for limits in ({}, {"bar_evidence": 90})
    )
    assert not usual.check(barred).accepted and other.check(barred).accepted
    assert Filters(usual).key != Filters(other).key
    same = ArtifactFilter(analyzer, kinds=["eye_bar"], limits={"eye_detail": 0.1})  # of a kind not chosen
    assert Filters(usual).key == Filters(same).key


def test_text_is_read_in_small_and_large_pictures_and_no_word_in_a_plain_one():
    reader = load_text_reader(threads=1)
    for size in (128, 700):
        picture = np.full((size, size, 3), 150, np.uint8)
        assert not any(region.is_text for region in reader.regions(picture))
        scale = size / 190
        place = (size // 12, size // 2)
        cv2.putText(picture, "SAMPLE", place, cv2.FONT_HERSHEY_DUPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
        best = reader.regions(picture)[0]
        assert best.is_text and best.letters == 6


def test_the_text_detector_finds_what_rapidocrs_own_code_finds(offline_env):
    """Same regions, same scores: the probability map is thresholded and grown as RapidOCR does."""
    code = """
import logging, cv2, numpy as np
logging.disable(logging.CRITICAL)
from rapidocr import RapidOCR
from diffusioncleft.diffusioncleft_core.filters.text import load_text_reader
picture = np.full((320, 320, 3), 200, np.uint8)
cv2.putText(picture, 'HOSPITAL', (40, 160), cv2.FONT_HERSHEY_DUPLEX, 1.4, (10, 10, 10), 2, cv2.LINE_AA)
theirs = RapidOCR(params={'Global.use_cls': False, 'Det.limit_side_len': 320})(picture[..., ::-1])
(box, word, score) = theirs.boxes[0], theirs.txts[0], theirs.scores[0]
ours = load_text_reader(1).regions(picture)[0]
assert word == 'HOSPITAL' and ours.letters == 8, (word, ours)
centre, size = np.array(ours.rectangle[0]), max(ours.rectangle[1])
assert np.abs(box.mean(0) - centre).max() < 3 and abs(np.ptp(box[:, 0]) - size) < 8, (box, ours)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_rows_of_rings_are_curls_and_no_text():
    """The recogniser is sure to read 88088 in them."""
    picture = np.full((128, 128, 3), (60, 40, 30), np.uint8)
    for row, column in itertools.product((30, 44), range(30, 100, 13)):
        cv2.circle(picture, (column, row), 5, (120, 100, 80), 2, cv2.LINE_AA)
    regions = load_text_reader(threads=1).regions(picture)
    assert not any(region.is_text for region in regions)


def test_a_missing_rapidocr_is_one_sentence(analyzer, monkeypatch):
    monkeypatch.setattr(text_module, "DETECTOR", "not there.onnx")
    with pytest.raises(UserError, match=r"pip install rapidocr onnxruntime"):
        ArtifactFilter(analyzer)


def unit(*values):
    vector = np.zeros(512, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def reference(*embeddings):
    names = tuple(("pre_op", "post_op")[place % 2] for place in range(len(embeddings)))
    return ReferenceSet(np.stack(embeddings), names, embedder={"pack": "x", "weights": {"rec.onnx": "00"}})


def test_a_face_like_a_photograph_of_any_condition_is_a_leak_and_the_threshold_counts_as_like():
    identity = IdentityFilter(reference(unit(1), unit(0, 1)))
    assert identity.check(unit(0.6, 0, 0.8)).rejected and identity.check(unit(0, 0.6, 0.8)).rejected
    assert not identity.check(unit(0.59, 0, 0.81)).rejected
    assert identity.check(unit(0, 0, 1)).accepted
    exact = unit(1) / 2
    assert IdentityFilter(reference(unit(1)), 0.5).check(exact).rejected
    assert IdentityFilter(reference(unit(1)), 0.5).check(np.nextafter(exact, np.float32(0))).accepted


def test_a_face_that_was_not_found_is_rejected_as_unassessed():
    verdict = IdentityFilter(reference(unit(1))).check(FaceRecord(64, 64))
    assert verdict.rejected and verdict.max_similarity is None
    assert IdentityFilter(reference(unit(1))).check(None).to_json()["max_similarity"] is None


@pytest.mark.parametrize("threshold", [0, -0.1, 1.2, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(threshold):
    with pytest.raises(UserError, match="the threshold is"):
        IdentityFilter(reference(unit(1)), threshold)


def test_a_reference_without_faces_is_refused():
    with pytest.raises(UserError, match="no training face"):
        IdentityFilter(ReferenceSet(np.zeros((0, 512), np.float32), ()))


def test_a_worn_copy_of_a_photograph_is_a_leak_and_a_stranger_is_none(analyzer):
    photographs = drawn(6, 40, finding="cleft")
    known = [record_of(face.image, analyzer.analyze(face.image)).embedding for face in photographs]
    identity = IdentityFilter(reference(*known))
    rng = np.random.default_rng(2)
    for face in photographs:
        copy = worn_copy(face.image, rng)
        assert identity.check(record_of(copy, analyzer.analyze(copy))).rejected
    stranger = drawn(1, 41, attributes={"skin": "dark"})[0].image
    assert identity.check(record_of(stranger, analyzer.analyze(stranger))).max_similarity < 0.95


def test_the_verdict_names_reasons_and_numbers_and_no_photograph(artifacts):
    face = drawn(1, 8)[0]
    identity = IdentityFilter(reference(unit(1), unit(0, 1))).check(unit(0.934567, 0.1))
    found = verdicts_of(artifacts.check(face.image), identity, "abc")
    assert found["reasons"] == [IDENTITY_LEAK] and not found["accepted"]
    assert found["identity"] == {
        "rejected": True,
        "max_similarity": 0.99,
        "threshold": 0.6,
        "embedder": {"pack": "x", "weights": {"rec.onnx": "00"}},
    }
    assert set(found["artifacts"]) == {NO_FACE, *ARTIFACTS}


def test_a_kind_of_artifact_is_added_with_one_entry(analyzer, monkeypatch):
    """It is looked for, chosen by its name on the command line, and counted."""
    from diffusioncleft.cli import filter as command

    def greyness(picture):
        return {"rejected": int(picture.image.std()) == 0}

    added = ArtifactKind("grey", "Grey", "Set aside grey pictures.", greyness, needs_face=False)
    monkeypatch.setitem(ARTIFACTS, "grey", added)
    found = ArtifactFilter(analyzer, kinds=["grey"]).check(np.full((64, 64, 3), 90, np.uint8))
    assert found.reasons == [NO_FACE, "grey"]
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert "cropped_face,eye_bar,hidden_eyes,text,grey" in "".join(parser.format_help().split())
