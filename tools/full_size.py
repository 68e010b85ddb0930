"""Train on a FLUX.1 schnell of full size and random weights: memory, speed, and what the GPU could give.

    python -m diffusioncleft.tools.full_size --out experiments/full_size.json
    python -m diffusioncleft.tools.full_size --out figures.json --tiny  # the same code in a minute on a CPU
    python -m diffusioncleft.tools.full_size --out figures.json --cases gemm,1024-nf4 --seconds 120

A case's figures are written as soon as they are there; one that fails costs the others nothing, and what
`--seconds` leaves no time for is skipped. `gemm` is the rate of a matrix product; `SIDE-FORM[-Nstreamed]
[-checkpointing][-deterministic]` a bare training loop around a base in `FORM` (plain, fp8, int8, nf4); `lora`
and `reload` whether a fresh process draws with a saved LoRA what the one that trained it drew; `trainer` the
same with the real trainer, its preview and a base on disk, and then the trainer in several ways of saving
memory. Weights can't change how much memory and time a step takes; pictures of random weights show nothing.
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
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.environment import default_dtype, hardware, pick_device, versions
from ..diffusioncleft_core.files import sha256_model, write_json
from . import full_size_cases, full_size_reload
from .full_size_base import (
    Sizes,
    full_sizes,
    parameter_count,
    random_transformer,
    tiny_sizes,
    write_base,
)
from .full_size_cases import GEMM, RELOADED, SAVED, shares
from .full_size_loop import GIB, Loop, release
from .full_size_train import PROMPT, SEED, Training, train, write_phantoms

SHARED_MEMORY = Path("/dev/shm")
HOUR = 3600
ROOM = 34 * GIB
"""Bytes that the base, the LoRAs and the checkpoints take."""
NEEDED = {"case": 15, "base": 60, "trainer": 30, "reload": 25}
"""Seconds that a stage takes at the least: with less left it is skipped."""
TRAINER = "trainer"
CASES = (
    GEMM,
    *("512-plain", "1024-plain", "512-plain-checkpointing", "1024-plain-checkpointing"),
    *("512-fp8", "1024-fp8", "1024-fp8-checkpointing"),
    *("512-nf4", "1024-nf4", "1024-nf4-checkpointing"),
    *("512-plain-20streamed-checkpointing", "1024-plain-20streamed-checkpointing"),
    *(SAVED, RELOADED),
    "512-plain-deterministic",
    TRAINER,
)
"""What is measured unless `--cases` says otherwise, what matters most first."""
TINY_CASES = (
    *(GEMM, "64-plain", "128-plain-checkpointing", "64-fp8", "64-nf4-checkpointing"),
    *("64-plain-2streamed-checkpointing", SAVED, RELOADED, TRAINER),
)


class Record:
    """The figures of all stages, on disk after each."""

    def __init__(self, path: Path, seconds: float, head: dict[str, Any]) -> None:
        self.path, self.document = path, head | {"stages": {}}
        self.given, self._end = seconds, time.monotonic() + seconds
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
        return self.note(name, found | {"stage_seconds": time.monotonic() - started})

    def note(self, name: str, found: dict[str, Any]) -> dict[str, Any]:
        """Put a stage's figures on disk."""
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
    parser.add_argument("--cases", help=f"what to measure, in this order (default: {','.join(CASES)})")
    parser.add_argument("--seconds", type=float, default=HOUR, help="what is late is stopped after these")
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
        chosen = args.cases.split(",") if args.cases else TINY_CASES if args.tiny else CASES
        check_names(chosen)
        measure(record, folder, chosen, tiny=args.tiny)
    finally:
        if args.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(args.out)


def check_names(cases: Sequence[str]) -> None:
    """ValueError for a name that is no case's."""
    for name in cases:
        if name not in (GEMM, SAVED, RELOADED, TRAINER):
            Loop.named(name)


