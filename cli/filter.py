"""`diffusioncleft filter`: what shows an artifact or a face of the training photographs is set aside."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, PAPER_SIMILARITY, SIMILARITY, whole
from ..diffusioncleft_core.text import counted
from .options import (
    add_base_arguments,
    add_limit_argument,
    add_ray_arguments,
    batch_from,
    device_and_dtype,
    engine_from,
    limits_from,
    source_from,
    warn,
)

if TYPE_CHECKING:
    from ..diffusioncleft_core.cluster.work import Engine
    from ..diffusioncleft_core.filters.apply import FilterResult
    from ..diffusioncleft_core.filters.artifacts import ArtifactFilter
    from ..diffusioncleft_core.filters.settings import FilterSettings
    from ..diffusioncleft_core.filters.verdicts import Filters

HELP = "set aside images with an artifact or with a face too like a training photograph's"
EXAMPLES = """\
examples:
  diffusioncleft filter run/generated/pre_op --reference run/private/pre_op --reference run/private/post_op
  diffusioncleft filter demo/generated/pre_op --reference demo/private/pre_op --phantom
  diffusioncleft filter cleftgan --artifacts-only
  diffusioncleft filter run/generated/pre_op --readmit 000012_7.png
  diffusioncleft filter run/generated/pre_op --reject 000013_9.png
  diffusioncleft filter run/generated/pre_op --review review.json
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
        default=PAPER_SIMILARITY,
        help="cosine from which on a face is a leak (default %(default)s)",
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
    add_limit_argument(parser)
    parser.add_argument(
        "--photographs", action="store_true", help="run the artifact filter over the references as well"
    )
    decisions = parser.add_argument_group("what a person decides, over the filters")
    person = decisions.add_mutually_exclusive_group()
    person.add_argument("--readmit", action="append", metavar="FILE", help="take back a rejected image")
    person.add_argument("--reject", action="append", metavar="FILE", help="set an image aside")
    person.add_argument(
        "--review",
        type=Path,
        metavar="FILE",
        help="record what was seen on report.private.html; what is the same person is set aside",
    )
    refill = parser.add_argument_group("make images again in place of rejected ones")
    refill.add_argument(
        "--refill", type=whole(1, 20), metavar="N", help="at most N attempts for a row of the plan"
    )
    refill.add_argument("--lora", type=Path, metavar="FILE", help="the LoRA that drew the set")
    refill.add_argument("--batch", type=COUNT, help="images at once (default 1; phantom 16)")
    add_base_arguments(parser)
    add_ray_arguments(parser)


def run(args: argparse.Namespace) -> int:
    warn_of_withdrawal(args.set)
    if args.readmit:
        return _readmit(args)
    if args.reject:
        return _reject(args)
    if args.review:
        return _review(args)
    from ..diffusioncleft_core.filters.apply import filter_set
    from ..diffusioncleft_core.filters.artifacts import check_kinds
    from ..diffusioncleft_core.filters.settings import load_filters

    kinds = None if args.kinds is None else check_kinds(args.kinds)
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
    filters = load_filters(_settings(args, kinds))
    with engine_from(args) as engine:
        result = filter_set(args.set, filters, engine=engine)
        for message in result.notices:
            print(f"warning: {message}", file=sys.stderr)
        known = result.images - result.checked
        print(f"{counted(result.checked, 'image')} looked at, {known} known before: {args.set}")
        if args.refill is not None:
            _refill(args, filters, engine)
    _tell(args.set)
    if args.photographs and filters.analyzer is not None:
        _tell_photographs(args, filters.artifacts)
    return 0


def warn_of_withdrawal(folder: Path) -> None:
    """Say that a set's LoRA learned from a photograph whose consent was withdrawn."""
    from ..diffusioncleft_core.dataset.drawn import set_withdrawal
    from ..diffusioncleft_core.report.plain_words import WITHDRAWN_SET

    if folder.is_dir() and set_withdrawal(folder) is not None:
        warn(WITHDRAWN_SET)


def _settings(args: argparse.Namespace, kinds: Any) -> FilterSettings:
    from ..diffusioncleft_core.faces.analyzer import find_pack
    from ..diffusioncleft_core.filters.artifacts import ARTIFACTS, needs_faces
    from ..diffusioncleft_core.filters.settings import FilterSettings

    kinds, limits = tuple(ARTIFACTS) if kinds is None else kinds, limits_from(args)
    if args.artifacts_only and not (args.faces or args.phantom or needs_faces(kinds)):
        return FilterSettings(None, kinds=kinds, limits=limits)
    pack = args.faces or ("phantom" if args.phantom else DEFAULT_FACES)
    if find_pack(pack).phantom_only and not args.phantom:
        raise UserError("the embedded face models know phantoms alone: name a face pack, or give --phantom")
    return FilterSettings(
        pack,
        args.device or "cpu",
        kinds,
        limits,
        tuple(args.reference),
        args.threshold,
        args.near_copies,
    )


