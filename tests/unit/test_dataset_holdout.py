"""The hold-out: a subject is never on both sides, and never changes sides."""

import json

import numpy as np
import pytest
from dataset_building import reasons, table, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset.select import (
    SAME_PERSON,
    SAME_PERSON_PHANTOM,
    choose_holdout,
    group_subjects,
)
from diffusioncleft.diffusioncleft_core.dataset.settings import read_roles
from diffusioncleft.diffusioncleft_core.files import sha256_file


def roles_of(groups, names=None, fraction=0.1, seed=0, recorded=None):
    names = names or [f"photo {index}" for index in range(len(groups))]
    return choose_holdout(groups, names, fraction, seed, recorded or [set()] * len(groups))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.floats(0, 0.5),
    st.integers(0, 5),
    st.lists(st.sampled_from(["", "train", "holdout"]), min_size=40, max_size=40),
)
def test_a_subject_is_on_one_side_and_what_was_trained_stays(groups, fraction, seed, before):
    recorded = [{role} - {""} for role in before[: len(groups)]]
    roles = roles_of(groups, fraction=fraction, seed=seed, recorded=recorded)
    for group in set(groups):
        mine = {role for role, other in zip(roles, groups, strict=True) if other == group}
        earlier = {
            role for old, other in zip(recorded, groups, strict=True) if other == group for role in old
        }
        assert len(mine) == 1
        if "train" in earlier:
            assert mine == {"train"}
        elif earlier:
            assert mine == {"holdout"}


