"""Verdicts and figures from nodes are the core's, on planted artifacts and on a set that was drawn here."""

import json
import shutil

import numpy as np
import pytest
from comfy_server import GraphRefused, NodeFailed
from graphs import KINDS, Graph, drawing, node, ours, plan_of, saving
from PIL import Image


def shown(text) -> dict:
    return node("PreviewAny", source=text)


def texts(outputs: dict) -> dict[str, str]:
    return {name: out["text"][0] for name, out in outputs.items() if "text" in out}


@pytest.fixture(scope="module")
def planted(server) -> dict[str, np.ndarray]:
    """A clean phantom and one with each artifact, in ComfyUI's input folder."""
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.phantom.face import random_face
    from diffusioncleft.diffusioncleft_core.phantom.render import render
    from diffusioncleft.tools.planted import PLANTED, plant

    analyzer = load_face_analyzer("phantom")
    people = [render(random_face(np.random.default_rng(seed), finding="cleft"), 256).image for seed in (2, 3)]
    face = analyzer.analyze(people[0])[0]
    pictures = {"clean": people[0]}
    for place, kind in enumerate(PLANTED):
        rng = np.random.default_rng(place)
        pictures[kind] = plant(people[0], face.landmarks, face.box, kind, rng, [people[1]])
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(server.base / "input" / f"{name}.png")
    return pictures


@pytest.fixture(scope="module")
def drawn(server) -> str:
    """A set of six phantoms, checked by both filters, with what they set aside."""
    graph = {
        **drawing(["plan", 0], ["plan", 1]),
        "plan": plan_of(6, seed=4),
        "filter": ours(
            "ArtifactFilter", images=["picture", 0], enabled=True, faces="auto", rows=["plan", 2], **KINDS
        ),
        "save": saving(["picture", 0], "measured", show=False, rows=["plan", 2], verdicts=["filter", 7]),
    }
    server.run(graph)
    return "measured"


def load(name: str) -> dict:
    return ours("LoadImageSet", name=name, which="all", start=0, limit=1)


def test_planted_artifacts_get_the_cores_verdicts(server, planted):
    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter

    checker = ArtifactFilter(load_face_analyzer("phantom"))
    graph = {}
    for name in planted:
        graph[f"load {name}"] = node("LoadImage", image=f"{name}.png")
        graph[name] = ours(
            "ArtifactFilter", images=[f"load {name}", 0], enabled=True, faces="phantom", **KINDS
        )
        graph[f"see {name}"] = shown([name, 4])
    lenient = {"bar_evidence": 100.0, "eye_detail": 0.0, "eye_blocks": 1.0}
    graph["lenient"] = ours(
        "ArtifactFilter", images=["load eye_bar", 0], enabled=True, faces="phantom", **KINDS, **lenient
    )
    graph["see lenient"] = shown(["lenient", 4])
    found = texts(server.run(graph))
    assert "eye" not in found["see lenient"]
    for name, pixels in planted.items():
        verdict = checker.check(pixels)
        assert verdict.accepted == (name == "clean")
        expected = "1  accepted" if verdict.accepted else f"1  set aside: {', '.join(verdict.reasons)}"
        assert found[f"see {name}"].splitlines()[1] == expected
    assert "eye_bar" in found["see eye_bar"]
    assert "text" in found["see text"]


def test_a_copy_of_a_training_face_is_a_leak_and_chained_filters_keep_both_verdicts(server, dataset, planted):
    folder = server.base / "private datasets" / dataset
    row = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])
    shutil.copy(folder / row["file"], server.base / "input" / "copy.png")
    graph = {
        "copy": node("LoadImage", image="copy.png"),
        "bar": node("LoadImage", image="eye_bar.png"),
        "both": node("ImageBatch", image1=["copy", 0], image2=["bar", 0]),
        "data": ours("Dataset", name=dataset),
        "known": ours("ReferenceSet", dataset=["data", 0], faces="auto"),
        "one": ours("ArtifactFilter", images=["both", 0], enabled=True, faces="phantom", **KINDS),
        "two": ours(
            "IdentityLeakFilter",
            images=["both", 0],
            enabled=True,
            threshold=0.6,
            reference=["known", 0],
            earlier=["one", 7],
        ),
        "see": shown(["two", 4]),
        "save": saving(["both", 0], "checked", verdicts=["two", 7]),
    }
    outputs = server.run(graph)
    lines = outputs["see"]["text"][0].splitlines()
    assert lines[0] == "0 of 2 pictures accepted"
    assert "identity_leak" in lines[1]
    assert "eye_bar" in lines[2]
    assert outputs["save"]["text"] == ["checked: 2 saved, 2 of them set aside, 2 in all"]
    assert "images" not in outputs["save"] or outputs["save"]["images"] == []
    rows = [
        json.loads(line)
        for line in (server.base / "output" / "checked" / "manifest.jsonl").read_text().splitlines()
    ]
    assert [entry["file"].split("/")[0] for entry in rows] == ["rejected", "rejected"]
    assert rows[0]["verdicts"]["identity"]["rejected"] is True
    assert rows[1]["verdicts"]["reasons"][0] == "eye_bar"
    (server.base / "input" / "copy.png").unlink()
    shutil.rmtree(server.base / "output" / "checked")


