"""Train on a FLUX.1 schnell of full size and random weights: memory, speed, and what the GPU could give.

    python -m diffusioncleft.tools.full_size --out experiments/full_size.json
    python -m diffusioncleft.tools.full_size --out figures.json --tiny  # the same code in a minute on a CPU

In this order, each stage's figures written as soon as they are there, and what `--seconds` leaves no time
for skipped: the rate of a matrix product, a bare training loop, the real trainer at 512 px with a preview,
its LoRA in a fresh process, the trainer at 1024 px in several ways of saving memory, compiled blocks.
Weights can't change how much memory and time a step takes; pictures of random weights show nothing.
"""

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.environment import default_dtype, hardware, pick_device, versions
from ..diffusioncleft_core.files import sha256_model, write_json
from . import full_size_reload
from .flops import step_flops
from .full_size_base import (
    Sizes,
    full_sizes,
    parameter_count,
    random_transformer,
    tiny_sizes,
    write_base,
)
from .full_size_loop import GIB, Loop, attach_peft, gemm_rate, release, synchronize, time_compiled, time_loop
from .full_size_train import ALPHA, PROMPT, RANK, SEED, Training, train, write_phantoms

SHARED_MEMORY = Path("/dev/shm")
HOUR = 3600
ROOM = 34 * GIB
"""Bytes that the base, the LoRAs and the checkpoints take."""
NEEDED = {"bare": 8, "base": 60, "trainer": 30, "reload": 25, "compile": 60}
"""Seconds that a stage takes at the least: with less left it is skipped."""


class Record:
    """The figures of all stages, on disk after each."""

    def __init__(self, path: Path, seconds: float, head: dict[str, Any]) -> None:
        self.path, self.document = path, head | {"stages": {}}
        self._end = time.monotonic() + seconds
        self.stages: dict[str, Any] = self.document["stages"]

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def stage(self, name: str, work: Callable[[], dict[str, Any]], needed: float = 0) -> dict[str, Any]:
        """Do one stage; one that fails or for which no time is left costs the others nothing."""
        started = time.monotonic()
        if self.left < needed:
            found: dict[str, Any] = {"skipped": f"{self.left:.0f} s left"}
        else:
            try:
                found = work()
            except Exception as error:
                traceback.print_exc()
                found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        found["stage_seconds"] = time.monotonic() - started
        self.stages[name] = found
        write_json(self.path, rounded(self.document))
        print(f"{name}: {json.dumps(rounded(found))}", flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the figures")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and small pictures")
    parser.add_argument("--seconds", type=float, default=HOUR, help="late stages are skipped after these")
    parser.add_argument(
        "--work", type=Path, help="folder for the base (default: main memory, else temporary)"
    )
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    head = {
        "schema": 1,
        "command": _command(args),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": hardware(),
        "versions": versions(),
    }
    record = Record(args.out, args.seconds, head)
    folder = args.work or Path(tempfile.mkdtemp(prefix="full-size-", dir=_roomy()))
    try:
        measure(record, folder, tiny=args.tiny)
    finally:
        if args.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(args.out)


def measure(record: Record, work: Path, *, tiny: bool) -> None:
    """All stages, what matters most first."""
    device = pick_device()
    dtype = default_dtype(device)
    sizes = tiny_sizes() if tiny else full_sizes()
    small, large = (64, 128) if tiny else (512, 1024)
    base = work / "base"
    record.document["sizes"] = {
        "transformer": dict(sizes.transformer),
        "text_tokens": sizes.text_tokens,
        "t5_layers": f"{sizes.t5xxl['num_layers']} (T5-XXL: 24; training reads cached embeddings)",
        "weights": "random",
        "dtype": str(dtype).removeprefix("torch."),
        "files_in": "main memory" if SHARED_MEMORY in work.parents else "a folder on disk",
    }
    record.stage("gemm", lambda: gemm_rate(device, dtype, 256 if tiny else 8192))
    loops = [Loop(small), Loop(large, True), Loop(large), Loop(small, True)]
    if tiny:
        loops = [Loop(small, steps=2), Loop(large, True, steps=2)]
    _write_measured_base(record, sizes, base, loops, device, dtype)
    release(device)
    if "bytes" not in record.stages["base"]:
        return
    record.stage("hashes", lambda: _remember_hashes(base))
    images = write_phantoms(work / "images", large)

    def trained(training: Training) -> None:
        def run() -> dict[str, Any]:
            found = train(training, base, images, work, record.left)
            return found | _shares(record, sizes, training.side, training.checkpointing, found)

        record.stage(f"trainer-{training.name}", run, needed=NEEDED["trainer"])

    first = Training(small, 6 if tiny else 24, preview=True)
    trained(first)
    record.stage("reload", lambda: _reload(base, first, work, record.left), needed=NEEDED["reload"])
    if tiny:
        return
    blocks = sizes.transformer["num_layers"] + sizes.transformer["num_single_layers"]
    trained(Training(large, 12, checkpointing=True))
    trained(Training(large, 7, checkpointing=True, swapped=20))
    trained(Training(large, 10))
    trained(Training(small, 7, checkpointing=True, swapped=blocks - 1))
    trained(Training(small, 16, checkpointing=True))
    record.stage("compile", lambda: _compiled(sizes, small, device, dtype), needed=NEEDED["compile"])


