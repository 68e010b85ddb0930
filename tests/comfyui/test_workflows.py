"""Every shipped workflow runs on a real server; its two files and its generator agree."""

import json

import numpy as np
import pytest
from comfy_server import PACK, ROOT
from downstream_phantoms import drawn_and_accepted, write_phantoms
from graphs import drawing, node, plan_of, saving
from PIL import Image
from workflow_files import (
    FILES,
    NAMES,
    SMALL,
    api_file,
    build_datasets,
    generator,
    run_workflow,
    saved_before,
    ui_file,
    ui_path,
)
from workflow_rules import broken_rules, covered_links

from diffusioncleft.cli import main as cli
from diffusioncleft.cli.comfyui.convert import to_api
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import write_plan

ADDED = {"mirror": False, "balance_by": "", "lokr_factor": 0}
"""Widgets of Cleft Training Options that a workflow of an earlier version doesn't know, and their values."""


@pytest.fixture(scope="module")
def datasets(server, tmp_path_factory):
    """`pre_op` and `post_op` where the server looks for datasets."""
    build_datasets(server.base / "private datasets", tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def quick_start(server, tmp_path_factory):
    """The quick start, run once at a small size: its outputs and the folder they lie in."""
    folder = tmp_path_factory.mktemp("quick start")
    return run_workflow(server, "quick_start", folder, *SMALL, phantom=False), folder


@pytest.fixture(scope="module")
def lora(server, quick_start):
    """Name of the LoRA that the quick start trained."""
    found = {path.name for path in (server.base / "models" / "loras").glob("quick_start*.safetensors")}
    return sorted(found)[0]


@pytest.fixture(scope="module")
def faces(server, datasets, lora, tmp_path_factory):
    """Two faces of each condition by the generation workflows, filters on, in the server's output folder."""
    folder = tmp_path_factory.mktemp("faces")
    outputs = {
        (condition, seed): run_workflow(
            server, f"generate_{condition}", folder, f"Cleft Prompt Builder.seed={seed}", lora=lora
        )
        for condition in ("pre_op", "post_op")
        for seed in (1, 2)
    }
    return outputs, folder


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_file_keeps_the_rules_of_its_format_and_of_a_clean_canvas(name):
    assert broken_rules(ui_file(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_link_runs_behind_a_node_or_across_a_groups_title(name):
    assert covered_links(ui_file(name)) == []


def test_the_rules_find_what_is_broken():
    workflow = ui_file("train_pre_op")
    del workflow["nodes"][2]["size"]
    assert broken_rules(workflow) == ["node 3: size is missing"]
    workflow = ui_file("train_pre_op")
    workflow["nodes"][1]["pos"] = workflow["nodes"][0]["pos"]
    workflow["links"][0][5] = "IMAGE"
    told = " ".join(broken_rules(workflow))
    assert "overlaps" in told and "disagree" in told
    workflow = ui_file("quick_start")
    workflow["extra"]["linkExtensions"] = []
    assert covered_links(workflow)


def test_the_committed_files_are_what_the_generator_makes_from_this_servers_nodes(server):
    info = server.get("/object_info")
    graphs = generator().build_all(info)
    assert list(graphs) == NAMES
    assert {path.stem for path in (ROOT / "workflows").glob("*.json")} == set(FILES.values())
    for name, graph in graphs.items():
        again = "run scripts/build_workflows.py"
        assert json.loads(json.dumps(graph.ui())) == ui_file(name), again
        assert to_api(ui_file(name), info) == api_file(name), again


def test_a_workflow_saved_with_fewer_widgets_keeps_every_value_and_takes_the_new_ones_from_the_preset(server):
    workflows, exported = saved_before()
    info = server.get("/object_info")
    (before,) = exported.values()
    for workflow in workflows:
        (read,) = to_api(workflow, info).values()
        assert {name: read["inputs"].pop(name) for name in ADDED} == ADDED
        assert read["inputs"] == before["inputs"]
    told = server.run({**exported, "see": node("PreviewAny", source=["1", 1])})["see"]["text"][0]
    assert "network_form: lokr" in told and not any(name in told for name in ADDED)


def test_the_template_browser_lists_every_workflow_the_quick_start_first(server):
    assert server.get("/workflow_templates")[PACK] == list(FILES.values())


def test_the_quick_start_gives_a_lora_faces_verdicts_and_figures(quick_start, lora):
    outputs, folder = quick_start
    assert lora in outputs["Cleft LoRA Trainer"].values["text"][0]
    saved = [file for file in outputs["Save Synthetic Set"].files if file.endswith(".png")]
    assert len(saved) == 4
    assert "of 4 pictures accepted" in outputs["All verdicts"].values["text"][0]
    for name in ("fir_images", "fid", "lpips"):
        assert name in outputs["Figures"].values["text"][0]
    plots = [file for file in outputs["Cleft Report"].files if file.startswith("previews")]
    assert len(plots) == 2, "the histogram and the map"
    assert len(outputs["Cleft Identity Leak Filter"].files) == 4, "pictures with their verdicts"
    manifest = next(folder.rglob("manifest.jsonl"))
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert len(rows) == 4
    assert all((manifest.parent / row["file"]).is_file() and row["prompt"] for row in rows)
    assert all(row["lora"] for row in rows)


def test_the_generation_workflows_run_on_the_phantom_with_loaders_lora_and_size_swapped(faces):
    outputs, folder = faces
    for found in outputs.values():
        (name,) = {file for file in found["Save Synthetic Set"].files if file.endswith(".png")}
        assert pixels(folder / name).shape == (128, 128, 3)
        assert "of 1 pictures accepted" in found["All verdicts"].values["text"][0]
    names = [found["Save Synthetic Set"].files[0] for found in outputs.values()]
    assert len(set(names)) == 4


def test_the_lora_changes_the_face(server, faces, lora, tmp_path):
    outputs, folder = faces
    without = run_workflow(
        server,
        "generate_pre_op",
        tmp_path,
        "Cleft Prompt Builder.seed=1",
        "LoraLoaderModelOnly.strength_model=0",
        "Save Synthetic Set.folder=without",
        lora=lora,
    )
    (plain,) = [file for file in without["Save Synthetic Set"].files if file.endswith(".png")]
    with_lora = outputs["pre_op", 1]["Save Synthetic Set"].files[0]
    assert np.abs(pixels(tmp_path / plain) - pixels(folder / with_lora)).mean() > 0.5


@pytest.mark.long
@pytest.mark.parametrize("condition", ["pre_op", "post_op"])
def test_the_training_workflows_run_on_the_phantom(server, datasets, condition, tmp_path):
    outputs = run_workflow(server, f"train_{condition}", tmp_path, "LoraTrainer.steps=4")
    assert "done, step 4 of 4" in outputs["What was trained"].values["text"][0]
    assert outputs["Cleft LoRA Trainer"].files, "loss plot and previews"


def test_the_evaluation_measures_both_sets_and_saves_a_report(server, faces, tmp_path):
    outputs = run_workflow(server, "evaluate", tmp_path)
    report = [file for file in outputs["Cleft Report"].files if file.endswith(("report.html", "report.json"))]
    assert len(report) == 2
    assert any(file.endswith("figures/face-map.svg") for file in outputs["Cleft Report"].files)
    document = json.loads((tmp_path / next(file for file in report if file.endswith(".json"))).read_text())
    assert {"pre_op", "post_op"} <= set(document["sets"])


def test_a_classifier_learns_from_both_sets_and_is_tested_on_the_held_out_people(
    server, datasets, lora, tmp_path
):
    for condition in ("pre_op", "post_op"):
        graph = {
            **drawing(["plan", 0], ["plan", 1], lora=lora),
            "plan": plan_of(8, condition=condition),
            "save": saving(["picture", 0], f"learn/{condition}", show=False, rows=["plan", 2]),
        }
        server.run(graph)
    names = [
        f"Generated, {when} repair.name=learn/{condition}"
        for when, condition in (("before", "pre_op"), ("after", "post_op"))
    ]
    settings = ("TrainClassifier.model=probe", "TrainClassifier.seeds=1")
    outputs = run_workflow(server, "classifier", tmp_path, *names, *settings)
    assert "8 positive and 8 negative images" in outputs["How it went"].values["text"][0]
    told = outputs["Figures"].values["text"][0]
    assert "Not a diagnostic device" in told and "balanced accuracy" in told
    assert "learned from" not in told, "a hold-out is free of the LoRAs' people"
    assert outputs["Cleft Evaluate Classifier"].files, "the plot"


def test_a_study_of_both_sets_is_made_and_waits_for_raters(server, datasets, tmp_path):
    for seed, (condition, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        drawn = write_phantoms(server.base / "output" / "shown" / condition, finding, seed, 8)
        drawn_and_accepted(drawn, condition)
    names = [
        f"Generated, {when} repair.name=shown/{condition}"
        for when, condition in (("before", "pre_op"), ("after", "post_op"))
    ]
    outputs = run_workflow(server, "rater_study", tmp_path, *names)
    told = outputs["How it is rated"].values["text"][0]
    assert "generated: 16" in told and "real: 10" in told and "diffusioncleft study serve" in told
    assert "there is no rating yet" in outputs["In words"].values["text"][0]


def test_the_zero_shot_baseline_draws_both_probes_without_a_lora(server, tmp_path):
    run_workflow(server, "zero_shot_baseline", tmp_path)
    rows = [
        json.loads(line)
        for path in sorted(tmp_path.rglob("manifest.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert len(rows) == 2 and all(row["lora"] is None for row in rows)
    assert {row["prompt"] for row in rows} == set(load_vocabulary().zero_shot)


def test_the_grid_has_a_row_a_checkpoint_a_column_a_strength_and_a_label_a_cell(server, lora, tmp_path):
    outputs = run_workflow(server, "checkpoint_strength_grid", tmp_path, lora=lora)
    (name,) = outputs["Picture Grid"].files
    grid = pixels(tmp_path / name)
    side, caption = 384, (grid.shape[0] - 4) // 2 - 384
    assert grid.shape == (2 * (side + caption) + 4, 3 * side + 2 * 4, 3) and 20 < caption < 80
    weak, strong = grid[:side, :side], grid[:side, 2 * (side + 4) :]
    assert np.abs(weak - strong).mean() > 0.1
    assert (
        np.abs(grid[side : side + caption, :side] - grid[side : side + caption, 2 * (side + 4) :]).max() > 50
    )


def test_a_plan_drives_the_shipped_graph_with_its_filters_and_makes_an_image_set(
    server, datasets, lora, tmp_path, capsys
):
    plan, folder = tmp_path / "plan.jsonl", tmp_path / "set"
    rows = sampling_plan(load_vocabulary().condition("pre_op"), 3, 7)
    write_plan(plan, rows)
    command = ["comfy", "run", str(ui_path("generate_pre_op")), "--server", server.url]
    command += ["--out", str(folder), "--phantom", "--lora", lora, "--plan", str(plan)]
    command += ["--prompt-input", "Prompt.text", "--seed-input", "KSampler.seed"]
    command += ["--set", "Save Synthetic Set.folder=plan"]
    assert cli.main([*command, "--rows", "2"]) == 0
    assert cli.main(command) == 0
    assert "1 row done, 2 done before, 0 failed" in capsys.readouterr().out
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in manifest] == [row.prompt for row in rows]
    assert [row["seed"] for row in manifest] == [row.seed for row in rows]
    assert len({row["lora"] for row in manifest}) == 1 and manifest[0]["lora"]
    for row in manifest:
        sidecar = json.loads((folder / row["file"]).with_suffix(".json").read_text())
        assert sidecar["prompt"] == row["prompt"] and sidecar["png_sha256"]
        assert "accepted" in row["verdicts"]
