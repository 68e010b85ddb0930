"""Which device and which number format to compute with."""

from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str | None = None) -> "torch.device":
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


def trainer_device(device: "torch.device", dtype: "torch.dtype") -> dict[str, str]:
    """The trainer's arguments for a device and a number format; float16 raises UserError."""
    import torch

    formats = {torch.float32: "no", torch.bfloat16: "bf16"}
    if dtype not in formats:
        raise UserError("half precision overflows when FLUX is trained: give --dtype bf16 or fp32")
    return {"device": str(device), "mixed_precision": formats[dtype]}


def default_dtype(device: "torch.device") -> "torch.dtype":
    """bfloat16 on CUDA, float32 elsewhere."""
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32
