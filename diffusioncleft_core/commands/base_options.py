"""The options that name the base model, shared by the commands that draw pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..ranges import SIDE, STRENGTH

if TYPE_CHECKING:
    import torch

    from ..flux.components import FluxSource

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DTYPES |= {name: name for name in DTYPES.values()}
DEFAULT_SIZE = 768
PHANTOM_SIZE = 128


def add_base_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the base model's files (the trainer's names), the device and the number format."""
    group = parser.add_argument_group("base model")
    group.add_argument(
        "--base",
        "--pretrained-model-name-or-path",
        type=Path,
        metavar="PATH",
        help="FLUX.1 schnell: a diffusers folder, or the transformer's single file",
    )
    group.add_argument("--clip-l", type=Path, metavar="FILE", help="CLIP-L text encoder, single file")
    group.add_argument("--t5xxl", type=Path, metavar="FILE", help="T5-XXL text encoder, single file")
    group.add_argument("--ae", type=Path, metavar="FILE", help="autoencoder, single file")
    group.add_argument(
        "--tokenizer-clip", type=Path, metavar="DIR", help="CLIP's tokenizer, for single files"
    )
    group.add_argument("--tokenizer-t5", type=Path, metavar="DIR", help="T5's tokenizer, for single files")
    group.add_argument(
        "--phantom", action="store_true", help="the embedded phantom model, for tests and demonstrations"
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    group.add_argument(
        "--dtype", choices=list(DTYPES), help="number format (default: bf16 on CUDA, else fp32)"
    )


def source_from(args: argparse.Namespace) -> FluxSource:
    """The base model the options name; UserError when none is named or a file is missing."""
    from ..flux.components import FluxSource, phantom_source

    if args.phantom:
        if args.base is not None:
            raise UserError("--phantom uses the embedded model: leave out --base, or leave out --phantom")
        return phantom_source()
    if args.base is None:
        raise UserError(
            "there is no base model: give --base with FLUX.1 schnell's folder or file, or --phantom"
        )
    return FluxSource.from_arguments(
        base=args.base,
        clip_l=args.clip_l,
        t5xxl=args.t5xxl,
        vae=args.ae,
        tokenizer_clip=args.tokenizer_clip,
        tokenizer_t5=args.tokenizer_t5,
    )


def device_and_dtype(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """The device and number format the options name, or this machine's best."""
    import torch

    from ..device import default_dtype, pick_device

    device = pick_device(args.device)
    dtype: torch.dtype = getattr(torch, DTYPES[args.dtype]) if args.dtype else default_dtype(device)
    return device, dtype


def parse_size(text: str) -> tuple[int, int]:
    """`768` or `768x1024` (width × height, px)."""
    sides = [SIDE(part) for part in text.lower().replace("×", "x").split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give 768 or 768x1024")
    return sides[0], sides[-1]


def size_from(args: argparse.Namespace) -> tuple[int, int]:
    """Width and height in px: as given, else 128 for the phantom and the paper's 768."""
    if args.size is not None:
        width, height = args.size
        return int(width), int(height)
    side = PHANTOM_SIZE if args.phantom else DEFAULT_SIZE
    return side, side


def strengths(text: str) -> list[float]:
    """`0.6,0.8,1` → [0.6, 0.8, 1.0]."""
    return [STRENGTH(part) for part in text.split(",") if part.strip()]


def paths(text: str) -> list[Path]:
    """`a.safetensors,b.safetensors` → two paths."""
    return [Path(part.strip()) for part in text.split(",") if part.strip()]
