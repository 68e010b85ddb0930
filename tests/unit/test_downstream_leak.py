"""Test sets with people whom something learned from: found by label, picture and face, and refused."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.drawn import lora_names
from diffusioncleft.diffusioncleft_core.dataset.examine import Ledger
from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.dataset.select import SAME_PERSON_PHANTOM
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    lora_training,
    remember_lora,
    remember_training,
    remember_validation,
    trained_photographs,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import CHOSEN_BY, MEASURED_ON
from diffusioncleft.diffusioncleft_core.downstream.leak import (
    People,
    check_leak,
    check_pictures,
    choosing_people,
    chosen_by_test,
    dataset_people,
    drawing_names,
    joined,
    recorded_people,
    shared_people,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import sha256_file
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

PEOPLE = 12


def built(photographs, table_rows, out, analyzer):
    """A dataset of some of the photographs, which lie together."""
    table = photographs.with_name(f"{out.name}.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table_rows[0].keys())
        writer.writeheader()
        writer.writerows(table_rows)
    condition = load_vocabulary().condition("pre_op")
    settings = BuildSettings(phantom=True, holdout=0.25)
    build_dataset(Photographs(photographs, table), condition, out, analyzer, settings=settings)
    return out


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, analyzer):
    """Twelve people photographed twice, one dataset a visit, and one of strangers."""
    root = tmp_path_factory.mktemp("people")
    found = {}
    for name, seed in (("known", 3), ("strangers", 40)):
        table = write_photographs(root / name, 2 * PEOPLE, "cleft", seed, subjects=PEOPLE)
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table.unlink()
        first = {row["subject_id"]: row for row in reversed(rows)}
        visits = {"first": list(first.values()), "second": [row for row in rows if row not in first.values()]}
        for visit, chosen in visits.items():
            found[f"{name}, {visit}"] = built(root / name, chosen, root / f"{name}-{visit}", analyzer)
    return found


@pytest.fixture
def lora(datasets, tmp_path):
    """A LoRA that the dataset of first visits says was trained on it."""
    path = tmp_path / "clp.safetensors"
    path.write_bytes(b"a file like any other")
    folder = datasets["known, first"]
    remember_training(folder, "run-1", tmp_path)
    remember_lora(folder, "run-1", path)
    yield path
    (folder / "trained.jsonl").unlink()


def people(subjects, *, owner="a", pictures=None, embeddings=None):
    n = len(subjects)
    return People(
        tuple(subjects),
        (owner,) * n,
        tuple(pictures or [None] * n),
        np.zeros((n, 512), np.float32) if embeddings is None else embeddings,
    )


def shared(test, learned, threshold):
    """How many people the two have in common, however they are known."""
    found = shared_people(test, learned, threshold)
    return len(found.known | found.alike)


def faces(*cosines):
    """Embeddings with these cosines to the first axis."""
    made = np.zeros((len(cosines), 512), np.float32)
    for i, cosine in enumerate(cosines):
        made[i, 0], made[i, 1 + i] = cosine, (1 - cosine**2) ** 0.5
    return made


def test_a_hold_out_that_was_kept_apart_is_free(datasets):
    folder = datasets["known, first"]
    held, learned = dataset_people(folder, roles=("holdout",)), dataset_people(folder)
    assert len(held) == 3 and len(learned) == 9
    assert shared(held, learned, SAME_PERSON_PHANTOM) == 0
    assert check_leak(held, {"pre_op": learned}) is None


def test_people_of_another_visit_in_another_dataset_are_known_by_their_faces(datasets):
    test = dataset_people(datasets["known, second"], roles=("train", "holdout"))
    learned = dataset_people(datasets["known, first"])
    assert not set(test.names) & set(learned.names), "their labels say nothing"
    assert shared(test, learned, SAME_PERSON_PHANTOM) == 9
    strangers = dataset_people(datasets["strangers, second"], roles=("train", "holdout"))
    assert shared(strangers, learned, SAME_PERSON_PHANTOM) == 0


def test_a_lora_is_known_by_its_file_and_by_the_digest_that_a_generated_set_records(datasets, lora):
    folders = list(datasets.values())
    for names in (lora_names([lora]), {sha256_file(lora)}):
        learned = recorded_people(names, folders)
        assert len(learned) == 9
        test = dataset_people(datasets["known, second"], roles=("train", "holdout"))
        assert check_leak(test, {"the LoRA": learned}, photographs=False) == (
            "by their faces alone 9 of the 12 people in the test set are also on the training photographs of "
            "the LoRA"
        )
    assert lora_training(datasets["known, first"], sha256_file(lora)) == "run-1"
    assert lora_training(datasets["known, second"], sha256_file(lora)) == ""
    assert recorded_people(["ab" * 32], folders) is None


def test_a_lora_that_the_people_of_a_test_set_chose_is_named_and_those_of_other_steps_are_not(
    datasets, lora, tmp_path
):
    folder, other = datasets["known, first"], tmp_path / "step.safetensors"
    other.write_bytes(b"a LoRA of another step")
    pixels = [row.sha256 for row in dataset_rows(folder, "holdout")]
    for part, file in ((CHOSEN_BY, lora), (MEASURED_ON, other)):
        remember_validation(folder, "run-2", tmp_path, pixels, part)
        remember_lora(folder, "run-2", file, part)
    held, folders = dataset_people(folder, roles=("holdout",)), list(datasets.values())
    digests = (sha256_file(lora), sha256_file(other), "ab" * 32)
    chosen, step, converted = ((digest, "run-2") for digest in digests)
    found = choosing_people(drawing_names([chosen, step, converted]), folders)
    assert list(found) == ["LoRA 1 of its images", "LoRA 3 of its images"]
    assert {len(people) for people in found.values()} == {3}
    assert chosen_by_test(held, found, photographs=False) == (
        "LoRA 1 and LoRA 3 of its images were chosen by an early stop on people of the test set, so the "
        "figures may flatter a little"
    )
    alone = choosing_people(drawing_names([chosen]), folders)
    assert chosen_by_test(held, alone).startswith("the LoRA of its images was chosen by an early stop")
    strangers = dataset_people(datasets["strangers, first"], roles=("holdout",))
    assert chosen_by_test(strangers, found, photographs=False) is None
    assert choosing_people(drawing_names([["cd" * 32]]), folders) == {}


def test_photographs_of_an_earlier_split_count_though_they_are_held_out_now(datasets, lora):
    folder = datasets["known, first"]
    held = list(dataset_rows(folder, "holdout"))
    source = next(s for s, found in Ledger(folder).examined.items() if found.pixels == held[0].sha256)
    before = (folder / "trained.jsonl").read_text("utf-8")
    known = sorted(trained_photographs(folder)["run-1"])
    (folder / "trained.jsonl").write_text(before.replace(known[0], source), "utf-8")
    test = dataset_people(folder, roles=("holdout",))
    for learned in (dataset_people(folder), recorded_people(lora_names([lora]), [folder])):
        assert shared(test, learned, SAME_PERSON_PHANTOM) == 1
    assert len(dataset_people(folder, roles=("holdout",))) == 3, (
        "what was trained on is asked for by its role"
    )


def test_refusal_is_one_sentence_and_the_papers_way_marks_instead(datasets):
    learned = dataset_people(datasets["known, first"])
    with pytest.raises(UserError) as refused:
        check_leak(learned, {"pre_op": learned}, photographs=False)
    sentence = str(refused.value)
    assert sentence.startswith(
        "9 of the 9 people in the test set are also on the training photographs of pre_op, so figures could"
    )
    assert "--paper" in sentence and "hold-out" in sentence and "\n" not in sentence
    marked = check_leak(learned, {"pre_op": learned}, paper=True, photographs=False)
    assert marked == "9 of the 9 people in the test set are also on the training photographs of pre_op"


def test_what_nobody_knows_the_people_of_is_said_to_be_not_known_and_not_refused():
    test = people(["p"])
    clause = check_leak(test, {"the LoRA a": None, "the LoRA b": None})
    assert "photographs of the LoRA a and the LoRA b," in clause and clause.startswith("no dataset")
    with pytest.raises(UserError, match="the LoRA b"):
        check_leak(test, {"the LoRA a": None, "the LoRA b": people(["p"])})


def test_what_two_names_end_on_is_said_once():
    both = dict.fromkeys(("the classifier", "LoRA 1 of its images", "LoRA 2 of its images"))
    assert "photographs of the classifier, LoRA 1 and LoRA 2 of its images, so" in check_leak(
        people(["p"]), both
    )


@pytest.mark.parametrize(
    ("n", "of", "number"), [(4, 20, None), (5, 20, "5 of the 20"), (16, 20, None), (20, 20, "20 of")]
)
def test_small_numbers_of_people_are_not_told_of_photographs(n, of, number):
    test, learned = people([f"p{i}" for i in range(of)]), people([f"p{i}" for i in range(n)])
    said = check_leak(test, {"it": learned}, paper=True)
    assert said.startswith(number or "one or more of the people in the test set are also on the")
    told = check_leak(test, {"it": learned}, paper=True, photographs=False)
    assert told.startswith(f"{n} of the {of} people")


@pytest.mark.parametrize(
    ("n", "of", "number"),
    [
        (1, 3, "one or more of the test"),
        (4, 4, "one or more of the test"),
        (4, 20, "one or more of the 20 test"),
        (16, 20, "one or more of the 20 test"),
        (20, 20, "20 of the 20 test"),
    ],
)
def test_small_numbers_of_pictures_are_not_told_of_photographs(n, of, number):
    assert check_pictures(n, of, paper=True) == f"{number} images were learned from"
    with pytest.raises(UserError, match=f"^{number} images were learned from, so"):
        check_pictures(n, of)
    told = check_pictures(n, of, paper=True, photographs=False)
    assert told.startswith(f"{n} of the {of} test images")


def test_each_person_counts_once_and_everything_that_learned_from_some_is_named():
    test = people([f"p{i}" for i in range(30)])
    some = {"a": people(["p1"] * 3), "b": people([f"p{i}" for i in range(12)]), "c": people(["q"])}
    some["d"] = people(["p29"])
    said = check_leak(test, some, paper=True)
    assert said == "13 of the 30 people in the test set are also on the training photographs of a, b and d"


def test_labels_of_one_dataset_decide_where_both_photographs_have_one():
    """Two people who look alike stay two: so the dataset's own hold-out has it."""
    test, learned = people(["p"], embeddings=faces(1.0)), people(["q"], embeddings=faces(1.0))
    assert shared(test, learned, 0.4) == 0
    assert shared(test, replace(learned, owners=("b",)), 0.4) == 1
    assert shared(test, replace(learned, subjects=(None,)), 0.4) == 1
    assert shared(replace(test, subjects=(None,)), learned, 0.4) == 1
    assert shared(test, people(["p"], owner="b"), 0.4) == 0, "the same label elsewhere says nothing"
    assert shared(test, people(["p"]), 0.4) == 1


