"""`diffusioncleft comfy batch` on two real servers, of which one is killed: the pictures of one server."""

import json
import shutil
import threading
import time

import pytest
from comfy_server import ComfyServer, server_environment
from commands import run_command
from test_client import sampling

from diffusioncleft.diffusioncleft_core.conditions.plan_rows import PlanRow, write_plan
from diffusioncleft.diffusioncleft_core.files import read_jsonl

ROWS = 10
ENOUGH = 600


@pytest.fixture
def other(comfyui, tmp_path):
    running = ComfyServer(comfyui, tmp_path / "other", server_environment())
    running.start()
    yield running
    running.kill()


@pytest.mark.long
def test_two_servers_of_which_one_dies_draw_the_pictures_of_one(server, other, tmp_path):
    (tmp_path / "workflow.json").write_text(json.dumps(sampling(4)))
    rows = [PlanRow(i, f"a photo of person {i}", 50 + i, {}, "pre_op") for i in range(ROWS)]
    write_plan(tmp_path / "plan.jsonl", rows)

    def batch(name, *servers, patience):
        words = ["comfy", "batch", tmp_path / "workflow.json", "--plan", tmp_path / "plan.jsonl"]
        words += ["--prompt-input", "2.text", "--seed-input", "4.seed", "--out", tmp_path / name]
        words += [word for one in servers for word in ("--server", one.url)]
        done = run_command(*words, "--patience", patience, cwd=tmp_path, timeout=ENOUGH)
        assert done.returncode == 0, done.stderr
        assert f"{ROWS} rows done, 0 done before, 0 failed" in done.stdout
        return done, {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")}

    def end():
        drawn = other.base / "output" / "client"
        while len(list(drawn.glob("*.png"))) < 2:
            time.sleep(0.05)
        other.kill()

    _, alone = batch("alone", server, patience=60)
    shutil.rmtree(server.base / "output" / "client", ignore_errors=True)
    threading.Thread(target=end, daemon=True).start()
    done, shared = batch("shared", server, other, patience=5)
    assert "is gone: its rows go to the other servers" in done.stderr
    assert sorted(shared) == sorted(alone) and len(alone) == ROWS
    assert [name for name in alone if shared[name] != alone[name]] == []
    assert [row["seed"] for row in read_jsonl(tmp_path / "shared" / "manifest.jsonl")] == [
        50 + i for i in range(ROWS)
    ]
