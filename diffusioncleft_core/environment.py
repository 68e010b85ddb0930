"""Device, number format, hardware and the versions of the libraries in use."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import UserError

if TYPE_CHECKING:
    import torch


_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""What pip calls a package that is imported by another name."""


def check_packages(names: Sequence[str]) -> str:
    """The packages by import name; UserError that says which are not installed, and how to install them."""
    missing = [_DISTRIBUTIONS.get(name, name) for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"these packages are not installed; run: pip install {' '.join(missing)}")
    return ", ".join(names)


def pick_device(name: str | None = None) -> torch.device:
    """Return the named device, or the best of CUDA, MPS and CPU for None, "" and "auto".

    A device that this machine or this build of torch doesn't have raises UserError.
    """
    import torch

    available = {"cpu": 1}
    if torch.backends.mps.is_available():
        available["mps"] = 1
    if torch.cuda.is_available():
        available["cuda"] = torch.cuda.device_count()
    if not name or name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kind in available))
    kind, _, index = name.partition(":")
    if kind not in available or (index and not (index.isdecimal() and int(index) < available[kind])):
        raise UserError(
            f"device {name!r} is not available here; choose one of: auto, {', '.join(sorted(available))}"
        )
    return torch.device(name)


def trainer_device(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The recipe's fields for a device and a number format; float16 raises UserError."""
    import torch

    formats = {torch.float32: "no", torch.bfloat16: "bf16"}
    if dtype not in formats:
        raise UserError("half precision overflows when FLUX is trained: give --dtype bf16 or fp32")
    return {"memory.device": str(device), "memory.precision": formats[dtype]}


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA, float32 elsewhere."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


_PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "safetensors",
    "bitsandbytes",
    "numpy",
    "pillow",
    "insightface",
    "lpips",
    "pytorch-fid",
    "rapidocr",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python",
    "opencv-python-headless",
)


_KEPT = 512 * 2**20
"""Bytes of freed memory that a process keeps."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let this process keep up to 512 MiB that it freed, for the next step (glibc; elsewhere nothing).

    By default glibc maps each large tensor anew and gives it back at once; on a processor the page faults of
    that were a fifth of the time of drawing. Where the environment sets malloc's thresholds, they stand.
    """
    given = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    if sys.platform != "linux" or any(name in os.environ for name in given):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return
    if not mallopt(_M_MMAP_THRESHOLD, _KEPT // 2):
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that a glibc before 2.34 takes
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that are installed, by distribution name."""
    found = {"diffusioncleft": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int | float]:
    """System, processor, cores this process may use, memory in GiB and, where torch sees any, the GPUs."""
    import psutil

    facts: dict[str, str | int | float] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    try:
        import torch
    except ImportError:
        return facts
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name(0)
        facts["gpus"] = torch.cuda.device_count()
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    elif torch.backends.mps.is_available():
        facts["gpu"] = "Apple MPS"
    return facts


def _cpu_name() -> str:
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def import_onnxruntime() -> Any:
    """The module onnxruntime, which then reports nothing to anybody; ImportError where it isn't installed.

    Since 1.29 its official builds tell their maker the program's path, the machine, and name and run times of
    each model. The switch counts only before the first import. An ORT_DISABLE_TELEMETRY that is set stands.
    Whatever imports it by itself, as insightface does, comes after this.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def offline_import(name: str) -> Any:
    """The module, or None where it is not installed.

    Without a network: on some processors bitsandbytes would ask a hub for a kernel.
    """
    if name in sys.modules:
        return sys.modules[name]
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return None
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
