"""`diffusioncleft dataset`: build, show, readmit and purge the private image set."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.dataset import select as people
from ..diffusioncleft_core.dataset.settings import LARGEST_SIDE, SAME_PERSON, SMALLEST_SIDE
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import HOLDOUT, SEED
from ..diffusioncleft_core.text import counted
from .options import add_vocabulary_argument, agreed, warn

if TYPE_CHECKING:
    from ..diffusioncleft_core.dataset.build import BuildResult
    from ..diffusioncleft_core.dataset.trained import ConsentChange

HELP = "build a checked, captioned, private dataset from photographs; show, readmit, withdraw, purge"
EXAMPLES = """\
examples:
  diffusioncleft dataset table photos
  diffusioncleft dataset build photos --metadata photos/metadata.csv --condition pre_op --out private/pre_op
  diffusioncleft dataset show private/pre_op --list
  diffusioncleft dataset readmit private/pre_op --file "IMG 12.jpg"
  diffusioncleft dataset allow-edits private/pre_op
  diffusioncleft dataset restore-captions private/pre_op
  diffusioncleft dataset withdraw runs/first
  diffusioncleft dataset withdraw runs/first --chosen
  diffusioncleft dataset purge private/pre_op

docs/dataset.md describes the table's columns, the checks and what lies in the folder.
"""
DEFAULT_FACES = "buffalo_l"
ACTIONS = ("table", "build", "show", "readmit", "allow-edits", "restore-captions", "withdraw", "purge")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    table = commands.add_parser("table", help="write a first metadata.csv to fill in; consent is left empty")
    table.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photographs; never changed")
    table.add_argument("--out", type=Path, metavar="CSV", help="default: metadata.csv in the folder")
    add_vocabulary_argument(table)
    build = commands.add_parser("build", help="build a dataset, or bring it up to date")
    build.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photographs; never changed")
    build.add_argument(
        "--metadata",
        type=Path,
        metavar="CSV",
        help="table with a row a photograph (default: metadata.csv in the folder, or its CONSENT.txt)",
    )
    build.add_argument("--condition", required=True, help="pre_op, post_op, or another of the vocabulary")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="private folder of the dataset")
    build.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
    build.add_argument(
        "--phantom", action="store_true", help="photographs are phantoms: embedded face models"
    )
    add_vocabulary_argument(build)
    build.add_argument(
        "--holdout", type=HOLDOUT, default=0.1, help="share of subjects held out (default 0.1)"
    )
    build.add_argument("--seed", type=SEED, default=0, help="decides who is held out (default 0)")
    build.add_argument(
        "--apart-from",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="another dataset whose subjects keep their side of the hold-out; may be repeated",
    )
    build.add_argument(
        "--same-person",
        type=SAME_PERSON,
        help="cosine for photographs without subject_id "
        f"(default {people.SAME_PERSON}, phantoms {people.SAME_PERSON_PHANTOM})",
    )
    build.add_argument(
        "--min-side", type=SMALLEST_SIDE, help="smallest side of a photograph, px (default 256, phantoms 64)"
    )
    build.add_argument(
        "--max-side", type=LARGEST_SIDE, help="larger photographs are reduced to this, px (default 2048)"
    )
    build.add_argument("--bare-trigger", action="store_true", help="captions begin with CLP instead of [CLP]")
    build.add_argument(
        "--clinical-captions",
        action="store_true",
        help="captions name clinical facts alone, as the paper's; without it they also name what the table "
        "says of skin, hair and eyes, and end with the closing phrase, as prompts do",
    )
    build.add_argument(
        "--allow-edits", action="store_true", help="let ComfyUI's node Cleft Captions change captions"
    )
    show = commands.add_parser("show", help="counts by role, attribute and reason")
    show.add_argument("folder", type=Path, metavar="DIR")
    show.add_argument("--list", action="store_true", help="name every photograph that was set aside")
    readmit = commands.add_parser(
        "readmit", help="take back a photograph that was set aside, and build again"
    )
    readmit.add_argument("folder", type=Path, metavar="DIR")
    readmit.add_argument(
        "--file", required=True, action="append", help="its name in the list; may be repeated"
    )
    allow = commands.add_parser("allow-edits", help="let ComfyUI's node Cleft Captions change captions")
    allow.add_argument("folder", type=Path, metavar="DIR")
    allow.add_argument("--off", action="store_true", help="forbid it again; captions stay as they are")
    restore = commands.add_parser("restore-captions", help="put back the captions of the build")
    restore.add_argument("folder", type=Path, metavar="DIR")
    withdraw = commands.add_parser(
        "withdraw", help="list, and erase, what was made from photographs whose consent is gone"
    )
    withdraw.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a run, a dataset, a folder of LoRAs or generated images, or a single file of these",
    )
    withdraw.add_argument(
        "--chosen",
        action="store_true",
        help="also LoRAs that learned nothing from them, but whose step they helped to choose (early stop)",
    )
    withdraw.add_argument("--yes", action="store_true", help="erase it, and don't ask")
    purge = commands.add_parser("purge", help="erase everything that was derived from the photographs")
    purge.add_argument("folder", type=Path, metavar="DIR")
    purge.add_argument("--yes", action="store_true", help="don't ask")
    purge.add_argument(
        "--consent-stands",
        action="store_true",
        help="the people still agree: what was trained on the photographs is not marked as withdrawn",
    )


def run(args: argparse.Namespace) -> int:
    """Run one subcommand."""
    actions = (_table, _build, _show, _readmit, _allow_edits, _restore_captions, _withdraw, _purge)
    return dict(zip(ACTIONS, actions, strict=True))[args.action](args)


def _table(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from ..diffusioncleft_core.dataset.folder_consent import TABLE, write_first_table

    columns = load_vocabulary(args.vocabulary).columns
    out = args.out or args.photos / TABLE
    count = write_first_table(args.photos, out, columns.values())
    print(f"{out}: {counted(count, 'photograph')}; fill in what is known of each:")
    for name, column in columns.items():
        need = " (needed)" if column.required and name != "file" else ""
        print(f"  {name:<16} {', '.join(column.values) or column.title}{need}")
    print(
        "only a photograph whose consent is yes enters a dataset; ask those who are shown, or their guardians"
    )
    return 0


def _build(args: argparse.Namespace) -> int:
    if args.phantom and args.faces:
        raise UserError(
            "--phantom brings its own face models; leave out --faces, or --phantom for photographs"
        )
    from ..diffusioncleft_core.dataset.folder_consent import usual_table

    metadata = args.metadata or usual_table(args.photos)
    arguments = {
        "photos": str(args.photos.resolve()),
        "metadata": str(metadata.resolve()) if metadata else None,
        "condition": args.condition,
        "vocabulary": str(args.vocabulary.resolve()) if args.vocabulary else None,
        "faces": args.faces or ("phantom" if args.phantom else DEFAULT_FACES),
        "apart_from": [str(path.resolve()) for path in args.apart_from],
        "settings": {
            "holdout": args.holdout,
            "seed": args.seed,
            "min_side": args.min_side,
            "bracketed": not args.bare_trigger,
            "whole_captions": not args.clinical_captions,
            "phantom": args.phantom,
        }
        | ({"max_side": args.max_side} if args.max_side is not None else {})
        | ({"same_person": args.same_person} if args.same_person is not None else {}),
    }
    _summary(_build_with(args.out, arguments), args.phantom)
    if args.allow_edits:
        _allow(args.out, True)
    return 0


def _build_with(out: Path, arguments: dict[str, Any]) -> BuildResult:
    """Build with recorded arguments. Mistakes in the arguments stop it before the face models are opened."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from ..diffusioncleft_core.dataset.build import build_dataset
    from ..diffusioncleft_core.dataset.settings import BuildSettings, Photographs
    from ..diffusioncleft_core.dataset.unopened import look_through
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
    from ..diffusioncleft_core.run.withdrawal import note_change, reach_studies

    def consent_changed(change: ConsentChange) -> None:
        for message in note_change(out, change):
            warn(message)

    settings = BuildSettings(**arguments["settings"])
    vocabulary = load_vocabulary(Path(arguments["vocabulary"]) if arguments["vocabulary"] else None)
    condition = vocabulary.condition(arguments["condition"])
    photos = Path(arguments["photos"])
    metadata = Path(arguments["metadata"]) if arguments["metadata"] else None
    photographs = Photographs(photos, metadata, [Path(path) for path in arguments["apart_from"]])
    look_through(photographs, condition, dataset=out, form=settings.caption_form)
    faces = load_face_analyzer(arguments["faces"])
    try:
        return build_dataset(
            photographs,
            condition,
            out,
            faces,
            settings=settings,
            arguments=arguments,
            on_change=consent_changed,
        )
    finally:  # a build that no photograph may enter any more stops, too
        for message in reach_studies(out):
            warn(message)


