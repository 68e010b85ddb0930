"""Sums of LoRAs and LoRAs of lower rank, and how far off they are, without ever forming the big ΔW.

A product up · down of rank r has the singular values of the small r × r matrix that is left of it when both
factors go through a QR decomposition. Cut after the largest k of them it is the best approximation of rank k
in the Frobenius norm (Eckart and Young, 1936).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from .lora_keys import LoraModule, share_down
from .transformer_keys import ModulePair, linear_modules

Rank = Callable[[torch.Tensor], int]
"""From a layer's singular values, in falling order, to how many of them are kept."""


@dataclass(frozen=True)
class Errors:
    """Relative Frobenius errors: of all layers' ΔW together, and of the worst one."""

    total: float
    worst: float
    worst_layer: str

    def __str__(self) -> str:
        if not self.total:
            return "error 0"
        worst = f"{self.worst:.3g} in the worst layer ({self.worst_layer})"
        return f"error {self.total:.3g} of the norm in total, {worst}"


def rank_of(rank: int | None, energy: float | None) -> Rank:
    """Keep `rank` singular values, or as few as hold the share `energy` of the squares' sum; at least one."""

    def kept(values: torch.Tensor) -> int:
        if rank is not None:
            return min(rank, len(values))
        assert energy is not None
        shares = values.square().cumsum(0) / values.square().sum().clamp_min(torch.finfo(values.dtype).tiny)
        # Rounding must not ask for one more than there are.
        return min(int((shares < energy * (1 - 1e-12)).sum()) + 1, len(values))

    return kept


def summed(modules: Sequence[LoraModule], weights: Sequence[float]) -> LoraModule:
    """Σ weight · ΔW of LoRAs of one layer as one LoRA, exactly: their ranks stand side by side.

    The scale is the first one's; up matrices of other scales or weights are multiplied, in float32.
    """
    scale = modules[0].scale
    ups = []
    for module, weight in zip(modules, weights, strict=True):
        factor = weight * module.scale / scale
        ups.append(module.up.float() if factor == 1 else module.up.float() * factor)
    down = torch.cat([module.down.float() for module in modules])
    return LoraModule(down, torch.cat(ups, dim=1), scale * down.shape[0])


def truncated(module: LoraModule, rank: Rank) -> LoraModule:
    """The best LoRA of the rank that `rank` says, in float32, at the same scale alpha / rank.

    The singular values are shared out evenly between both matrices. One that keeps its rank stays as it is.
    """
    up_basis, up_rest = torch.linalg.qr(module.up.double())
    down_basis, down_rest = torch.linalg.qr(module.down.double().T)
    left, values, right = torch.linalg.svd(up_rest @ down_rest.T, full_matrices=False)
    kept = rank(values)
    if kept >= module.rank:
        return module
    root = values[:kept].sqrt()
    return LoraModule(
        (root[:, None] * (right[:kept] @ down_basis.T)).float().contiguous(),
        ((up_basis @ left[:, :kept]) * root).float().contiguous(),
        module.scale * kept,
    )


def truncated_all(
    modules: Mapping[str, LoraModule], rank: Rank, done: Callable[[], None]
) -> dict[str, LoraModule]:
    """Every layer's `truncated`; parts of a layer that share their down matrix go on sharing it.

    Args:
        modules: by diffusers name.
        rank: see `truncated`.
        done: called after each layer.
    """
    result: dict[str, LoraModule] = {}
    for group in joint_groups(modules):
        parts = [modules[name] for name in group]
        whole = LoraModule(parts[0].down, torch.cat([part.up for part in parts]), parts[0].alpha)
        low = truncated(whole, rank)
        ups = torch.split(low.up, [part.up.shape[0] for part in parts])
        for name, part, up in zip(group, parts, ups, strict=True):
            result[name] = part if low is whole else LoraModule(low.down, up.contiguous(), low.alpha)
        done()
    return {name: result[name] for name in modules}


def joint_groups(modules: Mapping[str, LoraModule]) -> list[list[str]]:
    """The names of `modules`, those together that share a down matrix, in their order."""
    layer = layer_of()
    by_layer: dict[str, list[str]] = {}
    for name in modules:
        by_layer.setdefault(layer[name].bfl, []).append(name)
    return [
        group
        for names in by_layer.values()
        for group in (
            [names] if share_down([modules[name] for name in names]) else [[name] for name in names]
        )
    ]


def layer_of() -> dict[str, ModulePair]:
    """The BFL layer of every diffusers module that a FLUX.1 can have."""
    return {part: pair for pair in linear_modules(64, 128) for part in pair.parts}


def norm_of(terms: Iterable[tuple[float, LoraModule]]) -> float:
    """‖Σ factor · ΔW‖ of LoRAs of one layer; small differences are not lost in squares."""
    given = list(terms)
    up = torch.cat([factor * module.scale * module.up.double() for factor, module in given], dim=1)
    down = torch.cat([module.down.double() for _, module in given])
    up_rest = torch.linalg.qr(up, mode="r")[1]
    down_rest = torch.linalg.qr(down.T, mode="r")[1]
    return float(torch.linalg.matrix_norm(up_rest @ down_rest.T))


def errors(exact: Mapping[str, LoraModule], given: Mapping[str, LoraModule]) -> Errors:
    """How far the LoRA `given` is from `exact`, of the same layers."""
    found = {
        name: (
            0.0 if _same(module, given[name]) else norm_of([(1.0, module), (-1.0, given[name])]),
            norm_of([(1.0, module)]),
        )
        for name, module in exact.items()
    }
    return of_layers(found)


def _same(one: LoraModule, other: LoraModule) -> bool:
    return (
        one.alpha == other.alpha
        and one.down.shape == other.down.shape
        and torch.equal(one.down.float(), other.down.float())
        and torch.equal(one.up.float(), other.up.float())
    )


def of_layers(found: Mapping[str, tuple[float, float]]) -> Errors:
    """The errors from each layer's ‖difference‖ and ‖ΔW‖."""
    shares = {name: error / norm if norm else 0.0 for name, (error, norm) in found.items()}
    worst = max(shares, key=lambda name: shares[name])
    whole = math.hypot(*(norm for _, norm in found.values()))
    total = math.hypot(*(error for error, _ in found.values())) / whole if whole else 0.0
    return Errors(total, shares[worst], worst)
