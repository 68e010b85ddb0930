"""Predictions: what is kept of each image, and what is refused."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.downstream.predictions import Predictions
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_jsonl


def predictions(**changed):
    parts = {
        "labels": np.array([1, 0, 1], np.int64),
        "scores": np.array([0.9, 0.25, 0.0]),
        "subjects": ("a", "b", "a"),
        "groups": {"skin_tone": ("light", None, "dark")},
        "n_not_found": 2,
        "keys": ("k1", "k2", "k3"),
    }
    return Predictions(**{**parts, **changed})


def same(one, other):
    return (
        one.labels.tolist() == other.labels.tolist()
        and one.scores.tolist() == other.scores.tolist()
        and (one.subjects, dict(one.groups), one.n_not_found, one.keys)
        == (other.subjects, dict(other.groups), other.n_not_found, other.keys)
    )


@pytest.mark.parametrize("keys", [("k1", "k2", "k3"), ()])
def test_a_file_gives_back_what_was_written(tmp_path, keys):
    path = tmp_path / "private" / "predictions.jsonl"
    written = predictions(keys=keys)
    written.write(path)
    read = Predictions.read(path)
    assert same(written, read)
    assert read.labels.dtype == np.int64 and read.scores.dtype == np.float64


def test_a_set_without_images_is_read_back(tmp_path):
    empty = Predictions(np.zeros(0, np.int64), np.zeros(0), (), {}, 4)
    empty.write(tmp_path / "p.jsonl")
    assert same(Predictions.read(tmp_path / "p.jsonl"), empty)


def test_the_file_lies_in_a_folder_of_its_owner_alone(tmp_path):
    predictions().write(tmp_path / "private" / "predictions.jsonl")
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"subjects": ("a", "b")},
        {"scores": np.array([0.1, 0.2])},
        {"groups": {"skin_tone": ("light",)}},
        {"keys": ("k1",)},
        {"labels": np.array([1, 0, 2], np.int64)},
        {"labels": np.array([1, 0, -1], np.int64)},
        {"scores": np.array([0.1, 0.2, 1.0001])},
        {"scores": np.array([0.1, 0.2, -0.0001])},
        {"scores": np.array([0.1, 0.2, np.nan])},
        {"n_not_found": -1},
    ],
)
def test_what_no_classifier_says_is_refused(changed):
    with pytest.raises(ValueError):
        predictions(**changed)


def test_scores_of_exactly_nought_and_one_are_probabilities():
    assert len(predictions(scores=np.array([0.0, 1.0, 0.5]))) == 3


def test_a_part_keeps_each_image_with_its_own_subject_group_and_key():
    part = predictions().where(np.array([False, True, True]))
    assert part.labels.tolist() == [0, 1] and part.scores.tolist() == [0.25, 0.0]
    assert part.subjects == ("b", "a") and part.keys == ("k2", "k3")
    assert part.groups == {"skin_tone": (None, "dark")}
    assert part.n_subjects == 2 and predictions().n_subjects == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[1:],
        lambda rows: [{**rows[0], "schema": 2}, *rows[1:]],
        lambda rows: [{"schema": 1}, *rows[1:]],
        lambda rows: [rows[0], {**rows[1], "label": 3}, *rows[2:]],
        lambda rows: [rows[0], {**rows[1], "label": True}, *rows[2:]],
        lambda rows: [rows[0], {**rows[1], "score": "much"}, *rows[2:]],
        lambda rows: [rows[0], {**rows[1], "subject": 7}, *rows[2:]],
        lambda rows: [rows[0], rows[1], {**rows[2], "groups": {}}, *rows[3:]],
        lambda rows: [rows[0], rows[1], {k: v for k, v in rows[2].items() if k != "key"}],
        lambda rows: [],
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, change):
    path = tmp_path / "predictions.jsonl"
    predictions().write(path)
    write_jsonl(path, change(read_jsonl(path)))
    with pytest.raises(UserError, match=r"predictions\.jsonl") as told:
        Predictions.read(path)
    assert "\n" not in str(told.value)


def test_predictions_of_the_same_images_come_into_the_same_order():
    shuffled = predictions(keys=("k3", "k1", "k2"))
    found = shuffled.ordered()
    assert found.keys == ("k1", "k2", "k3") and found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == [0.25, 0.0, 0.9] and found.subjects == ("b", "a", "a")
    assert found.groups == {"skin_tone": (None, "dark", "light")} and found.n_not_found == 2
    for keys in ((), ("k1", "k1", "k2")):
        with pytest.raises(ValueError, match="key of its own"):
            predictions(keys=keys).ordered()


def test_folds_become_one_test_set():
    whole = Predictions.joined([predictions(), predictions(keys=("k4", "k5", "k6"), n_not_found=1)])
    assert len(whole) == 6 and whole.n_not_found == 3 and whole.keys[3:] == ("k4", "k5", "k6")
    assert whole.groups["skin_tone"] == ("light", None, "dark") * 2
    for folds in ([], [predictions(), predictions(groups={})], [predictions(), predictions(keys=())]):
        with pytest.raises(ValueError):
            Predictions.joined(folds)