def _summary(result: BuildResult, phantom: bool) -> None:
    from ..diffusioncleft_core.imageset.decode import OVERRULABLE, REASONS

    for warning in (*result.notices, *result.warnings):
        warn(warning)
    print(
        f"{result.folder}: {counted(len(result.rows), 'photograph')} of {counted(result.subjects, 'subject')}"
    )
    print(f"  train {result.count('train')}, held out {result.count('holdout')}")
    print(f"  opened {result.examined}, unchanged {result.reused}, withdrawn and erased {result.erased}")
    if result.set_aside:
        print(f"  set aside {len(result.set_aside)}:")
        for reason, count in result.reasons.items():
            back = " (can be taken back)" if reason in OVERRULABLE else ""
            print(f"    {count:5d}  {reason}: {REASONS[reason]}{back}")
        print(f"  their names: diffusioncleft dataset show {shlex.quote(str(result.folder))} --list")
    base = "--phantom --resolution 128" if phantom else "--pretrained_model_name_or_path FLUX.1-schnell"
    folder = shlex.quote(str(result.folder))
    print(f"next: diffusioncleft train {base} --train_data_dir {folder} --output_dir loras")


def _show(args: argparse.Namespace) -> int:
    from collections import Counter

    from ..diffusioncleft_core.dataset.corrections import read_set_aside
    from ..diffusioncleft_core.dataset.folder import dataset_rows, require_dataset

    folder = require_dataset(args.folder)
    rows = dataset_rows(folder)
    roles = Counter(row.role or "none" for row in rows)
    subjects = counted(len({row.subject for row in rows}), "subject")
    print(f"{folder}: {counted(len(rows), 'photograph')} of {subjects}")
    columns = sorted(roles)
    table = {"photographs": roles}
    for name in dict.fromkeys(name for row in rows for name in row.attributes):
        for value in sorted({row.attributes.get(name, "") for row in rows} - {""}):
            having = (row.role or "none" for row in rows if row.attributes.get(name) == value)
            table[f"{name}: {value}"] = Counter(having)
    width = max(24, *map(len, table))
    print(f"  {'':{width}}" + "".join(f"{name:>10}" for name in columns))
    for label, counts in table.items():
        print(f"  {label:{width}}" + "".join(f"{counts[column]:10d}" for column in columns))
    aside = read_set_aside(folder)
    print(f"set aside: {len(aside)}")
    for reason, count in Counter(item.reason for item in aside).most_common():
        print(f"  {count:5d}  {reason}")
    if args.list:
        for item in aside:
            back = " (can be taken back)" if item.overrulable else ""
            print(f"  {item.file}: {item.reason}: {item.detail}{back}")
    return 0


