"""The shipped workflows, and what the tests need to run them on phantoms."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_server import ROOT, ComfyServer

from diffusioncleft.cli.comfyui.convert import to_api
from diffusioncleft.cli.comfyui.inputs import apply_settings
from diffusioncleft.cli.comfyui.run import run_graph, swap_loaders
from diffusioncleft.cli.comfyui.server import ComfyServer as Client

# The quick start in seconds instead of minutes.
SMALL = ["PhantomDataset.count=12", "LoraTrainer.steps=20", "Prompt plan.count=4"]


def ui_path(name: str) -> Path:
    """The file of a workflow, which bears the template's title."""
    return ROOT / "workflows" / f"{FILES[name]}.json"


def ui_file(name: str) -> dict[str, Any]:
    return json.loads(ui_path(name).read_text(encoding="utf-8"))


def api_file(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def saved_before() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A workflow that the page saved when Cleft Training Options had three widgets less, every value changed,
    and what it exported then. The newest releases write the values by name too, earlier ones by place alone.
    """
    held = json.loads((Path(__file__).parent / "saved_training_options.json").read_text(encoding="utf-8"))
    by_place = json.loads(json.dumps(held["workflow"]))
    del by_place["nodes"][0]["widgets_values_named"]
    return [held["workflow"], by_place], held["export"]


def run_workflow(
    server: ComfyServer, name: str, out: Path, *settings: str, lora: str | None = None, phantom: bool = True
) -> dict[str, Any]:
    """What `diffusioncleft comfy run FILE --phantom` does: outputs by the node's title."""
    client = Client(server.url)
    info = client.object_info()
    graph = to_api(ui_file(name), info)
    if phantom:
        graph = swap_loaders(graph, info, lora=lora)
    outputs = run_graph(client, apply_settings(graph, settings, info), out, say=lambda text: None)
    return {output.title: output for output in outputs.values()}


def build_datasets(folder: Path, photographs: Path, count: int = 12) -> None:
    """Datasets of phantoms under the names that the workflows use, made as a clinic's are."""
    from phantom_datasets import phantom_dataset

    from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer

    analyzer = load_face_analyzer("phantom")
    for name in ("pre_op", "post_op"):
        phantom_dataset(photographs / name, name, folder / name, analyzer, n=count, seed=3)


def generator() -> ModuleType:
    """scripts/workflow_graphs.py as a module."""
    scripts = str(ROOT / "scripts")
    sys.path.insert(0, scripts)
    try:
        return importlib.import_module("workflow_graphs")
    finally:
        sys.path.remove(scripts)


FILES: dict[str, str] = generator().FILES
NAMES = list(FILES)
