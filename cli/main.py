"""The command line: one command a stage."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ..diffusioncleft_core import __version__
from ..diffusioncleft_core.environment import keep_freed_memory
from ..diffusioncleft_core.errors import UserError, system_sentence
from ..diffusioncleft_core.interruption import interrupt
from ..diffusioncleft_core.text import nearest

COMMANDS = {
    "run": ".run",
    "dataset": ".dataset",
    "train": ".train",
    "sweep": ".sweep",
    "generate": ".generate",
    "filter": ".filter",
    "prompt": ".prompt",
    "plan": ".plan",
    "measure": ".measure",
    "export": ".export",
    "import": ".import_set",
    "audit": ".audit",
    "downstream": ".downstream",
    "report": ".report",
    "study": ".study",
    "lora": ".lora",
    "phantom": ".phantom",
    "doctor": ".doctor",
    "comfy": ".comfy",
    "weights": ".weights",
}

WITH_STORES = ("export", "import")
"""Commands that reach stores behind URLs."""

DESCRIPTION = "Synthetic faces with cleft lip: from a folder of photographs to LoRAs and new faces."
EXAMPLES = """\
examples:
  diffusioncleft run --phantom --out demo
  diffusioncleft dataset build photos --metadata photos/metadata.csv --condition pre_op --out private/pre_op
  diffusioncleft COMMAND --help

Where standard error is no terminal, progress is a line every half a minute; DIFFUSIONCLEFT_PROGRESS=1 prints
more of them, DIFFUSIONCLEFT_PROGRESS=0 none.
DIFFUSIONCLEFT_DEBUG=1 prints the traceback of a user's mistake too.
"""
INTERRUPTED = "interrupted; run the same command again to go on"


class _Parser(argparse.ArgumentParser):
    """Prints a user's mistake as one line, without the usage block above it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done; 1: a fault of ours; 2: a user's mistake; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # On some processors bitsandbytes warns of a package that nothing here needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if argv is None:
        keep_freed_memory()
        for name in ("SIGINT", "SIGTERM"):  # SIGTERM is a scheduler's way of saying Ctrl-C
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), interrupt)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        sentence = system_sentence(error)
        if sentence is None:
            raise
        return _fail(sentence)


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        _refuse_stores(name, arguments[1:])
        command = _load(name)
        parser = _command_parser(name, command)
        status = command.run(parser.parse_args(respelled(parser, arguments[1:])))
        return int(status or 0)
    if name and not name.startswith("-"):
        near = nearest(name, COMMANDS)
        hint = f"did you mean {near!r}?" if near else f"choose one of: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {name!r}; {hint}")
    if name in ("--version", "-V"):
        print(f"diffusioncleft {__version__}")
        return 0
    parser = _top_parser()
    parser.parse_args(arguments)
    parser.print_help()
    return 0 if arguments else 2


def _refuse_stores(name: str, arguments: Sequence[str]) -> None:
    """Raise UserError for the URL of a store where a command would take it for a folder's name."""
    given = [argument.rpartition("=")[2] for argument in arguments if "://" in argument]
    if not given or name in WITH_STORES:
        return
    from ..diffusioncleft_core.imageset.storage import store_protocol

    for argument in given:
        if protocol := store_protocol(argument):
            raise UserError(
                f"'{name}' reads and writes folders; bring a set from {protocol}:// with 'diffusioncleft "
                "import', and there with 'diffusioncleft export'"
            )


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {_load(name).HELP}" for name in COMMANDS)
    parser = _Parser(
        prog="diffusioncleft",
        usage="diffusioncleft COMMAND ...",
        description=f"{DESCRIPTION}\n\ncommands:\n{listing}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="store_true", help="show the version and exit")
    return parser


def _command_parser(name: str, command: Any) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"diffusioncleft {name}",
        description=command.HELP,
        epilog=command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    return parser


def respelled(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments with every long option spelt as the parser knows it: `--a_b` and `--a-b` are one.

    Our options have dashes; the trainer's have kohya's underscores. Values stay as they are, and so does what
    follows a bare `--`.
    """
    known = option_strings(parser)
    by_dashes = {name.replace("_", "-"): name for name in known}
    spelt: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*spelt, *arguments[position:]]
        name, equals, value = argument.partition("=")
        if name.startswith("--") and name not in known:
            name = by_dashes.get(name.replace("_", "-"), name)
        spelt.append(f"{name}{equals}{value}")
    return spelt


def option_strings(parser: argparse.ArgumentParser) -> set[str]:
    """All option strings of a parser and of its subcommands."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found |= option_strings(below)
    return found


def _load(name: str) -> Any:
    return importlib.import_module(COMMANDS[name], __package__)


def _fail(message: str) -> int:
    """Print the message as one line and return 2."""
    if os.environ.get("DIFFUSIONCLEFT_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    print(f"diffusioncleft: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
