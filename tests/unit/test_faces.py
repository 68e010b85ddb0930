"""Face analysis: packs are found or refused, and the embedded pack does what its model card says."""

import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
from insightface.app import FaceAnalysis
from insightface.utils.face_align import norm_crop
from phantom_datasets import FINDING_OF

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import (
    PHANTOM_FOLDER,
    aligned,
    find_pack,
    load_face_analyzer,
    retry_ladder,
)
from diffusioncleft.diffusioncleft_core.phantom.face import HEALTHY, random_face, random_identity
from diffusioncleft.diffusioncleft_core.phantom.render import render


def faces_of(n, seed, **settings):
    rng = np.random.default_rng(seed)
    return [render(random_face(rng, **settings), 128) for _ in range(n)]


@pytest.mark.parametrize("condition", [None, "pre_op", "post_op"])
def test_one_box_and_close_landmarks_in_every_skin_tone(analyzer, condition):
    errors = []
    for skin in HEALTHY["skin"]:
        for truth in faces_of(4, 5, finding=FINDING_OF[condition], attributes={"skin": skin}):
            faces = analyzer.analyze(truth.image)
            assert len(faces) == 1
            eyes = np.linalg.norm(truth.landmarks[1] - truth.landmarks[0])
            errors.append(np.linalg.norm(faces[0].landmarks - truth.landmarks, axis=1).mean() / eyes)
    assert np.mean(errors) < 0.05


def test_embeddings_tell_people_apart_whatever_the_condition(analyzer):
    rng = np.random.default_rng(7)
    embeddings, people = [], []
    for person in range(12):
        identity, shared = (
            random_identity(rng),
            {"subject": "kid", "skin": "medium", "eyes": "brown", "hair_color": "black"},
        )
        shared |= {"hair_texture": "straight", "hair_length": "short"}
        for condition in (None, "pre_op", "post_op"):
            face = random_face(rng, finding=FINDING_OF[condition], attributes=shared, identity=identity)
            embeddings.append(analyzer.analyze(render(face, 128).image)[0].embedding)
            people.append(person)
    cosine, people = np.stack(embeddings) @ np.stack(embeddings).T, np.array(people)
    same = people[:, None] == people
    upper = np.triu(np.ones_like(same), 1)
    genuine, impostor = cosine[same & upper], cosine[~same & upper]
    assert (genuine[:, None] > impostor[None]).mean() > 0.95
    assert np.allclose(np.diag(cosine), 1, atol=1e-4)


def test_pictures_without_a_face_give_no_box(analyzer):
    rng = np.random.default_rng(3)
    for _ in range(10):
        noise = rng.normal(rng.uniform(60, 200), 25, (16, 16, 3)).clip(0, 255).astype(np.uint8)
        picture = cv2.resize(noise, (128, 128))
        assert analyzer.analyze(picture) == []
        assert analyzer.n_faces(picture) == 0


def test_two_faces_are_counted_and_come_largest_first(analyzer):
    big, small = faces_of(2, 21)
    frame = np.full((256, 400, 3), 180, np.uint8)
    frame[:, :256] = cv2.resize(big.image, (256, 256))
    frame[64:192, 264:392] = small.image
    faces = analyzer.analyze(frame)
    assert len(faces) == analyzer.n_faces(frame) == 2
    assert faces[0].area > faces[1].area
    assert np.linalg.norm(faces[1].landmarks[0] - (small.landmarks[0] + [264, 64])) < 6


def test_a_colour_swap_is_noticed(analyzer):
    """The core is RGB throughout and insightface BGR: a forgotten swap would leave these embeddings equal."""
    truth = faces_of(1, 2)[0]
    face, swapped = (
        analyzer.analyze(truth.image),
        analyzer.analyze(np.ascontiguousarray(truth.image[..., ::-1])),
    )
    assert not swapped or face[0].embedding @ swapped[0].embedding < 0.98


@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 4000, 3), (4000, 2, 3), (37, 53, 3)])
def test_odd_sizes_are_no_error(analyzer, shape):
    assert analyzer.analyze(np.full(shape, 90, np.uint8)) == []


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))]
)
def test_other_than_rgb_bytes_is_refused(analyzer, image):
    with pytest.raises(ValueError, match="RGB"):
        analyzer.analyze(image)


def test_an_elongated_picture_is_searched_on_a_square(analyzer):
    truth = faces_of(1, 9)[0]
    strip = np.full((128, 1000, 3), 200, np.uint8)
    strip[:, 430:558] = truth.image
    for face in analyzer.analyze(strip):
        assert np.abs(face.landmarks - truth.landmarks - [430, 0]).max() < 12
    assert analyzer.n_faces(strip) <= 1