def test_a_filter_that_is_off_loads_nothing_and_lets_all_pass(server, planted):
    graph = {
        "bar": node("LoadImage", image="eye_bar.png"),
        "data": ours("Dataset", name="d1"),
        "known": ours("ReferenceSet", dataset=["data", 0], faces="buffalo_l"),
        "one": ours("ArtifactFilter", images=["bar", 0], enabled=False, faces="buffalo_l", **KINDS),
        "two": ours(
            "IdentityLeakFilter",
            images=["one", 0],
            enabled=False,
            threshold=0.6,
            reference=["known", 0],
            rows=["one", 1],
        ),
        "see": shown(["two", 4]),
    }
    found = texts(server.run(graph))
    assert found["see"].splitlines() == ["1 of 1 pictures accepted", "1  not checked"]


def test_missing_face_models_stop_the_filter_with_one_sentence_and_the_server_goes_on(server, planted):
    graph = {
        "bar": node("LoadImage", image="clean.png"),
        "one": ours("ArtifactFilter", images=["bar", 0], enabled=True, faces="auto", **KINDS),
        "see": shown(["one", 4]),
    }
    with pytest.raises(GraphRefused, match="face pack 'buffalo_l' is in none of"):
        server.run(graph)
    graph["one"]["inputs"]["faces"] = "phantom"
    assert "1 of 1" in texts(server.run(graph))["see"]


def measuring(images: str, dataset: str, folder: str) -> Graph:
    """Every metric node, and the report, on one set."""
    return {
        "set": load(images),
        "data": ours("Dataset", name=dataset),
        "known": ours("ReferenceSet", dataset=["data", 0], faces="auto"),
        "fir": ours("FIR", image_set=["set", 0], reference=["known", 0], threshold=0.3, which="raw"),
        "fid": ours("FID", image_set=["set", 0], dataset=["data", 0], which="raw"),
        "lpips": ours("LPIPS", image_set=["set", 0], which="raw", pairs=7, seed=5),
        "report": ours("Report", image_set=["set", 0], dataset=["data", 0], folder=folder, faces="auto"),
    }


