"""Training: a known effect is found, nothing where nothing is, and a model's folder gives it back."""

import json

import numpy as np
import pytest
import torch
from downstream_phantoms import random_crops, small_cropper

from diffusioncleft.diffusioncleft_core.downstream.crops import View
from diffusioncleft.diffusioncleft_core.downstream.learned import FILE_NAME as LEARNED
from diffusioncleft.diffusioncleft_core.downstream.learned import LearnedPictures
from diffusioncleft.diffusioncleft_core.downstream.model import (
    counts_of,
    read_model,
    weights_name,
    write_model,
)
from diffusioncleft.diffusioncleft_core.downstream.probe import fit_probe
from diffusioncleft.diffusioncleft_core.downstream.split import person_folds, validation_split
from diffusioncleft.diffusioncleft_core.downstream.task import load_task
from diffusioncleft.diffusioncleft_core.downstream.training import (
    TrainSettings,
    frozen_part_of,
    train_classifier,
    train_classifiers,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.weights.backbones import load_backbone

CPU = torch.device("cpu")
TASK = load_task("pre_post")
PAPER = TrainSettings(epochs=6, batch=8)
PROBE = TrainSettings(kind="probe")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("phantom", CPU)


@pytest.fixture(scope="module")
def seeded():
    return load_backbone("seeded", CPU)


def stained(n, colour, seed):
    """Crops of noise with a stain of that colour where the lip is."""
    crops = random_crops(n, seed=seed, side=96)
    crops.pixels[:, 30:78, 24:72] = colour
    return crops


@pytest.fixture(scope="module")
def reds():
    return {part: stained(40, (200, 60, 60), seed) for part, seed in (("train", 1), ("test", 2))}


@pytest.fixture(scope="module")
def greens():
    return {part: stained(40, (60, 200, 60), seed) for part, seed in (("train", 3), ("test", 4))}


def share_right(classifier, positive, negative, view=None):
    found = [
        classifier.predict(crops.labelled(label), view) for crops, label in ((positive, 1), (negative, 0))
    ]
    return np.mean([np.mean((p.scores >= 0.5) == p.labels) for p in found])


@pytest.mark.parametrize("settings", [PAPER, PROBE], ids=["paper", "probe"])
def test_a_difference_that_is_there_is_found_on_pictures_never_seen(settings, backbone, reds, greens):
    classifier = train_classifier(TASK, reds["train"], greens["train"], backbone, settings, seed=0)
    assert share_right(classifier, reds["test"], greens["test"]) > 0.95
    assert classifier.facts["validation_accuracy"] > 0.9


def test_a_picture_that_is_there_twice_has_two_keys_and_one_score(seeded, reds, greens):
    classifier = train_classifier(TASK, reds["train"], greens["train"], seeded, PROBE, seed=0)
    crops = reds["test"].where([0, 1, 0])
    found = classifier.predict(crops.labelled(1)).ordered()
    assert len(set(found.keys)) == 3 and len(set(found.subjects)) == 2
    assert len(set(np.round(found.scores, 9).tolist())) == 2


def test_the_view_tells_where_the_difference_lies(seeded, reds, greens):
    found = {}
    for view in View:
        settings = TrainSettings(kind="probe", view=view)
        classifier = train_classifier(TASK, reds["train"], greens["train"], seeded, settings, seed=0)
        found[view] = share_right(classifier, reds["test"], greens["test"])
    assert found[View.WHOLE] > 0.95 and found[View.LIP_ALONE] > 0.95
    assert 0.3 < found[View.LIP_MASKED] < 0.7 and 0.3 < found[View.BACKGROUND] < 0.7


def test_nothing_is_learned_from_labels_that_mean_nothing(seeded, reds):
    half = reds["train"].where(np.arange(40) < 20), reds["train"].where(np.arange(40) >= 20)
    classifier = train_classifier(TASK, *half, seeded, PROBE, seed=0)
    tests = reds["test"].where(np.arange(40) < 20), reds["test"].where(np.arange(40) >= 20)
    assert 0.25 < share_right(classifier, *tests) < 0.75


@pytest.mark.parametrize(
    "settings", [pytest.param(PAPER, marks=pytest.mark.long), PROBE], ids=["paper", "probe"]
)
def test_the_same_seed_gives_the_same_classifier_and_another_one_another(settings, backbone, reds, greens):
    given = (TASK, reds["train"], greens["train"], backbone, settings)
    first, second = train_classifiers(*given, [3, 4])
    again = train_classifier(*given, seed=3)
    same = first.top.tensors(), again.top.tensors()
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    assert any(not torch.equal(same[0][name], tensor) for name, tensor in second.top.tensors().items())


def test_training_ends_when_the_validation_loss_stops_falling_and_the_best_epoch_is_kept(backbone):
    noise = random_crops(60, seed=9)
    settings = TrainSettings(epochs=30, batch=8, patience=2)
    classifier = train_classifier(
        TASK, noise.where(noise.labels == 1), noise.where(noise.labels == 0), backbone, settings, seed=0
    )
    losses = classifier.facts["validation_loss"]
    best = classifier.facts["best_epoch"]
    assert classifier.facts["epochs"] == len(losses) < 30
    assert losses[best - 1] == min(losses) and len(losses) - best == 2


def test_training_leaves_the_global_random_state_as_it_was(backbone, reds, greens):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_classifier(TASK, reds["train"], greens["train"], backbone, TrainSettings(epochs=1), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_the_papers_rate_is_the_default_and_networks_of_phantoms_have_their_own(backbone):
    from dataclasses import replace

    real = replace(backbone, info=replace(backbone.info, phantom=False))
    settings = TrainSettings()
    assert settings.rate(real) == 1e-5 and settings.rate(backbone) == 1e-3
    assert TrainSettings(learning_rate=1e-4).rate(backbone) == 1e-4
    paper = (settings.batch, settings.epochs, settings.patience, settings.frozen)
    assert paper == (16, 50, 3, 57)


def test_photographs_never_meet_a_network_of_phantoms(backbone):
    photographs = random_crops(8, phantom=False)
    with pytest.raises(UserError, match="knows nothing of photographs"):
        train_classifier(TASK, photographs, photographs, backbone, PROBE, seed=0)
    with pytest.raises(UserError, match="sets of one kind"):
        train_classifier(TASK, photographs, random_crops(8), backbone, PROBE, seed=0)
    classifier = train_classifier(TASK, random_crops(8), random_crops(8, seed=1), backbone, PROBE, seed=0)
    with pytest.raises(UserError, match="knows nothing of photographs"):
        classifier.predict(photographs)


def test_the_papers_model_on_an_encoder_that_it_can_not_train_is_refused(backbone):
    from dataclasses import replace

    with pytest.raises(UserError, match="--model probe"):
        frozen_part_of(replace(backbone, divides=False), TrainSettings())


def test_a_person_is_on_one_side_of_every_split():
    rng = np.random.default_rng(0)
    people = [f"p{i}" for i in rng.integers(0, 30, 200)]
    labels = rng.integers(0, 2, 200)
    numbers = person_folds(people, labels, 5, 0)
    for person in set(people):
        assert len({numbers[i] for i, found in enumerate(people) if found == person}) == 1
    sizes = np.bincount(numbers)
    assert len(sizes) == 5 and sizes.min() > 20
    train, validation = validation_split(people, labels, 0.2, 0)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(200))
    assert not {people[i] for i in train} & {people[i] for i in validation}
    assert 0.1 < len(validation) / 200 < 0.3
    others = [validation_split(people, labels, 0.2, seed)[1].tolist() for seed in range(5)]
    assert len({tuple(found) for found in others}) > 1


@pytest.mark.parametrize(
    ("people", "labels", "said"),
    [
        ("abcd", [1, 1, 1, 1], "the negative class has no image"),
        ("abcd", [0, 0, 0, 0], "the positive class has no image"),
        ("aabc", [1, 1, 0, 0], "the positive class has images of one person alone"),
    ],
)
def test_a_class_that_can_not_be_divided_is_named(people, labels, said):
    with pytest.raises(UserError, match=said):
        validation_split(list(people), np.array(labels), 0.2, 0)


def test_two_people_a_class_are_enough_and_both_parts_have_both_classes():
    for seed in range(10):
        train, validation = validation_split(list("aabbccdd"), np.array([1, 1, 1, 1, 0, 0, 0, 0]), 0.2, seed)
        labels = np.array([1, 1, 1, 1, 0, 0, 0, 0])
        assert set(labels[train]) == set(labels[validation]) == {0, 1}


def test_the_probe_is_scikit_learns_own_at_the_strength_it_chose():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(2, 3, (80, 12)).astype(np.float32))
    labels = (features[:, 0] + rng.normal(0, 2, 80) > 2).numpy().astype(np.int64)
    probe, facts = fit_probe(features, labels, [f"p{i // 2}" for i in range(80)], 0)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=facts["C"], tol=1e-9, max_iter=5000))
    peer.fit(features.double().numpy(), labels)
    expected = peer.predict_proba(features.double().numpy())[:, 1]
    assert np.allclose(probe.probabilities(features), expected, atol=1e-5)
    assert probe.probabilities(torch.full((1, 12), 1e9)).max() <= 1


