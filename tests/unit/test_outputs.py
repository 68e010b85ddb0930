"""Outputs that can't be written are refused before the work, not after it."""

import os
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.outputs import can_write, check_output

GRID = ("--grid-loras", "absent.safetensors", "--grid-strengths", "1")
DRAW = ("generate", "--phantom", "--device", "cpu", "--n", "1", "--condition", "pre_op")
COMMANDS = {
    "measure": ("measure", "absent", "--out", "OUT/figures.json"),
    "report": ("report", "report.json", "--measured", "absent", "--out", "OUT/report.html"),
    "plots of a report": ("report", "report.json", "--measured", "absent", "--out", "OUT/../page.html"),
    "doctor": ("doctor", "--base", "absent", "--json", "OUT/result.json"),
    "lora convert": ("lora", "convert", "absent.safetensors", "OUT/lora.safetensors"),
    "plan": ("plan", "--condition", "absent", "--n", "1", "--out", "OUT/plan.jsonl"),
    "generate": (*DRAW, "--lora", "absent.safetensors", "--out", "OUT/images"),
    "grid": (*DRAW, *GRID, "--out", "OUT/grid"),
    "comfy run": ("comfy", "run", "absent.json", "--out", "OUT/made"),
    "comfy convert": ("comfy", "convert", "absent.json", "OUT/api.json"),
}
"""Each has a second fault, which the work would meet first."""


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_can_not_be_written_is_refused_before_anything_else(
    name, read_only_folder, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "report.json", {"schema": 1, "sets": {}})
    out = read_only_folder
    if name == "plots of a report":
        (tmp_path / "page.figures").symlink_to(out)
    error = refused(*(word.replace("OUT", str(out)) for word in COMMANDS[name]))
    assert "no permission to write" in error
    assert "absent" not in error
    assert os.listdir(out) == []


def test_what_is_asked_of_a_place_is_its_next_folder_and_nothing_is_left(tmp_path, read_only_folder):
    check_output(tmp_path / "not" / "yet" / "there.json")
    check_output(None)
    assert can_write(tmp_path / "not" / "yet")
    assert not can_write(read_only_folder / "not" / "yet")
    assert [path.name for path in tmp_path.iterdir()] == [read_only_folder.name]
    (tmp_path / "file").touch()
    nowhere = [Path("/proc/nowhere/below.json")] if Path("/proc/self").exists() else []
    for wrong in (tmp_path, tmp_path / "file" / "below.json", *nowhere):
        with pytest.raises((UserError, OSError)) as raised:
            check_output(wrong)
        assert ".writing-" not in str(raised.value)
        assert str(wrong) in str(raised.value)


def test_a_full_disk_can_be_written_once_there_is_space(small_disk):
    with pytest.raises(OSError, match="space"), open(small_disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(4096)) == 4096:
            pass
        filler.write(bytes(4096))
    assert can_write(small_disk)
