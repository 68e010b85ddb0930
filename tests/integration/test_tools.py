"""The scripts that measure the embedded models come to their end, also on the fewest pictures."""

import json

import pytest
from commands import run_module

CALLS = {
    "study_coverage": ["--studies", "20", "--no-ordinal", "--out", "figures/figures.json"],
    "evaluate_oracle": ["--n", "2", "--out", "figures"],
    "recipe_sweep": [
        *("--recipes", "rank16-balanced", "--conditions", "pre_op", "--steps", "2", "--strengths", "1"),
        *("--n", "1", "--phantoms", "16", "--work", "work", "--out", "figures/figures.json"),
    ],
    "memorisation": [
        *("--people", "3", "--ranks", "2", "--steps", "1", "--captions", "trigger", "--n", "2"),
        *("--work", "work", "--out", "figures/figures.json", "--plot", "figures/a.png"),
    ],
    "evaluate_steps": [
        *("--n", "2", "--seeds", "1", "--people", "3", "--steps", "2", "--every", "1"),
        *("--adapter-steps", "1", "--adapter-images", "5", "--work", "work"),
        *("--straighten-steps", "2", "--straighten-pictures", "8"),
        *("--out", "figures/figures.json", "--plot", "figures/a.png"),
    ],
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

SLOW = ("evaluate_steps", "recipe_sweep", "study_coverage")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in CALLS]
)
def test_a_measuring_script_writes_its_figures(name, tmp_path):
    (tmp_path / "figures").mkdir()
    done = run_module(f"diffusioncleft.tools.{name}", *CALLS[name], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # Beside them may lie a sheet of pictures, a.png, with its record.
    (figures,) = (path for path in (tmp_path / "figures").glob("*.json") if path.name != "a.json")
    assert json.loads(figures.read_text("utf-8"))
