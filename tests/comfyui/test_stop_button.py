"""The stop button in every node that takes long: the prompt ends, the server and what was made go on."""

import threading

import numpy as np
import pytest
from comfy_server import ComfyServer, watch
from graphs import drawing, node, ours, training

from diffusioncleft.diffusioncleft_core.files import write_jsonl
from diffusioncleft.diffusioncleft_core.generation.files import manifest_row, write_image
from diffusioncleft.diffusioncleft_core.phantom import random_face, render

IMAGES, FACES = 240, 12
KINDS = dict.fromkeys(("several_faces", "cropped_face", "eye_bar", "text"), True)
PEOPLE = ours("PhantomDataset", condition="pre_op", count=240, size=128, seed=77, holdout=0.0)
SMALL = ours("PhantomDataset", condition="pre_op", count=30, size=128, seed=78, holdout=0.0)
PICTURES = ours("LoadImageSet", name="many", which="all", start=0, limit=0)
LONG = {
    "PhantomDataset": {"node": PEOPLE},
    "ReferenceSet": {"data": PEOPLE, "node": ours("ReferenceSet", dataset=["data", 0], faces="auto")},
    "LoadImageSet": {"node": PICTURES},
    "ArtifactFilter": {
        "set": PICTURES,
        "node": ours("ArtifactFilter", images=["set", 1], enabled=True, faces="phantom", **KINDS),
    },
    "IdentityLeakFilter": {
        "set": PICTURES,
        "data": SMALL,
        "known": ours("ReferenceSet", dataset=["data", 0], faces="auto"),
        "node": ours(
            "IdentityLeakFilter", images=["set", 1], enabled=True, threshold=0.6, reference=["known", 0]
        ),
    },
    "SaveSyntheticSet": {
        "set": PICTURES,
        "node": ours(
            "SaveSyntheticSet", images=["set", 1], folder="half", lora_name="", lora_strength=1.0, show=False
        ),
    },
    "LPIPS": {"set": PICTURES, "node": ours("LPIPS", image_set=["set", 0], which="raw", pairs=9, seed=0)},
    "FID": {
        "set": PICTURES,
        "data": SMALL,
        "node": ours("FID", image_set=["set", 0], dataset=["data", 0], which="raw"),
    },
    "FIR": {
        "set": PICTURES,
        "data": SMALL,
        "known": ours("ReferenceSet", dataset=["data", 0], faces="auto"),
        "node": ours("FIR", image_set=["set", 0], reference=["known", 0], threshold=0.6, which="raw"),
    },
    "Report": {
        "set": PICTURES,
        "data": SMALL,
        "node": ours("Report", image_set=["set", 0], dataset=["data", 0], folder="stopped", faces="auto"),
    },
}


@pytest.fixture(scope="module", autouse=True)
def many(server: ComfyServer) -> None:
    """A set of enough pictures to be interrupted over."""
    folder = server.base / "output" / "many"
    faces = [
        render(random_face(np.random.default_rng(seed), condition="pre_op")).image for seed in range(FACES)
    ]
    rows = []
    for index in range(IMAGES):
        pixels = np.roll(faces[index % FACES], index // FACES, axis=1)
        record = {"index": index, "condition": "pre_op", "prompt": "a face", "seed": index, "attributes": {}}
        record |= {"base": {"sha256": "0" * 64}, "lora": None, "strength": 1.0}
        sidecar = write_image(folder, pixels, record)
        rows.append(manifest_row(sidecar, "generated"))
    write_jsonl(folder / "manifest.jsonl", rows)


def stop_in(server: ComfyServer, graph: dict, name: str = "node") -> dict:
    """Press the stop button as soon as that node begins; what ComfyUI then says of the interruption."""
    ended = threading.Event()
    messages = watch(server, ended)
    prompt = server.queue({**graph, "shown": node("PreviewAny", source=[name, 0])})

    def begun() -> bool:
        return any(
            isinstance(m, dict) and m["type"] == "executing" and m["data"].get("node") == name
            for m in messages
        )

    while not begun():
        assert not ended.wait(0.002)
        assert prompt not in server.get(f"/history/{prompt}"), f"{name} never began"
    server.interrupt()
    history = server.wait(prompt, 60)
    ended.set()
    (stopped,) = [data for kind, data in history["status"]["messages"] if kind == "execution_interrupted"]
    return dict(stopped)


@pytest.mark.parametrize("kind", LONG)
def test_the_stop_button_ends_the_node_at_its_next_picture(server, kind):
    stopped = stop_in(server, LONG[kind])
    assert stopped["node_id"] == "node"
    assert server.get("/queue") == {"queue_running": [], "queue_pending": []}


def test_what_was_stopped_goes_on_where_it_was(server):
    outputs = server.run(LONG["SaveSyntheticSet"])
    assert outputs["node"]["text"][0].endswith(f"{IMAGES} in all")
    assert (
        "240 to train on"
        in server.run(
            LONG["PhantomDataset"] | {"see": ours("Captions", dataset=["node", 0], edits="", show=False)}
        )["node"]["text"][0]
    )


def test_stopping_one_graph_leaves_those_that_wait(server, dataset):
    """Three graphs queued at once; the one in the middle is stopped, the others end as if alone."""
    save = {"folder": "waited", "lora_name": "", "lora_strength": 1.0, "show": False}
    first = server.queue(training(dataset, name="queued", steps=6))
    twice = server.queue(
        training(dataset, name="queued", steps=6)
        | {"status": ours("TrainingStatus", run="(latest)", stop=False, wait=False, training=["train", 4])}
    )
    stopped = stop_in(server, LONG["ArtifactFilter"])
    last = server.queue({**drawing(), "save": ours("SaveSyntheticSet", images=["picture", 0], **save)})
    assert stopped["node_id"] == "node"
    lora, again = (server.wait(prompt)["outputs"]["train"]["text"] for prompt in (first, twice))
    assert "done, step 6 of 6" in lora[0]
    assert again == lora
    assert server.wait(last)["outputs"]["save"]["text"] == ["waited: 1 saved, 1 in all"]
