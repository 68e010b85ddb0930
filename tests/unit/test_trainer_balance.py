"""Balanced sampling: how often each value is drawn, exactly, from any batch on, and what is refused."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from noise_pictures import noise_pictures

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer.balance import attribute_names, check_balanced, group_shares
from diffusioncleft.trainer.config import parse_recipe, to_arguments
from diffusioncleft.trainer.data import TrainImage, collect_images
from diffusioncleft.trainer.data_order import DataOrder

LEFT = {"cleft_type": "unilateral", "side": "left"}
RIGHT = {"cleft_type": "unilateral", "side": "right"}
BOTH = {"cleft_type": "bilateral", "side": ""}
SAID = [LEFT] * 43 + [RIGHT] * 29 + [BOTH] * 28
"""The training phantoms of the demo."""
NAMES = ("cleft_type", "side")


def images(said=SAID, buckets=((64, 64),), repeats=1):
    return [
        TrainImage(
            Path(f"{index}.png"),
            Path(),
            "a face",
            False,
            repeats,
            f"{index:064d}",
            buckets[index % len(buckets)],
            attributes=attributes,
        )
        for index, attributes in enumerate(said)
    ]


def drawn(order, batches, first=0):
    return [index for number in range(first, first + batches) for index in order.draw(number).train]


def kinds(indices):
    return Counter(SAID[index]["side"] or SAID[index]["cleft_type"] for index in indices)


def test_each_type_is_half_of_the_draws_and_each_side_half_of_the_one_sided():
    order = DataOrder(images(), 4, 7, NAMES)
    assert kinds(drawn(order, 100)) == {"left": 100, "right": 100, "bilateral": 200}


def test_in_every_beginning_a_count_is_within_one_of_its_share():
    taken = drawn(DataOrder(images(), 1, 7, NAMES), 400)
    for end in range(1, 401):
        found = kinds(taken[:end])
        assert abs(found["bilateral"] - end / 2) <= 1
        assert abs(found["left"] - end / 4) <= 1 and abs(found["right"] - end / 4) <= 1


def test_within_a_group_every_image_is_taken_once_a_round():
    taken = [index for index in drawn(DataOrder(images(), 4, 7, NAMES), 140) if SAID[index] is BOTH]
    rounds = [tuple(taken[at : at + 28]) for at in range(0, 280, 28)]
    assert all(sorted(one) == list(range(72, 100)) for one in rounds)
    assert len(set(rounds)) == len(rounds) == 10


def test_repeats_do_not_unbalance_the_values():
    mixed = [*images([LEFT] * 5, repeats=6), *images([RIGHT] * 30)]
    taken = drawn(DataOrder(mixed, 3, 1, ("side",)), 100)
    assert sum(index < 5 for index in taken) == 150


def test_images_that_do_not_say_an_attribute_keep_their_share():
    shares = group_shares({("left",): 43, ("right",): 29, ("",): 28})
    assert shares == {("left",): Fraction(9, 25), ("right",): Fraction(9, 25), ("",): Fraction(7, 25)}
    taken = drawn(DataOrder(images(), 5, 3, ("side",)), 100)
    assert kinds(taken) == {"left": 180, "right": 180, "bilateral": 140}


def test_independent_attributes_are_both_balanced():
    sizes = {(kind, sex): 1 + 3 * (kind == "u") + 5 * (sex == "f") for kind in "ub" for sex in "fm"}
    assert set(group_shares(sizes).values()) == {Fraction(1, 4)}


def test_batches_hold_one_bucket_and_are_full_and_the_values_stay_balanced():
    order = DataOrder(images(buckets=((64, 64), (96, 64))), 4, 7, NAMES)
    batches = [order.draw(number).train for number in range(250)]
    assert {len(batch) for batch in batches} == {4}
    assert all(len({index % 2 for index in batch}) == 1 for batch in batches)
    found = kinds(index for batch in batches for index in batch)
    assert abs(found["bilateral"] - 500) <= 6 and abs(found["left"] - found["right"]) <= 6


def test_a_run_can_be_taken_up_at_any_batch():
    whole = DataOrder(images(), 3, 5, NAMES)
    straight = [whole.draw(number) for number in range(60)]
    for number in (0, 1, 7, 33, 59):
        later = DataOrder(images(), 3, 5, NAMES)
        assert [later.draw(at) for at in range(number, 60)] == straight[number:]
    assert whole.draw(4) == straight[4] and whole.draw(59) == straight[59]


def test_the_seed_chooses_the_order_and_the_balance_is_the_same():
    one, other = (drawn(DataOrder(images(), 4, seed, NAMES), 100) for seed in (1, 2))
    assert one != other and kinds(one) == kinds(other)


def test_an_epoch_is_as_many_images_as_there_are():
    assert DataOrder(images(), 8, 1, NAMES).batches_an_epoch == 13
    assert DataOrder(images(repeats=3), 8, 1, NAMES).batches_an_epoch == 38


def test_the_balanced_order_is_that_of_every_version():
    """A checkpoint that was written yesterday goes on with today's trainer: these draws never change."""
    order = DataOrder(images(), 2, 5, NAMES)
    assert [order.draw(number).train for number in (0, 1, 2, 401)] == [(80, 68), (9, 74), (10, 72), (81, 69)]


@pytest.mark.parametrize(
    ("said", "names", "message"),
    [
        ([{}] * 5, NAMES, "no training image says its cleft_type; a dataset built by 'dataset build' does"),
        (SAID, ("colour",), "no training image says its colour; they say cleft_type, side"),
        ([LEFT] * 9, ("side",), "--balance_by side: .* nothing to balance; leave it out"),
    ],
)
def test_what_can_not_be_balanced_is_refused_in_a_sentence(said, names, message):
    with pytest.raises(UserError, match=message):
        check_balanced(said, names)


def test_a_list_without_a_name_is_refused():
    assert attribute_names(" cleft_type, side,cleft_type") == NAMES and attribute_names(None) == ()
    with pytest.raises(UserError, match="--balance_by names no attribute"):
        attribute_names(",")


def test_the_option_reaches_the_trainers_process():
    recipe = parse_recipe(["--phantom", "--train_data_dir", "photos", "--balance_by", "cleft_type,side"])
    assert recipe.data.balance_by == "cleft_type,side"
    assert parse_recipe(to_arguments(recipe)) == recipe


def test_a_manifest_says_what_its_images_are_and_a_plain_folder_says_nothing(noise_folder):
    rows = [{"file": path.name, "caption": "a face", "attributes": LEFT} for path in noise_folder]
    folder = noise_folder[0].parent
    plain = collect_images([Subset(folder, class_tokens="a face")], [64])
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = collect_images([Subset(folder)], [64])
    assert [image.attributes for image in plain.train] == [{}, {}]
    assert [image.attributes for image in told.train] == [LEFT, LEFT]


@pytest.fixture
def noise_folder(tmp_path):
    noise_pictures(tmp_path / "photos", 2)
    return sorted((tmp_path / "photos").glob("*.png"))
