"""What a file of any of the three forms is: a LoRA, a DoRA or a LoKr."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import sha256_file
from .dora import is_dora, read_dora
from .lokr import is_lokr, read_lokr
from .lora_file import inspect_lora, read_lora


def said_of(path: Path) -> tuple[dict[str, str], Sequence[str]]:
    """A file's metadata, and sentences on what of it changes nothing; UserError where it can't be used."""
    if is_lokr(path):
        return read_lokr(path).metadata, ()
    lora = read_dora(path).lora if is_dora(path) else read_lora(path)
    return lora.metadata, lora.warnings


def inspect_any(path: Path) -> dict[str, Any]:
    """`inspect_lora` of any form; the norm of ΔW is not told of a DoRA, whose ΔW depends on the base."""
    path = Path(path)
    if is_lokr(path):
        file = read_lokr(path)
        entries = file.modules.values()
        matrices = [value for entry in entries for value in entry.matrices.values()]
        ranks, scales = {entry.rank for entry in entries}, {entry.scale for entry in entries}
        return _described(path, "LyCORIS' LoKr", file.modules, ranks, scales, matrices, file.metadata)
    if is_dora(path):
        dora = read_dora(path)
        downs = {key: value for key, value in dora.lora.state.items() if key.endswith(".lora_A.weight")}
        ranks = {value.shape[0] for value in downs.values()}
        scales = {
            dora.lora.alphas[key.removesuffix(".lora_A.weight")] / value.shape[0]
            for key, value in downs.items()
        }
        matrices = [*dora.lora.state.values(), *dora.scales.values()]
        described = _described(path, "DoRA", dora.lora.alphas, ranks, scales, matrices, dora.lora.metadata)
        if not dora.over_base:
            described["warnings"].append(
                "its scales go with the norm of the changed weight, as LyCORIS has it; ComfyUI divides by "
                "that of the base weight and gives another result"
            )
        return described
    return inspect_lora(path)


def _described(
    path: Path,
    form: str,
    modules: Iterable[str],
    ranks: set[int],
    scales: set[float],
    matrices: Sequence[torch.Tensor],
    metadata: dict[str, str],
) -> dict[str, Any]:
    names = list(modules)
    blocks = {".".join(name.split(".")[:2]) for name in names if "blocks." in name}
    return {
        "form": form,
        "sha256": sha256_file(path),
        "modules": len(names),
        "double_blocks": sum(block.startswith("transformer_blocks.") for block in blocks),
        "single_blocks": sum(block.startswith("single_transformer_blocks.") for block in blocks),
        "ranks": sorted(ranks),
        "alphas": [],
        "scales": sorted(scales),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in matrices}),
        "parameters": sum(value.numel() for value in matrices),
        "delta_norm": None,
        "not_finite": "",
        "metadata": metadata,
        "warnings": ["diffusers does not read this form: it drops a DoRA's scales, and a LoKr as a whole"],
    }
