"""`diffusioncleft audit`: whether a LoRA can be made to give its training photographs away."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, NONE_OR_MORE, SAMPLING_STEPS, SEED
from .options import (
    add_base_arguments,
    add_strength_argument,
    add_vocabulary_argument,
    parse_size,
    sampling_from,
    source_from,
    strength_from,
    warn,
)

HELP = "audit a LoRA: draw from its own captions with several seeds, and test its loss for membership"
EXAMPLES = """\
examples:
  diffusioncleft audit demo/private/pre_op --lora demo/loras/pre_op/clp.safetensors --phantom \\
      --work demo/private/audit --out audit_pre_op.json
  diffusioncleft audit private/pre_op --lora clp.safetensors --base FLUX.1-schnell --faces buffalo_l \\
      --seeds 8 --captions 50 --work private/audit --out audit_pre_op.json
  diffusioncleft audit private/pre_op --lora clp.safetensors --base FLUX.1-schnell --parts membership \\
      --work private/audit --out audit_pre_op.json

DATASET is what the LoRA learned from; its hold-out is the control. What is drawn may show a patient: it lies
in --work, which is private. Run the same command again after an interruption: what is drawn stays.
`diffusioncleft report RUN --audited JSON` puts the findings on the report's first page; `measure` audits a
set that is drawn already. docs/measurements.md explains the figures.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    from ..diffusioncleft_core.audit.choices import AUDIT_SEEDS, PARTS, SEEDS
    from ..diffusioncleft_core.metrics.threshold import FALSE_MATCH_RATE, STATED_RATE

    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset that the LoRA learned from")
    parser.add_argument("--lora", type=Path, required=True, metavar="FILE", help="the LoRA that is audited")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="private folder of drawings")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the findings")
    parser.add_argument(
        "--parts", default=",".join(PARTS), metavar="A,B", help=f"some of {', '.join(PARTS)} (default all)"
    )
    parser.add_argument(
        "--seeds", type=SEEDS, default=AUDIT_SEEDS, help=f"drawings a caption (default {AUDIT_SEEDS})"
    )
    parser.add_argument(
        "--captions", type=NONE_OR_MORE, default=0, help="at most so many captions of each kind (default all)"
    )
    parser.add_argument("--faces", help="face model pack, name or folder (default buffalo_l)")
    parser.add_argument(
        "--false-match-rate",
        type=STATED_RATE,
        default=FALSE_MATCH_RATE,
        metavar="RATE",
        help="of two strangers' faces, that the threshold states (default %(default)g)",
    )
    add_strength_argument(parser)
    parser.add_argument(
        "--size", type=parse_size, metavar="PX", help="768 or 768x1024 (default 768; phantom 128)"
    )
    parser.add_argument(
        "--steps", type=SAMPLING_STEPS, default=4, help="sampling steps (default 4, schnell's)"
    )
    parser.add_argument("--batch", type=COUNT, help="images at once (default 1; phantom 16)")
    parser.add_argument("--seed", type=SEED, default=0, help="of noise and choice (default 0)")
    add_vocabulary_argument(parser)
    add_base_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.audit.document import AuditSettings, audit_lora
    from ..diffusioncleft_core.dataset.drawn import lora_names, remember_place
    from ..diffusioncleft_core.dataset.folder import dataset_rows, require_dataset
    from ..diffusioncleft_core.environment import hardware, versions
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
    from ..diffusioncleft_core.files import write_json
    from ..diffusioncleft_core.generation.settings import GenerationSettings
    from ..diffusioncleft_core.outputs import check_output
    from ..diffusioncleft_core.report.audit_words import lora_sentences, provenance
    from ..diffusioncleft_core.report.blocks import labels_of

    require_dataset(args.dataset)
    if not args.lora.is_file():
        raise UserError(f"there is no file {args.lora}; give the LoRA that is to be audited")
    check_output(args.out)
    check_output(args.work / "drawings")
    parts = tuple(part.strip() for part in args.parts.split(",") if part.strip())
    settings = AuditSettings(parts, args.seeds, args.captions, args.seed, args.false_match_rate)
    sampling = sampling_from(args, strength_from(args, (row.condition for row in dataset_rows(args.dataset))))
    analyzer = load_face_analyzer(
        "phantom" if args.phantom else args.faces or "buffalo_l", device=sampling.device.type
    )
    generation = GenerationSettings(source_from(args), sampling, args.lora)
    found = audit_lora(generation, args.dataset, analyzer, args.work, settings, warn=warn)
    provenances = {"versions": versions(), "hardware": hardware(), "seed": args.seed}
    remember_place(args.out.parent, lora_names([args.lora]))
    write_json(args.out, {"schema": 1, "phantom": args.phantom, **found, "provenance": provenances})
    print(provenance(found["threshold"]))
    print("\n".join(lora_sentences({found["condition"]: found}, labels_of({}))))
    if args.phantom:
        print("phantom models: these findings say nothing about photographs")
    print(f"written to {args.out}")
    return 0
