"""The trainer node makes the recipe that the command line makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_server import ROOT, GraphRefused
from graphs import training
from tiny_flux import build_tiny_flux

from diffusioncleft.diffusioncleft_core.recipe.recipe import recipe_fields
from diffusioncleft.trainer.config import parse_recipe

PLACES = {"data.train_dir", "output.folder", "output.name", "previews.prompts", "previews.every_n_steps"}
CODE = """
import json, sys
from pathlib import Path
comfyui, root, base, dataset, wanted = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = ['main.py', '--cpu', '--base-directory', base]
import importlib.util
import comfy.options
comfy.options.enable_args_parsing()
door = root + '/__init__.py'
spec = importlib.util.spec_from_file_location('pack', door, submodule_search_locations=[root])
sys.modules['pack'] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pack.nodes import places
places.register()
from pack.diffusioncleft_core.recipe.recipe import recipe_fields
from pack.nodes.dataset import DatasetHandle
from pack.nodes.training import LoraTrainer
from pack.nodes.training_options import LoraTrainingOptions
from pack.nodes.training_settings import plan_run
handle = DatasetHandle('d', Path(dataset), 'pre_op', True, 10, 0, {}, 'x')
defaults = {item.id: item.default for item in LoraTrainer.define_schema().inputs if hasattr(item, 'default')}
offered = {item.id: item.default for item in LoraTrainingOptions.define_schema().inputs}
told = []
for choices in json.loads(wanted):
    own = {name: value for name, value in choices.items() if name in defaults}
    changed = {name: value for name, value in choices.items() if name not in own}
    options = LoraTrainingOptions.execute(**{**offered, **changed})[0]
    assert options == changed, options
    trainer = {**defaults, 'dataset': handle, 'name': 'x', 'options': options, **own}
    recipe = plan_run(trainer).recipe_in(Path('run'))
    told.append({path: str(recipe[path]) for path in recipe_fields()})
print(json.dumps(told))
"""
NOTHING = ({}, [])
CHOICES = [
    NOTHING,
    ({"lr_scheduler": "linear"}, ["--lr_scheduler=linear"]),
    ({"lr_warmup_steps": 7}, ["--lr_warmup_steps=7"]),
    ({"batch_size": 3, "timestep_sampling": "shift"}, ["--train_batch_size=3", "--timestep_sampling=shift"]),
    ({"output_preservation_weight": 0.0}, ["--output_preservation_weight=0"]),
    (
        {"output_preservation_weight": 0.5, "steps": 9},
        ["--output_preservation_weight=.5", "--max_train_steps=9"],
    ),
    ({"lr_scheduler": "cosine", "lr_warmup_steps": 0}, ["--lr_scheduler=cosine", "--lr_warmup_steps=0"]),
    ({"mirror": True, "balance_by": "cleft_type,side"}, ["--mirror", "--balance_by=cleft_type,side"]),
    ({"network_form": "lokr", "lokr_factor": 8}, ["--network_form=lokr", "--lokr_factor=8"]),
    ({"resolution": "64, 128", "mixed_precision": "bf16"}, ["--resolution=64,128", "--mixed_precision=bf16"]),
]


@pytest.fixture(scope="module")
def folder(server, dataset) -> Path:
    return server.base / "private datasets" / dataset


@pytest.mark.parametrize("base", [pytest.param("phantom", marks=pytest.mark.long), "flux"])
def test_node_and_train_make_one_recipe_of_one_choice(comfyui, folder, tmp_path, base):
    (tmp_path / "custom_nodes").mkdir()
    model = build_tiny_flux(tmp_path / "models" / "diffusers" / "flux")
    cases = [(preset, *choice) for preset in ("paper", "robust") for choice in CHOICES]
    wanted = [{"base_model": base, "preset": preset, **widgets} for preset, widgets, _ in cases]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(comfyui), str(ROOT), str(tmp_path), str(folder), json.dumps(wanted)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    by_node = json.loads(done.stdout.splitlines()[-1])
    named = ["--phantom"] if base == "phantom" else [f"--pretrained_model_name_or_path={model}"]
    for told, (preset, _, options) in zip(by_node, cases, strict=True):
        command = [*named, f"--train_data_dir={folder}", "--device=cpu", f"--preset={preset}", *options]
        recipe = parse_recipe(command)
        by_train = {path: str(recipe[path]) for path in recipe_fields()}
        assert {name for name in by_train if told[name] != by_train[name]} <= PLACES, (preset, options)


@pytest.fixture(scope="module")
def refusal(server, dataset):
    def of(graph):
        with pytest.raises(GraphRefused) as refused:
            server.queue(graph)
        return str(refused.value)

    return of


def test_a_graph_that_still_sets_a_moved_widget_on_the_trainer_is_refused_and_told_where_it_is(
    dataset, refusal
):
    graph = training(dataset)
    graph["train"]["inputs"]["learning_rate"] = 0.001
    assert "learning_rate moved to the node Cleft Training Options" in refusal(graph)


@pytest.mark.long
def test_a_trainer_process_computes_in_the_nodes_number_format(server, dataset):
    from safetensors import safe_open

    for precision in ("no", "bf16"):
        graph = training(dataset, name=f"in{precision}", steps=1, resolution="64", mixed_precision=precision)
        server.run(graph)
        (lora,) = (server.base / "models" / "loras").glob(f"in{precision}_*.safetensors")
        with safe_open(lora, framework="pt") as file:
            assert file.metadata()["ss_mixed_precision"] == precision
