"""`diffusioncleft study`: the rater study, from pictures to figures."""

from __future__ import annotations

import argparse
import importlib

HELP = "let people rate pictures without knowing where each is from: make a study, serve it, analyse it"
EXAMPLES = """\
examples:
  diffusioncleft study create demo --out study
  diffusioncleft study create --set generated=pictures --set real=private/pre_op --out study
  diffusioncleft study serve study
  diffusioncleft study invite study "Dr. Garcia"
  diffusioncleft study analyse study
  diffusioncleft study analyse --ratings ratings.csv --out results
  diffusioncleft study plan --real 25 --raters 6
  diffusioncleft study close study

docs/study.md tells the whole of it.
"""
SUBCOMMANDS = (
    "plan",
    "create",
    "serve",
    "invite",
    "analyse",
    "close",
)
"""Modules of `studies`, each with `add(commands)`, which declares its parsers and sets their `run`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    for name in SUBCOMMANDS:
        importlib.import_module(f".studies.{name}", __package__).add(commands)


def run(args: argparse.Namespace) -> int:
    """Run one subcommand."""
    status: int = args.run(args)
    return status
