"""Which images enter a run with which captions, and the order in which steps take them, draw by draw."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer.data import TrainImage, collect_images, read_pixels
from diffusioncleft.trainer.data_order import DataOrder, Draw


def image(index, bucket=(64, 64), *, is_reg=False, repeats=1):
    return TrainImage(Path(f"{index}.png"), Path(), "a girl", is_reg, repeats, f"{index:064d}", bucket)


WIDE = (96, 64)
IMAGES = [
    *(image(index, WIDE if index in (2, 5) else (64, 64), repeats=1 + (index == 4)) for index in range(7)),
    image(7, is_reg=True),
    image(8, is_reg=True, repeats=2),
    image(9, (80, 64), is_reg=True),
]


def epoch(order, number):
    return [order.draw(number * order.batches_an_epoch + place) for place in range(order.batches_an_epoch)]


def test_a_bucket_is_cut_into_batches_and_its_rest_is_one():
    order = DataOrder(IMAGES, 4, seed=1)
    assert order.batches_an_epoch == 3  # six of 64 x 64 in 4 + 2, and two wide ones
    for number in range(4):
        assert sorted(len(draw.train) for draw in epoch(order, number)) == [2, 2, 4]
        assert Counter(i for draw in epoch(order, number) for i in draw.train) == {
            **dict.fromkeys(range(7), 1),
            4: 2,
        }


def test_epochs_are_shuffled_within_buckets_and_between_batches():
    order = DataOrder(IMAGES, 2, seed=1)
    epochs = [epoch(order, number) for number in range(30)]
    assert len({tuple(draw.train for draw in one) for one in epochs}) > 25
    assert {place for one in epochs for place, draw in enumerate(one) if draw.train[0] in (2, 5)} == {
        0,
        1,
        2,
        3,
    }
    assert {draw.train for one in epochs for draw in one if 2 in draw.train} == {(2, 5), (5, 2)}
    assert len({draw.train for one in epochs for draw in one if 0 in draw.train}) > 5


@pytest.mark.parametrize("size", [1, 2])
def test_regularisation_images_are_taken_in_rounds_of_their_own_bucket(size):
    order = DataOrder([image(0), image(1), image(2), *IMAGES[7:]], size, seed=4)
    pairs = [index for number in range(60) for index in order.draw(number).reg]
    assert set(pairs) == {3, 4}
    assert abs(pairs.count(4) - 2 * pairs.count(3)) <= 6


def test_a_round_of_regularisation_takes_each_once_and_the_next_is_another():
    reg = [image(10 + index, is_reg=True) for index in range(6)]
    order = DataOrder([image(0), image(1), *reg], 2, seed=4)
    pairs = [index for number in range(60) for index in order.draw(number).reg]
    rounds = [tuple(pairs[at : at + 6]) for at in range(0, 120, 6)]
    assert all(sorted(one) == [2, 3, 4, 5, 6, 7] for one in rounds)
    assert len(set(rounds)) > 15


def test_a_bucket_without_regularisation_images_takes_any():
    order = DataOrder(IMAGES, 2, seed=4)
    wide = [draw for number in range(120) for draw in [order.draw(number)] if draw.train[0] in (2, 5)]
    assert {index for draw in wide for index in draw.reg} == {7, 8, 9}
    assert all(len(draw.reg) == len(draw.train) == 2 for draw in wide)
    assert DataOrder(IMAGES[:7], 2, seed=4).draw(3).reg == ()


def test_a_run_can_be_taken_up_at_any_draw():
    whole = DataOrder(IMAGES, 2, seed=5)
    for number, draw in enumerate([whole.draw(number) for number in range(24)]):
        assert DataOrder(IMAGES, 2, seed=5).draw(number) == draw


def test_the_order_is_that_of_every_version():
    """A checkpoint that was written yesterday goes on with today's trainer: these draws never change."""
    order = DataOrder(IMAGES, 2, seed=5)
    assert [order.draw(number) for number in (0, 1, 2, 3, 4, 401)] == [
        Draw((6, 4), (8, 7)),
        Draw((5, 2), (7, 8)),
        Draw((3, 0), (8, 8)),
        Draw((4, 1), (8, 7)),
        Draw((4, 0), (8, 7)),
        Draw((0, 1), (8, 7)),
    ]


def test_the_buckets_of_a_run_are_counted(tmp_path):
    folder(tmp_path, {"file": "a.png"}, {"file": "b.png", "size": (96, 64)}, {"file": "c.png"})
    collected = collect_images([Subset(tmp_path, class_tokens="x")], (64,))
    assert collected.bucket_counts() == {"64x64": 2, "80x48": 1}


