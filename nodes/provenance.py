"""What pictures were made with, read from the graph, as hashes and numbers: no name of a file or folder."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..diffusioncleft_core.errors import UserError
from . import places

PHANTOM_LOADER = "DiffusionCleft_PhantomLoader"
_REAL_LOADERS = ("UNETLoader", "CheckpointLoaderSimple")
_UNKNOWN = "unknown"
_LORA_LOADERS = ("LoraLoaderModelOnly", "LoraLoader")


def upstream(hidden: Any, start: str | None = None) -> Iterator[Mapping[str, Any]]:
    """The nodes that lead to the executing one, nearest first. `start`: only through that input."""
    graph = (hidden.prompt or {}) if hidden else {}
    first = graph.get(str(hidden.unique_id), {}) if hidden else {}
    inputs = first.get("inputs", {})
    waiting = [value for name, value in inputs.items() if start in (None, name)]
    seen: set[str] = set()
    while waiting:
        link = waiting.pop(0)
        if not isinstance(link, list) or len(link) != 2 or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        node = graph.get(str(link[0]))
        if node:
            yield node
            waiting += list(node.get("inputs", {}).values())


def from_phantom(hidden: Any, start: str = "images") -> bool | None:
    """Whether what an input brings was drawn by the embedded phantom model; None where no loader tells.

    A real model's loader says no, whatever else leads here: the phantom's autoencoder alone draws none.
    """
    found = {_says_phantom(node) for node in upstream(hidden, start)}
    return False if False in found else True if True in found else None


def made_with(hidden: Any, lora_name: str, strength: float) -> dict[str, Any]:
    """Base model, LoRA, sampler and versions, as a sidecar records them."""
    nodes = list(upstream(hidden, "images"))
    return {
        "base": _base(nodes),
        "lora": _lora(nodes, lora_name, strength),
        "sampler": _sampler(nodes),
        "versions": _versions(),
    }


def drawn_from(hidden: Any) -> dict[str, Any]:
    """Prompt and seed of pictures that come without rows, where the graph has them as text and number."""
    graph = (hidden.prompt or {}) if hidden else {}
    for node in upstream(hidden, "images"):
        inputs = node.get("inputs", {})
        seed = inputs.get("seed", inputs.get("noise_seed"))
        if isinstance(inputs.get("positive"), list) and "sampler_name" in inputs:
            return {
                "prompt": _text_behind(graph, inputs["positive"]),
                "seed": seed if isinstance(seed, int) else 0,
            }
    return {}


def _says_phantom(node: Mapping[str, Any]) -> bool | None:
    from .set_work import open_set

    kind, name = node.get("class_type"), node.get("inputs", {}).get("name")
    if kind == PHANTOM_LOADER or kind in _REAL_LOADERS:
        return bool(kind == PHANTOM_LOADER)
    if kind != "DiffusionCleft_LoadImageSet" or not isinstance(name, str):
        return None
    try:
        return open_set(name).handle.phantom
    except UserError:
        return None


def _text_behind(graph: Mapping[str, Any], link: Any) -> str:
    """The text of the encoder at the end of a conditioning's first links."""
    for _ in range(len(graph)):
        inputs = graph.get(str(link[0]), {}).get("inputs", {})
        found = next((inputs[name] for name in ("text", "t5xxl", "value") if name in inputs), None)
        if isinstance(found, str):
            return found
        link = found if isinstance(found, list) else inputs.get("conditioning")
        if not isinstance(link, list):
            break
    return ""


def _base(nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    from ..diffusioncleft_core.files import sha256_file
    from ..diffusioncleft_core.flux.source import phantom_source
    from ..diffusioncleft_core.generation.generate import base_digests

    kinds = {node.get("class_type") for node in nodes}
    if PHANTOM_LOADER in kinds and not kinds.intersection(_REAL_LOADERS):
        return base_digests(phantom_source())
    for node in nodes:
        name = node.get("inputs", {}).get("unet_name")
        if isinstance(name, str) and name in places.model_files("diffusion_models"):
            return {"sha256": sha256_file(places.model_file("diffusion_models", name))}
    return {"sha256": _UNKNOWN}


def _lora(nodes: list[Mapping[str, Any]], name: str, strength: float) -> dict[str, Any] | None:
    from ..diffusioncleft_core.files import sha256_file

    loaders = [node["inputs"] for node in nodes if node.get("class_type") in _LORA_LOADERS]
    if not name and loaders:
        found = loaders[0]
        name = found["lora_name"] if isinstance(found.get("lora_name"), str) else ""
        given = found.get("strength_model")
        strength = float(given) if isinstance(given, (int, float)) else strength
    if name:
        return {"sha256": sha256_file(places.model_file("loras", name)), "strength": strength}
    return {"sha256": _UNKNOWN, "strength": strength} if loaders else None


def _sampler(nodes: list[Mapping[str, Any]]) -> dict[str, Any]:
    for node in nodes:
        inputs = node.get("inputs", {})
        if "sampler_name" in inputs and "steps" in inputs:
            kept = ("steps", "sampler_name", "scheduler", "cfg", "denoise")
            return {name: inputs[name] for name in kept if isinstance(inputs.get(name), (int, float, str))}
    return {}


def _versions() -> dict[str, str]:
    from ..diffusioncleft_core.versions import versions

    try:
        from comfyui_version import __version__ as comfyui
    except ImportError:
        comfyui = _UNKNOWN
    return {**versions(), "comfyui": str(comfyui)}
