"""The full-size measurement on a tiny model: the same stages, the real trainer, fresh processes."""

import json

import pytest

from diffusioncleft.tools.full_size import CASES, TINY_CASES, Record, check_names, measure
from diffusioncleft.tools.full_size_train import figures_of


@pytest.mark.long
def test_the_real_trainer_is_measured_and_a_fresh_process_draws_its_preview_again(python, tmp_path):
    done = python("-m", "diffusioncleft.tools.full_size", "--tiny", "--out", "figures.json", timeout=900)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "figures.json").read_text("utf-8")
    stages = json.loads(text)["stages"]
    assert not {name for name, found in stages.items() if {"error", "skipped"} & found.keys()}
    loops = {name: found for name, found in stages.items() if name[0].isdigit()}
    assert set(loops) == {name for name in TINY_CASES if name[0].isdigit()}
    assert all(found["seconds_a_step"] > 0 and found["share_of_gemm"] > 0 for found in loops.values())
    assert stages["reload"]["identical"], "a fresh process draws the same with the saved LoRA"
    assert stages["reload"]["largest_difference_without_lora"] > 0
    trained = [found for name, found in stages.items() if name.startswith("trainer-64")]
    assert [found["outcome"] for found in trained] == ["done"]
    assert all(found["seconds_a_step"] > 0 and found["share_of_gemm"] > 0 for found in trained)
    assert stages["trainer-reload"]["as_trained"]["identical"]
    assert stages["trainer-reload"]["as_generated"]["identical"]
    assert not stages["trainer-reload"]["without_lora"]["identical"]
    assert "/full-size-" not in text, "the record names no folder of the machine"


@pytest.mark.long
def test_a_case_that_ends_its_process_costs_the_others_nothing(tmp_path):
    """The second case takes more memory than there is address space, the third has a block too many."""
    cases = ["64-plain", "20000000-plain", "64-plain-4streamed", "64-int8"]
    record = Record(tmp_path / "figures.json", 600, {})
    measure(record, tmp_path / "work", cases, tiny=True)
    stages = json.loads((tmp_path / "figures.json").read_text("utf-8"))["stages"]
    assert list(stages) == cases
    assert "error" in stages["20000000-plain"]
    assert "at most 3" in stages["64-plain-4streamed"]["error"]
    assert all(stages[name]["seconds_a_step"] > 0 for name in ("64-plain", "64-int8"))


def test_cases_are_chosen_by_name():
    for name in CASES:
        check_names([name])
    for name in ("1024", "1024-nf5", "1024-nf4-fast", "1024-checkpointing-nf4", "20streamed-512-plain"):
        with pytest.raises(ValueError, match=r"measurement|invalid literal|unpack"):
            check_names([name])


def test_what_there_is_no_time_for_is_skipped(tmp_path):
    record = Record(tmp_path / "figures.json", 5, {})
    measure(record, tmp_path / "work", ["gemm", "64-plain", "reload", "trainer"], tiny=True)
    assert all("skipped" in found for found in record.stages.values())
    assert list(record.stages) == ["gemm", "64-plain", "reload", "base"]


def test_a_stage_that_fails_or_finds_no_time_costs_the_others_nothing(tmp_path):
    record = Record(tmp_path / "figures.json", 10, {})
    record.stage("failing", lambda: {"rate": 1 / 0})
    record.stage("late", dict, needed=60)
    record.stage("fine", lambda: {"rate": 1.0})
    stages = json.loads((tmp_path / "figures.json").read_text("utf-8"))["stages"]
    assert stages["failing"]["error"].startswith("ZeroDivisionError")
    assert "skipped" in stages["late"]
    assert stages["fine"]["rate"] == 1.0


def test_a_run_out_of_memory_keeps_the_figures_it_has():
    steps = [
        {"event": "step", "step": n, "loss": 1.0, "lr": 1e-4, "seconds": n, "at": n} for n in range(1, 6)
    ]
    error = {"event": "error", "kind": "memory", "message": "out of memory", "hint": "try less", "at": 6}
    figures = figures_of([*steps, error], 0)
    assert figures["outcome"] == "out of memory; try less"
    assert (figures["steps"], figures["seconds_a_step"]) == (5, 4.5)