def test_faces_are_one_persons_from_the_threshold_on():
    learned = people([None], embeddings=faces(1.0))
    for cosine, n in ((0.39, 0), (0.5, 1), (0.61, 1)):
        assert shared(people([None], embeddings=faces(cosine)), learned, 0.5) == n
    none = people([None], embeddings=np.zeros((1, 512), np.float32))
    assert shared(none, none, 0.4) == 0


def test_a_face_alone_refuses_photographs_and_only_marks_phantoms():
    """The phantoms' recogniser takes strangers for one person now and then."""
    test = people(["p", "q"], embeddings=faces(1.0, 0.0))
    learned = people([None], embeddings=faces(0.95))
    with pytest.raises(UserError, match="one or more of the people in the test set are also on"):
        check_leak(test, {"pre_op": learned})
    marked = check_leak(test, {"pre_op": learned}, photographs=False)
    assert marked.startswith("by their faces alone 1 of the 2 people in the test set is also on")
    assert check_leak(test, {"pre_op": replace(learned, embeddings=faces(0.70))}, photographs=False) is None
    for known in (people(["q"]), people([None], pictures=["x"])):
        seen = replace(test, pictures=(None, "x"))
        with pytest.raises(UserError, match=r"^2 of the 2 people .* of pre_op and post_op,"):
            check_leak(seen, {"pre_op": learned, "post_op": known}, photographs=False)


def test_the_same_picture_is_the_same_person_and_an_unknown_one_is_not():
    assert shared(people(["p"], pictures=["x"]), people(["q"], owner="b", pictures=["x"]), 0.4) == 1
    assert shared(people(["p"]), people(["q"], owner="b"), 0.4) == 0


def test_a_person_with_several_photographs_counts_once():
    test = people(["p", "p", None, None], pictures=["x", "y", "x", "x"])
    assert shared(test, people(["p"], pictures=["x"]), 0.4) == 3  # p, and two that nobody labelled
    assert len(joined([test, test])) == 8 and len(joined([])) == 0
