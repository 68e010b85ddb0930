"""What software and hardware made a result; it names no user, host or path."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from . import __version__

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
        "cores": _usable_cores(),
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


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
