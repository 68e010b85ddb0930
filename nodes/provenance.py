"""What pictures were made with, read from the graph, as hashes and numbers: no name of a file or folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import number
from . import places
from .opened import open_set

PHANTOM_LOADER = "DiffusionCleft_PhantomLoader"
_REAL_LOADERS = ("UNETLoader", "CheckpointLoaderSimple")
_UNKNOWN = "unknown"
LOADER_STRENGTH = number(-100, 100)
_LORA_LOADERS = ("LoraLoaderModelOnly", "LoraLoader")
_TRAINED_LOADERS = ("LoraModelLoader",)
"""ComfyUI's loader of what its own TrainLoraNode gave, which is no file."""
_STRENGTHS = ("strength_model", "strength", "lora_strength", "weight")
_WORDS = ("text", "t5xxl", "clip_l", "sampler_name", "scheduler", "weight_dtype", "upscale_method")
# Inputs that lead to a prompt's text and to a seed's number.
_TEXTS = ("text", "t5xxl", "value", "positive", "conditioning")
_SEEDS = ("seed", "noise_seed", "noise", "value")
OURS = "DiffusionCleft_"


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


@dataclass(frozen=True)
class Drawn:
    """What the graph says of pictures: prompt and seed as far as they are found, and a digest of the rest."""

    described: dict[str, Any]
    recipe: str


def drawn_from(hidden: Any) -> Drawn:
    """Prompt and seed of pictures that come without rows, where the graph has them as text and number.

    A picture whose seed is not found has no prompt either: it is known by what it shows.
    """
    graph = (hidden.prompt or {}) if hidden else {}
    described: dict[str, Any] = {}
    for node in upstream(hidden, "images"):
        inputs = node.get("inputs", {})
        conditioning = inputs.get("positive", inputs.get("guider"))
        if isinstance(conditioning, list) and {"seed", "noise_seed", "noise"} & set(inputs):
            text = _value_behind(graph, conditioning, _TEXTS, str)
            seed = _value_behind(graph, inputs, _SEEDS, int)
            if text is not None and seed is not None:
                described = {"prompt": text, "seed": seed}
            break
    return Drawn(described, _recipe(hidden, graph))


def _says_phantom(node: Mapping[str, Any]) -> bool | None:
    kind, name = node.get("class_type"), node.get("inputs", {}).get("name")
    if kind == PHANTOM_LOADER or kind in _REAL_LOADERS:
        return bool(kind == PHANTOM_LOADER)
    if kind != "DiffusionCleft_LoadImageSet" or not isinstance(name, str):
        return None
    try:
        return open_set(name).handle.phantom
    except UserError:
        return None


def _value_behind(graph: Mapping[str, Any], start: Any, names: tuple[str, ...], kind: type) -> Any:
    """The text or number at the end of a chain of first links; None where a node computes it."""
    found = start
    for _ in range(len(graph) + 1):
        if isinstance(found, list):
            node = graph.get(str(found[0]), {})
            if str(node.get("class_type")).startswith(OURS):
                return None
            found = node.get("inputs", {})
        found = next((found[name] for name in names if name in found), None)
        if not isinstance(found, list):
            return found if isinstance(found, kind) else None
    return None


def _recipe(hidden: Any, graph: Mapping[str, Any]) -> str:
    """Digest of what the graph draws with: nodes, links, numbers, texts, and the content of LoRAs.

    No name of a file, dataset or folder goes into it, so that none can be guessed from it. What our own nodes
    give, prompts and LoRAs, is known by itself.
    """
    from ..diffusioncleft_core.files import sha256_bytes

    known: dict[str, str] = {}

    def digest(link: Any) -> str:
        name = str(link[0])
        if name not in known:
            known[name] = ""  # a link that leads back to itself ends here
            known[name] = described(graph.get(name, {}))
        return f"{known[name]}:{link[1]}"

    def described(node: Mapping[str, Any]) -> str:
        kind, inputs = str(node.get("class_type")), node.get("inputs", {})
        if kind.startswith(OURS):
            return digest(inputs["images"]) if isinstance(inputs.get("images"), list) else kind
        kept = {}
        for name, value in sorted(inputs.items()):
            if isinstance(value, list) and len(value) == 2:
                kept[name] = digest(value)
            elif kind in _LORA_LOADERS and name == "lora_name" and isinstance(value, str):
                kept[name] = _model_digest("loras", value)
            elif isinstance(value, (int, float)) or name in _WORDS:
                kept[name] = value
        return sha256_bytes(json.dumps([kind, kept], sort_keys=True, default=str).encode())

    node = graph.get(str(hidden.unique_id), {}) if hidden else {}
    images = node.get("inputs", {}).get("images")
    return digest(images) if isinstance(images, list) else ""


