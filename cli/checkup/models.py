"""The base model's files and adapters: present, readable, schnell's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...diffusioncleft_core.flux import (
    encoder_keys as text_keys,
)
from ...diffusioncleft_core.flux import (
    encoder_keys as vae_keys,
)
from ...diffusioncleft_core.flux import (
    transformer_keys,
)
from ...diffusioncleft_core.flux.components import shipped_config
from ...diffusioncleft_core.flux.model_size import model_size
from ...diffusioncleft_core.flux.tensors import Tensors, open_tensors
from .steps import Failed, Figures, Skipped, gib

if TYPE_CHECKING:
    from .checkup import Checkup


MEASURING = ("inception-fid", "lpips-alexnet", "lpips-heads")


def transformer(checkup: Checkup) -> Figures:
    """Header of the transformer; its size decides what the later steps do."""
    files = _files(checkup, "transformer")
    with open_tensors(
        files, "the transformer", transformer_keys.PROBES, transformer_keys.PREFIXES
    ) as tensors:
        config = transformer_keys.infer_config(tensors, shipped_config("transformer"))
        figures = _described(tensors, files)
        found = checkup.found
        found.size = model_size(tensors)
        found.parameters = int(figures["parameters"])
        found.hidden = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
        found.lora_parameters = checkup.settings.recipe.network.rank * found.size.adapted_sides
        _compare(checkup, "transformer", config)
        return {
            **figures,
            "layout": "diffusers folder" if checkup.settings.source.folder is not None else "single file",
            "hidden": found.hidden,
            "double_blocks": int(config["num_layers"]),
            "single_blocks": int(config["num_single_layers"]),
        }


def autoencoder(checkup: Checkup) -> Figures:
    """Header of the VAE."""
    files = _files(checkup, "vae")
    with open_tensors(files, "the VAE", vae_keys.PROBES, vae_keys.PREFIXES) as tensors:
        config = vae_keys.infer_config(tensors, shipped_config("vae"))
        _compare(checkup, "vae", config)
        return {**_described(tensors, files), "latent_channels": int(config["latent_channels"])}


def text_encoders(checkup: Checkup) -> Figures:
    """Headers of CLIP and T5, and the folders of their tokenizers."""
    figures: Figures = {}
    clip, t5 = _files(checkup, "clip_l"), _files(checkup, "t5xxl")
    with open_tensors(
        clip, "the CLIP text encoder", text_keys.CLIP_PROBES, text_keys.CLIP_PREFIXES
    ) as tensors:
        config = text_keys.infer_clip_config(tensors, shipped_config("clip_l"), {})
        _compare(checkup, "clip_l", config)
        figures |= {f"clip_{name}": value for name, value in _described(tensors, clip).items()}
    with open_tensors(t5, "the T5 text encoder", text_keys.T5_PROBES, text_keys.T5_PREFIXES) as tensors:
        _compare(checkup, "t5xxl", text_keys.infer_t5_config(tensors, shipped_config("t5xxl")))
        figures |= {f"t5_{name}": value for name, value in _described(tensors, t5).items()}
        checkup.found.text_parameters = int(figures["t5_parameters"])
    for kind in ("clip", "t5"):
        folder = checkup.settings.source.tokenizer_folder(kind)
        if not folder.is_dir():
            raise Failed(
                f"there is no {kind.upper()} tokenizer", f"give its folder with --tokenizer-{kind}", figures
            )
    return figures


def is_schnell(checkup: Checkup) -> Figures:
    """The sizes read from the tensors against the real model's."""
    if checkup.settings.phantom:
        raise Skipped("the embedded phantom is a small FLUX.1 of the same layout, on purpose")
    differences = checkup.found.differences
    if differences:
        raise Failed(
            f"this is not FLUX.1 schnell's size: {'; '.join(differences)}",
            "fine if you mean to use another model; else get FLUX.1 schnell again",
        )
    return {}


def adapter(checkup: Checkup) -> Figures:
    """The training adapter's header; whether its modules fit is proven by the training."""
    path = checkup.settings.recipe.network.training_adapter
    if path is None:
        if not checkup.settings.phantom:
            checkup.note("without --training-adapter a LoRA unlearns schnell's four steps")
        raise Skipped("no --training-adapter was given")
    from ...diffusioncleft_core.flux.lora_file import inspect_lora

    told = inspect_lora(path)
    return {
        "gib": gib(path.stat().st_size),
        "form": str(told["form"]),
        "modules": int(told["modules"]),
        "ranks": ", ".join(map(str, told["ranks"])),
        "sha256": str(told["sha256"]),
    }


def measuring(checkup: Checkup) -> Figures:
    """The models that measure a set: each found where it is looked for, and by its hash the right one."""
    if checkup.settings.phantom:
        raise Skipped("sets of phantoms are measured by embedded models")
    from ...diffusioncleft_core.weights.registry import find_entry, find_model, verify

    figures: Figures = {}
    for name in MEASURING:
        found = find_model(find_entry(name))
        states = {verdict.state for verdict in verify(found)}
        figures[name] = "missing" if not found.complete else "damaged" if "wrong" in states else "sound"
    bad = [name for name, state in figures.items() if state != "sound"]
    if bad:
        raise Failed(
            f"{' and '.join(bad)} can't be used: FID and LPIPS need them",
            "run: " + "; ".join(f"diffusioncleft weights fetch {name}" for name in bad),
            figures,
        )
    return figures


def _files(checkup: Checkup, component: str) -> list[Path]:
    if component in checkup.settings.absent:
        raise checkup.settings.absent[component]
    return checkup.settings.source.files(component)


def _described(tensors: Tensors, files: Iterable[Path]) -> Figures:
    """Number and size of the files, how the weights are stored, number of parameters."""
    paths = list(files)
    names = tensors.names()
    stored: Counter[str] = Counter()
    for name in names:
        stored[tensors.stored_dtype(name)] += math.prod(tensors.shape(name))
    return {
        "files": len(paths),
        "gib": gib(sum(path.stat().st_size for path in paths)),
        "stored_as": " + ".join(kind for kind, _ in stored.most_common()),
        "parameters": sum(stored.values()),
    }


_COMPARED = {
    "transformer": (
        "num_layers",
        "num_single_layers",
        "attention_head_dim",
        "num_attention_heads",
        "joint_attention_dim",
        "pooled_projection_dim",
    ),
    "vae": ("block_out_channels", "layers_per_block"),
    "clip_l": ("hidden_size", "num_hidden_layers", "vocab_size"),
    "t5xxl": ("d_model", "num_layers", "vocab_size"),
}


def _compare(checkup: Checkup, component: str, config: Mapping[str, Any]) -> None:
    real = shipped_config(component)
    checkup.found.differences += [
        f"{component} {name} {config[name]} instead of {real[name]}"
        for name in _COMPARED[component]
        if config[name] != real[name]
    ]
