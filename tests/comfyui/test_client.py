"""`diffusioncleft comfy run` on a real server: outputs, failures, lost connections, plans with resume."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from proxy import Proxy

from diffusioncleft.cli import main as cli
from diffusioncleft.cli.comfyui.run import run_graph
from diffusioncleft.cli.comfyui.server import ComfyServer
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import PlanRow, write_plan

SAVE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 2, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "client/saved"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
MOST_STEPS = 10_000


def sampling(steps, seed=0):
    """A graph that takes long and reports each step."""
    return {
        "1": {"class_type": "DiffusionCleft_PhantomLoader", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a face"}},
        "3": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "negative": ["2", 0],
                "latent_image": ["3", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {
            "class_type": "SaveImage",
            "inputs": {"images": ["5", 0], "filename_prefix": f"client/{steps}"},
        },
    }


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(SAVE))
    return path


@pytest.fixture
def run(server, workflow, tmp_path, capsys):
    """Run the command in this process; status, and both streams."""

    def call(*arguments, out="out", url=server.url, action="run"):
        where = ["--out", str(tmp_path / out)] if action == "run" else []
        status = cli.main(["comfy", action, str(workflow), "--server", url, *where, *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def queue_is_empty(server):
    return not any(server.get("/queue").values())


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_every_output_of_every_node_is_downloaded_as_the_server_has_it(server, run, tmp_path):
    status, out, _ = run("--set", "EmptyImage.color=65280")
    assert status == 0 and "4 files" in out
    outputs = json.loads((tmp_path / "out" / "outputs.json").read_text())
    saved = outputs["2"]["files"]
    assert len(saved) == len(outputs["3"]["files"]) == 2
    for name in saved:
        content = (tmp_path / "out" / name).read_bytes()
        assert name.startswith("client/")
        assert content == (server.base / "output" / name).read_bytes()


def test_a_pipe_is_told_what_runs(run, monkeypatch):
    monkeypatch.setenv("DIFFUSIONCLEFT_PROGRESS", "1")
    status, _, error = run("--set", "EmptyImage.color=4711")
    assert status == 0 and "nodes: 3/3\n" in error


def test_a_failing_node_ends_the_command_with_its_message(run):
    status, _, error = run("--set", "SaveImage.filename_prefix=../../../../evil")
    assert status == 2
    assert "node 2 (SaveImage) failed:" in error and "outside the output folder" in error
    assert "Traceback" not in error and error.count("\n") == 1


def test_a_graph_that_the_server_refuses_names_node_and_input(run, workflow):
    graph = {
        **SAVE,
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ["9", 0]}},
    }
    workflow.write_text(json.dumps(graph))
    status, _, error = run()
    assert status == 2 and "the server refused the workflow" in error and "2 (SaveImage)" in error


@pytest.mark.parametrize(
    "setting",
    [
        "Nobody.width=1",
        "EmptyImage.widht=1",
        "EmptyImage.width=1;rm",
        "SaveImage.images=x",
        "1.width=0",
        "x",
        "=",
    ],
)
def test_a_hostile_setting_queues_nothing_and_lists_what_is_allowed(server, run, setting):
    before = len(server.get("/history"))
    status, _, error = run("--set", setting)
    assert status == 2 and error.count("\n") == 1 and "Traceback" not in error
    assert len(server.get("/history")) == before and queue_is_empty(server)


def test_a_missing_server_and_a_file_that_is_no_workflow_are_told_at_once(run, workflow):
    status, _, error = run(url="http://127.0.0.1:9")
    assert status == 2 and "nothing answers at http://127.0.0.1:9" in error
    workflow.write_text("[]")
    status, _, error = run()
    assert status == 2 and "no ComfyUI workflow" in error


def test_what_can_be_set_is_listed_and_a_workflow_is_converted(run, tmp_path):
    status, out, _ = run(action="inputs")
    assert status == 0 and "2.filename_prefix = 'client/saved'" in out
    status, _, _ = run(tmp_path / "api.json", action="convert")
    assert status == 0
    assert json.loads((tmp_path / "api.json").read_text())["1"]["inputs"] == SAVE["1"]["inputs"]


def test_a_run_outlives_the_connections_it_follows_by(server, tmp_path):
    proxy = Proxy(server.port)
    graph = sampling(steps=300)
    finished = {}
    cuts = 0

    def follow():
        client = ComfyServer(f"http://127.0.0.1:{proxy.port}")
        finished["outputs"] = run_graph(client, graph, tmp_path / "out", say=lambda text: None)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: server.get("/queue")["queue_running"])
    while cuts < 2 and server.get("/queue")["queue_running"]:
        connections = proxy.connections
        proxy.cut()
        cuts += 1
        until(lambda known=connections: proxy.connections > known)
    thread.join(90)
    proxy.close()
    assert cuts
    (name,) = finished["outputs"]["6"].files
    assert (tmp_path / "out" / name).stat().st_size > 100


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_prompt_off_the_server_and_leaves_the_others(
    server, workflow, tmp_path, offline_env, asked
):
    workflow.write_text(json.dumps(sampling(MOST_STEPS)))
    command = [sys.executable, "-m", "diffusioncleft", "comfy", "run", str(workflow)]
    process = subprocess.Popen(
        [*command, "--server", server.url, "--out", str(tmp_path / "out")],
        env=offline_env,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: server.get("/queue")["queue_running"])
        other = server.queue(SAVE)
        process.send_signal(asked)
        _, error = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        server.interrupt()  # or the next test finds it busy
        raise
    assert process.returncode == 130, error
    assert server.wait(other)["status"]["status_str"] == "success"
    assert queue_is_empty(server)


@pytest.mark.long
def test_a_prompt_that_a_restarted_server_lost_is_queued_again(server, tmp_path):
    told, finished = [], {}

    def follow():
        finished["outputs"] = run_graph(ComfyServer(server.url), sampling(201), tmp_path, say=told.append)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: server.get("/queue")["queue_running"])
    server.kill()
    server.start()
    thread.join(120)
    assert any("queued again" in text for text in told)
    assert len(finished["outputs"]["6"].files) == 1


def plan_of(path, prompts):
    rows = [PlanRow(i, text, 100 + i, {"skin": "dark"}, "pre_op") for i, text in enumerate(prompts)]
    write_plan(path, rows)
    return rows


def journal(folder):
    return [json.loads(line) for line in (folder / "batch.jsonl").read_text().splitlines()]


def test_a_batch_goes_on_after_a_failed_row_and_the_same_command_tries_only_that_one_again(run, tmp_path):
    plan, folder = tmp_path / "plan.jsonl", tmp_path / "set"
    rows = plan_of(plan, ["client/a", "../../../../evil", "client/b", "client/c"])
    batch = ["--plan", plan, "--prompt-input", "SaveImage.filename_prefix", "--seed-input", "1.color"]
    batch += ["--set", "1.batch_size=1"]
    status, out, error = run(*batch, "--rows", "3", out="set")
    assert status == 2 and "2 rows done, 0 done before, 1 failed" in out and "1 of 3 rows failed (1)" in error
    assert [row["status"] for row in journal(folder)] == ["done", "failed", "done"]
    assert "outside the output folder" in journal(folder)[1]["message"]
    status, out, _ = run(*batch, out="set")
    assert "1 row done, 2 done before, 1 failed" in out
    assert [row["index"] for row in journal(folder)] == [0, 1, 2, 1, 3]
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [row["file"] for row in manifest] == [f"{i:06d}_{100 + i}.png" for i in (0, 2, 3)]
    assert manifest[0] | {"prompt": rows[0].prompt, "seed": 100, "width": 64, "height": 48} == manifest[0]
    assert all((folder / row["file"]).is_file() for row in manifest)


def test_a_batch_makes_a_row_again_when_its_graph_changed_or_its_file_is_gone(run, tmp_path):
    plan, folder = tmp_path / "plan.jsonl", tmp_path / "set"
    plan_of(plan, ["client/a", "client/b"])
    batch = ["--plan", plan, "--prompt-input", "2.filename_prefix", "--seed-input", "1.color"]
    assert "2 rows done, 0 done before" in run(*batch, out="set")[1]
    assert "0 rows done, 2 done before" in run(*batch, out="set")[1]
    (folder / "000001_101.png").unlink()
    assert "1 row done, 1 done before" in run(*batch, out="set")[1]
    assert "2 rows done, 0 done before" in run(*batch, "--set", "1.width=32", out="set")[1]


def test_a_batch_stops_when_everything_fails(run, tmp_path):
    plan = tmp_path / "plan.jsonl"
    plan_of(plan, ["../../../../evil"] * 20)
    batch = ["--plan", plan, "--prompt-input", "2.filename_prefix", "--most-failures", "3"]
    status, _, error = run(*batch, out="set")
    assert status == 2 and "3 rows in a row failed" in error
    assert len(journal(tmp_path / "set")) == 3


def test_an_interrupted_batch_goes_on_with_the_rows_that_are_left(
    server, run, workflow, tmp_path, offline_env
):
    plan, folder = tmp_path / "plan.jsonl", tmp_path / "set"
    plan_of(plan, [f"client/row{i}" for i in range(400)])
    batch = ["--plan", str(plan), "--prompt-input", "2.filename_prefix", "--seed-input", "1.color"]
    command = [sys.executable, "-m", "diffusioncleft", "comfy", "run", str(workflow), "--server", server.url]
    process = subprocess.Popen([*command, "--out", str(folder), *batch], env=offline_env)
    until(lambda: (folder / "batch.jsonl").exists() and len(journal(folder)) >= 3)
    listed = (folder / "manifest.jsonl").read_text().splitlines()
    assert len(listed) >= 2, "the manifest grows with the rows"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert queue_is_empty(server)
    done = len(journal(folder))
    assert 3 <= done < 400
    status, out, _ = run(*batch, "--rows", str(done + 2), out="set")
    assert status == 0 and f"2 rows done, {done} done before, 0 failed" in out
    assert [row["index"] for row in journal(folder)] == list(range(done + 2))