def _write_measured_base(
    record: Record,
    sizes: Sizes,
    base: Path,
    loops: Sequence[Loop],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """The bare loop in the process that draws the weights, which then go to disk."""
    started = time.perf_counter()
    transformer = random_transformer(sizes, device, dtype)
    synchronize(device)
    record.document["sizes"]["seconds_to_draw"] = time.perf_counter() - started
    parameters = attach_peft(transformer, RANK, ALPHA)
    for loop in loops:

        def bare(loop: Loop = loop) -> dict[str, Any]:
            found = time_loop(transformer, parameters, loop, sizes.text_tokens, device, dtype)
            return found | _shares(record, sizes, loop.side, loop.checkpointing, found)

        record.stage(_bare(loop.side, loop.checkpointing), bare, needed=NEEDED["bare"])
    transformer.unload_lora()

    def write() -> dict[str, Any]:
        release(device)
        written = write_base(base, sizes, transformer, device, dtype)
        return {"bytes": written, "parameters": parameter_count(base)}

    record.stage("base", write, needed=NEEDED["base"])


def _remember_hashes(base: Path) -> dict[str, Any]:
    """Hash all files at once; the trainer, which does it one after the other, then remembers them."""
    files = [path for path in sorted(base.rglob("*")) if path.is_file()]
    time.sleep(2.5)  # a hash is remembered of files that have come to rest
    with ThreadPoolExecutor() as pool:
        list(pool.map(sha256_model, files))
    return {"files": len(files)}


def _command(args: argparse.Namespace) -> str:
    """The command line, whatever folder the figures went to."""
    words = ["python", "-m", "diffusioncleft.tools.full_size", "--out", f"experiments/{args.out.name}"]
    words += ["--tiny"] * args.tiny + (["--seconds", f"{args.seconds:g}"] if args.seconds != HOUR else [])
    return shlex.join(words)


def _bare(side: int, checkpointing: bool) -> str:
    return f"bare-{Training(side, 0, checkpointing).name}"


def _shares(
    record: Record, sizes: Sizes, side: int, checkpointing: bool, found: dict[str, Any]
) -> dict[str, Any]:
    """Arithmetic of a step, its rate as a share of the matrix product's, and the bare loop's time."""
    seconds = found.get("seconds_a_step")
    if seconds is None:
        return {}
    tokens = (side // 16) ** 2
    needed = step_flops(sizes.transformer, tokens, sizes.text_tokens, RANK)
    done = step_flops(sizes.transformer, tokens, sizes.text_tokens, RANK, recomputed=checkpointing)
    figures: dict[str, Any] = {"tflop_a_step": needed / 1e12, "tflop_a_step_recomputed": done / 1e12}
    peak = record.stages["gemm"].get("tflops")
    if peak:
        figures["share_of_gemm"] = needed / 1e12 / seconds / peak
        figures["share_of_gemm_recomputed"] = done / 1e12 / seconds / peak
    bare = record.stages.get(_bare(side, checkpointing), {}).get("seconds_a_step")
    return figures | ({"times_the_bare_loop": seconds / bare} if bare else {})


def _reload(base: Path, trained: Training, work: Path, seconds: float) -> dict[str, Any]:
    """The LoRA of `trained` in a fresh process, against the trainer's preview."""
    lora, picture = trained.lora(work), trained.picture(work)
    command = [sys.executable, "-m", full_size_reload.__name__, "--base", str(base), "--lora", str(lora)]
    command += ["--preview", str(picture), "--prompt", PROMPT, "--seed", str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=max(1, seconds), check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-2000:].replace("\n", " | "))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"lora_bytes": lora.stat().st_size}


def _compiled(sizes: Sizes, side: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    transformer = random_transformer(sizes, device, dtype)
    parameters = attach_peft(transformer, RANK, ALPHA)
    timed = partial(time_loop, transformer, parameters, Loop(side), sizes.text_tokens, device, dtype)
    return time_compiled(transformer, timed)


def _roomy() -> str | None:
    """Main memory as a file system, where it has room for everything: a base is read fastest there."""
    import psutil

    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)):
        return None
    free = shutil.disk_usage(SHARED_MEMORY).free
    return str(SHARED_MEMORY) if free > ROOM and psutil.virtual_memory().available > 2.5 * ROOM else None


def rounded(value: Any) -> Any:
    """Floats to four significant digits, all the way down."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
