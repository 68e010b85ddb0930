"""`diffusioncleft lora`: what is in a LoRA file, and other forms of it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import shown
from .options import warn

HELP = "inspect LoRA files and convert them between kohya's, diffusers' and ComfyUI's keys"
EXAMPLES = """\
examples:
  diffusioncleft lora inspect pre_op.safetensors
  diffusioncleft lora convert pre_op.safetensors pre_op_diffusers.safetensors --format diffusers
  diffusioncleft lora convert with_clip.safetensors without.safetensors --transformer-only
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
        "--format", choices=("kohya", "diffusers", "comfyui"), default="kohya", help="default: kohya"
    )
    convert.add_argument(
        "--transformer-only", action="store_true", help="leave out what belongs to text encoders"
    )
    convert.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    if args.action == "inspect":
        from ..diffusioncleft_core.flux.lora_file import inspect_lora

        described = inspect_lora(args.file)
        print(json.dumps(described, indent=2, ensure_ascii=False) if args.json else _text(described))
        return 0
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out} must end in .safetensors")
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} is there already; choose another name or give --overwrite")
    from ..diffusioncleft_core.dataset.drawn import lora_names, remember_place
    from ..diffusioncleft_core.dataset.withdrawn import SAID, add_marks, lora_withdrawal
    from ..diffusioncleft_core.flux.lora_file import convert_lora
    from ..diffusioncleft_core.outputs import check_output

    check_output(args.out)
    for warning in convert_lora(args.file, args.out, args.format, transformer_only=args.transformer_only):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"wrote {args.out} ({args.format} keys)")
    # A consent that is withdrawn later, or was before, reaches this file as well.
    remember_place(args.out.parent, lora_names([args.out]))
    if withdrawal := lora_withdrawal(args.file):
        add_marks(args.out.parent, [withdrawal])
        warn(f"the LoRA {shown(args.file.name)} {SAID}; what was written from it is marked so too")
    return 0


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
