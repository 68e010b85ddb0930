"""The stop button in every node that takes long: the prompt ends, the server and what was made go on."""

import threading

import numpy as np
import pytest
from comfy_server import ComfyServer, watch
from graphs import KINDS, drawing, node, ours, saving, training

from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.imageset.manifest import write_image_set
from diffusioncleft.diffusioncleft_core.imageset.synthetic import generated_row, write_image
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

IMAGES, FACES = 240, 12
PHOTOGRAPHS = 100
CLIENT = "stop-button"
PEOPLE = ours("PhantomDataset", condition="pre_op", count=PHOTOGRAPHS, size=128, seed=77, holdout=0.0)
SMALL = ours("PhantomDataset", condition="pre_op", count=30, size=128, seed=78, holdout=0.0)
PICTURES = ours("LoadImageSet", name="many", which="all", start=0, limit=0)
LONG = {
    "PhantomDataset": {"node": PEOPLE},
    "ReferenceSet": {"data": PEOPLE, "node": ours("ReferenceSet", dataset=["data", 0], faces="auto")},
    "PromptPlan": {
        "node": ours(
            "PromptPlan",
            condition="pre_op",
            count=1,
            start=900_000,
            seed=1,
            mode="paper",
            bracketed=True,
            extra="",
        )
    },
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
        "node": saving(["set", 1], "half", show=False),
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
    faces = [render(random_face(np.random.default_rng(seed), finding="cleft")).image for seed in range(FACES)]
    rows = []
    for index in range(IMAGES):
        pixels = np.roll(faces[index % FACES], index // FACES, axis=1)
        record = {"index": index, "condition": "pre_op", "prompt": "a face", "seed": index, "attributes": {}}
        record |= {"base": {"sha256": phantom_source().fingerprint()}, "lora": None, "strength": 1.0}
        sidecar = write_image(folder, pixels, record)
        rows.append(generated_row(sidecar))
    write_image_set(folder, rows)


@pytest.fixture(scope="module")
def messages(server: ComfyServer):
    """What the server tells over its websocket, during all tests of this file."""
    ended = threading.Event()
    yield watch(server, ended, CLIENT)
    ended.set()


def stop_in(server: ComfyServer, messages: list, graph: dict) -> None:
    """Press the stop button as soon as the node called `node` begins: there the prompt must end."""
    prompt = server.queue({**graph, "shown": node("PreviewAny", source=["node", 0])}, CLIENT)
    seen = 0
    while True:
        new, seen = messages[seen:], len(messages)
        told = [m["data"] for m in new if isinstance(m, dict) and m["type"] == "executing"]
        if any(data.get("node") == "node" and data.get("prompt_id") == prompt for data in told):
            break
        assert not server.get(f"/history/{prompt}"), server.wait(prompt)["status"]
    server.interrupt()
    status = server.wait(prompt, 60)["status"]
    stopped = [data["node_id"] for kind, data in status["messages"] if kind == "execution_interrupted"]
    assert stopped == ["node"], [data.get("exception_message") for _, data in status["messages"]]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind == "ReferenceSet")) for kind in LONG]
)
def test_the_stop_button_ends_the_node_at_its_next_picture(server, messages, kind):
    before = {name: part for name, part in LONG[kind].items() if name != "node"}
    if before:
        server.run({**before, "shown": node("PreviewAny", source=[list(before)[-1], 0])})
    if kind == "ReferenceSet":  # what the dataset's build found is taken from there: as if it were lost
        (ledger,) = server.base.rglob(f"phantom_pre_op_{PHOTOGRAPHS}_*/examined.jsonl")
        ledger.unlink()
    stop_in(server, messages, LONG[kind])
    assert server.get("/queue") == {"queue_running": [], "queue_pending": []}


@pytest.mark.long
def test_what_was_stopped_goes_on_where_it_was(server):
    outputs = server.run(LONG["SaveSyntheticSet"])
    assert outputs["node"]["text"][0].endswith(f"{IMAGES} in all")
    assert (
        f"{PHOTOGRAPHS} to train on"
        in server.run(
            LONG["PhantomDataset"] | {"see": ours("Captions", dataset=["node", 0], edits="", show=False)}
        )["node"]["text"][0]
    )


@pytest.mark.long
def test_stopping_one_graph_leaves_those_that_wait(server, messages, dataset):
    """Three graphs queued at once; the one in the middle is stopped, the others end as if alone."""
    save = {"folder": "waited", "lora_name": "", "lora_strength": 1.0, "show": False}
    first = server.queue(training(dataset, name="queued", steps=6))
    twice = server.queue(
        training(dataset, name="queued", steps=6)
        | {"status": ours("TrainingStatus", run="(latest)", stop=False, wait=False, training=["train", 4])}
    )
    stop_in(server, messages, LONG["ArtifactFilter"])
    last = server.queue({**drawing(), "save": ours("SaveSyntheticSet", images=["picture", 0], **save)})
    lora, again = (server.wait(prompt)["outputs"]["train"]["text"] for prompt in (first, twice))
    assert "done, step 6 of 6" in lora[0]
    assert again == lora
    assert server.wait(last)["outputs"]["save"]["text"] == ["waited: 1 saved, 1 in all"]