def folder(path, *rows, manifest=False):
    """Write an image a row; with `manifest` the rows too."""
    path.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for row in rows:
        width, height = row.pop("size", (64, 64))
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(path / row["file"])
    if manifest:
        (path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_manifest_gives_roles_captions_and_regions(tmp_path):
    rows = [
        {"file": f"{role}.png", "role": role, "caption": f"caption {role}", "prompt": "no"}
        for role in ("train", "holdout", "generated", "control")
    ]
    rows += [{"file": "bare.png", "prompt": " only\n a   prompt "}, {"file": "none.png"}]
    rows[0] |= {"size": (128, 64), "region": [40, 8, 72, 40]}
    set_ = folder(tmp_path / "set", *rows, manifest=True)
    (set_ / "none.txt").write_text("a caption file beside a manifest is none")
    subsets = [
        Subset(set_, is_reg=True, num_repeats=3, class_tokens="a face"),
        Subset(set_, class_tokens="x"),
    ]
    found = collect_images(subsets, (64,))
    assert [(i.path.stem, i.caption, i.is_reg, i.repeats) for i in found.images] == [
        ("train", "caption train", False, 1),
        ("bare", "only a prompt", False, 1),
        ("none", "x", False, 1),
        ("train", "caption train", True, 3),
        ("generated", "caption generated", True, 3),
        ("control", "caption control", True, 3),
        ("bare", "only a prompt", True, 3),
        ("none", "a face", True, 3),
    ]
    assert [len(part) for part in (found.train, found.reg)] == [3, 5]
    # Of 128 x 64 the middle 106.7 x 64 becomes 80 x 48: 10.7 px go on the left, and a px becomes 0.75.
    first = found.images[0]
    assert (first.bucket, first.bucket_name, first.region) == (
        (80, 48),
        "80x48",
        pytest.approx((22, 6, 46, 30)),
    )
    assert found.images[1].region is None
    rows.append({"file": "none too.png"})
    folder(set_, *map(dict, rows), manifest=True)
    with pytest.raises(UserError, match=r"^4 images have no caption"):
        collect_images([Subset(set_), Subset(set_, is_reg=True)], (64,))


def test_a_caption_file_is_read_by_its_extension_without_its_mark(tmp_path):
    folder(tmp_path, {"file": "a.b.png"}, {"file": "c.jpg"}, {"file": "d.png"})
    (tmp_path / "a.b.caption").write_text("\ufeffa\tgirl\n\n with  scars \n", encoding="utf-8")
    (tmp_path / "a.b.txt").write_text("another")
    (tmp_path / "c.caption").write_bytes(b"caf\xe9")
    (tmp_path / "d.caption").write_text(" \n")
    found = collect_images([Subset(tmp_path, class_tokens="x", caption_extension=".caption")], (64,))
    assert [entry.caption for entry in found.images] == [
        "a girl with scars",
        "café",
        "x",
    ]


def test_images_that_cannot_be_read_are_named_and_the_others_go_on(tmp_path):
    set_ = folder(
        tmp_path / "set", *({"file": f"{name}.png", "caption": name} for name in "abcd"), manifest=True
    )
    (set_ / "b.png").write_bytes(b"no picture")
    (set_ / "c.png").unlink()
    found = collect_images([Subset(set_)], (64,))
    assert [entry.caption for entry in found.images] == ["a", "d"]
    assert any("can't be read" in told and "b.png" in told and "c.png" in told for told in found.left_out)


def test_of_an_animation_the_first_frame_is_trained_on(tmp_path):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    (found,) = collect_images([Subset(tmp_path, class_tokens="x")], (64,)).images
    assert (read_pixels(found.path)[0, 0] == (255, 0, 0)).all()


def test_every_image_asks_whether_to_go_on(tmp_path):
    folder(tmp_path, {"file": "a.png"}, {"file": "b.png"}, {"file": "c.png"})
    calls = []

    def each():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_images([Subset(tmp_path, class_tokens="x")], (64,), each=each)
    assert len(calls) == 2


def test_no_image_to_train_on_is_a_mistake(tmp_path):
    set_ = folder(tmp_path / "set", {"file": "a.png", "role": "holdout", "caption": "x"}, manifest=True)
    with pytest.raises(UserError, match="no training image"):
        collect_images([Subset(set_)], (64,))


def test_what_a_filter_rejected_is_not_trained_on(tmp_path):
    rows = [
        {"file": "good.png", "caption": "good", "verdicts": {"accepted": True}},
        {"file": "unseen.png", "caption": "unseen"},
        {"file": "leak.png", "caption": "leak", "verdicts": {"accepted": False}},
        {"file": "rejected/aside.png", "caption": "aside", "verdicts": {"accepted": False}},
    ]
    (tmp_path / "set" / "rejected").mkdir(parents=True)
    set_ = folder(tmp_path / "set", *rows, manifest=True)
    found = collect_images([Subset(set_), Subset(set_, is_reg=True)], (64,))
    assert [entry.caption for entry in found.train] == ["good", "unseen"]
    assert [entry.caption for entry in found.reg] == ["good", "unseen"]
    assert found.left_out.count("2 images that a filter rejected were left out") == 2
