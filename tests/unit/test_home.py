"""A user without a name and a home folder, as containers have them: nothing asks for one."""

import os
import subprocess
import sys

import pytest

from diffusioncleft.cli.main import COMMANDS
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

STRANGER = ("unshare", "-U", "--map-user=12345", "--map-group=12345")
UNKNOWN = (
    "HOME",
    "USER",
    "LOGNAME",
    "LNAME",
    "USERNAME",
    "XDG_CACHE_HOME",
    "TORCH_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
)


@pytest.fixture(scope="module")
def stranger():
    """A function that runs the command as a user without name and home."""
    try:
        subprocess.run([*STRANGER, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody make a user namespace")
    environment = {name: value for name, value in os.environ.items() if name not in UNKNOWN}

    def run(*arguments, cwd=None):
        return subprocess.run(
            [*STRANGER, sys.executable, "-m", "diffusioncleft", *map(str, arguments)],
            cwd=cwd,
            env=environment | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.long
def test_every_command_shows_its_help_and_what_is_here(stranger):
    for arguments in [
        [],
        *([name, "--help"] for name in COMMANDS),
        ["weights", "list"],
        ["weights", "verify"],
    ]:
        result = stranger(*arguments)
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode in ((0, 2) if not arguments else (0, 1)), (arguments, result.stderr)


@pytest.mark.long
def test_a_dataset_is_built_and_trained_on(stranger, tmp_path):
    photos, dataset = tmp_path / "photos", tmp_path / "set"
    build = ["dataset", "build", photos, "--metadata", photos / "metadata.csv", "--condition", "pre_op"]
    train = ["train", "--phantom", "--train_data_dir", dataset, "--output_dir", tmp_path / "lora"]
    for arguments in (
        ["phantom", "render", "--condition", "pre_op", "--n", 3, "--out", photos],
        [*build, "--phantom", "--holdout", 0, "--out", dataset],
        [*train, "--max_train_steps", 1, "--resolution", 64],
    ):
        result = stranger(*arguments)
        assert result.returncode == 0, result.stderr
    assert not (tmp_path / "~").exists()


MEASURE = ["measure", "all=photos", "--metrics", "lpips", "--out", "figures.json"]
BUILD = ["dataset", "build", "photos", "--condition", "pre_op", "--out", "x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["weights", "fetch", "inception-fid"], "name a folder with --dir, or set HOME"),
        (["weights", "fetch", "buffalo_l"], "name a folder with --dir, or set HOME"),
        (["weights", "fetch", "flux1-schnell"], "name a folder with --dir, or set HOME"),
        (["weights", "list", "--dir", "~/weights"], "give the whole path, or set HOME"),
        ([*BUILD, "--faces", "~/pack"], "give the whole path, or set HOME"),
        (
            BUILD,
            "looked for nowhere: no home folder is known; pass the pack's folder",
        ),
        (
            MEASURE,
            "looked for nowhere: no home folder is known; run: diffusioncleft weights fetch",
        ),
        (["doctor", "--base", "~/flux"], "give the whole path, or set HOME"),
    ],
)
def test_what_needs_a_home_says_so_in_one_sentence(stranger, tmp_path, arguments, said):
    write_photographs(tmp_path / "photos", 1, "cleft", seed=0, size=64, subjects=1)
    result = stranger(*arguments, cwd=tmp_path)
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode != 0 and said in result.stderr + result.stdout
