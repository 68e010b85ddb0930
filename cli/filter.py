"""`diffusioncleft filter`: what shows an artifact or a face of the training photographs is set aside."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SIMILARITY, whole
from .options import add_base_arguments, batch_from, device_and_dtype, source_from

if TYPE_CHECKING:
    from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer
    from ..diffusioncleft_core.filters.apply import FilterResult
    from ..diffusioncleft_core.filters.artifacts import ArtifactFilter
    from ..diffusioncleft_core.filters.identity import IdentityFilter

HELP = "set aside images with an artifact or with a face too like a training photograph's"
EXAMPLES = """\
examples:
  diffusioncleft filter run/generated/pre_op --reference run/private/pre_op --reference run/private/post_op
  diffusioncleft filter demo/generated/pre_op --reference demo/private/pre_op --phantom
  diffusioncleft filter cleftgan --artifacts-only
  diffusioncleft filter run/generated/pre_op --readmit 000012_7.png
  diffusioncleft filter run/generated/pre_op --reference run/private/pre_op \\
      --refill 3 --lora run/loras/pre_op/clp.safetensors --base FLUX.1-schnell

Rejected images lie in SET/rejected, none is deleted. Give --reference for the dataset of EVERY condition: a
face of any training photograph is a leak. docs/filters.md says what is looked for and how well it is found.
"""
DEFAULT_FACES = "buffalo_l"


def configure(parser: argparse.ArgumentParser) -> None:
    from ..diffusioncleft_core.filters.artifacts import ARTIFACTS

    parser.add_argument("set", type=Path, metavar="SET", help="folder of a generated set, or of images")
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="DATASET",
        help="dataset the LoRAs were trained on; repeat it for every condition",
    )
    parser.add_argument(
        "--artifacts-only", action="store_true", help="don't look for identity leaks (no --reference)"
    )
    parser.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
    parser.add_argument(
        "--threshold",
        type=SIMILARITY,
        default=None,
        help="cosine from which on a face is a leak (default 0.6)",
    )
    parser.add_argument(
        "--near-copies",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="set aside near copies of training photographs as well (default)",
    )
    parser.add_argument(
        "--kinds",
        type=_names,
        metavar="A,B",
        help=f"artifacts looked for (default: {','.join(ARTIFACTS)})",
    )
    parser.add_argument(
        "--photographs", action="store_true", help="run the artifact filter over the references as well"
    )
    parser.add_argument("--readmit", action="append", metavar="FILE", help="take back a rejected image")
    refill = parser.add_argument_group("make images again in place of rejected ones")
    refill.add_argument(
        "--refill", type=whole(1, 20), metavar="N", help="at most N attempts for a row of the plan"
    )
    refill.add_argument("--lora", type=Path, metavar="FILE", help="the LoRA that drew the set")
    refill.add_argument("--batch", type=COUNT, help="images at once (default 1; phantom 16)")
    add_base_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.readmit:
        return _readmit(args)
    from ..diffusioncleft_core.filters.artifacts import check_kinds
    from ..diffusioncleft_core.filters.identity import THRESHOLD

    kinds = None if args.kinds is None else check_kinds(args.kinds)
    threshold = THRESHOLD if args.threshold is None else args.threshold
    if args.artifacts_only and args.reference:
        raise UserError("--artifacts-only compares no faces: leave it out, or leave out --reference")
    if not args.artifacts_only and not args.reference:
        raise UserError(
            "there is nothing to compare with: give --reference with the dataset of each condition, "
            "or --artifacts-only"
        )
    if args.phantom and args.faces:
        raise UserError("--phantom brings its own face models; leave out --faces, or --phantom")
    if not args.set.is_dir():
        raise UserError(f"{args.set} is no folder; give the folder of a generated set, or of images")
    artifacts, identity, analyzer = _filters(args, kinds, threshold)
    result = _filter(args.set, artifacts, identity, analyzer)
    for message in result.notices:
        print(f"warning: {message}", file=sys.stderr)
    print(f"{result.checked} images looked at, {len(result.rows) - result.checked} were known: {args.set}")
    if args.refill is not None:
        _refill(args, artifacts, identity, analyzer)
    _tell(args.set)
    if args.photographs:
        _tell_photographs(args, artifacts, analyzer)
    return 0


def _filters(
    args: argparse.Namespace, kinds: Any, threshold: float
) -> tuple[ArtifactFilter, IdentityFilter | None, FaceAnalyzer]:
    from ..diffusioncleft_core.dataset.references import read_references
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
    from ..diffusioncleft_core.filters.artifacts import ARTIFACTS, ArtifactFilter
    from ..diffusioncleft_core.filters.identity import IdentityFilter

    pack = args.faces or ("phantom" if args.phantom else DEFAULT_FACES)
    analyzer = load_face_analyzer(pack, device=args.device or "cpu")
    if analyzer.phantom_only and not args.phantom:
        raise UserError("the embedded face models know phantoms alone: name a face pack, or give --phantom")
    identity = None
    if args.reference:
        reference = read_references(args.reference, analyzer)
        identity = IdentityFilter(reference, threshold, near_copies=args.near_copies)
    return ArtifactFilter(analyzer, kinds=tuple(ARTIFACTS) if kinds is None else kinds), identity, analyzer


def _filter(
    folder: Path, artifacts: ArtifactFilter, identity: IdentityFilter | None, analyzer: FaceAnalyzer
) -> FilterResult:
    from ..diffusioncleft_core.filters.apply import filter_set

    return filter_set(folder, artifacts, identity, analyzer)


def _refill(
    args: argparse.Namespace,
    artifacts: ArtifactFilter,
    identity: IdentityFilter | None,
    analyzer: FaceAnalyzer,
) -> None:
    """Draw again with the settings that the set was drawn with; generation refuses others."""
    from ..diffusioncleft_core.files import read_json
    from ..diffusioncleft_core.filters.stage import refill_set
    from ..diffusioncleft_core.generation.generate import generate, recorded_sampling
    from ..diffusioncleft_core.imageset.places import SETTINGS

    sampling = recorded_sampling(args.set, *device_and_dtype(args), batch_from(args))
    if read_json(args.set / SETTINGS).get("lora") and args.lora is None:
        raise UserError("the set was drawn with a LoRA: give it with --lora")
    source = source_from(args)

    def draw(plan: Any) -> None:
        generate(source, args.lora, plan, args.set, sampling)

    result = refill_set(
        args.set, draw, lambda: _filter(args.set, artifacts, identity, analyzer), attempts=args.refill
    )
    print(
        f"{result.made} images made again; rows of the plan still without an accepted image: {result.missing}"
    )


def _tell(folder: Path) -> None:
    from ..diffusioncleft_core.filters.stage import filter_summary
    from ..diffusioncleft_core.imageset.manifest import filtered_rows, read_image_set
    from ..diffusioncleft_core.imageset.places import REJECTED

    rows = read_image_set(folder)
    found = filter_summary(rows)
    print(f"  of {found['n']} images: accepted {found['accepted']}, rejected {found['rejected']}")
    for kind, count in found["by_kind"].items():
        if count:
            print(f"    {count:5d}  {kind}")
    if found["refill"]:
        print(f"  filtered set with what was made again: {len(filtered_rows(rows))}")
    if found["rejected"]:
        print(f"  they lie in {folder / REJECTED}; take one back with --readmit FILE")


def _tell_photographs(args: argparse.Namespace, artifacts: ArtifactFilter, analyzer: FaceAnalyzer) -> None:
    from ..diffusioncleft_core.filters.stage import SMALLEST_CELL, photograph_verdicts, photographs_summary

    for dataset in args.reference:
        found = photographs_summary(photograph_verdicts(dataset, artifacts, analyzer))
        n = found["n"] if found["n"] is not None else f"fewer than {SMALLEST_CELL}"
        print(f"training photographs of {dataset}: {n}")
        for kind, count in found["by_kind"].items():
            if count != 0:
                print(f"    {f'below {SMALLEST_CELL}' if count is None else count:>9}  {kind}")


def _readmit(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.filters.apply import readmit
    from ..diffusioncleft_core.filters.identity import LEAKS

    for row in readmit(args.set, args.readmit):
        print(f"{row.file}: {', '.join(row.reasons)} overruled")
        if set(LEAKS) & set(row.reasons):
            print(
                f"warning: {row.file} is like a training photograph; publish it only if that is wrong",
                file=sys.stderr,
            )
    return 0


def _names(text: str) -> list[str]:
    """`eye_bar,text` → [`eye_bar`, `text`]."""
    return [part.strip() for part in text.split(",") if part.strip()]
