"""Near copies of photographs of people are found, and other photographs of the same people are none."""

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.files import read_jsonl
from diffusioncleft.diffusioncleft_core.imageset.copies import (
    NEAR_COPY,
    CopyIndex,
    near_copy_pairs,
    thumbnail,
)
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.tools.altered_copies import CHANGES


@pytest.fixture(scope="module")
def photographs(people):
    """Five photographs of each person, by person."""
    return {subject: [read_image(path) for path in paths[:5]] for subject, paths in people.items()}


@pytest.fixture(scope="module")
def index(photographs):
    return CopyIndex([thumbnail(image) for images in photographs.values() for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_altered_copies_are_found_and_lead_to_nobody_else(photographs, index, change):
    images = [image for found in photographs.values() for image in found]
    found, wrong = [], []
    for place in range(0, len(images), 3):
        rng = np.random.default_rng(place)
        altered = CHANGES[change](images[place], rng, np.ascontiguousarray(images[place - 9][::-1]))
        matches = index.matches(thumbnail(altered))
        found += [match.score >= NEAR_COPY for match in matches if match.place == place]
        wrong += [match for match in matches if match.place != place and match.score >= NEAR_COPY]
    assert not wrong
    assert sum(found) >= 0.8 * len(range(0, len(images), 3))


def test_photographs_of_the_same_people_are_no_near_copies(photographs):
    assert near_copy_pairs([thumbnail(image) for images in photographs.values() for image in images]) == []


def test_the_filter_finds_copies_that_show_no_face(command, real, dataset, tmp_path, people):
    folder = tmp_path / "made"
    folder.mkdir()
    known, stranger = sorted(people)[0], sorted(people)[4]
    rng = np.random.default_rng(3)
    for name in ("grey", "hue shifted", "half covered", "cropped to 80 %"):
        for place, path in enumerate(people[known][:3]):
            image = read_image(path)
            Image.fromarray(CHANGES[name](image, rng, image)).save(folder / f"{name[:4]}_{place}.png")
    for place, path in enumerate(people[stranger][:3]):
        Image.fromarray(read_image(path)).save(folder / f"stranger_{place}.png")
    done = command(
        "filter", folder, "--reference", dataset, "--faces", real / "pack", "--kinds", "several_faces"
    )
    assert done.returncode == 0, done.stderr
    rows = {row["file"]: row for row in read_jsonl(folder / "manifest.jsonl")}
    copies = [row for file, row in rows.items() if "stranger" not in file]
    assert sum("near_copy" in row["verdicts"]["reasons"] for row in copies) >= len(copies) - 1
    assert all(
        "near_copy" not in row["verdicts"]["reasons"] for file, row in rows.items() if "stranger" in file
    )