def _refill(args: argparse.Namespace, filters: Filters, engine: Engine) -> None:
    """Draw again with the settings that the set was drawn with; generation refuses others."""
    from ..diffusioncleft_core.files import read_json
    from ..diffusioncleft_core.filters.apply import filter_set
    from ..diffusioncleft_core.filters.stage import refill_set
    from ..diffusioncleft_core.generation.folder import recorded_sampling
    from ..diffusioncleft_core.generation.generate import draw_all
    from ..diffusioncleft_core.generation.settings import GenerationSettings
    from ..diffusioncleft_core.imageset.places import SETTINGS

    sampling = recorded_sampling(args.set, *device_and_dtype(args, engine), batch_from(args))
    if read_json(args.set / SETTINGS).get("lora") and args.lora is None:
        raise UserError("the set was drawn with a LoRA: give it with --lora")
    settings = GenerationSettings(source_from(args), sampling, args.lora)

    def draw(plan: Any) -> None:
        draw_all(settings, plan, args.set, warn=warn, engine=engine)

    def check() -> FilterResult:
        return filter_set(args.set, filters, engine=engine)

    result = refill_set(args.set, draw, check, attempts=args.refill)
    print(
        f"{counted(result.made, 'image')} made again; rows of the plan still without an accepted image: "
        f"{result.missing}"
    )


def _tell(folder: Path) -> None:
    from ..diffusioncleft_core.filters.stage import filter_summary
    from ..diffusioncleft_core.imageset.manifest import Reread, image_set_rows
    from ..diffusioncleft_core.imageset.places import REJECTED

    found = filter_summary(Reread(partial(image_set_rows, folder)))
    print(f"  of {counted(found['n'], 'image')}: accepted {found['accepted']}, rejected {found['rejected']}")
    for kind, count in found["by_kind"].items():
        if count:
            print(f"    {count:5d}  {kind}")
    if found["refill"]:
        print(f"  filtered set with what was made again: {found['refill']['filtered']}")
    if found["rejected"]:
        print(f"  they lie in {folder / REJECTED}; take one back with --readmit FILE")


def _tell_photographs(args: argparse.Namespace, artifacts: ArtifactFilter) -> None:
    from ..diffusioncleft_core.filters.stage import photograph_verdicts, photographs_summary
    from ..diffusioncleft_core.small_counts import FEWEST

    for dataset in args.reference:
        found = photographs_summary(photograph_verdicts(dataset, artifacts))
        n = found["n"] if found["n"] is not None else f"fewer than {FEWEST}"
        print(f"training photographs of {dataset}: {n}")
        for kind, count in found["by_kind"].items():
            if count != 0:
                print(f"    {f'below {FEWEST}' if count is None else count:>9}  {kind}")


def _readmit(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.filters.decisions import readmit
    from ..diffusioncleft_core.filters.identity import LEAKS
    from ..diffusioncleft_core.imageset.manifest import image_set_rows, instead_of

    for row in readmit(args.set, args.readmit):
        print(f"{row.file}: {', '.join(row.reasons)} overruled")
        for other in instead_of(row, image_set_rows(args.set)):
            print(f"{other.file}: made in its place, and not counted any more")
        if set(LEAKS) & set(row.reasons):
            print(
                f"warning: {row.file} is like a training photograph; publish it only if that is wrong",
                file=sys.stderr,
            )
    return 0


def _reject(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.filters.decisions import reject

    for row in reject(args.set, args.reject):
        print(f"{row.file}: set aside; --readmit takes it back")
    return 0


def _review(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.filters.decisions import SAID, SAME, read_review, review

    result = review(args.set, read_review(args.review))
    counts = result.counts
    print(f"{args.set}: {counted(counts['pairs'], 'pair')} reviewed")
    for verdict, words in SAID.items():
        print(f"  {counts[verdict]:5d}  {words}{' (set aside)' if verdict == SAME else ''}")
    if result.elsewhere:
        print(
            f"  {counted(result.elsewhere, 'pair')} not used here: the image is in another set, which takes "
            "the same file, or was made again since"
        )
    return 0


def _names(text: str) -> list[str]:
    """`eye_bar,text` → [`eye_bar`, `text`]."""
    return [part.strip() for part in text.split(",") if part.strip()]
