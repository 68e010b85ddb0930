"""The eyes' checks on photographs of people: plain eyes pass in every light, covered ones are found.

What is asserted is of people on whom no limit was set: limits are chosen on every other person, the first
among them, and tried on the rest. Intervals and every such split: experiments/real_eyes.json.
"""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter, check_limits
from diffusioncleft.tools.evaluate_eyes import darkest_third, judges, limits_from, of_kind
from diffusioncleft.tools.eye_bench import BAR, BLUR, CLEAN, MOSAIC, WHOLE, clean_crops, samples_of


@pytest.fixture(scope="session")
def halves(people, faces):
    """Pictures of every other person, and of the rest."""
    names = list(people)
    return [
        [
            sample
            for name in half
            for sample in samples_of(name, people[name], faces, variants=2, bars=2, seed=7)
        ]
        for half in (names[::2], names[1::2])
    ]


@pytest.fixture(params=["chosen on the others", "shipped"])
def share(request, halves):
    """Share of pictures that a check rejects."""
    found = judges(limits_from(halves[0]) if request.param != "shipped" else check_limits({}))

    def rejected(samples, name):
        assert len(samples) >= 30
        return float(np.mean([found[name](sample) for sample in samples]))

    return rejected


@pytest.mark.parametrize("name", ["eye_bar", "hidden_eyes"])
def test_plain_eyes_and_glasses_pass_in_every_light(halves, share, name):
    clean = of_kind(halves[1], CLEAN)
    assert share(clean, name) <= 0.01
    assert share(darkest_third(clean), name) <= 0.02


def test_pictures_that_are_soft_or_coarse_as_a_whole_hide_no_eyes(halves, share):
    with_face = [sample for sample in of_kind(halves[1], WHOLE) if sample.line is not None]
    assert share(with_face, "hidden_eyes") <= 0.02


@pytest.mark.parametrize("kind", [BAR, MOSAIC, BLUR])
def test_covered_eyes_are_found(halves, share, kind):
    """A picture in which they hide the face from the detector is rejected too."""
    assert share(of_kind(halves[1], kind), "either") >= 0.97


def test_a_bar_is_called_one_and_found_in_each_colour(halves, share):
    bars = of_kind(halves[0], BAR) + of_kind(halves[1], BAR)
    assert share(bars, "eye_bar") >= 0.95
    for colour in {sample.made["colour"] for sample in bars}:
        assert share([sample for sample in bars if sample.made["colour"] == colour], "either") >= 0.95


def test_clean_photographs_pass_the_filter(people, faces):
    checks = ArtifactFilter(faces, kinds=["eye_bar", "hidden_eyes"])
    images = [image for paths in people.values() for image in clean_crops(paths, faces)]
    assert [reason for image in images for reason in checks.check(image).reasons] == []
