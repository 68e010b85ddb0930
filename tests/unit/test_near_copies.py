"""Near copies: what a recogniser does not see is found in the pixels, and other photographs are not."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.dataset.copies import dataset_thumbnails, near_copies, thumbnail_cache
from diffusioncleft.diffusioncleft_core.dataset.folder import create_dataset_folder, purge_dataset
from diffusioncleft.diffusioncleft_core.dataset.references import ReferenceSet
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.records import FaceRecord
from diffusioncleft.diffusioncleft_core.filters.artifacts import NO_FACE
from diffusioncleft.diffusioncleft_core.filters.identity import (
    IDENTITY_LEAK,
    NEAR_COPY_LEAK,
    IdentityFilter,
)
from diffusioncleft.diffusioncleft_core.imageset import copies
from diffusioncleft.diffusioncleft_core.imageset.copies import (
    NEAR_COPY,
    NEAR_COPY_VISIT,
    SIDE,
    CopyIndex,
    Pair,
    near_copy_pairs,
    thumbnail,
)
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow
from diffusioncleft.tools.altered_copies import CHANGES

N = 8


def faces(n, seed, **how):
    return [phantom.random_face(np.random.default_rng([seed, i]), finding="cleft", **how) for i in range(n)]


@pytest.fixture(scope="module")
def photographs():
    return [phantom.render(face, 128).image for face in faces(N, 61)]


@pytest.fixture(scope="module")
def index(photographs):
    return CopyIndex([thumbnail(image) for image in photographs])


@pytest.mark.parametrize("name", [name for name in CHANGES if "blended" not in name])
def test_an_altered_copy_leads_to_its_photograph(photographs, index, name):
    rng = np.random.default_rng(5)
    found = []
    for place, image in enumerate(photographs):
        match = index.best(thumbnail(CHANGES[name](image, rng, photographs[place - 1])))
        found.append(match.place == place and match.score >= NEAR_COPY)
    assert sum(found) >= N - 1, found


def test_a_picture_that_is_like_no_photograph_in_any_frame_is_aligned_with_none(index, monkeypatch):
    def aligned(*_, **settings):
        raise AssertionError("aligned")

    monkeypatch.setattr(copies, "_aligned", aligned)
    noise = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    found = index.matches(thumbnail(noise))
    assert len(found) == N and {match.score for match in found} == {copies.NO_HINT}


def test_each_match_says_its_likeness_and_what_is_under_the_callers_limit_is_not_aligned(photographs, index):
    match = index.best(thumbnail(photographs[3]))
    assert match.place == 3 and match.likeness > 0.99
    every = CopyIndex([thumbnail(image) for image in photographs], likely=-1.0).matches(
        thumbnail(photographs[3])
    )
    limit = float(np.median([found.likeness for found in every]))
    some = CopyIndex([thumbnail(image) for image in photographs], likely=limit).matches(
        thumbnail(photographs[3])
    )
    likeness = {found.place: found.likeness for found in every}
    assert {found.place: found.likeness for found in some} == likeness
    assert some[0] == every[0]
    assert all(found.score == copies.NO_HINT for found in some if likeness[found.place] < limit)


def test_the_mirror_image_is_known_as_one(photographs, index):
    match = index.best(thumbnail(np.ascontiguousarray(photographs[2][:, ::-1])))
    assert match.place == 2 and match.mirrored and match.score > 0.9
    assert not index.best(thumbnail(photographs[2])).mirrored


def test_other_people_are_no_near_copies(index):
    strangers = [phantom.render(face, 128).image for face in faces(20, 62)]
    assert max(index.best(thumbnail(image)).score for image in strangers) < NEAR_COPY


def test_among_photographs_copies_are_pairs_and_another_visit_of_a_phantom_is_none(photographs):
    visits = [
        phantom.render(face.photographed_again(np.random.default_rng([63, i])), 128).image
        for i, face in enumerate(faces(3, 61))
    ]
    rng = np.random.default_rng(1)
    made = ("grey", "turned by 5°", "cropped to 80 %", "mirrored")
    altered = [
        CHANGES[name](photographs[place], rng, photographs[0]) for place, name in enumerate(made, start=4)
    ]
    everything = [thumbnail(image) for image in (*photographs, *visits, *altered)]
    pairs = near_copy_pairs(everything, NEAR_COPY_VISIT)
    assert pairs == [Pair(4, 11), Pair(5, 12), Pair(6, 13), Pair(7, 14, mirrored=True)]


@pytest.mark.parametrize("shape", [(1, 1), (300, 2), (40, 900), (64, 64)])
def test_pictures_without_texture_or_of_odd_shapes_are_compared_and_are_no_copies(index, shape):
    flat = np.full((*shape, 3), 90, np.uint8)
    assert index.best(thumbnail(flat)).score < NEAR_COPY
    assert near_copy_pairs([thumbnail(flat), thumbnail(flat)]) == []


def test_a_photograph_that_is_not_square_is_found_when_cut(photographs):
    wide = np.concatenate([photographs[0], photographs[1]], axis=1)
    grey = thumbnail(wide)
    assert grey.shape == (SIDE // 2, SIDE)
    match = CopyIndex([grey, thumbnail(photographs[3])]).best(thumbnail(wide[:, :205]))
    assert match.place == 0 and match.score >= NEAR_COPY


def test_there_is_nothing_to_find_among_nothing(photographs):
    assert CopyIndex([]).best(thumbnail(photographs[0])) is None
    assert near_copy_pairs([]) == near_copy_pairs([thumbnail(photographs[0])]) == []


def unit(*values):
    vector = np.zeros(512, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def test_a_near_copy_is_rejected_with_a_reason_of_its_own_with_and_without_a_face(photographs, index):
    reference = ReferenceSet(unit(1)[None], ("pre_op",), copies=index)
    identity = IdentityFilter(reference)
    grey = CHANGES["grey"](photographs[1], np.random.default_rng(0), photographs[0])
    unlike = identity.check(unit(0, 1), grey)
    assert unlike.reasons == [NEAR_COPY_LEAK] and unlike.rejected
    score = round(unlike.copy_score, 2)
    assert unlike.to_json()["near_copy"] == {"rejected": True, "score": score, "threshold": 0.2}
    assert identity.check(unit(1), grey).reasons == [IDENTITY_LEAK, NEAR_COPY_LEAK]
    assert identity.check(FaceRecord(128, 128), grey).reasons == [NO_FACE, NEAR_COPY_LEAK]
    stranger = phantom.render(faces(1, 62)[0], 128).image
    assert identity.check(unit(0, 1), stranger).accepted
    off = IdentityFilter(reference, near_copies=False)
    assert off.check(unit(0, 1), grey).accepted and "near_copy" not in off.check(unit(1), grey).to_json()
    assert off.describe() != identity.describe()


def test_thumbnails_are_kept_in_the_dataset_and_go_with_it(photographs, tmp_path):
    from PIL import Image

    dataset = create_dataset_folder(tmp_path / "private")
    rows = []
    for place, image in enumerate(photographs[:3]):
        Image.fromarray(image).save(dataset / "images" / f"{place}.png")
        rows.append(ImageRow(f"images/{place}.png", sha256=f"{place}" * 64))
    first = dataset_thumbnails(dataset, rows)
    for row in rows:
        (dataset / row.file).unlink()
    again = dataset_thumbnails(dataset, rows)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    kept = b"".join(path.read_bytes() for path in (dataset / "cache").rglob("*") if path.is_file())
    assert b"0" * 64 not in kept and b"images/" not in kept
    with pytest.raises(UserError, match="build it again"):
        dataset_thumbnails(dataset, [ImageRow("images/9.png", sha256="9" * 64)])
    purge_dataset(dataset)
    assert not dataset.exists()


def test_pairs_are_looked_for_once_for_the_same_photographs(photographs, tmp_path):
    known = thumbnail_cache(create_dataset_folder(tmp_path / "private"))
    twice = [thumbnail(photographs[0])] * 2
    assert near_copies(known, ["a", "b"], lambda: twice, NEAR_COPY) == [Pair(0, 1)]

    def asked():
        raise AssertionError("the thumbnails were read again")

    again = thumbnail_cache(tmp_path / "private")
    assert near_copies(again, ["a", "b"], asked, NEAR_COPY) == [Pair(0, 1)]
    with pytest.raises(AssertionError):
        near_copies(again, ["a", "c"], asked, NEAR_COPY)