def _base(nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    """Hashes of the base model's parts: the transformer's, and those of the VAE and the text encoders where
    loaders of their own name them.
    """
    from ..diffusioncleft_core.flux.source import phantom_source
    from ..diffusioncleft_core.generation.folder import base_digests

    kinds = {node.get("class_type") for node in nodes}
    if PHANTOM_LOADER in kinds and not kinds.intersection(_REAL_LOADERS):
        return base_digests(phantom_source())
    for node in nodes:
        name = node.get("inputs", {}).get("unet_name")
        if isinstance(name, str) and name in places.model_files("diffusion_models"):
            return {"sha256": _model_digest("diffusion_models", name), **_parts(nodes)}
    return {"sha256": _UNKNOWN, **_parts(nodes)}


def _parts(nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    """The VAE's hash, and the hash of the text encoders' hashes in whatever order they stand."""
    from ..diffusioncleft_core.files import sha256_bytes

    found = {}
    inputs = [node.get("inputs", {}) for node in nodes]
    for kind, names, key in (
        ("vae", ("vae_name",), "vae_sha256"),
        ("text_encoders", ("clip_name", "clip_name1", "clip_name2"), "text_encoders_sha256"),
    ):
        known = places.model_files(kind)
        files = {given[name] for given in inputs for name in names if given.get(name) in known}
        digests = sorted(_model_digest(kind, file) for file in files)
        if digests:
            found[key] = digests[0] if len(digests) == 1 else sha256_bytes("".join(digests).encode())
    return found


def _model_digest(kind: str, name: str) -> str:
    from ..diffusioncleft_core.files import sha256_model

    return sha256_model(places.model_file(kind, name))


def _lora(nodes: list[Mapping[str, Any]], name: str, strength: float) -> dict[str, Any] | None:
    from ..diffusioncleft_core.dataset.drawn import traced
    from ..diffusioncleft_core.dataset.withdrawn import refuse_withdrawn

    loaders = [node["inputs"] for node in nodes if node.get("class_type") in _LORA_LOADERS]
    if not name:
        if loaders:
            found = loaders[0]
            name = found["lora_name"] if isinstance(found.get("lora_name"), str) else ""
            given = found.get("strength_model")
        else:
            name, given = _named_elsewhere(nodes)
        if isinstance(given, (int, float)):
            strength = LOADER_STRENGTH.check(given, "the LoRA loader's strength_model")
    if name:
        lora = places.model_file("loras", name)
        refuse_withdrawn(lora, places.withdrawals())
        return traced(lora, _model_digest("loras", name), strength)
    return {"sha256": _UNKNOWN, "strength": strength} if loaders or _patched(nodes) else None


def _named_elsewhere(nodes: list[Mapping[str, Any]]) -> tuple[str, Any]:
    """The LoRA that a loader of another pack names, nearest first, and its strength; "" where none does.

    Such loaders name it in a widget of any name, or in a row of a list: {"on": true, "lora": name, …}.
    """
    files = set(places.model_files("loras"))
    for node in nodes:
        if node.get("class_type") in _LORA_LOADERS or str(node.get("class_type")).startswith(OURS):
            continue
        inputs = node.get("inputs", {})
        rows = [row for row in inputs.values() if isinstance(row, dict) and row.get("on", True)]
        for given in (inputs, *rows):
            if name := next((v for v in given.values() if isinstance(v, str) and v in files), ""):
                return name, next((given[key] for key in _STRENGTHS if key in given), None)
    return "", None


def _patched(nodes: list[Mapping[str, Any]]) -> bool:
    """Whether another pack, or ComfyUI's loader of a LoRA that was just trained, changed the model."""
    import nodes as comfyui

    for node in nodes:
        kind = comfyui.NODE_CLASS_MAPPINGS.get(str(node.get("class_type")))
        own = str(getattr(kind, "RELATIVE_PYTHON_MODULE", "nodes")).startswith(("nodes", "comfy_extras"))
        changes = "model" in node.get("inputs", {}) and "MODEL" in (getattr(kind, "RETURN_TYPES", ()) or ())
        if node.get("class_type") in _TRAINED_LOADERS or (changes and not own):
            return True
    return False


def _sampler(nodes: list[Mapping[str, Any]]) -> dict[str, Any]:
    for node in nodes:
        inputs = node.get("inputs", {})
        if "sampler_name" in inputs and "steps" in inputs:
            kept = ("steps", "sampler_name", "scheduler", "cfg", "denoise")
            return {name: inputs[name] for name in kept if isinstance(inputs.get(name), (int, float, str))}
    return {}


def _versions() -> dict[str, str]:
    from ..diffusioncleft_core.environment import versions

    try:
        from comfyui_version import __version__ as comfyui
    except ImportError:
        comfyui = _UNKNOWN
    return {**versions(), "comfyui": str(comfyui)}
