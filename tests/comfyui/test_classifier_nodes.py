"""The classifier nodes give the core's figures, keep their models private, and refuse what proves nothing."""

import json
import shutil

import pytest
import torch
from comfy_server import GraphRefused, NodeFailed
from downstream_phantoms import as_generated, write_phantoms
from graphs import CLASSIFIER, Graph, node, ours

VALUES = ("accuracy", "balanced", "balanced_low", "balanced_high", "auc", "auc_low", "auc_high")
FACES = {"condition": "pre_op", "size": 128, "count": 40, "holdout": 0.3}


def phantoms(condition: str, seed: int, **others) -> dict:
    return ours("PhantomDataset", **{**FACES, "condition": condition, "seed": seed, **others})


def sets(positive: str, negative: str) -> Graph:
    """Two sets under the output folder as `pre` and `post`."""
    return {
        key: ours("LoadImageSet", name=name, which="all", start=0, limit=1)
        for key, name in (("pre", positive), ("post", negative))
    }


def trainer(positive: str = "pre", negative: str = "post", **settings) -> dict:
    return ours(
        "TrainClassifier",
        positive=[positive, 0],
        negative=[negative, 0],
        **{**CLASSIFIER, "faces": "auto", **settings},
    )


def judge(positive: str, negative: str, paper: bool = False, **links) -> dict:
    return ours(
        "EvaluateClassifier",
        classifier=["train", 0],
        positive=[positive, 0],
        negative=[negative, 0],
        paper=paper,
        **links,
    )


def of_datasets(**judged) -> Graph:
    """Learn from the training photographs of two datasets, be tested on their hold-outs."""
    return {
        "pre": phantoms("pre_op", 21),
        "post": phantoms("post_op", 22),
        "train": trainer(),
        "judge": judge("pre", "post", trained_on=["pre", 0], trained_on_2=["post", 0], **judged),
    }


@pytest.fixture(scope="module")
def generated(server):
    """Two sets of phantoms that nobody drew with a LoRA, and two that are no phantoms as far as they tell."""
    from diffusioncleft.diffusioncleft_core.files import write_json
    from diffusioncleft.diffusioncleft_core.flux.source import phantom_source

    base = {"sha256": phantom_source().fingerprint()}
    root = server.base / "output" / "classes"
    for name, finding, seed in (("pre_op", "cleft", 31), ("post_op", "scar", 32)):
        folder = as_generated(write_phantoms(root / name, finding, seed, 20), name)
        write_json(folder / "generation.json", {"schema": 1, "base": base, "lora": None})
        for path in folder.glob("*.png"):
            write_json(path.with_suffix(".json"), {"base": base})
        shutil.copytree(folder, root / f"photo_{name}", ignore=shutil.ignore_patterns("0*.json"))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def evaluated(server):
    """Outputs of a training on two datasets and a test on their hold-outs."""
    graph = of_datasets()
    graph |= {name: node("PreviewAny", source=["judge", i]) for i, name in enumerate(VALUES)}
    return server.run({**graph, "right": node("PreviewAny", source=["train", 1])})


def folder_of(server, condition: str, seed: int):
    (folder,) = (server.base / "private datasets").glob(f"phantom_{condition}_40_128px_{seed}_30")
    return folder


def runs(server, pattern: str):
    return sorted((server.base / "diffusioncleft_runs").glob(pattern))


def test_figures_and_model_are_the_cores(server, evaluated, tmp_path):
    from diffusioncleft.diffusioncleft_core.downstream.cropper import Cropper
    from diffusioncleft.diffusioncleft_core.downstream.evaluate_model import Judge
    from diffusioncleft.diffusioncleft_core.downstream.evidence import downstream_document
    from diffusioncleft.diffusioncleft_core.downstream.held_out import trained_people
    from diffusioncleft.diffusioncleft_core.downstream.model import read_model
    from diffusioncleft.diffusioncleft_core.downstream.task import load_task
    from diffusioncleft.diffusioncleft_core.downstream.train_model import ModelTraining
    from diffusioncleft.diffusioncleft_core.downstream.training import TrainSettings
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.report.downstream_words import told
    from diffusioncleft.diffusioncleft_core.weights.backbones import load_backbone

    task, cpu = load_task("pre_post"), torch.device("cpu")
    folders = [folder_of(server, "pre_op", 21), folder_of(server, "post_op", 22)]
    cropper = Cropper.of(task.crop, load_face_analyzer("phantom"))
    training = ModelTraining(
        task, cropper, load_backbone("phantom", cpu), TrainSettings(kind="probe"), range(3, 5)
    )
    expected = training.run(*training.crops(folders[:1], folders[1:]), tmp_path / "model")
    (made,) = runs(server, "classifier-pre_post-*")
    found = json.loads((made / "model.json").read_text(encoding="utf-8"))
    assert found["trained_on"] == expected["trained_on"] and found["trained_on"]["positive"] == 28
    right = [row["validation_accuracy"] for row in expected["trainings"]]
    assert [row["validation_accuracy"] for row in found["trainings"]] == right
    assert float(evaluated["right"]["text"][0]) == pytest.approx(sum(right) / 2)

    evidence = Judge.of(read_model(tmp_path / "model"), cropper, cpu).evaluate(
        list(zip(folders, (1, 0), strict=True)), trained_people(folders), tmp_path / "tested"
    )
    document = downstream_document({"pre_post": evidence})
    (figures,) = document["tasks"]["pre_post"]["sources"].values()
    balanced, auc = figures["balanced_accuracy"], figures["auc"]
    values = [figures["accuracy"]["value"]]
    for figure in (balanced, auc):
        values += [figure["value"], *(figure["ci95_trainings"] or figure["ci95"])]
    assert figures["accuracy"]["n"] == 24
    assert [float(evaluated[name]["text"][0]) for name in VALUES] == pytest.approx(values, abs=1e-6)
    text = evaluated["judge"]["text"][0]
    assert text.splitlines()[:4] == told(document["tasks"]["pre_post"])[:4]
    assert "Not a diagnostic device" in text and "phantoms" in text
    assert "Not a diagnostic device" in evaluated["train"]["text"][0]
    assert "seed 4: C" in evaluated["train"]["text"][0]
    assert len(evaluated["judge"]["images"]) == 1, "the plot"


