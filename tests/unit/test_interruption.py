"""A Ctrl-C that Python drops, because it met a destructor, stops the work at its next part."""

import pytest

DROPPED = """
import os, signal, sys
from pathlib import Path
from diffusioncleft.diffusioncleft_core.interruption import interrupt
signal.signal(signal.{name}, interrupt)

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        [0 for _ in range(1000)]

def work(*_):
    item = Dropped()
    del item
    print("went on")
    return {{}}
"""
STAGE = """
from diffusioncleft.diffusioncleft_core.run.stages import Stage, Stages

stages = Stages(Path("run"), Path("run/private"))
try:
    stages.run(Stage("first", lambda: {{}}, [], work))
except KeyboardInterrupt:
    print("stopped")
"""
IMAGES = """
from diffusioncleft.diffusioncleft_core.progress import progress

try:
    for _ in progress(range(3), "images"):
        work()
except KeyboardInterrupt:
    print("stopped")
"""
PROMPT = """
from diffusioncleft.cli.comfyui.watch import Watcher

class Busy:
    patience = 1.0
    def is_queued(self, prompt):
        return True
    def history(self, prompt):
        return work() or None

watcher = Watcher(Busy())
watcher._receive = lambda: None
try:
    watcher.wait("prompt", work)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("part", [STAGE, IMAGES, PROMPT], ids=["stage", "images", "prompt"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_that_a_destructor_swallows_is_not_forgotten(python, part, name):
    done = python("-c", (DROPPED + part).format(name=name))
    assert done.stdout.split("\n")[:2] == ["went on", "stopped"], done.stdout + done.stderr
    assert "Exception ignored" in done.stderr
