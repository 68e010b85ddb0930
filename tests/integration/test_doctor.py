"""The whole field test on the phantom, as a user starts it: real steps, a real trainer, a real diffusers."""

import json
import os
import platform

import pytest

from diffusioncleft.cli.checkup.examination import BEGIN, END

SECRETS = ("Jane", "Roe", "jroe-home", "jroe-tmp", "jroe-user", "jroe-host", "clinic")


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """The finished process, its JSON, and the folder for temporary files: all with telling names."""
    import subprocess
    import sys
    from pathlib import Path

    top = tmp_path_factory.mktemp("doctor")
    here, home, temporary = top / "Jane Roe clinic", top / "jroe-home", top / "jroe-tmp"
    for folder in (here, home, temporary):
        folder.mkdir()
    offline = Path(__file__).resolve().parents[1] / "offline"
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    env |= {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "USER": "jroe-user",
        "LOGNAME": "jroe-user",
        "HOSTNAME": "jroe-host",
        "PYTHONPATH": str(offline),
        "PYTHONUTF8": "1",
        "DIFFUSIONCLEFT_REQUIRE_CONSENT": "1",  # its own pictures need none
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "diffusioncleft",
            "doctor",
            "--phantom",
            "--device",
            "cpu",
            "--json",
            "Jane Roe.json",
        ],
        cwd=here,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads((here / "Jane Roe.json").read_text("utf-8")), temporary


def test_every_step_that_a_phantom_allows_is_ok(examined):
    _, told, _ = examined
    outcomes = {step["name"]: step["outcome"] for step in told["steps"]}
    assert told["ok"] and told["counts"]["failed"] == 0
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} <= {
        "schnell", "training adapter", "measuring models",
    }  # fmt: skip


def test_it_measures_what_a_user_wants_to_know(examined):
    _, told, _ = examined
    figures = {step["name"]: step["figures"] for step in told["steps"]}
    assert figures["training"]["steps"] == 10 and figures["training"]["step_seconds"] > 0
    assert (figures["training"]["device"], figures["training"]["dtype"]) == ("cpu", "float32")
    assert figures["training"]["trainer_host_peak_gib"] > 0.1
    assert figures["transformer"]["image_seconds"] > 0 and figures["transformer"]["host_peak_gib"] > 0.1
    assert figures["reload"]["psnr_db"] >= 40 > figures["reload"]["without_lora_db"]
    assert figures["reload"]["preview_db"] >= 40
    assert figures["estimate"]["photographs"] == 301 and figures["estimate"]["disk_gib"] > 0
    assert figures["face"]["faces"] == 1 and figures["filters"]["image_seconds"] > 0
    assert {"torch", "diffusers", "python", "memory_gib", "device"} <= figures["environment"].keys()


def test_nothing_that_it_says_names_a_person_a_computer_or_a_path(examined):
    done, told, _ = examined
    for text in (done.stdout, done.stderr, json.dumps(told)):
        for secret in (*SECRETS, platform.node()):
            assert len(secret) < 4 or secret not in text, secret
        assert "/tmp" not in text and "site-packages" not in text
    block = done.stdout
    assert block.startswith(BEGIN) and block.rstrip().endswith(END)
    assert "they say nothing about FLUX.1" in block and ".safetensors" not in block


def test_it_leaves_nothing_behind(examined):
    _, _, temporary = examined
    assert [
        path.name for path in temporary.rglob("*") if "doctor" in path.name or path.suffix == ".png"
    ] == []
