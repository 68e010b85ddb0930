"""Pictures as filters and grids show them: verdicts drawn on, labels below, neighbours beside."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusioncleft.nodes.annotated import MOST, labelled, neighbours, tiled, with_verdict

GOOD, BAD, UNCHECKED = (0, 168, 120), (228, 87, 46), (138, 143, 152)


def plain(height=128, width=128, value=90):
    return np.full((height, width, 3), value, np.uint8)


def face(box, embedding=(1.0, 0.0), landmarks=((50.0, 50.0),)):
    return SimpleNamespace(
        box=np.array(box), landmarks=np.array(landmarks), score=0.9, embedding=np.array(embedding)
    )


def holds(pixels, colour):
    return bool((pixels == np.array(colour)).all(-1).any())


@pytest.mark.parametrize(
    ("verdict", "checked", "colour"),
    [
        ({"accepted": True}, True, GOOD),
        ({"accepted": False, "reasons": ["eye_bar"]}, True, BAD),
        ({}, False, UNCHECKED),
    ],
)
def test_the_box_lies_where_the_face_is_in_the_colour_of_the_verdict(verdict, checked, colour):
    shown = with_verdict(plain(), verdict, [face((20, 30, 100, 110))], checked=checked)
    assert shown.shape[1] == 384 and shown.shape[0] > 384, "three times as large, and words below"
    rows, columns = np.nonzero((shown[:384] == np.array(colour)).all(-1))
    assert abs(columns.min() - 60) <= 1 and abs(columns.max() - 300) <= 1
    assert abs(rows.min() - 90) <= 1 and abs(rows.max() - 330) <= 1
    assert holds(shown[384:], colour) and shown[384:].max() == 255
    others = {GOOD, BAD, UNCHECKED} - {colour}
    assert not any(holds(shown, other) for other in others)


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (2048, 512), (300, 4000)])
def test_large_pictures_are_shown_smaller_and_their_boxes_with_them(height, width):
    box = (0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
    shown = with_verdict(plain(height, width), {}, [face(box, landmarks=((width / 2, height / 2),))])
    assert shown.shape[1] <= 512
    scale = 512 / max(height, width)
    columns = np.nonzero((shown[: round(height * scale)] == np.array(GOOD)).all(-1))[1]
    assert abs(columns.min() - box[0] * scale) <= 2 and abs(columns.max() - box[2] * scale) <= 2


def test_a_neighbour_is_looked_for_among_all_pictures_and_shown_for_the_first():
    angles = np.linspace(0, 1.2, MOST + 1)
    alike = [*angles, angles[0] + 1e-3]  # the last one is most like the first
    pictures = [plain(value=place) for place in range(len(alike))]
    faces = [[face((0, 0, 9, 9), (np.cos(angle), np.sin(angle)))] for angle in alike]
    faces[1] = []
    shown = neighbours(pictures, faces)
    assert len(shown) == MOST
    pair = shown[0]
    assert pair[10, 10, 0] == 0 and pair[10, -10, 0] == len(alike) - 1
    assert neighbours(pictures[:2], faces[:2]) == [], "one face has no neighbour"


def test_a_grid_holds_every_cell_in_its_row():
    cells = [labelled(plain(value=value), f"cell {value}") for value in (10, 20, 30, 40, 50)]
    height, width = cells[0].shape[:2]
    grid = tiled(cells, 2)
    assert grid.shape == (3 * height + 8, 2 * width + 4, 3)
    for place, value in enumerate((10, 20, 30, 40, 50)):
        assert grid[place // 2 * (height + 4) + 5, place % 2 * (width + 4) + 5, 0] == value
    assert grid[-5, -5].tolist() == [255, 255, 255]
