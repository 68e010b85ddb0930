"""`diffusioncleft weights`: the external models, their licences, and whether they are here and sound."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError

if TYPE_CHECKING:
    from ..diffusioncleft_core.weights.registry import Found, Model

HELP = "external models: which are here, are they sound, and get one (the only command that goes online)"
EXAMPLES = """\
examples:
  diffusioncleft weights list
  diffusioncleft weights verify inception-fid lpips-alexnet
  diffusioncleft weights fetch inception-fid
  diffusioncleft weights fetch buffalo_l --dir usb/weights

For a machine without internet: fetch with --dir on another one, copy that folder, and name it with --dir or
the environment variable DIFFUSIONCLEFT_WEIGHTS. Only `fetch` opens a connection. docs/weights.md lists the
places.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "verify", "fetch"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default for list and verify: all)")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="an own folder of weights, searched first")


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.weights.registry import find_entry, read_registry

    models = read_registry()
    chosen = [find_entry(name, models) for name in args.names] or models
    if args.action == "fetch":
        if not args.names:
            raise UserError("say which model to fetch; diffusioncleft weights list shows the names")
        for model in chosen:
            fetch(model, args.dir)
        return 0
    return verify(chosen, args.dir) if args.action == "verify" else show(chosen, args.dir)


def show(models: list[Model], own: Path | None) -> int:
    """Print what each model is for, its licence, and where it lies."""
    from ..diffusioncleft_core.weights.registry import find_model, looked_for

    for model in models:
        found = find_model(model, own)
        print(f"{model.name}  {state_of(found)}")
        print(f"    for       {model.purpose}")
        print(f"    licence   {licence_of(model)}")
        for name, path in found.files.items():
            print(f"    {'file':<9} {name}: {path}")
        for name in found.missing if found.files else ():
            print(f"    {'missing':<9} {name}")
        for folder in () if found.complete else looked_for(model, own):
            print(f"    {'looked in':<9} {folder}")
    return 0


def licence_of(model: Model) -> str:
    """The licence, with what else must be known of it."""
    return f"{model.licence} ({model.remark})" if model.remark else model.licence


def state_of(found: Found) -> str:
    """`found in torch hub`, `incomplete in HF cache`, `missing`."""
    if not found.files:
        return "missing"
    return f"{'found' if found.complete else 'incomplete'} in {found.place}"


def verify(models: list[Model], own: Path | None) -> int:
    """Hash what is there; status 1 when a file is not the pinned one."""
    from ..diffusioncleft_core.weights.registry import find_model
    from ..diffusioncleft_core.weights.registry import verify as verdicts_of

    wrong = 0
    for model in models:
        found = find_model(model, own)
        if not found.files:
            print(f"{model.name}  missing")
        for verdict in verdicts_of(found):
            wrong += verdict.state == "wrong"
            print(f"{model.name}  {verdict.state}  sha256 {verdict.sha256}  {verdict.path}")
        for name in found.missing if found.files else ():
            print(f"{model.name}  missing  {name}")
    if wrong:
        print(f"{wrong} wrong: delete them, then run diffusioncleft weights fetch")
    return 1 if wrong else 0


def fetch(model: Model, own: Path | None) -> None:
    """Get a model, and say where it lies and how it comes to a machine without internet."""
    from ..diffusioncleft_core.weights.fetch import fetch_model

    print(f"{model.name}: {model.purpose}; licence: {licence_of(model)}")
    paths = fetch_model(model, own)
    for path in paths:
        print(f"    {path}")
    if own is not None:
        print(f"    for another machine: copy {own} there and set DIFFUSIONCLEFT_WEIGHTS to it")
    else:
        print("    for a machine without internet: copy these to the same places there, or fetch with --dir")
