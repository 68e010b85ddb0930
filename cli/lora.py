"""`diffusioncleft lora`: what is in a LoRA file, and other forms of it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import STRENGTH, number, whole
from ..diffusioncleft_core.recipe.recipe import SAVE_PRECISIONS
from .options import warn

if TYPE_CHECKING:
    from ..diffusioncleft_core.loras.merge import Written

HELP = "inspect, convert, merge, resize and extract LoRA files"
RANK = whole(1, 4096)
EXAMPLES = """\
examples:
  diffusioncleft lora inspect pre_op.safetensors
  diffusioncleft lora convert pre_op.safetensors pre_op_diffusers.safetensors --format diffusers
  diffusioncleft lora convert with_clip.safetensors without.safetensors --transformer-only
  diffusioncleft lora merge pre_op.safetensors:0.7 style.safetensors:0.3 --out both.safetensors
  diffusioncleft lora resize pre_op.safetensors small.safetensors --rank 8
  diffusioncleft lora resize pre_op.safetensors small.safetensors --energy 0.95
  diffusioncleft lora extract flux1-schnell.safetensors tuned.safetensors lora.safetensors --rank 32
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the two actions' arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="show form, ranks, alphas, metadata and warnings")
    inspect.add_argument("file", type=Path, help="a LoRA in safetensors form")
    inspect.add_argument("--json", action="store_true", help="print everything as JSON")
    convert = actions.add_parser("convert", help="write a LoRA under other keys, with equal weights")
    convert.add_argument("file", type=Path, help="a LoRA in safetensors form, of any known keys")
    convert.add_argument("out", type=Path, help="the file to write")
    convert.add_argument(
        "--transformer-only", action="store_true", help="leave out what belongs to text encoders"
    )
    merge = actions.add_parser(
        "merge",
        help="write the weighted sum of LoRAs",
        description="Without --rank the sum is exact: the ranks of its sources add up.",
    )
    merge.add_argument(
        "sources",
        nargs="+",
        type=weighted,
        metavar="FILE[:WEIGHT]",
        help="LoRAs of any known keys, each with its weight (default 1), which may be negative",
    )
    merge.add_argument("--out", type=Path, required=True, metavar="OUT", help="the file to write")
    merge.add_argument("--rank", type=RANK, help="cut every layer to this rank, and tell the error")
    merge.add_argument(
        "--other-bases", action="store_true", help="add LoRAs that were trained on different base models too"
    )
    resize = actions.add_parser(
        "resize",
        help="write a LoRA at a lower rank",
        description="Each layer's best approximation; q, k and v of a joint LoRA count as one layer.",
    )
    resize.add_argument("file", type=Path, help="a LoRA of any known keys")
    resize.add_argument("out", type=Path, help="the file to write")
    how = resize.add_mutually_exclusive_group(required=True)
    how.add_argument("--rank", type=RANK, help="of every layer at most")
    how.add_argument(
        "--energy",
        type=number(0, 1, above=True),
        metavar="SHARE",
        help="keep this share of each layer's squared norm, at whatever rank that takes (0.95)",
    )
    extract = actions.add_parser(
        "extract",
        help="write the difference of two transformers as a LoRA",
        description="Of the blocks' linear layers alone. A run that was stopped goes on.",
    )
    extract.add_argument("base", type=Path, help="a FLUX.1 transformer: a diffusers folder or a single file")
    extract.add_argument(
        "tuned", type=Path, help="what was tuned from it; of a whole checkpoint its transformer"
    )
    extract.add_argument("out", type=Path, help="the file to write")
    extract.add_argument("--rank", type=RANK, required=True, help="of every layer at most")
    extract.add_argument(
        "--qkv",
        choices=("joint", "separate"),
        default="joint",
        help="joint: q, k and v of a block, and a single block's MLP, share one down matrix (default); "
        "separate: each has its own, nearer at the same rank, in a larger file",
    )
    for action in (convert, merge, resize, extract):
        action.add_argument(
            "--format", choices=("kohya", "diffusers", "comfyui"), default="kohya", help="default: kohya"
        )
        action.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    for action in (merge, resize):
        action.add_argument(
            "--save-precision",
            choices=SAVE_PRECISIONS,
            help="number format (default: the widest of the sources')",
        )
    extract.add_argument(
        "--save-precision", choices=SAVE_PRECISIONS, default="bf16", help="number format (default: bf16)"
    )


