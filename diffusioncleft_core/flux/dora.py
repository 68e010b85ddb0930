"""DoRA: a LoRA that trains the magnitude of each output's weights apart from their direction.

W' = m · (W + ΔW) / ‖W + ΔW‖, norms over each row [in] of the weight (https://arxiv.org/abs/2402.09353; peft
does the same, and takes the norm as a constant in the backward pass).

A file's `dora_scale` [out, 1] stands beside the LoRA's matrices. ComfyUI, from 0.3.64 to 0.33.0, multiplies
W + ΔW by dora_scale / ‖W‖, with the norm of the base weight, where LyCORIS and peft divide by ‖W + ΔW‖. Our
files are written so that ComfyUI computes W': dora_scale = m · ‖W‖ / ‖W + ΔW‖, and their metadata say so.
Files without that note are read as LyCORIS means them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import UserError
from .adapters import layers_of, linear_layer
from .lora_file import Lora, in_precision, read_tensors, save_tensors
from .lora_keys import LoraModule, from_state, parse, resolve, to_state, write
from .lora_rank import layer_of
from .packed import FrozenLinear
from .transformer_keys import ModulePair

SCALE = ".dora_scale"
NOTE, OF_BASE = "dora_scale_over", "base weight"
"""What the metadata of our files say of the norm that `dora_scale` goes with."""


class Dora(NamedTuple):
    """A DoRA's file: the LoRA, and by module its scales [out]; whose norms they go with."""

    lora: Lora
    scales: dict[str, torch.Tensor]
    over_base: bool


def is_dora(path: Path) -> bool:
    """Whether a LoRA file is a DoRA's; False where it can't be read."""
    return any(key.endswith(SCALE) for key in keys_of(path)) and not any(
        ".lokr_" in key for key in keys_of(path)
    )


def keys_of(path: Path) -> list[str]:
    """The names of a safetensors file's tensors; none where it can't be read: who opens it says why."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError, ValueError):
        return []


def check_base(transformer: Any, modules: list[str]) -> None:
    """Raise UserError where the base's weights do not lie where they are computed with: a DoRA needs them."""
    for module in modules:
        layer = linear_layer(transformer, module)
        if isinstance(layer, FrozenLinear) and layer.streamed:
            raise UserError(
                "a DoRA needs each weight of the base at every step, and streamed blocks are not there; "
                "train it with --blocks_to_swap 0, or train a plain LoRA"
            )


def on(transformer: Any, name: str) -> bool:
    """Whether the adapter is a DoRA that is trained."""
    return any(_magnitude(layer, name) is not None for layer in layers_of(transformer, name).values())


@torch.no_grad()
def begin(transformer: Any, name: str) -> None:
    """Set every magnitude to the norm of the weight as it is, in float32: the output does not change."""
    for layer in layers_of(transformer, name).values():
        magnitude = layer.lora_magnitude_vector[name]
        magnitude.weight = torch.nn.Parameter(_norms(_sum(layer, name)))


@torch.no_grad()
def start(transformer: Any, name: str, file: Dora | None) -> None:
    """Set the magnitudes to a file's; where there is none, as of a plain LoRA, to what leaves its effect."""
    for module, layer in layers_of(transformer, name).items():
        norms = _norms(_sum(layer, name))
        if file is not None:
            scale = file.scales[module].to(norms)
            norms = scale * norms / _norms(_base(layer)) if file.over_base else scale
        layer.lora_magnitude_vector[name].weight.copy_(norms)


@torch.no_grad()
def save_dora(
    path: Path,
    transformer: Any,
    name: str,
    state: Mapping[str, torch.Tensor],
    alpha: float,
    metadata: Mapping[str, str],
    precision: torch.dtype | None = None,
) -> None:
    """Write a DoRA that is trained in kohya's keys, atomically, with `dora_scale` for ComfyUI.

    Args:
        path: the safetensors file.
        transformer, name: where it is.
        state: its `lora_state`.
        alpha: of every module.
        metadata: see `save_kohya`.
        precision: of the matrices; scales are float32 in any case.
    """
    rounded = in_precision(state, precision)
    tensors = write(from_state(rounded, alpha), "kohya")
    layers = layers_of(transformer, name)
    done: set[str] = set()
    for pair in (layer_of()[module] for module in layers):
        if pair.bfl in done:
            continue
        done.add(pair.bfl)
        rows = []
        for part in pair.parts:
            if part not in layers:  # beside parts that have one: its weight stays as it is
                rows.append(_norms(transformer.get_submodule(part).weight.float()))
                continue
            layer = layers[part]
            down, up = (rounded[f"{part}.lora_{side}.weight"].float() for side in "AB")
            base = _base(layer)
            whole = base + layer.scaling[name] * (up @ down).to(base)
            rows.append(layer.lora_magnitude_vector[name].weight * _norms(base) / _norms(whole))
        key = "lora_unet_" + pair.bfl.replace(".", "_")
        tensors[key + SCALE] = torch.cat(rows)[:, None].float()
    save_tensors(path, tensors, {**metadata, NOTE: OF_BASE})


