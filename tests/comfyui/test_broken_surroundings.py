"""A killed trainer, a purged dataset, libraries that are not installed: the server goes on."""

import textwrap
import time

import psutil
import pytest
from comfy_server import ComfyServer, GraphRefused
from graphs import CLASSIFIER, KINDS, PROMPT, drawing, node, ours, saving, training

from diffusioncleft.diffusioncleft_core.dataset.folder import purge_dataset

STEPS = 200
MISSING = ("insightface", "onnxruntime", "rapidocr", "lpips", "pytorch_fid", "bitsandbytes", "sklearn")


@pytest.mark.long
def test_a_killed_trainer_harms_neither_the_server_nor_its_checkpoint(server, dataset):
    graph = training(dataset, name="killed", steps=STEPS, checkpoint_every=10)
    state = server.base / "diffusioncleft_runs"
    prompt = server.queue(graph)
    deadline = time.monotonic() + 300
    while not list(state.glob("killed-*/training/state/step-*.safetensors")):
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.02)
    for child in psutil.Process(server.pid).children(recursive=True):
        child.kill()
    messages = dict(server.wait(prompt)["status"]["messages"])
    failure = messages["execution_error"]
    assert failure["node_id"] == "train"
    assert "trainer" in failure["exception_message"]
    assert str(server.base / "private datasets") not in str(failure)
    done = server.run(graph)["train"]["text"][0]
    assert f"done, step {STEPS} of {STEPS}" in done
    (run,) = state.glob("killed-*")
    assert len((run / "training" / "loss.jsonl").read_text(encoding="utf-8").splitlines()) == STEPS


def test_a_phantom_dataset_that_was_purged_is_made_again_and_one_that_is_there_is_not(server):
    asked = {"condition": "pre_op", "size": 64, "seed": 5, "holdout": 0.0}
    for count in (8, ["count", 0]):
        graph = {
            "count": node("PrimitiveInt", value=8),
            "data": ours("PhantomDataset", count=count, **asked),
            "see": node("PreviewAny", source=["data", 2]),
        }
        server.run(graph)
        (folder,) = (server.base / "private datasets").glob("phantom_pre_op_8_64px_5_0")
        again = dict(server.wait(server.queue(graph))["status"]["messages"])
        assert "data" in again["execution_cached"]["nodes"]
        purge_dataset(folder)
        server.run(graph)
        assert (folder / "manifest.jsonl").is_file()


@pytest.fixture(scope="module")
def bare(comfyui, server, tmp_path_factory):
    """A second server on a machine where the optional libraries are not installed."""
    block = tmp_path_factory.mktemp("block")
    (block / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            from importlib.machinery import PathFinder

            found = PathFinder.find_spec

            def find_spec(name, path=None, target=None):
                return None if name.partition(".")[0] in {MISSING!r} else found(name, path, target)

            PathFinder.find_spec = staticmethod(find_spec)  # some call it on an instance
        """)
    )
    running = ComfyServer(
        comfyui, tmp_path_factory.mktemp("bare"), server.environment | {"PYTHONPATH": str(block)}
    )
    (running.base / "private datasets").mkdir()
    running.start()
    yield running
    running.kill()


def test_without_the_optional_libraries_every_node_loads_and_those_that_need_one_say_so(server, bare):
    ours_of = {name for name in server.get("/object_info") if name.startswith("DiffusionCleft_")}
    assert ours_of <= set(bare.get("/object_info"))
    see = {"see": node("PreviewAny", source=["n", 0])}
    people = {"data": ours("PhantomDataset", condition="pre_op", count=8, size=128, seed=1, holdout=0.0)}
    filtered = ours("ArtifactFilter", images=["picture", 0], enabled=True, faces="phantom", **KINDS)
    with pytest.raises(GraphRefused, match=r"pip install .*insightface onnxruntime"):
        bare.run({**drawing(), "n": filtered, **see})
    with pytest.raises(GraphRefused, match="insightface"):
        bare.run({**people, "see": node("PreviewAny", source=["data", 0])})
    save = saving(["picture", 0], "plain", show=False)
    drawn = {**drawing(PROMPT), "save": save}
    assert bare.run(drawn)["save"]["text"] == ["plain: 1 saved, 1 in all"]
    again = drawing(PROMPT, seed=6) | {"save": save}
    assert bare.run(again)["save"]["text"] == ["plain: 1 saved, 2 in all"]
    with pytest.raises(GraphRefused, match="pip install lpips"):
        bare.run({**again, "n": ours("LPIPS", image_set=["save", 0], which="raw", pairs=3, seed=0)})
    other = saving(["picture", 0], "other", show=False)
    classes = {"positive": ["save", 0], "negative": ["other", 0], "faces": "phantom"}
    with pytest.raises(GraphRefused, match="pip install scikit-learn"):
        bare.run({**again, "other": other, "n": ours("TrainClassifier", **CLASSIFIER, **classes)})