def weighted(text: str) -> tuple[Path, float]:
    """`a.safetensors:0.7` or `a.safetensors`, whose weight is 1."""
    name, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight or weight.endswith(".safetensors"):
        return Path(text), 1.0
    return Path(name), STRENGTH(weight)


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    if args.action == "inspect":
        from ..diffusioncleft_core.flux.lora_forms import inspect_any

        described = inspect_any(args.file)
        print(json.dumps(described, indent=2, ensure_ascii=False) if args.json else _text(described))
        return 0
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out} must end in .safetensors")
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} is there already; choose another name or give --overwrite")
    from ..diffusioncleft_core.outputs import check_output

    check_output(args.out)
    sources = _ACTIONS[args.action](args)
    _remember(sources, args.out)
    return 0


def _convert(args: argparse.Namespace) -> list[Path]:
    from ..diffusioncleft_core.flux.lora_file import convert_lora

    for warning in convert_lora(args.file, args.out, args.format, transformer_only=args.transformer_only):
        warn(warning)
    print(f"wrote {args.out} ({args.format} keys)")
    return [args.file]


def _merge(args: argparse.Namespace) -> list[Path]:
    from ..diffusioncleft_core.loras.merge import merge_loras

    _tell(
        merge_loras(
            args.sources,
            args.out,
            rank=args.rank,
            format=args.format,
            precision=args.save_precision,
            other_bases=args.other_bases,
        ),
        args,
    )
    return [path for path, _ in args.sources]


def _resize(args: argparse.Namespace) -> list[Path]:
    from ..diffusioncleft_core.loras.merge import resize_lora

    precision = args.save_precision
    _tell(
        resize_lora(
            args.file, args.out, rank=args.rank, energy=args.energy, format=args.format, precision=precision
        ),
        args,
    )
    return [args.file]


def _extract(args: argparse.Namespace) -> list[Path]:
    from ..diffusioncleft_core.loras.extract import extract_lora

    written = extract_lora(
        args.base,
        args.tuned,
        args.out,
        args.rank,
        qkv=args.qkv,
        format=args.format,
        precision=args.save_precision,
    )
    _tell(written, args)
    return [args.base, args.tuned]


_ACTIONS = {"convert": _convert, "merge": _merge, "resize": _resize, "extract": _extract}


def _tell(written: "Written", args: argparse.Namespace) -> None:
    """Print what was written and how exact it is."""
    for warning in written.warnings:
        warn(warning)
    low, high = written.ranks[0], written.ranks[-1]
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    print(f"wrote {args.out} ({args.format} keys, {ranks}): {written.errors}")


def _remember(sources: Sequence[Path], out: Path) -> None:
    """Let a consent that is withdrawn later, or was before, reach the file that was made of these."""
    from ..diffusioncleft_core.dataset.drawn import lora_names, remember_place
    from ..diffusioncleft_core.dataset.withdrawn import mark_made_of

    remember_place(out.parent, lora_names([out]))
    for message in mark_made_of(out, sources):
        warn(message)


def _text(described: dict[str, Any]) -> str:
    def listed(values: list[Any]) -> str:
        return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

    lines = [
        f"keys        {described['form']}",
        f"modules     {described['modules']} in {described['double_blocks']} double "
        f"and {described['single_blocks']} single blocks",
        f"rank        {listed(described['ranks'])}",
        f"alpha       {listed(described['alphas'])}",
        f"alpha/rank  {listed(described['scales'])}",
        f"parameters  {described['parameters']:,} ({listed(described['dtypes'])})",
        f"|ΔW|        {'?' if described['delta_norm'] is None else format(described['delta_norm'], '.6g')}",
        f"sha256      {described['sha256']}",
    ]
    lines += [f"{name:<11} {value}" for name, value in sorted(described["metadata"].items())]
    lines += [f"warning: {warning}" for warning in described["warnings"]]
    return "\n".join(lines)
