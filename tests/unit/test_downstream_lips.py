"""The lip's box holds the lip: on phantoms, whose lip is known, from five landmarks and from 106."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.downstream.lips import (
    MOUTH,
    cut_square,
    lip_box,
    load_landmark_model,
    within,
)
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, read_pack
from diffusioncleft.diffusioncleft_core.phantom import random_face, render

FINDINGS = (None, "cleft", "scar")
LAYOUT_SIDE = 192


def pictures(n, size=128):
    """Phantoms with and without findings, tilted up to 20 degrees."""
    found = []
    for index in range(n):
        rng = np.random.default_rng([7, index])
        found.append(render(random_face(rng, finding=FINDINGS[index % 3]), size))
    return found


def share_held(inner, outer):
    low, high = np.maximum(inner[:2], outer[:2]), np.minimum(inner[2:], outer[2:])
    return float(np.prod(np.maximum(high - low, 0)) / np.prod(inner[2:] - inner[:2]))


@pytest.mark.long
def test_the_square_of_five_landmarks_holds_the_lip_of_every_phantom():
    """And the box between them most of it: 86 % in the median of 240 phantoms, 80 % at the least."""
    for picture in pictures(90):
        lip = lip_box(picture.landmarks, (128, 128))
        assert lip is not None
        assert share_held(picture.lips, lip.square) > 0.9999, picture.attributes
        assert share_held(picture.lips, lip.box) > 0.75, picture.attributes
        assert np.prod(lip.square[2:] - lip.square[:2]) < 4 * np.prod(picture.lips[2:] - picture.lips[:2])


def test_so_it_does_with_the_landmarks_that_a_detector_finds(analyzer):
    held = []
    for picture in pictures(30):
        faces = analyzer.analyze(picture.image)
        lip = lip_box(faces[0].landmarks, (128, 128)) if faces else None
        held.append(0 if lip is None else share_held(picture.lips, lip.square))
    assert np.mean(np.array(held) > 0.97) >= 0.95


def test_a_tilted_face_has_the_same_lip():
    landmarks = np.array([[40, 50], [88, 50], [64, 70], [46, 95], [82, 95]], float)
    upright = lip_box(landmarks, (128, 128))
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tilted = lip_box((landmarks - 64) @ turn.T + 64, (128, 128))
    centre = (upright.box[:2] + upright.box[2:]) / 2
    turned = turn @ (centre - 64) + 64
    assert np.allclose((tilted.box[:2] + tilted.box[2:]) / 2, turned, atol=1e-6)
    assert (tilted.box[2:] - tilted.box[:2] > upright.box[2:] - upright.box[:2]).all()


def test_the_margin_is_a_share_of_the_boxs_longer_side():
    landmarks = np.array([[40, 50], [88, 50], [64, 70], [46, 95], [82, 95]], float)
    lip = lip_box(landmarks, (128, 128), margin=0.2)
    assert np.allclose(lip.box, [46, 70, 82, 95 + 18])
    assert np.allclose(lip.square, [64 - 0.7 * 43, 91.5 - 0.7 * 43, 64 + 0.7 * 43, 91.5 + 0.7 * 43])


@pytest.mark.parametrize("n", sorted(MOUTH))
def test_of_more_landmarks_the_box_is_that_of_the_mouths_points(n):
    points = np.zeros((n, 2)) + 20
    points[MOUTH[n]] = np.random.default_rng(0).uniform(50, 80, (20, 2))
    lip = lip_box(points, (128, 128))
    mouth = points[MOUTH[n]]
    assert np.allclose(lip.box, [*mouth.min(0), *mouth.max(0)])


@pytest.mark.parametrize(
    ("moved", "why"),
    [
        ({3: (80, 95), 4: (48, 95)}, "the corners have changed places"),
        ({2: (64, 120)}, "the nose is below the mouth"),
        ({3: (63, 95), 4: (65, 95)}, "a mouth of two pixels"),
        ({0: (50, 50), 1: (50, 50)}, "no line between the eyes"),
        ({3: (float("nan"), 0)}, "no number"),
        ({index: (200 + 10 * index, 200) for index in range(5)}, "outside the picture"),
    ],
)
def test_a_lip_that_the_picture_does_not_show_is_none(moved, why):
    landmarks = np.array([[40, 50], [88, 50], [64, 70], [46, 95], [82, 95]], float)
    for index, place in moved.items():
        landmarks[index] = place
    assert lip_box(landmarks, (128, 128)) is None, why


def test_another_number_of_landmarks_is_refused():
    with pytest.raises(ValueError, match="5, 68 or 106 landmarks, not 98"):
        lip_box(np.zeros((98, 2)), (128, 128))


def test_the_lips_place_in_its_crop_is_where_the_crop_shows_it():
    image = np.zeros((100, 120, 3), np.uint8)
    image[60:80, 40:75] = 255
    lip = lip_box(np.array([[30, 20], [90, 20], [57, 60], [40, 73], [75, 73]], float), (120, 100))
    crop = cut_square(image, lip.square, 140)
    x0, y0, x1, _ = within(lip, 140)
    scale = 140 / (lip.square[2] - lip.square[0])
    rows, columns = np.nonzero(crop[..., 0] > 127)
    assert abs(columns.min() - x0) <= 2 and abs(columns.max() + 1 - x1) <= 2
    assert abs(rows.min() - y0) <= 2 and abs(rows.max() + 1 - (y0 + 20 * scale)) <= 3


def test_a_crop_that_reaches_beyond_the_picture_repeats_its_edge():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    crop = cut_square(image, np.array([-20.0, 10, 20, 50]), 40)
    assert crop.shape == (40, 40, 3)
    assert np.array_equal(crop[:30, 20:], image[10:, :20])
    assert np.array_equal(crop[:30, 5], image[10:, 0]) and np.array_equal(crop[35, 20:], image[-1, :20])


def layout():
    """106 points of a face in its landmark model's input, all but the mouth's in the middle."""
    points = np.full((106, 2), LAYOUT_SIDE / 2.0)
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[MOUTH[106]] = np.stack([96 + 24 * np.cos(angles), 132 + 12 * np.sin(angles)], 1)
    return points


@pytest.fixture
def pack_with_landmarks(tmp_path):
    """The embedded pack with a model beside it in the form of 2d106det that always says the same layout."""
    import onnx
    from onnx import TensorProto, helper

    for path in PHANTOM_FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    answer = (layout() / (LAYOUT_SIDE / 2) - 1).astype(np.float32).reshape(1, 212)
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["answer", "nothing"], ["points"]),
    ]
    graph = helper.make_graph(
        nodes,
        "landmarks",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, LAYOUT_SIDE, LAYOUT_SIDE])],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 212])],
        [
            helper.make_tensor("answer", TensorProto.FLOAT, [1, 212], answer.ravel()),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        ],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "2d106det.onnx")
    return read_pack(tmp_path)


def test_a_packs_own_landmarks_are_found_and_brought_back_into_the_picture(pack_with_landmarks):
    model = load_landmark_model(pack_with_landmarks)
    assert (model.n_landmarks, model.file) == (106, "2d106det.onnx")
    image = np.zeros((300, 400, 3), np.uint8)
    box = np.array([100, 50, 200, 170], np.float32)
    points = model(image, box)
    scale = LAYOUT_SIDE / (120 * 1.5)  # insightface's frame: one and a half of the box's longer side
    assert np.allclose(points, (layout() - LAYOUT_SIDE / 2) / scale + [150, 110], atol=1e-3)


def test_a_pack_without_a_landmark_model_has_none():
    assert load_landmark_model(read_pack(PHANTOM_FOLDER)) is None