def test_the_ladder_goes_from_the_packs_size_down_and_ends_padded():
    assert [str(rung) for rung in retry_ladder(640)] == ["640", "512", "320", "128", "padded 640"]
    assert [str(rung) for rung in retry_ladder(160)] == ["160", "128", "padded 160"]


def test_a_face_missed_at_the_packs_size_is_found_further_down_the_ladder(tmp_path):
    """Asked for 640, far above its training sizes, the detector is unsure of frame-filling faces.

    Whichever rung is recorded, insightface itself must find nothing at the rungs before it.
    """
    pack = shutil.copytree(PHANTOM_FOLDER, tmp_path / "large")
    (pack / "pack.json").write_text(json.dumps({"det_size": 640, "det_thresh": 0.8}))
    analyzer = load_face_analyzer(pack, threads=1)
    plain = FaceAnalysis(name=str(pack), allowed_modules=["detection"])
    rungs = []
    for truth in faces_of(8, 4):
        rungs.append(analyzer.analyze(truth.image)[0].rung)
        bgr = np.ascontiguousarray(truth.image[..., ::-1])
        for rung in map(str, retry_ladder(640)):
            plain.prepare(ctx_id=-1, det_thresh=0.8, det_size=(int(rung), int(rung)))
            if rung == rungs[-1]:
                assert plain.get(bgr)
                break
            assert not plain.get(bgr)
    assert set(rungs) - {"640"}


def test_insightface_opens_the_pack_unmodified():
    app = FaceAnalysis(name=str(PHANTOM_FOLDER), allowed_modules=["detection", "recognition"])
    app.prepare(ctx_id=-1, det_size=(160, 160))
    truth = faces_of(1, 1)[0]
    faces = app.get(np.ascontiguousarray(truth.image[..., ::-1]))
    assert len(faces) == 1
    assert faces[0].embedding.shape == (512,)
    assert faces[0].kps.shape == (5, 2)


@pytest.mark.filterwarnings("ignore:.*estimate.*:FutureWarning")
def test_boxes_landmarks_and_embeddings_are_insightfaces_own_to_the_bit(analyzer):
    app = FaceAnalysis(name=str(PHANTOM_FOLDER), allowed_modules=["detection", "recognition"])
    app.prepare(ctx_id=-1, det_size=(160, 160))
    pictures = [truth.image for truth in faces_of(5, 12)]
    pictures.append(np.concatenate(pictures[:2], axis=1))
    n_faces = 0
    for picture in pictures:
        theirs = app.get(np.ascontiguousarray(picture[..., ::-1]))
        ours = analyzer.analyze(picture)
        assert len(ours) == len(theirs) > 0
        n_faces += len(ours)
        for face, peer in zip(ours, sorted(theirs, key=lambda found: -area(found.bbox)), strict=True):
            assert np.array_equal(face.box, peer.bbox) and np.array_equal(face.landmarks, peer.kps)
            assert np.array_equal(face.embedding, peer.normed_embedding)
    assert n_faces > len(pictures)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.filterwarnings("ignore:.*estimate.*:FutureWarning")
@pytest.mark.parametrize("side", [112, 128, 224])
def test_faces_are_aligned_as_insightface_aligns_them(side):
    picture = faces_of(1, 6)[0].image
    for seed in range(5):
        landmarks = np.random.default_rng(seed).uniform(10, 118, (5, 2)).astype(np.float32)
        assert np.array_equal(aligned(picture, landmarks, side), norm_crop(picture, landmarks, side))
    lost = np.full((5, 2), 3, np.float32)
    assert np.array_equal(aligned(picture, lost, side), norm_crop(picture, lost, side))


def test_the_onnx_files_have_the_form_insightface_needs():
    detector, recogniser = (onnx.load(PHANTOM_FOLDER / name) for name in ("det.onnx", "rec.onnx"))
    assert len(detector.graph.output) == 9
    assert all(axis.dim_param for axis in detector.graph.input[0].type.tensor_type.shape.dim[2:])
    assert len(recogniser.graph.output) == 1
    shape = recogniser.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [axis.dim_value for axis in shape[1:]] == [3, 112, 112]
    assert not any(
        node.name.startswith(("Sub", "Mul", "_minus", "_mul")) for node in recogniser.graph.node[:8]
    )
    assert sum(path.stat().st_size for path in PHANTOM_FOLDER.glob("*.onnx")) < 6e6


