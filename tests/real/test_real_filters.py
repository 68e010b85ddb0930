"""The eyes' checks on photographs of people: plain eyes pass in every light, covered ones are found.

What is asserted is of people on whom no limit was set: limits are chosen on every other person, the first
among them, and tried on the rest. Intervals and every such split: experiments/real_eyes.json.
"""

import functools

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter, check_limits
from diffusioncleft.tools.evaluate_eyes import darkest_third, judges, limits_from, of_kind
from diffusioncleft.tools.eye_bench import BAR, BLUR, CLEAN, MOSAIC, WHOLE, clean_crops, samples_of

SHIPPED, SAMPLE, CHOSEN = "shipped", "shipped, fewer pictures", "chosen on the others"


@pytest.fixture(scope="session")
def taken(people, faces):
    """Gives the pictures of every other person from the one named by its number on, made once.

    few: of every other photograph, taken otherwise once and not twice.
    """

    @functools.cache
    def of(first, few=False):
        return [
            sample
            for name in list(people)[first::2]
            for sample in samples_of(name, people[name][:: 1 + few], faces, variants=2 - few, bars=2, seed=7)
        ]

    return of


@pytest.fixture(
    params=[SAMPLE, *(pytest.param(whole, marks=pytest.mark.long) for whole in (SHIPPED, CHOSEN))]
)
def limits(request):
    return request.param


@pytest.fixture
def rest(taken, limits):
    """Pictures of the people on whom no limit was set."""
    return taken(1, few=limits == SAMPLE)


@pytest.fixture
def share(taken, limits):
    """Share of pictures that a check rejects."""
    found = judges(limits_from(taken(0)) if limits == CHOSEN else check_limits({}))

    def rejected(samples, name):
        assert len(samples) >= 10
        return float(np.mean([found[name](sample) for sample in samples]))

    return rejected


@pytest.mark.parametrize("name", ["eye_bar", "hidden_eyes"])
def test_plain_eyes_and_glasses_pass_in_every_light(rest, share, name):
    clean = of_kind(rest, CLEAN)
    assert share(clean, name) <= 0.01
    assert share(darkest_third(clean), name) <= 0.02


def test_pictures_that_are_soft_or_coarse_as_a_whole_hide_no_eyes(rest, share):
    with_face = [sample for sample in of_kind(rest, WHOLE) if sample.line is not None]
    assert share(with_face, "hidden_eyes") <= 0.02


@pytest.mark.parametrize("kind", [BAR, MOSAIC, BLUR])
def test_covered_eyes_are_found(rest, share, kind):
    """A picture in which they hide the face from the detector is rejected too."""
    covered = of_kind(rest, kind)
    assert share(covered, "either") >= (0.97 if len(covered) >= 60 else 0.9)


def test_a_bar_is_called_one_and_found_in_each_colour(taken, rest, share, limits):
    bars = of_kind(rest, BAR) if limits == SAMPLE else of_kind(taken(0), BAR) + of_kind(rest, BAR)
    assert share(bars, "eye_bar") >= 0.95
    for colour in {sample.made["colour"] for sample in bars}:
        of_colour = [sample for sample in bars if sample.made["colour"] == colour]
        assert len(of_colour) < 20 or share(of_colour, "either") >= 0.95


@pytest.mark.parametrize("most", [2, pytest.param(None, marks=pytest.mark.long)])
def test_clean_photographs_pass_the_filter(people, faces, most):
    checks = ArtifactFilter(faces, kinds=["eye_bar", "hidden_eyes"])
    images = [image for paths in people.values() for image in clean_crops(paths[:most], faces)]
    assert [reason for image in images for reason in checks.check(image).reasons] == []
