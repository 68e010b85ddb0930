"""What pictures were made with, read from the graph, as hashes and numbers: no name of a file or folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
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


def made_with(
    hidden: Any, lora_name: str, strength: float, models: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Base model, LoRA, sampler and versions, as a sidecar records them.

    models: the MODELs that drew, where they are connected; what lies on them says more than the graph.
    """
    nodes = list(upstream(hidden, "images"))
    return {
        "base": _base(nodes),
        "lora": _lora_on(models, nodes) if models else _lora(nodes, lora_name, strength),
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
    loras = set(places.model_files("loras"))

    def digest(link: Any) -> str:
        name = str(link[0])
        if name not in known:
            known[name] = ""  # a link that leads back to itself ends here
            known[name] = described(graph.get(name, {}))
        return f"{known[name]}:{link[1]}"

    def content(name: str, value: Any) -> Any:
        if isinstance(value, dict):  # another pack's row: {"on": true, "lora": name, ...}
            return {key: content(key, each) for key, each in sorted(value.items())}
        if isinstance(value, str) and value in loras:
            return _model_digest("loras", value)
        return value if isinstance(value, (int, float)) or name in _WORDS else None

    def described(node: Mapping[str, Any]) -> str:
        kind, inputs = str(node.get("class_type")), node.get("inputs", {})
        if kind.startswith(OURS):
            return digest(inputs["images"]) if isinstance(inputs.get("images"), list) else kind
        kept = {}
        for name, value in sorted(inputs.items()):
            told = digest(value) if isinstance(value, list) and len(value) == 2 else content(name, value)
            if told is not None:
                kept[name] = told
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
    """The LoRA that is given by name, and those that loaders name, as a record."""
    loaders = [node["inputs"] for node in nodes if node.get("class_type") in _LORA_LOADERS]
    linked = any(not isinstance(given.get("lora_name"), str) for given in loaders)
    found = [*_named_by(loaders, strength), *_named_elsewhere(nodes)]
    if name:
        found = [(name, strength), *(lora for lora in found if lora[0] != name)]
    whole = bool(name) or (not linked and (bool(found) or not _patched(nodes)))
    return _record(found, whole, strength)


def _lora_on(models: Sequence[Any], nodes: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The LoRAs whose tensors lie on the models, all of which drew."""
    from .patches import on_model

    found = list(dict.fromkeys(on_model(model) for model in models))
    changed = [each for each in found if each]
    loras = dict.fromkeys(lora for each in changed for lora in each.loras)
    # hooks lie on the prompt, and what lies on no model may still be hidden in it
    hooked = any(str(node.get("class_type")).startswith("CreateHook") for node in nodes)
    whole = len(found) == 1 and not hooked and (changed[0].whole if changed else not _patched(nodes))
    return _record([*loras, *(_named_elsewhere(nodes) if hooked else [])], whole)


def _record(loras: Sequence[tuple[str, float]], whole: bool, strength: float = 1.0) -> dict[str, Any] | None:
    """What a sidecar says: the nearest LoRA, and the `others` that drew with it.

    whole: these are all that changed the model. Where they are not, the LoRA is unknown, and those that are
    known are among the others: by each of them a consent that is withdrawn later finds the picture.
    """
    from ..diffusioncleft_core.dataset.drawn import traced
    from ..diffusioncleft_core.dataset.withdrawn import refuse_withdrawn
    from ..diffusioncleft_core.imageset.synthetic import OTHERS

    known = []
    for name, given in dict.fromkeys(loras):
        file = places.model_file("loras", name)
        refuse_withdrawn(file, places.withdrawals())
        known.append(traced(file, _model_digest("loras", name), given))
    if not whole:
        known.insert(0, {"sha256": _UNKNOWN, "strength": strength})
    if not known:
        return None
    return {**known[0], OTHERS: known[1:]} if known[1:] else known[0]


def _named_by(loaders: Sequence[Mapping[str, Any]], otherwise: float) -> list[tuple[str, float]]:
    """LoRAs in ComfyUI's own loaders, nearest first; one of strength 0 counts where it is the only one.

    otherwise: the strength of a loader that takes it from a link.
    """
    found = []
    for given in loaders:
        name, told = given.get("lora_name"), given.get("strength_model")
        if isinstance(name, str):
            strength = told if isinstance(told, (int, float)) else otherwise
            found.append((name, LOADER_STRENGTH.check(strength, "the LoRA loader's strength_model")))
    return [lora for lora in found if lora[1]] or found[:1]


def _named_elsewhere(nodes: list[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """LoRAs that loaders of other packs name, nearest first, and their strengths.

    Such loaders name it in a widget of any name, or in rows of a list: {"on": true, "lora": name, …}.
    """
    files, found = set(places.model_files("loras")), []
    for node in nodes:
        if node.get("class_type") in _LORA_LOADERS or str(node.get("class_type")).startswith(OURS):
            continue
        inputs = node.get("inputs", {})
        rows = [row for row in inputs.values() if isinstance(row, dict) and row.get("on", True)]
        for given in (inputs, *rows):
            if name := next((v for v in given.values() if isinstance(v, str) and v in files), ""):
                told = next((given[key] for key in _STRENGTHS if key in given), None)
                strength = told if isinstance(told, (int, float)) else 1.0
                found.append((name, LOADER_STRENGTH.check(strength, "the LoRA loader's strength")))
    return found


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
