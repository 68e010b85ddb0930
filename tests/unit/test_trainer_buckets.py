"""Buckets: no enlarging where it can be avoided, areas under the base's, nothing squeezed."""

import math

import numpy as np
import pytest

from diffusioncleft.trainer.buckets import BucketSides, assign_buckets, bucket_sizes, cover_box
from diffusioncleft.trainer.data import bucket_pixels

PAPER = (256, 512, 768, 1024)


@pytest.mark.parametrize("base", PAPER)
@pytest.mark.parametrize("step", [16, 64])
def test_buckets_lie_close_under_the_area_of_their_base(base, step):
    for width, height in bucket_sizes(base, BucketSides(step)):
        assert width % step == 0
        assert height % step == 0
        assert base * base - step * width < width * height <= base * base
        assert max(width, height) <= 4 * min(width, height)
    assert (base, base) in bucket_sizes(base, BucketSides(step))


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((256, 256), (256, 256)),
        ((511, 511), (256, 256)),
        ((512, 512), (512, 512)),
        ((767, 900), (704, 832)),
        ((768, 768), (768, 768)),
        ((1023, 1024), (768, 768)),
        ((1024, 1024), (1024, 1024)),
        ((4000, 4000), (1024, 1024)),
        ((100, 100), (256, 256)),
    ],
)
def test_an_image_takes_the_largest_paper_size_it_fills(size, bucket):
    assert assign_buckets(*size, PAPER)[0] == bucket


def test_only_images_below_the_smallest_size_are_enlarged():
    random = np.random.default_rng(0)
    for width, height in random.integers(300, 3000, (300, 2)).tolist():
        if max(width, height) > 3 * min(width, height) or width * height < 300 * 300:
            continue
        bucket = assign_buckets(width, height, PAPER)[0]
        if bucket[0] * bucket[1] > 256 * 256:
            assert bucket[0] <= width
            assert bucket[1] <= height
        assert abs(math.log(width / height) - math.log(bucket[0] / bucket[1])) < 0.15


def test_an_image_can_be_trained_at_every_size_that_it_fills_and_at_no_other():
    assert assign_buckets(900, 900, PAPER) == ((768, 768), (512, 512), (256, 256))
    assert assign_buckets(2000, 1000, PAPER)[:2] == ((1440, 720), (1072, 544))
    assert assign_buckets(200, 100, PAPER) == ((352, 176),)
    assert assign_buckets(100, 100, (65, 64)) == ((64, 64),)  # one size of two bases counts once


def test_covering_crops_the_centre_and_keeps_the_aspect_ratio():
    left, top, right, bottom = cover_box(300, 200, (128, 128))
    assert (left, top, right, bottom) == (50, 0, 250, 200)
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[:, 50:250] = 200
    assert (bucket_pixels(pixels, (128, 128))[:, 4:-4] == 200).all()  # Lanczos reads 3 px beyond the box


def test_an_image_of_its_buckets_size_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    assert bucket_pixels(pixels, (96, 64)) is pixels