def test_model_and_predictions_are_private_and_a_model_is_found_again(server, evaluated):
    (made,) = runs(server, "classifier-pre_post-*")
    assert made.stat().st_mode & 0o077 == 0
    assert len(list(made.glob("tested-*/seed-?.jsonl"))) == 2
    for path in (server.base / "output").rglob("*"):
        assert path.name not in ("model.json", "touched.json", "downstream.json"), path
        assert not path.name.startswith("seed-")
    before = (made / "model.json").stat().st_mtime_ns
    graph = of_datasets()
    graph["train"] = trainer(
        faces="phantom"
    )  # what auto chose: ComfyUI's cache knows it not, the folder does
    assert server.run(graph)["train"]["text"] == evaluated["train"]["text"]
    assert (made / "model.json").stat().st_mtime_ns == before
    assert runs(server, "classifier-pre_post-*") == [made]


def test_generated_sets_and_datasets_fit_the_same_socket(server, evaluated, generated):
    graph = of_datasets() | sets("classes/pre_op", "classes/post_op")
    graph |= {"real pre": phantoms("pre_op", 21), "real post": phantoms("post_op", 22)}
    graph["judge"] = judge("real pre", "real post")
    graph["train"]["inputs"] |= {"positive_2": ["real pre", 0]}
    text = server.run(graph)["train"]["text"][0]
    assert "48 positive and 20 negative images" in text, text
    assert not list(generated.rglob(".*")), "faces and crops of a set lie where the server shows them"


@pytest.mark.long
def test_a_test_set_with_people_who_were_learned_from_is_refused_or_marked(server, evaluated):
    """Before the queue where the datasets lie there, else by the node; a training never starts for it."""
    whole = {name: phantoms(f"{name}_op", seed, holdout=0.0) for name, seed in (("pre", 23), ("post", 24))}
    graph = {**of_datasets(), **whole}
    pictures = "80 of the 80 test images were learned from"
    words = "in the test set are also on the training photographs of"
    with pytest.raises(NodeFailed, match=pictures):
        server.run(graph)
    for condition, seed in (("pre", 23), ("post", 24)):
        graph[condition] = ours("Dataset", name=f"phantom_{condition}_op_40_128px_{seed}_0")
    with pytest.raises(GraphRefused, match=words) as told:
        server.run(graph)
    assert list(json.loads(str(told.value))["node_errors"]) == ["judge"]
    graph["judge"]["inputs"]["paper"] = True
    text = server.run(graph)["judge"]["text"][0]
    assert pictures in text and f"80 of the 80 people {words} pre_op and post_op" in text, text


def test_the_people_of_a_sets_lora_are_known_without_being_named(server, evaluated, generated):
    from diffusioncleft.diffusioncleft_core.dataset.trained import remember_lora, remember_training
    from diffusioncleft.diffusioncleft_core.files import read_json, sha256_file, write_json

    drawn = shutil.copytree(generated / "pre_op", generated / "drawn")
    lora = server.base / "models" / "loras" / "classifier test.safetensors"
    lora.parent.mkdir(parents=True, exist_ok=True)
    lora.write_bytes(b"a LoRA")
    digest = sha256_file(lora)
    write_json(
        drawn / "generation.json", {**read_json(drawn / "generation.json"), "lora": {"sha256": digest}}
    )
    graph = sets("classes/drawn", "classes/post_op")
    graph |= {"real": phantoms("pre_op", 25, holdout=0.0, count=12), "others": phantoms("post_op", 22)}
    graph |= {"train": trainer(), "judge": judge("real", "others")}
    told = server.run(graph)["judge"]["text"][0]
    assert "tells who is on the training photographs of the LoRA of its images" in told
    (dataset,) = (server.base / "private datasets").glob("phantom_pre_op_12_128px_25_0")
    remember_training(dataset, "3" * 64, dataset.parent / "training")
    remember_lora(dataset, "3" * 64, lora)
    graph["train"] = trainer(seeds=1)  # or ComfyUI answers from its cache
    with pytest.raises(NodeFailed, match="photographs of the LoRA of its images"):
        server.run(graph)
    lora.unlink()


