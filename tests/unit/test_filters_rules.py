"""The filters' rules at their edges: geometry, thresholds, verdicts, refills, counts."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.conditions.plan import REFILL_STRIDE, attempt_of
from diffusioncleft.diffusioncleft_core.dataset.examine import Examination
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.records import FaceRecord, second_share
from diffusioncleft.diffusioncleft_core.filters.artifacts import (
    ArtifactVerdict,
    Picture,
    check_limits,
    check_several_faces,
)
from diffusioncleft.diffusioncleft_core.filters.eye_bar import EyeLine, eye_line
from diffusioncleft.diffusioncleft_core.filters.eye_region import (
    EYES_COLUMN,
    EYES_ROW,
    HEIGHT,
    WIDTH,
    levelled,
)
from diffusioncleft.diffusioncleft_core.filters.framing import Framing, framing
from diffusioncleft.diffusioncleft_core.filters.hidden_eyes import EyeDetail, eye_detail
from diffusioncleft.diffusioncleft_core.filters.identity import IdentityVerdict
from diffusioncleft.diffusioncleft_core.filters.stage import (
    REASONS,
    filter_summary,
    photographs_summary,
    refill_set,
    rows_to_refill,
)
from diffusioncleft.diffusioncleft_core.filters.verdicts import verdicts_of
from diffusioncleft.diffusioncleft_core.imageset.manifest import (
    ImageRow,
    read_image_set,
    write_image_set,
)
from diffusioncleft.diffusioncleft_core.imageset.places import current_place
from diffusioncleft.diffusioncleft_core.metrics.fir import Faces

LANDMARKS = np.float32([[40, 40], [60, 40], [1, 1], [42, 60], [58, 60]])  # the nose may be anywhere


def face(box, landmarks=LANDMARKS, size=(200, 100)):
    return FaceRecord(*size, 1, np.float32(box), np.float32(landmarks), 0.9)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((30, 20, 70, 75), 1.0),
        ((-10, 20, 30, 75), 0.75),
        ((180, 20, 220, 75), 0.5),
        ((30, -20, 70, 60), 0.75),
        ((30, 80, 70, 120), 0.5),
        ((-10, -10, 10, 10), 0.25),
        ((300, 20, 340, 75), 0.0),
        ((-90, -90, -50, -50), 0.0),
        ((-20, 20, 10, 75), 0.333),
    ],
)
def test_the_share_of_a_box_inside_the_frame_is_one_of_areas(box, inside):
    assert framing(face(box)).inside == inside


@pytest.mark.parametrize(
    ("shift", "margin"),
    [
        ((0, 0), 2.0),
        ((-38, 0), 0.1),
        ((0, -45), -0.25),
        ((139, 0), 0.05),
        ((0, 43), -0.15),
        ((100, -10), 1.5),
    ],
)
def test_the_margin_is_the_nearest_edge_in_eye_distances(shift, margin):
    moved = LANDMARKS + np.float32(shift)
    moved[2] = LANDMARKS[2]
    assert framing(face((30, 20, 70, 75), moved)).margin == pytest.approx(margin)


@pytest.mark.parametrize(("point", "counts"), [(0, True), (1, True), (2, False), (3, True), (4, True)])
@pytest.mark.parametrize("place", [(100, 1), (100, 98)])
def test_the_margin_is_that_of_eyes_and_mouth_corners(point, counts, place):
    landmarks = np.float32([[50, 40], [150, 40], [100, 50], [60, 60], [140, 60]])
    landmarks[point] = place
    apart = np.linalg.norm(landmarks[1] - landmarks[0])
    edge = min(place[1], 100 - place[1]) if counts else 40
    assert framing(face((30, 20, 170, 75), landmarks)).margin == round(float(edge / apart), 3)


@pytest.mark.parametrize(
    ("inside", "margin", "cropped"),
    [(0.95, 0.15, False), (0.949, 1, True), (1, 0.149, True), (0.5, 0, True)],
)
def test_a_face_is_cropped_below_its_limits(inside, margin, cropped):
    assert Framing(inside, margin).is_cropped is cropped


@pytest.mark.parametrize(("share", "counts"), [(0.0, False), (0.0499, False), (0.05, True), (1.0, True)])
def test_a_second_face_counts_from_one_size_on_in_photographs_and_in_generated_images(share, counts):
    """One rule: `dataset build` sets aside, and the filter and FIR count, for the same second face."""
    record = FaceRecord(100, 100, 2, np.float32([30, 20, 70, 75]), LANDMARKS, 0.9, second_share=share)
    seen = Examination("source", "settings", "pixels", 100, 100, record)
    assert (seen.rejection(64, ()) is not None) is counts
    picture = Picture(np.zeros((100, 100, 3), np.uint8), record, None, None, {})
    assert check_several_faces(picture)["rejected"] is counts
    assert bool(Faces.of([record]).several[0]) is counts


def test_a_face_without_size_or_landmarks_is_none():
    assert framing(face((30, 20, 30, 20))).inside == 0
    together = np.full((5, 2), 50, np.float32)
    assert framing(face((30, 20, 70, 75), together)).margin > 1000
    for broken in (FaceRecord(9, 9, 1, np.float32((0, 0, 5, 5)), None), FaceRecord(9, 9, 1, None, LANDMARKS)):
        with pytest.raises(ValueError, match="no framing"):
            framing(broken)


def test_the_second_face_is_the_second_largest_of_any_order():
    boxes = np.float32([[0, 0, 10, 20], [5, 5, 5, 50], [10, 10, 30, 40], [0, 0, 10, 30]])
    assert second_share(boxes) == 0.5
    assert second_share(boxes[[3, 2, 0]]) == 0.5
    assert second_share(boxes[[3, 0]]) == 0.6667
    assert second_share(boxes[:1]) == 0
    assert second_share(np.zeros((2, 4), np.float32)) == 0
    turned = np.float32([[0, 0, 10, 10], [20, 20, 10, 10]])  # corners the wrong way round
    assert second_share(turned) == 0


@pytest.mark.parametrize(
    ("contrast", "spread", "edges", "bar"),
    [
        (0.0, 80.0, 0.9, True),  # its edges speak for it
        (0.0, 80.0, 0.89, False),
        (20.0, 15.0, 0.0, True),  # no edges, but one even colour of its own: 20 / (15 + 6) is above 0.9
        (19.9, 15.0, 0.0, False),
        (400.0, 15.1, 0.0, False),
    ],
)
def test_a_bar_has_edges_or_is_very_even_and_unlike_the_skin(contrast, spread, edges, bar):
    assert EyeLine(contrast, spread, edges, 50.0).is_bar() is bar


def test_another_limit_takes_more_or_less_for_a_bar():
    line = EyeLine(contrast=0.0, spread=50.0, edges=0.7, structure=50.0)
    assert line.is_bar(0.7) and not line.is_bar(0.71)


@pytest.mark.parametrize(
    ("contrast", "structure", "blank"), [(0, 3.9, True), (0, 4.0, False), (100, 3.9, False)]
)
def test_what_has_no_structure_and_is_no_bar_is_blank(contrast, structure, blank):
    assert EyeLine(contrast, 0.0, 0.0, structure).is_blank is blank


@pytest.mark.parametrize("turn", [0, 25, -140])
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.4, 5.0])
def test_the_eyes_are_level_and_32_px_apart_in_the_patch(turn, scale):
    angle = np.deg2rad(turn)
    middle, half = np.array([150.0, 130.0]) * scale, 16 * scale * np.array([np.cos(angle), np.sin(angle)])
    side = int(300 * scale)
    image = np.zeros((side, side, 3), np.uint8)
    eyes = np.float32([middle - half, middle + half])
    for place, colour in zip(eyes, ((255, 0, 0), (0, 255, 0)), strict=True):
        cv2.circle(image, tuple(map(int, np.round(place))), max(1, round(3 * scale)), colour, -1)
    face = levelled(image, np.vstack([eyes, eyes, eyes[:1]]))
    assert face.pixels.shape == (HEIGHT, WIDTH, 3)
    for channel, wanted in ((0, (EYES_COLUMN - 16, EYES_ROW)), (1, (EYES_COLUMN + 16, EYES_ROW))):
        weights = face.pixels[..., channel]
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        centre = [(grid * weights).sum() / weights.sum() for grid in (columns, rows)]
        assert centre == pytest.approx(wanted, abs=1.1)
        assert face.landmarks[channel] == pytest.approx(wanted, abs=0.01)


LEVEL = np.float32(
    [
        [EYES_COLUMN - 16, EYES_ROW],
        [EYES_COLUMN + 16, EYES_ROW],
        [EYES_COLUMN, EYES_ROW + 14],
        [EYES_COLUMN - 12, EYES_ROW + 26],
        [EYES_COLUMN + 12, EYES_ROW + 26],
    ]
)
"""Landmarks of a picture that is level already."""
SKIN, OTHER = (200, 150, 130), (200, 150, 30)


def plain(half=0, colour=OTHER, reach=30):
    """A face of one colour; with `half`, a bar of so many rows to both sides of the eye line."""
    image = np.full((HEIGHT, WIDTH, 3), SKIN, np.uint8)
    if half:
        image[EYES_ROW - half : EYES_ROW + half + 1, EYES_COLUMN - reach : EYES_COLUMN + reach] = colour
    return image


def line_of(image):
    return eye_line(levelled(image, LEVEL))


def test_the_eye_line_is_measured_in_rows_against_the_cheeks_and_at_its_edges():
    line = line_of(plain(8))
    assert (line.contrast, line.spread) == (100.0, 0.0)
    assert line.edges == pytest.approx(100 / 6, abs=0.01)
    assert line.is_bar() and not line.is_blank
    flat = line_of(plain())
    assert (flat.contrast, flat.spread, flat.edges, flat.structure, flat.is_blank) == (0, 0, 0, 0, True)


@pytest.mark.parametrize(("half", "seen"), [(3, False), (6, True), (14, True), (20, True), (26, False)])
def test_a_bars_edges_are_looked_for_where_bars_end(half, seen):
    assert (line_of(plain(half)).edges > 10) is seen


@pytest.mark.parametrize("turn", [-10, -5, 0, 5, 10])
def test_a_bars_edges_are_found_when_it_is_not_quite_level(turn):
    move = cv2.getRotationMatrix2D((EYES_COLUMN, EYES_ROW), turn, 1)
    turned = cv2.warpAffine(plain(8, reach=50), move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    assert line_of(turned).edges > 5


def test_an_edge_must_be_as_wide_as_both_eyes():
    """Three quarters of 47 columns: two lenses with skin between them are no bar."""
    image = plain(8)
    image[:, EYES_COLUMN - 8 : EYES_COLUMN + 8] = SKIN
    assert not line_of(image).is_bar()


def test_the_spread_is_the_90th_percentile_of_a_row():
    image = plain(8)
    image[:, EYES_COLUMN - 23 : EYES_COLUMN - 19] = SKIN  # 4 of 47 columns
    assert line_of(image).spread == 0.0
    image[:, EYES_COLUMN - 23 : EYES_COLUMN - 17] = SKIN  # 6 of them
    assert line_of(image).spread == 100.0


def textured(seed=3):
    """A face of fine detail everywhere, at five times the size that the checks bring it to."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (HEIGHT, WIDTH), np.uint8)
    return cv2.resize(np.dstack([coarse] * 3), None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)


