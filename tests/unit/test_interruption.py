"""A Ctrl-C that Python drops, because it met a destructor, stops a run at its next stage."""

import pytest

SCRIPT = """
import os, signal, sys
from pathlib import Path
from diffusioncleft.diffusioncleft_core.interruption import interrupt
from diffusioncleft.diffusioncleft_core.run.stages import Stage, Stages
signal.signal(signal.{name}, interrupt)

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        [0 for _ in range(1000)]

def work():
    item = Dropped()
    del item
    print("went on")
    return {{}}

stages = Stages(Path("run"), Path("run/private"))
try:
    stages.run(Stage("first", lambda: {{}}, [], work))
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_that_a_destructor_swallows_is_not_forgotten(python, name):
    done = python("-c", SCRIPT.format(name=name))
    assert done.stdout.split("\n")[:2] == ["went on", "stopped"], done.stdout + done.stderr
    assert "Exception ignored" in done.stderr