def test_the_facts_of_a_probe_are_the_same_for_two_people_and_for_many():
    """As many folds as the smaller class has people: their number would tell how few."""
    rng = np.random.default_rng(2)
    features = torch.from_numpy(rng.normal(0, 1, (40, 6)).astype(np.float32))
    labels = (np.arange(40) < 20).astype(np.int64)
    for n in (2, 3, 20):
        people = [f"p{i % n}" if i < 20 else f"q{i}" for i in range(40)]
        assert list(fit_probe(features, labels, people, 0)[1]) == ["C"]


def test_noise_is_met_with_a_strong_penalty_and_a_clear_sign_with_a_weak_one():
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.normal(0, 1, (60, 30)).astype(np.float32))
    labels = np.arange(60) % 2
    people = [str(i) for i in range(60)]
    clear = noise.clone()
    clear[:, 0] += 8 * torch.from_numpy(labels)
    assert fit_probe(noise, labels, people, 0)[1]["C"] < fit_probe(clear, labels, people, 0)[1]["C"]


@pytest.mark.parametrize("features", [12, 200], ids=["fewer than pictures", "more than pictures"])
def test_pictures_that_are_all_the_same_give_the_share_of_the_labels(features):
    labels = np.array([1, 1, 0] * 20)
    probe, _ = fit_probe(torch.full((60, features), 0.7), labels, [str(i) for i in range(60)], 0)
    assert np.allclose(probe.probabilities(torch.full((2, features), 0.7)), 2 / 3, atol=1e-3)


