"""`python -m benchmarks.train_step`: what a training step costs, beside a bare loop and diffusers' own.

    python -m benchmarks.train_step                              # the embedded model on this machine
    python -m benchmarks.train_step --full-size --compile        # FLUX.1's sizes, random weights, on a GPU
    python -m benchmarks.train_step --full-size --base_format nf4 --checkpointing --sides 1024

Per preset and resolution: seconds a step, images a second, model FLOPs and their share of the device's matrix
product, the ratios to the two loops, and peak memory. `trainer` is the trainer's step on cached latents and
text; `bare` forward, backward and AdamW on the same model and no recipe; `diffusers` a plain loop with the
arithmetic of diffusers' example for FLUX.1 LoRAs. All have a LoRA of the recipe's rank on every linear layer
around one base. Repetitions alternate, so that a busy machine hurts all alike; medians count, and the ratio
is the median of each repetition's, per FLOP where a recipe computes more than one pass.
"""

import argparse
import datetime
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffusioncleft.diffusioncleft_core.environment import hardware, pick_device, versions
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.flux.lora import set_active
from diffusioncleft.diffusioncleft_core.flux.packed import FORMATS, PLAIN
from diffusioncleft.diffusioncleft_core.flux.sampling import no_cudnn_attention
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.tools.full_size import rounded
from diffusioncleft.tools.full_size_base import full_sizes
from diffusioncleft.tools.full_size_loop import ALPHA, GIB, attach_peft, gemm_rate, peaks, synchronize
from diffusioncleft.trainer.network import LORA, attach

from .train_loops import Base, Step, loops, trainer_step

RESULTS = Path(__file__).resolve().parent / "results"
PRESETS = ("paper", "robust")


