"""LoRA files out of LoRA files: weighted sums, and files of a lower rank."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..dataset.consent import NOT_RECORDED, RECORDED
from ..dataset.withdrawn import made_of, origins
from ..environment import versions
from ..errors import UserError
from ..files import sha256_file
from ..flux.lora_file import (
    PEFT_METADATA,
    PRECISIONS,
    SCALE_METADATA,
    Lora,
    in_precision,
    read_lora,
    save_tensors,
)
from ..flux.lora_keys import LoraFormat, LoraModule, from_state, to_state, write
from ..flux.lora_rank import Errors, errors, joint_groups, layer_of, rank_of, summed, truncated_all
from ..progress import progress
from ..weight_file import MERGED_KEY, SOURCE_KEY

_BASE = "base_model_sha256"
_SHARED = (_BASE, "ss_base_model_version", "ss_network_module", "modelspec.sai_model_spec",
           "modelspec.architecture", "modelspec.implementation", "trigger", "prompt_form")  # fmt: skip
"""Metadata that hold of a merged LoRA where all its sources agree on them."""


@dataclass(frozen=True)
class Written:
    """A LoRA file that was written: its ranks, how far it is from what was asked for, and what to know."""

    ranks: tuple[int, ...]
    errors: Errors
    warnings: tuple[str, ...] = ()


def merge_loras(
    sources: Sequence[tuple[Path, float]],
    target: Path,
    *,
    rank: int | None = None,
    format: LoraFormat = "kohya",
    precision: str | None = None,
    other_bases: bool = False,
) -> Written:
    """Write the weighted sum of LoRAs to `target`, with what their metadata say of consent and origin.

    Args:
        sources: files of any known keys, each with its weight.
        target: the file to write.
        rank: of every layer at most; None keeps the sum exact, its ranks add up.
        format: the keys to write.
        precision: one of `PRECISIONS`; None takes the widest of the sources'.
        other_bases: whether LoRAs that were trained on different base models may be added.

    Raises:
        UserError: a file that can't be read, LoRAs of different bases or widths, or a sum that is zero.
    """
    loras = [read_lora(path) for path, _ in sources]
    names = [path.name for path, _ in sources]
    if not other_bases:
        _check_bases(loras, names)
    parts: dict[str, list[tuple[LoraModule, float]]] = {}
    for (path, weight), lora in zip(sources, loras, strict=True):
        for name, module in from_state(lora.state, lora.alphas).items():
            known = parts.setdefault(name, [])
            if known and _sides(known[0][0]) != _sides(module):
                raise UserError(
                    f"{names[0]} and {path.name} are LoRAs for models of different widths ({name}); merge "
                    "LoRAs of one model"
                )
            if module.alpha and weight:
                known.append((module, weight))
    exact = {
        name: summed([module for module, _ in found], [weight for _, weight in found])
        for name, found in _ordered(parts).items()
        if found
    }
    if not exact:
        raise UserError("every weight or alpha is 0, so the merged LoRA would change nothing; give others")
    metadata = {name: text for name in _SHARED if (text := _agreed(loras, name))}
    recorded = all(lora.metadata.get("consent") == RECORDED for lora in loras)
    metadata["consent"] = RECORDED if recorded else NOT_RECORDED
    known_by = {name for lora in loras for name in origins(lora.metadata) | made_of(lora.metadata)}
    known_by |= {sha256_file(path) for path, _ in sources}
    metadata[MERGED_KEY] = " ".join(sorted(known_by))
    metadata["merge_weights"] = json.dumps([weight for _, weight in sources])
    metadata["software"] = f"diffusioncleft {versions()['diffusioncleft']}"
    warnings = [
        f"{name} changes less than it seems: {said}"
        for name, lora in zip(names, loras, strict=True)
        for said in lora.warnings
    ]
    if "trigger" not in metadata and any("trigger" in lora.metadata for lora in loras):
        warnings.append("the LoRAs have different triggers: the merged file names none")
    dtype = PRECISIONS[precision] if precision else _widest(loras)
    low = _truncated(exact, rank, None, "merging")
    return _written(target, exact, low, metadata, format, dtype, warnings)


def resize_lora(
    source: Path,
    target: Path,
    *,
    rank: int | None = None,
    energy: float | None = None,
    format: LoraFormat = "kohya",
    precision: str | None = None,
) -> Written:
    """Write a LoRA at a lower rank to `target`: per layer the best approximation of its ΔW.

    Args:
        source: a file of any known keys.
        target: the file to write.
        rank: of every layer at most. Layers that share a down matrix (q, k and v) count as one.
        energy: in place of it, the share of ‖ΔW‖² that each layer keeps at least.
        format, precision: see `merge_loras`.

    Raises:
        UserError: a file that can't be read.
    """
    lora = read_lora(source)
    exact = {name: module for name, module in from_state(lora.state, lora.alphas).items() if module.alpha}
    metadata = dict(lora.metadata)
    metadata.pop(PEFT_METADATA, None)
    metadata.setdefault(SOURCE_KEY, sha256_file(source))
    warnings = [f"the LoRA changes less than it seems: {said}" for said in lora.warnings]
    dtype = PRECISIONS[precision] if precision else _widest([lora])
    low = _truncated(exact, rank, energy, "resizing")
    if all(low[name] is module for name, module in exact.items()):
        warnings.append("no layer has a higher rank than that: the file holds the same LoRA")
    return _written(target, exact, low, metadata, format, dtype, warnings)


def _truncated(
    exact: Mapping[str, LoraModule], rank: int | None, energy: float | None, what: str
) -> dict[str, LoraModule]:
    if rank is None and energy is None:
        return dict(exact)
    with progress(len(joint_groups(exact)), what, unit="layer", leave=False) as bar:
        return truncated_all(exact, rank_of(rank, energy), lambda: bar.update(1))


def _written(
    target: Path,
    exact: Mapping[str, LoraModule],
    low: Mapping[str, LoraModule],
    metadata: dict[str, str],
    format: LoraFormat,
    dtype: torch.dtype,
    warnings: Sequence[str],
) -> Written:
    """Save `low` in its number format, and tell how far that is from `exact`."""
    state, alphas = to_state(low)
    rounded = from_state(in_precision(state, dtype), alphas)
    tell_ranks(metadata, rounded)
    if format == "diffusers":
        for name in SCALE_METADATA:
            metadata.pop(name, None)
    save_tensors(target, write(rounded, format), metadata)
    ranks = tuple(sorted({module.rank for module in rounded.values()}))
    return Written(ranks, errors(exact, rounded), tuple(warnings))


def tell_ranks(metadata: dict[str, str], modules: Mapping[str, LoraModule]) -> None:
    """Let the metadata say the modules' ranks, alphas and scales, by kohya's names; where they differ, so."""
    for name, values in (
        ("ss_network_dim", {module.rank for module in modules.values()}),
        ("ss_network_alpha", {module.alpha for module in modules.values()}),
        ("effective_scale", {module.scale for module in modules.values()}),
    ):
        metadata[name] = f"{next(iter(values)):g}" if len(values) == 1 else "Dynamic"


def _check_bases(loras: Sequence[Lora], names: Sequence[str]) -> None:
    """Refuse LoRAs whose files say that they were trained on different models."""
    told = [
        (name, base) for name, lora in zip(names, loras, strict=True) if (base := lora.metadata.get(_BASE))
    ]
    for name, base in told:
        if base != told[0][1]:
            raise UserError(
                f"{told[0][0]} and {name} were trained on different base models; merge LoRAs of one model, "
                "or give --other-bases where these are forms of one (bf16 and fp8)"
            )


def _agreed(loras: Sequence[Lora], name: str) -> str | None:
    told = {lora.metadata.get(name) for lora in loras}
    return told.pop() if len(told) == 1 else None


def _ordered(
    parts: Mapping[str, list[tuple[LoraModule, float]]],
) -> dict[str, list[tuple[LoraModule, float]]]:
    """In the model's order, whatever the files' is."""
    place = {name: index for index, name in enumerate(layer_of())}
    return {name: parts[name] for name in sorted(parts, key=place.__getitem__)}


def _sides(module: LoraModule) -> tuple[int, int]:
    return module.down.shape[1], module.up.shape[0]


def _widest(loras: Sequence[Lora]) -> torch.dtype:
    kinds = [value.dtype for lora in loras for value in lora.state.values()]
    return functools.reduce(torch.promote_types, kinds)
