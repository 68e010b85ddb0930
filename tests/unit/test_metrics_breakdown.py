"""Figures of the parts of a set, down to a stated number."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusioncleft.diffusioncleft_core.dataset.references import ReferenceSet
from diffusioncleft.diffusioncleft_core.metrics.breakdown import (
    FEWEST,
    add_distributions,
    add_identity,
    parts_with_figures,
    told_breakdown,
)
from diffusioncleft.diffusioncleft_core.metrics.distributions import Sides
from diffusioncleft.diffusioncleft_core.metrics.features import PopulationFeatures
from diffusioncleft.diffusioncleft_core.metrics.fir import Faces
from diffusioncleft.diffusioncleft_core.metrics.sets import Group, MeasuredImage, Population
from diffusioncleft.diffusioncleft_core.report.blocks import Labels
from diffusioncleft.diffusioncleft_core.report.several import TOO_FEW, breakdown_tables

NETWORK = {"name": "a network", "sha256": "0" * 64, "phantom": False, "licence": "none"}


def images_of(**skins):
    """So many images of each skin tone; one of which nothing is said."""
    shown = [skin for skin, n in skins.items() for _ in range(n)]
    said = [{"skin": skin, "subject": "girl"} if skin != "unsaid" else {} for skin in shown]
    return [MeasuredImage(Path(), f"{i}.png", "pre_op", attributes=each) for i, each in enumerate(said)]


def features(images, rng):
    n = len(images)
    group = Group("pre_op", np.ones(n, bool), None)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    return PopulationFeatures(
        Population(images, [group]), {"fid": vectors}, {}, None, {}, np.zeros(n, bool)
    ), group


def broken_down(generated, photographs):
    rng = np.random.default_rng(0)
    drawn, group = features(generated, rng)
    real, _ = features(photographs, rng)
    shown = real.population.mask("pre_op")
    parts = parts_with_figures(group, generated, photographs, shown)
    training = real.vectors["fid"]
    add_distributions(parts, group, drawn, real, Sides("fid", training, None, NETWORK, 0))
    faces = rng.normal(size=(len(generated), 512)).astype(np.float32)
    known = rng.normal(size=(len(photographs), 512)).astype(np.float32)
    known[0] = faces[0]
    faces, known = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (faces, known))
    found = Faces(faces, *(np.full(len(generated), value) for value in (True, False, False)))
    references = ReferenceSet(known, ("pre_op",) * len(known))
    add_identity(parts, group, generated, found, references, NETWORK, 0.6)
    return told_breakdown(parts, hidden=False)


def shown(parts):
    """The cells of the report's table by row, without its groups."""
    (table,) = breakdown_tables({"breakdown": {"pre_op": parts}}, Labels({}))
    return {row.head: [cell.text for cell in row.cells] for row in table.rows if row.cells}


def test_large_parts_have_figures_and_small_ones_are_too_few():
    found = broken_down(images_of(dark=30, light=25, olive=3), images_of(dark=40, light=8, olive=30))
    tones = found["skin_tone"]
    by_size = {part["n"]: part for part in tones.values()}
    dark, light, olive = (by_size[n] for n in (30, 25, 3))
    assert {"fid", "kid", "precision", "coverage", "vendi", "fir_images"} <= set(dark["figures"])
    assert dark["figures"]["kid"]["n_reference"] == 40 and dark["figures"]["fir_images"]["k"] == 1
    assert set(light["figures"]) == {"fir_images", "fir_pairs"}  # FIR is of all photographs
    assert light["n_reference"] == 8 < FEWEST and not olive["figures"]
    assert found["subject"]["girl"]["n"] == 58
    assert TOO_FEW in [cell for row in shown(found).values() for cell in row]


def test_parts_tell_of_no_few_photographs():
    """Neither their own number, nor by what is left of the whole."""
    found = broken_down(images_of(dark=30, light=30), images_of(dark=40, light=3, olive=30))
    counts = {name: part["n_reference"] for name, part in found["skin_tone"].items()}
    assert 3 not in counts.values() and None in counts.values()
    assert not any(
        "kid" in part["figures"] for name, part in found["skin_tone"].items() if counts[name] is None
    )


def test_a_set_of_which_nothing_is_said_has_no_parts():
    assert broken_down(images_of(unsaid=30), images_of(dark=30)) == {}


def test_the_report_says_why_a_part_has_no_figure():
    rng = np.random.default_rng(0)
    generated = images_of(dark=30, light=8, unsaid=25)
    both = [replace(image, condition=("pre_op", "post_op")[i % 2]) for i, image in enumerate(generated)]
    _, group = features(generated, rng)
    parts = parts_with_figures(group, generated, both, np.ones(len(both), bool))
    rows = shown(told_breakdown(parts, hidden=False))
    few, untold = [TOO_FEW] * 6, [TOO_FEW, *["not told"] * 5]
    assert rows["girl"] == ["38", "not told", *untold]
    assert few in [row[2:] for row in rows.values()], "8 images are too few of whatever photographs"
    (table,) = breakdown_tables({"breakdown": {"pre_op": parts}}, Labels({}))
    assert "fewer than five photographs" in table.caption


def test_photographs_of_which_nothing_is_said_are_not_none():
    rows = shown(broken_down(images_of(dark=30, unsaid=25), images_of(unsaid=40)))
    assert rows["girl"][1:2] + rows["girl"][3:] == ["not known"] * 6
    assert rows["not said"][1] == "40" and rows["not said"][3:] == ["not compared"] * 5
