"""A plan on a server, client and server killed on the way: both sets end with each row once."""

import json
import random
import time
from pathlib import Path

import pytest
from commands import run_command, start_command
from graphs import PROMPT, drawing, node, saving

from diffusioncleft.diffusioncleft_core.conditions.plan_rows import PlanRow, write_plan
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file

ROWS = 10


def assert_whole(folder: Path, count: int) -> None:
    """Exactly `count` pictures, sidecars and rows of the manifest, each belonging to the other two."""
    rows = read_jsonl(folder / "manifest.jsonl")
    assert len({(row["prompt"], row["seed"]) for row in rows}) == len(rows) == count
    assert len(list(folder.rglob("*.png"))) == count
    assert len([path for path in folder.rglob("*.json") if path.name != "generation.json"]) == count
    for row in rows:
        sidecar = json.loads((folder / row["file"]).with_suffix(".json").read_text())
        assert sidecar["png_sha256"] == sha256_file(folder / row["file"])
        assert (sidecar["prompt"], sidecar["seed"]) == (row["prompt"], row["seed"])


@pytest.mark.long
def test_client_and_server_killed_at_random_points_leave_no_picture_twice(server, tmp_path):
    chance = random.Random(1)
    there, here = server.base / "output" / "crashed", tmp_path / "set"
    graph = drawing(side=64) | {"save": saving(["picture", 0], there.name, show=False)}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    rows = [PlanRow(i, f"{PROMPT} Number {i}.", 40 + i, {}, "pre_op") for i in range(ROWS)]
    write_plan(tmp_path / "plan.jsonl", rows)
    command = ["comfy", "run", tmp_path / "graph.json"]
    command += ["--server", server.url, "--out", here, "--plan", tmp_path / "plan.jsonl"]
    command += ["--prompt-input", "text.text", "--seed-input", "sample.seed", "--ahead", "3"]

    for target in sorted(chance.sample(range(1, ROWS), 3)):
        client = start_command(*command)
        deadline = time.monotonic() + 120
        while len(list(there.glob("*.png"))) < target and client.poll() is None:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.005)
        time.sleep(chance.random() / 10)
        for kill in chance.sample([client.kill, server.kill], 2):
            kill()
        client.wait()
        server.start()
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    assert_whole(there, ROWS)
    assert_whole(here, ROWS)
    (here / "batch.jsonl").unlink()
    assert run_command(*command).returncode == 0
    assert_whole(there, ROWS)
    assert_whole(here, ROWS)


@pytest.mark.long
def test_a_row_saved_again_is_kept_and_one_made_otherwise_is_added(server):
    """Same prompt, same seed: the same picture, unless size, steps or what follows the sampler differ."""
    folder = "known rows"
    save = {"save": saving(["picture", 0], folder, show=False)}
    number = {"number": node("PrimitiveInt", value=5)}
    usual = drawing() | save
    steps = json.loads(json.dumps(usual))
    steps["sample"]["inputs"]["steps"] = 3
    flipped = json.loads(json.dumps(usual)) | {"turn": node("ImageInvert", image=["picture", 0])}
    flipped["save"]["inputs"]["images"] = ["turn", 0]
    linked = drawing(seed=["number", 0]) | number | save
    other = drawing(seed=["number", 0]) | {"number": node("PrimitiveInt", value=6)} | save
    told = []
    for graph in (usual, drawing(side=64) | save, steps, flipped, linked, other) * 2:
        told.append(server.run(graph)["save"]["text"][0])
        server.raw("/free", {"unload_models": False, "free_memory": True})
    assert [text.split(": ")[1].split(",")[0] for text in told] == ["1 saved"] * 6 + ["0 saved"] * 6
    assert told[-1].endswith("6 in all")


def test_pictures_of_one_batch_are_each_kept_and_known_again(server):
    graph = drawing(side=64) | {"save": saving(["picture", 0], "known batch", show=False)}
    graph["size"]["inputs"]["batch_size"] = 3
    assert server.run(graph)["save"]["text"] == ["known batch: 3 saved, 3 in all"]
    graph["save"]["inputs"]["show"] = True
    assert server.run(graph)["save"]["text"] == ["known batch: 0 saved, 3 were there, 3 in all"]
