"""LoRA files: reading any known form, saving in kohya's, converting, inspecting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import UserError
from ..files import atomic_path, read_json, sha256_bytes, sha256_file
from ..weight_file import SOURCE_KEY
from .lora_keys import LoraFormat, ParsedLora, from_state, parse, to_state, write
from .tensors import check_file

PEFT_METADATA = "lora_adapter_metadata"
"""diffusers' description of the PEFT configuration; it holds the alpha of files without `.alpha` keys."""

TELLING_METADATA = (
    "ss_dataset_dirs",
    "ss_reg_dataset_dirs",
    "ss_datasets",
    "ss_tag_frequency",
    "ss_bucket_info",
    "ss_training_comment",
    "ss_output_name",
    "ss_sd_model_name",
    "ss_vae_name",
)
"""kohya's metadata that name files, folders or captions; our own files have none of them."""


PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {"bf16": torch.bfloat16, "fp16": torch.float16, "float": torch.float32}
)
"""Number formats that a LoRA is saved in, by kohya's names."""


SCALE_METADATA = ("effective_scale", "ss_network_alpha")
"""What metadata say of alpha / rank: not true any more where it is multiplied into the weights."""
_MODEL_SPEC = "modelspec.sai_model_spec"
_NO_ALPHA = "get the file again, or train it with --network_alpha above 0"


class Lora(NamedTuple):
    """A LoRA in canonical form: diffusers' names, ΔW = alphas[module] / rank · lora_B · lora_A.

    warnings: sentences about modules of it that change nothing.
    """

    state: dict[str, torch.Tensor]
    alphas: dict[str, float]
    metadata: dict[str, str]
    warnings: tuple[str, ...] = ()


def read_lora(path: Path) -> Lora:
    """Read a LoRA file in any known form into the canonical one.

    Raises:
        UserError: no safetensors file, another kind of adapter, modules that FLUX.1 does not have, values
            that are no numbers, or no module whose alpha is not 0.
    """
    parsed, metadata = _read_sound(Path(path))
    state, alphas = to_state(parsed.modules)
    warnings = parsed.without_effect()
    if not any(alphas.values()):
        raise UserError(
            f"{Path(path).name}: the LoRA would change nothing, because {warnings[0]}; {_NO_ALPHA}"
        )
    return Lora(state, alphas, metadata, tuple(warnings))


def save_kohya(
    path: Path,
    state: Mapping[str, torch.Tensor],
    alpha: float | Mapping[str, float],
    metadata: Mapping[str, str],
    precision: torch.dtype | None = None,
) -> None:
    """Write a canonical state in kohya's keys, atomically.

    Args:
        path: the safetensors file.
        state: `<module>.lora_A.weight`, `<module>.lora_B.weight`.
        alpha: one alpha, or one a module.
        metadata: text by name; it goes into the file as it is, so it must name no file, folder or caption.
        precision: the matrices' number format, one of `PRECISIONS`; None keeps the state's own. Alphas are
            float32 in any case.

    Raises:
        UserError: a value is too large for the number format.
    """
    save_tensors(Path(path), write(from_state(in_precision(state, precision), alpha), "kohya"), metadata)


def in_precision(
    state: Mapping[str, torch.Tensor], precision: torch.dtype | None
) -> Mapping[str, torch.Tensor]:
    """The state in another number format; None leaves it. A value that it can't hold raises UserError."""
    if precision is None:
        return state
    rounded = {key: value.to(precision) for key, value in state.items()}
    for key, value in rounded.items():
        if bool(torch.isfinite(state[key]).all()) and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"the LoRA's values of {key.partition('.lora_')[0]} are too large for "
                f"{str(precision).removeprefix('torch.')}; save it in bf16 or float"
            )
    return rounded


def convert_lora(
    source: Path, target: Path, format: LoraFormat = "kohya", *, transformer_only: bool = False
) -> list[str]:
    """Write the LoRA `source` to `target` in another form, with equal ΔW and its metadata.

    Its hash is another one, so the metadata hold that of the first source: by it a withdrawn consent reaches
    what learned from the photograph. With `transformer_only` tensors of the text encoders are left out.
    Returns warnings.

    Raises:
        UserError: it can't be read, or has an alpha of 0, which would erase weights in diffusers' form.
    """
    parsed, metadata = _read_sound(Path(source), transformer_only=transformer_only)
    # It describes the old keys and their alpha; left in, diffusers would apply the alpha twice.
    metadata.pop(PEFT_METADATA, None)
    metadata.setdefault(SOURCE_KEY, sha256_file(source))
    warnings = [f"the LoRA changes less than it seems: {said}" for said in parsed.without_effect()]
    if format == "diffusers":
        if any(module.alpha == 0 for module in parsed.modules.values()):
            said = parsed.without_effect()[0]
            raise UserError(
                f"{Path(source).name}: {said}, and in diffusers' form, which has no alpha, their weights "
                f"would be lost; {_NO_ALPHA}"
            )
        for name in SCALE_METADATA:
            metadata.pop(name, None)
    save_tensors(Path(target), write(parsed.modules, format), metadata)
    if parsed.left_out:
        warnings.append(
            f"{parsed.left_out} tensors of text encoders were left out: the LoRA's effect differs from the "
            "whole file's"
        )
    return warnings


