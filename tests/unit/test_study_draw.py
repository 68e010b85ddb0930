"""Which pictures are drawn: by seed, equal shares of conditions, faces as the set has them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.study.draw import (
    generator,
    one_a_person,
    shares,
    stratified,
    systematic,
)
from diffusioncleft.diffusioncleft_core.study.sources import Picture

FOLDER = Path("set")


def faces(counts):
    """So many pictures of each (age group, skin tone)."""
    return [
        Picture(FOLDER / f"{age}-{skin}-{k}.png", FOLDER, "pre_op", {"age_group": age, "skin_tone": skin})
        for (age, skin), n in counts.items()
        for k in range(n)
    ]


SET = {
    ("baby", "light"): 90,
    ("baby", "dark"): 31,
    ("child", "light"): 60,
    ("child", None): 7,
    (None, None): 12,
}


@pytest.mark.parametrize("seed", range(5))
def test_age_groups_and_skin_tones_keep_their_shares_rounded_down_or_up(seed):
    drawn = stratified(faces(SET), 25, generator(seed, "generated"))
    assert len({picture.path for picture in drawn}) == 25
    found = Counter((picture.groups["age_group"], picture.groups["skin_tone"]) for picture in drawn)
    for stratum, n in SET.items():
        exact = 25 * n / sum(SET.values())
        assert found[stratum] in (int(exact), int(exact) + 1)


def test_every_picture_has_the_same_chance():
    pictures = faces({("baby", "light"): 7, ("child", "dark"): 3})
    drawn = Counter(
        picture.path for seed in range(4000) for picture in stratified(pictures, 4, generator(seed, "real"))
    )
    # 4,000 draws at 0.4: the standard error is 0.0077, and the largest of ten deviates by less than 4.
    assert all(abs(drawn[picture.path] / 4000 - 0.4) < 4 * 0.0077 for picture in pictures)


def test_the_seed_decides_alone():
    one, again, other = (stratified(faces(SET), 25, generator(seed, "a")) for seed in (1, 1, 2))
    assert one == again != other
    assert stratified(faces(SET), 25, generator(1, "b")) != one


def test_more_than_there_are_are_all():
    pictures = faces({("baby", "light"): 3})
    assert stratified(pictures, 5, generator(0)) == pictures
    assert sorted(systematic([1, 2, 3], 5, generator(0))) == [1, 2, 3]
    assert systematic([], 5, generator(0)) == systematic([1], 0, generator(0)) == []


@pytest.mark.parametrize(
    ("n", "available", "expected"),
    [
        (50, [100, 100], [25, 25]),
        (11, [100, 100], [6, 5]),
        (10, [3, 100], [3, 7]),
        (10, [3, 4], [3, 4]),
        (7, [0, 9, 9], [0, 4, 3]),
    ],
)
def test_conditions_get_equal_shares_and_what_one_lacks_goes_to_the_others(n, available, expected):
    assert shares(n, [str(k) for k in range(len(available))], available) == expected


def test_a_person_is_shown_once_where_there_are_enough_people():
    pictures = [
        Picture(FOLDER / f"{k}.png", FOLDER, subject=f"person {k % 4}" if k < 12 else "") for k in range(15)
    ]
    chosen = one_a_person(pictures, 7, np.random.default_rng(0))
    people = [picture.subject or picture.path for picture in chosen]
    assert len(people) == len(set(people)) == 7
    assert len(one_a_person(pictures, 8, np.random.default_rng(0))) == 15
