"""The options that choose a condition and its attributes, shared by `prompt` and `plan`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..conditions import Condition


def add_condition_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the vocabulary file, the condition, and the form of the prompt."""
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="another vocabulary (TOML) than cleft lip's; docs/conditions.md tells how to write one",
    )
    parser.add_argument("--condition", metavar="NAME", help="pre_op, post_op, or another of the vocabulary")
    parser.add_argument("--list", action="store_true", help="list conditions, attributes, values and modes")
    parser.add_argument("--bare-trigger", action="store_true", help="CLP instead of [CLP]")
    parser.add_argument(
        "--extra", default="", metavar="TEXT", help="a phrase of your own before the closing one"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="folder of CLIP's tokenizer, to count tokens exactly (default: an estimate)",
    )


def add_attribute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to become of the attributes."""
    group = parser.add_argument_group("attributes (repeat as often as needed)")
    group.add_argument("--set", action="append", default=[], metavar="ATTRIBUTE=VALUE", help="fix: skin=dark")
    group.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="ATTRIBUTE=VALUE:W,…",
        help="draw with weights: subject=baby:3,girl:1",
    )
    group.add_argument("--omit", action="append", default=[], metavar="ATTRIBUTE", help="leave out: eyes")
    group.add_argument(
        "--draw", action="append", default=[], metavar="ATTRIBUTE", help="draw in addition: side"
    )
    parser.add_argument("--mode", default="paper", help="what is drawn and how (default paper; see --list)")


def condition_from(args: argparse.Namespace) -> Condition:
    """The condition that the options name."""
    from ..conditions import load_vocabulary

    vocabulary = load_vocabulary(args.vocabulary)
    if args.condition is None:
        raise UserError(f"--condition is missing; choose one of: {', '.join(vocabulary.conditions)}")
    return vocabulary.condition(args.condition)


def fixed_from(pairs: Iterable[str]) -> dict[str, str]:
    """`["skin=dark"]` -> `{"skin": "dark"}`."""
    return dict(_pairs(pairs, "--set", "skin=dark"))


def weights_from(pairs: Iterable[str]) -> dict[str, dict[str, Fraction]]:
    """`["subject=baby:3,girl:1"]` -> `{"subject": {"baby": 3, "girl": 1}}`."""
    example = "subject=baby:3,girl:1"
    weights: dict[str, dict[str, Fraction]] = {}
    for name, entries in _pairs(pairs, "--weight", example):
        for entry in entries.split(","):
            value, _, number = entry.rpartition(":")
            try:
                weights.setdefault(name, {})[value.strip()] = Fraction(number.strip())
            except (ValueError, ZeroDivisionError):
                raise UserError(f"--weight {name}={entries} can't be read; write it as {example}") from None
    return weights


def names_from(entries: Iterable[str]) -> list[str]:
    """`["eyes,skin", "side"]` -> `["eyes", "skin", "side"]`."""
    return [name.strip() for entry in entries for name in entry.split(",") if name.strip()]


def print_listing(args: argparse.Namespace) -> None:
    """Print what the vocabulary has to choose from."""
    from ..conditions import load_vocabulary

    vocabulary = load_vocabulary(args.vocabulary)
    chosen = [vocabulary.condition(args.condition)] if args.condition else vocabulary.conditions.values()
    for condition in chosen:
        print(f"{condition.name}: {condition.title}, trigger {condition.trigger}")
        width = max(map(len, condition.attributes))
        for name, values in condition.attributes.items():
            print(f"  {name:<{width}}  {', '.join(values)}")
        for mode in condition.modes.values():
            print(f"  mode {mode.name}: {mode.title}; draws {', '.join(mode.draw)}")


def tokenizer_from(folder: Path | None) -> Callable[[str], Any] | None:
    """CLIP's tokenizer from a local folder; None without one."""
    if folder is None:
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder} holds no tokenizer that can be read; give the folder with CLIP's tokenizer files"
        ) from error
    return lambda text: tokenizer(text, truncation=False, verbose=False)


def warn(message: str) -> None:
    """Print one warning line to standard error."""
    print(f"diffusioncleft: warning: {message}", file=sys.stderr, flush=True)


def _pairs(entries: Iterable[str], option: str, example: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for entry in entries:
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or not value:
            raise UserError(f"{option} {entry!r} can't be read; write it as {option} {example}")
        if name in dict(pairs):
            raise UserError(f"{option} names {name} twice; keep one")
        pairs.append((name, value))
    return pairs
