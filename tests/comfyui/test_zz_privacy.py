"""Nothing of a photograph leaves its dataset through the server. Runs last, over all that tests left."""

import json
import shutil
import urllib.parse
from pathlib import Path

import pytest
from comfy_server import GraphRefused, NodeFailed
from graphs import KINDS, SECRET, node, ours, saving, training
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.corrections import allow_edits

HOSTILE = ("../d1", "..", "d1/images", "/etc", "C:\\secret", ".phantom_photographs", "d1\x00", "d1/../d1", "")


@pytest.fixture(scope="module")
def used(server, dataset):
    """The dataset after each node that touches it has run."""
    allow_edits(server.base / "private datasets" / dataset)
    graph = {
        "data": ours("Dataset", name=dataset),
        "captions": ours("Captions", dataset=["data", 0], edits="1: a corrected caption", show=True),
        "faces": ours("ReferenceSet", dataset=["captions", 0], faces="auto"),
        "see": node("PreviewAny", source=["data", 0]),
        "count": node("PreviewAny", source=["faces", 0]),
    }
    outputs = server.run(graph)
    server.run(graph)
    return json.dumps(outputs)


def _private(server, dataset: str) -> list[str]:
    """What must not get out: the photographs' names, their hashes, and the names of the dataset's images."""
    folder = server.base / "private datasets" / dataset
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    names = [row["file"].split("/")[-1].removesuffix(".png") for row in rows]
    return [
        SECRET,
        *names,
        *(row["sha256"] for row in rows),
        *(row["subject"] for row in rows if "subject" in row),
    ]


def test_a_graph_can_only_name_a_dataset(server, dataset):
    for hostile in HOSTILE:
        with pytest.raises(GraphRefused, match=r"no name of a dataset|there is no dataset"):
            server.queue({"d": ours("Dataset", name=hostile), "s": node("PreviewAny", source=["d", 1])})
    assert (
        dataset
        in server.get("/object_info/DiffusionCleft_Dataset")["DiffusionCleft_Dataset"]["input"]["required"][
            "name"
        ][1]["options"]
    )


def test_a_graph_writes_and_reads_only_under_the_output_folder(server):
    picture = {"picture": node("EmptyImage", width=16, height=16, batch_size=1, color=0)}
    for hostile in ("../input", "/tmp/x", "..", "a/../../b", "", " "):
        save = saving(["picture", 0], hostile, show=False)
        with pytest.raises(GraphRefused, match="output folder"):
            server.queue({**picture, "save": save})
    for hostile in ("../private datasets/d1", "/etc", ".."):
        load = ours("LoadImageSet", name=hostile, which="all", start=0, limit=0)
        with pytest.raises(GraphRefused, match="no image set"):
            server.queue({"load": load, "see": node("PreviewImage", images=["load", 1])})


def test_a_graph_changes_captions_only_where_the_owner_allows_it(server, dataset):
    manifest = server.base / "private datasets" / dataset / "manifest.jsonl"
    before = manifest.read_bytes()
    allow_edits(manifest.parent, False)
    edit = {
        "data": ours("Dataset", name=dataset),
        "captions": ours("Captions", dataset=["data", 0], edits="1: overwritten", show=False),
    }
    with pytest.raises(NodeFailed, match="diffusioncleft dataset allow-edits"):
        server.run(edit)
    assert manifest.read_bytes() == before


def test_a_graph_writes_into_no_run_of_the_command_line_and_no_set_it_did_not_make(server):
    output = server.base / "output"
    (output / "study" / "private" / "stages").mkdir(parents=True)
    made = output / "made by generate"
    made.mkdir()
    (made / "generation.json").write_text('{"schema": 1, "base": {}, "lora": null}')
    foreign = output / "foreign"
    foreign.mkdir()
    (foreign / "manifest.jsonl").write_text('{"file": "a.png"}\n')
    picture = {"picture": node("EmptyImage", width=16, height=16, batch_size=1, color=0)}

    def save(folder):
        return {**picture, "save": saving(["picture", 0], folder, show=False)}

    for folder in ("study", "study/generated/pre_op"):
        with pytest.raises(GraphRefused, match="run of the command line"):
            server.queue(save(folder))
    with pytest.raises(GraphRefused, match="private files"):
        server.queue(save("study/private/pre_op"))
    for folder in ("made by generate", "foreign"):
        with pytest.raises(NodeFailed, match="give another folder"):
            server.run(save(folder))
        assert not list((output / folder).glob("*.png"))


def test_a_link_out_of_the_output_folder_is_not_followed(server, dataset):
    output, private = server.base / "output", server.base / "private datasets" / dataset
    (output / "linked").symlink_to(private, target_is_directory=True)
    planted = output / "planted"
    planted.mkdir()
    image = json.loads((private / "manifest.jsonl").read_text().splitlines()[0])["file"]
    (planted / "manifest.jsonl").write_text(
        json.dumps({"file": f"../../private datasets/{dataset}/{image}"}) + "\n"
    )
    with pytest.raises(GraphRefused, match="no image set"):
        server.queue(
            {
                "load": ours("LoadImageSet", name="linked", which="all", start=0, limit=0),
                "see": node("PreviewImage", images=["load", 1]),
            }
        )
    with pytest.raises(NodeFailed, match="leads out of its folder") as refused:
        server.run(
            {
                "load": ours("LoadImageSet", name="planted", which="all", start=0, limit=0),
                "see": node("PreviewImage", images=["load", 1]),
            }
        )
    assert Path(image).name not in str(refused.value)


