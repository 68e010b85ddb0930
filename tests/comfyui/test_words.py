"""What nodes say, and what names and texts they take."""

import pytest
from comfy_server import GraphRefused
from graphs import builder, drawing, node, ours, plan_of, saving


def test_a_refusal_bears_a_short_name_and_no_module(server):
    graph = {
        **drawing(),
        "plan": plan_of(3),
        "grid": ours("PictureGrid", images=["picture", 0], labels=["plan", 0], columns=2),
    }
    history = server.wait(server.queue(graph))
    (failed,) = [data for name, data in history["status"]["messages"] if name == "execution_error"]
    assert failed["exception_type"] == "Refusal"
    assert (
        failed["exception_message"].strip() == "there are 1 picture and 3 labels; connect one label a picture"
    )


@pytest.mark.parametrize(
    "folder", ["con", "faces/NUL.txt", "a./b", "a /b", "x:y", "what?", "a\x07b", "x" * 130]
)
def test_a_folder_that_windows_cant_hold_is_refused(server, folder):
    graph = {**drawing(), "save": saving(["picture", 0], folder)}
    with pytest.raises(GraphRefused, match=r"can't be a folder|control characters"):
        server.queue(graph)


def test_a_text_without_end_is_refused_before_anything_runs(server):
    for extra in ("x" * 60_000, "a\x00b"):
        graph = {"b": builder(extra=extra), "see": node("PreviewAny", source=["b", 0])}
        with pytest.raises(GraphRefused, match="characters"):
            server.queue(graph)


def test_nodes_are_found_by_other_words_where_the_release_knows_them(server):
    info = server.get("/object_info")
    known = any(node.get("search_aliases") for name, node in info.items() if "DiffusionCleft" not in name)
    ours_ = {name: node for name, node in info.items() if name.startswith("DiffusionCleft_")}
    if known:
        assert all(node["search_aliases"] for node in ours_.values())
    words = {word.lower() for node in ours_.values() for word in node.get("search_aliases") or []}
    assert not known or {"face similarity", "identity", "synthetic dataset", "fid", "watermark"} <= words