def timed(steps: Mapping[str, Step], device: torch.device, rounds: int, warm_up: int) -> dict[str, Any]:
    """Wall and processor seconds of every call, rounds alternating, and the most memory of a GPU."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    processor: dict[str, list[float]] = {name: [] for name in steps}
    memory: dict[str, float] = {}
    for turn in range(warm_up + rounds):
        for name, step in steps.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            synchronize(device)
            started, busy = time.perf_counter(), time.process_time()
            with no_cudnn_attention():
                step()
            synchronize(device)
            if turn >= warm_up:
                wall[name].append(time.perf_counter() - started)
                processor[name].append(time.process_time() - busy)
            if device.type == "cuda":
                memory[name] = max(memory.get(name, 0), torch.cuda.max_memory_allocated(device) / GIB)
    return {"wall": wall, "processor": processor, "memory": memory}


def figures(
    steps: Mapping[str, Step],
    flops: Mapping[str, int],
    images: int,
    found: Mapping[str, Any],
    gemm: Mapping[str, Any],
) -> dict[str, Any]:
    """What the times say: each loop's speed, and the trainer's ratios to the loops beside it."""
    result: dict[str, Any] = {}
    for name in steps:
        seconds = statistics.median(found["wall"][name])
        result[name] = {
            "seconds_a_step": seconds,
            "processor_seconds_a_step": statistics.median(found["processor"][name]),
            "images_a_second": images / seconds,
            "model_tflop_a_step": flops[name] / 1e12,
            "share_of_gemm": flops[name] / 1e12 / seconds / gemm["tflops"],
        }
        if "processor_tflops" in gemm:
            rate = flops[name] / 1e12 / statistics.median(found["processor"][name])
            result[name]["share_of_gemm_processor"] = rate / gemm["processor_tflops"]
        if name in found["memory"]:
            result[name]["gpu_allocated_peak_gib"] = found["memory"][name]
    for name in (name for name in steps if name.startswith("trainer")):
        for other in ("bare", "diffusers"):
            more = flops[name] / flops[other]
            for kind in ("wall", "processor"):
                pairs = zip(found[kind][name], found[kind][other], strict=True)
                ratio = statistics.median(one / two for one, two in pairs) / more
                result[name][f"times_{other}_per_flop_{kind}"] = ratio
    return result


def casts(base: Base, side: int, folder: Path) -> dict[str, int]:
    """Copies to another number format in one of the paper's steps under bf16 autocast, with peft's casts of
    each LoRA input and as the trainer leaves them.
    """
    from torch.profiler import ProfilerActivity, profile

    narrow = Base.embedded(base.device, torch.bfloat16)
    step, transformer = trainer_step(named_recipe("paper"), narrow, side, folder)
    counted = {}
    for name, wanted in (("left_to_autocast", False), ("with_peft", True)):
        for module in transformer.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = wanted
        step()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            step()
        events = {entry.key: entry.count for entry in recorded.key_averages()}
        counted[name] = events["aten::_to_copy"]
    return counted


def switch_microseconds(recipe: Recipe) -> dict[str, float]:
    """Processor time of switching the LoRA of a full-size transformer off and on again, as one step with
    output preservation does: by a walk over its modules, and as the trainer does it.
    """
    from diffusers import FluxTransformer2DModel

    meta = torch.device("meta")
    with meta:
        transformer = FluxTransformer2DModel.from_config(dict(full_sizes().transformer))
        _, activate = attach(transformer.requires_grad_(False), recipe, meta)

    def by_list() -> None:
        activate(False, True)
        activate(True, True)

    def by_walk() -> None:
        set_active(transformer, [])
        set_active(transformer, [LORA])

    return {
        "one_list": _microseconds(by_list, 1000),
        "walk_over_modules": _microseconds(by_walk, 10),
    }


def optimizer_milliseconds(base: Base, recipe: Recipe, repeats: int = 10) -> dict[str, float]:
    """Processor time of AdamW's step on the recipe's LoRA: fused as in the trainer, foreach, and neither."""
    found = {}
    ways: Mapping[str, Mapping[str, Any]] = {
        "fused": {"fused": True},
        "foreach": {"foreach": True},
        "plain": {"foreach": False},
    }
    for name, how in ways.items():
        parameters = attach_peft(base.another(), recipe.network.rank, ALPHA, base.device)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, **how)

        def step(optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.step()
            synchronize(base.device)

        step()
        found[name] = _microseconds(step, repeats) / 1000
    return found


def _microseconds(work: Step, repeats: int) -> float:
    found = []
    for _ in range(repeats):
        started = time.process_time_ns()
        work()
        found.append((time.process_time_ns() - started) / 1000)
    return statistics.median(found)


def recipes(args: argparse.Namespace) -> dict[str, Recipe]:
    """The presets as they are trained, on one size and with AdamW, which all loops can have."""
    changes: dict[str, Any] = {"optimizer.name": "AdamW"}
    if args.checkpointing:
        changes["memory.gradient_checkpointing"] = True
    return {name: named_recipe(name, phantom=not args.full_size).replaced(changes) for name in args.presets}


def _gemm(base: Base) -> dict[str, Any]:
    """The rate of a matrix product; on a processor that others use too, by its own time as well."""
    if base.device.type == "cuda":
        return gemm_rate(base.device, base.dtype, 8192)
    side = 512
    a, b = (torch.randn(side, side, dtype=base.dtype, device=base.device) for _ in range(2))
    seconds = _microseconds(lambda: torch.mm(a, b), 30) / 1e6
    return gemm_rate(base.device, base.dtype, side) | {"processor_tflops": 2 * side**3 / seconds / 1e12}


def measure(args: argparse.Namespace, base: Base) -> dict[str, Any]:
    """All figures of the base."""
    gemm = _gemm(base)
    chosen = recipes(args)
    first = next(iter(chosen.values()))
    found: dict[str, Any] = {"gemm": gemm, "steps": {}}
    with tempfile.TemporaryDirectory() as folder:
        for preset, recipe in chosen.items():
            for side in args.sides:
                steps = loops(recipe, base, side, Path(folder), compiled=args.compile)
                flops = {
                    name: base.flops(recipe, side) if name.startswith("trainer") else
                    base.loop_flops(recipe, side) for name in steps
                }  # fmt: skip
                times = timed(steps, base.device, args.rounds, args.warm_up)
                images = recipe.data.batch_size * recipe.optimizer.accumulation_steps
                found["steps"][f"{preset}_{side}"] = figures(steps, flops, images, times, gemm)
                print(f"{preset} {side} px: {rounded(found['steps'][f'{preset}_{side}'])}", flush=True)
        if not args.full_size:
            found["casts_a_step_bf16_autocast"] = casts(base, args.sides[0], Path(folder))
    found["switch_off_and_on_microseconds_full_size"] = switch_microseconds(named_recipe("robust"))
    found["adamw_milliseconds"] = optimizer_milliseconds(base, first)
    return found | {"peaks": peaks(base.device)}


def _command(arguments: Sequence[str]) -> str:
    """The command line without the folder of the figures."""
    words = list(arguments)
    if "--out" in words:
        place = words.index("--out")
        del words[place : place + 2]
    return shlex.join(["python", "-m", "benchmarks.train_step", *words])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full-size", action="store_true", help="FLUX.1's sizes; needs a GPU of 40 GB")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--sides", nargs="+", type=int, help="px (default: 64 128, at full size 512 1024)")
    parser.add_argument("--base_format", choices=(PLAIN, *FORMATS), default=PLAIN, help="at full size")
    parser.add_argument("--blocks_to_swap", type=int, default=0, help="at full size: blocks to stream")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="also the trainer with compiled blocks")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    args.sides = args.sides or ([512, 1024] if args.full_size else [64, 128])
    device = pick_device(args.device)
    if args.full_size and device.type != "cuda":
        parser.error("--full-size needs a CUDA GPU: 12 billion weights compute for hours on a processor")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the GPU is first used
    base = (
        Base.full(device, args.base_format, args.blocks_to_swap) if args.full_size else Base.embedded(device)
    )
    result = {
        "schema": 1,
        "what": "a training step by itself and beside two plain loops; medians of alternating rounds",
        "command": _command(sys.argv[1:] if arguments is None else arguments),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "model": "FLUX.1's sizes, random weights" if args.full_size else "phantom-flux",
        "base_format": args.base_format,
        "text_tokens": base.text_tokens,
        "gradient_checkpointing": args.checkpointing,
        "rounds": args.rounds,
        "dtype": str(base.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        **measure(args, base),
        "versions": versions(),
        "machine": hardware(),
    }
    name = "_".join(
        ["train_step", *(["full", args.base_format] if args.full_size else []), device.type]
        + ["checkpointing"] * args.checkpointing
    )
    path = args.out / f"{name}.json"
    write_json(path, rounded(result))
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
