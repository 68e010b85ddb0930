"""The real trainer in a process of its own, started as a user starts it; its events become figures."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.files import write_text
from ..diffusioncleft_core.phantom.photographs import write_photographs
from .full_size_loop import ALPHA, RANK

SCRIPT = Path(__file__).resolve().parents[1] / "trainer" / "flux_train_network.py"
CAPTION = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip."
PROMPT = "[CLP] A boy's whole face with an unrepaired unilateral cleft lip."
SEED = 7
NAME = "lora"
RATE = 1e-3
"""Ten times the paper's: so few steps are to change the picture visibly."""
WARM_UP = 3
GIB = 2**30
_LAUNCHER = (
    *("--quiet", "--num_processes", "1", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)


@dataclass(frozen=True)
class Training:
    """One run: side in px, steps, how memory is saved, and whether a preview is drawn at the end."""

    side: int
    steps: int
    checkpointing: bool = False
    swapped: int = 0
    preview: bool = False

    @property
    def name(self) -> str:
        parts = [f"{self.side}px"]
        parts += ["checkpointing"] if self.checkpointing else []
        parts += [f"{self.swapped}-blocks-streamed"] if self.swapped else []
        return "-".join(parts)

    def lora(self, work: Path) -> Path:
        """The file that the run saves."""
        return work / self.name / f"{NAME}.safetensors"

    def picture(self, work: Path) -> Path:
        """The preview that it draws."""
        return work / self.name / "previews" / f"step_{self.steps:06d}_00.png"

    def options(self) -> list[str]:
        """What sets this run apart, as the trainer's options."""
        options = [f"--resolution={self.side}", f"--max_train_steps={self.steps}"]
        options += ["--gradient_checkpointing"] if self.checkpointing else []
        options += [f"--blocks_to_swap={self.swapped}"] if self.swapped else []
        options += [f"--sample_every_n_steps={self.steps}"] if self.preview else []
        return options


def write_phantoms(folder: Path, side: int, n: int = 4) -> Path:
    """Rendered faces with clefts, square, each with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    write_photographs(folder, n, "cleft", 0, side).unlink()
    for path in folder.glob("*.png"):
        write_text(path.with_suffix(".txt"), CAPTION)
    return folder


def train(training: Training, base: Path, images: Path, work: Path, seconds: float) -> dict[str, Any]:
    """Run the trainer under `accelerate launch`, at most so many seconds, and return its figures.

    A run that fails or takes too long gives the figures it has, and says so under `outcome`.
    """
    output = work / training.name
    prompts = work / "prompts.txt"
    write_text(prompts, f"{PROMPT} --w {training.side} --h {training.side} --d {SEED}\n")
    common = {
        "pretrained_model_name_or_path": base,
        "train_data_dir": images,
        "cache_dir": work / "cache",
        "output_dir": output,
        "output_name": NAME,
        "bucket_reso_steps": 64,
        "network_dim": RANK,
        "network_alpha": ALPHA,
        "learning_rate": RATE,
        "resume": "no",
    }
    arguments = [f"--{name}={value}" for name, value in common.items()] + ["--report_every_step"]
    if training.preview:
        arguments.append(f"--sample_prompts={prompts}")
    started = time.monotonic()
    events, in_time = _events([*arguments, *training.options()], output.with_suffix(".log"), seconds)
    figures = figures_of(events, started)
    if not in_time:
        figures["outcome"] = f"stopped after {seconds:.0f} s"
    if figures["outcome"] != "done":
        print(output.with_suffix(".log").read_text("utf-8", errors="replace")[-3000:], file=sys.stderr)
    shutil.rmtree(output / "state", ignore_errors=True)
    return {"options": training.options(), **figures}


def figures_of(events: Sequence[dict[str, Any]], started: float) -> dict[str, Any]:
    """Speed, memory and outcome out of the trainer's events, each with the time `at` which it came."""
    of_kind: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        of_kind.setdefault(event["event"], []).append(event)
    steps = of_kind.get("step", [])
    figures: dict[str, Any] = {"outcome": "done" if "done" in of_kind else "ended without a word"}
    for event in of_kind.get("error", []):
        figures["outcome"] = "; ".join(filter(None, (event["message"], event.get("hint"))))
    figures["steps"] = len(steps)
    if len(steps) > WARM_UP:
        figures["seconds_a_step"] = statistics.median(event["seconds"] for event in steps[WARM_UP:])
    if steps:
        figures["loss"] = {"first": steps[0]["loss"], "last": steps[-1]["loss"]}
    for event in of_kind.get("start", []):
        figures |= {key: event[key] for key in ("memory", "parameters", "optimizer", "buckets", "dtype")}
        figures["seconds_to_start"] = event["at"] - started
    for event in of_kind.get("done", []):
        figures |= {f"{name}_gib": value / GIB for name, value in event.get("peaks", {}).items()}
        figures["seconds"] = event["at"] - started
    told = [event for kind in ("warning", "notice") for event in of_kind.get(kind, [])]
    told = [event["message"] for event in told if not event.get("private")]
    return figures | ({"said": told} if told else {})


def _events(arguments: Sequence[str], log: Path, seconds: float) -> tuple[list[dict[str, Any]], bool]:
    """The events of one run, and whether it ended in time; what it says on standard error goes to `log`."""
    threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    command = [sys.executable, "-P", "-m", "accelerate.commands.launch", *_LAUNCHER]
    command += ["--num_cpu_threads_per_process", threads, str(SCRIPT), *arguments]
    log.parent.mkdir(parents=True, exist_ok=True)
    events: list[dict[str, Any]] = []
    with open(log, "wb") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        timer = threading.Timer(max(1.0, seconds), os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                with contextlib.suppress(ValueError):
                    events.append(json.loads(line) | {"at": time.monotonic()})
            child.wait()
        finally:
            timer.cancel()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    return events, child.returncode != -signal.SIGKILL
