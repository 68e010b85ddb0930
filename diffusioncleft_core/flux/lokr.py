"""LoKr: ΔW as a Kronecker product of two small matrices, the second one of low rank where it is large.

ΔW = scale · w1 ⊗ (w2_a · w2_b), or scale · w1 ⊗ w2 (LyCORIS, https://arxiv.org/abs/2309.14859). Files have
LyCORIS' keys with diffusers' module names (`lycoris_transformer_blocks_0_attn_to_q.lokr_w1`), because a
product for q alone is none of the fused layer's. As LyCORIS and ComfyUI have it the scale is alpha / rank
where w2 is decomposed, and 1 where both matrices are whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import UserError
from .adapters import active_adapters, check_fit, inject, layers_of, pattern, set_active, set_strength
from .dora import keys_of
from .lora_file import in_precision, read_tensors, save_tensors
from .lora_keys import resolve

_MATRICES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")


class LokrModule(NamedTuple):
    """One module's matrices by LyCORIS' names, and its scale."""

    matrices: dict[str, torch.Tensor]
    scale: float

    @property
    def sides(self) -> tuple[int, int]:
        """[out, in] of its ΔW."""
        first, second = (_sides(self.matrices, name) for name in ("lokr_w1", "lokr_w2"))
        return first[0] * second[0], first[1] * second[1]

    @property
    def rank(self) -> int:
        """The rank of w2; its smaller side where it is whole."""
        return (
            self.matrices["lokr_w2_b"].shape[0]
            if "lokr_w2_b" in self.matrices
            else min(self.matrices["lokr_w2"].shape)
        )


class Lokr(NamedTuple):
    """A LoKr's file: its modules by diffusers' names, and its metadata."""

    modules: dict[str, LokrModule]
    metadata: dict[str, str]


def is_lokr(path: Path) -> bool:
    """Whether a file is a LoKr's; False where it can't be read."""
    return any(".lokr_" in key for key in keys_of(path))


def attach_lokr(
    transformer: Any,
    ranks: Mapping[str, int],
    alpha: float,
    name: str = "default",
    *,
    factor: int = 0,
    seed: int | None = None,
) -> list[str]:
    """Put a new trainable LoKr, in float32, beside what is active already; the output does not change yet.

    Args:
        transformer: a frozen `FluxTransformer2DModel`.
        ranks: of w2 by module; one of half its larger side or more keeps w2 whole.
        alpha: scale = alpha / rank, where w2 is not whole.
        name: the adapter's.
        factor: the sides of w1 are this or the nearest divisor below; 0: near the square root.
        seed: for the first weights; None draws from torch's global generator.

    Returns:
        The modules it stands on.
    """
    from peft import LoKrConfig
    from peft.tuners.lokr.layer import factorization

    modules = list(ranks)
    alphas: dict[str, float] = {}
    for module, rank in ranks.items():
        layer = transformer.get_submodule(module)
        sides = [factorization(side, factor or -1)[1] for side in (layer.out_features, layer.in_features)]
        alphas[module] = float(rank) if rank >= max(sides) / 2 else alpha
    rank, usual = ranks[modules[0]], alphas[modules[0]]
    config: Any = LoKrConfig(
        r=rank,
        alpha=usual,
        target_modules=modules,
        rank_pattern=pattern(ranks, rank),
        alpha_pattern=pattern(alphas, usual),
        decompose_factor=factor or -1,
        init_weights="lycoris",
    )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        placed = inject(transformer, name, config, modules, trainable=True)
    for layer in placed.values():
        layer.__class__ = _factored()
        for matrix in _MATRICES:
            held = getattr(layer, matrix)
            if name in held:
                held[name] = torch.nn.Parameter(held[name].detach().float())
    set_active(transformer, [*active_adapters(transformer), name])
    return modules


def load_lokr(transformer: Any, path: Path, strength: float = 1.0, name: str = "lora") -> dict[str, str]:
    """Put a LoKr's file on the transformer, frozen, active beside what already is; returns its metadata.

    Raises:
        UserError: unreadable, or made for a transformer of another size.
    """
    from peft import LoKrConfig

    file = read_lokr(path)
    for module, entry in file.modules.items():
        check_fit(transformer, module, entry.sides, Path(path).name)
    modules = list(file.modules)
    placed = inject(
        transformer, name, LoKrConfig(r=1, alpha=1, target_modules=modules), modules, trainable=False
    )
    for module, layer in placed.items():
        entry = file.modules[module]
        layer.__class__ = _factored()
        weight = layer.get_base_layer().weight
        for matrix in _MATRICES:
            held = getattr(layer, matrix)
            if name in held:
                del held[name]
            if matrix in entry.matrices:
                held[name] = torch.nn.Parameter(entry.matrices[matrix].to(weight), requires_grad=False)
        layer.r[name], layer.alpha[name] = 1, entry.scale
    set_strength(transformer, name, strength)
    set_active(transformer, [*active_adapters(transformer), name])
    return file.metadata


@torch.no_grad()
def start_lokr(transformer: Any, path: Path, name: str) -> None:
    """Copy a LoKr's file into an adapter that is there already; UserError where it is of another form."""
    layers = layers_of(transformer, name)
    if not is_lokr(path):
        raise UserError(
            f"{Path(path).name} is no LoKr, and one is to be trained: give a LoKr's file, or the form lora"
        )
    modules = read_lokr(path).modules
    own = {
        module: {
            matrix: getattr(layer, matrix)[name] for matrix in _MATRICES if name in getattr(layer, matrix)
        }
        for module, layer in layers.items()
    }
    shapes = {module: {key: value.shape for key, value in held.items()} for module, held in own.items()}
    if shapes != {
        module: {key: value.shape for key, value in entry.matrices.items()}
        for module, entry in modules.items()
    }:
        raise UserError(
            f"the LoKr {Path(path).name} is on other layers, or of another rank or factor, than the one to "
            "be trained; start with the settings it was trained with"
        )
    for module, held in own.items():
        entry = modules[module]
        for key, parameter in held.items():
            parameter.copy_(entry.matrices[key])
        first = held["lokr_w1"] if "lokr_w1" in held else held["lokr_w1_a"]
        first.mul_(entry.scale / layers[module].scaling[name])