def test_a_missing_pack_stops_with_the_places_looked_in(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFUSIONCLEFT_FACE_PACKS", str(tmp_path / "packs"))
    with pytest.raises(UserError, match="buffalo_x") as caught:
        load_face_analyzer("buffalo_x", roots=[tmp_path / "models" / "insightface"])
    message = str(caught.value)
    assert str(tmp_path / "packs") in message
    assert str(tmp_path / "models" / "insightface" / "models") in message
    assert "\n" not in message


def test_a_folder_in_the_working_directory_is_not_taken_for_a_pack(tmp_path, monkeypatch):
    shutil.copytree(PHANTOM_FOLDER, tmp_path / "buffalo_x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        find_pack("buffalo_x")
    assert find_pack("./buffalo_x").folder == (tmp_path / "buffalo_x").resolve()


def test_a_copied_phantom_pack_is_still_known_as_one(tmp_path):
    shutil.copytree(PHANTOM_FOLDER, tmp_path / "models" / "renamed")
    assert find_pack("renamed", roots=[tmp_path]).phantom_only
    assert find_pack(tmp_path / "models" / "renamed").phantom_only


def test_a_pack_without_settings_runs_at_640(tmp_path):
    for name in ("det.onnx", "rec.onnx"):
        shutil.copy(PHANTOM_FOLDER / name, tmp_path / name)
    pack = find_pack(tmp_path)
    assert (pack.det_size, pack.det_thresh, pack.phantom_only) == (640, 0.5, False)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no .onnx"),
        ({"det.onnx": b"\0not a model"}, "could not be opened"),
        ({"det.onnx": None}, "no recogniser"),
        ({"rec.onnx": None}, "could not be opened"),
        ({"det.onnx": None, "pack.json": b"{"}, "JSON"),
        ({"det.onnx": None, "pack.json": json.dumps({"det_size": 100}).encode()}, "multiple of 32"),
        ({"det.onnx": None, "pack.json": json.dumps({"det_thresh": 2}).encode()}, "between 0 and 1"),
    ],
)
def test_a_broken_pack_is_one_sentence(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_bytes((PHANTOM_FOLDER / name).read_bytes() if content is None else content)
    with pytest.raises(UserError, match=words) as caught:
        load_face_analyzer(tmp_path)
    assert "\n" not in str(caught.value)


def test_loading_prints_nothing_to_standard_output(capsys):
    load_face_analyzer("phantom", threads=1).analyze(faces_of(1, 0)[0].image)
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def fixed_pack(tmp_path_factory):
    """The embedded pack with a detector that takes 160 px alone, and a `pack.json` that says 640."""
    pack = shutil.copytree(PHANTOM_FOLDER, tmp_path_factory.mktemp("packs") / "fixed")
    detector = onnx.load(pack / "det.onnx")
    for axis in detector.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = 160
    del detector.graph.value_info[:]
    onnx.save(detector, pack / "det.onnx")
    (pack / "pack.json").write_text(json.dumps({"det_size": 640, "phantom_only": True}))
    return pack


def test_a_detector_of_one_size_is_run_at_it_and_says_so(fixed_pack, analyzer):
    fixed = load_face_analyzer(fixed_pack, threads=1)
    assert (fixed.describe()["det_size"], fixed.describe()["fixed_size"]) == (160, True)
    assert "fixed_size" not in analyzer.describe()
    truth = faces_of(1, 1)[0]
    found, same = fixed.analyze(truth.image)[0], analyzer.analyze(truth.image)[0]
    assert found.rung == same.rung == "160" and np.allclose(found.landmarks, same.landmarks)


def test_a_smaller_rung_shows_a_detector_of_one_size_the_image_smaller(fixed_pack, analyzer):
    """What it sees, not what it was asked: at 128 of 160 px the face is a fifth smaller."""
    fixed = load_face_analyzer(fixed_pack, threads=1)
    image = faces_of(1, 2)[0].image
    seen = []
    detect = fixed._app.det_model.detect
    fixed._app.det_model.detect = lambda picture: seen.append(picture.shape) or detect(picture)
    (box,) = fixed.second_look(image)
    (same,) = analyzer.second_look(image)
    assert seen == [(160, 160, 3)]  # 128 px on a canvas that is reduced to 128 of 160
    assert np.abs(box - same).max() < 4


@pytest.mark.parametrize("rung", ["128", "padded 160"])
def test_every_rung_of_a_fixed_detector_gives_places_in_the_image(fixed_pack, rung):
    fixed = load_face_analyzer(fixed_pack, threads=1)
    fixed._ladder = [item for item in fixed._ladder if str(item) == rung]
    truth = faces_of(1, 3)[0]
    face = fixed.analyze(truth.image)[0]
    assert face.rung == rung
    assert np.abs(face.landmarks - truth.landmarks).max() < 8


def test_a_folder_here_that_is_called_like_the_pack_is_pointed_out(tmp_path, monkeypatch):
    (tmp_path / "pack640").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"write \./pack640 "):
        find_pack("pack640")
