"""The rater study nodes: a blind study in a private folder, the core's figures, nothing that is served."""

import json
import shutil

import numpy as np
import pytest
from comfy_server import GraphRefused, NodeFailed
from downstream_phantoms import drawn_and_accepted, write_phantoms
from graphs import Graph, node, ours

FACES = {"size": 128, "count": 14, "holdout": 0.2}
PLAN = {"name": "first", "design": "paper_plus", "n_generated": 12, "n_real": 6, "repeats": 2, "practice": 1}


def study(**changed) -> dict:
    links = {"generated": ["pre", 0], "generated_2": ["post", 0], "real": ["people", 0]}
    usual = {"margin": 0.5, "seed": 4, "which": "filtered"}
    return ours("RaterStudy", **{**PLAN, **usual, **links, **changed})


def graph_of(**changed) -> Graph:
    sets = {
        key: ours("LoadImageSet", name=f"rated/{name}", which="all", start=0, limit=1)
        for key, name in (("pre", "pre_op"), ("post", "post_op"))
    }
    people = ours("PhantomDataset", condition="pre_op", seed=41, **FACES)
    return {**sets, "people": people, "study": study(**changed)}


def results(name, design="as the ratings tell") -> Graph:
    return {"results": ours("StudyResults", study=name, design=design)}


def studies(server, name="first"):
    return sorted(
        path for path in (server.base / "diffusioncleft_studies").glob(f"{name}-*") if path.is_dir()
    )


@pytest.fixture(scope="module")
def sets(server):
    """Two generated sets of phantoms that the filters accepted."""
    root = server.base / "output" / "rated"
    for name, finding, seed in (("pre_op", "cleft", 51), ("post_op", "scar", 52)):
        drawn_and_accepted(write_phantoms(root / name, finding, seed, 10), name)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def made(server, sets):
    """Texts of a graph that makes a study and looks at its results before anybody rated."""
    graph = graph_of() | results(["study", 0])
    graph |= {"name": node("PreviewAny", source=["study", 0]), "n": node("PreviewAny", source=["study", 1])}
    graph["plots"] = node("PreviewImage", images=["results", 0])
    return server.run(graph)


def test_a_study_lies_in_a_private_folder_and_the_text_says_how_it_is_rated(server, made):
    from diffusioncleft.diffusioncleft_core.study.folder import open_study

    (folder,) = studies(server)
    name = made["name"]["text"][0]
    assert folder.name == name and name.startswith("first-")
    assert folder.parent.stat().st_mode & 0o077 == 0
    found = open_study(folder)
    assert found.design.of_phantoms and len(found.rated) == int(made["n"]["text"][0]) == 12 + 6 + 2
    assert {item.condition for item in found.rated if item.origin == "generated"} == {"pre_op", "post_op"}
    text = made["study"]["text"][0]
    assert f"diffusioncleft study serve {name}" in text and "http://127.0.0.1" in text
    assert "generated: 12 (6 post_op, 6 pre_op), phantoms" in text
    assert str(server.base) not in json.dumps(made), "no path of the server"
    assert "there is no rating yet" in made["results"]["text"][0] and "plots" not in made


def test_the_same_graph_finds_the_study_and_another_seed_makes_another(server, made):
    (folder,) = studies(server)
    before = (folder / "private" / "key.jsonl").read_bytes()
    again = server.run(graph_of(name=" first "))  # ComfyUI's cache does not know it, the folder does
    assert made["name"]["text"][0] in again["study"]["text"][0]
    assert (folder / "private" / "key.jsonl").read_bytes() == before and studies(server) == [folder]
    server.run(graph_of(seed=5))
    assert len(studies(server)) == 2
    shutil.rmtree(next(path for path in studies(server) if path != folder))


def test_the_servers_routes_show_nothing_of_a_study(server, made):
    (folder,) = studies(server)
    image = next((folder / "private" / "images").glob("*.png"))
    inside = image.relative_to(folder.parent).as_posix()
    assert server.get("/models/diffusioncleft_studies") == []
    assert server.raw(f"/experiment/models/preview/diffusioncleft_studies/0/{inside}")[0] != 200
    for place in ("input", "output", "temp"):
        found = (
            f"/view?type={place}&subfolder=../diffusioncleft_studies&filename={folder.name}/private/key.jsonl"
        )
        assert server.raw(found)[0] != 200


