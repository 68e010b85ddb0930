"""The anatomical phantom: same face, same bytes; what it says of a picture is so."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.phantom.anatomy.cleft import extent
from diffusioncleft.diffusioncleft_core.phantom.anatomy.measures import measures
from diffusioncleft.diffusioncleft_core.phantom.anatomy.skin import TONES, ita
from diffusioncleft.diffusioncleft_core.phantom.face import (
    BACKGROUNDS,
    CLEFT,
    CLOSE,
    EXPRESSIONS,
    HEALTHY,
    SCAR,
    Camera,
    Cleft,
    Light,
    PhantomFace,
    Repair,
    View,
    random_cleft,
    random_face,
    random_repair,
)
from diffusioncleft.diffusioncleft_core.phantom.render import Rendering, render

STILL = View(frame=CLOSE, camera=Camera(noise=0.0))


def person(seed: int = 0, **words: str) -> PhantomFace:
    """A healthy person, straight on, without noise and glasses."""
    face = random_face(np.random.default_rng(seed), attributes=words)
    return replace(face, view=STILL, glasses=False)


def inside(mask: np.ndarray, points: np.ndarray, reach: int = 2) -> np.ndarray:
    """Whether there is anything of the mask within `reach` px of each point."""
    found = []
    for x, y in points.round().astype(int):
        found.append(mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].max() > 0.5)
    return np.array(found)


@pytest.mark.parametrize("finding", [None, CLEFT, SCAR])
def test_the_same_face_gives_the_same_bytes(finding: str | None) -> None:
    a, b = (render(random_face(np.random.default_rng(3), finding=finding)) for _ in range(2))
    assert a.image.tobytes() == b.image.tobytes()
    assert a.masks.skin.tobytes() == b.masks.skin.tobytes()
    assert a.landmarks68.tobytes() == b.landmarks68.tobytes()


@pytest.mark.parametrize("size", [64, 256, 512])
def test_every_size_shows_the_same_face(size: int) -> None:
    face = replace(person(1), cleft=Cleft("left", 0.6, 0.5))
    small, other = render(face, 128), render(face, size)
    assert other.image.shape == (size, size, 3) and other.image.dtype == np.uint8
    np.testing.assert_allclose(other.landmarks68 / size, small.landmarks68 / 128, atol=0.012)
    assert abs(other.masks.lip.mean() - small.masks.lip.mean()) < 0.15 * small.masks.lip.mean()


def test_detail_grows_with_size() -> None:
    face = person(2, subject="woman")

    def detail(size: int) -> float:
        made = render(face, size)
        x, y = (0.5 * (made.landmarks[0] + made.landmarks[3])).astype(int)
        cheek = made.image[y - size // 32 : y + size // 32, x - size // 32 : x + size // 32].astype(float)
        return float(np.abs(np.diff(cheek, axis=0)).mean() * size / 128)

    assert detail(512) > 1.3 * detail(128)


@pytest.mark.parametrize("size", [63, 1025])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="64 to 1024"):
        render(person(), size)


def test_an_unknown_word_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="brown, green, blue, hazel"):
        random_face(np.random.default_rng(0), attributes={"eyes": "violet"})
    with pytest.raises(ValueError, match="neutral, smile, cry, open, closed"):
        render(replace(person(), view=View(expression="grin")))


@pytest.mark.parametrize("key", sorted(HEALTHY))
def test_every_word_for_a_healthy_face_draws_something_different(key: str) -> None:
    first = person(4)
    pictures = [
        render(replace(first, attributes=first.attributes | {key: word})).image.astype(float)
        for word in HEALTHY[key]
    ]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            changed = np.abs(one - other).max(axis=2)
            assert (changed > 12).sum() >= 12, (key, HEALTHY[key][i])


def test_every_word_for_a_finding_draws_something_different() -> None:
    vocabulary = load_vocabulary()
    for name, finding in (("pre_op", CLEFT), ("post_op", SCAR)):
        condition = vocabulary.condition(name)
        for key in condition.descriptors:
            values = condition.details[key].values
            pictures = []
            for value in values:
                wanted = {"cleft_type": "unilateral", "side": "left", "scar": "scar"} | {key: value}
                draw = np.random.default_rng(5)
                face = person(6, skin="medium")
                if finding == CLEFT:
                    face = replace(face, cleft=random_cleft(draw, wanted))
                else:
                    face = replace(face, repair=random_repair(draw, wanted))
                pictures.append(render(face).image.astype(float))
            for i, one in enumerate(pictures):
                for other in pictures[:i]:
                    assert (np.abs(one - other).max(axis=2) > 12).sum() >= 3, (key, values[i])


def test_its_words_are_those_of_the_vocabulary() -> None:
    vocabulary = load_vocabulary()
    draw = np.random.default_rng(10)
    for name, finding in (("pre_op", CLEFT), ("post_op", SCAR)):
        details = vocabulary.condition(name).details
        for _ in range(200):
            for key, value in random_face(draw, finding=finding).attributes.items():
                assert key not in details or value in details[key].values, (key, value)


@pytest.mark.parametrize("finding", [None, CLEFT, SCAR])
def test_masks_hold_what_is_there_and_nothing_else(finding: str | None) -> None:
    for seed in range(4):
        made = render(random_face(np.random.default_rng([8, seed]), finding=finding), 256)
        assert (made.masks.cleft.max() > 0.5) == (finding == CLEFT)
        assert (made.masks.scar.max() > 0.3) == (finding == SCAR)
        assert made.masks.lip.max() > 0.9 and made.masks.skin.max() > 0.9
        assert (made.masks.cleft * made.masks.lip).max() <= 0.5


def test_landmarks_lie_on_what_they_name() -> None:
    for seed in range(6):
        face = random_face(np.random.default_rng([9, seed]))
        made = render(replace(face, glasses=False), 256)
        lip = made.landmarks68[48:60]
        assert inside(made.masks.lip, lip, 4).mean() > 0.9
        tip = made.landmarks68[30]
        assert inside(made.masks.skin, tip[None]).all()
        x1, y1, x2, y2 = made.box
        assert (made.landmarks[:, 0] > x1).all() and (made.landmarks[:, 0] < x2).all()
        assert (made.landmarks[:, 1] > y1).all() and (made.landmarks[:, 1] < y2).all()
        assert x1 > 0 and y1 > -12 and x2 < 256 and y2 < 256, "a high hairline is out of the picture"
        assert made.landmarks[0, 0] < made.landmarks[1, 0] and made.landmarks[3, 0] < made.landmarks[4, 0]


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
@pytest.mark.parametrize("skin", sorted(TONES))
def test_a_cleft_lies_on_the_patients_side(side: str, sign: int, skin: str) -> None:
    face = person(8, subject="baby", skin=skin)
    healthy = render(face)
    made = render(replace(face, cleft=Cleft("left" if side == "left" else "right", 0.9, 0.0)))
    middle = made.landmarks68[8, 0]
    _, xs = np.nonzero(made.masks.cleft > 0.5)
    assert len(xs) > 4 and (sign * (xs - middle) > 0).mean() > 0.95
    changed = np.abs(made.image.astype(int) - healthy.image).sum(2) > 40
    assert changed.sum() >= 10, "a cleft is seen at 128 px"


@pytest.mark.parametrize("side", ["left", "right", "bilateral"])
@pytest.mark.parametrize("severity", [0.15, 0.5, 0.8, 1.0])
def test_a_cleft_leaves_the_lower_lip_whole(side: str, severity: float) -> None:
    face = person(11, subject="boy")
    healthy = render(face, 512)
    made = render(replace(face, cleft=Cleft(side, severity, 0.6)), 512)  # type: ignore[arg-type]
    low = low_lip(healthy)
    assert low.sum() > 60
    assert made.masks.lip[low].min() > 0.9
    assert np.abs(made.image.astype(int) - healthy.image).max(axis=2)[low].max() < 40
    assert np.abs(made.image.astype(int) - healthy.image).max(axis=2)[low].mean() < 4


def low_lip(made: Rendering) -> np.ndarray:
    """The lower lip a little below its free edge."""
    rows = np.arange(made.image.shape[0])[:, None]
    edge = made.landmarks68[66, 1]
    reach = made.landmarks68[57, 1] - edge
    return np.asarray((made.masks.lip > 0.95) & (rows > edge + 0.35 * reach), bool)


def test_a_gap_grows_with_severity_from_microform_to_the_nostril() -> None:
    face = person(12, subject="baby")
    open_ = [
        render(replace(face, cleft=Cleft("left", s, 0.3)), 256).masks.cleft.sum()
        for s in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    assert all(a < b for a, b in pairwise(open_)), open_
    assert extent(0.2) < 0.35 < extent(0.3) < extent(0.74) < 0.9 < extent(0.8)


@pytest.mark.parametrize("skin", sorted(TONES))
def test_a_scar_is_seen_at_128_px_on_every_tone(skin: str) -> None:
    face = person(13, subject="kid", skin=skin)
    whole = render(face).image.astype(int)
    made = render(replace(face, repair=Repair("left", 0.7, 0.0, 0.0)))
    where = made.masks.scar > 0.2
    assert where.sum() >= 3
    assert np.abs(made.image.astype(int) - whole).max(axis=2)[where].mean() > 9


def test_a_repaired_pair_keeps_person_side_and_type() -> None:
    for seed in range(8):
        before = random_face(np.random.default_rng([14, seed]), finding=CLEFT)
        after = before.repaired(np.random.default_rng(seed))
        assert (
            (after.identity == before.identity).all()
            and after.cleft is None
            and before.cleft
            and after.repair
        )
        assert after.repair.side == before.cleft.side
        for key in (*HEALTHY, "cleft_type", "side"):
            assert after.attributes.get(key) == before.attributes.get(key)


def test_a_turned_head_turns_its_landmarks() -> None:
    face = person(15)
    x = {}
    for yaw in (-20, 0, 20):
        points = render(replace(face, view=replace(STILL, yaw=yaw))).landmarks
        x[yaw] = points[2, 0] - 0.5 * (points[0, 0] + points[1, 0])
    assert x[-20] < x[0] - 3 and x[20] > x[0] + 3
    up, down = (render(replace(face, view=replace(STILL, pitch=p))).landmarks[2, 1] for p in (10, -10))
    assert up < down


@pytest.mark.parametrize("expression", EXPRESSIONS[1:])
def test_an_expression_changes_the_picture(expression: str) -> None:
    face = person(16, subject="woman")
    moved = render(replace(face, view=replace(STILL, expression=expression))).image.astype(int)
    assert (np.abs(moved - render(face).image).max(axis=2) > 25).sum() > 15


@pytest.mark.parametrize("background", BACKGROUNDS[1:])
def test_a_background_is_its_own(background: str) -> None:
    face = person(17)
    other = render(replace(face, view=replace(STILL, background=background))).image.astype(int)
    assert np.abs(other - render(face).image)[:20, :20].mean() > 4


def test_light_comes_from_its_side() -> None:
    face = person(18, hair_length="short")
    cheeks = {}
    for azimuth in (-60, 60):
        made = render(replace(face, view=replace(STILL, light=Light(azimuth=azimuth, key=0.75))))
        left, right = (
            made.image[int(y) - 3 : int(y) + 3, int(x) - 3 : int(x) + 3].mean()
            for x, y in (
                made.landmarks[0] * 0.5 + made.landmarks[3] * 0.5,
                made.landmarks[1] * 0.5 + made.landmarks[4] * 0.5,
            )
        )
        cheeks[azimuth] = left - right
    assert cheeks[-60] > 5 and cheeks[60] < -5


def test_tones_follow_the_typology_angle() -> None:
    angle = {word: ita(tone) for word, tone in TONES.items()}
    assert angle["pale"] > 55 and 41 < angle["fair"] < 55 and 41 < angle["light"] < 55
    assert 10 < angle["medium"] < 28 and 10 < angle["olive"] < 28 and angle["dark"] < -30
    assert min(t[1] for t in TONES.values()) >= 6 and max(t[1] for t in TONES.values()) <= 15


def test_an_infant_has_an_infants_proportions() -> None:
    zero = np.zeros(40)
    baby, man = measures("baby", zero), measures("man", zero)
    assert -baby.vertex / (baby.gnathion - baby.vertex) > 0.55 > -man.vertex / (man.gnathion - man.vertex)
    assert baby.iris / baby.pupil > 1.25 * man.iris / man.pupil
    assert baby.prominence < 0.6 * man.prominence and baby.cheek > man.cheek
    assert 11 < man.iris < 12.5 and 58 < 2 * man.pupil < 68


def test_the_command_draws_and_goes_on_in_its_folder(tmp_path: Path) -> None:
    words = ["phantom", "render", "--condition", "post_op", "--out", str(tmp_path)]
    assert main([*words, "--n", "2"]) == 0
    first = (tmp_path / "photo-0000.png").read_bytes()
    assert main([*words, "--n", "3"]) == 0
    assert (tmp_path / "photo-0000.png").read_bytes() == first
    assert len(list(tmp_path.glob("*.png"))) == 3