def inspect_lora(path: Path) -> dict[str, Any]:
    """What a LoRA file is, as plain values: form, ranks, alphas, scales, blocks, precision, metadata,
    warnings.
    """
    path = Path(path)
    parsed, metadata = _read(path, transformer_only=True)
    modules = parsed.modules
    not_finite = parsed.not_finite()
    warnings = []
    if not_finite:
        warnings.append(f"it holds {not_finite}: it can't be used, get it again")
    warnings += parsed.without_effect()
    if parsed.left_out:
        warnings.append(
            f"{parsed.left_out} of its tensors are of text encoders, which stay frozen here: lora convert "
            "--transformer-only takes the others"
        )
    if parsed.form in ("raw PEFT", "checkpoint", "bare") or parsed.adapter not in ("", "default"):
        warnings.append("ComfyUI ignores these keys silently: convert the file first")
    if not parsed.has_alphas and PEFT_METADATA not in metadata:
        warnings.append("the file has no alpha: its scale is taken as 1")
    if telling := [name for name in TELLING_METADATA if metadata.get(name) not in (None, "", "None", "{}")]:
        warnings.append(f"its metadata may name files or captions: {', '.join(telling)}")
    blocks = {name.split(".")[0] + "." + name.split(".")[1] for name in modules if "blocks." in name}
    return {
        "form": parsed.form,
        "sha256": sha256_file(path),
        "modules": len(modules),
        "double_blocks": sum(block.startswith("transformer_blocks.") for block in blocks),
        "single_blocks": sum(block.startswith("single_transformer_blocks.") for block in blocks),
        "ranks": sorted({module.rank for module in modules.values()}),
        "alphas": sorted({module.alpha for module in modules.values() if math.isfinite(module.alpha)}),
        "scales": sorted({module.scale for module in modules.values() if math.isfinite(module.alpha)}),
        "dtypes": list(parsed.precisions),
        "parameters": sum(module.down.numel() + module.up.numel() for module in modules.values()),
        "delta_norm": None
        if not_finite
        else math.sqrt(sum(float(_delta_norm_squared(module)) for module in modules.values())),
        "not_finite": not_finite,
        "metadata": metadata,
        "warnings": warnings,
    }


def _delta_norm_squared(module: Any) -> torch.Tensor:
    """‖scale · up · down‖², by the small Gram matrices: never the whole ΔW."""
    up, down = module.up.double(), module.down.double()
    return torch.as_tensor(((up.T @ up) * (down @ down.T)).sum() * module.scale**2)


def _read_sound(path: Path, *, transformer_only: bool = False) -> tuple[ParsedLora, dict[str, str]]:
    """A LoRA whose values are all numbers; what is none would make every image black."""
    parsed, metadata = _read(path, transformer_only=transformer_only)
    if wrong := parsed.not_finite():
        raise UserError(f"{path.name}: the LoRA holds {wrong}; get it again, or train it anew")
    return parsed, metadata


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A safetensors file's tensors and metadata; UserError for any other file."""
    check_file(path, "the LoRA")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as handle:
            metadata: dict[str, str] = dict(handle.metadata() or {})
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"the LoRA {path.name} is damaged or no safetensors file ({error}); get it again"
        ) from error
    return tensors, metadata


def _read(path: Path, *, transformer_only: bool = False) -> tuple[ParsedLora, dict[str, str]]:
    tensors, metadata = read_tensors(path)
    try:
        parsed = parse(tensors, transformer_only=transformer_only)
        if not parsed.has_alphas and (config := _peft_config(path, metadata)):
            parsed = parse(tensors, _peft_alphas(parsed, config), transformer_only=transformer_only)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    return parsed, metadata


def _peft_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The PEFT configuration of a file without alphas: in its metadata, or beside a raw PEFT adapter."""
    if PEFT_METADATA in metadata:
        try:
            described = json.loads(metadata[PEFT_METADATA])
        except ValueError:
            described = None
        if not isinstance(described, dict):
            raise UserError(f"{path.name}: its PEFT configuration ({PEFT_METADATA}) is damaged; get it again")
        return {str(key).removeprefix("transformer."): value for key, value in described.items()}
    beside = path.parent / "adapter_config.json"
    if path.name.startswith("adapter_model") and beside.is_file():
        config: dict[str, Any] = read_json(beside)
        return config
    return {}


def _peft_alphas(parsed: ParsedLora, config: Mapping[str, Any]) -> dict[str, float]:
    """Alphas by module from a PEFT configuration (`lora_alpha`, `alpha_pattern`, rank-stabilised scaling)."""
    if config.get("use_dora"):
        raise UserError("the file is a DoRA in PEFT's form, which is not read; convert it to a plain LoRA")
    pattern: Mapping[str, float] = config.get("alpha_pattern") or {}
    alphas = {}
    for name, module in parsed.modules.items():
        special = [value for key, value in pattern.items() if f".{name}".endswith(f".{str(key).lstrip('^')}")]
        alpha = float(special[0] if special else config.get("lora_alpha", module.rank))
        alphas[name] = alpha * math.sqrt(module.rank) if config.get("use_rslora") else alpha
    return alphas


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; its bytes depend on nothing but its content.

    safetensors writes the metadata in an order that differs from process to process; here they are sorted.
    A file that follows the model spec gets the hash of its tensors, by the spec's name and by kohya's.
    """
    plain = {**{str(key): str(value) for key, value in metadata.items()}, "format": "pt"}
    whole = {key: value.detach().cpu() for key, value in tensors.items()}
    seen: set[int] = set()
    for key, value in whole.items():  # safetensors writes no memory twice
        whole[key] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    data = save(whole, plain)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if _MODEL_SPEC in plain:
        content = sha256_bytes(memoryview(data)[8 + length :])
        plain |= {"modelspec.hash_sha256": f"0x{content}", "sshs_model_hash": content}
    header["__metadata__"] = dict(sorted(plain.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[8 + length :])
