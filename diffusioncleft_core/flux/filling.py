"""Giving a module without storage the weights of a file, every key accounted for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ..errors import UserError
from ..files import read_json
from ..progress import progress
from .source import FluxSource
from .tensors import Tensors


def folder_config(source: FluxSource, component: str) -> dict[str, Any] | None:
    """`config.json` of a diffusers folder's component; None for single files."""
    folder = source.component_folder(component)
    if folder is None:
        return None
    config: dict[str, Any] = read_json(folder / "config.json")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise UserError(
            f"{folder} is quantised by {method}, which is not supported; use the bf16 folder or the fp8 "
            "single file"
        )
    return config


def empty(build: Any, config: Any) -> Any:
    """A module without storage for its weights; its buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return build(config)


def fill(model: Any, state: Mapping[str, torch.Tensor], tensors: Tensors, device: torch.device) -> Any:
    """Give `model` its weights, check that each has one and that none is left, freeze it and move it."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_shapes(expected, {key: tuple(value.shape) for key, value in state.items()}, tensors)
    model.load_state_dict(dict(state), strict=True, assign=True)
    model.requires_grad_(False)
    model.eval()
    return model.to(device)


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], tensors: Tensors
) -> None:
    """Raise UserError unless exactly the expected tensors were found."""
    name = tensors.files[0].name
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    wrong = sorted(key for key in set(expected) & set(found) if expected[key] != found[key])
    for keys, fault in ((missing, "lacks"), (unexpected, "has unknown"), (wrong, "has wrongly shaped")):
        if keys:
            more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
            raise UserError(
                f"{tensors.what}: {name} {fault} tensors ({', '.join(keys[:2])}{more}); it is damaged or "
                "another model"
            )


@contextlib.contextmanager
def counted_reading(tensors: Tensors) -> Iterator[Callable[[], None]]:
    """To be called at each tensor that is read: a large model takes minutes."""
    with progress(len(tensors.names()), f"loading {tensors.what}", unit="tensor", leave=False) as bar:
        yield lambda: bar.update(1)
