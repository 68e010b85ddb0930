"""Two commands in one folder: the second is refused with one sentence, and a kill leaves no lock behind."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from tiny_runs import photographed, settings_of

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.run.pipeline import plan_run, run_lock, run_pipeline

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")

DRAWS = """
import sys, time
from diffusioncleft.cli.generate import configure
from diffusioncleft.cli import main
from diffusioncleft.diffusioncleft_core.generation import generate as drawing

draw = drawing.generate

def slow(*arguments, **more):
    def stay(done, total):
        print("drawn", flush=True)
        time.sleep(600)
    return draw(*arguments, **more, on_image=stay)

drawing.generate = slow
main.main(sys.argv[1:])
"""
RUNS = """
import sys, time
from pathlib import Path
from tiny_runs import photographed, settings_of, train_here
from diffusioncleft.diffusioncleft_core.run.pipeline import run_pipeline

def say(line):
    print(line, flush=True)
    time.sleep(600)

run_pipeline(settings_of(Path(sys.argv[1]), "pre_op"), train_here, say=say)
"""


@contextmanager
def at_work(script, *arguments, env):
    """A process that is in the middle of its work; killed at the end."""
    line = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline()
            yield child
        finally:
            child.send_signal(signal.SIGKILL)


def test_a_second_process_in_a_set_is_refused_until_the_first_is_killed(command, offline_env, tmp_path):
    out = tmp_path / "set"
    draw = (
        "generate",
        "--phantom",
        "--n",
        2,
        "--condition",
        "pre_op",
        "--steps",
        1,
        "--batch",
        1,
        "--out",
        out,
    )
    look = ("filter", out, "--artifacts-only", "--phantom")
    with at_work(DRAWS, *draw, env=offline_env) as first:
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for second in (draw, look):
            refused = command(*second)
            assert refused.returncode == 2
            assert refused.stderr.splitlines() == [
                f"diffusioncleft: error: process {first.pid} is at work in the set {out}; wait for it, or "
                "stop it, and run this again"
            ]
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    done = command(*draw)
    assert done.returncode == 0, done.stderr
    assert "1 image drawn, 1 there before" in done.stdout


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_killed(offline_env, repository, tmp_path):
    settings = settings_of(tmp_path, "pre_op")
    photographed(tmp_path, "pre_op", 2)
    write_healthy(tmp_path / "healthy", 1, 5)
    path = os.pathsep.join([offline_env["PYTHONPATH"], str(repository / "tests")])
    with at_work(RUNS, tmp_path, env={**offline_env, "PYTHONPATH": path}) as first:
        with pytest.raises(UserError, match=f"process {first.pid} is at work on the run"):
            run_pipeline(settings, lambda *arguments: pytest.fail("it trained"))
        assert plan_run(settings)
    with run_lock(RunFolders(settings.out)):
        assert not (settings.out / "generated").exists()