def _readmit(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.dataset.corrections import readmit
    from ..diffusioncleft_core.dataset.folder import SETTINGS
    from ..diffusioncleft_core.files import read_json

    for file in args.file:
        item = readmit(args.folder, file)
        print(f"{item.file}: {item.reason} is overruled")
    described = args.folder / SETTINGS
    arguments = read_json(described).get("arguments") if described.is_file() else None
    if not arguments:
        print("next: build the dataset again with the same command")
        return 0
    _summary(_build_with(args.folder, arguments), arguments["settings"]["phantom"])
    return 0


def _allow_edits(args: argparse.Namespace) -> int:
    _allow(args.folder, not args.off)
    return 0


def _allow(folder: Path, allowed: bool) -> None:
    from ..diffusioncleft_core.dataset.corrections import allow_edits

    allow_edits(folder, allowed)
    word = "may" if allowed else "can't"
    print(f"{folder}: whoever reaches a ComfyUI server that lists it {word} change its captions")


def _restore_captions(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.dataset.corrections import restore_captions

    print(f"{args.folder}: {counted(restore_captions(args.folder), 'caption')} restored")
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.imageset.places import named
    from ..diffusioncleft_core.run.withdraw_arguments import read_given
    from ..diffusioncleft_core.run.withdrawal import (
        described,
        erase_held,
        find_chosen,
        find_withdrawn,
        in_stores,
    )

    held, unknown = find_withdrawn(args.folders)
    chosen = find_chosen(args.folders, held)
    going = [*held, *chosen] if args.chosen else held
    for message in [*unknown, *in_stores(args.folders, going)]:
        warn(message)
    if chosen:
        print("chosen by photographs whose consent was withdrawn (early stop), learned nothing from them:")
        for line in described(chosen):
            print(f"  {line}")
        print("these go too" if args.chosen else "these may still be used; --chosen erases them too")
    if not going:
        where = ", ".join(map(str, args.folders))
        if unknown:
            raise UserError(f"nothing in {where} is marked as withdrawn, which says no more than the warning")
        print(f"nothing in {where} holds a photograph whose consent was withdrawn")
        if not read_given(args.folders).datasets:
            print("no dataset lies there, so no table was read: a consent counts once its dataset is built")
        return 0
    if held:
        print("made from photographs whose consent was withdrawn:")
    for line in described(held):
        print(f"  {line}")
    if not agreed(args, "all of this is erased for good; give --yes to do it", "Erase all of this for good?"):
        return 1
    erased = erase_held(going)
    print(f"erased {erased.files} files; the same run makes anew what it lacks, without these photographs")
    for folder, names in erased.left.items():
        print(f"left in {folder}: what is not diffusioncleft's: {named(names)}")
    return 0


def _purge(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.dataset.folder import count_derived, purge_dataset
    from ..diffusioncleft_core.report.nearest import forget_dataset
    from ..diffusioncleft_core.run.withdrawal import withdraw_dataset

    count = count_derived(args.folder)
    refusal = f"purge erases {counted(count, 'file')} in {args.folder} for good; give --yes to do it"
    question = f"Erase {counted(count, 'derived file')} in {args.folder} for good? The photographs stay."
    if not agreed(args, refusal, question):
        return 1
    if not args.consent_stands:
        for message in withdraw_dataset(args.folder):
            warn(message)
    forget_dataset(args.folder)
    result = purge_dataset(args.folder)
    print(f"erased {counted(result.erased, 'file')}; the photographs were not touched")
    if result.left:
        print(f"left in {args.folder}, not made by diffusioncleft: {', '.join(result.left)}")
    return 0