@pytest.fixture
def trained(backbone, reds, greens, analyzer, tmp_path):
    """A model's folder of two seeds, and its classifiers."""
    classifiers = list(train_classifiers(TASK, reds["train"], greens["train"], backbone, PROBE, [0, 1]))
    write_model(tmp_path / "model", classifiers, reds["train"], greens["train"], small_cropper(analyzer))
    return tmp_path / "model", classifiers


@pytest.mark.parametrize("settings", [PAPER, PROBE], ids=["paper", "probe"])
def test_a_saved_model_says_what_the_trained_one_said(settings, backbone, reds, greens, analyzer, tmp_path):
    classifier = train_classifier(TASK, reds["train"], greens["train"], backbone, settings, seed=2)
    write_model(tmp_path / "model", [classifier], reds["train"], greens["train"], small_cropper(analyzer))
    (opened,) = read_model(tmp_path / "model").classifiers(CPU)
    assert (opened.task, opened.settings, opened.seed) == (TASK, settings, 2)
    before, after = classifier.predict(reds["test"]), opened.predict(reds["test"])
    assert np.array_equal(before.scores, after.scores) and before.keys == after.keys


def test_a_models_file_names_no_picture_no_person_and_no_path(trained, reds, tmp_path):
    folder, _ = trained
    text = (folder / "model.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and "tmp" not in text
    assert not [key for key in (*reds["train"].keys, *reds["train"].people) if f'"{key}"' in text]
    described = json.loads(text)
    assert described["trained_on"] == {"positive": 40, "negative": 40, "people": 80, "not_found": 0}
    assert described["phantom"] is True and described["backbone"]["phantom"] is True
    names = {"model.json", LEARNED, ".gitignore", weights_name(0), weights_name(1)}
    assert {path.name for path in folder.iterdir()} == names


def test_a_model_knows_its_own_pictures_by_digests_that_mean_nothing_without_their_key(trained, reds, greens):
    folder, _ = trained
    file = folder / LEARNED
    known = read_model(folder).learned_pictures()
    learned = (*reds["train"].pictures, *greens["train"].pictures)
    assert known.among(learned) == len(learned) == len(known.digests)
    assert known.among((*reds["test"].pictures, learned[0])) == 1
    assert file.stat().st_mode & 0o077 == 0
    assert not [picture for picture in learned if picture in file.read_text("utf-8")]
    assert not known.digests & LearnedPictures.of(learned).digests, "another key, other digests"
    for damaged in ("[]", "{", '{"schema": 1, "key": "ab", "pictures": []}'):
        file.write_text(damaged, "utf-8")
        with pytest.raises(UserError, match=rf"{LEARNED} is (damaged|not valid JSON)"):
            read_model(folder).learned_pictures()
    file.unlink()
    assert read_model(folder).learned_pictures() is None


def without(document, *path):
    """A copy of a JSON object without one of its parts."""
    return changed(document, path, None, drop=True)


def changed(document, path, value, *, drop=False):
    """A copy of a JSON object with another value in one place, or without it."""
    made = json.loads(json.dumps(document))
    inside = made
    for key in path[:-1]:
        inside = inside[key]
    if drop:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return made


def test_each_damaged_part_of_a_models_file_is_named_in_one_sentence(trained):
    folder, _ = trained
    path = folder / "model.json"
    sound = json.loads(path.read_text("utf-8"))
    damages = [
        (("backbone", "sha256"), None),
        (("backbone",), "MobileNetV2"),
        (("loras",), [1]),
        (("loras",), "abc"),
        (("loras",), [[]]),
        (("crop",), [1]),
        (("crop", "landmarks"), True),
        (("task", "crop", "side"), -3),
        (("task", "crop", "margin"), "a"),
        (("task", "positive", "title"), 1),
        (("task", "controls"), ["guess"]),
        (("trained_on",), 5),
        (("trained_on", "positive"), -1),
        (("fingerprint",), 7),
        (("bare",), "no"),
        (("phantom",), 1),
        (("classifier",), []),
        (("classifier", "batch"), "many"),
        (("classifier", "view"), [1]),
        (("trainings",), [1]),
        (("trainings", 1, "seed"), "0"),
        (("trainings", 0, "validation_accuracy"), None),
    ]
    documents = [(where, changed(sound, where, value)) for where, value in damages]
    documents += [(where, without(sound, *where)) for where in {where[:1] for where, _ in damages}]
    documents += [(("trainings", 0, "C"), without(sound, "trainings", 0, "C"))]
    for where, damaged in documents:
        path.write_text(json.dumps(damaged), "utf-8")
        with pytest.raises(UserError) as told:
            read_model(folder)
        sentence = str(told.value)
        assert sentence.startswith(f"{path} is damaged at {where[0]}"), where
        assert "train it again: diffusioncleft downstream train" in sentence and "\n" not in sentence
    path.write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "utf-8")
    with pytest.raises(UserError, match=r"model\.json is not valid JSON \(it is nested too deeply\)"):
        read_model(folder)
    path.write_text(json.dumps(sound), "utf-8")
    assert read_model(folder).seeds == [0, 1]


