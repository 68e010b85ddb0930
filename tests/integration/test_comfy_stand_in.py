"""`diffusioncleft comfy run` on servers that misbehave: it always ends, with the result or one sentence."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import offline_environment, run_command
from stand_in_comfyui import GRAPH, MODES, StandIn

from diffusioncleft.diffusioncleft_core.conditions.plan_rows import PlanRow, write_plan
from diffusioncleft.diffusioncleft_core.files import read_jsonl
from diffusioncleft.diffusioncleft_core.filters.decisions import readmit, reject
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set

ENOUGH = 60
"""Seconds after which a command that takes a few counts as waiting for ever."""
PLANNED = ("chatter_missed_end", "slow_history", "pings")
REFUSED = {
    "html": "/object_info answered no JSON; check that --server names a ComfyUI server",
    "html_later": "answered no JSON; check that --server names a ComfyUI server",
    "html_picture": "as an output and does not have it; run the command again",
    "image_missing": "as an output and does not have it; run the command again",
    "no_history": "has not answered for 3 s; start ComfyUI, or check --server, and run the same command",
    "forgets": "the server lost the prompt again and again; see its log, then run the same command again",
}


@contextlib.contextmanager
def standing_in(mode: str) -> Iterator[StandIn]:
    server = StandIn(mode)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Ended:
    """A command that ran on a stand-in, the folder of its pictures, and the prompts that were posted."""

    done: subprocess.CompletedProcess[str]
    out: Path
    queued: tuple[str, ...]
    posts: int


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, Ended]:
    """`comfy run` of the one-node graph on a stand-in of each kind, side by side: they mostly wait."""
    root, environment = tmp_path_factory.mktemp("ended"), offline_environment()
    workflow = root / "workflow.json"
    workflow.write_text(json.dumps(GRAPH))
    write_plan(root / "plan.jsonl", [PlanRow(i, f"face {i}", i, {}, "pre_op") for i in range(3)])
    rows = ["--plan", root / "plan.jsonl", "--prompt-input", "1.text", "--seed-input", "1.seed"]

    def run(name: str) -> Ended:
        mode, _, plan = name.partition(" ")
        out, patience = root / name, 3 if mode in REFUSED else 30
        with standing_in(mode) as server:
            words = ["comfy", "run", workflow, "--server", server.url, "--out", out, "--patience", patience]
            done = run_command(*words, *(rows if plan else ()), cwd=root, env=environment, timeout=ENOUGH)
            return Ended(done, out, tuple(server.queued), server.posts)

    names = [*MODES, *(f"{mode} plan" for mode in PLANNED)]
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(run, names), strict=True))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in REFUSED])
def test_a_prompt_that_ends_is_fetched_whatever_the_websocket_brings(ended, mode):
    run = ended[mode]
    assert run.done.returncode == 0, run.done.stderr
    assert "1 Draw: made" in run.done.stdout
    (name,) = run.queued
    assert (run.out / f"{name}.png").is_file()
    assert run.posts == 1, "the prompt was queued twice"


@pytest.mark.parametrize("mode", REFUSED)
def test_a_server_that_gives_no_result_is_told_in_one_sentence(ended, mode):
    run = ended[mode]
    assert run.done.returncode == 2
    assert REFUSED[mode] in run.done.stderr.splitlines()[-1]
    assert "Traceback" not in run.done.stderr
    assert not list(run.out.rglob("*.png"))


@pytest.mark.parametrize("mode", PLANNED)
def test_a_plan_ends_with_every_row_queued_once(ended, mode):
    run = ended[f"{mode} plan"]
    assert run.done.returncode == 0, run.done.stderr
    assert "3 rows done, 0 done before, 0 failed" in run.done.stdout
    assert run.posts == 3
    assert sorted(path.name for path in run.out.glob("*.png")) == [f"{i:06d}_{i}.png" for i in range(3)]


def share(command, tmp_path, servers, n, *options, patience=30.0):
    """Run a plan of n rows on several stand-ins; the finished process."""
    (tmp_path / "workflow.json").write_text(json.dumps(GRAPH))
    write_plan(tmp_path / "plan.jsonl", [PlanRow(i, f"face {i}", i, {}, "pre_op") for i in range(n)])
    words = ["comfy", "batch", tmp_path / "workflow.json", "--plan", tmp_path / "plan.jsonl"]
    words += ["--prompt-input", "1.text", "--seed-input", "1.seed", "--out", tmp_path / "out"]
    where = [word for server in servers for word in ("--server", server.url)]
    return command(*words, *where, *options, "--patience", patience, timeout=2 * ENOUGH)


def names_in(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_several_servers_share_the_rows_and_the_set_is_as_from_one(command, tmp_path):
    with standing_in("ok") as one, standing_in("ok") as other:
        done = share(command, tmp_path, [one, other], 8)
        assert done.returncode == 0, done.stderr
        assert "8 rows done, 0 done before, 0 failed" in done.stdout
        assert one.posts
        assert other.posts
        assert one.posts + other.posts == 8
    assert names_in(tmp_path / "out") == [f"{i:06d}_{i}.png" for i in range(8)]
    assert [row["seed"] for row in read_jsonl(tmp_path / "out" / "manifest.jsonl")] == list(range(8))


def test_a_picture_that_a_person_set_aside_stays_aside_when_the_batch_runs_again(command, tmp_path):
    aside, out = "000001_1.png", tmp_path / "out"

    def verdicts():
        return {row.file: row.reasons for row in read_image_set(out)}

    with standing_in("ok") as server:
        share(command, tmp_path, [server], 3)
        reject(out, [aside])
        assert "0 rows done, 3 done before" in share(command, tmp_path, [server], 3).stdout
        assert server.posts == 3
        decided = {"000000_0.png": [], f"rejected/{aside}": ["person"], "000002_2.png": []}
        assert verdicts() == decided
        assert not (out / aside).exists()
        assert "0 rows done, 1 done before" in share(command, tmp_path, [server], 3, "--rows", 1).stdout
        assert list(verdicts()) == ["000000_0.png"]
        assert "0 rows done, 3 done before" in share(command, tmp_path, [server], 3).stdout
        assert verdicts() == decided
        readmit(out, [aside])
        assert "0 rows done, 3 done before" in share(command, tmp_path, [server], 3).stdout
        assert verdicts() == {"000000_0.png": [], aside: [], "000002_2.png": []}


def test_a_picture_that_is_drawn_again_is_free_of_the_old_ones_verdict(command, tmp_path):
    aside, out = "000001_1.png", tmp_path / "out"
    with standing_in("ok") as server:
        share(command, tmp_path, [server], 2)
        reject(out, [aside])
        (out / "rejected" / aside).unlink()
        assert "1 row done, 1 done before" in share(command, tmp_path, [server], 2).stdout
    assert [(row.file, row.accepted) for row in read_image_set(out)] == [
        ("000000_0.png", None),
        (aside, None),
    ]


class Mortal:
    """A stand-in that is a process of its own, and can be killed."""

    def __init__(self):
        code = "import time; from stand_in_comfyui import StandIn; print(StandIn('ok').url, flush=True); "
        code += "time.sleep(600)"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_a_server_that_dies_gives_its_rows_back(command, tmp_path):
    with standing_in("ok") as one:
        other = Mortal()

        def end():
            while len(names_in(tmp_path / "out")) < 2:
                time.sleep(0.01)
            other.kill()

        threading.Thread(target=end, daemon=True).start()
        done = share(command, tmp_path, [one, other], 12, patience=2)
        assert done.returncode == 0, done.stderr
        assert "is gone: its rows go to the other servers" in done.stderr
        assert "12 rows done, 0 done before, 0 failed" in done.stdout
    assert names_in(tmp_path / "out") == [f"{i:06d}_{i}.png" for i in range(12)]
    assert [row["seed"] for row in read_jsonl(tmp_path / "out" / "manifest.jsonl")] == list(range(12))


def test_a_server_that_is_named_twice_or_missing_is_told_at_once(command, tmp_path):
    with standing_in("ok") as one:
        twice = share(command, tmp_path, [one, one], 1)
        assert "names one server twice" in twice.stderr
        gone = StandIn("ok")
        gone.close()
        missing = share(command, tmp_path, [one, gone], 1)
        assert "nothing answers at" in missing.stderr
        assert twice.returncode == missing.returncode == 2
        assert not one.posts
