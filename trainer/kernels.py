"""The kernels that a training computes with: deterministic ones, and the transformer's blocks compiled."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux.packed import FrozenLinear
from ..diffusioncleft_core.flux.sampling import deterministic, no_cudnn_attention
from ..diffusioncleft_core.recipe.recipe import Recipe

_VARIANTS = 64
"""Compiled forms of a block that are kept: by kind, size, LoRA on or off, with gradients or without, ..."""


@contextlib.contextmanager
def kernels(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Choose the recipe's kernels and number of threads, and put them back.

    On the processor the kernels are deterministic for one number of threads. On a GPU cuBLAS and attention's
    backward pass add in whatever order is fastest, unless they are told otherwise.

    Raises:
        UserError: blocks are to be compiled, and there is no compiler.
    """
    if recipe.memory.compile:
        _require_compiler(recipe.memory.dynamo_backend, device)
    threads = torch.get_num_threads()
    if recipe.memory.cpu_threads:
        torch.set_num_threads(recipe.memory.cpu_threads)
    try:
        with no_cudnn_attention(), deterministic(device.type == "cuda" and recipe.memory.deterministic):
            yield
    finally:
        torch.set_num_threads(threads)


def compile_blocks(transformer: Any, recipe: Recipe, *, several_sizes: bool) -> None:
    """Compile each kind of block once, if the recipe asks for it; it happens in the first steps.

    Blocks whose weights are streamed stay as they are: their copies are Python's work between the layers.

    Args:
        transformer: with its LoRA, placed as it will be trained.
        several_sizes: pictures have several sizes, so that shapes are variables of what is compiled.
    """
    if not recipe.memory.compile:
        return
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
    kinds = transformer._repeated_blocks
    for block in transformer.modules():
        if type(block).__name__ in kinds and not _streams(block):
            block.compile(backend=recipe.memory.dynamo_backend, dynamic=several_sizes)


def uncompiled(recipe: Recipe) -> contextlib.AbstractContextManager[Any]:
    """Within the block nothing compiled runs: previews are drawn as `generate` draws."""
    if not recipe.memory.compile:
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _streams(block: torch.nn.Module) -> bool:
    return any(isinstance(module, FrozenLinear) and module.streamed for module in block.modules())


def _require_compiler(backend: str, device: torch.device) -> None:
    """UserError where inductor has nothing to compile with: a C++ compiler, or triton for a GPU."""
    if backend != "inductor":
        return
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UserError(
                "--compile needs triton on a GPU; pip install triton (Windows: triton-windows), or leave it "
                "out"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "--compile needs a C++ compiler, and none is installed; install g++ or clang, give "
            "--dynamo_backend aot_eager, or leave it out"
        ) from None
