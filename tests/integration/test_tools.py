"""The scripts that measure the embedded models come to their end, also on the fewest pictures."""

import json
import os
import subprocess
import sys

import pytest

CALLS = {
    "evaluate_oracle": ["--n", "2", "--out", "figures"],
    "evaluate_base": [
        "--n",
        "1",
        "--batch",
        "5",
        "--out",
        "figures/figures.json",
        "--sheet",
        "figures/a.png",
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_measuring_script_writes_its_figures(name, offline_env, tmp_path):
    (tmp_path / "figures").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", f"diffusioncleft.tools.{name}", *CALLS[name]],
        cwd=tmp_path,
        env={**os.environ, **offline_env},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (figures,) = (tmp_path / "figures").glob("*.json")
    assert json.loads(figures.read_text("utf-8"))
