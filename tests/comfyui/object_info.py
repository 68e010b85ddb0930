"""The nodes' interface as files: `python tests/comfyui/object_info.py` accepts the present one.

It writes the snapshot that the tests compare with, and the English words for ComfyUI's translations.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("object_info.json")
ENGLISH = Path(__file__).resolve().parents[2] / "locales" / "en" / "nodeDefs.json"
_KEPT = (
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "output_tooltips",
    "display_name",
    "description",
    "category",
    "output_node",
)
_OF_THIS_MACHINE = {
    ("DiffusionCleft_Dataset", "name"),
    ("DiffusionCleft_LoadImageSet", "name"),
    ("DiffusionCleft_TrainingStatus", "run"),
    ("DiffusionCleft_LoraTrainer", "base_model"),
    *(("DiffusionCleft_LoraGrid", f"lora_{number}") for number in range(1, 5)),
    *(("DiffusionCleft_TrainingOptions", name) for name in ("training_adapter", "vae", "clip_l", "t5xxl")),
    *(
        (f"DiffusionCleft_{node}", "faces")
        for node in ("ArtifactFilter", "ReferenceSet", "FIR", "Report", "TrainClassifier")
    ),
}


def interface(object_info: dict[str, Any]) -> dict[str, Any]:
    """What of `/object_info` is ours and the same on every machine and release."""
    nodes = {name: info for name, info in object_info.items() if name.startswith("DiffusionCleft_")}
    return {name: _node(name, nodes[name]) for name in sorted(nodes)}


def _node(name: str, info: dict[str, Any]) -> dict[str, Any]:
    kept = json.loads(json.dumps({key: info[key] for key in _KEPT}))
    for kind in ("required", "optional"):
        for key, (_, settings) in kept["input"].get(kind, {}).items():
            settings.pop("advanced", None)  # only newer releases know it
            if (name, key) in _OF_THIS_MACHINE:
                settings["options"] = ["(what this machine has)"]
                settings.pop("default", None)
    return dict(kept)


def english(nodes: dict[str, Any]) -> dict[str, Any]:
    """The interface's words in the form of ComfyUI's `nodeDefs.json`."""
    return {name: _words(info) for name, info in nodes.items()}


def _words(info: dict[str, Any]) -> dict[str, Any]:
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            key: {"name": settings.get("display_name") or key, "tooltip": settings["tooltip"]}
            for key, (_, settings) in inputs.items()
        },
        "outputs": {
            str(place): {"name": name, "tooltip": tooltip} for place, (name, tooltip) in enumerate(outputs)
        },
    }


def main() -> None:
    from comfy_server import ComfyServer, find_comfyui

    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit("no ComfyUI checkout: set COMFYUI_PATH")
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(comfyui, Path(base), dict(os.environ))
        server.start()
        try:
            found = interface(server.get("/object_info"))
        finally:
            server.kill()
    for path, value in ((SNAPSHOT, found), (ENGLISH, english(found))):
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