def test_a_lora_or_face_pack_is_named_not_reached_by_a_path(server):
    picture = {"picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0)}
    hostile = ours("ArtifactFilter", images=["picture", 0], enabled=True, faces="/tmp", **KINDS)
    with pytest.raises(GraphRefused, match="no face pack"):
        server.queue({**picture, "filter": hostile, "see": node("PreviewAny", source=["filter", 4])})
    save = saving(["picture", 0], "set/hostile", lora_name="../../input/x.safetensors", show=False)
    with pytest.raises(GraphRefused, match="there is no"):
        server.queue({**picture, "save": save})


def test_the_servers_own_routes_show_nothing_of_a_dataset(server, dataset, used):
    folder = server.base / "private datasets" / dataset
    image = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])["file"]
    assert server.get("/models/diffusioncleft_datasets") == []
    assert server.get("/experiment/models/diffusioncleft_datasets") == []
    quoted = urllib.parse.quote(f"{dataset}/{image}")
    for kind in ("diffusioncleft_datasets", "diffusioncleft_runs", "diffusioncleft_studies"):
        status, _ = server.raw(f"/experiment/models/preview/{kind}/0/{quoted}")
        assert status != 200
    (server.base / "models" / "loras" / "linked").symlink_to(folder, target_is_directory=True)
    up = urllib.parse.quote(f"../../private datasets/{dataset}/{image}")
    outside = (up, up.replace("/", "%2F"), urllib.parse.quote(f"/{folder}/{image}"), f"linked/{image}")
    for file in outside:
        for prefix in ("", "/api"):
            status, _ = server.raw(f"{prefix}/experiment/models/preview/loras/0/{file}")
            assert status == 404, file
    (server.base / "models" / "loras" / "own.png").write_bytes((folder / image).read_bytes())
    status, _ = server.raw("/experiment/models/preview/loras/0/own.safetensors")
    assert status == 200  # what lies in the folder is still shown
    (server.base / "models" / "loras" / "own.png").unlink()
    (server.base / "models" / "loras" / "linked").unlink()
    for place in ("input", "output", "temp"):
        query = {
            "filename": image.split("/")[-1],
            "subfolder": f"../private datasets/{dataset}/images",
            "type": place,
        }
        status, _ = server.raw("/view?" + urllib.parse.urlencode(query))
        assert status != 200


def test_a_dataset_that_the_server_would_show_is_refused(server, dataset):
    """Placed under ComfyUI's output folder by its owner, it is not used; the message says what to do."""
    source, shown = server.base / "private datasets" / dataset, server.base / "output" / "patients" / "d2"
    shown.mkdir(parents=True)
    for name in (".diffusioncleft-dataset", "manifest.jsonl"):
        (shown / name).write_bytes((source / name).read_bytes())
    try:
        with pytest.raises(GraphRefused, match="output folder, which its server shows to everyone"):
            server.queue({"d": ours("Dataset", name="d2"), "s": node("PreviewAny", source=["d", 1])})
    finally:
        shutil.rmtree(shown.parent)


def test_no_photograph_is_named_in_log_history_pictures_or_what_is_served(server, dataset, used):
    private = _private(server, dataset)
    with pytest.raises(GraphRefused) as refusal:
        server.queue(training(dataset, resolution="7"))
    damaged = server.base / "private datasets" / "damaged here"
    shutil.copytree(server.base / "private datasets" / dataset, damaged)
    shutil.rmtree(damaged / "cache", ignore_errors=True)  # as after a withdrawal
    for row in map(json.loads, (damaged / "manifest.jsonl").read_text().splitlines()):
        (damaged / row["file"]).write_bytes(b"")
    faces = ours("ReferenceSet", dataset=["data", 0], faces="auto")
    opening = {"data": ours("Dataset", name="damaged here"), "faces": faces}
    opening["count"] = node("PreviewAny", source=["faces", 0])
    failures = []
    for graph in (training("damaged here"), opening):
        with pytest.raises(NodeFailed) as failure:
            server.run(graph)
        failures.append(str(failure.value))
    shutil.rmtree(damaged)
    assert any("a photograph of damaged here: " in told for told in failures), failures
    said = {
        "log": server.log,
        "history": json.dumps(server.get("/history")),
        "outputs": used,
        "object_info": json.dumps(server.get("/object_info")),
        "message": f"{failures} {refusal.value}",
    }
    for place in ("output", "temp", "models/loras"):
        for path in sorted((server.base / place).rglob("*")):
            if path.is_file() and not path.resolve().is_relative_to(server.base / "private datasets"):
                said[str(path)] = path.name + path.read_bytes().decode("latin-1")
            if path.suffix == ".png" and path.is_file():
                said[f"{path} chunks"] = json.dumps(Image.open(path).info, default=str)
    for where, text in said.items():
        if "/planted/" in where:
            continue
        for secret in private:
            assert secret not in text, (where, secret)
    assert str(server.base / "private datasets" / dataset) not in said["history"] + said["message"]