def test_a_tenth_of_the_subjects_is_held_out():
    groups = [index // 2 for index in range(200)]
    roles = roles_of(groups)
    assert len({group for group, role in zip(groups, roles, strict=True) if role == "holdout"}) == 10


def test_the_order_of_the_photographs_does_not_matter_and_the_seed_does():
    names = [f"id {index}" for index in range(50)]
    forward = dict(zip(names, roles_of(range(50), names), strict=True))
    backward = dict(zip(names[::-1], roles_of(range(50), names[::-1]), strict=True))
    assert forward == backward
    assert forward != dict(zip(names, roles_of(range(50), names, seed=1), strict=True))


def test_two_subjects_give_one_and_a_single_one_none():
    assert sorted(roles_of([0, 1])) == ["holdout", "train"]
    assert roles_of([0, 0, 0]) == ["train"] * 3
    assert roles_of([0, 1, 2], fraction=0) == ["train"] * 3


def test_a_subject_with_most_of_the_photographs_is_not_held_out():
    for seed in range(20):
        roles = roles_of([0] * 80 + list(range(1, 21)), seed=seed)
        assert roles[0] == "train" and "holdout" in roles


def larger(photos, names):
    """Larger versions of photographs, which enter in their place; without subject ids. Their names."""
    for name in names:
        with Image.open(photos / name) as image:
            image.resize((image.width * 8 // 5, image.height * 8 // 5)).save(photos / f"large-{name}")
    return {f"large-{name}": name for name in names}


def known_roles(photos, dataset):
    roles = read_roles(dataset)
    hashes = {path.name: sha256_file(path) for path in photos.glob("*.png")}
    return {name: roles[source] for name, source in hashes.items() if source in roles}


def test_a_photograph_in_the_place_of_a_near_or_exact_twin_has_its_side(build, photos, dataset):
    rows = [row | {"subject_id": ""} for row in table(photos)]
    write_table(photos, rows)
    build()
    before = known_roles(photos, dataset)
    twins = larger(photos, list(before))
    first = next(iter(twins))
    own = {row["file"]: row for row in rows}
    added = [own[name] | {"file": twin} for twin, name in twins.items()]
    write_table(photos, [*rows, *added])
    assert set(reasons(build()).values()) == {"near_duplicate"}
    assert known_roles(photos, dataset) == {twin: before[name] for twin, name in twins.items()}
    with Image.open(photos / first) as image:
        image.save(photos / "a-first.png", compress_level=1)
    write_table(photos, [*rows, *added, own[twins[first]] | {"file": "a-first.png"}])
    build()
    after = {twin: before[name] for twin, name in twins.items() if twin != first}
    assert known_roles(photos, dataset) == after | {"a-first.png": before[twins[first]]}
    for twin in twins:
        (photos / twin).unlink()
    (photos / "a-first.png").unlink()
    write_table(photos, rows)
    assert build().rows and known_roles(photos, dataset) == before


def test_who_is_set_aside_for_a_while_comes_back_to_the_same_side_and_a_withdrawn_one_is_forgotten(
    build, photos, dataset
):
    rows = table(photos)
    build()
    before = known_roles(photos, dataset)
    held = {name for name, role in before.items() if role == "holdout"}
    write_table(photos, [row | {"age_group": "teen"} if row["file"] in held else row for row in rows])
    build()
    write_table(photos, rows)
    build()
    assert known_roles(photos, dataset) == before
    (dataset / "roles.json").write_text(json.dumps(read_roles(dataset)))
    assert build().warnings == () and known_roles(photos, dataset) == before
    write_table(photos, [row | {"consent": "no"} if row["file"] in held else row for row in rows])
    build()
    text = (dataset / "roles.json").read_text("utf-8")
    assert not [name for name in held if sha256_file(photos / name) in text]


@pytest.mark.parametrize("ids", [True, False], ids=["by subject_id", "by face"])
def test_a_subject_keeps_its_side_while_all_of_its_earlier_photographs_are_set_aside(
    ids, build, photos, dataset
):
    rows, out = table(photos), dataset.parent / "new"
    first = {row["subject_id"]: row["file"] for row in reversed(rows)}
    second = {row["subject_id"]: row for row in rows if row["file"] not in first.values()}
    earlier = [row for row in rows if row["file"] in first.values()]
    known = [row if ids else row | {"subject_id": ""} for row in earlier]
    write_table(photos, known)
    build(out)
    before = known_roles(photos, out)
    held = {name for name, role in before.items() if role == "holdout"}
    subject = next(subject for subject in second if first[subject] not in held)
    added = second[subject] if ids else second[subject] | {"subject_id": ""}
    aside = {*held, first[subject]}
    write_table(
        photos, [row | {"age_group": "teen"} if row["file"] in aside else row for row in [*known, added]]
    )
    for _ in range(2):
        build(out)
        left = {name: role for name, role in before.items() if name not in aside}
        assert known_roles(photos, out) == left | {added["file"]: "train"}
    write_table(photos, [*known, added])
    build(out)
    assert known_roles(photos, out) == before | {added["file"]: "train"}


def unit(*values):
    vector = np.zeros(512, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def test_without_ids_faces_are_clustered_by_single_linkage():
    faces = [unit(1, 0), unit(1, 0.8), unit(0.1, 1), unit(0, 0, 1)]
    assert faces[0] @ faces[2] < 0.4 < faces[0] @ faces[1]
    assert group_subjects([None] * 4, faces, [], 0.4) == [0, 0, 0, 1]


def test_ids_are_trusted_over_faces_and_join_those_without():
    same = [unit(1, 0)] * 3
    assert group_subjects(["a", "b", None], [same[0], same[1], unit(0, 1)], [], 0.4) == [0, 1, 2]
    assert group_subjects(["a", "a", None], [unit(1), unit(0, 1), unit(0.1, 1)], [], 0.4) == [0, 0, 0]


def test_near_duplicates_are_one_subject_whatever_their_ids():
    assert group_subjects(["a", "b", "c"], [None, None, None], [(0, 2)], 0.4) == [0, 1, 0]


@pytest.mark.parametrize("bridge", [0, 1])
def test_a_bridge_between_a_trained_and_a_held_out_subject_makes_both_training(bridge):
    recorded = [{"train"}, {"holdout"}, set()]
    groups = [0, bridge and 0, 0] if bridge else [0, 1, 1]
    roles = roles_of(groups, recorded=recorded)
    assert roles == (["train"] * 3 if bridge else ["train", "holdout", "holdout"])


def test_the_help_says_from_which_cosine_two_faces_are_one_person(capsys):
    with pytest.raises(SystemExit):
        main(["dataset", "build", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"(default {SAME_PERSON}, phantoms {SAME_PERSON_PHANTOM})" in said