def test_what_a_training_misses_refuses_the_graph(server, generated, tmp_path):
    from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER
    from diffusioncleft.diffusioncleft_core.files import write_json

    photographs = sets("classes/photo_pre_op", "classes/photo_post_op")
    pack = shutil.copytree(PHANTOM_FOLDER, server.base / "models" / "insightface" / "models" / "other")
    write_json(pack / "pack.json", {"name": "other", "det_size": 128, "phantom_only": False})
    phantom = {"post": phantoms("post_op", 22)}
    for more, settings, words in (
        ({}, {}, "face pack 'buffalo_l' is in none of"),
        ({}, {"faces": "phantom"}, "know phantoms alone"),
        ({}, {"faces": "other"}, "weights fetch mobilenet-v2"),
        ({}, {"faces": "other", "backbone": "seeded"}, "'seeded' knows phantoms alone"),
        (phantom, {"faces": "other"}, "train and test on images of one kind"),
    ):
        with pytest.raises(GraphRefused) as told:
            server.run({**photographs, **more, "train": trainer(**settings)})
        answer = json.loads(str(told.value))
        assert words in answer["error"]["details"] and list(answer["node_errors"]) == ["train"], words
    shutil.rmtree(pack)
    tested = sets("classes/pre_op", "classes/post_op") | {"train": trainer()}
    tested |= {"bare": ours("LoadImageSet", name="classes/photo_pre_op", which="all", start=0, limit=1)}
    with pytest.raises(GraphRefused, match="train and test on images of one kind"):
        server.run({**tested, "judge": judge("bare", "post")})


def test_the_same_images_in_both_classes_refuse_the_graph(server, generated):
    """Linked twice before the queue, loaded twice by the node."""
    two = sets("classes/pre_op", "classes/post_op")
    for graph, which in (
        ({"train": trainer("pre", "pre")}, "train"),
        ({"train": trainer(positive_2=["post", 0])}, "train"),
        ({"train": trainer(), "judge": judge("post", "post")}, "judge"),
    ):
        with pytest.raises(
            GraphRefused, match="the same images are given as positive and as negative"
        ) as told:
            server.run({**two, **graph})
        assert list(json.loads(str(told.value))["node_errors"]) == [which]
    with pytest.raises(NodeFailed, match="pre_op is given as positive and as negative"):
        server.run({**sets("classes/pre_op", "classes/pre_op"), "train": trainer()})


def test_a_private_folder_that_cannot_be_written_refuses_the_graph(
    server, evaluated, generated, make_read_only
):
    make_read_only(server.base / "diffusioncleft_runs")
    with pytest.raises(GraphRefused, match="can't be written to; give the server write access"):
        server.run({**sets("classes/pre_op", "classes/post_op"), "train": trainer()})


def test_too_few_people_are_a_message_on_the_node_and_leave_no_model(server, generated):
    from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_jsonl

    one = shutil.copytree(generated / "pre_op", generated / "one")
    write_jsonl(one / "manifest.jsonl", read_jsonl(one / "manifest.jsonl")[:1])
    before = runs(server, "classifier-*")
    with pytest.raises(NodeFailed, match="images of one person alone"):
        server.run({**sets("classes/one", "classes/post_op"), "train": trainer()})
    assert runs(server, "classifier-*") == before


def test_no_classifier_learns_from_withdrawn_sets_and_a_withdrawn_one_judges_nothing(
    server, evaluated, generated
):
    from diffusioncleft.diffusioncleft_core.dataset.withdrawn import SAID, Withdrawal, add_marks
    from diffusioncleft.diffusioncleft_core.files import read_json, write_json

    real = {"real pre": phantoms("pre_op", 21), "real post": phantoms("post_op", 22)}
    mark = [Withdrawal("ab" * 32, (), "2026-01-01", "a dataset")]
    gone = shutil.copytree(generated / "pre_op", generated / "gone")
    add_marks(gone, mark)
    graph = sets("classes/gone", "classes/post_op") | {"train": trainer(seeds=1)}
    with pytest.raises(NodeFailed, match=f"{SAID}, so no classifier learns from it"):
        server.run(graph | real | {"judge": judge("real pre", "real post")})
    models = list((server.base / "diffusioncleft_runs").glob("**/classifier-*/model.json"))
    before = {model: read_json(model) for model in models}
    assert before
    try:
        for model, document in before.items():
            write_json(model, document | {"loras": [["ab" * 32]]})
            add_marks(model.parent, mark)
        with pytest.raises(NodeFailed, match="so it judges nothing"):
            server.run(of_datasets(paper=True))
    finally:
        for model, document in before.items():
            write_json(model, document)
            (model.parent / "withdrawn.json").unlink()