def detail_of(image):
    points = LEVEL * 5
    return eye_detail(image, points, levelled(image, points))


ABOUT_THE_EYES = np.s_[
    5 * (EYES_ROW - 10) : 5 * (EYES_ROW + 10), 5 * (EYES_COLUMN - 30) : 5 * (EYES_COLUMN + 30)
]


def test_detail_is_that_of_the_eyes_by_that_of_the_rest():
    image = textured()
    assert detail_of(image).detail == pytest.approx(1, abs=0.25) and not detail_of(image).is_hidden()
    image[ABOUT_THE_EYES] = cv2.GaussianBlur(image, (0, 0), 15)[ABOUT_THE_EYES]
    assert detail_of(image).detail < 0.3 and detail_of(image).is_hidden()
    assert not detail_of(image).is_hidden(detail=0.0)


@pytest.mark.parametrize("light", [0.25, 0.5, 1.0])
def test_eyes_in_the_shade_have_as_much_detail(light):
    image = textured().astype(np.float32)
    image[ABOUT_THE_EYES] *= light
    assert detail_of(image.astype(np.uint8)).detail > 0.65


@pytest.mark.parametrize("block", [8, 12, 20])
def test_blocks_about_the_eyes_are_a_mosaic_and_blocks_everywhere_are_a_coarse_picture(block):
    image = textured()
    height, width = image.shape[:2]
    few = cv2.resize(image, (width // block, height // block), interpolation=cv2.INTER_AREA)
    blocky = cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST)
    assert not detail_of(blocky).is_hidden()
    image[ABOUT_THE_EYES] = blocky[ABOUT_THE_EYES]
    assert detail_of(image).blocks > 0.5 and detail_of(image).is_hidden()


@pytest.mark.parametrize(
    ("detail", "blocks", "other", "hidden"),
    [
        (0.45, 0.279, 0.0, False),
        (0.449, 0.0, 0.0, True),
        (1.0, 0.28, 0.164, True),
        (1.0, 0.28, 0.166, False),
        (1.0, 0.9, 0.6, False),
    ],
)
def test_eyes_are_hidden_beyond_their_limits(detail, blocks, other, hidden):
    assert EyeDetail(detail, blocks, other).is_hidden() is hidden


def test_a_region_outside_the_frame_or_without_differences_has_no_blocks():
    image = plain()
    for points in (LEVEL, LEVEL - [0, 200], LEVEL * 0.1):
        points = points.astype(np.float32)
        found = eye_detail(image, points, levelled(image, points))
        assert (found.blocks, found.other_blocks) == (0.0, 0.0)


def test_limits_are_known_by_name_and_range():
    assert check_limits({})["eye_detail"] == 0.45
    assert check_limits({"bar_evidence": 2})["bar_evidence"] == 2.0
    with pytest.raises(UserError, match="no limit 'hat'; choose among bar_evidence, eye_detail, eye_blocks"):
        check_limits({"hat": 1})
    with pytest.raises(UserError, match=r"eye_detail is 1\.5; give a number from 0 to 1"):
        check_limits({"eye_detail": 1.5})


def artifact(**kinds):
    return ArtifactVerdict({kind: {"rejected": rejected, "n": 1} for kind, rejected in kinds.items()})


CLEAN, TEXT = artifact(text=False, eye_bar=False), artifact(text=True, eye_bar=False)
LEAK, UNSEEN, STRANGER = (
    IdentityVerdict(True, 0.678, 0.6),
    IdentityVerdict(True, None, 0.6),
    IdentityVerdict(False, 0.1, 0.6),
)


@pytest.mark.parametrize(
    ("artifacts", "identity", "reasons"),
    [
        (CLEAN, None, []),
        (TEXT, None, ["text"]),
        (CLEAN, STRANGER, []),
        (CLEAN, LEAK, ["identity_leak"]),
        (TEXT, LEAK, ["text", "identity_leak"]),
        (CLEAN, UNSEEN, ["no_face"]),
        (TEXT, UNSEEN, ["text"]),
    ],
)
def test_a_verdict_is_the_sum_of_its_reasons(artifacts, identity, reasons):
    found = verdicts_of(artifacts, identity, "s")
    assert (found["accepted"], found["reasons"], found["settings"]) == (not reasons, reasons, "s")
    assert ("identity" in found) == (identity is not None)
    assert found["artifacts"]["eye_bar"] == {"rejected": False, "n": 1}
    assert (artifacts.accepted, artifacts.rejected) == (not artifacts.reasons, bool(artifacts.reasons))


def test_a_similarity_leaves_with_two_decimals():
    assert LEAK.to_json() == {"rejected": True, "max_similarity": 0.68, "threshold": 0.6, "embedder": {}}
    assert UNSEEN.to_json()["max_similarity"] is None
    assert (LEAK.accepted, STRANGER.accepted) == (False, True)


def row(index, accepted=None, *reasons, subject="girl", **more):
    verdicts = {} if accepted is None else {"accepted": accepted, "reasons": list(reasons), **more}
    return ImageRow(
        f"{index:06d}.png", index=index, attempt=attempt_of(index), prompt=f"p{index}", seed=index,
        condition="pre_op", attributes={"subject": subject}, verdicts=verdicts,
    )  # fmt: skip


def test_a_set_knows_where_its_images_lie(tmp_path):
    (tmp_path / "rejected").mkdir()
    for name in ("a.png", "rejected/a.png", "rejected/b.png"):
        (tmp_path / name).write_bytes(b"")
    assert current_place(tmp_path, "a.png") == "a.png"
    assert current_place(tmp_path, "b.png") == "rejected/b.png"
    assert current_place(tmp_path, "c.png") == "c.png"


def test_a_bare_folder_has_a_row_for_each_image(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((3, 5, 3), np.uint8))
    assert read_image_set(tmp_path) == [ImageRow("a.png", width=5, height=3)]


class Generator:
    """Draws what it is asked for, and filters it: `good` says which attempts are accepted."""

    def __init__(self, folder, rows, good):
        self.folder, self.good, self.asked = folder, good, []
        write_image_set(folder, rows)

    def generate(self, plan):
        before = {row.index: row for row in read_image_set(self.folder)}
        self.asked.append([item.index for item in plan if item.index not in before])
        new = [row(item.index) for item in plan]
        write_image_set(self.folder, [before.get(one.index, one) for one in new])

    def check(self):
        rows = [
            replace(one, verdicts=one.verdicts or {"accepted": self.good(one.index), "reasons": ["text"]})
            for one in read_image_set(self.folder)
        ]
        write_image_set(self.folder, rows)
        return "filtered"


def test_gaps_are_asked_for_again_until_they_are_filled_or_the_cap_is_reached(tmp_path):
    first = [row(0, True), row(1, False), row(2, False), row(3)]
    work = Generator(tmp_path, first, lambda index: index in (3, 2 * REFILL_STRIDE + 1))
    result = refill_set(tmp_path, work.generate, work.check, attempts=3)
    assert work.asked == [
        [REFILL_STRIDE + 1, REFILL_STRIDE + 2],
        [2 * REFILL_STRIDE + 1, 2 * REFILL_STRIDE + 2],
        [3 * REFILL_STRIDE + 2],
    ]
    assert (result.made, result.missing, result.filtered) == (5, 1, "filtered")
    again = refill_set(tmp_path, work.generate, work.check, attempts=3)
    assert (again.made, again.missing, again.filtered) == (0, 1, None)
    assert len(work.asked) == 3
    assert rows_to_refill(first, 0) == []


@pytest.mark.parametrize("attempts", [-1, 0, 21])
def test_a_cap_that_is_none_is_refused(attempts):
    with pytest.raises(UserError, match="1 to 20"):
        refill_set(Path("nowhere"), list, dict, attempts=attempts)


def test_the_summary_counts_what_a_person_took_back_and_kinds_it_does_not_know():
    rows = [
        row(0, True, readmitted=["text"]),
        row(1, False, "moustache", "text", subject="dragon"),
        row(2, False, "text", subject="woman"),
        row(3, subject="man"),
        row(REFILL_STRIDE + 1, True),
        row(REFILL_STRIDE + 2, False, "text"),
        row(2 * REFILL_STRIDE + 2, True),
    ]
    found = filter_summary(rows)
    assert (found["n"], found["accepted"], found["rejected"], found["unassessed"]) == (4, 1, 2, 1)
    assert found["readmitted"] == 1
    assert found["by_kind"]["moustache"] == 1 and found["by_kind"]["text"] == 2
    assert list(found["by_kind"]) == [*REASONS, "moustache"]
    assert found["by_age"] == {"adult": {"n": 2, "rejected": 1}, "child": {"n": 1, "rejected": 0}}
    assert found["by_skin"] == {}
    assert found["refill"] == {"made": 3, "accepted": 2, "attempts": 2, "filtered": 3, "missing": 1}
    more = [*rows, row(REFILL_STRIDE, True), row(REFILL_STRIDE + 3, True)]
    assert filter_summary(more)["refill"]["missing"] == 0


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, None), (4, None), (5, 5)])
def test_a_count_of_few_photographs_is_hidden(count, shown):
    found = photographs_summary([{"reasons": ["text"]}] * count)
    assert (found["n"], found["by_kind"]["text"], found["smallest_cell"]) == (shown, shown, 5)