def test_few_photographs_are_not_counted_in_a_models_file():
    photographs = random_crops(3, phantom=False)
    assert counts_of(photographs, random_crops(6, phantom=False, seed=1)) == {
        "positive": None,
        "negative": 6,
        "people": 9,
        "not_found": 0,
    }


def test_what_is_no_model_or_another_one_is_refused_in_one_sentence(trained, tmp_path):
    folder, _ = trained
    with pytest.raises(UserError, match="is no downstream model"):
        read_model(tmp_path)
    with pytest.raises(UserError, match="with other weights"):
        read_model(folder).classifiers(CPU, backbone="seeded")
    path = folder / weights_name(1)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 255]))
    with pytest.raises(UserError, match="is not the file that was trained"):
        read_model(folder).classifiers(CPU)
    path.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        read_model(folder).classifiers(CPU)
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    for damaged in ({**described, "schema": 9}, {**described, "task": {}}, {**described, "trainings": []}):
        (folder / "model.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(UserError, match=r"model\.json (describes no|is damaged)"):
            read_model(folder)


def test_a_model_of_ones_own_encoder_asks_where_it_lies(trained):
    folder, _ = trained
    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    described["backbone"]["backbone"] = "timm"
    (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(UserError, match="--backbone timm:FOLDER"):
        read_model(folder).classifiers(CPU)


def test_a_model_judges_crops_of_its_own_face_pack_alone(trained, analyzer):
    folder, _ = trained
    read_model(folder).check_faces(small_cropper(analyzer))
    with pytest.raises(UserError, match="crops of another face pack"):
        read_model(folder).check_faces(small_cropper(analyzer, side=32))