def read_dora(path: Path) -> Dora:
    """Read a DoRA's file, in any keys that a LoRA is read in.

    Raises:
        UserError: no safetensors file, a layer that FLUX.1 does not have, values that are no numbers, or
            magnitudes of the inputs in place of the outputs.
    """
    tensors, metadata = read_tensors(Path(path))
    try:
        return _parsed(tensors, metadata)
    except UserError as error:
        raise UserError(f"{Path(path).name}: {error}") from error


def _parsed(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> Dora:
    scales = {key.removesuffix(SCALE): value.float() for key, value in tensors.items() if key.endswith(SCALE)}
    parsed = parse({key: value for key, value in tensors.items() if not key.endswith(SCALE)})
    modules, by_part = dict(parsed.modules), {}
    for name, scale in scales.items():
        _, target = resolve(name)
        down = next(
            (tensors[name + end] for end in (".lora_down.weight", ".lora_A.weight") if name + end in tensors),
            None,
        )
        if down is None:
            raise UserError(
                f"the DoRA is incomplete: {name} has only a part of its tensors; get the file again"
            )
        if not bool(torch.isfinite(scale).all()):
            raise UserError(
                f"the DoRA holds values that are no numbers ({name}); get it again, or train it anew"
            )
        for part, values in _split(target, scale, down.shape[1], name, modules):
            by_part[part] = values
            if part not in modules:  # its up matrix is zero, its magnitude may have moved all the same
                modules[part] = LoraModule(down[:1].float(), torch.zeros(len(values), 1), 1.0)
    if wrong := parsed.not_finite():
        raise UserError(f"the DoRA holds {wrong}; get it again, or train it anew")
    plain = next((module for module in modules if module not in by_part), None)
    if plain is not None:
        raise UserError(
            f"the file has a DoRA in some layers and a plain LoRA in others ({plain}); give one form"
        )
    state, alphas = to_state(modules)
    return Dora(Lora(state, alphas, metadata), by_part, metadata.get(NOTE) == OF_BASE)


def _split(
    target: str | ModulePair, scale: torch.Tensor, inputs: int, name: str, modules: Mapping[str, LoraModule]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each diffusers module's part of a layer's scales."""
    rows = scale.shape[0]
    parts = (target,) if isinstance(target, str) else target.parts
    known = [modules[part].up.shape[0] for part in parts if part in modules]
    if scale.numel() != rows or (len(parts) == 1 and known and rows != known[0]):
        raise UserError(
            f"the DoRA scales the inputs of {name}, not its outputs, which is not read here; train it with "
            "LyCORIS' wd_on_output"
        )
    if isinstance(target, str):
        yield target, scale.reshape(-1)
        return
    flat = scale.reshape(-1)
    if target.swap_halves:
        flat = torch.cat(flat.chunk(2)[::-1])
    yield from zip(parts, torch.split(flat, target.split_sizes(rows, inputs)), strict=True)


class _FixedGain:
    """What peft asks of a LoRA's variant: the layer's output with a DoRA whose magnitudes are fixed.

    Strength s gives W + s · (W' − W), as ComfyUI blends it.
    """

    @staticmethod
    def forward(
        module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        strength = (
            module.scaling[active_adapter] * module.r[active_adapter] / module.lora_alpha[active_adapter]
        )
        gain = module.lora_magnitude_vector[active_adapter].gain
        bias = module.get_base_layer().bias
        product = result if bias is None else result - bias
        change = (
            module.lora_B[active_adapter](module.lora_A[active_adapter](x)) * module.scaling[active_adapter]
        )
        output: torch.Tensor = result + strength * (gain - 1) * product + gain * change
        return output


class _Gain(torch.nn.Module):
    gain: torch.Tensor

    def __init__(self, gain: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain)


@torch.no_grad()
def fix_gains(transformer: Any, name: str, file: Dora) -> None:
    """Let a plain LoRA that was loaded from `file` give what its DoRA does."""
    for module, layer in layers_of(transformer, name).items():
        base = _base(layer)
        scale = file.scales[module].to(base)
        layer.lora_variant[name] = _FixedGain()
        layer.lora_magnitude_vector[name] = _Gain(
            scale / _norms(base if file.over_base else _sum(layer, name))
        )
        if "lora_magnitude_vector" not in layer.adapter_layer_names:
            layer.adapter_layer_names = (*layer.adapter_layer_names, "lora_magnitude_vector")


def _magnitude(layer: Any, name: str) -> Any | None:
    vectors = getattr(layer, "lora_magnitude_vector", {})
    return vectors[name] if name in vectors and hasattr(vectors[name], "weight") else None


def _base(layer: Any) -> torch.Tensor:
    """The base weight below an adapter [out, in], float32."""
    weight: torch.Tensor = layer.get_base_layer().weight
    return weight.detach().float()


def _sum(layer: Any, name: str) -> torch.Tensor:
    """W + ΔW, float32."""
    base = _base(layer)
    change = layer.lora_B[name].weight.float() @ layer.lora_A[name].weight.float()
    whole: torch.Tensor = base + layer.scaling[name] * change.to(base.device)
    return whole


def _norms(weight: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.norm(weight, dim=1)
    return norms