def test_figures_and_words_are_the_cores_from_the_database_and_from_a_csv(server, made):
    from diffusioncleft.diffusioncleft_core.study.design_file import load_design
    from diffusioncleft.diffusioncleft_core.study.folder import open_study
    from diffusioncleft.diffusioncleft_core.study.ratings import rating_table
    from diffusioncleft.diffusioncleft_core.study.ratings_file import write_ratings
    from diffusioncleft.diffusioncleft_core.study.statistics.document import study_document
    from diffusioncleft.diffusioncleft_core.study.statistics.simulated import simulated_ratings
    from diffusioncleft.diffusioncleft_core.study.web.store import Store

    (folder,) = studies(server)
    found = open_study(folder)
    rng = np.random.default_rng(2)
    store = Store(found)
    for name in ("Anna", "Ben"):
        rater = store.invite(name)[0].id
        for item in found.rated:
            answers = {"realism": int(rng.integers(3, 6)), "plausibility": 5, "origin": "real"}
            store.save(rater, item.id, f"form {item.id}", answers, 8.0)
    table = rating_table(store.ratings(found), found.items, found.design.roles)
    store.close()
    expected = study_document(table, found.design)
    graph = results(folder.name)
    graph |= {"raters": node("PreviewAny", source=["results", 1])}
    graph["figures"] = node("PreviewAny", source=["results", 3])
    outputs = server.run(graph)
    text = outputs["results"]["text"][0]
    assert text.splitlines()[0] == expected["words"][0] and "Anna" not in text and "phantoms" in text
    assert all(f"realism: {line}" in text for line in expected["questions"]["realism"]["words"])
    assert outputs["raters"]["text"] == ["2"] and len(outputs["results"]["images"]) >= 4
    figures = outputs["figures"]["text"][0]
    assert f"{expected['questions']['realism']['cells'][0]['mean']['value']}" in figures
    assert not any(item.id in figures for item in found.items)

    write_ratings(server.base / "input" / "simulated.csv", simulated_ratings(found, 1))
    told = server.run(results("simulated.csv", "paper_plus"))["results"]["text"][0]
    assert told.startswith("The raters of this study are simulated")
    write_ratings(folder.parent / "own.csv", table)
    told = server.run(results("own.csv", "paper_plus"))["results"]["text"][0]
    assert study_document(table, load_design("paper_plus"))["words"][0] in told


def test_a_graph_names_studies_and_tables_and_no_path(server, made):
    for hostile in ("../first", "/etc/passwd", "..", "", "nothing", "../input/a.csv", "a.csv", "/etc/a.csv"):
        with pytest.raises(GraphRefused, match=r"no name of a|there is no"):
            server.queue(results(hostile))
    for hostile in ("../out", "a/b", "", "/tmp/x"):
        with pytest.raises(GraphRefused, match="no name of a study"):
            server.queue(graph_of(name=hostile))
    (server.base / "input" / "bad.csv").write_text("rater,item\nA,1\n")
    with pytest.raises(NodeFailed, match=r"bad\.csv has no column origin") as told:
        server.run(results("bad.csv"))
    assert str(server.base) not in str(told.value)


def test_photographs_without_consent_to_be_shown_stay_out(server, made):
    from study_sets import people_of_a_dataset

    (phantoms,) = (server.base / "private datasets").glob("phantom_pre_op_14_128px_41_20")
    people = shutil.copytree(phantoms, phantoms.with_name("people"))
    people_of_a_dataset(people)
    for name in ("pre_op", "post_op"):
        bare = shutil.copytree(server.base / "output/rated" / name, server.base / "output/bare" / name)
        (bare / "generation.json").unlink()
        for path in bare.glob("*.json"):
            path.unlink()
    graph = graph_of(name="people")
    graph["people"] = ours("Dataset", name="people")
    with pytest.raises(GraphRefused, match="make a study of images of one kind"):
        server.run(
            {**graph, "pre": ours("PhantomDataset", condition="pre_op", seed=41, **FACES)}
            | {
                "study": study(
                    name="people", real_2=["pre", 0], generated=["post", 0], generated_2=["post", 0]
                )
            }
        )
    for key, name in (("pre", "pre_op"), ("post", "post_op")):
        graph[key] = ours("LoadImageSet", name=f"bare/{name}", which="all", start=0, limit=1)
    text = server.run(graph)["study"]["text"][0]
    assert "the set real is left out" in text and "consent_rating" in text
    (made,) = studies(server, "people")
    assert '"origin": "real"' not in (made / "private" / "key.jsonl").read_text("utf-8")
    shutil.rmtree(people)
    shutil.rmtree(server.base / "output" / "bare")
    shutil.rmtree(made)
