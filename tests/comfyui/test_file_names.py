"""No graph shows a file outside ComfyUI's input, output and temp folders, on any release."""

import json
import shutil

import numpy as np
import pytest
from comfy_server import GraphRefused, NodeFailed
from graphs import Graph, node, saving
from PIL import Image

NAMES = (
    "../private/x.png",
    "../../{base}/private/x.png",
    "{root}/private/x.png",
    "..\\private\\x.png",
    "sub\\..\\..\\private\\x.png",
    "C:\\private\\x.png",
    "\\\\host\\share\\x.png",
    "../private/x.png [input]",
    "../private/x.png [output]",
    "../private/x.png [temp]",
    "sub/../../private/x.png",
    "{root}/private/x.png [output]",
    "x\x00/../../private/x.png",
)
LOADERS = {
    "LoadImage": ("image", {}),
    "LoadImageMask": ("image", {"channel": "red"}),
    "LoadImageOutput": ("image", {}),
    "LoadLatent": ("latent", {}),
    "LoadAudio": ("audio", {}),
    "LoadVideo": ("file", {}),
    "WebcamCapture": ("image", {"width": 0, "height": 0, "capture_on_queue": False}),
}
COLOUR = (12, 200, 77)


@pytest.fixture(scope="module")
def private(server):
    """A picture beside ComfyUI's folders, and one that is rightly in the input folder."""
    folder = server.base / "private"
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (24, 24), COLOUR).save(folder / "x.png")
    (server.base / "input" / "sub").mkdir(exist_ok=True)
    Image.new("RGB", (24, 24), (1, 2, 3)).save(server.base / "input" / "sub" / "inside.png")
    yield folder
    shutil.rmtree(folder)


def names(server) -> list[str]:
    return [name.format(base=server.base.name, root=server.base) for name in NAMES]


def refused(server, graph: Graph) -> str:
    """The server's words on a graph that it must refuse whole: nothing is in its queue or its history."""
    before = len(server.get("/history"))
    with pytest.raises(GraphRefused) as told:
        server.queue(graph)
    assert not any(server.get("/queue").values())
    assert len(server.get("/history")) == before
    return str(told.value)


def beside(graph: Graph) -> Graph:
    """The graph with another part, which is right and would run."""
    return {
        **graph,
        "plain": node("EmptyImage", width=16, height=16, batch_size=1, color=7),
        "shown": node("PreviewImage", images=["plain", 0]),
    }


@pytest.mark.parametrize("kind", LOADERS)
def test_a_graph_that_names_a_file_outside_is_refused_whole(server, private, kind):
    known = server.get("/object_info")
    if kind not in known:
        pytest.skip(f"this ComfyUI has no {kind}")
    key, more = LOADERS[kind]
    for name in names(server):
        graph = beside(
            {"load": node(kind, **{key: name}, **more), "see": node("PreviewAny", source=["load", 0])}
        )
        told = json.loads(refused(server, graph))
        assert told["error"]["message"] == "Nothing was queued", name
        assert "leads out of ComfyUI's input, output and temp folders" in told["error"]["details"], name
        assert list(told["node_errors"]) == ["load"], name


def test_a_name_inside_the_folders_is_shown(server, private):
    for name in ("sub/inside.png", "sub/../sub/inside.png", "sub/inside.png [input]"):
        outputs = server.run(
            {"load": node("LoadImage", image=name), "see": node("PreviewImage", images=["load", 0])}
        )
        assert len(outputs["see"]["images"]) == 1


def test_a_name_hidden_in_a_nodes_compound_value_is_found_too(server, private):
    graph = {
        "load": node(
            "Load3D",
            model_file="none",
            image={
                "image": "a.png",
                "mask": "../private/x.png",
                "normal": "",
                "lineart": "",
                "recording": "",
            },
            width=64,
            height=64,
        ),
        "see": node("PreviewAny", source=["load", 0]),
    }
    assert "leads out of" in refused(server, graph)


def test_a_link_out_of_the_input_folder_is_not_followed(server, private):
    link = server.base / "input" / "linked"
    link.symlink_to(private, target_is_directory=True)
    try:
        graph = {
            "load": node("LoadImage", image="linked/x.png"),
            "see": node("PreviewImage", images=["load", 0]),
        }
        with pytest.raises((GraphRefused, NodeFailed)):
            server.run(graph)
    finally:
        link.unlink()


def test_a_name_that_only_the_run_brings_opens_nothing_outside(server, private):
    """Through a link the name is unknown until then; whatever this release lets through shows no picture."""
    known = server.get("/object_info")
    sources = {"text": node("PrimitiveString", value="../private/x.png")}
    links = {"text": "text"}
    if "ComfySwitchNode" in known:
        sources["switch"] = node("ComfySwitchNode", switch=True, on_true=["text", 0], on_false=["text", 0])
        links["switch"] = "switch"
    for link in links.values():
        for kind, key, more in (
            ("LoadImage", "image", {}),
            ("LoadImageMask", "image", {"channel": "red"}),
            ("WebcamCapture", "image", LOADERS["WebcamCapture"][1]),
        ):
            graph = {
                **sources,
                "load": node(kind, **{key: [link, 0]}, **more),
                "see": node("PreviewAny", source=["load", 0]),
            }
            with pytest.raises((GraphRefused, NodeFailed)):
                server.run(graph)


@pytest.mark.parametrize("kind", ["LoadImageSetFromFolderNode", "LoadImageDataSetFromFolder"])
def test_a_folder_outside_is_not_read(server, private, kind):
    if kind not in server.get("/object_info"):
        pytest.skip(f"this ComfyUI has no {kind}")
    text = {"text": node("PrimitiveString", value="../private")}
    switch = node("ComfySwitchNode", switch=True, on_true=["text", 0], on_false=["text", 0])
    if "ComfySwitchNode" in server.get("/object_info"):
        text["switch"] = switch
    for folder in ("../private", str(private), *([name, 0] for name in text)):
        load = node(kind, folder=folder, resize_method="None")
        graph = {**text, "load": load, "see": node("PreviewImage", images=["load", 0])}
        with pytest.raises((GraphRefused, NodeFailed)):
            server.run(graph)


def test_no_picture_of_the_private_one_lies_where_the_server_shows_it(server, private):
    """After all that was tried above."""
    for place in ("output", "temp"):
        for path in (server.base / place).rglob("*.png"):
            assert tuple(np.asarray(Image.open(path).convert("RGB"))[0, 0]) != COLOUR, path


def test_our_own_nodes_still_take_what_they_took(server):
    graph = {
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0),
        "save": saving(["picture", 0], "set/../set/named", show=False),
    }
    assert server.run(graph)["save"]["text"] == ["set/named: 1 saved, 1 in all"]
