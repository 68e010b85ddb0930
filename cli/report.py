"""`diffusioncleft report`: the page of a finished run, made again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from .options import named_folder, warn

if TYPE_CHECKING:
    from ..diffusioncleft_core.report.run_folder import RunReport

HELP = "write report.html of a finished run, or of a bare report.json"
EXAMPLES = """\
examples:
  diffusioncleft report runs/first
  diffusioncleft report runs/first --zero-shot zero_shot/schnell --other-model SDXL=zero_shot/sdxl
  diffusioncleft report runs/first --nearest buffalo_l
  diffusioncleft report runs/first --measured measured.json --audited audit_pre_op.json
  diffusioncleft report report.json --out report.html
  diffusioncleft report compare runs/first runs/second

The page is one file and may be shared: no photograph is in it. Its plots lie in the folder `figures` beside
it, as SVG, PDF, PNG and CSV. With --nearest, or when the run has compared the faces already,
report.private.html in the run's private folder shows the nearest pairs for human review.

`compare` puts two runs side by side, or two files that `measure` wrote: each figure, and their difference
with its interval, as comparison.html, .md and .json beside the second one's report.json.
"""


COMPARE, COMPARISON = "compare", "comparison"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of a finished run, or its report.json; or: compare RUN_A RUN_B",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html beside report.json")
    parser.add_argument(
        "--measured", type=Path, metavar="JSON", help="figures that `diffusioncleft measure` wrote"
    )
    parser.add_argument(
        "--audited",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="JSON",
        help="what `diffusioncleft audit` wrote, a file a LoRA",
    )
    parser.add_argument(
        "--zero-shot", type=Path, metavar="DIR", help="images of the base model without a LoRA"
    )
    parser.add_argument(
        "--other-model",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="images of another model for the zero-shot panel; may be repeated",
    )
    parser.add_argument(
        "--nearest",
        metavar="PACK",
        help="compare the faces with this face pack (phantom: the embedded one) and list the nearest pairs",
    )


def run(args: argparse.Namespace) -> int:
    """Make the page of one run, or of two that are compared."""
    if len(args.run) == 3 and str(args.run[0]) == COMPARE:
        return compare(args)
    if len(args.run) != 1:
        raise UserError("give one run, or two to compare: diffusioncleft report compare RUN_A RUN_B")
    args.run = args.run[0]
    return report_run(args)


def compare(args: argparse.Namespace) -> int:
    """Write the page of two runs side by side."""
    from ..diffusioncleft_core.dataset.drawn import remember_place
    from ..diffusioncleft_core.outputs import check_output
    from ..diffusioncleft_core.report.compare import write_comparison
    from ..diffusioncleft_core.report.loras import report_loras
    from ..diffusioncleft_core.report.run_folder import read_report

    given = [
        name for name in ("measured", "audited", "zero_shot", "other_model", "nearest") if vars(args)[name]
    ]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"{names}: compare takes the figures of two reports as they are; leave it out")
    one, other = (read_report(path) for path in args.run[1:])
    out = args.out or other.json.with_name(f"{COMPARISON}.html")
    if out.suffix.lower() != ".html":
        raise UserError(f"--out {out} is no .html: its Markdown and JSON get the same name beside it")
    for suffix in (".html", ".md", ".json"):
        check_output(out.with_suffix(suffix))
    loras = [*report_loras(one.document), *report_loras(other.document)]
    remember_place(out.parent, loras)
    for path in write_comparison(one.document, other.document, out):
        print(path)
    return 0


def report_run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.dataset.drawn import remember_place
    from ..diffusioncleft_core.outputs import check_output
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.html import figures_folder, write_shared
    from ..diffusioncleft_core.report.loras import report_loras
    from ..diffusioncleft_core.report.plain_words import WITHDRAWN_NOTE
    from ..diffusioncleft_core.report.run_folder import (
        HTML,
        collect_pictures,
        conditions_of,
        read_report,
        told_trainings,
        with_audits,
        with_decisions,
        with_loss_curves,
        with_measures,
        with_study,
    )
    from ..diffusioncleft_core.report.withdrawn import with_withdrawal

    report = with_study(with_decisions(read_report(args.run)), warn)
    out = args.out or report.json.with_name(HTML)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give the name of a file")
    check_output(out)
    check_output(figures_folder(out) / "plot.svg")
    sets = (
        [report.folders.generated(name) for name in conditions_of(report.document)] if report.folders else []
    )
    measured = with_audits(with_measures(with_loss_curves(report), args.measured), args.audited)
    document = with_withdrawal(measured, sets=sets)
    if WITHDRAWN_NOTE in document.get("notes", []):
        warn(WITHDRAWN_NOTE)
    pictures = collect_pictures(
        report.folders,
        conditions_of(document),
        phantom=bool(document.get("phantom")),
        previewed=told_trainings(document),
        zero_shot=args.zero_shot,
        other_models=dict(args.other_model),
        labels=labels_of(document),
    )
    remember_place(out.parent, report_loras(document))
    written = write_shared(document, pictures, out)
    print(f"report:  {out}")
    if len(written) > 1:
        print(f"plots:   {figures_folder(out)}")
    private = private_page(report, args.nearest)
    if private is not None:
        print(f"private: {private}")
    return 0


def private_page(report: RunReport, pack: str | None) -> Path | None:
    """The page of nearest pairs, where the run's private folder lists them or `pack` finds them."""
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.html import write_private_html
    from ..diffusioncleft_core.report.nearest import nearest_pairs, read_nearest, write_nearest
    from ..diffusioncleft_core.report.run_folder import PRIVATE_HTML, conditions_of

    folders = report.folders
    if folders is None or not folders.private.is_dir():
        if pack is not None:
            raise UserError(
                f"{report.json.parent} has no private folder with photographs: leave out --nearest"
            )
        return None
    if pack is not None:
        from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
        from ..diffusioncleft_core.outputs import check_output

        check_output(folders.private / PRIVATE_HTML)
        names = conditions_of(report.document)
        pairs = nearest_pairs(
            folders.root,
            {name: folders.generated(name) for name in names if folders.generated(name).is_dir()},
            {name: folders.dataset(name) for name in names if folders.dataset(name).is_dir()},
            load_face_analyzer(pack),
            cache=folders.private / "faces",
        )
        write_nearest(folders.private, pairs)
    else:
        pairs = read_nearest(folders.private)
    if not pairs:
        return None
    return write_private_html(
        pairs,
        folders.root,
        folders.private / PRIVATE_HTML,
        phantom=bool(report.document.get("phantom")),
        labels=labels_of(report.document),
    )
