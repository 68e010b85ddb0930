"""`diffusioncleft measure`: FIR, FID and LPIPS of generated sets beside the training photographs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COSINE, COUNT, MOST_MEASURED, PAPER_SIMILARITY, SEED
from .figures import summary
from .options import add_ray_arguments, engine_from, warn
from .set_arguments import conditions_known, references_from, sets_from, told_names

if TYPE_CHECKING:
    from ..diffusioncleft_core.cluster.work import Engine
    from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer
    from ..diffusioncleft_core.metrics.sets import References

HELP = "measure generated sets: FIR, FID, LPIPS as the paper did, and a leak audit with its controls"
EXAMPLES = """\
examples:
  diffusioncleft measure demo/generated/pre_op demo/generated/post_op --phantom \\
      --reference demo/private/pre_op demo/private/post_op --out measured.json
  diffusioncleft measure pre_op post_op --reference private/pre_op private/post_op --faces buffalo_l \\
      --out measured.json
  diffusioncleft measure cleftgan=cleftgan/images gestaltgan=gestaltgan/images --reference healthy \\
      --faces buffalo_l --out measured.json
  diffusioncleft measure ours:pre_op=pre_op theirs:pre_op=other/images --reference private/pre_op \\
      --out measured.json
  diffusioncleft measure pre_op --reference private/pre_op --extractor dinov2=transformers:dinov2-base \\
      --out measured.json
  diffusioncleft measure pre_op --reference private/pre_op --faces buffalo_l --second-faces auraface \\
      --control healthy --metrics fir --out audited.json

A SET is a folder that `generate` made or a bare folder of images; NAME=FOLDER names it, CONDITION=FOLDER says
what it shows, NAME:CONDITION=FOLDER does both. Sets that are compared with the same photographs are ranked.
A reference is a dataset, or a bare folder: of every set, or CONDITION=FOLDER of one condition. FID needs
pytorch-fid's Inception and LPIPS torchvision's AlexNet: `diffusioncleft weights list`. Run the same command
again after an interruption: what is done stays. docs/measurements.md explains the figures.
"""
FIR = "fir"


def configure(parser: argparse.ArgumentParser) -> None:
    from ..diffusioncleft_core.metrics.threshold import FALSE_MATCH_RATE, STATED_RATE

    metrics = known_metrics()
    parser.add_argument(
        "sets", nargs="+", metavar="SET", help="generated set or folder of images, [NAME:][CONDITION=]FOLDER"
    )
    parser.add_argument(
        "--reference",
        nargs="+",
        action="extend",
        default=[],
        metavar="FOLDER",
        help="datasets with the training photographs, or bare folders of images ([CONDITION=]FOLDER); FIR "
        "and FID need them",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the report's figures")
    parser.add_argument("--faces", help="face model pack, name or folder (default buffalo_l)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="own folder of weights, searched first")
    parser.add_argument(
        "--phantom", action="store_true", help="phantoms: the embedded face models, seeded-random networks"
    )
    parser.add_argument(
        "--metrics",
        default=",".join(metrics),
        metavar="A,B",
        help=f"some of {', '.join(metrics)} (default all)",
    )
    parser.add_argument(
        "--extractor",
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help="measure the distances over another network too, under this name: efficientnet-lite0, "
        "timm:FOLDER or transformers:FOLDER (DINOv2, CLIP); may be given several times",
    )
    parser.add_argument(
        "--threshold",
        type=COSINE,
        default=PAPER_SIMILARITY,
        help="cosine of the same person (default %(default)s)",
    )
    parser.add_argument(
        "--false-match-rate",
        type=STATED_RATE,
        default=FALSE_MATCH_RATE,
        metavar="RATE",
        help="of two strangers' faces, that the leak audit's own threshold states (default %(default)g)",
    )
    parser.add_argument(
        "--second-faces",
        metavar="PACK",
        help="another face model pack for the leak audit, best one that filtered nothing",
    )
    parser.add_argument("--pairs", type=COUNT, default=2000, help="random pairs for LPIPS (default 2000)")
    parser.add_argument(
        "--most-images",
        type=COUNT,
        default=MOST_MEASURED,
        metavar="N",
        help="images of a set, drawn at random, that enter distances, neighbourhoods and LPIPS; faces and "
        "near copies are looked for in all (default %(default)s)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of what is drawn at random (default 0)")
    parser.add_argument(
        "--control", type=Path, metavar="DIR", help="other people's faces, for the leak audit and the plane"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where features are kept (default: .measure in each set)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")
    add_ray_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.dataset.drawn import remember_place, set_names, set_provenance
    from ..diffusioncleft_core.dataset.withdrawn import known_withdrawals
    from ..diffusioncleft_core.environment import hardware, versions
    from ..diffusioncleft_core.files import write_json
    from ..diffusioncleft_core.metrics.sets import refuse_nothing
    from ..diffusioncleft_core.outputs import check_output
    from ..diffusioncleft_core.report.plain_words import WITHDRAWN_NOTE
    from ..diffusioncleft_core.report.withdrawn import with_withdrawal

    wanted = metrics_from(args.metrics)
    check_output(args.out)
    references = references_from(args.reference, conditions_known())
    given = sets_from(args.sets, conditions_known(references))
    sets = {one.name: one.folder for one in given}
    if not references and wanted - {"lpips"}:
        warn("no --reference: FIR and FID compare with training photographs, so they stay empty")
    refuse_nothing(sets)
    for message in not_kept([*sets.values(), *references.folders], references.datasets, args.cache):
        warn(message)
    conditions = {one.name: one.condition for one in given if one.name != one.condition}
    with engine_from(args) as engine:
        figures = measured(args, wanted, sets, references, conditions, engine)
    loras = set_provenance(sets)
    provenance = {"versions": versions(), "hardware": hardware(), "seed": args.seed, **loras}
    refuse_unreadable(figures["sets"])
    document = {"schema": 1, "phantom": args.phantom, **figures, "provenance": provenance}
    document = with_withdrawal(document, known_withdrawals(*sets.values()), sets.values())
    if WITHDRAWN_NOTE in document.get("notes", []):
        warn(WITHDRAWN_NOTE)
    for folder in sets.values():
        remember_place(args.out.parent, set_names(folder))
    write_json(args.out, document)
    print("\n".join([*told_names(given), *summary(figures["sets"], figures["figures"]["ranking"])]))
    print(f"written to {args.out}")
    return 0


def measured(
    args: argparse.Namespace,
    wanted: set[str],
    sets: Mapping[str, Path],
    references: References,
    conditions: Mapping[str, str],
    engine: Engine,
) -> dict[str, Any]:
    """The figures of the sets, measured by `engine`; conditions: of sets that are called otherwise."""
    from ..diffusioncleft_core.environment import pick_device
    from ..diffusioncleft_core.metrics.extractors import load_extractors
    from ..diffusioncleft_core.metrics.measure import MeasureSettings, measure_sets

    device = pick_device(args.device)
    extractors = load_extractors(
        wanted,
        phantom=args.phantom,
        device=device,
        own=args.weights,
        further=extractors_from(args.extractor),
    )
    return measure_sets(
        sets,
        references,
        face_analyzer(args, device.type) if FIR in wanted else None,
        extractors,
        MeasureSettings(
            args.threshold,
            args.pairs,
            args.seed,
            args.control,
            args.cache,
            args.false_match_rate,
            conditions,
            args.most_images,
        ),
        second=second_analyzer(args, device.type) if FIR in wanted else None,
        warn=warn,
        engine=engine,
    )


def refuse_unreadable(sets: Mapping[str, Any]) -> None:
    """Raise UserError where not one image of any set could be read."""
    figures = [
        figure
        for metrics in sets.values()
        for profiles in metrics.values()
        for variants in profiles.values()
        for figure in variants.values()
    ]
    readable = [figure["n_images"] for figure in figures if "n_images" in figure]
    if readable and not any(readable):
        raise UserError("not one image could be read, so nothing was measured and nothing written")


def not_kept(sets: Iterable[Path], references: Iterable[Path], cache: Path | None) -> list[str]:
    """What is said of folders that can't be written, where what is computed is usually kept."""
    from ..diffusioncleft_core.outputs import can_write

    computed = "can't be written: what is computed from its images is not kept, and computed again next time"
    named = [] if cache is not None else [(folder, " (--cache DIR keeps it)") for folder in sets]
    named += [(folder, "") for folder in references]
    return [f"{folder} {computed}{hint}" for folder, hint in named if not can_write(folder)]


