"""Swap a graph's model loaders for the Phantom Loader, so that a graph for FLUX.1 runs without a download.

Only what names a file that is not shipped changes: the loaders of transformer, text encoders and VAE, the
trainer's base model, the LoRA's name and the latent image's size. Everything else of the graph runs as it
is, which is what the tests prove with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .convert import Graph

PHANTOM_LOADER = "DiffusionCleft_PhantomLoader"
PHANTOM_SIZE = 128
# class of a stock loader -> output of the Phantom Loader that stands in for it
_LOADERS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
_LATENTS = {"EmptySD3LatentImage", "EmptyLatentImage"}
_TRAINER = "DiffusionCleft_LoraTrainer"
_LORAS = {"LoraLoaderModelOnly", "LoraLoader"}


def swap_loaders(
    graph: Graph, object_info: Mapping[str, Any], *, lora: str | None = None, size: int = PHANTOM_SIZE
) -> Graph:
    """A copy of an API-format graph that runs on the embedded phantom model.

    lora: name for every LoRA loader, None keeps the graph's own; size: side of the images in pixels.
    Raises UserError when the server does not have the Phantom Loader.
    """
    if PHANTOM_LOADER not in object_info:
        raise UserError(
            "the server has no Phantom Loader; put DiffusionCleft in its custom_nodes and restart ComfyUI"
        )
    swapped = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    gone = {
        name: _LOADERS[node["class_type"]] for name, node in graph.items() if node["class_type"] in _LOADERS
    }
    loader_id = _loader_id(swapped, gone) if gone else ""
    for node in swapped.values():
        kind, inputs = node["class_type"], node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, list) and len(value) == 2 and value[0] in gone:
                inputs[name] = [loader_id, gone[value[0]]]
        if kind in _LATENTS:
            inputs.update(width=size, height=size)
        if kind == _TRAINER:
            inputs["base_model"] = "phantom"
        if kind in _LORAS and lora is not None and not isinstance(inputs.get("lora_name"), list):
            inputs["lora_name"] = lora
    for node_id in gone:
        del swapped[node_id]
    return swapped


def _loader_id(graph: Graph, gone: Mapping[str, int]) -> str:
    """Id of the graph's own Phantom Loader, or of one that is added."""
    for node_id, node in graph.items():
        if node["class_type"] == PHANTOM_LOADER:
            return node_id
    node_id = next((name for name, output in gone.items() if output == 0), "phantom")
    node_id = f"{node_id}_phantom"
    graph[node_id] = {
        "inputs": {},
        "class_type": PHANTOM_LOADER,
        "_meta": {"title": "Phantom Loader"},
    }
    return node_id