def measure(record: Record, work: Path, cases: Sequence[str], *, tiny: bool) -> None:
    """All cases in their order; the trainer's are processes of their own between them."""
    sizes = tiny_sizes() if tiny else full_sizes()
    record.document["sizes"] = {
        "transformer": dict(sizes.transformer),
        "text_tokens": sizes.text_tokens,
        "t5_layers": f"{sizes.t5xxl['num_layers']} (T5-XXL: 24; training reads cached embeddings)",
        "weights": "random",
        "files_in": "main memory" if SHARED_MEMORY in work.parents else "a folder on disk",
    }
    left = list(cases)
    while left:
        if left[0] == TRAINER:
            _measure_trainer(record, sizes, work, tiny=tiny)
            left.pop(0)
            continue
        # `reload` is to know nothing of the process that trained.
        ends = [index for index, name in enumerate(left) if index and name in (TRAINER, RELOADED)]
        together = left[: ends[0] if ends else len(left)]
        done = _cases_in_a_process(record, together, work, tiny=tiny)
        left = left[done:]


def _cases_in_a_process(record: Record, cases: Sequence[str], work: Path, *, tiny: bool) -> int:
    """Measure cases in one process; return how many are done with: all, or those up to one that ended it."""
    if record.left < NEEDED["case"]:
        for name in cases:
            record.stage(name, dict, needed=NEEDED["case"])
        return len(cases)
    command = [sys.executable, "-m", full_size_cases.__name__, "--cases", ",".join(cases)]
    command += ["--work", str(work / "cases"), *(["--tiny"] if tiny else [])]
    if tflops := record.stages.get(GEMM, {}).get("tflops"):
        command += ["--tflops", f"{tflops}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(record.left, child.kill)
    timer.start()
    done = 0
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith('{"case"'):
                found = json.loads(line)
                record.note(found.pop("case"), found)
                done += 1
        child.wait()
    finally:
        timer.cancel()
        if child.poll() is None:
            child.kill()
    if done < len(cases) and child.returncode and not record.stages.get(cases[done - 1], {}).get("error"):
        # It died in the middle of a case, without a word.
        why = f"stopped after {record.given:.0f} s" if record.left <= 0 else f"ended with {child.returncode}"
        record.note(cases[done], {"error": why})
        done += 1
    return done


def _measure_trainer(record: Record, sizes: Sizes, work: Path, *, tiny: bool) -> None:
    """A base on disk, the real trainer at the small side with a preview, its LoRA in a fresh process, and
    the trainer in several ways of saving memory.
    """
    base, (small, large) = work / "base", (64, 128) if tiny else (512, 1024)

    def write() -> dict[str, Any]:
        device = pick_device()
        dtype = default_dtype(device)
        transformer = random_transformer(sizes, device, dtype)
        written = write_base(base, sizes, transformer, device, dtype)
        del transformer
        release(device)
        return {"bytes": written, "parameters": parameter_count(base)}

    if "bytes" not in record.stage("base", write, needed=NEEDED["base"]):
        return
    record.stage("hashes", lambda: _remember_hashes(base))
    images = write_phantoms(work / "images", large)

    def trained(training: Training) -> None:
        def run() -> dict[str, Any]:
            found = train(training, base, images, work, record.left)
            if "seconds_a_step" not in found:
                return found
            loop = Loop(training.side, checkpointing=training.checkpointing)
            found |= shares(sizes, loop, found, record.stages.get(GEMM, {}).get("tflops"))
            bare = record.stages.get(loop.name, {}).get("seconds_a_step")
            return found | ({"times_the_bare_loop": found["seconds_a_step"] / bare} if bare else {})

        record.stage(f"trainer-{training.name}", run, needed=NEEDED["trainer"])

    first = Training(small, 6 if tiny else 24, preview=True)
    trained(first)
    record.stage("trainer-reload", lambda: _reload(base, first, work, record.left), needed=NEEDED["reload"])
    if not tiny:
        trained(Training(large, 12, checkpointing=True))
        trained(Training(large, 7, checkpointing=True, swapped=20))
        trained(Training(large, 10))


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
    words += ["--tiny"] * args.tiny + (["--cases", args.cases] if args.cases else [])
    words += ["--seconds", f"{args.seconds:g}"] if args.seconds != HOUR else []
    return shlex.join(words)


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