def test_metric_nodes_give_the_cores_figures(server, dataset, drawn, tmp_path):
    import torch

    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
    from diffusioncleft.diffusioncleft_core.metrics.extractors import load_extractors
    from diffusioncleft.diffusioncleft_core.metrics.measure import MeasureSettings, measure_sets

    graph = measuring(drawn, dataset, "my report")
    values = {"pairs": ["fir", 0], "images": ["fir", 1], "high": ["fir", 2], "distance": ["fid", 0]}
    values |= {"sampled": ["lpips", 0], "every": ["lpips", 1]}
    graph |= {name: shown(link) for name, link in values.items()}
    outputs = server.run(graph)
    found = {name: float(outputs[name]["text"][0]) for name in values}

    folder, private = server.base / "output" / drawn, server.base / "private datasets" / dataset
    networks = load_extractors(("fid", "lpips"), phantom=True, device=torch.device("cpu"))
    expected = measure_sets(
        {"pre_op": folder},
        [private],
        load_face_analyzer("phantom"),
        networks,
        MeasureSettings(threshold=0.3, pairs=7, seed=5, cache_dir=tmp_path / "cache"),
    )["sets"]["pre_op"]
    paper = {name: expected[name]["paper"]["raw"] for name in ("fir_pairs", "fir_images", "fid", "lpips")}
    assert found["pairs"] == pytest.approx(paper["fir_pairs"]["value"], abs=1e-9)
    assert found["images"] == pytest.approx(paper["fir_images"]["value"], abs=1e-9)
    assert found["high"] == pytest.approx(paper["fir_images"]["ci95"][1], abs=1e-6)
    assert found["distance"] == pytest.approx(paper["fid"]["value"], rel=1e-3)
    assert found["sampled"] == pytest.approx(paper["lpips"]["value"], rel=1e-4)
    assert found["every"] == pytest.approx(expected["lpips_all_pairs"]["robust"]["raw"]["value"], rel=1e-4)
    assert not (folder / ".measure").exists(), "faces found in a set lie where the server shows them"

    document = json.loads((server.base / "output" / "my report" / "report.json").read_text(encoding="utf-8"))
    assert document["sets"]["pre_op"]["fid"]["paper"]["raw"]["value"] == pytest.approx(
        found["distance"], rel=1e-3
    )
    assert document["filters"]["pre_op"]["n"] == 6
    assert "phantom" in document["notes"][0]
    page = (server.base / "output" / "my report" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert len(outputs["report"]["images"]) == 2


def test_a_withdrawn_set_is_told_by_every_node_that_reads_it_and_no_image_of_it_is_in_the_report(
    server, dataset, drawn
):
    from diffusioncleft.diffusioncleft_core.dataset.withdrawn import SAID, Withdrawal, add_marks
    from diffusioncleft.diffusioncleft_core.report.pictures import WITHDRAWN

    folder = server.base / "output" / "withdrawn set"
    shutil.copytree(server.base / "output" / drawn, folder)
    graph = measuring("withdrawn set", dataset, "told")
    page = server.base / "output" / "told" / "report.html"
    found = texts(server.run(graph))
    assert not [text for text in found.values() if SAID in text]
    pictures = page.read_text("utf-8").count("data:image")
    assert pictures and WITHDRAWN.split(".")[0] not in page.read_text("utf-8")

    add_marks(folder, [Withdrawal("ab" * 32, (), "2026-01-01", "a dataset")])
    found = texts(server.run(graph))  # the same graph: nothing of it is ComfyUI's cached answer
    assert all(SAID in found[name] for name in ("set", "fir", "fid", "lpips", "report")), found
    document = json.loads((server.base / "output" / "told" / "report.json").read_text("utf-8"))
    assert SAID in document["notes"][0]
    assert SAID in page.read_text("utf-8") and page.read_text("utf-8").count("data:image") == 0
    shutil.rmtree(folder)


def test_what_cant_be_measured_is_a_message_on_the_node(server, dataset):
    one = {
        **drawing(),
        "save": saving(["picture", 0], "single", show=False),
        "data": ours("Dataset", name=dataset),
    }
    with pytest.raises(NodeFailed, match="takes 2 images"):
        server.run({**one, "m": ours("FID", image_set=["save", 0], dataset=["data", 0], which="raw")})
    with pytest.raises(NodeFailed, match="two images"):
        server.run({**one, "m": ours("LPIPS", image_set=["save", 0], which="raw", pairs=10, seed=0)})
    with pytest.raises(NodeFailed, match="did not go through the filters"):
        server.run({**one, "m": ours("FID", image_set=["save", 0], dataset=["data", 0], which="filtered")})
    rejected = ours("Report", image_set=["save", 0], dataset=["data", 0], folder="r", faces="auto")
    rejected["inputs"]["image_set_2"] = ["save", 0]
    with pytest.raises(GraphRefused, match="connect both or neither"):
        server.run({**one, "m": rejected})


@pytest.mark.parametrize("place", ["neighbour", "neighbour/deep/er", "neighbour/../neighbour"])
def test_a_report_is_not_written_into_a_set_that_it_does_not_measure(server, dataset, drawn, place):
    output = server.base / "output"
    neighbour = output / "neighbour"
    if not neighbour.exists():
        shutil.copytree(output / drawn, neighbour)
    before = {path: path.read_bytes() for path in neighbour.rglob("*") if path.is_file()}
    graph = {
        "set": load(drawn),
        "data": ours("Dataset", name=dataset),
        "report": ours("Report", image_set=["set", 0], dataset=["data", 0], folder=place, faces="auto"),
    }
    with pytest.raises((NodeFailed, GraphRefused), match=r"folder of another set|can't be a folder|\.\."):
        server.run(graph)
    assert before == {path: path.read_bytes() for path in neighbour.rglob("*") if path.is_file()}
    assert not (neighbour / "deep").exists()


@pytest.mark.long
def test_a_report_may_lie_in_the_set_that_it_measures(server, dataset, drawn):
    folder = server.base / "output" / "its own"
    shutil.copytree(server.base / "output" / drawn, folder)
    graph = {
        "set": load("its own"),
        "data": ours("Dataset", name=dataset),
        "report": ours("Report", image_set=["set", 0], dataset=["data", 0], folder="its own", faces="auto"),
    }
    server.run(graph)
    assert (folder / "report.html").is_file()
    shutil.rmtree(folder)
