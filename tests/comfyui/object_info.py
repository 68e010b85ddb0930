"""The nodes' interface as a file: `python tests/comfyui/object_info.py` accepts the present one."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("object_info.json")
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
    *(
        ("DiffusionCleft_LoraTrainer", name)
        for name in ("base_model", "training_adapter", "vae", "clip_l", "t5xxl")
    ),
    *((f"DiffusionCleft_{node}", "faces") for node in ("ArtifactFilter", "ReferenceSet", "FIR", "Report")),
}


def interface(object_info: dict[str, Any]) -> dict[str, Any]:
    """What of `/object_info` is ours and the same on every machine and release."""
    nodes = {name: info for name, info in object_info.items() if name.startswith("DiffusionCleft_")}
    return {name: _node(name, nodes[name]) for name in sorted(nodes)}


def _node(name: str, info: dict[str, Any]) -> dict[str, Any]:
    kept = json.loads(json.dumps({key: info[key] for key in _KEPT}))
    for kind in ("required", "optional"):
        for key, (_, settings) in kept["input"].get(kind, {}).items():
            if (name, key) in _OF_THIS_MACHINE:
                settings["options"] = ["(what this machine has)"]
                settings.pop("default", None)
    return dict(kept)


def main() -> None:
    from comfy_server import ComfyServer, find_comfyui

    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit("no ComfyUI checkout: set COMFYUI_PATH")
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(comfyui, Path(base), dict(os.environ))
        server.start()
        try:
            text = json.dumps(interface(server.get("/object_info")), indent=1, ensure_ascii=False)
        finally:
            server.kill()
    SNAPSHOT.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