def face_analyzer(args: argparse.Namespace, device: str) -> FaceAnalyzer:
    """The embedded pack under --phantom, else the named one; a missing one stops the command."""
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer

    if args.phantom:
        return load_face_analyzer("phantom", device=device)
    return load_face_analyzer(args.faces or "buffalo_l", device=device)


def second_analyzer(args: argparse.Namespace, device: str) -> FaceAnalyzer | None:
    """The pack that --second-faces names; UserError where it is the first one again."""
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer

    if args.second_faces is None:
        return None
    first = "phantom" if args.phantom else args.faces or "buffalo_l"
    if args.second_faces == first:
        raise UserError(f"--second-faces {first} is the first pack again; name another, or leave it out")
    return load_face_analyzer(args.second_faces, device=device)


def known_metrics() -> tuple[str, ...]:
    """FIR, and what the extractors measure."""
    from ..diffusioncleft_core.metrics.extractors import EXTRACTORS

    return FIR, *EXTRACTORS


def metrics_from(text: str) -> set[str]:
    known = known_metrics()
    wanted = {part.strip().lower() for part in text.split(",") if part.strip()}
    unknown = sorted(wanted - set(known))
    if unknown or not wanted:
        raise UserError(f"--metrics {text!r} names {unknown or 'nothing'}; choose from: {', '.join(known)}")
    return wanted


def extractors_from(texts: Iterable[str]) -> dict[str, str]:
    """Backbone by the name that its figures get, from NAME=MODEL."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, model = text.partition("=")
        if not separator or not model or not re.fullmatch(r"[a-z][a-z0-9]{0,19}", name):
            raise UserError(
                f"--extractor {text!r} is not NAME=MODEL with a name of small letters and digits; "
                "give it as dinov2=transformers:FOLDER"
            )
        if name in known_metrics() or name in found:
            raise UserError(f"--extractor {name}: there are figures of that name; choose another")
        found[name] = model
    return found