def save_lokr(
    path: Path, transformer: Any, name: str, metadata: Mapping[str, str], precision: torch.dtype | None = None
) -> None:
    """Write a LoKr in LyCORIS' keys, atomically; see `save_kohya` for the arguments."""
    tensors: dict[str, torch.Tensor] = {}
    for module, layer in layers_of(transformer, name).items():
        key = "lycoris_" + module.replace(".", "_")
        for matrix in _MATRICES:
            if name in getattr(layer, matrix):
                tensors[f"{key}.{matrix}"] = getattr(layer, matrix)[name].detach().cpu()
    tensors = dict(in_precision(tensors, precision))
    for module, layer in layers_of(transformer, name).items():
        key = "lycoris_" + module.replace(".", "_")
        tensors[f"{key}.alpha"] = torch.tensor(float(layer.alpha[name]), dtype=torch.float32)
    save_tensors(path, tensors, metadata)


def read_lokr(path: Path) -> Lokr:
    """Read a LoKr's file.

    Raises:
        UserError: no safetensors file, layers that FLUX.1 does not have or that stand for several of
            diffusers', Tucker's form, magnitudes (DoRA), or values that are no numbers.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    found: dict[str, dict[str, torch.Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, value in tensors.items():
        name, _, matrix = key.rpartition(".")
        if matrix == "alpha":
            alphas[name] = float(value.float())
        elif matrix in _MATRICES and value.ndim == 2:
            found.setdefault(name, {})[matrix] = value.float()
        else:
            raise UserError(
                f"{path.name}: {key} is no part of a linear layer's plain LoKr; convert it to one first"
            )
    modules: dict[str, LokrModule] = {}
    for name, matrices in found.items():
        _, target = resolve(name)
        if not isinstance(target, str):
            if len(target.parts) > 1 or target.swap_halves:
                raise UserError(
                    f"{path.name}: its LoKr is on the fused layer {target.bfl}, of which diffusers' "
                    "layers have a part each; ComfyUI reads it, this program does not"
                )
            target = target.parts[0]
        modules[target] = _module(path, name, matrices, alphas.get(name))
    if not modules:
        raise UserError(f"{path.name}: the file holds no LoKr")
    return Lokr(modules, metadata)


def _module(path: Path, name: str, matrices: dict[str, torch.Tensor], alpha: float | None) -> LokrModule:
    for whole in ("lokr_w1", "lokr_w2"):
        first, second = matrices.get(f"{whole}_a"), matrices.get(f"{whole}_b")
        pair = first is not None and second is not None and first.shape[1] == second.shape[0]
        if (whole in matrices) == pair:
            raise UserError(f"{path.name}: the LoKr is incomplete ({name}.{whole}); get the file again")
    if not all(bool(torch.isfinite(value).all()) for value in matrices.values()):
        raise UserError(f"{path.name}: the LoKr holds values that are no numbers ({name}); get it again")
    if alpha is not None and not math.isfinite(alpha):
        raise UserError(f"{path.name}: the LoKr holds values that are no numbers ({name}); get it again")
    inner = next((matrices[key] for key in ("lokr_w2_b", "lokr_w1_b") if key in matrices), None)
    return LokrModule(matrices, 1.0 if inner is None or alpha is None else alpha / inner.shape[0])


def _sides(matrices: Mapping[str, torch.Tensor], name: str) -> Sequence[int]:
    if name in matrices:
        return matrices[name].shape
    return matrices[f"{name}_a"].shape[0], matrices[f"{name}_b"].shape[1]


@functools.cache
def _factored() -> Any:
    """peft's LoKr layer that multiplies by the two factors one after the other.

    peft makes the whole ΔW [out, in] in each forward pass and keeps it for the backward pass; this gives the
    same product, with two small ones.
    """
    from peft.tuners.lokr import Linear

    class FactoredLokr(Linear):  # type: ignore[misc,unused-ignore]
        def _get_delta_activations(
            self, adapter_name: str, input: torch.Tensor, *args: Any, **kwargs: Any
        ) -> torch.Tensor:
            linear: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.linear
            if adapter_name in self.lokr_w1:
                first = self.lokr_w1[adapter_name]
            else:
                first = self.lokr_w1_a[adapter_name] @ self.lokr_w1_b[adapter_name]
            # [..., in] as [..., columns of w1, columns of w2]: w1 ⊗ w2 acts on both axes apart.
            inputs = self._cast_input_dtype(input, first.dtype).unflatten(-1, (first.shape[1], -1))
            if adapter_name in self.lokr_w2:
                inner = linear(inputs, self.lokr_w2[adapter_name])
            else:
                inner = linear(linear(inputs, self.lokr_w2_b[adapter_name]), self.lokr_w2_a[adapter_name])
            outer = linear(inner.transpose(-1, -2), first).transpose(-1, -2)
            output: torch.Tensor = outer.flatten(-2) * self.scaling[adapter_name]
            return output

    return FactoredLokr
